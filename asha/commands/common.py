"""What several commands need: the site, root's rights, the lock of the installer."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn

from asha.bootstrap.file_lock import file_lock
from asha.cluster import cib
from asha.cluster import site as conf
from asha.cluster.cib import MARKER
from asha.cluster.secret import Secret
from asha.cluster.site import Site, SiteError
from asha.errors import UserError
from asha.finding import in_words
from asha.machine import Machine
from asha.terminal import answer, show

SECRET = "/etc/asha/secret"
LOCK = "/run/asha-install.lock"
# Seconds: step 10 alone, the shortest that takes the lock, needs two.
PATIENCE = 10.0
# Of --drain: most calls end sooner.
DRAIN_SECONDS = 600.0


def load_site(path: str = conf.CONF, strict: bool = False) -> Site:
    """asha.conf; UserError with everything that is wrong in it (see site.read)."""
    try:
        return conf.read(path, strict)
    except FileNotFoundError:
        raise UserError(f"there is no {path}", "asha configure asks the questions and writes it") \
            from None
    except OSError as problem:
        raise UserError(f"cannot read {path}: {problem.strerror}") from None
    except SiteError as wrong:
        raise UserError(f"{path} is invalid:", "fix it, or run: asha configure",
                        points=in_words(wrong.findings)) from None


def need_root(what: str) -> None:
    if os.geteuid() != 0:
        raise UserError(f"{what} changes this machine and needs root", "run it with sudo")


def need_installed(machine: Machine) -> None:
    """Raises UserError where there is no cluster yet to be asked or told."""
    if not machine.exists(MARKER) and not cib.is_saved(machine):
        raise UserError("this machine is not a node of a cluster yet", "asha install makes it one")


def cluster_secret(site: Site, machine: Machine, given: str = "") -> Secret:
    """The secret: from the file ``given``, the stored one, or a new one on the first node.

    The second node asks for it at the terminal. Raises UserError.
    """
    if given:
        return given_secret(given)
    if machine.exists(SECRET):
        try:
            return Secret.read(str(machine.path(SECRET)))
        except ValueError as wrong:
            raise UserError(
                f"{SECRET}: {wrong}", "delete it, and asha install asks for it"
            ) from None
    if site.is_first:
        return Secret.generate()
    if not sys.stdin.isatty():
        raise UserError(f"the second node needs the cluster secret of {site.there.name}",
                      f"it is in {SECRET} there; give it with --secret-file FILE")
    show(f"The cluster secret: {site.there.name} showed it at the end of its install, and its\n"
          f"{SECRET} has it. Capitals and dashes do not matter.")
    while True:
        try:
            return Secret.parse(answer("cluster secret: "))
        except ValueError as wrong:
            show(f"  {wrong}")
        except EOFError:
            raise KeyboardInterrupt from None


def given_secret(path: str) -> Secret:
    """The secret of --secret-file. Raises UserError."""
    try:
        if path == "-":
            return Secret.parse(sys.stdin.readline())
        with open(path, encoding="utf-8") as file:
            return Secret.parse(file.read())
    except (OSError, ValueError) as wrong:
        raise UserError(f"--secret-file {path}: {wrong}") from None


def keep(secret: Secret, machine: Machine) -> None:
    """Store the secret for root alone, in the form in which it is typed."""
    machine.write(SECRET, secret.typed + "\n", mode=0o600)


@contextlib.contextmanager
def only_one(patience: float = PATIENCE) -> Iterator[None]:
    """A context for one process at a time: two would undo each other's work.

    A short one (asha-network.service after a join) is waited for. Raises UserError if it is
    still at work after ``patience`` seconds.
    """
    busy = UserError("another asha install is running on this machine",
                     "wait for it, or stop it; it rolls back what it has not finished")
    with file_lock(Machine(), LOCK, patience, busy):
        yield


def end_orderly() -> None:
    """Let a lost connection or SIGTERM end us as Ctrl-C does, so that we clean up."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupted)


def _interrupted(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def drain_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--drain", type=seconds_argument, nargs="?", const=DRAIN_SECONDS,
                        metavar="SECONDS",
                        help="move once no call is up, and take none at that moment; wait "
                             f"10 to 3600 seconds at most (default: {DRAIN_SECONDS:.0f})")


def seconds_argument(text: str) -> float:
    """An argument in seconds, for argparse. Raises ArgumentTypeError."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 10 <= value <= 3600:
        raise argparse.ArgumentTypeError(f"{text}: must be seconds, from 10 to 3600")
    return value
