"""asha evidence: list, show, and what it says where there is nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from asha.cli import main


@pytest.fixture
def events(tmp_path: Path) -> Path:
    for name, why in (("20260101-120000-7", "dialplan lock"), ("20260102-120000-8", "SIP")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "summary.txt").write_text(f"Found hung.\n\nWhy: {why} is silent\n")
        (tmp_path / name / "backtraces.txt").write_text(f"trace {why}\n")
    return tmp_path


def test_list(events: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evidence", "--directory", str(events), "list"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "20260101-120000-7  dialplan lock is silent",
        "20260102-120000-8  SIP is silent",
    ]


def test_nothing_to_list(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evidence", "--directory", str(tmp_path), "list"]) == 0
    assert capsys.readouterr().out.startswith("no hang was seen on this node: look on the other")


def test_show_the_last(events: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evidence", "--directory", str(events), "show", "last"]) == 0
    shown = capsys.readouterr().out
    assert "Why: SIP is silent" in shown
    assert "trace SIP" not in shown
    assert "backtraces.txt" in shown


def test_show_all_of_one(events: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["evidence", "--directory", str(events), "show", "20260101-120000-7", "--all"]
    assert main(words) == 0
    assert "trace dialplan lock" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["last", "../../etc", "20260101"])
def test_no_such_event(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = ["evidence", "--directory", str(tmp_path), "show", name]
    assert main(shown) == 1
    assert "no hang was seen on this node" in capsys.readouterr().err
    (tmp_path / "20260202-120000-7").mkdir()
    assert main(shown) == (0 if name == "last" else 1)
    assert (f"there is no event {name}" in capsys.readouterr().err) == (name != "last")


def test_an_event_without_a_summary(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "20260101-120000-7").mkdir()
    assert main(["evidence", "--directory", str(tmp_path), "list"]) == 0
    assert "cut off before" in capsys.readouterr().out
    assert main(["evidence", "--directory", str(tmp_path), "show", "last"]) == 0
    assert "cut off before" in capsys.readouterr().out


def test_a_directory_that_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "file"
    file.touch()
    for place in (file, tmp_path / "absent"):
        assert main(["evidence", "--directory", str(place), "list"]) == 1
        assert f"there is no directory {place}" in capsys.readouterr().err
