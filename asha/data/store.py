"""The store's root directory: root's alone, at all times.

Programs reach their data through the binds only. In the store itself nobody else can
enter, so nobody can choose what a name in it means: neither while an installation copies
into directories that already belong to their users, nor between two looks of an agent.
"""

from __future__ import annotations

import os
import stat

from asha.rootwork import Directory, is_roots_alone

MODE = 0o700


def enter(point: str) -> Directory:
    """Open the root of the store that is mounted there. Raises OSError."""
    return Directory.trusted(point)


def close_to_others(root: Directory) -> bool:
    """Let nobody but root enter. False if it was so already. Raises OSError."""
    about = root.about()
    if about.st_uid in (0, os.geteuid()) and stat.S_IMODE(about.st_mode) == MODE:
        return False
    _copy_ownership(root.fd, MODE)
    return True


def item(root: Directory, path: str) -> Directory:
    """Open the directory of the store for ``path``. Those above it become root's.

    So somebody who entered before the root was closed (an older version left it open) can no
    longer put another in its place. Raises OSError.
    """
    here = Directory(os.dup(root.fd), root.path)
    *above, last = path.strip("/").split("/")
    for part in above:
        with here as outer:
            here = outer.enter(part)
        about = here.about()
        if not is_roots_alone(about):
            _copy_ownership(here.fd, stat.S_IMODE(about.st_mode) & ~0o022)
    with here as outer:
        return outer.enter(last)


def _copy_ownership(descriptor: int, mode: int) -> None:
    if os.geteuid() == 0:
        os.fchown(descriptor, 0, 0)
    os.fchmod(descriptor, mode)
