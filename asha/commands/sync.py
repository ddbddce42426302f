"""``asha sync``: show the progress of DRBD's resync."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import time

from asha.bootstrap.console import REDRAW
from asha.cluster import site as conf
from asha.commands.common import load_site, need_installed
from asha.errors import UserError
from asha.machine import Machine
from asha.run.text import printable
from asha.status import render
from asha.status.model import SCHEMA, Disks
from asha.status.replication import DiskSight
from asha.terminal import show

EPILOG = """\
Do not test a fail-over before the resync has ended: until then the node that
is being synchronised cannot take over.

--watch waits for the end, with one line that is redrawn (without a terminal: a
line every ten seconds). --json prints one object, with --watch one per line:
  schema 2; node, role, disk, peer, peer_role, peer_disk, connection: DRBD's
    terms;
  syncing, in_sync: true or false; percent: 0 to 100; out_of_sync: KiB; speed:
    KiB/s;
  seconds_left. null: not known.

exit code: 0 both disks are UpToDate, 3 not yet, 1 not known, or it needs
somebody (split brain, a lost disk)
"""

NOT_YET = 3
WATCH_SECONDS = 1.0
LINE_SECONDS = 10.0


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--watch", action="store_true", help="wait until the disks are the same")
    parser.add_argument("--json", action="store_true", help="for programs")


def run(options: argparse.Namespace) -> int:
    machine = Machine()
    need_installed(machine)
    here, there = _names(machine)
    sight = DiskSight(machine, here, there)
    if options.watch:
        return watch(sight, options.json)
    disks = known(sight.look_closely())
    show(as_json(disks) if options.json else render.disks(disks))
    return 0 if disks.in_sync else NOT_YET


def watch(sight: DiskSight, as_objects: bool) -> int:
    """Watch until both disks are UpToDate. Raises UserError if they never will be by
    themselves."""
    redraw = sys.stdout.isatty() and not as_objects
    last = -LINE_SECONDS
    while True:
        disks = known(sight.look())
        over = disks.in_sync or disks.connection == "StandAlone"
        if as_objects:
            show(as_json(disks))
        elif redraw:
            line = printable(render.disks(disks))[:render.WIDTH - 1]
            show(f"{REDRAW}{line}", end="\n" if over else "", ours=True)
        elif over or time.monotonic() - last >= LINE_SECONDS:
            show(printable(render.disks(disks)))
            last = time.monotonic()
        if disks.in_sync:
            return 0
        if over:
            raise UserError("DRBD split brain: both nodes wrote while disconnected",
                          "decide whose data is kept; see asha(8), SPLIT BRAIN")
        time.sleep(WATCH_SECONDS)


def known(disks: Disks | None) -> Disks:
    if disks is None:
        raise UserError("DRBD's resource asha is not up on this node",
                      "asha status says why; where Pacemaker is stopped: systemctl start pacemaker")
    return disks


def as_json(disks: Disks) -> str:
    return json.dumps({"schema": SCHEMA, **dataclasses.asdict(disks)})


def _names(machine: Machine) -> tuple[str, str]:
    if machine.exists(conf.CONF):
        site = load_site()
        return site.here.name, site.there.name
    return os.uname().nodename, "the other node"
