"""What stands between the lab and a real node: the agent that runs there, and its callers.

The agent is the node's own file; here it serves one visitor in a process of this machine.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from collections.abc import Iterator
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path

import pytest

from tests.lab import remote
from tests.lab.host import start_time, wait_for
from tests.lab.image import FILES
from tests.lab.real_node import partition_table

AGENT = FILES / "real/usr/lib/lab/agent"
NOWHERE = ("/run/netns/none", "169.254.77.11")


@pytest.fixture(autouse=True)
def agent(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each connection is to an agent of its own."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    loader = SourceFileLoader("lab_agent", str(AGENT))
    spec = spec_from_loader("lab_agent", loader)
    assert spec is not None
    program = module_from_spec(spec)
    loader.exec_module(program)
    children = []

    def connect(namespace: str, address: str) -> socket.socket:
        ours, its = socket.socketpair()
        child = os.fork()
        if child == 0:
            ours.close()
            try:
                program.serve(its)
            finally:
                os._exit(0)
        children.append(child)
        its.close()
        return ours

    monkeypatch.setattr(remote, "connect", connect)
    yield
    for child in children:
        os.waitpid(child, 0)


def start(*argv: str) -> socket.socket:
    """What remote.main() does first."""
    visitor = remote.connect(*NOWHERE)
    request = {"argv": argv, "env": {"PATH": os.environ["PATH"]}, "tty": []}
    visitor.sendall(json.dumps(request).encode() + b"\n")
    return visitor


def test_a_program_has_input_output_and_an_exit_code(capfd: pytest.CaptureFixture[str]) -> None:
    with start("sh", "-c", "cat; echo wrong >&2; exit 3") as visitor:
        for data in (b"one\n", b"two\n", b""):
            visitor.sendall(remote.FRAME.pack(remote.INPUT, len(data)) + data)
        assert remote.receive(visitor) == 3
    assert capfd.readouterr() == ("one\ntwo\n", "wrong\n")


def test_a_program_that_is_not_there(capfd: pytest.CaptureFixture[str]) -> None:
    with start("no-such-program") as visitor:
        assert remote.receive(visitor) == 127
    assert "no-such-program: No such file" in capfd.readouterr().err


def test_a_program_ends_with_its_caller(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    with start("sh", "-c", f"echo $$ >{note}; exec sleep 1000"):
        wait_for(lambda: note.exists() and note.read_text().endswith("\n"), "its start")
    pid = int(note.read_text())
    wait_for(lambda: not start_time(pid), "its end")


def test_files(tmp_path: Path) -> None:
    place = remote.RemotePath(*NOWHERE, str(tmp_path)) / "some" / "file"
    assert not place.exists()
    place.parent.mkdir(parents=True)
    place.write_text("ü\n")
    place.chmod(0o600)
    assert (place.read_bytes(), place.read_text()) == ("ü\n".encode(), "ü\n")
    assert place.stat().st_mode & 0o777 == 0o600
    assert [str(one) for one in place.parent.glob("f*")] == [str(place)]
    place.rename(place.with_name("other"))
    with pytest.raises(FileNotFoundError):
        place.read_text()
    place.with_name("other").unlink()
    place.unlink(missing_ok=True)


def test_processes() -> None:
    child = os.posix_spawn("/bin/sleep", ["sleep", "1000"], {})
    try:
        assert remote.job(*NOWHERE, "start_time", child) == start_time(child)
        wait_for(lambda: child in remote.job(*NOWHERE, "pids", "sleep"), "it to be seen")
    finally:
        remote.job(*NOWHERE, "signal", child, int(signal.SIGKILL))
        os.waitpid(child, 0)
    with pytest.raises(ProcessLookupError):
        remote.job(*NOWHERE, "signal", child, 0)


def test_the_partition_reaches_to_the_end_of_the_disk() -> None:
    table = partition_table(400 << 20)
    first, sectors = (int.from_bytes(table[place:place + 4], "little") for place in (454, 458))
    assert (first + sectors) * 512 == 400 << 20
    assert table[-2:] == b"\x55\xaa"
