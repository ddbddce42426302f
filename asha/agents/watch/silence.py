"""What the watcher tells the judge all the while: which parts are silent, and since when.

A line each in a state file: seconds of the monotonic clock, a blank, the probe's key.
"""

from __future__ import annotations

from asha.asterisk.probes import SECOND_ASKING
from asha.run.text import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

# The state files of asterisk-health: this one, and that the judge is at work, since when.
KIND = "silent"
JUDGING = "judging"


def written(since: Mapping[str, float]) -> str:
    return "".join(f"{moment} {printable(key)}\n" for key, moment in since.items())


def due(text: str, now: float, patience: float) -> set[str]:
    """The keys of those for which a second question is due: they have owed an answer for a share
    of their patience (asha.asterisk.probes.ask). What is no such line is left out."""
    found = set()
    for line in text.splitlines():
        moment, _, key = line.partition(" ")
        try:
            passed = now - float(moment)
        except ValueError:
            continue
        if passed >= patience * SECOND_ASKING:
            found.add(key)
    return found
