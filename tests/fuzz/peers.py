"""Targets that talk: a hostile peer plays a script, and there is a deadline."""

from __future__ import annotations

import contextlib
import json
import os
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asha.asterisk.process.proc import Endpoint
from asha.asterisk.talk import control, sip
from asha.asterisk.talk.ami import Ami, Credentials
from asha.asterisk.talk.connections import Silent, hold
from asha.bootstrap.join import server as server_join
from asha.bootstrap.join.protocol import Session, WireError
from asha.bootstrap.join.server import Listener
from asha.cluster.secret import Secret
from asha.cluster.site import Site, agreement
from asha.run.deadline import Deadline
from asha.run.text import printable
from asha.status import calls
from tests.fuzz import mutate
from tests.fuzz.parsers import SITE, Babbler
from tests.fuzz.target import Make, Wrong, target

if TYPE_CHECKING:
    from asha.asterisk.talk.connections import Conversation

# Seconds that a conversation is given, and by which it may be late on a busy machine.
PATIENCE = 0.25
LATE = 8.0
# Bytes at a time of a flood, and the longest that it lasts if nobody ends it.
CHUNK = 1 << 14
FLOOD_SECONDS = PATIENCE + LATE + 2.0

SECRET = Secret(bytes(range(32)))


def script(*lines: str, idle: str = "\r\n") -> Make:
    """Steps of a peer that begins with what is right: what it says, waits for, floods.

    ``idle`` is what may come any time and answers nothing.
    """
    raw = [one.encode() for one in lines]

    def make(rng: random.Random) -> bytes:
        steps: list[list[Any]] = []
        for line in raw:
            steps.append(["say", line.decode("latin-1")])
            if rng.random() < 0.3:
                break
        for _ in range(rng.choice((0, 1, 1, 2))):
            steps.insert(rng.randrange(len(steps) + 1), rng.choice((
                ["say", mutate.some(rng, raw).decode("latin-1")],
                ["say", mutate.some(rng, raw).decode("latin-1")],
                ["flood", rng.choice([idle.encode(), *raw, *mutate.POISON]).decode("latin-1")],
                ["flood", idle], ["drip", idle], ["drip", rng.choice(raw).decode("latin-1")],
                ["wait"], ["close"], ["hear"],
            )))
        return json.dumps(steps).encode()

    return make


class Peer:
    """Plays the script on one connection at a time until it is stopped."""

    def __init__(self, steps: Sequence[Sequence[Any]]) -> None:
        self._steps = steps
        self._over = threading.Event()
        self._end = time.monotonic() + FLOOD_SECONDS

    def play(self, channel: socket.socket) -> None:
        channel.settimeout(0.05)
        with contextlib.suppress(OSError):
            for step in self._steps:
                if not self._one(channel, step):
                    return
            self._pause(PATIENCE * 2)

    def stop(self) -> None:
        self._over.set()

    @property
    def is_over(self) -> bool:
        return self._over.is_set() or time.monotonic() > self._end

    def _one(self, channel: socket.socket, step: Sequence[Any]) -> bool:
        what, said = step[0], str(step[-1]).encode("latin-1", "replace")
        if what == "say":
            self._say(channel, said)
        elif what == "flood":
            block = (said or b"\0") * (CHUNK // max(1, len(said)) + 1)
            while not self.is_over:
                self._say(channel, block)
        elif what == "drip":
            for byte in said * 3:
                if self.is_over:
                    break
                self._say(channel, bytes([byte]))
                self._pause(0.02)
        elif what == "hear":
            with contextlib.suppress(TimeoutError):
                channel.recv(4096)
        elif what == "wait":
            self._pause(PATIENCE / 2)
        return bool(what != "close")

    def _say(self, channel: socket.socket, data: bytes) -> None:
        while data and not self.is_over:
            with contextlib.suppress(TimeoutError):
                data = data[channel.send(data):]

    def _pause(self, seconds: float) -> None:
        self._over.wait(seconds)


@contextlib.contextmanager
def in_time(patience: float = PATIENCE) -> Iterator[Deadline]:
    begun = time.monotonic()
    try:
        yield Deadline(patience)
    finally:
        took = time.monotonic() - begun
        if took > patience + LATE:
            raise Wrong(f"took {took:.1f} s with a deadline of {patience} s")


@contextlib.contextmanager
def serving(server: socket.socket, data: bytes,
            play: Callable[[Peer, socket.socket], None] | None = None) -> Iterator[None]:
    """A peer behind a listening socket, for as long as this lasts."""
    peer = Peer(json.loads(data))
    server.listen(4)
    server.settimeout(0.05)

    def work() -> None:
        while not peer.is_over:
            try:
                channel, _ = server.accept()
            except OSError:
                continue
            with channel:
                (play or Peer.play)(peer, channel)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield
    finally:
        peer.stop()
        thread.join()
        server.close()


def _tcp() -> socket.socket:
    server = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    server.bind(("127.0.0.1", 0))
    return server


# Asterisk, or whoever has its port.

AMI = script("Asterisk Call Manager/8.0.2\r\n",
             "Event: FullyBooted\r\nPrivilege: system,all\r\n\r\n"
             "Response: Success\r\nActionID: asha-1\r\nChallenge: 1234567\r\n\r\n",
             "Response: Success\r\nActionID: asha-2\r\nMessage: Authentication accepted\r\n\r\n",
             "Response: Success\r\nActionID: asha-3\r\nPing: Pong\r\n\r\n",
             idle="Event: Newexten\r\nChannel: SIP/1\r\n\r\n")


@target("ami", make=AMI, errors=(Silent,))
def _ami(data: bytes, scratch: Path) -> None:
    """The manager interface, or whoever took its port."""

    def visit(address: tuple[str, int], deadline: Deadline) -> Conversation[None]:
        with Ami(address, deadline) as visited:
            yield from visited.greet()
            yield from visited.login(Credentials("asha", "0123"))
            yield from visited.action("Ping")

    server = _tcp()
    address = server.getsockname()
    with serving(server, data), in_time() as deadline:
        hold(visit(address, deadline))


@target("control", errors=(Silent,), make=script("crm1/1234/Asterisk 22.1.0\n",
        "Asterisk is fully booted\n", "Module 'x' reloaded successfully.\n"))
def _control(data: bytes, scratch: Path) -> None:
    """The control socket."""
    for talk in _questions(str(scratch)):
        _by_socket(data, scratch, talk)


class _Us:
    """Who holds the socket is this process."""

    def __init__(self) -> None:
        self.pid = os.getpid()


def _questions(folder: str) -> list[Callable[[str, Deadline], Any]]:
    """Everything that is asked at the control socket."""
    console = control.Console(folder, _Us())  # type: ignore[arg-type]
    return [lambda path, deadline: console.greet(deadline),
            lambda path, deadline: console.wait_fully_booted(deadline),
            lambda path, deadline: console.first_line("x", deadline),
            lambda path, deadline: console.answer(deadline, "x", "y")]


def _by_socket(data: bytes, scratch: Path, talk: Callable[[str, Deadline], Any]) -> None:
    path = scratch / control.SOCKET_NAME
    path.unlink(missing_ok=True)
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    server.bind(str(path))
    with serving(server, data), in_time() as deadline, contextlib.suppress(Silent, OSError):
        hold(talk(str(path), deadline))


@target("sip", errors=(Silent,), make=script("SIP/2.0 200 OK\r\n",
        "Via: SIP/2.0/TCP 127.0.0.1;branch=z9hG4bK\r\nCall-ID: x\r\nContent-Length: 0\r\n\r\n"))
def _sip(data: bytes, scratch: Path) -> None:
    """What answers at SIP's port, over TCP and UDP."""
    server = _tcp()
    endpoint = Endpoint("tcp", "127.0.0.1", server.getsockname()[1], 0, "1")
    with serving(server, data), in_time() as deadline, contextlib.suppress(Silent, OSError):
        hold(sip.options(endpoint, deadline))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as phone:
        phone.bind(("127.0.0.1", 0))
        peer = Peer(json.loads(data))

        def work() -> None:
            phone.settimeout(0.1)
            with contextlib.suppress(OSError):
                phone.connect(phone.recvfrom(4096)[1])
                peer.play(phone)

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        try:
            with in_time() as deadline:
                hold(sip.options(Endpoint("udp", "127.0.0.1", phone.getsockname()[1], 0, "1"),
                                 deadline))
        finally:
            peer.stop()
            thread.join()


@target("calls", make=script(
    "Asterisk Call Manager/8.0.2\r\n", "Response: Success\r\nActionID: 1\r\nMessage: x\r\n\r\n",
    "Response: Success\r\nActionID: 2\r\nCoreCurrentCalls: 3\r\nCoreStartupDate: x\r\n\r\n",
    "Event: CoreShowChannel\r\nDuration: 00:01:02\r\nActionID: 3\r\n\r\n"))
def _calls(data: bytes, scratch: Path) -> None:
    """What asha status asks of the manager interface: never raises."""
    secret = scratch / "ami.secret"
    secret.write_text("user=asha\nsecret=0123\n")
    secret.chmod(0o600)
    server = _tcp()
    address = server.getsockname()
    with serving(server, data), in_time():
        found = calls.ask(str(secret), address, PATIENCE)
    printable(found.trouble).encode()


# The other node, or whoever has its address.

HELLO = json.dumps({"asha": 1, "node": "crm2", "nonce": "ab" * 32}) + "\n"
WIRE = script(HELLO, "0" * 64 + ' {"proof": true}\n', "0" * 64 + ' {"do": "facts"}\n')


@target("wire", make=WIRE, errors=(WireError,))
def _wire(data: bytes, scratch: Path) -> None:
    """The join's conversation, on both sides, with a stranger."""
    for side in ("join", "listen"):
        with _pair(Peer(json.loads(data)), Peer.play) as channel, in_time() as deadline:
            talk = Session(channel, deadline)
            with contextlib.suppress(WireError):
                getattr(talk, side)(SECRET.join_key(), "crm1")
                talk.say({"do": "facts"})
                talk.hear()
                raise Wrong("a stranger was believed")


@contextlib.contextmanager
def _pair(peer: Peer, play: Callable[[Peer, socket.socket], None]) -> Iterator[socket.socket]:
    ours, theirs = socket.socketpair()

    def work() -> None:
        with theirs:
            play(peer, theirs)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        with ours:
            yield ours
            peer.stop()
    finally:
        peer.stop()
        thread.join()


WISH = json.dumps({
    "do": "join", "name": "crm2", "address": "10.0.3.252", "lan": "192.168.1.12", "runs": False,
    "ids": {"crm1": 1, "crm2": 2}, "addresses": {"crm1": "10.0.3.251", "crm2": "10.0.3.252"},
    "agree": agreement(SITE)}).encode()


def _request(rng: random.Random) -> bytes:
    """A stranger's script, or the wish of one who knows the secret."""
    if rng.random() < 0.3:
        return json.dumps({"stranger": json.loads(WIRE(rng))}).encode()
    return json.dumps({"wish": mutate.value(rng, json.loads(WISH))}).encode()


@target("listener", make=_request)
def _listener(data: bytes, scratch: Path) -> None:
    """Who lets the other node in: raises nothing, and logs a line at a time."""
    whole = json.loads(data)
    server_join.EXCHANGE_SECONDS = server_join.ANSWER_SECONDS = PATIENCE
    machine = Babbler(scratch, "")
    said: list[str] = []

    def load() -> tuple[Site, Secret]:
        return SITE, SECRET

    def play(peer: Peer, channel: socket.socket) -> None:
        if "stranger" in whole:
            peer.play(channel)
            return
        with contextlib.suppress(WireError, OSError):
            talk = Session(channel, Deadline(PATIENCE * 4))
            talk.join(SECRET.join_key(), "crm2")
            talk.say(whole["wish"])
            talk.hear()

    with _pair(Peer(whole.get("stranger", [])), play) as channel, in_time(PATIENCE * 2):
        Listener(machine, load, contextlib.nullcontext, said.append).attend(channel, "10.0.3.252")
    for line in said:
        printable(line).encode()
        if "Error:" in line and ("TypeError" in line or "AttributeError" in line
                                 or "KeyError" in line or "AssertionError" in line):
            raise Wrong(f"a defect, not a reason: {line}")
