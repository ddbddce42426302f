"""The figures of a run as tables, and whether they are as good as they must be."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.bench.cpu import OURS_DEEP, STOCK_SHALLOW, seconds_per_hour
from tests.bench.record import Run, Sample
from tests.lab.faults import HANG, OURS, STOCK, STOCK_SIP, of_bench

TITLES = {STOCK: "stock", STOCK_SIP: "stock, monitor_sipuri", OURS: "ours"}

# Ours as a part of stock's, medians of the outage.
RATIOS = {"planned": 0.14, "active-crashed": 0.16, "sigstop": 0.04}
# Median of ours; and of all hangs together.
SECONDS = {"asterisk-killed": 1.0}
HANGS_MEDIAN = 6.0
DEEP_MONITOR = 1.0
IDLE_SHARE = 0.01

Row = tuple[str, ...]
Part = Callable[[Sample], float | None]


@dataclass(frozen=True)
class Table:
    """``rows``: the first is the heading."""

    title: str
    rows: list[Row]


def outage(sample: Sample) -> float | None:
    return sample.outage


def detection(sample: Sample) -> float | None:
    return sample.detection


def of(run: Run, stack: str, fault: str) -> list[Sample]:
    """Those that were played to the end."""
    return [one for one in run.samples
            if (one.stack, one.fault) == (stack, fault) and not one.problem]


def median(samples: Sequence[Sample], part: Part) -> float | None:
    """None when there is none, or when half of them never came to it."""
    values = sorted(float("inf") if value is None else value for value in map(part, samples))
    if not values:
        return None
    middle = statistics.median_high(values)
    return None if middle == float("inf") else statistics.median(values)


def ratio(run: Run, fault: str, part: Part = outage) -> float | None:
    mine, theirs = (median(of(run, stack, fault), part) for stack in (OURS, STOCK))
    return mine / theirs if mine is not None and theirs else None


def cell(samples: Sequence[Sample], part: Part) -> str:
    """Median and spread: "9.9 (9.1 - 11.2) s", "never in 22 s", "never in 3 of 5"."""
    if not samples:
        return "-"
    values = [value for value in map(part, samples) if value is not None]
    missed = [sample.watched for sample in samples if part(sample) is None]
    if not values:
        return f"never in {min(missed):.0f} s"
    text = f"{statistics.median(values):.2f} ({min(values):.2f} - {max(values):.2f}) s"
    return text if not missed else f"{text}, never in {len(missed)} of {len(samples)}"


def faults_table(run: Run, part: Part, title: str, without: Sequence[str] = ()) -> Table:
    rows: list[Row] = [("fault", *(TITLES[name] for name in (STOCK, STOCK_SIP, OURS)),
                        "ours/stock")]
    for fault in of_bench():
        played = {stack: of(run, stack, fault.name) for stack in TITLES}
        if fault.name in without or not any(played.values()):
            continue
        part_of = ratio(run, fault.name, part)
        rows.append((
            fault.title,
            *(cell(played[stack], part) for stack in (STOCK, STOCK_SIP, OURS)),
            f"{part_of:.3f}" if part_of is not None else "-",
        ))
    return Table(title, rows)


def monitors_table(run: Run) -> Table:
    rows: list[Row] = [("monitor", "median", "10 - 90 %", "ours/stock")]
    stock = run.monitors.get(STOCK_SHALLOW, [])
    for name, times in run.monitors.items():
        tenths = statistics.quantiles(times, n=10)
        rows.append((name, f"{statistics.median(times):.1f} ms",
                     f"{tenths[0]:.1f} - {tenths[-1]:.1f} ms", f"{turns_ratio(times, stock):.2f}"))
    return Table("CPU of one monitor", rows)


def turns_ratio(mine: Sequence[float], theirs: Sequence[float]) -> float:
    """The median of the ratios, turn by turn: a slow moment of the machine meets both."""
    return statistics.median(own / other for own, other in zip(mine, theirs, strict=True))


def idle_table(run: Run) -> Table:
    rows: list[Row] = [("stack", "CPU per hour", "of one core", "ours/stock")]
    shares = {one.stack: one.share for one in run.idle}
    for one in run.idle:
        base = shares.get(STOCK, 0.0)
        rows.append((TITLES[one.stack], f"{seconds_per_hour(one):.1f} s", f"{one.share:.2%}",
                     f"{one.share / base:.2f}" if base > 0 else "-"))
    return Table("All agents idle, on the active node", rows)


def tables(run: Run) -> list[Table]:
    made = [
        faults_table(run, outage, "Outage"),
        faults_table(run, detection, "Time to detection", without=("planned", "node-returns")),
        monitors_table(run),
        idle_table(run),
    ]
    return [table for table in made if len(table.rows) > 1]


@dataclass(frozen=True)
class Limit:
    """What was asked for, and what came out of it."""

    what: str
    most: str
    got: str
    reached: bool


def judged(run: Run) -> list[Limit]:
    """Each limit that something was measured for."""
    found = []
    titles = {fault.name: fault.title for fault in of_bench()}
    for name, most in RATIOS.items():
        if of(run, OURS, name) and of(run, STOCK, name):
            got = ratio(run, name)
            found.append(Limit(titles[name], f"at most {most} of stock",
                               "no ratio" if got is None else f"{got:.3f} of stock",
                               got is not None and got <= most))
    for name, most in SECONDS.items():
        if mine := of(run, OURS, name):
            middle = median(mine, outage)
            found.append(Limit(titles[name], f"median under {most:.0f} s", cell(mine, outage),
                               middle is not None and middle < most))
    hangs = []
    for fault in of_bench():
        mine = of(run, OURS, fault.name)
        if HANG in fault.kinds and mine:
            hangs += mine
            found.append(Limit(
                fault.title, f"always at most {fault.limit:.0f} s", cell(mine, outage),
                all(one.outage is not None and one.outage <= fault.limit for one in mine),
            ))
    if hangs:
        middle = median(hangs, outage)
        found.append(Limit("all hangs", f"median under {HANGS_MEDIAN:.0f} s", cell(hangs, outage),
                           middle is not None and middle < HANGS_MEDIAN))
    if OURS_DEEP in run.monitors:
        share = turns_ratio(run.monitors[OURS_DEEP], run.monitors[STOCK_SHALLOW])
        found.append(Limit(f"CPU of {OURS_DEEP}",
                           f"at most {DEEP_MONITOR:.0f} of {STOCK_SHALLOW}",
                           f"{share:.2f}", share <= DEEP_MONITOR))
    found += [
        Limit("all agents idle", f"under {IDLE_SHARE:.0%} of a core", f"{one.share:.2%} of a core",
              one.share < IDLE_SHARE)
        for one in run.idle if one.stack == OURS
    ]
    return found


def limits(run: Run) -> list[str]:
    """A line for each limit that is not reached. What was not measured is not judged."""
    titles = {fault.name: fault.title for fault in of_bench()}
    wrong = [f"{one.what}: {one.got}, not {one.most}" for one in judged(run) if not one.reached]
    wrong += [
        f"round {one.round}, {TITLES[one.stack]}, {titles.get(one.fault, one.fault)}: {one.problem}"
        for one in run.samples if one.problem
    ]
    return wrong


def limits_table(run: Run) -> Table:
    rows: list[Row] = [("", "asked for", "got")]
    rows += [(one.what, one.most, one.got + ("" if one.reached else ": NOT REACHED"))
             for one in judged(run)]
    return Table("Limits", rows)


def complete(run: Run, rounds: int) -> list[str]:
    """Why the run is less than the whole bench of ``rounds`` rounds; empty when it is it."""
    wanted = [(stack, fault.name) for fault in of_bench() for stack in fault.bench]
    played = sum(
        min(rounds, sum(1 for one in run.samples if (one.stack, one.fault) == turn))
        for turn in wanted
    )
    lacking = []
    if played < rounds * len(wanted):
        lacking.append(f"{played} of {rounds * len(wanted)} turns were played")
    if not run.monitors:
        lacking.append("no CPU per monitor")
    lacking += [f"no idle CPU of {stack}" for stack in TITLES
                if stack not in {one.stack for one in run.idle}]
    return lacking


def plain(made: Sequence[Table]) -> str:
    """For a terminal."""
    parts = []
    for table in made:
        widths = [max(len(row[column]) for row in table.rows)
                  for column in range(len(table.rows[0]))]
        lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True))
                 for row in table.rows]
        lines.insert(1, "  ".join("-" * width for width in widths))
        parts.append("\n".join([table.title, "", *(line.rstrip() for line in lines)]))
    return "\n\n".join(parts) + "\n"


def pipes(table: Table) -> str:
    """The same in Markdown."""
    lines = ["| " + " | ".join(row) + " |" for row in table.rows]
    lines.insert(1, "|" + " --- |" * len(table.rows[0]))
    return "\n".join([f"## {table.title}", "", *lines])


NOTES = {
    "Outage": """\
Median, and from the least to the greatest of all rounds. A telephone asks the virtual
address (SIP OPTIONS) every 50 ms. Planned switch, crash and return: the longest time
without an answer. Everything that is done to Asterisk: from the beginning of the injection
to the first answer of the Asterisk that took its place; so it holds for hangs, too, in
which OPTIONS is answered all the while and calls are not. "never": after at least two
of the stack's monitors in that time, each successful, no failure was counted.""",
    "Time to detection": """\
From the beginning of the injection until Pacemaker counts a failure of Asterisk (its
attribute daemon's line in the journal), or for a lost node until Corosync says that it
left.""",
    "CPU of one monitor": """\
User and system time of the agent and its children, in turns in one node, Pacemaker at
rest. The ratio is the median of the ratios, turn by turn.""",
    "All agents idle, on the active node": """\
CPU of the whole active node with all monitors and watchers, less the same with Pacemaker in
maintenance mode and the watchers (of Asterisk, of the LAN) stopped: so with it what Asterisk,
systemd and the log spend on being watched.""",
}

ABOUT = """\
# The bench

Written by `make bench`; do not edit.

The same two nodes, in one run, under the agents and serial group of 2014 (`stock`:
Filesystem, six symlinks, mysql, IPaddr2, apache, asterisk; Corosync's token 3 s), under
the same with `monitor_sipuri`, and under `cib/asha.crm` as shipped with Asha's
corosync.conf. They take turns, round by round. Each fault comes at a random phase of the
stack's own monitor interval.

What it is not: the nodes are containers on one machine, and DRBD is a stand-in over one
image file. So a switch is quicker here than on two boxes, for both: trust the ratios.
"""


def markdown(run: Run, lacking: Sequence[str]) -> str:
    """A page of its own."""
    parts = [ABOUT.rstrip()]
    if lacking:
        parts.append("**Not the whole bench:** " + "; ".join(lacking) + ".")
    facts = {**run.about, "rounds": str(run.rounds), "command": f"`{run.command}`"}
    parts.append("\n".join(["| | |", "| --- | --- |",
                            *(f"| {key} | {value} |" for key, value in facts.items())]))
    for table in tables(run):
        parts.append(pipes(table))
        parts.append(NOTES[table.title])
    wrong = limits(run)
    parts.append(pipes(limits_table(run)))
    parts.append("\n".join(f"- {line}" for line in wrong) if wrong else "All are reached.")
    if run.notes:
        parts.append("\n".join(f"- {line}" for line in run.notes))
    return "\n\n".join(parts) + "\n"
