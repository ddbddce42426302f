"""What is told of a LAN, second by second, with a clock of its own."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from asha.lan import NO_ANSWER, NO_CARRIER, OK, UNSTEADY
from asha.lan.health import (
    AFTER_ACTIVE,
    AFTER_PASSIVE,
    FORGOTTEN,
    STEADY,
    STEADY_MOST,
    Health,
)

ACTIVE, PASSIVE = True, False


def history(health: Health, seen: Iterable[tuple[float, str]], active: bool) -> list[str]:
    return [health.judge(moment, what, active) for moment, what in seen]


def good(since: float, active: bool) -> Health:
    """One that is trusted, from ``since`` on."""
    health = Health()
    health.judge(since - 40, OK, active)
    assert health.judge(since, OK, active) == OK
    return health


def until_ok(health: Health, begin: float, active: bool) -> float:
    """Seconds that it takes when all is well from ``begin`` on."""
    moment = begin
    while health.judge(moment, OK, active) != OK:
        moment += 0.1
    return moment - begin


def test_nothing_is_known_against_the_active_node_at_the_start() -> None:
    assert Health().judge(0, OK, ACTIVE) == OK


def test_a_node_that_boots_is_not_trusted_yet() -> None:
    health = Health()
    assert health.judge(0, OK, PASSIVE) == UNSTEADY
    assert until_ok(health, 0, PASSIVE) == pytest.approx(STEADY + AFTER_ACTIVE, abs=0.11)


def test_a_loss_is_told_at_once_and_by_the_active_node_a_moment_later() -> None:
    for bad in (NO_CARRIER, NO_ANSWER):
        assert good(100, PASSIVE).judge(100, bad, PASSIVE) == bad
        health = good(100, ACTIVE)
        wait = AFTER_PASSIVE[bad]
        seen = [(100, bad), (100 + wait / 2, bad), (100.01 + wait, bad)]
        assert history(health, seen, ACTIVE) == [OK, OK, bad]


def test_a_blink_of_the_active_node_is_nothing() -> None:
    health = good(100, ACTIVE)
    seen = [(100.0, NO_CARRIER), (100.3, OK), (100.4, OK)]
    assert history(health, seen, ACTIVE) == [OK, OK, OK]


def test_many_blinks_are_a_flapping_cable() -> None:
    health = good(100, ACTIVE)
    seen = [(100.0, NO_CARRIER), (100.3, OK), (100.6, NO_CARRIER), (100.9, OK),
            (101.2, NO_CARRIER)]
    assert history(health, seen, ACTIVE)[-1] == NO_CARRIER


def test_good_again_only_after_it_has_held() -> None:
    health = good(100, PASSIVE)
    health.judge(100, NO_CARRIER, PASSIVE)
    assert health.judge(101, OK, PASSIVE) == UNSTEADY
    assert health.judge(101 + STEADY, OK, PASSIVE) == UNSTEADY
    assert health.judge(102 + STEADY + AFTER_ACTIVE, OK, PASSIVE) == OK


def test_the_active_node_is_good_again_before_the_passive_one() -> None:
    """The switch had no power: both lose, both return, and nothing may move meanwhile."""
    active, passive = good(100, ACTIVE), good(100, PASSIVE)
    told: list[tuple[str, str]] = []
    for tenth in range(600):
        moment = 100 + tenth / 10
        seen = NO_CARRIER if moment < 110 else OK
        told.append((active.judge(moment, seen, ACTIVE), passive.judge(moment, seen, PASSIVE)))
    assert (NO_CARRIER, NO_CARRIER) in told
    assert told[-1] == (OK, OK)
    # Never is the passive one the better.
    assert not [pair for pair in told if pair[1] == OK != pair[0]]


def test_a_cable_in_and_out_makes_it_wait_longer_and_longer() -> None:
    health, moment, waits = good(0, PASSIVE), 0.0, []
    for _ in range(7):
        health.judge(moment, NO_CARRIER, PASSIVE)
        wait = until_ok(health, moment + 10, PASSIVE)
        waits.append(round(wait - AFTER_ACTIVE))
        moment += 10 + wait
    assert waits == [30, 60, 120, 240, 480, STEADY_MOST, STEADY_MOST]


def test_flapping_each_second_never_looks_good() -> None:
    health = good(0, PASSIVE)
    seen = [(float(second), (NO_CARRIER, OK)[second % 2]) for second in range(120)]
    assert OK not in history(health, seen, PASSIVE)


def test_a_cable_that_is_pushed_in_clumsily_is_one_loss() -> None:
    health = good(0, PASSIVE)
    history(health, [(tenth / 10, (NO_CARRIER, OK)[tenth % 2]) for tenth in range(40)], PASSIVE)
    assert until_ok(health, 4, PASSIVE) < STEADY + AFTER_ACTIVE + 0.2


def test_the_active_node_does_not_wait_longer() -> None:
    """Where it is still active there was no better node, and it must not be left for one
    that has just come."""
    health, moment = good(0, ACTIVE), 0.0
    for _ in range(5):
        moment += 10
        history(health, [(moment, NO_CARRIER), (moment + 1, NO_CARRIER)], ACTIVE)
        moment += 2 + until_ok(health, moment + 2, ACTIVE)
    health.judge(moment + 1, NO_ANSWER, ACTIVE)
    health.judge(moment + 9, NO_ANSWER, ACTIVE)
    assert until_ok(health, moment + 10, ACTIVE) < STEADY + 0.2


def test_a_node_that_becomes_active_is_trusted_at_once() -> None:
    """Or the telephones would go back as soon as the person who has moved them looks away."""
    health = good(0, PASSIVE)
    assert history(health, [(1, NO_CARRIER), (2, OK)], PASSIVE) == [NO_CARRIER, UNSTEADY]
    assert health.judge(3, OK, ACTIVE) == OK
    fresh = Health()
    assert [fresh.judge(0, OK, PASSIVE), fresh.judge(1, OK, ACTIVE)] == [UNSTEADY, OK]


def test_a_move_that_has_begun_is_not_broken_off() -> None:
    health = good(0, ACTIVE)
    seen = [(1.0, NO_CARRIER), (1.5, NO_CARRIER), (2.0, OK), (30.0, OK)]
    assert history(health, seen, ACTIVE) == [OK, NO_CARRIER, UNSTEADY, UNSTEADY]


def test_losses_are_forgotten() -> None:
    health, moment = good(0, PASSIVE), 0.0
    for _ in range(4):
        health.judge(moment, NO_CARRIER, PASSIVE)
        moment += 10
    later = moment + FORGOTTEN + 1
    until_ok(health, moment, PASSIVE)
    health.judge(later, NO_CARRIER, PASSIVE)
    assert until_ok(health, later + 1, PASSIVE) < STEADY + AFTER_ACTIVE + 0.2


def test_one_trouble_becomes_another() -> None:
    health = good(0, ACTIVE)
    seen = [(1.0, NO_CARRIER), (2.0, NO_CARRIER), (3.0, OK), (7.0, NO_ANSWER)]
    assert history(health, seen, ACTIVE) == [OK, NO_CARRIER, UNSTEADY, NO_ANSWER]


def test_it_is_looked_at_again_while_something_is_about_to_be_certain() -> None:
    health, pending = good(0, ACTIVE), []
    for moment in (1, 2):
        health.judge(moment, NO_CARRIER, ACTIVE)
        pending.append(health.is_pending)
    assert pending == [True, False]
