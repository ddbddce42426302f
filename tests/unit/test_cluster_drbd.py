"""DRBD: the resource file for 8.4 and 9, and the state as each of them tells it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from asha.cluster import drbd
from asha.cluster.drbd import Replication
from asha.cluster.secret import Secret
from asha.cluster.site import NodeConfig, Site
from tests.fakes.machine import FakeMachine, Outcome

SECRET = Secret(bytes(range(32)))
SITE = Site(
    first=NodeConfig("crm1", "10.0.3.251", "", 1),
    second=NodeConfig("crm2", "10.0.3.252", "", 2),
    is_first=True,
    two_nics=True,
    virtual_address="192.168.1.90",
    lan_prefix=24,
    lan_nic="eth0",
    link_nic="eth1",
    link_prefix=24,
    device="/dev/sda5",
)
VERSIONS = ("8.4.11", "9.2.8", "")

# Word for word from the manual of 2014.
MANUAL = """\
version: 8.3.11 (api:88/proto:86-96)
srcversion: F937DCB2E5D83C6CCE4A6C9 
 0: cs:SyncTarget ro:Secondary/Primary ds:Inconsistent/UpToDate C r-----
    ns:0 nr:459920 dw:459664 dr:0 al:0 bm:28 lo:3 pe:1279 ua:4 ap:0 ep:1 wo:f oos:2469104
	[==>.................] sync'ed: 15.9% (2469104/2928512)K
	finish: 0:01:47 speed: 22,896 (21,876) want: 30,720 K/sec
"""  # noqa: W291
STATES_84 = """\
version: 8.4.11 (api:1/proto:86-101)
srcversion: 1234567890ABCDEF1234567
 0: cs:{connection} ro:{roles} ds:{disks} C r-----
    ns:4 nr:0 dw:4 dr:8 al:1 bm:0 lo:0 pe:0 ua:0 ap:0 ep:1 wo:f oos:{oos}
 1: cs:SyncSource ro:Primary/Secondary ds:UpToDate/Inconsistent C r-----
    ns:0 nr:0 dw:0 dr:0 al:0 bm:0 lo:0 pe:0 ua:0 ap:0 ep:1 wo:f oos:99
	[>...................] sync'ed:  1.0% (99/100)M
	finish: 1:02:03 speed: 1 (1) K/sec
"""


def as_json(**changes: object) -> str:
    """As drbdsetup of drbd-utils 9.22 prints it (user/v9/drbdsetup.c)."""
    peer_device: dict[str, object] = {
        "volume": 0, "replication-state": "Established", "peer-disk-state": "UpToDate",
        "peer-client": False, "resync-suspended": "no", "received": 0, "sent": 548525,
        "out-of-sync": 0, "pending": 0, "unacked": 0, "has-sync-details": False,
        "has-online-verify-details": False, "percent-in-sync": 100.00,
    }
    connection: dict[str, object] = {
        "peer-node-id": 1, "name": "crm2", "connection-state": "Connected", "congested": False,
        "peer-role": "Secondary", "ap-in-flight": 0, "rs-in-flight": 0,
    }
    resource: dict[str, object] = {
        "name": "asha", "node-id": 0, "role": "Primary", "suspended": False,
        "write-ordering": "flush",
        "devices": [{
            "volume": 0, "minor": 0, "disk-state": "UpToDate", "client": False, "quorum": True,
            "size": 2928512, "read": 0, "written": 548525, "al-writes": 4, "bm-writes": 0,
            "upper-pending": 0, "lower-pending": 0,
        }],
    }
    for key, value in changes.items():
        name = key.replace("_", "-")
        for part in (peer_device, connection, resource):
            if name in part:
                part[name] = value
                break
        else:
            peer_device[{"speed": "db1/dt1 [MiB/s]"}.get(name, name)] = value
    return json.dumps([
        {"name": "other", "role": "Secondary", "devices": [], "connections": []},
        {**resource, "connections": [{**connection, "peer_devices": [peer_device]}]},
    ])


# The resource file.


def lines_of(version: str, site: Site = SITE) -> list[str]:
    return [line.strip() for line in drbd.render(site, SECRET, version).splitlines()]


@pytest.mark.parametrize("version", VERSIONS)
def test_says_what_both_versions_need(version: str) -> None:
    lines = lines_of(version)
    for line in (
        "resource asha {", "device /dev/drbd0 minor 0;", "disk /dev/sda5;", "meta-disk internal;",
        "protocol C;", "cram-hmac-alg sha256;", f'shared-secret "{SECRET.drbd()}";',
        "on crm1 {", "address 10.0.3.251:7788;", "on crm2 {", "address 10.0.3.252:7788;",
    ):
        assert line in lines
    text = drbd.render(SITE, SECRET, version)
    assert text.count("{") == text.count("}")


@pytest.mark.parametrize("version", VERSIONS)
def test_never_throws_data_away_by_itself(version: str) -> None:
    text = drbd.render(SITE, SECRET, version)
    policies = [line for line in lines_of(version) if line.startswith("after-sb-")]
    assert policies == [
        "after-sb-0pri discard-zero-changes;",
        "after-sb-1pri consensus;",
        "after-sb-2pri disconnect;",
    ]
    for safe in ("allow-two-primaries no;", "always-asbp no;", "rr-conflict disconnect;"):
        assert safe in lines_of(version)
    for dangerous in ("resource-and-stonith", "discard-younger", "discard-secondary",
                      "call-pri-lost", "violently"):
        assert dangerous not in text


def section_of(version: str, option: str) -> str:
    """In which section the option stands."""
    opened: list[str] = []
    for line in lines_of(version):
        if line.startswith(option):
            return opened[-1]
        if line.endswith("{"):
            opened.append(line.split()[0])
        elif line == "}":
            opened.pop()
    raise AssertionError(f"{option} is not there")


def test_fencing_is_where_each_version_wants_it() -> None:
    assert section_of("8.4.11", "fencing resource-only;") == "disk"
    assert section_of("9.2.8", "fencing resource-only;") == "net"
    assert section_of("", "fencing resource-only;") == "net"


@pytest.mark.parametrize("version", VERSIONS)
def test_an_inherited_handler_cannot_reset_the_node(version: str) -> None:
    """Every one that the kernel calls, but for those that only tell somebody."""
    both = ("pri-on-incon-degr", "pri-lost", "pri-lost-after-sb", "local-io-error", "fence-peer",
            "before-resync-target", "before-resync-source", "after-resync-target", "unfence-peer")
    for name in both if drbd.is_old(version) else (*both, "quorum-lost"):
        assert section_of(version, f"{name} ") == "handlers"


def test_what_only_9_takes() -> None:
    for version in ("9.2.8", ""):
        lines = lines_of(version)
        assert lines[lines.index("on crm1 {") + 2] == "node-id 0;"
        assert lines[lines.index("on crm2 {") + 2] == "node-id 1;"
        assert "auto-promote no;" in lines
        assert "quorum off;" in lines
        assert any(line.endswith('asha.fencing.handler fence";') for line in lines)
        assert any(line.startswith("unfence-peer ") for line in lines)
    old = drbd.render(SITE, SECRET, "8.4.11")
    for word in ("node-id", "auto-promote", "quorum", "allow-remote-read"):
        assert word not in old
    assert 'after-resync-target "/usr/bin/python3 -I -m asha.fencing.handler unfence";' in old


def test_both_nodes_write_the_same_but_for_their_own_disk() -> None:
    there = dataclasses.replace(SITE, is_first=False, device="/dev/vdb1")
    expected = drbd.render(SITE, SECRET, "9.2.8").replace("/dev/sda5", "/dev/vdb1")
    assert drbd.render(there, SECRET, "9.2.8") == expected


def test_a_replacement_of_the_first_keeps_its_node_id() -> None:
    turned = dataclasses.replace(SITE, first=SITE.second, second=SITE.first)
    assert drbd.render(turned, SECRET, "9.2.8") == drbd.render(SITE, SECRET, "9.2.8")


# Which DRBD.


def test_version_of_the_loaded_module(tmp_path: Path) -> None:
    machine = FakeMachine(tmp_path).put("/proc/drbd", MANUAL)
    assert drbd.version(machine) == "8.3.11"
    machine.put("/proc/drbd", "version: 9.2.8 (api:2/proto:86-122)\nTransports (api:21): tcp\n")
    assert drbd.version(machine) == "9.2.8"


def test_version_of_a_module_that_is_not_loaded(tmp_path: Path) -> None:
    machine = FakeMachine(tmp_path, {"modinfo -F version drbd": "8.4.11\n"})
    assert drbd.version(machine) == "8.4.11"


def test_no_module(tmp_path: Path) -> None:
    refuses = Outcome(code=1, err="modinfo: ERROR: Module drbd not found.")
    assert drbd.version(FakeMachine(tmp_path, {"modinfo": refuses})) == ""
    assert drbd.version(FakeMachine(tmp_path).absent("modinfo")) == ""
    assert not drbd.is_old("")


# The state.


def test_the_manuals_own_text() -> None:
    assert drbd.parse_proc(MANUAL, "8.3.11") == Replication(
        version="8.3.11",
        role="Secondary",
        peer_role="Primary",
        connection="SyncTarget",
        disk="Inconsistent",
        peer_disk="UpToDate",
        percent=15.9,
        out_of_sync=2469104,
        speed=22896,
        seconds_left=107,
    )


def proc(connection: str, roles: str, disks: str, oos: int) -> str:
    return STATES_84.format(connection=connection, roles=roles, disks=disks, oos=oos)


def test_another_resource_is_not_ours() -> None:
    text = proc("Connected", "Primary/Secondary", "UpToDate/UpToDate", 0)
    found = drbd.parse_proc(text, "8.4.11")
    assert found is not None
    assert found.is_whole
    assert not found.is_syncing
    assert (found.percent, found.out_of_sync, found.speed) == (100.0, 0, None)
    only_other = "version: 8.4.11\n 1: cs:Connected ro:Primary/Secondary ds:UpToDate/UpToDate C\n"
    assert drbd.parse_proc(only_other, "8.4.11") is None


def test_alone() -> None:
    text = proc("WFConnection", "Primary/Unknown", "UpToDate/DUnknown", 250)
    found = drbd.parse_proc(text, "8.4.11", size=1000)
    assert found is not None
    assert (found.percent, found.peer_role, found.peer_disk) == (75.0, "Unknown", "DUnknown")
    assert not found.is_connected
    assert not found.is_whole
    without = drbd.parse_proc(text, "8.4.11")
    assert without is not None
    assert without.percent is None


def test_a_stalled_sync_has_no_end() -> None:
    stalled = MANUAL.replace("finish: 0:01:47 speed: 22,896", "stalled speed: 0")
    found = drbd.parse_proc(stalled, "8.4.11")
    assert found is not None
    assert (found.seconds_left, found.speed) == (None, 0)


def test_a_long_sync() -> None:
    found = drbd.parse_proc(MANUAL.replace("0:01:47", "27:46:40"), "8.4.11")
    assert found is not None
    assert found.seconds_left == 100_000


def test_the_minor_without_a_resource() -> None:
    found = drbd.parse_proc("version: 8.4.11\n 0: cs:Unconfigured\n", "8.4.11")
    assert found == Replication("8.4.11")
    assert not found.is_up


def test_9_tells_it_in_json() -> None:
    found = drbd.parse_json(as_json(), "9.2.8")
    assert found == Replication(
        version="9.2.8", role="Primary", peer_role="Secondary", connection="Connected",
        disk="UpToDate", peer_disk="UpToDate", percent=100.0, out_of_sync=0,
    )
    assert found.is_whole


def test_9_while_syncing() -> None:
    found = drbd.parse_json(as_json(
        replication_state="SyncSource", peer_disk_state="Inconsistent", out_of_sync=2469104,
        percent_in_sync=15.69, percent_resync_done=15.9, speed=22.36,
        **{"estimated-seconds-to-finish": 107},
    ), "9.2.8")
    assert found is not None
    assert found.is_syncing
    assert found.is_connected
    assert not found.is_whole
    assert (found.connection, found.percent) == ("SyncSource", 15.9)
    assert (found.speed, found.seconds_left, found.out_of_sync) == (22897, 107, 2469104)


def test_9_does_not_know_the_end_yet() -> None:
    found = drbd.parse_json(as_json(
        replication_state="SyncTarget", **{"estimated-seconds-to-finish": 987654321}
    ), "9.2.8")
    assert found is not None
    assert found.seconds_left is None


def test_9_alone_and_in_split_brain() -> None:
    alone = drbd.parse_json(as_json(
        connection_state="Connecting", peer_role="Unknown", replication_state="Off",
        peer_disk_state="DUnknown", out_of_sync=732128, percent_in_sync=75.0,
    ), "9.2.8")
    assert alone is not None
    assert (alone.connection, alone.percent, alone.is_connected) == ("Connecting", 75.0, False)
    split = drbd.parse_json(as_json(connection_state="StandAlone", replication_state="Off"), "9")
    assert split is not None
    assert split.connection == "StandAlone"


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", "[1]", '[{"name": "asha"}]', "asha role"])
def test_what_is_no_json_of_ours_is_not_taken(text: str) -> None:
    assert drbd.parse_json(text, "9.2.8") is None


def test_asks_9_first_then_proc_then_drbdadm(tmp_path: Path) -> None:
    no = Outcome(code=20, err="drbdsetup: unrecognized option '--json'")
    machine = FakeMachine(tmp_path, {"drbdsetup status asha --json": as_json(),
                                     "modinfo": "9.2.8"})
    assert drbd.status(machine).connection == "Connected"
    machine.on("drbdsetup status asha --json", no).put("/proc/drbd", MANUAL)
    assert drbd.status(machine).percent == 15.9
    assert drbd.status(machine).version == "8.3.11"
    machine.remove("/proc/drbd")
    machine.on("modinfo", no)
    machine.on("drbdadm cstate asha", "WFConnection\n")
    machine.on("drbdadm role asha", "Primary/Unknown\n")
    machine.on("drbdadm dstate asha", "UpToDate/DUnknown\n")
    assert drbd.status(machine) == Replication(
        version="", role="Primary", connection="WFConnection", disk="UpToDate",
    )


def test_the_size_is_the_kernels(tmp_path: Path) -> None:
    machine = FakeMachine(tmp_path).absent("drbdsetup")
    machine.put("/proc/drbd", proc("WFConnection", "Primary/Unknown", "UpToDate/DUnknown", 250))
    machine.put("/sys/block/drbd0/size", "2000\n")
    assert drbd.status(machine).percent == 75.0


def test_nothing_there(tmp_path: Path) -> None:
    machine = FakeMachine(tmp_path).absent("drbdsetup", "drbdadm", "modinfo")
    assert drbd.status(machine) == Replication("")
    assert not drbd.status(machine).is_up
