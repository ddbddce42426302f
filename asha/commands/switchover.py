"""``asha switchover``: moves everything to the other node."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from asha.asterisk.process.proc import Proc
from asha.bootstrap.console import Console, ask
from asha.cluster import pacemaker
from asha.cluster.pacemaker import State
from asha.cluster.wait import wait_for_state
from asha.commands.common import (
    drain_argument,
    end_orderly,
    need_installed,
    need_root,
    seconds_argument,
)
from asha.errors import UserError
from asha.machine import Machine
from asha.status import calls, drain, render, switchover
from asha.status.replication import DiskSight
from asha.status.services import services

EPILOG = """\
Refuses, with the reason, if the other node cannot take over now: it is not
online, is in standby, or its disk is not UpToDate. Calls in progress are cut;
the telephones are silent for some seconds.

With --drain no call is cut: the move waits until none is up. New calls are
taken meanwhile; only for the seconds of the move itself they are refused. If
calls go on for longer than SECONDS, or after Ctrl-C, nothing was moved.

No constraint stays behind: the old node can take over again, and nothing moves
back by itself. If the command is killed, Pacemaker finishes the move or rolls
it back; the constraint for it expires by itself.

exit code: 0 everything runs on the other node, 1 it does not (the reason is
printed)
"""

SECONDS = 300.0


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--yes", action="store_true", help="do not ask before the calls are cut")
    drain_argument(parser)
    parser.add_argument("--timeout", type=seconds_argument, default=SECONDS, metavar="SECONDS",
                        help="the longest to wait, 10 to 3600 (default: %(default).0f)")


def run(options: argparse.Namespace) -> int:
    need_root("asha switchover")
    machine = Machine()
    need_installed(machine)
    here = os.uname().nodename
    source, target = ready(machine, here)
    costs = cut_calls(source, here) if options.drain is None else waits(options.drain)
    if not options.yes and not ask(f"{costs}\n"
                                   f"Move the telephone system from {source} to {target}?"):
        raise UserError("nothing was moved", "asha switchover --yes does not ask")
    end_orderly()
    with drained(machine, source, here, options.drain):
        move(machine, source, target, options.timeout)
    return 0


@contextmanager
def drained(machine: Machine, source: str, here: str, seconds: float | None) -> Iterator[None]:
    """The body while no call is up; at once where ``seconds`` is None. Raises UserError."""
    if seconds is None:
        yield
        return
    if source != here:
        raise UserError(f"--drain waits for the calls of the node that it runs on, and "
                        f"{source} has them", f"run it on {source}")
    process = calls.running_asterisk(Proc())
    if process is None:
        raise UserError("Asterisk does not run on this node", "asha status tells why")
    console = Console()
    asterisk = drain.Asterisk(process, calls.RUN_DIRECTORY)
    with drain.drained(machine, asterisk, seconds, lambda: ready(machine, here), console.say):
        console.note("no call is up, and none is taken until the move is done")
        yield


def waits(seconds: float) -> str:
    """What the move costs with --drain, in a sentence."""
    return (f"No call is cut: the move waits until none is up, {seconds:.0f} seconds at most. "
            "New calls are refused only while it moves.")


def ready(machine: Machine, here: str) -> tuple[str, str]:
    """From where to where. Raises UserError with all that prevents it."""
    state = pacemaker.look(machine)
    source = state.active_node
    if not source:
        raise UserError("the telephones run on no node now, or are on their way",
                      "asha status tells why")
    target = switchover.other_node(state, source)
    other = switchover.other_node(state, here)
    disks = DiskSight(machine, here, other).look_closely()
    wrong = switchover.obstacles(state, disks, target)
    wrong += [f"a constraint of `crm resource move` keeps {kept.resource} on {kept.node}: "
              f"crm resource clear {kept.resource}"
              for kept in switchover.preferences(machine)
              if kept.resource != switchover.DISK_CLONE and kept.node != target]
    switchover.refuse(target, wrong)
    return source, target


def cut_calls(source: str, here: str) -> str:
    """What the move costs, in a sentence."""
    if source != here:
        return f"Calls in progress are cut (asha status on {source} tells how many)."
    known = calls.ask()
    if known.calls is None:
        return f"Calls in progress are cut (how many is not known: {known.trouble})."
    return f"{render.plural(known.calls, 'call')} in progress " \
           f"{'is' if known.calls == 1 else 'are'} cut."


def move(machine: Machine, source: str, target: str, seconds: float) -> None:
    """Move everything from ``source`` to ``target``. Raises UserError if it does not arrive
    there."""
    console = Console()
    wanted = {one.id for one in services(pacemaker.look(machine)) if one.runs}
    begun = time.monotonic()
    talking: list[float] = []

    def left(state: State) -> list[str]:
        if state.active_node == target and not talking:
            talking.append(time.monotonic() - begun)
            console.note(f"the telephones run on {target}")
        missing = switchover.elsewhere(
            tuple(one for one in services(state) if one.id in wanted), target
        )
        return missing or (["the last actions"] if state.busy else [])

    console.note(f"moving everything from {source} to {target}")
    try:
        switchover.begin(machine, target, seconds)
        missing = wait_for_state(machine, left, seconds, console.say)
    finally:
        switchover.clear(machine)
    if missing:
        raise UserError(f"not on {target} after {seconds:.0f} s: {', '.join(missing)}",
                      "nothing holds it there any more; asha status tells what runs where and why")
    console.note(f"everything runs on {target}: the telephones after {talking[0]:.0f} s, "
                 f"all after {time.monotonic() - begun:.0f} s")
