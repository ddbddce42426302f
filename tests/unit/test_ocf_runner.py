"""asha.run.runner with real programs: none of them can hang or outlive us."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from asha.run import runner as module
from asha.run.deadline import Deadline
from asha.run.results import AgentError, Expired, Failed, NotInstalled
from asha.run.runner import Runner

# What a loaded machine may add to a wait that should be over at once.
SLACK = 5.0


def run(*argv: str, seconds: float = 30.0, **options: object) -> module.Completed:
    return Runner().run(argv, Deadline(seconds), **options)  # type: ignore[arg-type]


def sh(script: str, seconds: float = 30.0, **options: object) -> module.Completed:
    return run("sh", "-c", script, seconds=seconds, **options)


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(") ")[2][0] not in "ZX"
    except FileNotFoundError:
        return False


def eventually(condition: Callable[[], bool]) -> bool:
    return Deadline(SLACK).poll(condition, every=0.01)


@pytest.fixture
def stray(tmp_path: Path) -> Iterator[Path]:
    """A file for the pid of a process that must be gone after the test."""
    file = tmp_path / "stray"
    yield file
    if file.exists() and alive(int(file.read_text())):
        os.kill(int(file.read_text()), signal.SIGKILL)


@pytest.fixture(autouse=True)
def _nothing_is_left_open() -> Iterator[None]:
    before = len(os.listdir("/proc/self/fd"))
    yield
    assert len(os.listdir("/proc/self/fd")) == before


def test_output_and_code() -> None:
    done = sh("echo out; echo err >&2; exit 3")
    assert (done.code, done.out, done.err) == (3, "out\n", "err\n")
    assert not done.ok
    assert done.argv == ["sh", "-c", "echo out; echo err >&2; exit 3"]


def test_a_signal_is_a_negative_code() -> None:
    assert sh("kill -TERM $$").code == -signal.SIGTERM


def test_complaint_is_the_last_line_said() -> None:
    assert sh("echo a; echo b >&2; echo >&2; exit 1").complaint == "b"
    assert sh("echo a; exit 1").complaint == "a"
    assert sh("exit 4").complaint == "exit code 4"


def test_the_language_is_that_which_code_can_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    monkeypatch.setenv("ASHA_TEST", "kept")
    assert sh('echo "$LC_ALL $ASHA_TEST"').out == "C kept\n"
    given = {"PATH": os.environ["PATH"], "ONLY": "this"}
    assert sh('echo "$LC_ALL $ONLY $ASHA_TEST"', environ=given).out == "C this \n"


def test_200_kb_on_both_streams_at_once() -> None:
    code = "import sys\nfor _ in range(200):\n print('x' * 999)\n print('y' * 999, file=sys.stderr)"
    done = run(sys.executable, "-c", code)
    assert (len(done.out), len(done.err)) == (200_000, 200_000)


def test_all_that_a_program_prints_before_it_ends_is_there() -> None:
    # Written at once and then gone: the pipe holds it.
    for _ in range(50):
        assert len(sh("printf %60000s x").out) == 60_000


def test_more_output_than_anybody_needs_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "OUTPUT_MOST", 100_000)
    done = sh("head -c 50000000 /dev/zero")
    assert done.ok
    assert 100_000 <= len(done.out) < 100_000 + module.PIPE_MOST


def test_output_that_is_no_text() -> None:
    assert sh(r"printf '\377ok'").out == "\ufffdok"


def test_input_is_given_while_output_is_read() -> None:
    text = "é" * 200_000
    assert run("cat", stdin=text).out == text


def test_empty_input_ends_at_once() -> None:
    assert run("cat", stdin="").ok


def test_without_input_there_is_nothing_to_read() -> None:
    assert run("cat").out == ""


def test_a_program_that_does_not_want_its_input() -> None:
    assert sh("echo done", stdin="x" * 1_000_000).out == "done\n"


def test_a_program_that_closes_its_input_and_works_on() -> None:
    assert sh("exec <&-; sleep 0.2; echo done", stdin="x" * 1_000_000).out == "done\n"


def test_a_program_that_neither_reads_nor_ends() -> None:
    begun = time.monotonic()
    with pytest.raises(Expired, match=r"sleep 1000 did not end within 0\.2 s$"):
        run("sleep", "1000", seconds=0.2, stdin="x" * 1_000_000)
    assert time.monotonic() - begun < SLACK


def test_the_cap_ends_it_before_the_deadline() -> None:
    begun = time.monotonic()
    with pytest.raises(Expired, match=r"within 0\.2 s"):
        run("sleep", "1000", cap=0.2)
    assert time.monotonic() - begun < SLACK


def test_what_it_had_printed_by_then_is_kept() -> None:
    with pytest.raises(Expired) as late:
        sh("echo so far; sleep 1000", seconds=3.0)
    assert late.value.out == "so far\n"


def test_at_the_deadline_the_whole_group_is_killed(stray: Path) -> None:
    with pytest.raises(Expired):
        sh(f"sleep 1000 & echo $! >{stray}; wait", seconds=3.0)
    assert eventually(lambda: not alive(int(stray.read_text())))


def test_after_the_deadline_nothing_is_started(tmp_path: Path) -> None:
    with pytest.raises(Expired, match="about to run touch"):
        run("touch", str(tmp_path / "file"), seconds=0)
    assert list(tmp_path.iterdir()) == []


def test_a_daemon_that_holds_the_pipes_is_not_waited_for(stray: Path) -> None:
    begun = time.monotonic()
    done = sh(f"setsid sleep 1000 & echo $! >{stray}; echo done", seconds=60)
    assert (done.code, done.out) == (0, "done\n")
    assert time.monotonic() - begun < SLACK
    assert alive(int(stray.read_text()))


def test_a_daemon_that_writes_for_ever_is_not_waited_for(stray: Path) -> None:
    begun = time.monotonic()
    assert sh(f"setsid yes & echo $! >{stray}", seconds=60).ok
    assert time.monotonic() - begun < SLACK


def test_a_hung_program_whose_child_holds_the_pipes_in_another_session(stray: Path) -> None:
    begun = time.monotonic()
    with pytest.raises(Expired):
        sh(f"setsid sleep 1000 & echo $! >{stray}; sleep 1000", seconds=0.5)
    assert time.monotonic() - begun < SLACK


def test_what_not_even_sigkill_ends_is_named(stray: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # State D cannot be had without a broken disk; a kill that does nothing can.
    monkeypatch.setattr(os, "killpg", lambda pid, number: None)
    begun = time.monotonic()
    with pytest.raises(Expired, match=r"within 0\.2 s and cannot be killed: a disk or a device"):
        sh(f"echo $$ >{stray}; exec sleep 1000", seconds=0.2)
    assert time.monotonic() - begun < SLACK


def test_an_interrupt_ends_the_program_too(stray: Path) -> None:
    def interrupt(number: int, frame: object) -> None:
        if stray.exists() and stray.read_text().endswith("\n"):
            signal.setitimer(signal.ITIMER_REAL, 0)  # once: it may take its time to clean up
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
    try:
        with pytest.raises(KeyboardInterrupt):
            sh(f"echo $$ >{stray}; exec sleep 1000")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert not alive(int(stray.read_text()))


def test_a_program_that_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    # A developer's own PATH may name a folder that this user may not enter.
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    with pytest.raises(NotInstalled, match="program asha-no-such is not installed"):
        run("asha-no-such")
    with pytest.raises(NotInstalled, match="program /nowhere/x is not installed"):
        run("/nowhere/x")


def test_a_file_that_is_no_program(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("hello")
    with pytest.raises(NotInstalled, match="Permission denied"):
        run(str(tmp_path / "text"))
    with pytest.raises(NotInstalled, match="Permission denied"):
        run(str(tmp_path))


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.ENOMEM, errno.EMFILE])
def test_a_short_machine_is_not_a_missing_program(
    monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*argv: object, **options: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(subprocess, "Popen", refuse)
    with pytest.raises(AgentError) as raised:
        run("true")
    assert type(raised.value) is Failed
    assert os.strerror(number) in raised.value.reason


def test_children_inherit_what_is_kept_open(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC)
    try:
        holder = Runner(keep_open=(descriptor,))
        look = ["readlink", f"/proc/self/fd/{descriptor}"]
        assert holder.run(look, Deadline(30)).out == f"{tmp_path}/lock\n"
        assert not holder.run(look, Deadline(30), share_lock=False).ok
    finally:
        os.close(descriptor)


def test_a_daemon_that_stays_in_the_foreground_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LEAVE_EVERY", 0.1)
    ends = tmp_path / "pid"
    begun = time.monotonic()
    done = Runner().run(
        ["sh", "-c", f"echo $$ > {ends}.new; mv {ends}.new {ends}; while echo; do sleep 1; done"],
        Deadline(30), share_lock=False, leave=ends.exists,
    )
    pid = int(ends.read_text())
    try:
        assert done.ok
        assert time.monotonic() - begun < 20
        time.sleep(1.5)  # no pipe of it has broken
        assert alive(pid)
    finally:
        os.kill(pid, signal.SIGKILL)
    failed = Runner().run(["sh", "-c", "echo no >&2; exit 3"], Deadline(30), leave=lambda: False)
    assert (failed.code, failed.err) == (3, "no\n")
    with pytest.raises(Expired):
        Runner().run(["sleep", "100"], Deadline(0.5), leave=lambda: False)


def test_a_daemon_inherits_nothing_that_we_inherited(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path / "other", os.O_CREAT | os.O_RDWR)
    os.set_inheritable(descriptor, True)  # as Pacemaker's might be
    try:
        look = ["readlink", f"/proc/self/fd/{descriptor}"]
        assert not Runner().run(look, Deadline(30), share_lock=False).ok
    finally:
        os.close(descriptor)


def test_the_lock_is_held_until_the_daemon_bears_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    descriptor = os.open(tmp_path / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC)
    options: dict[str, object] = {}
    genuine = subprocess.Popen

    def remember(*argv: Any, **given: Any) -> Any:
        options.update(given)
        return genuine(*argv, **given)

    monkeypatch.setattr(subprocess, "Popen", remember)
    try:
        Runner(keep_open=(descriptor,)).run(["true"], Deadline(30), share_lock=False)
    finally:
        os.close(descriptor)
    # Closed by Popen, the lock would be free a moment before the program runs.
    assert options["close_fds"] is False
