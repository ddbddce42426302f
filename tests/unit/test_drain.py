"""Waiting for the last call, on an Asterisk of a few lines: which commands, in which order."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from asha.asterisk.process.proc import Proc, Process
from asha.errors import UserError
from asha.run.deadline import Deadline
from asha.status import drain
from tests.fakes.machine import FakeMachine

NAME = f"Local/s@{drain.CONTEXT}-0001;1"
HEARTBEAT = "Local/s@asha-heartbeat-00000002;1"


class Asterisk(drain.Asterisk):
    """``happens`` maps a command's beginning to what comes about just after its first time."""

    def __init__(self, *calls: str) -> None:
        me = Proc().process(os.getpid())
        assert me is not None
        super().__init__(me, "/nonexistent")
        self.up = list(calls)
        self.media: set[str] = set()
        self.is_stopping = False
        self.works = True
        self.happens: dict[str, Callable[[], object]] = {}
        self.said: list[str] = []

    def ask(self, *commands: str) -> str:
        said = ""
        for command in commands:
            self.said.append(command)
            said += self._answer(command)
            for begin in [one for one in self.happens if command.startswith(one)]:
                self.happens.pop(begin)()
        return said

    def _answer(self, command: str) -> str:
        words = command.split()
        if command == "core abort shutdown":
            self.is_stopping = False
            return ""
        if self.is_stopping:
            return f"Command '{command}' {drain.REFUSED}\n"
        if command == "core show channels concise":
            return "".join(f"{one}!lab!101!1!Up!Echo!\n" for one in self.up)
        if command == "core show calls":
            return f"{len([one for one in self.up if ';2' not in one])} active calls\n7 calls\n"
        if words[:2] == ["channel", "originate"] and self.works:
            self.up += [NAME, NAME.replace(";1", ";2")]
        if words[:3] == ["channel", "request", "hangup"]:
            self.up.remove(words[3])
        return ""

    def _order(self) -> None:
        self.said.append("core stop gracefully")
        self.is_stopping = self.works
        for begin in [one for one in self.happens if one == "core stop"]:
            self.happens.pop(begin)()

    def _media(self) -> set[str]:
        return set(self.media)


class Told:
    def __init__(self) -> None:
        self.lines: list[str] = []
        self.looks = 0

    def say(self, text: str) -> None:
        self.lines.append(text)

    def check(self) -> None:
        self.looks += 1


def move(asterisk: Asterisk, told: Told, tmp_path: Path, seconds: float = 60) -> list[bool]:
    """Whether it refuses calls while the move has its turn; nothing where it has none."""
    refused = []
    with drain.drained(FakeMachine(tmp_path), asterisk, seconds, told.check, told.say):
        refused.append(asterisk.is_stopping)
    return refused


def test_the_last_call_is_waited_for(tmp_path: Path) -> None:
    asterisk, told = Asterisk("SIP/a-1", "SIP/b-1", HEARTBEAT), Told()
    ends = iter([None, None, None])

    def say(text: str) -> None:
        told.say(text)
        if next(ends, 0) == 0:
            asterisk.up = [HEARTBEAT]

    refused = []
    with drain.drained(FakeMachine(tmp_path), asterisk, 60, told.check, say):
        refused.append(asterisk.is_stopping)
    assert refused == [True]
    assert told.lines[0].startswith("waiting for 3 calls to end (0 of at most 60 s)")
    assert len(told.lines) == 4
    assert told.looks == 1
    # The move has not stopped it: it takes calls again, and nothing of ours is left.
    assert not asterisk.is_stopping
    assert asterisk.up == [HEARTBEAT]


@pytest.mark.parametrize("when", ["channel originate", "core stop"])
def test_a_call_that_comes_at_the_last_moment_is_not_cut(tmp_path: Path, when: str) -> None:
    asterisk, told = Asterisk(), Told()

    def call() -> None:
        asterisk.up.append("PJSIP/late-1")
        asterisk.media.add("4711")

    def end() -> None:
        asterisk.up.remove("PJSIP/late-1")
        asterisk.media.clear()

    asterisk.happens[when] = call
    asterisk.happens["dialplan remove"] = lambda: asterisk.happens.update(
        {"core show calls": end})
    assert move(asterisk, told, tmp_path) == [True]
    assert asterisk.said.count("core stop gracefully") == (1 if when != "core stop" else 2)
    assert any("1 call to end" in line for line in told.lines)


@pytest.mark.parametrize("context", ["asha-callers", f"{drain.CONTEXT}er", "asha-heartbeats"])
def test_a_context_that_begins_like_ours_has_calls(context: str) -> None:
    call = f"Local/s@{context}-00000001;1"
    assert Asterisk(HEARTBEAT, call, NAME).channels() == [call]


def test_calls_that_go_on_are_left_alone(tmp_path: Path) -> None:
    asterisk, told = Asterisk("SIP/a-1"), Told()
    with pytest.raises(UserError, match=r"1 call is still up: nothing was moved") as trouble:
        move(asterisk, told, tmp_path, 10)
    assert "--drain=SECONDS" in trouble.value.hint
    assert asterisk.up == ["SIP/a-1"]
    assert "core stop gracefully" not in asterisk.said


def test_an_asterisk_that_goes_on_taking_calls(tmp_path: Path) -> None:
    asterisk, told = Asterisk(), Told()
    asterisk.happens["channel originate"] = lambda: setattr(asterisk, "works", False)
    with pytest.raises(UserError, match="goes on taking calls"):
        move(asterisk, told, tmp_path)
    assert asterisk.up == []


def test_without_a_channel_of_ours_nothing_is_stopped(tmp_path: Path) -> None:
    asterisk, told = Asterisk(), Told()
    asterisk.works = False
    with pytest.raises(UserError, match="makes no channel") as trouble:
        move(asterisk, told, tmp_path)
    assert "pbx_config.so" in trouble.value.hint
    assert "core stop gracefully" not in asterisk.said


@pytest.mark.parametrize("calls", [(), ("SIP/a-1",)])
def test_what_another_has_ordered_is_not_taken_back(tmp_path: Path, calls: tuple[str, ...]) -> None:
    """Its console shows no channel then, also where there are some."""
    asterisk, told = Asterisk(*calls), Told()
    asterisk.is_stopping = True
    with pytest.raises(UserError, match="somebody has told it to") as trouble:
        move(asterisk, told, tmp_path)
    assert "core abort shutdown" in trouble.value.hint
    assert asterisk.is_stopping
    assert asterisk.up == list(calls)


@pytest.mark.parametrize("when", ["core show calls", "dialplan add", "channel originate"])
def test_another_orders_it_meanwhile(tmp_path: Path, when: str) -> None:
    asterisk, told = Asterisk(), Told()

    def order() -> None:
        asterisk.is_stopping = True
        asterisk.up += ["PJSIP/late-1"]

    asterisk.happens[when] = order
    with pytest.raises(UserError):
        move(asterisk, told, tmp_path, 10)
    assert asterisk.up == ["PJSIP/late-1"], "not cut, and nothing of ours left"
    assert "core stop gracefully" not in asterisk.said


def test_a_wait_that_ends_takes_nothing_back(tmp_path: Path) -> None:
    asterisk, told = Asterisk("SIP/a-1"), Told()
    with pytest.raises(UserError, match="still up"):
        move(asterisk, told, tmp_path, 10)
    assert "core abort shutdown" not in asterisk.said


def test_killed_it_takes_calls_again(tmp_path: Path) -> None:
    asterisk = Asterisk()
    done = tmp_path / "taken back"
    asterisk.take_back = done.touch  # type: ignore[method-assign]
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            with drain.drained(FakeMachine(tmp_path), asterisk, 60, Told().check, Told().say):
                os.write(writer, b"moves")
                signal.pause()
        finally:
            os._exit(1)
    os.close(writer)
    try:
        assert os.read(reader, 5) == b"moves"
        assert not done.exists()
    finally:
        os.close(reader)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    assert Deadline(60).poll(done.exists)


def test_interrupted_it_takes_calls_again(tmp_path: Path) -> None:
    asterisk, told = Asterisk(), Told()
    with (pytest.raises(KeyboardInterrupt),
          drain.drained(FakeMachine(tmp_path), asterisk, 60, told.check, told.say)):
        raise KeyboardInterrupt
    assert not asterisk.is_stopping
    assert asterisk.up == []


def test_the_other_node_is_looked_at_again_before_the_move(tmp_path: Path) -> None:
    asterisk = Asterisk()

    def check() -> None:
        raise UserError("crm2 cannot take over now:")

    with (pytest.raises(UserError, match="crm2 cannot"),
          drain.drained(FakeMachine(tmp_path), asterisk, 60, check, Told().say)):
        pytest.fail("moved")
    assert "core stop gracefully" not in asterisk.said


def test_a_stopped_asterisk_is_told_nothing_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asterisk = Asterisk()
    with drain.drained(FakeMachine(tmp_path), asterisk, 60, Told().check, Told().say):
        asterisk.said.clear()
        monkeypatch.setattr(Process, "gone", True)
    assert asterisk.said == []


def test_a_console_that_does_not_answer_moves_nothing() -> None:
    me = Proc().process(os.getpid())
    assert me is not None
    with pytest.raises(UserError, match="console does not answer"):
        drain.Asterisk(me, "/nonexistent").calls()
