"""What Pacemaker's monitors did and how long they took, from the executor's log.

Pacemaker's own history keeps a recurring monitor's time for its first run only, so
the executor is made to log each (PCMK_debug).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from xml.etree import ElementTree

from tests.lab import Node

LOG = "/var/log/pacemaker/pacemaker.log"
DEFAULTS = "/etc/default/pacemaker"

# resource-agents' ocf-returncodes and ours, as a monitor may end with while all is
# well: running, promoted, and each of them "but might fail soon".
GOOD = (0, 8)
DEGRADED = (190, 191)

# Of pacemaker-execd, as Pacemaker 2.1 and 3.0 write them: the start of a recurring
# monitor, a line on its standard error, its end.
STAMP = r"(?P<stamp>\w{3} +\d+ \d\d:\d\d:\d\d(\.\d+)?) .*pacemaker-execd.*"
KEY = r"(?P<resource>\S+?)_monitor_(?P<interval>[1-9]\d*)"
RUN = rf"{KEY}\[(?P<pid>\d+)\]"
BEGUN = re.compile(rf"{STAMP} Scheduling another invocation of {KEY}$")
SAID = re.compile(rf"{STAMP} {RUN} error output \[ ocf-exit-reason:(?P<reason>.*) \]$")
ENDED = re.compile(rf"{STAMP} {RUN} exited with status (?P<status>\d+)")
LATE = re.compile(rf"{STAMP} {RUN} timed out after (?P<time>.*)$")

# A year that has every day; two moments of the log are never a year apart.
LEAP_YEAR = 2000
YEAR = timedelta(days=366)


@dataclass(frozen=True)
class Monitor:
    """One run. ``interval`` and ``seconds`` (None: its start was not logged) in seconds;
    ``status`` is the exit code, -1 for one that Pacemaker had to kill."""

    resource: str
    interval: float
    status: int
    seconds: float | None
    reason: str = ""

    @property
    def degraded(self) -> bool:
        return self.status in DEGRADED

    @property
    def failed(self) -> bool:
        return self.status not in GOOD and not self.degraded

    def __str__(self) -> str:
        ended = f"exit {self.status}" if self.status >= 0 else "killed"
        return f"{self.resource} every {self.interval:g} s: {ended} {self.reason}".rstrip()


def parse(text: str) -> list[Monitor]:
    """Every recurring monitor that has ended in this piece of one node's log."""
    begun: dict[tuple[str, str], datetime] = {}
    # What a run said is logged beside its end, before or after it: joined by its pid.
    reasons: dict[tuple[str, str, str], str] = {}
    found: dict[tuple[str, str, str], Monitor] = {}
    for line in text.splitlines():
        # The first look is cheap: most lines are of something else.
        if "_monitor_" not in line:
            continue
        if match := BEGUN.match(line):
            begun[match["resource"], match["interval"]] = moment(match["stamp"])
        elif match := SAID.match(line):
            reasons[match["resource"], match["interval"], match["pid"]] = match["reason"]
        elif match := ENDED.match(line) or LATE.match(line):
            start = begun.pop((match["resource"], match["interval"]), None)
            seconds = None
            if start is not None:
                seconds = ((moment(match["stamp"]) - start) % YEAR).total_seconds()
            late = match.re is LATE
            ended = Monitor(
                resource=match["resource"],
                interval=int(match["interval"]) / 1000,
                status=-1 if late else int(match["status"]),
                seconds=seconds,
                reason=f"after {match['time']}" if late else "",
            )
            # One that was late has an exit too, once it was killed.
            found.setdefault((match["resource"], match["interval"], match["pid"]), ended)
    return [replace(one, reason=reasons.get(run, one.reason)) for run, one in found.items()]


def fail_counts(xml: str) -> list[str]:
    """What Pacemaker counts as failed, of crm_mon's XML with --include=failcounts.

    Not its list of failures: that has degraded results too, and keeps them.
    """
    return [
        f"{history.get('id')} on {node.get('name')}: fail-count {history.get('fail-count')}"
        for node in ElementTree.fromstring(xml).iterfind("node_history/node")
        for history in node.iterfind("resource_history")
        if history.get("fail-count", "0") != "0"
    ]


def moment(stamp: str) -> datetime:
    """The log's time, which has no year."""
    form = "%Y %b %d %H:%M:%S.%f" if "." in stamp else "%Y %b %d %H:%M:%S"
    return datetime.strptime(f"{LEAP_YEAR} {stamp}", form)


def log_each(node: Node) -> None:
    """Have this node's executor log every monitor. Before it has any resource."""
    defaults = node.path(DEFAULTS)
    node.write(DEFAULTS, defaults.read_text() + "\nPCMK_debug=pacemaker-execd\n")
    node.run("systemctl", "restart", "pacemaker")


class MonitorLog:
    """The monitors of some nodes since now."""

    def __init__(self, nodes: list[Node]) -> None:
        self._from = {node: node.path(LOG).stat().st_size for node in nodes}

    def monitors(self) -> list[Monitor]:
        found = []
        for node, offset in self._from.items():
            with node.path(LOG).open("rb") as log:
                log.seek(offset)
                found += parse(log.read().decode(errors="replace"))
        return found
