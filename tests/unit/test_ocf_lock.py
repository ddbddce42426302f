"""asha.run.lock: one changing action at a time, also after an agent was killed."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from asha.run import lock as module
from asha.run.deadline import Deadline
from asha.run.results import Expired


class Taker:
    """Takes the lock and remembers what was said; gives it up after the test."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.said: list[str] = []
        self._taken: list[int] = []

    def __call__(self, seconds: float = 30.0, end_leftovers: bool = False) -> int | None:
        taken = module.take(
            str(self.path), Deadline(seconds), end_leftovers=end_leftovers, warn=self.said.append
        )
        if taken is not None:
            self._taken.append(taken)
        return taken

    def give_up(self) -> None:
        for descriptor in self._taken:
            os.close(descriptor)
        self._taken.clear()


@pytest.fixture
def take(tmp_path: Path) -> Iterator[Taker]:
    taker = Taker(tmp_path / "state" / "p.lock")
    yield taker
    taker.give_up()


@pytest.fixture
def leave_behind(take: Taker) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Start a program that inherits the lock, as a killed agent's child would."""
    started: list[subprocess.Popen[bytes]] = []

    def leave(*argv: str) -> subprocess.Popen[bytes]:
        descriptor = take()
        assert descriptor is not None
        started.append(subprocess.Popen(argv, pass_fds=[descriptor], start_new_session=True))
        take.give_up()
        return started[-1]

    yield leave
    for process in started:
        process.kill()
        process.wait()


def is_free(path: Path) -> bool:
    with path.open("r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def test_it_is_taken_and_given_up(take: Taker) -> None:
    assert take() is not None
    assert not is_free(take.path)
    take.give_up()
    assert is_free(take.path)
    assert take.said == []


def test_it_is_private_and_not_inherited_by_chance(take: Taker) -> None:
    descriptor = take()
    assert descriptor is not None
    assert os.stat(take.path).st_mode & 0o777 == 0o600
    assert not os.get_inheritable(descriptor)


def test_a_second_taker_waits_and_names_the_first(
    take: Taker, leave_behind: Callable[..., subprocess.Popen[bytes]]
) -> None:
    child = leave_behind("sleep", "1000")
    with pytest.raises(Expired, match=rf"still at work: sleep \({child.pid}\)"):
        take(0.3)
    assert child.poll() is None


def test_nothing_stays_open_when_it_does_not_come_free(
    take: Taker, leave_behind: Callable[..., subprocess.Popen[bytes]]
) -> None:
    leave_behind("sleep", "1000")
    before = os.listdir("/proc/self/fd")
    with pytest.raises(Expired):
        take(0.1)
    assert len(os.listdir("/proc/self/fd")) == len(before)


def test_it_comes_free_when_the_last_child_has_ended(
    take: Taker, leave_behind: Callable[..., subprocess.Popen[bytes]]
) -> None:
    leave_behind("sleep", "0.3")
    assert take() is not None
    assert take.said == []


def test_a_stop_kills_what_holds_it_too_long(
    take: Taker, leave_behind: Callable[..., subprocess.Popen[bytes]]
) -> None:
    child = leave_behind("sh", "-c", "sleep 1000; true")
    assert take(2.0, end_leftovers=True) is not None
    assert child.wait(timeout=30) == -signal.SIGKILL
    # The shell and what it ran: both had the lock.
    assert len(take.said) == 2
    assert f"killed sh ({child.pid}), left over from an earlier action" in take.said


def test_a_stop_lets_a_quick_child_finish(
    take: Taker, leave_behind: Callable[..., subprocess.Popen[bytes]]
) -> None:
    child = leave_behind("sleep", "0.3")
    assert take(30, end_leftovers=True) is not None
    assert child.wait(timeout=30) == 0
    assert take.said == []


def test_a_stop_gives_up_on_what_cannot_be_killed(
    take: Taker,
    leave_behind: Callable[..., subprocess.Popen[bytes]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    child = leave_behind("sleep", "1000")
    with monkeypatch.context() as patched:
        patched.setattr(module, "send", lambda pid, started, number: None)
        with pytest.raises(Expired, match=rf"still at work: sleep \({child.pid}\)"):
            take(0.3, end_leftovers=True)


def test_our_own_process_is_never_killed(take: Taker) -> None:
    assert take() is not None
    with pytest.raises(Expired, match="a process out of sight"):
        take(0.2, end_leftovers=True)


def test_without_a_place_for_it_the_action_goes_on(take: Taker, tmp_path: Path) -> None:
    take.path.parent.write_text("a file where the folder should be")
    assert take() is None
    assert len(take.said) == 1
    assert "goes without its lock" in take.said[0]


def test_without_locks_in_the_kernel_the_action_goes_on(
    take: Taker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    assert take() is not None
    assert "No locks available" in take.said[0]
