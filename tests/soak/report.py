"""What the soak saw, what of it is not as it must be, and how it is printed."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median

from tests.soak.calls import Counts
from tests.soak.cost import RESOURCE, Cost, Costs
from tests.soak.disturb import Interval
from tests.soak.monitors import Monitor

# Seconds without an answer to OPTIONS every 50 ms, no debugger at work. A telephone
# asks again after T1 (0.5 s, RFC 3261, 17.1.1.1), so that shorter ones are not heard;
# as much again for a host whose processors are all busy.
SILENCE_MOST = 1.0

# Of the calls that are to be up: some are just being replaced.
UP_LEAST = 0.9

# What the monitors may cost Asterisk, as a share of one core.
COST_MOST = 0.01

# Of the monitors that the interval allows for: a slow one is not begun again before
# its end, and Pacemaker counts the interval from there.
MONITORS_LEAST = 0.8


@dataclass(frozen=True)
class Sample:
    """One question of the sampler's; times in seconds, ``begun`` as time.monotonic."""

    probe: str
    begun: float
    seconds: float
    finding: str


def parse_samples(text: str) -> list[Sample]:
    """The sampler's file; a line still being written is left out."""
    return [Sample(**json.loads(line)) for line in text.split("\n")[:-1]]


@dataclass(frozen=True)
class Silence:
    """The longest times without a SIP answer, in seconds: as a telephone has it, and
    what remains of one without the times in which a debugger held Asterisk."""

    longest: float = 0.0
    unexplained: float = 0.0


def silence(answers: Sequence[float], since: float, until: float,
            excused: Sequence[Interval]) -> Silence:
    """``answers`` and the ends of ``excused`` are moments of time.monotonic."""
    moments = [since, *(moment for moment in answers if since < moment <= until), until]
    gaps = list(itertools.pairwise(moments))
    return Silence(
        max(end - begin for begin, end in gaps),
        max(end - begin - overlap((begin, end), excused) for begin, end in gaps),
    )


def overlap(one: Interval, others: Sequence[Interval]) -> float:
    """Seconds of ``one`` that lie in any of ``others``, which do not overlap."""
    return sum(max(0.0, min(one[1], end) - max(one[0], begin)) for begin, end in others)


@dataclass
class Report:
    """Times in seconds. ``costs`` is None where they could not be measured."""

    seconds: float
    wanted: int
    rate: float
    counts: Counts = field(default_factory=Counts)
    # The fewest calls that were up after the first ``wanted`` had begun.
    lowest: int = 0
    # Channels that Asterisk itself counts at the end.
    channels: int = 0
    node: str = ""
    node_after: str = ""
    same_process: bool = True
    monitors: list[Monitor] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    silence: Silence = field(default_factory=Silence)
    disturbances: dict[str, list[Interval]] = field(default_factory=dict)
    # Of the disturbances: when a debugger was at work.
    debugged: list[Interval] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    costs: Costs | None = None
    violations: list[str] = field(default_factory=list)
    sipp_errors: list[str] = field(default_factory=list)
    # Where a monitor failed: what asterisk-health kept, for the nodes are removed.
    evidence: str = ""

    def problems(self) -> list[str]:
        """A line for each thing that is not as it must be."""
        wrong = [f"failed monitor: {one}" for one in self.monitors if one.failed]
        wrong += [f"Pacemaker has a failure: {failure}" for failure in self.failures]
        if not self.same_process:
            wrong.append("Asterisk is not the process that it was")
        if self.node_after != self.node:
            wrong.append(f"the telephones moved from {self.node} to {self.node_after or 'nowhere'}")
        if self.silence.unexplained > SILENCE_MOST:
            wrong.append(
                f"no SIP answer for {self.silence.unexplained:.2f} s without a debugger "
                f"(at most {SILENCE_MOST} s)"
            )
        if self.counts.failed:
            wrong.append(f"{self.counts.failed} calls failed: {self._causes()}")
            wrong += [f"SIPp: {line}" for line in self.sipp_errors]
        least = UP_LEAST * self.wanted
        for what, number in (("SIPp", self.lowest), ("Asterisk, at the end,", self.channels)):
            if number < least:
                wrong.append(f"{what} had {number} calls up, {least:.0f} must be")
        wrong += [f"{name} never happened" for name, times in self.disturbances.items()
                  if not times]
        wrong += self._missing_monitors()
        wrong += self._bad_answers()
        if self.costs is None:
            wrong.append("what the monitors cost is not known")
        elif self.costs.asterisk_share >= COST_MOST:
            wrong.append(
                f"the monitors cost Asterisk {percent(self.costs.asterisk_share)} of a core "
                f"({percent(COST_MOST)} is the most)"
            )
        return wrong + self.violations

    def _causes(self) -> str:
        return ", ".join(f"{cause} {number}" for cause, number in self.counts.causes.items())

    def _missing_monitors(self) -> list[str]:
        """Of Asterisk: a soak whose monitors did not run proves nothing."""
        ran = Counter(one.interval for one in self.monitors if one.resource == RESOURCE)
        if not ran:
            return [f"no monitor of {RESOURCE} was seen"]
        return [
            f"of {RESOURCE}'s monitor every {interval:g} s only {number} were seen"
            for interval, number in ran.items()
            # A part of an interval may be cut off at either end.
            if number + 1 < MONITORS_LEAST * self.seconds / interval
        ]

    def _bad_answers(self) -> list[str]:
        if not self.samples:
            return ["the sampler asked nothing"]
        bad = Counter(
            f"{one.probe} was found {one.finding}" for one in self.samples
            if one.finding != "healthy" and not self._beside_debugger(one)
        )
        return [f"sampled: {what}, {number} times" for what, number in bad.items()]

    def _beside_debugger(self, sample: Sample) -> bool:
        return overlap((sample.begun, sample.begun + sample.seconds), self.debugged) > 0

    # As text.

    def lines(self) -> list[str]:
        counts = self.counts
        causes = f" ({self._causes()})" if counts.causes else ""
        return [
            f"{self.seconds / 60:.1f} minutes, {self.wanted} calls, {self.rate:g} new per second, "
            f"on {self.node}",
            "",
            f"calls           {counts.made} made, {counts.completed} completed, "
            f"{counts.failed} failed{causes}",
            f"                {counts.up} up at the end, {self.channels} channels in Asterisk; "
            f"never below {self.lowest}",
            f"messages        {counts.unexpected} unexpected, "
            f"{counts.retransmissions} retransmissions by SIPp",
            f"SIP silence     {self.silence.longest:.2f} s at the most, "
            f"{self.silence.unexplained:.2f} s without a debugger's part",
            *columns("disturbed by", [
                f"{name}: {len(times)} times, {longest(times):.1f} s at the most"
                for name, times in self.disturbances.items()
            ]),
            *columns("monitors", self._monitor_lines()),
            *columns("degraded", self._degraded_lines()),
            *columns("answers", self._sample_lines()),
            *columns("CPU", self._cost_lines()),
        ]

    def _monitor_lines(self) -> list[str]:
        lines = []
        for key in sorted({(one.resource, one.interval) for one in self.monitors}):
            ran = [one for one in self.monitors if (one.resource, one.interval) == key]
            times = [one.seconds for one in ran if one.seconds is not None]
            took = f"median {median(times):.3f} s, slowest {max(times):.3f} s" if times else ""
            failed = sum(one.failed for one in ran)
            degraded = sum(one.degraded for one in ran)
            lines.append(
                f"{key[0]} every {key[1]:g} s: {len(ran)} ran, {failed} failed, "
                f"{degraded} degraded, {took}"
            )
        return lines

    def _degraded_lines(self) -> list[str]:
        reasons = Counter(
            f"{one.resource}: {one.reason}" for one in self.monitors if one.degraded
        )
        return [f"{number} x {what}" for what, number in reasons.most_common()] or ["none"]

    def _sample_lines(self) -> list[str]:
        lines = []
        for name in dict.fromkeys(one.probe for one in self.samples):
            mine = [one for one in self.samples if one.probe == name]
            alone = [one.seconds for one in mine if not self._beside_debugger(one)]
            if alone:
                lines.append(
                    f"{name}: {len(mine)} asked, median {1000 * median(alone):.1f} ms, slowest "
                    f"{max(alone):.3f} s, beside a debugger {max(o.seconds for o in mine):.3f} s"
                )
        return lines

    def _cost_lines(self) -> list[str]:
        if self.costs is None:
            return ["not measured"]
        quiet = self.costs.quiet
        return [
            f"Asterisk with {self.channels} calls in service: {percent(median(quiet))} of a core "
            f"({percent(min(quiet))} to {percent(max(quiet))} in {len(quiet)} windows)",
            *(line for cost in self.costs.monitors for line in cost_lines(cost)),
            f"all monitors of {RESOURCE}: Asterisk {percent(self.costs.asterisk_share)}, "
            f"themselves {percent(self.costs.own_share)} of a core",
            "(each run in quick succession beside Pacemaker's, scaled to its interval)",
        ]


def cost_lines(cost: Cost) -> list[str]:
    what = f"depth {cost.monitor.depth} every {cost.monitor.interval:g} s"
    return [
        f"{what}: one run costs {who} {1000 * median(costs):.1f} ms "
        f"({1000 * min(costs):.1f} to {1000 * max(costs):.1f}), {percent(cost.share(costs))}"
        for who, costs in (("Asterisk", cost.asterisk), ("itself", cost.own))
    ]


def columns(title: str, lines: list[str]) -> list[str]:
    return [f"{title if number == 0 else '':16}{line}" for number, line in enumerate(lines)]


def longest(times: Sequence[Interval]) -> float:
    return max((end - begin for begin, end in times), default=0.0)


def percent(share: float) -> str:
    return f"{100 * share:.2f} %"
