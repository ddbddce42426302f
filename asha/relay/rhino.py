"""Rhino 1SPF, through the program that its vendor delivers.

The bytes on its wire are not published, so the vendor's ``rhinofailover`` is the
driver: ``DEVICE RESET``, ``DEVICE RELAYON 0``, ``DEVICE RELAYOFF 0``. Nothing reads
the relay back: what was commanded stays unconfirmed.

Sources: SARK wiki, "V4 High Availability", Handling PRI, for the commands;
aelintra/asha (2014), shadow.php, for where the program is installed and the second
that the card is given after RESET.
"""

from __future__ import annotations

import os

from asha.relay.contract import Card, Position
from asha.run.results import Failed, NotInstalled

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asha.relay.contract import Run, Settings
    from asha.run.deadline import Deadline

PROGRAM = "/usr/local/bin/rhinofailover"

# The card has a single relay.
RELAY = "0"

# Seconds. The program has nothing to wait for but a serial line.
CALL_SECONDS = 3.0
RESET_SECONDS = 1.0

COMMANDS = {Position.ON: "RELAYON", Position.OFF: "RELAYOFF"}


def card(settings: Settings, run: Run) -> Card:
    return Rhino(settings.device, settings.program, run)


class Rhino(Card):
    """``run`` runs the vendor's program."""

    def __init__(self, device: str, program: str, run: Run) -> None:
        super().__init__(device)
        self.program = program
        self.run = run

    def check(self) -> None:
        super().check()
        if not os.access(self.program, os.X_OK):
            raise NotInstalled(
                f"program {self.program} is not installed: build it from the card vendor's "
                "source, or set parameter program to where it is"
            )

    def reset(self, deadline: Deadline) -> None:
        self.persist(lambda: self._call(deadline, "RESET"), deadline)
        deadline.pause(RESET_SECONDS)

    def command(self, wanted: Position, deadline: Deadline) -> Position:
        self._call(deadline, COMMANDS[wanted], RELAY)
        return Position.UNKNOWN

    def read(self, deadline: Deadline) -> Position:
        self.trouble = "this card has no read-back"
        return Position.UNKNOWN

    def _call(self, deadline: Deadline, *words: str) -> None:
        done = self.run(self.program, self.device, *words, cap=deadline.remaining(CALL_SECONDS))
        if not done.ok:
            raise Failed(
                f"relay card {self.device} refused {' '.join(words)}: {done.complaint}"
            )
