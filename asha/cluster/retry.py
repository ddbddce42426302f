"""What no node may run any more is tried again, and again, and so is a peer's disk.

Three failures move a resource (migration-threshold in asha.crm). Where all nodes have had
theirs, Pacemaker would wait until they are forgotten (failure-timeout: 30 s to ten minutes), and
has no word for "sooner, and later each time". So asha-retry.service has it forget the failures
of one node, the one whose last is the oldest, after 1, 2, 4, ... 30 s. That node then has three
tries, and after it the other.

    python3 -m asha.cluster.retry

It counts for all that the telephones need (VITAL). A node whose copy of the disk has failed too
often, while the other one serves, gets it back in the same way: without it nothing is
replicated. (A Corosync that stood still leaves that behind: the peer tries to promote its disk
three times, which DRBD refuses.)

Each node's service sleeps until Pacemaker's scheduler has decided something, which it does on
one node, the DC: it writes what it has decided on to a file. Nothing is polled.
"""

from __future__ import annotations

import ctypes
import os
import select
import struct
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from asha.cluster import pacemaker
from asha.cluster.pacemaker import TELEPHONES, Resource, State
from asha.errors import UserError
from asha.machine import Machine

# Each must work for a call (cib/asha.crm), the first on both nodes.
DISK = "p_drbd"
VITAL = (DISK, "p_fs", "p_data", "p_ip", TELEPHONES)

# Seconds: the first pause, and the longest.
FIRST_PAUSE = 1.0
LONGEST_PAUSE = 30.0
# What has not needed us for so long has served: the pauses begin anew.
FORGOTTEN_AFTER = 600.0

# Seconds from a decision of the scheduler to our look: what it decided on comes first.
SETTLE = 1.0
# Between two looks, while Pacemaker is at work or does not answer, and for how long it may not.
LOOK_EVERY = 2.0
SILENT_MOST = 60.0
CLEANUP_SECONDS = 30.0

MEMORY = "/run/asha-retry-"

# Where the scheduler writes what it has decided on (pe-input-N.bz2, pe-warn-N.bz2; nothing where
# it was the same), and seconds between two looks where that cannot be watched.
DECISIONS = "/var/lib/pacemaker/pengine"
UNWATCHED_EVERY = 30.0
# And where it can, and nothing comes: a full disk has no room for what was decided, and
# pe-input-series-max=0 has none of it kept.
UNTOLD_EVERY = 60.0
# inotify(7), linux/inotify.h.
CLOSE_WRITE, MOVED_TO, MOVE_SELF, IGNORED = 0x8, 0x80, 0x800, 0x8000
ONLY_DIRECTORY, NO_LINK = 0x1000000, 0x2000000
EVENT = struct.Struct("iIII")


@dataclass(frozen=True)
class Turn:
    """Whose failures are to be forgotten next. ``why`` also names the memory of the pauses."""

    why: str
    node: str
    resources: tuple[str, ...]


class News(Protocol):
    def wait(self) -> None: ...


class Decisions:
    """The scheduler's, by its directory. Pacemaker's user may write there: nothing is read."""

    def __init__(self, machine: Machine, folder: str = DECISIONS) -> None:
        self._machine, self._folder = machine, folder
        self._file: int | None = None
        self._watch()

    def wait(self) -> None:
        """Until there was one since the last call, or the time without a watch is over."""
        if self._file is None and not self._watch():
            self._machine.pause(UNWATCHED_EVERY)
            return
        assert self._file is not None
        # poll(2), whose time is in milliseconds.
        poller = select.poll()
        poller.register(self._file, select.POLLIN)
        if not poller.poll(UNTOLD_EVERY * 1000):
            return
        said = os.read(self._file, 65536)
        while len(said) >= EVENT.size:
            _, mask, _, length = EVENT.unpack_from(said)
            said = said[EVENT.size + length:]
            if mask & (IGNORED | MOVE_SELF):  # the directory is gone, or another's now
                os.close(self._file)
                self._file = None
                return

    def _watch(self) -> bool:
        libc = ctypes.CDLL(None, use_errno=True)
        file = libc.inotify_init1(os.O_CLOEXEC)
        if file < 0:
            return False
        mask = CLOSE_WRITE | MOVED_TO | MOVE_SELF | ONLY_DIRECTORY | NO_LINK
        if libc.inotify_add_watch(file, os.fsencode(self._folder), mask) < 0:
            print(f"{self._folder} cannot be watched: {os.strerror(ctypes.get_errno())}; "
                  f"looking every {UNWATCHED_EVERY:.0f} s", file=sys.stderr, flush=True)
            os.close(file)
            return False
        self._file = file
        return True


def main(machine: Machine | None = None, node: str = "", news: News | None = None) -> int:
    machine, node = machine or Machine(), node or os.uname().nodename
    news = news or Decisions(machine)
    while True:
        serve(machine, node)
        news.wait()


def serve(machine: Machine, node: str) -> None:
    """Until there is nothing to do that Pacemaker does not do by itself."""
    machine.pause(SETTLE)
    silent_since = machine.now()
    while True:
        state = _look(machine)
        if state is None:
            # Pacemaker is being restarted, or this node is going down.
            if machine.now() - silent_since > SILENT_MOST:
                return
            machine.pause(LOOK_EVERY)
            continue
        silent_since = machine.now()
        if state.dc.lower() != node.lower():
            return  # the other node's service looks
        turn = next_turn(state)
        if turn is None:
            if not state.busy:
                return
            machine.pause(LOOK_EVERY)  # the end of an action is no decision
            continue
        pause = _next_pause(machine, turn.why)
        what = " and ".join(turn.resources)
        print(f"{turn.why}: {what} tried again on {turn.node} in {pause:.0f} s", flush=True)
        machine.pause(pause)
        state = _look(machine)
        if state is not None and state.dc.lower() == node.lower() and next_turn(state) == turn:
            for resource in turn.resources:
                _forgive(machine, resource, turn.node)
        machine.pause(LOOK_EVERY)


def next_turn(state: State) -> Turn | None:
    """None where there is something to run or nothing to try.

    Not what is blocked by a stop that failed, or not Pacemaker's to start.
    """
    if state.maintenance or not state.quorum:
        return None
    vital = [one for name in VITAL for one in state.of(name)]
    if any(one.blocked or not one.managed for one in vital):
        return None
    telephones = state.of(TELEPHONES)
    if telephones and all(_is_down(one) for one in telephones):
        return _turn_of_telephones(state)
    return _turn_of_disk(state)


def _turn_of_telephones(state: State) -> Turn | None:
    """Where each node lacks something that they need."""
    usable = _usable(state)
    worn = {name: _worn_out(state, name) for name in usable}
    if not usable or not all(worn.values()):
        return None
    oldest = min(usable, key=lambda name: (_last_failure(state, name, worn[name]), name))
    return Turn("no node may run the telephones", oldest, worn[oldest])


def _turn_of_disk(state: State) -> Turn | None:
    """Where the telephones run, and a node's disk may not any more."""
    disks = state.of(DISK)
    for name in _usable(state):
        here = [one for one in disks if one.node == name]
        if (DISK, name) in state.worn_out and all(_is_down(one) for one in here):
            return Turn(f"{name} has no copy of the disk", name, (DISK,))
    return None


def _worn_out(state: State, name: str) -> tuple[str, ...]:
    """What the telephones need and may not run on that node, as it has failed too often, as far
    as it is down."""
    return tuple(
        one for one in VITAL if (one, name) in state.worn_out
        and all(_is_down(instance) for instance in state.of(one) if instance.node in ("", name))
    )


def _is_down(one: Resource) -> bool:
    return not (one.active or one.failed or one.pending)


def _last_failure(state: State, name: str, resources: Sequence[str]) -> datetime:
    return max((one.when for one in state.failures
                if one.resource in resources and one.node == name and one.when),
               default=datetime.min)


def _usable(state: State) -> list[str]:
    """Not one that is to be fenced, or was not in vain: its failure is why."""
    return [node.name for node in state.nodes
            if node.online and not (
                node.standby or node.pending or node.maintenance or node.unclean)]


def _look(machine: Machine) -> State | None:
    try:
        return pacemaker.look(machine)
    except UserError:
        return None


def _forgive(machine: Machine, resource: str, node: str) -> None:
    print(f"{resource} is tried on {node}", flush=True)
    try:
        machine.run("crm_resource", "--cleanup", "--resource", resource, "--node", node,
                    timeout=CLEANUP_SECONDS)
    except UserError as problem:
        print(f"{problem}: tried again", file=sys.stderr, flush=True)


def _next_pause(machine: Machine, why: str) -> float:
    """In seconds, twice the last one. Kept in /run: this may be started anew meanwhile."""
    path, now = f"{MEMORY}{why.replace(' ', '-')}", machine.now()
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
    sys.exit(main())
