"""python3 -m tests.bench: plays the rounds, prints the tables, writes docs/bench.md."""

from __future__ import annotations

import argparse
import random
import shlex
import signal
import sys
import time
from pathlib import Path

from tests.bench.about import about
from tests.bench.cpu import WITH_SECONDS, WITHOUT_SECONDS, idle, monitors
from tests.bench.record import Run, Sample
from tests.bench.report import (
    complete,
    limits,
    markdown,
    outage,
    plain,
    tables,
)
from tests.bench.report import (
    detection as detected,
)
from tests.bench.rounds import phases, play
from tests.bench.stacks import Changer, StackCluster, stacks
from tests.lab import Lab, LabError
from tests.lab.cluster import SOURCE
from tests.lab.faults import OURS, Fault, of_bench
from tests.lab.image import RELEASES
from tests.lab.lab import REPOSITORY
from tests.lab.prober import Prober

BEGUN = time.monotonic()
ROUNDS = 5
PAGE = REPOSITORY / "docs/bench.md"
RAW = REPOSITORY / "build/bench.json"
CHANGE_SECONDS = 15.0
MONITORS_SECONDS = 30.0


def say(text: str) -> None:
    print(f"[{time.monotonic() - BEGUN:5.0f} s] {text}", flush=True)


def main() -> int:
    options = parse_arguments()
    # As ^C: the lab is removed on the way out.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if options.show:
        try:
            run = Run.load(options.show)
        except (OSError, ValueError, TypeError, KeyError) as problem:
            print(f"bench: {options.show} is none of its raw files: {problem}", file=sys.stderr)
            return 2
        return finish(run, options)
    run = Run(shlex.join(["python3", "-m", "tests.bench", *sys.argv[1:]]), options.rounds)
    chosen = choose(options)
    say(f"about {estimate(chosen, options) / 60:.0f} minutes; raw figures in {options.raw}")
    try:
        Bench(run, options).play(chosen)
    except LabError as error:
        print(f"bench: {error}", file=sys.stderr)
        finish(run, options)
        return 1
    except KeyboardInterrupt:
        print("bench: interrupted; the nodes are removed", file=sys.stderr)
        finish(run, options)
        return 130
    return finish(run, options)


def parse_arguments() -> argparse.Namespace:
    # What continues from another is played with that one.
    names = [fault.name for fault in of_bench() if not fault.after]
    parser = argparse.ArgumentParser(
        prog="python3 -m tests.bench",
        description="Two nodes live through every fault, in turns under the stack of 2014 and "
        "under this one. As root.",
    )
    parser.add_argument("--rounds", type=int, default=ROUNDS,
                        help=f"of each fault on each stack (default: {ROUNDS})")
    parser.add_argument("--release", choices=RELEASES, default="trixie")
    parser.add_argument("--fault", action="append", choices=names, metavar="NAME",
                        help="only this one (may be repeated): " + ", ".join(names))
    parser.add_argument("--cpu-only", action="store_true", help="no faults, the CPU alone")
    parser.add_argument("--output", type=Path,
                        help="the page to write, also when it is not the whole bench "
                        "(default: docs/bench.md, and only when it is)")
    parser.add_argument("--raw", type=Path, default=RAW,
                        help="where the raw figures are kept while it runs")
    parser.add_argument("--show", type=Path, metavar="RAW",
                        help="measure nothing: the tables of such a file (written only "
                        "with --output)")
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error("--rounds: at least 1")
    if options.output and not options.output.parent.is_dir():
        parser.error(f"--output: there is no directory {options.output.parent}")
    return options


def choose(options: argparse.Namespace) -> list[Fault]:
    if options.cpu_only:
        return []
    return [fault for fault in of_bench()
            if not options.fault or {fault.name, fault.after} & {*options.fault}]


def estimate(chosen: list[Fault], options: argparse.Namespace) -> float:
    """Seconds."""
    names = [stack.name for stack in stacks()]
    faults = sum(fault.bench.get(name, 0.0) for fault in chosen for name in names)
    rounds = options.rounds if chosen else 1
    cpu = 0.0 if options.fault else (
        len(names) * (WITH_SECONDS + WITHOUT_SECONDS) + MONITORS_SECONDS)
    return rounds * (faults + len(names) * CHANGE_SECONDS) + cpu


class Bench:
    """The nodes, and the stacks in turns on them."""

    def __init__(self, run: Run, options: argparse.Namespace) -> None:
        self._run = run
        self._options = options
        self._lab = Lab(release=options.release, say=say)

    def play(self, chosen: list[Fault]) -> None:
        try:
            self._boot()
            self._run.about = about(self._lab.node("crm1"), self._options.release)
            rounds = self._options.rounds if chosen else 1
            waits = {fault.name: phases(rounds, random.Random()) for fault in chosen}
            for number in range(1, rounds + 1):
                for stack in stacks():
                    mine = [fault for fault in chosen
                            if stack.name in fault.bench and not fault.after]
                    if not mine and chosen:
                        continue
                    cluster = self._changer.change(stack)
                    say(f"round {number} of {rounds}: {stack.title}")
                    if number == 1 and not self._options.fault:
                        self._measure_cpu(cluster)
                    for fault in mine:
                        cluster = self._turn(cluster, fault, number, waits[fault.name][number - 1])
        finally:
            self._lab.down()

    def _boot(self) -> None:
        self._lab.up()
        self._changer = Changer(self._lab)

    def _turn(
        self, cluster: StackCluster, fault: Fault, number: int, phase: float
    ) -> StackCluster:
        """Play it, and leave a healthy cluster, if need be a new one."""
        try:
            own = SOURCE not in cluster.singles
            with Prober(self._lab, from_anyone=own) as prober:
                for sample in play(cluster, prober, fault, number, phase):
                    self._keep(sample)
            return cluster
        except LabError as error:
            problem = " ".join(str(error).split())
            self._keep(Sample(number, cluster.stack.name, fault.name, problem=problem))
        try:
            cluster.heal()
            return cluster
        except LabError as error:
            note = f"new nodes after {fault.name} on {cluster.stack.name}, round {number}: {error}"
            say(note)
            self._run.notes.append(note)
            self._lab.down()
            self._lab = Lab(release=self._options.release, say=say)
            self._boot()
            return self._changer.change(cluster.stack)

    def _keep(self, sample: Sample) -> None:
        self._run.samples.append(sample)
        self._run.save(self._options.raw)
        if sample.problem:
            say(f"  {sample.fault}: {sample.problem}")
            return
        parts = [f"outage {words(outage(sample), sample)}"]
        if detected(sample) is not None:
            parts.append(f"seen after {detected(sample):.2f} s")
        say(f"  {sample.fault}: {', '.join(parts)}")

    def _measure_cpu(self, cluster: StackCluster) -> None:
        if cluster.stack.name == OURS:
            self._run.monitors = monitors(cluster)
        self._run.idle.append(idle(cluster))
        self._run.save(self._options.raw)
        say(f"  all agents idle: {self._run.idle[-1].share:.2%} of a core")


def words(seconds: float | None, sample: Sample) -> str:
    return f"{seconds:.2f} s" if seconds is not None else f"without end in {sample.watched:.0f} s"


def finish(run: Run, options: argparse.Namespace) -> int:
    """Print what there is, write the page if it may be written; 1 for a missed limit."""
    made = tables(run)
    if not made:
        return 1
    print("\n" + plain(made))
    lacking = complete(run, ROUNDS)
    page = options.output or PAGE
    if options.output or not (lacking or options.show):
        page.write_text(markdown(run, lacking))
        print(f"written to {page}")
    else:
        why = "; ".join(lacking) or "only shown"
        print(f"{PAGE.name} is left as it is, this was not the whole bench: {why}")
    wrong = limits(run)
    for line in wrong:
        print(f"NOT REACHED: {line}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
