"""Which processes keep a mount busy, read from /proc as fuser(1) does.

The links under /proc tell the path also of a file that a service with a mount
namespace of its own holds open (PrivateTmp= and the like make one).
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from itertools import chain, islice

from asha.data.kernel import Looker
from asha.data.paths import is_inside
from asha.run.child import in_child, is_alive, name_of, send, stat_of
from asha.run.results import Failed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from asha.run.deadline import Deadline

# <linux/sched.h>
PF_KTHREAD = 0x00200000

DELETED = " (deleted)"

STATUS = ("State", "Uid", "Threads")

# Of how many threads it is asked whether they hang.
THREADS_MOST = 100


class Holder:
    """One process. ``started`` distinguishes it from a later one with the same pid.
    ``perhaps``: there was no time to see everything that it has, and it may hold nothing."""

    __slots__ = ("name", "perhaps", "pid", "point", "protected", "started")

    def __init__(self, pid: int, started: str, protected: bool, point: str, name: str) -> None:
        self.pid = pid
        self.started = started
        self.protected = protected
        self.point = point
        self.name = name
        self.perhaps = False

    def __str__(self) -> str:
        tasks = islice(entries(f"/proc/{self.pid}/task"), THREADS_MOST)
        threads = (stat_of(f"{self.pid}/task/{one}") for one in tasks)
        # D is a sleep in the kernel that no signal ends: mostly a stalled disk.
        hangs = any(about is not None and about[0] == "D" for about in threads)
        waits = ", waiting for the disk" if hangs else ""
        perhaps = "perhaps " if self.perhaps else ""
        return f"{self.point} is {perhaps}held by {self.name} (pid {self.pid}{waits})"

    def to_line(self) -> str:
        """For the transfer from the child that found it."""
        numbers = f"{self.pid} {self.started} {self.protected:d} {self.perhaps:d}"
        return f"{numbers}\t{self.point}\t{self.name}"

    @classmethod
    def from_line(cls, line: str) -> Holder:
        numbers, point, name = line.split("\t", 2)
        pid, started, protected, perhaps = numbers.split(" ")
        holder = cls(int(pid), started, protected == "1", point, name)
        holder.perhaps = perhaps == "1"
        return holder

    @property
    def is_gone(self) -> bool:
        return not is_alive(self.pid, self.started)

    def send(self, number: signal.Signals) -> None:
        """Signal this very process. It is no error if it is gone."""
        send(self.pid, self.started, number)


def find(points: Sequence[str]) -> list[Holder]:
    """What uses something on the mounts at these points, without ourselves.

    To be called in a child: what the searching process holds does not count.
    """
    others = [pid for pid in pids() if pid != os.getpid()]
    return [Holder.from_line(line) for line in look(points, others) if line]


def look(points: Sequence[str], among: Iterable[int], thorough: bool = False) -> Iterator[str]:
    """The holders among these pids, as lines; "" for each step on the way.

    A thorough look also reads memory maps and what single threads hold. It costs ten
    times more, and a process that hangs can make it hang, so it is for when the plain
    one found nothing.
    """
    # What was opened before the mount has the same name and another device.
    looker = Looker()
    devices = {point: sight.device for point in points if (sight := looker.look(point))}
    kin = family()
    for pid in among:
        for path in handles(pid, thorough):
            yield ""
            point = _on_which(path, devices, looker)
            if point:
                holder = describe(pid, point, kin)
                if holder is not None:
                    yield holder.to_line()
                break


def perhaps(pids: Iterable[int], point: str) -> list[Holder]:
    """Those of whom not everything could be seen."""
    kin = family()
    found = [holder for pid in pids if (holder := describe(pid, point, kin)) is not None]
    for holder in found:
        holder.perhaps = True
    return found


def _on_which(path: str, devices: Mapping[str, str], looker: Looker) -> str:
    """The mount point that a link under /proc leads to, or ""."""
    target = _link(path).removesuffix(DELETED)
    for point, device in devices.items():
        if is_inside(target, point):
            sight = looker.look(path)  # None: closed meanwhile
            if sight is not None and sight.device == device:
                return point
    return ""


def handles(pid: int, thorough: bool) -> Iterator[str]:
    """The links under /proc to everything that a process holds; of its threads and maps only
    with ``thorough``."""
    for task in chain((f"/proc/{pid}",), threads(pid) if thorough else ()):
        yield from of_task(task)
    if thorough:
        yield from (f"/proc/{pid}/map_files/{name}" for name in entries(f"/proc/{pid}/map_files"))


def threads(pid: int) -> Iterator[str]:
    """Each may have its own files and mount namespace: unshare(2)."""
    return (f"/proc/{pid}/task/{task}" for task in entries(f"/proc/{pid}/task"))


def of_task(task: str) -> Iterator[str]:
    yield from (f"{task}/cwd", f"{task}/root", f"{task}/exe")
    yield from (f"{task}/fd/{name}" for name in entries(f"{task}/fd"))


def describe(pid: int, point: str, kin: Collection[int]) -> Holder | None:
    """The process as it is now; None if it is gone. ``kin`` must not be killed."""
    about = stat_of(pid)
    if about is None:
        return None
    is_kernel = bool(int(about[6]) & PF_KTHREAD)
    return Holder(pid, about[19], pid in kin or is_kernel, point, name_of(pid))


def signal_all(user: int, number: signal.Signals, limit: Deadline) -> None:
    """Signal all processes of a user (uid) at one stroke, also one that is just being made:
    as that user, for who it reaches is then the kernel's to tell (kill(2)). Raises Failed."""
    if user == 0:
        raise Failed("root's processes are not signalled all at once")

    def work() -> str:
        os.setgroups([])
        os.setresuid(user, user, user)
        with suppress(ProcessLookupError):
            os.kill(-1, number)
        return ""

    in_child(work, limit, f"signalling uid {user}")


def family() -> set[int]:
    """The processes that must not be killed: ourselves, those that started us, and init."""
    kin = {1}
    pid = os.getpid()
    while pid and pid not in kin:
        kin.add(pid)
        about = stat_of(pid)
        pid = int(about[1]) if about else 0
    return kin


def pids() -> Iterator[int]:
    """All processes now."""
    # by name: /proc is the kernel's
    return (int(name) for name in os.listdir("/proc") if name.isdecimal())


def entries(directory: str) -> Iterator[str]:
    """The entries of a directory of /proc, as they come; none if its process is gone."""
    try:
        with os.scandir(directory) as found:  # by name: /proc is the kernel's
            for entry in found:
                yield entry.name
    except OSError:
        return


def uids(pid: int) -> list[int]:
    """Real, effective, saved and file system's uid; none if the process is gone or a zombie."""
    found = status(pid)
    # A thread may outlive the first one, and its process with it.
    if not found or (found["State"][0] in "ZX" and found["Threads"] == "1"):
        return []
    return [int(word) for word in found["Uid"].split()]


def status(pid: int) -> dict[str, str]:
    """Some fields of proc_pid_status(5), also for a thread; {} if it is gone."""
    found: dict[str, str] = {}
    try:
        # by name: /proc is the kernel's
        with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
            for line in file:
                name, _, value = line.partition(":")
                if name in STATUS:
                    found[name] = value.strip()
    except OSError:
        return {}
    return found if len(found) == len(STATUS) else {}


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""
