"""Parts that do not answer, and at which depth that is seen."""

from __future__ import annotations

import pytest

from asha.ocf import Exit
from tests.fakes.asterisk import AMI, CONTROL, SIP
from tests.unit.asterisk_health.pbx import DEEP, Pbx


def test_silent_control_socket(pbx: Pbx) -> None:
    pbx.start()
    pbx.silence(CONTROL)
    outcome = pbx.act("monitor", 0)
    assert outcome.code == Exit.ERR_GENERIC
    assert "control socket" in outcome.reason
    assert "asked twice" in outcome.reason
    assert pbx.probe().code == Exit.SUCCESS


@pytest.mark.parametrize(("part", "name"), [(AMI, "AMI"), (SIP, "SIP")])
def test_silent_part_is_seen_at_depth_10_only(pbx: Pbx, part: str, name: str) -> None:
    pbx.start()
    pbx.silence(part)
    assert pbx.act("monitor", 0).code == Exit.SUCCESS
    outcome = pbx.act("monitor", DEEP)
    assert outcome.code == Exit.ERR_GENERIC
    assert outcome.reason.startswith(f"{name} at ")


def test_part_that_is_switched_off_is_not_asked(pbx: Pbx) -> None:
    pbx.start()
    pbx.silence(AMI)
    pbx.silence(SIP)
    assert pbx.act("monitor", DEEP, {"sip_port": "0", "ami_port": "0"}).code == Exit.SUCCESS


def test_given_sip_address_is_asked(pbx: Pbx) -> None:
    pbx.start()
    assert pbx.act("monitor", DEEP, {"sip_address": "127.0.0.1"}).code == Exit.SUCCESS
    outcome = pbx.act("monitor", DEEP, {"sip_address": "127.0.0.2"})
    assert outcome.code == Exit.ERR_GENERIC
    assert "127.0.0.2" in outcome.reason
