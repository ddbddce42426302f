"""What several commands need: the site, root, and to be the only one at work."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from typing import TextIO

from asha.bootstrap.facts import MARKER
from asha.cluster import cib
from asha.cluster import site as conf
from asha.cluster.site import Site, SiteError
from asha.machine import Machine
from asha.ocf.deadline import Deadline
from asha.trouble import Trouble

SECRET = "/etc/asha/secret"
PATIENCE = 10.0
LOCK = "/run/asha-install.lock"


def load_site(path: str = conf.CONF) -> Site:
    """asha.conf, or Trouble with everything that is wrong in it."""
    try:
        return conf.read(path)
    except FileNotFoundError:
        raise Trouble(f"there is no {path}", "asha configure asks the questions and writes it") \
            from None
    except OSError as problem:
        raise Trouble(f"cannot read {path}: {problem.strerror}") from None
    except SiteError as wrong:
        lines = "\n      ".join(wrong.problems)
        raise Trouble(f"{path} is not right:\n      {lines}", "mend it, or run: asha configure") \
            from None


def need_root(what: str) -> None:
    if os.geteuid() != 0:
        raise Trouble(f"{what} changes this machine and needs root", "run it with sudo")


def need_installed(machine: Machine) -> None:
    """Nothing of the cluster can be asked, or told, before there is one."""
    if not machine.exists(MARKER) and not cib.is_saved(machine):
        raise Trouble("this machine is not a node of a cluster yet", "asha install makes it one")


@contextlib.contextmanager
def only_one(patience: float = PATIENCE) -> Iterator[None]:
    """Two of us at once would undo each other's work.

    One that is short (asha-network.service after a join) is waited for; Trouble when
    it is still at it after ``patience`` seconds.
    """
    # Root's alone: who may read a file may lock it (flock(2)), and keep us out.
    descriptor = os.open(LOCK, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    with open(descriptor, "w", encoding="utf-8") as lock:
        if not Deadline(patience).poll(lambda: _is_locked(lock), every=0.2):
            raise Trouble("another asha install is at work on this machine",
                          "wait for it, or end it; it puts back what it has not finished")
        yield


def _is_locked(lock: TextIO) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
