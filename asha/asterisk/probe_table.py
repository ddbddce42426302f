"""The manual's table of what asterisk-health checks, from the classes that do it.

Plain text, at most 78 columns wide: ``crm ra info`` and the manual page both show it as it is.
"""

from __future__ import annotations

import textwrap

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Protocol

    class Row(Protocol):
        """Class attributes, as asha/asterisk/probes.py explains them."""

        name: str
        word: str
        depth: int
        asked: str
        exercises: str
        means: str
        costs: str


HEADS = ("word", "part: asked how (cost)", "has to work for that", "if it is silent")
WIDTHS = (9, 25, 20, 17)


def render(rows: Sequence[Row]) -> str:
    """Each line begins with a blank, so that the manual shows it as it is."""
    lines = [_line(HEADS), _line(["-" * width for width in WIDTHS])]
    for row in rows:
        cells = (
            f"{row.word or '(always)'}\ndepth {row.depth}",
            f"{row.name}: {row.asked} ({row.costs})",
            row.exercises,
            row.means,
        )
        columns = [
            [line for part in cell.splitlines()
             for line in textwrap.wrap(part, width, break_on_hyphens=False)]
            for cell, width in zip(cells, WIDTHS, strict=True)
        ]
        for number in range(max(map(len, columns))):
            lines.append(_line([c[number] if number < len(c) else "" for c in columns]))
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    padded = [cell.ljust(width) for cell, width in zip(cells, WIDTHS, strict=True)]
    return (" " + "  ".join(padded)).rstrip()
