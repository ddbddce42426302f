"""Waiting, locking, asking systemd and ending orderly: one way each, and only that one."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from asha.bootstrap.action import enable
from asha.bootstrap.file_lock import file_lock
from asha.bootstrap.host import services
from asha.bootstrap.takeover import state
from asha.commands import common
from asha.errors import UserError
from asha.machine import Machine
from tests.fakes.machine import FakeMachine, Outcome

REPOSITORY = Path(__file__).parents[2]
BUSY = UserError("somebody else is at work", "wait for it")
# Has the lock until it is killed.
HOLDER = "import fcntl, sys, time; f = open(sys.argv[1], 'a'); fcntl.flock(f, fcntl.LOCK_EX); " \
         "print('has it', flush=True); time.sleep(60)"


# Waiting.

def test_what_goes_away_is_waited_for(tmp_path: Path) -> None:
    machine = FakeMachine(tmp_path)
    said: list[tuple[str, float]] = []
    left = iter(["a", "b", ""])
    assert machine.wait_while(lambda: next(left), 10, 2,
                              lambda what, passed: said.append((what, passed))) == ""
    assert said == [("a", 0), ("b", 2)]
    assert machine.clock == 4


def test_what_stays_is_returned_as_it_was_last(tmp_path: Path) -> None:
    machine = FakeMachine(tmp_path)
    asked = []

    def problem() -> list[int]:
        asked.append(machine.clock)
        return [len(asked)]

    assert machine.wait_while(problem, 2) == [5]
    assert asked == [0, 0.5, 1, 1.5, 2]  # once more at the very end
    assert machine.wait_while(problem, 0) == [6]  # once at least


def test_the_clock_of_a_real_machine() -> None:
    machine = Machine()
    begun = machine.now()
    assert machine.wait_while(lambda: True, 0.05, 0.02) is True
    assert 0.05 <= machine.now() - begun < 5


# Locking.

def test_a_lock_that_is_free(tmp_path: Path) -> None:
    waited: list[str] = []
    with file_lock(FakeMachine(tmp_path), "/lock", 5, BUSY, lambda: waited.append("")):
        assert (tmp_path / "lock").stat().st_mode & 0o777 == 0o600
    assert waited == []


def test_a_lock_that_another_process_has(tmp_path: Path) -> None:
    machine = FakeMachine(tmp_path)
    waited: list[str] = []
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path / "lock")],
                          stdout=subprocess.PIPE) as holder:
        try:
            assert holder.stdout is not None
            holder.stdout.readline()
            with pytest.raises(UserError, match="somebody else"), \
                    file_lock(machine, "/lock", 5, BUSY, lambda: waited.append("")):
                pass
            assert machine.clock == pytest.approx(5, abs=0.3)
        finally:
            holder.kill()
    # The kernel has given it back, whatever became of the file.
    with file_lock(machine, "/lock", 0, BUSY, lambda: waited.append("")):
        pass
    assert waited == [""]  # told once


def test_the_hand_overs_lock_tells_that_it_waits(tmp_path: Path) -> None:
    machine = FakeMachine(tmp_path)
    said: list[str] = []
    with state.locked(machine, said.append):
        assert said == []
        with pytest.raises(UserError, match="still rolling back"), \
                state.locked(machine, said.append):
            pass
    assert said == ["waiting for another asha that rolls back"]
    assert machine.clock >= state.LOCK_SECONDS


# systemd.

@pytest.mark.parametrize(("said", "active"), [
    (Outcome("active\n"), True), (Outcome("inactive\n", 3), False),
    (Outcome("activating\n", 3), False), (Outcome(code=4), False),
])
def test_is_active(tmp_path: Path, said: Outcome, active: bool) -> None:
    machine = FakeMachine(tmp_path, {"systemctl is-active x.service": said})
    assert services.is_active(machine, "x.service") is active


@pytest.mark.parametrize(("said", "enabled", "kept"), [
    (Outcome("enabled\n"), True, True), (Outcome("enabled-runtime\n"), False, True),
    (Outcome("disabled\n", 1), False, False), (Outcome("masked\n", 1), False, False),
    (Outcome("static\n"), False, False), (Outcome("alias\n"), False, False),
])
def test_is_enabled(tmp_path: Path, said: Outcome, enabled: bool, kept: bool) -> None:
    machine = FakeMachine(tmp_path, {
        "systemctl is-enabled x.service": said,
        "systemctl show": "LoadState=loaded\nActiveState=active\n",
    })
    assert services.is_enabled(machine, "x.service") is enabled
    assert services.states(machine, ("x.service",)) == [services.Unit("x.service", kept, True)]
    assert enable("x", "x.service").is_done(machine) is enabled


def test_without_systemd(tmp_path: Path) -> None:
    machine = FakeMachine(tmp_path).absent("systemctl")
    assert not services.is_active(machine, "x.service")
    assert not services.is_enabled(machine, "x.service")


# Ending orderly.

@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_polite_kill_is_an_interrupt(number: signal.Signals) -> None:
    before = {one: signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGHUP)}
    try:
        common.end_orderly()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


# Only that one.

@pytest.mark.parametrize(("pattern", "rooms", "places"), [
    (r"now\(\) \+ ", ("asha/bootstrap", "asha/commands", "asha/cluster"), set()),
    (r"time\.sleep\(", ("asha/bootstrap", "asha/cluster"), set()),
    # What the installer builds on may not import the installer's.
    (r'"is-(active|enabled)"', ("asha",),
     {"asha/bootstrap/host/services.py", "asha/cluster/cib.py"}),
    (r"^class Unit\b", ("asha/bootstrap",), {"asha/bootstrap/host/services.py"}),
    (r"flock\(\w", ("asha/bootstrap", "asha/commands", "asha/bootstrap/file_lock.py"),
     {"asha/bootstrap/file_lock.py"}),
    (r"signal\.signal\(", ("asha/bootstrap", "asha/commands"), {"asha/commands/common.py"}),
])
def test_nothing_does_it_another_way(
    pattern: str, rooms: tuple[str, ...], places: set[str]
) -> None:
    files = [one for room in rooms for one in (
        [REPOSITORY / room] if room.endswith(".py") else (REPOSITORY / room).rglob("*.py"))]
    found = {str(one.relative_to(REPOSITORY)) for one in files
             if re.search(pattern, one.read_text(), re.MULTILINE)}
    assert found == places
