"""What a hung Asterisk looked like is kept, once."""

from __future__ import annotations

import threading
from pathlib import Path

from asha.asterisk.evidence import events_in
from asha.ocf import Exit
from tests.fakes.asterisk import SIP
from tests.unit.asterisk_health.pbx import DEEP, Pbx, with_secret


def test_evidence_is_kept_once_per_hang(pbx: Pbx) -> None:
    with_secret(pbx)
    pbx.silence(SIP)
    given = {"evidence_keep": "3", "evidence_seconds": "2s"}
    first = pbx.act("monitor", DEEP, given)
    assert first.code == Exit.ERR_GENERIC
    assert pbx.act("monitor", DEEP, given).code == Exit.ERR_GENERIC
    (event,) = events_in(f"{pbx.state}-evidence")
    summary = Path(f"{pbx.state}-evidence", event, "summary.txt").read_text()
    assert f"Why: {first.reason}" in summary


def test_no_evidence_of_an_asterisk_that_only_starts_slowly(pbx: Pbx) -> None:
    """gdb would halt it at the very moment at which all telephones register."""
    pbx.launcher.clears = False
    flag = pbx.run / f"silent-{SIP}"
    flag.touch()
    timer = threading.Timer(2.5, flag.unlink)
    timer.start()
    given = {"evidence_keep": "3", "evidence_seconds": "1s"}
    assert pbx.act("start", given=given).code == Exit.SUCCESS
    timer.join()
    assert events_in(f"{pbx.state}-evidence") == []
