"""The faults that a cluster must live through, each told once for demo and tests.

``play`` runs one on a ready cluster: data is written and the watcher armed before
the fault, and afterwards everything that must hold is looked up.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

from tests.lab.cluster import Cluster, freeze_asterisk
from tests.lab.host import LabError, Result, wait_for
from tests.lab.lab import CARD_NODE
from tests.lab.prober import Prober

# An outage below this is a lost packet or two, not a fault of service.
UNNOTICED = 0.5
# What a test allows more: a loaded machine is slower, a hang is for ever.
GENEROUS = 3.0
# How long a fault that must change nothing is watched.
WATCH_SECONDS = 12.0

BAD_CONFIGURATION = "/etc/mysql/mariadb.conf.d/99-bad.cnf"

MOVES, RESTARTS, RETURNS, STAYS = "moves", "restarts", "returns", "stays"


@dataclass(frozen=True)
class Fault:
    """``expected`` is what the cluster must do; ``limit`` the longest outage in seconds."""

    name: str
    title: str
    inject: Callable[[Cluster], None]
    expected: str
    limit: float
    # Where the cluster must be for the fault to mean something.
    prepare: Callable[[Cluster], None] = lambda cluster: None
    # What must be done before the cluster can be whole again, if anything.
    undo: Callable[[Cluster], None] = lambda cluster: None
    # What Pacemaker must have seen before the watching may end.
    noticed: Callable[[Cluster], bool] = lambda cluster: True


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
        return {
            MOVES: moved,
            RESTARTS: not moved and self.restarted,
            RETURNS: self.restarted,
            STAYS: not moved and not self.restarted and self.call_kept,
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
    before = cluster.wait_ready()
    data = cluster.write_data()
    call = cluster.place_call()
    pids = cluster.lab.node(before).pids("asterisk")
    prober.wait_answering(time.monotonic())
    begun = time.monotonic()
    fault.inject(cluster)
    if fault.expected == STAYS:
        end = time.monotonic() + WATCH_SECONDS
        wait_for(
            lambda: time.monotonic() >= end and fault.noticed(cluster),
            f"Pacemaker to notice: {fault.title}", timeout=90,
        )
    else:
        moves = fault.expected == MOVES
        wait_for(
            lambda: has_moved(cluster, before) if moves else not is_same(cluster, before, pids),
            f"the cluster to act: {fault.title}", timeout=150,
        )
        # Before any undo: the cluster must get there without help.
        cluster.wait_ready()
    prober.wait_answering(time.monotonic(), timeout=150)
    outage = prober.outage(begun)
    line_during = cluster.lab.line_switch.line_goes_to()
    fault.undo(cluster)
    after = cluster.wait_ready()
    same = is_same(cluster, before, pids)
    # Pacemaker is content: now look behind it. The line follows the calls within
    # moments, so it is given those.
    wait_for_audit(cluster)
    return Report(
        fault=fault,
        before=before,
        after=after,
        outage=outage,
        line_during=line_during,
        line=cluster.lab.line_switch.line_goes_to(),
        call_kept=same and cluster.call_is_up(call),
        restarted=not same,
        violations=cluster.audit(),
        lost=cluster.lost_data(data),
    )


def wait_for_audit(cluster: Cluster) -> None:
    """Until every invariant holds; after the time, whoever asks next sees which not."""
    try:
        wait_for(lambda: not cluster.audit(), "the invariants", timeout=15)
    except LabError:
        pass


def has_moved(cluster: Cluster, before: str) -> bool:
    """Whether Asterisk runs on another node."""
    return cluster.state().active not in ("", before)


def is_same(cluster: Cluster, node: str, pids: list[int]) -> bool:
    """Whether the very same Asterisk process is still there."""
    there = cluster.lab.node(node)
    return there.is_up and there.pids("asterisk") == pids


def standby(cluster: Cluster) -> None:
    cluster.standby(cluster.active())


def all_online(cluster: Cluster) -> None:
    for name in cluster.state().standby:
        cluster.online(cluster.lab.node(name))


def kill_asterisk(cluster: Cluster) -> None:
    cluster.active().kill("asterisk")


def kill_mariadb(cluster: Cluster) -> None:
    cluster.active().kill("mariadbd")


def kill_apache(cluster: Cluster) -> None:
    cluster.active().kill("apache2", signal.SIGKILL)


def has_failed(operation: str) -> Callable[[Cluster], bool]:
    """Whether Pacemaker has counted a failure of a resource, or of one operation of it."""

    def noticed(cluster: Cluster) -> bool:
        return any(text.startswith(operation) for text in cluster.state().failures)

    return noticed


def crash_active(cluster: Cluster) -> None:
    cluster.active().crash()


def crash_passive(cluster: Cluster) -> None:
    cluster.passive().crash()


def sees_one_node(cluster: Cluster) -> bool:
    return len(cluster.state().online) == len(cluster.lab.running) == 1


def boot_crashed(cluster: Cluster) -> None:
    for node in cluster.lab.nodes.values():
        if not node.is_up:
            cluster.lab.node(node.name).boot()
    wait_for(
        lambda: len(cluster.state().online) == len(cluster.lab.nodes), "both nodes online",
        timeout=90,
    )


def cut_link(cluster: Cluster) -> None:
    cluster.passive().cut("eth1")


def link_is_down(cluster: Cluster) -> bool:
    """Corosync has given the cluster link up and lives on the LAN."""
    said: Result = cluster.active().run("corosync-cfgtool", "-s", check=False)
    return "disconnected" in said.out


def restore_link(cluster: Cluster) -> None:
    for node in cluster.lab.nodes.values():
        node.restore("eth1")
    wait_for(
        lambda: not link_is_down(cluster), "the cluster link to be used again", timeout=60
    )


def power_cycle(cluster: Cluster) -> None:
    for node in cluster.lab.running:
        node.crash()
    for node in cluster.lab.nodes.values():
        cluster.lab.node(node.name).boot(wait=False)
    for node in cluster.lab.nodes.values():
        node.wait_booted()


def to_card_node(cluster: Cluster) -> None:
    """Make the node active that powers the relay card."""
    if cluster.active().name != CARD_NODE:
        standby(cluster)
        wait_for(lambda: cluster.state().active == CARD_NODE, f"{CARD_NODE} active", timeout=90)
        all_online(cluster)


def unplug_relay(cluster: Cluster) -> None:
    cluster.lab.line_switch.unplug()


def plug_relay(cluster: Cluster) -> None:
    cluster.lab.line_switch.plug()


def break_mariadb(cluster: Cluster) -> None:
    """From now on MariaDB does not start on the active node."""
    node = cluster.active()
    node.write(BAD_CONFIGURATION, "[mariadbd]\nno-such-option=1\n")
    node.kill("mariadbd")


def mend_mariadb(cluster: Cluster) -> None:
    node = cluster.active()
    node.run("rm", BAD_CONFIGURATION)
    node.run("crm_resource", "--cleanup", "--resource", "p_mysql")


STANDBY = Fault("standby", "crm node standby", standby, MOVES, 5.0, undo=all_online)
# A death is told at once and costs a start. A frozen Asterisk costs the watch (5 s), its
# confirmation, evidence and a start.
FAULTS = (
    STANDBY,
    Fault("standby-back", "crm node standby, the other way", standby, MOVES, 5.0, undo=all_online),
    Fault("asterisk-killed", "Asterisk killed (SIGKILL)", kill_asterisk, RESTARTS, 6.0),
    Fault("asterisk-frozen", "Asterisk frozen (SIGSTOP)", lambda c: freeze_asterisk(c.active()),
          RESTARTS, 15.0),
    Fault("mariadb-killed", "MariaDB killed (SIGKILL)", kill_mariadb, STAYS, UNNOTICED,
          noticed=has_failed("p_mysql_")),
    Fault("apache-killed", "Apache killed (SIGKILL)", kill_apache, STAYS, UNNOTICED,
          noticed=has_failed("p_apache_")),
    Fault("active-crashed", "active node loses power", crash_active, MOVES, 8.0),
    Fault("node-returns", "the crashed node returns", boot_crashed, STAYS, UNNOTICED),
    Fault("passive-crashed", "passive node loses power", crash_passive, STAYS, UNNOTICED,
          undo=boot_crashed, noticed=sees_one_node),
    Fault("link-cut", "cluster link cut, LAN alive", cut_link, STAYS, UNNOTICED,
          undo=restore_link, noticed=link_is_down),
    Fault("relay-unplugged", "relay unplugged, plugged in again", unplug_relay, STAYS, UNNOTICED,
          prepare=to_card_node, undo=plug_relay, noticed=has_failed("p_line_")),
    Fault("power-cycle", "both nodes lose power and boot", power_cycle, RETURNS, 60.0),
)

# Too long for the demo.
MARIADB_BROKEN = Fault(
    "mariadb-broken", "MariaDB does not start any more", break_mariadb, STAYS, UNNOTICED,
    undo=mend_mariadb, noticed=has_failed("p_mysql_start"),
)
