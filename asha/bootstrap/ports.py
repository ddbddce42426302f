"""The ports that the two nodes talk to each other by."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from asha.bootstrap import wire
from asha.cluster import corosync, drbd
from asha.cluster.site import Site


@dataclass(frozen=True)
class Opening:
    """What the other node may reach: by this NIC, from this address."""

    nic: str
    peer: str
    protocol: str
    port: int


def openings(site: Site) -> list[Opening]:
    return list(_openings(site))


def _openings(site: Site) -> Iterator[Opening]:
    nic = site.link_nic if site.two_nics else site.lan_nic
    for protocol, port in (("udp", corosync.PORTS[0]), ("tcp", drbd.PORT), ("tcp", wire.PORT)):
        yield Opening(nic, site.there.address, protocol, port)
    if site.second_ring:
        yield Opening(site.lan_nic, site.there.lan, "udp", corosync.PORTS[1])
