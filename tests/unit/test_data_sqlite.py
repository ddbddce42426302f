"""The check of the databases, on real ones as a crash leaves them."""

from __future__ import annotations

import os
import signal
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from asha.data import sqlite
from asha.ocf import AgentError, Deadline
from asha.run.child import in_child

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it becomes another user")

OWNER = 54321


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A place for databases that other users reach too; pytest's own is for us alone."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        folder = Path(name, "db")
        folder.mkdir()
        monkeypatch.setattr(sqlite, "PLACES", {str(folder): (".db", ".sqlite3")})
        yield folder


def make(path: Path, journal: str = "delete", owner: int | None = None) -> None:
    """A database whose writer is killed inside a transaction that has reached the disk."""
    child = os.fork()
    if child == 0:
        try:
            if owner is not None:
                os.setgid(owner)
                os.setuid(owner)
            link = sqlite3.connect(path, isolation_level=None)
            link.execute(f"PRAGMA journal_mode={journal}")
            link.execute("PRAGMA cache_size=5")
            link.execute("CREATE TABLE t (a INTEGER PRIMARY KEY, b)")
            link.execute("CREATE INDEX i ON t (b)")
            link.execute("BEGIN")
            link.executemany("INSERT INTO t (b) VALUES (?)", [(f"{n:0500}",) for n in range(300)])
            link.execute("COMMIT")
            link.execute("BEGIN")
            # Longer values move pages, so that half of the change is no database.
            link.execute("UPDATE t SET b = hex(randomblob(700))")
        finally:
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def without_journal(path: Path) -> str:
    """What a check says that reads the file alone."""
    link = sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)
    try:
        return str(link.execute("PRAGMA quick_check(1)").fetchone()[0])
    except sqlite3.DatabaseError as problem:
        return str(problem)
    finally:
        link.close()


def value(path: Path) -> str:
    link = sqlite3.connect(path)
    try:
        return str(link.execute("SELECT b FROM t WHERE a = 7").fetchone()[0])
    finally:
        link.close()


def test_a_journal_left_by_a_crash_is_rolled_back_and_no_corruption(folder: Path) -> None:
    path = folder / "sark.db"
    make(path)
    assert names(folder) == ["sark.db", "sark.db-journal"]
    assert without_journal(path) != "ok"
    sqlite.check(str(path), Deadline(20))
    assert names(folder) == ["sark.db"]
    assert value(path) == f"{6:0500}"


def test_a_write_ahead_log_left_by_a_crash(folder: Path) -> None:
    path = folder / "sark.db"
    make(path, "wal")
    assert "sark.db-wal" in names(folder)
    sqlite.check(str(path), Deadline(20))
    assert value(path) == f"{6:0500}"


@as_root
@pytest.mark.parametrize("journal", ["delete", "wal"])
def test_the_owner_checks_so_that_nothing_becomes_roots(folder: Path, journal: str) -> None:
    os.chown(folder, OWNER, OWNER)
    path = folder / "sark.db"
    make(path, journal, OWNER)
    sqlite.check(str(path), Deadline(20))
    assert {file.stat().st_uid for file in folder.iterdir()} == {OWNER}


@as_root
def test_a_copy_that_root_made_is_not_opened_as_root(folder: Path) -> None:
    """Who may write there chooses the journal, and a journal names files to delete."""
    path = folder / "sark.db"
    make(path, owner=None)
    os.chown(folder, OWNER, OWNER)
    before = names(folder)
    _, [unknown] = sqlite.check_all([str(folder)], Deadline(20))
    assert "was not checked" in unknown
    assert names(folder) == before  # root would have rolled it back
    (folder / "sark.db-journal").unlink()
    link = sqlite3.connect(folder / "clean.db")
    link.execute("CREATE TABLE t (a)")
    link.close()
    (folder / "sark.db").unlink()
    assert sqlite.check_all([str(folder)], Deadline(20)) == ([], [])

    os.chown(folder, 0, OWNER)
    os.chmod(folder, 0o775)
    _, [unknown] = sqlite.check_all([str(folder)], Deadline(20))
    assert f"others may write in {folder}" in unknown


@as_root
def test_nor_where_it_becomes_a_link_to_a_folder_of_roots(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two looks; seen within some ten tries of a real race."""
    path = folder / "sark.db"
    path.touch()
    os.chown(folder, OWNER, OWNER)
    lstat = os.lstat

    def swap(place: str) -> os.stat_result:
        about = lstat(place)
        if place == str(path):
            path.unlink()
            path.symlink_to("/etc/hostname")
        return about

    def who() -> str:
        monkeypatch.setattr(os, "lstat", swap)
        sqlite.become_owner(str(path))
        return str(os.geteuid())

    assert in_child(who, Deadline(20), "becoming its owner") == str(OWNER)


@as_root
def test_a_file_of_anothers_is_opened_as_whose_folder_it_lies_in(folder: Path) -> None:
    path = folder / "sark.db"
    path.touch()
    os.chown(path, OWNER + 1, OWNER + 1)
    os.chown(folder, OWNER, OWNER)

    def who() -> str:
        sqlite.become_owner(str(path))
        return f"{os.geteuid()} {os.getegid()}"

    assert in_child(who, Deadline(20), "becoming its owner") == f"{OWNER} {OWNER}"


@as_root
def test_nor_where_anybody_may_add_a_journal(folder: Path) -> None:
    make(folder / "sark.db")
    folder.chmod(0o1777)
    _, [unknown] = sqlite.check_all([str(folder)], Deadline(20))
    assert "others may write in" in unknown


@as_root
def test_a_copy_that_only_root_may_read_is_told(folder: Path) -> None:
    make(folder / "sark.db")
    os.chown(folder, OWNER, OWNER)
    (folder / "sark.db").chmod(0o600)
    _, [unknown] = sqlite.check_all([str(folder)], Deadline(20))
    assert "may not read it" in unknown


@as_root
def test_nor_where_others_own_a_folder_above(folder: Path) -> None:
    make(folder / "sark.db")
    os.chown(folder.parent, OWNER, OWNER)
    _, [unknown] = sqlite.check_all([str(folder)], Deadline(20))
    assert "others may write in" in unknown


@pytest.mark.parametrize("kind", ["link", "fifo"])
def test_what_is_no_ordinary_file_is_not_opened(folder: Path, kind: str) -> None:
    if kind == "link":
        make(folder.parent / "other")
        (folder / "sark.db").symlink_to(folder.parent / "other")
    else:
        os.mkfifo(folder / "sark.db")
    _, [unknown] = sqlite.check_all([str(folder)], Deadline(20))
    assert "no ordinary file" in unknown


@as_root
def test_what_the_owner_may_not_do_is_unknown_and_no_corruption(folder: Path) -> None:
    path = folder / "sark.db"
    make(path)
    os.chown(path, OWNER, OWNER)
    with pytest.raises(AgentError) as caught:
        sqlite.check(str(path), Deadline(20))
    assert not isinstance(caught.value, sqlite.Corrupt)


@pytest.mark.parametrize("damage", ["head", "page"])
def test_corrupt(folder: Path, damage: str) -> None:
    path = folder / "sark.db"
    make(path)
    sqlite.check(str(path), Deadline(20))
    data = bytearray(path.read_bytes())
    start = 0 if damage == "head" else 4096 * 3
    data[start : start + 4096] = b"\xa5" * 4096
    path.write_bytes(data)
    with pytest.raises(sqlite.Corrupt, match=r"sark\.db is corrupt \(.+\): restore it"):
        sqlite.check(str(path), Deadline(20))


def test_a_name_without_end_is_not_told_whole(folder: Path) -> None:
    path = folder / "sark.db"
    link = sqlite3.connect(path)
    link.execute("CREATE TABLE t (a)")
    link.execute("PRAGMA writable_schema = ON")
    link.execute("INSERT INTO sqlite_master VALUES ('table', ?, 't2', 9, 'nonsense')",
                 ("x" * 5_000_000,))
    link.commit()
    link.close()
    [corrupt], unknown = sqlite.check_all([str(folder)], Deadline(20))
    assert not unknown
    assert "malformed" in corrupt
    assert len(corrupt) < 1000


def test_an_empty_file_is_a_new_database(folder: Path) -> None:
    (folder / "sark.db").write_bytes(b"")
    sqlite.check(str(folder / "sark.db"), Deadline(20))


def test_a_locked_database_is_unknown(folder: Path) -> None:
    path = folder / "sark.db"
    make(path)
    link = sqlite3.connect(path, isolation_level=None)
    link.execute("BEGIN EXCLUSIVE")
    try:
        corrupt, unknown = sqlite.check_all([str(folder)], Deadline(0.3))
    finally:
        link.close()
    assert corrupt == []
    assert len(unknown) == 1
    assert unknown[0].startswith(f"{path} was not checked: ")


def test_a_path_with_the_characters_of_a_uri(folder: Path) -> None:
    path = folder / "a%41?mode=memory#x.db"
    make(path)
    assert sqlite.check_all([str(folder)], Deadline(20)) == ([], [])
    assert names(folder) == [path.name], "rolled back"


def test_all_of_one_place_and_no_other(folder: Path) -> None:
    for name in ("sark.db", "sark.last.db", "astdb.sqlite3"):
        (folder / name).write_bytes(b"not a database, " * 300)
    (folder / "schema.sql").write_bytes(b"not a database, " * 300)
    corrupt, unknown = sqlite.check_all([str(folder), str(folder.parent)], Deadline(20))
    assert unknown == []
    assert [reason.split(" ")[0] for reason in corrupt] == [
        str(folder / name) for name in ("sark.db", "sark.last.db")
    ]
    assert sqlite.check_all([str(folder.parent)], Deadline(20)) == ([], [])


def test_more_than_can_be_checked_end_all_the_same(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "CHECK_MOST", 2)
    for number in range(4):
        make(folder / f"{number}.db")
    _, [unknown] = sqlite.check_all([str(folder)], Deadline(20))
    assert unknown == f"{folder}/2.db and 1 more were not checked: too many"


def test_a_name_that_breaks_a_line_is_none(folder: Path) -> None:
    (folder / "x\ny.db").write_text("no database")
    assert sqlite.check_all([str(folder)], Deadline(20)) == ([], [])


def test_no_time_left_is_unknown(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(folder / "sark.db")
    monkeypatch.setattr(sqlite, "become_owner", lambda path: time.sleep(1000))
    corrupt, unknown = sqlite.check_all([str(folder)], Deadline(0.3))
    assert corrupt == []
    assert "sark.db was not checked: " in unknown[0]
    assert "did not end within" in unknown[0]
