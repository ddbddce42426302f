"""No agent imports modules that dpkg is just replacing."""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from asha import gate

HERE = Path(__file__).parents[2]


def agent(tmp_path: Path) -> subprocess.Popen[str]:
    """A process that says when it starts and when it is through, and then waits for its input."""
    code = (
        "import sys; from asha import gate; print('here', flush=True);"
        f"gate.enter({str(tmp_path / 'lock')!r}, {str(tmp_path / 'gate')!r});"
        "print('through', flush=True); sys.stdin.read()"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=HERE, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def free(lock: Path) -> bool:
    """Whether an upgrade could begin."""
    with open(lock, "w", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def test_an_open_gate_is_passed_and_the_lock_held_until_the_end(tmp_path: Path) -> None:
    with agent(tmp_path) as process:
        assert line(process) == "here"
        assert line(process) == "through"
        assert not free(tmp_path / "lock")
        process.communicate()
    assert free(tmp_path / "lock")


def test_a_closed_gate_is_waited_for_and_the_upgrade_is_not_kept(tmp_path: Path) -> None:
    closed = tmp_path / "gate"
    closed.touch()
    with agent(tmp_path) as process:
        assert line(process) == "here"
        # preinst waits for the lock; those at the gate must let it have it.
        with open(tmp_path / "lock", "w", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            os.set_blocking(process.stdout.fileno(), False)  # type: ignore[union-attr]
            assert line(process) == ""
            os.set_blocking(process.stdout.fileno(), True)  # type: ignore[union-attr]
        assert process.poll() is None
        closed.unlink()
        assert line(process) == "through"
        process.communicate()


@pytest.mark.parametrize("age", [gate.PATIENCE + 1, -60.0])
def test_a_gate_left_by_a_dead_dpkg_is_passed(tmp_path: Path, age: float) -> None:
    closed = tmp_path / "gate"
    closed.touch()
    then = time.time() - age
    os.utime(closed, (then, then))
    with agent(tmp_path) as process:
        assert line(process) == "here"
        assert line(process) == "through"
        process.communicate()


def quick_agent(tmp_path: Path) -> subprocess.Popen[str]:
    """One with half a second of patience, that says how much was used."""
    code = (
        "from asha import gate; gate.PATIENCE = 0.5;"
        f"gate.enter({str(tmp_path / 'lock')!r}, {str(tmp_path / 'gate')!r});"
        "print(gate.waited, flush=True)"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code], cwd=HERE, stdout=subprocess.PIPE, text=True
    )


@contextlib.contextmanager
def killed(process: subprocess.Popen[str], after: float) -> Iterator[None]:
    timer = threading.Timer(after, process.kill)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def test_a_lock_that_somebody_keeps_is_waited_for_no_longer_than_a_gate(tmp_path: Path) -> None:
    with open(tmp_path / "lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with quick_agent(tmp_path) as process, killed(process, after=10):
            said, _ = process.communicate()
    assert 0.5 <= float(said) < 5


def test_a_gate_that_is_put_up_again_and_again_is_waited_for_once(tmp_path: Path) -> None:
    closed = tmp_path / "gate"
    closed.touch()
    with quick_agent(tmp_path) as process, killed(process, after=10):
        while process.poll() is None:  # preinst does, when it has waited for the lock
            closed.touch()
        said, _ = process.communicate()
    assert 0.5 <= float(said) < 5


def test_nobody_else_can_keep_the_lock(tmp_path: Path) -> None:
    old = os.umask(0o022)
    try:
        with agent(tmp_path) as process:
            assert line(process) == "here"
            assert line(process) == "through"
            assert (tmp_path / "lock").stat().st_mode & 0o077 == 0
            process.communicate()
    finally:
        os.umask(old)
    preinst = (HERE / "debian/asha.preinst").read_text(encoding="utf-8")
    assert preinst.index("umask 077") < preinst.index(f"flock --timeout 10 {gate.LOCK}")


def test_who_may_not_lock_does_not_wait(tmp_path: Path) -> None:
    closed = tmp_path / "gate"
    closed.touch()
    gate.enter(str(tmp_path / "no such directory" / "lock"), str(closed))


def test_the_package_and_the_agents_mean_the_same_files() -> None:
    preinst = (HERE / "debian/asha.preinst").read_text(encoding="utf-8")
    assert preinst.count(gate.GATE) == 2
    assert gate.LOCK in preinst
    for script in ("postinst", "postrm"):
        assert f"GATE={gate.GATE}\n" in (HERE / f"debian/asha.{script}").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["asterisk-health", "sark-data", "rhino-relay"])
def test_every_agent_waits_before_it_imports_the_rest(name: str) -> None:
    text = (HERE / "agents" / name).read_text(encoding="utf-8")
    imports = [row for row in text.splitlines() if row.startswith(("import ", "from "))]
    assert imports[:2] == ["import sys", "from asha import gate"]
    assert 0 < text.index("gate.enter()") < text.index(imports[2])
