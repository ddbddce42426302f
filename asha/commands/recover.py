"""asha recover: put back what an unfinished installation has stopped and moved."""

from __future__ import annotations

import argparse

from asha.bootstrap.takeover import takeover
from asha.bootstrap.takeover.state import RECORD
from asha.machine import Machine
from asha.run.text import printable
from asha.terminal import say

EPILOG = f"""\
An installation that is interrupted during the take-over of the services is
rolled back by itself: at once by a guard that watches the installer, or at the
next boot by asha-recover.service. Nothing is rolled back once the cluster has
the services. What is to be rolled back is in {RECORD}.
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    when = parser.add_mutually_exclusive_group()
    when.add_argument("--watch", type=int, metavar="PID",
                      help="wait for the end of this installer first (the guard)")
    when.add_argument("--boot", action="store_true",
                      help="before the services start (asha-recover.service)")


def run(options: argparse.Namespace) -> int:
    machine = Machine()
    if options.watch is not None:
        takeover.watch(machine, options.watch, _say)
    elif not takeover.recover(machine, _say, boot=options.boot):
        _say("nothing to put back")
    return 0


def _say(text: str) -> None:
    say(printable(text))
