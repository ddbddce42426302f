"""Silence that is no hang, and silence that is one all the same."""

from __future__ import annotations

import re
import threading
from collections.abc import Generator

import pytest

from asha.agents import asterisk_explanations
from asha.asterisk.process.proc import BLOCKED, STOPPED, Process, Task
from asha.asterisk.talk import sip
from asha.asterisk.talk.connections import Wait
from asha.ocf import Exit
from tests.fakes.asterisk import (
    AMI,
    ASTDB_LOCKED,
    CONTROL,
    DRAINING,
    OVERLOAD,
    RECORDS_MOVE,
    RECORDS_WAIT,
    SIP,
    SIP_HANGS_UP,
    STUCK,
)
from tests.fakes.ocf import CallQueue
from tests.unit.asterisk_health.pbx import (
    DEEP,
    DEEPEST,
    MON,
    Pbx,
    before_call,
    nodes_xml,
    with_secret,
)

# What is silent or too busy, how deep one looks, what comes of it, and in what words.
HEARD = {
    "overload is told from a hang": (
        (SIP, OVERLOAD), DEEP, Exit.DEGRADED,
        "^Asterisk is overloaded and drops SIP requests: pjsip/distributor",
    ),
    "a queue on its way down still has requests dropped": (
        (SIP, DRAINING), DEEP, Exit.DEGRADED, "has 470 tasks waiting",
    ),
    "a queue that does not move is a hang": (
        (SIP, STUCK), DEEP, Exit.ERR_GENERIC, "^SIP at .*, asked twice$",
    ),
    "overload explains a late call too": (
        (SIP, "call", OVERLOAD), DEEPEST, Exit.DEGRADED, "overloaded and drops SIP requests",
    ),
    "overload does not explain a held lock": (
        (SIP, OVERLOAD, "dialplan"), DEEP, Exit.ERR_GENERIC, "^dialplan lock at .*; SIP at ",
    ),
    # The database of call records hangs; the calls go on.
    "a call that waits for its record is no hang": (
        ("call", RECORDS_WAIT), DEEPEST, Exit.DEGRADED,
        r"held up by its record \(stasis/m:cdr:aggregator",
    ),
    "records that are soon written hold no call up": (
        ("call", RECORDS_WAIT, RECORDS_MOVE), DEEPEST, Exit.ERR_GENERIC, "^call setup",
    ),
}


@pytest.mark.parametrize(("parts", "depth", "code", "words"), HEARD.values(), ids=HEARD)
def test_what_comes_of_a_silence(
    pbx: Pbx, parts: tuple[str, ...], depth: int, code: Exit, words: str
) -> None:
    with_secret(pbx)
    for part in parts:
        pbx.silence(part)
    outcome = pbx.act("monitor", depth)
    assert outcome.code == code
    assert re.search(words, outcome.reason), outcome.reason


def test_overload_is_a_failure_where_that_is_wished(pbx: Pbx) -> None:
    with_secret(pbx)
    for part in (SIP, OVERLOAD):
        pbx.silence(part)
    outcome = pbx.act("monitor", DEEP, {"when_overloaded": "failed"})
    assert outcome.code == Exit.ERR_GENERIC
    assert "overloaded and drops SIP requests: pjsip/distributor" in outcome.reason


@pytest.fixture
def waits_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread of Asterisk's is in the kernel, when that is asked for alone."""
    tasks_in = Process.tasks_in

    def with_one(process: Process, *states: str) -> list[Task]:
        return process.tasks()[:1] if states == (BLOCKED,) else tasks_in(process, *states)

    monkeypatch.setattr(Process, "tasks_in", with_one)


@pytest.mark.parametrize(
    ("other", "code"),
    [
        ('online="true" standby="false"', Exit.ERR_GENERIC),
        ('online="true" standby="true"', Exit.DEGRADED),
        ('online="false" standby="false"', Exit.DEGRADED),
    ],
)
def test_a_stalled_disk_is_a_failure_where_another_node_cures_it(
    pbx: Pbx, waits_for_the_disk: None, other: str, code: Exit
) -> None:
    """When the other has just lost power, DRBD holds each write: no reason to end calls."""
    with_secret(pbx)
    pbx.silence("astdb")
    runner = CallQueue()
    runner.expect(*MON, out=nodes_xml(other))
    if code == Exit.DEGRADED:
        told = "degraded: AstDB waits for its disk, and no other node is there to take over"
        runner.expect("attrd_updater", "--name", "asha-asterisk", "--update", told)
    outcome = pbx.act("monitor", DEEP, {"disk_patience": "500ms"}, runner=runner)
    runner.done()
    assert outcome.code == code
    assert "AstDB" in outcome.reason


def test_a_slow_disk_is_waited_for(
    pbx: Pbx, waits_for_the_disk: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_secret(pbx)
    pbx.silence("astdb")
    late = threading.Timer(1.0, (pbx.run / "silent-astdb").unlink)
    before_call(monkeypatch, asterisk_explanations, "ask", 1, late.start)
    outcome = pbx.act("monitor", DEEP, {"disk_patience": "15s"}, timeout=30)
    late.join()
    assert outcome.code == Exit.DEGRADED
    assert "the disk has held AstDB up" in outcome.reason


def test_a_disk_that_is_full_in_the_end_is_no_hang(
    pbx: Pbx, waits_for_the_disk: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_secret(pbx)
    pbx.silence("astdb")
    pbx.silence(ASTDB_LOCKED)  # which is what comes when the silence ends
    late = threading.Timer(1.0, (pbx.run / "silent-astdb").unlink)
    before_call(monkeypatch, asterisk_explanations, "ask", 1, late.start)
    outcome = pbx.act("monitor", DEEP, {"disk_patience": "15s"}, timeout=30)
    late.join()
    assert outcome.code == Exit.DEGRADED
    assert "the disk has held AstDB up" in outcome.reason
    assert "AstDB does not take a key" in outcome.reason


def test_a_connection_that_is_closed_unanswered_is_no_hang(pbx: Pbx) -> None:
    """chan_sip beyond its tcpauthlimit: whoever connects often enough could end all calls."""
    with_secret(pbx)
    pbx.silence(SIP_HANGS_UP)
    outcome = pbx.act("monitor", DEEP)
    assert outcome.code == Exit.DEGRADED
    assert "closed the connection without an answer" in outcome.reason
    # That is no excuse for what hangs beside it.
    pbx.silence("dialplan")
    assert pbx.act("monitor", DEEP).code == Exit.ERR_GENERIC


@pytest.fixture
def no_files_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Process, "files", lambda process: (1020, 1024))


@pytest.mark.parametrize("answer", ["degraded", "failed"])
def test_no_file_left_to_open_is_no_hang(pbx: Pbx, no_files_left: None, answer: str) -> None:
    """It accepts nobody then, and the calls that it has go on."""
    with_secret(pbx)
    for part in (CONTROL, AMI):
        pbx.silence(part)
    outcome = pbx.act("monitor", DEEP, {"when_overloaded": answer})
    assert outcome.code == (Exit.DEGRADED if answer == "degraded" else Exit.ERR_GENERIC)
    assert "has 1020 files open and may have 1024" in outcome.reason
    assert "LimitNOFILE=" in outcome.reason
    # The same where SIP has to be asked first.
    assert pbx.act("monitor", 0, {"when_overloaded": answer}).code == outcome.code


def test_want_of_files_does_not_excuse_a_held_lock(pbx: Pbx, no_files_left: None) -> None:
    """Who was let in has its file: a lock that it waits for is another matter."""
    with_secret(pbx)
    pbx.silence("dialplan")
    outcome = pbx.act("monitor", DEEP)
    assert outcome.code == Exit.ERR_GENERIC
    assert outcome.reason.startswith("dialplan lock")


def test_no_file_left_where_sip_is_not_watched(pbx: Pbx, no_files_left: None) -> None:
    with_secret(pbx)
    for part in (CONTROL, SIP):
        pbx.silence(part)
    given = {"probes": "ami channels"}
    assert pbx.act("monitor", 0, given).code == Exit.DEGRADED


def test_no_file_left_and_sip_silent_is_a_hang_with_its_cause(
    pbx: Pbx, no_files_left: None
) -> None:
    with_secret(pbx)
    for part in (CONTROL, AMI, SIP):
        pbx.silence(part)
    outcome = pbx.act("monitor", DEEP)
    assert outcome.code == Exit.ERR_GENERIC
    assert outcome.reason.startswith("control socket")
    assert "may have 1024" in outcome.reason


def test_a_stop_that_is_over_at_once_is_no_hang(
    pbx: Pbx, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A debugger that comes or goes: the threads are stopped for some milliseconds."""
    with_secret(pbx)
    pbx.close(CONTROL)  # so that it is looked at more closely
    tasks_in, looks = Process.tasks_in, [1]

    def momentarily(process: Process, *states: str) -> list[Task]:
        if states == (STOPPED,) and looks:
            looks.pop()
            return process.tasks()[:1]
        return tasks_in(process, *states)

    monkeypatch.setattr(Process, "tasks_in", momentarily)
    assert pbx.act("monitor", DEEP).code == Exit.DEGRADED
    assert not looks


@pytest.mark.parametrize("part", [SIP, "call"])
def test_a_stalled_disk_holds_up_more_than_astdb(
    pbx: Pbx, waits_for_the_disk: None, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """chan_sip writes a registration in its only thread; a record of a call may be a file."""
    monkeypatch.setattr(Task, "switches", "1")
    with_secret(pbx)
    pbx.silence("astdb")
    pbx.silence(part)
    for other, code in (
        ('online="false" standby="false"', Exit.DEGRADED),
        ('online="true" standby="false"', Exit.ERR_GENERIC),
    ):
        runner = CallQueue()
        runner.expect(*MON, out=nodes_xml(other))
        if code == Exit.DEGRADED:
            what = "SIP" if part == SIP else "call setup"
            told = f"degraded: AstDB ({what} too) waits for its disk, and no other node is there"
            runner.expect(
                "attrd_updater", "--name", "asha-asterisk", "--update", f"{told} to take over"
            )
        outcome = pbx.act("monitor", DEEPEST, {"disk_patience": "500ms"}, runner=runner)
        assert outcome.code == code, outcome.reason


def test_a_thread_that_writes_does_not_excuse_a_silent_sip(
    pbx: Pbx, waits_for_the_disk: None
) -> None:
    """It moves: what SIP and AstDB wait for may be each other."""
    with_secret(pbx)
    pbx.silence("astdb")
    pbx.silence(SIP)
    outcome = pbx.act("monitor", DEEP, {"disk_patience": "500ms"}, runner=CallQueue())
    assert outcome.code == Exit.ERR_GENERIC


@pytest.mark.parametrize(("part", "why"), [(SIP, OVERLOAD), ("call", RECORDS_WAIT)])
def test_a_disk_that_is_back_leaves_a_backlog(
    pbx: Pbx, waits_for_the_disk: None, monkeypatch: pytest.MonkeyPatch, part: str, why: str
) -> None:
    with_secret(pbx)
    for one in ("astdb", part, why):
        pbx.silence(one)
    before_call(monkeypatch, asterisk_explanations, "ask", 1, (pbx.run / "silent-astdb").unlink)
    outcome = pbx.act("monitor", DEEPEST, {"disk_patience": "1s"})
    assert outcome.code == Exit.DEGRADED, outcome.reason
    assert "AstDB" not in outcome.reason


def test_a_sip_that_hangs_is_no_disk(
    pbx: Pbx, waits_for_the_disk: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """AstDB is back, SIP is not: nobody need be asked who else is there."""
    with_secret(pbx)
    pbx.silence("astdb")
    pbx.silence(SIP)
    before_call(monkeypatch, asterisk_explanations, "ask", 1, (pbx.run / "silent-astdb").unlink)
    outcome = pbx.act("monitor", DEEP, {"disk_patience": "1s"}, runner=CallQueue())
    assert outcome.code == Exit.ERR_GENERIC
    assert "SIP at" in outcome.reason
    assert "AstDB" not in outcome.reason


@pytest.mark.parametrize("address", ["auto", "127.0.0.1"])
def test_a_firewall_that_refuses_is_no_dead_sip(
    pbx: Pbx, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    """REJECT, which says "port unreachable" as the kernel does where nobody listens."""
    pbx.start()

    def refused(*_: object) -> Generator[Wait, bool, str]:
        yield from ()
        raise ConnectionRefusedError(111, "Connection refused")

    monkeypatch.setattr(sip, "options", refused)
    outcome = pbx.act("monitor", DEEP, {"sip_address": address})
    assert outcome.code == Exit.DEGRADED
    assert "refused though Asterisk listens there: look at the firewall" in outcome.reason


def test_a_reload_may_hold_the_locks_for_a_while(
    pbx: Pbx, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_secret(pbx)
    pbx.launcher.reloading = True
    pbx.silence("dialplan")
    asked = before_call(
        monkeypatch, asterisk_explanations, "ask", 2, (pbx.run / "silent-dialplan").unlink
    )
    outcome = pbx.act("monitor", DEEP)
    assert len(asked) == 2
    assert outcome.code == Exit.DEGRADED
    assert "reload" in outcome.reason


def test_a_reload_that_never_ends_is_a_hang(pbx: Pbx) -> None:
    with_secret(pbx)
    pbx.launcher.reloading = True
    pbx.silence("dialplan")
    outcome = pbx.act("monitor", DEEP, {"reload_patience": "1s"})
    assert outcome.code == Exit.ERR_GENERIC
    assert outcome.reason.startswith("dialplan lock")
