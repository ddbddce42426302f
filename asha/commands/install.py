"""``asha install``: does the plan."""

from __future__ import annotations

import argparse
import sys

from asha.bootstrap import facts, plan
from asha.bootstrap.action import Step
from asha.bootstrap.console import Console, ask
from asha.bootstrap.facts import Facts
from asha.bootstrap.join import client, nodelist, rotation
from asha.bootstrap.preflight import checks
from asha.bootstrap.takeover import takeover
from asha.bootstrap.takeover.state import RECORD
from asha.cluster import cib, corosync
from asha.cluster import site as conf
from asha.cluster.secret import Secret
from asha.cluster.site import Site
from asha.commands import check, configure
from asha.commands.common import (
    SECRET,
    cluster_secret,
    end_orderly,
    keep,
    load_site,
    need_root,
    only_one,
)
from asha.errors import UserError
from asha.machine import Machine
from asha.terminal import say, show

EPILOG = """\
The first node makes the cluster secret and shows it. The second node asks for
it (or reads --secret-file, or finds /etc/asha/secret). Everything is checked
before anything is changed. When it is interrupted (Ctrl-C, a lost connection,
a power cut), the services are rolled back. Run it again: it resumes.

The telephones are silent during the last copy of the data and until Pacemaker
has started them: about a minute on the first node, not at all on the second.
"""

LOG = "/var/log/asha/install.log"

# The longest that a question to the first node may take.
ASK_SECONDS = 15.0


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--yes", action="store_true", help="do not ask before the changes")
    parser.add_argument("--secret-file", metavar="FILE",
                        help="a file with the cluster secret, - for standard input")


def run(options: argparse.Namespace) -> int:
    need_root("asha install")
    machine = Machine()
    if not machine.exists(conf.CONF) and sys.stdin.isatty():
        configure.interview(machine)
    site = load_site(strict=True)
    end_orderly()
    with only_one():
        if machine.exists(RECORD):
            say("Resuming: the previous run was interrupted.")
            takeover.recover(machine, Console().note)
        secret = cluster_secret(site, machine, options.secret_file)
        rotation.require_in_use(machine, secret)
        here = facts.gather(machine)
        if not plan.pending(plan.steps(site, here, secret), machine):
            show(f"{site.here.name} is installed: nothing to do")
            tell_difference(site, machine)
            return 0
        site = _check(site, machine, here, secret)
        steps = plan.steps(site, here, secret)
        if not options.yes:
            _confirm(site, plan.pending(steps, machine))
        keep(secret, machine)
        console = Console(LOG)
        _walk(machine, steps, console)
        console.note("done")
    _print_next_steps(site, machine, secret)
    return 0


def tell_difference(site: Site, machine: Machine) -> None:
    """Print a hint if asha.conf asks for another configuration than the live one. Comments do
    not count: the first node's name the card that is plugged into it."""
    changes = cib.diff(machine, site).splitlines()[2:]
    if any(line[0] in "+-" and not line[1:].lstrip().startswith("#") for line in changes if line):
        show("The cluster's live configuration differs from asha.conf: asha cib --diff\n"
              "shows how, asha cib --load makes it so.")


def _check(site: Site, machine: Machine, here: Facts, secret: Secret) -> Site:
    """The site with the other node's LAN address, for the second ring. Prints the findings.
    Raises UserError if one is an error."""
    other = None
    if not site.is_first:
        own = facts.shared_facts(machine, site, here)
        try:
            other = client.ask_facts(site, secret, own, ASK_SECONDS, machine)
        except UserError:
            # Perhaps what is wrong here says why.
            findings = checks.look(machine, site, here)
            if findings:
                show(check.as_text(findings))
            raise
    findings = checks.look(machine, site, here, other)
    if findings:
        show(check.as_text(findings))
    if any(finding.severity == "error" for finding in findings):
        raise UserError("nothing was changed", "fix the errors above, then run asha install again")
    return site if other is None else nodelist.with_lan(machine, site, str(other.get("lan") or ""))


def _confirm(site: Site, steps: list[Step]) -> None:
    show(f"\n{site.here.name} becomes the {'first' if site.is_first else 'second'} node:")
    for step in steps:
        count = len(step.actions)
        show(f"  {step.number} {step.title} ({count} change{'s' if count > 1 else ''})")
    show("asha plan shows each of them.")
    if site.is_first:
        show(f"{site.device} is overwritten: it becomes the store. The telephones will be\n"
              "silent for a minute or more.")
    else:
        show(f"{site.device} is overwritten with what {site.there.name} has. The PBX of this\n"
              f"machine stops; its own data is kept, each directory as NAME.asha-DATE.")
    if not ask("Go on?"):
        raise UserError("nothing was changed", "asha install --yes does not ask")


def _walk(machine: Machine, steps: list[Step], console: Console) -> None:
    """Do what is not done. If anything ends it early, the services are rolled back.

    Each action is asked when its turn comes: an earlier one may have undone it.
    """
    current = ""
    try:
        for step in steps:
            told = False
            for action in step.actions:
                if action.is_done(machine):
                    continue
                if not told:
                    console.note(f"{step.number} {step.title}")
                    told = True
                current = action.title
                console.note(f"   {current}")
                action.do(machine, console.say)
    except BaseException as problem:
        try:
            console.note(f"   stopped in: {current}: {str(problem) or 'interrupted'}")
        finally:
            takeover.recover(machine, console.note)
        if isinstance(problem, OSError):
            raise UserError(f"{current}: {problem}",
                          "fix it and run asha install again: it resumes") from None
        if isinstance(problem, UserError):
            raise UserError(f"{current}: {problem}",
                          problem.hint or "fix it and run asha install again: it resumes") \
                from None
        if isinstance(problem, KeyboardInterrupt):
            console.note("interrupted: run asha install again, it resumes")
        raise


def _print_next_steps(site: Site, machine: Machine, secret: Secret) -> None:
    text = machine.read(corosync.CONF) or ""
    if site.there.name in (node.name for node in corosync.parse(text).nodes) and site.is_first:
        say(f"\n{site.here.name} and {site.there.name} are as asha.conf says: asha status")
        return
    if not site.is_first:
        say(f"""
{site.here.name} has joined {site.there.name}. the disks resynchronise now:

    asha sync --watch

DO NOT TEST A FAIL-OVER BEFORE THAT HAS ENDED. Then reboot {site.here.name} once.""")
        return
    say(f"""
The cluster secret. Write it down: the second node asks for it once.

    {secret.typed}

(It stays in {SECRET}, for root alone.)

The telephone system runs on {site.here.name}, at {site.virtual_address}. Now:

    asha status         look at it
    reboot              see that everything comes back

then install the second node, {site.there.name}: apt install ./asha_*.deb, asha install.
There is no fail-over before that. Do not test one before asha sync --watch has
ended.""")
