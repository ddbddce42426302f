"""What each probe makes of an answer, of none, and of a refusal."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from asha.asterisk import probes
from asha.asterisk.probes import (
    HEALTHY,
    HUNG,
    REFUSED,
    UNKNOWN,
    CallSetup,
    ControlSocket,
    ManagerInterface,
    Probe,
    SipOptions,
    Verdict,
    ask,
)
from asha.asterisk.process.proc import Endpoint, Proc, Process
from asha.asterisk.talk.ami import Credentials
from asha.asterisk.talk.connections import Line, NotConnected, Wait
from asha.ocf import Deadline
from tests.fakes.asterisk import AMI, CONTROL, SECRET, SIP, USER, FakeAsterisk

if TYPE_CHECKING:
    from asha.asterisk.talk.connections import Conversation

ENOUGH = 5.0
SHORT = 0.2


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "SECOND_TRY_AFTER", 0.01)


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[FakeAsterisk]:
    with FakeAsterisk(tmp_path / "run") as asterisk:
        yield asterisk


@pytest.fixture
def me() -> Process:
    process = Proc().process(os.getpid())
    assert process is not None
    return process


def all_probes(fake: FakeAsterisk, me: Process) -> list[Probe]:
    return [
        ControlSocket(str(fake.folder), me),
        *(ManagerInterface(one, me, None) for one in me.listening(fake.ami_port, ("tcp",))),
        *(SipOptions(one, me) for one in me.listening(fake.sip_port, ("udp", "tcp"))),
    ]


def findings(verdicts: list[Verdict]) -> list[str]:
    return [verdict.finding for verdict in verdicts]


def test_all_well(fake: FakeAsterisk, me: Process) -> None:
    verdicts = ask(all_probes(fake, me), Deadline(ENOUGH), ENOUGH)
    assert findings(verdicts) == [HEALTHY] * 4


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        (CONTROL, [HUNG, HEALTHY, HEALTHY, HEALTHY]),
        (AMI, [HEALTHY, HUNG, HEALTHY, HEALTHY]),
        (SIP, [HEALTHY, HEALTHY, HUNG, HUNG]),
    ],
)
def test_silent_part_is_named(
    fake: FakeAsterisk, me: Process, part: str, expected: list[str]
) -> None:
    fake.silence(part)
    verdicts = ask(all_probes(fake, me), Deadline(ENOUGH), SHORT)
    assert findings(verdicts) == expected
    for verdict in verdicts:
        if verdict.finding == HUNG:
            assert verdict.probe.name in verdict.reason
            assert "is silent" in verdict.reason
            assert "within 0.2 s" in verdict.reason
            assert verdict.reason.endswith("asked twice")


def test_unread_requests_are_told(fake: FakeAsterisk, me: Process) -> None:
    fake.silence(SIP)
    (endpoint,) = me.listening(fake.sip_port, ("udp",))
    (verdict,) = ask([SipOptions(endpoint, me)], Deadline(ENOUGH), SHORT)
    assert "bytes wait unread" in verdict.reason


class Forgetful(Probe):
    """Answers every second time."""

    name = "test"

    def __init__(self) -> None:
        self.times = 0

    def where(self) -> str:
        return "nowhere"

    def converse(self, deadline: Deadline) -> Conversation[Verdict]:
        self.times += 1
        yield from ()
        return Verdict(self, HUNG if self.times == 1 else HEALTHY, "lost")


def test_one_lost_answer_is_not_a_hang() -> None:
    probe = Forgetful()
    assert findings(ask([probe], Deadline(ENOUGH), SHORT)) == [HEALTHY]
    assert probe.times == 2


def test_the_healthy_are_not_asked_twice() -> None:
    well, lost = Forgetful(), Forgetful()
    well.times = 1
    ask([well, lost], Deadline(ENOUGH), SHORT)
    assert (well.times, lost.times) == (2, 2)


def test_a_hang_is_certain_after_one_and_a_half_times_the_patience(
    fake: FakeAsterisk, me: Process
) -> None:
    fake.silence(CONTROL)
    began = time.monotonic()
    (verdict,) = ask([ControlSocket(str(fake.folder), me)], Deadline(30), 6.0)
    assert verdict.finding == HUNG
    assert 8.9 < time.monotonic() - began < 11.9


class Slow(Probe):
    """Answers each question, after a time."""

    name = "test"

    def where(self) -> str:
        return "nowhere"

    def converse(self, deadline: Deadline) -> Conversation[Verdict]:
        yield Wait(-1, 0, deadline.within(0.3))
        return Verdict(self, HEALTHY)


def test_a_late_answer_counts() -> None:
    assert findings(ask([Slow()], Deadline(ENOUGH), 0.4)) == [HEALTHY]


class SlowCall(FakeAsterisk):
    """Whose first call is not set up, and stands for ``lasts`` seconds."""

    lasts = 0.0
    ends: float | None = None

    def _console(self, command: str) -> bytes | None:
        if command.startswith("channel originate") and self.ends is None:
            self.ends = time.monotonic() + self.lasts
            return b""
        if command == "local show channels" and time.monotonic() < (self.ends or 0):
            return f"Local/{CallSetup.HALF}-00000001;1 -- {CallSetup.HALF}\n".encode()
        return super()._console(command)


@pytest.mark.parametrize(("lasts", "finding"), [(7.0, HEALTHY), (60.0, HUNG)])
def test_a_slow_call_has_the_patience_of_all_others(
    tmp_path: Path, me: Process, lasts: float, finding: str
) -> None:
    with SlowCall(tmp_path / "run") as fake:
        fake.lasts = lasts
        call = CallSetup(ControlSocket(str(fake.folder), me))
        begun = time.monotonic()
        [verdict] = ask([call], Deadline(30), 6.0)
        assert verdict.finding == finding, verdict.reason
        # Nor does one that is hung have Asterisk asked without a pause.
        assert time.monotonic() - begun > 6.9


@pytest.mark.parametrize("version", ["16.28.0~dfsg-0+deb11u4", "certified/18.9-cert3", ""])
def test_each_version_is_understood(tmp_path: Path, version: str) -> None:
    with FakeAsterisk(tmp_path / "run") as fake:
        fake.greeting = f"host/{fake.pid}/{version}\n"
        process = Proc().process(fake.pid)
        assert process is not None
        (verdict,) = ask([ControlSocket(str(fake.folder), process)], Deadline(ENOUGH), ENOUGH)
        assert verdict.finding == HEALTHY, verdict.reason


def test_removed_control_socket_is_refused(fake: FakeAsterisk, me: Process) -> None:
    fake.control_path.unlink()
    (verdict,) = ask([ControlSocket(str(fake.folder), me)], Deadline(ENOUGH), ENOUGH)
    assert verdict.finding == REFUSED
    assert "gone" in verdict.reason


def test_control_socket_of_another_process(fake: FakeAsterisk, me: Process) -> None:
    fake.pid = 1
    (verdict,) = ask([ControlSocket(str(fake.folder), me)], Deadline(ENOUGH), ENOUGH)
    assert verdict.finding == UNKNOWN
    assert f"Asterisk is process {me.pid}" in verdict.reason


def test_nothing_is_said_to_a_control_socket_that_another_process_holds(
    fake: FakeAsterisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its greeting would be as it should: whoever holds it can say what he likes."""
    asterisk = Proc().process(os.getppid())
    assert asterisk is not None
    fake.greeting = f"host/{asterisk.pid}/16.28.0\n"
    monkeypatch.setattr(Line, "send", None)
    control_socket = ControlSocket(str(fake.folder), asterisk)
    verdicts = ask([control_socket, CallSetup(control_socket)], Deadline(ENOUGH), ENOUGH)
    assert findings(verdicts) == [UNKNOWN, UNKNOWN]
    assert f"process {os.getpid()} holds it, but Asterisk is process" in verdicts[0].reason


def test_control_socket_that_complains_is_quoted(fake: FakeAsterisk, me: Process) -> None:
    fake.greeting = "No more connections allowed\n"
    (verdict,) = ask([ControlSocket(str(fake.folder), me)], Deadline(ENOUGH), ENOUGH)
    assert verdict.finding == UNKNOWN
    assert '"No more connections allowed"' in verdict.reason


def test_closed_ami_is_refused(fake: FakeAsterisk, me: Process) -> None:
    (endpoint,) = me.listening(fake.ami_port, ("tcp",))
    fake.close_part(AMI)
    (verdict,) = ask([ManagerInterface(endpoint, me, None)], Deadline(ENOUGH), ENOUGH)
    assert verdict.finding == REFUSED
    assert "nobody listens" in verdict.reason


def test_wrong_ami_secret_is_no_hang(fake: FakeAsterisk, me: Process) -> None:
    (endpoint,) = me.listening(fake.ami_port, ("tcp",))
    right = ManagerInterface(endpoint, me, Credentials(USER, SECRET))
    wrong = ManagerInterface(endpoint, me, Credentials(USER, "wrong"))
    verdicts = ask([right, wrong], Deadline(ENOUGH), ENOUGH)
    assert findings(verdicts) == [HEALTHY, UNKNOWN]
    assert "manager.conf" in verdicts[1].reason
    assert "wrong" not in verdicts[1].reason


def test_lost_packets_are_told_from_a_full_queue(me: Process) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        (endpoint,) = me.listening(listener.getsockname()[1], ("tcp",))
        probe = ManagerInterface(endpoint, me, None)
        # Nothing can filter loopback in a test, so the silence is given.
        lost = probe.silence(NotConnected("connection"), "silent")
        assert lost.finding == UNKNOWN
        assert "firewall" in lost.reason
        waiting = socket.create_connection(listener.getsockname())
        full = probe.silence(NotConnected("connection"), "silent")
        assert full.finding == HUNG
        assert full.reason == "silent, 1 connections wait unread"
        waiting.close()


def test_address_that_cannot_be_asked(me: Process) -> None:
    # A broadcast needs a permission that the probe's socket does not ask for.
    endpoint = Endpoint("udp", "255.255.255.255", 5060, 0, "")
    (verdict,) = ask([SipOptions(endpoint, me)], Deadline(ENOUGH), ENOUGH)
    assert verdict.finding == UNKNOWN
    assert "cannot be asked" in verdict.reason
