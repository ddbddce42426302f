"""asha.conf: what the installer was told about this site.

``KEY=VALUE`` lines. The keys of 2014 keep their names and their meaning (SARK wiki,
"V4 High Availability"); those that came later have a default that a file of 2014
gets, so that it describes the same cluster.
"""

from __future__ import annotations

import ipaddress
import os
import re
from dataclasses import dataclass

from asha.conf import values_of
from asha.relay import DRIVERS, NUMBERED

CONF = "/etc/asha/asha.conf"

# hostname(7), and what corosync, DRBD and Pacemaker all take for a node's name.
NODE_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,62}[A-Za-z0-9])?")
# IFNAMSIZ less its NUL; the characters that the kernel refuses left out.
NIC_NAME = re.compile(r"[A-Za-z0-9_.@-]{1,15}")
DEVICE = re.compile(r"/dev/[A-Za-z0-9/_.:+-]+")
# Nothing that crmsh or a shell would read as more than a word.
PROGRAM = re.compile(r"/[A-Za-z0-9/_.+-]+")
MAIL = re.compile(r"[^\s@<>\"']+@[^\s@<>\"']+")
# How alike a key must be to one of ours (difflib's ratio): a letter more, less or other.
MISSPELT = 0.85
# The largest Numato module has 32 relays, counted from 0.
RELAY_MOST = 31


@dataclass(frozen=True)
class Key:
    """One line of asha.conf."""

    name: str
    meaning: str
    default: str | None = None  # None: must be there


KEYS = (
    Key("PRIMARY", "true on the first node of the cluster, false on the second"),
    Key("USENIC1", "true: a NIC of its own for the cluster link; false: one NIC for all (learning)",
        "true"),
    Key("CLUSTERIP", "the virtual address, a free static one on the LAN"),
    Key("LANPREFIX", "the LAN's prefix length", "24"),
    Key("LANNIC", "the LAN's NIC", "eth0"),
    Key("LINKNIC", "the cluster link's NIC", "eth1"),
    Key("LINKPREFIX", "the cluster link's prefix length", "24"),
    Key("CLUSTERNET", "the cluster link's network", ""),
    Key("ANODENAME", "the first node's name (uname -n)"),
    Key("ANODEIP", "the first node's address on the cluster link"),
    Key("ANODELAN", "the first node's LAN address, where it is static: the second ring", ""),
    Key("BNODENAME", "the second node's name"),
    Key("BNODEIP", "the second node's address on the cluster link"),
    Key("BNODELAN", "the second node's LAN address, where it is static", ""),
    Key("IP", "this node's address on the cluster link: says which of the two it is", ""),
    Key("DRBDDEV", "this node's empty partition for the store"),
    Key("CLUSTERALERT",
        "where mail about the cluster is to go: kept for a later version, this one sends none", ""),
    Key("SITEID", "the site's name in such mail", ""),
    Key("LDAP", "YES where slapd, the phone book, is on both nodes: the cluster runs it", "NO"),
    Key("RHINOSPF", "YES on the node that powers the line relay", "NO"),
    Key("RHINOUSB", "the relay's device", "/dev/ttyUSB0"),
    Key("RELAYDRIVER", f"the relay's kind: {' or '.join(DRIVERS)}", "rhino"),
    Key("RELAYNUMBER", f"the relay on the module ({', '.join(NUMBERED)})", "0"),
    Key("RELAYPROGRAM", "the Rhino's program", "/usr/local/bin/rhinofailover"),
    Key("RELAYNODE", "the node that powers the relay, if it is not this one", ""),
)


class SiteError(Exception):
    """asha.conf says what cannot be. ``problems`` has all of it, one line each."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


@dataclass(frozen=True)
class NodeConfig:
    """One node of the two. ``lan`` is "" where its LAN address is dynamic.

    ``nodeid`` is corosync's (1 or 2); DRBD 9 counts from 0.
    """

    name: str
    address: str
    lan: str
    nodeid: int


@dataclass(frozen=True)
class Relay:
    """The card that moves the line."""

    driver: str
    device: str
    number: int
    program: str
    node: str


@dataclass(frozen=True)
class Site:
    """A whole asha.conf, checked. Addresses are text without a prefix.

    With one NIC the link's NIC and prefix are the LAN's.
    """

    first: NodeConfig
    second: NodeConfig
    is_first: bool
    two_nics: bool
    virtual_address: str
    lan_prefix: int
    lan_nic: str
    link_nic: str
    link_prefix: int
    device: str
    alert: str = ""
    site_id: str = ""
    relay: Relay | None = None
    # Whether the cluster runs slapd, where SARK keeps its phone book.
    ldap: bool = False

    @property
    def here(self) -> NodeConfig:
        return self.first if self.is_first else self.second

    @property
    def there(self) -> NodeConfig:
        return self.second if self.is_first else self.first

    @property
    def second_ring(self) -> bool:
        """Whether the LAN can carry a second corosync link: both ends are static."""
        return self.two_nics and bool(self.first.lan and self.second.lan)


def read(path: str = CONF, strict: bool = False) -> Site:
    """Raises OSError without the file, SiteError where it is wrong.

    ``strict``: also for a key that can only be a misspelt one of ours. For commands of a
    person; a node that runs lives with what it has.
    """
    with open(path, encoding="utf-8", errors="replace") as file:
        text = file.read()
    strange = misspelt(values_of(text)) if strict else []
    try:
        site = parse(text)
    except SiteError as wrong:
        raise SiteError(strange + wrong.problems) from None
    if strange:
        raise SiteError(strange)
    return site


def misspelt(given: dict[str, str]) -> list[str]:
    """Keys that can only be meant for one of ours, in words. Others are left alone: who
    kept a file of 2014 may have keys of his own in it, such as LANNIC2."""
    names = [key.name for key in KEYS]
    problems = []
    for name in given:
        if name in names or any(name.startswith(own) for own in names):
            continue
        from difflib import get_close_matches

        absent = [own for own in names if own not in given]
        near = get_close_matches(name.upper(), absent, n=1, cutoff=MISSPELT)
        if near:
            problems.append(f"{name}={given[name]}: there is no such key; is {near[0]} meant?")
    return problems


def parse(text: str) -> Site:
    """Raises SiteError with everything that is wrong, not only the first of it."""
    return site_of(values_of(text))


def site_of(given: dict[str, str]) -> Site:
    """The site that these values describe. Raises SiteError."""
    problems: list[str] = []
    values = {key.name: given.get(key.name) or key.default or "" for key in KEYS}
    for key in KEYS:
        if not values[key.name] and key.default is None:
            problems.append(f"{key.name} is missing: {key.meaning}")
    first = values["PRIMARY"].lower() in ("true", "yes", "1")
    if values["PRIMARY"].lower() not in ("true", "false", "yes", "no", "0", "1", ""):
        problems.append(f"PRIMARY={values['PRIMARY']}: must be true or false")
    two_nics = values["USENIC1"].lower() in ("true", "yes", "1")
    if not two_nics:
        values |= {"LINKNIC": values["LANNIC"], "LINKPREFIX": values["LANPREFIX"]}
    a, b = _peers(values, first)
    _check_text(values, problems)
    _check_addresses(values, problems)
    if problems:
        raise SiteError(problems)
    return Site(
        first=a,
        second=b,
        is_first=first,
        two_nics=two_nics,
        virtual_address=values["CLUSTERIP"],
        lan_prefix=int(values["LANPREFIX"]),
        lan_nic=values["LANNIC"],
        link_nic=values["LINKNIC"],
        link_prefix=int(values["LINKPREFIX"]),
        device=values["DRBDDEV"],
        alert=values["CLUSTERALERT"],
        site_id=values["SITEID"],
        relay=_relay(values, (a if first else b).name),
        ldap=values["LDAP"].upper() == "YES",
    )


def _peers(values: dict[str, str], first: bool) -> tuple[NodeConfig, NodeConfig]:
    """A is the first node. A file of 2014 may have its own node as A on both: then IP
    tells, and the two change places on the second."""
    # Numbered by name, not by order of installation: a replacement for the node that
    # was installed first is installed second, and must get the same number.
    ids = {name: i for i, name in enumerate(sorted((values["ANODENAME"], values["BNODENAME"])), 1)}
    a = (values["ANODENAME"], values["ANODEIP"], values["ANODELAN"])
    b = (values["BNODENAME"], values["BNODEIP"], values["BNODELAN"])
    own = values["IP"]
    if own and own == (b if first else a)[1]:
        a, b = b, a
    return NodeConfig(*a, nodeid=ids[a[0]]), NodeConfig(*b, nodeid=ids[b[0]])


def _relay(values: dict[str, str], here: str) -> Relay | None:
    if values["RHINOSPF"].upper() != "YES" and not values["RELAYNODE"]:
        return None
    return Relay(
        driver=values["RELAYDRIVER"],
        device=values["RHINOUSB"],
        number=int(values["RELAYNUMBER"]),
        program=values["RELAYPROGRAM"],
        node=values["RELAYNODE"] or here,
    )


def _check_text(values: dict[str, str], problems: list[str]) -> None:
    for key in ("ANODENAME", "BNODENAME", "RELAYNODE"):
        if values[key] and not NODE_NAME.fullmatch(values[key]):
            problems.append(f"{key}={values[key]}: must be a host name as uname -n prints it")
    if values["ANODENAME"] and values["ANODENAME"].lower() == values["BNODENAME"].lower():
        problems.append(f"ANODENAME and BNODENAME are both {values['ANODENAME']}: "
                        "the two nodes need different names")
    if values["RELAYNODE"] and values["RELAYNODE"] not in (
        values["ANODENAME"], values["BNODENAME"]
    ):
        problems.append(f"RELAYNODE={values['RELAYNODE']}: is neither node")
    for key in ("LANNIC", "LINKNIC"):
        if not NIC_NAME.fullmatch(values[key]):
            problems.append(f"{key}={values[key]}: must be a NIC's name, as ip link prints it")
    for key in ("DRBDDEV", "RHINOUSB"):
        device = values[key]
        if device and (not DEVICE.fullmatch(device) or os.path.normpath(device) != device):
            like = "/dev/sda5" if key == "DRBDDEV" else "/dev/ttyUSB0"
            problems.append(f"{key}={device}: must be a device, such as {like}")
    if values["DRBDDEV"].startswith("/dev/drbd"):
        problems.append(f"DRBDDEV={values['DRBDDEV']}: must be the partition below DRBD, "
                        "such as /dev/sda5")
    program = values["RELAYPROGRAM"]
    if not PROGRAM.fullmatch(program) or os.path.normpath(program) != program:
        problems.append(f"RELAYPROGRAM={program}: must be a program with its whole path")
    if values["CLUSTERALERT"] and not MAIL.fullmatch(values["CLUSTERALERT"]):
        problems.append(f"CLUSTERALERT={values['CLUSTERALERT']}: must be one mail address")
    if not values["SITEID"].isprintable():
        problems.append("SITEID: has characters that cannot be printed")
    if values["RELAYDRIVER"] not in DRIVERS:
        problems.append(f"RELAYDRIVER={values['RELAYDRIVER']}: must be {' or '.join(DRIVERS)}")
    if not _is_number(values["RELAYNUMBER"], 0, RELAY_MOST):
        problems.append(f"RELAYNUMBER={values['RELAYNUMBER']}: must be a number "
                        f"from 0 to {RELAY_MOST}")
    for key in ("RHINOSPF", "LDAP"):
        if values[key].upper() not in ("YES", "NO"):
            problems.append(f"{key}={values[key]}: must be YES or NO")
    if values["USENIC1"].lower() not in ("true", "false", "yes", "no", "1", "0"):
        problems.append(f"USENIC1={values['USENIC1']}: must be true or false")


def _check_addresses(values: dict[str, str], problems: list[str]) -> None:
    known: dict[str, ipaddress.IPv4Address] = {}
    for key in ("CLUSTERIP", "ANODEIP", "BNODEIP", "ANODELAN", "BNODELAN", "IP"):
        if values[key]:
            try:
                known[key] = ipaddress.IPv4Address(values[key])
            except ValueError:
                problems.append(f"{key}={values[key]}: must be an IPv4 address")
    for key, address in known.items():
        if address.is_multicast or address.is_loopback or address.is_unspecified \
                or address.is_reserved:
            problems.append(f"{key}={address}: no machine can have this address")
    nets = {}
    for key, member in (("LANPREFIX", "CLUSTERIP"), ("LINKPREFIX", "ANODEIP")):
        text = values[key]
        if not _is_number(text, 8, 30):
            problems.append(f"{key}={text}: must be a prefix length from 8 to 30")
        elif member in known:
            nets[key] = ipaddress.IPv4Network((known[member], int(text)), strict=False)
    for one, other in (("ANODEIP", "BNODEIP"), ("CLUSTERIP", "ANODEIP"), ("CLUSTERIP", "BNODEIP"),
                       ("ANODELAN", "BNODELAN"), ("CLUSTERIP", "ANODELAN"),
                       ("CLUSTERIP", "BNODELAN")):
        if one in known and known.get(other) == known[one]:
            problems.append(f"{one} and {other} are both {known[one]}: each needs its own")
    if "IP" in known and known["IP"] not in (known.get("ANODEIP"), known.get("BNODEIP")):
        problems.append(f"IP={known['IP']}: is neither ANODEIP nor BNODEIP")
    one_nic = values["USENIC1"].lower() in ("false", "no", "0")
    link, lan = nets.get("LINKPREFIX"), nets.get("LANPREFIX")
    if link and "BNODEIP" in known and known["BNODEIP"] not in link:
        problems.append(f"BNODEIP={known['BNODEIP']}: is not in ANODEIP's network {link}")
    if link and lan and not one_nic and link.overlaps(lan):
        problems.append(f"the cluster link's network {link} and the LAN {lan} overlap: "
                        "the link needs a subnet of its own")
    if link and lan and one_nic and not link.overlaps(lan):
        problems.append(f"USENIC1=false: ANODEIP and BNODEIP must be in the LAN {lan}")
    for key in ("ANODELAN", "BNODELAN"):
        if lan and key in known and known[key] not in lan:
            problems.append(f"{key}={known[key]}: is not in the LAN {lan}")
    for key, net in (("CLUSTERIP", lan), ("ANODEIP", link), ("BNODEIP", link)):
        if net and key in known and known[key] in (net.network_address, net.broadcast_address):
            problems.append(f"{key}={known[key]}: is the network's own or broadcast address")
    if values["CLUSTERNET"] and link:
        try:
            if ipaddress.IPv4Address(values["CLUSTERNET"]) != link.network_address:
                problems.append(f"CLUSTERNET={values['CLUSTERNET']}: ANODEIP's network is {link}")
        except ValueError:
            problems.append(f"CLUSTERNET={values['CLUSTERNET']}: must be an IPv4 network address")


def _is_number(text: str, least: int, most: int) -> bool:
    """isdecimal() knows the digits of every script, and int() refuses 4300 of them."""
    return text.isascii() and text.isdecimal() and len(text) < 9 and least <= int(text) <= most
