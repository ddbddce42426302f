"""Runs inside a node: asks Asterisk what asterisk-health asks, and times each answer.

    sampler.py FILE

Appends a line of JSON per question to FILE: {"probe": its name, "begun": seconds of
CLOCK_MONOTONIC, "seconds": the time to its end, "finding": what it found}. Not the agent
itself: that has no time to write down how long it took. Ends when it is killed.
"""

from __future__ import annotations

import json
import sys
import time
from typing import IO, TYPE_CHECKING

from asha.asterisk.probes import (
    ChannelLocks,
    ControlSocket,
    Database,
    DialplanLock,
    ManagerInterface,
    Probe,
    SipOptions,
)
from asha.asterisk.process.proc import Proc
from asha.asterisk.talk.ami import Credentials
from asha.asterisk.talk.connections import side_by_side
from asha.run.deadline import Deadline

if TYPE_CHECKING:
    from asha.asterisk.probes import Verdict
    from asha.asterisk.talk.connections import Conversation

# Seconds between two rounds, and of patience: more than the agent's, to see how
# much longer than that an answer would have taken.
EVERY = 1.0
PATIENCE = 10.0

BINARY = "/usr/sbin/asterisk"
RUN_DIRECTORY = "/run/asterisk"


def probes() -> list[Probe]:
    """Those of depth 10, with the agent's default parameters."""
    process = Proc().from_pid_file(f"{RUN_DIRECTORY}/asterisk.pid", BINARY)
    if process is None:
        return []
    who = Credentials.read("/etc/asha/ami.secret")
    control_socket = ControlSocket(RUN_DIRECTORY, process)
    found: list[Probe] = [control_socket, Database(control_socket)]
    for endpoint in process.listening(5038, ("tcp",)):
        manager = ManagerInterface(endpoint, process, who)
        found += [manager, ChannelLocks(manager), DialplanLock(manager)]
    found += [SipOptions(one, process) for one in process.listening(5060, ("udp", "tcp"))]
    return found


def timed(probe: Probe, out: IO[str]) -> Conversation[Verdict]:
    begun = time.monotonic()
    verdict = yield from probe.attempt(Deadline(PATIENCE))
    out.write(
        json.dumps(
            {
                "probe": probe.name,
                "begun": begun,
                "seconds": time.monotonic() - begun,
                "finding": verdict.finding,
            }
        )
        + "\n"
    )
    return verdict


def main() -> None:
    with open(sys.argv[1], "a", buffering=1, encoding="ascii") as out:
        while True:
            due = time.monotonic() + EVERY
            side_by_side([timed(probe, out) for probe in probes()])
            time.sleep(max(0.0, due - time.monotonic()))


if __name__ == "__main__":
    main()
