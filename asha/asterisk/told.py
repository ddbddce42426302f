"""What the cluster is told of an Asterisk that works and is not well.

The node attribute asha-asterisk is "degraded: REASON", and is there only while that
is so; crm_mon -A and asha status show it. Each depth of monitor looks at other
things, so what one has found stays until that depth has looked again: the state file
has a line "DEPTH REASON" for each.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

ATTRIBUTE = "asha-asterisk"
PREFIX = "degraded: "

# Seconds after which it is told again: an attribute manager that was restarted, while
# Asterisk ran on (maintenance-mode), has forgotten it.
TOLD_FOR = 300.0

# A figure that is another at each look is no news.
DIGITS = dict.fromkeys(map(ord, "0123456789"))


def merged(kept: str, found: Sequence[tuple[int, str]], looked: int) -> str:
    """The state file's new text: ``found`` at depths up to ``looked``, older ones beyond."""
    lines = [f"{depth} {' '.join(reason.split())}" for depth, reason in found]
    for line in kept.splitlines():
        depth, _, reason = line.partition(" ")
        if reason and depth.isdecimal() and int(depth) > looked:
            lines.append(line)
    return "\n".join(lines).encode("ascii", "replace").decode("ascii")


def is_news(text: str, kept: str) -> bool:
    return text.translate(DIGITS) != kept.translate(DIGITS)


def value(text: str) -> str:
    """Of the attribute, from the state file's text."""
    return PREFIX + "; ".join(line.partition(" ")[2] for line in text.splitlines())
