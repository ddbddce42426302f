"""Moving the telephone system to the other node, and what prevents it.

By a preference of the disk's promotable clone for the other node, on which all else
depends (`crm_resource --move --promoted`), with an end: Pacemaker stops heeding it by
itself. Not by standby, which a killed command would leave behind, so that one node
alone would be left; a preference takes nothing from the other node's right to take over
again, and the disks stay connected. When it is over, stickiness keeps all where it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from xml.etree import ElementTree

from asha import lan
from asha.cluster.pacemaker import State
from asha.errors import UserError
from asha.machine import Machine
from asha.status import render
from asha.status.model import Disks, Service

DISK_CLONE = "cl_drbd"
COMMAND_SECONDS = 20.0
# Beyond the time that the move itself may take: after it nobody waits any more.
EXTRA_SECONDS = 60
PREFERENCES = "//rsc_location[starts-with(@id,'cli-prefer-')]"
# What a failed try on the other node says about the next one.
VITAL = ("p_drbd", "p_fs", "p_data", "p_ip", "p_asterisk")


@dataclass(frozen=True)
class Preference:
    """What `crm_resource --move` (or `crm resource move`) leaves. ``until``: None if permanent."""

    resource: str
    node: str
    until: datetime | None


def begin(machine: Machine, node: str, seconds: float) -> None:
    """Have everything move to ``node``; Pacemaker forgets it after ``seconds`` and a bit."""
    clear(machine)
    machine.run("crm_resource", "--move", "--resource", DISK_CLONE, "--promoted", "--node", node,
                "--lifetime", f"PT{int(seconds) + EXTRA_SECONDS}S", timeout=COMMAND_SECONDS)


def clear(machine: Machine) -> None:
    """Remove the preference. It is no error if there is none."""
    machine.run("crm_resource", "--clear", "--resource", DISK_CLONE, timeout=COMMAND_SECONDS)


def preferences(machine: Machine) -> list[Preference]:
    """Those that Pacemaker still follows; none if the configuration cannot be read."""
    return read_preferences(
        machine.output("cibadmin", "--query", "--xpath", PREFERENCES, timeout=COMMAND_SECONDS)
    )


def read_preferences(text: str) -> list[Preference]:
    """From cibadmin's XML, without those that have ended."""
    try:
        top = ElementTree.fromstring(text)
    except ElementTree.ParseError:
        return []
    now = datetime.now(UTC)
    found = [_preference(one) for one in top.iter("rsc_location")]
    return [one for one in found if one.until is None or one.until > now]


def _preference(location: ElementTree.Element) -> Preference:
    node = location.get("node", "")
    for expression in location.iter("expression"):
        node = expression.get("value", "") or node
    until = None
    for date in location.iter("date_expression"):
        try:
            # The interpreter of Debian 12 takes no Z.
            until = datetime.fromisoformat(date.get("end", "").replace("Z", "+00:00"))
        except ValueError:
            continue
    if until is not None and until.tzinfo is None:
        until = until.astimezone()
    return Preference(location.get("rsc", ""), node, until)


def other_node(state: State, name: str) -> str:
    """The cluster's other node, "" where there is none yet."""
    return next((node.name for node in state.nodes if node.name != name), "")


def obstacles(state: State, disks: Disks | None, target: str) -> list[str]:
    """Why ``target`` cannot take everything over now, a line each; empty if it can."""
    node = state.node(target)
    if not target or node is None:
        return ["there is no second node in the cluster yet: install it"]
    wrong = []
    if not state.quorum:
        wrong.append("the cluster has no quorum")
    if state.maintenance or node.maintenance:
        wrong.append("the cluster is in maintenance mode: crm maintenance off")
    if not node.online or node.unclean:
        wrong.append(f"{target} is not online: check its power and its cluster link")
    elif node.pending:
        wrong.append(f"{target} is just joining the cluster: wait a minute")
    elif node.standby:
        wrong.append(f"{target} is in standby: asha online {target}")
    seen = state.attribute(target, lan.ATTRIBUTE)
    if seen in (lan.NO_CARRIER, lan.NO_ANSWER):
        wrong.append(f"the LAN of {target} is dead ({seen}): check its cable and the switch")
    wrong += _disk_obstacles(disks)
    for ban in state.bans:
        if ban.node == target and ban.id.startswith("drbd-fence"):
            wrong.append(f"DRBD keeps {ban.resource} off {target} until its disk is the same: "
                         "asha sync --watch")
        elif ban.node == target:
            wrong.append(f"{ban.resource} may not run on {target} ({ban.id}): "
                         f"crm resource clear {ban.resource}")
    for failure in state.failures:
        if failure.node == target and failure.resource in VITAL and not failure.is_degraded:
            why = f": {failure.reason}" if failure.reason else ""
            wrong.append(f"{failure.resource} failed there ({failure.action}{why}): fix it, then: "
                         f"crm resource cleanup {failure.resource}")
    return wrong


def _disk_obstacles(disks: Disks | None) -> list[str]:
    if disks is None:
        return ["DRBD does not tell how the disks stand: asha sync"]
    if disks.syncing:
        return [f"the disks are resynchronising ({render.sync(disks)}): asha sync --watch"]
    if not disks.in_sync:
        return [f"the disks are not in sync: {render.disks(disks)}"]
    return []


def refuse(target: str, wrong: list[str]) -> None:
    """Raises UserError with all obstacles, if there are any."""
    if wrong:
        raise UserError(f"{target or 'the other node'} cannot take over now:",
                      "nothing was changed", points=wrong)


def elsewhere(services: tuple[Service, ...], target: str) -> list[str]:
    """The parts of the telephone system that do not (yet) work on ``target``."""
    return [service.title for service in services
            if not (service.runs and service.nodes == (target,))]
