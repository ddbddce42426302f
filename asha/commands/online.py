"""``asha online``: a node back in service."""

from __future__ import annotations

import argparse
import os

from asha.bootstrap.console import Console
from asha.cluster import pacemaker
from asha.cluster.pacemaker import State
from asha.cluster.wait import wait_for_state
from asha.commands import standby
from asha.commands.common import end_orderly, need_installed, need_root
from asha.errors import UserError
from asha.machine import Machine
from asha.status import render, switchover
from asha.status.replication import DiskSight

EPILOG = """\
The node may run services again and can take over. What runs on the other node
stays there. Its disk is resynchronised first: asha sync --watch.

exit code: 0 the node is back, 1 it is not (the reason is printed)
"""

SECONDS = 120.0


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("node", nargs="?", metavar="NODE", help="default: this one")


def run(options: argparse.Namespace) -> int:
    need_root("asha online")
    machine = Machine()
    need_installed(machine)
    here = os.uname().nodename
    state = pacemaker.look(machine)
    name = standby.known(state, options.node or here)
    take_back(machine, name)
    node = state.node(name)
    if node is None or not node.online:
        raise UserError(f"{name} may work again, but is not in the cluster now",
                      f"see to {name}: its power, its cluster link, systemctl start pacemaker")
    console = Console()
    console.note(f"{name} comes back")
    end_orderly()
    missing = wait_for_state(machine, lambda now: _left(now, name), SECONDS, console.say)
    if missing:
        raise UserError(f"{name} is no longer in standby, but after {SECONDS:.0f} s not yet: "
                      f"{', '.join(missing)}", "asha status tells why")
    console.note(f"{name} is online")
    disks = DiskSight(machine, here, switchover.other_node(state, here)).look()
    if disks is not None:
        console.note(f"disks: {render.disks(disks)}")
        if not disks.in_sync:
            console.note("no fail-over before they are the same: asha sync --watch")
    return 0


def take_back(machine: Machine, name: str) -> None:
    """Ends both kinds of standby: the permanent one, and the one until the next reboot."""
    for lifetime in ("forever", "reboot"):
        machine.run("crm_attribute", "--node", name, "--name", "standby", "--delete",
                    "--lifetime", lifetime, timeout=switchover.COMMAND_SECONDS)


def _left(state: State, name: str) -> list[str]:
    node = state.node(name)
    if node is None or not node.online or node.pending or node.standby:
        return [f"{name} online"]
    # Its half of every clone: what is elsewhere may stay there.
    clones = {one.id for one in state.resources if one.role in ("Promoted", "Unpromoted")}
    lacking = [identity for identity in sorted(clones)
               if not any(one.node == name and one.active and not one.failed
                          for one in state.of(identity))]
    return [f"{identity} on {name}" for identity in lacking] or \
        (["the last actions"] if state.busy else [])
