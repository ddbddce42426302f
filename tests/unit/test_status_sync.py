"""asha sync: what /proc/drbd says in its own words, a speed of our own, and the end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from asha.commands import sync
from asha.errors import UserError
from asha.status.model import Disks
from asha.status.replication import DiskSight
from tests.fakes.machine import FakeMachine

HEAD = "version: 8.4.11 (api:1/proto:86-101)\nsrcversion: F937DCB2E5D83C6CCE4A6C9\n"
SYNC = HEAD + """\
 0: cs:SyncTarget ro:Secondary/Primary ds:Inconsistent/UpToDate C r-----
    ns:0 nr:459920 dw:459664 dr:0 al:0 bm:28 lo:3 pe:1279 ua:4 ap:0 ep:1 wo:f oos:2469104
\t[==>.................] sync'ed: 15.9% (2469104/2928512)K
\tfinish: 0:01:47 speed: 22,896 (21,876) want: 30,720 K/sec
"""
PAUSED = HEAD + """\
 0: cs:PausedSyncT ro:Secondary/Primary ds:Inconsistent/UpToDate C r-----
    ns:0 nr:459920 dw:459664 dr:0 al:0 bm:28 lo:3 pe:1279 ua:4 ap:0 ep:1 wo:f oos:{oos}
"""
SAME = HEAD + """\
 0: cs:Connected ro:Secondary/Primary ds:UpToDate/UpToDate C r-----
    ns:0 nr:2928512 dw:2928512 dr:0 al:0 bm:28 lo:0 pe:0 ua:0 ap:0 ep:1 wo:f oos:0
"""
PARTED = HEAD + """\
 0: cs:StandAlone ro:Primary/Unknown ds:UpToDate/DUnknown r-----
    ns:0 nr:0 dw:0 dr:0 al:0 bm:0 lo:0 pe:0 ua:0 ap:0 ep:1 wo:f oos:4096
"""


class Time:
    """Sleeping moves the clock, and lets the next state of the disks come."""

    def __init__(self, machine: FakeMachine, states: list[str]) -> None:
        self.machine = machine
        self.states = states
        self.now = 0.0
        self.advance(0)

    def advance(self, seconds: float) -> None:
        self.now += seconds
        if self.states:
            self.machine.put("/proc/drbd", self.states.pop(0))

    def sight(self) -> DiskSight:
        return DiskSight(self.machine, "crm1", "crm2", lambda: self.now, self.advance)


@pytest.fixture
def machine(tmp_path: Path) -> FakeMachine:
    return FakeMachine(tmp_path).absent("drbdsetup", "drbdadm", "modinfo")


def test_what_drbd_says_is_kept(machine: FakeMachine) -> None:
    disks = Time(machine, [SYNC]).sight().look_closely()
    assert disks == Disks(
        node="crm1", role="Secondary", disk="Inconsistent", peer="crm2", peer_role="Primary",
        peer_disk="UpToDate", connection="SyncTarget", syncing=True, in_sync=False, percent=15.9,
        out_of_sync=2469104, speed=22896, seconds_left=107,
    )


def test_two_looks_give_a_speed(machine: FakeMachine) -> None:
    time = Time(machine, [PAUSED.format(oos=100_000), PAUSED.format(oos=80_000)])
    disks = time.sight().look_closely()
    assert disks is not None
    assert (disks.speed, disks.seconds_left) == (20_000, 4)


def test_a_sync_that_stands_still_has_no_end(machine: FakeMachine) -> None:
    time = Time(machine, [PAUSED.format(oos=100_000), PAUSED.format(oos=100_000)])
    disks = time.sight().look_closely()
    assert disks is not None
    assert (disks.speed, disks.seconds_left) == (0, None)


def test_in_sync_there_is_nothing_to_measure(machine: FakeMachine) -> None:
    time = Time(machine, [SAME])
    disks = time.sight().look_closely()
    assert disks is not None
    assert disks.in_sync
    assert (disks.percent, disks.speed, disks.seconds_left) == (None, None, None)
    assert time.now == 0


def test_not_up_is_trouble_with_the_mend(machine: FakeMachine) -> None:
    assert Time(machine, []).sight().look_closely() is None
    with pytest.raises(UserError, match="not up on this node"):
        sync.known(None)


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> list[Time]:
    """The clock that ``asha sync`` itself looks at and sleeps by."""
    clocks: list[Time] = []
    monkeypatch.setattr("asha.commands.sync.time.sleep", lambda seconds: clocks[0].advance(seconds))
    monkeypatch.setattr("asha.commands.sync.time.monotonic", lambda: clocks[0].now)
    return clocks


def test_watch_ends_in_sync(
    machine: FakeMachine, no_waiting: list[Time], capsys: pytest.CaptureFixture[str]
) -> None:
    time = Time(machine, [SYNC] * 25 + [SAME])
    no_waiting.append(time)
    assert sync.watch(time.sight(), as_objects=False) == 0
    lines = capsys.readouterr().out.splitlines()
    # Away from a terminal: a line every ten seconds, and the last.
    assert len(lines) == 4
    assert "15.9 % in sync" in lines[0]
    assert lines[-1] == "in sync (crm1 UpToDate, crm2 UpToDate)"


def test_watch_for_programs(
    machine: FakeMachine, no_waiting: list[Time], capsys: pytest.CaptureFixture[str]
) -> None:
    time = Time(machine, [SYNC, SAME])
    no_waiting.append(time)
    assert sync.watch(time.sight(), as_objects=True) == 0
    first, last = map(json.loads, capsys.readouterr().out.splitlines())
    assert (first["schema"], first["percent"], first["in_sync"]) == (2, 15.9, False)
    assert last["in_sync"] is True


def test_watch_does_not_wait_for_what_never_comes(
    machine: FakeMachine, no_waiting: list[Time]
) -> None:
    time = Time(machine, [PARTED])
    no_waiting.append(time)
    with pytest.raises(UserError, match="split brain") as caught:
        sync.watch(time.sight(), as_objects=False)
    assert "SPLIT BRAIN" in caught.value.hint
