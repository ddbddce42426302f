"""A telephone that never stops asking: OPTIONS every 50 ms, answers with their times.

Run in the switchboard's namespace it sees what phones see, and counts an answer from the
address that it asked alone, as a telephone behind NAT or a firewall does. The clock is
CLOCK_MONOTONIC, which all processes of the machine share.

A telephone has a processor of its own. Debian's Asterisk runs at real-time priority
(asterisk -p), so that one runaway thread of a node's may keep an ordinary process of this
machine waiting for 0.95 s of each second (sched(7), sched_rt_runtime_us); the prober's is
above that.
"""

from __future__ import annotations

import argparse
import itertools
import os
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from tests.lab.host import LabError, wait_for
from tests.lab.lab import REPOSITORY, VIRTUAL_ADDRESS, Lab

PERIOD = 0.05  # seconds between two questions
HEARD = 0.5  # seconds: a shorter silence is a lost packet or two
PORT = 5060
# An extension: Asterisk looks it up in the dialplan before it answers.
USER = "100"
# Above Asterisk's, which is 10 (main/asterisk.c, ast_set_priority()).
PRIORITY = 20

OPTIONS = (
    "OPTIONS sip:{user}@{target} SIP/2.0\r\n"
    "Via: SIP/2.0/UDP {own}:{port};branch=z9hG4bK-{number};rport\r\n"
    "From: <sip:prober@{own}>;tag={number}\r\n"
    "To: <sip:{user}@{target}>\r\n"
    "Call-ID: {number}@prober\r\n"
    "CSeq: 1 OPTIONS\r\n"
    "Contact: <sip:prober@{own}:{port}>\r\n"
    "Max-Forwards: 70\r\n"
    "Content-Length: 0\r\n\r\n"
)


class Prober:
    """``with Prober(lab) as prober:`` asks all the while."""

    def __init__(
        self, lab: Lab, target: str = VIRTUAL_ADDRESS, *, from_anyone: bool = False
    ) -> None:
        """``from_anyone``: of a stack that answers from the node's own address."""
        self._lab = lab
        self._target = target
        self._options = ["--from-anyone"] if from_anyone else []
        self._log = lab.directory / "prober.log"
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Prober:
        self._log.unlink(missing_ok=True)
        self._process = subprocess.Popen(
            [
                "ip", "netns", "exec", self._lab.network.switchboard,
                sys.executable, "-m", "tests.lab.prober", self._target, str(self._log),
                *self._options,
            ],
            cwd=REPOSITORY,
            stdin=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        wait_for(self._log.exists, "the prober's start")
        return self

    def __exit__(self, *rest: object) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def answers(self, since: float = 0.0) -> list[float]:
        """Times of the answers after ``since`` (time.monotonic)."""
        # A line still being written lacks its end mark.
        times = [float(line[:-1]) for line in self._log.read_text().split() if line[-1] == "Z"]
        return [moment for moment in times if moment > since]

    def wait_answering(self, since: float, timeout: float = 120.0, steady: float = 1.0) -> None:
        """Until answers come for ``steady`` seconds on end after ``since``."""

        def steadily() -> bool:
            now = time.monotonic()
            recent = [t for t in self.answers(max(since, now - steady)) if t <= now]
            return now - since >= steady and len(recent) >= 0.8 * steady / PERIOD

        wait_for(steadily, f"SIP answers from {self._target}", timeout=timeout, every=0.1)

    def outage(self, since: float, until: float | None = None) -> float:
        """The longest silence, in seconds, in the time since ``since``.

        Up to ``until`` (now): a telephone that is still not answered counts.
        """
        end = until if until is not None else time.monotonic()
        moments = [since, *(t for t in self.answers(since) if t <= end), end]
        if len(moments) == 2:
            raise LabError(f"{self._target} did not answer once in {end - since:.1f} s")
        return max(later - earlier for earlier, later in itertools.pairwise(moments))

    def recovered(self, since: float) -> float:
        """Seconds from ``since`` to the end of the last silence that can be heard.

        What counts where a hang does not touch OPTIONS, but its cure interrupts them.
        0 when there was none. Ask when answers come steadily again.
        """
        moments = [since, *self.answers(since)]
        ends = [later for earlier, later in itertools.pairwise(moments) if later - earlier > HEARD]
        return ends[-1] - since if ends else 0.0


def probe(target: str, log: Path, from_anyone: bool) -> None:
    """Ask for ever; write the time of each answer."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(PRIORITY))
    except PermissionError:
        pass  # a machine that grants no real-time priority to Asterisk either
    plug = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    plug.bind(("0.0.0.0", 0))
    plug.setblocking(False)
    port = plug.getsockname()[1]
    number = 0
    due = time.monotonic()
    with log.open("w", buffering=1) as out:
        while True:
            now = time.monotonic()
            if now >= due:
                number += 1
                due = max(due + PERIOD, now)
                text = OPTIONS.format(
                    user=USER, target=target, own="192.168.1.1", port=port, number=number
                )
                try:
                    plug.sendto(text.encode(), (target, PORT))
                except OSError:
                    pass  # nobody has the address just now: an unanswered question
            ready, _, _ = select.select([plug], [], [], max(0.0, due - time.monotonic()))
            if not ready:
                continue
            try:
                data, caller = plug.recvfrom(4096)
            except OSError:
                continue  # an ICMP error of an earlier question
            if (from_anyone or caller == (target, PORT)) and data.startswith(b"SIP/2.0 "):
                out.write(f"{time.monotonic():.4f}Z\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target")
    parser.add_argument("log", type=Path)
    parser.add_argument("--from-anyone", action="store_true")
    options = parser.parse_args()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    probe(options.target, options.log, options.from_anyone)


if __name__ == "__main__":
    main()
