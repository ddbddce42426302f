"""What DRBD is told about a peer that it has lost, in every state that Pacemaker can have."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from asha.cluster import drbd, pacemaker
from asha.cluster.drbd import Replication
from asha.cluster.pacemaker import Node, State
from asha.errors import UserError
from asha.fencing import handler
from tests.fakes.machine import FakeMachine, Outcome

BOTH = State(
    dc="crm1", quorum=True, nodes=(Node("crm1", True), Node("crm2", True)), resources=(),
    failures=(), bans=(), stonith_enabled=True, maintenance=False, last_change=None,
    last_start=None, clones=frozenset({("cl_drbd", "ocf:linbit:drbd"),
                                       ("cl_line", "ocf:asha:rhino-relay")}),
)
SHOT = dataclasses.replace(BOTH, nodes=(Node("crm1", True), Node("crm2", False)))
UNCLEAN = dataclasses.replace(BOTH, nodes=(Node("crm1", True), Node("crm2", False, unclean=True)))


def unfenced(state: State) -> State:
    return dataclasses.replace(state, stonith_enabled=False)


NO_DC = dataclasses.replace(BOTH, dc="", quorum=False)
NO_QUORUM = dataclasses.replace(SHOT, quorum=False)
ALONE = dataclasses.replace(BOTH, nodes=(Node("crm1", True),))

LOST = Replication("8.4.11", "Primary", "Unknown", "WFConnection", "UpToDate", "DUnknown")
ONLY_CONSISTENT = dataclasses.replace(LOST, role="Secondary", disk="Consistent")
DISKLESS = dataclasses.replace(LOST, disk="Diskless")
WHOLE = Replication("8.4.11", "Primary", "Secondary", "Connected", "UpToDate", "UpToDate")

NOTHING = Outcome(code=105)
ALIVE = '<pacemaker-result><crmd node_name="crm2" state="S_NOT_DC" result="ok"/></pacemaker-result>'
SILENT = Outcome(code=124)
CREATE = "cibadmin --create --scope=constraints --xml-pipe"
ASK = "crmadmin --output-as=xml --timeout=3s --status=crm2"
QUERY = f"cibadmin --query --xpath //rsc_location[@id='{handler.CONSTRAINT}']"
DELETE = f'cibadmin --delete --xml-text <rsc_location id="{handler.CONSTRAINT}"/>'


def held_by(node: str) -> str:
    return (f'<rsc_location rsc="cl_drbd" id="{handler.CONSTRAINT}"><rule role="Promoted"'
            f' score="-INFINITY"><expression attribute="#uname" operation="ne" value="{node}"/>'
            "</rule></rsc_location>")


Told = Callable[..., FakeMachine]


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Told:
    """A machine whose Pacemaker tells these states one after the other, the last on and on
    (None: it does not run), and whose DRBD tells that."""
    monkeypatch.setattr(handler, "_say", lambda text, severity: None)

    def tell(*states: State | None, disks: Replication = LOST) -> FakeMachine:
        waiting = list(states)

        def look(machine: object) -> State:
            state = waiting.pop(0) if len(waiting) > 1 else waiting[0]
            if state is None:
                raise UserError("Pacemaker does not run on this node")
            return state

        monkeypatch.setattr(pacemaker, "look", look)
        monkeypatch.setattr(drbd, "status", lambda machine: disks)
        return FakeMachine(tmp_path, {
            "cibadmin --query": NOTHING, "cibadmin --create": "", "cibadmin --delete": "",
            "crmadmin": ALIVE})

    return tell


def fence(machine: FakeMachine) -> int:
    return handler.main(["fence"], machine, "crm1")


def test_only_the_connection_is_lost(told: Told) -> None:
    """The peer may not promote, and is asked after it was told so."""
    machine = told(BOTH)
    assert fence(machine) == handler.OUTDATED
    assert machine.lines == [QUERY, CREATE, ASK]
    [made] = [call.stdin for call in machine.calls if str(call) == CREATE]
    assert made is not None
    assert 'role="Promoted" score="-INFINITY"' in made
    assert 'attribute="#uname" operation="ne" value="crm1"' in made


@pytest.mark.parametrize(("state", "code"), [
    (SHOT, handler.FENCED), (unfenced(SHOT), handler.DOWN), (unfenced(UNCLEAN), handler.DOWN),
    # Corosync is up there again, Pacemaker is not.
    (dataclasses.replace(SHOT, nodes=(Node("crm1", True), Node("crm2", False, pending=True))),
     handler.FENCED),
])
def test_the_peer_is_off(told: Told, state: State, code: int) -> None:
    machine = told(state)
    assert fence(machine) == code
    assert machine.lines == [QUERY, CREATE]
    assert machine.clock == 0


def test_nobody_writes_on_before_the_peer_was_shot(told: Told) -> None:
    """It dies, then Pacemaker sees that, then it is shot."""
    machine = told(BOTH, NO_DC, None, UNCLEAN, UNCLEAN, SHOT)
    machine.on("crmadmin", SILENT).on("cibadmin --query", [NOTHING, held_by("crm1")])
    assert fence(machine) == handler.FENCED
    assert machine.lines == [QUERY, CREATE, ASK, QUERY]


def test_a_fence_that_fails_thaws_nothing(told: Told) -> None:
    machine = told(UNCLEAN)
    assert fence(machine) == handler.UNKNOWN
    assert machine.clock == pytest.approx(handler.FENCED_SECONDS, abs=1)
    assert machine.lines == []


@pytest.mark.parametrize("state", [None, NO_DC, NO_QUORUM])
def test_a_node_that_is_cut_off_thaws_nothing(told: Told, state: State | None) -> None:
    machine = told(state)
    assert fence(machine) == handler.UNKNOWN
    assert machine.clock == pytest.approx(handler.FENCED_SECONDS, abs=1)
    assert machine.lines == []


def test_a_peer_that_is_silent_and_a_member_is_not_believed(told: Told) -> None:
    machine = told(unfenced(BOTH))
    machine.on("crmadmin", SILENT).on("cibadmin --query", held_by("crm1"))
    assert fence(machine) == handler.UNKNOWN
    assert machine.clock == pytest.approx(handler.UNFENCED_SECONDS, abs=1)


@pytest.mark.parametrize("state", [BOTH, SHOT, unfenced(BOTH), unfenced(SHOT),
                                   unfenced(UNCLEAN)])
def test_a_peer_that_has_the_disk_for_itself(told: Told, state: State) -> None:
    """This node was the one that was cut off."""
    machine = told(state).on("cibadmin --query", held_by("crm2"))
    assert fence(machine) == handler.UNKNOWN
    assert CREATE not in machine.lines


def test_a_peer_that_is_joining_is_waited_for(told: Told) -> None:
    """It may bring a newer configuration, which has no such constraint."""
    joining = dataclasses.replace(
        unfenced(BOTH), nodes=(Node("crm1", True), Node("crm2", True, pending=True)))
    machine = told(joining, joining, BOTH)
    assert fence(machine) == handler.OUTDATED
    assert machine.clock == pytest.approx(2 * handler.LOOK_EVERY)
    machine = told(joining)
    assert fence(machine) == handler.UNKNOWN
    assert machine.lines == []


@pytest.mark.parametrize(("answer", "code"), [
    (ALIVE, handler.OUTDATED), (SILENT, handler.UNKNOWN),
])
def test_without_fencing_an_unclean_member_is_a_member(
    told: Told, answer: Outcome | str, code: int
) -> None:
    """It may serve still: its answer counts, and not that nobody has fenced it."""
    machine = told(unfenced(dataclasses.replace(
        BOTH, nodes=(Node("crm1", True), Node("crm2", True, unclean=True)))))
    machine.on("crmadmin", answer).on("cibadmin --query", [NOTHING, held_by("crm1")])
    assert fence(machine) == code


@pytest.mark.parametrize(("clones", "name"), [
    ({("ms_disk", "ocf::linbit:drbd"), ("cl_line", "ocf:asha:rhino-relay")}, "ms_disk"),
    ({("cl_other", "ocf:linbit:drbd"), ("cl_drbd", "ocf:linbit:drbd")}, "cl_drbd"),
])
def test_whatever_the_clone_is_called(
    told: Told, clones: set[tuple[str, str]], name: str
) -> None:
    machine = told(dataclasses.replace(BOTH, clones=frozenset(clones)))
    assert fence(machine) == handler.OUTDATED
    [made] = [call.stdin for call in machine.calls if str(call) == CREATE]
    assert made is not None
    assert f'rsc="{name}"' in made


@pytest.mark.parametrize("state", [BOTH, SHOT, unfenced(SHOT)])
@pytest.mark.parametrize("clones", [
    set(), {("cl_line", "ocf:asha:rhino-relay")},
    {("cl_a", "ocf:linbit:drbd"), ("cl_b", "ocf:linbit:drbd")},
])
def test_nothing_is_forbidden_to_a_clone_that_is_none(
    told: Told, state: State, clones: set[tuple[str, str]]
) -> None:
    machine = told(dataclasses.replace(state, clones=frozenset(clones)))
    assert fence(machine) == handler.UNKNOWN
    assert machine.lines == []


def test_two_ask_at_once_and_one_is_first(told: Told) -> None:
    machine = told(BOTH).on("cibadmin --create", Outcome(code=108))
    machine.on("cibadmin --query", [NOTHING, held_by("crm2")])
    assert fence(machine) == handler.UNKNOWN
    machine = told(BOTH).on("cibadmin --create", Outcome(code=108))
    machine.on("cibadmin --query", [NOTHING, held_by("CRM1")])
    assert fence(machine) == handler.OUTDATED


@pytest.mark.parametrize("said", [
    Outcome(code=102), "<xpath-query/>", "no XML", held_by("crm1").replace('"ne"', '"eq"'),
    held_by("crm1").replace("</rule>", '<expression operation="ne" value="crm2"/></rule>'),
])
def test_a_constraint_that_is_not_ours_is_not_believed(told: Told, said: Outcome | str) -> None:
    machine = told(unfenced(BOTH)).on("cibadmin --query", said)
    assert fence(machine) == handler.UNKNOWN
    assert CREATE not in machine.lines


@pytest.mark.parametrize("state", [SHOT, unfenced(SHOT)])
def test_the_peer_is_off_and_this_disk_may_be_the_older_one(told: Told, state: State) -> None:
    """That somebody was shot does not make the own data newer: nothing is promised."""
    machine = told(state, disks=ONLY_CONSISTENT)
    assert fence(machine) == handler.DOWN
    assert machine.lines == []


def test_a_peer_that_is_alive_would_have_the_disk_if_it_were_newer(told: Told) -> None:
    """Pacemaker promotes the better one, and it has chosen this node."""
    assert fence(told(BOTH, disks=ONLY_CONSISTENT)) == handler.OUTDATED


@pytest.mark.parametrize("state", [BOTH, SHOT])
def test_without_a_disk_of_its_own_nothing_is_promised(told: Told, state: State) -> None:
    machine = told(state, disks=DISKLESS)
    assert fence(machine) == handler.DOWN
    assert machine.lines == []


def test_a_peer_that_was_removed(told: Told) -> None:
    machine = told(ALONE)
    assert fence(machine) == handler.DOWN
    assert machine.lines == []


def test_connected_again_meanwhile(told: Told) -> None:
    """No resync would take the constraint away."""
    machine = told(BOTH, disks=WHOLE)
    assert fence(machine) == handler.UNKNOWN
    assert machine.lines == [QUERY, CREATE, ASK, DELETE]


@pytest.mark.parametrize("garbage", ["", "<crmd/>", "<a><crmd result='no'/></a>", "\0"])
def test_crmadmin_that_says_something_else(told: Told, garbage: str) -> None:
    machine = told(unfenced(BOTH)).on("crmadmin", garbage)
    machine.on("cibadmin --query", held_by("crm1"))
    assert fence(machine) == handler.UNKNOWN


def test_unfence_when_the_disks_are_the_same(told: Told) -> None:
    machine = told(BOTH, disks=WHOLE)
    assert handler.main(["unfence"], machine, "crm2") == 0
    assert machine.lines == [DELETE]


def test_unfence_is_no_promise(told: Told) -> None:
    machine = told(BOTH, disks=LOST)
    assert handler.main(["unfence"], machine, "crm2") == 1
    assert machine.lines == []
    assert machine.clock == pytest.approx(handler.UNFENCE_SECONDS, abs=2)


def test_unfence_tries_again(told: Told) -> None:
    machine = told(BOTH, disks=WHOLE).on("cibadmin --delete", [Outcome(code=102), ""])
    assert handler.main(["unfence"], machine, "crm2") == 0
    assert machine.lines == [DELETE, DELETE]


def test_what_it_is_not_called_with(told: Told, capsys: pytest.CaptureFixture[str]) -> None:
    assert handler.main([], told(BOTH)) == handler.UNKNOWN
    assert "usage" in capsys.readouterr().err
