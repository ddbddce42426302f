"""tests.fakes.ocf: fakes that can fail."""

from __future__ import annotations

import pytest

from asha.run.deadline import Deadline
from asha.run.results import Expired
from tests.fakes.ocf import CallQueue, FakeClock, Outcome


@pytest.fixture
def deadline() -> Deadline:
    clock = FakeClock()
    return Deadline(10, clock, clock.sleep)


def test_expected_calls_are_answered_in_order(deadline: Deadline) -> None:
    queue = CallQueue()
    queue.expect("mount", "/a", out="fine\n")
    queue.expect("umount", "/a", code=32, err="busy\n")
    assert queue.run(["mount", "/a"], deadline).out == "fine\n"
    busy = queue.run(["umount", "/a"], deadline)
    assert (busy.ok, busy.code, busy.complaint) == (False, 32, "busy")
    queue.done()
    assert queue.seen == [["mount", "/a"], ["umount", "/a"]]


def test_an_error_can_be_the_answer(deadline: Deadline) -> None:
    queue = CallQueue()
    queue.expect("mount", raises=Expired("took too long"))
    with pytest.raises(Expired, match="took too long"):
        queue.run(["mount"], deadline)


def test_another_call_than_expected_fails(deadline: Deadline) -> None:
    queue = CallQueue()
    queue.expect("mount", "/a")
    with pytest.raises(AssertionError, match="/b"):
        queue.run(["mount", "/b"], deadline)


def test_an_unexpected_call_fails(deadline: Deadline) -> None:
    with pytest.raises(AssertionError, match="unexpected call"):
        CallQueue().run(["mount"], deadline)


def test_a_call_that_never_came_fails() -> None:
    queue = CallQueue()
    queue.expect("mount")
    with pytest.raises(AssertionError, match="never came"):
        queue.done()


def test_sleeping_moves_the_clock_and_nothing_else_does() -> None:
    clock = FakeClock()
    begun = clock()
    assert clock() == begun
    clock.sleep(2)
    assert clock() == begun + 2
    clock.sleep(0)
    assert clock() > begun + 2


def test_an_outcome_has_at_most_one_reason() -> None:
    assert Outcome(1, "", "ERROR: x\nocf-exit-reason:why\n").reason == "why"
    assert Outcome(0, "", "x\n").reason == ""
    with pytest.raises(AssertionError, match="more than one"):
        _ = Outcome(1, "", "ocf-exit-reason:a\nocf-exit-reason:b\n").reason
