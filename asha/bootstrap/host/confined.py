"""A child that sees one directory of the store and nothing else.

SQLite opens by name, in a directory where the file's owner could put links: in the child none
of them leads outside. And the child may become that owner, who could not reach the directory by
its path: the store is closed to all but root.
"""

from __future__ import annotations

import os
import sqlite3  # noqa: F401 - the child may import nothing any more
from collections.abc import Callable

from asha.rootwork import Directory
from asha.run.child import import_nothing, in_child
from asha.run.deadline import Deadline


def in_directory(directory: Directory, work: Callable[[str], str], deadline: Deadline,
                 doing: str) -> str:
    """Like ``asha.run.child.in_child``; ``work`` gets a path to put before each name in the
    directory.

    Without root's rights that is the directory's own path, and nothing is closed.
    """

    def confined() -> str:
        if os.geteuid() != 0:
            return work(directory.path)
        import_nothing()
        os.fchdir(directory.fd)
        os.chroot(".")
        return work("")

    return in_child(confined, deadline, doing)
