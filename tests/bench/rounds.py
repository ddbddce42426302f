"""One fault on the running stack: inject, watch, undo, heal, and what was measured."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.bench.record import Sample
from tests.bench.stacks import StackCluster
from tests.bench.watch import (
    FAILURE,
    NODE_LOST,
    Clock,
    first_line,
    pid,
    wait_cured,
)
from tests.lab import Node, wait_for
from tests.lab.cluster import READY_SECONDS
from tests.lab.faults import MOVES, OURS, Fault, of_bench
from tests.lab.fence import FenceDevice, fencing
from tests.lab.play import has_moved
from tests.lab.prober import Prober

# Nothing that a stack does about a fault that it sees takes longer.
CURE_SECONDS = 200.0


def phases(rounds: int, dice: random.Random) -> list[float]:
    """For each round the part of a monitor's interval (0 to 1) that is waited before the
    fault: at random, but spread over the whole interval."""
    slices = list(range(rounds))
    dice.shuffle(slices)
    return [(number + dice.random()) / rounds for number in slices]


def play(
    cluster: StackCluster, prober: Prober, fault: Fault, number: int, phase: float
) -> Iterator[Sample]:
    """The samples of one turn, those of what continues from the fault among them.

    LabError when it could not be played or healed.
    """
    # A cleanup has Pacemaker look at all anew.
    cluster.wait_settled()
    prober.wait_answering(time.monotonic(), timeout=READY_SECONDS)
    stack = cluster.stack.name
    if fault.expected == MOVES and not fault.is_fenced:
        before, begun = cluster.active(), Clock()
        with fault.inject(cluster):
            yield Sample(number, stack, fault.name, *moved(cluster, prober, before, begun))
            for one in of_bench():
                if one.after == fault.name:
                    yield Sample(number, stack, one.name, *gone_on(cluster, prober, one))
        cluster.wait_ready()
    else:
        with fence_device(cluster, fault.is_fenced and stack == OURS):
            yield Sample(number, stack, fault.name, *hit(cluster, prober, fault, phase))


@contextmanager
def fence_device(cluster: StackCluster, wanted: bool) -> Iterator[None]:
    """Ours fences a node that cannot stop Asterisk, if it is given something to fence with."""
    if not wanted:
        yield
        return
    with FenceDevice(cluster.lab):
        fencing(cluster)
        cluster.wait_ready()
        try:
            yield
        finally:
            cluster.running[0].run("crm_attribute", "--type", "crm_config",
                                   "--name", "stonith-enabled", "--update", "false")
            cluster.running[0].run("crm", "--force", "configure", "delete", "fence_lab")
            cluster.wait_ready()


Times = tuple[float | None, float | None, float]


def moved(cluster: StackCluster, prober: Prober, before: Node, begun: Clock) -> Times:
    """The other node takes over: the longest silence, and when a node was found lost."""
    wait_for(lambda: has_moved(cluster, before.name), "the other node to take over",
             timeout=CURE_SECONDS)
    cluster.wait_ready()
    prober.wait_answering(time.monotonic(), timeout=CURE_SECONDS)
    outage = prober.outage(begun.monotonic)
    return outage, first_line(cluster.running, begun, NODE_LOST), begun.passed


def gone_on(cluster: StackCluster, prober: Prober, fault: Fault) -> Times:
    """What the telephones notice of a fault that continues from the one before."""
    begun = Clock()
    with fault.inject(cluster):
        cluster.heal()
        prober.wait_answering(time.monotonic(), timeout=CURE_SECONDS)
        return prober.outage(begun.monotonic), None, begun.passed


def hit(cluster: StackCluster, prober: Prober, fault: Fault, phase: float) -> Times:
    """Something is done to Asterisk: when it was seen, and when a new one answers."""
    fault.prepare(cluster)
    stack, struck = cluster.stack, cluster.active()
    old = pid(struck)
    # Not to wait for anything: the fault is to fall anywhere between two monitors.
    time.sleep(phase * stack.interval)
    begun = Clock()
    try:
        with fault.inject(cluster):
            seen = wait_replaced(cluster, struck, old, begun)
            outage = wait_cured(prober, begun, CURE_SECONDS) if seen else None
            watched = begun.passed
            detection = first_line(cluster.running, begun, FAILURE)
    finally:
        heal(cluster, struck, old)
    return outage, detection, watched


def wait_replaced(cluster: StackCluster, struck: Node, old: int, begun: Clock) -> bool:
    """Until another Asterisk runs; False when the stack does not see that it should."""
    asked = False

    def decided() -> bool:
        nonlocal asked
        if replaced(cluster, old):
            return True
        if not asked and begun.passed >= cluster.stack.patience:
            asked = True
            # In this order: a monitor by hand may hang for as long as Pacemaker's does,
            # and end well when Pacemaker kills what it waits for.
            return (struck.is_up and cluster.stack.looks_green(struck)
                    and first_line(cluster.running, begun, FAILURE) is None)
        return False

    wait_for(decided, "the cluster to restart Asterisk", timeout=CURE_SECONDS)
    return replaced(cluster, old)


def replaced(cluster: StackCluster, old: int) -> bool:
    return any(pid(node) not in (0, old) for node in cluster.running)


def heal(cluster: StackCluster, struck: Node, old: int) -> None:
    """Whatever the stack did or did not do: a fresh Asterisk, and no failure counted."""
    if not replaced(cluster, old) and struck.is_up:
        if pid(struck) == old:
            os.kill(old, signal.SIGKILL)
        struck.run("crm_resource", "--fail", "--resource", "p_asterisk", "--node", struck.name,
                   check=False)
        wait_for(lambda: replaced(cluster, old), "a fresh Asterisk", timeout=CURE_SECONDS)
        # A cleanup in the midst of a start would have Pacemaker forget it.
        cluster.wait_ready()
    cluster.heal()
