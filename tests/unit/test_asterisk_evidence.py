"""Evidence: what is kept, that nothing of it can fail or delay the cure, and its bounds."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from asha.asterisk import evidence
from asha.asterisk.evidence import Collector, events_in, prune
from asha.asterisk.process.proc import Proc, Process
from asha.asterisk.talk.control import Console
from asha.ocf import Deadline, Failed
from asha.run.results import Expired
from asha.run.runner import Completed, Runner
from tests.fakes.asterisk import CONTROL, SECRET, FakeAsterisk, FakeProc


@pytest.fixture
def me() -> Process:
    process = Proc().process(os.getpid())
    assert process is not None
    return process


def gdb(*argv: str, cap: float | None = None) -> Completed:
    return Completed(argv, 0, "Thread 1 (LWP 1):\n#0 pthread_mutex_lock ()\n", "")


def test_only_events_are_deleted(tmp_path: Path) -> None:
    """The directory is a parameter: it may have other things in it."""
    others = ["20230101", "20240101-etc", "20250101.bak", "20250101-120000-7.bak", "202501-1-2-3"]
    for name in [*others, "20260101-120000-7", "20260102-120000-8"]:
        (tmp_path / name).mkdir()
    (tmp_path / "20240101-120000-6").symlink_to(tmp_path / "20230101")
    prune(str(tmp_path), 1, 100, Deadline(5))
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {*others, "20240101-120000-6", "20260102-120000-8"}


def test_no_log_is_read_through_a_link(tmp_path: Path, me: Process) -> None:
    """Asterisk's user may put there what he likes, and events are sent to others."""
    (tmp_path / "shadow").write_text("root:secret")
    (tmp_path / "messages").symlink_to(tmp_path / "shadow")
    os.mkfifo(tmp_path / "full")
    begun = time.monotonic()
    place = Collector(me, Deadline(5), gdb, str(tmp_path / "evidence")).collect(
        "", [], None, [str(tmp_path / "messages"), str(tmp_path / "full")]
    )
    assert time.monotonic() - begun < 3
    assert "cannot read" in Path(place, "log-messages.txt").read_text()
    assert "not an ordinary file" in Path(place, "log-full.txt").read_text()


@pytest.mark.skipif(os.geteuid() != 0, reason="makes a directory of another user's")
def test_no_log_is_read_below_a_directory_that_is_anothers(tmp_path: Path, me: Process) -> None:
    (tmp_path / "roots").mkdir()
    (tmp_path / "roots" / "full").write_text("secret")
    (tmp_path / "asterisk").mkdir()
    os.chown(tmp_path / "asterisk", 5000, 5000)
    (tmp_path / "asterisk" / "old").symlink_to(tmp_path / "roots")
    place = Collector(me, Deadline(5), gdb, str(tmp_path / "evidence")).collect(
        "", [], None, [f"{tmp_path}/asterisk/old/full"])
    assert "could be replaced" in Path(place, "log-full.txt").read_text()


def test_a_whole_event(tmp_path: Path, me: Process) -> None:
    log = tmp_path / "messages"
    log.write_text("first\n" * 50_000 + "the last line\n")
    with FakeAsterisk(tmp_path / "run") as fake:
        (endpoint,) = me.listening(fake.ami_port, ("tcp",))
        place = Collector(me, Deadline(5), gdb, str(tmp_path / "evidence")).collect(
            "dialplan lock is silent",
            [endpoint],
            Console(str(fake.folder), me),
            [str(log), str(tmp_path / "absent")],
        )
    folder = Path(place)
    assert folder.parent == tmp_path / "evidence"
    assert folder.stat().st_mode & 0o077 == 0
    assert f"{os.getpid()} " in (folder / "tasks.txt").read_text()
    assert "pthread_mutex_lock" in (folder / "backtraces.txt").read_text()
    assert f"port {fake.ami_port}: 0 unread" in (folder / "sockets.txt").read_text()
    assert "In Queue" in (folder / "taskprocessors.txt").read_text()
    kept = (folder / "log-messages.txt").read_text()
    assert kept.endswith("the last line\n")
    assert len(kept) == evidence.LOG_TAIL
    summary = (folder / "summary.txt").read_text()
    assert "Why: dialplan lock is silent" in summary
    assert "Not there" not in summary
    assert "threads:" in summary
    assert not (folder / "locks.txt").exists()  # this build does not know that command
    assert SECRET not in "".join(file.read_text() for file in folder.iterdir())


def test_what_cannot_be_had_is_said(tmp_path: Path, me: Process) -> None:
    def no_gdb(*argv: str, cap: float | None = None) -> Completed:
        return Completed(argv, 127, "", "timeout: failed to run command 'gdb'\n")

    with FakeAsterisk(tmp_path / "run") as fake:
        fake.silence(CONTROL)
        place = Collector(me, Deadline(5), no_gdb, str(tmp_path / "evidence")).collect(
            "AMI is silent", [], Console(str(fake.folder), me), []
        )
    summary = (Path(place) / "summary.txt").read_text()
    assert "no backtraces: program gdb is not installed" in summary
    assert "no core show taskprocessors: greeting" in summary


@pytest.mark.parametrize("halted", [False, True])
def test_a_killed_gdb_leaves_the_process_as_it_was(tmp_path: Path, halted: bool) -> None:
    with subprocess.Popen(["sleep", "600"]) as child:
        try:
            process = Proc().process(child.pid)
            assert process is not None
            left = _as_left_by_a_killed_gdb(process, tmp_path, halted)
        finally:
            child.kill()
    assert left == halted


def _as_left_by_a_killed_gdb(process: Process, place: Path, halted: bool) -> bool:
    """Whether the process is halted then."""

    def halt() -> None:
        os.kill(process.pid, signal.SIGSTOP)
        assert Deadline(5).poll(lambda: process.state == "T")

    def killed_gdb(*argv: str, cap: float | None = None) -> Completed:
        halt()  # as one does that is killed while it attaches
        raise Failed("gdb did not end within 1.0 s")

    if halted:
        halt()
    Collector(process, Deadline(5), killed_gdb, str(place)).collect("hung", [], None, [])
    return not Deadline(0.1 if halted else 5).poll(lambda: process.state != "T")


def test_what_is_halted_is_left_alone(tmp_path: Path) -> None:
    """Each second of gdb would be one without telephones, and tell nothing."""

    def never(*argv: str, cap: float | None = None) -> Completed:
        raise AssertionError("gdb was run")

    with subprocess.Popen(["sleep", "600"]) as child:
        try:
            process = Proc().process(child.pid)
            assert process is not None
            os.kill(child.pid, signal.SIGSTOP)
            assert Deadline(5).poll(lambda: process.state == "T")
            place = Collector(process, Deadline(5), never, str(tmp_path)).collect("x", [], None, [])
        finally:
            child.kill()
    assert "no backtraces" in (Path(place) / "summary.txt").read_text()
    assert "state T" in (Path(place) / "tasks.txt").read_text()


def test_gdb_is_not_left_waiting_for_a_thread_in_the_kernel(tmp_path: Path) -> None:
    """It would have to be killed: no backtrace, and seconds without telephones."""

    def never(*argv: str, cap: float | None = None) -> Completed:
        raise AssertionError("gdb was run")

    proc = FakeProc(tmp_path / "proc")
    proc.add(50, "asterisk")
    proc.task(50, 51, "D", name="db_sync")
    process = Proc(str(proc.root)).process(50)
    assert process is not None
    place = Collector(process, Deadline(5), never, str(tmp_path)).collect("hung", [], None, [])
    summary = (Path(place) / "summary.txt").read_text()
    assert "no backtraces: gdb would wait for thread 51 (db_sync)" in summary


def test_backtraces_that_take_too_long_are_kept_as_far_as_they_came(
    tmp_path: Path, me: Process
) -> None:
    def slow(*argv: str, cap: float | None = None) -> Completed:
        raise Expired("gdb did not end within 2.0 s", "Thread 9 (LWP 9):\n")

    place = Collector(me, Deadline(5), slow, str(tmp_path)).collect("hung", [], None, [])
    assert "Thread 9" in (Path(place) / "backtraces.txt").read_text()
    assert "not all backtraces: gdb did not end" in (Path(place) / "summary.txt").read_text()


def test_a_disk_that_hangs_delays_it_by_a_bounded_time(
    tmp_path: Path, me: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evidence, "LOOK_SECONDS", 0.2)
    monkeypatch.setattr(os, "makedirs", lambda *_, **__: time.sleep(600))
    assert Collector(me, Deadline(5), gdb, str(tmp_path)).collect("hung", [], None, []) == ""


def test_what_takes_too_long_is_left_out_and_not_all(
    tmp_path: Path, me: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evidence, "LOOK_SECONDS", 0.5)
    monkeypatch.setattr(evidence, "_tasks", lambda process: time.sleep(600))
    place = Path(Collector(me, Deadline(5), gdb, str(tmp_path)).collect("hung", [], None, []))
    assert "no tasks.txt" in (place / "summary.txt").read_text()
    assert (place / "backtraces.txt").exists()


def test_gdb_has_an_end_of_its_own(tmp_path: Path, me: Process) -> None:
    """Pacemaker may kill the monitor that would have ended it."""
    argv: list[str] = []

    def remember(*given: str, cap: float | None = None) -> Completed:
        assert cap is not None
        assert cap < float(given[2]) < cap + 2
        argv[:] = given
        return gdb(*given)

    Collector(me, Deadline(5), remember, str(tmp_path)).collect("hung", [], None, [])
    assert argv[:2] == ["timeout", "--signal=KILL"]
    assert argv[3] == "env"


@pytest.mark.skipif(os.geteuid() != 0, reason="starts a process of another user")
def test_gdb_opens_nothing_as_root_that_asterisk_names(common: Path, tmp_path: Path) -> None:
    """A device may do something when it is opened; here it is a FIFO that tells of it."""
    if shutil.which("gdb") is None:
        pytest.skip("needs the program gdb")
    library = common / "theirs.so"
    shutil.copy(_ctypes_library(), library)
    library.chmod(0o644)
    fifo = common / "fifo"
    os.mkfifo(fifo, 0o600)
    code = f"import ctypes, time; ctypes.CDLL({str(library)!r}); print(flush=True); time.sleep(99)"
    # In a mount namespace of its own, as PrivateTmp= makes one.
    asterisk = subprocess.Popen(
        ["unshare", "--mount", "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups",
         "/usr/bin/python3", "-c", code], stdout=subprocess.PIPE)
    opened = threading.Event()
    try:
        assert asterisk.stdout is not None
        assert asterisk.stdout.readline()
        library.unlink()
        library.symlink_to(fifo)
        threading.Thread(target=_wait_for_reader, args=(fifo, opened),
                         daemon=True).start()
        process = Proc().process(asterisk.pid)
        assert process is not None
        runner = Runner()

        def run(*argv: str, cap: float | None = None) -> Completed:
            return runner.run(argv, Deadline(cap or 1.0))

        place = Collector(process, Deadline(20), run, str(tmp_path / "evidence")).collect(
            "hung", [], None, [])
        assert "Py_RunMain" in (Path(place) / "backtraces.txt").read_text()
        assert not opened.is_set()
    finally:
        asterisk.kill()
        asterisk.wait()


@pytest.mark.skipif(os.geteuid() != 0, reason="starts a process of another user")
@pytest.mark.parametrize(("before", "capabilities"), [
    ((), 0),
    # As Asterisk keeps it when root has started it (main/asterisk.c, CAP_NET_ADMIN).
    (("--inh-caps=+net_admin", "--ambient-caps=+net_admin"), 1 << 12),
    # In a user namespace of its own it has all, and nothing outside.
    (("unshare", "--user", "--map-root-user"), 0),
])
def test_gdb_has_no_right_that_asterisk_has_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: tuple[str, ...], capabilities: int
) -> None:
    """What Asterisk has loaded can have gdb run a program; and CAP_SYS_PTRACE is root."""
    monkeypatch.setenv("OF_ROOT", "secret")
    asterisk = subprocess.Popen(
        ["setpriv", "--reuid=5000", "--regid=5001", "--clear-groups", *before,
         "sh", "-c", "echo; exec sleep 99"], stdout=subprocess.PIPE)
    had: dict[str, str] = {}

    def run(*argv: str, cap: float | None = None) -> Completed:
        command = argv[: argv.index("gdb")]
        said = Runner().run([*command, "sh", "-c", "cat /proc/self/status; env"], Deadline(9))
        for line in said.out.splitlines():
            name, _, value = line.partition(":")
            had[name] = value
        assert "OF_ROOT" not in said.out
        assert "auto-load off" in " ".join(argv)
        return said

    try:
        assert asterisk.stdout is not None
        if not asterisk.stdout.readline():
            pytest.skip("no user namespaces here")
        process = Proc().process(asterisk.pid)
        assert process is not None
        Collector(process, Deadline(9), run, str(tmp_path)).collect("hung", [], None, [])
    finally:
        asterisk.kill()
        asterisk.wait()
    assert had["Uid"].split() == ["5000"] * 4
    assert had["Gid"].split() == ["5001"] * 4
    assert not had["Groups"].strip()
    assert had["NoNewPrivs"].strip() == "1"
    for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(had[kind], 16) == capabilities


@pytest.fixture
def group() -> Iterator[Path]:
    """A control group of its own."""
    made = Path("/none")
    for root in ("/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd"):
        made = Path(root, f"asha-test-{os.getpid()}")
        try:
            if (Path(root) / "cgroup.procs").exists():
                made.mkdir()
                break
        except OSError:
            continue
    if not (made / "cgroup.procs").exists():
        pytest.skip("needs the right to make a control group")
    yield made
    assert Deadline(5).poll(lambda: not (made / "cgroup.procs").read_text())
    made.rmdir()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_gdb_is_not_among_the_clusters_processes(
    tmp_path: Path, group: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it starts for Asterisk's user would count as put there by the cluster."""
    asterisk = subprocess.Popen(["sleep", "99"])
    said: list[str] = []

    def run(*argv: str, cap: float | None = None) -> Completed:
        command = argv[: argv.index("gdb")]
        done = Runner().run([*command, "cat", "/proc/self/cgroup"], Deadline(9))
        said.append(done.out)
        return done

    try:
        (group / "cgroup.procs").write_text(str(asterisk.pid))
        process = Proc().process(asterisk.pid)
        assert process is not None
        Collector(process, Deadline(9), run, str(tmp_path)).collect("hung", [], None, [])
        monkeypatch.setattr(Process, "control_group_files", lambda self: [str(tmp_path)])
        other = str(tmp_path / "other")
        place = Collector(process, Deadline(9), run, other).collect("hung", [], None, [])
    finally:
        asterisk.kill()
        asterisk.wait()
    assert f"/{group.name}\n" in said[0]
    assert said[1] == ""
    assert "no backtraces: gdb cannot run among" in (Path(place) / "summary.txt").read_text()


def test_of_what_gdb_may_not_look_at_the_summary_says_why(tmp_path: Path, me: Process) -> None:
    def refused(*argv: str, cap: float | None = None) -> Completed:
        return Completed(argv, 0, "", "ptrace: Operation not permitted.\n")

    place = Collector(me, Deadline(5), refused, str(tmp_path)).collect("hung", [], None, [])
    assert "no backtraces: only root may" in (Path(place) / "summary.txt").read_text()
    assert not (Path(place) / "backtraces.txt").exists()


def _ctypes_library() -> str:
    """Some library that the process has not loaded yet."""
    found = sorted(Path("/usr/lib").glob("*/libz.so.1"))
    if not found:
        pytest.skip("needs libz")
    return str(found[0])


def _wait_for_reader(fifo: Path, opened: threading.Event) -> None:
    """Blocks until somebody opens the other end."""
    with fifo.open("wb"):
        opened.set()


def test_a_directory_that_cannot_be_made_is_no_error(tmp_path: Path, me: Process) -> None:
    (tmp_path / "file").touch()
    collector = Collector(me, Deadline(5), gdb, str(tmp_path / "file"))
    assert collector.collect("hung", [], None, []) == ""


def make_event(folder: Path, name: str, size: int = 10) -> None:
    (folder / name).mkdir()
    (folder / name / "tasks.txt").write_bytes(b"x" * size)


def test_the_oldest_go_first(tmp_path: Path) -> None:
    for day in range(1, 6):
        make_event(tmp_path, f"2026010{day}-120000-7")
    (tmp_path / "not-ours").mkdir()
    prune(str(tmp_path), 3, 100, Deadline(5))
    assert events_in(str(tmp_path)) == [f"2026010{day}-120000-7" for day in (3, 4, 5)]
    assert (tmp_path / "not-ours").is_dir()


def test_too_many_megabytes(tmp_path: Path) -> None:
    for day in range(1, 4):
        make_event(tmp_path, f"2026010{day}-120000-7", size=600 << 10)
    prune(str(tmp_path), 10, 1, Deadline(5))
    assert events_in(str(tmp_path)) == ["20260103-120000-7"]


def test_what_a_person_left_there_stops_no_pruning(tmp_path: Path) -> None:
    for day in range(1, 4):
        make_event(tmp_path, f"2026010{day}-120000-7")
    (tmp_path / "20260101-120000-7" / "unpacked").mkdir()
    packed = tmp_path / "20260101-120000-7.tar.gz"
    packed.write_text("packed")
    prune(str(tmp_path), 1, 100, Deadline(5))
    assert events_in(str(tmp_path)) == ["20260103-120000-7"]
    assert packed.exists()


def test_no_directory_has_no_events(tmp_path: Path) -> None:
    assert events_in(str(tmp_path / "absent")) == []
