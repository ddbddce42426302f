"""What is found where Asterisk wants a file, and by whom it is looked at."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from asha.asterisk import hindrance
from asha.asterisk.process.proc import Proc
from asha.ocf import Deadline
from tests.fakes.asterisk import FakeProc

NOBODY = 65534


@pytest.fixture
def place(common: Path) -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(dir=common))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


def odd(place: Path) -> list[str]:
    return hindrance.odd_files([str(place)], NOBODY, Deadline(20))


def test_a_fifo_also_behind_a_link(place: Path) -> None:
    (place / "messages").write_text("x")
    os.mkfifo(place / "f\nifo")
    assert odd(place) == [f"{place}/f\\nifo is a FIFO, at which Asterisk waits:"
                          f" rm {place}/f\\nifo"]
    (place / "link").symlink_to("f\nifo")
    (place / "loop").symlink_to("loop")
    assert len(odd(place)) == 2


@pytest.mark.parametrize("kind", ["directory", "FIFO", "symbolic link to nowhere", "device"])
def test_a_database_that_is_no_file(place: Path, kind: str) -> None:
    base = place / hindrance.DATABASE
    if kind == "directory":
        base.mkdir()
    elif kind == "FIFO":
        os.mkfifo(base)
    else:
        base.symlink_to("/dev/zero" if kind == "device" else "/no/such/place")
    (said,) = odd(place)
    assert f"{base} is a {kind}" in said


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become another")
def test_a_link_is_followed_as_asterisks_user(place: Path) -> None:
    base = place / hindrance.DATABASE
    base.symlink_to("/etc/shadow")
    assert odd(place) == [f"Asterisk may not write {base}: it is a link to /etc/shadow"]
    (place / "closed").mkdir(mode=0o700)
    os.mkfifo(place / "closed/fifo")
    base.unlink()
    base.symlink_to("closed/fifo")
    (said,) = odd(place)
    assert "nowhere" in said  # he sees no FIFO there
    assert hindrance.odd_files([str(place)], -1, Deadline(20)) == []
    assert hindrance.odd_files([str(place)], 0, Deadline(20)) == []


def test_programs_that_it_has_started() -> None:
    code = "import subprocess, sys\nchild = subprocess.Popen(['sleep', '1000'])\n" \
           "print(child.pid, flush=True)\nsys.stdin.read()\nchild.kill()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = parent.stdout.readline().strip()
        asterisk = Proc().process(parent.pid)
        assert asterisk is not None
        (said,) = hindrance.waits_for(Proc(), asterisk)
        assert f"({child})" in said
        assert "#exec" in said


def test_the_canary_is_nothing_to_wait_for(tmp_path: Path) -> None:
    root = tmp_path / "proc"
    root.mkdir()
    fake = FakeProc(root)
    fake.add(50, "asterisk")
    fake.add(51, hindrance.CANARY, parent=50)
    asterisk = Proc(str(root)).process(50)
    assert asterisk is not None
    assert hindrance.waits_for(Proc(str(root)), asterisk) == []
    fake.add(52, "sleep", parent=50)
    assert "sleep (52)" in hindrance.waits_for(Proc(str(root)), asterisk)[0]
