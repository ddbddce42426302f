"""AMI's secret, and what is asked through AMI and on the console."""

from __future__ import annotations

import pytest

from asha.ocf import Exit
from tests.fakes.asterisk import AMI, ASTDB_LOCKED, FORBIDDEN, HUNG_UP, SECRET, USER
from tests.unit.asterisk_health.pbx import DEEP, Pbx, with_secret


def test_ami_secret(pbx: Pbx) -> None:
    pbx.start()
    pbx.secret.write_text(f"user={USER}\nsecret={SECRET}\n")
    pbx.secret.chmod(0o600)
    assert pbx.act("monitor", DEEP).code == Exit.SUCCESS
    pbx.secret.write_text(f"user={USER}\nsecret=wrong\n")
    outcome = pbx.act("monitor", DEEP, {"when_lost": "failed"})
    assert outcome.code == Exit.DEGRADED
    assert "does not accept user asha" in outcome.reason
    pbx.secret.chmod(0o644)
    outcome = pbx.act("monitor", DEEP)
    assert outcome.code == Exit.DEGRADED
    assert "chmod 600" in outcome.reason
    assert "wrong" not in outcome.err


@pytest.mark.parametrize(
    ("part", "named"),
    [("channels", "channel lock"), ("dialplan", "dialplan lock"), ("astdb", "AstDB")],
)
def test_a_held_lock_is_named_and_failed(pbx: Pbx, part: str, named: str) -> None:
    with_secret(pbx)
    pbx.silence(part)
    assert pbx.act("monitor", 0).code == Exit.SUCCESS
    outcome = pbx.act("monitor", DEEP)
    assert outcome.code == Exit.ERR_GENERIC
    assert outcome.reason.startswith(f"{named} at ")
    assert "asked twice" in outcome.reason
    others = {"channel lock", "dialplan lock", "AstDB", "AMI at", "SIP at"} - {named}
    assert not any(other in outcome.reason for other in others)


@pytest.mark.parametrize(
    ("part", "said"), [(HUNG_UP, "closed the connection"), (FORBIDDEN, "needs write=reporting")]
)
def test_a_question_that_ami_does_not_take_is_no_hang(pbx: Pbx, part: str, said: str) -> None:
    with_secret(pbx)
    pbx.silence(part)
    outcome = pbx.act("monitor", DEEP)
    assert outcome.code == Exit.DEGRADED
    assert outcome.reason.startswith("channel lock")
    assert said in outcome.err


def test_a_lock_that_is_not_asked_for_is_not_seen(pbx: Pbx) -> None:
    with_secret(pbx)
    pbx.silence("channels")
    assert pbx.act("monitor", DEEP, {"probes": "ami dialplan astdb sip"}).code == Exit.SUCCESS


def test_silent_ami_is_named_alone(pbx: Pbx) -> None:
    with_secret(pbx)
    pbx.silence(AMI)
    outcome = pbx.act("monitor", DEEP)
    assert outcome.code == Exit.ERR_GENERIC
    assert outcome.reason.startswith("AMI at TCP 127.0.0.1 port")
    assert "lock" not in outcome.reason


def test_an_astdb_that_answers_with_an_error_is_no_hang(pbx: Pbx) -> None:
    with_secret(pbx)
    pbx.silence(ASTDB_LOCKED)
    outcome = pbx.act("monitor", DEEP)
    assert outcome.code == Exit.DEGRADED
    assert "AstDB does not take a key (Failed to update entry)" in outcome.reason
    assert pbx.act("monitor", DEEP, {"when_faulty": "failed"}).code == Exit.ERR_GENERIC


def test_unknown_question_is_refused(pbx: Pbx) -> None:
    outcome = pbx.act("validate-all", given={"probes": "ami astbd"})
    assert outcome.code == Exit.ERR_CONFIGURED
    assert '"astbd" is none of' in outcome.reason
