"""A lock for one process at a time; the kernel releases it when its holder ends.

The agents have another lock (asha.run.lock), which the programs that they start hold too.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from asha.errors import UserError
from asha.machine import Machine

EVERY = 0.2


@contextmanager
def file_lock(machine: Machine, path: str, seconds: float, busy: UserError,
              waiting: Callable[[], object] = lambda: None) -> Iterator[None]:
    """Raises ``busy`` if another process still has the lock after ``seconds``. ``waiting`` is
    called once if we have to wait."""
    # Root's alone: who may read a file may lock it (flock(2)), and keep us out.
    # by name: in root's /run and /var/lib/asha
    lock = os.open(machine.path(path), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if _is_taken(lock):
            waiting()
            if machine.wait_while(lambda: _is_taken(lock), seconds, EVERY):
                raise busy
        yield
    finally:
        os.close(lock)


def _is_taken(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False
