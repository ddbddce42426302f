"""Each run of a lab leaves a log of what ran on its nodes, and a failed test names it."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests import conftest
from tests.lab import CommandFailed, Lab, Node, Result
from tests.lab import log as lab_log
from tests.lab import node as lab_node
from tests.unit.test_command_log import lines


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    monkeypatch.setattr(lab_log, "LOGS", tmp_path / "asha-lab")
    monkeypatch.setattr(Node, "command", lambda self, *argv, env=None: ["nsenter", *argv])
    lab_log.begin("try")
    return Lab("try")


def test_programs_on_the_nodes(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(argv: list[str], **_: Any) -> Result:
        if "sleep" in argv:
            raise CommandFailed(Result(tuple(argv), -9, "", "did not end within 1 s"))
        return Result(tuple(argv), 3 if "false" in argv else 0, "out\n", "")

    monkeypatch.setattr(lab_node, "run", run)
    lab.node("crm1").run("crm_mon", "-1")
    with pytest.raises(CommandFailed):
        lab.node("crm2").run("false")
    with pytest.raises(CommandFailed):
        lab.node("crm2").run("sleep", "9", check=False)
    lab.log.note("crm2: power off")
    lab.log.finish("removed")
    assert lines(lab.log.path)[1:] == [
        "exit 0: crm1: crm_mon -1", "    | out", "exit 3: crm2: false", "    | out",
        "exit -9: crm2: sleep 9", "    | did not end within 1 s", "crm2: power off",
        "=== removed",
    ]


def test_the_old_ones_are_removed(lab: Lab, tmp_path: Path) -> None:
    for number in range(lab_log.KEPT + 5):
        place = tmp_path / "asha-lab" / f"lab{number}"
        place.mkdir()
        os.utime(place, (number, number))
    lab_log.begin("new")
    left = {one.name for one in (tmp_path / "asha-lab").iterdir()}
    assert left == {f"lab{number}" for number in range(5, lab_log.KEPT + 5)}


@pytest.mark.parametrize("failed", [True, False])
def test_a_failed_test_names_it(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, failed: bool
) -> None:
    monkeypatch.setattr(conftest, "LABS", [lab])
    report = SimpleNamespace(failed=failed, sections=[])
    hook = conftest.pytest_runtest_makereport()
    next(hook)
    with pytest.raises(StopIteration):
        hook.send(SimpleNamespace(get_result=lambda: report))  # type: ignore[arg-type]
    assert report.sections == ([("what ran on the nodes", str(lab.log.path))] if failed else [])


def test_so_does_a_lab_without_pytest(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(Lab, "up", lambda self: None)
    monkeypatch.setattr(Lab, "down", lambda self: None)
    with pytest.raises(ValueError, match="x"), Lab("try", say=said.append):
        raise ValueError("x")
    assert said == [f"what ran on the nodes: {lab.log.path}"]
