"""Start: what is waited for, and what is replaced."""

from __future__ import annotations

import threading
import time

from asha.ocf import Exit
from tests.fakes.asterisk import LOADING, SIP, free_ports
from tests.unit.asterisk_health.pbx import Pbx, halt


def test_start_waits_for_the_end_of_loading(pbx: Pbx) -> None:
    pbx.launcher.clears = False
    flag = pbx.run / f"silent-{LOADING}"
    flag.touch()
    timer = threading.Timer(1.5, flag.unlink)
    timer.start()
    began = time.monotonic()
    pbx.start()
    assert time.monotonic() - began > 1.4
    timer.join()


def test_start_that_never_ends_loading(pbx: Pbx) -> None:
    pbx.launcher.clears = False
    (pbx.run / f"silent-{LOADING}").touch()
    outcome = pbx.act("start", timeout=3)
    assert outcome.code == Exit.ERR_GENERIC
    assert "loading its modules" in outcome.reason


def test_start_waits_for_sip(pbx: Pbx) -> None:
    pbx.launcher.clears = False
    flag = pbx.run / f"silent-{SIP}"
    flag.touch()
    timer = threading.Timer(2.0, flag.unlink)
    timer.start()
    pbx.start()
    assert not flag.exists()
    timer.join()


def test_start_without_sip_says_what_to_set(pbx: Pbx) -> None:
    began = time.monotonic()
    outcome = pbx.act("start", given={"sip_port": str(free_ports()[0])})
    assert outcome.code == Exit.ERR_GENERIC
    assert "0 if this PBX has no SIP" in outcome.reason
    assert time.monotonic() - began < 10


def test_early_death_is_told(pbx: Pbx) -> None:
    class Dying(pbx.launcher):  # type: ignore[name-defined, misc]
        def launch(self) -> None:
            pass

        def verdict_on_death(self) -> str:
            return "no such user"

    pbx.agent.launcher_class = Dying
    outcome = pbx.act("start")
    assert outcome.code == Exit.ERR_GENERIC
    assert outcome.reason == "Asterisk ended while it started: no such user"


def test_hung_leftover_is_replaced_and_never_doubled(pbx: Pbx) -> None:
    old = pbx.start()
    halt(old)
    new = pbx.start()
    assert new is not old
    assert pbx.alive() == [new.pid]


def test_leftover_whose_sip_hangs_is_replaced(pbx: Pbx) -> None:
    old = pbx.start()
    pbx.silence(SIP)
    new = pbx.start()
    assert new is not old
    assert pbx.alive() == [new.pid]


def test_start_of_a_killed_action_that_still_loads_is_waited_for(pbx: Pbx) -> None:
    flag = pbx.run / f"silent-{LOADING}"
    first = pbx.start()
    flag.touch()
    timer = threading.Timer(1.0, flag.unlink)
    timer.start()
    assert pbx.start() is first
    timer.join()
