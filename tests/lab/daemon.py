"""The Asterisk of a node as the machine that runs the lab sees it, and gdb on it."""

from __future__ import annotations

import signal
from dataclasses import dataclass

from tests.lab.cluster import asterisk
from tests.lab.host import LabError
from tests.lab.node import Node

PID_FILE = "/run/asterisk/asterisk.pid"

# Only libc's symbols: reading those of Asterisk's 250 modules too halts it for 0.8 s
# instead of 0.2 s.
GDB = [
    "gdb", "-batch", "-nx", "-iex", "set debuginfod enabled off",
    "-iex", "set auto-solib-add off",
]
GDB_SECONDS = 60.0

# Asterisk's thread that only looks after astcanary, every five seconds: nothing
# misses it, so that what is seen is the fault and not its absence.
IDLE_THREAD = "canary_thread"


@dataclass(frozen=True)
class Daemon:
    """The Asterisk of a node: its pid there, its pid for Node.proc(), and its start."""

    node: Node
    inside: int
    pid: int
    started: int

    @property
    def lives(self) -> bool:
        return self.node.is_up and self.node.start_time(self.pid) == self.started

    def kill(self) -> None:
        self.node.send_signal(self.pid, signal.SIGKILL)

    def threads(self, name: str) -> list[int]:
        """Of that name (comm), as the node numbers them."""
        found = []
        for status in (self.node.proc(self.pid) / "task").glob("*/status"):
            try:
                text = status.read_text()
            except OSError:
                continue  # has just ended
            fields = dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)
            if fields["Name"] == name:
                found.append(int(fields["NSpid"].split()[-1]))
        return found


def daemon(node: Node) -> Daemon:
    """The node's Asterisk, its consoles left out. Raises LabError without one."""
    inside = int(node.path(PID_FILE).read_text())
    for pid in node.pids("asterisk"):
        status = (node.proc(pid) / "status").read_text()
        words = status.partition("NSpid:")[2].split("\n")[0]
        if int(words.split()[-1]) == inside:
            return Daemon(node, inside, pid, node.start_time(pid))
    raise LabError(f"no Asterisk runs on {node.name}")


def gdb(node: Node, *commands: str, thread: int = 0) -> None:
    """Have gdb do this in Asterisk's thread (the first one), and let go of it.

    A command that ends at a breakpoint inside a call leaves the thread there: it runs
    on in the called function when gdb is gone.
    """
    argv = [*GDB, "-p", str(daemon(node).inside), "-ex", "sharedlibrary libc.so"]
    if thread:
        threads = "gdb.selected_inferior().threads()"
        commands = (f"python [t.switch() for t in {threads} if t.ptid[1] == {thread}]", *commands)
    for command in (*commands, "detach"):
        argv += ["-ex", command]
    said = node.run(*argv, timeout=GDB_SECONDS)
    if "detached" not in said.out:
        raise LabError(f"gdb on {node.name}: {said.out[-500:]} {said.err[-500:]}")


def thread_that_runs(node: Node, *named: str) -> int:
    """The thread whose line has these words; 0 where there is none.

    Asterisk's lines: an address, the thread, its function, where that was started.
    """
    for line in asterisk(node, "core show threads").splitlines():
        words = line.split()
        if set(named) <= set(words):
            return int(words[1])
    return 0


def idle_thread(node: Node) -> int:
    # Started without -p, as the stock agent does: the first thread waits for signals alone.
    return thread_that_runs(node, IDLE_THREAD) or daemon(node).inside
