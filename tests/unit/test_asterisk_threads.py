"""Threads that never rest, and those that do not come out of the kernel."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from asha.asterisk.process.proc import Proc, Process
from asha.asterisk.talk.connections import Silent
from asha.asterisk.talk.control import Console
from asha.asterisk.threads import Runaway, runaways, stuck
from asha.ocf import Deadline
from tests.fakes.asterisk import FakeProc

SECOND = 1_000_000_000


@pytest.fixture
def fake(tmp_path: Path) -> FakeProc:
    one = FakeProc(tmp_path)
    one.add(50, "asterisk")
    return one


def process(fake: FakeProc) -> Process:
    found = Proc(str(fake.root)).process(50)
    assert found is not None
    return found


def nobody(fake: FakeProc) -> Console:
    """A control socket at which nobody listens."""
    return Console(str(fake.root), process(fake))


def since(fake: FakeProc, ran: float, waited: float, seconds: float) -> list[str]:
    """What is said of a thread that did that between two looks."""
    fake.task(50, 51, "R", name="loop", ran=5 * SECOND, waited=SECOND)
    before = Runaway(process(fake), 100.0).remember()
    fake.task(50, 51, "R", name="loop",
              ran=5 * SECOND + int(ran * SECOND), waited=SECOND + int(waited * SECOND))
    look = Runaway(process(fake), 100.0 + seconds)
    return runaways(look, before, nobody(fake), Deadline(1))


@pytest.mark.parametrize(
    ("ran", "waited", "seconds", "named"),
    [
        (60, 0, 60, True),
        (40, 19, 60, True),  # the machine is busy: it waits, and does not rest
        (20, 39, 60, True),
        (10, 49, 60, False),  # a busy thread of a machine that is far too busy
        (50, 0, 60, False),
        (0, 0, 60, False),
        (15, 0, 15, False),  # too early to say
    ],
)
def test_a_thread_that_never_rests(
    fake: FakeProc, ran: float, waited: float, seconds: float, named: bool
) -> None:
    said = since(fake, ran, waited, seconds)
    assert bool(said) == named
    if named:
        assert said[0].startswith("thread 51 (loop) has not rested for 60 s")


@pytest.mark.parametrize("realtime", [False, True])
def test_one_at_realtime_priority_is_told_with_what_helps(fake: FakeProc, realtime: bool) -> None:
    fake.task(50, 51, "R", realtime=realtime)
    before = Runaway(process(fake), 100.0).remember()
    fake.task(50, 51, "R", realtime=realtime, ran=60 * SECOND)
    look = Runaway(process(fake), 160.0)
    (said,) = runaways(look, before, nobody(fake), Deadline(1))
    assert ("at real-time priority" in said) == realtime
    assert ("chrt --other --pid 0 51" in said) == realtime


def test_the_kernel_tells_the_priority() -> None:
    me = Proc().process(os.getpid())
    assert me is not None
    normal = os.sched_getscheduler(0)
    assert not any(task.is_realtime for task in me.tasks())
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    except PermissionError:
        pytest.skip("may not have real-time priority")
    try:
        assert [task.is_realtime for task in me.tasks() if task.tid == me.pid] == [True]
    finally:
        os.sched_setscheduler(0, normal, os.sched_param(0))


def test_another_process_is_not_compared(fake: FakeProc) -> None:
    fake.task(50, 51, "R", ran=0)
    before = Runaway(process(fake), 100.0).remember()
    fake.add(50, "asterisk", started=200)
    fake.task(50, 51, "R", ran=60 * SECOND)
    assert Runaway(process(fake), 160.0).since(before) == []


@pytest.mark.parametrize("text", ["", "50 100", "50 100\n40.0\n51 1", "50 100\n\n51 1 1"])
def test_a_torn_state_file_is_none(fake: FakeProc, text: str) -> None:
    assert Runaway(process(fake), 160.0).since(text) == []


def test_asterisk_names_the_threads_work(fake: FakeProc, monkeypatch: pytest.MonkeyPatch) -> None:
    listing = (
        "0x7f16e3d4d6c0 51 cleanup              started at [  410] pbx_realtime.c load_module()\n"
        "1 threads listed.\n"
    )
    answers: list[str | Exception] = [listing, Silent("greeting")]

    def answer(conversation: object) -> str:
        said = answers.pop(0)
        if isinstance(said, Exception):
            raise said
        return said

    monkeypatch.setattr("asha.asterisk.threads.hold", answer)
    fake.task(50, 51, "R", ran=0)
    before = Runaway(process(fake), 100.0).remember()
    fake.task(50, 51, "R", ran=60 * SECOND)
    look = Runaway(process(fake), 160.0)
    (told,) = runaways(look, before, nobody(fake), Deadline(1))
    assert told.endswith(": cleanup, started at [  410] pbx_realtime.c load_module()")
    (bare,) = runaways(look, before, nobody(fake), Deadline(1))
    assert bare.endswith("of a core")


def test_only_who_stands_still_is_stuck(fake: FakeProc) -> None:
    fake.task(50, 51, "D", switches=5)
    fake.task(50, 52, "D", switches=9)
    before = {task.tid: task.switches for task in process(fake).tasks_in("D")}
    fake.task(50, 52, "D", switches=10)
    (said,) = stuck(process(fake), before, 1.0)
    assert said.startswith("thread 51 (asterisk) has waited 1 s in the kernel (io_schedule)")
