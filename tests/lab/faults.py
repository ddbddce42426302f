"""The faults that a cluster must live through, each written once: FAULTS, below.

``with fault.inject(cluster):`` makes one, and undoes it at the end, whatever happened
meanwhile. Its ``kinds`` and ``bench`` say who plays it. To add one, add a row.

Faults of the nodes and of the cluster are made here, those of Asterisk in injectors.py.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field

from tests.lab import injectors
from tests.lab.cluster import Cluster
from tests.lab.daemon import Daemon, daemon
from tests.lab.host import LabError, wait_for
from tests.lab.lab import CARD_NODE, VIRTUAL_ADDRESS
from tests.lab.node import Node

# What the cluster must do about it.
MOVES = "moves"  # Asterisk runs on the other node afterwards
RESTARTS = "restarts"  # it was started again where it was
RETURNS = "returns"  # it was started again, on whichever node
DEGRADED = "is degraded"  # the same Asterisk runs on, and Pacemaker shows what is wrong
STAYS = "stays"  # the same Asterisk runs on

# Who plays it.
CLUSTER = "cluster"  # tests/cluster/test_faults.py
DEMO = "demo"  # make demo: each takes half a minute or more
HANG = "hang"  # tests/cluster/test_hangs.py: done to Asterisk, and a fence device is there
DAMAGE = "damage"  # tests/cluster/test_damaged.py: half a minute before it, too long for the demo

# The stacks of the bench.
STOCK, STOCK_SIP, OURS = "stock", "stock+sip", "ours"

CRASHES = 6
HALTED_SECONDS = 10.0

# Limits, in seconds.
UNNOTICED = 0.5  # a lost packet or two, not a fault of service
HUNG = 9.0  # the watcher's next question, its confirmation, evidence, a fence and a start
FELT = math.inf  # the telephones feel the fault itself, whatever anybody does about it
# What a test allows more: a loaded machine is slower, a hang is for ever.
GENEROUS = 3.0
# And of real nodes, whose programs take ten times longer to start.
REAL_TIMES = 6.0

Injected = AbstractContextManager[object]
Injector = Callable[[Cluster], Injected]


@dataclass(frozen=True)
class Fault:
    """``expected`` is what the cluster must do; ``limit`` the longest outage in seconds.

    ``named``: what a failure that Pacemaker shows must contain, "" if it need show none.
    ``bench``: about how many seconds a turn takes on each stack of the bench that plays
    it, healing included.
    """

    name: str
    title: str
    inject: Injector
    expected: str
    limit: float = UNNOTICED
    named: str = ""
    kinds: tuple[str, ...] = (CLUSTER, DEMO)
    bench: Mapping[str, float] = field(default_factory=dict)
    # The fault from which this one continues: it is injected before, and held.
    after: str = ""
    # Where the cluster must be for the fault to mean something.
    prepare: Callable[[Cluster], object] = lambda cluster: None
    # What must have been seen before the watching may end, other than ``named``.
    noticed: Callable[[Cluster], bool] = lambda cluster: True
    # Why it cannot be played on real nodes, "" where it can.
    only_fast: str = ""

    @property
    def is_fenced(self) -> bool:
        """Whether Asterisk cannot be ended: its node is fenced, if there is a device."""
        return HANG in self.kinds and self.expected == MOVES


def of_kind(kind: str) -> list[Fault]:
    return [one for one in FAULTS if kind in one.kinds]


def of_bench() -> list[Fault]:
    return [one for one in FAULTS if one.bench]


def by_name(name: str) -> Fault:
    return next(one for one in FAULTS if one.name == name)


# What makes them.


def on_active(injector: Callable[[Node], Injected]) -> Injector:
    return lambda cluster: injector(cluster.active())


def killed(program: str) -> Injector:
    """All processes of that name."""

    @contextmanager
    def inject(cluster: Cluster) -> Iterator[None]:
        cluster.active().kill(program)
        yield

    return inject


@contextmanager
def asterisk_killed(cluster: Cluster) -> Iterator[None]:
    # Not what is called asterisk: so are the consoles by which it is watched.
    daemon(cluster.active()).kill()
    yield


@contextmanager
def crash_loop(cluster: Cluster) -> Iterator[None]:
    """Six deaths, each as soon as it serves, wherever that is: both nodes' three tries."""
    for _ in range(CRASHES):
        dying = serving(cluster)
        dying.kill()
        await_end(dying)
    yield


def await_end(dying: Daemon) -> None:
    wait_for(lambda: not dying.lives, "its end")


def serving(cluster: Cluster) -> Daemon:
    """The Asterisk whose start has ended, as Pacemaker tells, and that lives."""
    found: list[Daemon] = []

    def serves() -> bool:
        try:
            found[:] = [daemon(cluster.active())]
        except (LabError, OSError):
            return False  # it has just died, and Pacemaker does not know
        return True

    wait_for(serves, "Asterisk to serve", timeout=90)
    return found[0]


def halted(program: str, seconds: float = HALTED_SECONDS) -> Injector:
    """All of the active node's processes of that name stand still for so long (SIGSTOP)."""

    @contextmanager
    def inject(cluster: Cluster) -> Iterator[None]:
        with stand_still(cluster.active(), program):
            let_pass(seconds)
        yield

    return inject


def let_pass(seconds: float) -> None:
    """Time that is the fault's own: nothing is waited for."""
    over = time.monotonic() + seconds
    wait_for(lambda: time.monotonic() >= over, "the time to pass", timeout=seconds + 10)


@contextmanager
def stand_still(node: Node, *programs: str) -> Iterator[None]:
    stopped = [pid for name in programs for pid in node.kill(name, signal.SIGSTOP)]
    try:
        yield
    finally:
        for pid in stopped:
            try:
                node.send_signal(pid, signal.SIGCONT)
            except ProcessLookupError:
                pass  # somebody has ended it meanwhile


@contextmanager
def restarted_by_systemd(cluster: Cluster) -> Iterator[None]:
    """As an upgrade of the package does, or a person."""
    cluster.active().run("systemctl", "restart", "asterisk.service")
    yield


@contextmanager
def astdb_damaged(cluster: Cluster) -> Iterator[None]:
    """Its first page is garbage; Asterisk has it open, and goes on until it dies."""
    injectors.damage_astdb(cluster.active())
    daemon(cluster.active()).kill()
    try:
        yield
    finally:
        injectors.forget_damaged_astdb(cluster.active())


@contextmanager
def pjsip_emptied(cluster: Cluster) -> Iterator[None]:
    """Both nodes can start Asterisk with the files that served last only; at the end it takes
    the repaired ones again, as people are told to have it."""
    with injectors.pjsip_emptied(cluster):
        daemon(cluster.active()).kill()
        yield
        wait_for(lambda: "pjsip.conf is empty" in told_of_asterisk(cluster), "it to be told")
    # It waits for the stop, not for the start.
    cluster.active().run("crm", "resource", "restart", "p_asterisk", timeout=90)
    serving(cluster)
    cluster.wait_ready()
    wait_for(lambda: "pjsip.conf" not in told_of_asterisk(cluster), "it to be told no more")


def told_of_asterisk(cluster: Cluster) -> str:
    """What is degraded, in asterisk-health's words."""
    return cluster.running[0].run("attrd_updater", "--query", "--all", "--name", "asha-asterisk",
                                  check=False).out


def files_are_kept(cluster: Cluster) -> None:
    """Those with which Asterisk serves now: half a minute after its start."""
    wait_for(lambda: bool(injectors.kept_files(cluster.active())), "its files to be kept",
             timeout=120, every=0.5)


@contextmanager
def standby(cluster: Cluster) -> Iterator[None]:
    node = cluster.active()
    cluster.standby(node)
    try:
        yield
    finally:
        cluster.online(node)


def power_lost(which: Callable[[Cluster], Node]) -> Injector:
    """That node loses power; it is switched on again in the end, if it is still off."""

    @contextmanager
    def inject(cluster: Cluster) -> Iterator[None]:
        which(cluster).crash()
        try:
            yield
        finally:
            switch_on(cluster)
        wait_online(cluster)

    return inject


@contextmanager
def node_returns(cluster: Cluster) -> Iterator[None]:
    switch_on(cluster)
    wait_online(cluster)
    yield


@contextmanager
def power_cycle(cluster: Cluster) -> Iterator[None]:
    for node in cluster.lab.running:
        node.crash()
    switch_on(cluster)
    yield


def switch_on(cluster: Cluster) -> None:
    """Every node that is off, side by side."""
    off = [cluster.lab.node(name) for name, node in cluster.lab.nodes.items() if not node.is_up]
    for node in off:
        node.boot(wait=False)
    for node in off:
        node.wait_booted()


def wait_online(cluster: Cluster) -> None:
    wait_for(lambda: len(cluster.state().online) == len(cluster.lab.nodes), "both nodes online",
             timeout=90)


def sees_one_node(cluster: Cluster) -> bool:
    return len(cluster.state().online) == len(cluster.lab.running) == 1


@contextmanager
def link_cut(cluster: Cluster) -> Iterator[None]:
    cluster.passive().cut("eth1")
    try:
        yield
    finally:
        for node in cluster.lab.nodes.values():
            node.restore("eth1")
    wait_for(lambda: not link_is_down(cluster), "the cluster link to be used again", timeout=60)


@contextmanager
def lan_cut(cluster: Cluster) -> Iterator[None]:
    node = cluster.active()
    node.cut("eth0")
    try:
        yield
    finally:
        node.restore("eth0")


def lans_are_good(cluster: Cluster) -> None:
    """A node that has booted, or was cut off, is trusted after half a minute."""
    wait_for(lambda: set(cluster.lans().values()) == {"ok"}, "both LANs to be trusted",
             timeout=90, every=0.5)


@contextmanager
def address_deleted(cluster: Cluster) -> Iterator[None]:
    cluster.active().run("ip", "address", "delete", f"{VIRTUAL_ADDRESS}/24", "dev", "eth0")
    yield


@contextmanager
def address_refused(cluster: Cluster) -> Iterator[None]:
    """It goes, and its agent starts it on neither node until both have failed."""
    agent = "/usr/lib/ocf/resource.d/heartbeat/IPaddr2"
    nodes = list(cluster.running)
    for node in nodes:
        node.run("cp", "--archive", agent, f"{agent}.true")
        node.write(agent, REFUSING_AGENT.format(agent), mode=0o755)
    try:
        cluster.active().run("ip", "address", "delete", f"{VIRTUAL_ADDRESS}/24", "dev", "eth0")
        wait_for(lambda: {name for name in cluster.lab.nodes for text in cluster.state().failures
                          if text.startswith(f"p_ip_start_0 on {name}")} == set(cluster.lab.nodes),
                 "the address to have failed on both nodes", timeout=90)
    finally:
        for node in nodes:
            # In one step: Pacemaker may be running it.
            node.write(agent, node.path(f"{agent}.true").read_text(), mode=0o755)
    yield


# The true one stays beside it: an action of it may be under way when it is put back.
REFUSING_AGENT = """\
#!/bin/sh
[ "$1" != start ] || {{ echo refused >&2; exit 1; }}
exec {0}.true "$@"
"""


def link_is_down(cluster: Cluster) -> bool:
    """Corosync has given the cluster link up and lives on the LAN."""
    return "disconnected" in cluster.active().run("corosync-cfgtool", "-s", check=False).out


def to_card_node(cluster: Cluster) -> None:
    """Make the node active that powers the relay card."""
    if cluster.active().name != CARD_NODE:
        with standby(cluster):
            wait_for(lambda: cluster.state().active == CARD_NODE, f"{CARD_NODE} active",
                     timeout=90)


@contextmanager
def relay_unplugged(cluster: Cluster) -> Iterator[None]:
    cluster.lab.line_switch.unplug()
    try:
        yield
    finally:
        cluster.lab.line_switch.plug()


@contextmanager
def mariadb_broken(cluster: Cluster) -> Iterator[None]:
    """From now on MariaDB does not start on the active node."""
    node = cluster.active()
    bad = "/etc/mysql/mariadb.conf.d/99-bad.cnf"
    node.write(bad, "[mariadbd]\nno-such-option=1\n")
    try:
        node.kill("mariadbd")
        yield
    finally:
        node.path(bad).unlink()
    node.run("crm_resource", "--cleanup", "--resource", "p_mysql")


# In the order in which they are played. The bench wants what boots a node last.
FAULTS = (
    Fault("planned", "planned switch (crm node standby)", standby, MOVES, 5.0,
          bench={STOCK: 18, OURS: 15}),
    Fault("planned-back", "planned switch, the other way", standby, MOVES, 5.0),
    # A death is told at once and costs a start.
    Fault("asterisk-killed", "Asterisk killed (SIGKILL)", asterisk_killed, RESTARTS, 6.0,
          bench={STOCK: 18, STOCK_SIP: 18, OURS: 9}),
    # Hangs. A stack whose monitor asks the console first waits there in vain when all of
    # Asterisk stands still, whatever it would ask after that: stock+sip plays no such hang.
    Fault("sigstop", "Asterisk frozen (SIGSTOP)", on_active(injectors.stopped), RESTARTS, HUNG,
          "is stopped by a signal", (CLUSTER, DEMO, HANG), bench={STOCK: 62, OURS: 13}),
    Fault("cgroup-frozen", "control group frozen", on_active(injectors.cgroup_frozen),
          RESTARTS, HUNG, "is frozen by its cgroup", (HANG,), bench={STOCK: 62, OURS: 13},
          only_fast="it is done to a control group of this machine's kernel"),
    Fault("dialplan-lock", "dialplan lock held (gdb)", on_active(injectors.dialplan_locked),
          RESTARTS, HUNG, "dialplan lock", (HANG,), bench={STOCK: 30, STOCK_SIP: 48, OURS: 16}),
    Fault("channel-lock", "channel list's lock held (gdb)", on_active(injectors.channels_locked),
          RESTARTS, HUNG, "channel lock", (HANG,), bench={STOCK: 30, STOCK_SIP: 30, OURS: 18},
          prepare=Cluster.place_call),
    Fault("sip-thread", "SIP thread stands still (gdb)", on_active(injectors.sip_thread_parked),
          RESTARTS, HUNG, "SIP at UDP", (HANG,), bench={STOCK: 32, STOCK_SIP: 48, OURS: 16}),
    Fault("store-frozen", "the store frozen (fsfreeze)", on_active(injectors.store_frozen),
          MOVES, HUNG, "AstDB", (HANG,), bench={STOCK: 35, STOCK_SIP: 30, OURS: 50}),
    # No reason to end the calls.
    Fault("sip-traced", "SIP thread held by ptrace", on_active(injectors.sip_thread_traced),
          DEGRADED, FELT, "a debugger", (HANG,)),
    Fault("astdb-locked", "AstDB locked (BEGIN EXCLUSIVE)", on_active(injectors.astdb_locked),
          DEGRADED, named="AstDB", kinds=(HANG,)),
    Fault("store-full", "the store full", injectors.store_full,
          DEGRADED, named="AstDB", kinds=(HANG,)),
    Fault("ami-blocked", "AMI's port blocked (nftables)", on_active(injectors.ami_blocked),
          DEGRADED, named="packets to it are lost", kinds=(HANG,),
          only_fast="the kernel of real nodes has no family inet of nftables"),
    Fault("socket-gone", "control socket removed", on_active(injectors.control_socket_gone),
          DEGRADED, named="control socket", kinds=(HANG,)),
    # Seen at depth 20, at its second look.
    Fault("cpu-runaway", "one thread eats a CPU (gdb)", on_active(injectors.thread_spinning),
          DEGRADED, named="has not rested", kinds=(HANG,)),
    Fault("dns-blackhole", "DNS silent, a peer has a host name", injectors.dns_blackhole,
          STAYS, kinds=(HANG,)),
    Fault("reload-storm", "core reload, again and again", on_active(injectors.reload_storm),
          STAYS, kinds=(HANG,)),
    # The address and the LAN.
    Fault("address-deleted", "virtual address deleted (ip addr del)", address_deleted, STAYS, 1.5,
          named="p_ip_"),
    Fault("lan-cable", "LAN cable of the active node pulled", lan_cut, MOVES, 4.0,
          prepare=lans_are_good),
    # What is beside the telephones.
    Fault("mariadb-killed", "MariaDB killed (SIGKILL)", killed("mariadbd"), STAYS,
          named="p_mysql_"),
    Fault("apache-killed", "Apache killed (SIGKILL)", killed("apache2"), STAYS,
          named="p_apache_"),
    # Nodes and cables.
    Fault("active-crashed", "active node loses power", power_lost(Cluster.active), MOVES, 8.0,
          bench={STOCK: 24, OURS: 10}),
    Fault("node-returns", "the crashed node returns", node_returns, STAYS,
          bench={STOCK: 24, OURS: 10}, after="active-crashed"),
    Fault("passive-crashed", "passive node loses power", power_lost(Cluster.passive), STAYS,
          noticed=sees_one_node),
    Fault("link-cut", "cluster link cut, LAN alive", link_cut, STAYS, noticed=link_is_down),
    Fault("relay-unplugged", "relay unplugged, plugged in again", relay_unplugged, STAYS,
          named="p_line_", prepare=to_card_node, only_fast="real nodes have no relay card"),
    Fault("power-cycle", "both nodes lose power and boot", power_cycle, RETURNS, 60.0),
    # Only for the tests: the demo's time is a person's.
    Fault("crash-loop", "Asterisk dies six times as soon as it serves", crash_loop, RETURNS, 15.0,
          kinds=(CLUSTER,)),
    # Its start is refused until both nodes have failed: then the pauses of what is tried again.
    Fault("address-refused", "virtual address starts on neither node", address_refused, RETURNS,
          20.0, kinds=(CLUSTER,)),
    Fault("asterisk-restarted", "Asterisk restarted by systemctl", restarted_by_systemd, RESTARTS,
          2.0, kinds=(CLUSTER,)),
    # The watchers. Asterisk is well.
    Fault("corosync-killed", "corosync killed (SIGKILL)", killed("corosync"), STAYS, 1.0,
          kinds=(CLUSTER,)),
    Fault("corosync-halted", "corosync stopped for 10 s (SIGSTOP)", halted("corosync"), STAYS, 1.0,
          kinds=(CLUSTER,)),
    Fault("execd-killed", "pacemaker-execd killed (SIGKILL)", killed("pacemaker-execd"), STAYS,
          1.0, kinds=(CLUSTER,)),
    Fault("pacemakerd-killed", "pacemakerd killed (SIGKILL)", killed("pacemakerd"), STAYS, 1.0,
          kinds=(CLUSTER,)),
    Fault("astdb-damaged", "AstDB damaged, then Asterisk killed", astdb_damaged, RESTARTS, 10.0,
          kinds=(CLUSTER,)),
    # Three starts on one node, one on the other, and the one that counts.
    Fault("pjsip-emptied", "pjsip.conf emptied, then Asterisk killed", pjsip_emptied, RETURNS, 30.0,
          kinds=(DAMAGE,), prepare=files_are_kept),
    # Too long for the demo.
    Fault("mariadb-broken", "MariaDB does not start any more", mariadb_broken, STAYS,
          named="p_mysql_start", kinds=(CLUSTER,)),
)
