"""The system log is told without being waited for."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from asha.run.log import send


def test_a_line_as_the_log_expects_it(tmp_path: Path) -> None:
    path = str(tmp_path / "log")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as log:
        log.bind(path)
        send(4, "sark-data", "two\nlines", path)
        # Facility daemon (3), severity warning (4): 3 * 8 + 4.
        assert log.recv(100) == f"<28>sark-data[{os.getpid()}]: two lines".encode()


def send_many(path: str) -> None:
    for _ in range(100_000):
        send(6, "sark-data", "x" * 1000, path)


def test_a_log_that_hangs_is_not_waited_for(tmp_path: Path) -> None:
    path = str(tmp_path / "log")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as log:
        log.bind(path)
        with pytest.raises(BlockingIOError):
            send_many(path)


def test_no_log_at_all(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        send(6, "sark-data", "x", str(tmp_path / "none"))
