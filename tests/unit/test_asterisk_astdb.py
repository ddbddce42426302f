"""A full disk, a lock and neither: AMI words them alike."""

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
