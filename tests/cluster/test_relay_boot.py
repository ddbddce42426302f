"""The line at boot: a card keeps its relay through a warm reboot of its node."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cluster.single import call
from tests.conftest import lab_or_skip
from tests.lab import Lab, wait_for

CARD = {"driver": "rhino", "device": "/dev/ttyUSB0", "card_node": "crm1"}


@pytest.fixture
def lab() -> Iterator[Lab]:
    with lab_or_skip("crm1", cluster=False) as lab:
        node = lab.node("crm1")
        for action in ("start", "promote"):
            done = call(node, "rhino-relay", action, CARD)
            assert done.code == 0, done.err
        assert lab.line_switch.line_goes_to() == "crm1"
        yield lab


def test_parked_off_after_a_warm_reboot(lab: Lab) -> None:
    """Nothing of the cluster runs here: the boot itself lets go of the line."""
    node = lab.node("crm1")
    node.shut_down(warm=True)
    assert lab.line_switch.line_goes_to() == "crm1"
    node.boot()
    wait_for(lambda: lab.line_switch.line_goes_to() == "crm2", "the relay to be parked")
    assert call(node, "rhino-relay", "monitor", CARD, probe=True).code == 7


def test_lost_power_lets_go_of_the_line(lab: Lab) -> None:
    lab.node("crm1").crash()
    assert lab.line_switch.line_goes_to() == "crm2"
