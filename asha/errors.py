"""What stops a command, as a person reads it."""

from __future__ import annotations

from collections.abc import Sequence


class UserError(Exception):
    """One line says what is wrong, and one what to do (``hint``, may be "").

    ``code`` is the command's exit code. ``points`` are the problems where there is more than
    one: each is printed on a line of its own.
    """

    def __init__(
        self, what: str, hint: str = "", code: int = 1, points: Sequence[str] = ()
    ) -> None:
        super().__init__("\n      ".join((what, *points)))
        self.what = what
        self.points = list(points)
        self.hint = hint
        self.code = code
