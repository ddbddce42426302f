"""What no node may run any more is tried again: by one node, later each time, in turns."""

from __future__ import annotations

import dataclasses
import os
import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from asha.bootstrap.steps import systemd
from asha.cluster import pacemaker, retry
from asha.cluster.pacemaker import Failure, Node, Resource, State
from asha.errors import UserError
from tests.fakes.machine import FakeMachine

UNIT = Path(retry.__file__).with_name("asha-retry.service")
NOW = datetime(2026, 11, 29, 15, 0, 0)
STOPPED = Resource("p_asterisk", "ocf:asha:asterisk-health", "Stopped", "", False, False, False,
                   True, "")
RUNS = dataclasses.replace(STOPPED, role="Started", node="crm2", active=True)
ADDRESS = dataclasses.replace(STOPPED, id="p_ip", agent="ocf:heartbeat:IPaddr2")
PROMOTED = dataclasses.replace(RUNS, id="p_drbd", role="Promoted")
NO_DISK = dataclasses.replace(STOPPED, id="p_drbd")


def failed(resource: str, node: str, late: int) -> Failure:
    return Failure(resource, "start", node, "", "", NOW + timedelta(seconds=late))


def worn(*names: str, resource: str = "p_asterisk") -> frozenset[tuple[str, str]]:
    return frozenset((resource, name) for name in names)


# Failed on crm1 first, then on crm2.
GIVEN_UP = State(
    dc="crm2", quorum=True, nodes=(Node("crm1", True), Node("crm2", True)),
    resources=(STOPPED, ADDRESS),
    failures=(failed("p_asterisk", "crm1", 0), failed("p_asterisk", "crm2", 5)),
    bans=(), stonith_enabled=False, maintenance=False, last_change=None, last_start=None,
    worn_out=worn("crm1", "crm2"),
)
SERVES = dataclasses.replace(GIVEN_UP, resources=(RUNS,), worn_out=frozenset())
BUSY = dataclasses.replace(SERVES, resources=(dataclasses.replace(RUNS, pending="Stopping"),))
# The telephones run on crm2, and crm1 has failed to promote its disk.
WITHOUT_COPY = dataclasses.replace(SERVES, resources=(RUNS, PROMOTED, NO_DISK),
                                   worn_out=worn("crm1", resource="p_drbd"))

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


def cleanup(resource: str = "p_asterisk", node: str = "crm1") -> str:
    return f"crm_resource --cleanup --resource {resource} --node {node}"


def test_the_dc_has_the_oldest_forgotten(seen: Seen) -> None:
    machine = seen(GIVEN_UP, GIVEN_UP, SERVES)
    retry.serve(machine, "crm2")
    assert machine.lines == [cleanup()]


def test_the_other_node_does_nothing(seen: Seen) -> None:
    machine = seen(GIVEN_UP)
    retry.serve(machine, "crm1")
    assert machine.lines == []


def test_the_dc_may_change_in_the_pause(seen: Seen) -> None:
    elsewhere = dataclasses.replace(GIVEN_UP, dc="crm1")
    machine = seen(GIVEN_UP, elsewhere)
    retry.serve(machine, "crm2")
    assert machine.lines == []


def test_a_node_that_is_alone_tries_again_itself(seen: Seen) -> None:
    alone = dataclasses.replace(GIVEN_UP, nodes=(Node("crm1", False), Node("crm2", True)))
    machine = seen(alone, alone, SERVES)
    retry.serve(machine, "crm2")
    assert machine.lines == [cleanup(node="crm2")]


def test_everything_that_the_telephones_need_counts(seen: Seen) -> None:
    """Also one thing on one node, another on the other, and two on one."""
    state = dataclasses.replace(
        GIVEN_UP,
        failures=(failed("p_ip", "crm1", 9), failed("p_data", "crm2", 5), failed("p_ip", "crm2", 7),
                  failed("p_asterisk", "crm2", 60)),
        worn_out=worn("crm1", "crm2", resource="p_ip") | worn("crm2", resource="p_data"))
    machine = seen(state, state, SERVES)
    retry.serve(machine, "crm2")
    assert machine.lines == [cleanup("p_data", "crm2"), cleanup("p_ip", "crm2")]


def test_a_copy_of_the_disk_is_asked_for_again(seen: Seen) -> None:
    machine = seen(WITHOUT_COPY, WITHOUT_COPY, SERVES)
    retry.serve(machine, "crm2")
    assert machine.lines == [cleanup("p_drbd", "crm1")]


@pytest.mark.parametrize("state", [
    dataclasses.replace(WITHOUT_COPY, nodes=(Node("crm1", False), Node("crm2", True))),
    dataclasses.replace(WITHOUT_COPY,
                        nodes=(Node("crm1", True, standby=True), Node("crm2", True))),
    dataclasses.replace(WITHOUT_COPY, maintenance=True),
    # It is being stopped.
    dataclasses.replace(WITHOUT_COPY, resources=(RUNS, PROMOTED, dataclasses.replace(
        NO_DISK, node="crm1", role="Unpromoted", active=True, pending="Stopping"))),
    # What it runs with on the active node is none of ours.
    dataclasses.replace(WITHOUT_COPY, worn_out=worn("crm2", resource="p_drbd")),
    dataclasses.replace(WITHOUT_COPY, worn_out=worn("crm1", resource="p_ip")),
])
def test_where_no_disk_is_lacking(state: State) -> None:
    assert retry.next_turn(WITHOUT_COPY) is not None
    assert retry.next_turn(state) is None


def test_pauses_grow_and_are_forgotten(seen: Seen) -> None:
    machine = seen(SERVES)
    pauses = [retry._next_pause(machine, "a disk") for _ in range(7)]
    assert pauses == [1, 2, 4, 8, 16, 30, 30]
    assert retry._next_pause(machine, "another") == 1
    machine.clock += retry.FORGOTTEN_AFTER
    assert retry._next_pause(machine, "a disk") == 1
    for nonsense in ("", "x", "nan nan", "1e9 1000", "inf 1000", "5 99999999"):
        machine.put("/run/asha-retry-a-disk", nonsense)
        assert retry._next_pause(machine, "a disk") == 1


def test_the_end_of_an_action_is_waited_for(seen: Seen) -> None:
    """Pacemaker decides nothing new then, so nobody would tell."""
    machine = seen(BUSY, BUSY, GIVEN_UP, GIVEN_UP, SERVES)
    retry.serve(machine, "crm2")
    assert machine.lines == [cleanup()]
    machine = seen(SERVES)
    begun = machine.now()
    retry.serve(machine, "crm2")
    assert machine.lines == []
    assert machine.now() - begun == retry.SETTLE


def test_what_changes_in_the_pause_counts(seen: Seen) -> None:
    machine = seen(GIVEN_UP, SERVES)
    retry.serve(machine, "crm2")
    assert machine.lines == []


def test_a_pacemaker_that_is_restarted_is_waited_for(seen: Seen) -> None:
    machine = seen(None, GIVEN_UP, GIVEN_UP, SERVES)
    retry.serve(machine, "crm2")
    assert machine.lines == [cleanup()]
    machine = seen(None)
    retry.serve(machine, "crm2")  # and not for ever: its next decision wakes us
    assert machine.lines == []


def test_a_cleanup_that_fails_is_tried_again(seen: Seen) -> None:
    machine = seen(*[GIVEN_UP] * 4, SERVES)
    machine.on("crm_resource --cleanup", lambda argv, stdin: "" if len(machine.lines) > 1 else
               (_ for _ in ()).throw(UserError("crm_resource: does not end")))
    retry.serve(machine, "crm2")
    assert machine.lines == [cleanup()] * 2


@pytest.mark.parametrize("state", [
    SERVES,
    dataclasses.replace(GIVEN_UP, worn_out=worn("crm1")),
    dataclasses.replace(GIVEN_UP, maintenance=True),
    dataclasses.replace(GIVEN_UP, quorum=False),
    dataclasses.replace(GIVEN_UP, resources=()),
    dataclasses.replace(GIVEN_UP, nodes=(Node("crm1", True, standby=True), Node("crm2", False))),
    # It is to be fenced, and that has failed.
    dataclasses.replace(GIVEN_UP, nodes=(Node("crm1", True, unclean=True), Node("crm2", False))),
    *(dataclasses.replace(GIVEN_UP, resources=(dataclasses.replace(STOPPED, **change),))
      for change in ({"blocked": True}, {"failed": True}, {"managed": False},
                     {"pending": "Starting"}, {"active": True})),
    # Least of all what could not be stopped: it may run still.
    dataclasses.replace(GIVEN_UP, resources=(STOPPED, dataclasses.replace(ADDRESS, blocked=True))),
])
def test_what_is_not_given_up(state: State) -> None:
    assert retry.next_turn(GIVEN_UP) is not None
    assert retry.next_turn(state) is None


class Enough(Exception):
    """The end of a loop that has none."""


def test_it_looks_at_the_start_and_after_each_decision(seen: Seen) -> None:
    class News:
        left = 2

        def wait(self) -> None:
            if not self.left:
                raise Enough
            self.left -= 1

    machine = seen(SERVES, SERVES, GIVEN_UP, GIVEN_UP, SERVES)
    with pytest.raises(Enough):
        retry.main(machine, "crm2", News())
    assert machine.lines == [cleanup()]


def test_a_decision_is_a_file_that_was_written(tmp_path: Path) -> None:
    decisions = retry.Decisions(FakeMachine(tmp_path), str(tmp_path))
    woken = threading.Event()

    def wait() -> None:
        decisions.wait()
        woken.set()

    waiter = threading.Thread(target=wait, daemon=True)
    waiter.start()
    (tmp_path / "pe-warn-1.bz2").write_bytes(b"x")
    assert woken.wait(30)
    # One that came while nobody waited is not lost.
    (tmp_path / "beside").write_bytes(b"x")
    os.replace(tmp_path / "beside", tmp_path / "pe-warn-2.bz2")
    decisions.wait()


def test_a_directory_that_cannot_be_watched_is_looked_at_now_and_then(
    tmp_path: Path
) -> None:
    machine, folder = FakeMachine(tmp_path), tmp_path / "pengine"
    decisions = retry.Decisions(machine, str(folder))
    decisions.wait()
    assert machine.clock == retry.UNWATCHED_EVERY
    folder.mkdir()
    assert decisions._watch()
    folder.rmdir()
    decisions.wait()  # that it has gone
    decisions.wait()
    assert machine.clock == 2 * retry.UNWATCHED_EVERY


def test_a_directory_that_is_moved_away_is_looked_for_anew(tmp_path: Path) -> None:
    """Its owner is Pacemaker's user: what lies in its place then counts."""
    machine, folder = FakeMachine(tmp_path), tmp_path / "pengine"
    folder.mkdir()
    decisions = retry.Decisions(machine, str(folder))
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    decisions.wait()  # that it has gone
    decisions.wait()  # a link is not followed
    assert machine.clock == retry.UNWATCHED_EVERY
    folder.unlink()
    folder.mkdir()
    assert decisions._watch()
    (folder / "pe-input-1.bz2").write_bytes(b"x")
    decisions.wait()
    assert machine.clock == retry.UNWATCHED_EVERY


def test_what_was_decided_may_not_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full, or Pacemaker is told to keep none: it looks all the same."""
    monkeypatch.setattr(retry, "UNTOLD_EVERY", 0.01)
    retry.Decisions(FakeMachine(tmp_path), str(tmp_path)).wait()


def test_the_unit_runs_this() -> None:
    assert f"-m {retry.__name__}\n" in UNIT.read_text(encoding="utf-8")
    assert f"Wants={UNIT.name}\n" in systemd.COME_BACK["pacemaker.service"]
