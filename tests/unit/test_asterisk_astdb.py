"""Where AstDB is; a full disk, a lock and neither: AMI words them alike."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from asha.asterisk import astdb
from asha.asterisk.process.proc import Proc, Process
from asha.ocf import Deadline

HOLDER = "import fcntl, sys; f = open(sys.argv[1], 'r+'); fcntl.lockf(f, fcntl.LOCK_EX); " \
         "print('held', flush=True); sys.stdin.read()"


@pytest.fixture
def me() -> Process:
    process = Proc().process(os.getpid())
    assert process is not None
    return process


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Path]:
    """AstDB's file, open as Asterisk has it."""
    path = tmp_path / "astdb.sqlite3"
    with path.open("w+"):
        yield path


def test_a_lock_has_a_name(me: Process, file: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(file)], text=True,
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        said = astdb.why(Proc(), me, Deadline(5))
        other.kill()
    assert said.startswith(f"{file} is locked by ")
    assert f"({other.pid})" in said


def test_its_own_lock_is_no_reason(me: Process, file: Path) -> None:
    with file.open("r+") as own:
        fcntl.lockf(own, fcntl.LOCK_EX)
        assert "neither locked nor its disk full" in astdb.why(Proc(), me, Deadline(5))


def test_a_full_disk(me: Process, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    room = os.statvfs(file)
    full = os.statvfs_result((*room[:4], 0, *room[5:10]))
    monkeypatch.setattr(os, "statvfs", lambda path: full)
    assert astdb.why(Proc(), me, Deadline(5)) == f"the disk of {file} is full"


def test_no_file(me: Process) -> None:
    assert astdb.why(Proc(), me, Deadline(5)) == "Asterisk has not its file open"


# Where it is.

DIRECTORIES = "[directories]\nastdbdir => {}\n"


@pytest.mark.parametrize(("text", "wanted"), [
    (None, astdb.FOLDER),
    ("[options]\nverbose = 3\n", astdb.FOLDER),
    (DIRECTORIES.format("/srv/db/"), "/srv/db"),
    # Debian's own is a template, which counts for nothing.
    ("[directories](!)\nastdbdir => /srv/db\n", astdb.FOLDER),
    (";astdbdir => /srv/db\n", astdb.FOLDER),
    (DIRECTORIES.format(astdb.FOLDER), astdb.FOLDER),
    (DIRECTORIES.format("not a path"), astdb.FOLDER),
    (DIRECTORIES.format("/a") + "astdbdir = /b\n", "/b"),
    (DIRECTORIES.format("/a") + DIRECTORIES.format("/b"), "/a"),
    ("#include more.conf\n", "/more"),
    ("x" * (astdb.CONF_MOST + 1), astdb.FOLDER),
    ("\0\xff[[[[", astdb.FOLDER),
])
def test_where_asterisk_conf_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | None, wanted: str
) -> None:
    monkeypatch.setattr(astdb, "ETC", str(tmp_path))
    if text is not None:
        (tmp_path / "asterisk.conf").write_text(text)
    (tmp_path / "more.conf").write_text(DIRECTORIES.format("/more"))
    assert astdb.folder(Deadline(20)) == wanted


@pytest.mark.parametrize("kind", ["FIFO", "link", "directory"])
def test_what_is_no_asterisk_conf_counts_for_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(astdb, "ETC", str(tmp_path))
    path = tmp_path / "asterisk.conf"
    if kind == "FIFO":
        os.mkfifo(path)
    elif kind == "link":
        path.symlink_to("/etc/shadow")
    else:
        path.mkdir()
    assert astdb.folder(Deadline(20)) == astdb.FOLDER
