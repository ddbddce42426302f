"""asha.conf: a file of 2014, the second node's, and everything that is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from asha.cluster import site
from asha.cluster.site import NodeConfig, Relay, Site, SiteError
from asha.conf import values_of, with_values

# The manual of 2014, word for word.
MANUAL = """\
PRIMARY=true
USENIC1=true
CLUSTERIP=192.168.1.90
CLUSTERALERT=admin@aelintra.com
SITEID=AEL TEST CLUSTER
ANODEIP=10.0.3.251
BNODEIP=10.0.3.252
ANODENAME=crm1
BNODENAME=crm2
DRBDDEV=/dev/sda5
CLUSTERNET=10.0.3.0
IP=10.0.3.251
RHINOSPF=YES
RHINOUSB=/dev/ttyUSB0
"""
CRM1 = NodeConfig("crm1", "10.0.3.251", "", 1)
CRM2 = NodeConfig("crm2", "10.0.3.252", "", 2)


def saying(**changes: str | None) -> Site:
    """The manual's site with other values; None leaves the key out."""
    values = {**values_of(MANUAL), **changes}
    return site.site_of({key: value for key, value in values.items() if value is not None})


def problems(**changes: str | None) -> list[str]:
    with pytest.raises(SiteError) as wrong:
        saying(**changes)
    said = told(wrong.value)
    assert str(wrong.value) == "; ".join(said)
    assert all(one.hint and one.key for one in wrong.value.findings)
    return said


def told(wrong: SiteError) -> list[str]:
    return [one.what for one in wrong.findings]


# What a file of 2014 means.


def test_the_manuals_file() -> None:
    assert site.parse(MANUAL) == Site(
        first=CRM1,
        second=CRM2,
        is_first=True,
        two_nics=True,
        virtual_address="192.168.1.90",
        lan_prefix=24,
        lan_nic="eth0",
        link_nic="eth1",
        link_prefix=24,
        device="/dev/sda5",
        alert="admin@aelintra.com",
        site_id="AEL TEST CLUSTER",
        relay=Relay("rhino", "/dev/ttyUSB0", 0, "/usr/local/bin/rhinofailover", "crm1"),
    )


def test_here_and_there() -> None:
    first = site.parse(MANUAL)
    assert (first.here, first.there) == (CRM1, CRM2)
    second = saying(PRIMARY="false", IP="10.0.3.252", RHINOSPF="NO")
    assert (second.here, second.there) == (CRM2, CRM1)


def test_the_second_nodes_file_either_way_round() -> None:
    """2014's installer asked for "this node" and "the other": A may be either."""
    as_first = saying(PRIMARY="false", IP="10.0.3.252", RHINOSPF="NO")
    own_first = saying(PRIMARY="false", IP="10.0.3.252", RHINOSPF="NO", ANODENAME="crm2",
                       ANODEIP="10.0.3.252", BNODENAME="crm1", BNODEIP="10.0.3.251")
    assert own_first == as_first
    assert (own_first.first, own_first.second) == (CRM1, CRM2)


def test_the_first_nodes_file_with_the_other_as_a() -> None:
    turned = saying(ANODENAME="crm2", ANODEIP="10.0.3.252", BNODENAME="crm1",
                    BNODEIP="10.0.3.251")
    assert turned == site.parse(MANUAL)


def test_without_ip_a_is_the_first() -> None:
    assert saying(IP=None) == site.parse(MANUAL)


def test_numbers_follow_the_names_and_not_who_was_first() -> None:
    """A replacement of the first node is installed second, and keeps its number."""
    replaced = saying(PRIMARY="false", ANODENAME="crm2", ANODEIP="10.0.3.252",
                      BNODENAME="crm1", BNODEIP="10.0.3.251", IP="10.0.3.251", RHINOSPF="NO")
    assert replaced.here == CRM1
    assert replaced.first == CRM2


def test_the_line_relay() -> None:
    assert saying(RHINOSPF="NO").relay is None
    assert saying(RHINOSPF=None).relay is None
    there = saying(RHINOSPF="NO", RELAYNODE="crm2", RELAYDRIVER="numato",
                   RHINOUSB="/dev/ttyACM0", RELAYNUMBER="31").relay
    assert there == Relay("numato", "/dev/ttyACM0", 31, "/usr/local/bin/rhinofailover", "crm2")
    second = saying(PRIMARY="false", IP="10.0.3.252").relay
    assert second is not None
    assert second.node == "crm2"


def test_the_second_ring_needs_two_static_addresses_and_two_nics() -> None:
    both = {"ANODELAN": "192.168.1.11", "BNODELAN": "192.168.1.12"}
    assert saying(**both).second_ring
    assert not saying(ANODELAN="192.168.1.11").second_ring
    assert not site.parse(MANUAL).second_ring
    one_nic = saying(**both, USENIC1="false", ANODEIP="192.168.1.11", BNODEIP="192.168.1.12",
                     IP=None, CLUSTERNET=None)
    assert not one_nic.second_ring


def test_one_nic_is_the_lans_with_the_lans_prefix() -> None:
    one = saying(USENIC1="false", CLUSTERIP="10.1.0.90", LANPREFIX="16", LANNIC="enp1s0",
                 ANODEIP="10.1.0.1", BNODEIP="10.1.7.255", IP="10.1.0.1", CLUSTERNET="10.1.0.0")
    assert (one.two_nics, one.link_nic, one.link_prefix) == (False, "enp1s0", 16)


@pytest.mark.parametrize("yes", ["true", "TRUE", "yes", "1", '"true"', "'yes'"])
def test_ways_to_say_yes(yes: str) -> None:
    found = site.parse(MANUAL.replace("PRIMARY=true", f"PRIMARY={yes}"))
    assert found.is_first


@pytest.mark.parametrize(
    ("typo", "meant"),
    [("LANPREFX", "LANPREFIX"), ("lannic", "LANNIC"), ("RELAYDRVER", "RELAYDRIVER"),
     ("ANODELN", "ANODELAN")],
)
def test_a_misspelt_key_is_not_passed_over(tmp_path: Path, typo: str, meant: str) -> None:
    file = tmp_path / "asha.conf"
    file.write_text(f"{MANUAL}{typo}=x\n")
    with pytest.raises(SiteError) as wrong:
        site.read(str(file), strict=True)
    said = f"{typo}=x: there is no such key; is {meant} meant?"
    assert told(wrong.value) == [said]
    # A node that runs lives with it.
    assert site.read(str(file)) == site.parse(MANUAL)
    file.write_text(f"{MANUAL}{typo}=x\n".replace("PRIMARY=true", "PRIMARY=perhaps"))
    with pytest.raises(SiteError) as wrong:
        site.read(str(file), strict=True)
    assert [said, "PRIMARY=perhaps: must be true or false"] == told(wrong.value)


@pytest.mark.parametrize(
    "key", ["SITEID2", "CLUSTERIP6", "USENIC2", "LANNIC1", "LINKNIC2", "CLUSTERNET2", "LDAPS"]
)
def test_a_key_of_his_own_is_left_alone(key: str) -> None:
    assert site.misspelt({**values_of(MANUAL), key: "x"}) == []


def test_comments_blanks_quotes_and_unknown_keys() -> None:
    text = "# PRIMARY=false\n\n" + MANUAL.replace("=", " = ") + 'SITEID="AEL TEST CLUSTER"\n' \
           "HAMODE=old\nno equals sign here\n"
    assert site.parse(text) == site.parse(MANUAL)


def test_read_from_its_file(tmp_path: Path) -> None:
    file = tmp_path / "asha.conf"
    file.write_text(MANUAL)
    assert site.read(str(file)) == site.parse(MANUAL)
    file.write_bytes(MANUAL.replace("AEL", "A\xe9L").encode("latin-1"))
    assert site.read(str(file)).virtual_address == "192.168.1.90"
    with pytest.raises(FileNotFoundError):
        site.read(str(tmp_path / "none"))


# What is refused, all at once.


def test_everything_wrong_is_told_at_once() -> None:
    found = problems(PRIMARY="perhaps", CLUSTERIP="192.168.1.900", DRBDDEV=None,
                     BNODENAME="crm_2", LANPREFIX="33")
    assert [line.split("=")[0].split()[0] for line in found] == [
        "DRBDDEV", "PRIMARY", "CLUSTERIP", "LANPREFIX", "BNODENAME",
    ]


def test_an_empty_file_names_every_key_that_must_be_there() -> None:
    with pytest.raises(SiteError) as wrong:
        site.parse("")
    missing = [line.split()[0] for line in told(wrong.value) if "is missing" in line]
    assert missing == ["PRIMARY", "CLUSTERIP", "ANODENAME", "ANODEIP", "BNODENAME", "BNODEIP",
                       "DRBDDEV"]


REFUSED: list[tuple[dict[str, str | None], str]] = [
    ({"PRIMARY": "maybe"}, "PRIMARY=maybe: must be true or false"),
    ({"USENIC1": "2"}, "USENIC1=2: must be true or false"),
    ({"RHINOSPF": "perhaps"}, "RHINOSPF=perhaps: must be YES or NO"),
    ({"ANODENAME": "crm 1"}, "ANODENAME=crm 1: must be a host name"),
    ({"ANODENAME": "-crm1"}, "must be a host name"),
    ({"ANODENAME": "crm1.example.org"}, "must be a host name"),
    ({"ANODENAME": "c" * 65}, "must be a host name"),
    ({"BNODENAME": "CRM1"}, "ANODENAME and BNODENAME are both crm1"),
    ({"RELAYNODE": "crm3"}, "RELAYNODE=crm3: is neither node"),
    ({"LANNIC": "eth0; reboot"}, "LANNIC=eth0; reboot: must be a NIC's name"),
    ({"LINKNIC": "eth0"}, "LANNIC and LINKNIC are both eth0"),
    ({"LINKNIC": "a-name-of-16-chars"}, "LINKNIC=a-name-of-16-chars: must be a NIC's name"),
    ({"DRBDDEV": "sda5"}, "DRBDDEV=sda5: must be a device"),
    ({"DRBDDEV": "/dev/../etc/passwd"}, "must be a device"),
    ({"DRBDDEV": "/dev/sda5 /dev/sdb"}, "must be a device"),
    ({"DRBDDEV": "/dev/drbd0"}, "must be the partition below DRBD"),
    ({"RHINOUSB": "ttyUSB0"}, "RHINOUSB=ttyUSB0: must be a device"),
    ({"RELAYPROGRAM": "rhinofailover"}, "RELAYPROGRAM=rhinofailover: must be a program"),
    ({"RELAYPROGRAM": "/bin/x y"}, "must be a program with its whole path"),
    ({"RELAYPROGRAM": "/bin/../x"}, "must be a program with its whole path"),
    ({"RELAYDRIVER": "xorcom"}, "RELAYDRIVER=xorcom: must be rhino or numato"),
    ({"RELAYNUMBER": "-1"}, "RELAYNUMBER=-1: must be a number from 0 to 31"),
    ({"RELAYNUMBER": "32"}, "RELAYNUMBER=32: must be a number from 0 to 31"),
    ({"CLUSTERALERT": "admin"}, "CLUSTERALERT=admin: must be one mail address"),
    ({"CLUSTERALERT": "a@b c@d"}, "must be one mail address"),
    ({"SITEID": "bell\x07"}, "SITEID: has characters that cannot be printed"),
    ({"CLUSTERIP": "192.168.1"}, "CLUSTERIP=192.168.1: must be an IPv4 address"),
    ({"CLUSTERIP": "192.168.1.90/24"}, "must be an IPv4 address"),
    ({"CLUSTERIP": "fe80::1"}, "must be an IPv4 address"),
    ({"CLUSTERIP": "192.168.1.090"}, "must be an IPv4 address"),
    ({"CLUSTERIP": "127.0.0.1"}, "CLUSTERIP=127.0.0.1: no machine can have this address"),
    ({"ANODEIP": "224.0.0.5", "IP": None}, "ANODEIP=224.0.0.5: no machine can have this"),
    ({"CLUSTERIP": "192.168.1.0"}, "is the network's own or broadcast address"),
    ({"CLUSTERIP": "192.168.1.255"}, "is the network's own or broadcast address"),
    ({"BNODEIP": "10.0.3.255"}, "is the network's own or broadcast address"),
    ({"LANPREFIX": "255.255.255.0"}, "LANPREFIX=255.255.255.0: must be a prefix length"),
    ({"LANPREFIX": "7"}, "LANPREFIX=7: must be a prefix length from 8 to 30"),
    ({"LINKPREFIX": "31"}, "LINKPREFIX=31: must be a prefix length from 8 to 30"),
    ({"BNODEIP": "10.0.3.251"}, "ANODEIP and BNODEIP are both 10.0.3.251"),
    ({"BNODEIP": "10.0.4.252"}, "BNODEIP=10.0.4.252: is not in ANODEIP's network 10.0.3.0/24"),
    ({"CLUSTERIP": "10.0.3.252"}, "CLUSTERIP and BNODEIP are both 10.0.3.252"),
    ({"CLUSTERIP": "10.0.3.90"}, "overlap: the link needs a subnet of its own"),
    ({"USENIC1": "false"}, "USENIC1=false: ANODEIP and BNODEIP must be in the LAN"),
    ({"ANODELAN": "192.168.2.11"}, "ANODELAN=192.168.2.11: is not in the LAN 192.168.1.0/24"),
    ({"BNODELAN": "192.168.1.90"}, "CLUSTERIP and BNODELAN are both 192.168.1.90"),
    ({"ANODELAN": "192.168.1.11", "BNODELAN": "192.168.1.11"}, "ANODELAN and BNODELAN are both"),
    ({"IP": "10.0.3.250"}, "IP=10.0.3.250: is neither ANODEIP nor BNODEIP"),
    ({"CLUSTERNET": "10.0.4.0"}, "CLUSTERNET=10.0.4.0: ANODEIP's network is 10.0.3.0/24"),
    ({"CLUSTERNET": "ten"}, "CLUSTERNET=ten: must be an IPv4 network address"),
]


@pytest.mark.parametrize(("changes", "said"), REFUSED)
def test_refused(changes: dict[str, str | None], said: str) -> None:
    assert any(said in line for line in problems(**changes)), problems(**changes)


@pytest.mark.parametrize("name", ["crm1", "CRM-1", "n", "a" * 64, "1st"])
def test_names_that_are_taken(name: str) -> None:
    assert saying(ANODENAME=name).first.name == name


@pytest.mark.parametrize("device", [
    "/dev/sda5", "/dev/nvme0n1p3", "/dev/mapper/vg0-drbd", "/dev/disk/by-partuuid/a-b:c",
])
def test_devices_that_are_taken(device: str) -> None:
    assert saying(DRBDDEV=device).device == device


# Values that are changed in a file of the user's.


def test_all_but_the_changed_values_stays() -> None:
    text = "# ANODELAN=no\n\nANODELAN = '1'  \nOWN=\\1 = x\n  BNODELAN=2\n\nthe end\n\n"
    assert with_values(text, {"BNODELAN": "", "ANODELAN": r"\g<0>"}) == (
        "# ANODELAN=no\n\nANODELAN=\\g<0>\nOWN=\\1 = x\nBNODELAN=\n\nthe end\n\n")
    assert with_values(text, {}) == text


@pytest.mark.parametrize(("text", "changed"), [
    ("A=1\n\n", "A=1\nB=2\n"), ("A=1", "A=1\nB=2\n"), ("B=1", "B=2\n"), ("", "\nB=2\n"),
])
def test_a_key_that_is_not_there_is_added_with_its_value(text: str, changed: str) -> None:
    assert with_values(text, {"B": "2", "C": ""}) == changed
