"""AstDB damaged in every way that a disk, a power cut or its owner knows."""

from __future__ import annotations

import mmap
import os
import resource
import sqlite3
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from asha.data.salvage import pages, recovery
from asha.ocf import AgentError, Deadline, Failed
from tests.unit.test_data_sqlite import OWNER, as_root, make, without_journal

PAGE = 4096
GARBAGE = bytes((7 * n * n + 13 * n) % 251 for n in range(8 * PAGE))
COUNT = 600


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that other users reach too; pytest's own is for us alone."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        folder = Path(name, "db")
        folder.mkdir()
        yield folder


@pytest.fixture
def base(place: Path) -> Path:
    """An AstDB as Asterisk makes it."""
    path = place / recovery.FILE
    fill(path)
    return path


def key(number: int) -> str:
    return f"/family{number % 7}/key{number:05}"


def value(number: int) -> str:
    # One in fifty needs further pages.
    return f"value {number} " + "x" * (9000 if number % 50 == 7 else 40)


def fill(path: Path, page_size: int = PAGE) -> None:
    link = sqlite3.connect(path)
    link.execute(f"PRAGMA page_size={page_size}")
    link.execute(recovery.TABLE)
    link.executemany("INSERT INTO astdb VALUES (?, ?)",
                     [(key(number), value(number)) for number in range(COUNT)])
    link.commit()
    link.close()


def rows(path: Path) -> dict[str, str]:
    link = sqlite3.connect(path)
    try:
        assert link.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return dict(link.execute("SELECT key, value FROM astdb"))
    finally:
        link.close()


EVERY = {key(number): value(number) for number in range(COUNT)}


def overwrite(path: Path, at: int, size: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(GARBAGE[:size])


def page_of(path: Path, word: bytes, kind: int = pages.TABLE_LEAF) -> int:
    """Where the page begins that has the word."""
    data = path.read_bytes()
    for at in range(0, len(data), PAGE):
        if data[at] == kind and word in data[at:at + PAGE]:
            return at
    raise AssertionError(f"no page has {word!r}")


def check(path: Path) -> str:
    return recovery.check(str(path), Deadline(20))[0]


def recover(path: Path) -> recovery.Recovered:
    done = recovery.recover(str(path), Deadline(30))
    assert done is not None
    return done


# What is well, or cannot be known, is no damage.

def test_one_that_is_well(base: Path) -> None:
    before = base.read_bytes()
    assert recovery.check(str(base), Deadline(20)) == ("", "")
    assert recovery.recover(str(base), Deadline(20)) is None
    assert base.read_bytes() == before
    assert [one.name for one in base.parent.iterdir()] == [recovery.FILE]


def test_none_at_all(place: Path) -> None:
    assert recovery.check(str(place / recovery.FILE), Deadline(20)) == ("", "")


@pytest.mark.parametrize("journal", ["delete", "wal"])
def test_what_a_power_cut_leaves_is_no_damage(place: Path, journal: str) -> None:
    path = place / recovery.FILE
    make(path, journal)
    assert len(list(place.iterdir())) > 1, "its journal is left"
    if journal == "delete":
        assert without_journal(path) != "ok"
    assert check(path) == ""
    assert [one.name for one in place.iterdir()] == [recovery.FILE], "honoured, and so used up"


def test_the_limit_of_memory_is_beside_what_is_mapped_already(place: Path) -> None:
    """SQLite maps the index of a write-ahead log, also in a process that is large."""
    path = place / recovery.FILE
    make(path, "wal")
    with mmap.mmap(-1, recovery.MEMORY_MOST):
        assert check(path) == ""


def test_a_first_page_that_only_the_journal_has_is_no_damage(place: Path) -> None:
    """A power cut in the midst of a write to page 1 itself."""
    path = place / recovery.FILE
    make(path)
    journal = Path(f"{path}-journal").read_bytes()
    assert b"\0\0\0\1SQLite format 3\0" in journal
    overwrite(path, 0, PAGE)
    assert "not a database" in without_journal(path)
    assert check(path) == ""


WRITER = """
import sqlite3, sys
link = sqlite3.connect(sys.argv[1], timeout=60, isolation_level=None)
print("begins", flush=True)
number = 0
while True:
    number += 1
    link.execute("INSERT OR REPLACE INTO astdb VALUES ('/k/' || ?, hex(zeroblob(?)))",
                 (number % 500, number % 4000))
"""


def test_one_that_is_written_meanwhile(base: Path) -> None:
    said = []
    with subprocess.Popen([sys.executable, "-c", WRITER, str(base)], stdout=subprocess.PIPE,
                          text=True) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "begins\n"
        for _ in range(60):
            try:
                said.append(check(base))
            except AgentError as problem:
                said.append(problem.reason)
        writer.kill()
    assert set(said) <= {"", "database is locked"}
    assert "" in said


def test_a_locked_one_is_not_known(base: Path) -> None:
    link = sqlite3.connect(base, isolation_level=None)
    link.execute("BEGIN EXCLUSIVE")
    try:
        with pytest.raises(AgentError, match="locked"):
            check(base)
    finally:
        link.close()


def test_a_rule_that_a_row_breaks_is_no_damage(base: Path) -> None:
    link = sqlite3.connect(base, isolation_level=None)
    link.execute("PRAGMA ignore_check_constraints=on")
    link.execute("CREATE TABLE theirs (a CHECK (a > 1))")
    link.execute("INSERT INTO theirs VALUES (0)")
    link.execute("PRAGMA ignore_check_constraints=off")
    assert "CHECK" in link.execute("PRAGMA quick_check").fetchone()[0]
    link.close()
    assert check(base) == ""


@pytest.mark.parametrize("code", ["SQLITE_BUSY", "SQLITE_IOERR", "SQLITE_CANTOPEN", "SQLITE_FULL",
                                  "SQLITE_INTERRUPT", "SQLITE_NOMEM", "SQLITE_PROTOCOL"])
def test_no_other_error_is_damage(code: str) -> None:
    problem = sqlite3.DatabaseError(code)
    problem.sqlite_errorcode = getattr(sqlite3, code)
    assert not recovery._is_damage(problem)
    assert not recovery._is_damage(sqlite3.DatabaseError("nobody says which"))


def test_more_than_there_is_time_for_is_not_known(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery, "STEPS", 1)
    real = recovery._open

    def late(path: str, deadline: Deadline) -> recovery.Closing:
        return real(path, Deadline(0))

    monkeypatch.setattr(recovery, "_open", late)
    with pytest.raises(AgentError, match="interrupted"):
        check(base)


def test_a_disk_that_stalls_has_an_end(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "become_owner", lambda path: time.sleep(1000))
    begun = time.monotonic()
    with pytest.raises(AgentError, match="did not end within"):
        recovery.check(str(base), Deadline(0.3))
    assert time.monotonic() - begun < 20


@pytest.mark.parametrize("kind", ["FIFO", "directory", "link", "socket"])
def test_what_is_no_file_is_not_touched(place: Path, kind: str) -> None:
    path = place / recovery.FILE
    if kind == "FIFO":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    elif kind == "link":
        path.symlink_to("/etc/shadow")
    else:
        os.mknod(path, stat.S_IFSOCK | 0o600)
    for work in (recovery.check, recovery.recover):
        with pytest.raises(AgentError, match="no ordinary file"):
            work(str(path), Deadline(20))
    assert [one.name for one in place.iterdir()] == [recovery.FILE]


# Damage, and what is recovered.

def first_bytes(path: Path) -> None:
    overwrite(path, 0, 16)


def header(path: Path) -> None:
    overwrite(path, 0, 100)


def first_page(path: Path) -> None:
    overwrite(path, 0, PAGE)


def index_page(path: Path) -> None:
    overwrite(path, page_of(path, b"/family", pages.INDEX_LEAF), PAGE)


def freelist(path: Path) -> None:
    """Pages that are said to be free and are not there."""
    with path.open("r+b") as file:
        file.seek(32)
        file.write(b"\0\0\0\0\0\0\0\x09")


@pytest.mark.parametrize("damage", [first_bytes, header, first_page, index_page, freelist])
def test_all_keys_are_back(base: Path, damage: Callable[[Path], None]) -> None:
    damage(base)
    broken = base.read_bytes()
    assert check(base)
    done = recover(base)
    assert (done.recovered, done.known) == (COUNT, COUNT)
    assert rows(base) == EVERY
    assert Path(done.kept).read_bytes() == broken
    assert check(base) == ""
    assert recovery.check(str(base), Deadline(20))[1] == done.kept
    assert f"{COUNT} keys were read" in Path(done.kept + recovery.NOTE).read_text()


def test_a_page_in_the_middle(base: Path) -> None:
    lost = key(100)
    at = page_of(base, lost.encode())
    overwrite(base, at, PAGE)
    assert check(base)
    done = recover(base)
    now = rows(base)
    assert now.items() < EVERY.items()
    assert done.recovered == len(now)
    # Their names are in the index.
    assert done.known == COUNT
    note = Path(done.kept + recovery.NOTE).read_text()
    assert lost in note.splitlines()
    assert f"{COUNT - len(now)} keys are known by name only" in note


def test_rows_that_no_page_leads_to_any_more(base: Path) -> None:
    """The root of the table is an empty page: SQLite reads to the end, and finds nothing."""
    link = sqlite3.connect(base)
    (root,) = link.execute("SELECT rootpage FROM sqlite_master WHERE name = 'astdb'").fetchone()
    link.close()
    with base.open("r+b") as file:
        file.seek((root - 1) * PAGE)
        file.write(bytes([pages.TABLE_LEAF, 0, 0, 0, 0, PAGE >> 8, 0, 0]) + bytes(PAGE - 8))
    assert "never used" in check(base)
    assert recover(base).recovered == COUNT
    assert rows(base) == EVERY


def test_one_that_is_cut_off(base: Path) -> None:
    size = base.stat().st_size
    os.truncate(base, size // 2 // PAGE * PAGE - 100)
    assert check(base)
    done = recover(base)
    assert 0 < done.recovered < COUNT
    assert rows(base).items() < EVERY.items()


def test_an_empty_one(base: Path) -> None:
    os.truncate(base, 0)
    assert check(base) == recovery.EMPTY
    done = recover(base)
    assert (done.recovered, done.known) == (0, 0)
    assert "begins anew" in str(done)
    assert not base.exists(), "Asterisk makes one"
    assert Path(done.kept).stat().st_size == 0


@pytest.mark.parametrize("content", [b"not a database, " * 300, GARBAGE])
def test_what_has_nothing_of_a_database(base: Path, content: bytes) -> None:
    base.write_bytes(content)
    assert check(base)
    assert str(recover(base)).startswith("no key could be read")
    assert not base.exists()


def test_a_huge_one_with_holes(base: Path) -> None:
    first_page(base)
    os.truncate(base, 1 << 40)
    begun = time.monotonic()
    assert check(base)
    done = recover(base)
    assert done.recovered == COUNT
    assert time.monotonic() - begun < 25
    assert rows(base) == EVERY


@pytest.mark.parametrize("size", [512, 1024, 65536])
def test_pages_of_another_size(place: Path, size: int) -> None:
    path = place / recovery.FILE
    fill(path, size)
    overwrite(path, 0, 100)
    assert recover(path).recovered == COUNT
    assert rows(path) == EVERY


def test_the_newest_of_a_key_counts_and_a_deleted_one_is_gone(base: Path) -> None:
    link = sqlite3.connect(base)
    link.execute("INSERT OR REPLACE INTO astdb VALUES (?, 'new')", (key(3),))
    link.execute("DELETE FROM astdb WHERE key = ?", (key(4),))
    link.commit()
    link.close()
    first_page(base)
    recover(base)
    wanted = {**EVERY, key(3): "new"}
    del wanted[key(4)]
    assert rows(base) == wanted


def test_bytes_that_are_no_text(base: Path) -> None:
    """A name in Latin-1, from a telephone's display."""
    link = sqlite3.connect(base)
    link.execute("INSERT INTO astdb VALUES ('/cidname/1', CAST(x'4dfc6c6c6572' AS TEXT))")
    link.commit()
    link.close()
    first_page(base)
    recover(base)
    link = sqlite3.connect(base)
    link.text_factory = bytes
    assert link.execute("SELECT value FROM astdb WHERE key = '/cidname/1'").fetchone() == (
        b"M\xfcller",)
    link.close()


def test_what_is_beside_it_is_not_taken_for_the_new_ones(base: Path) -> None:
    first_page(base)
    for end in ("-journal", "-wal"):
        Path(f"{base}{end}").write_bytes(GARBAGE)
    done = recover(base)
    left = {one.name for one in base.parent.iterdir()}
    assert not left & {f"{recovery.FILE}-journal", f"{recovery.FILE}-wal"}
    assert rows(base) == EVERY
    assert Path(done.kept).exists()


def test_any_bytes_end(base: Path) -> None:
    """Each byte of the first pages may be any: rows are read, or not, and never invented."""
    data = base.read_bytes()
    for at in range(0, 3 * PAGE, 97):
        spoilt = bytearray(data)
        spoilt[at:at + 40] = GARBAGE[at % 512:at % 512 + 40]
        base.write_bytes(bytes(spoilt))
        found = pages.Found()
        with base.open("rb") as file:
            pages.read(file.fileno(), found, Deadline(20))
        assert len(found.rows) >= COUNT // 2
    assert found.complete


def test_a_chain_of_pages_that_bites_its_tail(base: Path) -> None:
    data = bytearray(base.read_bytes())
    at = page_of(base, key(7).encode())
    # The number of the page in which the value goes on is at the end of what is here.
    here = data.index(key(7).encode(), at)
    following = data.index(b"\0\0\0", here)
    number = int.from_bytes(data[following:following + 4], "big")
    data[(number - 1) * PAGE:(number - 1) * PAGE + 4] = number.to_bytes(4, "big")
    data[:PAGE] = GARBAGE[:PAGE]
    base.write_bytes(bytes(data))
    done = recover(base)
    assert key(7) not in rows(base)
    assert done.known == COUNT


# What its owner can make of it on purpose.

def varint(value: int) -> bytes:
    found = bytes([value & 0x7F])
    while value := value >> 7:
        found = bytes([value & 0x7F | 0x80]) + found
    return found


def header_of(size: int, trunk: int = 0) -> bytes:
    whole = bytearray(size)
    whole[:18] = pages.MAGIC + size.to_bytes(2, "big")
    whole[32:36] = trunk.to_bytes(4, "big")
    return bytes(whole)


def page_of_cells(size: int) -> bytes:
    """All of whose cells are one, which goes on for 1 MB in a chain of pages from page 3 on."""
    least = (size - 12) * 32 // 255 - 23
    cell = varint(least + (size - 4) * (pages.VALUE_MOST // size)) + b"\1" + bytes(least)
    cell += (3).to_bytes(4, "big")
    at = size - len(cell)
    count = (at - 8) // 2
    return (bytes([pages.TABLE_LEAF, 0, 0]) + count.to_bytes(2, "big") + bytes(3)
            + at.to_bytes(2, "big") * count).ljust(at, b"\0") + cell


@pytest.mark.parametrize("kind", ["chain", "freelist"])
def test_the_time_is_looked_at_whatever_leads_from_page_to_page(
    base: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    size, count = 512, 3000
    following = [(number + 1 if number < count else 0).to_bytes(4, "big")
                 for number in range(2, count + 1)]
    if kind == "chain":
        others = [page_of_cells(size), *(one.ljust(size, b"x") for one in following[1:])]
        base.write_bytes(header_of(size) + b"".join(others))
    else:
        base.write_bytes(header_of(size, 2) + b"".join(one.ljust(size, b"\0") for one in following))
    looks = iter(range(10_000_000))
    reads: list[int] = []
    read = os.pread

    def counted(file: int, most: int, at: int) -> bytes:
        reads.append(at)
        return read(file, most, at)

    monkeypatch.setattr(os, "pread", counted)
    found = pages.Found()
    with base.open("rb") as file:
        pages.read(file.fileno(), found, Deadline(1000, clock=lambda: float(next(looks))))
    assert not found.complete
    assert 500 < len(reads) <= 1001


def test_names_are_kept_while_there_is_room(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An index can have keys of a megabyte, and all of them the same chain of pages."""
    monkeypatch.setattr(pages, "KEPT_MOST", 100 * pages.COST)
    found = pages.Found()
    for number in range(1000):
        found.name(key(number).encode())
        found.name(key(0).encode())
    assert 50 < len(found.names) < 100
    assert not found.complete


def test_one_value_that_is_too_large_costs_no_other(base: Path) -> None:
    link = sqlite3.connect(base)
    link.execute("UPDATE astdb SET value = ? WHERE key = ?", ("x" * 3_000_000, key(300)))
    link.commit()
    link.close()
    index_page(base)
    recover(base)
    assert rows(base) == {name: text for name, text in EVERY.items() if name != key(300)}


def test_a_row_number_that_is_none(place: Path) -> None:
    path = place / recovery.FILE
    link = sqlite3.connect(path)
    link.execute("CREATE TABLE astdb(key, value, rowid, PRIMARY KEY(key))")
    link.executemany("INSERT INTO astdb VALUES (?, ?, ?)",
                     [(key(number), value(number), None if number % 2 else "no number")
                      for number in range(COUNT)])
    link.commit()
    link.close()
    index_page(path)
    recover(path)


def test_a_rule_that_wants_all_memory(place: Path) -> None:
    path = place / recovery.FILE
    link = sqlite3.connect(path)
    link.execute("CREATE TABLE astdb(key, value, CHECK (value IS NOT hex(zeroblob(450000000))))")
    link.execute("PRAGMA ignore_check_constraints=on")
    link.execute("INSERT INTO astdb VALUES ('/a/b', 'c')")
    link.commit()
    link.close()
    for act in (check, recover):
        with pytest.raises(Failed, match="SQLite wants more than 1024 MB"):
            act(path)


# Its place.

def test_so_many_are_kept_and_no_more(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = []
    for second in range(5):
        monkeypatch.setattr("time.strftime", lambda *_, n=second: f"20261129T14450{n}")
        first_page(base)
        kept.append(recover(base).kept)
    left = sorted(str(one) for one in base.parent.iterdir() if recovery.KEPT in one.name)
    assert left == [name for path in kept[-recovery.KEPT_MOST:]
                    for name in (path, path + recovery.NOTE)]
    monkeypatch.setattr("time.strftime", lambda *_: "20261129T144509")
    monkeypatch.setattr(recovery, "_room_at", lambda path: recovery.ROOM)
    first_page(base)
    last = recover(base).kept
    left = sorted(str(one) for one in base.parent.iterdir() if recovery.KEPT in one.name)
    assert left == [last, last + recovery.NOTE], "no room for more"


def test_names_of_others_are_not_deleted(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "_room_at", lambda path: recovery.ROOM)
    theirs = [f"{recovery.FILE}.damaged-mine", f"{recovery.FILE}.damaged-20261129T1445",
              "x.damaged-20261129T144501"]
    for name in theirs:
        (base.parent / name).write_text("mine")
    first_page(base)
    recover(base)
    assert all((base.parent / name).exists() for name in theirs)


@pytest.mark.parametrize("anew", [False, True])
def test_a_full_disk_leaves_it_where_it_is(
    base: Path, monkeypatch: pytest.MonkeyPatch, anew: bool
) -> None:
    first_page(base)
    broken = base.read_bytes()
    monkeypatch.setattr(recovery, "_room_at", lambda path: 0)
    with pytest.raises(Failed, match="its disk is full"):
        recovery.recover(str(base), Deadline(20), anew=anew)
    assert base.read_bytes() == broken
    assert [one.name for one in base.parent.iterdir()] == [recovery.FILE]


def test_a_disk_that_is_full_only_then(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first_page(base)
    (base.parent / f"{recovery.FILE}{recovery.DRAFT}").mkdir()
    with pytest.raises(Failed, match="cannot write"):
        recovery.recover(str(base), Deadline(20))
    assert base.exists()


def test_anew_reads_nothing(base: Path) -> None:
    first_page(base)
    done = recovery.recover(str(base), Deadline(20), anew=True)
    assert done is not None
    assert "begins anew" in str(done)
    assert not base.exists()


def test_less_time_than_it_takes_is_said(base: Path) -> None:
    found = pages.Found()
    with base.open("rb") as file:
        pages.read(file.fileno(), found, Deadline(0))
    assert not found.complete
    assert found.rows == {}


# Whose it is.

@as_root
def test_all_is_done_as_the_owner(base: Path) -> None:
    for path in (base.parent, base):
        os.chown(path, OWNER, OWNER)
    base.chmod(0o640)
    first_page(base)
    recover(base)
    assert {one.stat().st_uid for one in base.parent.iterdir()} == {OWNER}
    assert base.stat().st_mode & 0o777 == 0o640


@as_root
def test_a_name_of_roots_file_gives_nobody_anything(place: Path) -> None:
    """Hard links to what the owner may read, and may not."""
    for mode in (0o600, 0o644):
        theirs = place.parent / f"roots-{mode:o}"
        theirs.write_bytes(GARBAGE)
        theirs.chmod(mode)
        path = place / recovery.FILE
        os.chown(place, OWNER, OWNER)
        os.link(theirs, path)
        with pytest.raises(AgentError, match="may not write it"):
            check(path)
        with pytest.raises(AgentError, match="may not write it"):
            recover(path)
        assert theirs.read_bytes() == GARBAGE
        assert theirs.stat().st_uid == 0
        assert [one.name for one in place.iterdir()] == [recovery.FILE]
        path.unlink()


@as_root
def test_the_new_ones_mode_is_given_to_no_other_file(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A group may write in the directory, and swap the name once the file is made."""
    theirs = base.parent / "theirs"
    theirs.write_text("the owner's alone")
    theirs.chmod(0o600)
    for path in (base.parent, base, theirs):
        os.chown(path, OWNER, OWNER)
    first_page(base)
    base.chmod(0o666)
    create = os.open

    def swapped(name: str, flags: int, *rest: int, **more: int) -> int:
        made = create(name, flags, *rest, **more)
        if name.endswith(recovery.DRAFT):
            os.unlink(name)
            os.symlink(theirs, name)
        return made

    monkeypatch.setattr(os, "open", swapped)
    with pytest.raises(Failed, match="cannot write"):
        recover(base)
    assert theirs.stat().st_mode & 0o777 == 0o600
    assert theirs.read_text() == "the owner's alone"


@as_root
def test_a_memory_limit_that_is_there_already(base: Path) -> None:
    for path in (base.parent, base):
        os.chown(path, OWNER, OWNER)
    first_page(base)
    pid = os.fork()
    if pid == 0:
        try:
            resource.setrlimit(resource.RLIMIT_AS, (recovery.MEMORY_MOST // 2,) * 2)
            recover(base)
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert rows(base) == EVERY


@as_root
@pytest.mark.parametrize("owner", [0, OWNER + 1])
def test_nobody_works_for_who_can_put_another_directory_there(place: Path, owner: int) -> None:
    """Else he would swap the link, and the other would work with his rights in here."""
    theirs = place.parent / "backup"
    theirs.mkdir()
    fill(theirs / recovery.FILE)
    first_page(theirs / recovery.FILE)
    for path in (theirs, theirs / recovery.FILE):
        os.chown(path, owner, owner)
    os.chown(place, OWNER, OWNER)
    (place / "link").symlink_to(theirs)
    path = place / "link" / recovery.FILE
    for act in (check, recover):
        with pytest.raises(Failed, match="could be replaced by others than root"):
            act(path)
    assert [one.name for one in theirs.iterdir()] == [recovery.FILE]


@as_root
def test_a_link_of_roots_leads_there(base: Path) -> None:
    for path in (base.parent, base):
        os.chown(path, OWNER, OWNER)
    first_page(base)
    link = base.parent.parent / "link"
    link.symlink_to(base.parent)
    done = recover(link / recovery.FILE)
    assert done.kept.startswith(f"{base}{recovery.KEPT}")
    assert rows(base) == EVERY


@as_root
def test_links_in_the_names_that_are_written_lead_nowhere(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.strftime", lambda *_: "20261129T144501")
    victim = base.parent.parent / "victim"
    victim.write_text("root's")
    victim.chmod(0o600)
    for path in (base.parent, base):
        os.chown(path, OWNER, OWNER)
    kept = f"{base}{recovery.KEPT}20261129T144501"
    for name in (f"{base}{recovery.DRAFT}", f"{base}{recovery.DRAFT}-journal", kept,
                 f"{kept}{recovery.NOTE}"):
        os.symlink(victim, name)
    first_page(base)
    recover(base)
    assert victim.read_text() == "root's"
    assert rows(base) == EVERY
    assert not base.is_symlink()
