"""What the machine is, as its programs and files tell it; and whether two fit together."""

from __future__ import annotations

import errno
import json
import os
import stat
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from asha.bootstrap import facts
from asha.bootstrap.facts import Facts
from asha.bootstrap.firewall import backends
from asha.bootstrap.host import disks, nics
from asha.bootstrap.host.disks import Disk
from asha.bootstrap.host.nics import Address, Nic
from asha.bootstrap.preflight import peer
from asha.bootstrap.steps import link_address, systemd
from asha.cluster import site as conf
from asha.errors import UserError
from tests.fakes.machine import FakeMachine, Outcome

SITE = """PRIMARY=true
CLUSTERIP=192.168.1.90
ANODENAME=crm1
ANODEIP=10.0.3.251
BNODENAME=crm2
BNODEIP=10.0.3.252
DRBDDEV=/dev/sda5
"""


def interface(name: str, *addresses: dict[str, Any], kind: str = "", **more: Any) -> dict[str, Any]:
    """As `ip -json -details address` prints it."""
    return {
        "ifname": name, "link_type": "ether", "address": "52:54:00:00:00:01",
        "flags": ["BROADCAST", "MULTICAST", "UP", "LOWER_UP"],
        **({"linkinfo": {"info_kind": kind}} if kind else {}),
        "addr_info": [{"family": "inet", "scope": "global", **one} for one in addresses],
        **more,
    }


def test_nics_addresses_and_leases(tmp_path: Path) -> None:
    listed = [
        {"ifname": "lo", "link_type": "loopback", "flags": ["LOOPBACK", "UP"], "addr_info": []},
        interface("eth0", {"local": "192.168.1.11", "prefixlen": 23, "dynamic": True}),
        interface("eth1", flags=["BROADCAST"]),
    ]
    listed[1]["addr_info"] += [{"family": "inet6", "scope": "link", "local": "fe80::1",
                                "prefixlen": 64},
                               {"family": "inet", "scope": "link", "local": "169.254.0.9",
                                "prefixlen": 16}]
    machine = FakeMachine(tmp_path, {"ip -json -details address": json.dumps(listed)})
    eth0, eth1 = nics.read(machine)
    assert eth0.addresses == (Address("192.168.1.11", 23, dynamic=True),)
    assert eth0.up
    assert eth0.carrier
    assert eth1 == Nic("eth1", "52:54:00:00:00:01", up=False, carrier=False)
    home = eth0.in_network("192.168.0.7")
    assert home is not None
    assert home.prefix == 23
    assert eth0.in_network("192.168.2.7") is None


@pytest.mark.parametrize("what", [
    interface("docker0", kind="bridge"),
    interface("dummy0", kind="dummy"),
    interface("eth2", master="bond0"),
    interface("ifb0", flags=["BROADCAST", "NOARP"]),
    {"ifname": "ppp0", "link_type": "ppp", "flags": ["UP"], "addr_info": []},
])
def test_what_has_no_cable_is_no_nic(tmp_path: Path, what: dict[str, Any]) -> None:
    machine = FakeMachine(tmp_path, {"ip": json.dumps([what, interface("bond0", kind="bond")])})
    assert [nic.name for nic in nics.read(machine)] == ["bond0"]


def test_without_ip_there_are_no_nics(tmp_path: Path) -> None:
    assert nics.read(FakeMachine(tmp_path).absent("ip")) == ()
    assert nics.default_route_nic(FakeMachine(tmp_path, {"ip": "not json"})) == ""


def test_an_arp_packet_that_claims_an_address() -> None:
    mac, wanted = b"\x02\0\0\0\0\x07", bytes((192, 168, 1, 90))
    answer = nics.ARP_FORM.pack(1, 0x0800, 6, 4, 2, mac, wanted, bytes(6), bytes(4))
    assert nics._claims(answer, wanted) == mac
    assert nics._claims(answer + bytes(18), wanted) == mac  # padded to Ethernet's least
    assert nics._claims(answer, bytes((192, 168, 1, 91))) == b""
    assert nics._claims(answer[:20], wanted) == b""


def test_versions(tmp_path: Path) -> None:
    machine = FakeMachine(tmp_path, {
        # One package that is not known makes dpkg-query fail, and print the others.
        "dpkg-query": Outcome("pacemaker 2.1.5-1+deb12u1 installed\n"
                              "mariadb-server 1:10.11.19-0+deb12u1 installed\n"
                              "slapd 2.5.13 config-files\n", code=1),
        "asterisk -V": "Asterisk certified/18.9-cert5\n",
        "modinfo": "8.4.11\n",
    })
    assert facts.gather(machine).versions == {
        "pacemaker": "2.1.5", "mariadb-server": "10.11.19", "asterisk": "18.9", "drbd": "8.4.11",
    }


def test_the_loaded_drbd_counts_before_the_one_on_disk(tmp_path: Path) -> None:
    machine = FakeMachine(tmp_path, {"dpkg-query": "", "modinfo": "8.4.11\n"}).absent("asterisk")
    machine.put("/proc/drbd", "version: 9.2.8 (api:2/proto:86-122)\n")
    assert facts.gather(machine).versions == {"drbd": "9.2.8"}


def test_numbers_of_accounts(tmp_path: Path) -> None:
    machine = FakeMachine(tmp_path).put("/etc/passwd", "root:x:0:0::/:/bin/sh\n+::::::\nbroken\n"
                                                       "mysql:x:105:110::/:/bin/false\n")
    assert facts.numbers(machine, "/etc/passwd") == {"root": 0, "mysql": 105}
    assert facts.numbers(machine, "/etc/group") == {}


@pytest.mark.parametrize(("said", "means"), [("yes\n", True), ("no\n", False), ("", None)])
def test_clock(tmp_path: Path, said: str, means: bool | None) -> None:
    assert facts._synchronised(FakeMachine(tmp_path, {"timedatectl": said})) is means


def test_gather_on_a_machine_that_tells_nothing(tmp_path: Path) -> None:
    machine = FakeMachine(tmp_path).absent(
        "ip", "dpkg-query", "asterisk", "modinfo", "systemctl", "timedatectl")
    machine.on("uname -n", "crm1\n")
    found = facts.gather(machine)
    assert {one.name: getattr(found, one.name) for one in fields(Facts)} == {
        **vars(Facts("crm1", systemd=False, root=os.geteuid() == 0)),
        "link": link_address.Found(ifupdown=False, files={}), "firewall": backends.Found(),
        "services": systemd.Found((), {}), "drbd": "", "copied": (),
    }


def test_a_fact_is_asked_for_once_and_only_when_it_is_needed(tmp_path: Path) -> None:
    machine = FakeMachine(tmp_path, {"uname -n": "crm1\n", "ip": "[]"}).absent("systemctl")
    here = facts.gather(machine)
    assert machine.lines == []
    assert (here.name, here.name, here.nics, here.nic("eth0")) == ("crm1", "crm1", (), None)
    assert machine.lines == ["uname -n", "ip -json -details address"]
    assert here.link.nics is here.nics
    assert len(machine.ran("ip")) == 1


def test_no_fact_is_left_as_that_of_a_machine_not_looked_at() -> None:
    assert {one.name for one in fields(Facts)} <= vars(facts._Gathered).keys()


# Disks. A plain file stands for a device.


@pytest.fixture
def any_file_is_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disks, "is_block", lambda status: stat.S_ISREG(status.st_mode))


def device(machine: FakeMachine, path: str, size: int = 200 << 20) -> None:
    machine.put(path)
    os.truncate(machine.path(path), size)


@pytest.mark.usefixtures("any_file_is_a_device")
def test_a_free_disk(tmp_path: Path) -> None:
    machine = FakeMachine(tmp_path, {"wipefs": ""})
    device(machine, "/dev/sda5")
    assert disks.look_at(machine, "/dev/sda5") == Disk("/dev/sda5", 200 << 20)


@pytest.mark.usefixtures("any_file_is_a_device")
def test_every_mark_on_a_disk_is_named(tmp_path: Path) -> None:
    machine = FakeMachine(tmp_path, {"wipefs": "ext4\ndrbd\next4\n"})
    device(machine, "/dev/sda5")
    assert disks.look_at(machine, "/dev/sda5").signature == "ext4 and drbd"


def test_no_device_and_a_file_are_refused(tmp_path: Path) -> None:
    machine = FakeMachine(tmp_path).put("/dev/sda5")
    with pytest.raises(UserError, match="there is no /dev/sdz9"):
        disks.look_at(machine, "/dev/sdz9")
    with pytest.raises(UserError, match="/dev/sda5 is not a disk or a partition"):
        disks.look_at(machine, "/dev/sda5")


@pytest.mark.usefixtures("any_file_is_a_device")
@pytest.mark.parametrize(("where", "text", "use"), [
    ("/proc/self/mountinfo", "30 1 {major}:{minor} / /srv rw - ext4 /dev/sda5 rw\n",
     "mounted on /srv"),
    ("/proc/swaps", "Filename Type Size Used Priority\n/dev/sda5 partition 1 0 -2\n",
     "used as swap"),
    ("/sys/dev/block/{major}:{minor}/holders/dm-0", "", "used by dm-0"),
    ("/proc/uptime", "", "in use"),
])
def test_who_holds_a_busy_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, text: str, use: str
) -> None:
    machine = FakeMachine(tmp_path, {"wipefs": ""}).put("/proc/self/mountinfo")
    device(machine, "/dev/sda5")
    number = machine.path("/dev/sda5").stat().st_rdev
    spelt = {"major": os.major(number), "minor": os.minor(number)}
    machine.put(where.format(**spelt), text.format(**spelt))
    really = os.open

    def busy(path: str, flags: int, *more: Any) -> int:
        if flags & os.O_EXCL:
            raise OSError(errno.EBUSY, "busy")
        return really(path, flags, *more)

    monkeypatch.setattr(os, "open", busy)
    found = disks.look_at(machine, "/dev/sda5")
    assert (found.use, found.size) == (use, 200 << 20)


@pytest.mark.usefixtures("any_file_is_a_device")
def test_candidates_are_empty_large_and_known_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wipefs(argv: tuple[str, ...], stdin: str | None) -> str:
        return "swap" if argv[-1] == "/dev/sda2" else ""

    machine = FakeMachine(tmp_path, {"wipefs": wipefs})
    for path, size in (("/dev/sda", 9 << 30), ("/dev/sda2", 1 << 30), ("/dev/sda3", 1024),
                       ("/dev/sda5", 1 << 30), ("/dev/nvme0n1p1", 2 << 30),
                       ("/dev/mapper/vg-asha", 3 << 30), ("/dev/null", 1 << 30)):
        device(machine, path, size)
    monkeypatch.setattr(disks, "_number", lambda machine, path: hash(path) or 1)
    assert [one.path for one in disks.candidates(machine)] == [
        "/dev/mapper/vg-asha", "/dev/nvme0n1p1", "/dev/sda5"]
    monkeypatch.setattr(disks, "_number", lambda machine, path: 7)
    assert len(disks.candidates(machine)) == 0  # all names of the first, which is swap


# What two nodes tell each other.


AGREED = {"CLUSTERIP": "192.168.1.90", "LANPREFIX": "24", "LINKPREFIX": "24", "USENIC1": "true",
          "LDAP": "NO"}


def shared(**changes: Any) -> dict[str, object]:
    return {
        "name": "crm1", "first": True,
        "nodes": {"crm1": "10.0.3.251", "crm2": "10.0.3.252"},
        "lan": "192.168.1.11", "agree": AGREED, "relay": "", "macs": [], "device": "/dev/sda5",
        "size": 10 << 30,
        "users": {"asterisk": 108, "mysql": 105, "www-data": 33, "sshd": 112},
        "groups": {"asterisk": 115, "mysql": 110, "www-data": 33},
        "versions": {"pacemaker": "3.0.0", "mariadb-server": "11.8.6", "asterisk": "16.28.0"},
        "clock": 1000.0, **changes,
    }


def second(**changes: Any) -> dict[str, object]:
    return shared(**{"name": "crm2", "first": False, **changes})


def test_what_is_shared_is_json_and_agrees_with_itself(tmp_path: Path) -> None:
    listed = [interface("eth0", {"local": "192.168.1.90", "prefixlen": 24},
                        {"local": "192.168.1.11", "prefixlen": 24})]
    machine = FakeMachine(tmp_path, {"ip": json.dumps(listed), "dpkg-query": "", "modinfo": ""})
    device(machine.absent("asterisk"), "/dev/sda5")
    site = conf.parse(f"{SITE}ANODELAN=192.168.1.11\n")
    own = facts.shared_facts(machine, site, facts.gather(machine))
    assert own["lan"] == "192.168.1.11"
    assert own["size"] == 200 << 20
    other = json.loads(json.dumps(own)) | {"first": False, "received": own["clock"]}
    assert peer.compare(own, other) == []


def test_two_that_fit() -> None:
    assert peer.compare(second(), shared(received=1001.9)) == []


@pytest.mark.parametrize(("other", "what", "hint"), [
    ({"size": 11 << 30}, "the partitions for the store differ", f"{(11 << 30) // 512} sectors"),
    ({"agree": AGREED | {"CLUSTERIP": "192.168.1.91"}},
     "CLUSTERIP is 192.168.1.90 here and 192.168.1.91", ""),
    ({"agree": AGREED | {"LANPREFIX": "23"}},
     "LANPREFIX is 24 here and 23 on crm1", "both must say the same"),
    ({"agree": AGREED | {"LDAP": "YES"}}, "LDAP is NO here and YES on crm1", ""),
    ({"agree": AGREED | {"USENIC1": "false"}}, "USENIC1 is true here and false on crm1", ""),
    ({"nodes": {"crm1": "10.0.3.251", "crm3": "10.0.3.252"}},
     "crm1 10.0.3.251 and crm3 10.0.3.252 in crm1's", ""),
    ({"received": 1004.5}, "are 4 s apart", "chrony"),
    ({"users": {"asterisk": 109, "mysql": 105, "www-data": 33}},
     "asterisk has uid 108 here and 109 on crm1", "usermod --uid 109 asterisk; find / "),
    ({"groups": {"asterisk": 115, "mysql": 111, "www-data": 33}},
     "mysql has gid 110 here and 111 on crm1", "groupmod --gid 111 mysql; find / "),
    ({"users": {"asterisk": 108, "mysql": 105, "www-data": 33}, "versions": None},
     "is of another release", "same asha package"),
])
def test_what_does_not_fit(other: dict[str, Any], what: str, hint: str) -> None:
    (finding,) = peer.compare(second(), shared(**other))
    assert finding.severity == "error"
    assert what in finding.what
    assert hint in finding.hint


def test_one_node_alone_powers_the_relay() -> None:
    assert peer.compare(second(), shared(relay="crm1")) == []
    assert peer.compare(second(relay="crm1"), shared(relay="crm1")) == []
    (finding,) = peer.compare(second(relay="crm2"), shared(relay="crm1"))
    assert "the line relay is powered by crm2 in crm2's asha.conf and by crm1" in finding.what


def test_a_size_that_cannot_be_read_is_told() -> None:
    (finding,) = peer.compare(second(), shared(size=0))
    assert finding.severity == "warning"
    assert finding.what.startswith("crm1 cannot read the size of /dev/sda5")


def test_a_number_that_another_has_is_freed_first() -> None:
    theirs = {"asterisk": 112, "mysql": 105, "www-data": 33, "late": 998}
    (finding,) = peer.compare(second(), shared(users=theirs))
    first, _, rest = finding.hint.partition("; ")
    assert first.endswith("usermod --uid 997 sshd")  # who has 112 here; 998 is taken there
    assert "-uid 112 -exec chown --no-dereference 997" in rest
    assert rest.index("997") < rest.index("usermod --uid 112 asterisk")
    assert "-uid 108 -exec chown --no-dereference 112" in rest


def test_a_user_who_is_missing_here() -> None:
    found = peer.compare(second(users={"mysql": 105, "www-data": 33}), shared())
    assert [one.what for one in found] == ["there is no user asterisk here, but on crm1"]


@pytest.mark.parametrize(("package", "version", "is_told"), [
    ("mariadb-server", "11.4.1", True), ("mariadb-server", "11.8.9", False),
    ("asterisk", "18.1.0", True), ("asterisk", "16.1.0", False), ("pacemaker", "2.1.5", True),
])
def test_another_series_is_a_warning(package: str, version: str, is_told: bool) -> None:
    mine = dict(shared()["versions"])  # type: ignore[call-overload]
    found = peer.compare(second(), shared(versions=mine | {package: version}))
    assert [one.severity for one in found] == ["warning"] * is_told


def test_two_first_nodes() -> None:
    (finding,) = peer.compare(shared(name="crm2"), shared())
    assert "both nodes are configured as the first one" in finding.what


def test_a_replacement_for_the_first_sees_the_nodes_the_other_way_round() -> None:
    survivor = shared(name="crm2", first=False)
    new = shared(first=False, nodes={"crm2": "10.0.3.252", "crm1": "10.0.3.251"})
    assert peer.compare(new, survivor) == []


@pytest.mark.parametrize("key", sorted(set(shared()) - {"lan", "macs", "device"}))
def test_an_answer_with_a_hole_is_a_finding(key: str) -> None:
    other = shared(received=1000.0)
    del other[key]
    found = peer.compare(second(), other)
    assert ["another release" in one.what for one in found] == [True]
