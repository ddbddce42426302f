"""What preflight asks of the telephone system: whether it is tied to one node's address."""

from __future__ import annotations

from collections.abc import Iterator

from asha.asterisk import configuration
from asha.asterisk.talk import sip_addresses
from asha.asterisk.talk.sip_addresses import Told
from asha.bootstrap.host import data_directories
from asha.bootstrap.preflight import asterisk_files
from asha.bootstrap.preflight.asterisk_files import (
    BIND,
    CANDIDATE,
    GOAL,
    LIST,
    TOLD,
    Found,
    Line,
    Nodes,
)
from asha.bootstrap.preflight.report import CheckContext
from asha.bootstrap.steps import sark
from asha.finding import Finding, error, warning

EXTERNAL = ("external_media_address", "external_signaling_address", "externaddr")
RESTART = "systemctl restart asterisk; in the cluster: crm resource restart p_asterisk"
# A file with thousands of telephones may say the same of each.
LINES_MOST = 20


def own_address(look: CheckContext) -> Iterator[Finding]:
    """The telephone system is bound to no address, tells none and lets none in, that stays
    behind with one node.

    Asterisk is asked where it runs; its files tell the line. The router's public address is
    right on both nodes. On the passive node there is nothing to look at.
    """
    nodes = _nodes(look)
    told = sip_addresses.ask() if look.facts.root else Told()
    found = _in_files(look, nodes, told)
    seen = {(line.file, line.key, line.address) for line in found.lines}
    # What it has from elsewhere, a database say, or still has although a file was changed.
    others = [
        *asterisk_files.of_identified(told.identified, nodes),
        *(Line(one.file, one.file, one.section, one.key, TOLD if one.key in EXTERNAL else BIND,
               one.address) for one in told.settings if one.address in nodes.owners),
    ]
    lines = found.lines + [
        line for line in others if (line.file, line.key, line.address) not in seen]
    for line in lines[:LINES_MOST]:
        yield _finding(line, nodes)
    if len(lines) > LINES_MOST:
        yield warning(f"{len(lines) - LINES_MOST} more lines of Asterisk's files have one node's "
                      "address", "asha check again, when these are changed")
    yield from _of_provider(found, told, nodes)
    yield from _of_sark(look)


def _nodes(look: CheckContext) -> Nodes:
    """The addresses of both, as far as they are known. The virtual one is neither's."""
    site, other = look.site, look.other or {}
    here = [address.local for nic in look.facts.nics for address in nic.addresses]
    there = [one for one in (site.there.address, site.there.lan, other.get("lan"))
             if isinstance(one, str) and one]
    lan = look.facts.nic(site.lan_nic)
    in_lan = [*(address.local for address in (lan.addresses if lan else ())), site.here.lan,
              site.there.lan]
    link = (site.here.address, site.there.address)
    partners = dict(zip(link, reversed(link), strict=True)) if all(link) else {}
    partners |= {address: site.virtual_address for address in in_lan if address}
    owners = dict.fromkeys(there, f"{site.there.name}'s") | dict.fromkeys(here, "this node's own")
    for known in (owners, partners):
        known.pop(site.virtual_address, None)
    names = {site.here.name.lower(): "this node's own", site.there.name.lower():
             f"{site.there.name}'s"}
    return Nodes(site.virtual_address, owners, partners if site.virtual_address else {},
                 {name: whose for name, whose in names.items() if name})


def _in_files(look: CheckContext, nodes: Nodes, told: Told) -> Found:
    try:
        with data_directories.trusted(look.machine, configuration.ETC) as directory:
            return asterisk_files.look(directory, nodes, told.modules)
    except OSError:
        return Found([])  # there is none, or who looks at the directories says why


def _finding(line: Line, nodes: Nodes) -> Finding:
    whose = nodes.owners.get(line.address) or nodes.names.get(line.address) or "one node's own"
    what = f"{line}: is {whose} address"
    virtual, missing = nodes.virtual, line.missing
    if line.kind == LIST:
        why = "the active node sends from the virtual address" if missing == virtual \
            else "the other node has another one"
        what += f", and {missing} is not in the list: {why}"
        fix = f"{line.key}={missing} as well, after that line"
    elif line.kind == CANDIDATE:
        what += f", and {missing} has no such line: the active node sends from it"
        fix = f"a line for {missing} as well"
    elif line.kind == GOAL:
        what += ": after a switch it leads to the wrong node"
        fix = f"{virtual} in its place"
    elif line.kind == TOLD:
        what += ": after a switch telephones and providers would send to the wrong node"
        fix = (f"take {line.key} out of {line.file} (what the active node sends comes from the "
               "virtual address by itself), or give the router's public address")
    else:
        what = (f"{line}: Asterisk is bound to {whose} address: it is not there on the other "
                "node, and who calls the virtual address gets no answer")
        fix = f"{line.key}=0.0.0.0 in {line.file}, the port as it is"
        if line.key == "sourceaddress":
            fix = f"take sourceaddress out of {line.file}"
    return warning(what, f"{fix}; then {RESTART}")


def _of_provider(found: Found, told: Told, nodes: Nodes) -> Iterator[Finding]:
    """What they know of us cannot be seen from here."""
    place = found.trunk or ("Asterisk registers with a provider" if told.registers else "")
    if place and nodes.virtual:
        yield warning(f"{place}: a provider or another PBX sees the virtual address "
                      f"{nodes.virtual} as the sender, after the installation",
                      "where it, a router or a firewall has a list of permitted addresses: "
                      f"{nodes.virtual} belongs into it")


def _of_sark(look: CheckContext) -> Iterator[Finding]:
    address = sark.static_address(look.machine)
    virtual = look.site.virtual_address
    hint = ("empty the static address in SARK's panel and commit; a fixed address of the node "
            "belongs into /etc/network/interfaces")
    if address and address == virtual:
        yield error(f"STATICIPV4={address} in SARK's database: SARK takes the virtual address at "
                    "boot, also on the node that must not have it", hint)
    elif address:
        yield warning(f"STATICIPV4={address} in SARK's database: SARK takes this address at boot "
                      "and binds SIP to it, on whichever node has the data", hint)
