"""Whether AstDB is damaged, and a new one of what can be read of it.

All of it is done as whom the directory belongs to (``asha.data.sqlite.become_owner``), in a
child with a deadline: he may put there what he likes, and swap it at any moment, and it then
leads where he may go and no further. Who may write asterisk.conf chooses the directory
(astdbdir): only root may be able to put another in its place, or he would have another user,
or root, work in his own.

Damaged is what SQLite itself calls so when it reads (SQLITE_CORRUPT, SQLITE_NOTADB), and a
file without a byte. What is locked, cannot be opened or read, or takes too long is not known
to be damaged, and left alone. It is opened for writing, so that a journal that a power cut
has left is rolled back, as Asterisk would do a moment later; without it, the file would look
damaged.
"""

from __future__ import annotations

import os
import stat

from asha.data.salvage import pages
from asha.data.sqlite import become_owner
from asha.run.child import in_child
from asha.run.results import AgentError, Failed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from sqlite3 import Connection

    from asha.run.deadline import Deadline

FILE = "astdb.sqlite3"
KEPT = ".damaged-"
DRAFT = ".asha-new"
NOTE = ".txt"
# What SQLite may have put beside it, and must not find beside another.
BESIDE = ("-journal", "-wal", "-shm")

# As Asterisk makes it (main/db.c).
TABLE = "CREATE TABLE astdb(key VARCHAR(256), value VARCHAR(256), PRIMARY KEY(key))"

# So many damaged ones stay; only the last, where the disk has no more room than that.
KEPT_MOST = 3
ROOM = 64 << 20
# Bytes with which SQLite cannot do: a page of its file and of its journal, rounded up.
ROOM_LEAST = 64 << 10
# Names of the directory that are looked at, and lost keys that the note names.
NAMES_MOST = 100_000
NOTED_MOST = 10_000

# Seconds to wait for who has it locked: Asterisk itself does not wait.
LOCK_SECONDS = 0.3
# Bytes of memory for the child that reads what others have made: SQLite computes what a table
# has in its rules (CHECK).
MEMORY_MOST = 1 << 30
# The shares of its time that reading may take; the rest is for writing.
READING_SHARE = 0.6
# SQLite's steps between two looks at the clock.
STEPS = 20_000
# Characters of what SQLite says.
SAID_MOST = 100

# sqlite.org/rescode.html
CORRUPT, NOTADB = 11, 26
# What the check of the B-trees begins its complaints with, and no other check.
OF_THE_TREES = "*** in database "

EMPTY = "it is empty"


class Recovered:
    """``recovered`` keys of at least ``known`` are in the new one; ``kept``: the path of the
    damaged one. ``why``: what SQLite said of it."""

    def __init__(self, why: str, kept: str, recovered: int, known: int) -> None:
        self.why = why
        self.kept = kept
        self.recovered = recovered
        self.known = known

    def __str__(self) -> str:
        if not self.known:
            return f"no key could be read ({self.why}), it begins anew"
        return f"{self.recovered} of at least {self.known} keys are back ({self.why})"


def check(path: str, deadline: Deadline) -> tuple[str, str]:
    """Why it counts as damaged, "" if it does not; and the newest damaged one that is kept
    beside it, "" without one. No file is no damage.

    Raises AgentError where it could not be known.
    """

    def work() -> str:
        try:
            here = _enter(path)
        except FileNotFoundError:
            return "\n"
        _limit_memory()
        return f"{_damage(here, deadline)}\n{next(iter(_kept(here)), '')}"

    why, _, newest = in_child(work, deadline, f"checking {path}").partition("\n")
    return why, newest


def is_kept(path: str, deadline: Deadline) -> bool:
    """Whether something still lies there; True where that cannot be known."""
    try:
        return in_child(lambda: "yes" if os.path.lexists(path) else "", deadline,
                        f"looking for {path}") == "yes"
    except AgentError:
        return True


def recover(path: str, deadline: Deadline, *, anew: bool = False) -> Recovered | None:
    """Put the damaged one aside and a new one in its place; None if it is not damaged any more.

    Where nothing can be read there is none in its place, and Asterisk makes one; ``anew``:
    nothing is even tried to be read. Raises AgentError, and then the damaged one is where it
    was.
    """

    def work() -> str:
        here = _enter(path)
        _limit_memory()
        why = _damage(here, deadline.within(deadline.remaining() / 4))
        if not why:
            return ""
        found = pages.Found()
        try:
            if not anew:
                _read(here, found, deadline.within(deadline.remaining() * READING_SHARE))
            kept = _replace(here, why, found)
        except OSError as problem:
            raise Failed(f"{problem.filename or here}: {problem.strerror}") from None
        return f"{len(found.rows)}\n{len(found.names)}\n{why}\n{kept}"

    said = in_child(work, deadline, f"recovering {path}")
    if not said:
        return None
    recovered, known, why, kept = said.split("\n", 3)
    return Recovered(why, kept, int(recovered), int(known))


# In a child, as the owner.

def _enter(path: str) -> str:
    """Become the owner; returns the path without links, at which all is done.

    Raises FileNotFoundError, Failed.
    """
    folder, name = os.path.split(path)
    if os.geteuid() == 0:
        from asha.rootwork import Directory, Untrusted

        try:
            with Directory.trusted(folder) as place:
                folder = place.path
        except Untrusted as problem:
            raise Failed(str(problem)) from None
    here = os.path.join(folder, name)
    become_owner(here)
    return here


def _damage(path: str, deadline: Deadline) -> str:
    """What is wrong in SQLite's words, one line. Raises Failed where it cannot tell."""
    import sqlite3

    if os.stat(path).st_size == 0:
        return EMPTY
    if not os.access(path, os.R_OK | os.W_OK):
        raise Failed("whose folder it lies in may not write it: chown it")
    try:
        with _open(path, deadline) as link:
            said = bytes(link.execute("PRAGMA quick_check(1)").fetchone()[0])
    except sqlite3.DatabaseError as problem:
        if _is_damage(problem):
            return _line(str(problem))
        raise Failed(_line(str(problem))) from None
    except MemoryError:
        raise Failed(f"SQLite wants more than {MEMORY_MOST >> 20} MB for it") from None
    text = said.decode("utf-8", "replace")
    # A rule of a table (CHECK, NOT NULL) that a row breaks keeps nobody from reading it.
    return _line(text.partition("\n")[2] or text) if text.startswith(OF_THE_TREES) else ""


def _is_damage(problem: Exception) -> bool:
    code = getattr(problem, "sqlite_errorcode", 0)
    return isinstance(code, int) and code & 0xFF in (CORRUPT, NOTADB)


def _line(text: str) -> str:
    return " ".join(text[:SAID_MOST].split()) or "?"


def _open(path: str, deadline: Deadline) -> Closing:
    import sqlite3

    quoted = path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")
    link = sqlite3.connect(f"file:{quoted}?mode=rw", uri=True, isolation_level=None,
                           timeout=deadline.remaining(LOCK_SECONDS))
    link.text_factory = bytes
    link.set_progress_handler(lambda: int(deadline.expired), STEPS)
    return Closing(link)


class Closing:
    """A connection that is closed at the end; sqlite3's own context only commits."""

    def __init__(self, link: Connection) -> None:
        self._link = link

    def __enter__(self) -> Connection:
        return self._link

    def __exit__(self, *_: object) -> None:
        self._link.close()


def _kept(path: str) -> list[str]:
    """The damaged ones beside it, the newest first."""
    folder, name = os.path.split(path)
    found = []
    # by name: as whom the directory belongs to
    with os.scandir(folder) as entries:
        for entry, _ in zip(entries, range(NAMES_MOST), strict=False):
            begin, _, stamp = entry.name.rpartition(KEPT)
            if begin == name and _is_stamp(stamp):
                found.append(f"{folder}/{entry.name}")
    return sorted(found, reverse=True)


def _is_stamp(text: str) -> bool:
    day, _, hour = text.partition("T")
    return text.isascii() and (len(day), len(hour)) == (8, 6) and (day + hour).isdecimal()


def _limit_memory() -> None:
    """Beside what this process has mapped already: a test's is large."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_AS)[1]
    with open("/proc/self/statm", "rb") as file:
        pages = int(file.read(100).split()[0])
    most = MEMORY_MOST + pages * resource.getpagesize()
    if before != resource.RLIM_INFINITY:
        most = min(most, before)  # who has given up root may not raise it
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _read(path: str, found: pages.Found, deadline: Deadline) -> None:
    """By SQLite as far as it goes, and from the pages what it does not come to."""
    try:
        _read_by_sqlite(path, found, deadline.within(deadline.remaining() / 3))
        # by name: as whom the directory belongs to
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if stat.S_ISREG(os.fstat(file).st_mode):
                pages.read(file, found, deadline)
        finally:
            os.close(file)
    except (OSError, MemoryError):
        found.complete = False  # what was read is better than nothing


def _read_by_sqlite(path: str, found: pages.Found, deadline: Deadline) -> None:
    """From the first row on and, if that does not reach the last, from there backwards."""
    import sqlite3

    for order in ("ASC", "DESC"):
        try:
            with _open(path, deadline) as link:
                link.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, pages.VALUE_MOST)
                for number, key, value in link.execute(
                    "SELECT rowid, CAST(key AS BLOB), CAST(value AS BLOB) FROM astdb NOT INDEXED"
                    f" ORDER BY rowid {order}"
                ):
                    # Who made the table chooses also what it calls rowid.
                    if isinstance(key, bytes) and isinstance(number, int):
                        found.take(number, key, value or b"")
            return
        except sqlite3.DatabaseError:
            continue


def _replace(path: str, why: str, found: pages.Found) -> str:
    """Returns the name of the damaged one. Raises OSError, Failed."""
    from time import localtime, strftime

    kept = f"{path}{KEPT}{strftime('%Y%m%dT%H%M%S', localtime())}"
    _make_room(path, kept)
    draft = f"{path}{DRAFT}"
    for end in ("", *BESIDE):
        _remove(draft + end)  # of one that was killed
    if found.rows:
        _write_new(draft, stat.S_IMODE(os.stat(path).st_mode) & 0o666, found)
    _write_note(kept, path, why, found)
    # First what SQLite would take for the new one's.
    for end in BESIDE:
        try:
            # by name: as whom the directory belongs to
            os.rename(path + end, kept + end)
        except FileNotFoundError:
            pass
    if found.rows:
        try:
            # A second name, so that one of the two is there at every moment.
            # by name: as whom the directory belongs to
            os.link(path, kept, follow_symlinks=False)
        except OSError:
            # by name: as whom the directory belongs to
            os.rename(path, kept)  # it is not his own, so the kernel may refuse the link
        # by name: as whom the directory belongs to
        os.rename(draft, path)
    else:
        # by name: as whom the directory belongs to
        os.rename(path, kept)
    # by name: as whom the directory belongs to
    folder = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return kept


def _make_room(path: str, kept: str) -> None:
    """Older damaged ones go: beyond a number, or all where the disk has no room for a new one.

    Raises Failed where it has none even so: no Asterisk starts then, and once there is room
    again the next start reads what can be read.
    """
    wanted = ROOM + os.stat(path).st_blocks * 512
    for old in _kept(path)[0 if _room_at(path) < wanted else KEPT_MOST - 1:]:
        if old != kept:
            for end in ("", NOTE, *BESIDE):
                _remove(old + end)
    if _room_at(path) < ROOM_LEAST:
        raise Failed("its disk is full")


def _room_at(path: str) -> int:
    about = os.statvfs(os.path.dirname(path))
    return about.f_bavail * about.f_frsize


def _remove(path: str) -> None:
    try:
        # by name: as whom the directory belongs to
        os.unlink(path)
    except OSError:
        pass  # gone, or a directory that somebody has named so


def _write_new(draft: str, mode: int, found: pages.Found) -> None:
    import sqlite3

    try:
        # by name: as whom the directory belongs to
        file = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            # Not by name: a group may write in the directory, and put another's file there.
            os.fchmod(file, mode)
        finally:
            os.close(file)
        with Closing(sqlite3.connect(draft, isolation_level=None)) as link:
            link.execute("BEGIN")
            link.execute(TABLE)
            # In their order, so that a later row keeps a higher number.
            link.executemany("INSERT INTO astdb VALUES (CAST(? AS TEXT), CAST(? AS TEXT))",
                             _in_order(found))
            link.execute("COMMIT")
    except (OSError, MemoryError, sqlite3.DatabaseError) as problem:
        for end in ("", *BESIDE):
            _remove(draft + end)
        raise Failed(f"cannot write {draft}: {_line(str(problem))}") from None


def _in_order(found: pages.Found) -> Iterator[tuple[bytes, bytes]]:
    for key, (_, value) in sorted(found.rows.items(), key=lambda row: row[1][0]):
        yield key, value


def _write_note(kept: str, path: str, why: str, found: pages.Found) -> None:
    """For a person; that it cannot be written is no reason to go without telephones."""
    from asha.run.text import printable

    lost = found.lost
    lines = [
        f"{path} was damaged: {why}.",
        f"{len(found.rows)} keys were read from it and are in the new one.",
        f"{len(lost)} keys are known by name only, their values are lost"
        f"{':' if lost else '.'}",
        *(printable(name.decode("utf-8", "replace")) for name in lost[:NOTED_MOST]),
        *(["..."] if len(lost) > NOTED_MOST else []),
    ]
    if not found.complete:
        lines.append("The time or the memory did not suffice for all of it.")
    text = "\n".join(lines) + "\n"
    _remove(kept + NOTE)
    try:
        # by name: as whom the directory belongs to
        with open(os.open(kept + NOTE, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640),
                  "w", encoding="utf-8") as file:
            file.write(text)
    except OSError:
        _remove(kept + NOTE)
