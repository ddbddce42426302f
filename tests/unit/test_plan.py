"""The plan: made of the site and what was found, asking no machine; and the second node's."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from asha.bootstrap import facts, plan
from asha.bootstrap.facts import Facts
from asha.bootstrap.join import client, nodelist
from asha.bootstrap.preflight import checks
from asha.bootstrap.steps import link_address
from asha.cluster import drbd
from asha.cluster import site as conf
from asha.cluster.secret import Secret
from asha.commands import install
from asha.commands import plan as command
from asha.errors import UserError
from asha.machine import UnknownMachine
from tests.fakes.machine import FakeMachine

EXAMPLE = Path(__file__).parents[2] / "docs/examples/asha.conf"
SECRET = Secret(bytes(range(32)))
CONF = """PRIMARY={first}
CLUSTERIP=192.168.1.90
ANODENAME=crm1
ANODEIP=10.0.3.251
BNODENAME=crm2
BNODEIP=10.0.3.252
BNODELAN=192.168.1.12
DRBDDEV=/dev/sda5
"""


def run_plan(monkeypatch: pytest.MonkeyPatch, machine: FakeMachine, *words: str) -> int:
    monkeypatch.setattr(command, "Machine", lambda: machine)
    parser = argparse.ArgumentParser()
    command.arguments(parser)
    return command.run(parser.parse_args(words))


@pytest.mark.parametrize("first", ["true", "false"])
def test_the_plan_for_another_machine_asks_none_and_refuses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], first: str
) -> None:
    machine = FakeMachine(tmp_path, {"uname -n": "laptop\n"})
    file = tmp_path / "asha.conf"
    file.write_text(CONF.format(first=first))
    assert run_plan(monkeypatch, machine, "--config", str(file)) == 0
    said = capsys.readouterr().out
    assert machine.lines == ["uname -n"]
    assert "CANNOT" not in said
    assert said.startswith("This machine is neither crm1 nor crm2.")
    steps = [line.split()[1] for line in said.splitlines() if line.startswith("== ")]
    assert steps == (["10", "20", "30", "50", "70"] if first == "true" else ["10", "20", "50"])
    assert "+iface eth1 inet static" in said
    assert "mariadb.service.d/asha.conf" in said
    assert (" ring0_addr: 10.0.3.251" in said) == (first == "true")


def test_the_shared_secret_alone_is_hidden(tmp_path: Path) -> None:
    site = conf.parse(EXAMPLE.read_text())
    shown = plan.describe(plan.steps(site, Facts("crm1"), SECRET), FakeMachine(tmp_path))
    assert "+resource asha {" in shown
    assert '+        shared-secret "(not shown)";' in shown
    for hidden in (SECRET.drbd(), SECRET.ami(), SECRET.corosync_authkey(), SECRET.typed):
        assert hidden not in shown


def test_an_old_shared_secret_is_hidden_as_well(tmp_path: Path) -> None:
    site = conf.parse(EXAMPLE.read_text())
    machine = FakeMachine(tmp_path)
    machine.put(drbd.CONF, 'resource asha {\n shared-secret "hunter2";\n shared-secret hunter3;\n}')
    shown = plan.describe(plan.steps(site, Facts("crm1"), SECRET), machine)
    assert "hunter" not in shown


def test_another_machine_has_no_files_and_no_programs() -> None:
    machine = UnknownMachine()
    assert machine.read("/etc/passwd") is None
    assert not machine.exists("/etc")
    assert not machine.has("sh")
    assert machine.output("uname", "-n") == ""


# The second node: the first one's LAN address is known before the plan is made.


@pytest.fixture
def second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeMachine:
    machine = FakeMachine(tmp_path)
    machine.put(conf.CONF, CONF.format(first="false"))
    monkeypatch.setattr(facts, "shared_facts", lambda *_: {})
    monkeypatch.setattr(checks, "look", lambda machine, site, here, other=None: [])
    return machine


def told(monkeypatch: pytest.MonkeyPatch, lan: object) -> None:
    monkeypatch.setattr(client, "ask_facts", lambda *words: {"name": "crm1", "lan": lan})


def test_the_second_learns_the_firsts_lan_address_before_it_plans(
    second: FakeMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    told(monkeypatch, "192.168.1.11")
    before = conf.parse(second.read(conf.CONF) or "")
    site = install._check(before, second, Facts("crm2"), SECRET)
    assert (site.there.lan, site.second_ring) == ("192.168.1.11", True)
    shown = plan.describe(plan.steps(site, Facts("crm1"), SECRET), second)
    assert 'iifname "eth0" ip saddr 192.168.1.11 udp dport 5406 accept' in shown
    # What is written when it has joined is what was planned.
    nodelist.remember(second, {"crm1": "192.168.1.11", "crm2": "192.168.1.12"})
    assert conf.parse(second.read(conf.CONF) or "") == site


@pytest.mark.parametrize("lan", ["", None])
def test_a_first_node_without_a_static_lan_address(
    second: FakeMachine, monkeypatch: pytest.MonkeyPatch, lan: object
) -> None:
    told(monkeypatch, lan)
    site = install._check(conf.parse(second.read(conf.CONF) or ""), second, Facts("crm2"), SECRET)
    assert not site.second_ring


@pytest.mark.parametrize("lan", ["10.9.9.9", "x; reboot", 7])
def test_a_lan_address_that_does_not_fit_is_refused_before_any_change(
    second: FakeMachine, monkeypatch: pytest.MonkeyPatch, lan: object
) -> None:
    told(monkeypatch, lan)
    before = second.read(conf.CONF)
    with pytest.raises(UserError, match="LAN address is invalid here"):
        install._check(conf.parse(before or ""), second, Facts("crm2"), SECRET)
    assert second.read(conf.CONF) == before


def test_a_step_reads_no_machine() -> None:
    site = conf.parse(CONF.format(first="true"))
    assert [one.title for one in link_address.actions(site, link_address.Found())] == [
        "eth1's address: /etc/network/interfaces.d/asha-link", "set eth1's address",
        "wait until eth1 has the address"]
