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
    pids: dict[int, int] = {}

    def pidfd_open(pid: int) -> int:
        if pid == 99:
            raise ProcessLookupError
        file = os.open(os.devnull, os.O_RDONLY)
        pids[file] = pid
        return file

    def send(file: int, number: int) -> None:
        calls.append((pids[file], number))

    monkeypatch.setattr(os, "pidfd_open", pidfd_open)
    monkeypatch.setattr(signal, "pidfd_send_signal", send)
    return calls


def write(folder: Path, name: str, user: int, pids: str, group: str = "pacemaker") -> None:
    folder.mkdir()
    (folder / "comm").write_text(f"{name}\n")
    (folder / "status").write_text(STATUS.format(name=name, user=user, pids=pids))
    (folder / "cgroup").write_text(f"0::/system.slice/{group}.service\n")


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
        write(tmp_path / str(pid), name, user, pids)
    # Of systemd's, which nobody would start again.
    write(tmp_path / "20", "mariadbd", mysql, "20", "system-mariadb.slice/mariadb@other")
    write(tmp_path / "21", "apache2", 0, "21", "apache2@other")
    write(tmp_path / "22", "apache2", 0, "22", "pacemaker.service-not")
    (tmp_path / "16").mkdir()  # and this one while we look
    assert sorted(beside.end(str(tmp_path), str(data))) == ["apache2 13", "mariadbd 10"]
    assert sorted(asked) == [(10, signal.SIGTERM), (13, signal.SIGTERM)]


def test_without_its_data_no_mariadb_is_ours(
    tmp_path: Path, asked: list[tuple[int, int]]
) -> None:
    write(tmp_path / "10", "mariadbd", 0, "10")
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


def test_a_number_that_is_anothers_by_now(
    tmp_path: Path, asked: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "10", "apache2", 0, "10")
    real = os.pidfd_open

    def pidfd_open(pid: int) -> int:
        (tmp_path / "10" / "comm").write_text("asterisk\n")
        return real(pid)

    monkeypatch.setattr(os, "pidfd_open", pidfd_open)
    assert beside.end(str(tmp_path), str(tmp_path)) == []
    assert asked == []


def test_the_kernels_own_words(
    program: subprocess.Popen[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Only looked for: this machine may have an Apache of its own. Nor is it Pacemaker's.
    assert (program.pid, "mariadbd") not in beside._running(beside.PROC, str(tmp_path))
    monkeypatch.setattr(beside, "PACEMAKER", "/")
    assert (program.pid, "mariadbd") in beside._running(beside.PROC, str(tmp_path))
