"""No node may run the telephones any more: they are tried again, and again.

Three failures within ten minutes move a resource (migration-threshold, failure-timeout
in asha.crm). Where all nodes have had theirs Pacemaker would wait for the end of those ten
minutes, and has no word for "sooner, and later each time". So asha-retry@RESOURCE.service
has it forget the failures of one node, the one whose last is the oldest, after 1, 2, 4, ...
30 s. That node then has three tries, and after it the other.

    python3 -m asha.cluster.retry RESOURCE

The agent starts the unit when it has stopped what had failed. It looks only while
this node is one of those that may not run the resource: ten minutes at most.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from datetime import datetime

from asha.cluster import pacemaker
from asha.cluster.pacemaker import State
from asha.errors import UserError
from asha.machine import Machine

# Seconds: the first pause, and the longest.
FIRST_PAUSE = 1.0
LONGEST_PAUSE = 30.0
# Who has not needed us for so long has served: the pauses begin anew (failure-timeout).
FORGOTTEN_AFTER = 600.0

# Seconds between two looks: at what may change at once, and at a peer that may go.
LOOK_SOON = 1.0
LOOK_LATER = 5.0
# Seconds in which Pacemaker counts the failure for which this was started.
COUNTED_AFTER = 10.0
CLEANUP_SECONDS = 30.0

MEMORY = "/run/asha-retry-"


def main(arguments: Sequence[str], machine: Machine | None = None, node: str = "") -> int:
    """0 when there is nothing left to do for this node; systemd restarts it otherwise."""
    (resource,) = arguments
    machine = machine or Machine()
    node = node or os.uname().nodename
    begun = machine.now()
    while True:
        state = _look(machine)
        if state is None:
            # Pacemaker is being restarted, or this node is going down.
            if machine.now() - begun > FORGOTTEN_AFTER:
                return 0
            machine.pause(LOOK_LATER)
            continue
        if (resource, node) not in state.worn_out:
            if machine.now() - begun >= COUNTED_AFTER:
                return 0
            machine.pause(LOOK_SOON)
            continue
        if whose_turn(state, resource) != node:
            machine.pause(LOOK_LATER)
            continue
        pause = _next_pause(machine, resource)
        print(f"no node may run {resource} any more: tried again in {pause:.0f} s", flush=True)
        machine.pause(pause)
        state = _look(machine)
        if state is not None and whose_turn(state, resource) == node:
            _forgive(machine, state, resource)
        machine.pause(LOOK_SOON)


def is_given_up(state: State, resource: str) -> bool:
    """Whether it is stopped, as each node that could run it has failed too often.

    Not what is blocked by a stop that failed, or not Pacemaker's to start.
    """
    instances = state.of(resource)
    usable = _usable(state)
    return bool(instances and usable) and not state.maintenance and state.quorum and all(
        one.managed and not (one.active or one.failed or one.blocked or one.pending)
        for one in instances
    ) and all((resource, name) in state.worn_out for name in usable)


def whose_turn(state: State, resource: str) -> str:
    """The node that acts, "" where nobody need: where it failed last. So that of two which
    look one does."""
    return _in_order(state, resource)[-1] if is_given_up(state, resource) else ""


def _in_order(state: State, resource: str) -> list[str]:
    """The usable nodes by when it last failed there, the oldest first."""
    def last(name: str) -> datetime:
        return max((one.when for one in state.failures
                    if one.resource == resource and one.node == name and one.when),
                   default=datetime.min)

    return sorted(_usable(state), key=lambda name: (last(name), name))


def _usable(state: State) -> list[str]:
    return [node.name for node in state.nodes
            if node.online and not (node.standby or node.pending or node.maintenance)]


def _look(machine: Machine) -> State | None:
    try:
        return pacemaker.look(machine)
    except UserError:
        return None


def _forgive(machine: Machine, state: State, resource: str) -> None:
    oldest = _in_order(state, resource)[0]
    print(f"{resource} is tried on {oldest}", flush=True)
    try:
        machine.run("crm_resource", "--cleanup", "--resource", resource, "--node", oldest,
                    timeout=CLEANUP_SECONDS)
    except UserError as problem:
        print(f"{problem}: tried again", file=sys.stderr, flush=True)


def _next_pause(machine: Machine, resource: str) -> float:
    """In seconds, twice the last one. Kept in /run: this may be started anew meanwhile."""
    path, now = f"{MEMORY}{resource}", machine.now()
    try:
        before, when = map(float, (machine.read(path) or "").split())
    except (ValueError, UserError, OSError):
        before, when = 0.0, 0.0
    if not 0 <= now - when < FORGOTTEN_AFTER or not FIRST_PAUSE <= before <= LONGEST_PAUSE:
        before = FIRST_PAUSE / 2
    pause = min(before * 2, LONGEST_PAUSE)
    try:
        machine.write(path, f"{pause} {now}")
    except OSError as problem:
        print(f"cannot write {path}: {problem.strerror}", file=sys.stderr, flush=True)
    return pause


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
