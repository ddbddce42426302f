"""Who keeps a directory busy: real processes, and no mount needed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from asha.data.kernel import Looker, Sight
from asha.data.release import holders
from asha.data.release.holders import Holder
from asha.ocf import Deadline
from asha.run.child import in_child, stat_of

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Runs Python code that prints a line when it is ready, and waits."""
    running: list[subprocess.Popen[str]] = []

    def begin(code: str, **options: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", f"{code}\nprint(flush=True)\nimport time\ntime.sleep(1000)"],
            stdout=subprocess.PIPE,
            text=True,
            cwd=options.get("cwd", "/"),
        )
        running.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "\n"
        return process

    yield begin
    for process in running:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


@pytest.fixture
def point(tmp_path: Path) -> str:
    (tmp_path / "etc" / "deep").mkdir(parents=True)
    (tmp_path / "etc" / "file").write_text("x" * 5000)
    return str(tmp_path / "etc")


def pids(found: list[Holder]) -> list[int]:
    return [holder.pid for holder in found]


def test_an_open_file(start: Start, point: str) -> None:
    process = start(f"f = open({point + '/file'!r})")
    (holder,) = holders.find([point])
    assert holder.pid == process.pid
    assert not holder.protected
    comm = Path(f"/proc/{process.pid}/comm").read_text().strip()
    assert str(holder) == f"{point} is held by {comm} (pid {process.pid})"


def test_a_deleted_file(start: Start, point: str) -> None:
    process = start(f"import os; f = open({point + '/file'!r}); os.unlink(f.name)")
    assert pids(holders.find([point])) == [process.pid]


def test_the_working_directory(start: Start, point: str) -> None:
    process = start("", cwd=point + "/deep")
    assert pids(holders.find([point])) == [process.pid]


def test_a_memory_map_without_a_descriptor_is_for_the_thorough(start: Start, point: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root: /proc/PID/map_files is for root only")
    process = start(
        f"import mmap; f = open({point + '/file'!r}, 'r+b');"
        f" m = mmap.mmap(f.fileno(), 0); f.close(); import os; os.closerange(3, 100)"
    )
    assert holders.find([point]) == []
    found = [Holder.from_line(line) for line in holders.look([point], holders.pids(), True) if line]
    assert pids(found) == [process.pid]


def test_names_that_only_begin_alike_hold_nothing(start: Start, point: str) -> None:
    for other in (point + "-old", point + " (deleted) x", point + " more"):
        Path(other).write_text("x")
        start(f"f = open({other!r})")
    assert holders.find([point]) == []


def test_the_same_name_on_another_device_holds_nothing(
    start: Start, point: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was opened before the mount lies under it and does not keep it busy."""
    start(f"f = open({point + '/file'!r})")
    real = Looker.look

    def look(looker: Looker, path: str) -> Sight | None:
        sight = real(looker, path)
        if path == point and sight is not None:
            sight.device += "1"
        return sight

    monkeypatch.setattr(Looker, "look", look)
    assert holders.find([point]) == []


def test_we_and_those_who_started_us_are_protected(point: str) -> None:
    with open(point + "/file"):
        # In a child, as the agent does; what the child inherited does not count.
        answer = in_child(
            lambda: "\n".join(one.to_line() for one in holders.find([point])),
            Deadline(20),
            "looking",
        )
    holder = Holder.from_line(answer)
    assert holder.pid == os.getpid()
    assert holder.protected
    assert {1, os.getpid(), os.getppid()} <= holders.family()


def test_a_kernel_thread_is_protected() -> None:
    about = stat_of(2)
    if about is None or not int(about[6]) & holders.PF_KTHREAD:
        pytest.skip("kernel threads are not visible here")
    found = holders.describe(2, "/x", set())
    assert found is not None
    assert found.protected


def test_the_way_from_the_child(start: Start, point: str) -> None:
    start(f"f = open({point + '/file'!r})")
    (holder,) = holders.find([point])
    again = Holder.from_line(holder.to_line())
    assert (again.pid, again.started, again.protected, again.point, again.name) == (
        holder.pid,
        holder.started,
        holder.protected,
        holder.point,
        holder.name,
    )


def test_a_signal_goes_to_that_process_only(start: Start, point: str) -> None:
    process = start(f"f = open({point + '/file'!r})")
    (holder,) = holders.find([point])
    earlier = Holder(holder.pid, "1", False, holder.point, holder.name)
    assert earlier.is_gone
    earlier.send(signal.SIGKILL)
    assert process.poll() is None
    holder.send(signal.SIGTERM)
    assert process.wait(timeout=20) == -signal.SIGTERM
    assert Deadline(20).poll(lambda: holder.is_gone)
    holder.send(signal.SIGKILL)  # gone is no error


def test_a_look_is_that_of_stat(point: str) -> None:
    looker = Looker()
    about = os.stat(point)
    sight = looker.look(point)
    assert sight is not None
    assert sight.inode == about.st_ino
    assert sight.device == f"{os.major(about.st_dev)}:{os.minor(about.st_dev)}"
    assert looker.look(point + "/nothing") is None


def test_a_name_cannot_forge_a_line(start: Start, point: str) -> None:
    code = "open('/proc/self/comm', 'wb').write(bytes([27]) + b'[2J' + bytes([0xff]) + b'x')"
    start(f"{code}; f = open({point + '/file'!r})")
    (holder,) = holders.find([point])
    assert holder.name.isprintable()
    assert holder.name.startswith("\\x1b[2J")
