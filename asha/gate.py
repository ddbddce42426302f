"""Agents wait while dpkg replaces the modules that they are made of.

dpkg replaces a package's files one after the other. An agent that starts meanwhile would import
old and new modules together and fail, and Pacemaker would restart a healthy Asterisk. So each
agent holds a shared lock as long as it runs. Before an upgrade unpacks anything, the package's
preinst creates ``GATE`` and waits for the lock: then no agent runs, and those that Pacemaker
starts wait here until postrm removes the gate.

Imports nothing of the rest, which may be half replaced.
"""

from __future__ import annotations

import fcntl
import os
import time

LOCK = "/run/asha-agents.lock"
GATE = "/run/asha-unpacking"

# Half of the shortest timeout in the CIB. A gate of that age was left by a dpkg
# that died, or a disk is so slow that waiting on is the worse choice.
PATIENCE = 10.0
STEP = 0.02

# Seconds that this process has waited here: a part of its action's time.
waited = 0.0


def enter(lock: str = LOCK, gate: str = GATE) -> None:
    """Return when no upgrade is under way, after at most PATIENCE seconds.

    The lock is held until the process ends; programs that it runs do not inherit it. A process
    that may not open the lock (``meta-data``, which anybody may ask for) does not wait.
    """
    global waited
    try:
        # Root's alone: who may read a file may lock it (flock(2)), and us out.
        descriptor = os.open(lock, os.O_RDONLY | os.O_CREAT, 0o600)
    except OSError:
        return
    begun = time.monotonic()
    while True:
        held = _take(descriptor)
        if held and not _closed(gate):
            return
        waited = time.monotonic() - begun
        if waited >= PATIENCE:
            return
        if held:
            fcntl.flock(descriptor, fcntl.LOCK_UN)
        time.sleep(STEP)


def _take(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _closed(gate: str) -> bool:
    try:
        age = time.time() - os.stat(gate).st_mtime
    except OSError:
        return False
    return 0 <= age < PATIENCE
