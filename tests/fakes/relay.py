"""Fakes for tests of what uses a relay: a card, and the tty of a module."""

from __future__ import annotations

from asha.relay.contract import Position, Relay
from asha.run.results import Failed, NotInstalled

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from asha.run.deadline import Deadline


class FakeCard(Relay):
    """A card in memory. ``broken``: there, and of no use. ``deaf``: takes commands
    and does not say where its relay is."""

    def __init__(self, *, reads_back: bool = True) -> None:
        self.reads_back = reads_back
        self.position = Position.OFF
        self.plugged = "1st"
        self.broken = False
        self.deaf = False
        self.calls: list[str] = []

    def unplug(self) -> None:
        self.plugged = ""
        self.position = Position.OFF

    def plug(self) -> None:
        self.plugged = f"{len(self.calls)}th"

    def check(self) -> None:
        if not self.plugged:
            raise NotInstalled("the fake card is not there")

    def identity(self) -> str:
        return self.plugged

    def reset(self, deadline: Deadline) -> None:
        self.calls.append("reset")

    def drive(self, wanted: Position, deadline: Deadline) -> Position:
        self.calls.append(wanted.value)
        if self.broken or not self.plugged:
            raise Failed("the fake card does not answer")
        self.position = wanted
        return wanted if self.reads_back else Position.UNKNOWN

    def read(self, deadline: Deadline) -> Position:
        self.calls.append("read")
        if self.broken or self.deaf:
            self.trouble = "it does not answer"
            return Position.UNKNOWN
        return self.position


class FakePort:
    """A module's tty: what ``answer`` makes of a command is there to read.

    Reading when there is nothing takes ``idle``, which a test uses to move its clock.
    """

    def __init__(self, answer: Callable[[str], bytes], idle: Callable[[], None]) -> None:
        self.answer = answer
        self.idle = idle
        self.waiting = b""
        self.commands: list[str] = []
        self.closed = False

    @property
    def in_waiting(self) -> int:
        return len(self.waiting)

    def read(self, size: int) -> bytes:
        if not self.waiting:
            self.idle()
        got, self.waiting = self.waiting[:size], self.waiting[size:]
        return got

    def write(self, data: bytes) -> int | None:
        command = data.decode("ascii").removesuffix("\r")
        self.commands.append(command)
        self.waiting += self.answer(command)
        return len(data)

    def reset_input_buffer(self) -> None:
        self.waiting = b""

    def reset_output_buffer(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True
