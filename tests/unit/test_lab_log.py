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


def test_those_of_failed_tests_are_kept_longer(lab: Lab, tmp_path: Path) -> None:
    for number in range(2 * lab_log.KEPT + 5):
        place = tmp_path / "asha-lab" / f"lab{number}"
        place.mkdir()
        if number < lab_log.KEPT + 3:
            (place / lab_log.FAILED).write_text("test_x")
        os.utime(place, (number, number))
    lab_log.begin("new")
    left = {one.name for one in (tmp_path / "asha-lab").iterdir()}
    assert left == {f"lab{number}" for number in range(3, 2 * lab_log.KEPT + 5)
                    if not lab_log.KEPT + 3 <= number < lab_log.KEPT + 5}


SAID = """\
Nov 29 22:00:00.000001 crm1 kernel: eth0 entered promiscuous mode
Nov 29 22:00:00.000002 crm1 pacemaker-attrd[92]:  notice: Setting asha-lan[crm1]: ok -> no-carrier
"""


@pytest.fixture
def journal(monkeypatch: pytest.MonkeyPatch) -> None:
    """One node is up, and its journal says that."""
    monkeypatch.setattr(Lab, "running", property(lambda self: [self.node("crm1")]))
    monkeypatch.setattr(Node, "run", lambda self, *argv, check: Result(argv, 0, SAID, ""))


@pytest.mark.parametrize("failed", [True, False])
@pytest.mark.usefixtures("journal")
def test_a_failed_test_names_it_and_what_the_cluster_said_last(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, failed: bool
) -> None:
    monkeypatch.setattr(conftest, "LABS", [lab])
    report = SimpleNamespace(failed=failed, sections=[], nodeid="test_x")
    hook = conftest.pytest_runtest_makereport()
    next(hook)
    with pytest.raises(StopIteration):
        hook.send(SimpleNamespace(get_result=lambda: report))  # type: ignore[arg-type]
    told = f"{lab.log.path}\n{SAID.splitlines()[1]}"
    assert report.sections == ([("what ran on the nodes", told)] if failed else [])
    assert lab.log.path.with_name(lab_log.FAILED).exists() == failed
    if failed:
        assert lab.log.path.with_name("crm1.journal").read_text() == SAID


@pytest.mark.usefixtures("journal")
def test_so_does_a_test_with_a_lab_of_its_own(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conftest, "Lab", lambda **_: lab)
    for name in ("up", "down"):
        monkeypatch.setattr(Lab, name, lambda self: None)
    with pytest.raises(ValueError, match="x") as caught, conftest.lab_or_skip():
        raise ValueError("x")
    assert caught.value.__notes__ == [f"{lab.log.path}\n{SAID.splitlines()[1]}"]


@pytest.mark.usefixtures("journal")
def test_so_does_a_lab_without_pytest(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(Lab, "up", lambda self: None)
    monkeypatch.setattr(Lab, "down", lambda self: None)
    with pytest.raises(ValueError, match="x"), Lab("try", say=said.append):
        raise ValueError("x")
    assert said == [f"what ran on the nodes: {lab.log.path}"]


def test_ctrl_c_removes_the_lab_and_is_no_failure(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    did: list[str] = []
    monkeypatch.setattr(Lab, "up", lambda self: None)
    monkeypatch.setattr(Lab, "down", lambda self: did.append("down"))
    monkeypatch.setattr(Lab, "tell_failure", lambda self, what: did.append(what))
    with pytest.raises(KeyboardInterrupt), Lab("try"):
        raise KeyboardInterrupt
    assert did == ["down"]


def test_ctrl_c_while_journals_are_kept_removes_the_lab(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    did: list[str] = []

    def interrupted(self: Lab, what: str) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(Lab, "up", lambda self: None)
    monkeypatch.setattr(Lab, "down", lambda self: did.append("down"))
    monkeypatch.setattr(Lab, "tell_failure", interrupted)
    with pytest.raises(KeyboardInterrupt), Lab("try"):
        raise ValueError("x")
    assert did == ["down"]
