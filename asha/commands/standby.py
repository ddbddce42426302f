"""``asha standby``: takes a node out of service; the other one gets its work."""

from __future__ import annotations

import argparse
import os

from asha.bootstrap.console import Console, ask
from asha.cluster import pacemaker
from asha.cluster.pacemaker import State
from asha.cluster.wait import wait_for_state
from asha.commands import switchover
from asha.commands.common import drain_argument, end_orderly, need_installed, need_root
from asha.errors import UserError
from asha.machine import Machine
from asha.status import switchover as moving
from asha.status.services import services

EPILOG = """\
For maintenance: the node may be rebooted and stays out of service until asha
online. Meanwhile there is no fail-over. If it has the telephones, they move to
the other node and calls in progress are cut, unless --drain waits for their end
(see asha switchover --help). The command refuses if the other node cannot take
over.

exit code: 0 nothing runs there any more, 1 something does (the reason is
printed)
"""

SECONDS = 300.0


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("node", nargs="?", metavar="NODE", help="default: this one")
    parser.add_argument("--yes", action="store_true", help="do not ask before the calls are cut")
    drain_argument(parser)


def run(options: argparse.Namespace) -> int:
    need_root("asha standby")
    machine = Machine()
    need_installed(machine)
    here = os.uname().nodename
    state = pacemaker.look(machine)
    name = known(state, options.node or here)
    seconds = None
    if state.active_node == name or not state.active_node:
        seconds = options.drain
        _give_up(machine, state, name, here, options)
    end_orderly()
    with switchover.drained(machine, name, here, seconds):
        set_standby(machine, name)
        console = Console()
        console.note(f"{name} gives up its work")
        missing = wait_for_state(
            machine, lambda now: _left(now, name, state), SECONDS, console.say
        )
    if missing:
        raise UserError(f"{name} is in standby, but after {SECONDS:.0f} s still: "
                      f"{', '.join(missing)}", "asha status tells why")
    console.note(f"{name} is in standby: no fail-over until asha online {name}")
    return 0


def known(state: State, name: str) -> str:
    """The name as the cluster spells it. Raises UserError if it is no node of the cluster."""
    node = state.node(name)
    if node is None:
        raise UserError(f"{name} is no node of the cluster",
                      f"it has: {', '.join(node.name for node in state.nodes)}")
    return node.name


def set_standby(machine: Machine, name: str) -> None:
    """Permanent: also after a reboot, until ``asha online``."""
    machine.run("crm_attribute", "--node", name, "--name", "standby", "--update", "on",
                "--lifetime", "forever", timeout=moving.COMMAND_SECONDS)


def _give_up(
    machine: Machine, state: State, name: str, here: str, options: argparse.Namespace
) -> None:
    """It has the telephones: the other must be able to take them, and somebody want it."""
    if not state.active_node:
        raise UserError("the telephones run on no node now, or are on their way",
                      "asha status tells why; wait until they run")
    _, target = switchover.ready(machine, here)
    costs = switchover.cut_calls(name, here) if options.drain is None else (
        switchover.waits(options.drain))
    if not options.yes and not ask(f"{costs}\n"
                           f"Move the telephone system to {target}, and {name} to standby?"):
        raise UserError("nothing was changed", "asha standby --yes does not ask")


def _left(state: State, name: str, before: State) -> list[str]:
    running = sorted({one.id for one in state.resources if one.node == name and one.active})
    if running:
        return [f"{one} to stop on {name}" for one in running]
    if before.active_node == name:
        target = moving.other_node(state, name)
        wanted = {one.id for one in services(before) if one.runs}
        left = moving.elsewhere(
            tuple(one for one in services(state) if one.id in wanted), target
        )
        return [f"{one} on {target}" for one in left]
    return []
