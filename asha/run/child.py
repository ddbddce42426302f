"""Work that may never return, done in a forked child that can be abandoned.

A process that touches a stalled disk sleeps in the kernel, where not even SIGKILL ends it. A
fork costs a millisecond, a program ten, and a fork needs no import: that is why the runner does
not do this.
"""

from __future__ import annotations

import os
import select

from asha.run.results import AgentError, Exit, Failed
from asha.run.text import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from asha.run.deadline import Deadline

# How long a killed child may take to be gone before it counts as stuck.
REAP_SECONDS = 0.3

# Seconds before a fork that was refused is tried again.
FORK_AGAIN = 0.02

# Characters of why it failed, which may quote what others have written.
REASON_MOST = 10000

# poll() takes no more than 2**31 ms.
WAIT_MOST = 3600.0


class NoAnswer(Failed):
    """The child did not end in time. ``stuck``: it survived even SIGKILL."""

    def __init__(self, reason: str, pid: int, stuck: bool) -> None:
        super().__init__(reason)
        self.pid = pid
        self.stuck = stuck


def in_child(work: Callable[[], str], deadline: Deadline, doing: str) -> str:
    """Call ``work`` in a child and return its text.

    An AgentError of the work is raised here as it was, any other error as Failed. Raises
    NoAnswer when the deadline passes; the child has been killed by then. ``doing`` says what it
    did, for the reason.

    The child keeps the action's lock, so that the next action waits for it.
    """
    reader, writer = os.pipe()
    try:
        pid = _fork(deadline, doing)
    except BaseException:
        os.close(reader)
        os.close(writer)
        raise
    if pid == 0:
        try:
            os.close(reader)
            _answer(work, writer)
        finally:
            os._exit(0)  # nothing may bring a second agent to life
    os.close(writer)
    patience = deadline.remaining()
    try:
        answer = _read_all(reader, deadline)
        ended = answer is not None and _ended(pid, deadline.remaining(WAIT_MOST))
    except BaseException:
        _kill(pid)
        raise
    finally:
        os.close(reader)
    if answer is None or not ended:
        _kill(pid)
        stuck = not _ended(pid, REAP_SECONDS)
        where = " and cannot be killed: the disk is stalled" if stuck else ""
        raise NoAnswer(f"{doing} did not end within {patience:.1f} s{where}", pid, stuck)
    code, _, text = answer.partition("\n")
    if not code:
        raise Failed(f"{doing} ended without an answer: somebody killed it")
    if code != "ok":
        kinds = {kind.code: kind for kind in AgentError.__subclasses__()}
        raise kinds[Exit(int(code))](text)
    return text


class IfKilled:
    """A context in which a child does ``work`` if we are killed before its end.

    Raises Failed where that cannot be prepared.
    """

    def __init__(self, work: Callable[[], object], deadline: Deadline, doing: str) -> None:
        self._work = work
        self._deadline = deadline
        self._doing = doing
        self._pid = 0

    def __enter__(self) -> None:
        ourselves = os.pidfd_open(os.getpid())
        try:
            self._pid = _fork(self._deadline, self._doing)
            if self._pid == 0:
                self._wait_for(ourselves)
        finally:
            os.close(ourselves)

    def __exit__(self, *_: object) -> None:
        _kill(self._pid)
        _ended(self._pid, REAP_SECONDS)

    def _wait_for(self, parent: int) -> None:
        try:
            os.setsid()  # who ends an action ends its process group
            _close_standard()
            poll = select.poll()
            poll.register(parent, select.POLLIN)
            poll.poll()
            self._work()
        finally:
            os._exit(0)


def import_nothing() -> None:
    """For a child that goes where somebody else chooses what each path is, a module's too:
    modules that are not loaded by now would be loaded from there."""
    import sys

    sys.meta_path.clear()


def _fork(deadline: Deadline, doing: str) -> int:
    """A machine that has no free process or memory now may have some a moment later."""
    while True:
        try:
            return os.fork()
        except OSError as problem:
            if deadline.expired:
                raise Failed(f"{doing} could not begin: {problem.strerror}") from None
        deadline.pause(FORK_AGAIN)


def _answer(work: Callable[[], str], writer: int) -> None:
    try:
        _close_standard()
        answer = "ok\n" + work()
    except AgentError as problem:
        answer = f"{problem.code:d}\n{problem.reason[:REASON_MOST]}"
    except BaseException as problem:
        answer = f"{Exit.ERR_GENERIC:d}\n{repr(problem)[:REASON_MOST]}"
    with open(writer, "w", encoding="utf-8", errors="surrogateescape") as pipe:
        pipe.write(answer)


def _close_standard() -> None:
    """The reader of our output must not wait for a child that hangs."""
    null = os.open("/dev/null", os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)


def _read_all(reader: int, deadline: Deadline) -> str | None:
    """Read until the other end closes; None when the time is over."""
    poll = select.poll()
    poll.register(reader, select.POLLIN)
    parts: list[bytes] = []
    while True:
        if not poll.poll(deadline.remaining(WAIT_MOST) * 1000):
            return None
        part = os.read(reader, 65536)
        if not part:
            return b"".join(parts).decode("utf-8", "surrogateescape")
        parts.append(part)


def _kill(pid: int) -> None:
    import signal  # late: it brings in enum, a tenth of a monitor's time

    os.kill(pid, signal.SIGKILL)


def _ended(pid: int, seconds: float) -> bool:
    """Wait for a child's end and reap it. False if it does not end in time."""
    handle = os.pidfd_open(pid)
    try:
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        if not poll.poll(seconds * 1000):
            return False
    finally:
        os.close(handle)
    os.waitpid(pid, 0)
    return True


def is_alive(pid: int, started: str) -> bool:
    """Whether this very process (by its start time) still runs.

    A zombie does not run, unless a thread of it is left: a thread that hangs in the kernel
    outlives its process and holds what the process held.
    """
    about = stat_of(pid)
    if about is None or about[19] != started:
        return False
    return about[0] not in "ZX" or int(about[17]) > 1


def send(pid: int, started: str, number: int) -> None:
    """Signal this very process (by its start time). It is no error if it is gone.

    Raises PermissionError.
    """
    import signal

    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        # The handle is of some process with this number; only now see of which.
        if is_alive(pid, started):
            signal.pidfd_send_signal(handle, number)
    except ProcessLookupError:
        pass
    finally:
        os.close(handle)


def name_of(pid: int) -> str:
    """The process's own name, printable; "?" when it is gone."""
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            return printable(file.read().rstrip("\n")) or "?"
    except OSError:
        return "?"


def start_time(pid: int) -> str:
    """When the process began, in clock ticks since boot; "" when it is gone."""
    about = stat_of(pid)
    return about[19] if about else ""


def stat_of(process: int | str) -> list[str] | None:
    """The fields of /proc/PID/stat after the name: state, parent, ...; see proc(5).

    None when the process is gone. A thread is "PID/task/TID".
    """
    try:
        with open(f"/proc/{process}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(") ")[2].split()
    except OSError:
        return None
