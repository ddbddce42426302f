"""The plan: what makes this machine a node, in the order of the manual of 2014.

10 network and firewall, 20 the replicated disk, 30 the data, 50 Corosync and
Pacemaker, 70 the resources. A second node copies nothing (30) and gets the
configuration from the first (70): DRBD and Pacemaker do that for it.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field

from asha.bootstrap.action import Step
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
from asha.cluster.drbd import version as drbd_version
from asha.cluster.secret import Secret
from asha.cluster.site import Site
from asha.machine import Machine

# The module that is in the kernels of Debian 12 and 13.
DEBIANS_DRBD = "8.4.11"


@dataclass(frozen=True)
class Found:
    """What the steps go by. As it stands here: a customer's Debian, not yet looked at."""

    link: link_address.Found = field(default_factory=link_address.Found)
    firewall: backends.Found = field(default_factory=backends.Found)
    services: systemd.Found = field(default_factory=systemd.Found)
    drbd: str = DEBIANS_DRBD
    copied: tuple[str, ...] = ("  each directory that sark-data binds, where it is there",)


def look(machine: Machine) -> Found:
    """Ask the machine, once. Changes nothing. Raises UserError, OSError."""
    return Found(link_address.look(machine), backends.look(machine), systemd.look(machine),
                 drbd_version(machine), tuple(data.look(machine)))


def steps(site: Site, found: Found, secret: Secret) -> list[Step]:
    """Everything that this node needs, done or not. Asks no machine."""
    near = [
        Step(10, "network", "cluster link and firewall",
             [*link_address.actions(site, found.link),
              *backends.actions(site, found.firewall)]),
        Step(20, "drbd", "the replicated disk", drbd.actions(site, found.drbd, secret)),
    ]
    if site.is_first:
        return [
            *near,
            Step(30, "data", "the data moves into the store",
                 [*data.actions(site, found.copied), *sark.actions(site),
                  *asterisk.actions(site, secret)]),
            Step(50, "cluster", "Corosync and Pacemaker",
                 [*systemd.actions(site, found.services), *corosync.reset_actions(site),
                  *corosync.actions(site, secret)]),
            Step(70, "resources", "Pacemaker takes the telephone system over",
                 [takeover.take_over_action(site), *pacemaker.actions(site),
                  takeover.finish_action()]),
        ]
    return [
        *near,
        Step(50, "cluster", "joining the other node",
             [*asterisk.actions(site, secret), *systemd.actions(site, found.services),
              *corosync.reset_actions(site), *client.actions(site, secret),
              takeover.begin_action(), takeover.take_over_action(site),
              *corosync.actions(site, secret), *pacemaker.joined_actions(site),
              takeover.finish_action()]),
    ]


def pending(plan: list[Step], machine: Machine) -> list[Step]:
    """The same steps with only what is left to do; steps with nothing left out."""
    left = []
    for step in plan:
        actions = [action for action in step.actions if not action.is_done(machine)]
        if actions:
            left.append(Step(step.number, step.name, step.title, actions))
    return left


def describe(plan: list[Step], machine: Machine) -> str:
    """Every command and file difference, for a reader."""
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
    """The step as a shell script, for whoever wants to read and run it piece by piece."""
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
