"""The state of the cluster, from one run of crm_mon (XML).

The same for Pacemaker 2.1 and 3.0 (API 2.25 and 2.38; /usr/share/pacemaker/api/crm_mon-*.rng).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from asha.errors import UserError
from asha.machine import Machine

COMMAND = ("crm_mon", "-1", "--output-as=xml", "--inactive")
LOOK_SECONDS = 15.0

# Exit codes of what works and should be looked at; Pacemaker 3.0 words them "Service is
# active but might fail soon".
DEGRADED = ("190", "191")

# The active node is the one that runs it.
TELEPHONES = "p_asterisk"
# Of a number; Python refuses to read 4300.
DIGITS_MOST = 20


@dataclass(frozen=True)
class Node:
    name: str
    online: bool
    standby: bool = False
    pending: bool = False
    unclean: bool = False
    maintenance: bool = False
    is_dc: bool = False


@dataclass(frozen=True)
class Resource:
    """One instance; a clone has several of one id. ``node`` is "" where it runs nowhere.

    ``role``: Started, Stopped, Promoted, Unpromoted, or on the way: Starting, Stopping...
    ``pending``: the action that is under way ("Starting", "Promoting"...), "" if none;
    monitors do not count.
    """

    id: str
    agent: str
    role: str
    node: str
    active: bool
    failed: bool
    blocked: bool
    managed: bool
    pending: str


@dataclass(frozen=True)
class Failure:
    """``when`` is local time, without a zone; None where crm_mon does not tell."""

    resource: str
    action: str
    node: str
    status: str
    reason: str
    when: datetime | None
    code: str = ""

    @property
    def is_degraded(self) -> bool:
        """Whether the resource works: crm_mon lists it with the failures, and the reason says
        what somebody should look at."""
        return self.code in DEGRADED


@dataclass(frozen=True)
class Ban:
    """A rule that keeps a resource off a node: DRBD's (drbd-fence-by-handler-...) until the
    resync has ended, or one that a person's "move" or "ban" left (cli-...)."""

    id: str
    resource: str
    node: str


@dataclass(frozen=True)
class Event:
    """Where and when (local time) the telephones were last started, or stopped."""

    node: str
    when: datetime


@dataclass(frozen=True)
class Attribute:
    """An attribute that an agent sets for a node, such as asha-line; gone when the node leaves."""

    node: str
    name: str
    value: str


@dataclass(frozen=True)
class State:
    dc: str
    quorum: bool
    nodes: tuple[Node, ...]
    resources: tuple[Resource, ...]
    failures: tuple[Failure, ...]
    bans: tuple[Ban, ...]
    stonith_enabled: bool
    maintenance: bool
    last_change: datetime | None
    last_start: Event | None
    last_stop: Event | None = None
    attributes: tuple[Attribute, ...] = ()
    # (resource, node): it has failed there as often as it may.
    worn_out: frozenset[tuple[str, str]] = frozenset()
    # (clone, agent): what it is a clone of.
    clones: frozenset[tuple[str, str]] = frozenset()

    @property
    def active_node(self) -> str:
        """The node where the telephones run; "" if nowhere, if they are moving, or on two
        nodes."""
        where = self.where(TELEPHONES, "Started")
        return where[0] if len(where) == 1 else ""

    @property
    def has_fencing(self) -> bool:
        """Whether fencing is enabled and has a device."""
        devices = any(resource.agent.startswith("stonith:") for resource in self.resources)
        return self.stonith_enabled and devices

    @property
    def busy(self) -> bool:
        """Whether a resource is being started, stopped, promoted or demoted."""
        return any(resource.pending for resource in self.resources)

    def node(self, name: str) -> Node | None:
        return next((node for node in self.nodes if node.name.lower() == name.lower()), None)

    def attribute(self, node: str, name: str) -> str:
        """The attribute's value, "" without it."""
        found = (one.value for one in self.attributes if (one.node, one.name) == (node, name))
        return next(found, "")

    def of(self, identity: str) -> list[Resource]:
        """Every instance of a resource, by its primitive's id."""
        return [resource for resource in self.resources if resource.id == identity]

    def where(self, identity: str, role: str) -> list[str]:
        """The nodes on which it works in that role, and is not leaving it."""
        return [
            resource.node for resource in self.of(identity)
            if resource.role == role and resource.active and resource.node
            and not resource.failed and not resource.pending
        ]


def look(machine: Machine) -> State:
    """Raises UserError if Pacemaker does not run on this machine."""
    said = machine.run(*COMMAND, timeout=LOOK_SECONDS, check=False)
    if not said.ok:
        raise UserError("Pacemaker does not run on this node",
                      "systemctl start corosync pacemaker; journalctl -u pacemaker tells why not")
    return parse(said.out)


def parse(text: str) -> State:
    """Parse crm_mon's XML. Raises UserError if it is none."""
    try:
        top = ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError) as problem:
        raise UserError(f"crm_mon says what cannot be understood: {problem}") from None
    dc = top.find("summary/current_dc")
    options = top.find("summary/cluster_options")
    change = top.find("summary/last_change")
    present = dc is not None and _yes(dc, "present")
    return State(
        dc=dc.get("name", "") if dc is not None and present else "",
        quorum=dc is not None and present and _yes(dc, "with_quorum"),
        nodes=tuple(_node(node) for node in top.iterfind("nodes/node")),
        resources=tuple(_resource(one) for one in top.iterfind("resources//resource")),
        failures=tuple(_failure(failure) for failure in top.iterfind("failures/failure")),
        bans=tuple(
            Ban(ban.get("id", ""), ban.get("resource", ""), ban.get("node", ""))
            for ban in top.iterfind("bans/ban")
        ),
        stonith_enabled=options is not None and _yes(options, "stonith-enabled"),
        maintenance=options is not None and _yes(options, "maintenance-mode"),
        last_change=_when(change.get("time", "")) if change is not None else None,
        last_start=_last(top, "start"),
        last_stop=_last(top, "stop"),
        attributes=tuple(
            Attribute(node.get("name", ""), one.get("name", ""), one.get("value", ""))
            for node in top.iterfind("node_attributes/node") for one in node.iterfind("attribute")
        ),
        worn_out=frozenset(
            (one.get("id", "").split(":")[0], node.get("name", ""))
            for node in top.iterfind("node_history/node")
            for one in node.iterfind("resource_history")
            if 0 < _count(one, "migration-threshold") <= _count(one, "fail-count")
        ),
        clones=frozenset(
            (clone.get("id", ""), one.get("resource_agent", ""))
            for clone in top.iterfind("resources/clone") for one in clone.iterfind(".//resource")
        ),
    )


def _count(element: Element, name: str) -> int:
    """0 without it; "INFINITY" is Pacemaker's million."""
    text = element.get(name, "")
    if text == "INFINITY":
        return 1_000_000
    return int(text) if text.isdecimal() and len(text) < DIGITS_MOST else 0


def _yes(element: Element, name: str) -> bool:
    return element.get(name) == "true"


def _node(node: Element) -> Node:
    return Node(
        name=node.get("name", ""),
        online=_yes(node, "online"),
        standby=_yes(node, "standby") or _yes(node, "standby_onfail"),
        pending=_yes(node, "pending"),
        unclean=_yes(node, "unclean"),
        maintenance=_yes(node, "maintenance"),
        is_dc=_yes(node, "is_dc"),
    )


def _resource(resource: Element) -> Resource:
    where = resource.find("node")
    pending = resource.get("pending", "")
    return Resource(
        # Clones that are not anonymous have names with a number behind a colon.
        id=resource.get("id", "").split(":")[0],
        agent=resource.get("resource_agent", ""),
        role=resource.get("role", ""),
        node=where.get("name", "") if where is not None else "",
        active=_yes(resource, "active"),
        failed=_yes(resource, "failed"),
        blocked=_yes(resource, "blocked"),
        managed=_yes(resource, "managed"),
        pending="" if pending == "Monitoring" else pending,
    )


def _failure(failure: Element) -> Failure:
    # op_key is RESOURCE_ACTION_INTERVAL, and resources have underscores in their names.
    key = failure.get("op_key", "").rsplit("_", 2)
    return Failure(
        resource=key[0],
        action=failure.get("task") or (key[1] if len(key) == 3 else ""),
        node=failure.get("node", ""),
        status=failure.get("exitstatus", ""),
        reason=failure.get("exitreason", ""),
        when=_when(failure.get("last-rc-change", "")),
        code=failure.get("exitcode", ""),
    )


def _last(top: Element, task: str) -> Event | None:
    """From the history that each node keeps of its actions. A node that crashed has none left:
    what counts is where the telephones went."""
    found = []
    for node in top.iterfind("node_history/node"):
        for resource in node.iterfind("resource_history"):
            if resource.get("id") != TELEPHONES:
                continue
            for operation in resource.iterfind("operation_history"):
                when = _when(operation.get("last-rc-change", ""))
                good = operation.get("task") == task and operation.get("rc") == "0"
                if good and when is not None:
                    found.append(Event(node.get("name", ""), when))
    return max(found, key=lambda event: event.when, default=None)


def _when(text: str) -> datetime | None:
    """crm_mon writes ctime(3), and ISO 8601 with a zone for failures."""
    try:
        return datetime.strptime(text, "%a %b %d %H:%M:%S %Y")
    except ValueError:
        pass
    try:
        # The interpreter of Debian 12 takes no blank before the zone.
        found = datetime.fromisoformat(text.replace(" +", "+").replace(" -", "-"))
    except ValueError:
        return None
    return found.astimezone().replace(tzinfo=None) if found.tzinfo else found
