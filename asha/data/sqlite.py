"""Whether the PBX's SQLite databases are whole.

Checked after the mounts and at the path that the programs use, opened for
writing, as the database's owner:

* After a crash a database is whole only together with its journal. Reading
  without writing, SQLite either refuses (rollback journal) or, told to ignore the
  journal, calls corrupt what is not. Rolling back is what Asterisk or the panel
  would do a second later.
* A journal names others by their full path; found at any other place than where
  the programs see them, they would count as absent, and be thrown away.
* The contents are the panel's, so root does not interpret them: a journal names other
  files, which SQLite deletes when it has rolled back (sqlite.org/atomiccommit.html,
  "multi-file commit"). And what SQLite creates belongs to whom it must.
"""

from __future__ import annotations

import os
import stat

from asha.run.child import in_child
from asha.run.results import AgentError, Failed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

    from asha.run.deadline import Deadline

# Which files in which directories are databases. sark.db and its copies; AstDB.
PLACES = {
    "/opt/sark/db": (".db", ".sqlite3"),
    "/var/lib/asterisk": ("astdb.sqlite3",),
}

# asterisk-health checks it, before each start of Asterisk, and recovers it
# (asha/data/salvage): to do so here too would only take its time again.
CHECKED_LATER = "astdb.sqlite3"

# So many are checked, in at most as much time as there is.
CHECK_MOST = 200


# Characters of what SQLite says.
SAID_MOST = 500


class Corrupt(Failed):
    """SQLite says that the database is damaged."""


def databases(points: Collection[str], deadline: Deadline) -> list[str]:
    """The databases in those of our places that are mounted at these points."""
    places = [place for place in PLACES if os.path.realpath(place) in points]

    def work() -> str:
        return "\n".join(
            f"{place}/{name}"
            for place in places
            # by name: a bind of ours, above which all is root's; what is in it are only names
            for name in sorted(os.listdir(place))
            if name.endswith(PLACES[place]) and name != CHECKED_LATER and name.isprintable()
        )

    found = in_child(work, deadline, "looking for databases") if places else ""
    return [path for path in found.split("\n") if path]


def check(path: str, deadline: Deadline) -> None:
    """Let SQLite look through the database.

    Raises Corrupt, or another AgentError when it could not find out: no time,
    locked by a program, a disk error.
    """
    require_whole(path, in_child(lambda: verdict(path, deadline), deadline, f"checking {path}"))


def require_whole(path: str, said: str) -> None:
    """Raises Corrupt unless that is the ``verdict`` on a good one."""
    if said != "ok":
        raise Corrupt(f"{path} is corrupt ({said.splitlines()[-1]}): restore it from a backup")


def verdict(path: str, deadline: Deadline) -> str:
    """What SQLite says, "ok" or what is wrong, to a child that is the file's owner from now
    on. Raises Failed where it could not find out."""
    import sqlite3

    become_owner(path)
    uri = "file:" + path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")
    if not os.access(path, os.R_OK):
        raise Failed("whose folder it lies in may not read it: chown it")
    # Read-only it is whole, or a journal is left and SQLite refuses.
    mode = "rw" if os.access(path, os.W_OK) else "ro"
    try:
        link = sqlite3.connect(f"{uri}?mode={mode}", uri=True, timeout=deadline.remaining())
        # One complaint is enough, and there can be thousands.
        return _cut(link.execute("PRAGMA quick_check(1)").fetchone()[0])
    except sqlite3.OperationalError as problem:
        raise Failed(_cut(problem)) from None
    except sqlite3.DatabaseError as problem:
        return _cut(problem)


def _cut(said: object) -> str:
    """It has names from the database, which may be of any length, and of no letters."""
    return str(said)[:SAID_MOST].strip() or "?"


def check_all(points: Collection[str], deadline: Deadline) -> tuple[list[str], list[str]]:
    """What is corrupt, and what could not be checked, each as a reason."""
    corrupt: list[str] = []
    unknown: list[str] = []
    try:
        paths = databases(points, deadline)
    except AgentError as problem:
        return corrupt, [f"no database was checked: {problem.reason}"]
    for number, path in enumerate(paths):
        if deadline.expired or number == CHECK_MOST:
            # Who may write there makes as many as he likes, and a start must end.
            unknown.append(f"{path} and {len(paths) - number - 1} more were not checked: too many")
            break
        try:
            check(path, deadline)
        except Corrupt as problem:
            corrupt.append(problem.reason)
        except AgentError as problem:
            unknown.append(f"{path} was not checked: {problem.reason}")
    return corrupt, unknown


def become_owner(path: str) -> None:
    """Give up root for whom the folder of the database is, or the database where the folder
    is root's, for the rest of this process.

    Whose folder it is chooses what lies there, at any moment anew: so nothing that the file
    says of itself counts there. Raises Failed for a file that root would have to open
    though others choose what lies beside it, and for a link.
    """
    about = os.lstat(path)
    if not stat.S_ISREG(about.st_mode):
        raise Failed("it is no ordinary file")
    if os.geteuid() != 0:
        return
    folder = _folder_of(path)
    of_folder = os.stat(folder)
    if of_folder.st_uid != 0:
        about = of_folder
    if about.st_uid == 0:
        if not _only_root_writes(folder):
            raise Failed(f"it is root's, and others may write in {folder}: chown one of them")
        return
    os.setgroups([])
    os.setgid(about.st_gid)
    os.setuid(about.st_uid)


def is_roots_among_others(path: str) -> bool:
    """Whether root has made it where somebody else chooses what lies beside it."""
    return os.lstat(path).st_uid == 0 == os.geteuid() and not _only_root_writes(_folder_of(path))


def _folder_of(path: str) -> str:
    """Not by way of the file's own name, which may be a link by now."""
    return os.path.realpath(os.path.dirname(path))


def _only_root_writes(folder: str) -> bool:
    """Whether nobody else can put something there, or put another folder in its place."""
    shared_is_no_harm = 0
    while True:
        about = os.stat(folder)
        shared = about.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        if about.st_uid != 0 or (shared and not about.st_mode & shared_is_no_harm):
            return False
        if folder == "/":
            return True
        folder = os.path.dirname(folder)
        # In a sticky one each may add, but only move what is his (chmod(1)).
        shared_is_no_harm = stat.S_ISVTX
