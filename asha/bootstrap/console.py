"""What a person sees during a long work: a line per action, and its progress.

Nothing here raises: whoever prints is in the middle of work that must come to its end, or be
rolled back, also when the terminal is gone or the log's disk is full.
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress

from asha import command_log, terminal
from asha.run.text import printable

# Seconds between two lines of progress where they cannot be redrawn.
EVERY = 10.0
# Columns of a line that is redrawn: one that wraps could not be taken back.
WIDTH = 79

REDRAW = "\r\033[K"


class Console:
    """``note`` prints a line that stays, ``say`` the progress of the current action.

    ``log``: a file to which the lines that stay are added, with the time of day.
    """

    def __init__(self, log: str = "") -> None:
        self._begun = time.monotonic()
        self._log = log
        self._terminal = sys.stdout.isatty()
        self._drawn = False
        self._last = 0.0

    def note(self, text: str) -> None:
        self._clear()
        line = printable(text)
        # What failed may quote what a program printed.
        self._write(command_log.masked(line))
        terminal.say(f"[{time.monotonic() - self._begun:4.0f} s] {line}")
        self._last = time.monotonic()

    def say(self, text: str) -> None:
        line = f"            {printable(text)}"
        if self._terminal:
            self._clear()
            terminal.say(line[:WIDTH], end="")
            self._drawn = True
        elif time.monotonic() - self._last >= EVERY:
            terminal.say(line)
            self._last = time.monotonic()

    def _write(self, line: str) -> None:
        if not self._log:
            return
        with suppress(OSError):
            # by name: in root's /var/log
            os.makedirs(os.path.dirname(self._log), exist_ok=True)
            # by name: in root's /var/log
            with open(self._log, "a", encoding="utf-8") as log:
                log.write(time.strftime("%Y-%m-%d %H:%M:%S ") + line + "\n")

    def _clear(self) -> None:
        if self._drawn:
            terminal.say(REDRAW, end="", ours=True)
            self._drawn = False


def ask(question: str) -> bool:
    """Ask yes or no. No is the default, and the answer where nobody can answer."""
    if not sys.stdin.isatty():
        return False
    try:
        return terminal.answer(f"{question} [y/N] ").lower() in ("y", "yes")
    except EOFError:
        return False
