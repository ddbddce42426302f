"""rhino-relay: the telephone line goes where the calls are.

On the card's node, unpromoted holds the relay off and promoted holds it on. On the other node
both are only remembered: promoted there means that the card's node must be off, which Pacemaker
ensures by demoting before it promotes.

The last command is kept in a file that dies with the kernel, so a rebooted node is not running
and cannot claim the line. Every change is announced in that file before the card gets it, so an
action that is killed half way is seen.
"""

from __future__ import annotations

from asha.ocf import (
    Agent,
    AgentError,
    BadConfig,
    Choice,
    Degraded,
    DegradedPromoted,
    Exit,
    Failed,
    FailedPromoted,
    Integer,
    Path,
    String,
    action,
)
from asha.ocf.agent import GIVING_UP
from asha.relay import DRIVERS
from asha.relay.contract import NoRelay, Position, Relay, Settings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asha.ocf import Context

# The card's position as its node last commanded it: on, off, either with
# "-unconfirmed" from a card without read-back, or unknown. Shown by crm_mon -A.
ATTRIBUTE = "asha-line"

# The same on both nodes: where the calls are decides, not the relay.
PROMOTION_SCORE = 10

# Seconds that news from and for the cluster may take out of an action.
CLUSTER_SECONDS = 3.0

# What the memory file says. STARTING: the relay has not been switched on since the
# agent started. MOVING: it may be on.
STARTING = "starting"
UNPROMOTED = "unpromoted"
MOVING = "moving"
PROMOTED = "promoted"
STATES = (STARTING, UNPROMOTED, MOVING, PROMOTED)

# What the card's file says on the node that powers none.
NO_CARD = "none"


class RhinoRelay(Agent):
    """Moves a telephone line between two nodes, with the calls.

    A relay card sits between a PRI, BRI or analogue line and the two nodes. One
    node powers it by USB. With the relay on the line goes to that node; with the
    relay off, or without power, it goes to the other node.

    Run it as a promotable clone on both nodes and colocate the promoted one with
    the PBX. The line then follows the calls and never moves them. The node that
    powers the card publishes the relay's position as node attribute asha-line: on,
    off, each with -unconfirmed where the card cannot be asked, or unknown.

    A node that hangs with its USB port still powered keeps the line: only fencing
    that switches its power off moves it then.
    """

    name = "rhino-relay"

    card_node = String(
        "Node that powers the card",
        "Name of the node (crm_node -n) whose USB port powers the relay card.",
        required=True,
    )
    driver = Choice(
        "Kind of card",
        "rhino: the Rhino 1SPF, driven by its vendor's program; it cannot be asked where "
        "its relay is. numato: a Numato USB relay module of 1 to 32 relays; it is asked at "
        "each monitor. A relay of such a module has one pole: let it switch a relay with a "
        "pole for each wire of the line.",
        choices=DRIVERS,
        default="rhino",
    )
    device = Path(
        "The card's tty",
        "Serial device of the card on the node that powers it, such as /dev/ttyUSB0 for the "
        "Rhino and /dev/ttyACM0 for the Numato. A name in /dev/serial/by-id stays the same "
        "when other devices come and go.",
        default="/dev/ttyUSB0",
    )
    relay = Integer(
        "Relay on the module",
        "Number of the relay that moves the line, from 0, on a module with several.",
        default=0,
        most=31,
    )
    program = Path(
        "The Rhino's program",
        "Where the card vendor's program rhinofailover is installed.",
        default="/usr/local/bin/rhinofailover",
    )

    def __init__(self, action_name: str, context: Context) -> None:
        super().__init__(action_name, context)
        self._card: Relay | None = None

    @property
    def here(self) -> bool:
        """Whether this node powers the card."""
        return self._settings() is not None

    @property
    def card(self) -> Relay:
        if self._card is None:
            settings = self._settings()
            self._card = NoRelay() if settings is None else self.find_card(settings)
        return self._card

    def find_card(self, settings: Settings) -> Relay:
        """The driver of the card that this node powers."""
        from asha.relay import card_for

        return card_for(settings, self.run)

    def _settings(self) -> Settings | None:
        """Which card to command; None on the node that powers none.

        The card that was started is released, although the cluster's configuration may name
        another one by now: Pacemaker stops with the new one.
        """
        if self.action_name in GIVING_UP:
            started = self._recall_card()
            if started is not None:
                return Settings(*started) if started else None
        # Node names have no case in Pacemaker.
        if self.node.lower() != self.card_node.lower():
            return None
        return Settings(self.driver, self.device, self.relay, self.program)

    def validate(self, level: int) -> None:
        if self.driver == "rhino" and self.relay != 0:
            raise BadConfig(f'parameter relay="{self.relay}": the Rhino card has one relay, 0')
        if level < 10:
            return
        self._check_card_node()
        self.card.check()

    @action(timeout=20)
    def start(self) -> None:
        identity = self.card.identity()
        self._remember(STARTING if self._recall() is None else MOVING)
        self._remember_card()
        self.card.reset(self.deadline)
        position = self.card.drive(Position.OFF, self.deadline)
        self._remember(UNPROMOTED, identity)
        self._publish(Position.OFF, position)
        self.set_promotion_score(PROMOTION_SCORE)

    @action(timeout=20)
    def stop(self) -> None:
        memory = self._recall()
        if memory is None:
            return
        try:
            self._switch_off(memory[0])
        except AgentError as problem:
            if memory[0] not in (STARTING, UNPROMOTED):
                raise Failed(
                    f"{problem.reason}. The line may be held at this node: pull the card's "
                    "USB plug, and it falls to the other one"
                ) from problem
            # Not switched on by us, so there is nothing of ours to undo: a broken
            # card on the idle node is no reason to block or to fence it.
            self.warn(f"{problem.reason}; this agent has not switched it on")
        self.clear_promotion_score()
        self._forget()

    @action(timeout=20)
    def promote(self) -> None:
        self.card.check()
        identity = self.card.identity()
        self._remember(MOVING, identity)
        position = self.card.drive(Position.ON, self.deadline)
        self._remember(PROMOTED, identity)
        self._publish(Position.ON, position)
        if not self.here:
            self._hear_card_node()

    @action(timeout=20)
    def demote(self) -> None:
        memory = self._recall()
        if memory is None:
            return
        identity = self._switch_off(memory[0])
        self._remember(UNPROMOTED, identity)

    @action(timeout=20, interval=10, depth=0, role="Promoted")
    @action(timeout=20, interval=11, depth=0, role="Unpromoted")
    def monitor(self) -> Exit:
        memory = self._recall()
        if memory is None:
            return Exit.NOT_RUNNING
        state, identity = memory
        if state not in (UNPROMOTED, PROMOTED):
            raise Failed(f"an earlier action was interrupted while {state}")
        promoted = state == PROMOTED
        if self.here:
            self._look(promoted, identity)
        return Exit.RUNNING_PROMOTED if promoted else Exit.SUCCESS

    # The card.

    def _look(self, promoted: bool, identity: str) -> None:
        """Raise what is wrong with the card on its own node."""
        failed = FailedPromoted if promoted else Failed
        degraded = DegradedPromoted if promoted else Degraded
        found = self.card.identity()
        if not found:
            reason = (
                f"relay card {self.device} is not there: is the USB cable plugged in? "
                "The line is at the other node"
            )
            # Unpromoted, that is where the line belongs; only the way back is lost.
            raise failed(reason) if promoted else degraded(reason)
        if found != identity:
            raise failed(
                f"relay card {self.device} was unplugged and plugged in again, and has "
                "forgotten its position"
            )
        if self.is_probe or not self.card.reads_back:
            return
        wanted = Position.ON if promoted else Position.OFF
        position = self.card.read(self.deadline)
        if position is Position.UNKNOWN:
            # Perhaps it still holds the line. A restart could only take the line
            # from a card that obeys and does not speak.
            raise degraded(
                f"relay card {self.device} does not say where its relay is "
                f"({self.card.trouble}); it was last commanded {wanted.value}"
            )
        if position is not wanted:
            raise failed(f"relay card {self.device} is {position.value}, not {wanted.value}")

    def _switch_off(self, state: str) -> str:
        """Give the line to the other node; returns the identity of the card that took the
        command.

        A card that is not there has no power, and the line is there already.
        """
        identity = self.card.identity()
        if state == PROMOTED:
            try:
                self._remember(MOVING)
            except Failed as problem:
                self.warn(problem.reason)  # a full /run must not hold the line
        try:
            position = self.card.drive(Position.OFF, self.deadline)
        except AgentError as problem:
            if self.card.identity():
                self._publish(Position.UNKNOWN, Position.UNKNOWN)
                raise
            self.warn(f"{problem.reason}; without power it sends the line to the other node")
            self.clear_promotion_score()
            identity, position = "", Position.UNKNOWN
        self._publish(Position.OFF, position)
        return identity

    # The cluster.

    def _check_card_node(self) -> None:
        """A name that no node has would leave the card without commands on all of them."""
        try:
            listed = self.run("crm_node", "--list", cap=CLUSTER_SECONDS)
        except AgentError:
            return  # no cluster to ask: validate-all by hand
        nodes = [line.split()[1] for line in listed.out.splitlines() if len(line.split()) > 1]
        # A cluster of one may still be waiting for the node that powers the card.
        if not listed.ok or len(nodes) < 2:
            return
        if self.card_node.lower() not in [node.lower() for node in nodes]:
            raise BadConfig(
                f'parameter card_node="{self.card_node}": no such node, there is '
                f"{', '.join(nodes)}"
            )

    def _publish(self, commanded: Position, known: Position) -> None:
        if not self.here:
            return
        value = commanded.value
        if commanded is not Position.UNKNOWN and known is Position.UNKNOWN:
            value += "-unconfirmed"
        self.set_node_attribute(ATTRIBUTE, value)

    def _hear_card_node(self) -> None:
        """Report what the card's node last reported: nothing else can be known from here."""
        try:
            asked = self.run(
                *("attrd_updater", "--name", ATTRIBUTE, "--query", "--node", self.card_node),
                cap=CLUSTER_SECONDS,
            )
        except AgentError as problem:
            self.info(f"{self.card_node} cannot be asked where the line is: {problem.reason}")
            return
        if 'value="on' in asked.out or 'value="unknown' in asked.out:
            self.warn(
                f"{self.card_node} did not say that it let go of the line: if calls do not "
                "come in on it, pull the relay card's USB plug there"
            )

    # The memory.

    def _recall(self) -> tuple[str, str] | None:
        """State and card identity as last stored; None if not started."""
        memory = self.state_file("state")
        words = memory.read().split()
        if not words and memory.is_absent:
            return None
        state, identity = [*words, "", ""][:2]
        # What cannot be read may have been anything, so the relay may be on.
        return (state, identity) if state in STATES else (MOVING, "")

    def _remember(self, state: str, identity: str = "") -> None:
        self._write("state", f"{state} {identity}\n")

    def _forget(self) -> None:
        # The state last: without it nothing is started.
        for kind in ("card", "state"):
            file = self.state_file(kind)
            try:
                file.remove()
            except OSError as problem:
                raise Failed(f"cannot remove {file.path}: {problem.strerror}") from problem

    def _remember_card(self) -> None:
        settings = self._settings()
        lines = [NO_CARD]
        if settings is not None:
            lines = [settings.driver, settings.device, str(settings.number), settings.program]
        self._write("card", "".join(f"{line}\n" for line in lines))

    def _recall_card(self) -> tuple[str, str, int, str] | tuple[()] | None:
        """The card that was started, () for none on this node, None if unknown."""
        lines = self.state_file("card").read().splitlines()
        if lines == [NO_CARD]:
            return ()
        try:
            driver, device, number, program = lines
            return driver, device, int(number), program
        except ValueError:
            return None

    def _write(self, kind: str, text: str) -> None:
        file = self.state_file(kind)
        try:
            file.write(text)
        except OSError as problem:
            raise Failed(f"cannot write {file.path}: {problem.strerror}") from problem
