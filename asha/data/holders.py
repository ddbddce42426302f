"""Which processes keep a mount busy, read from /proc as fuser(1) does.

The links under /proc tell the path also of a file that a service with a mount
namespace of its own holds open (PrivateTmp= and the like make one).
"""

from __future__ import annotations

import os
import signal

from asha.data.kernel import Looker
from asha.data.paths import is_inside
from asha.ocf.child import is_alive, name_of, send, stat_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

# <linux/sched.h>
PF_KTHREAD = 0x00200000

DELETED = " (deleted)"


class Holder:
    """One process. ``started`` tells it from a later one with the same pid."""

    __slots__ = ("name", "pid", "point", "protected", "started")

    def __init__(self, pid: int, started: str, protected: bool, point: str, name: str) -> None:
        self.pid = pid
        self.started = started
        self.protected = protected
        self.point = point
        self.name = name

    def __str__(self) -> str:
        threads = (stat_of(f"{self.pid}/task/{one}") for one in entries(f"/proc/{self.pid}/task"))
        # D is a sleep in the kernel that no signal ends: mostly a stalled disk.
        hangs = any(about is not None and about[0] == "D" for about in threads)
        waits = ", waiting for the disk" if hangs else ""
        return f"{self.point} is held by {self.name} (pid {self.pid}{waits})"

    def to_line(self) -> str:
        """For the way from the child that found it."""
        return f"{self.pid} {self.started} {self.protected:d}\t{self.point}\t{self.name}"

    @classmethod
    def from_line(cls, line: str) -> Holder:
        numbers, point, name = line.split("\t", 2)
        pid, started, protected = numbers.split(" ")
        return cls(int(pid), started, protected == "1", point, name)

    @property
    def is_gone(self) -> bool:
        return not is_alive(self.pid, self.started)

    def send(self, number: signal.Signals) -> None:
        """Signal this very process; that it is gone is no error."""
        send(self.pid, self.started, number)


def find(points: Sequence[str], thorough: bool = False) -> list[Holder]:
    """Who uses something on the mounts at these points.

    A thorough search also reads memory maps and what single threads hold. It
    costs ten times more, and a process that hangs can make it hang, so it is for
    when the plain one found nothing.

    To be called in a child: what the searching process holds does not count.
    """
    # What was opened before the mount has the same name and another device.
    looker = Looker()
    devices = {point: sight.device for point in points if (sight := looker.look(point))}
    kin = family()
    found = []
    for pid in pids():
        if pid == os.getpid():
            continue
        for path in handles(pid, thorough):
            point = _on_which(path, devices, looker)
            if point:
                holder = describe(pid, point, kin)
                if holder is not None:
                    found.append(holder)
                break
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
    """The links under /proc to all that a process holds, maps only with ``thorough``."""
    tasks = [f"/proc/{pid}"]
    if thorough:
        tasks += [f"/proc/{pid}/task/{task}" for task in entries(f"/proc/{pid}/task")]
    for task in tasks:
        yield from (f"{task}/cwd", f"{task}/root", f"{task}/exe")
        yield from (f"{task}/fd/{name}" for name in entries(f"{task}/fd"))
    if thorough:
        yield from (f"/proc/{pid}/map_files/{name}" for name in entries(f"/proc/{pid}/map_files"))


def describe(pid: int, point: str, kin: Collection[int]) -> Holder | None:
    """The process as it is now; None when it is gone. ``kin`` must not be killed."""
    about = stat_of(pid)
    if about is None:
        return None
    is_kernel = bool(int(about[6]) & PF_KTHREAD)
    return Holder(pid, about[19], pid in kin or is_kernel, point, name_of(pid))


def family() -> set[int]:
    """Who must not be killed: ourselves, those who started us, and init."""
    kin = {1}
    pid = os.getpid()
    while pid and pid not in kin:
        kin.add(pid)
        about = stat_of(pid)
        pid = int(about[1]) if about else 0
    return kin


def pids() -> Iterator[int]:
    """Of all processes now."""
    # by name: /proc is the kernel's
    return (int(name) for name in os.listdir("/proc") if name.isdecimal())


def entries(directory: str) -> list[str]:
    """Of a directory of /proc; none when its process is gone."""
    try:
        return os.listdir(directory)  # by name: /proc is the kernel's
    except OSError:
        return []


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""
