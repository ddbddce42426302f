"""What a line relay is: three positions, what a driver must do, and the case without a card.

The wiring is that of the Rhino 1SPF (SARK wiki, "V4 High Availability", Handling PRI): one node
powers the card. ON connects the line to that node; OFF, or no power, connects it to the other
one.
"""

from __future__ import annotations

import os
import stat

from asha.run.results import Failed, NotInstalled

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import ClassVar, Protocol, TypeVar

    from asha.run.deadline import Deadline
    from asha.run.runner import Completed

    Result = TypeVar("Result")

    class Run(Protocol):
        """Runs a program under the caller's deadline, at most ``cap`` seconds."""

        def __call__(self, *argv: str, cap: float | None = None) -> Completed: ...


# A tty that another program (ModemManager at plug-in) holds for a moment, or one
# garbled answer, is no broken card. Longer than this, and the line is waiting.
PATIENCE_SECONDS = 4.0
RETRY_SECONDS = 0.3


class Position:
    """Where a relay is. UNKNOWN is an answer of its own, never taken for OFF.

    There are only these three. Not an Enum: see asha.run.results.Exit.
    """

    ON: ClassVar[Position]
    OFF: ClassVar[Position]
    UNKNOWN: ClassVar[Position]

    def __init__(self, value: str) -> None:
        self.value = value

    def __repr__(self) -> str:
        return f"Position.{self.value.upper()}"


Position.ON = Position("on")
Position.OFF = Position("off")
Position.UNKNOWN = Position("unknown")


class Settings:
    """Which card: the driver's name, its tty, the relay's number on it, and the vendor's
    program where the driver needs one."""

    def __init__(self, driver: str, device: str, number: int, program: str) -> None:
        self.driver = driver
        self.device = device
        self.number = number
        self.program = program


class Relay:
    """The contract of every driver."""

    reads_back = False  # whether ``read`` can ever say more than UNKNOWN
    trouble = ""  # why the last ``read`` said UNKNOWN, in words

    def check(self) -> None:
        """Raise NotInstalled for what this node lacks. Does not open the tty."""
        raise NotImplementedError

    def identity(self) -> str:
        """Text that differs each time the card is plugged in; "" when it is absent.

        Does not open the tty.
        """
        raise NotImplementedError

    def reset(self, deadline: Deadline) -> None:
        """Bring the card to a known state, where its kind has such a command.

        Raises Failed when the card refuses.
        """

    def drive(self, wanted: Position, deadline: Deadline) -> Position:
        """Command ON or OFF and return what is known of the relay afterwards.

        ``wanted`` when it was read back, UNKNOWN when the card took the command and cannot
        tell. Raises Failed when the card refuses, contradicts, or does not answer although it
        should; NotInstalled when a program that it needs is missing.
        """
        raise NotImplementedError

    def read(self, deadline: Deadline) -> Position:
        """Ask the card where its relay is. Never raises for a card that fails."""
        raise NotImplementedError


class NoRelay(Relay):
    """The node without the card: it never fails, obeys nothing, knows nothing."""

    def check(self) -> None:
        pass

    def identity(self) -> str:
        return "none"

    def drive(self, wanted: Position, deadline: Deadline) -> Position:
        return Position.UNKNOWN

    def read(self, deadline: Deadline) -> Position:
        return Position.UNKNOWN


class Card(Relay):
    """A card behind a tty: what all cards share."""

    def __init__(self, device: str) -> None:
        self.device = device

    def check(self) -> None:
        try:
            mode = os.stat(self.device).st_mode
        except OSError:
            raise NotInstalled(
                f"relay card {self.device} is not there: is the USB cable plugged in? "
                "dmesg names its tty"
            ) from None
        if not stat.S_ISCHR(mode):
            raise NotInstalled(
                f"{self.device} is not a serial device: see dmesg for the relay card's tty"
            )

    def identity(self) -> str:
        # The kernel removes a tty's node when the plug is pulled and makes a new
        # one, with a new inode number, when it is back. The card had no power
        # in between and fell to OFF, which a card without read-back cannot say.
        try:
            found = os.stat(self.device)
        except OSError:
            return ""
        return f"{found.st_ino:x}-{found.st_rdev:x}"

    def drive(self, wanted: Position, deadline: Deadline) -> Position:
        return self.persist(lambda: self.command(wanted, deadline), deadline)

    def command(self, wanted: Position, deadline: Deadline) -> Position:
        """One try of ``drive``."""
        raise NotImplementedError

    def persist(self, attempt: Callable[[], Result], deadline: Deadline) -> Result:
        """Try again until it succeeds, the card is gone, or PATIENCE_SECONDS are over."""
        patience = deadline.within(PATIENCE_SECONDS)
        while True:
            try:
                return attempt()
            except Failed:
                if patience.expired or not self.identity():
                    raise
            patience.pause(RETRY_SECONDS)
