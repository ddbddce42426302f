"""What can go wrong with the Asterisk of one node, each a context manager.

Entering one makes the fault, on the stock package and without any help of
Asterisk's; leaving it undoes the fault, whatever has become of the node by then:
Asterisk restarted, the node switched off, or booted again.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.lab.cluster import Cluster
from tests.lab.daemon import Daemon, daemon, gdb, idle_thread
from tests.lab.host import LabError, cgroup_root, kill_session, start_time
from tests.lab.node import Node

CONTROL_SOCKET = "/run/asterisk/asterisk.ctl"
ASTDB = "/var/lib/asterisk/astdb.sqlite3"
STORE = "/drbd"
FILLER = f"{STORE}/lab-fill"
LAST_GOOD = f"{STORE}/last-good"

SIP_THREAD = "SIP"

# SQLite's exclusive lock. What Asterisk has read since its last change it keeps locked until its
# next commit, which comes a second after a change: so it is given one (main/db.c: a
# transaction is always open, and only db_sync_thread() commits).
LOCK_ASTDB = f"""\
import os, sqlite3, subprocess, sys, time
database = sqlite3.connect({ASTDB!r}, timeout=0.2, isolation_level=None)
over = time.monotonic() + 50
while True:
    try:
        database.execute("BEGIN EXCLUSIVE")
        break
    except sqlite3.DatabaseError as problem:
        if problem.sqlite_errorcode == sqlite3.SQLITE_NOTADB:
            break  # damaged already
        if problem.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > over:
            raise
    subprocess.run(["asterisk", "-rx", "database put committed lab " + str(time.monotonic())],
                   stdout=subprocess.DEVNULL, timeout=20)
"""

HOLD_ASTDB = f"""{LOCK_ASTDB}
print("locked", flush=True)
time.sleep(3600)
"""

# Under the lock: what Asterisk has in its cache, and has not committed yet, would be written
# over the damage a moment later, and mend it.
DAMAGE_ASTDB = f"""{LOCK_ASTDB}
file = os.open({ASTDB!r}, os.O_WRONLY)
os.pwrite(file, os.urandom(int(sys.argv[1])), 0)
os._exit(0)
"""

BLOCK_AMI = """\
table inet lab_hang {
    chain input {
        type filter hook input priority 0;
        iifname "lo" tcp dport 5038 drop;
    }
}
"""

# A name server whose cable leads nowhere: questions leave, nothing comes back, and no
# error either, since its link address is known.
RESOLVER = "192.168.1.53"
RESOLVER_LINK = "02:00:00:00:00:53"
PJSIP = "/etc/asterisk/pjsip.conf"
PEER = """
[lab-trunk]
type=endpoint
context=lab
disallow=all
allow=ulaw
aors=lab-trunk

[lab-trunk]
type=aor
contact=sip:trunk.lab.example
qualify_frequency=5

[lab-trunk]
type=identify
endpoint=lab-trunk
match=trunk.lab.example

[lab-trunk]
type=registration
server_uri=sip:trunk.lab.example
client_uri=sip:lab@trunk.lab.example
retry_interval=5
"""

RELOADERS = 3
RELOAD_FOR_EVER = "while :; do asterisk -rx 'core reload'; done"


@contextmanager
def until_restart(node: Node) -> Iterator[Daemon]:
    """For what only the end of the process undoes: whoever watches it starts another."""
    broken = daemon(node)
    try:
        yield broken
    finally:
        if broken.lives:
            broken.kill()


# Hangs.


@contextmanager
def sigstop(*pids: int) -> Iterator[None]:
    """The processes (as the host numbers them) are there and do nothing."""
    started = {pid: start_time(pid) for pid in pids}
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            if start_time(pid) == started[pid]:
                os.kill(pid, signal.SIGCONT)


@contextmanager
def stopped(node: Node) -> Iterator[None]:
    """Asterisk stopped by SIGSTOP."""
    halted = daemon(node)
    node.send_signal(halted.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        if halted.lives:
            node.send_signal(halted.pid, signal.SIGCONT)


@contextmanager
def cgroup_frozen(node: Node) -> Iterator[None]:
    """The freezer of Asterisk's control group: its threads still say that they sleep.

    An agent that starts Asterisk itself leaves it in Pacemaker's group, which would be
    frozen with it: there it is given one of its own.
    """
    pid = daemon(node).pid
    text = Path(f"/proc/{pid}/cgroup").read_text()
    path = next(line[3:] for line in text.splitlines() if line.startswith("0::"))
    group = cgroup_root() / path.lstrip("/")
    if group.name not in ("asterisk.service", "asterisk"):
        group /= "asterisk"
        group.mkdir(exist_ok=True)
        (group / "cgroup.procs").write_text(str(pid))
    freezer = group / "cgroup.freeze"
    freezer.write_text("1")
    try:
        yield
    finally:
        try:
            freezer.write_text("0")
        except OSError:
            pass  # the group went with its last process


@contextmanager
def dialplan_locked(node: Node) -> Iterator[None]:
    """The dialplan's lock, taken for writing and never given back (asterisk #668)."""
    with until_restart(node):
        gdb(node, "call (int)ast_wrlock_contexts()")
        yield


@contextmanager
def channels_locked(node: Node) -> Iterator[None]:
    """The lock of the list of channels (asterisk #1907, #1928, #1946).

    A thread walks the list, and at the first channel stands still with the lock in
    its hands. There must be a channel.
    """
    with until_restart(node):
        gdb(
            node,
            "tbreak pause",
            "call (void*)ast_channel_callback((void*)pause, 0, 0, 0)",
            thread=idle_thread(node),
        )
        yield


@contextmanager
def sip_thread_parked(node: Node) -> Iterator[None]:
    """The thread that reads PJSIP's sockets stands still, and nobody holds it."""
    [thread] = daemon(node).threads(SIP_THREAD)
    with thread_parked(node, thread):
        yield


@contextmanager
def thread_parked(node: Node, thread: int) -> Iterator[None]:
    with until_restart(node):
        gdb(node, "tbreak pause", "call (int)pause()", thread=thread)
        yield


@contextmanager
def sip_thread_traced(node: Node) -> Iterator[None]:
    """The same thread held by ptrace, as a debugger does."""
    [thread] = daemon(node).threads(SIP_THREAD)
    with helper(node, "halt-thread", str(thread)):
        yield


@contextmanager
def thread_spinning(node: Node) -> Iterator[None]:
    """One thread eats a CPU: lfind() over elements of no size, never equal to "a".

    Without the real-time priority that Debian's Asterisk has (-p): with it, whatever else
    is due on that processor waits for 0.95 s of each second (sched(7), sched_rt_runtime_us),
    the kernel's own ksoftirqd with the packets in its hands too. SIP was seen silent for up
    to 2.4 s then, in every lab of a machine that had other work.
    """
    with until_restart(node):
        thread = idle_thread(node)
        node.run("chrt", "--other", "--pid", "0", str(thread))
        gdb(
            node,
            "tbreak lfind",
            'call (void*)lfind("a", "b", "endless", 0, (void*)strcoll)',
            thread=thread,
        )
        yield


@contextmanager
def store_frozen(node: Node) -> Iterator[None]:
    """Whoever writes to the store waits in the kernel, and no signal reaches him."""
    init = node.init
    node.run("fsfreeze", "--freeze", STORE)
    try:
        yield
    finally:
        # Thawed by the loss of power, if there was one (see Node.crash).
        if node.init == init:
            node.run("fsfreeze", "--unfreeze", STORE, check=False)


# What is no hang.


def damage_astdb(node: Node, pages: int = 1) -> None:
    """Overwrite its first pages, of 4 KiB."""
    node.run("python3", "-c", DAMAGE_ASTDB, str(pages * 4096))


def forget_damaged_astdb(node: Node) -> None:
    """What a person does who has looked at it."""
    node.run("sh", "-c", f"rm -f {ASTDB}.damaged-*")


@contextmanager
def astdb_locked(node: Node) -> Iterator[None]:
    """Another program has a transaction on AstDB's file and does not end it."""
    with helper(node, "python3", "-c", HOLD_ASTDB):
        yield


@contextmanager
def store_full(cluster: Cluster) -> Iterator[None]:
    """Not a byte is left in the store; also not what ext4 keeps for root."""
    try:
        filler = os.open(cluster.active().path(FILLER), os.O_WRONLY | os.O_CREAT)
        try:
            fill(filler)
        finally:
            os.close(filler)
        yield
    finally:
        for node in with_store(cluster):
            node.path(FILLER).unlink(missing_ok=True)


def fill(file: int) -> None:
    """Give the file all free blocks, in ever smaller pieces; nothing is written."""
    length, piece = 0, 1 << 28
    while piece >= 4096:
        try:
            os.posix_fallocate(file, length, piece)
            length += piece
        except OSError:
            piece //= 2


@contextmanager
def ami_blocked(node: Node) -> Iterator[None]:
    """Packets to AMI's port are dropped on the node itself."""
    init = node.init
    node.run("nft", "-f", "-", stdin=BLOCK_AMI)
    try:
        yield
    finally:
        if node.init == init:
            node.run("nft", "delete", "table", "inet", "lab_hang")


@contextmanager
def control_socket_gone(node: Node) -> Iterator[None]:
    """The control socket's name is gone; moved, so that it can be put back."""
    away = f"{CONTROL_SOCKET}.away"
    broken = daemon(node)
    node.run("mv", CONTROL_SOCKET, away)
    try:
        yield
    finally:
        if broken.lives:
            node.run("mv", away, CONTROL_SOCKET)
        elif node.is_up:
            node.run("rm", "-f", away)


@contextmanager
def dns_blackhole(cluster: Cluster) -> Iterator[None]:
    """A SIP peer with a host name, and a name server that never answers; then a reload.

    The file is in the store, which may be with the other node when this is undone.
    """
    node = cluster.active()
    before = node.path(PJSIP).read_text()
    with ExitStack() as undo:
        undo.callback(write_pjsip, cluster, before)
        write_pjsip(cluster, before + PEER)
        for each in cluster.running:
            undo.callback(restore_resolver, each)
            run_ip(each, "replace", "lladdr", RESOLVER_LINK, "nud", "permanent")
            each.write("/etc/resolv.conf", f"nameserver {RESOLVER}\n")
        with background(node, "asterisk", "-rx", "core reload"):
            yield


@contextmanager
def pjsip_emptied(cluster: Cluster) -> Iterator[None]:
    """A file of no length, as a power cut leaves one that was just written."""
    before = cluster.active().path(PJSIP).read_text()
    write_pjsip(cluster, "")
    try:
        yield
    finally:
        write_pjsip(cluster, before)


def kept_files(node: Node) -> list[str]:
    """The configurations that have served and were kept, the oldest first."""
    listed = node.run("ls", LAST_GOOD, check=False).out.split()
    return [name for name in listed if name != "failed"]


def write_pjsip(cluster: Cluster, text: str) -> None:
    for node in with_store(cluster):
        node.path(PJSIP).write_text(text)


def with_store(cluster: Cluster) -> list[Node]:
    """The node that has the store mounted now, if one has."""
    return [node for node in cluster.running
            if f" {STORE} " in node.path("/proc/1/mounts").read_text()]


def restore_resolver(node: Node) -> None:
    """The lab's nodes have no name server."""
    if node.is_up:
        node.path("/etc/resolv.conf").unlink(missing_ok=True)
        run_ip(node, "delete", check=False)


def run_ip(node: Node, *words: str, check: bool = True) -> None:
    verb, *rest = words
    node.run("ip", "neighbour", verb, RESOLVER, "dev", "eth0", *rest, check=check)


@contextmanager
def reload_storm(node: Node) -> Iterator[None]:
    """core reload for ever, several side by side."""
    with ExitStack() as undo:
        for _ in range(RELOADERS):
            undo.enter_context(background(node, "sh", "-c", RELOAD_FOR_EVER))
        yield


# Programs that run on in the node.


@contextmanager
def background(node: Node, *argv: str) -> Iterator[subprocess.Popen[str]]:
    process = node.start(*argv)
    try:
        yield process
    finally:
        kill_session(process)


@contextmanager
def helper(node: Node, *argv: str) -> Iterator[None]:
    """A program that makes the fault, says one word when it is made, and keeps it."""
    with background(node, *argv) as process:
        assert process.stdout is not None
        if not process.stdout.readline():
            _, err = process.communicate()
            raise LabError(f"{' '.join(argv[:2])} on {node.name}: {err.strip()[-500:]}")
        yield
