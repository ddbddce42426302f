"""What the values of an asha.conf must be: each rule is here once, for all that read or ask
them.

These rules need the values alone. Rules that need the machine are in asha.bootstrap.preflight;
both yield findings. A missing value breaks no rule, so half of the answers can be judged too.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from asha.finding import Finding, error
from asha.relay import DRIVERS, KINDS

Values = Mapping[str, str]

YES, NO = ("true", "yes", "1"), ("false", "no", "0")
# hostname(7), and what corosync, DRBD and Pacemaker all take for a node's name.
NODE_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,62}[A-Za-z0-9])?")
# IFNAMSIZ less its NUL; the characters that the kernel refuses left out.
NIC_NAME = re.compile(r"[A-Za-z0-9_.@-]{1,15}")
DEVICE = re.compile(r"/dev/[A-Za-z0-9/_.:+-]+")
# Nothing that crmsh or a shell would read as more than a word.
PROGRAM = re.compile(r"/[A-Za-z0-9/_.+-]+")
MAIL = re.compile(r"[^\s@<>\"']+@[^\s@<>\"']+")
# The largest Numato module has 32 relays, counted from 0.
RELAY_MOST = 31
PREFIXES = 8, 30

# The manual's network for the cluster link, and others for a LAN that has it.
LINK_NETWORKS = ("10.0.3.0/24", "172.31.3.0/24", "192.168.253.0/24")
ADDRESSES = ("CLUSTERIP", "ANODEIP", "BNODEIP", "ANODELAN", "BNODELAN", "IP")
BOTH_SAME = "asha configure asks for them again"


def is_yes(text: str) -> bool:
    return text.lower() in YES


def own_key(values: Values, what: str) -> str:
    """The key of this node's "NAME", "IP" or "LAN": the first node is A, the second B."""
    return f"{'A' if is_yes(values.get('PRIMARY', '')) else 'B'}NODE{what}"


def spare_network(used: Iterable[IPv4Network]) -> IPv4Network | None:
    """A network for the cluster link that overlaps none of these."""
    taken = list(used)
    for text in LINK_NETWORKS:
        network = IPv4Network(text)
        if not any(network.overlaps(one) for one in taken):
            return network
    return None


def own_subnet(used: Iterable[IPv4Network]) -> str:
    """The hint for a cluster link in a network that something else uses."""
    spare = spare_network(used)
    return "choose a subnet that nothing else uses" + (f", such as {spare}" if spare else "")


# One value alone.

@dataclass(frozen=True)
class Form:
    """The form of a value: ``must`` follows KEY=VALUE, ``hint`` says what to do."""

    fits: Callable[[str], object]
    must: str
    hint: str


def _is_path(text: str, form: re.Pattern[str]) -> bool:
    return bool(form.fullmatch(text)) and os.path.normpath(text) == text


def _is_number(text: str, least: int, most: int) -> bool:
    """isdecimal() knows the digits of every script, and int() refuses 4300 of them."""
    return text.isascii() and text.isdecimal() and len(text) < 9 and least <= int(text) <= most


def is_address(text: str) -> bool:
    try:
        IPv4Address(text)
    except ValueError:
        return False
    return True


TRUTH = Form(lambda text: text.lower() in YES + NO, "must be true or false", "write true or false")
YES_OR_NO = Form(lambda text: text.upper() in ("YES", "NO"), "must be YES or NO",
                 "write YES or NO")
NAME = Form(NODE_NAME.fullmatch, "must be a host name as uname -n prints it",
            "letters, digits and hyphens, without a domain; hostnamectl set-hostname changes it")
NIC = Form(NIC_NAME.fullmatch, "must be a NIC's name, as ip link prints it",
           "ip link lists this machine's NICs")
PREFIX = Form(lambda text: _is_number(text, *PREFIXES), "must be a prefix length from 8 to 30",
              "24 is the netmask 255.255.255.0")
ADDRESS = Form(is_address, "must be an IPv4 address",
               "four numbers with dots, without a prefix: 192.168.1.90")

FORMS: dict[str, Form] = {
    "PRIMARY": TRUTH,
    "USENIC1": TRUTH,
    "LANWATCH": TRUTH,
    **dict.fromkeys(ADDRESSES, ADDRESS),
    "LANPREFIX": PREFIX,
    "LINKPREFIX": PREFIX,
    "LANNIC": NIC,
    "LINKNIC": NIC,
    "CLUSTERNET": Form(is_address, "must be an IPv4 network address",
                       "leave CLUSTERNET out: it follows from the addresses"),
    "ANODENAME": NAME,
    "BNODENAME": NAME,
    "RELAYNODE": NAME,
    "DRBDDEV": Form(lambda text: _is_path(text, DEVICE), "must be a device, such as /dev/sda5",
                    "lsblk lists the disks and partitions"),
    "RHINOUSB": Form(lambda text: _is_path(text, DEVICE),
                     "must be a device, such as /dev/ttyUSB0",
                     "dmesg tells it when the relay is plugged in"),
    "RELAYPROGRAM": Form(lambda text: _is_path(text, PROGRAM),
                         "must be a program with its whole path",
                         "the vendor's is /usr/local/bin/rhinofailover"),
    "RELAYDRIVER": Form(lambda text: text in DRIVERS, f"must be {' or '.join(DRIVERS)}",
                        ", ".join(f"{name} is the {what}" for name, what in KINDS.items())),
    "RELAYNUMBER": Form(lambda text: _is_number(text, 0, RELAY_MOST),
                        f"must be a number from 0 to {RELAY_MOST}",
                        "the relays of a module are counted from 0"),
    "CLUSTERALERT": Form(MAIL.fullmatch, "must be one mail address",
                         "for several people, an alias of the mail server; or leave it empty"),
    "SITEID": Form(str.isprintable, "has characters that cannot be printed",
                   "letters, digits and blanks"),
    "RHINOSPF": YES_OR_NO,
    "LDAP": YES_OR_NO,
}


def forms(values: Values) -> Iterator[Finding]:
    """The findings about each value by itself."""
    for key, form in FORMS.items():
        value = values.get(key, "")
        if value and not form.fits(value):
            shown = f"{key}={value}" if value.isprintable() else key
            yield error(f"{shown}: {form.must}", form.hint, key)


# Values beside each other.

@dataclass(frozen=True)
class Network:
    """The readable addresses, by key, and the networks, None where unknown."""

    values: Values
    known: dict[str, IPv4Address]
    lan: IPv4Network | None
    link: IPv4Network | None
    one_nic: bool


def _network(values: Values) -> Network:
    known = {key: IPv4Address(values[key]) for key in ADDRESSES if is_address(values.get(key, ""))}

    one_nic = values.get("USENIC1", "").lower() in NO

    def net(prefix: str, *members: str) -> IPv4Network | None:
        text = values.get(prefix, "")
        member = next((known[key] for key in members if key in known), None)
        if member is None or not PREFIX.fits(text):
            return None
        return IPv4Network((member, int(text)), strict=False)

    return Network(values, known, net("LANPREFIX", "CLUSTERIP"),
                   net("LANPREFIX" if one_nic else "LINKPREFIX", "ANODEIP", "BNODEIP"), one_nic)


def _possible(site: Network) -> Iterator[Finding]:
    for key, one in site.known.items():
        if one.is_multicast or one.is_loopback or one.is_unspecified or one.is_reserved:
            yield error(f"{key}={one}: no machine can have this address",
                        "choose one of the network's", key)


def _different(site: Network) -> Iterator[Finding]:
    a, b = (site.values.get(f"{side}NODENAME", "") for side in "AB")
    if a and a.lower() == b.lower():
        yield error(f"ANODENAME and BNODENAME are both {a}: the two nodes need different names",
                    "hostnamectl set-hostname gives this machine another", "BNODENAME")
    for one, other in (("ANODEIP", "BNODEIP"), ("CLUSTERIP", "ANODEIP"), ("CLUSTERIP", "BNODEIP"),
                       ("ANODELAN", "BNODELAN"), ("CLUSTERIP", "ANODELAN"),
                       ("CLUSTERIP", "BNODELAN")):
        if one in site.known and site.known.get(other) == site.known[one]:
            yield error(f"{one} and {other} are both {site.known[one]}: each needs its own",
                        BOTH_SAME, other)


def _nics(site: Network) -> Iterator[Finding]:
    nic = site.values.get("LANNIC", "")
    if is_yes(site.values.get("USENIC1", "")) and nic and nic == site.values.get("LINKNIC"):
        yield error(f"LANNIC and LINKNIC are both {nic}",
                    "the cluster link needs a NIC and a cable of its own", "LINKNIC")


def _own_address(site: Network) -> Iterator[Finding]:
    own, nodes = site.known.get("IP"), [site.known.get("ANODEIP"), site.known.get("BNODEIP")]
    if own and None not in nodes and own not in nodes:
        yield error(f"IP={own}: is neither ANODEIP nor BNODEIP",
                    "IP is this node's address on the cluster link", "IP")


def _link(site: Network) -> Iterator[Finding]:
    known, link, lan = site.known, site.link, site.lan
    own = own_key(site.values, "IP")
    if link and "BNODEIP" in known and known["BNODEIP"] not in link:
        yield error(f"BNODEIP={known['BNODEIP']}: is not in ANODEIP's network {link}",
                    "both nodes need an address in the same subnet", "BNODEIP")
    if link and lan and not site.one_nic and link.overlaps(lan):
        yield error(f"the cluster link's network {link} and the LAN {lan} overlap: "
                    "the link needs a subnet of its own", own_subnet([lan]), own)
    if link and lan and site.one_nic and not link.overlaps(lan):
        yield error(f"USENIC1=false: ANODEIP and BNODEIP must be in the LAN {lan}",
                    "with one NIC they are the nodes' static LAN addresses", own)
    net = site.values.get("CLUSTERNET", "")
    if link and is_address(net) and IPv4Address(net) != link.network_address:
        yield error(f"CLUSTERNET={net}: ANODEIP's network is {link}",
                    f"CLUSTERNET={link.network_address}, or leave it out", "CLUSTERNET")


def _hosts(site: Network) -> Iterator[Finding]:
    for key in ("ANODELAN", "BNODELAN"):
        if site.lan and key in site.known and site.known[key] not in site.lan:
            yield error(f"{key}={site.known[key]}: is not in the LAN {site.lan}",
                        f"leave {key} out where that node's LAN address is leased", key)
    for key, net in (("CLUSTERIP", site.lan), ("ANODEIP", site.link), ("BNODEIP", site.link)):
        if net and key in site.known and site.known[key] in (
            net.network_address, net.broadcast_address
        ):
            yield error(f"{key}={site.known[key]}: is the network's own or broadcast address",
                        f"choose one between: {net[1]} to {net[-2]}", key)


def _store(site: Network) -> Iterator[Finding]:
    device = site.values.get("DRBDDEV", "")
    if device.startswith("/dev/drbd"):
        yield error(f"DRBDDEV={device}: must be the partition below DRBD, such as /dev/sda5",
                    "lsblk lists the disks and partitions", "DRBDDEV")


def _relay(site: Network) -> Iterator[Finding]:
    node = site.values.get("RELAYNODE", "")
    names = [site.values.get(f"{side}NODENAME", "") for side in "AB"]
    if node and "" not in names and node not in names:
        yield error(f"RELAYNODE={node}: is neither node", f"{names[0]} or {names[1]}", "RELAYNODE")


TOGETHER = (_possible, _different, _nics, _own_address, _link, _hosts, _store, _relay)


def check(values: Values) -> list[Finding]:
    """The findings for all rules that these values break."""
    site = _network(values)
    return [*forms(values), *(finding for rule in TOGETHER for finding in rule(site))]
