"""Who may hold a file, or a whole file system, by what no list of open files shows.

Whose it is the kernel does not tell: only that there is something. Seen to keep a disk:
a descriptor in the queue of a socket (SCM_RIGHTS, unix(7)) or of io_uring_register(2), and
a configuration context (fspick(2)), which any user gets in a user namespace of his own;
an io_uring that is only mapped; and a thread that sleeps in a system call, with a file that
another has closed meanwhile, or in the open(2) of a FIFO, which is in no list yet.
"""

from __future__ import annotations

import os

from asha.data.kernel import Looker
from asha.data.paths import is_inside
from asha.data.release import holders

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

CONTEXT = "anon_inode:[fscontext]"
RING = "anon_inode:[io_uring]"

# In proc_pid_fdinfo(5), of a socket since Linux 5.4 (net/unix/af_unix.c), of an io_uring
# (io_uring/fdinfo.c): how many descriptors lie in it. A ring that is at work tells nothing.
COUNTS = ("scm_fds", "UserFiles")

# <asm/unistd.h>: by machine the system calls that sleep with a file, and which of their
# arguments are descriptors of it: read, write, ioctl, pread64, pwrite64, readv, writev,
# connect, accept, sendto, recvfrom, sendmsg, recvmsg, fcntl, flock, fsync, fdatasync,
# ftruncate, getdents, getdents64, vmsplice, fallocate, accept4, preadv, pwritev, recvmmsg,
# syncfs, sendmmsg, preadv2, pwritev2; sendfile, splice, tee, copy_file_range; openat, openat2.
ONE = {
    "x86_64": (0, 1, 16, 17, 18, 19, 20, 42, 43, 44, 45, 46, 47, 72, 73, 74, 75, 77, 78, 217, 278,
               285, 288, 295, 296, 299, 306, 307, 327, 328),
    "aarch64": (63, 64, 29, 67, 68, 65, 66, 203, 202, 206, 207, 211, 212, 25, 32, 82, 83, 46, 61,
                75, 47, 242, 69, 70, 243, 267, 269, 286, 287),
}
MOVES = {
    "x86_64": {40: (0, 1), 275: (0, 2), 276: (0, 1), 326: (0, 2)},
    "aarch64": {71: (0, 1), 76: (0, 2), 77: (0, 1), 285: (0, 2)},
}
# And which argument is the path.
OPENS = {"x86_64": {2: 0, 85: 0, 257: 1, 437: 1}, "aarch64": {56: 1, 437: 1}}

# PATH_MAX of <linux/limits.h>.
PATH_MOST = 4096


def look(among: Iterable[int], points: Sequence[str] = ()) -> Iterator[str]:
    """The pids of such processes, as lines "PID SIGN"; "" for each step.

    With ``points``, which are busy, also those that sleep in an open(2) or move data from file
    to file; of root's processes only those that open something below one of them.
    """
    looker = Looker()
    kinds = _kinds()
    sleeps = _Sleeps(points)
    for pid in among:
        is_roots = holders.uids(pid)[:1] == [0]
        for task in holders.threads(pid):
            yield ""
            if sleeps.is_odd(task, is_roots):
                yield f"{pid} {task}"
            for name in () if is_roots else holders.entries(f"{task}/fd"):
                yield ""
                sight = looker.look(f"{task}/fd/{name}")
                if sight is not None and sight.device in kinds and _has_some(task, name):
                    yield f"{pid} {task}/fd/{name}"
        if not is_roots and _maps_a_ring(pid):
            yield f"{pid} a ring that is only mapped"


class _Sleeps:
    """What a thread sleeps in: proc_pid_syscall(5)."""

    def __init__(self, points: Sequence[str]) -> None:
        machine = os.uname().machine
        self._points = points
        self._opens = OPENS.get(machine, {})
        self._moves = MOVES.get(machine, {})
        self._files = dict.fromkeys(ONE.get(machine, ()), (0,)) | self._moves
        self._files |= {call: (0,) for call, path in self._opens.items() if path}

    def is_odd(self, task: str, is_roots: bool) -> bool:
        words = _read(f"{task}/syscall").split()
        if len(words) < 7 or words[0].startswith("-"):
            return False  # it runs, or waits for its memory, which is in a list
        call, arguments = int(words[0]), [int(word, 16) for word in words[1:7]]
        if is_roots:
            return call in self._opens and self._leads_there(task, arguments[self._opens[call]])
        if self._points and (call in self._opens or call in self._moves):
            return True
        for number in self._files.get(call, ()):
            file = arguments[number] & 0xFFFFFFFF
            # No number of an open file is that high (AT_FDCWD, -1).
            if file < 1 << 31 and not os.path.lexists(f"{task}/fd/{file}"):
                return True
        return False

    def _leads_there(self, task: str, address: int) -> bool:
        try:
            # by name: /proc is the kernel's
            with open(f"{task}/mem", "rb", buffering=0) as memory:
                memory.seek(address)
                text = b""
                # From page to page: the next may not be there.
                while b"\0" not in text and len(text) < PATH_MOST:
                    text += memory.read(PATH_MOST - (address + len(text)) % PATH_MOST) or b"\0"
        except (OSError, ValueError, OverflowError):
            return False
        path = os.path.normpath(os.fsdecode(text.split(b"\0")[0]))
        return any(is_inside(path, point) for point in self._points)


def _maps_a_ring(pid: int) -> bool:
    """Whether it has one without having a descriptor of it."""
    if RING not in _read(f"/proc/{pid}/maps"):
        return False
    for name in holders.entries(f"/proc/{pid}/fd"):
        try:
            if os.readlink(f"/proc/{pid}/fd/{name}") == RING:
                return False
        except OSError:
            continue
    return True


def _kinds() -> set[str]:
    """The file systems on which sockets and nameless files lie."""
    import socket

    event = os.eventfd(0)
    with socket.socket(socket.AF_UNIX) as link:
        found = [os.fstat(one).st_dev for one in (event, link.fileno())]
    os.close(event)
    return {f"{os.major(device)}:{os.minor(device)}" for device in found}


def _has_some(task: str, name: str) -> bool:
    try:
        kind = os.readlink(f"{task}/fd/{name}")
    except OSError:
        return False
    if kind == CONTEXT:
        return True
    lines = [line.partition(":") for line in _read(f"{task}/fdinfo/{name}").split("\n")]
    told = {word: value.strip() for word, _, value in lines}
    if kind == RING and told and "UserFiles" not in told:
        return True
    return any(told.get(word, "") not in ("", "0") for word in COUNTS)


def _read(path: str) -> str:
    try:
        # by name: /proc is the kernel's
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""
