"""A way to Asterisk is lost, and the phones work."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

import pytest

from asha.agents.asterisk_sip import SipSockets
from asha.asterisk.process.proc import Endpoint, Process
from asha.asterisk.talk.ami import Ami
from asha.asterisk.talk.connections import Line
from asha.ocf import Exit
from tests.fakes.asterisk import AMI, LOADING, SECRET, SIP
from tests.unit.asterisk_health.pbx import (
    DEEP,
    DEEPEST,
    Pbx,
    before_call,
    keep_secret,
    squatter,
    with_secret,
)

if TYPE_CHECKING:
    from asha.asterisk.talk.connections import Conversation



def test_removed_control_socket(pbx: Pbx) -> None:
    pbx.start()
    (pbx.run / "asterisk.ctl").unlink()
    for depth in (0, DEEP):
        outcome = pbx.act("monitor", depth)
        assert outcome.code == Exit.DEGRADED
        assert "asterisk.ctl is gone" in outcome.reason
    assert pbx.act("monitor", 0, {"when_lost": "failed"}).code == Exit.ERR_GENERIC
    assert pbx.act("monitor", 0, {"sip_port": "0", "ami_port": "0"}).code == Exit.ERR_GENERIC


def test_removed_control_socket_and_no_other_sign_of_life(pbx: Pbx) -> None:
    pbx.start()
    (pbx.run / "asterisk.ctl").unlink()
    pbx.silence(SIP)
    pbx.silence(AMI)
    outcome = pbx.act("monitor", 0)
    assert outcome.code == Exit.ERR_GENERIC
    assert "asterisk.ctl is gone" in outcome.reason
    assert "SIP" in outcome.reason


def test_missing_pid_file(pbx: Pbx) -> None:
    process = pbx.start()
    (pbx.run / "asterisk.pid").write_text("1")
    outcome = pbx.act("monitor", 0)
    assert outcome.code == Exit.DEGRADED
    assert f"({process.pid})" in outcome.reason
    assert pbx.probe().code == Exit.SUCCESS
    assert pbx.act("stop").code == Exit.SUCCESS
    assert pbx.alive() == []


def test_ami_that_was_there_is_missed(pbx: Pbx) -> None:
    pbx.start()
    pbx.close(AMI)
    outcome = pbx.act("monitor", DEEP)
    assert outcome.code == Exit.DEGRADED
    assert "AMI no longer listens" in outcome.reason
    assert pbx.act("monitor", DEEP, {"when_lost": "failed"}).code == Exit.ERR_GENERIC


def test_ami_that_was_never_there_is_not_missed(pbx: Pbx) -> None:
    pbx.launcher.clears = False
    (pbx.run / f"closed-{AMI}").touch()
    outcome = pbx.act("start")
    assert outcome.code == Exit.SUCCESS
    assert "AMI" not in outcome.err
    assert pbx.act("monitor", DEEP).code == Exit.SUCCESS


def test_ami_that_is_configured_and_was_never_there_is_missed(pbx: Pbx) -> None:
    keep_secret(pbx)
    pbx.launcher.clears = False
    (pbx.run / f"closed-{AMI}").touch()
    outcome = pbx.act("start")
    assert outcome.code == Exit.SUCCESS
    assert "set enabled=yes in manager.conf" in outcome.err
    for given in ({}, {"when_lost": "failed"}):
        outcome = pbx.act("monitor", DEEP, given)
        assert outcome.code == Exit.DEGRADED
        assert "AMI is not watched: no port" in outcome.reason


@pytest.mark.parametrize("known", [False, True])
def test_nothing_is_said_to_a_squatter(pbx: Pbx, known: bool) -> None:
    """He is named, and no parameter makes a failure of it: he could end all calls."""
    keep_secret(pbx)
    if not known:
        pbx.launcher.clears = False
        (pbx.run / f"closed-{AMI}").touch()
    assert pbx.act("start").code == Exit.SUCCESS
    if known:
        pbx.close(AMI)
    with squatter(pbx.ami_port) as came:
        for depth in (DEEP, DEEPEST):
            outcome = pbx.act("monitor", depth, {"when_lost": "failed"})
            assert outcome.code == Exit.DEGRADED, outcome.reason
            assert f"({os.getpid()}) of user " in outcome.reason
            assert f"has AMI's port {pbx.ami_port}: end it, touch manager.conf" in outcome.reason
        assert came == []


def test_a_port_that_is_bound_anew_while_it_is_asked_is_told_nothing(
    pbx: Pbx, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_secret(pbx)
    with contextlib.ExitStack() as stack:
        came: list[list[bytes]] = []

        def taken() -> None:
            pbx.close(AMI)
            came.append(stack.enter_context(squatter(pbx.ami_port)))

        before_call(monkeypatch, Ami, "greet", 1, taken)
        outcome = pbx.act("monitor", DEEP, {"probes": "ami"})
        assert outcome.code == Exit.DEGRADED, outcome.reason
        assert "is not Asterisk's any more: nothing was said to it" in outcome.reason
        # Connected to, greeted by it, and not one byte was sent.
        assert came
        assert b"".join(came[0]) == b""


def test_the_secret_is_never_sent(pbx: Pbx) -> None:
    with_secret(pbx)
    sent: list[bytes] = []
    send = Line.send

    def watched(line: Line, data: bytes) -> Conversation[None]:
        sent.append(data)
        return send(line, data)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Line, "send", watched)
        assert pbx.act("monitor", DEEPEST).code == Exit.SUCCESS
    assert any(b"Action: Login" in data for data in sent)
    assert not any(SECRET.encode() in data or b"Secret:" in data for data in sent)


def test_closed_sip_is_a_failure(pbx: Pbx) -> None:
    pbx.start()
    pbx.close(SIP)
    assert pbx.act("monitor", 0).code == Exit.SUCCESS
    outcome = pbx.act("monitor", DEEP)
    assert outcome.code == Exit.ERR_GENERIC
    assert "no SIP socket" in outcome.reason


def test_ami_that_is_closed_while_it_loads_is_not_lost(
    pbx: Pbx, monkeypatch: pytest.MonkeyPatch
) -> None:
    pbx.start()
    closed = [True]
    listening = Process.listening

    def listed(
        process: Process, port: int, protocols: tuple[str, ...], **_: bool
    ) -> list[Endpoint]:
        return [] if closed else listening(process, port, protocols)

    monkeypatch.setattr(Process, "listening", listed)
    before_call(monkeypatch, SipSockets, "still_loads", 2, closed.clear)
    (pbx.run / f"silent-{LOADING}").touch()
    assert pbx.act("monitor", DEEP, {"when_lost": "failed"}).code == Exit.SUCCESS
