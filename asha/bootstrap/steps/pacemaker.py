"""Step 70: Pacemaker gets its configuration and starts everything.

The first node loads it. The second finds it in the cluster that it joins, and adds the
line's relay if the card is its own.
"""

from __future__ import annotations

from collections.abc import Callable

from asha.bootstrap.action import Action, Call, Say
from asha.bootstrap.steps import drbd as drbd_step
from asha.bootstrap.takeover import takeover
from asha.cluster import cib, drbd, pacemaker
from asha.cluster.pacemaker import State
from asha.cluster.site import Site
from asha.errors import UserError
from asha.machine import Machine

# What must run, and in which words it is waited for. Not the line's relay: it follows
# the calls, and a card that is missing today must not end an installation.
AWAITED = {
    "p_drbd": "the replicated disk",
    "p_fs": "the store's file system",
    "p_data": "the data in its places",
    "p_ip": "the virtual address",
    "p_asterisk": "Asterisk",
    "p_mysql": "MariaDB",
    "p_apache": "Apache",
}
RELAY = "p_line"

# p_mysql's start alone may take 300 s, as InnoDB may have its log to replay.
START_SECONDS = 420.0
# Something failed and Pacemaker does nothing about it any more.
IDLE_SECONDS = 20.0
JOIN_SECONDS = 120.0
POLL_SECONDS = 1.0

LOOK = "asha status tells more. When it is fixed: crm resource cleanup, asha install"


def actions(site: Site) -> list[Action]:
    return [
        Call(
            name="cib-load",
            title="load the cluster's configuration",
            what="crm configure load update (what asha cib prints)",
            work=lambda machine, say: _load(site, machine, say),
            done=cib.is_loaded,
        ),
        Call(
            name="cib-wait",
            title="wait until the telephone system runs",
            what="wait until all of this is started: " + ", ".join(AWAITED.values()),
            work=lambda machine, say: _wait(machine, say, _not_started, START_SECONDS),
            done=lambda machine: _is_there(machine, _not_started),
        ),
    ]


def joined_actions(site: Site) -> list[Action]:
    def missing(state: State) -> dict[str, str]:
        return _not_joined(site, state)

    made: list[Action] = [
        Call(
            name="join-wait",
            title=f"wait until {site.here.name} is in the cluster",
            what=f"wait until Pacemaker has {site.here.name} online, with its replicated disk",
            work=lambda machine, say: _wait(machine, say, missing, JOIN_SECONDS),
            done=lambda machine: _is_there(machine, missing),
        ),
    ]
    if site.relay and site.relay.node == site.here.name:
        made.append(Call(
            name="relay-load",
            title="the line's relay into the cluster's configuration",
            what="crm configure load update (what asha cib prints), if it has no relay yet",
            work=lambda machine, say: _load(site, machine, say),
            done=_has_relay,
        ))
    return made


def _load(site: Site, machine: Machine, say: Say) -> None:
    takeover.require_marker(machine)
    for warning in cib.load(machine, site):
        say(warning)


def _has_relay(machine: Machine) -> bool:
    try:
        return bool(pacemaker.look(machine).of(RELAY))
    except UserError:
        return False


# What is not there yet: resource -> what to call it.

def _not_started(state: State) -> dict[str, str]:
    """On whichever node: it may have moved since."""
    return {
        name: word
        for name, word in AWAITED.items()
        if not state.where(name, "Promoted" if name == "p_drbd" else "Started")
    }


def _not_joined(site: Site, state: State) -> dict[str, str]:
    node = state.node(site.here.name)
    if node is None or not node.online or node.pending:
        return {"": f"{site.here.name} in the cluster"}
    if node.standby:
        return {}  # taken out of service by somebody; it has joined
    roles = [*state.where("p_drbd", "Unpromoted"), *state.where("p_drbd", "Promoted")]
    return {} if site.here.name in roles else {"p_drbd": f"{site.here.name}'s replicated disk"}


def _is_there(machine: Machine, missing: Callable[[State], dict[str, str]]) -> bool:
    try:
        return not machine.exists(drbd_step.NEW) and not missing(pacemaker.look(machine))
    except UserError:
        return False


def _wait(machine: Machine, say: Say, missing: Callable[[State], dict[str, str]],
          seconds: float) -> None:
    begun = busy = machine.now()
    while True:
        awaited, failures = {"": "answer from Pacemaker"}, []
        now = machine.now()
        try:
            state = pacemaker.look(machine)
        except UserError:
            busy = now  # it was there a moment ago
        else:
            awaited = missing(state)
            if not awaited:
                # The store is the cluster's: nothing may be forced any more.
                machine.remove(drbd_step.NEW)
                return
            failures = _failures(state, awaited)
            if state.busy or not failures:
                busy = now
        if now - busy >= IDLE_SECONDS or now - begun >= seconds:
            names = " and ".join(awaited.values())
            raise UserError("; ".join([
                f"after {now - begun:.0f} s there is still no {names}", *failures, *_split(machine)
            ]), LOOK)
        say(f"waiting for {', '.join(awaited.values())} ({now - begun:.0f} s)")
        machine.pause(POLL_SECONDS)


def _failures(state: State, awaited: dict[str, str]) -> list[str]:
    return [
        f"{failure.resource} {failure.action} on {failure.node}: "
        f"{failure.reason or failure.status}"
        for failure in state.failures if failure.resource in awaited
    ]


def _split(machine: Machine) -> list[str]:
    """DRBD does not connect disks that hold different stores."""
    if drbd.status(machine).connection == "StandAlone":
        return ["DRBD refuses the other node's disk: the two hold different data "
                "(journalctl -k tells)"]
    return []
