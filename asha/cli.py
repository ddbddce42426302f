"""The command ``asha``.

Each subcommand is a module of asha.commands with ``EPILOG`` (what --help adds, or
""), ``arguments(parser)`` and ``run(options) -> int``. A module is imported only when
its command is the one, so that ``asha --help`` is quick and a missing library hurts
nobody else. ``run`` raises UserError for what the user should read: one line, and the
hint.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from asha import __version__, command_log, terminal
from asha.errors import UserError

# name: what --help says of it
COMMANDS = {
    "configure": "ask the questions and write asha.conf",
    "check": "check this machine and list every problem with its fix",
    "plan": "show every command and file change, in order, and change nothing",
    "install": "make this machine a node of the cluster; resumes after an interruption",
    "status": "the whole cluster on one screen",
    "switchover": "move the telephone system to the other node",
    "standby": "take a node out of service; its services move to the other",
    "online": "let a node back in; nothing moves by itself",
    "sync": "show the progress of DRBD's resync",
    "cib": "the cluster's configuration: print, compare with the live one, load",
    "secret": "change the cluster secret on both nodes, while the telephones go on",
    "evidence": "list and show what a hung Asterisk was doing before its restart",
    "remove-node": "forget a node that is gone for good; a replacement may then join",
    "step": "one action of the plan alone, as its scripts call it",
    "join-listen": "(a service) let the second node in once it proves the secret",
    "recover": "(a service) roll back a take-over that was interrupted",
}
HIDDEN = ("step", "join-listen", "recover")
# They change nothing, and are run all the time: in the log they would be all there is.
UNLOGGED = ("status", "sync")

INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0 done, 1 failed (the reason was printed),
    2 wrong usage, 130 interrupted.

    Only a process of its own (``argv`` is None) writes to the command log.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if argv is None:
        terminal.settle()
    chosen = next((word for word in words if not word.startswith("-")), "")
    parser = _parser(chosen)
    if not words:
        parser.print_help(sys.stderr)
        return 2
    options = parser.parse_args(words)
    command_log.begin(words, file=argv is None and chosen not in UNLOGGED, live=options.debug)
    how = "ended by an error in asha"
    try:
        code = _run(options)
        how = f"exit {code}"
        return code
    finally:
        command_log.finish(how)


def _run(options: argparse.Namespace) -> int:
    try:
        code = int(options.run(options))
        terminal.finish()
        return code
    except terminal.Unwritten as lost:
        if not lost.quiet:
            terminal.report(lost)
        return lost.code
    except UserError as trouble:
        terminal.report(trouble)
        if log := command_log.written():
            terminal.warn(f"{terminal.HINT_INDENT}what ran: {log}")
        return trouble.code
    except KeyboardInterrupt:
        terminal.warn("asha: interrupted")
        return INTERRUPTED


def _parser(chosen: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="asha",
        description="Two Debian boxes, one telephone system: install it, look at it, switch it.",
        epilog="asha COMMAND --help tells more. See asha(8).",
    )
    parser.add_argument("--version", action="version", version=f"asha {__version__}")
    debug = "show each program that is run, with its exit code, on standard error"
    parser.add_argument("--debug", action="store_true", help=debug)
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    for name, about in COMMANDS.items():
        if name in HIDDEN and name != chosen:
            continue
        if name != chosen:
            commands.add_parser(name, help=about)
            continue
        module = importlib.import_module("asha.commands." + name.replace("-", "_"))
        sub = commands.add_parser(
            name,
            help=about,
            description=about[0].upper() + about[1:] + ".",
            epilog=module.EPILOG,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.arguments(sub)
        # Also after the command; there it has no default, which would undo the one before.
        sub.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=debug)
        sub.set_defaults(run=module.run)
    return parser
