"""Agent, drivers, real pty, real programs: the line is where the cluster wants it.

The line switch is asked, never the agent.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from asha.agents.rhino_relay import RhinoRelay
from asha.ocf import Exit
from asha.relay.__main__ import main as park
from tests.fakes.ocf import Outcome, perform
from tests.lab.lineswitch import LineSwitchClient, start_line_switch

pytest.importorskip("serial")

PROGRAM = Path(__file__).parents[1] / "lab/files/node/usr/local/bin/rhinofailover"


class Site:
    """The node with a card of one kind."""

    def __init__(self, directory: Path, kind: str) -> None:
        self.state = str(directory)
        self.parameters = {
            "card_node": "crm1",
            "driver": kind,
            "device": str(directory / "ttyUSB0"),
            "program": str(PROGRAM),
        }
        socket = str(directory / "socket")
        self.pid = start_line_switch(socket, kind=kind, device=self.parameters["device"])
        self.switch = LineSwitchClient(socket)
        self.switch.power_on()

    def do(self, action: str, **meta: str) -> Outcome:
        return perform(
            RhinoRelay,
            action,
            self.state,
            instance="p_line",
            meta=meta,
            **self.parameters,  # type: ignore[arg-type]
        )

    def ok(self, *actions: str) -> None:
        for action in actions:
            outcome = self.do(action)
            assert outcome.code == Exit.SUCCESS, f"{action}: {outcome.reason}"

    def line(self) -> str:
        return self.switch.line_goes_to()


@pytest.fixture(params=["numato", "rhino"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(autouse=True)
def short_reset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asha.relay.rhino.RESET_SECONDS", 0.01)


@contextmanager
def impatient() -> Iterator[None]:
    """For what a broken card never answers. How long each wait really is, the drivers'
    own tests say; and a card that is well may take that long on a busy machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("asha.relay.contract.PATIENCE_SECONDS", 0.4)
        patch.setattr("asha.relay.numato.ANSWER_SECONDS", 0.3)
        yield


@pytest.fixture
def site(tmp_path: Path, kind: str) -> Iterator[Site]:
    site = Site(tmp_path, kind)
    yield site
    os.kill(site.pid, signal.SIGTERM)
    os.waitpid(site.pid, 0)


def test_the_line_follows(site: Site) -> None:
    assert site.do("monitor", interval="0").code == Exit.NOT_RUNNING
    site.ok("start")
    assert site.line() == "crm2"
    site.ok("promote")
    assert site.line() == "crm1"
    assert site.do("monitor").code == Exit.RUNNING_PROMOTED
    assert site.line() == "crm1"
    site.ok("demote")
    assert site.line() == "crm2"
    assert site.do("monitor").code == Exit.SUCCESS
    site.ok("promote", "stop")
    assert site.line() == "crm2"
    # The agent's own account agrees with the line's: no flicker on the way.
    assert [node for _, node in site.switch.history()] == ["crm2", "crm1", "crm2", "crm1", "crm2"]


def test_monitoring_does_not_move_the_line(site: Site) -> None:
    site.ok("start", "promote")
    changes = site.switch.history()
    for _ in range(5):
        assert site.do("monitor").code == Exit.RUNNING_PROMOTED
    assert site.switch.history() == changes


def test_unplugged_and_plugged(site: Site) -> None:
    site.ok("start", "promote")
    site.switch.unplug()
    assert site.line() == "crm2"
    outcome = site.do("monitor")
    assert outcome.code == Exit.FAILED_PROMOTED
    assert "is the USB cable plugged in" in outcome.reason
    site.ok("demote", "stop")
    assert site.do("start").code == Exit.ERR_INSTALLED
    site.switch.plug()
    site.ok("start", "promote")
    assert site.line() == "crm1"


def test_unplugged_between_two_monitors(site: Site) -> None:
    site.ok("start", "promote")
    site.switch.unplug()
    site.switch.plug()
    assert site.line() == "crm2"
    assert site.do("monitor").code == Exit.FAILED_PROMOTED
    site.ok("demote", "stop", "start", "promote")
    assert site.line() == "crm1"


def test_a_node_that_comes_back_does_not_take_the_line(site: Site) -> None:
    site.ok("start", "promote")
    os.unlink(f"{site.state}/rhino-relay-p_line.state")  # the reboot
    site.switch.power_on()  # warm: the relay kept its position
    assert site.line() == "crm1"
    words = ["--driver", site.parameters["driver"], "--device", site.parameters["device"]]
    assert park(["park", *words, "--program", str(PROGRAM)]) == 0
    assert site.line() == "crm2"
    assert site.do("monitor", interval="0").code == Exit.NOT_RUNNING
    site.ok("start")
    assert site.line() == "crm2"


def test_a_node_without_power_has_no_line(site: Site) -> None:
    site.ok("start", "promote")
    site.switch.power_off()
    assert site.line() == "crm2"


@pytest.mark.parametrize("fault", ["mute", "garbage"])
def test_a_card_that_cannot_be_driven_is_not_called_off(site: Site, fault: str) -> None:
    site.ok("start", "promote")
    site.switch.break_card(fault)
    with impatient():
        outcome = site.do("stop")
    assert outcome.code == Exit.ERR_GENERIC
    assert "pull the card's USB plug" in outcome.reason
    assert site.line() == "crm1"
    site.switch.mend_card()
    site.ok("stop")
    assert site.line() == "crm2"


@pytest.mark.parametrize("kind", ["numato"])
def test_a_stuck_relay_is_seen_where_it_can_be(site: Site) -> None:
    site.ok("start")
    site.switch.break_card("stuck")
    outcome = site.do("promote")
    assert outcome.code == Exit.ERR_GENERIC
    assert "was told on and says 'off'" in outcome.reason
    assert site.line() == "crm2"


@pytest.mark.parametrize("kind", ["numato"])
def test_a_mute_card_keeps_the_line_it_has(site: Site) -> None:
    site.ok("start", "promote")
    site.switch.break_card("mute")
    with impatient():
        assert site.do("monitor").code == Exit.DEGRADED_PROMOTED
    assert site.line() == "crm1"
    site.switch.mend_card()
    assert site.do("monitor").code == Exit.RUNNING_PROMOTED


@pytest.mark.parametrize("kind", ["rhino"])
def test_a_missing_program_changes_nothing(site: Site) -> None:
    site.parameters["program"] = "/nowhere/rhinofailover"
    outcome = site.do("start")
    assert outcome.code == Exit.ERR_INSTALLED
    assert "program /nowhere/rhinofailover is not installed" in outcome.reason
    assert site.do("monitor", interval="0").code == Exit.NOT_RUNNING
    site.ok("stop")
