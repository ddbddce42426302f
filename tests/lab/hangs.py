"""The hangs and freezes of Asterisk, each told once for the tests and the bench.

``with hang.inject(cluster):`` makes one on the active node; leaving it undoes it.
Nothing here is Asterisk's fault: the stock package is frozen, locked or starved from
outside (see injectors).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from tests.lab import injectors
from tests.lab.cluster import Cluster
from tests.lab.node import Node

# Asterisk is restarted where it was.
RECOVERS = "recovers"
# It cannot be ended: the node is fenced, and the other takes over.
FENCED = "fenced"
# Named in the reason of a degraded monitor, and left running.
DEGRADED = "degraded"
# Nothing is condemned and nothing restarted.
UNHARMED = "unharmed"

Injected = AbstractContextManager[object]


@dataclass(frozen=True)
class Hang:
    """``named`` is what the reason must contain, "" where nothing need be said."""

    name: str
    title: str
    named: str
    outcome: str
    inject: Callable[[Cluster], Injected]
    # Whether the telephones feel the fault itself, whatever anybody does about it.
    felt: bool = False
    # What must be there before.
    prepare: Callable[[Cluster], object] = lambda cluster: None


def on_active(injector: Callable[[Node], Injected]) -> Callable[[Cluster], Injected]:
    return lambda cluster: injector(cluster.active())


def a_call(cluster: Cluster) -> str:
    return cluster.place_call()


HANGS = (
    Hang("sigstop", "Asterisk frozen (SIGSTOP)", "is stopped by a signal", RECOVERS,
         on_active(injectors.stopped)),
    Hang("dialplan-lock", "dialplan lock held (gdb)", "dialplan lock", RECOVERS,
         on_active(injectors.dialplan_locked)),
    Hang("channel-lock", "channel list's lock held (gdb)", "channel lock", RECOVERS,
         on_active(injectors.channels_locked), prepare=a_call),
    Hang("sip-thread", "SIP thread stands still (gdb)", "SIP at UDP", RECOVERS,
         on_active(injectors.sip_thread_parked)),
    Hang("cgroup-frozen", "control group frozen", "is frozen by its cgroup", RECOVERS,
         on_active(injectors.cgroup_frozen)),
    Hang("store-frozen", "the store frozen (fsfreeze)", "AstDB", FENCED,
         on_active(injectors.store_frozen)),
    Hang("sip-traced", "SIP thread held by ptrace", "a debugger", DEGRADED,
         on_active(injectors.sip_thread_traced), felt=True),
    Hang("astdb-locked", "AstDB locked (BEGIN EXCLUSIVE)", "AstDB", DEGRADED,
         on_active(injectors.astdb_locked)),
    Hang("store-full", "the store full", "AstDB", DEGRADED,
         injectors.store_full),
    Hang("ami-blocked", "AMI's port blocked (nftables)", "packets to it are lost", DEGRADED,
         on_active(injectors.ami_blocked)),
    Hang("socket-gone", "control socket removed", "control socket", DEGRADED,
         on_active(injectors.control_socket_gone)),
    # Seen at depth 20, at its second look.
    Hang("cpu-runaway", "one thread eats a CPU (gdb)", "has not rested", DEGRADED,
         on_active(injectors.thread_spinning)),
    Hang("dns-blackhole", "DNS silent, a peer has a host name", "", UNHARMED,
         injectors.dns_blackhole),
    Hang("reload-storm", "core reload, again and again", "", UNHARMED,
         on_active(injectors.reload_storm)),
)


def hang(name: str) -> Hang:
    """The one of that name."""
    return next(one for one in HANGS if one.name == name)
