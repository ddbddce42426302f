"""``asha plan``: shows every command and every difference of a file, and does nothing."""

from __future__ import annotations

import argparse
import os

from asha.bootstrap import facts, plan
from asha.bootstrap.action import Step
from asha.bootstrap.facts import Facts
from asha.cluster import site as conf
from asha.cluster.secret import Secret
from asha.cluster.site import Site
from asha.commands.common import SECRET, load_site
from asha.commands.install import tell_difference
from asha.errors import UserError
from asha.machine import Machine, UnknownMachine
from asha.rootwork import Directory, Untrusted, is_roots_alone
from asha.run.text import printable
from asha.terminal import show

EPILOG = """\
Shows what is left to do; --all also shows what is done. Secrets are never
shown. With --config FILE for another machine, the plan is that of a Debian that
was not looked at. --scripts writes one shell script per step. Read them, change
them, and run them as root in the order of their numbers.
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", default=conf.CONF, metavar="FILE", help=f"({conf.CONF})")
    parser.add_argument("--all", action="store_true", help="also what is already done")
    parser.add_argument("--scripts", metavar="DIR", help="write shell scripts into this directory")


def run(options: argparse.Namespace) -> int:
    site = load_site(options.config, strict=True)
    machine = Machine()
    here = facts.gather(machine)
    if options.config != conf.CONF and here.name not in (site.first.name, site.second.name):
        return _elsewhere(site, options.scripts)
    try:
        secret = Secret.read(str(machine.path(SECRET)))
    except (OSError, ValueError):
        secret = None  # not made or not ours to read; the plan does not show it anyway
    try:
        steps = plan.steps(site, here, secret or Secret.generate())
        if not options.all:
            steps = plan.pending(steps, machine)
    except (UserError, PermissionError) as problem:
        if os.geteuid() == 0:
            raise
        raise UserError(f"only root may look at all of it ({problem})", "sudo asha plan") from None
    if options.scripts:
        return _write(steps, options.scripts)
    if not steps:
        show("nothing to do: this node is installed as asha.conf says")
        tell_difference(site, machine)
        return 0
    show(plan.describe(steps, machine))
    return 0


def _elsewhere(site: Site, scripts: str | None) -> int:
    """The plan for another machine, which cannot be looked at."""
    steps = plan.steps(site, Facts(site.here.name), Secret.generate())
    if scripts:
        return _write(steps, scripts)
    show(f"This machine is neither {site.first.name} nor {site.second.name}. What depends on the\n"
         "machine is shown as for a Debian with ifupdown, nftables and Apache's own\n"
         f"configuration; asha plan on {site.here.name} looks at it.\n")
    show(plan.describe(steps, UnknownMachine()))
    return 0


def _write(steps: list[Step], directory: str) -> int:
    """Write the scripts. Raises UserError for a directory in which another could put a link, or
    change what root runs."""
    try:
        with _folder(os.path.abspath(directory)) as folder:
            if not is_roots_alone(folder.about()):
                raise Untrusted(directory, "is not root's alone to write")
            for step in steps:
                name = plan.script_name(step)
                text = plan.script(step).encode("utf-8", "surrogateescape")
                about = folder.about()
                folder.write(name, text, uid=about.st_uid, gid=about.st_gid, mode=0o755)
                show(printable(os.path.join(directory, name)))
    except Untrusted as problem:
        raise UserError(str(problem), "name a directory of root's, such as /root/asha") from None
    except OSError as problem:
        raise UserError(f"cannot write into {directory}: {problem.strerror}") from None
    return 0


def _folder(path: str) -> Directory:
    """Open the directory; make it, but not those above it. Raises OSError."""
    try:
        return Directory.trusted(path)
    except FileNotFoundError:
        with Directory.trusted(os.path.dirname(path)) as above:
            return above.ensure(os.path.basename(path), 0o755)
