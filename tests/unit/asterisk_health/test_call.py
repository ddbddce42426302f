"""The call of depth 20."""

from __future__ import annotations

from asha.ocf import Exit
from tests.fakes.asterisk import (
    CALL_LEFT,
    CALLS,
    CONTEXT,
    NO_CALLS,
    NO_RECORDS,
    REFUSES,
)
from tests.unit.asterisk_health.pbx import DEEP, DEEPEST, Pbx, with_secret


def test_a_call_is_made_at_depth_20_only(pbx: Pbx) -> None:
    with_secret(pbx)
    assert pbx.act("monitor", DEEP).code == Exit.SUCCESS
    assert not (pbx.run / CONTEXT).exists()
    for _ in range(2):
        assert pbx.act("monitor", DEEPEST).code == Exit.SUCCESS
    # Its context was made once, without a record, and is not made anew.
    assert (pbx.run / CONTEXT).read_text().splitlines() == [
        "s,1,Set(CDR_PROP(disable)=1)", "s,2,Answer()", "s,3,Wait(60)",
        "_k.,1,Set(CDR_PROP(disable)=1)", "_k.,2,Set(GLOBAL(ASHA_CALL)=${EXTEN})",
    ]
    calls = (pbx.run / CALLS).read_text().splitlines()
    assert len(calls) == 2
    assert calls[0].startswith("Local/s@asha-heartbeat/n extension k")
    assert calls[0] != calls[1]  # the sign of one is never taken for the other's


def test_without_a_cdr_engine_nothing_is_set(pbx: Pbx) -> None:
    with_secret(pbx)
    pbx.silence(NO_RECORDS)
    assert pbx.act("monitor", DEEPEST).code == Exit.SUCCESS
    assert "CDR" not in (pbx.run / CONTEXT).read_text()
    assert "s,1,Answer()\n" in (pbx.run / CONTEXT).read_text()


def test_a_call_that_hangs_is_failed(pbx: Pbx) -> None:
    with_secret(pbx)
    pbx.silence("call")
    assert pbx.act("monitor", DEEP).code == Exit.SUCCESS
    outcome = pbx.act("monitor", DEEPEST)
    assert outcome.code == Exit.ERR_GENERIC
    assert outcome.reason.startswith(f"call setup at {pbx.run}/asterisk.ctl is silent")
    assert "no end of the call within 0.5 s, asked twice" in outcome.reason


def test_there_are_never_two_calls(pbx: Pbx) -> None:
    with_secret(pbx)
    pbx.silence(CALL_LEFT)
    outcome = pbx.act("monitor", DEEPEST)
    assert outcome.code == Exit.DEGRADED
    assert "s@asha-heartbeat) has not ended" in outcome.reason
    assert not (pbx.run / CALLS).exists()


def test_a_refused_call_is_no_hang(pbx: Pbx) -> None:
    with_secret(pbx)
    pbx.silence(REFUSES)
    outcome = pbx.act("monitor", DEEPEST)
    assert outcome.code == Exit.DEGRADED
    assert "sets up no call: is it at its maxcalls" in outcome.reason
    assert pbx.act("monitor", DEEPEST, {"when_faulty": "failed"}).code == Exit.ERR_GENERIC


def test_an_asterisk_that_has_no_such_command_is_told_what_to_add(pbx: Pbx) -> None:
    with_secret(pbx)
    pbx.silence(NO_CALLS)
    outcome = pbx.act("monitor", DEEPEST)
    assert outcome.code == Exit.DEGRADED
    assert "load pbx_config.so and res_clioriginate.so" in outcome.reason
