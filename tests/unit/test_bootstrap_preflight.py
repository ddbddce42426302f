"""The preflight: everything wrong is told at once, each with its mend, and nothing else."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from asha.asterisk.talk import sip_addresses
from asha.asterisk.talk.sip_addresses import Setting, Told
from asha.bootstrap.facts import Facts
from asha.bootstrap.firewall import backends
from asha.bootstrap.host import data_directories, disks, nics
from asha.bootstrap.host.disks import Disk
from asha.bootstrap.host.nics import Address, Nic
from asha.bootstrap.preflight import checks as checks_preflight
from asha.bootstrap.preflight import peer, telephony
from asha.bootstrap.steps import link_address
from asha.cluster import drbd
from asha.cluster import site as conf
from asha.cluster.cib import MARKER
from asha.cluster.site import Site
from asha.commands import check
from asha.conf import values_of
from asha.data import PATHS
from asha.errors import UserError
from asha.finding import Finding
from tests.fakes.machine import FakeMachine, Outcome

SITE = """PRIMARY=true
CLUSTERIP=192.168.1.90
ANODENAME=crm1
ANODEIP=10.0.3.251
ANODELAN=192.168.1.11
BNODENAME=crm2
BNODEIP=10.0.3.252
DRBDDEV=/dev/sda5
"""
ETH0 = Nic("eth0", "52:54:00:00:00:01", addresses=(Address("192.168.1.11", 24),))
ETH1 = Nic("eth1", "52:54:00:00:00:02", addresses=(Address("10.0.3.251", 24),))
VERSIONS = {"pacemaker": "3.0.0", "corosync": "3.1.9", "crmsh": "5.0.0", "drbd-utils": "9.22.0",
            "drbd": "8.4.11", "asterisk": "16.28.0", "mariadb-server": "11.8.6",
            "apache2": "2.4.68"}
ACCOUNTS = {"asterisk": 108, "mysql": 105, "www-data": 33}
HERE = Facts("crm1", nics=(ETH0, ETH1), route_nic="eth0", users=ACCOUNTS, groups=ACCOUNTS,
             versions=VERSIONS, synchronised=True)
GB = 1 << 30
FENCING = "there is no fencing"


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Who has which address: put into it what a test wants. Nobody at first."""
    holders: dict[str, str] = {}
    monkeypatch.setattr(nics, "who_has", lambda nic, address: holders.get(address, ""))
    monkeypatch.setattr(nics, "connects", lambda address, port: holders.get("tcp", ""))
    return holders


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The partition of the store: change its ``be``."""
    about = SimpleNamespace(be=Disk("/dev/sda5", 10 * GB))

    def look_at(machine: object, path: str) -> Disk:
        if isinstance(about.be, UserError):
            raise about.be
        assert isinstance(about.be, Disk)
        return about.be

    monkeypatch.setattr(disks, "look_at", look_at)
    return about


class Preflight:
    def __init__(self, machine: FakeMachine) -> None:
        self.machine = machine
        self.facts = HERE
        self.conf: dict[str, str] = {}
        self.other: dict[str, object] | None = None

    @property
    def site(self) -> Site:
        return conf.site_of(values_of(SITE) | self.conf)

    def be_second(self) -> None:
        self.conf |= {"PRIMARY": "false"}
        self.facts = replace(self.facts, name="crm2", nics=(
            replace(ETH0, addresses=(Address("192.168.1.12", 24, dynamic=True),)),
            replace(ETH1, addresses=(Address("10.0.3.252", 24),))))
        self.conf |= {"BNODELAN": "192.168.1.12"}

    def look(self) -> list[Finding]:
        return checks_preflight.look(self.machine, self.site, self.facts, self.other)

    def told(self) -> list[Finding]:
        """All but the warning that there always is."""
        return [one for one in self.look() if FENCING not in one.what]

    def alone(self) -> Finding:
        (one,) = self.told()
        return one


@pytest.fixture
def flight(
    tmp_path: Path, wire: dict[str, str], disk: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> Preflight:
    monkeypatch.setattr(data_directories, "directories", lambda machine: [])
    monkeypatch.setattr(sip_addresses, "ask", Told)
    machine = FakeMachine(tmp_path, {"getent": Outcome(code=2), "ss": "", "dpkg-query": "",
                                     "modinfo": "", "nft": "", "ip": "[]"}).absent("asterisk")
    machine.installed("gdb")
    return Preflight(machine)


def test_a_machine_as_it_should_be(flight: Preflight) -> None:
    (finding,) = flight.look()
    assert finding.severity == "warning"
    assert FENCING in finding.what


def test_the_second_node_as_it_should_be(flight: Preflight, wire: dict[str, str]) -> None:
    flight.be_second()
    wire["192.168.1.90"] = "52:54:00:00:00:aa"  # the first node has it, and rightly
    assert flight.told() == []


def test_errors_come_first_and_each_has_a_mend(flight: Preflight) -> None:
    flight.facts = Facts("other", root=False, systemd=False, synchronised=False)
    found = flight.look()
    severities = [one.severity for one in found]
    assert severities == sorted(severities)  # "error" before "warning"
    assert {"error", "warning"} == set(severities)
    assert len(found) > 8
    assert [one for one in found if not one.hint] == []


LAN_NETWORK = "/etc/systemd/network/10-lan.network"


FOREIGN = "/etc/systemd/networkd.conf.d/x.conf"
KEPT = {LAN_NETWORK: "[Network]\nKeepConfiguration = static\n",
        FOREIGN: "[Network]\nManageForeignRoutes=no\n"}


@pytest.mark.parametrize(("managed", "files", "missing"), [
    (LAN_NETWORK, {LAN_NETWORK: "[Network]\nDHCP=yes\n"}, "KM"),
    ("n/a", {LAN_NETWORK: "[Network]\nDHCP=yes\n"}, ""),
    (LAN_NETWORK, KEPT, ""),
    (LAN_NETWORK, {**KEPT, FOREIGN: "[Network]\n#ManageForeignRoutes=no\n"}, "M"),
    (LAN_NETWORK, {**KEPT, FOREIGN: "", "/etc/systemd/networkd.conf": "[Network]\n"
                   "ManageForeignRoutes=false\n"}, ""),
    (LAN_NETWORK, {**KEPT, LAN_NETWORK: "", f"{LAN_NETWORK}.d/a.conf": "[Network]\n"
                   "KeepConfiguration=yes\n"}, ""),
    ("/run/systemd/network/10-lan.network",
     {**KEPT, f"{LAN_NETWORK}.d/a.conf": "[Network]\nKeepConfiguration=static\n",
      f"{LAN_NETWORK}.d/b.conf": "[Network]\nKeepConfiguration=no\n"}, "K"),
])
def test_networkd_keeps_the_virtual_address(
    flight: Preflight, managed: str, files: dict[str, str], missing: str
) -> None:
    assert flight.told() == []
    flight.facts = replace(flight.facts, link=link_address.Found(networkd=True))
    flight.machine.on("networkctl status eth0", f"* 2: eth0\n     Link File: n/a\n"
                                                f"  Network File: {managed}\n     State: x\n")
    for path, text in files.items():
        flight.machine.put(path, text)
    if not missing:
        assert flight.told() == []
        return
    found = flight.alone()
    assert found.severity == "warning"
    assert f"eth0 is systemd-networkd's ({managed})" in found.what
    keep = "KeepConfiguration=static in /etc/systemd/network/10-lan.network.d/asha.conf"
    assert (keep in found.hint) == ("K" in missing)
    assert ("ManageForeignRoutes=no in /etc/systemd/networkd.conf.d/asha.conf" in found.hint) \
        == ("M" in missing)


# The telephone system is tied to no node's address.


@pytest.mark.parametrize(("setting", "said"), [
    (Setting("pjsip.conf", "transport-udp", "bind", "192.168.1.11"),
     "pjsip.conf [transport-udp] bind=192.168.1.11: Asterisk is bound to this node's own"),
    (Setting("sip.conf", "general", "udpbindaddr", "10.0.3.251"),
     "sip.conf [general] udpbindaddr=10.0.3.251: Asterisk is bound"),
    (Setting("sip.conf", "general", "externaddr", "192.168.1.11"), "externaddr=192.168.1.11: is"),
    (Setting("pjsip.conf", "transport-udp", "external_media_address", "192.168.1.11"),
     "external_media_address=192.168.1.11: is this node's own address"),
    # Right on both: everybody's, the virtual one, the router's.
    (Setting("pjsip.conf", "transport-udp", "bind", "0.0.0.0"), ""),
    (Setting("pjsip.conf", "transport-udp", "bind", "192.168.1.90"), ""),
    (Setting("sip.conf", "general", "externaddr", "203.0.113.9"), ""),
], ids=str)
def test_sip_that_is_tied_to_one_node(
    flight: Preflight, monkeypatch: pytest.MonkeyPatch, setting: Setting, said: str
) -> None:
    monkeypatch.setattr(sip_addresses, "ask", lambda: Told([setting]))
    # As on the active node, which has the virtual address.
    flight.facts = replace(flight.facts, owned=True, nics=(replace(
        ETH0, addresses=(*ETH0.addresses, Address("192.168.1.90", 24))), ETH1))
    if not said:
        assert flight.told() == []
        return
    found = flight.alone()
    assert found.severity == "warning"
    assert said in found.what
    assert setting.key in found.hint
    assert "crm resource restart p_asterisk" in found.hint


# In sections of Asterisk's files: file, text, and what is said; "" for nothing. Each with a
# line above it.
IN_FILES = [
    ("pjsip.conf", "[udp]\ntype=transport\nbind=192.168.1.11:5060",
     "/etc/asterisk/pjsip.conf:4 [udp] bind=192.168.1.11: Asterisk is bound to this node's own"),
    ("pjsip.conf", "[udp]\nbind = 0.0.0.0\n;bind=192.168.1.11", ""),
    ("pjsip.conf", "[a](!)\nmedia_address=192.168.1.12\n[b](a)\n[c](a)",
     "/etc/asterisk/pjsip.conf:3 [b] media_address=192.168.1.12: is crm2's address: after"),
    ("pjsip.conf", "[a](!)\nmedia_address=192.168.1.12", ""),
    ("pjsip.conf", "[i]\ntype=identify\nmatch=203.0.113.4\nmatch+=,192.168.1.11",
     "/etc/asterisk/pjsip.conf:5 [i] match=192.168.1.11: is this node's own address, and "
     "192.168.1.90 is not in the list: the active node sends from the virtual address"),
    ("pjsip.conf", "[i]\ntype=acl\npermit=192.168.1.0/24", ""),
    ("pjsip.conf", "[i]\ndeny=0.0.0.0/0.0.0.0\npermit=192.168.1.90/255.255.255.255", ""),
    ("pjsip.conf", "[r]\ntype=aor\ncontact=sip:x@192.168.1.11:5070;transport=tcp",
     "/etc/asterisk/pjsip.conf:4 [r] contact=192.168.1.11: is this node's own address: after a "
     "switch it leads to the wrong node"),
    ("pjsip_wizard.conf", "[t]\nidentify/match=192.168.1.11",
     "/etc/asterisk/pjsip_wizard.conf:3 [t] match=192.168.1.11: is this"),
    ("sip.conf", "[general]\nregister => u:pa@ss:192.168.1.12@192.168.1.11:5070/100",
     "/etc/asterisk/sip.conf:3 [general] register=192.168.1.11: is this node's own"),
    ("sip.conf", "[general]\nexternhost=CRM2",
     "/etc/asterisk/sip.conf:3 [general] externhost=crm2: is crm2's address"),
    ("sip.conf", "[p]\ndeny=0.0.0.0/0\npermit=192.168.1.11/32\npermit=192.168.1.12/32",
     "/etc/asterisk/sip.conf:4 [p] permit=192.168.1.11"),
    ("sip.conf", "[p]\npermit=192.168.1.11/255.255.255.255\npermit=192.168.1.90", ""),
    ("sip.conf", "[p]\ndeny=192.168.1.11", "/etc/asterisk/sip.conf:3 [p] deny=192.168.1.11"),
    ("iax.conf", "[general]\nsourceaddress=192.168.1.11",
     "/etc/asterisk/iax.conf:3 [general] sourceaddress=192.168.1.11: Asterisk is bound"),
    ("iax.conf", "[general]\nbindaddr=0.0.0.0\ncalltokenoptional=192.168.1.11/255.255.255.255",
     "/etc/asterisk/iax.conf:4 [general] calltokenoptional=192.168.1.11"),
    ("acl.conf", "[cluster]\ndeny=0.0.0.0/0\npermit=10.0.3.251",
     "/etc/asterisk/acl.conf:4 [cluster] permit=10.0.3.251: is this node's own address, and "
     "10.0.3.252 is not in the list: the other node has another one"),
    ("acl.conf", "[cluster]\ndeny=0.0.0.0/0\npermit=10.0.3.251,10.0.3.252", ""),
    ("acl.conf", "[cluster]\npermit=10.0.3.0/24,!10.0.3.252",
     "/etc/asterisk/acl.conf:3 [cluster] permit=10.0.3.252: is crm2's address, and 10.0.3.251"),
    ("http.conf", "[general]\nenabled=yes\nbindaddr=192.168.1.11",
     "/etc/asterisk/http.conf:4 [general] bindaddr=192.168.1.11: Asterisk is bound"),
    ("http.conf", "[general]\nenabled=no\nbindaddr=192.168.1.11", ""),
    ("rtp.conf", "[ice_host_candidates]\n192.168.1.11 => 203.0.113.1",
     "/etc/asterisk/rtp.conf:3 [ice_host_candidates] 192.168.1.11=192.168.1.11: is this node's"),
    ("sip.conf", "[general]\n;-- udpbindaddr=192.168.1.11\n--;\ntcpbindaddr=192.168.1.11",
     "/etc/asterisk/sip.conf:5 [general] tcpbindaddr=192.168.1.11"),
    ("sip.conf", "[general]\n#include more/*.conf", "/etc/asterisk/more/one.conf:2 [general] "
     "udpbindaddr=192.168.1.11: Asterisk is bound"),
]


@pytest.mark.parametrize(("name", "text", "said"), IN_FILES)
def test_lines_that_tie_to_one_node(
    flight: Preflight, name: str, text: str, said: str
) -> None:
    flight.conf |= {"BNODELAN": "192.168.1.12"}
    flight.machine.put(f"/etc/asterisk/{name}", f"; comment\n{text}\n")
    flight.machine.put("/etc/asterisk/more/one.conf", "\nudpbindaddr=192.168.1.11")
    found = [one for one in flight.told() if "as the sender" not in one.what]
    assert [one.severity for one in found[:1]] == (["warning"] if said else [])
    # Both of two nodes' addresses that are there without the virtual one.
    assert len(found) <= 2
    if said:
        assert found[0].what.startswith(said)
        assert found[0].hint.endswith("crm resource restart p_asterisk")


def test_what_asterisk_does_not_load_says_nothing(
    flight: Preflight, monkeypatch: pytest.MonkeyPatch
) -> None:
    flight.machine.put("/etc/asterisk/sip.conf", "[general]\nudpbindaddr=192.168.1.11\n")
    assert "udpbindaddr" in flight.alone().what
    flight.machine.put("/etc/asterisk/modules.conf", "[modules]\nnoload => chan_sip.so\n")
    assert flight.told() == []
    # One that runs knows better.
    told = Told([], modules=frozenset({"chan_sip.so"}))
    monkeypatch.setattr(sip_addresses, "ask", lambda: told)
    assert "udpbindaddr" in flight.alone().what
    told.modules = frozenset({"res_pjsip.so"})
    assert flight.told() == []


def test_one_finding_where_asterisk_and_its_file_say_the_same(
    flight: Preflight, monkeypatch: pytest.MonkeyPatch
) -> None:
    flight.machine.put("/etc/asterisk/pjsip.conf", "[udp]\ntype=transport\nbind=192.168.1.11\n")
    told = Told([Setting("pjsip.conf", "udp", "bind", "192.168.1.11")],
                modules=frozenset({"res_pjsip.so"}))
    monkeypatch.setattr(sip_addresses, "ask", lambda: told)
    assert "pjsip.conf:3 " in flight.alone().what
    # From a database, say.
    told.identified = [("a", "192.168.1.11"), ("b", "192.168.1.11/32"), ("b", "192.168.1.90/32"),
                       ("c", "192.168.1.0/24")]
    assert [one.what.partition(":")[0] for one in flight.told()[1:]] == [
        "pjsip.conf [a] match=192.168.1.11"]


@pytest.mark.parametrize(("name", "text"), [
    ("pjsip.conf", "[t]\ntype=registration\nserver_uri=sip:203.0.113.9\n"),
    ("pjsip.conf", "[t]\ntype=identify\nmatch=sip.example.net\n"),
    ("sip.conf", "[general]\nregister => user:secret@sip.example.net\n"),
    ("iax.conf", "[t]\ntype=peer\nhost=203.0.113.9\n"),
])
def test_a_provider_must_know_the_virtual_address(
    flight: Preflight, name: str, text: str
) -> None:
    flight.machine.put(f"/etc/asterisk/{name}", text)
    found = flight.alone()
    assert found.severity == "warning"
    assert "sees the virtual address 192.168.1.90 as the sender" in found.what
    assert "192.168.1.90" in found.hint
    assert "secret" not in found.what


def test_a_file_with_thousands_of_such_lines_is_told_in_short(flight: Preflight) -> None:
    flight.machine.put("/etc/asterisk/sip.conf", "".join(
        f"[{number}]\ntype=friend\nhost=dynamic\ndeny=192.168.1.11\n"
        for number in range(5000)))
    found = flight.told()
    assert len(found) == telephony.LINES_MOST + 1
    assert found[-1].what.startswith("4980 more lines")


def test_templates_that_double_have_an_end(flight: Preflight) -> None:
    text = "[t0](!)\n" + "permit=192.168.1.11,\n" * 1000 + "".join(
        f"[t{number}](!,t{number - 1},t{number - 1})\na+=b\n" for number in range(1, 60))
    flight.machine.put("/etc/asterisk/sip.conf", text + "[x](t59)\nudpbindaddr=0.0.0.0\n")
    assert flight.told() == []


@pytest.mark.parametrize(("address", "severity"), [
    ("", ""), (None, ""), ("192.168.1.11", "warning"), ("192.168.1.90", "error"),
])
def test_sarks_static_address(flight: Preflight, address: str | None, severity: str) -> None:
    database = flight.machine.path("/opt/sark/db/sark.db")
    database.parent.mkdir(parents=True)
    with sqlite3.connect(database) as link:
        link.execute("CREATE TABLE globals (pkey TEXT, STATICIPV4 TEXT)")
        link.execute("INSERT INTO globals VALUES ('global', ?)", (address,))
    link.close()
    found = [one for one in flight.told() if "STATICIPV4" in one.what]
    assert [one.severity for one in found] == ([severity] if severity else [])
    assert all(f"STATICIPV4={address} in SARK's database" in one.what for one in found)


Change = Callable[[Preflight], object]


def having(**changes: Any) -> Change:
    def change(flight: Preflight) -> None:
        flight.facts = replace(flight.facts, **changes)
    return change


def saying(**values: str) -> Change:
    return lambda flight: flight.conf.update(values)


def with_file(path: str, text: str = "") -> Change:
    return lambda flight: flight.machine.put(path, text)


def without(package: str) -> Change:
    return having(versions={k: v for k, v in VERSIONS.items() if k != package})


def with_version(package: str, version: str) -> Change:
    return having(versions=VERSIONS | {package: version})


def with_nics(*found: Nic) -> Change:
    return having(nics=found)


def listening(line: str) -> Change:
    return lambda flight: flight.machine.on("ss", line)


FOREIGN_CIB = ('<cib><configuration><resources><group id="g"><primitive id="p_web" class="ocf" '
               'provider="heartbeat" type="apache"/></group></resources></configuration></cib>')
OUR_CIB = FOREIGN_CIB.replace(
    "<group", '<primitive id="p_asterisk" class="ocf" provider="asha" type="asterisk-health"/>'
    "<group")
OTHER_COROSYNC = """totem {
  cluster_name: web
}
nodelist {
  node {
    name: crm1
    ring0_addr: 10.0.3.251
  }
}
"""
DEBIAN_COROSYNC = """totem {
  cluster_name: debian
}
nodelist {
  node {
    name: node1
    nodeid: 1
    ring0_addr: 127.0.0.1
  }
}
"""

ERRORS = [
    (having(root=False), "not run as root"),
    (having(systemd=False), "not started by systemd"),
    (having(name="crm2"), "this machine is crm2, but asha.conf says that it is crm1"),
    (having(name="pbx"), "called pbx: neither crm1 nor crm2"),
    (with_nics(ETH0), "USENIC1=true: this machine has only one NIC (eth0)"),
    (saying(LINKNIC="eth7"), "LINKNIC=eth7: this machine has no such NIC"),
    (saying(LANNIC="ens18"), "LANNIC=ens18: this machine has no such NIC"),
    (having(route_nic="eth1"), "LINKNIC=eth1: the way to the router goes through it"),
    (saying(CLUSTERIP="192.168.2.90", ANODELAN=""), "is not in eth0's network 192.168.1.0/24"),
    (saying(LANPREFIX="23"), "LANPREFIX=23: eth0 has 192.168.1.11/24"),
    (saying(CLUSTERIP="192.168.1.11", ANODELAN=""), "is this machine's own, on eth0"),
    (saying(LINKPREFIX="25"), "LINKPREFIX=25: eth1 has 10.0.3.251/24"),
    (with_nics(ETH0, replace(ETH1, addresses=()),
               Nic("eth2", "52:54:00:00:00:03", addresses=(Address("10.0.3.251", 32),))),
     "the cluster address 10.0.3.251 is on eth2, not on eth1"),
    (with_nics(ETH0, replace(ETH1, addresses=()),
               Nic("eth2", "52:54:00:00:00:03", addresses=(Address("10.0.0.9", 16),))),
     "network 10.0.3.0/24 and eth2's 10.0.0.0/16 overlap"),
    (with_nics(ETH0, replace(ETH1, addresses=(*ETH1.addresses, Address("10.0.3.252", 24)))),
     "10.0.3.252 is to be crm2's and is this machine's own"),
    (with_nics(replace(ETH0, addresses=()), ETH1), "eth0 has no address"),
    (listening('tcp LISTEN 0 128 0.0.0.0:7788 0.0.0.0:* users:(("nginx",pid=9,fd=3))'),
     "port 7788/tcp, DRBD, is in use by nginx"),
    (listening('udp UNCONN 0 0 [::]:5405 [::]:* users:(("iperf",pid=9,fd=3))'),
     "port 5405/udp, Corosync, is in use by iperf"),
    (without("pacemaker"), "Pacemaker is not installed"),
    (with_version("pacemaker", "1.1.24"), "Pacemaker 1.1.24 is too old: 2.1 is needed"),
    (with_version("corosync", "2.4.4"), "Corosync 2.4.4 is too old: 3 is needed"),
    (without("drbd"), "this kernel has no DRBD module"),
    (without("asterisk"), "there is no Asterisk here"),
    (having(users={"mysql": 1, "www-data": 33}), "there is no user asterisk"),
    (having(groups={"asterisk": 1, "www-data": 33}), "there is no group mysql"),
    (with_file("/etc/service/asterisk"), "runit starts asterisk"),
    (with_file("/etc/ha.d/ha.cf"), "Heartbeat is configured here"),
    (with_file("/etc/corosync/corosync.conf", OTHER_COROSYNC), "is another cluster's"),
    (with_file("/etc/corosync/corosync.conf",
               OTHER_COROSYNC.replace("web", "asha").replace("crm1", "pbx1")),
     "is another cluster's"),
    (with_file("/var/lib/pacemaker/cib/cib.xml", FOREIGN_CIB),
     "Pacemaker has resources of another cluster: p_web"),
    (with_file("/etc/drbd.d/r0.res", "resource r0 {\n  disk /dev/sda5;\n}\n"),
     "/etc/drbd.d/r0.res is another DRBD resource"),
    (with_file("/etc/drbd.d/r0.res", "resource r0 {\n  device minor 0;\n}\n"),
     "/etc/drbd.d/r0.res is another DRBD resource"),
]


@pytest.mark.parametrize(("change", "what"), ERRORS, ids=[what for _, what in ERRORS])
def test_one_thing_wrong_is_one_error(flight: Preflight, change: Change, what: str) -> None:
    change(flight)
    finding = flight.alone()
    assert finding.severity == "error"
    assert what in finding.what
    assert finding.hint


WARNINGS = [
    (having(synchronised=False), "clock is not synchronised"),
    (with_version("asterisk", "23.0.0"), "Asterisk 23.0.0: this was made for 16 to 22"),
    (with_version("asterisk", "13.0"), "Asterisk 13.0: this was made for 16 to 22"),
    (with_version("pacemaker", "3.1.0"), "Pacemaker 3.1.0 is newer"),
    (without("apache2"), "Apache is not installed"),
    (lambda flight: flight.machine.absent("gdb"), "gdb is not installed"),
]


@pytest.mark.parametrize(("change", "what"), WARNINGS, ids=[what for _, what in WARNINGS])
def test_one_thing_doubtful_is_one_warning(flight: Preflight, change: Change, what: str) -> None:
    change(flight)
    finding = flight.alone()
    assert finding.severity == "warning"
    assert what in finding.what


NOTHING = [
    having(synchronised=None),
    with_version("pacemaker", "2.1.5"),
    with_version("asterisk", "22.10.1"),
    with_file("/etc/corosync/corosync.conf", DEBIAN_COROSYNC),
    with_file("/etc/corosync/corosync.conf", OTHER_COROSYNC.replace("web", "asha")),
    with_file("/var/lib/pacemaker/cib/cib.xml", OUR_CIB),
    with_file("/var/lib/pacemaker/cib/cib.xml", "<cib><configuration/></cib>"),
    with_file("/etc/drbd.d/r1.res", "resource r1 {\n  disk /dev/sda6;\n  device minor 10;\n}\n"),
    listening('udp UNCONN 0 0 10.0.3.251:5405 0.0.0.0:* users:(("corosync",pid=9,fd=3))\n'
              "tcp LISTEN 0 5 10.0.3.251:7788 0.0.0.0:*\n"
              'tcp LISTEN 0 5 0.0.0.0:57788 0.0.0.0:* users:(("nginx",pid=9,fd=3))'),
]


@pytest.mark.parametrize("change", NOTHING)
def test_what_is_all_right_is_not_told(flight: Preflight, change: Change) -> None:
    change(flight)
    assert flight.told() == []


# Addresses on the wire.


def test_the_virtual_address_is_taken(flight: Preflight, wire: dict[str, str]) -> None:
    wire["192.168.1.90"] = "52:54:00:00:00:aa"
    assert "is taken by another machine in the LAN (52:54:00:00:00:aa)" in flight.alone().what


def test_the_cluster_address_is_taken(flight: Preflight, wire: dict[str, str]) -> None:
    wire["10.0.3.251"] = "52:54:00:00:00:aa"
    assert "10.0.3.251 is taken by another machine" in flight.alone().what


def test_on_the_second_only_the_first_may_have_the_virtual_address(
    flight: Preflight, wire: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    flight.be_second()
    monkeypatch.setattr(peer, "compare", lambda own, other: [])
    wire["192.168.1.90"] = "52:54:00:00:00:aa"
    flight.other = {"macs": ["52:54:00:00:00:aa"]}
    assert flight.told() == []
    flight.other = {"macs": ["52:54:00:00:00:bb"]}
    assert "is taken by another machine" in flight.alone().what


def test_nobody_can_be_asked_without_root(
    flight: Preflight, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(nic: Nic, address: str) -> str:
        raise PermissionError

    monkeypatch.setattr(nics, "who_has", refuse)
    assert flight.told() == []


@pytest.mark.parametrize(("reason", "what"), [
    ("Connection refused", "crm1 (10.0.3.251) does not wait for a second node"),
    ("no answer", "crm1 does not answer at 10.0.3.251 port 5409: no answer"),
])
def test_the_first_node_does_not_answer(
    flight: Preflight, wire: dict[str, str], reason: str, what: str
) -> None:
    flight.be_second()
    wire["tcp"] = reason
    assert what in flight.alone().what


def test_the_first_node_is_looked_for_before_the_link_has_an_address(
    flight: Preflight, wire: dict[str, str]
) -> None:
    flight.be_second()
    wire["tcp"] = "not to be asked"
    eth0, eth1 = flight.facts.nics
    flight.facts = replace(flight.facts, nics=(eth0, replace(eth1, addresses=())))
    assert "crm1 does not answer at 10.0.3.251 on eth1" in flight.alone().what
    wire["10.0.3.251"] = "52:54:00:00:00:aa"
    assert flight.told() == []
    flight.facts = replace(flight.facts, nics=(eth0, replace(eth1, addresses=(), up=False)))
    finding = flight.alone()
    assert finding.severity == "warning"
    assert "eth1 is switched off" in finding.what


def test_names_that_resolve_wrongly(flight: Preflight) -> None:
    flight.machine.on("getent ahostsv4 crm1", "203.0.113.5 STREAM crm1\n203.0.113.5 DGRAM\n")
    flight.machine.on("getent ahostsv4 crm2", "127.0.1.1 STREAM crm2\n")
    own, other = flight.told()
    assert own.what == "crm1 resolves to 203.0.113.5, which is not this machine"
    assert "crm2, the other node, resolves to 127.0.1.1: this machine" in other.what
    flight.machine.on("getent ahostsv4 crm1", "127.0.1.1 STREAM crm1\n")
    flight.machine.on("getent ahostsv4 crm2", "192.168.1.12 STREAM crm2\n")
    assert flight.told() == []


def test_a_leased_lan_address_gives_no_second_ring(flight: Preflight) -> None:
    flight.conf["ANODELAN"] = ""
    leased = replace(ETH0, addresses=(Address("192.168.1.77", 24, dynamic=True),))
    flight.facts = replace(flight.facts, nics=(leased, ETH1))
    finding = flight.alone()
    assert finding.severity == "warning"
    assert "no second ring" in finding.what


def test_one_nic_has_one_cable(flight: Preflight) -> None:
    [two] = [one for one in flight.look() if FENCING in one.what]
    assert "both cables" in two.what
    flight.conf |= {"USENIC1": "false", "ANODEIP": "192.168.1.11", "BNODEIP": "192.168.1.12"}
    [one_nic] = [one for one in flight.look() if FENCING in one.what]
    assert "its cable cut" in one_nic.what
    assert "two cables" not in one_nic.hint


def test_one_nic(flight: Preflight) -> None:
    flight.conf |= {"USENIC1": "false", "ANODEIP": "192.168.1.11", "BNODEIP": "192.168.1.12",
                    "ANODELAN": ""}
    flight.facts = replace(flight.facts, nics=(ETH0,))
    learning, open_link = flight.told()
    assert {learning.severity, open_link.severity} == {"warning"}
    assert "this is for learning" in learning.what
    assert "crosses the LAN unencrypted" in open_link.what
    assert "WireGuard" in open_link.hint
    flight.conf["ANODEIP"] = "192.168.1.13"
    assert "eth0 does not have this node's address 192.168.1.13" in flight.told()[0].what


NEIGHBOURS = """[
 {"dst": "10.0.3.252", "lladdr": "52:54:00:00:00:12", "state": ["REACHABLE"]},
 {"dst": "10.0.3.7", "lladdr": "52:54:00:00:00:99", "state": ["STALE"]},
 {"dst": "10.0.3.8", "state": ["FAILED"]},
 {"dst": "fe80::1", "lladdr": "52:54:00:00:00:99", "state": ["STALE"]}]"""


def test_a_link_that_others_are_on_is_told(flight: Preflight) -> None:
    flight.machine.on("ip -json neigh show dev eth1", NEIGHBOURS)
    finding = flight.alone()
    assert finding.severity == "warning"
    assert "the cluster link is shared: 10.0.3.7 on eth1 can read and change" in finding.what


@pytest.mark.parametrize(
    "said", ["", "[]", "{", "[1]", '[{"dst": 1}]', NEIGHBOURS.replace("10.0.3.7", "10.0.3.252")]
)
def test_a_link_of_two_is_no_news(flight: Preflight, said: str) -> None:
    flight.machine.on("ip -json neigh show dev eth1", said)
    assert flight.told() == []


# The disk.


@pytest.mark.parametrize(("be", "what"), [
    (Disk("/dev/sda5", 10 * GB, use="mounted on /srv"), "/dev/sda5 is mounted on /srv"),
    (Disk("/dev/sda5", 10 * GB, use="used as swap", signature="swap"), "is used as swap"),
    (Disk("/dev/sda5", 10 * GB, signature="ext4"), "is not empty: ext4 is on it"),
    (Disk("/dev/sda5", 100 << 20), "has 105 MB: the store needs at least 134 MB"),
    (UserError("there is no /dev/sda5", "look"), "DRBDDEV: there is no /dev/sda5"),
])
def test_a_disk_that_will_not_do(
    flight: Preflight, disk: SimpleNamespace, be: object, what: str
) -> None:
    disk.be = be
    finding = flight.alone()
    assert finding.severity == "error"
    assert what in finding.what
    assert finding.hint


def test_without_the_device_the_free_ones_are_named(
    flight: Preflight, disk: SimpleNamespace
) -> None:
    disk.be = UserError("there is no /dev/sda5", "look")
    flight.facts = replace(flight.facts, free_disks=(Disk("/dev/vda3", 10 * GB),))
    assert flight.alone().hint == "free here: /dev/vda3 (11 GB)"


@pytest.mark.parametrize(("be", "count"), [
    (Disk("/dev/sda5", 10 * GB, signature="drbd and ext4", use="used by drbd0"), 0),
    (Disk("/dev/sda5", 10 * GB, signature="drbd"), 0),
    (Disk("/dev/sda5", 10 * GB, signature="ext4", use="mounted on /srv"), 1),
])
def test_our_own_resource_may_be_on_the_disk(
    flight: Preflight, disk: SimpleNamespace, be: Disk, count: int
) -> None:
    flight.machine.put(drbd.CONF, "resource asha {\n    on crm1 {\n    disk /dev/sda5;\n")
    disk.be = be
    assert len(flight.told()) == count
    flight.machine.put(drbd.CONF, "resource asha {\n    disk /dev/sda6;\n")
    assert len(flight.told()) == 1


def test_a_node_of_the_cluster_is_left_alone(
    flight: Preflight, disk: SimpleNamespace, wire: dict[str, str]
) -> None:
    for path in (drbd.CONF, MARKER, "/dev/drbd0"):
        flight.machine.put(path)
    flight.facts = replace(flight.facts, owned=True, nics=(
        replace(ETH0, addresses=(*ETH0.addresses, Address("192.168.1.90", 24))), ETH1))
    disk.be = Disk("/dev/sda5", 10 * GB, signature="ext4", use="in use")
    assert flight.told() == []


def test_live_data_and_a_fifth_must_fit(
    flight: Preflight, disk: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        data_directories, "directories", lambda machine: [SimpleNamespace(place="/etc")]
    )
    flight.machine.on("du", f"1\t/etc\n{10 * GB}\ttotal\n")
    disk.be = Disk("/dev/sda5", 12 * GB)
    assert flight.told() == []
    disk.be = Disk("/dev/sda5", 12 * GB - 1)
    assert "the live data is 11 GB and needs 13 GB" in flight.alone().what
    flight.be_second()  # which brings no data with it
    assert flight.told() == []


def test_live_data_that_takes_too_long_to_measure(
    flight: Preflight, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(argv: tuple[str, ...], stdin: str | None) -> Outcome:
        raise UserError("du did not end within 120.0 s")

    monkeypatch.setattr(
        data_directories, "directories", lambda machine: [SimpleNamespace(place="/etc")]
    )
    flight.machine.on("du", slow)
    finding = flight.alone()
    assert (finding.severity, "could not be measured" in finding.what) == ("warning", True)


def test_directories_that_cannot_move(flight: Preflight, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(machine: object) -> list[object]:
        raise UserError("a disk is mounted inside /opt/sark/media", "unmount it")

    monkeypatch.setattr(data_directories, "directories", refuse)
    assert flight.alone() == Finding("error", "a disk is mounted inside /opt/sark/media",
                                     "unmount it")
    flight.facts = replace(flight.facts, owned=True)
    assert flight.told() == []


def test_the_other_nodes_words_are_compared(flight: Preflight) -> None:
    flight.be_second()
    flight.other = {"name": "crm1"}
    assert "another release" in flight.alone().what


# A check that cannot look must not stop the others.


def test_a_check_that_fails_is_a_finding(flight: Preflight) -> None:
    def broken(look: object) -> Any:
        raise UserError("wipefs: no", "mend it")

    def unreadable(look: object) -> Any:
        raise PermissionError(13, "Permission denied")

    checks = (checks_preflight.Check("one", broken), checks_preflight.Check("two", unreadable))
    found = checks_preflight.look(flight.machine, flight.site, flight.facts, None, checks)
    assert [(one.severity, one.what.partition(":")[0]) for one in found] == [
        ("error", "one"), ("warning", "two could not be looked at")]


# The command.


def test_elsewhere_only_the_file_is_looked_at(flight: Preflight) -> None:
    machine = FakeMachine(flight.machine.root, {"uname -n": "laptop\n"})
    flight.conf["USENIC1"] = "true"
    findings, left_out = check.look(machine, flight.site, elsewhere=True)
    assert [FENCING in one.what for one in findings] == [True]
    assert "the partition for the store" in left_out
    assert len(left_out) == len(checks_preflight.CHECKS) - 2
    assert machine.lines == ["uname -n"]


def test_on_the_node_itself_everything_is_looked_at(flight: Preflight) -> None:
    machine = flight.machine
    machine.on("uname -n", "crm1\n").absent("systemctl", "timedatectl")
    findings, left_out = check.look(machine, flight.site, elsewhere=True)
    assert left_out == []
    assert any("LANNIC=eth0: this machine has no such NIC" in one.what for one in findings)


def run_check(monkeypatch: pytest.MonkeyPatch, machine: FakeMachine, *words: str) -> int:
    import argparse

    monkeypatch.setattr(check, "Machine", lambda: machine)
    parser = argparse.ArgumentParser()
    check.arguments(parser)
    return check.run(parser.parse_args(words))


def test_the_command_prints_and_returns(
    flight: Preflight, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    machine = FakeMachine(tmp_path, {"uname -n": "laptop\n"})
    file = tmp_path / "asha.conf"
    file.write_text(SITE)
    assert run_check(monkeypatch, machine, "--config", str(file)) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"warning: {FENCING}")
    assert "Not looked at, for this machine is neither crm1 nor crm2: root," in said
    file.write_text(SITE.replace("192.168.1.90", "192.168.1.900").replace("crm2", "crm1"))
    assert run_check(monkeypatch, machine, "--config", str(file), "--json") == 1
    answer = json.loads(capsys.readouterr().out)
    assert not answer["ok"]
    assert len(answer["findings"]) == 2
    assert answer["findings"][0]["severity"] == "error"
    with pytest.raises(UserError, match="there is no"):
        run_check(monkeypatch, machine, "--config", str(tmp_path / "none"))


def test_the_paths_are_the_agents(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What is measured is what sark-data will bind."""
    machine = FakeMachine(tmp_path, {"du": "5\ttotal\n"})
    machine.put("/usr/share/asterisk/sounds/hello.gsm")
    machine.put("/proc/self/mountinfo")
    assert "/usr/share/asterisk" in PATHS
    from asha.bootstrap.preflight import storage

    assert storage.live_bytes(machine) == 5
    assert machine.lines[0].endswith("/usr/share/asterisk")


def test_a_kernel_that_cannot_load_the_firewall(flight: Preflight) -> None:
    """Told before anything is installed, in nft's words; and the very table was tried."""
    flight.machine.on("nft --check -f -", Outcome(
        code=1, err="/dev/stdin:3:1-16: Error: Could not process rule: Operation not supported\n"
               "table inet asha\n^^^^^^^^^^^^^^^^\n"))
    finding = flight.alone()
    assert finding.severity == "error"
    assert finding.what.endswith("Could not process rule: Operation not supported")
    assert "standard kernel" in finding.hint
    [tried] = flight.machine.ran("nft --check -f -")
    assert tried.stdin is not None
    assert "table inet asha" in tried.stdin
    assert "tcp dport { 5409, 7788 } drop" in tried.stdin


def test_no_nft(flight: Preflight) -> None:
    flight.machine.absent("nft")
    assert flight.alone().what == "the firewall's table cannot be loaded: nft is not installed"


def test_another_firewall_needs_no_table(flight: Preflight) -> None:
    flight.machine.absent("nft")
    flight.facts = replace(flight.facts, firewall=backends.Found("shorewall"))
    assert flight.told() == []
