"""asha plan --scripts: what root is to run lies where nobody else can write."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from asha.bootstrap.action import Step
from asha.commands.plan import _write
from asha.errors import UserError

STEPS = [Step(10, "first", "the first", [])]


def test_a_directory_is_made_and_written_again(tmp_path: Path) -> None:
    for _ in range(2):
        assert _write(STEPS, str(tmp_path / "new")) == 0
    script = tmp_path / "new" / "10-first.sh"
    assert script.read_text().startswith("#!/bin/sh")
    assert os.access(script, os.X_OK)


@pytest.mark.parametrize("how", ["owner", "mode", "above"])
def test_not_where_others_write(tmp_path: Path, how: str) -> None:
    folder = tmp_path / "theirs" / "in"
    folder.mkdir(parents=True)
    victim = tmp_path / "shadow"
    victim.write_text("root")
    (folder / "10-first.sh").symlink_to(victim)
    place = folder.parent if how == "above" else folder
    if how == "mode":
        place.chmod(0o777)
    elif os.geteuid() != 0:
        pytest.skip("needs root: it gives a directory away")
    else:
        os.chown(place, 5000, 5000)
    with pytest.raises(UserError) as caught:
        _write(STEPS, str(folder))
    assert "theirs" in str(caught.value)
    assert "/root/asha" in caught.value.hint
    assert victim.read_text() == "root"
