"""What a resource remembers from action to action, until the next boot.

One small file each, in a directory that is root's alone. It is replaced as a whole: an action
that is killed leaves the old text or the new one, never half of it.
"""

from __future__ import annotations

import os
import time


class StateFile:
    """One such file. Any text is read back as it was written, also a file name that is not
    text."""

    __slots__ = ("path",)

    def __init__(self, path: str) -> None:
        self.path = path

    def read(self) -> str:
        """The text; "" when the file is absent or cannot be read."""
        try:
            # by name: /run/resource-agents is root's alone
            with open(self.path, encoding="utf-8", errors="surrogateescape", newline="\n") as file:
                return file.read()
        except OSError:
            return ""

    def write(self, text: str) -> None:
        """Replace the text. Raises OSError; the file then has the old text.

        A monitor, the watcher and its judge may write the same one at once.
        """
        fresh = f"{self.path}.{os.getpid()}.new"
        try:
            # by name: the same
            with open(fresh, "w", encoding="utf-8", errors="surrogateescape", newline="\n") as file:
                file.write(text)
            os.replace(fresh, self.path)  # by name: the same
        except OSError:
            try:
                os.unlink(fresh)  # by name: the same
            except OSError:
                pass
            raise

    def remove(self) -> None:
        """Remove the file. It is no error if there is none. Raises OSError."""
        try:
            os.unlink(self.path)  # by name: the same
        except FileNotFoundError:
            pass

    @property
    def is_absent(self) -> bool:
        """Whether the file is known not to exist: one that cannot be read may exist."""
        try:
            os.lstat(self.path)
        except FileNotFoundError:
            return True
        except OSError:
            pass
        return False

    def age(self) -> float:
        """Seconds since it was written; 0 where there is no file."""
        try:
            return max(0.0, time.time() - os.stat(self.path).st_mtime)
        except OSError:
            return 0.0
