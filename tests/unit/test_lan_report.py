"""What Pacemaker is told and asked, and that its silence stops nobody."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from asha.cluster import site as conf
from asha.lan import __main__ as program
from asha.lan.report import Cluster

STATE = """\
<pacemaker-result api-version="2.38" request="crm_mon">
  <summary><current_dc present="true" name="crm1" with_quorum="true"/>
    <cluster_options maintenance-mode="{maintenance}"/></summary>
  <resources><resource id="p_ip" resource_agent="ocf:heartbeat:IPaddr2" role="{role}"
    active="true" failed="{failed}" blocked="false" managed="{managed}"{pending}>
    <node name="{node}"/></resource></resources>
</pacemaker-result>
"""
WELL = {"maintenance": "false", "role": "Started", "failed": "false", "managed": "true",
        "pending": "", "node": "crm1"}


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Pacemaker's, which write down how they were called."""
    for name in ("attrd_updater", "crm_mon", "crm_resource"):
        tool = tmp_path / name
        tool.write_text(f'#!/bin/sh\necho "{name} $*" >>"{tmp_path}/calls"\n'
                        f'[ ! -e "{tmp_path}/broken" ] || {{ echo broken >&2; exit 1; }}\n'
                        f'[ "{name}" != crm_mon ] || cat "{tmp_path}/state"\n'
                        f'[ "$1 $2" != "--query --all" ] || cat "{tmp_path}/disks"\n')
        tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return tmp_path


def calls(tools: Path) -> list[str]:
    return (tools / "calls").read_text().splitlines()


def test_the_attribute(tools: Path) -> None:
    cluster = Cluster("crm1")
    assert cluster.tell("no-carrier")
    assert cluster.withdraw()
    assert calls(tools) == ["attrd_updater --name asha-lan --update no-carrier",
                            "attrd_updater --name asha-lan --delete"]


def test_the_address_is_failed_by_name(tools: Path) -> None:
    assert Cluster("crm1").fail_address()
    assert calls(tools) == ["crm_resource --fail --resource p_ip --node crm1"]


@pytest.mark.parametrize(("changes", "believes"), [
    ({}, True),
    ({"node": "CRM1"}, True),  # corosync's spelling of the name
    ({"node": "crm2"}, False),
    ({"managed": "false"}, False),
    ({"maintenance": "true"}, False),
    ({"pending": ' pending="Stopping"'}, False),
    ({"pending": ' pending="Monitoring"'}, True),
    ({"failed": "true"}, False),  # it knows already
    ({"role": "Stopping"}, False),
])
def test_what_pacemaker_believes(tools: Path, changes: dict[str, str], believes: bool) -> None:
    (tools / "state").write_text(STATE.format(**{**WELL, **changes}))
    assert Cluster("crm1").has_address() is believes


TWO_NODES = """\
<pacemaker-result api-version="2.38" request="crm_mon">
  <summary><current_dc present="true" name="crm1" with_quorum="true"/>
    <cluster_options maintenance-mode="{maintenance}"/></summary>
  <nodes><node name="crm1" online="true" standby="false"/>
    <node name="crm2" online="{online}" standby="{standby}"/></nodes>
  <resources><resource id="p_drbd" role="{role}" active="true" failed="false" managed="true">
    <node name="crm2"/></resource>
    <resource id="p_asterisk" role="Started" active="true" failed="false" managed="{managed}">
    <node name="crm1"/></resource>
    <resource id="p_mysql" role="Started" active="true" failed="false" managed="{beside}">
    <node name="crm1"/></resource></resources>
  <node_attributes><node name="crm1"><attribute name="asha-lan" value="no-carrier"/></node>
    <node name="crm2"><attribute name="asha-lan" value="{lan}"/></node></node_attributes>
</pacemaker-result>
"""
BETTER = {"maintenance": "false", "online": "true", "standby": "false", "role": "Unpromoted",
          "managed": "true", "lan": "ok", "beside": "true"}
DISKS = ('name="master-p_drbd" host="CRM1" value="10000"\n'
         'name="master-p_drbd" host="crm2" value="{}"\n')


@pytest.mark.parametrize(("changes", "leave"), [
    ({}, True),
    ({"lan": "no-carrier"}, False),
    ({"lan": "unsteady"}, False),
    ({"role": "Stopped"}, False),
    ({"online": "false"}, False),
    ({"standby": "true"}, False),
    ({"managed": "false"}, False),
    ({"maintenance": "true"}, False),
    ({"beside": "false"}, False),  # nobody would start it again
])
def test_whether_the_telephones_leave(tools: Path, changes: dict[str, str], leave: bool) -> None:
    (tools / "disks").write_text(DISKS.format(10000))
    (tools / "state").write_text(TWO_NODES.format(**{**BETTER, **changes}))
    assert Cluster("crm1").is_left_for_another() is leave
    # To the other node its own LAN is no reason.
    assert not Cluster("crm2").is_left_for_another()


def test_disks_that_are_as_good(tools: Path) -> None:
    """They need not have the very same score."""
    (tools / "state").write_text(TWO_NODES.format(**BETTER))
    (tools / "disks").write_text(DISKS.format(9990))
    assert Cluster("crm1").is_left_for_another()


@pytest.mark.parametrize("disks", [
    DISKS.format(0), DISKS.format(1000),  # a resync is under way
    DISKS.format("-INFINITY"), DISKS.format("x"), DISKS.format("9" * 5000),
    DISKS.splitlines()[0], "no such attribute\n", "",
])
def test_the_telephones_stay_with_the_better_disk(tools: Path, disks: str) -> None:
    """Pacemaker moves nothing then, and nothing is asked to end."""
    (tools / "state").write_text(TWO_NODES.format(**BETTER))
    (tools / "disks").write_text(disks)
    assert not Cluster("crm1").is_left_for_another()


@pytest.mark.parametrize(("said", "better"), [
    ('name="asha-lan" host="crm1" value="ok"\n', False),
    ('name="asha-lan" host="crm1" value="no-carrier"\n'
     'name="asha-lan" host="crm2" value="ok"\n', True),
    ('name="asha-lan" host="crm2" value="unsteady"\n', False),
    ("", False),
])
def test_the_other_nodes_lan(tools: Path, said: str, better: bool) -> None:
    (tools / "attrd_updater").write_text(f"#!/bin/sh\nprintf '{said}'\n")
    assert Cluster("crm1").has_better_lan() is better


def test_an_answer_that_is_none(tools: Path) -> None:
    (tools / "state").write_text("<crm_mon")
    assert Cluster("crm1").has_address() is None
    assert not Cluster("crm1").is_left_for_another()


def test_a_silent_pacemaker_is_complained_of_once(
    tools: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster = Cluster("crm1")
    (tools / "broken").touch()
    assert not cluster.tell("ok")
    assert not cluster.fail_address()
    assert cluster.has_address() is None
    assert capsys.readouterr().err.count("does not hear") == 1
    (tools / "broken").unlink()
    assert cluster.tell("ok")
    (tools / "broken").touch()
    assert not cluster.tell("ok")
    assert "attrd_updater: broken" in capsys.readouterr().err


def test_without_pacemakers_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    cluster = Cluster("crm1")
    assert not cluster.tell("ok")
    assert not cluster.withdraw()


SITE = (Path(__file__).parents[2] / "docs/examples/asha.conf").read_text()


@pytest.mark.parametrize(("text", "told"), [
    (SITE + "LANWATCH=false\n", ["attrd_updater --name asha-lan --delete"]),
    ("PRIMARY=what\n", []),
])
def test_where_nothing_is_to_be_watched_it_waits_for_another_asha_conf(
    tools: Path, monkeypatch: pytest.MonkeyPatch, text: str, told: list[str]
) -> None:
    path = tools / "asha.conf"
    path.write_text(text)
    (tools / "calls").touch()
    waits = []

    def changed_meanwhile(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 2:
            path.write_text(SITE)
            os.utime(path, ns=(1, 1))

    monkeypatch.setattr("asha.lan.__main__.time.sleep", changed_meanwhile)
    assert program.main(str(path)) == 0
    assert waits == [program.WAIT] * 2
    assert calls(tools) == told


def test_it_watches_until_asha_conf_changes(
    tools: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tools / "asha.conf"
    path.write_text(SITE + "BNODELAN=192.168.1.12\n")
    seen: list[object] = []

    class Watching:
        def __init__(self, nic: str, virtual: str, peer: str, cluster: Cluster) -> None:
            seen.extend((nic, virtual, peer, cluster.node))

        def run(self, goes_on: object) -> None:
            assert callable(goes_on)
            seen.append(goes_on())
            path.unlink()
            seen.append(goes_on())

    monkeypatch.setattr(program, "Watcher", Watching)
    assert program.main(str(path)) == 0
    assert seen == ["eth0", "192.168.1.90", "192.168.1.12", "crm1", True, False]


@pytest.mark.parametrize(("status", "told"), [
    ("TERM", ["attrd_updater --name asha-lan --delete"]),
    ("KILL", []),
    ("0", []),
])
def test_only_a_stop_in_order_withdraws_what_was_told(
    tools: Path, monkeypatch: pytest.MonkeyPatch, status: str, told: list[str]
) -> None:
    (tools / "calls").touch()
    monkeypatch.setenv("EXIT_STATUS", status)
    assert program.ended() == 0
    assert calls(tools) == told


def test_one_nic_cannot_tell_whose_lan_it_is() -> None:
    values = dict(line.split("=", 1) for line in SITE.splitlines() if line[0] != "#")
    assert conf.site_of(values).watches_lan
    one = {**values, "USENIC1": "false", "CLUSTERIP": "10.0.3.90", "LANWATCH": "true"}
    assert not conf.site_of(one).watches_lan
    assert not conf.site_of({**values, "LANWATCH": "no"}).watches_lan
