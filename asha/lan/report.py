"""What the watcher tells Pacemaker, each time within a deadline and without ever raising."""

from __future__ import annotations

from asha.cluster import pacemaker
from asha.errors import UserError
from asha.lan import ADDRESS, ATTRIBUTE, OK
from asha.run.deadline import Deadline
from asha.run.results import AgentError
from asha.run.runner import Completed, Runner
from asha.run.text import printable
from asha.terminal import warn

# Seconds. While one waits nothing else is seen: short.
TELL_SECONDS = 3.0
FAIL_SECONDS = 5.0

LOOK = ("crm_mon", "-1", "--output-as=xml", "--inactive")

# The replicated disk in cib/asha.crm.
DISK = "p_drbd"
# By how much the other node's disk may be worse: less than the 3000 of l_lan (cib/asha.crm), as
# Pacemaker counts other scores too. A disk that is not UpToDate is 9000 worse.
LAN_WORTH = 1000
# What must be Pacemaker's to stop and to start.
MOVING = (pacemaker.TELEPHONES, "p_mysql", "p_apache")


class Cluster:
    """Pacemaker, as the node called ``node`` sees it."""

    def __init__(self, node: str, runner: Runner | None = None) -> None:
        self.node = node
        self._runner = runner or Runner()
        self._complained = False

    def tell(self, value: str) -> bool:
        """Set this node's attribute; again, it changes nothing. False when not heard."""
        done = self._run(TELL_SECONDS, "attrd_updater", "--name", ATTRIBUTE, "--update", value)
        return done is not None

    def withdraw(self, seconds: float = TELL_SECONDS) -> bool:
        """Nothing is known any more of this node's LAN."""
        return self._run(seconds, "attrd_updater", "--name", ATTRIBUTE, "--delete") is not None

    def has_address(self) -> bool | None:
        """Whether Pacemaker believes that the virtual address is here and has nothing to do
        with its going: it manages it, has it started on this node, and no action of it is
        under way. None when not known."""
        said = self._run(TELL_SECONDS, *LOOK)
        if said is None:
            return None
        try:
            state = pacemaker.parse(said.out)
        except UserError:
            return None
        here = [one.lower() for one in state.where(ADDRESS, "Started")]
        managed = all(one.managed for one in state.of(ADDRESS))
        return managed and not state.maintenance and here == [self.node.lower()]

    def is_left_for_another(self) -> bool:
        """Whether the telephones would leave this node if its LAN were dead: Pacemaker manages
        them, and another node can have them, by its LAN and by its disk."""
        said = self._run(TELL_SECONDS, *LOOK)
        if said is None:
            return False
        try:
            state = pacemaker.parse(said.out)
        except UserError:
            return False
        managed = all(one.managed for name in MOVING for one in state.of(name))
        copies = state.where(DISK, "Unpromoted")
        others = [
            node.name.lower() for node in state.nodes if node.name.lower() != self.node.lower()
            and node.name in copies and node.online and not (node.standby or node.maintenance)
            and state.attribute(node.name, ATTRIBUTE) == OK
        ]
        if not (managed and others) or state.maintenance:
            return False
        disks = self._disks()
        own = disks.get(self.node.lower(), 0)
        return any(disks.get(name, 0) > max(0, own - LAN_WORTH) for name in others)

    def _disks(self) -> dict[str, int]:
        """By node, in lower case: what DRBD's agent thinks of its disk. A resync that is under
        way outweighs the LAN (cib/asha.crm, l_lan)."""
        said = self._run(TELL_SECONDS, "attrd_updater", "--query", "--all", "--name",
                         f"master-{DISK}")
        found = {}
        for line in said.out.splitlines() if said else []:
            fields = dict(part.split("=", 1) for part in line.split() if "=" in part)
            value = fields.get("value", "").strip('"')
            if value.isdecimal() and len(value) < pacemaker.DIGITS_MOST:
                found[fields.get("host", "").strip('"').lower()] = int(value)
        return found

    def has_better_lan(self) -> bool:
        """Whether another node's watcher says that its LAN works, by the latest news."""
        said = self._run(TELL_SECONDS, "attrd_updater", "--query", "--all", "--name", ATTRIBUTE)
        # One line for each node: name="asha-lan" host="crm1" value="ok"
        return said is not None and any(
            f' value="{OK}"' in line and f' host="{self.node}"'.lower() not in line.lower()
            for line in said.out.splitlines()
        )

    def fail_address(self) -> bool:
        """Have Pacemaker restart the address. False when not heard."""
        done = self._run(FAIL_SECONDS, "crm_resource", "--fail", "--resource", ADDRESS,
                         "--node", self.node)
        return done is not None

    def _run(self, seconds: float, *argv: str) -> Completed | None:
        """How it ended well; None otherwise, which is said once until it ends well again."""
        try:
            done = self._runner.run(argv, Deadline(seconds))
            trouble = "" if done.ok else f"{argv[0]}: {done.complaint}"
        except AgentError as problem:
            done, trouble = None, problem.reason
        if done is not None and not trouble:
            self._complained = False
            return done
        if not self._complained:
            warn(printable(f"Pacemaker does not hear: {trouble}"))
            self._complained = True
        return None
