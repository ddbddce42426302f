"""Collects a Status from everything that can be asked, within ten seconds in all.

Each source may be missing, hang or be broken: then what it knows stays unknown, and the others
still answer.
"""

from __future__ import annotations

import dataclasses
import os
import re
import time
from datetime import datetime, timedelta

from asha import lan
from asha.asterisk import ATTRIBUTE as ASTERISK_ATTRIBUTE
from asha.asterisk.process import deaths
from asha.bootstrap.join import rotation
from asha.cluster import cib, generation, pacemaker
from asha.cluster import site as conf
from asha.cluster.cib import MARKER
from asha.cluster.pacemaker import State
from asha.cluster.site import Site, SiteError
from asha.data import space
from asha.errors import UserError
from asha.lan import SOURCE_ATTRIBUTE
from asha.machine import DeadlineMachine, Machine
from asha.ocf.attributes import DEGRADED
from asha.run.child import in_child
from asha.run.deadline import Deadline
from asha.run.results import AgentError
from asha.status import advice, calls, switchover, telephone
from asha.status.advice import Context
from asha.status.calls import Calls
from asha.status.model import (
    Address,
    CrashLoop,
    Generation,
    Line,
    Link,
    Node,
    Status,
    Store,
)
from asha.status.replication import DiskSight
from asha.status.services import services

# All of it, leaving the interpreter's own start and end out of ten.
SECONDS = 9.0
# Of one program that does not answer.
PROGRAM_SECONDS = 3.0
STORE = "/drbd"
STORE_SECONDS = 1.0

HANDOVER = "/var/lib/asha/handover.json"
LINE_ATTRIBUTE = "asha-line"
SPACE_ATTRIBUTE = "asha-data-space"
DAMAGE_ATTRIBUTE = "asha-data-warning"

# A stop on one node that long before the start on the other was the same move.
MOVE_TIME = timedelta(minutes=10)


def collect(machine: Machine, name: str = "", seconds: float = SECONDS) -> Status:
    """Ask everything, within ``seconds``. ``name`` is this node's, by default uname -n."""
    name = name or os.uname().nodename
    quick = DeadlineMachine(machine, Deadline(seconds), PROGRAM_SECONDS)
    site, trouble = _site(machine)
    begun = time.monotonic()
    try:
        state: State | None = pacemaker.look(quick)
    except UserError:
        state = None
    hangs = state is None and time.monotonic() - begun >= PROGRAM_SECONDS
    status = Status(
        time=_stamp(datetime.now()),
        node=name,
        site_id=site.site_id if site else "",
        configured=site is not None,
        installed=machine.exists(MARKER) or (
            bool(state.of("p_asterisk")) if state is not None else _is_saved(machine)),
        pacemaker=state is not None,
        address=Address(site.virtual_address, "") if site else None,
    )
    if state is not None:
        status = _from_cluster(status, state, site, name)
    other = _other(site, state, name)
    status = _with_telephone(status, other if state is None else "", quick.deadline)
    if status.active == name:
        patience = quick.deadline.remaining(calls.SECONDS)
        status = dataclasses.replace(status, calls=_calls(machine, patience))
    status = dataclasses.replace(
        status,
        disks=DiskSight(quick, name, other or "the other").look_closely(),
        links=_links(quick),
        store=_store(machine, quick.deadline),
        secrets=_secrets(quick, status),
    )
    about = dataclasses.replace(
        _circumstances(quick, status, state, site), other=other, pacemaker_hangs=hangs,
        trouble=tuple(trouble),
    )
    return dataclasses.replace(status, findings=advice.findings(status, about))


def _is_saved(machine: Machine) -> bool:
    """Whether Pacemaker would start the telephones if it ran."""
    try:
        return cib.is_saved(machine)
    except (UserError, OSError):
        return False


def _site(machine: Machine) -> tuple[Site | None, list[str]]:
    try:
        return conf.read(str(machine.path(conf.CONF))), []
    except FileNotFoundError:
        return None, []
    except OSError as problem:
        return None, [f"cannot read {conf.CONF}: {problem.strerror}"]
    except SiteError as wrong:
        return None, [f"{conf.CONF} is invalid: {one.what}" for one in wrong.findings]


def _other(site: Site | None, state: State | None, name: str) -> str:
    if site is not None:
        return site.second.name if site.first.name == name else site.first.name
    return switchover.other_node(state, name) if state is not None else ""


def _from_cluster(status: Status, state: State, site: Site | None, name: str) -> Status:
    active = state.active_node
    holder = state.where("p_ip", "Started")
    since, moved_from = _last_move(state)
    return dataclasses.replace(
        status,
        quorum=state.quorum,
        active=active,
        active_since=since,
        moved_from=moved_from,
        nodes=tuple(
            Node(node.name, _node_state(node), node.name == name, node.name == active,
                 state.attribute(node.name, lan.ATTRIBUTE))
            for node in state.nodes
        ),
        services=services(state),
        address=Address(site.virtual_address, holder[0] if len(holder) == 1 else "")
        if site else None,
        line=_line(state, site),
        crash_loops=_crash_loops(state),
    )


def _crash_loops(state: State) -> tuple[CrashLoop, ...]:
    """Those that are not over: who has lived for ten minutes has left it."""
    found = []
    for one in state.attributes:
        told = deaths.parse(one.value) if one.name == deaths.ATTRIBUTE else None
        if told is None or not told.is_loop:
            continue
        if time.time() - told.last < deaths.QUIET_SECONDS:
            when = _stamp(datetime.fromtimestamp(told.last))
            found.append(CrashLoop(one.node, told.count, told.between, when, told.how, told.core))
    return tuple(found)


def _node_state(node: pacemaker.Node) -> str:
    for word in ("unclean", "pending"):
        if getattr(node, word):
            return word
    if not node.online:
        return "offline"
    return "standby" if node.standby else "maintenance" if node.maintenance else "online"


def _last_move(state: State) -> tuple[str, str]:
    """Since when the telephones run where they run, and where they came from."""
    start, stop = state.last_start, state.last_stop
    if start is None or start.node != state.active_node:
        return "", ""
    came = stop is not None and stop.node != start.node and \
        timedelta() <= start.when - stop.when <= MOVE_TIME
    return _stamp(start.when), stop.node if stop is not None and came else ""


def _line(state: State, site: Site | None) -> Line | None:
    if not state.of("p_line"):
        return None
    card = next((one.node for one in state.attributes if one.name == LINE_ATTRIBUTE), "")
    card = card or (site.relay.node if site and site.relay else "")
    where = state.where("p_line", "Promoted")
    position = state.attribute(card, LINE_ATTRIBUTE) or "unknown"
    return Line(where[0] if len(where) == 1 else "", card or "an unknown node", position)


def _calls(machine: Machine, seconds: float) -> Calls:
    return calls.ask(str(machine.path(calls.SECRET)), seconds=seconds)


def _links(machine: Machine) -> tuple[Link, ...]:
    """``corosync-cfgtool -s``: each link with its address here and its state per node."""
    said = machine.output("corosync-cfgtool", "-s")
    found = []
    for part in said.split("LINK ID ")[1:]:
        number = re.match(r"\d+", part)
        address = re.search(r"addr\s*=\s*(\S+)", part)
        states = [state for state in re.findall(r"nodeid:\s*\d+:\s*(\S+)", part)
                  if state != "localhost"]
        bad = [state for state in states if state != "connected"]
        if number:
            found.append(Link(int(number[0]), address[1] if address else "",
                              bad[0] if bad else states[0] if states else "alone"))
    return tuple(found)


def _store(machine: Machine, deadline: Deadline) -> Store | None:
    """The room in the store, where it is mounted here. A stalled disk gives no answer."""
    point = str(machine.path(STORE))
    if not os.path.ismount(point):
        return None

    def measure() -> str:
        room = space.measure(point)
        return f"{room.free} {room.total}"

    try:
        free, total = in_child(measure, deadline.within(STORE_SECONDS), "asking for space").split()
    except AgentError:
        return None
    return Store(int(free), int(total))


def _generation(machine: Machine) -> str:
    try:
        return generation.text(machine)
    except (UserError, OSError):
        return ""


def _secrets(machine: Machine, status: Status) -> tuple[Generation, ...]:
    """The ids of each node that has told its own; this node's from its files."""
    found = []
    for node in status.nodes:
        said = _generation(machine) if node.here else ""
        said = said or machine.output("crm_attribute", "--node", node.name, "--name",
                                    generation.ATTRIBUTE, "--query", "--quiet").strip()
        if said:
            current, _, coming = said.partition(">")
            found.append(Generation(node.name, current, coming))
    return tuple(found)


def _with_telephone(status: Status, other: str, deadline: Deadline) -> Status:
    """With what a telephone hears from the virtual address, where this node has it, or
    Pacemaker does not tell (``other``: the node that then has it if this one has not)."""
    if status.address is None or not status.installed:
        return status
    address = status.address.address
    is_here = telephone.is_local(address)
    if status.pacemaker and not is_here:
        return status
    answers = telephone.answers(address, deadline.within(telephone.SECONDS))
    status = dataclasses.replace(status, address_answers=answers)
    if status.pacemaker:
        return status
    holder = status.node if is_here else other if answers else ""
    return dataclasses.replace(status, active=holder if answers else "",
                               address=Address(address, holder))


def _circumstances(machine: Machine, status: Status, state: State | None,
                   site: Site | None) -> Context:
    kept = switchover.preferences(machine) if state is not None else []
    synchronised = machine.output("timedatectl", "show", "--property=NTPSynchronized", "--value")
    active = status.active
    return Context(
        fencing=state.has_fencing if state is not None else None,
        two_nics=site.two_nics if site else True,
        second_ring=len(status.links) > 1 or (site.second_ring if site else True),
        lan_watched=site.watches_lan if site else False,
        alert=site.alert if site else "",
        cut_off=machine.exists(HANDOVER),
        clock_is_set={"yes": True, "no": False}.get(synchronised.strip()),
        space=state.attribute(active, SPACE_ATTRIBUTE) if state else "",
        damage=state.attribute(active, DAMAGE_ATTRIBUTE) if state else "",
        # A cluster that somebody built by hand has keys of his own.
        secret=_secret(machine) if machine.exists(MARKER) else ("", ""),
        asterisk=_degraded(state, active, ASTERISK_ATTRIBUTE),
        source=_degraded(state, active, SOURCE_ATTRIBUTE),
        kept=tuple(kept),
        bans=state.bans if state else (),
        maintenance=state.maintenance if state else False,
        sip_is_taken=status.address_answers is False and telephone.is_taken(),
    )


def _secret(machine: Machine) -> tuple[str, str]:
    """What is wrong with this node's secret, and the hint."""
    try:
        if generation.pending(machine) is None:  # a change that is half done is told otherwise
            rotation.require_in_use(machine, generation.current(machine))
    except UserError as trouble:
        return str(trouble), trouble.hint
    except OSError:
        pass  # it is root's
    return "", ""


def _degraded(state: State | None, active: str, attribute: str) -> str:
    return state.attribute(active, attribute).removeprefix(DEGRADED) if state else ""


def _stamp(moment: datetime) -> str:
    return moment.astimezone().isoformat(timespec="seconds")
