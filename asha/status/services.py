"""Pacemaker's resources in plain words."""

from __future__ import annotations

from datetime import datetime

from asha.asterisk import HANG_ATTRIBUTE
from asha.cluster.pacemaker import Failure, Resource, State
from asha.lan import ADDRESS
from asha.run.text import number
from asha.status.model import Service

# In the order in which a person asks for them; others follow under their own names.
TITLES = {
    "p_asterisk": "telephones (Asterisk)",
    "p_ip": "address",
    "p_source": "source address",
    "p_mysql": "database (MariaDB)",
    "p_apache": "web panel (Apache)",
    "p_fs": "store",
    "p_data": "data in its places",
    "p_drbd": "replicated disk",
    "p_line": "telephone line",
}

# Pacemaker's name for a failure that it was told of (crm_resource --fail); its own
# words for it, "Simulated failure", would mislead. See asha/asterisk/process/death_notice.py
# and asha/lan/report.py.
TOLD = "asyncmon"
# Seconds from that to the word of what it was (asha/agents/watch/judge.py).
HANG_WITHIN = 15


def services(state: State) -> tuple[Service, ...]:
    """Each primitive once. Of a promotable clone the promoted instance counts. Fence devices
    are not services."""
    known = [one for one in state.resources if not one.agent.startswith("stonith:")]
    ids = [identity for identity in TITLES if state.of(identity)]
    ids += sorted({one.id for one in known} - TITLES.keys())
    return tuple(_service(state, identity) for identity in ids)


def _service(state: State, identity: str) -> Service:
    instances = state.of(identity)
    known = sorted((one for one in state.failures if one.resource == identity),
                   key=lambda one: one.when or datetime.min)
    real = [one for one in known if not one.is_degraded]
    stops = [one for one in real if one.action == "stop"]
    stuck = stops[-1] if stops and any(one.blocked for one in instances) else None
    # A failure is told before what only was degraded, and what is stuck before all.
    failure = stuck or next(reversed(real or known), None)
    promotable = any(one.role in ("Promoted", "Unpromoted") for one in instances)
    role = "Promoted" if promotable else "Started"
    nodes = state.where(identity, role)
    return Service(
        id=identity,
        title=TITLES.get(identity, identity),
        state=_state(instances, nodes, bool(real)),
        nodes=tuple(sorted(nodes)),
        why=_why(state, failure) if failure else "",
        action=failure.action if failure else "",
        degraded=failure is not None and failure.is_degraded,
        failed_on=failure.node if failure else "",
        code=failure.code if failure else "",
        blocked_on=stuck.node if stuck else "",
        given_up_on=() if any(one.active or one.pending for one in instances) else tuple(
            node.name for node in state.nodes if (identity, node.name) in state.worn_out
        ),
    )


def _state(instances: list[Resource], nodes: list[str], has_failed: bool) -> str:
    pending = next((one.pending.lower() for one in instances if one.pending), "")
    if any(one.failed or one.blocked for one in instances):
        return "failed"
    if nodes:
        return "running" if all(one.managed for one in instances) else "unmanaged"
    if pending:
        return "stopping" if pending in ("stopping", "demoting") else "starting"
    if any(one.role in ("Starting", "Stopping") for one in instances):
        return "starting" if any(one.role == "Starting" for one in instances) else "stopping"
    return "failed" if has_failed else "stopped"


def _why(state: State, failure: Failure) -> str:
    when = f" at {failure.when:%H:%M:%S}" if failure.when else ""
    if (failure.resource, failure.action) == ("p_asterisk", TOLD):
        hang = _hang(state, failure)
        if hang:
            return f"Asterisk hung on {failure.node}{when}: {hang} (asha evidence list)"
        return f"Asterisk died on {failure.node}{when}, which systemd saw: journalctl -u asterisk"
    if (failure.resource, failure.action) == (ADDRESS, TOLD):
        return f"it was deleted on {failure.node}{when}, and put back: journalctl -u asha-lan"
    how = "was degraded" if failure.is_degraded else f"{failure.action} failed"
    return (f"{how} on {failure.node}{when}: "
            f"{failure.reason or failure.status or 'no reason given'}")


def _hang(state: State, failure: Failure) -> str:
    """Why this failure was told, "" if it was not for a hang."""
    moment, _, reason = state.attribute(failure.node, HANG_ATTRIBUTE).partition(" ")
    seconds = number(moment)
    if seconds is None or failure.when is None:
        return ""
    return reason if abs(failure.when.timestamp() - seconds) <= HANG_WITHIN else ""
