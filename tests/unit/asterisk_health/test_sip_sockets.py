"""Where Asterisk takes SIP: learned at the start, missed when it is gone."""

from __future__ import annotations

import socket
from collections.abc import Generator
from pathlib import Path

import pytest

from asha.agents import asterisk_sip
from asha.agents.asterisk_health import AsteriskHealth
from asha.agents.asterisk_sip import SipSockets
from asha.asterisk.probes import HEALTHY, Probe, SipOptions, Verdict
from asha.asterisk.process.proc import Endpoint, Process
from asha.asterisk.talk import sip_transports
from asha.asterisk.talk.connections import Wait
from asha.ocf import Exit
from tests.fakes.asterisk import LOADING, SIP, free_ports
from tests.unit.asterisk_health.pbx import AUTO, DEEP, Pbx, before_call


def pjsip(*ports: int) -> str:
    lines = (f"Transport:  transport-{port}  udp  0  0  0.0.0.0:{port}\n" for port in ports)
    return f"\n{''.join(lines)}\nObjects found: {len(ports)}\n\n"


def chan_sip(port: int) -> str:
    return f"Global Settings:\n  UDP Bindaddress:        127.0.0.1:{port}\n"


def says(pbx: Pbx, pjsip_says: str, chan_sip_says: str) -> None:
    (pbx.run / "says-pjsip-show-transports").write_text(pjsip_says)
    (pbx.run / "says-sip-show-settings").write_text(chan_sip_says)


NO_CHAN_SIP = "No such command 'sip show settings'\n"


def start_and_learn(pbx: Pbx) -> Path:
    """PJSIP alone is there; the file in which its socket is remembered."""
    says(pbx, pjsip(pbx.sip_port), "")
    assert pbx.act("start", given=AUTO).code == Exit.SUCCESS
    return next(pbx.state.parent.rglob("*.sip"))


def test_where_sip_is_taken_is_learned_at_the_start(pbx: Pbx) -> None:
    says(pbx, pjsip(pbx.sip_port), NO_CHAN_SIP)
    assert pbx.act("start", given=AUTO).code == Exit.SUCCESS
    assert pbx.act("monitor", DEEP, AUTO).code == Exit.SUCCESS
    pbx.silence(SIP)
    outcome = pbx.act("monitor", DEEP, AUTO)
    assert outcome.code == Exit.ERR_GENERIC
    assert f"UDP 127.0.0.1 port {pbx.sip_port}" in outcome.reason


def test_a_stack_without_its_port_keeps_nobody_waiting(pbx: Pbx) -> None:
    taken = free_ports()[0]  # by somebody else: Asterisk says so, and has no such socket
    says(pbx, pjsip(pbx.sip_port), chan_sip(taken))
    outcome = pbx.act("start", given=AUTO)
    assert outcome.code == Exit.SUCCESS
    assert f"should take SIP on port {taken} and does not" in outcome.err
    assert pbx.act("monitor", DEEP, AUTO).code == Exit.SUCCESS


def test_no_stack_has_its_port(pbx: Pbx) -> None:
    taken = free_ports()[0]
    says(pbx, pjsip(taken), "")
    outcome = pbx.act("start", given=AUTO)
    assert outcome.code == Exit.ERR_GENERIC
    assert f"no SIP socket on port {taken}:" in outcome.reason


def test_a_start_in_which_no_stack_takes_sip_fails_soon(
    pbx: Pbx, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both nodes may have to try several times before the files that served are used."""
    monkeypatch.setattr(asterisk_sip, "BIND_SECONDS", 1000.0)
    monkeypatch.setattr(asterisk_sip, "NONE_SECONDS", 0.1)
    monkeypatch.setattr(sip_transports, "DEFAULT_PORT", free_ports()[0])
    says(pbx, "No objects found.\n", NO_CHAN_SIP)
    outcome = pbx.act("start", given=AUTO)
    assert outcome.code == Exit.ERR_GENERIC
    assert "no SIP socket on port" in outcome.reason


def test_each_stack_is_missed(pbx: Pbx) -> None:
    state = start_and_learn(pbx)
    lost = free_ports()[0]  # it was there, it is not now, and chan_sip still says that it is
    state.write_text(state.read_text() + f"udp {lost} chan_sip\n")
    says(pbx, pjsip(pbx.sip_port), chan_sip(lost))
    outcome = pbx.act("monitor", DEEP, AUTO)
    assert outcome.code == Exit.ERR_GENERIC
    assert f"no SIP socket on port {lost}:" in outcome.reason


def test_a_stack_that_is_gone_is_told_and_no_reason_to_end_calls(pbx: Pbx) -> None:
    state = start_and_learn(pbx)
    learned = state.read_text()
    lost = free_ports()[0]
    state.write_text(f"{learned}udp {lost} chan_sip\n")
    says(pbx, pjsip(pbx.sip_port), NO_CHAN_SIP)
    for _ in range(2):
        outcome = pbx.act("monitor", DEEP, AUTO)
        assert outcome.code == Exit.DEGRADED
        assert f"no longer takes SIP on port {lost}: chan_sip is not loaded" in outcome.reason
    assert state.read_text() == f"{learned}udp {lost} chan_sip lost\n"
    # Loaded again, and then bound elsewhere.
    with socket.socket(type=socket.SOCK_DGRAM) as other, pytest.MonkeyPatch.context() as patch:
        other.bind(("127.0.0.1", lost))
        listening = Process.listening

        def listed(
        process: Process, port: int, protocols: tuple[str, ...], **_: bool
    ) -> list[Endpoint]:
            if port == lost:
                return [Endpoint("udp", "127.0.0.1", port, 0, "1")]
            return listening(process, port, protocols)

        patch.setattr(Process, "listening", listed)
        says(pbx, pjsip(pbx.sip_port), chan_sip(lost))
        patch.setattr(SipOptions, "converse", lambda probe, _: healthy(probe))
        assert pbx.act("monitor", DEEP, AUTO).code == Exit.SUCCESS
    assert state.read_text() == f"{learned}udp {lost} chan_sip\n"
    says(pbx, pjsip(pbx.sip_port), chan_sip(pbx.sip_port))
    assert pbx.act("monitor", DEEP, AUTO).code == Exit.SUCCESS
    assert pbx.act("stop", given=AUTO).code == Exit.SUCCESS
    assert not state.exists()


def healthy(probe: Probe) -> Generator[Wait, bool, Verdict]:
    yield from ()
    return Verdict(probe, HEALTHY)


def test_a_stack_that_does_not_tell_is_not_forgotten(pbx: Pbx) -> None:
    state = start_and_learn(pbx)
    state.write_text(f"{state.read_text()}udp {free_ports()[0]} chan_sip\n")
    before = state.read_text()
    says(pbx, pjsip(pbx.sip_port), "")  # its answer does not come
    assert pbx.act("monitor", DEEP, AUTO).code == Exit.ERR_GENERIC
    assert state.read_text() == before


def test_after_a_restart_by_hand_all_is_watched_again(pbx: Pbx) -> None:
    state = start_and_learn(pbx)
    learned = state.read_text()
    ami = next(pbx.state.glob("*.ami"))
    ami.write_text("1 1")
    state.write_text(learned.replace(learned.split()[1], "1"))
    assert pbx.act("monitor", DEEP, AUTO).code == Exit.SUCCESS
    assert state.read_text() == learned
    assert ami.read_text() == learned.splitlines()[0]


@pytest.mark.parametrize("transports", ["tls", "wss"])
def test_tls_alone_is_not_watched_and_no_reason_not_to_start(pbx: Pbx, transports: str) -> None:
    pbx.launcher.clears = False
    says(pbx, pjsip(5061).replace("udp", transports), NO_CHAN_SIP)
    outcome = pbx.act("start", given=AUTO)
    assert outcome.code == Exit.SUCCESS, outcome.reason
    assert "by TLS or WebSocket only" in outcome.err
    outcome = pbx.act("monitor", DEEP, AUTO)
    assert outcome.code == Exit.DEGRADED
    assert "by TLS or WebSocket only" in outcome.reason


def test_tls_does_not_make_up_for_what_was_there(pbx: Pbx) -> None:
    """PJSIP does not list a transport that could not start."""
    start_and_learn(pbx)
    says(pbx, pjsip(5061).replace("udp", "tls"), NO_CHAN_SIP)
    pbx.close(SIP)
    for _ in range(2):
        outcome = pbx.act("monitor", DEEP, AUTO)
        assert outcome.code == Exit.ERR_GENERIC
        assert f"no SIP socket on port {pbx.sip_port}:" in outcome.reason


def test_what_is_told_while_it_loads_is_not_all(pbx: Pbx) -> None:
    state = start_and_learn(pbx)
    state.unlink()
    (pbx.run / f"silent-{LOADING}").touch()
    assert pbx.act("monitor", DEEP, AUTO).code == Exit.SUCCESS
    assert not state.exists()
    (pbx.run / f"silent-{LOADING}").unlink()
    assert pbx.act("monitor", DEEP, AUTO).code == Exit.SUCCESS
    assert state.exists()


def test_what_cannot_be_kept_is_asked_again(pbx: Pbx) -> None:
    """A full /run, and SIP on a port that nobody would guess."""
    says(pbx, pjsip(pbx.sip_port), "")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AsteriskHealth, "write_state", lambda *_: None)
        assert pbx.act("start", given=AUTO).code == Exit.SUCCESS
        assert pbx.act("monitor", DEEP, AUTO).code == Exit.SUCCESS


def test_one_that_still_loads_is_waited_for(pbx: Pbx, monkeypatch: pytest.MonkeyPatch) -> None:
    """After "core restart now", which is the same process."""
    pbx.start()
    pbx.close(SIP)
    (pbx.run / f"silent-{LOADING}").touch()
    listening = Process.listening
    looks = before_call(monkeypatch, SipSockets, "still_loads", 1, lambda: None)

    def listed(
        process: Process, port: int, protocols: tuple[str, ...], **_: bool
    ) -> list[Endpoint]:
        if port == pbx.sip_port and looks:
            return [Endpoint("udp", "127.0.0.1", port, 0, "1")]
        return listening(process, port, protocols)

    monkeypatch.setattr(Process, "listening", listed)
    monkeypatch.setattr(SipOptions, "converse", lambda probe, _: healthy(probe))
    assert pbx.act("monitor", DEEP).code == Exit.SUCCESS


def test_one_that_loads_for_ever_is_not(pbx: Pbx) -> None:
    pbx.start()
    pbx.close(SIP)
    (pbx.run / f"silent-{LOADING}").touch()
    outcome = pbx.act("monitor", DEEP, {"reload_patience": "500ms"})
    assert outcome.code == Exit.ERR_GENERIC
    assert "no SIP socket" in outcome.reason


def test_one_address_is_asked_where_sip_is_taken_there(pbx: Pbx) -> None:
    """The other port belongs to a stack that is bound to another address."""
    with socket.socket(type=socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.2", free_ports()[0]))
        elsewhere = other.getsockname()[1]
        listening = Process.listening

        def listed(
        process: Process, port: int, protocols: tuple[str, ...], **_: bool
    ) -> list[Endpoint]:
            if port == elsewhere:
                return [Endpoint("udp", "127.0.0.2", port, 0, "1")]
            return listening(process, port, protocols)

        says(pbx, pjsip(pbx.sip_port), chan_sip(elsewhere))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Process, "listening", listed)
            given = {**AUTO, "sip_address": "127.0.0.1"}
            assert pbx.act("start", given=given).code == Exit.SUCCESS
            outcome = pbx.act("monitor", DEEP, given)
            assert outcome.code == Exit.SUCCESS, outcome.reason
            pbx.silence(SIP)
            assert pbx.act("monitor", DEEP, given).code == Exit.ERR_GENERIC


def test_the_only_stack_is_missed(pbx: Pbx) -> None:
    says(pbx, pjsip(pbx.sip_port), "")
    assert pbx.act("start", given=AUTO).code == Exit.SUCCESS
    says(pbx, "No such command", "No such command")
    pbx.close(SIP)
    outcome = pbx.act("monitor", DEEP, AUTO)
    assert outcome.code == Exit.ERR_GENERIC
    assert f"no SIP socket on port {pbx.sip_port}:" in outcome.reason


def test_one_that_was_started_by_an_older_agent_is_asked_when_it_matters(pbx: Pbx) -> None:
    pbx.start()  # with a port in its parameters, so that nothing is remembered
    says(pbx, pjsip(pbx.sip_port), "")
    assert pbx.act("monitor", DEEP, AUTO).code == Exit.SUCCESS
    (state,) = pbx.state.glob("*.sip")
    assert state.read_text().endswith(f"\nudp {pbx.sip_port} PJSIP\n")
