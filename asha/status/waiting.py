"""Waiting for the cluster to get somewhere, with a line that tells how far it is."""

from __future__ import annotations

import argparse
import signal
import time
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

from asha.cluster import pacemaker
from asha.cluster.pacemaker import State
from asha.errors import UserError
from asha.machine import Machine

EVERY = 0.5

Say = Callable[[str], None]


def until(machine: Machine, left: Callable[[State], list[str]], seconds: float,
          say: Say) -> list[str]:
    """Look until nothing is ``left``, and say what is. What is left after ``seconds``.

    A node that does not answer for a moment is asked again.
    """
    end = time.monotonic() + seconds
    missing = ["the cluster does not answer"]
    while True:
        try:
            missing = left(pacemaker.look(machine))
        except UserError as problem:
            missing = [str(problem)]
        if not missing or time.monotonic() >= end:
            return missing
        say(f"waiting for: {', '.join(missing)}")
        time.sleep(EVERY)


def end_orderly() -> None:
    """A lost connection or a polite kill ends us as Ctrl-C does, so that we clean up."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def timeout(text: str) -> float:
    """An argument in seconds, for argparse."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 10 <= value <= 3600:
        raise argparse.ArgumentTypeError(f"{text}: must be seconds, from 10 to 3600")
    return value
