"""What stops a command, told to a person."""

from __future__ import annotations


class Trouble(Exception):
    """One line of what is wrong, and one of what to do (``mend``, may be "").

    ``code`` is the command's exit code for it.
    """

    def __init__(self, what: str, mend: str = "", code: int = 1) -> None:
        super().__init__(what)
        self.mend = mend
        self.code = code
