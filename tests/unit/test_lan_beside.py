"""Who is asked to end when the telephones leave, and nobody else is."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from asha.lan import beside

STATUS = "Name:\t{name}\nUid:\t{user}\t{user}\t{user}\t{user}\nNSpid:\t{pids}\n"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    calls: list[tuple[int, int]] = []

    def kill(pid: int, number: int) -> None:
        if pid == 99:
            raise ProcessLookupError
        calls.append((pid, number))

    monkeypatch.setattr(os, "kill", kill)
    return calls


def test_who_is_asked(tmp_path: Path, asked: list[tuple[int, int]]) -> None:
    data = tmp_path / "data"
    data.mkdir()
    mysql = os.stat(data).st_uid
    for pid, name, user, pids in (
        (10, "mariadbd", mysql, "10"),
        (11, "mariadbd", mysql + 1, "11"),  # another's program of that name
        (12, "mysqld", mysql, "12 1"),  # a container's
        (13, "apache2", 0, "13"),
        (14, "apache2", 33, "14"),  # a child, which would be replaced
        (15, "asterisk", 0, "15"),
        (99, "apache2", 0, "99"),  # it has just ended
    ):
        folder = tmp_path / str(pid)
        folder.mkdir()
        (folder / "comm").write_text(f"{name}\n")
        (folder / "status").write_text(STATUS.format(name=name, user=user, pids=pids))
    (tmp_path / "16").mkdir()  # and this one while we look
    assert sorted(beside.end(str(tmp_path), str(data))) == ["apache2 13", "mariadbd 10"]
    assert sorted(asked) == [(10, signal.SIGTERM), (13, signal.SIGTERM)]


def test_without_its_data_no_mariadb_is_ours(
    tmp_path: Path, asked: list[tuple[int, int]]
) -> None:
    folder = tmp_path / "10"
    folder.mkdir()
    (folder / "comm").write_text("mariadbd\n")
    (folder / "status").write_text(STATUS.format(name="mariadbd", user=0, pids="10"))
    assert beside.end(str(tmp_path), str(tmp_path / "none")) == []
    assert asked == []


@pytest.fixture
def program(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that the kernel calls mariadbd."""
    named = tmp_path / "mariadbd"
    shutil.copy(sys.executable, named)
    named.chmod(0o755)
    with ExitStack() as undo:
        made = subprocess.Popen([named, "-c", "import time; time.sleep(600)"],
                                env={"PYTHONHOME": sys.base_prefix})
        undo.callback(made.wait)
        undo.callback(made.kill)
        yield made


def test_the_kernels_own_words(program: subprocess.Popen[bytes], tmp_path: Path) -> None:
    # Only looked for: this machine may have an Apache of its own.
    assert (program.pid, "mariadbd") in beside._running(beside.PROC, str(tmp_path))
