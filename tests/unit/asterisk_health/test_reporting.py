"""What the cluster is told."""

from __future__ import annotations

import os
import time

from asha.ocf import Exit, Failed
from tests.fakes.asterisk import ASTDB_LOCKED
from tests.fakes.ocf import CallQueue
from tests.unit.asterisk_health.pbx import DEEP, Pbx, with_secret


def test_the_attribute_says_what_is_degraded_and_for_how_long(pbx: Pbx) -> None:
    with_secret(pbx)
    pbx.silence(ASTDB_LOCKED)
    runner = CallQueue()
    told = "degraded: AstDB does not take a key (Failed to update entry): Asterisk has not its " \
           "file open"
    runner.expect("attrd_updater", "--name", "asha-asterisk", "--update", told)
    for _ in range(3):  # told once
        assert pbx.act("monitor", DEEP, runner=runner).code == Exit.DEGRADED
    # A shallower look has not seen it, and says nothing of it.
    assert pbx.act("monitor", 0, runner=runner).code == Exit.SUCCESS
    (pbx.run / f"silent-{ASTDB_LOCKED}").unlink()
    runner.expect("attrd_updater", "--name", "asha-asterisk", "--delete")
    for _ in range(2):
        assert pbx.act("monitor", DEEP, runner=runner).code == Exit.SUCCESS
    runner.done()


def test_the_attribute_is_told_again_for_a_manager_that_forgot_it(pbx: Pbx) -> None:
    with_secret(pbx)
    pbx.silence(ASTDB_LOCKED)
    assert pbx.act("monitor", DEEP).code == Exit.DEGRADED
    (state,) = pbx.state.glob("*.degraded")
    before = time.time() - 400
    os.utime(state, (before, before))
    for news in (True, False):
        runner = CallQueue()
        if news:
            runner.expect("attrd_updater", "--name", "asha-asterisk", "--update",
                          "degraded: " + state.read_text().partition(" ")[2])
        assert pbx.act("monitor", DEEP, runner=runner).code == Exit.DEGRADED
        runner.done()


def test_an_attribute_manager_that_is_not_there_changes_nothing(pbx: Pbx) -> None:
    with_secret(pbx)
    pbx.silence(ASTDB_LOCKED)
    runner = CallQueue()
    told = "degraded: AstDB does not take a key (Failed to update entry): Asterisk has not its " \
           "file open"
    runner.expect("attrd_updater", "--name", "asha-asterisk", "--update", told,
                  raises=Failed("attrd_updater did not end within 1.5 s"))
    first = pbx.act("monitor", DEEP, runner=runner)
    assert first.code == Exit.DEGRADED
    assert "the cluster was not told" in first.err
    again = pbx.act("monitor", DEEP, runner=runner)
    assert again.code == Exit.DEGRADED
    assert "not told" not in again.err


def test_the_attribute_is_taken_back_until_that_is_heard(pbx: Pbx) -> None:
    with_secret(pbx)
    pbx.silence(ASTDB_LOCKED)
    assert pbx.act("monitor", DEEP).code == Exit.DEGRADED
    (pbx.run / f"silent-{ASTDB_LOCKED}").unlink()
    runner = CallQueue()
    delete = ("attrd_updater", "--name", "asha-asterisk", "--delete")
    runner.expect(*delete, raises=Failed("attrd_updater did not end within 1.5 s"))
    runner.expect(*delete)
    for _ in range(3):
        assert pbx.act("monitor", DEEP, runner=runner).code == Exit.SUCCESS
    runner.done()


def test_stop_takes_the_attribute_back(pbx: Pbx) -> None:
    with_secret(pbx)
    pbx.silence(ASTDB_LOCKED)
    assert pbx.act("monitor", DEEP).code == Exit.DEGRADED
    assert list(pbx.state.glob("*.degraded"))
    runner = CallQueue()
    runner.expect("attrd_updater", "--name", "asha-asterisk", "--delete")
    assert pbx.act("stop", runner=runner).code == Exit.SUCCESS
    runner.done()
    assert not list(pbx.state.glob("*.degraded"))
