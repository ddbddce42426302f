"""Waiting for the cluster to get somewhere, with a line that tells how far it is."""

from __future__ import annotations

import time
from collections.abc import Callable

from asha.cluster import pacemaker
from asha.cluster.pacemaker import State
from asha.errors import UserError
from asha.machine import Machine

EVERY = 0.5

Say = Callable[[str], None]


def wait_for_state(machine: Machine, left: Callable[[State], list[str]], seconds: float,
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
