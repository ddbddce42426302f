"""One fault played on a ready cluster, and everything that must hold looked up.

Data is written and the watcher armed before the fault; what is true is looked up
behind Pacemaker's back, while the cluster has only itself and after the fault is undone.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from tests.lab.cluster import Cluster
from tests.lab.faults import DEGRADED, MOVES, RESTARTS, RETURNS, STAYS, Fault, by_name
from tests.lab.host import wait_for
from tests.lab.prober import Prober

# How long a fault that must change nothing is watched.
WATCH_SECONDS = 12.0


@dataclass(frozen=True)
class Report:
    """What one fault led to."""

    fault: Fault
    before: str
    after: str
    outage: float
    line_during: str
    line: str
    call_kept: bool
    restarted: bool
    violations: list[str]
    lost: list[str]

    @property
    def did(self) -> str:
        if self.after != self.before:
            return f"moved {self.before} to {self.after}"
        return f"restarted on {self.after}" if self.restarted else f"stayed on {self.after}"

    @property
    def as_expected(self) -> bool:
        moved = self.after != self.before
        left_alone = not moved and not self.restarted and self.call_kept
        return {
            MOVES: moved,
            RESTARTS: not moved and self.restarted,
            RETURNS: self.restarted,
            DEGRADED: left_alone,
            STAYS: left_alone,
        }[self.fault.expected]

    def problems(self) -> list[str]:
        """Everything that is not as it must be, the time apart."""
        wrong = [*self.violations, *(f"lost: {what}" for what in self.lost)]
        if not self.as_expected:
            wrong.append(f"expected that it {self.fault.expected}, but it {self.did}"
                         + ("" if self.call_kept else "; the call was cut"))
        return wrong


def play(cluster: Cluster, prober: Prober, fault: Fault) -> Report:
    """Write data, arm the watcher, inject, wait, undo, and look at everything."""
    cluster.wait_ready()
    fault.prepare(cluster)
    if not fault.after:
        return play_now(cluster, prober, fault)
    first, before = by_name(fault.after), cluster.wait_ready()
    with first.inject(cluster):
        wait_for(lambda: has_moved(cluster, before), f"the cluster to act: {first.title}",
                 timeout=150)
        return play_now(cluster, prober, fault)


def play_now(cluster: Cluster, prober: Prober, fault: Fault) -> Report:
    before = cluster.wait_ready()
    data = cluster.write_data()
    call = cluster.place_call()
    pids = cluster.lab.node(before).pids("asterisk")
    prober.wait_answering(time.monotonic())
    violations = []
    begun = time.monotonic()
    with fault.inject(cluster):
        if fault.expected in (STAYS, DEGRADED):
            end = time.monotonic() + WATCH_SECONDS
            wait_for(lambda: time.monotonic() >= end and is_noticed(cluster, fault),
                     f"Pacemaker to notice: {fault.title}", timeout=90)
        else:
            moves = fault.expected == MOVES
            wait_for(
                lambda: has_moved(cluster, before) if moves else not is_same(cluster, before, pids),
                f"the cluster to act: {fault.title}", timeout=150,
            )
            # Before it is undone: the cluster must get there without help.
            cluster.wait_ready()
        prober.wait_answering(time.monotonic(), timeout=150)
        outage = prober.outage(begun)
        line_during = cluster.lab.line_goes_to()
        if fault.expected == MOVES:
            violations = cluster.audit()
    after = cluster.wait_ready()
    same = is_same(cluster, before, pids)
    # Pacemaker is content: now look behind it. The line follows the calls within
    # moments, so it is given those.
    return Report(
        fault=fault,
        before=before,
        after=after,
        outage=outage,
        line_during=line_during,
        line=cluster.lab.line_goes_to(),
        call_kept=same and cluster.call_is_up(call),
        restarted=not same,
        violations=violations + cluster.audit(),
        lost=cluster.lost_data(data),
    )


def is_noticed(cluster: Cluster, fault: Fault) -> bool:
    seen = not fault.named or any(fault.named in text for text in cluster.state().failures)
    return seen and fault.noticed(cluster)


def has_moved(cluster: Cluster, before: str) -> bool:
    """Whether Asterisk runs on another node."""
    return cluster.state().active not in ("", before)


def is_same(cluster: Cluster, node: str, pids: list[int]) -> bool:
    """Whether the very same Asterisk process is still there."""
    there = cluster.lab.node(node)
    return there.is_up and there.pids("asterisk") == pids
