"""make soak: see the package."""

from __future__ import annotations

import argparse
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.lab import Lab, LabError, Node
from tests.lab.cluster import Cluster, asterisk
from tests.lab.faults import lans_are_good
from tests.lab.host import kill_session
from tests.lab.image import RELEASES
from tests.lab.prober import Prober
from tests.soak import cost
from tests.soak.calls import Calls, Counts
from tests.soak.disturb import GATEWAY, Disturbances
from tests.soak.monitors import Monitor, MonitorLog, fail_counts, log_each
from tests.soak.report import Report, parse_samples, silence

PROGRESS_EVERY = 30.0
LOOK_EVERY = 0.5

# Of Debian's unit Asterisk may have 1024 files open, and has for about 250 calls: a
# site with more raises that, as here (docs/design.md, Known limits).
LIMITS = "/etc/systemd/system/asterisk.service.d/soak.conf"
LIMITS_TEXT = "[Service]\nLimitNOFILE=16384\n"

# For a router's reboot.
LAN_MINUTES = 4

SAMPLER = Path(__file__).with_name("sampler.py")
SAMPLER_INSIDE = "/root/soak_sampler.py"
SAMPLES = "/root/soak_samples"

BEGUN = time.monotonic()


def say(text: str) -> None:
    print(f"[{time.monotonic() - BEGUN:5.0f} s] {text}", flush=True)


def main() -> int:
    options = parse_arguments()
    # As ^C: the lab is removed on the way out.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))
    try:
        return soak(options)
    except LabError as error:
        print(f"soak: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("soak: interrupted; the nodes are removed", file=sys.stderr)
        return 130


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python3 -m tests.soak",
        description="Boots two nodes with the shipped configuration, holds calls up by SIPp and "
        "disturbs Asterisk all the while: nothing of the cluster may fail. As root; the minutes "
        "asked for and about 2 more, and 4 to build the images the first time.",
    )
    parser.add_argument("--minutes", type=float, default=10.0, help="(default: 10)")
    parser.add_argument("--calls", type=int, default=300, help="at the same time (default: 300)")
    parser.add_argument("--rate", type=float, default=5.0, help="new per second (default: 5)")
    parser.add_argument(
        "--flapping-lan", action="store_true",
        help="the passive node's LAN cable goes in and out all the while, and the router reboots; "
        "SIPp is in the LAN then, and not on that node",
    )
    parser.add_argument("--release", choices=RELEASES, default="trixie")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the report there too")
    options = parser.parse_args()
    if options.calls < 1 or not 0 < options.rate < math.inf:
        parser.error("--calls and --rate must be more than 0")
    if not options.minutes < math.inf:
        parser.error("--minutes must be a number")
    if options.output and not options.output.parent.is_dir():
        parser.error(f"--output: there is no directory {options.output.parent}")
    if options.flapping_lan and options.minutes < LAN_MINUTES:
        parser.error(f"--minutes must be {LAN_MINUTES} at least for a router that reboots")
    if options.minutes * 60 < options.calls / options.rate + 60:
        parser.error("--minutes must leave one after all calls have begun")
    return options


def soak(options: argparse.Namespace) -> int:
    with Lab(release=options.release, say=say) as lab:
        cluster = Cluster(lab)
        for node in lab.running:
            log_each(node)
            node.write(LIMITS, LIMITS_TEXT)
            node.run("systemctl", "daemon-reload")
        cluster.load()
        active, passive = cluster.active(), cluster.passive()
        network, flapping = lab.network, options.flapping_lan
        place = "the LAN" if flapping else passive.name
        say(f"the telephone system runs on {active.name}; SIPp calls it from {place}")
        if flapping:
            network.give(GATEWAY)
            for node in lab.running:
                node.run("ip", "route", "add", "default", "via", GATEWAY, "dev", "eth0")
            lans_are_good(cluster)
        report = Report(options.minutes * 60, options.calls, options.rate, node=active.name)
        space = network.switchboard_path if flapping else ""
        disturbances = Disturbances(active, passive if flapping else None, network)
        with Calls(passive, options.calls, options.rate, space) as calls:
            Run(cluster, active, calls, disturbances, report).go()
    text = "\n".join(report.lines())
    print(f"\n{text}\n")
    problems = report.problems()
    for problem in problems:
        print(f"NOT AS IT MUST BE: {problem}")
    print(report.evidence if problems else "nothing failed")
    if options.output:
        options.output.write_text("\n".join([text, "", *problems, report.evidence]) + "\n")
    return 1 if problems else 0


@contextmanager
def sampler(node: Node) -> Iterator[None]:
    """The sampler works in the node; what it saw is in SAMPLES."""
    node.write(SAMPLER_INSIDE, SAMPLER.read_text())
    node.write(SAMPLES, "")
    process = subprocess.Popen(
        node.command("/usr/bin/python3", SAMPLER_INSIDE, SAMPLES),
        stdin=subprocess.DEVNULL, text=True, start_new_session=True,
    )
    try:
        yield
    finally:
        kill_session(process)


class Run:
    """The time itself: everything goes on, is looked at, and told to the report."""

    def __init__(self, cluster: Cluster, active: Node, calls: Calls, disturbances: Disturbances,
                 report: Report) -> None:
        self._cluster = cluster
        self._active = active
        self._calls = calls
        self._disturbances = disturbances
        self._report = report
        self._pids = active.pids("asterisk")
        self._log = MonitorLog(cluster.running)

    def go(self) -> None:
        report = self._report
        with (
            Prober(self._cluster.lab) as prober,
            sampler(self._active),
            self._disturbances as disturbances,
        ):
            since = time.monotonic()
            prober.wait_answering(since)
            whole = self._watch(disturbances, since)
            until = time.monotonic()
        report.disturbances = {one.name: one.times for one in disturbances.all}
        report.debugged = disturbances.debug.times
        report.silence = silence(prober.answers(since), since, until, report.debugged)
        report.monitors = self._log.monitors()
        report.seconds = until - since
        report.samples = parse_samples(self._active.path(SAMPLES).read_text())
        if whole:
            report.channels = self._channels()
            say("the disturbances are over; what the monitors cost is measured")
            try:
                report.costs = cost.measure(self._active)
            except LabError as error:  # what was seen until now is told all the same
                report.violations.append(str(error))
        self._look_behind()

    def _watch(self, disturbances: Disturbances, since: float) -> bool:
        """Until the time is over (True), or Asterisk is another (False)."""
        report = self._report
        lowest = report.wanted
        all_begun = since + self._calls.seconds + 1
        progress = since + PROGRESS_EVERY
        while (now := time.monotonic()) < since + report.seconds:
            disturbances.check()
            counts = self._calls.counts()
            if now > all_begun:
                lowest = min(lowest, counts.up)
            if self._active.pids("asterisk") != self._pids:
                say("Asterisk was ended or started: the soak is over")
                return False
            if now >= progress:
                progress += PROGRESS_EVERY
                say(progress_line(counts, self._log.monitors()))
            time.sleep(LOOK_EVERY)
        report.lowest = lowest
        return True

    def _channels(self) -> int:
        """As Asterisk counts them."""
        said = asterisk(self._active, "core show channels count").split()
        return int(said[0]) if said and said[0].isdecimal() else 0

    def _look_behind(self) -> None:
        """What must hold at the very end, the calls still up."""
        report = self._report
        report.counts = self._calls.counts()
        report.sipp_errors = self._calls.first_errors()
        try:
            self._cluster.wait_ready()
        except LabError as error:
            report.violations.append(str(error))
        shown = self._active.run("crm_mon", "-1", "--output-as=xml", "--include=none,failcounts")
        report.failures = fail_counts(shown.out)
        report.node_after = self._cluster.state().active
        report.same_process = self._active.pids("asterisk") == self._pids
        report.violations += self._cluster.audit()
        if any(one.failed for one in self._log.monitors()):
            kept = self._active.run("python3", "-m", "asha", "evidence", "show", "last",
                                    check=False)
            report.evidence = kept.out + kept.err


def progress_line(counts: Counts, monitors: list[Monitor]) -> str:
    times = [one.seconds for one in monitors if one.seconds is not None]
    return (
        f"{counts.up} calls up, {counts.made} made, {counts.failed} failed; "
        f"{len(monitors)} monitors, {sum(one.degraded for one in monitors)} degraded, "
        f"{sum(one.failed for one in monitors)} failed, slowest {max(times, default=0):.2f} s; "
        f"load {os.getloadavg()[0]:.1f}"
    )


if __name__ == "__main__":
    sys.exit(main())
