"""What stops a command, told to a person."""

from __future__ import annotations


class Trouble(Exception):
    """One line of what is wrong, and one of what to do (``mend``, may be "")."""

    def __init__(self, what: str, mend: str = "") -> None:
        super().__init__(what)
        self.mend = mend
