"""``python3 -m asha.relay park``: release the line before Pacemaker starts.

A card keeps its relay through a warm reboot of the node that powers it. So a node that comes
back could hold a line whose calls are on the other one. This switches the relay off; Pacemaker
switches it on again where the calls are.
"""

from __future__ import annotations

import argparse
import sys

from asha.conf import values_of
from asha.ocf.params import path_problem
from asha.relay import DRIVERS, card_for
from asha.relay.contract import Position, Settings
from asha.run.deadline import Deadline
from asha.run.results import AgentError
from asha.run.runner import Runner
from asha.run.text import printable
from asha.terminal import say, warn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from asha.relay.contract import Card
    from asha.run.runner import Completed

# Seconds; the cards' drivers give up after about 7.
PARK_SECONDS = 15.0

DEFAULTS = {
    "driver": "rhino",
    "device": "/dev/ttyUSB0",
    "relay": "0",
    "program": "/usr/local/bin/rhinofailover",
}

# asha.conf: RHINOSPF and RHINOUSB are the 2014 keys (SARK wiki, "V4 High
# Availability"); the others came with the second kind of card.
CONF_KEYS = {
    "driver": "RELAYDRIVER",
    "device": "RHINOUSB",
    "relay": "RELAYNUMBER",
    "program": "RELAYPROGRAM",
}


def main(argv: Sequence[str] | None = None, deadline: Deadline | None = None) -> int:
    """0: the line is not held here. 1: the card refuses. 2: wrong usage."""
    parser = _parser()
    given = parser.parse_args(argv)
    values = dict(DEFAULTS)
    if given.conf:
        try:
            with open(given.conf, encoding="utf-8", errors="replace") as file:
                conf = values_of(file.read())
        except OSError as problem:
            parser.error(f"cannot read {given.conf}: {problem.strerror}")
        if conf.get("RHINOSPF", "").upper() != "YES":
            say(f"nothing to park: RHINOSPF is not YES in {given.conf}")
            return 0
        values.update({name: conf[key] for name, key in CONF_KEYS.items() if conf.get(key)})
    values.update({name: value for name in DEFAULTS if (value := getattr(given, name))})
    misspelt = path_problem(values["device"])
    if misspelt:
        parser.error(f"device {values['device']}: {misspelt}")
    deadline = deadline or Deadline(PARK_SECONDS + given.wait)

    def run(*words: str, cap: float | None = None) -> Completed:
        return Runner().run(words, deadline, cap=cap)

    try:
        number = int(values["relay"])
        card = card_for(
            Settings(values["driver"], values["device"], number, values["program"]), run
        )
    except ValueError as wrong:
        parser.error(str(wrong))
    return _park(card, values["device"], deadline, given.wait)


def _park(card: Card, device: str, deadline: Deadline, wait: float) -> int:
    if not deadline.within(wait).poll(lambda: bool(card.identity())):
        say(f"nothing to park: no relay card at {device}, and one without power is off")
        return 0
    try:
        card.check()
        known = card.drive(Position.OFF, deadline)
    except AgentError as problem:
        if not card.identity():
            say(f"the relay card at {device} was unplugged, and without power it is off")
            return 0
        warn(f"asha.relay: {printable(problem.reason)}")
        return 1
    confirmed = "" if known is Position.OFF else " (the card cannot confirm it)"
    say(f"relay card {device} is off{confirmed}: the line is at the other node")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python3 -m asha.relay", description="The card that moves the telephone line."
    )
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    park = actions.add_parser(
        "park",
        help="take the relay off: the line goes to the node that does not power the card",
        description="Take the relay off. No card is no error: without power it is off.",
    )
    park.add_argument("--conf", metavar="FILE", help="read the card's settings from asha.conf")
    park.add_argument("--driver", choices=DRIVERS, help=f"kind of card ({DEFAULTS['driver']})")
    park.add_argument("--device", help=f"its tty ({DEFAULTS['device']})")
    park.add_argument("--relay", help=f"relay on the module ({DEFAULTS['relay']})")
    park.add_argument("--program", help=f"the Rhino's program ({DEFAULTS['program']})")
    park.add_argument(
        "--wait",
        type=float,
        default=0.0,
        metavar="SECONDS",
        help="how long the card may take to appear (0)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
