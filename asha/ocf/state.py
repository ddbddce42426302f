"""What a resource remembers from action to action, until the next boot.

One small file each, in a directory that is root's alone. It is replaced as a whole, so
that an action that is killed leaves the old text or the new one, and never half of it.
"""

from __future__ import annotations

import os
import time


class StateFile:
    """One of them. Any text comes back as it was, also the name of a file that is no text."""

    __slots__ = ("path",)

    def __init__(self, path: str) -> None:
        self.path = path

    def read(self) -> str:
        """What it says; "" when it is absent or cannot be read."""
        try:
            # by name: /run/resource-agents is root's alone
            with open(self.path, encoding="utf-8", errors="surrogateescape", newline="\n") as file:
                return file.read()
        except OSError:
            return ""

    def write(self, text: str) -> None:
        """Replace it. Raises OSError, and then it says what it said."""
        fresh = f"{self.path}.new"
        # by name: the same
        with open(fresh, "w", encoding="utf-8", errors="surrogateescape", newline="\n") as file:
            file.write(text)
        os.replace(fresh, self.path)  # by name: the same

    def remove(self) -> None:
        """Also when it is not there. Raises OSError."""
        try:
            os.unlink(self.path)  # by name: the same
        except FileNotFoundError:
            pass

    @property
    def is_absent(self) -> bool:
        """Whether it is known not to be there: one that cannot be read may be."""
        try:
            os.lstat(self.path)
        except FileNotFoundError:
            return True
        except OSError:
            pass
        return False

    def age(self) -> float:
        """Seconds since it was written; no time at all where it is not there."""
        try:
            return max(0.0, time.time() - os.stat(self.path).st_mtime)
        except OSError:
            return 0.0
