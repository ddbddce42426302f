"""What the commands share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from asha.commands import common
from asha.trouble import Trouble


def test_one_at_a_time_and_nobody_else_can_keep_us_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = tmp_path / "lock"
    monkeypatch.setattr(common, "LOCK", str(lock))
    old = os.umask(0o022)
    try:
        with common.only_one():
            assert lock.stat().st_mode & 0o777 == 0o600
            with pytest.raises(Trouble, match="another asha install"), common.only_one(0.3):
                pass
        with common.only_one():
            pass
    finally:
        os.umask(old)
