"""What stops a command, told to a person."""

from __future__ import annotations

from collections.abc import Sequence


class UserError(Exception):
    """One line of what is wrong, and one of what to do (``hint``, may be "").

    ``code`` is the command's exit code for it. ``points`` are all that is wrong, where it
    is more than one thing: each is shown on a line of its own.
    """

    def __init__(
        self, what: str, hint: str = "", code: int = 1, points: Sequence[str] = ()
    ) -> None:
        super().__init__("\n      ".join((what, *points)))
        self.what = what
        self.points = list(points)
        self.hint = hint
        self.code = code
