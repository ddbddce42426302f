"""``asha remove-node``: the remaining node becomes a cluster of its own."""

from __future__ import annotations

import argparse

from asha.bootstrap.console import Console, ask
from asha.bootstrap.firewall import backends
from asha.bootstrap.join import nodelist, rotation
from asha.cluster import generation
from asha.cluster.secret import Secret
from asha.cluster.site import Site
from asha.commands.common import load_site, need_installed, need_root, only_one
from asha.commands.secret import shown
from asha.errors import UserError
from asha.machine import Machine
from asha.terminal import say, show

EPILOG = """\
When: the other node is broken, stolen or in repair for long, and is switched
off. The telephones are not touched.

Why: after a reboot, a node of two waits until it has seen the other one, so
that two nodes that cannot see each other never both start. A survivor that
reboots would wait without end. After this command it starts alone, and one
that waits starts at once.

At the end it makes a new cluster secret and closes the firewall to the removed
node, except for the port on which a node asks to join.

A replacement needs the same name and addresses, and the new secret. On it:
apt install ./asha_*.deb, asha install, as the second node (PRIMARY=false),
whichever of the two it replaces. If the removed machine comes back: on it asha
secret rotate, which asks for the new secret, then asha install.
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="the node that is gone")
    parser.add_argument("--yes", action="store_true", help="do not ask")


def run(options: argparse.Namespace) -> int:
    site = load_site()
    name = _checked(site, options.name)
    need_root("asha remove-node")
    machine = Machine()
    need_installed(machine)
    console = Console()
    with only_one():
        nodelist.need_gone(machine, site)
        # Of a removal that was cut off.
        new = generation.pending(machine)
        if nodelist.is_forgotten(machine, site):
            show(f"the cluster has no {name}")
        else:
            show(f"{site.here.name} becomes a cluster of its own: corosync.conf without {name}, "
                  f"and\nPacemaker forgets what it knew of {name}. The disk's configuration "
                  f"stays as it is.\n{name} must be switched off: were it to run unseen, "
                  "there would be two\ntelephone systems.")
            if not options.yes and not ask(f"Is {name} switched off, and shall it be forgotten?"):
                raise UserError("nothing was changed", "asha remove-node --yes does not ask")
            # Before the other is forgotten: what is begun is ended by the next run. Always
            # another: one that is half way in may have been typed there already.
            new = Secret.generate()
            rotation.begin(machine, site, new)
        nodelist.forget(machine, site)
        backends.close(site, machine, console.say)
        if new is not None:
            rotation.Walk(machine, site, new, console.say).run()
    if new is not None:
        show(f"\n{shown(new)}\n")
    say(f"{site.here.name} is alone, and starts alone after a reboot. When {name} or its "
          f"replacement\nis to join: asha install, there.")
    return 0


def _checked(site: Site, name: str) -> str:
    """Raises UserError unless the name is the other node's."""
    here, there = site.here.name, site.there.name
    if name == here:
        raise UserError(f"{here} is this node: it cannot remove itself",
                      f"on the node that stays: asha remove-node {here}")
    if name != there:
        raise UserError(f"there is no node {name}: the nodes are {here} and {there}")
    return name
