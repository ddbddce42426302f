"""Every hang of the table, on a running cluster: seen, named, kept as evidence, cured.

Before each the phones are answered and a call is up; while the fault is still there
the phones must be answered again, and only then is it undone.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from asha.asterisk import ATTRIBUTE, HANG_ATTRIBUTE
from tests.conftest import lab_or_skip
from tests.lab import LabError, Node, wait_for
from tests.lab.cluster import Cluster, Data
from tests.lab.daemon import daemon
from tests.lab.faults import (
    DEGRADED,
    FELT,
    GENEROUS,
    HANG,
    MOVES,
    RESTARTS,
    Fault,
    by_name,
    of_kind,
)
from tests.lab.fence import FenceDevice, fencing
from tests.lab.injectors import CONTROL_SOCKET
from tests.lab.play import WATCH_SECONDS, has_moved
from tests.lab.prober import Prober

# What is seen at depth 20 only is seen at its second look, a minute after the first.
SEEN = 150.0
# The start's timeout in cib/asha.crm.
START_SECONDS = 90.0


@dataclass
class Scene:
    cluster: Cluster
    prober: Prober
    device: FenceDevice
    data: Data

    def evidence(self, node: Node) -> list[str]:
        """One line an event: its name, which is a moment, and the reason."""
        listed = node.run("python3", "-m", "asha", "evidence", "list").out.splitlines()
        return [line for line in listed if line[:1].isdigit()]

    def said(self) -> list[str]:
        """What Pacemaker shows for Asterisk: failures, and degraded monitors."""
        return [text for text in self.cluster.state().failures if text.startswith("p_asterisk_")]


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    with lab_or_skip() as lab, FenceDevice(lab) as device:
        cluster = Cluster(lab)
        cluster.load()
        fencing(cluster)
        cluster.wait_ready()
        with Prober(lab) as prober:
            yield Scene(cluster, prober, device, cluster.write_data())


@pytest.mark.parametrize("fault", of_kind(HANG), ids=lambda fault: fault.name)
def test_hang(scene: Scene, fault: Fault) -> None:
    cluster = scene.cluster
    cluster.heal()
    fault.prepare(cluster)
    if fault.expected == MOVES:
        scene.data = cluster.write_data()  # the disk is taken away under it
    call = cluster.place_call()
    node = cluster.active()
    before = daemon(node)
    kept = scene.evidence(node)
    scene.prober.wait_answering(time.monotonic())
    fenced = len(scene.device.done)
    begun = Clock()
    with fault.inject(cluster):
        if fault.expected == RESTARTS:
            check_recovery(scene, fault, node, begun)
        elif fault.expected == MOVES:
            check_fencing(scene, fault, node, begun, fenced)
        else:
            check_left_alone(scene, fault, node)
            assert before.lives
            if node.path(CONTROL_SOCKET).exists():
                assert cluster.call_is_up(call)
    cluster.wait_settled()  # undoing the fault may have killed Asterisk just now
    scene.prober.wait_answering(time.monotonic())
    if fault.expected in (RESTARTS, MOVES):
        assert not before.lives
        news = scene.evidence(node)[len(kept):]
        assert len(news) == 1
        assert fault.named in news[0]
    elif before.lives:  # not where undoing the fault takes a restart
        assert cluster.call_is_up(call)
    wait_for(lambda: called_well(cluster), "Asterisk to be called well again")
    assert cluster.audit() == []
    assert cluster.lost_data(scene.data) == []


@dataclass
class Clock:
    """A moment, on both of the machine's clocks."""

    monotonic: float = field(default_factory=time.monotonic)
    wall: float = field(default_factory=time.time)


def check_recovery(scene: Scene, fault: Fault, node: Node, begun: Clock) -> None:
    """Failed once, for the right reason, and restarted where it was."""
    wait_for(lambda: told(scene, fault, begun), f"Pacemaker to be told: {fault.title}",
             timeout=60, every=0.2)
    assert scene.cluster.wait_ready() == node.name
    scene.prober.wait_answering(time.monotonic())
    took = scene.prober.recovered(begun.monotonic)
    print(f"{fault.name}: served again after {took:.1f} s")
    assert all("_monitor_" in text or "_asyncmon_" in text for text in scene.said())
    assert 0 < took <= fault.limit * GENEROUS
    assert fail_count(node) == 1


def check_fencing(scene: Scene, fault: Fault, node: Node, begun: Clock, earlier: int) -> None:
    """Failed for the right reason, not ended, so its node is off before another starts.

    ``earlier``: how many were fenced before the injection.
    """
    wait_for(lambda: told(scene, fault, begun) or has_moved(scene.cluster, node.name),
             f"Pacemaker to be told: {fault.title}", timeout=60, every=0.2)
    wait_for(lambda: has_moved(scene.cluster, node.name), "the other node to take over",
             timeout=120, every=0.2)
    scene.prober.wait_answering(time.monotonic())
    took = scene.prober.recovered(begun.monotonic)
    [fenced] = scene.device.done[earlier:]
    after = fenced.moment - begun.monotonic
    print(f"{fault.name}: fenced after {after:.1f} s, served after {took:.1f} s")
    assert fenced.node == node.name
    assert 0 < took <= fault.limit * GENEROUS
    wait_for(lambda: node.is_up, "the fenced node to boot")


def check_left_alone(scene: Scene, fault: Fault, node: Node) -> None:
    """Watched through several monitors: named if it must be, and nothing is restarted."""
    begun = time.monotonic()  # not before: gdb halts Asterisk while it makes the fault
    degraded = fault.expected == DEGRADED
    wait_for(
        lambda: time.monotonic() - begun > WATCH_SECONDS and (named(scene, fault) or not degraded),
        f"Pacemaker to look at: {fault.title}", timeout=SEEN, every=0.2,
    )
    if degraded:
        assert all("_monitor_" in text for text in scene.said())
        assert fault.named in attribute(node)
    else:
        assert scene.said() == []
    assert fail_count(node) == 0
    if fault.limit < FELT:
        assert scene.prober.outage(begun) <= fault.limit * GENEROUS


def named(scene: Scene, fault: Fault) -> bool:
    """Whether Pacemaker shows this fault. Not any: a monitor that looked while gdb made
    it names the debugger."""
    return any(fault.named in text for text in scene.said())


def told(scene: Scene, fault: Fault, begun: Clock) -> bool:
    """Whether Pacemaker has a failure for this fault: the watcher's, or a monitor's. A node
    that is off has taken its word with it; its evidence is looked at later."""
    try:
        said = [value(node, HANG_ATTRIBUTE).partition(" ") for node in scene.cluster.running]
    except LabError:
        return False  # a node is being fenced
    if any(fault.named in reason and float(moment) >= int(begun.wall)
           for moment, _, reason in said if moment):
        return True
    return named(scene, fault)


def called_well(cluster: Cluster) -> bool:
    """Whether Asterisk runs, and nothing is said against it."""
    name = cluster.state().active
    return bool(name) and not attribute(cluster.lab.node(name))


def attribute(node: Node) -> str:
    """What the node's attribute says of Asterisk, "" when all is well."""
    return value(node, ATTRIBUTE)


def value(node: Node, name: str) -> str:
    """The node attribute, "" without it."""
    argv = ("attrd_updater", "--query", "--name", name, "--node", node.name)
    said = node.run(*argv, check=False).out
    return said.partition("value=")[2].strip().strip('"')


def fail_count(node: Node) -> int:
    said = node.run("crm_failcount", "--query", "-r", "p_asterisk", "-N", node.name).out
    return int(said.rpartition("value=")[2])


def test_a_start_while_no_name_server_answers(scene: Scene) -> None:
    """Asterisk waits for each name that its configuration has, and starts all the same."""
    cluster = scene.cluster
    cluster.heal()
    begun = time.monotonic()
    with by_name("dns-blackhole").inject(cluster):
        node = cluster.active()
        node.kill("asterisk")
        wait_for(lambda: bool(scene.said()), "Pacemaker to see its death")
        assert cluster.wait_ready(timeout=START_SECONDS) == node.name
        scene.prober.wait_answering(time.monotonic())
        print(f"dns-blackhole: started after {scene.prober.recovered(begun):.1f} s")
        assert fail_count(node) == 1
    cluster.wait_ready()
