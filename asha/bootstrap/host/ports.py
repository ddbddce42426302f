"""The ports by which the two nodes talk to each other.

A node that is no member (it has not joined yet, or was removed) reaches only the port on which
it may ask to join.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from asha.cluster import corosync, drbd
from asha.cluster.cib import MARKER
from asha.cluster.site import Site
from asha.machine import Machine

# On which a node asks to be let in.
JOIN_PORT = 5409


@dataclass(frozen=True)
class Opening:
    """What the other node may reach: through this NIC, from this address."""

    nic: str
    peer: str
    protocol: str
    port: int


def openings(site: Site) -> list[Opening]:
    """All that a member may reach."""
    return list(_openings(site))


def allowed(site: Site, machine: Machine) -> list[Opening]:
    """What the other node may reach now."""
    return allowed_among(site, members(machine), machine.exists(MARKER))


def allowed_among(site: Site, members: Collection[str], owned: bool) -> list[Opening]:
    """A member may reach all ports, and so may the node that this one is about to join."""
    counts = site.there.name in members or (not site.is_first and not owned)
    return [opening for opening in openings(site) if opening.port == JOIN_PORT or counts]


def is_member(site: Site, machine: Machine) -> bool:
    """Whether the other node is named in this one's corosync.conf."""
    return site.there.name in members(machine)


def members(machine: Machine) -> frozenset[str]:
    """The nodes that this one's corosync.conf names."""
    nodes = corosync.parse(machine.read(corosync.CONF) or "").nodes
    return frozenset(node.name for node in nodes)


def _openings(site: Site) -> Iterator[Opening]:
    nic = site.link_nic if site.two_nics else site.lan_nic
    for protocol, port in (
        ("udp", corosync.PORTS[0]),
        ("tcp", drbd.PORT),
        ("tcp", JOIN_PORT),
    ):
        yield Opening(nic, site.there.address, protocol, port)
    if site.second_ring:
        yield Opening(site.lan_nic, site.there.lan, "udp", corosync.PORTS[1])
