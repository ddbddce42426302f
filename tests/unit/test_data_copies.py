"""What root opens of another mount namespace: only that, whoever puts what in its place."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

import pytest

from asha.data.release import copies, holders
from asha.data.release.copies import Namespace
from asha.ocf import Deadline, Failed
from asha.run.child import in_child


def test_a_fifo_in_the_place_of_a_namespace_keeps_nobody_waiting(tmp_path: Path) -> None:
    """Who was seen to keep one has put another descriptor under its number."""
    os.mkfifo(tmp_path / "fifo")
    kept = os.open(tmp_path / "fifo", os.O_PATH)
    proc = os.open("/proc", os.O_PATH)
    about = os.stat("/proc/self/ns/mnt")
    space = Namespace(about.st_ino, f"{os.getpid()}/fd/{kept}", 1000, about.st_dev)
    with pytest.raises(Failed, match="FileNotFoundError"):
        in_child(lambda: str(space.reach(proc)), Deadline(5), "reaching")
    space.path = "self/ns/mnt"
    reached = space.reach(proc)
    assert os.path.samestat(os.fstat(reached), about)
    for one in (kept, proc, reached):
        os.close(one)


@pytest.mark.parametrize("chunk", [1, 7, 1 << 20])
def test_what_is_only_mapped_is_found_in_a_map_that_is_read_by_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr(copies, "CHUNK", chunk)
    monkeypatch.setattr(holders, "of_task", lambda task: iter(()))
    file = tmp_path / "file"
    file.write_bytes(b"x" * 4096)
    with file.open("rb") as opened:
        held = mmap.mmap(opened.fileno(), 4096, access=mmap.ACCESS_READ)
    device = file.stat().st_dev
    named = f"{os.major(device)}:{os.minor(device)}"
    found = {line.split()[0] for line in copies.look(named, [os.getpid()], True) if line}
    assert found == {"holds"}
    held.close()
