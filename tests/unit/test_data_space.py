"""The write probe and the room it reports."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import pytest

from asha.data import space
from asha.data.space import Space, probe, size
from asha.ocf import Deadline, Failed
from asha.run.child import start_time

GB = 10**9


@pytest.fixture
def memory(tmp_path: Path) -> str:
    return str(tmp_path / "stuck")


@pytest.fixture
def root(tmp_path: Path) -> str:
    (tmp_path / "drbd").mkdir()
    return str(tmp_path / "drbd")


def fail_with(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(root: str, node: str) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(space, "_write", write)


def test_it_writes_one_file_of_its_node_again_and_again(root: str, memory: str) -> None:
    for _ in range(2):
        room = probe(root, "crm1", memory, Deadline(20))
        assert room.total > room.free > 0
    files = [str(path.relative_to(root)) for path in Path(root).rglob("*")]
    assert sorted(files) == [".asha", ".asha/probe.crm1"]
    assert Path(root, ".asha/probe.crm1").read_bytes() == space.PROBE_TEXT
    assert not os.path.exists(memory)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_no_room_is_an_answer_and_no_failure(
    number: int, root: str, memory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_with(number, monkeypatch)
    assert probe(root, "crm1", memory, Deadline(20)).is_full


@pytest.mark.parametrize(
    ("number", "reason"),
    [(errno.EROFS, "read-only: "), (errno.EIO, "cannot write to {root}: Input/output error")],
)
def test_other_errors_are_failures(
    number: int, reason: str, root: str, memory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_with(number, monkeypatch)
    with pytest.raises(Failed) as caught:
        probe(root, "crm1", memory, Deadline(20))
    assert caught.value.reason.startswith(reason.format(root=root))


def test_a_slow_disk_is_stalled_and_leaves_no_child(
    root: str, memory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(space, "_write", lambda root, node: time.sleep(1000))
    with pytest.raises(Failed, match=r"^stalled: .* within 0\.2 s"):
        probe(root, "crm1", memory, Deadline(0.2))
    assert not os.path.exists(memory), "the child could be killed"


def test_a_child_that_still_hangs_is_not_given_a_brother(
    root: str, memory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    me = os.getpid()
    Path(memory).write_text(f"{me} {start_time(me)}")
    with pytest.raises(Failed, match=f"^stalled: .*pid {me}"):
        probe(root, "crm1", memory, Deadline(20))
    assert os.listdir(root) == [], "nothing was written"


@pytest.mark.parametrize("text", ["", "12", "nonsense", "1 1", "999999999 5"])
def test_a_child_that_is_gone_is_forgotten(text: str, root: str, memory: str) -> None:
    Path(memory).write_text(text)
    assert probe(root, "crm1", memory, Deadline(20)).total


def test_a_link_is_not_followed(root: str, memory: str, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    Path(root, ".asha").mkdir()
    Path(root, ".asha/probe.crm1").symlink_to(victim)
    with pytest.raises(Failed, match="cannot write"):
        probe(root, "crm1", memory, Deadline(20))
    assert victim.read_text() == "mine"


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0 kB"),
        (999_999, "999 kB"),
        (1_500_000, "1.5 MB"),
        (512 * 10**6, "512 MB"),
        (20 * GB, "20 GB"),
        (3 * 10**12, "3.0 TB"),
    ],
)
def test_sizes_for_people(number: int, text: str) -> None:
    assert size(number) == text


def test_room_in_words() -> None:
    assert str(Space(512 * 10**6, 20 * GB)) == "512 MB free of 20 GB (2 %)"
    assert str(Space(GB, GB, has_inodes=False)) == "no room for one more file"


@pytest.mark.parametrize(
    ("room", "full"),
    [
        (Space(0, GB), True),
        (Space(space.FULL_BYTES - 1, GB), True),
        (Space(space.FULL_BYTES, GB), False),
        (Space(GB, GB, has_inodes=False), True),
    ],
)
def test_full(room: Space, full: bool) -> None:
    assert room.is_full is full


def test_the_blocks_kept_for_root_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    values = (4096, 4096, 1000, 50, 0, 100, 10, 0, 0, 255)
    monkeypatch.setattr(os, "statvfs", lambda path: os.statvfs_result(values))
    room = space.measure("/drbd")
    assert (room.free, room.total, room.is_full) == (0, 950 * 4096, True)
    assert not room.has_inodes


def test_a_file_system_that_counts_no_inodes(monkeypatch: pytest.MonkeyPatch) -> None:
    values = (4096, 4096, 1000, 500, 500, 0, 0, 0, 0, 255)
    monkeypatch.setattr(os, "statvfs", lambda path: os.statvfs_result(values))
    assert space.measure("/drbd").has_inodes
