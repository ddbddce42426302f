"""An Asterisk that is dead, or stopped by a signal."""

from __future__ import annotations

import os
import signal
import time

import pytest

from asha.agents import asterisk_explanations
from asha.agents.asterisk_diagnosis import Diagnosis
from asha.asterisk.process.proc import Proc, Process
from asha.ocf import Context, Exit, Failed
from tests.unit.asterisk_health.pbx import Pbx, Scene, before_call, halt


def test_killed_asterisk(pbx: Pbx) -> None:
    pbx.start().end()
    outcome = pbx.act("monitor", 0)
    assert outcome.code == Exit.NOT_RUNNING, outcome.err
    assert "crashed or was killed" in outcome.reason
    assert pbx.act("stop").code == Exit.SUCCESS
    pbx.start()


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
