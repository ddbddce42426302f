"""What Asterisk's user or the panel may have put where Asterisk wants a file. Imported only
when a start fails, or when nobody listens at the control socket.

Asterisk opens its files in the ordinary way: it waits without end at a FIFO that nobody writes,
and ends if its database is no file. It does so without a cluster too, but a person must know.
"""

from __future__ import annotations

import os
import stat

from asha.asterisk.process.proc import NO_GROUP
from asha.run.child import in_child
from asha.run.results import AgentError
from asha.run.text import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from asha.asterisk.process.proc import Proc, Process
    from asha.run.deadline import Deadline

ETC = "/etc/asterisk"
LIB = "/var/lib/asterisk"
FOLDERS = (ETC, LIB, "/var/log/asterisk")

# Without it Asterisk ends (main/db.c, ast_db_init()).
DATABASE = "astdb.sqlite3"

STARTED = "it has started "
AT_FIFO = " waits for who opens the other end of a FIFO"
IS_FIFO = " is a FIFO, at which Asterisk waits"
NOT_WRITABLE = "Asterisk may not write "

# Asterisk's own child, by which it knows that it is not the only one to get a processor.
CANARY = "astcanary"

# The kernel's function in which who opens a FIFO waits (fs/pipe.c).
WAITS_AT_FIFO = "wait_for_partner"

# Of a directory that is somebody's, who may make as many as he likes.
NAMES_MOST = 10_000
NAMED_MOST = 3

KINDS = {
    stat.S_IFDIR: "directory",
    stat.S_IFIFO: "FIFO",
    stat.S_IFLNK: "symbolic link",
    stat.S_IFREG: "file",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "device",
    stat.S_IFBLK: "device",
}


def kind_at(path: str) -> str:
    """What is there, "" if it cannot be seen."""
    try:
        return KINDS.get(stat.S_IFMT(os.lstat(path).st_mode), "")
    except OSError:
        return ""


def odd_files(folders: Sequence[str], account: int, deadline: Deadline) -> list[str]:
    """What Asterisk cannot use in these directories, each in words.

    In a child with the rights of Asterisk's user: his links lead only where he may go, and a
    disk may not answer.
    """

    def work() -> str:
        if os.geteuid() == 0:
            if account <= 0:
                return ""
            os.setgroups([])
            os.setgid(NO_GROUP)
            os.setuid(account)
        found = _odd_files(folders)
        return "\n".join(printable(one) for one, _ in zip(found, range(NAMED_MOST), strict=False))

    try:
        said = in_child(work, deadline, "looking at Asterisk's files")
    except AgentError as problem:
        return [problem.reason]
    return [line for line in said.split("\n") if line]


def _odd_files(folders: Sequence[str]) -> Iterator[str]:
    for folder in folders:
        try:
            with os.scandir(folder) as entries:
                for entry, _ in zip(entries, range(NAMES_MOST), strict=False):
                    kind = _kind_behind(entry)
                    if kind == "FIFO":
                        yield f"{entry.path}{IS_FIFO}: rm {entry.path}"
                    elif entry.name == DATABASE and kind != "file":
                        yield f"{entry.path} is a {kind} and no file: remove it"
                    elif entry.name == DATABASE and not os.access(entry.path, os.R_OK | os.W_OK):
                        link = f": it is a link to {os.readlink(entry.path)}" if (
                            entry.is_symlink()) else ""
                        yield f"{NOT_WRITABLE}{entry.path}{link}"
        except OSError:
            continue


def _kind_behind(entry: os.DirEntry[str]) -> str:
    try:
        return KINDS.get(stat.S_IFMT(entry.stat().st_mode), "")
    except OSError:
        return "symbolic link to nowhere"


def waits_for(proc: Proc, process: Process) -> list[str]:
    """What Asterisk waits for, as the kernel shows it, in words: a FIFO elsewhere, and the
    programs that it has started. While it reads its configuration it waits for each (#exec)."""
    at_fifo = [str(task) for task in process.tasks() if task.where == WAITS_AT_FIFO]
    if at_fifo:
        return [f"{at_fifo[0]}{AT_FIFO}"]
    found = [one for one in proc.descendants([process]) if one.name != CANARY and not one.gone]
    if not found:
        return []
    names = ", ".join(str(one) for one in found[:NAMED_MOST])
    return [f"{STARTED}{names}; does #exec in its configuration wait for that?"]


def is_of_configuration(found: Sequence[str]) -> bool:
    """Whether other files in /etc/asterisk could make an end of what was found.

    A FIFO that is in none of the directories looked at is one that the configuration names.
    """
    return any(one.startswith((f"{ETC}/", STARTED)) for one in found) or (
        len(found) == 1 and found[0].endswith(AT_FIFO))


def ends_it(found: Sequence[str]) -> bool:
    """Whether Asterisk ends for what was found, whatever its configuration is.

    It ends without its database. At a FIFO it waits: who puts one anywhere does not have
    a damaged file of the configuration overlooked.
    """
    base = f"{LIB}/{DATABASE}"
    return any(one.startswith((f"{base} is a ", f"{NOT_WRITABLE}{base}")) and IS_FIFO not in one
               for one in found)
