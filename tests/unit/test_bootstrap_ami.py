"""The monitor's account in Asterisk's configuration."""

from __future__ import annotations

from pathlib import Path

import pytest

from asha.asterisk import configuration
from asha.asterisk.configuration import Section
from asha.asterisk.talk.ami import Credentials
from asha.bootstrap.action import Action
from asha.bootstrap.steps import asterisk, data
from asha.cluster.secret import Secret
from asha.machine import Machine
from asha.rootwork import Directory
from tests.unit.bootstrap_customer import Customer, customer, site

__all__ = ["customer"]

SECRET = Secret(bytes(range(32)))
TRANSPORT = "[transport-udp]\ntype = transport\nbind = 0.0.0.0\n"


def in_copy(machine: Customer) -> list[Action]:
    for one in data.actions(site(), data.look(machine)):
        one.do(machine, machine.say)
    return asterisk.actions(site(), SECRET)


def read(directory: Path, name: str, said: list[str] | None = None) -> list[Section]:
    with Directory.trusted(str(directory)) as here:
        return configuration.read(here, name, warn=(said if said is not None else []).append)


def manager(directory: Path, text: str, **more: str) -> str:
    directory.mkdir(exist_ok=True)
    (directory / "manager.conf").write_text(text)
    for name, other in more.items():
        (directory / f"{name}.conf").write_text(other)
    with Directory.trusted(str(directory)) as here:
        return asterisk.account_text(here, SECRET)


def test_the_agent_reads_what_is_written(tmp_path: Path) -> None:
    machine = Machine(str(tmp_path))
    (action,) = asterisk.actions(site(first=False), SECRET)
    action.do(machine, print)
    who = Credentials.read(str(tmp_path / "etc/asha/ami.secret"))
    assert who is not None
    assert (who.user, who.secret) == (asterisk.user(SECRET), SECRET.ami())
    assert SECRET.ami() not in action.preview(machine) + action.script()


def test_one_line_in_managers_file_and_a_file_of_our_own(customer: Customer) -> None:
    before = customer.read("/etc/asterisk/manager.conf")
    _own, account = in_copy(customer)
    assert not account.is_done(customer)
    account.do(customer, customer.say)
    account.do(customer, customer.say)
    assert account.is_done(customer)
    assert customer.read("/drbd/etc/asterisk/manager.conf") == (
        f"{before}#include asha_manager.conf\n")
    assert customer.read("/etc/asterisk/manager.conf") == before
    ours = customer.path("/drbd/etc/asterisk/asha_manager.conf")
    assert ours.stat().st_mode & 0o777 == 0o640
    sections = read(ours.parent, "manager.conf")
    assert sections[-1].name == asterisk.user(SECRET) == f"asha-{SECRET.key_id()}"
    assert sections[-1].get("secret") == SECRET.ami()
    assert SECRET.ami() not in account.preview(customer) + account.script()
    assert not any(SECRET.ami() in text for text in customer.said)


def test_an_account_of_an_earlier_copy_does_not_count(customer: Customer) -> None:
    _own, account = in_copy(customer)
    account.do(customer, customer.say)
    customer.remove("/var/lib/asha/handover.json")
    assert not account.is_done(customer)


def test_a_file_without_a_last_newline(customer: Customer) -> None:
    customer.put("/etc/asterisk/manager.conf", "[general]\nenabled=yes")
    _own, account = in_copy(customer)
    account.do(customer, customer.say)
    assert customer.read("/drbd/etc/asterisk/manager.conf") == (
        "[general]\nenabled=yes\n#include asha_manager.conf\n")


def test_no_asterisk_nothing_to_do(customer: Customer) -> None:
    customer.path("/etc/asterisk").rename(customer.path("/etc/other"))
    _own, account = asterisk.actions(site(), SECRET)
    assert account.is_done(customer)


@pytest.mark.parametrize("yes", ["yes", "TRUE", "on", "1"])
def test_a_manager_that_is_on_is_left_as_it_is(tmp_path: Path, yes: str) -> None:
    assert "[general]" not in manager(tmp_path, f"[general]\nenabled = {yes} ; here\n")


def test_a_manager_that_is_off_is_switched_on_for_this_machine_only(tmp_path: Path) -> None:
    text = manager(tmp_path, "[general]\n;enabled = yes\nenabled = no\nbindaddr = 0.0.0.0\n")
    assert "[general](+)\nenabled = yes\nbindaddr = 127.0.0.1\n" in text
    # Asterisk refuses to add to a section that is not there.
    assert "[general]\nenabled = yes\n" in manager(tmp_path, "[sark]\nsecret = x\n")


def test_it_may_be_switched_on_in_an_included_file(tmp_path: Path) -> None:
    text = "[general]\nenabled = no\n#include sark_manager.conf\n"
    assert "[general]" not in manager(
        tmp_path, text, sark_manager="[general](+)\nenabled = yes\n[sark]\nsecret = mysark\n")


def test_our_own_file_is_not_why_it_counts_as_on(tmp_path: Path) -> None:
    text = "[general]\nenabled = no\n#include asha_manager.conf\n"
    first = manager(tmp_path, text)
    assert manager(tmp_path, text, asha_manager=first) == first


def test_pjsip_gets_an_endpoint_where_it_listens(customer: Customer) -> None:
    customer.put("/etc/asterisk/pjsip.conf", TRANSPORT)
    _own, account = in_copy(customer)
    account.do(customer, customer.say)
    assert account.is_done(customer)
    sections = read(customer.path("/drbd/etc/asterisk"), "pjsip.conf")
    endpoint, identify = sections[-2:]
    assert endpoint.get("permit").endswith("192.168.1.90/255.255.255.255")
    assert identify.get("endpoint") == endpoint.name
    assert identify.get("match_header") == "User-Agent: ASHA"


@pytest.mark.parametrize(
    ("pjsip", "modules"),
    [(";[transport-udp]\n;type=transport\n", ""), ("", ""),
     (TRANSPORT, "[modules]\nautoload=yes\nnoload => chan_pjsip.so\n"),
     (";--\n" + TRANSPORT + "--;\n", "")],
)
def test_pjsip_is_left_alone_where_it_does_not(tmp_path: Path, pjsip: str, modules: str) -> None:
    (tmp_path / "pjsip.conf").write_text(pjsip)
    (tmp_path / "modules.conf").write_text(modules)
    with Directory.trusted(str(tmp_path)) as here:
        assert not asterisk.uses_pjsip(here)


def test_files_that_include_each_other_end(tmp_path: Path) -> None:
    (tmp_path / "a.conf").write_text("[a]\n#include \"b.conf\"\n#tryinclude c.d/*.conf\n")
    (tmp_path / "b.conf").write_text("[b]\n#include a.conf\n")
    assert {one.name for one in read(tmp_path, "a.conf")} == {"a", "b"}
