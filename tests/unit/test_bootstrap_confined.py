"""A child that is shut into a directory of another's takes nothing from it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from asha.bootstrap.host.confined import in_directory
from asha.ocf import Deadline, Failed
from asha.rootwork import Directory


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it changes its root directory")
def test_no_module_is_loaded_from_there(tmp_path: Path) -> None:
    """Root would run it: the paths of modules are the directory's own then."""
    for path in filter(None, sys.path):
        place = tmp_path / path.lstrip("/")
        if not path.endswith(".zip"):
            place.mkdir(parents=True, exist_ok=True)
            (place / "theirs_to_choose.py").write_text("RAN = True\n")

    def work(top: str) -> str:
        import theirs_to_choose  # type: ignore[import-not-found]

        return f"{theirs_to_choose.RAN}"

    with Directory.trusted(str(tmp_path)) as here, pytest.raises(Failed, match="theirs_to_choose"):
        in_directory(here, work, Deadline(20), "looking")
