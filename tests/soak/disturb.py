"""What happens to a busy Asterisk: reloads, log rotation, debuggers, busy processors.

Each by itself is a thing of any day, and none of them is a reason to restart Asterisk.
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

from tests.lab import LabError, Node
from tests.lab.cluster import asterisk
from tests.lab.daemon import PID_FILE
from tests.lab.injectors import background

RELOAD_EVERY = 20.0
ROTATE_EVERY = 30.0
DEBUG_EVERY = 45.0
# Busy for so long, then quiet for as long: half of each minute.
BUSY_SECONDS = 30.0

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
    """``with Disturbances(node) as them:`` all of them go on, side by side."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._stop = threading.Event()
        self.reload = Disturbance("core reload", RELOAD_EVERY, self._reload)
        self.rotate = Disturbance("logger rotate", ROTATE_EVERY, self._rotate)
        self.debug = Disturbance("gdb attached", DEBUG_EVERY, self._debug)
        self.load = Disturbance("processors busy", 2 * BUSY_SECONDS, self._load)
        self.all = (self.reload, self.rotate, self.debug, self.load)
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
