"""What the monitors of p_asterisk cost, them and Asterisk, while the calls go on.

What one monitor costs is less than what 300 calls vary by from one window of some
seconds to the next. So it is run many times in quick succession, between windows in
which it is not; the difference is divided by the number of runs and scaled to the
monitor's interval. Pacemaker's own go on in both and cancel out: one run or two beside a
hundred.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import TypedDict
from xml.etree import ElementTree

from tests.cluster.single import AGENTS, environment
from tests.lab import LabError, Node
from tests.lab.daemon import PID_FILE
from tests.lab.node import PATH
from tests.soak.monitors import DEGRADED, GOOD

AGENT = "asterisk-health"
RESOURCE = "p_asterisk"
WINDOWS = 3
WINDOW_SECONDS = 8.0
# At depth 20 a call of one second is made, and the next one not before its end.
CALL_DEPTH = 20
CALL_PAUSE = 1.5

SCRIPT = Path(__file__).with_name("rounds.py")
INSIDE = "/root/soak_rounds.py"


class Window(TypedDict):
    """What rounds.py prints."""

    seconds: float
    rounds: int
    own: float
    other: float
    codes: list[int]


@dataclass(frozen=True)
class Recurring:
    """A monitor as it is configured: every ``interval`` seconds at ``depth``."""

    interval: float
    depth: int


@dataclass
class Cost:
    """CPU seconds of one run, of Asterisk's and of its own; an entry per window."""

    monitor: Recurring
    asterisk: list[float] = field(default_factory=list)
    own: list[float] = field(default_factory=list)

    def share(self, costs: list[float]) -> float:
        """The median as a share of one core."""
        return median(costs) / self.monitor.interval


@dataclass
class Costs:
    """``quiet``: Asterisk's CPU as a share of a core, in each window in service."""

    monitors: list[Cost]
    quiet: list[float] = field(default_factory=list)

    @property
    def asterisk_share(self) -> float:
        return sum(cost.share(cost.asterisk) for cost in self.monitors)

    @property
    def own_share(self) -> float:
        return sum(cost.share(cost.own) for cost in self.monitors)


def measure(node: Node) -> Costs:
    """On the active node, calls up and nothing else going on. Raises LabError."""
    definition = node.run("cibadmin", "--query", "--xpath", f"//primitive[@id='{RESOURCE}']").out
    parameters, recurring = parse(definition)
    costs = Costs([Cost(one) for one in recurring])
    node.write(INSIDE, SCRIPT.read_text())
    pid = node.run("cat", PID_FILE).out.strip()
    for _ in range(WINDOWS):
        idle = window(node, pid, None, 0.0)
        costs.quiet.append(idle["other"] / idle["seconds"])
        for cost in costs.monitors:
            depth = cost.monitor.depth
            env = {"PATH": PATH, **environment(AGENT, parameters, check_level=depth)}
            command = {"argv": [f"{AGENTS}/{AGENT}", "monitor"], "env": env}
            pause = CALL_PAUSE if depth >= CALL_DEPTH else 0.0
            add(cost, window(node, pid, command, pause), costs.quiet[-1])
    return costs


def add(cost: Cost, busy: Window, quiet: float) -> None:
    """One window's result. ``quiet`` is Asterisk's share of a core without it."""
    if not set(busy["codes"]) <= {*GOOD, *DEGRADED}:
        raise LabError(f"a monitor at depth {cost.monitor.depth} run by hand: {busy['codes']}")
    cost.asterisk.append((busy["other"] - quiet * busy["seconds"]) / busy["rounds"])
    cost.own.append(busy["own"] / busy["rounds"])


def window(node: Node, pid: str, command: object, pause: float) -> Window:
    said = node.run(
        "/usr/bin/python3", INSIDE, pid, str(WINDOW_SECONDS), str(pause),
        stdin=json.dumps(command), timeout=WINDOW_SECONDS + 60,
    )
    taken: Window = json.loads(said.out)
    return taken


def parse(xml: str) -> tuple[dict[str, str], list[Recurring]]:
    """Parameters and recurring monitors of a primitive, as cibadmin prints it."""
    primitive = ElementTree.fromstring(xml)
    recurring = []
    for op in primitive.iterfind("operations/op"):
        every = seconds(op.get("interval", "0"))
        if op.get("name") == "monitor" and every:
            depth = pairs(op).get("OCF_CHECK_LEVEL", "0")
            recurring.append(Recurring(every, int(depth)))
    return pairs(primitive), recurring


def pairs(owner: ElementTree.Element) -> dict[str, str]:
    return {
        pair.get("name", ""): pair.get("value", "")
        for pair in owner.iterfind("instance_attributes/nvpair")
    }


def seconds(text: str) -> float:
    """Pacemaker's durations, in the units that the shipped configuration uses."""
    for unit, factor in (("ms", 0.001), ("s", 1.0), ("m", 60.0)):
        if text.endswith(unit):
            return float(text.removesuffix(unit)) * factor
    return float(text)
