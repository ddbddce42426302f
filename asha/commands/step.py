"""``asha step``: does one action of the plan alone, as the written scripts call it."""

from __future__ import annotations

import argparse

from asha.bootstrap import facts, plan
from asha.bootstrap.action import Action, Call, Write
from asha.bootstrap.console import Console
from asha.bootstrap.join import rotation
from asha.cluster import site as conf
from asha.cluster.secret import Secret
from asha.commands.common import cluster_secret, keep, load_site, need_root, only_one
from asha.errors import UserError
from asha.machine import Machine
from asha.terminal import show

EPILOG = """\
Without a name: the names there are. A number is a whole step: what is left to
do of it. What is already done is not done again.
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", help="the action's name, or a step's number")
    parser.add_argument("--file", metavar="PATH", help="the file that the plan writes there")
    parser.add_argument("--config", default=conf.CONF, metavar="FILE", help=f"({conf.CONF})")


def run(options: argparse.Namespace) -> int:
    site = load_site(options.config)
    machine = Machine()
    if not options.name and not options.file:
        for step in plan.steps(site, facts.gather(machine), Secret.generate()):
            for action in step.actions:
                if isinstance(action, Call):
                    show(f"{step.number}  {action.name:20}  {action.title}")
        return 0
    need_root("asha step")
    with only_one():
        secret = cluster_secret(site, machine)
        meant = [
            action
            for step in plan.steps(site, facts.gather(machine), secret)
            for action in step.actions
            if str(step.number) == options.name or _is_meant(action, options)
        ]
        if any(_uses_secret(action, options) for action in meant):
            rotation.require_in_use(machine, secret)
        for action in meant:
            if not action.is_done(machine):
                keep(secret, machine)
                action.do(machine, Console().say)
    if meant:
        return 0
    raise UserError(f"the plan has no {options.name or options.file}", "asha step lists the names")


def _uses_secret(action: Action, options: argparse.Namespace) -> bool:
    """Step 10, which a join needs, uses none."""
    return options.name != "10" and not (isinstance(action, Write) and not action.secret)


def _is_meant(action: Action, options: argparse.Namespace) -> bool:
    if isinstance(action, Call):
        return bool(action.name == options.name)
    return isinstance(action, Write) and bool(action.path == options.file)
