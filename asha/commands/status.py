"""``asha status``: the whole cluster on one screen."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time

from asha.bootstrap.takeover.state import RECORD
from asha.commands.common import need_installed
from asha.errors import UserError
from asha.machine import Machine
from asha.status import render
from asha.status.collect import collect
from asha.status.model import NO_SERVICE, Status, as_json
from asha.terminal import say, show

EPILOG = """\
Lines marked ! need action now. Lines marked - are permanent properties of the
site (no fencing, one NIC) or past events. Changes nothing, asks the other node
only through the cluster, and takes ten seconds at most, whatever hangs.

exit code: 0 the telephones run and the other node could take over
           1 they run, and a line marked ! needs action
           2 they do not run (or this node cannot tell, or write it)

--json prints one object, with --watch one a line:
  schema 2; health: healthy, degraded, no service; exit_code
  time: ISO 8601; node: this one; site_id; configured, installed, pacemaker,
    quorum
  active: the node with the telephones, or ""; active_since; moved_from
  nodes: name, state (online, standby, offline, unclean, pending, maintenance),
    here, active
  services: id, title, state (running, starting, stopping, stopped, failed,
    unmanaged), nodes, why; action, code, failed_on: at which action of
    Pacemaker's, with which exit code and where that was; degraded: it worked
    all the same; blocked_on: where it cannot be stopped; given_up_on: where it
    has failed too often
  disks: as asha sync --json tells them; null: not known
  address: address, node; line: node, card_node, position; null: there is none
  calls: calls, channels, longest (s), registered, silent, trunks, trunks_up,
    started, trouble; null: only the active node knows
  links: number, address, state; store: free, total (bytes); null: not mounted
    here
  secrets: node, id (of the cluster secret it has), coming (of the one it gets)
  findings: level (warning, note), what, hint
  address_answers: SIP at the virtual address, as a telephone asks; asked by the
    node that has it, and where Pacemaker does not run; else null
  crash_loops: node, count, between (s), last (time), how it died, core (the
    kernel's pattern, "": none)
"""

CLEAR = "\033[H\033[J"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument("--watch", type=seconds, metavar="SECONDS", nargs="?", const=5.0,
                        help="again and again, so many seconds apart (5), until Ctrl-C")


def seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.5 <= value <= 86400:
        raise argparse.ArgumentTypeError(f"{text}: must be seconds, from 0.5 to 86400")
    return value


def run(options: argparse.Namespace) -> int:
    if os.geteuid() != 0:
        # Not 1, which says that the telephones run.
        raise UserError(
            "only root may ask Pacemaker, DRBD and Asterisk", "sudo asha status", code=2
        )
    machine = Machine()
    # An installation that was cut off is told by status, and programs are told anyway.
    if not machine.exists(RECORD) and not options.json:
        try:
            need_installed(machine)
        except UserError as problem:
            raise UserError(str(problem), problem.hint, code=2) from None
    if options.watch is None:
        status = collect(machine)
        _show(status, options.json, "")
        return status.exit_code
    before = CLEAR if sys.stdout.isatty() else ""
    code = 0
    try:
        while True:
            status = collect(machine)
            code = status.exit_code
            _show(status, options.json, before)
            time.sleep(options.watch)
    except KeyboardInterrupt:
        # How one ends it, not an accident.
        say("")
        return code


def _show(status: Status, for_programs: bool, before: str) -> None:
    if for_programs:
        show(json.dumps(as_json(status)), code=NO_SERVICE)
    else:
        text = render.screen(status, render.has_colours(sys.stdout))
        show(before + text, end="", ours=True, code=NO_SERVICE)
