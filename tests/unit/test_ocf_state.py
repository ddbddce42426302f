"""State files: replaced as a whole, and quiet about what is not there."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from asha.ocf.state import StateFile


@pytest.fixture
def file(tmp_path: Path) -> StateFile:
    return StateFile(str(tmp_path / "agent-p_test.kind"))


@pytest.mark.parametrize("text", ["", "one\n", "a\r\nb\rc", "caf\u00e9", os.fsdecode(b"/\xff\n")])
def test_any_text_comes_back(file: StateFile, text: str, tmp_path: Path) -> None:
    file.write("before")
    file.write(text)
    assert file.read() == text
    assert [entry.name for entry in tmp_path.iterdir()] == ["agent-p_test.kind"]


def test_absent(file: StateFile) -> None:
    assert (file.read(), file.age(), file.is_absent) == ("", 0.0, True)
    file.remove()


def test_what_cannot_be_read_is_not_absent(file: StateFile) -> None:
    os.mkdir(file.path)
    assert (file.read(), file.is_absent) == ("", False)
    with pytest.raises(OSError, match="Is a directory"):
        file.write("x")
    with pytest.raises(OSError, match="Is a directory"):
        file.remove()


def test_removed(file: StateFile) -> None:
    file.write("x")
    file.remove()
    assert file.is_absent


def test_age(file: StateFile) -> None:
    file.write("x")
    before = time.time() - 50
    os.utime(file.path, (before, before))
    assert 50 <= file.age() < 60
    os.utime(file.path, (before + 1000, before + 1000))  # somebody has set the clock
    assert file.age() == 0.0


def test_a_write_that_fails_leaves_what_was(file: StateFile, tmp_path: Path) -> None:
    file.write("before")
    (tmp_path / f"agent-p_test.kind.{os.getpid()}.new").mkdir()
    with pytest.raises(OSError, match="Is a directory"):
        file.write("after")
    assert file.read() == "before"


def test_a_write_that_fails_leaves_nothing_else(file: StateFile, tmp_path: Path) -> None:
    os.mkdir(file.path)
    with pytest.raises(OSError, match="Is a directory"):
        file.write("x")
    assert [entry.name for entry in tmp_path.iterdir()] == ["agent-p_test.kind"]


def test_two_write_at_once(
    file: StateFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a monitor and the watcher may."""
    real, other = os.replace, os.getpid() + 1

    def replace(source: str, target: str) -> None:
        monkeypatch.undo()
        monkeypatch.setattr(os, "getpid", lambda: other)
        StateFile(file.path).write("the other's")
        assert file.read() == "the other's"
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)
    file.write("the first's")
    assert file.read() == "the first's"
    assert [entry.name for entry in tmp_path.iterdir()] == ["agent-p_test.kind"]
