"""asha.run.deadline: every wait ends in time, by a clock that cannot be stepped."""

from __future__ import annotations

import pytest

from asha.run.deadline import Deadline
from asha.run.results import Expired
from tests.fakes.ocf import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def deadline(clock: FakeClock, seconds: float) -> Deadline:
    return Deadline(seconds, clock, clock.sleep)


def test_remaining_falls_to_nothing_and_not_below(clock: FakeClock) -> None:
    limit = deadline(clock, 10)
    clock.now += 4
    assert limit.remaining() == 6
    assert limit.remaining(2) == 2
    assert not limit.expired
    clock.now += 7
    assert limit.remaining() == 0
    assert limit.remaining(2) == 0
    assert limit.expired


def test_within_never_outlasts_its_parent(clock: FakeClock) -> None:
    limit = deadline(clock, 10)
    assert limit.within(3).remaining() == 3
    assert limit.within(30).remaining() == 10


def test_require_says_what_was_being_done(clock: FakeClock) -> None:
    limit = deadline(clock, 1)
    limit.require("waiting for it")
    clock.now += 1
    with pytest.raises(Expired, match="waiting for it"):
        limit.require("waiting for it")


def test_pause_does_not_sleep_past_the_end(clock: FakeClock) -> None:
    limit = deadline(clock, 2)
    begun = clock.now
    limit.pause(1)
    assert clock.now == begun + 1
    limit.pause(60)
    assert clock.now == begun + 2


def test_poll_asks_once_even_when_time_is_over(clock: FakeClock) -> None:
    asked = []

    def condition() -> bool:
        asked.append(clock.now)
        return True

    assert deadline(clock, 0).poll(condition)
    assert len(asked) == 1


def test_poll_asks_once_more_at_the_very_end(clock: FakeClock) -> None:
    limit = deadline(clock, 1)
    begun = clock.now
    # Holds only at the last moment, which no multiple of the step hits.
    assert limit.poll(lambda: clock.now >= begun + 1, every=0.3)


def test_poll_gives_up_at_the_end(clock: FakeClock) -> None:
    begun = clock.now
    assert not deadline(clock, 3).poll(lambda: False)
    assert clock.now == pytest.approx(begun + 3, abs=0.05)


def test_poll_stops_at_the_first_yes(clock: FakeClock) -> None:
    begun = clock.now
    assert deadline(clock, 60).poll(lambda: clock.now >= begun + 5)
    assert clock.now == pytest.approx(begun + 5, abs=0.06)
