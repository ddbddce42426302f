"""The lines of Asterisk's files that tie the telephone system to one node's address.

What a line does is known by its key, as Asterisk's own samples describe it (configs/samples/:
pjsip.conf, pjsip_wizard.conf, sip.conf, iax.conf, acl.conf, http.conf, manager.conf, rtp.conf,
and those of the smaller channels). Lists of who may do what are judged as main/acl.c does,
ast_apply_acl(): the last line that fits an address decides.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from ipaddress import IPv4Address, IPv4Network

from asha.asterisk import configuration
from asha.asterisk.configuration import Section
from asha.rootwork import Directory

# What a line does with an address: Asterisk is bound to it, tells it to others, sends to it,
# or has it in a list.
BIND, TOLD, GOAL, LIST, CANDIDATE = "bind", "told", "goal", "list", "candidate"


@dataclass(frozen=True)
class File:
    """``module``: without it the file means nothing; "" for Asterisk itself. ``lists``: keys
    that are judged together, those that allow and those that forbid. ``switched``: it counts
    only where [general] has enabled=yes."""

    module: str
    bind: tuple[str, ...] = ()
    told: tuple[str, ...] = ()
    goal: tuple[str, ...] = ()
    lists: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = ()
    switched: bool = False


ACL = (("permit",), ("deny",))
BINDADDR = ("bindaddr",)
FILES = {
    "pjsip.conf": File(
        "res_pjsip.so", ("bind",),
        ("external_media_address", "external_signaling_address", "media_address", "from_domain"),
        ("server_uri", "client_uri", "contact"),
        ((("match",), ()), (("local_net",), ()), ACL, (("contact_permit",), ("contact_deny",))),
    ),
    "pjsip_wizard.conf": File(
        "res_pjsip_config_wizard.so", (), ("media_address", "from_domain"),
        ("remote_hosts", "contact", "server_uri_pattern", "client_uri_pattern"),
        ((("match",), ()), ACL, (("contact_permit",), ("contact_deny",))),
    ),
    "sip.conf": File(
        "chan_sip.so", ("bindaddr", "udpbindaddr", "tcpbindaddr", "tlsbindaddr", "rtpbindaddr"),
        ("externaddr", "externip", "externhost", "media_address", "fromdomain"),
        ("register", "host", "defaultip", "mwi"),
        (ACL, (("contactpermit",), ("contactdeny",)),
         (("directmediapermit",), ("directmediadeny",)), (("localnet",), ())),
    ),
    "iax.conf": File(
        "chan_iax2.so", ("bindaddr", "sourceaddress"), (), ("register", "host", "defaultip"),
        (ACL, (("calltokenoptional",), ())),
    ),
    "acl.conf": File("", lists=(ACL,)),
    "manager.conf": File("", ("bindaddr", "tlsbindaddr"), lists=(ACL,), switched=True),
    "http.conf": File("", ("bindaddr", "tlsbindaddr"), switched=True),
    "rtp.conf": File("res_rtp_asterisk.so"),
    "dundi.conf": File("pbx_dundi.so", BINDADDR, (), ("host",), (ACL,)),
    "mgcp.conf": File("chan_mgcp.so", BINDADDR, (), ("host",), (ACL,)),
    "ooh323.conf": File("chan_ooh323.so", BINDADDR, (), ("ip",)),
    "skinny.conf": File("chan_skinny.so", BINDADDR, (), ("host",), (ACL,)),
    "unistim.conf": File("chan_unistim.so", BINDADDR, ("public_ip",)),
}
# Addresses in one line.
ENTRIES_MOST = 50
CANDIDATES = "ice_host_candidates"
# By these a provider or another PBX is reached, or known.
TRUNK_KEYS = ("register", "server_uri", "match", "sends_registrations")


@dataclass(frozen=True)
class Nodes:
    """Whose address is whose. ``owners``: by address. ``partners``: the address that must be
    treated alike: of a LAN's the virtual one, of the link's the other node's. ``names``: a
    node's address by its name."""

    virtual: str
    owners: Mapping[str, str]
    partners: Mapping[str, str]
    names: Mapping[str, str]


@dataclass(frozen=True)
class Line:
    """A line with one node's ``address``, or the node's name. ``missing``: what a list lacks."""

    place: str
    file: str
    section: str
    key: str
    kind: str
    address: str
    missing: str = ""

    def __str__(self) -> str:
        return f"{self.place} [{self.section}] {self.key}={self.address}"


@dataclass
class Found:
    """``trunk``: the place of one line by which a provider or another PBX is known."""

    lines: list[Line]
    trunk: str = ""


def look(directory: Directory, nodes: Nodes, modules: Collection[str]) -> Found:
    """``directory``: /etc/asterisk. ``modules``: those that run; of an Asterisk that does not
    run, modules.conf tells which will not be loaded."""
    found = Found([])
    off = frozenset() if modules else _not_loaded(directory)
    for name, file in FILES.items():
        if file.module in off or (modules and file.module and file.module not in modules):
            continue
        sections = configuration.resolved(configuration.read(directory, name))
        if name == "pjsip_wizard.conf":
            sections = [_without_prefixes(section) for section in sections]
        if file.switched and not any(configuration.is_true(one.get("enabled"))
                                     for one in sections if one.name == "general"):
            continue
        for section in sections:
            found.lines += _of_section(name, file, section, nodes)
            found.trunk = found.trunk or _trunk(name, section)
    # What several sections take from one template is one line.
    first: dict[tuple[str, str, str], Line] = {}
    for one in found.lines:
        first.setdefault((one.place, one.key, one.address), one)
    found.lines = list(first.values())
    return found


def of_identified(networks: Sequence[tuple[str, str]], nodes: Nodes) -> Iterator[Line]:
    """What PJSIP itself says by whom it is called: the section's name and a network each."""
    sections: dict[str, Section] = {}
    for name, network in networks:
        section = sections.setdefault(name, Section(name))
        section.lines.append(("match", network))
        section.places.append("")
    for section in sections.values():
        for line in _of_section("pjsip.conf", FILES["pjsip.conf"], section, nodes):
            yield replace(line, place=line.file)


def _not_loaded(directory: Directory) -> frozenset[str]:
    names = [value for section in configuration.read(directory, "modules.conf")
             for key, value in section.lines if key == "noload"]
    return frozenset(f"{name.removesuffix('.so')}.so" for name in names)


def _without_prefixes(section: Section) -> Section:
    """``endpoint/permit`` of the wizard is the endpoint's ``permit``."""
    lines = [(key.rpartition("/")[2], value) for key, value in section.lines]
    return Section(section.name, lines, places=section.places)


def _of_section(name: str, file: File, section: Section, nodes: Nodes) -> Iterator[Line]:
    if name == "rtp.conf":
        yield from _candidates(section, nodes)
    kinds = {key: kind for kind, keys in ((BIND, file.bind), (TOLD, file.told), (GOAL, file.goal))
             for key in keys}
    for (key, value), place in zip(section.lines, section.places, strict=True):
        for host in _hosts(value) if key in kinds else ():
            if host in nodes.owners or host in nodes.names:
                yield Line(_path(place), name, section.name, key, kinds[key], host)
    for allowing, forbidding in file.lists:
        rules = _rules(section, allowing, forbidding)
        for address in nodes.partners:
            yield from _unequal(name, section, rules, address, nodes, bool(forbidding))


def _path(place: str) -> str:
    return configuration.ETC + place


def _hosts(value: str) -> Iterator[str]:
    """The hosts in ``user:secret@host:port/x``, ``sip:user@host;transport=tcp``, ``host``; of
    several, divided by commas, each."""
    for one in value.split(","):
        host = one.rpartition("@")[2].strip().removeprefix("<")
        for scheme in ("sip:", "sips:", "udp://", "tcp://", "tls://"):
            host = host.removeprefix(scheme)
        for end in ":;/>?":
            host = host.partition(end)[0]
        yield host.strip().lower()


def _candidates(section: Section, nodes: Nodes) -> Iterator[Line]:
    """An address of this machine, and by which one others reach it."""
    keys = {key for key, _ in section.lines}
    if section.name == CANDIDATES and nodes.virtual not in keys:
        for (key, _), place in zip(section.lines, section.places, strict=True):
            if key in nodes.owners:
                yield Line(_path(place), "rtp.conf", section.name, key, CANDIDATE, key,
                           nodes.virtual)


@dataclass(frozen=True)
class Rule:
    """One network of a list."""

    network: IPv4Network
    allows: bool
    key: str
    place: str


def _rules(section: Section, allowing: Sequence[str], forbidding: Sequence[str]) -> list[Rule]:
    """In their order. An exclamation mark turns one round; a name is not resolved."""
    rules = []
    for (key, value), place in zip(section.lines, section.places, strict=True):
        if key not in allowing and key not in forbidding:
            continue
        for one in value.split(",", ENTRIES_MOST)[:ENTRIES_MOST]:
            text = one.strip()
            network = _network(text.removeprefix("!").strip())
            if network is not None:
                rules.append(Rule(network, (key in allowing) != text.startswith("!"), key, place))
    return rules


@cache
def _network(text: str) -> IPv4Network | None:
    """Lists are much the same for each telephone."""
    try:
        return IPv4Network(text, strict=False)
    except ValueError:
        return None


def _unequal(name: str, section: Section, rules: Sequence[Rule], address: str, nodes: Nodes,
             otherwise: bool) -> Iterator[Line]:
    """The line that lets this address in, or keeps it out, and not its partner.

    A list that names the partner alone is right. ``otherwise``: what holds for one that
    no line fits.
    """
    partner = nodes.partners[address]
    own = _decides(rules, address)
    other = _decides(rules, partner)
    if own is None or own.allows == (other.allows if other else otherwise):
        return
    if IPv4Address(partner) not in own.network:
        yield Line(_path(own.place), name, section.name, own.key, LIST, address, partner)


def _decides(rules: Sequence[Rule], address: str) -> Rule | None:
    wanted = IPv4Address(address)
    return next((rule for rule in reversed(rules) if wanted in rule.network), None)


def _trunk(name: str, section: Section) -> str:
    if name not in ("pjsip.conf", "pjsip_wizard.conf", "sip.conf", "iax.conf"):
        return ""
    for (key, value), place in zip(section.lines, section.places, strict=True):
        is_peer = key == "host" and name in ("sip.conf", "iax.conf") and value and \
            value.lower() != "dynamic" and section.get("type").lower() in ("peer", "friend")
        if value and (key in TRUNK_KEYS or is_peer):
            return _path(place)
    return ""
