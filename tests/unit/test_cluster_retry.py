"""What no node may run any more is tried again: by one node, later each time, in turns."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from asha.cluster import pacemaker, retry
from asha.cluster.pacemaker import Failure, Node, Resource, State
from asha.errors import UserError
from tests.fakes.machine import FakeMachine

UNIT = Path(retry.__file__).with_name("asha-retry@.service")
NOW = datetime(2026, 11, 29, 15, 0, 0)
STOPPED = Resource("p_asterisk", "ocf:asha:asterisk-health", "Stopped", "", False, False, False,
                   True, "")
RUNS = dataclasses.replace(STOPPED, role="Started", node="crm2", active=True)
# Failed on crm1 first, then on crm2.
GIVEN_UP = State(
    dc="crm1", quorum=True, nodes=(Node("crm1", True), Node("crm2", True)), resources=(STOPPED,),
    failures=tuple(Failure("p_asterisk", "asyncmon", name, "", "", NOW + timedelta(seconds=late))
                   for name, late in (("crm1", 0), ("crm2", 5))),
    bans=(), stonith_enabled=False, maintenance=False, last_change=None, last_start=None,
    worn_out=frozenset({("p_asterisk", "crm1"), ("p_asterisk", "crm2")}),
)
SERVES = dataclasses.replace(GIVEN_UP, resources=(RUNS,), worn_out=frozenset())


def worn(*names: str) -> frozenset[tuple[str, str]]:
    return frozenset(("p_asterisk", name) for name in names)


Seen = Callable[..., FakeMachine]


class Machine(FakeMachine):
    def now(self) -> float:
        return 1000.0 + self.clock


@pytest.fixture
def seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Seen:
    """A machine whose Pacemaker tells these states, one after the other; the last on and on.
    None: it does not run."""
    def tell(*states: State | None) -> FakeMachine:
        waiting = list(states)

        def look(machine: object) -> State:
            state = waiting.pop(0) if len(waiting) > 1 else waiting[0]
            if state is None:
                raise UserError("Pacemaker does not run on this node")
            return state

        monkeypatch.setattr(pacemaker, "look", look)
        return Machine(tmp_path, {"crm_resource --cleanup": ""})

    return tell


CLEANUP = "crm_resource --cleanup --resource p_asterisk --node crm1"


def test_the_node_of_the_last_failure_has_the_oldest_forgotten(seen: Seen) -> None:
    machine = seen(GIVEN_UP, GIVEN_UP, SERVES)
    assert retry.main(["p_asterisk"], machine, "crm2") == 0
    assert machine.lines == [CLEANUP]


def test_the_other_node_only_looks(seen: Seen) -> None:
    machine = seen(GIVEN_UP, GIVEN_UP, SERVES)
    assert retry.main(["p_asterisk"], machine, "crm1") == 0
    assert machine.lines == []


def test_a_node_that_is_alone_tries_again_itself(seen: Seen) -> None:
    """Where the other one has gone, also while this one only looks."""
    alone = dataclasses.replace(GIVEN_UP, nodes=(Node("crm1", True), Node("crm2", False)))
    runs_there = dataclasses.replace(GIVEN_UP, resources=(RUNS,), worn_out=worn("crm1"))
    machine = seen(runs_there, runs_there, alone, alone, SERVES)
    assert retry.main(["p_asterisk"], machine, "crm1") == 0
    assert machine.lines == [CLEANUP]


def test_pauses_grow_and_are_forgotten(seen: Seen) -> None:
    machine = seen(SERVES)
    pauses = [retry._next_pause(machine, "p_asterisk") for _ in range(7)]
    assert pauses == [1, 2, 4, 8, 16, 30, 30]
    machine.clock += retry.FORGOTTEN_AFTER
    assert retry._next_pause(machine, "p_asterisk") == 1
    for nonsense in ("", "x", "nan nan", "1e9 1000", "inf 1000", "5 99999999"):
        machine.put("/run/asha-retry-p_asterisk", nonsense)
        assert retry._next_pause(machine, "p_asterisk") == 1


def test_it_is_waited_for_the_count_and_no_longer(seen: Seen) -> None:
    """Pacemaker counts a failure a moment later; most are no reason to do anything."""
    machine = seen(SERVES, SERVES, GIVEN_UP, GIVEN_UP, SERVES)
    assert retry.main(["p_asterisk"], machine, "crm2") == 0
    assert machine.lines == [CLEANUP]
    machine = seen(SERVES)
    assert retry.main(["p_asterisk"], machine, "crm2") == 0
    assert machine.lines == []
    assert machine.clock == pytest.approx(retry.COUNTED_AFTER, abs=retry.LOOK_SOON)


def test_what_changes_in_the_pause_counts(seen: Seen) -> None:
    machine = seen(GIVEN_UP, SERVES)
    assert retry.main(["p_asterisk"], machine, "crm2") == 0
    assert machine.lines == []


def test_a_pacemaker_that_is_restarted_is_waited_for(seen: Seen) -> None:
    machine = seen(None, GIVEN_UP, GIVEN_UP, SERVES)
    assert retry.main(["p_asterisk"], machine, "crm2") == 0
    assert machine.lines == [CLEANUP]
    assert retry.main(["p_asterisk"], seen(None), "crm2") == 0


def test_a_cleanup_that_fails_is_tried_again(seen: Seen) -> None:
    machine = seen(*[GIVEN_UP] * 4, SERVES)
    machine.on("crm_resource --cleanup", lambda argv, stdin: "" if len(machine.lines) > 1 else
               (_ for _ in ()).throw(UserError("crm_resource: does not end")))
    assert retry.main(["p_asterisk"], machine, "crm2") == 0
    assert machine.lines == [CLEANUP] * 2


@pytest.mark.parametrize("state", [
    SERVES,
    dataclasses.replace(GIVEN_UP, worn_out=worn("crm1")),
    dataclasses.replace(GIVEN_UP, maintenance=True),
    dataclasses.replace(GIVEN_UP, quorum=False),
    dataclasses.replace(GIVEN_UP, resources=()),
    dataclasses.replace(GIVEN_UP, nodes=(Node("crm1", True, standby=True), Node("crm2", False))),
    *(dataclasses.replace(GIVEN_UP, resources=(dataclasses.replace(STOPPED, **change),))
      for change in ({"blocked": True}, {"failed": True}, {"managed": False},
                     {"pending": "Starting"}, {"active": True})),
])
def test_what_is_not_given_up(state: State) -> None:
    """Least of all what could not be stopped: it may run still."""
    assert not retry.is_given_up(state, "p_asterisk")
    assert retry.is_given_up(GIVEN_UP, "p_asterisk")


def test_the_unit_runs_this() -> None:
    text = UNIT.read_text(encoding="utf-8")
    assert f"-m {retry.__name__} %i" in text
