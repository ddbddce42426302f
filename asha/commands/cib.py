"""``asha cib``: the configuration as text, compared with the live one, loaded."""

from __future__ import annotations

import argparse

from asha.bootstrap.console import ask
from asha.cluster import cib, site
from asha.commands.common import load_site, need_root
from asha.errors import UserError
from asha.machine import Machine
from asha.run.text import printable
from asha.terminal import say, show, warn

EPILOG = """\
Without an option, prints the configuration that asha.conf describes, for
crmsh, and changes nothing. --load never deletes a resource or a constraint,
and does not turn fencing off. What you added to the cluster stays. What you
changed in a resource that asha.conf describes (a parameter, an interval) is
set back: read --diff first.
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", metavar="FILE", default=site.CONF,
                        help="another asha.conf (default: %(default)s)")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--diff", action="store_true",
                      help="what loading would change in the running cluster; exit 0 either way")
    what.add_argument("--load", action="store_true", help="load it into the running cluster")
    parser.add_argument("--yes", action="store_true", help="with --load: do not ask first")


def run(options: argparse.Namespace) -> int:
    described = load_site(options.config)
    if not options.diff and not options.load:
        show(cib.render(described), end="")
        return 0
    need_root("asha cib --load" if options.load else "asha cib --diff")
    machine = Machine()
    changes = cib.diff(machine, described)
    show(changes or "the cluster is as asha.conf says")
    if not options.load or not changes:
        return 0
    if not options.yes and not ask("Load this into the running cluster?"):
        raise UserError("nothing was changed")
    for warning in cib.load(machine, described):
        warn(printable(warning))
    say("loaded; asha status shows what becomes of it")
    return 0
