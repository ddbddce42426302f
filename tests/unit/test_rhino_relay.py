"""The agent's policy, with a card in memory and no cluster."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from asha.agents.rhino_relay import PROMOTION_SCORE, RhinoRelay
from asha.ocf import Deadline, Exit, Expired
from asha.relay.contract import Position, Relay, Settings
from asha.run.runner import Completed, Runner
from tests.fakes.ocf import FakeClock, Outcome, perform
from tests.fakes.relay import FakeCard


class Cluster(Runner):
    """Answers what the agent asks of Pacemaker's tools, and writes it down."""

    def __init__(self) -> None:
        super().__init__()
        self.nodes = ["crm1", "crm2"]
        self.score = ""
        self.line: list[str] = []
        self.calls: list[list[str]] = []
        self.hangs = False

    def run(
        self,
        argv: Sequence[str],
        deadline: Deadline,
        *,
        cap: float | None = None,
        environ: Mapping[str, str] | None = None,
        stdin: str | None = None,
        share_lock: bool = True,
        leave: Callable[[], bool] | None = None,
    ) -> Completed:
        words = list(argv)
        self.calls.append(words)
        if self.hangs:
            raise Expired(f"{words[0]} did not end")
        out = ""
        if words[:2] == ["crm_node", "--list"]:
            out = "".join(f"{at} {node} member\n" for at, node in enumerate(self.nodes, 1))
        elif words[0] == "crm_attribute":
            self.score = words[words.index("--update") + 1] if "--update" in words else ""
        elif words[0] == "attrd_updater" and "--update" in words:
            self.line.append(words[words.index("--update") + 1])
        elif words[0] == "attrd_updater":
            if not self.line:
                return Completed(words, 6, "", "No such device or address")
            out = f'name="asha-line" host="crm1" value="{self.line[-1]}"\n'
        else:
            raise AssertionError(f"unexpected call {words}")
        return Completed(words, 0, out, "")


class Bench:
    """One node with the agent; ``node`` says which of the two."""

    def __init__(self, state: Path, card: FakeCard, node: str = "crm1") -> None:
        self.state = state
        self.card = card
        self.node = node
        self.cluster = Cluster()
        self.clock = FakeClock()
        self.parameters = {"card_node": "crm1"}
        self.asked_for = ""

    def do(self, action: str, level: int | None = None, **meta: str) -> Outcome:
        bench = self

        class Benched(RhinoRelay):
            def find_card(self, settings: Settings) -> Relay:
                bench.asked_for = settings.device
                return bench.card

        self.cluster.calls.clear()
        self.card.calls.clear()
        return perform(
            Benched,
            action,
            str(self.state),
            runner=self.cluster,
            clock=self.clock,
            instance="p_line",
            meta={"on_node": self.node, **meta},
            check_level=level,
            **self.parameters,  # type: ignore[arg-type]
        )

    def ok(self, *actions: str) -> None:
        for action in actions:
            outcome = self.do(action)
            assert outcome.code == Exit.SUCCESS, f"{action}: {outcome.reason}"

    def where(self) -> Position:
        return self.card.position

    @property
    def memory(self) -> Path:
        return self.state / "rhino-relay-p_line.state"


@pytest.fixture(params=[True, False], ids=["reads back", "write only"])
def reads_back(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def bench(tmp_path: Path, reads_back: bool) -> Bench:
    """The card's node, with either kind of card."""
    return Bench(tmp_path, FakeCard(reads_back=reads_back))


@pytest.fixture
def numato(tmp_path: Path) -> Bench:
    return Bench(tmp_path, FakeCard(reads_back=True))


@pytest.fixture
def rhino(tmp_path: Path) -> Bench:
    return Bench(tmp_path, FakeCard(reads_back=False))


@pytest.fixture
def other(tmp_path: Path) -> Bench:
    """The node without the card."""
    return Bench(tmp_path, FakeCard(), node="crm2")


# The card's node, in order.


def test_a_life(bench: Bench) -> None:
    assert bench.do("monitor", interval="0").code == Exit.NOT_RUNNING
    bench.ok("start")
    assert bench.where() is Position.OFF
    assert bench.do("monitor").code == Exit.SUCCESS
    assert bench.cluster.score == str(PROMOTION_SCORE)
    bench.ok("promote")
    assert bench.where() is Position.ON
    assert bench.do("monitor").code == Exit.RUNNING_PROMOTED
    bench.ok("demote")
    assert bench.where() is Position.OFF
    assert bench.do("monitor").code == Exit.SUCCESS
    bench.ok("stop")
    assert bench.where() is Position.OFF
    assert bench.do("monitor").code == Exit.NOT_RUNNING
    assert bench.cluster.score == ""


def test_every_action_may_come_twice(bench: Bench) -> None:
    bench.ok("start", "start", "promote", "promote", "demote", "demote", "stop", "stop")


def test_a_start_takes_a_card_that_was_left_on(bench: Bench) -> None:
    """A warm reboot: the state is gone, the relay is not."""
    bench.card.position = Position.ON
    bench.ok("start")
    assert bench.where() is Position.OFF
    assert bench.card.calls[:2] == ["reset", "off"]


def test_stop_of_a_promoted_one_lets_go_of_the_line(bench: Bench) -> None:
    bench.ok("start", "promote", "stop")
    assert bench.where() is Position.OFF
    assert not bench.memory.exists()


def test_the_position_is_published(numato: Bench, rhino: Bench) -> None:
    numato.ok("start", "promote", "demote", "stop")
    assert numato.cluster.line == ["off", "on", "off", "off"]
    rhino.ok("start", "promote", "demote", "stop")
    assert rhino.cluster.line == [
        f"{position}-unconfirmed" for position in ("off", "on", "off", "off")
    ]


def test_monitors_are_lean(bench: Bench) -> None:
    bench.ok("start", "promote")
    bench.do("monitor")
    assert bench.cluster.calls == []
    assert bench.card.calls == (["read"] if bench.card.reads_back else [])


def test_a_silent_cluster_stops_nothing(bench: Bench) -> None:
    """Its tools only carry news; the line must move without them."""
    bench.cluster.hangs = True
    bench.ok("start", "promote", "demote", "stop")


# Probes.


@pytest.mark.parametrize("state", ["stopped", "unpromoted", "promoted"])
def test_a_probe_touches_nothing(bench: Bench, state: str) -> None:
    wanted = Exit.NOT_RUNNING
    if state != "stopped":
        bench.ok("start")
        wanted = Exit.SUCCESS
    if state == "promoted":
        bench.ok("promote")
        wanted = Exit.RUNNING_PROMOTED
    before = {path: path.read_bytes() for path in bench.state.iterdir()}
    assert bench.do("monitor", interval="0").code == wanted
    assert bench.card.calls == []
    assert bench.cluster.calls == []
    assert {path: path.read_bytes() for path in bench.state.iterdir()} == before


def test_a_rebooted_node_is_not_running_with_or_without_its_card(bench: Bench) -> None:
    bench.ok("start", "promote")
    bench.memory.unlink()
    assert bench.do("monitor", interval="0").code == Exit.NOT_RUNNING
    bench.card.unplug()
    outcome = bench.do("monitor", interval="0")
    assert outcome.code == Exit.NOT_RUNNING
    assert outcome.reason == ""


def test_a_probe_needs_no_parameters(bench: Bench) -> None:
    bench.parameters = {}
    assert bench.do("monitor", interval="0").code == Exit.NOT_RUNNING


# The card unplugged.


def test_unplugged_while_promoted_is_a_failure(bench: Bench) -> None:
    bench.ok("start", "promote")
    bench.card.unplug()
    outcome = bench.do("monitor")
    assert outcome.code == Exit.FAILED_PROMOTED
    assert "is not there: is the USB cable plugged in?" in outcome.reason
    # Pacemaker's recovery: what it tries, and where that ends.
    bench.ok("demote", "stop")
    outcome = bench.do("start")
    assert outcome.code == Exit.ERR_INSTALLED
    assert not bench.memory.exists()
    assert bench.cluster.score == ""
    # And when it is plugged in again.
    bench.card.plug()
    bench.ok("start", "promote")
    assert bench.where() is Position.ON


def test_unplugged_while_unpromoted_only_wants_looking_at(bench: Bench) -> None:
    """The line is where it belongs: nothing to recover."""
    bench.ok("start")
    bench.card.unplug()
    outcome = bench.do("monitor")
    assert outcome.code == Exit.DEGRADED
    assert "is not there" in outcome.reason


def test_demoting_without_the_card_gives_up_the_score(bench: Bench) -> None:
    bench.ok("start", "promote")
    bench.card.unplug()
    bench.ok("demote")
    assert bench.cluster.score == ""
    assert bench.do("monitor").code == Exit.DEGRADED
    assert bench.cluster.line[-1] == "off-unconfirmed"


@pytest.mark.parametrize(
    ("actions", "code"),
    [(["start"], Exit.ERR_GENERIC), (["start", "promote"], Exit.FAILED_PROMOTED)],
)
def test_a_card_that_was_out_for_a_moment_has_forgotten(
    bench: Bench, actions: list[str], code: Exit
) -> None:
    """Between two monitors: a card without read-back cannot tell of it."""
    bench.ok(*actions)
    bench.card.unplug()
    bench.card.plug()
    outcome = bench.do("monitor")
    assert outcome.code == code
    assert "unplugged and plugged in again" in outcome.reason
    bench.ok("demote", "stop", *actions)
    assert bench.do("monitor").code in (Exit.SUCCESS, Exit.RUNNING_PROMOTED)


def test_promoting_without_the_card_changes_nothing(bench: Bench) -> None:
    bench.ok("start")
    before = bench.memory.read_text()
    bench.card.unplug()
    outcome = bench.do("promote")
    assert outcome.code == Exit.ERR_INSTALLED
    assert bench.memory.read_text() == before
    bench.ok("stop")


# The card broken.


def test_a_relay_that_somebody_moved_is_put_right(numato: Bench) -> None:
    numato.ok("start", "promote")
    numato.card.position = Position.OFF
    outcome = numato.do("monitor")
    assert outcome.code == Exit.FAILED_PROMOTED
    assert "is off, not on" in outcome.reason
    numato.ok("demote")
    numato.card.position = Position.ON
    outcome = numato.do("monitor")
    assert outcome.code == Exit.ERR_GENERIC
    assert "is on, not off" in outcome.reason


@pytest.mark.parametrize(
    ("actions", "code", "commanded"),
    [(["start"], Exit.DEGRADED, "off"), (["start", "promote"], Exit.DEGRADED_PROMOTED, "on")],
)
def test_a_card_that_no_longer_answers_is_left_alone(
    numato: Bench, actions: list[str], code: Exit, commanded: str
) -> None:
    numato.ok(*actions)
    numato.card.deaf = True
    outcome = numato.do("monitor")
    assert outcome.code == code
    assert f"does not answer); it was last commanded {commanded}" in outcome.reason
    numato.card.deaf = False
    assert numato.do("monitor").code in (Exit.SUCCESS, Exit.RUNNING_PROMOTED)


def test_a_broken_card_fails_the_start_and_not_the_stop(bench: Bench) -> None:
    bench.card.broken = True
    assert bench.do("start").code == Exit.ERR_GENERIC
    assert bench.do("monitor").code == Exit.ERR_GENERIC
    bench.ok("stop")
    assert bench.do("monitor").code == Exit.NOT_RUNNING


def test_a_start_does_not_forget_that_the_relay_may_be_on(bench: Bench) -> None:
    bench.ok("start", "promote")
    bench.card.broken = True
    assert bench.do("stop").code == Exit.ERR_GENERIC
    assert bench.do("start").code == Exit.ERR_GENERIC
    assert bench.do("stop").code == Exit.ERR_GENERIC


def test_a_broken_card_that_was_never_on_does_not_block_the_stop(bench: Bench) -> None:
    bench.ok("start")
    bench.card.broken = True
    bench.ok("stop")
    assert bench.cluster.line[-1] == "unknown"


@pytest.mark.parametrize("action", ["demote", "stop"])
def test_a_line_that_is_held_is_never_called_let_go(bench: Bench, action: str) -> None:
    bench.ok("start", "promote")
    bench.card.broken = True
    outcome = bench.do(action)
    assert outcome.code == Exit.ERR_GENERIC
    assert "does not answer" in outcome.reason
    assert bench.cluster.line[-1] == "unknown"
    assert bench.memory.exists()
    # Still so for whoever comes next, until the plug is pulled.
    outcome = bench.do("stop")
    assert outcome.code == Exit.ERR_GENERIC
    assert "pull the card's USB plug" in outcome.reason
    bench.card.unplug()
    bench.ok("stop")
    assert bench.do("monitor").code == Exit.NOT_RUNNING


def test_a_failed_promotion_may_hold_the_line(bench: Bench) -> None:
    bench.ok("start")
    bench.card.broken = True
    assert bench.do("promote").code == Exit.ERR_GENERIC
    assert bench.do("stop").code == Exit.ERR_GENERIC
    bench.card.broken = False
    bench.ok("demote", "stop")


# Killed half way.


class Killed(BaseException):
    """What SIGKILL is to the process: nothing after it runs."""


@pytest.mark.parametrize("before", [True, False], ids=["before the card", "after the card"])
@pytest.mark.parametrize("action", ["start", "promote", "demote", "stop"])
def test_whatever_was_killed_the_next_action_recovers(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, action: str, before: bool
) -> None:
    previous = {"start": [], "promote": ["start"], "demote": ["start", "promote"]}
    bench.ok(*previous.get(action, ["start", "promote"]))

    def killed(wanted: Position, deadline: Deadline) -> Position:
        if not before:
            bench.card.position = wanted
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(bench.card, "drive", killed)
        with pytest.raises(Killed):
            bench.do(action)
    # Never healthy while the relay may be where the memory does not say.
    outcome = bench.do("monitor")
    assert outcome.code == Exit.ERR_GENERIC
    assert "interrupted" in outcome.reason
    bench.ok("stop")
    assert bench.where() is Position.OFF
    bench.ok("start", "promote")
    assert bench.where() is Position.ON


@pytest.mark.parametrize("text", ["", "\x00\x00", "\xff", "flying 7"])
def test_a_memory_that_cannot_be_read_may_mean_on(bench: Bench, text: str) -> None:
    bench.ok("start", "promote")
    bench.memory.write_text(text, encoding="latin-1")
    assert bench.do("monitor").code == Exit.ERR_GENERIC
    bench.card.broken = True
    assert bench.do("stop").code == Exit.ERR_GENERIC
    bench.card.broken = False
    bench.ok("stop")


def test_a_node_without_the_card_stays_so_until_its_stop(other: Bench) -> None:
    """Whatever the configuration says by then: there is no card to command."""
    other.ok("start")
    other.parameters["card_node"] = other.node
    other.ok("stop")
    assert other.card.calls == []


def test_a_full_run_directory_does_not_hold_the_line(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.ok("start", "promote")

    def full(source: str, target: str) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        outcome = bench.do("demote")
        assert outcome.code == Exit.ERR_GENERIC
        assert "No space left" in outcome.reason
        assert bench.where() is Position.OFF
        bench.ok("stop")


# The other node.


def test_the_other_node_needs_and_touches_no_card(other: Bench) -> None:
    other.card.unplug()
    other.ok("start")
    assert other.cluster.score == str(PROMOTION_SCORE)
    other.ok("promote")
    assert other.do("monitor").code == Exit.RUNNING_PROMOTED
    other.ok("demote")
    assert other.do("monitor").code == Exit.SUCCESS
    other.ok("stop")
    assert other.do("monitor").code == Exit.NOT_RUNNING
    assert other.card.calls == []
    assert other.cluster.line == []


@pytest.mark.parametrize("said", ["on", "on-unconfirmed", "unknown"])
def test_the_other_node_warns_of_a_line_that_was_not_let_go(other: Bench, said: str) -> None:
    other.cluster.line = [said]
    other.ok("start")
    outcome = other.do("promote")
    assert outcome.code == Exit.SUCCESS
    assert "crm1 did not say that it let go of the line" in outcome.err


@pytest.mark.parametrize("said", [["off"], ["off-unconfirmed"], []])
def test_the_other_node_is_content_with_off(other: Bench, said: list[str]) -> None:
    other.cluster.line = said
    other.ok("start")
    assert "WARNING" not in other.do("promote").err


def test_node_names_have_no_case(bench: Bench) -> None:
    bench.parameters["card_node"] = "CRM1"
    bench.ok("start", "promote")
    assert bench.where() is Position.ON


# Parameters.


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("card_node", "", "parameter card_node is required"),
        ("driver", "abacus", "must be one of rhino, numato"),
        ("device", "ttyUSB0", "must be an absolute path"),
        ("relay", "32", "must be from 0 to 31"),
        ("relay", "many", "must be a whole number"),
        ("relay", "1", "the Rhino card has one relay"),
        ("program", "rhinofailover", "must be an absolute path"),
    ],
)
@pytest.mark.parametrize("action", ["start", "validate-all"])
def test_a_wrong_value_is_6_and_changes_nothing(
    bench: Bench, action: str, name: str, value: str, reason: str
) -> None:
    bench.parameters[name] = value
    outcome = bench.do(action)
    assert outcome.code == Exit.ERR_CONFIGURED
    assert reason in outcome.reason
    assert not bench.memory.exists()
    assert bench.card.calls == []
    bench.ok("stop")


def test_a_card_node_that_does_not_exist_is_6(bench: Bench) -> None:
    bench.parameters["card_node"] = "crm3"
    outcome = bench.do("start")
    assert outcome.code == Exit.ERR_CONFIGURED
    assert 'card_node="crm3": no such node, there is crm1, crm2' in outcome.reason


def test_a_first_node_may_wait_for_the_card_s_node(other: Bench) -> None:
    other.cluster.nodes = ["crm2"]
    other.ok("start")


def test_validation_looks_at_the_host_only_when_asked(bench: Bench) -> None:
    bench.card.unplug()
    bench.ok("validate-all")
    assert bench.do("validate-all", level=10).code == Exit.ERR_INSTALLED
    bench.node = "crm2"
    assert bench.do("validate-all", level=10).code == Exit.SUCCESS


def test_what_it_offers() -> None:
    offered = {
        (spec.name, spec.role, spec.interval, spec.timeout) for spec in RhinoRelay.actions
    }
    assert offered == {
        *((name, None, None, 20) for name in ("start", "stop", "promote", "demote")),
        ("monitor", "Promoted", 10, 20),
        ("monitor", "Unpromoted", 11, 20),
    }


@pytest.mark.parametrize("action", ["demote", "stop"])
@pytest.mark.parametrize(
    "changed", [{"device": "/dev/ttyUSB7"}, {"card_node": ""}, {"card_node": "crm2"}]
)
def test_what_was_started_is_given_up_whatever_the_parameters_say_now(
    bench: Bench, action: str, changed: dict[str, str]
) -> None:
    """Pacemaker stops with the parameters that the configuration has by now."""
    bench.ok("start", "promote")
    assert bench.where() is Position.ON
    bench.parameters.update(changed)
    bench.ok(action)
    assert bench.where() is Position.OFF
    assert bench.asked_for == "/dev/ttyUSB0"


def test_the_node_without_the_card_gives_up_nothing(tmp_path: Path) -> None:
    card = FakeCard(reads_back=True)
    other = Bench(tmp_path, card, node="crm2")
    other.ok("start", "promote")
    other.parameters["card_node"] = "crm2"
    other.ok("stop")
    assert card.calls == []
