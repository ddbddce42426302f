"""asha.conf: what the installer was told about this site.

``KEY=VALUE`` lines. The keys of 2014 keep their names and their meaning (SARK wiki,
"V4 High Availability"); those that came later have a default that a file of 2014
gets, so that it describes the same cluster.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from asha.cluster import rules
from asha.conf import values_of
from asha.finding import Finding, error
from asha.relay import DRIVERS, NUMBERED

CONF = "/etc/asha/asha.conf"

# How alike a key must be to one of ours (difflib's ratio): a letter more, less or other.
MISSPELT = 0.85


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
    Key("LANWATCH", "true: a node whose LAN is dead gives the telephones to one whose LAN works; "
        "needs two NICs", "true"),
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
    """asha.conf is invalid. ``findings`` has everything that is wrong."""

    def __init__(self, findings: list[Finding]) -> None:
        super().__init__("; ".join(one.what for one in findings))
        self.findings = findings


@dataclass(frozen=True)
class NodeConfig:
    """One of the two nodes. ``lan`` is "" where its LAN address is dynamic.

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
    # What was asked for: see watches_lan.
    lan_watch: bool = True

    @property
    def here(self) -> NodeConfig:
        return self.first if self.is_first else self.second

    @property
    def there(self) -> NodeConfig:
        return self.second if self.is_first else self.first

    @property
    def watches_lan(self) -> bool:
        """Whether loss of the LAN moves the telephones. With one NIC it is the cluster link
        that is lost, too, and the nodes cannot tell who has lost it."""
        return self.two_nics and self.lan_watch

    @property
    def second_ring(self) -> bool:
        """Whether the LAN can carry a second corosync link: both ends are static."""
        return self.two_nics and bool(self.first.lan and self.second.lan)


def agreement(site: Site) -> dict[str, str]:
    """The values of asha.conf that both nodes must have, by key. Names and addresses are
    compared by node. One node may have a line relay without the other's knowing."""
    return {
        "CLUSTERIP": site.virtual_address,
        "LANPREFIX": str(site.lan_prefix),
        "LINKPREFIX": str(site.link_prefix),
        "USENIC1": str(site.two_nics).lower(),
        "LANWATCH": str(site.lan_watch).lower(),
        "LDAP": "YES" if site.ldap else "NO",
    }


def read(path: str = CONF, strict: bool = False) -> Site:
    """Raises OSError without the file, SiteError if it is invalid.

    ``strict``: also for a key that can only be a misspelt one of ours. For a person's commands;
    a running node lives with what it has.
    """
    with open(path, encoding="utf-8", errors="replace") as file:
        text = file.read()
    strange = misspelt(values_of(text)) if strict else []
    try:
        site = parse(text)
    except SiteError as wrong:
        raise SiteError(strange + wrong.findings) from None
    if strange:
        raise SiteError(strange)
    return site


def misspelt(given: Mapping[str, str]) -> list[Finding]:
    """Keys that can only be misspelt ones of ours. Others are left alone: a file of 2014 may
    have keys of its owner's, such as LANNIC2."""
    names = [key.name for key in KEYS]
    findings = []
    for name in given:
        if name in names or any(name.startswith(own) for own in names):
            continue
        from difflib import get_close_matches

        absent = [own for own in names if own not in given]
        near = get_close_matches(name.upper(), absent, n=1, cutoff=MISSPELT)
        if near:
            findings.append(error(
                f"{name}={given[name]}: there is no such key; is {near[0]} meant?",
                f"write {near[0]}, or take the line out", name))
    return findings


def parse(text: str) -> Site:
    """Raises SiteError with everything that is wrong, not only the first of it."""
    return site_of(values_of(text))


def site_of(given: Mapping[str, str]) -> Site:
    """The site that these values describe. Raises SiteError."""
    values = _of_one_nic({key.name: given.get(key.name) or key.default or "" for key in KEYS})
    missing = [error(f"{key.name} is missing: {key.meaning}", "asha configure asks for it",
                     key.name)
               for key in KEYS if not values[key.name] and key.default is None]
    findings = missing + rules.check(values)
    if findings:
        raise SiteError(findings)
    return _site(values)


def draft(given: Mapping[str, str]) -> Site:
    """What these values describe so far: "" and 0 for what is not there or unreadable."""
    unreadable = {finding.key for finding in rules.forms(given)}
    return _site(_of_one_nic({
        key.name: "" if key.name in unreadable else given.get(key.name, "") for key in KEYS}))


def turned(values: Mapping[str, str]) -> dict[str, str]:
    """The values with the first node as A. A file of 2014 may have its own node as A on both:
    then IP tells, and the two change places on the second."""
    own = rules.own_key(values, "")
    other = "BNODE" if own == "ANODE" else "ANODE"
    if not values.get("IP") or values["IP"] != values.get(f"{other}IP"):
        return dict(values)
    changed = {f"{one}{what}": values.get(f"{two}{what}", "")
               for one, two in ((own, other), (other, own)) for what in ("NAME", "IP", "LAN")}
    return {**values, **changed}


def _of_one_nic(values: dict[str, str]) -> dict[str, str]:
    if rules.is_yes(values["USENIC1"]):
        return values
    return values | {"LINKNIC": values["LANNIC"], "LINKPREFIX": values["LANPREFIX"]}


def _site(given: dict[str, str]) -> Site:
    values = turned(given)
    # Numbered by name, not by order of installation: a replacement for the node that
    # was installed first is installed second, and must get the same number.
    ids = {name: i for i, name in enumerate(sorted((values["ANODENAME"], values["BNODENAME"])), 1)}
    a, b = (
        NodeConfig(values[f"{side}NODENAME"], values[f"{side}NODEIP"], values[f"{side}NODELAN"],
                   ids[values[f"{side}NODENAME"]])
        for side in "AB"
    )
    first = rules.is_yes(values["PRIMARY"])
    return Site(
        first=a,
        second=b,
        is_first=first,
        two_nics=rules.is_yes(values["USENIC1"]),
        virtual_address=values["CLUSTERIP"],
        lan_prefix=int(values["LANPREFIX"] or 0),
        lan_nic=values["LANNIC"],
        link_nic=values["LINKNIC"],
        link_prefix=int(values["LINKPREFIX"] or 0),
        device=values["DRBDDEV"],
        alert=values["CLUSTERALERT"],
        site_id=values["SITEID"],
        relay=_relay(values, (a if first else b).name),
        ldap=values["LDAP"].upper() == "YES",
        lan_watch=rules.is_yes(values["LANWATCH"]),
    )


def _relay(values: dict[str, str], here: str) -> Relay | None:
    if values["RHINOSPF"].upper() != "YES" and not values["RELAYNODE"]:
        return None
    return Relay(
        driver=values["RELAYDRIVER"],
        device=values["RHINOUSB"],
        number=int(values["RELAYNUMBER"] or 0),
        program=values["RELAYPROGRAM"],
        node=values["RELAYNODE"] or here,
    )
