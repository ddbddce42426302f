"""The causes of silence that are known of: whose silence each covers, and their order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import pytest

from asha.agents import asterisk_explanations
from asha.agents.asterisk_explanations import (
    OF_SILENCE,
    OF_THE_PROCESS,
    CallRecords,
    Case,
    Explained,
    Explanation,
    FilesUsedUp,
    Overload,
    Reload,
    StalledDisk,
    explained_by,
)
from asha.asterisk.probes import (
    CallSetup,
    ChannelLocks,
    ControlSocket,
    Database,
    ManagerInterface,
    Probe,
    SipOptions,
)
from asha.asterisk.process.proc import Endpoint, Process

PROCESS = Process("/proc", 0, ("", "", 0, 0, ""))
CONSOLE = ControlSocket("/run/asterisk", PROCESS)
AMI = ManagerInterface(Endpoint("tcp", "127.0.0.1", 5038, 0, ""), PROCESS, None)
LOCK = ChannelLocks(AMI)
ASTDB = Database(CONSOLE)
CALL = CallSetup(CONSOLE)
UDP = SipOptions(Endpoint("udp", "127.0.0.1", 5060, 0, ""), PROCESS)
TCP = SipOptions(Endpoint("tcp", "127.0.0.1", 5060, 0, ""), PROCESS)
ALL = (CONSOLE, AMI, LOCK, ASTDB, CALL, UDP, TCP)
NOWHERE = cast(Case, None)


@pytest.mark.parametrize(
    ("cause", "covered"),
    [
        (FilesUsedUp(), {CONSOLE, AMI, TCP}),
        (Reload(), set(ALL)),
        (StalledDisk(), {ASTDB}),
        (CallRecords(), {CALL}),
        (Overload(), {CALL, UDP, TCP}),
    ],
    ids=lambda one: type(one).__name__,
)
def test_whose_silence_it_covers(cause: Explanation, covered: set[Probe]) -> None:
    assert {one for one in ALL if cause.covers([one])} == covered
    # A lock that is held explains itself, but for a reload.
    assert cause.covers([*covered, LOCK]) == (LOCK in covered)


def test_a_disk_covers_what_waits_for_it_too() -> None:
    assert StalledDisk().covers([CALL, UDP, TCP, ASTDB])
    assert not StalledDisk().covers([CALL, UDP, TCP])
    assert not StalledDisk().covers([ASTDB, LOCK])


class Known(Explanation):
    """A cause that is, or is not."""

    def __init__(self, found: Explained | None, *, covers: bool = True) -> None:
        self.found = found
        self.is_covered = covers

    def covers(self, silent: Sequence[Probe]) -> bool:
        return self.is_covered

    def explain(self, silent: Sequence[Probe], case: Case) -> Explained | None:
        return self.found


def test_the_first_cause_that_is_explains() -> None:
    causes = [
        Known(Explained("covers none of these"), covers=False),
        Known(None),
        Known(Explained("the first")),
        Known(Explained("the second")),
    ]
    assert explained_by(causes, [UDP], NOWHERE).reason == "the first"


def test_a_cause_that_is_may_have_the_last_word_without_explaining() -> None:
    causes = [Known(Explained()), Known(Explained("the second"))]
    assert explained_by(causes, [UDP], NOWHERE).reason == ""


def test_without_a_cause_it_hangs() -> None:
    found = explained_by([Known(None)], [UDP], NOWHERE)
    assert (found.reason, list(found.verdicts)) == ("", [])


def test_every_cause_has_its_place() -> None:
    made = {
        one for one in vars(asterisk_explanations).values()
        if isinstance(one, type) and issubclass(one, Explanation) and one is not Explanation
    }
    assert {type(one) for one in (*OF_THE_PROCESS, *OF_SILENCE)} == made
