"""Into a real node: programs and files, by the agent that runs there (files/real/usr/lib/lab).

As a program it is a node's entrance: what is run in the node has this one's input, output and
exit code, and a terminal if this one has one. It may be ended like what it stands for.

    remote.py NAMESPACE ADDRESS ENVIRONMENT PROGRAM ...
"""

from __future__ import annotations

import base64
import ctypes
import json
import os
import socket
import stat
import struct
import sys
import termios
import threading
import tty
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

PORT = 7
CONNECT_SECONDS = 5.0
JOB_SECONDS = 60.0
CLONE_NEWNET = 0x40000000  # linux/sched.h
FRAME = struct.Struct("!BI")  # kind, length; see the agent
INPUT, OUTPUT, ERRORS, CODE = range(4)
UNREACHABLE = 255  # the exit code when the node has gone, as ssh has it


def connect(namespace: str, address: str) -> socket.socket:
    """A connection from that network namespace. OSError.

    The namespace is the calling thread's alone (setns(2)), and its own again afterwards.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    own = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    there = os.open(namespace, os.O_RDONLY)
    try:
        if libc.setns(there, CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"setns {namespace}")
        try:
            made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        finally:
            if libc.setns(own, CLONE_NEWNET):
                os._exit(UNREACHABLE)  # no thread may go on in another network
    finally:
        os.close(own)
        os.close(there)
    try:
        made.settimeout(CONNECT_SECONDS)
        made.connect((address, PORT))
        made.settimeout(None)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # A node that lost power says no more: its caller is to end, as nsenter would.
        made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in ((socket.TCP_KEEPIDLE, 10), (socket.TCP_KEEPINTVL, 5),
                              (socket.TCP_KEEPCNT, 4)):
            made.setsockopt(socket.IPPROTO_TCP, option, value)
        return made
    except BaseException:
        made.close()
        raise


def job(namespace: str, address: str, name: str, *words: object) -> Any:
    """Have the agent do something that is no program (its JOBS). OSError."""
    with connect(namespace, address) as agent:
        agent.settimeout(JOB_SECONDS)
        agent.sendall(json.dumps({"job": name, "words": words}).encode() + b"\n")
        with agent.makefile("rb") as answers:
            line = answers.readline()
    if not line.endswith(b"\n"):
        raise ConnectionError("the node has gone")
    answer = json.loads(line)
    if "errno" in answer:
        raise OSError(answer["errno"], answer["error"])
    return answer["value"]


class RemotePath:
    """A file of a real node that runs: of pathlib's methods those that the lab uses."""

    def __init__(self, namespace: str, address: str, inside: str) -> None:
        self._where = (namespace, address)
        self._pure = PurePosixPath(inside)

    def __str__(self) -> str:
        return str(self._pure)

    def __truediv__(self, more: str) -> RemotePath:
        return RemotePath(*self._where, str(self._pure / more))

    @property
    def name(self) -> str:
        return self._pure.name

    @property
    def parent(self) -> RemotePath:
        return RemotePath(*self._where, str(self._pure.parent))

    def with_name(self, name: str) -> RemotePath:
        return self.parent / name

    def read_bytes(self) -> bytes:
        return base64.b64decode(job(*self._where, "read", str(self)))

    def read_text(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return self.read_bytes().decode(encoding, errors)

    def write_bytes(self, data: bytes) -> int:
        return int(job(*self._where, "write", str(self), base64.b64encode(data).decode()))

    def write_text(self, text: str) -> int:
        return self.write_bytes(text.encode())

    def exists(self) -> bool:
        return bool(self._ask("exists"))

    def is_dir(self) -> bool:
        return bool(self._ask("is_dir"))

    def is_file(self) -> bool:
        return bool(self._ask("is_file"))

    def is_symlink(self) -> bool:
        return bool(self._ask("is_symlink"))

    def stat(self) -> os.stat_result:
        return os.stat_result(self._ask("stat"))

    def chmod(self, mode: int) -> None:
        self._ask("chmod", stat.S_IMODE(mode))

    def chown(self, user: int, group: int) -> None:
        job(*self._where, "chown", str(self), user, group)

    def mkdir(self, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        self._ask("mkdir", mode, parents, exist_ok)

    def rename(self, target: RemotePath) -> RemotePath:
        self._ask("rename", str(target))
        return target

    def unlink(self, missing_ok: bool = False) -> None:
        self._ask("unlink", missing_ok)

    def glob(self, pattern: str) -> Iterator[RemotePath]:
        for found in self._ask("glob", pattern):
            yield RemotePath(*self._where, found)

    def _ask(self, name: str, *words: object) -> Any:
        return job(*self._where, "path", name, str(self), *words)


# As a program.


def main(namespace: str, address: str, environment: str, *argv: str) -> int:
    has_terminal = os.isatty(0) and os.isatty(1)
    size = list(os.get_terminal_size(0))[::-1] if has_terminal else []
    try:
        agent = connect(namespace, address)
    except OSError as problem:
        print(f"the node at {address} is not reached: {problem}", file=sys.stderr)
        return UNREACHABLE
    agent.sendall(json.dumps(
        {"argv": argv, "env": json.loads(environment), "tty": size}).encode() + b"\n")
    before = termios.tcgetattr(0) if has_terminal else None
    if before is not None:
        tty.setraw(0)
    threading.Thread(target=send_input, args=(agent,), daemon=True).start()
    try:
        return receive(agent)
    except (ConnectionError, EOFError):
        print(f"the node at {address} has gone", file=sys.stderr)
        return UNREACHABLE
    finally:
        if before is not None:
            termios.tcsetattr(0, termios.TCSADRAIN, before)


def send_input(agent: socket.socket) -> None:
    try:
        while True:
            data = os.read(0, 65536)
            agent.sendall(FRAME.pack(INPUT, len(data)) + data)
            if not data:
                return
    except OSError:
        pass  # the program has ended


def receive(agent: socket.socket) -> int:
    while True:
        kind, length = FRAME.unpack(exactly(agent, FRAME.size))
        data = exactly(agent, length)
        if kind == CODE:
            return int(data)
        # Whole, also into a pipe whose reader is slow.
        while data:
            data = data[os.write(1 if kind == OUTPUT else 2, data):]


def exactly(agent: socket.socket, length: int) -> bytes:
    data = b""
    while len(data) < length:
        more = agent.recv(length - len(data))
        if not more:
            raise EOFError
        data += more
    return data


if __name__ == "__main__":
    code = main(*sys.argv[1:4], *sys.argv[4:])
    # A program that a signal ended: as a shell says it.
    os._exit(code if code >= 0 else 128 - code)
