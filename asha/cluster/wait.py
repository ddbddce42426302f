"""Waiting until the cluster has reached a state, with lines that show the progress."""

from __future__ import annotations

from collections.abc import Callable

from asha.cluster import pacemaker
from asha.cluster.pacemaker import State
from asha.errors import UserError
from asha.machine import Machine, Say


def wait_for_state(machine: Machine, left: Callable[[State], list[str]], seconds: float,
                   say: Say) -> list[str]:
    """Ask until nothing is ``left``, and print what is left. Returns what is left after
    ``seconds``.

    A node that does not answer for a moment is asked again.
    """

    def missing() -> list[str]:
        try:
            return left(pacemaker.look(machine))
        except UserError as problem:
            return [str(problem)]

    return machine.wait_while(
        missing, seconds, meanwhile=lambda names, _: say(f"waiting for: {', '.join(names)}")
    )
