"""An Asterisk that is dead, or stopped by a signal."""

from __future__ import annotations

import os
import signal
import time

import pytest

from asha.agents import asterisk_explanations, asterisk_health
from asha.agents.asterisk_diagnosis import Diagnosis
from asha.asterisk.process.proc import Proc, Process
from asha.ocf import Context, Exit, Failed
from tests.fakes.asterisk import FakeProcess
from tests.unit.asterisk_health.pbx import Pbx, Scene, before_call, halt


def test_killed_asterisk(pbx: Pbx) -> None:
    pbx.start().end()
    outcome = pbx.act("monitor", 0)
    assert outcome.code == Exit.NOT_RUNNING, outcome.err
    assert "crashed or was killed" in outcome.reason
    assert pbx.act("stop").code == Exit.SUCCESS
    pbx.start()


def nothing() -> None:
    pass


def test_a_restart_by_somebody_else_is_waited_for(
    pbx: Pbx, monkeypatch: pytest.MonkeyPatch
) -> None:
    pbx.start().end()

    def again() -> None:
        pbx.started.append(FakeProcess(pbx.binary, pbx.run, (pbx.ami_port, pbx.sip_port)))

    monkeypatch.setattr(pbx.launcher, "looks", [again, nothing, nothing])
    outcome = pbx.act("monitor", 10)
    assert outcome.code == Exit.SUCCESS, outcome.err
    assert "somebody has restarted Asterisk" in outcome.err
    assert pbx.launcher.looks == []
    # A death of the new one is news again.
    [serving] = [one.read_text() for one in pbx.state.rglob("*serving*") if one.is_file()]
    assert serving.startswith(f"{pbx.started[-1].pid} ")


def test_no_restart_is_waited_for_for_ever(pbx: Pbx, monkeypatch: pytest.MonkeyPatch) -> None:
    pbx.start().end()
    monkeypatch.setattr(asterisk_health, "RESTART_SECONDS", 0.3)
    monkeypatch.setattr(pbx.launcher, "is_being_started", lambda launcher: True)
    assert pbx.act("monitor", 10).code == Exit.NOT_RUNNING
    assert pbx.act("stop").code == Exit.SUCCESS


def test_an_asterisk_that_is_restarted_is_no_hang(
    pbx: Pbx, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It closes its sockets before it ends, and is asked just then."""
    old = pbx.start()
    pbx.silence("console")

    def again() -> None:
        (pbx.run / "silent-console").unlink()
        os.kill(old.pid, signal.SIGTERM)
        old.popen.wait()
        pbx.started.append(FakeProcess(pbx.binary, pbx.run, (pbx.ami_port, pbx.sip_port)))

    monkeypatch.setattr(pbx.launcher, "looks", [again, nothing, nothing, nothing])
    outcome = pbx.act("monitor", 0, {"evidence_keep": "3"})
    assert outcome.code == Exit.SUCCESS, outcome.err
    assert not (pbx.state.parent / f"{pbx.state.name}-evidence").exists()


def test_a_probe_waits_for_nobody(pbx: Pbx, monkeypatch: pytest.MonkeyPatch) -> None:
    pbx.start().end()
    monkeypatch.setattr(pbx.launcher, "looks", [nothing, nothing])
    assert pbx.probe().code == Exit.NOT_RUNNING
    assert len(pbx.launcher.looks) == 2


def test_stopped_by_a_signal(pbx: Pbx) -> None:
    process = pbx.start()
    halt(process)
    outcome = pbx.act("monitor", 0)
    assert outcome.code == Exit.ERR_GENERIC
    assert "stopped by a signal (SIGSTOP" in outcome.reason
    began = time.monotonic()
    assert pbx.act("stop", given={"stop_grace": "15s"}).code == Exit.SUCCESS
    assert time.monotonic() - began < 10  # no grace for one that cannot use it
    assert pbx.alive() == []


def test_stopped_in_the_middle_of_a_look(scene: Scene) -> None:
    process = Proc(str(scene.proc.root)).process(scene.PID)
    assert process is not None
    scene.proc.task(50, 51, "T")
    environ = {"HA_RSCTMP": str(scene.state), "OCF_RESKEY_evidence_keep": "0"}
    agent = scene.agent("monitor", Context(environ))
    with pytest.raises(Failed, match="stopped by a signal"):
        Diagnosis(agent, process).reconsider()


def test_stopped_for_a_moment(pbx: Pbx, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asterisk_explanations, "STOPPED_CONFIRM", 10.0)
    process = pbx.start()
    halt(process)
    seen = before_call(
        monkeypatch, Process, "tasks_in", 3, lambda: os.kill(process.pid, signal.SIGCONT)
    )
    outcome = pbx.act("monitor", 0)
    assert outcome.code == Exit.SUCCESS, outcome.reason
    assert len(seen) >= 3
