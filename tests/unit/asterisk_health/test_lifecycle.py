"""The whole life of a resource, and what is refused before it begins."""

from __future__ import annotations

import time

import pytest

from asha.agents.asterisk_health import AsteriskHealth
from asha.asterisk.process.proc import Process
from asha.ocf import Degraded, Exit
from tests.fakes.asterisk import FakeProcess
from tests.unit.asterisk_health.pbx import DEEP, Pbx


def test_whole_life(pbx: Pbx) -> None:
    assert pbx.probe().code == Exit.NOT_RUNNING
    first = pbx.start()
    assert pbx.alive() == [first.pid]
    assert pbx.probe().code == Exit.SUCCESS
    assert pbx.act("monitor", 0).code == Exit.SUCCESS
    assert pbx.act("monitor", DEEP).code == Exit.SUCCESS
    assert pbx.start() is first
    assert pbx.act("stop").code == Exit.SUCCESS
    assert pbx.alive() == []
    assert first.popen.wait() == 0  # it was asked, not killed
    assert pbx.act("stop").code == Exit.SUCCESS
    gone = pbx.act("monitor", 0)
    assert gone.code == Exit.NOT_RUNNING
    assert gone.reason == "Asterisk is not running"


def test_probe_changes_nothing(pbx: Pbx) -> None:
    for _ in range(2):
        before = sorted(pbx.run.rglob("*"))
        pbx.probe()
        assert sorted(pbx.run.rglob("*")) == before
        assert not pbx.state.exists()
        # And once more with one that runs.
        pbx.started.append(FakeProcess(pbx.binary, pbx.run, (pbx.ami_port, pbx.sip_port)))
        end = time.monotonic() + 10
        while not (pbx.run / "asterisk.pid").exists() and time.monotonic() < end:
            time.sleep(0.02)


def test_one_death_is_told_by_one(pbx: Pbx) -> None:
    """By the monitor that finds it, or by the notice (asha/asterisk/process/death_notice.py)."""
    first = pbx.start()
    (serving,) = pbx.state.glob("*.serving")
    assert str(pbx.binary) in serving.read_text()
    assert pbx.act("monitor", 0).code == Exit.SUCCESS
    first.popen.kill()
    first.popen.wait()
    assert pbx.probe().code == Exit.NOT_RUNNING
    assert serving.exists()  # a probe changes nothing
    assert pbx.act("monitor", 0).code == Exit.NOT_RUNNING
    assert not serving.exists()


def test_a_debugger_at_the_start_changes_nothing(
    pbx: Pbx, monkeypatch: pytest.MonkeyPatch
) -> None:
    def debugged(agent: AsteriskHealth, process: Process) -> None:
        raise Degraded("a debugger is at work")

    monkeypatch.setattr(AsteriskHealth, "_look_once", debugged)
    first = pbx.start()
    (serving,) = pbx.state.glob("*.serving")
    # And where it runs already it is not replaced.
    serving.unlink()
    assert pbx.start() is first
    assert serving.exists()
    assert first.popen.poll() is None


def test_probe_where_nothing_is_installed(pbx: Pbx) -> None:
    outcome = pbx.probe({"binary": "/nonexistent/asterisk"})
    assert outcome.code == Exit.NOT_RUNNING


def test_start_where_nothing_is_installed(pbx: Pbx) -> None:
    outcome = pbx.act("start", given={"binary": "/nonexistent/asterisk"})
    assert outcome.code == Exit.ERR_INSTALLED
    assert "/nonexistent/asterisk" in outcome.reason


@pytest.mark.parametrize(
    "parameters",
    [
        {"unit": "asterisk"},
        {"unit": "../asterisk.service"},
        {"sip_address": "pbx.example.org"},
        {"sip_port": "70000"},
        {"sip_port": "5060 0"},
        {"sip_port": "5060,5080"},
        {"sip_port": "auto 5060"},
        {"run_directory": "run/asterisk"},
        {"probe_timeout": "soon"},
        {"when_lost": "perhaps"},
    ],
)
def test_bad_parameter(pbx: Pbx, parameters: dict[str, str]) -> None:
    outcome = pbx.act("start", given=parameters)
    assert outcome.code == Exit.ERR_CONFIGURED
    (name,) = parameters
    assert name in outcome.reason
    assert pbx.started == []
    assert pbx.act("stop", given=parameters).code == Exit.SUCCESS
