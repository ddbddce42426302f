"""The sign of life of the watcher: the time of a file, so that a monitor pays one stat for it.

The time is the monotonic clock's, which nobody sets.
"""

from __future__ import annotations

import os

# The state file of asterisk-health.
KIND = "beat"

# Seconds after the last sign of life in which the watcher counts as alive: longer than its one
# look at where Asterisk listens may take.
ALIVE_SECONDS = 10.0


def is_fresh(path: str, now: float, seconds: float = ALIVE_SECONDS) -> bool:
    """Whether it has given a sign of life within ``seconds``; ``now`` by the monotonic clock."""
    try:
        return 0 <= now - os.stat(path).st_mtime < seconds
    except OSError:
        return False


def give(path: str, now: float) -> None:
    """Raises OSError."""
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
    os.utime(path, (now, now))
