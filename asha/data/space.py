"""Whether the store can be written, and how much room it has."""

from __future__ import annotations

import errno
import os

from asha.ocf.state import StateFile
from asha.run.child import NoAnswer, in_child, is_alive, start_time
from asha.run.results import Degraded, Failed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asha.run.deadline import Deadline

# Where in the store the probe writes: hidden, root's, one file per node.
PROBE_DIRECTORY = ".asha"
PROBE_TEXT = b"ASHA writes this again and again, to see whether the disk takes it.\n"

# SQLite wants room for a journal beside the few pages it changes. With less
# than this AstDB fails, whatever the file system still calls free.
FULL_BYTES = 256 * 1024

NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


class Space:
    """Room for ordinary users, in bytes, and whether new files can be made.

    Root may use the blocks that ext4 reserves; Asterisk and MariaDB, which are not root, may
    not. So these are the numbers of df(1).
    """

    __slots__ = ("free", "has_inodes", "total")

    def __init__(self, free: int, total: int, has_inodes: bool = True) -> None:
        self.free = free
        self.total = total
        self.has_inodes = has_inodes

    @property
    def percent(self) -> int:
        """Free percent, rounded down."""
        return self.free * 100 // self.total if self.total else 0

    @property
    def is_full(self) -> bool:
        return self.free < FULL_BYTES or not self.has_inodes

    def __str__(self) -> str:
        if not self.has_inodes:
            return "no room for one more file"
        return f"{size(self.free)} free of {size(self.total)} ({self.percent} %)"


def size(number: int) -> str:
    """Bytes for people, in the decimal units in which disks are sold."""
    for unit, factor in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6)):
        if number >= factor:
            amount = number / factor
            return f"{amount:.1f} {unit}" if amount < 10 else f"{amount:.0f} {unit}"
    return f"{number // 1000} kB"


def measure(directory: str) -> Space:
    """Ask the file system. Raises OSError; can hang on a stalled disk."""
    about = os.statvfs(directory)
    used = about.f_blocks - about.f_bfree
    return Space(
        free=about.f_bavail * about.f_frsize,
        total=(used + about.f_bavail) * about.f_frsize,
        # Some file systems count no inodes and report none at all.
        has_inodes=about.f_files == 0 or about.f_favail > 0,
    )


def probe(root: str, node: str, memory: str, deadline: Deadline) -> Space:
    """Write to the store within the deadline and return its room.

    Raises Failed if the disk is read-only, stalled or broken. ``memory`` is a file that
    remembers a child which hangs in the kernel, so that the next probe does not add another.
    """
    stuck = _remembered(memory)
    if stuck:
        raise Failed(
            f"stalled: a write to {root} has not returned for long (pid {stuck}):"
            f" look at the disk and at DRBD (drbdadm status)"
        )

    def work() -> str:
        try:
            _write(root, node)
            space = measure(root)
        except OSError as problem:
            if problem.errno not in NO_ROOM:
                raise _explained(root, problem) from None
            space = measure(root)
            space.free = 0
        return f"{space.free} {space.total} {space.has_inodes:d}"

    patience = deadline.remaining()
    try:
        answer = in_child(work, deadline, f"writing to {root}")
    except NoAnswer as problem:
        if problem.stuck:
            _remember(memory, problem.pid)
        raise Failed(
            f"stalled: a write to {root} did not return within {patience:.1f} s:"
            f" look at the disk and at DRBD (drbdadm status)"
        ) from None
    free, total, has_inodes = answer.split(" ")
    return Space(int(free), int(total), has_inodes == "1")


def _write(root: str, node: str) -> None:
    """For a child, whose end closes everything."""
    folder = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    top = os.open(root, folder)  # by name: a start has seen that all above it is root's
    about = os.fstat(top)
    if about.st_uid != os.geteuid() or about.st_mode & 0o077:
        # Somebody has opened it by hand.
        from asha.data import store
        from asha.rootwork import Directory

        store.close_to_others(Directory(top, root))
    try:
        directory = os.open(PROBE_DIRECTORY, folder, dir_fd=top)
    except FileNotFoundError:
        os.mkdir(PROBE_DIRECTORY, 0o700, dir_fd=top)
        directory = os.open(PROBE_DIRECTORY, folder, dir_fd=top)
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    file = os.open(f"probe.{node.replace('/', '_')}", flags, 0o600, dir_fd=directory)
    # Always the same bytes at the same place, and no metadata: fsync would wait
    # for all that others have written, seconds during a backup, and a busy disk
    # would pass for a stalled one.
    os.pwrite(file, PROBE_TEXT, 0)
    os.fdatasync(file)


def _explained(root: str, problem: OSError) -> Failed:
    if problem.errno == errno.EROFS:
        return Failed(read_only(root))
    return Failed(f"cannot write to {root}: {os.strerror(problem.errno or 0)}")


def read_only(path: str) -> str:
    """The reason for a disk that can no longer be written."""
    return (
        f"read-only: the kernel lets nobody write to {path} any more, mostly after a disk"
        f" error (see dmesg)"
    )


def full(root: str, space: Space) -> Degraded:
    """Not a failure: the other node has the same full disk, and calls go on."""
    return Degraded(
        f"full: {root} has {space}; calls go on, voicemail, call records and settings"
        f" are lost until files are deleted there"
    )


def _remember(memory: str, pid: int) -> None:
    try:
        StateFile(memory).write(f"{pid} {start_time(pid)}")
    except OSError:
        pass  # then the next probe hangs a second child: a pity, no error


def _remembered(memory: str) -> int:
    """The pid of a child that still hangs, 0 if there is none."""
    pid, _, started = StateFile(memory).read().partition(" ")
    return int(pid) if pid.isdecimal() and is_alive(int(pid), started) else 0
