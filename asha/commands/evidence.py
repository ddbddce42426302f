"""``asha evidence``: what a hung Asterisk was doing before its restart."""

from __future__ import annotations

import argparse
import os

from asha import rootwork
from asha.asterisk.evidence import DIRECTORY, SUMMARY, events_in
from asha.errors import UserError
from asha.run.text import printable
from asha.terminal import show

EPILOG = """\
Each node keeps its own, on its own disk. An event is named by its time and the
process number; "last" is the newest. Send the whole directory of an event
(mostly backtraces.txt) to whoever supports your Asterisk. A hang leaves
evidence. A crash does not: see journalctl -u asterisk. Backtraces need gdb.
"""

NONE = "no hang was seen on this node"
CUT_OFF = "(cut off before its summary was written)"


def arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(required=True, metavar="ACTION", dest="action")
    actions.add_parser("list", help="the events, oldest first, and why each")
    show = actions.add_parser("show", help="one event: its summary, or all of it")
    show.add_argument("event", help="its name, or last")
    show.add_argument("--all", action="store_true", help="every file, not only the summary")
    parser.add_argument("--directory", default=DIRECTORY, metavar="DIR", help=f"({DIRECTORY})")


def run(options: argparse.Namespace) -> int:
    try:
        if options.directory != DIRECTORY and not os.path.isdir(options.directory):
            raise UserError(f"there is no directory {options.directory}")
        events = events_in(options.directory)
        if options.action == "list":
            for event in events:
                show(printable(f"{event}  {_why(options.directory, event)}"))
            if not events:
                show(f"{NONE}: look on the other one too, each keeps its own")
            return 0
        return _show(options, events)
    except PermissionError:
        raise UserError(f"{options.directory} is for root alone", "run it with sudo") from None
    except OSError as problem:
        raise UserError(f"{options.directory} cannot be read: {problem.strerror}") from None


def _show(options: argparse.Namespace, events: list[str]) -> int:
    if not events:
        raise UserError(NONE, "look on the other node too: each keeps its own")
    name = events[-1] if options.event == "last" else options.event
    if name not in events:
        raise UserError(f"there is no event {name} on this node", "asha evidence list names them")
    place = f"{options.directory}/{name}"
    others = sorted(file for file in os.listdir(place) if file != SUMMARY)
    for file in [SUMMARY, *others] if options.all else [SUMMARY]:
        if options.all:
            show(f"\n== {printable(file)} ==\n")
        show(_text(f"{place}/{file}") or f"{CUT_OFF}\n", end="")
    if not options.all:
        show(f"\nIn {place}: {printable(' '.join(others))}")
    return 0


def _why(directory: str, event: str) -> str:
    for line in _text(f"{directory}/{event}/{SUMMARY}").split("\n"):
        if line.startswith("Why: "):
            return line.removeprefix("Why: ")
    return CUT_OFF


def _text(path: str) -> str:
    """Raises OSError, also for what is not an ordinary file: nobody waits for a FIFO."""
    try:
        return rootwork.read(path).decode("utf-8", "surrogateescape")
    except FileNotFoundError:
        return ""
