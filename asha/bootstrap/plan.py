"""The plan: what makes this machine a node, in the order of the manual of 2014.

10 network and firewall, 20 the replicated disk, 30 the data, 50 Corosync and
Pacemaker, 70 the resources. A second node copies nothing (30) and gets the
configuration from the first (70): DRBD and Pacemaker do that for it.
"""

from __future__ import annotations

import shlex

from asha.bootstrap.action import Step
from asha.bootstrap.facts import Facts
from asha.bootstrap.firewall import backends
from asha.bootstrap.join import client
from asha.bootstrap.steps import (
    asterisk,
    corosync,
    data,
    drbd,
    link_address,
    pacemaker,
    sark,
    systemd,
)
from asha.bootstrap.takeover import takeover
from asha.bootstrap.takeover.state import OWNER_VARIABLE
from asha.cluster.secret import Secret
from asha.cluster.site import Site
from asha.machine import Machine


def steps(site: Site, facts: Facts, secret: Secret) -> list[Step]:
    """Everything that this node needs, done or not. Asks no machine but by its facts."""
    near = [
        Step(10, "network", "cluster link and firewall",
             [*link_address.actions(site, facts.link),
              *backends.actions(site, facts.firewall)]),
        Step(20, "drbd", "the replicated disk", drbd.actions(site, facts.drbd, secret)),
    ]
    if site.is_first:
        return [
            *near,
            Step(30, "data", "the data moves into the store",
                 [*data.actions(site, facts.copied), *sark.actions(site),
                  *asterisk.actions(site, secret)]),
            Step(50, "cluster", "Corosync and Pacemaker",
                 [*systemd.actions(site, facts.services), *corosync.reset_actions(site),
                  *corosync.actions(site, secret)]),
            Step(70, "resources", "Pacemaker takes the telephone system over",
                 [takeover.take_over_action(site), *pacemaker.actions(site),
                  takeover.finish_action()]),
        ]
    return [
        *near,
        Step(50, "cluster", "joining the other node",
             [*asterisk.actions(site, secret), *systemd.actions(site, facts.services),
              *corosync.reset_actions(site), *client.actions(site, secret),
              takeover.begin_action(), takeover.take_over_action(site),
              *corosync.actions(site, secret), *pacemaker.joined_actions(site),
              takeover.finish_action()]),
    ]


def pending(plan: list[Step], machine: Machine) -> list[Step]:
    """The same steps with only the actions that are left to do, without empty steps."""
    left = []
    for step in plan:
        actions = [action for action in step.actions if not action.is_done(machine)]
        if actions:
            left.append(Step(step.number, step.name, step.title, actions))
    return left


def describe(plan: list[Step], machine: Machine) -> str:
    """Every command and every difference of a file, for a person to read."""
    lines: list[str] = []
    for step in plan:
        lines += ["", f"== {step.number} {step.name}: {step.title} ==", ""]
        for action in step.actions:
            lines.append(f"* {action.title}")
            shown = action.preview(machine)
            if shown != action.title:
                lines += [f"    {line}" if line else "" for line in shown.splitlines()]
    return "\n".join(lines[1:])


def script_name(step: Step) -> str:
    return f"{step.number}-{step.name}.sh"


def script(step: Step) -> str:
    """The step as a shell script, to be read and run piece by piece."""
    lines = [
        "#!/bin/sh",
        f"# {step.number} {step.title}. Written by: asha plan --scripts",
        "# Run the scripts in the order of their numbers, as root. asha install does the",
        "# same, skips what is done already, and rolls back when it is interrupted. So do",
        "# these: when the shell that you run them from ends before the last has.",
        "set -e",
        f"export {OWNER_VARIABLE}=\"${{{OWNER_VARIABLE}:-$PPID}}\"",
    ]
    for action in step.actions:
        lines += ["", f"echo {shlex.quote(action.title)}", action.script()]
    return "\n".join(lines) + "\n"
