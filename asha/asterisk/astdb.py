"""Why AstDB answers with an error: AMI's words are the same for a full disk and a lock.

Imported only then. Neither is a hang: SQLite waits for no lock in Asterisk
(main/db.c sets no busy handler), and says so at once.
"""

from __future__ import annotations

import os

from asha.run.child import in_child
from asha.run.results import AgentError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asha.asterisk.process.proc import Proc, Process
    from asha.run.deadline import Deadline

FILE = "/astdb.sqlite3"

# Bytes with which SQLite cannot do: a page of its file and of its journal, rounded up.
FULL = 64 << 10

LOOK_SECONDS = 1.0


def why(proc: Proc, process: Process, deadline: Deadline) -> str:
    """In words; looks at the file in a child, because its disk may hang."""
    try:
        return in_child(
            lambda: _why(proc, process), deadline.within(LOOK_SECONDS), "looking at AstDB's file"
        )
    except AgentError as problem:
        return problem.reason


def _why(proc: Proc, process: Process) -> str:
    path = process.open_file(FILE)
    if not path:
        return "Asterisk has not its file open"
    try:
        about = os.stat(path)
        room = os.statvfs(path)
    except OSError as problem:
        return f"{path}: {problem.strerror}"
    if room.f_bavail * room.f_frsize < FULL:
        return f"the disk of {path} is full"
    for pid in proc.lock_holders(about.st_dev, about.st_ino):
        if pid != process.pid:
            return f"{path} is locked by {proc.process(pid) or pid}"
    return f"{path} is neither locked nor its disk full: see Asterisk's log"
