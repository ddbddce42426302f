"""Where AstDB is, and why it answers with an error: AMI's words are the same for a full disk
and a lock.

Imported only where that is asked. Neither is a hang: SQLite waits for no lock in Asterisk
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

# Where it is unless asterisk.conf says otherwise (astdbdir), as Debian builds Asterisk.
FOLDER = "/var/lib/asterisk"
ETC, CONF = "/etc/asterisk", "asterisk.conf"

# Bytes with which SQLite cannot do: a page of its file and of its journal, rounded up.
FULL = 64 << 10

LOOK_SECONDS = 1.0

# Bytes of an asterisk.conf that are read.
CONF_MOST = 1 << 20


def folder(deadline: Deadline) -> str:
    """The directory of AstDB. What of asterisk.conf cannot be read counts for nothing.

    Raises AgentError where its disk does not answer.
    """
    return in_child(_folder, deadline.within(LOOK_SECONDS), "looking for astdbdir")


def _folder() -> str:
    return directory("astdbdir", FOLDER)


def directory(key: str, usual: str) -> str:
    """One of asterisk.conf's directories (``astetcdir``, ``astdbdir``); to be called in a child.

    ``usual``: where it is if asterisk.conf does not say otherwise.
    """
    from asha.rootwork import Directory, read_within

    try:
        with Directory.trusted(ETC) as place:
            text = read_within(place, CONF, CONF_MOST)
            if not _may_be_elsewhere(text, key.encode(), usual.encode()):
                return usual  # and what can tell is not even loaded
            from asha.asterisk import configuration

            found = [section.get(key) for section in configuration.read(place, CONF)
                     if section.name == "directories" and not section.is_template]
    except OSError:
        return usual
    # The first section of the name is the one that Asterisk reads (main/config.c).
    wanted = found[0] if found else ""
    return wanted.rstrip("/") if wanted.startswith("/") and "\0" not in wanted else usual


def _may_be_elsewhere(text: bytes, key: bytes, usual: bytes) -> bool:
    return any(
        line.startswith(b"#") or (key in line and not line.endswith(usual))
        for line in map(bytes.strip, text.splitlines()) if not line.startswith(b";")
    )


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
