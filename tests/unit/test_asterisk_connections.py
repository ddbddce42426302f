"""Conversations: side by side, with an end, and telling silence from refusal."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from asha.asterisk.process.proc import Endpoint, Proc, Process
from asha.asterisk.talk import sip
from asha.asterisk.talk.ami import Ami, Credentials
from asha.asterisk.talk.connections import (
    Line,
    NotConnected,
    Silent,
    hold,
    is_address,
    side_by_side,
)
from asha.asterisk.talk.control import Console
from asha.ocf import BadHere, Deadline
from tests.fakes.asterisk import AMI, CONTROL, LOADING, SECRET, SIP, USER, FakeAsterisk

if TYPE_CHECKING:
    from asha.asterisk.talk.connections import Conversation

ENOUGH = 5.0
SHORT = 0.2


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[FakeAsterisk]:
    with FakeAsterisk(tmp_path / "run") as asterisk:
        yield asterisk


def me() -> Process:
    process = Proc().process(os.getpid())
    assert process is not None
    return process


def console(fake: FakeAsterisk) -> Console:
    return Console(str(fake.folder), me())


def udp(fake: FakeAsterisk) -> Endpoint:
    return Endpoint("udp", "127.0.0.1", fake.sip_port, 0, "")


def tcp(fake: FakeAsterisk) -> Endpoint:
    return Endpoint("tcp", "0.0.0.0", fake.sip_port, 0, "")


# The control socket


def test_greeting_is_read(fake: FakeAsterisk) -> None:
    assert hold(console(fake).greet(Deadline(ENOUGH))) == f"host/{fake.pid}/16.28.0"


def test_silent_control_socket(fake: FakeAsterisk) -> None:
    fake.silence(CONTROL)
    with pytest.raises(Silent, match="greeting"):
        hold(console(fake).greet(Deadline(SHORT)))


def test_full_queue_of_a_control_socket_is_silence(fake: FakeAsterisk) -> None:
    fake.silence(CONTROL)
    waiting = []
    for _ in range(20):  # more than its queue takes
        caller = socket.socket(socket.AF_UNIX)
        caller.setblocking(False)
        waiting.append(caller)
        try:
            caller.connect(str(fake.control_path))
        except BlockingIOError:
            break
    else:
        pytest.fail("the queue never became full")
    began = time.monotonic()
    with pytest.raises(NotConnected):
        hold(console(fake).greet(Deadline(SHORT)))
    assert time.monotonic() - began < 10 * SHORT
    for caller in waiting:
        caller.close()


def test_removed_control_socket(fake: FakeAsterisk) -> None:
    fake.control_path.unlink()
    with pytest.raises(FileNotFoundError):
        hold(console(fake).greet(Deadline(ENOUGH)))


def test_control_socket_that_nobody_serves(tmp_path: Path) -> None:
    path = str(tmp_path / "asterisk.ctl")
    left = socket.socket(socket.AF_UNIX)
    left.bind(path)
    left.close()
    with pytest.raises(ConnectionRefusedError):
        hold(Console(str(tmp_path), me()).greet(Deadline(ENOUGH)))


def test_end_of_loading_is_waited_for(fake: FakeAsterisk) -> None:
    fake.silence(LOADING)
    with pytest.raises(Silent, match="end of loading"):
        hold(console(fake).wait_fully_booted(Deadline(SHORT)))
    fake.speak(LOADING)
    hold(console(fake).wait_fully_booted(Deadline(ENOUGH)))


# AMI


def test_ami_greets_and_takes_a_login(fake: FakeAsterisk) -> None:
    def visit(secret: str) -> bool:
        def conversation() -> Conversation[bool]:
            with Ami(("127.0.0.1", fake.ami_port), Deadline(ENOUGH)) as ami:
                assert (yield from ami.greet()).startswith("Asterisk Call Manager/")
                return (yield from ami.login(Credentials(USER, secret)))

        return hold(conversation())

    assert visit(SECRET)
    assert not visit("wrong")


def test_ami_response_is_told_from_events(fake: FakeAsterisk) -> None:
    def conversation() -> Conversation[dict[str, str]]:
        with Ami(("127.0.0.1", fake.ami_port), Deadline(ENOUGH)) as ami:
            yield from ami.greet()
            yield from ami.login(Credentials(USER, SECRET))
            return (yield from ami.action("Getvar", Channel="absent", Variable="x"))

    answer = hold(conversation())
    assert answer["Message"] == "No such channel"
    assert answer["ActionID"] == "asha-3"


def test_silent_ami(fake: FakeAsterisk) -> None:
    fake.silence(AMI)

    def conversation() -> Conversation[None]:
        with Ami(("127.0.0.1", fake.ami_port), Deadline(SHORT)) as ami:
            yield from ami.greet()

    with pytest.raises(Silent, match="greeting"):
        hold(conversation())


@pytest.mark.parametrize(
    ("text", "mode"),
    [
        ("user=asha\nsecret=geheim\n", 0o644),
        ("user=asha\nsecret=geheim\n", 0o620),
        ("user=asha\n", 0o600),
        ("secret=geheim\nuser=\n", 0o600),
        ("asha:geheim\n", 0o600),
    ],
)
def test_bad_secret_file_is_refused_without_its_contents(
    tmp_path: Path, text: str, mode: int
) -> None:
    path = tmp_path / "ami.secret"
    path.write_text(text)
    path.chmod(mode)
    with pytest.raises(BadHere) as caught:
        Credentials.read(str(path))
    assert "geheim" not in caught.value.reason
    assert str(path) in caught.value.reason


def test_secret_file(tmp_path: Path) -> None:
    path = tmp_path / "ami.secret"
    assert Credentials.read(str(path)) is None
    path.write_text("# a comment = not read\nuser = asha\n\nsecret = a=b c\n")
    path.chmod(0o600)
    who = Credentials.read(str(path))
    assert who is not None
    assert (who.user, who.secret) == ("asha", "a=b c")
    assert "a=b" not in repr(who)


# SIP


def test_any_sip_response_is_an_answer(fake: FakeAsterisk) -> None:
    assert hold(sip.options(udp(fake), Deadline(ENOUGH))) == "SIP/2.0 404 Not Found"
    assert hold(sip.options(tcp(fake), Deadline(ENOUGH))) == "SIP/2.0 404 Not Found"


def test_silent_sip(fake: FakeAsterisk) -> None:
    fake.silence(SIP)
    for endpoint in (udp(fake), tcp(fake)):
        with pytest.raises(Silent, match="response to OPTIONS"):
            hold(sip.options(endpoint, Deadline(SHORT)))


def test_closed_sip_port_is_refused() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.raises(ConnectionRefusedError):
        hold(sip.options(Endpoint("udp", "127.0.0.1", port, 0, ""), Deadline(ENOUGH)))


def answering(server: socket.socket, answers: list[bytes | None]) -> None:
    """Answer one request after the other so; None not at all."""
    for answer in answers:
        request, caller = server.recvfrom(65536)
        if answer is not None:
            via = next(line for line in request.split(b"\r\n") if line.startswith(b"Via"))
            call = next(line for line in request.split(b"\r\n") if line.startswith(b"Call-ID"))
            server.sendto(answer.replace(b"VIA", via).replace(b"CALL", call), caller)


def test_lost_request_is_repeated_and_a_foreign_answer_ignored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import threading

    monkeypatch.setattr(sip, "T1", 0.05)
    foreign = b"SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP h;branch=z9hG4bKother\r\nCall-ID: 1\r\n\r\n"
    right = b"SIP/2.0 503 Service Unavailable\r\nVIA\r\nCALL\r\n\r\n"
    with socket.socket(type=socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(ENOUGH)
        thread = threading.Thread(target=answering, args=(server, [None, foreign, right]))
        thread.start()
        endpoint = Endpoint("udp", "127.0.0.1", server.getsockname()[1], 0, "")
        assert hold(sip.options(endpoint, Deadline(ENOUGH))) == "SIP/2.0 503 Service Unavailable"
        thread.join()


# All together


def test_silent_parts_are_waited_for_side_by_side(fake: FakeAsterisk) -> None:
    fake.silence(CONTROL)
    fake.silence(SIP)

    def patient(conversation: Conversation[str]) -> Conversation[str]:
        try:
            return (yield from conversation)
        except Silent as what:
            return str(what)

    began = time.monotonic()
    results = side_by_side(
        [
            patient(console(fake).greet(Deadline(2.0))),
            patient(sip.options(udp(fake), Deadline(2.0))),
            patient(sip.options(tcp(fake), Deadline(2.0))),
        ]
    )
    assert results == ["greeting", "response to OPTIONS", "response to OPTIONS"]
    assert 1.9 < time.monotonic() - began < 5.8


def test_connection_that_is_closed_is_not_silence() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()

        def conversation() -> Conversation[None]:
            with Line(socket.AF_INET, socket.SOCK_STREAM, Deadline(ENOUGH)) as line:
                yield from line.connect(server.getsockname())
                server.accept()[0].close()
                yield from line.read_until(b"\n", "greeting")

        with pytest.raises(ConnectionResetError):
            hold(conversation())


def test_addresses() -> None:
    assert is_address("127.0.0.1")
    assert is_address("::1")
    assert not is_address("pbx.example.org")
    assert not is_address("10.0.0")
    assert not is_address("")
