"""Work in a child that can be abandoned."""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from asha.ocf import AgentError, BadConfig, Deadline, Degraded, Exit, Failed, NotInstalled
from asha.run.child import NoAnswer, in_child, is_alive, start_time, stat_of


def hang() -> str:
    time.sleep(1000)
    return ""


def die() -> str:
    os.kill(os.getpid(), signal.SIGKILL)
    return ""


def children() -> set[str]:
    """Of this process, zombies included; other tests may have left some."""
    tasks = Path("/proc/self/task").iterdir()
    return {pid for task in tasks for pid in (task / "children").read_text().split()}


def test_the_text_comes_back_whole() -> None:
    text = "ü\n" * 200_000 + "\udcff"
    before = children()
    assert in_child(lambda: text, Deadline(20), "writing") == text
    assert children() <= before


@pytest.mark.parametrize("refused", [3, 10_000])
def test_a_fork_that_is_refused_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, refused: int
) -> None:
    """A machine that is out of processes for a moment must not fail a stop."""
    fork, left = os.fork, [refused]

    def sparing() -> int:
        if left[0]:
            left[0] -= 1
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
        return fork()

    monkeypatch.setattr(os, "fork", sparing)
    files = len(os.listdir("/proc/self/fd"))
    if refused == 3:
        assert in_child(lambda: "done", Deadline(20), "writing") == "done"
    else:
        with pytest.raises(Failed, match="writing could not begin: Resource temporarily"):
            in_child(lambda: "done", Deadline(0.2), "writing")
    assert len(os.listdir("/proc/self/fd")) == files


@pytest.mark.parametrize("kind", [BadConfig, NotInstalled, Failed, Degraded])
def test_an_agents_error_comes_back_as_it_was(kind: type[AgentError]) -> None:
    def work() -> str:
        raise kind("two\nlines")

    with pytest.raises(kind) as caught:
        in_child(work, Deadline(20), "failing")
    assert caught.value.reason == "two\nlines"
    assert caught.value.code == kind.code


@pytest.mark.parametrize("problem", [OSError(5, "Input/output error"), SystemExit(0)])
def test_any_other_error_is_a_failure(problem: BaseException) -> None:
    def work() -> str:
        raise problem

    with pytest.raises(Failed) as caught:
        in_child(work, Deadline(20), "failing")
    assert caught.value.code == Exit.ERR_GENERIC
    assert type(problem).__name__ in caught.value.reason


def test_a_child_that_hangs_is_killed_and_named() -> None:
    others = children()
    before = time.monotonic()
    with pytest.raises(NoAnswer) as caught:
        in_child(hang, Deadline(0.2), "waiting for Godot")
    assert time.monotonic() - before < 10
    assert re.fullmatch(r"waiting for Godot did not end within 0\.\d s", caught.value.reason)
    assert not caught.value.stuck
    assert stat_of(caught.value.pid) is None
    assert children() <= others


def test_a_child_that_is_killed_gave_no_answer() -> None:
    with pytest.raises(Failed, match="dying ended without an answer"):
        in_child(die, Deadline(20), "dying")


def test_the_child_holds_no_output_open() -> None:
    links = in_child(
        lambda: " ".join(os.readlink(f"/proc/self/fd/{number}") for number in (0, 1, 2)),
        Deadline(20),
        "looking",
    )
    assert links == "/dev/null /dev/null /dev/null"


def test_an_interrupted_wait_takes_the_child_along() -> None:
    class Interrupted(Deadline):
        def remaining(self, cap: float | None = None) -> float:
            if cap is not None:
                raise KeyboardInterrupt
            return super().remaining()

    with pytest.raises(KeyboardInterrupt):
        in_child(hang, Interrupted(20), "waiting")
    _, status = os.wait()
    assert os.WTERMSIG(status) == signal.SIGKILL


def test_a_process_is_known_by_pid_and_start() -> None:
    pid = os.getpid()
    started = start_time(pid)
    assert is_alive(pid, started)
    assert not is_alive(pid, "1")
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    assert not is_alive(child, start_time(child)), "a zombie is not alive"
    os.waitpid(child, 0)
    assert start_time(child) == ""


def test_a_thread_that_outlives_its_process_is_alive() -> None:
    code = (
        "import ctypes, threading, time\n"
        "threading.Thread(target=lambda: (print(flush=True), time.sleep(1000))).start()\n"
        "ctypes.CDLL(None).pthread_exit(None)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        process.stdout.readline()
        assert Deadline(20).poll(lambda: (stat_of(process.pid) or " ")[0] == "Z")
        assert is_alive(process.pid, start_time(process.pid))
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.mark.parametrize("kind", [Failed, ValueError])
def test_a_reason_that_quotes_without_end_is_cut(kind: type[Exception]) -> None:
    """It is what others have written: a database's names, a file's lines."""

    def work() -> str:
        raise kind("x" * 10_000_000)

    with pytest.raises(Failed) as caught:
        in_child(work, Deadline(20), "looking")
    assert len(caught.value.reason) < 20_000
