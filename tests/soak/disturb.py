"""What happens to a busy Asterisk: reloads, log rotation, debuggers, busy processors.

Each by itself is a thing of any day, and none of them is a reason to restart Asterisk. Nor is
what happens to the LAN beside it (with --flapping-lan): the passive node's cable goes in and
out, and the router reboots.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from types import TracebackType

from tests.lab import LabError, Node, wait_for
from tests.lab.cluster import asterisk
from tests.lab.daemon import PID_FILE
from tests.lab.injectors import background
from tests.lab.network import Network

RELOAD_EVERY = 20.0
ROTATE_EVERY = 30.0
DEBUG_EVERY = 45.0
# Busy for so long, then quiet for as long: half of each minute.
BUSY_SECONDS = 30.0

# The LAN's: a cable that is out until its node has seen it, and a router that boots.
FLAP_EVERY = 6.0
ROUTER_EVERY = 120.0
ROUTER_SECONDS = 60.0
GATEWAY = "192.168.1.254"

# Asterisk passes over a file that is as old as when it was read.
CHANGED = ("/etc/asterisk/extensions.conf", "/etc/asterisk/pjsip.conf")

BUSY = "while :; do :; done"

Interval = tuple[float, float]


@dataclass
class Disturbance:
    """``act`` is done ``every`` seconds; ``times`` is when it was (time.monotonic)."""

    name: str
    every: float
    act: Callable[[], None]
    times: list[Interval] = field(default_factory=list)


class Disturbances:
    """``with Disturbances(node) as them:`` all of them go on, side by side.

    ``passive``: the node whose cable goes in and out, on ``network``, which has GATEWAY.
    """

    def __init__(
        self, node: Node, passive: Node | None = None, network: Network | None = None
    ) -> None:
        self._node, self._passive, self._network = node, passive, network
        self._stop = threading.Event()
        self.reload = Disturbance("core reload", RELOAD_EVERY, self._reload)
        self.rotate = Disturbance("logger rotate", ROTATE_EVERY, self._rotate)
        self.debug = Disturbance("gdb attached", DEBUG_EVERY, self._debug)
        self.load = Disturbance("processors busy", 2 * BUSY_SECONDS, self._load)
        self.all = [self.reload, self.rotate, self.debug, self.load]
        if passive is not None:
            self.all += [
                Disturbance("passive LAN cable out and in", FLAP_EVERY, self._flap),
                Disturbance("router away", ROUTER_EVERY, self._reboot_router),
            ]
        self._pool = ThreadPoolExecutor(len(self.all))
        self._futures: list[Future[None]] = []

    def __enter__(self) -> Disturbances:
        self._futures = [self._pool.submit(self._repeat, one) for one in self.all]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._pool.shutdown(wait=True)

    def check(self) -> None:
        """Raises what went wrong with one of them."""
        for future in self._futures:
            if future.done():
                future.result()

    def _repeat(self, disturbance: Disturbance) -> None:
        due = time.monotonic() + disturbance.every
        while not self._stop.wait(max(0.0, due - time.monotonic())):
            begun = time.monotonic()
            disturbance.act()
            disturbance.times.append((begun, time.monotonic()))
            due = max(due + disturbance.every, time.monotonic())

    def _reload(self) -> None:
        self._node.run("touch", *CHANGED)
        asterisk(self._node, "core reload")

    def _rotate(self) -> None:
        asterisk(self._node, "logger rotate")

    def _debug(self) -> None:
        pid = self._node.run("cat", PID_FILE).out.strip()
        said = self._node.run(
            "gdb", "-batch", "-p", pid, "-ex", "thread apply all bt 1",
            env={"DEBUGINFOD_URLS": ""}, check=False,
        )
        if "#0 " not in said.out and not self._stop.is_set():
            raise LabError(f"gdb did not attach to Asterisk: {said.err[-400:]}")

    def _load(self) -> None:
        """At normal priority, so that everything on the node has to share."""
        with ExitStack() as loops:
            for _ in range(os.cpu_count() or 1):
                loops.enter_context(background(self._node, "sh", "-c", BUSY))
            self._stop.wait(BUSY_SECONDS)

    # The LAN.

    def _flap(self) -> None:
        assert self._passive is not None
        self._passive.cut("eth0")
        try:
            self._await_carrier(False)
        finally:
            self._passive.restore("eth0")
        self._await_carrier(True)

    def _await_carrier(self, there: bool) -> None:
        """As the passive node itself sees it."""
        assert self._passive is not None
        node = self._passive
        wait_for(lambda: ("LOWER_UP" in node.run("ip", "link", "show", "eth0").out) is there,
                 f"{node.name} to see its cable {'in' if there else 'out'}", timeout=60)

    def _reboot_router(self) -> None:
        assert self._network is not None
        self._network.take(GATEWAY)
        try:
            self._stop.wait(ROUTER_SECONDS)
        finally:
            self._network.give(GATEWAY)
