"""The telephones: SIPp holds calls up, ended and replaced at a steady rate."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass, field
from types import TracebackType

from tests.lab import LabError, Node, wait_for
from tests.lab.host import kill_session
from tests.lab.lab import VIRTUAL_ADDRESS

# Answers, and sends back what it hears (extensions.conf of the lab).
EXTENSION = "101"
STATISTICS = "/root/sipp.csv"
ERRORS = "/root/sipp.err"
SCREEN = "/root/sipp.screen"

# Columns of SIPp's statistics (its manual, "Statistics"): (C) counts from the start.
FAILED = re.compile(r"Failed(?P<cause>[A-Z]\w*)\(C\)")


@dataclass(frozen=True)
class Counts:
    """What SIPp has counted since its start."""

    made: int = 0
    up: int = 0
    completed: int = 0
    failed: int = 0
    # Failed calls by SIPp's name of the cause.
    causes: dict[str, int] = field(default_factory=dict)
    # Messages that the scenario did not wait for, or that belong to no call.
    unexpected: int = 0
    # Of requests by SIPp: each answer that was later than T1 (0.5 s, RFC 3261).
    retransmissions: int = 0


def parse(text: str) -> Counts:
    """SIPp's statistics file as it stands: its last whole line, by the names on top.

    No line yet is no call yet. Raises LabError for a file that is not SIPp's.
    """
    lines = text.split("\n")[:-1]  # what follows the last newline is half written
    if len(lines) < 2:
        return Counts()
    names = lines[0].split(";")
    values = dict(zip(names, lines[-1].split(";"), strict=False))

    def count(name: str) -> int:
        try:
            return int(values[name])
        except (KeyError, ValueError):
            raise LabError(f"SIPp's statistics have no number {name}") from None

    causes = {}
    for name in names:
        match = FAILED.fullmatch(name)
        if match and match["cause"] != "Call" and count(name):
            causes[match["cause"]] = count(name)
    return Counts(
        made=count("TotalCallCreated"),
        up=count("CurrentCall"),
        completed=count("SuccessfulCall(C)"),
        failed=count("FailedCall(C)"),
        causes=causes,
        unexpected=sum(
            count(name)
            for name in ("FailedUnexpectedMessage(C)", "OutOfCallMsgs(C)", "DeadCallMsgs(C)")
        ),
        retransmissions=count("Retransmissions(C)"),
    )


class Calls:
    """``with Calls(node, 300, 5.0) as calls:`` the calls come up one by one from ``node``.

    Each lasts as long as ``most`` calls take to begin, at ``rate`` per second. ``space``: a
    network namespace's file; SIPp is the node's, and works there.
    """

    def __init__(self, node: Node, most: int, rate: float, space: str = "") -> None:
        self.seconds = most / rate
        self._node = node
        self._space = space
        self._argv = (
            "sipp", VIRTUAL_ADDRESS, "-sn", "uac", "-s", EXTENSION,
            "-l", str(most), "-r", f"{rate:g}", "-d", str(round(self.seconds * 1000)),
            "-nostdin", "-trace_stat", "-stf", STATISTICS, "-fd", "1",
            "-trace_err", "-error_file", ERRORS,
        )
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Calls:
        # Its screen goes to a file: a pipe that nobody reads would stop it.
        with self._node.path(SCREEN).open("wb") as screen:
            command = self._node.command(*self._argv)
            if self._space:
                command[command.index("--net")] = f"--net={self._space}"
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL, stdout=screen, stderr=screen, text=True,
                start_new_session=True,
            )
        wait_for(lambda: self.counts().up > 0, "the first call of SIPp")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process is not None:
            kill_session(self._process)

    def counts(self) -> Counts:
        """Up to now. Raises LabError when SIPp has ended."""
        assert self._process is not None
        if self._process.poll() is not None:
            said = self._node.path(SCREEN).read_text(errors="replace")[-400:]
            raise LabError(f"SIPp has ended with {self._process.returncode}: {said}")
        place = self._node.path(STATISTICS)
        return parse(place.read_text()) if place.exists() else Counts()

    def first_errors(self, most: int = 5) -> list[str]:
        """What SIPp complained of first, one line each."""
        place = self._node.path(ERRORS)
        if not place.exists():
            return []
        lines = place.read_text(errors="replace").splitlines()
        return [line.split("\t")[-1] for line in lines if "Call-Id" in line][:most]
