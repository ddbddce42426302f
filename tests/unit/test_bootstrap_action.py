"""Actions and the machine they act on: done, shown, written down, done again."""

from __future__ import annotations

import os
import re
import stat
import subprocess
from pathlib import Path

import pytest

from asha.bootstrap.action import Call, Run, Say, Write
from asha.errors import UserError
from asha.machine import Machine

ME = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()
MINE = subprocess.run(["id", "-gn"], capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(str(tmp_path))


def silent(text: str) -> None:
    pass


def write(path: str = "/etc/a.conf", text: str = "one\ntwo\n", secret: bool = False) -> Write:
    return Write(path, text, mode=0o640, owner=ME, group=MINE, secret=secret)


def test_a_file_is_written_once_with_its_mode(machine: Machine) -> None:
    action = write()
    assert not action.is_done(machine)
    action.do(machine, silent)
    assert action.is_done(machine)
    assert machine.read("/etc/a.conf") == "one\ntwo\n"
    assert stat.S_IMODE(machine.path("/etc/a.conf").stat().st_mode) == 0o640


@pytest.mark.parametrize("change", ["text", "mode"])
def test_a_file_that_differs_is_not_done(machine: Machine, change: str) -> None:
    action = write()
    action.do(machine, silent)
    if change == "text":
        machine.path("/etc/a.conf").write_text("one\n")
    else:
        machine.path("/etc/a.conf").chmod(0o644)
    assert not action.is_done(machine)


def test_a_difference_is_shown_and_a_secret_is_not(machine: Machine) -> None:
    machine.path("/etc").mkdir()
    machine.path("/etc/a.conf").write_text("one\n")
    assert "+two" in write().preview(machine)
    assert "-one" not in write().preview(machine)
    hidden = write(text="hunter2\n", secret=True)
    assert "hunter2" not in hidden.preview(machine)
    assert "hunter2" not in hidden.script()
    machine.path("/etc/a.conf").write_text("user a\npassword old1\n")
    half = write(text="user b\npassword hunter2\n", secret=True)
    half.masked = lambda text: re.sub("(password) .*", r"\1 ***", text)
    shown = half.preview(machine)
    assert "+user b" in shown
    assert "password ***" in shown
    assert "hunter2" not in shown + half.script()
    assert "old1" not in shown


def test_a_write_that_fails_leaves_the_old_file(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    write().do(machine, silent)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write(text="three\n").do(machine, silent)
    assert machine.read("/etc/a.conf") == "one\ntwo\n"


def test_the_script_of_a_file_makes_the_same_file(tmp_path: Path) -> None:
    text = "it's $HOME `date` \\ \"x\"\n\nlast\n"
    place = tmp_path / "deep/a b.conf"
    script = Write(str(place), text, mode=0o600, owner=ME, group=MINE).script()
    subprocess.run(["sh", "-e", "-c", script], check=True)
    assert place.read_text() == text
    assert stat.S_IMODE(place.stat().st_mode) == 0o600


def test_a_program_that_fails_is_trouble_with_its_words(machine: Machine) -> None:
    with pytest.raises(UserError, match=r"exit 2: .*No such file"):
        Run("list", ["ls", "/does/not/exist"], done=lambda m: False).do(machine, silent)


def test_a_program_that_is_not_there_is_trouble(machine: Machine) -> None:
    with pytest.raises(UserError, match="not installed"):
        machine.run("no-such-program-here")
    assert machine.output("no-such-program-here") == ""


def test_a_program_gets_no_locale_and_no_other_environment(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LANG", "de_DE.UTF-8")
    monkeypatch.setenv("CIB_file", "/tmp/wrong")
    said = machine.run("env").out
    assert "LC_ALL=C" in said
    assert "LANG" not in said
    assert "CIB_file" not in said


def test_a_program_that_does_not_end_is_killed(machine: Machine) -> None:
    with pytest.raises(UserError, match="did not end"):
        machine.run("sleep", "600", timeout=0.2)


def test_a_call_is_named_in_its_script_and_told_in_the_plan(machine: Machine) -> None:
    told: list[str] = []

    def work(where: Machine, say: Say) -> None:
        say("half")

    call = Call("copy-data", "copy", "first this\nthen that", work, lambda m: bool(told))
    assert call.script() == "# first this\n# then that\nasha step copy-data"
    assert not call.is_done(machine)
    call.do(machine, told.append)
    assert told == ["half"]
    assert call.is_done(machine)
