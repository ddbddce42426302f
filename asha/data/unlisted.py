"""Who may hold a file, or a whole file system, by what no list of open files shows.

Whose it is the kernel does not tell: only that there is something. Seen to keep a disk:
a descriptor in the queue of a socket (SCM_RIGHTS, unix(7)) or of io_uring_register(2), and
a configuration context (fspick(2)), which any user gets in a user namespace of his own.
"""

from __future__ import annotations

import os

from asha.data import holders
from asha.data.kernel import Looker

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

CONTEXT = "anon_inode:[fscontext]"

# In proc_pid_fdinfo(5), of a socket since Linux 5.4 (net/unix/af_unix.c), of an io_uring
# (io_uring/fdinfo.c): how many descriptors lie in it.
COUNTS = ("scm_fds", "UserFiles")


def look(among: Iterable[int]) -> Iterator[str]:
    """The pids of such processes, as lines "PID FILE"; "" for each step on the way."""
    looker = Looker()
    kinds = _kinds()
    for pid in among:
        for task in holders.threads(pid):
            for name in holders.entries(f"{task}/fd"):
                yield ""
                sight = looker.look(f"{task}/fd/{name}")
                if sight is not None and sight.device in kinds and _has_some(task, name):
                    yield f"{pid} {task}/fd/{name}"


def _kinds() -> set[str]:
    """The file systems that sockets and nameless files lie on."""
    import socket

    event = os.eventfd(0)
    with socket.socket(socket.AF_UNIX) as link:
        found = [os.fstat(one).st_dev for one in (event, link.fileno())]
    os.close(event)
    return {f"{os.major(device)}:{os.minor(device)}" for device in found}


def _has_some(task: str, name: str) -> bool:
    try:
        if os.readlink(f"{task}/fd/{name}") == CONTEXT:
            return True
        # by name: /proc is the kernel's
        with open(f"{task}/fdinfo/{name}", encoding="utf-8", errors="replace") as file:
            lines = [line.partition(":") for line in file]
    except OSError:
        return False
    return any(word in COUNTS and value.strip() not in ("", "0") for word, _, value in lines)
