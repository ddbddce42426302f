"""A peer that sends without end, or a byte at a time, at every protocol of Asterisk's.

Each question ends by its deadline, holds up no other that is asked beside it, takes a
bounded number of bytes, and is judged by what was seen.
"""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from asha.agents.watch.questions import HeldQuestion, Question
from asha.asterisk import probes
from asha.asterisk.probes import (
    HEALTHY,
    HUNG,
    UNKNOWN,
    ControlSocket,
    Database,
    DialplanLock,
    ManagerInterface,
    Probe,
    SipOptions,
    ask,
)
from asha.asterisk.process.proc import Endpoint, Proc, Process
from asha.asterisk.talk.ami import FILE_MOST, VISIT_MOST, Credentials
from asha.asterisk.talk.connections import Multiplexer, hold
from asha.ocf import BadHere, Deadline
from tests.fakes.asterisk import SECRET, USER, FakeAsterisk

if TYPE_CHECKING:
    from typing import Any

# Seconds: of one question, and what a busy machine may take longer.
PATIENCE = 1.0
SLACK = 1.0

Serve = Callable[[socket.socket], None]

GREETING = b"Asterisk Call Manager/5.0.4\r\n"
CONTROL_GREETING = f"host/{os.getpid()}/16.28.0\n".encode()


def endless(begin: bytes, block: bytes) -> Serve:
    """As fast as it can."""

    def serve(caller: socket.socket) -> None:
        caller.sendall(begin)
        while True:
            caller.sendall(block)

    return serve


def drip(begin: bytes, block: bytes) -> Serve:
    """One byte after the other, for ever, and never an end of what is waited for."""

    def serve(caller: socket.socket) -> None:
        caller.sendall(begin)
        while True:
            caller.sendall(block)
            time.sleep(0.01)

    return serve


@pytest.fixture
def me() -> Process:
    process = Proc().process(os.getpid())
    assert process is not None
    return process


@pytest.fixture
def listen() -> Iterator[Callable[[socket.socket, Serve], None]]:
    """Serve each that comes to a bound socket, by a thread of its own."""
    opened: list[socket.socket] = []

    def start(listener: socket.socket, serve: Serve) -> None:
        listener.listen()
        opened.append(listener)

        def attend(caller: socket.socket) -> None:
            with contextlib.suppress(OSError), caller:
                serve(caller)

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    caller, _ = listener.accept()
                    opened.append(caller)
                    threading.Thread(target=attend, args=(caller,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()

    yield start
    for one in opened:
        with contextlib.suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
        one.close()


Listen = Callable[[socket.socket, Serve], None]


def tcp() -> socket.socket:
    one = socket.socket()
    one.bind(("127.0.0.1", 0))
    return one


def manager(me: Process, listener: socket.socket) -> ManagerInterface:
    [endpoint] = me.listening(listener.getsockname()[1], ("tcp",))
    return ManagerInterface(endpoint, me, Credentials(USER, SECRET))


def look(fake: FakeAsterisk, me: Process, *under_attack: Probe) -> tuple[list[Any], float]:
    """What comes of them and of a healthy one beside them, and the seconds it took."""
    begun = time.monotonic()
    verdicts = ask([*under_attack, ControlSocket(str(fake.folder), me)], Deadline(30), PATIENCE)
    return verdicts, time.monotonic() - begun


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[FakeAsterisk]:
    with FakeAsterisk(tmp_path / "healthy") as one:
        yield one


EVENT = b"Event: Newchannel\r\nChannel: PJSIP/201\r\n\r\n"


@pytest.mark.parametrize(
    ("serve", "finding", "said"),
    [
        (endless(b"", b"x" * 65536), UNKNOWN, "sends without end: no greeting in"),
        (endless(GREETING, EVENT * 1000), UNKNOWN, "sends without end: no response to Challenge"),
        (endless(GREETING, b"\r\n\r\n" * 10000), UNKNOWN, "sends without end: no response to"),
        (endless(GREETING, b"\0" * 65536), UNKNOWN, "sends without end: no response to"),
        (drip(b"", b"A"), HUNG, "bytes and no greeting within 1.0 s"),
        (drip(GREETING, b"E"), HUNG, "bytes and no response to Challenge within 1.0 s"),
        (drip(GREETING, EVENT), HUNG, "bytes and no response to Challenge within 1.0 s"),
    ],
)
def test_ami(
    fake: FakeAsterisk, me: Process, listen: Listen, serve: Serve, finding: str, said: str
) -> None:
    listener = tcp()
    listen(listener, serve)
    one = manager(me, listener)
    verdicts, seconds = look(fake, me, one, DialplanLock(one))
    assert [verdict.finding for verdict in verdicts] == [finding, finding, HEALTHY]
    assert said in verdicts[0].reason
    assert f"port {one.endpoint.port}" in verdicts[0].reason
    # 1.5 times the patience, as for one that is silent.
    assert seconds < 1.5 * PATIENCE + SLACK


@pytest.mark.parametrize(
    ("serve", "finding", "said"),
    [
        (endless(b"", b"x" * 65536), UNKNOWN, "sends without end: no greeting in"),
        (endless(CONTROL_GREETING, b"y\n" * 9999), UNKNOWN, "sends without end: no answer to"),
        (drip(b"", b"h"), HUNG, "bytes and no greeting within 1.0 s"),
        (drip(CONTROL_GREETING, b"z\n"), HUNG, "bytes and no answer to database put"),
    ],
)
def test_the_control_socket(
    tmp_path: Path, fake: FakeAsterisk, me: Process, listen: Listen, serve: Serve, finding: str,
    said: str,
) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "asterisk.ctl"))
    listen(listener, serve)
    control_socket = ControlSocket(str(tmp_path), me)
    verdicts, seconds = look(fake, me, Database(control_socket))
    assert [verdict.finding for verdict in verdicts] == [finding, HEALTHY]
    assert said in verdicts[0].reason
    assert str(tmp_path / "asterisk.ctl") in verdicts[0].reason
    assert seconds < 1.5 * PATIENCE + SLACK


@pytest.mark.parametrize(
    ("serve", "finding"),
    [
        (endless(b"", b"x" * 65536), UNKNOWN),
        (endless(b"", b"SIP/2.0 200 OK\r\n\r\n" * 1000), UNKNOWN),
        (drip(b"", b"S"), HUNG),
    ],
)
def test_sip_over_tcp(
    fake: FakeAsterisk, me: Process, listen: Listen, serve: Serve, finding: str
) -> None:
    listener = tcp()
    listen(listener, serve)
    [endpoint] = me.listening(listener.getsockname()[1], ("tcp",))
    verdicts, seconds = look(fake, me, SipOptions(endpoint, me))
    assert [verdict.finding for verdict in verdicts] == [finding, HEALTHY]
    assert "response to OPTIONS" in verdicts[0].reason
    assert seconds < 1.5 * PATIENCE + SLACK


@contextlib.contextmanager
def datagrams(own_answer: bytes, foreign: bool) -> Iterator[int]:
    """Who is asked floods whoever asks; or another port does, after which it answers."""
    ends = threading.Event()
    with socket.socket(type=socket.SOCK_DGRAM) as asked, \
            socket.socket(type=socket.SOCK_DGRAM) as other:
        asked.bind(("127.0.0.1", 0))
        asked.settimeout(0.1)

        def serve() -> None:
            while not ends.is_set():
                try:
                    request, caller = asked.recvfrom(65536)
                except TimeoutError:
                    continue
                until = time.monotonic() + (0.2 if foreign else 3 * PATIENCE)
                while not ends.is_set() and time.monotonic() < until:
                    with contextlib.suppress(OSError):
                        (other if foreign else asked).sendto(own_answer, caller)
                if foreign:
                    kept = [line for line in request.split(b"\r\n")
                            if line.startswith((b"Via", b"Call-ID"))]
                    answer = b"\r\n".join([b"SIP/2.0 200 OK", *kept, b"", b""])
                    with contextlib.suppress(OSError):
                        asked.sendto(answer, caller)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield asked.getsockname()[1]
        finally:
            ends.set()
            thread.join()


@pytest.mark.parametrize("junk", [b"", b"x", b"SIP/2.0 200 OK\r\nCall-ID: 1\r\n\r\n", b"y" * 60000])
@pytest.mark.parametrize("foreign", [True, False])
def test_sip_over_udp(fake: FakeAsterisk, me: Process, junk: bytes, foreign: bool) -> None:
    """What another address or port sends is not even received; the peer's own has an end."""
    with datagrams(junk, foreign) as port:
        probe = SipOptions(Endpoint("udp", "127.0.0.1", port, 0, ""), me)
        verdicts, seconds = look(fake, me, probe)
    assert verdicts[1].finding == HEALTHY
    assert verdicts[0].finding in ((HEALTHY,) if foreign else (HUNG, UNKNOWN))
    assert seconds < 1.5 * PATIENCE + SLACK


def test_memory_has_a_bound(fake: FakeAsterisk, me: Process, listen: Listen) -> None:
    listener = tcp()
    listen(listener, endless(b"", b"x" * (1 << 20)))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    one = manager(me, listener)
    look(fake, me, *[DialplanLock(one) for _ in range(5)])
    # KiB: ten conversations of 1 MiB at most, and copies of them.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10


# Not threads of ours: they would take the interpreter from the asking side.
FLOOD = f"""\
import socket, threading
def serve(caller):
    caller.sendall({GREETING!r})
    while True:
        caller.sendall({EVENT!r})
with socket.create_server(("127.0.0.1", 0)) as listener:
    print(listener.getsockname()[1], flush=True)
    while True:
        threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"""


def test_the_starved_are_served(me: Process, fake: FakeAsterisk) -> None:
    """Those that never stop sending keep no other waiting, within the same patience."""
    argv = [sys.executable, "-I", "-c", FLOOD]
    with subprocess.Popen(
        argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as child:
        try:
            assert child.stdout is not None
            port = int(child.stdout.readline())
            flooding = Proc().process(child.pid)
            assert flooding is not None
            [endpoint] = flooding.listening(port, ("tcp",))
            who = Credentials(USER, SECRET)
            bad = [DialplanLock(ManagerInterface(endpoint, flooding, who)) for _ in range(4)]
            [good] = me.listening(fake.ami_port, ("tcp",))
            begun = time.monotonic()
            verdicts = ask([*bad, ManagerInterface(good, me, who)], Deadline(30), PATIENCE)
            assert time.monotonic() - begun < 1.5 * PATIENCE + SLACK
            assert [one.finding for one in verdicts] == [UNKNOWN] * 4 + [HEALTHY]
        finally:
            child.kill()


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "SECOND_TRY_AFTER", 0.01)


# The file with the secret


@pytest.mark.parametrize("kind", ["fifo", "huge", "folder", "device"])
def test_a_secret_file_that_is_none(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "ami.secret"
    if kind == "fifo":
        os.mkfifo(path, 0o600)
    elif kind == "folder":
        path.mkdir()
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path.write_bytes(b"user=asha\nsecret=x\n" + b"#" * FILE_MOST)
    if kind == "huge":
        path.chmod(0o600)
    begun = time.monotonic()
    with pytest.raises(BadHere, match=r"ami\.secret"):
        Credentials.read(str(path))
    assert time.monotonic() - begun < SLACK


def answers_then_floods(answers: int) -> Serve:
    """Lets in who comes, answers so many actions, and then sends without end."""

    def serve(caller: socket.socket) -> None:
        caller.sendall(GREETING)
        heard = b""
        for _ in range(2 + answers):  # Challenge and Login are actions too
            while b"\r\n\r\n" not in heard:
                heard += caller.recv(65536)
            block, _, heard = heard.partition(b"\r\n\r\n")
            [identity] = [line for line in block.split(b"\r\n") if line.startswith(b"ActionID")]
            caller.sendall(b"Response: Success\r\n" + identity + b"\r\nChallenge: 1\r\n\r\n")
        while True:
            caller.sendall(EVENT * 1000)

    return serve


def test_a_session_that_is_kept(me: Process, listen: Listen) -> None:
    """The watcher's: closed when it floods, and made anew; never is much of it in memory."""
    listener = tcp()
    listen(listener, answers_then_floods(2))
    one = HeldQuestion(DialplanLock(manager(me, listener)))
    for _ in range(2):
        assert hold(one.attempt(Deadline(10))).finding == HEALTHY
        kept = one._ami
        assert kept is not None
        assert hold(one.attempt(Deadline(10))).finding == HEALTHY
        assert one._ami is kept
        found = hold(one.attempt(Deadline(10)))
        assert found.finding == UNKNOWN
        assert "sends without end" in found.reason
        assert len(kept.received) < 4 * VISIT_MOST
        assert one._ami is None


def test_questions_again_and_again_leave_nothing(fake: FakeAsterisk, me: Process) -> None:
    with Multiplexer() as talks:
        for _ in range(50):
            one = Question(ControlSocket(str(fake.folder), me))
            one.put(talks, Deadline(10), 0.0)
            talks.go_on()
            one.take(talks, 0.0)
            assert not one.is_pending
        assert talks.results == {}
        assert not talks._talks
        assert not talks._waits
