"""The cluster as an outsider sees it: what runs where, what must hold, the data.

Only ``crm_mon`` is asked what Pacemaker believes. What is true (addresses,
processes, mounts, the line) is looked up on the host, behind Pacemaker's back.

crm_mon's XML is read here by a parser of its own, although asha.cluster.pacemaker has
one: a test must not believe the product's eyes. A mistake in those would hide itself.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from xml.etree import ElementTree

from tests.lab.host import LabError, wait_for, wait_steady
from tests.lab.lab import REPOSITORY, VIRTUAL_ADDRESS, Lab
from tests.lab.network import SWITCHBOARD_ADDRESS
from tests.lab.node import Node

CIB = REPOSITORY / "cib/asha.crm"
# By which the active node sends from the virtual address; a stack may be without.
SOURCE = "p_source"
SINGLES = ("p_fs", "p_data", "p_ip", SOURCE, "p_asterisk", "p_mysql", "p_apache")
CLONES = ("p_drbd", "p_line")
DISK_ALONE = ("p_drbd",)
# More than the two minutes after which Pacemaker forgets that a disk was not promoted.
READY_SECONDS = 150.0
# The slowest that puts something right is lan-source's monitor, every 20 s.
AUDIT_SECONDS = 40.0
# As attrd_updater prints it.
ATTRIBUTE = re.compile(r'host="([^"]+)" value="([^"]*)"')


@dataclass
class State:
    """What crm_mon says. Resources that are on their way count as not there."""

    dc: str = ""
    quorum: bool = False
    online: list[str] = field(default_factory=list)
    standby: list[str] = field(default_factory=list)
    started: dict[str, list[str]] = field(default_factory=dict)
    promoted: dict[str, list[str]] = field(default_factory=dict)
    unpromoted: dict[str, list[str]] = field(default_factory=dict)
    busy: bool = False
    failures: list[str] = field(default_factory=list)

    @property
    def active(self) -> str:
        """The node that runs Asterisk, "" when none does."""
        nodes = self.started.get("p_asterisk", [])
        return nodes[0] if len(nodes) == 1 else ""


@dataclass(frozen=True)
class Data:
    """What was written before a fault, and must be there after it."""

    tag: str
    cdr_csv: int
    cdr_sql: int
    voicemails: int


class Cluster:
    """The cluster in a lab whose nodes are up.

    ``members``: only these are its nodes, the others still a customer's boxes.
    """

    def __init__(self, lab: Lab, members: Sequence[str] = ()) -> None:
        self.lab = lab
        self.members = list(members or lab.nodes)
        # What must run: those of the shipped configuration.
        self.singles: Sequence[str] = SINGLES
        self.clones: Sequence[str] = CLONES if lab.has_line else DISK_ALONE

    @property
    def running(self) -> list[Node]:
        return [node for node in self.lab.running if node.name in self.members]

    # Pacemaker's view.

    def state(self) -> State:
        """From any node that answers; an empty state when none does."""
        return next((state for node in self.running if (state := self._seen_by(node)).dc), State())

    def agree(self) -> bool:
        """Whether all nodes see the same. One that stood still believes for a while what was so
        before, while the others have gone on."""
        seen = [self._seen_by(node) for node in self.running]
        return all(
            (one.dc, sorted(one.online), one.active)
            == (seen[0].dc, sorted(seen[0].online), seen[0].active) for one in seen
        )

    def _seen_by(self, node: Node) -> State:
        """An empty state where Pacemaker does not answer."""
        try:
            said = node.run(
                "crm_mon", "-1", "--output-as=xml", "--inactive", check=False, timeout=20
            )
        except LabError:
            return State()  # also one that has just gone off
        if (said.ok and "<crm_mon" in said.out) or "<pacemaker-result" in said.out:
            return parse_state(said.out)
        return State()

    def lans(self) -> dict[str, str]:
        """What each node's watcher has told of its LAN, by node."""
        said = self.running[0].run("attrd_updater", "--query", "--all", "--name", "asha-lan",
                                   check=False)
        return dict(ATTRIBUTE.findall(said.out))

    def load(self, text: str | None = None) -> None:
        """Load the shipped configuration as a user does, and wait until it runs."""
        node = self.running[0]
        wait_for(lambda: bool(self.state().dc), "a DC", timeout=READY_SECONDS)
        wait_for(
            lambda: len(self.state().online) == len(self.running),
            "both nodes online", timeout=READY_SECONDS,
        )
        node.write("/root/asha.crm", text if text is not None else CIB.read_text())
        node.run("crm", "configure", "load", "update", "/root/asha.crm", timeout=60)
        self.wait_ready()

    def wait_ready(self, active: str = "", timeout: float = READY_SECONDS) -> str:
        """Until everything runs, on one node, and nothing is on its way.

        Returns that node's name. ``active``: it must be this one.
        """
        seen: list[State] = [State()]

        def ready() -> bool:
            seen[0] = state = self.state()
            return not self.not_ready(state) and active in ("", state.active) and self.agree()

        try:
            wait_for(ready, "the cluster to be ready", timeout=timeout, every=0.25)
        except LabError as error:
            why = "; ".join(self.not_ready(seen[0])) or f"active is {seen[0].active}"
            raise LabError(f"{error}: {why}; failures: {seen[0].failures}") from None
        return seen[0].active

    def wait_settled(self) -> None:
        """Until it has been ready for a while: Pacemaker may be about to do something."""
        wait_steady(lambda: not self.not_ready(self.state()), "the cluster to have settled",
                    timeout=READY_SECONDS)

    def not_ready(self, state: State) -> list[str]:
        """What is missing; empty when the cluster is as it should be."""
        up = sorted(node.name for node in self.running)
        wrong = []
        if not state.dc:
            return ["no DC"]
        if sorted(state.online) != up:
            wrong.append(f"online: {state.online}, switched on: {up}")
        if state.busy:
            wrong.append("an action is pending")
        for name in self.singles:
            nodes = state.started.get(name, [])
            if len(nodes) != 1 or nodes[0] != state.active:
                wrong.append(f"{name} is started on {nodes or 'no node'}")
        usable = [node for node in up if node not in state.standby]
        for name in self.clones:
            if state.promoted.get(name, []) != [state.active]:
                wrong.append(f"{name} is promoted on {state.promoted.get(name, []) or 'no node'}")
            others = sorted(state.unpromoted.get(name, []))
            if others != [node for node in usable if node != state.active]:
                wrong.append(f"{name} is unpromoted on {others}")
        return wrong

    def active(self) -> Node:
        """Which Pacemaker calls so, once it does: between two DCs it knows nobody."""
        found = [""]

        def known() -> bool:
            found[0] = self.state().active
            return bool(found[0])

        wait_for(known, "one node to be active")
        return self.lab.node(found[0])

    def passive(self) -> Node:
        active = self.active()
        return next(node for node in self.running if node is not active)

    def standby(self, node: Node) -> None:
        node.run("crm", "node", "standby", node.name)
        self._await_standby(node, True)

    def online(self, node: Node) -> None:
        node.run("crm", "node", "online", node.name)
        self._await_standby(node, False)

    def _await_standby(self, node: Node, is_so: bool) -> None:
        """Until each node knows: the configuration is written on the DC, and comes to the other
        a moment later."""
        wait_for(
            lambda: all((node.name in seen.standby) is is_so
                        for seen in map(self._seen_by, self.running) if seen.dc),
            f"all to know that {node.name} is {'in standby' if is_so else 'online'}",
        )

    def heal(self) -> str:
        """Undo every fault there may be: power, cables, standby, failures, relay."""
        for node in self.lab.nodes.values():
            if not node.is_up:
                self.lab.node(node.name).boot()
            for nic in node.addresses:
                node.restore(nic)
        if self.lab.has_line:
            self.lab.line_switch.plug()
        wait_for(
            lambda: len(self.state().online) == len(self.members),
            "all nodes online", timeout=READY_SECONDS,
        )
        for name in self.state().standby:
            self.online(self.lab.node(name))
        # A cleanup in the midst of a start has Pacemaker forget that, and wait for its
        # timeout (seen: 90 s).
        wait_steady(self._rests, "Pacemaker to rest", timeout=READY_SECONDS)
        self.running[0].run("crm_resource", "--cleanup")
        return self.wait_ready()

    def _rests(self) -> bool:
        state = self.state()
        return bool(state.dc) and not state.busy

    # What must hold, whatever happened.

    def audit(self) -> list[str]:
        """Every invariant that does not hold, in words; empty when all is well.

        What is missing may come within moments of Pacemaker's being content (the line, the
        routes), so it is given those. What two nodes have at once counts the moment it is seen.
        """
        seen: list[list[str]] = [[]]

        def over() -> bool:
            found, doubled = self._look_behind()
            seen[0] = found
            return not found or doubled

        try:
            wait_for(over, "the invariants", timeout=AUDIT_SECONDS, every=0.25)
        except LabError:
            pass  # who asks gets what does not hold
        return seen[0]

    def _look_behind(self) -> tuple[list[str], bool]:
        """What does not hold now, and whether two nodes have what only one may."""
        wrong = []
        holders: dict[str, list[str]] = {
            "the virtual address": [],
            "a mounted store": [],
            "the store's device": [],
        }
        processes = {name: dict.fromkeys(self.members, 0)
                     for name in ("asterisk", "mariadbd")}
        apache: list[str] = []
        for node in self.running:
            addresses = node.run("ip", "-o", "-4", "addr", "show").out
            if f" {VIRTUAL_ADDRESS}/" in addresses:
                holders["the virtual address"].append(node.name)
            mounts = node.path("/proc/1/mounts").read_text()
            if " /drbd " in mounts:
                holders["a mounted store"].append(node.name)
            if node.holds_disk:
                holders["the store's device"].append(node.name)
            for name in processes:
                processes[name][node.name] = len(node.pids(name))
            if node.pids("apache2"):
                apache.append(node.name)
        for what, nodes in holders.items():
            if len(nodes) != 1:
                wrong.append(f"{what} is on {nodes or 'no node'}")
        for what, counts in processes.items():
            if sum(counts.values()) != 1:
                wrong.append(f"{what} runs {counts}")
        if len(apache) != 1:
            wrong.append(f"Apache runs on {apache or 'no node'}")
        active = holders["the virtual address"]
        if SOURCE in self.singles:
            wrong += self._wrong_sources(active)
        for what, nodes in holders.items():
            if nodes != active:
                wrong.append(f"{what} is on {nodes}, the address on {active}")
        for what, counts in processes.items():
            if [name for name, count in counts.items() if count] != active:
                wrong.append(f"{what} is not where the address is: {counts}")
        line = self.lab.line_goes_to()
        if self.lab.has_line and active and [line] != active:
            wrong.append(f"the line goes to {line}, the calls are on {active}")
        return wrong, any(len(nodes) > 1 for nodes in holders.values())

    def _wrong_sources(self, active: Sequence[str]) -> list[str]:
        """Who does not send from the address that it should."""
        wrong = []
        for node in self.running:
            routes = [node.run("ip", "-4", "route", *words).out
                      for words in (("get", SWITCHBOARD_ADDRESS), ("show",))]
            named = [f"src {VIRTUAL_ADDRESS} " in text for text in routes]
            if node.name in active and not named[0]:
                wrong.append(f"{node.name} does not send from the address: {routes[0].strip()}")
            if node.name not in active and any(named):
                wrong.append(f"{node.name} sends from the address of {active}: {routes[1]}")
        return wrong

    # Data that a customer would miss.

    def write_data(self) -> Data:
        """An AstDB key, a call record, a voicemail and a SARK row, by real calls."""
        node = self.active()
        tag = f"tag{time.monotonic_ns()}"
        before = self._count(node)
        asterisk(node, f"database put asha tag {tag}")
        node.run(
            "sqlite3", "-cmd", ".timeout 5000", "/opt/sark/db/sark.db",
            f"UPDATE globals SET SITENAME='{tag}' WHERE pkey='global'",
        )
        asterisk(node, "channel originate Local/100@lab application Wait 1")
        asterisk(node, "channel originate Local/102@lab application Playback tt-monkeys")

        def written() -> bool:
            now = self._count(node)
            return all(later > earlier for later, earlier in zip(now, before, strict=True))

        wait_for(written, "the call records and the voicemail", timeout=60, every=0.5)
        # What the programs have not yet given to the disk they may lose.
        node.run("sync", "--file-system", "/drbd")
        return Data(tag, *self._count(node))

    def lost_data(self, data: Data) -> list[str]:
        """What of it is gone, in words."""
        node = self.active()
        lost = []
        if data.tag not in asterisk(node, "database get asha tag"):
            lost.append("the AstDB key")
        site = node.run(
            "sqlite3", "/opt/sark/db/sark.db", "SELECT SITENAME FROM globals WHERE pkey='global'"
        ).out.strip()
        if site != data.tag:
            lost.append(f"the SARK row (it says {site!r})")
        csv, sql, voicemails = self._count(node)
        for what, now, then in (
            ("call records in CSV", csv, data.cdr_csv),
            ("call records in MariaDB", sql, data.cdr_sql),
            ("voicemails", voicemails, data.voicemails),
        ):
            if now < then:
                lost.append(f"{what} ({then} before, {now} now)")
        return lost

    def _count(self, node: Node) -> tuple[int, int, int]:
        csv = node.path("/var/log/asterisk/cdr-csv/Master.csv")
        lines = len(csv.read_bytes().splitlines()) if csv.exists() else 0
        said = node.run(
            "mariadb", "--batch", "--skip-column-names", "-e", "SELECT COUNT(*) FROM asterisk.cdr",
            check=False,
        )
        rows = int(said.out) if said.ok else -1
        box = node.path("/var/spool/asterisk/voicemail/default/200/INBOX")
        messages = len(list(box.glob("msg*.txt"))) if box.is_dir() else 0
        return lines, rows, messages

    # A call that must not be cut.

    def place_call(self) -> str:
        """A call that lasts until Asterisk ends; returns its channel's unique id."""
        node = self.active()
        asterisk(node, "channel originate Local/101@lab application Wait 3600")
        found: list[str] = []

        def up() -> bool:
            listed = asterisk(node, "core show channels concise").splitlines()
            found[:] = [line.split("!")[-1] for line in listed if "!101!" in line]
            return bool(found)

        wait_for(up, "the call to be up")
        return found[0]

    def call_is_up(self, unique_id: str) -> bool:
        return unique_id in asterisk(self.active(), "core show channels concise")


def asterisk(node: Node, command: str) -> str:
    """A command at Asterisk's console; what it printed."""
    return node.run("asterisk", "-rx", command, timeout=30).out


def parse_state(text: str) -> State:
    """crm_mon's XML (Pacemaker 2.1 and 3.0 alike)."""
    top = ElementTree.fromstring(text)
    state = State()
    dc = top.find("summary/current_dc")
    if dc is not None and dc.get("present") == "true":
        state.dc = dc.get("name", "")
        state.quorum = dc.get("with_quorum") == "true"
    for node in top.iterfind("nodes/node"):
        name = node.get("name", "")
        if node.get("online") == "true" and node.get("pending") != "true":
            state.online.append(name)
        if node.get("standby") == "true":
            state.standby.append(name)
    for resource in top.iter("resource"):
        name = resource.get("id", "").split(":")[0]
        if resource.get("pending") and resource.get("pending") != "Monitoring":
            state.busy = True
            continue
        if resource.get("failed") == "true" or resource.get("active") != "true":
            continue
        place = {
            "Started": state.started,
            "Promoted": state.promoted,
            "Unpromoted": state.unpromoted,
        }.get(resource.get("role", ""))
        if place is None:
            state.busy = True
            continue
        where = [node.get("name", "") for node in resource.iterfind("node")]
        place.setdefault(name, []).extend(where)
    for failure in top.iterfind("failures/failure"):
        state.failures.append(
            f"{failure.get('op_key')} on {failure.get('node')}: "
            f"{failure.get('exitstatus')} {failure.get('exitreason') or ''}".strip()
        )
    return state

