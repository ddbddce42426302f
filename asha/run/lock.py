"""Actions that change a resource exclude one another, also after a kill.

Pacemaker runs one at a time, but an agent that it kills can leave a child (a mount, systemctl)
behind. Children inherit the lock, so it is free only when the last of them has ended.
"""

from __future__ import annotations

import fcntl
import os
import signal

from asha.run.child import name_of, send, start_time
from asha.run.results import Expired

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from asha.run.deadline import Deadline


def take(
    path: str, deadline: Deadline, *, end_leftovers: bool, warn: Callable[[str], None]
) -> int | None:
    """Wait for the lock and return its descriptor; Expired if it does not become free.

    With ``end_leftovers`` what holds it for half of the deadline is killed: a stop that fails
    because of another's child gets the node fenced. Returns None, with a warning, where there
    can be no lock: a full or broken /run must not prevent a stop.
    """
    try:
        os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as problem:
        warn(f"goes without its lock {path}: {problem.strerror}")
        return None
    try:
        _wait(lock, deadline, end_leftovers, warn)
    except OSError as problem:
        warn(f"goes without its lock {path}: {problem.strerror}")
    except BaseException:
        os.close(lock)
        raise
    return lock


def _wait(lock: int, deadline: Deadline, end_leftovers: bool, warn: Callable[[str], None]) -> None:
    def free() -> bool:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    if deadline.within(deadline.remaining() / 2).poll(free):
        return
    if end_leftovers:
        for killed in kill_holders(lock):
            warn(f"killed {killed}, left over from an earlier action")
    if not deadline.poll(free):
        who = ", ".join(holders(lock).values()) or "a process out of sight"
        raise Expired(f"an earlier action is still at work: {who}")


def holders(lock: int) -> dict[int, str]:
    """All other processes that have this file open: pid and "name (pid)"."""
    return {pid: who for pid, _, who in _holders(lock)}


def _holders(lock: int) -> list[tuple[int, str, str]]:
    """The same with each process's start time, which tells it from a later one with its pid."""
    path = os.readlink(f"/proc/self/fd/{lock}")
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdecimal() or int(entry) == os.getpid():
            continue
        started = start_time(int(entry))  # before the look at what it holds
        if started and _holds(entry, path):
            found.append((int(entry), started, f"{name_of(int(entry))} ({entry})"))
    return found


def kill_holders(lock: int) -> list[str]:
    """Kill them and return their names.

    One that is in the kernel (state D) dies when it leaves it, if ever: the caller checks
    whether the lock is free now.
    """
    found = _holders(lock)
    for pid, started, _ in found:
        send(pid, started, signal.SIGKILL)
    return [who for _, _, who in found]


def _holds(pid: str, path: str) -> bool:
    folder = f"/proc/{pid}/fd"
    try:
        descriptors = os.listdir(folder)
    except OSError:
        return False  # has just ended
    for descriptor in descriptors:
        try:
            # Reads the link and never opens or stats it: the file may be of a
            # file system that does not answer.
            if os.readlink(f"{folder}/{descriptor}") == path:
                return True
        except OSError:
            pass  # closed meanwhile
    return False
