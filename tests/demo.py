"""make demo: two boxes as a customer has them, two commands on each, every fault, a table."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from pathlib import Path

from tests.cluster.customer import (
    INSTALL_SECONDS,
    answers_for,
    install_node,
    install_package,
    preseed,
    secret_of,
    wait_in_sync,
)
from tests.lab import Lab, LabError
from tests.lab.cluster import Cluster
from tests.lab.faults import DEMO, REAL_TIMES, Fault, of_kind
from tests.lab.image import RELEASES
from tests.lab.lab import FAST, NODES, REAL
from tests.lab.package import build_package
from tests.lab.play import Report, play
from tests.lab.prober import Prober

BEGUN = time.monotonic()
# Of the first copy of a real node's disk, which is slow as shipped.
SYNC_SECONDS = 300.0
WHAT_THEY_ARE = {
    FAST: "These nodes share one machine and a stand-in for DRBD: compare, do not quote.\n",
    REAL: "These nodes have real DRBD and fork ten times slower than a machine: do not quote.\n",
}


def say(text: str) -> None:
    print(f"[{time.monotonic() - BEGUN:5.0f} s] {text}", flush=True)


def main() -> int:
    options = parse_arguments()
    # As ^C: the lab is removed on the way out.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))
    try:
        return demonstrate(options)
    except LabError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("demo: interrupted; the nodes are removed", file=sys.stderr)
        return 130


def parse_arguments() -> argparse.Namespace:
    names = [fault.name for fault in of_kind(DEMO)]
    parser = argparse.ArgumentParser(
        prog="python3 -m tests.demo",
        description="Boots two boxes with a PBX, installs the Debian package and the cluster on "
        "one after the other, and lets the cluster live through every fault. As root; about 11 "
        "minutes, and 4 more to build the images the first time.",
    )
    parser.add_argument("--release", choices=RELEASES, default="trixie")
    parser.add_argument(
        "--nodes", choices=(FAST, REAL), default=FAST,
        help="real: each with a kernel of its own and real DRBD, ten times slower to fork "
        "(Debian trixie, 6 GB of memory)",
    )
    parser.add_argument("--keep", action="store_true", help="leave the nodes up afterwards")
    parser.add_argument(
        "--fault", action="append", choices=names, metavar="NAME",
        help="only this one (may be repeated): " + ", ".join(names),
    )
    return parser.parse_args()


def demonstrate(options: argparse.Namespace) -> int:
    chosen = [fault for fault in of_kind(DEMO)
              if not options.fault or fault.name in options.fault]
    is_real = options.nodes == REAL
    skipped = [fault for fault in chosen if is_real and fault.only_fast]
    deb = build_package(options.release, say)
    lab = Lab("demo", release=options.release, customer=True, persistent=options.keep, say=say,
              kind=options.nodes)
    lab.up()
    try:
        hands_off = [install(lab, name, deb) for name in lab.nodes]
        say("the disks are the same after "
            f"{wait_in_sync(lab.node(NODES[0]), SYNC_SECONDS):.0f} s more")
        cluster = Cluster(lab)
        cluster.wait_ready()
        say(f"the telephone system runs on {cluster.state().active}; "
            f"the line goes to {lab.line_goes_to() or 'nowhere: there is no relay card'}")
        say("a SIP OPTIONS to 192.168.1.90 every 50 ms from now on; "
            "before each fault a call is placed and data is written")
        with Prober(lab) as prober:
            reports = [show(cluster, prober, fault) for fault in chosen if fault not in skipped]
    except BaseException:
        say(f"what ran on the nodes: {lab.log.path}")
        lab.down()
        raise
    print_table(reports, options.nodes)
    for fault in skipped:
        print(f"skipped: {fault.title}: {fault.only_fast}")
    if options.keep:
        print_entrance()
    else:
        lab.down()
        say("the nodes are removed, nothing is left of them")
    in_time = is_real or all(seconds <= INSTALL_SECONDS for seconds in hands_off)
    good = all(is_good(report, options.nodes) for report in reports)
    return 0 if in_time and good else 1


def install(lab: Lab, name: str, deb: Path) -> float:
    """Make a cluster's node of a customer's PBX; the seconds of both commands."""
    node = lab.node(name)
    first = name == NODES[0]
    preseed(node, answers_for(lab, name))
    packages = install_package(node, deb)
    say(f"{name}: apt install ./{deb.name}: {packages:.0f} s")
    bootstrap, _ = install_node(node, None if first else secret_of(lab.node(NODES[0])))
    say(f"{name}: asha install: {bootstrap:.0f} s")
    if packages + bootstrap > INSTALL_SECONDS:
        say(f"    NOT AS IT MUST BE: more than {INSTALL_SECONDS:.0f} s")
    return packages + bootstrap


def show(cluster: Cluster, prober: Prober, fault: Fault) -> Report:
    say(f"{fault.title} ...")
    report = play(cluster, prober, fault)
    say(f"    {report.did}, {report.outage:.2f} s without an answer, "
        f"the line goes to {line(report)}, {data(report)}")
    for problem in report.problems():
        say(f"    NOT AS IT MUST BE: {problem}")
    return report


def line(report: Report) -> str:
    if report.line_during != report.line:
        return f"{report.line_during}, then {report.line}"
    return report.line or "-"


def data(report: Report) -> str:
    return "data intact" if not report.lost else "LOST: " + ", ".join(report.lost)


def is_good(report: Report, nodes: str) -> bool:
    return not report.problems() and report.outage <= allowed(report.fault, nodes)


def allowed(fault: Fault, nodes: str) -> float:
    """Seconds of silence."""
    return fault.limit * (REAL_TIMES if nodes == REAL else 1)


def print_table(reports: list[Report], nodes: str) -> None:
    rows = [("fault", "the cluster", "silent", "allowed", "line goes to", "data", "")]
    rows += [
        (
            report.fault.title,
            report.did,
            f"{report.outage:.2f} s",
            f"{allowed(report.fault, nodes):.1f} s",
            line(report),
            "intact" if not report.lost else "LOST",
            "ok" if is_good(report, nodes) else "FAILED",
        )
        for report in reports
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    print()
    for number, row in enumerate(rows):
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())
        if number == 0:
            print("  ".join("-" * width for width in widths))
    print("\nsilent: the longest time without a SIP answer at the virtual address.")
    print(WHAT_THEY_ARE[nodes])


def print_entrance() -> None:
    lab = "python3 -m tests.lab --name demo"
    print(
        "The nodes stay up:\n"
        f"  {lab} shell crm1         enter a node\n"
        f"  {lab} run crm1 crm_mon   watch the cluster (once: crm_mon -1)\n"
        f"  {lab} down               remove everything\n"
    )


if __name__ == "__main__":
    sys.exit(main())
