"""What ``asha status`` knows, as plain data. ``as_json`` is the shape programs read.

Names and units are a promise: what is here stays; things may be added. ``SCHEMA``
counts the times that this was broken.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from asha.status.calls import Calls

SCHEMA = 2

HEALTHY = 0
DEGRADED = 1
NO_SERVICE = 2
HEALTH = {HEALTHY: "healthy", DEGRADED: "degraded", NO_SERVICE: "no service"}

# A finding that a person must see to now, and one that is so by the way it was built.
WARNING = "warning"
NOTE = "note"

# Without these nobody can telephone. The others are a loss and no more.
VITAL = ("p_ip", "p_asterisk")


@dataclass(frozen=True)
class Node:
    """``state``: online, standby, offline, unclean, pending or maintenance. ``lan``: what its
    watcher says of its LAN: ok, no-carrier, no-answer or unsteady; "" not known."""

    name: str
    state: str
    here: bool = False
    active: bool = False
    lan: str = ""


@dataclass(frozen=True)
class Service:
    """A resource in plain words. ``state``: running, starting, stopping, stopped, failed,
    unmanaged. ``nodes``: where it runs. ``why``: the reason of its last failure, "" if there is
    none; ``action``, ``code``, ``failed_on``: that action of Pacemaker's, its exit code and its
    node; ``degraded``: that was no failure, it worked. ``blocked_on``: the node on which it
    could not be stopped, "" if none; ``given_up_on``: the nodes on which Pacemaker does not
    start it any more."""

    id: str
    title: str
    state: str
    nodes: tuple[str, ...] = ()
    why: str = ""
    action: str = ""
    code: str = ""
    failed_on: str = ""
    degraded: bool = False
    blocked_on: str = ""
    given_up_on: tuple[str, ...] = ()

    @property
    def runs(self) -> bool:
        return self.state in ("running", "unmanaged") and bool(self.nodes)


@dataclass(frozen=True)
class Disks:
    """Both disks of the store, in DRBD's words, seen from ``node``.

    ``percent`` 0 to 100 of a sync, None when there is none; ``out_of_sync`` in KiB, ``speed``
    in KiB/s, ``seconds_left``; None: not known.
    """

    node: str
    role: str
    disk: str
    peer: str
    peer_role: str
    peer_disk: str
    connection: str
    syncing: bool = False
    in_sync: bool = False
    percent: float | None = None
    out_of_sync: int | None = None
    speed: float | None = None
    seconds_left: int | None = None


@dataclass(frozen=True)
class Address:
    """The virtual address and the node that has it ("": none, or not known)."""

    address: str
    node: str


@dataclass(frozen=True)
class Line:
    """Where the telephone line goes; ``position`` is the relay's, in rhino-relay's words."""

    node: str
    card_node: str
    position: str


@dataclass(frozen=True)
class Link:
    """A corosync link. ``state``: connected, disconnected, or corosync's own word."""

    number: int
    address: str
    state: str


@dataclass(frozen=True)
class Generation:
    """The id of a node's cluster secret; ``coming``: that of the new one, "" if there is none."""

    node: str
    id: str
    coming: str = ""


@dataclass(frozen=True)
class CrashLoop:
    """Asterisk dies on ``node`` again and again. ``count`` times, ``between`` seconds from
    one to the next on average, the last at ``last`` (ISO 8601) by ``how`` ("signal SEGV",
    "" unknown). ``core``: the kernel's pattern (core(5)), "" if it left none."""

    node: str
    count: int
    between: int
    last: str
    how: str
    core: str


@dataclass(frozen=True)
class Store:
    """Bytes for ordinary users, in the mounted store of this node."""

    free: int
    total: int


@dataclass(frozen=True)
class Finding:
    """One thing to know; ``hint`` says what to do about it, "" where nothing can be done."""

    level: str
    what: str
    hint: str = ""


@dataclass(frozen=True)
class Status:
    """Everything, as far as it is known. Times are ISO 8601 with the zone, "" unknown."""

    time: str
    node: str
    site_id: str = ""
    configured: bool = False
    installed: bool = False
    pacemaker: bool = False
    quorum: bool = False
    active: str = ""
    active_since: str = ""
    moved_from: str = ""
    nodes: tuple[Node, ...] = ()
    services: tuple[Service, ...] = ()
    disks: Disks | None = None
    address: Address | None = None
    line: Line | None = None
    calls: Calls | None = None
    links: tuple[Link, ...] = ()
    store: Store | None = None
    findings: tuple[Finding, ...] = ()
    address_answers: bool | None = None
    secrets: tuple[Generation, ...] = ()
    crash_loops: tuple[CrashLoop, ...] = ()

    @property
    def exit_code(self) -> int:
        """0 healthy, 1 somebody should look, 2 nobody can telephone."""
        if not self.serves:
            return NO_SERVICE
        return DEGRADED if any(f.level == WARNING for f in self.findings) else HEALTHY

    @property
    def serves(self) -> bool:
        """Whether the telephones run, as far as this node can tell. What a telephone hears
        counts where Pacemaker tells nothing; else Pacemaker, which knows of more ports."""
        if not self.pacemaker:
            return bool(self.address_answers)
        up = {service.id for service in self.services if service.runs}
        return all(name in up for name in VITAL)


def as_json(status: Status) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "health": HEALTH[status.exit_code],
        "exit_code": status.exit_code,
        **dataclasses.asdict(status),
    }
