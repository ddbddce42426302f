"""Loop devices and swap files on the store: what a stop says of them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from asha.data.release import loops


@pytest.fixture
def blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "block"
    for name in ("asha-none", "asha-loop"):
        (folder / name / "loop").mkdir(parents=True)
    monkeypatch.setattr(loops, "BLOCKS", str(folder))
    monkeypatch.setattr(loops, "SWAPS", str(tmp_path / "swaps"))
    return folder


def test_by_their_names(blocks: Path) -> None:
    (blocks / "asha-loop/loop/backing_file").write_text("/drbd/a\nb \n")
    assert loops.look([], ["/dr", "/drb"]) == []
    (said,) = loops.look([], ["/srv", "/drbd"])
    assert "losetup -d /dev/asha-loop" in said
    assert "\n" not in said


def test_swap_by_its_name_and_by_its_disk(blocks: Path, tmp_path: Path) -> None:
    file = tmp_path / "a swap"
    file.touch()
    name = str(file).replace(" ", "\\040")
    Path(loops.SWAPS).write_text(f"Filename Type Size\n{name} file 1 0 -2\n/dev/sda2 partition\n")
    said = [f"swap file {file}: swapoff {file}"]
    assert loops.look([], [str(tmp_path)]) == said
    device = file.stat().st_dev
    assert loops.look([f"{os.major(device)}:{os.minor(device)}"], []) == said
    assert loops.look(["1:1"], ["/drbd"]) == []
