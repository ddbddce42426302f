"""What the watching costs: CPU of one monitor, and of all, and the watchers, on an idle node."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.bench.record import Idle
from tests.bench.stacks import Stack, StackCluster, environment, primitive, stock_text
from tests.lab import Node
from tests.lab.faults import OURS

SCRIPT = Path(__file__).parent / "inside.py"
PATH = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
STOCK_SHALLOW = "stock ocf:heartbeat:asterisk, depth 0"
OURS_DEEP = "asterisk-health, depth 10"
MONITOR_ROUNDS = 40
# What watches besides the monitors, on the active node.
WATCHERS = ("asha-asterisk-watch@p_asterisk.service", "asha-lan.service")
# Every regular monitor falls into it as often as into any other minute.
WITH_SECONDS = 60.0
WITHOUT_SECONDS = 40.0
# What the start of the stack or a change of the configuration sets off has ended by then.
SETTLE_SECONDS = 8.0


def monitors(cluster: StackCluster, rounds: int = MONITOR_ROUNDS) -> dict[str, list[float]]:
    """Milliseconds of CPU per monitor, by name, while our stack runs but Pacemaker rests."""
    node = cluster.active()
    rest(cluster, True)
    try:
        node.write("/root/inside.py", SCRIPT.read_text())
        said = node.run(
            "/usr/bin/python3", "/root/inside.py", str(rounds),
            stdin=json.dumps(commands(cluster.stack)), timeout=60 + rounds * 5,
        )
    finally:
        rest(cluster, False)
    taken: dict[str, list[float]] = json.loads(said.out)
    return taken


def commands(ours: Stack) -> dict[str, dict[str, object]]:
    """For inside.py: the stock agent's monitor and each of ours."""

    def monitor(text: str, name: str, level: int = 0, code: int = 0) -> dict[str, object]:
        resource = primitive(text, name)
        provider, kind = resource.agent.split(":")[1:]
        env = environment(provider, kind, name, resource.params, level=level)
        argv = [f"/usr/lib/ocf/resource.d/{provider}/{kind}", "monitor"]
        return {"argv": argv, "env": {**PATH, **env}, "code": code}

    return {
        "python3 that does nothing": {
            "argv": ["/usr/bin/python3", "-I", "-c", "0"], "env": PATH, "code": 0,
        },
        STOCK_SHALLOW: monitor(stock_text(), "p_asterisk"),
        "asterisk-health, depth 0": monitor(ours.text, "p_asterisk"),
        OURS_DEEP: monitor(ours.text, "p_asterisk", 10),
        "asterisk-health, depth 20": monitor(ours.text, "p_asterisk", 20),
        "sark-data, with its write": monitor(ours.text, "p_data"),
        "lan-source": monitor(ours.text, "p_source"),
        "rhino-relay": monitor(ours.text, "p_line", code=8),  # promoted, where Asterisk is
    }


def idle(cluster: StackCluster) -> Idle:
    """The whole active node's CPU with all monitors and watchers, and with Pacemaker's
    maintenance mode and without them."""
    node = cluster.active()
    rest(cluster, True)
    try:
        with stopped(node, WATCHERS if cluster.stack.name == OURS else ()):
            without, without_seconds = usage(node, WITHOUT_SECONDS)
    finally:
        rest(cluster, False)
    with_monitors, with_seconds = usage(node, WITH_SECONDS)
    return Idle(cluster.stack.name, with_monitors, with_seconds, without, without_seconds)


@contextmanager
def stopped(node: Node, units: tuple[str, ...]) -> Iterator[None]:
    """Without these units, which run before and after."""
    for unit in units:
        node.run("systemctl", "is-active", unit)
    if units:
        node.run("systemctl", "stop", *units)
    try:
        yield
    finally:
        if units:
            node.run("systemctl", "start", *units)


def rest(cluster: StackCluster, on: bool) -> None:
    """Pacemaker cancels every regular monitor in maintenance mode."""
    cluster.running[0].run("crm", "configure", "property", f"maintenance-mode={str(on).lower()}")
    # There is no condition to wait for: an ended action leaves no mark.
    time.sleep(SETTLE_SECONDS)


def usage(node: Node, window: float) -> tuple[float, float]:
    """Microseconds of CPU that the node used, and in how many seconds."""
    begun, before = time.monotonic(), used(node)
    time.sleep(window)
    return used(node) - before, time.monotonic() - begun


def used(node: Node) -> float:
    """Of the node's cgroup, since its boot (cgroup-v2: cpu.stat, usage_usec)."""
    for line in node.path("/sys/fs/cgroup/cpu.stat").read_text().splitlines():
        key, _, value = line.partition(" ")
        if key == "usage_usec":
            return float(value)
    raise ValueError(f"{node.name} has no usage_usec in cpu.stat")


def seconds_per_hour(one: Idle) -> float:
    return one.share * 3600
