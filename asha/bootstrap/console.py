"""What a person sees of a long work: a line per action, and how far it is."""

from __future__ import annotations

import os
import sys
import time

# Seconds between two lines of progress where they cannot be redrawn.
EVERY = 10.0


class Console:
    """``note`` for a line that stays, ``say`` for how far the action at hand is.

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
        self._write(text)
        print(f"[{time.monotonic() - self._begun:4.0f} s] {text}", flush=True)
        self._last = time.monotonic()

    def say(self, text: str) -> None:
        line = f"            {text}"
        if self._terminal:
            self._clear()
            print(line[:79], end="", flush=True)
            self._drawn = True
        elif time.monotonic() - self._last >= EVERY:
            print(line, flush=True)
            self._last = time.monotonic()

    def _write(self, text: str) -> None:
        if self._log:
            # by name: in root's /var/log
            os.makedirs(os.path.dirname(self._log), exist_ok=True)
            # by name: in root's /var/log
            with open(self._log, "a", encoding="utf-8") as log:
                log.write(time.strftime("%Y-%m-%d %H:%M:%S ") + text + "\n")

    def _clear(self) -> None:
        if self._drawn:
            print("\r\033[K", end="")
            self._drawn = False


def ask(question: str) -> bool:
    """Yes or no; no is the default, and the answer where nobody can answer."""
    if not sys.stdin.isatty():
        return False
    try:
        return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False
