"""``asha plan``: every command and file difference, and nothing done."""

from __future__ import annotations

import argparse
import os

from asha.bootstrap import plan
from asha.bootstrap.action import Step
from asha.cluster import site as conf
from asha.cluster.secret import Secret
from asha.commands.common import SECRET, load_site
from asha.commands.install import tell_difference
from asha.machine import Machine
from asha.ocf.text import printable
from asha.terminal import show
from asha.trouble import Trouble

EPILOG = """\
What is already so is left out; --all shows it too. Secrets are never shown.
With --scripts the same is written as shell scripts, one a step, to be read,
changed and run by hand in the order of their numbers.
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", default=conf.CONF, metavar="FILE", help=f"({conf.CONF})")
    parser.add_argument("--all", action="store_true", help="also what is already done")
    parser.add_argument("--scripts", metavar="DIR", help="write shell scripts into this directory")


def run(options: argparse.Namespace) -> int:
    site = load_site(options.config, strict=True)
    machine = Machine()
    try:
        secret = Secret.read(str(machine.path(SECRET)))
    except (OSError, ValueError):
        secret = None  # not made or not ours to read; the plan does not show it anyway
    try:
        steps = plan.steps(site, machine, secret or Secret.generate())
        if not options.all:
            steps = plan.pending(steps, machine)
    except (Trouble, PermissionError) as problem:
        if os.geteuid() == 0:
            raise
        raise Trouble(f"only root may look at all of it ({problem})", "sudo asha plan") from None
    if options.scripts:
        return _write(steps, options.scripts)
    if not steps:
        show("nothing to do: this node is installed as asha.conf says")
        tell_difference(site, machine)
        return 0
    show(plan.describe(steps, machine))
    return 0


def _write(steps: list[Step], directory: str) -> int:
    try:
        os.makedirs(directory, exist_ok=True)
        for step in steps:
            place = os.path.join(directory, plan.script_name(step))
            with open(place, "w", encoding="utf-8", errors="surrogateescape") as file:
                file.write(plan.script(step))
            os.chmod(place, 0o755)
            show(printable(place))
    except OSError as problem:
        raise Trouble(f"cannot write into {directory}: {problem.strerror}") from None
    return 0
