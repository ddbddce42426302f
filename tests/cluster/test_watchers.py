"""Corosync and every daemon of Pacemaker, killed and stopped for 10 s, on either node.

Asterisk is well, so nobody may end it, and whoever has died comes back by himself.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from tests.conftest import lab_or_skip
from tests.lab import Node, wait_for
from tests.lab.cluster import Cluster
from tests.lab.daemon import daemon
from tests.lab.faults import GENEROUS, HALTED_SECONDS, let_pass, stand_still
from tests.lab.prober import Prober

# The kernel cuts a process's name after 15 characters.
DAEMONS = tuple(name[:15] for name in (
    "corosync", "pacemakerd", "pacemaker-based", "pacemaker-attrd", "pacemaker-execd",
    "pacemaker-fenced", "pacemaker-schedulerd", "pacemaker-controld",
))
# For the cluster to get ready by itself: a peer that tried to promote its disk in vain has
# that forgotten soon (asha/cluster/retry.py). Less than the two minutes of failure-timeout.
READY_SECONDS = 100.0
# The longest silence, in seconds.
LIMIT = 1.0
# A death may show later than at once: Corosync's is a membership, then another.
WATCH_SECONDS = 4.0


@dataclass
class Scene:
    cluster: Cluster
    prober: Prober


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    with lab_or_skip() as lab:
        cluster = Cluster(lab)
        cluster.load()
        with Prober(lab) as prober:
            yield Scene(cluster, prober)


@contextmanager
def watched(scene: Scene) -> Iterator[None]:
    """What is done within must be over at its end; then the cluster gets ready by itself."""
    cluster = scene.cluster
    cluster.wait_ready(timeout=READY_SECONDS)
    was = daemon(cluster.active())
    scene.prober.wait_answering(time.monotonic())
    begun = time.monotonic()
    yield
    scene.prober.wait_answering(time.monotonic())
    assert was.lives
    # The peer may have failed to promote its disk: it is tried again.
    cluster.wait_ready(timeout=READY_SECONDS)
    outage = scene.prober.outage(begun)
    assert cluster.audit() == []
    assert was.lives
    assert outage <= LIMIT * GENEROUS


@pytest.mark.parametrize("name", DAEMONS)
def test_killed_on_the_active_node(scene: Scene, name: str) -> None:
    with watched(scene):
        kill(scene.cluster.active(), name)
        let_pass(WATCH_SECONDS)


def test_killed_on_the_passive_node(scene: Scene) -> None:
    """One after the other."""
    with watched(scene):
        node = scene.cluster.passive()
        for name in DAEMONS:
            kill(node, name)
            scene.cluster.wait_ready(timeout=READY_SECONDS)


# Those that Pacemaker can be without for a moment stand still together.
@pytest.mark.parametrize("names", [
    ("corosync",), ("pacemakerd",), ("pacemaker-execd",), ("pacemaker-contr",),
    ("pacemaker-based", "pacemaker-attrd", "pacemaker-fence", "pacemaker-sched"),
], ids=lambda names: names[0])
def test_stopped_on_the_active_node(scene: Scene, names: tuple[str, ...]) -> None:
    with watched(scene), stand_still(scene.cluster.active(), *names):
        let_pass(HALTED_SECONDS)


@pytest.mark.parametrize("names", [DAEMONS[:1], DAEMONS[1:]], ids=lambda names: names[0])
def test_stopped_on_the_passive_node(scene: Scene, names: tuple[str, ...]) -> None:
    with watched(scene), stand_still(scene.cluster.passive(), *names):
        let_pass(HALTED_SECONDS)


def kill(node: Node, name: str) -> None:
    before = set(node.kill(name))
    wait_for(lambda: bool(set(node.pids(name)) - before), f"{name} to be back")
