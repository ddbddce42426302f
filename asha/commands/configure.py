"""``asha configure``: asks, and writes asha.conf."""

from __future__ import annotations

import argparse
import difflib
import os
import sys

from asha.bootstrap import console, facts
from asha.bootstrap.configure import debconf
from asha.bootstrap.configure import interview as asking
from asha.cluster import site as conf
from asha.cluster.cib import MARKER
from asha.cluster.site import Site, SiteError
from asha.conf import values_of
from asha.errors import UserError
from asha.finding import in_words
from asha.machine import Machine
from asha.terminal import say, show

# Where the installer of 2014 kept it.
CONF_2014 = "/opt/asha/asha.conf"
# A confmodule writes its commands there, and reads the answers from its input.
DEBCONF_COMMANDS = 3

EPILOG = """\
Without --answers, asks in the terminal: Return accepts the value in brackets,
- leaves the answer empty, Ctrl-C quits and writes nothing. FILE has KEY=VALUE
lines with the keys of asha.conf(5). A key that FILE does not have gets its
value from the machine where possible. Only asha.conf is changed.
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--answers", metavar="FILE", help="answers, - for standard input")
    parser.add_argument("--output", metavar="FILE", default=conf.CONF,
                        help=f"write this file ({conf.CONF})")
    parser.add_argument("--yes", action="store_true", help="do not ask before it is replaced")
    # For the package's postinst.
    parser.add_argument("--debconf", action="store_true", help=argparse.SUPPRESS)


def run(options: argparse.Namespace) -> int:
    machine = Machine()
    if options.debconf:
        return _through_debconf(machine)
    output = os.path.abspath(options.output)
    values = _answered(machine, options.answers) if options.answers else _asked(machine, output)
    _store(machine, output, values, options.yes)
    return 0


def interview(machine: Machine) -> None:
    """Ask the questions: what asha install does first on a machine without asha.conf."""
    _store(machine, conf.CONF, _asked(machine, conf.CONF), yes=False)


def _asked(machine: Machine, output: str) -> dict[str, str]:
    if not sys.stdin.isatty():
        raise UserError("asha configure asks questions, and this is no terminal",
                      "asha configure --answers FILE takes the answers from a file")
    show("Return takes what stands in brackets. Ctrl-C ends this; nothing is written then.")
    known = values_of(machine.read(output) or "")
    try:
        return asking.ask(machine, facts.gather(machine), known)
    except EOFError:
        raise UserError("the answers ended: nothing was written") from None


def _answered(machine: Machine, path: str) -> dict[str, str]:
    try:
        if path == "-":
            text = sys.stdin.read()
        else:
            with open(path, encoding="utf-8", errors="replace") as file:
                text = file.read()
    except OSError as problem:
        raise UserError(f"cannot read {path}: {problem.strerror}") from None
    values, findings = asking.complete(machine, facts.gather(machine), values_of(text))
    if findings:
        raise UserError("these answers will not do:", "nothing was written",
                        points=in_words(findings))
    return values


def _through_debconf(machine: Machine) -> int:
    """An upgrade asks nothing, and the file counts; dpkg-reconfigure asks everything again."""
    again = bool(os.environ.get("DEBCONF_RECONFIGURE"))
    known = values_of(machine.read(conf.CONF) or machine.read(CONF_2014) or "")
    talk, here = open_debconf(), facts.gather(machine)
    debconf.seed(talk, here, known)
    if machine.exists(conf.CONF) and not again:
        return 0
    values = debconf.ask(talk, machine, here, known, again)
    if values is None:
        raise UserError("no answers: nothing was written", "asha configure asks the questions")
    _store(machine, conf.CONF, values, yes=True)
    if not machine.exists(MARKER):
        say("next: asha check looks at this machine, asha install makes it a node")
    return 0


def open_debconf() -> debconf.Debconf:
    """The debconf that runs postinst. Raises UserError if there is none."""
    try:
        os.fstat(DEBCONF_COMMANDS)
    except OSError:
        raise UserError("there is no debconf to talk to",
                        "this is for the package: dpkg-reconfigure asha") from None
    return debconf.Debconf(
        os.fdopen(0, encoding="utf-8", errors="surrogateescape", closefd=False),
        os.fdopen(DEBCONF_COMMANDS, "w", encoding="utf-8", errors="surrogateescape",
                  closefd=False))


def _store(machine: Machine, output: str, values: dict[str, str], yes: bool) -> None:
    earlier = machine.read(output)
    text = asking.render(values, earlier or "")
    if text == earlier:
        show(f"{output}: nothing has changed")
        return
    if output == conf.CONF and machine.exists(MARKER):
        refuse_another_node(earlier or "", conf.parse(text))
    if earlier is not None and not yes:
        show("\n".join(difflib.unified_diff(
            earlier.splitlines(), text.splitlines(), output, output, lineterm="")))
        if not console.ask("Write this?"):
            raise UserError("nothing was written", "asha configure --yes does not ask")
    try:
        machine.write(output, text)
    except OSError as problem:
        raise UserError(f"cannot write {output}: {problem.strerror}", "run it with sudo") from None
    say(f"written: {output}")


def refuse_another_node(earlier: str, wanted: Site) -> None:
    """Raises UserError if an installed node would change its name, address or disk.

    Corosync, DRBD and Pacemaker on both nodes know these names and addresses: a change here
    alone would separate the nodes.
    """
    try:
        now = conf.parse(earlier)
    except SiteError:
        return  # it could not be read: anything is better
    fixed = (
        ("the nodes' names and addresses", {(one.name, one.address) for one in _nodes(now)},
         {(one.name, one.address) for one in _nodes(wanted)}),
        ("this node's name", now.here.name, wanted.here.name),
        ("the partition of the store", now.device, wanted.device),
    )
    changed = [what for what, old, new in fixed if old != new]
    if changed:
        raise UserError(
            f"this node is installed: {' and '.join(changed)} cannot change any more",
            f"for another name, address or disk install it anew: asha remove-node "
            f"{now.here.name} on {now.there.name}, then asha install here as the second node",
        )


def _nodes(site: Site) -> tuple[conf.NodeConfig, conf.NodeConfig]:
    return site.first, site.second
