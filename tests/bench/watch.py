"""When Pacemaker saw a fault, and when the telephones were answered again."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable

from tests.lab import LabError, Node
from tests.lab.daemon import daemon
from tests.lab.prober import Prober

# Pacemaker's attribute daemon counts each failure on every node, in the very moment
# in which the controller takes a monitor's result for one.
FAILURE = re.compile(r"pacemaker-attrd.*Setting fail-count-p_asterisk\S* in .*-> (?!\(unset\))")
# Corosync's membership, or the controller's word for it.
NODE_LOST = re.compile(r"corosync.*(Members left:|Sync left\[)|pacemaker-\w+\[.*is now lost")


class Clock:
    """The beginning of a fault, on both of the machine's clocks."""

    def __init__(self) -> None:
        self.monotonic = time.monotonic()
        self.wall = time.time()

    @property
    def passed(self) -> float:
        return time.monotonic() - self.monotonic


def first_line(nodes: Iterable[Node], begun: Clock, pattern: re.Pattern[str]) -> float | None:
    """Seconds until the first line of any node's journal that matches; None without one."""
    found: list[float] = []
    for node in nodes:
        said = node.run("journalctl", "--no-pager", "--quiet", "--output=short-unix",
                        f"--since=@{int(begun.wall)}", check=False, timeout=30)
        found += matching(said.out.splitlines(), begun.wall, pattern)
    return min(found, default=None)


def matching(lines: Iterable[str], since: float, pattern: re.Pattern[str]) -> list[float]:
    """Seconds after ``since`` of each line (journalctl's short-unix) that matches."""
    found = []
    for line in lines:
        stamp, _, rest = line.partition(" ")
        if not re.fullmatch(r"\d+\.\d+", stamp) or not pattern.search(rest):
            continue
        if float(stamp) >= since:
            found.append(float(stamp) - since)
    return found


def pid(node: Node) -> int:
    """Of its Asterisk, as the host numbers it; 0 where none runs."""
    try:
        return daemon(node).pid
    except (LabError, OSError, ValueError):
        return 0


def wait_cured(prober: Prober, begun: Clock, timeout: float) -> float:
    """Until calls are answered steadily again; seconds until the first such answer."""
    prober.wait_answering(time.monotonic(), timeout=timeout)
    return prober.recovered(begun.monotonic)
