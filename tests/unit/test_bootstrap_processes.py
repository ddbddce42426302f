"""Who could still write to the live data, and who only has the name for it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from asha.bootstrap.host import processes
from asha.run.child import name_of


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
@pytest.mark.parametrize(("uid", "found"), [(65534, False), (0, True)])
@pytest.mark.parametrize("name", ["mysqld", "apache2", "slapd"])
def test_a_name_alone_stops_no_installation(
    tmp_path: Path, name: str, uid: int, found: bool
) -> None:
    """Any user may call his program so."""
    for folder in (tmp_path, *tmp_path.parents[:3]):
        folder.chmod(folder.stat().st_mode | 0o11)
    program = tmp_path / name
    shutil.copy("/usr/bin/sleep", program)
    with subprocess.Popen([str(program), "600"], user=uid, cwd="/") as child:
        try:
            assert (child.pid in [one.pid for one in processes.daemons()]) is found
        finally:
            child.kill()


def test_a_name_is_printable() -> None:
    code = (
        "import ctypes\n"
        "ctypes.CDLL(None).prctl(15, b'a\\x1b[2J\\nb\\xff', 0, 0, 0)\n"
        "print(flush=True); input()\n"
    )
    with subprocess.Popen(["python3", "-c", code], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        assert name_of(child.pid) == "a\\x1b[2J\\nb\ufffd"
        child.kill()
    assert name_of(child.pid) == "?"
