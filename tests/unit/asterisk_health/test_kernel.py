"""What only the kernel can show, in a fake /proc."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

import pytest

from asha.agents import asterisk_base
from asha.agents.asterisk_diagnosis import Diagnosis
from asha.asterisk.process import proc, termination
from asha.asterisk.process.proc import Proc, Process
from asha.ocf import Context, Exit, Failed
from tests.fakes.ocf import CallQueue, Outcome
from tests.unit.asterisk_health.pbx import DEEPEST, MON, Scene, before_call, nodes_xml


@pytest.mark.parametrize("ends", [True, False])
def test_one_on_its_way_out_does_not_run(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, ends: bool
) -> None:
    """A console that ends just then is none; what never ends is not over."""
    monkeypatch.setattr(asterisk_base, "ENDING_SECONDS", 0.3)
    (scene.run / "asterisk.pid").unlink()
    gone = scene.proc.root / "50"
    (gone / "exe").unlink()
    if ends:
        before_call(monkeypatch, Proc, "has_program", 1, lambda: shutil.rmtree(gone))
    outcome = scene.look()
    assert outcome.code == (Exit.NOT_RUNNING if ends else Exit.ERR_GENERIC), outcome.reason
    assert ends or "has died but does not end" in outcome.reason


def test_debugger_is_no_failure(scene: Scene) -> None:
    scene.proc.task(50, 51, "t", tracer=77)
    outcome = scene.look()
    assert outcome.code == Exit.DEGRADED
    assert "gdb (77)" in outcome.reason


def test_thread_in_the_kernel_is_reported(scene: Scene) -> None:
    scene.proc.task(50, 51, "D", where="jbd2_log_wait_commit")
    outcome = scene.look()
    assert outcome.code == Exit.DEGRADED
    assert "thread 51 (asterisk)" in outcome.reason
    assert "jbd2_log_wait_commit" in outcome.reason


def test_thread_that_reads_a_disk_is_not(scene: Scene) -> None:
    scene.proc.task(50, 51, "D", switches=1)
    advance = scene.clock.sleep

    def run_meanwhile(seconds: float) -> None:
        advance(seconds)
        scene.proc.task(50, 51, "D", switches=int(scene.clock.now * 1000))

    scene.clock.sleep = run_meanwhile  # type: ignore[method-assign]
    assert scene.look().code == Exit.SUCCESS


def test_one_stopped_thread_among_many(scene: Scene) -> None:
    scene.proc.task(50, 51, "S")
    scene.proc.task(50, 52, "T")
    outcome = scene.look()
    assert outcome.code == Exit.ERR_GENERIC
    assert "stopped by a signal" in outcome.reason


def test_frozen_by_its_cgroup(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proc, "CGROUPS", str(tmp_path))
    events = tmp_path / "cgroup.events"
    events.write_text("populated 1\nfrozen 0\n")
    process = Proc(str(scene.proc.root)).process(scene.PID)
    assert process is not None
    environ = {"HA_RSCTMP": str(scene.state), "OCF_RESKEY_evidence_keep": "0"}
    agent = scene.agent("monitor", Context(environ))
    Diagnosis(agent, process).reconsider()
    events.write_text("populated 1\nfrozen 1\n")
    with pytest.raises(Failed, match=r"frozen by its cgroup: .*/cgroup\.freeze"):
        Diagnosis(agent, process).reconsider()


def test_a_thread_that_never_rests_is_reported(scene: Scene) -> None:
    def look(ran: int) -> Outcome:
        scene.proc.task(50, 51, "R", name="loop", ran=ran)
        given = {"sip_port": "0", "ami_port": "0"}
        return scene.act("monitor", DEEPEST, given, clock=scene.clock)

    second = 1_000_000_000
    assert look(0).code == Exit.SUCCESS
    scene.clock.sleep(60)
    outcome = look(58 * second)
    assert outcome.code == Exit.DEGRADED
    assert "thread 51 (loop) has not rested for 60 s and used 97% of a core" in outcome.reason
    scene.clock.sleep(60)
    assert look(70 * second).code == Exit.SUCCESS


def test_zombie_that_a_thread_holds(scene: Scene) -> None:
    scene.proc.task(50, 50, "Z")
    scene.proc.task(50, 51, "D", name="worker", where="rpc_wait_bit_killable")
    outcome = scene.look()
    assert outcome.code == Exit.ERR_GENERIC
    assert "thread 51 (worker) in state D waits in rpc_wait_bit_killable" in outcome.reason


def test_zombie_alone_is_dead(scene: Scene) -> None:
    scene.proc.task(50, 50, "Z")
    assert scene.look().code == Exit.NOT_RUNNING


def test_crash_with_a_core_is_named(scene: Scene) -> None:
    (scene.proc.root / "50" / "status").write_text("Uid:\t0\t0\t0\t0\nCoreDumping:\t1\n")
    (scene.run / "asterisk.ctl").unlink()
    outcome = scene.look()
    assert outcome.code == Exit.ERR_GENERIC
    assert "writing its core dump" in outcome.reason


@pytest.fixture
def signals(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """What would have been sent: the processes of a fake /proc are others' in truth."""
    sent: list[tuple[int, int]] = []

    def send(process: Process, number: int) -> None:
        sent.append((process.pid, number))

    monkeypatch.setattr(termination, "_send", send)
    return sent


def test_stop_that_cannot_kill_says_which_thread(
    scene: Scene, signals: list[tuple[int, int]]
) -> None:
    scene.proc.task(50, 51, "D", name="db_sync", where="jbd2_log_wait_commit")
    outcome = scene.act("stop", clock=scene.clock)
    assert outcome.code == Exit.ERR_GENERIC
    assert "thread 51 (db_sync) in state D waits in jbd2_log_wait_commit" in outcome.reason
    assert "fenced" in outcome.reason
    assert (50, signal.SIGKILL) in signals


@pytest.mark.parametrize(
    ("hung", "fencing", "other", "least", "most"),
    [
        (True, "true", 'online="true"', 0.8, 4),
        (True, "true", 'online="true" standby="true"', 15, 20),  # nobody is there to go on
        (True, "true", 'online="false"', 15, 20),
        (True, "false", "", 15, 20),
        (False, "", "", 15, 20),  # somebody asked for this stop, and the disk is slow
    ],
)
def test_stop_that_cannot_kill_is_shorter_where_a_fence_cures(
    scene: Scene, signals: list[tuple[int, int]],
    hung: bool, fencing: str, other: str, least: float, most: float,
) -> None:
    scene.proc.task(50, 50, "Z")
    scene.proc.task(50, 51, "D", name="db_sync")
    runner = CallQueue()
    if hung:
        (scene.state / "asterisk-health-p_test.hung").write_text("50 100")
        runner.expect(
            *("crm_attribute", "--type", "crm_config", "--name", "stonith-enabled"),
            *("--query", "--quiet", "--default", "true"),
            out=f"{fencing}\n",
        )
    if other:
        runner.expect(*MON, out=nodes_xml(other))
    begun = scene.clock.now
    outcome = scene.act("stop", clock=scene.clock, runner=runner)
    assert outcome.code == Exit.ERR_GENERIC
    assert "thread 51 (db_sync) in state D" in outcome.reason
    assert least <= scene.clock.now - begun <= most
    runner.done()


def test_a_wrapper_of_a_strangers_is_left_alone(
    scene: Scene, signals: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.proc.add(49, "safe_asterisk", uid=65534)

    def die(process: Process, number: int) -> None:
        signals.append((process.pid, number))
        scene.proc.remove(process.pid)

    monkeypatch.setattr(termination, "_send", die)
    assert scene.act("stop", clock=scene.clock).code == Exit.SUCCESS
    assert signals == [(50, signal.SIGTERM)]


def test_wrapper_is_killed_before_asterisk_is_asked(
    scene: Scene, signals: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.proc.add(49, "safe_asterisk")

    def die(process: Process, number: int) -> None:
        signals.append((process.pid, number))
        scene.proc.remove(process.pid)

    monkeypatch.setattr(termination, "_send", die)
    assert scene.act("stop", clock=scene.clock).code == Exit.SUCCESS
    assert signals[:2] == [(49, signal.SIGKILL), (50, signal.SIGTERM)]


@pytest.mark.parametrize("moves", [False, True])
def test_who_waits_for_a_stalled_disk_gets_no_grace(scene: Scene, moves: bool) -> None:
    """It could save nothing. A disk that is only slow does."""
    def sleep(seconds: float) -> None:
        scene.clock.sleep(seconds)
        scene.proc.task(50, 51, "D", switches=2 if moves else 1)

    scene.proc.task(50, 51, "D", switches=1)
    environ = {"HA_RSCTMP": str(scene.state), "OCF_RESKEY_binary": str(scene.binary),
               "OCF_RESKEY_run_directory": str(scene.run), "OCF_RESKEY_unit": "none"}
    agent = scene.agent("stop", Context(environ, clock=scene.clock, sleep=sleep))
    process = agent.proc.process(scene.PID)
    assert process is not None
    agent.write_state("known", process.identity)
    agent.write_state("hung", process.identity)
    assert (agent._grace() == 0) != moves
