"""What root opens of another mount namespace: only that, whoever puts what in its place."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from asha.data.copies import Namespace
from asha.ocf import Deadline, Failed
from asha.ocf.child import in_child


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
