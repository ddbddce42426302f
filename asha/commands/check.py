"""``asha check``: the preflight. Changes nothing."""

from __future__ import annotations

import argparse
import json
import textwrap
from collections.abc import Sequence
from dataclasses import asdict, replace

from asha.bootstrap import facts
from asha.bootstrap.join import rotation
from asha.bootstrap.preflight import checks
from asha.cluster import generation
from asha.cluster import site as conf
from asha.cluster.site import Site, SiteError
from asha.errors import UserError
from asha.finding import Finding, error
from asha.machine import Machine
from asha.run import text
from asha.terminal import show

EPILOG = """\
Errors block the installation. asha install runs the same checks before it
changes anything. Warnings are for you to decide.

With --config FILE for another machine, only what the file alone can tell is
checked. The checks that were left out are named.

Exit code: 0 no error, 1 errors.
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", default=conf.CONF, metavar="FILE", help=f"({conf.CONF})")
    parser.add_argument("--json", action="store_true", help="for a program to read")


def run(options: argparse.Namespace) -> int:
    machine = Machine()
    left_out: list[str] = []
    try:
        site = conf.read(options.config, strict=True)
    except SiteError as wrong:
        findings = [replace(one, what=f"{options.config}: {one.what}") for one in wrong.findings]
    except FileNotFoundError:
        raise UserError(f"there is no {options.config}",
                      "asha configure asks the questions and writes it") from None
    except OSError as problem:
        raise UserError(f"cannot read {options.config}: {problem.strerror}") from None
    else:
        findings, left_out = look(machine, site, elsewhere=options.config != conf.CONF)
        findings += of_secret(machine)
    failed = any(finding.severity == "error" for finding in findings)
    if options.json:
        show(json.dumps({"ok": not failed, "findings": [asdict(one) for one in findings],
                          "left_out": left_out}, indent=2))
    else:
        show(as_text(findings) or "no problem found")
        if left_out:
            show(f"\nNot looked at, for this machine is neither {site.first.name} nor "
                  f"{site.second.name}: {', '.join(left_out)}.")
    return 1 if failed else 0


def look(machine: Machine, site: Site, elsewhere: bool) -> tuple[list[Finding], list[str]]:
    """The findings, and the titles of the checks that were left out.

    ``elsewhere``: the file may be about other machines than this one.
    """
    here = facts.gather(machine)
    if elsewhere and here.name not in (site.first.name, site.second.name):
        alone = checks.apart_from_machine()
        left_out = [check.title for check in checks.CHECKS if check not in alone]
        return checks.look(machine, site, here, checks=alone), left_out
    return checks.look(machine, site, here), []


def of_secret(machine: Machine) -> list[Finding]:
    """Whether this node's keys are made from its secret."""
    try:
        rotation.require_in_use(machine, generation.current(machine))
    except UserError as trouble:
        return [error(str(trouble), trouble.hint)]
    except OSError:
        pass  # it is root's
    return []


def as_text(findings: Sequence[Finding]) -> str:
    """A paragraph for each finding: what is wrong, and below it what to do."""
    lines = []
    for finding in findings:
        lines += textwrap.wrap(text.lines(f"{finding.severity}: {finding.what}"), 79,
                               subsequent_indent="  ", break_long_words=False,
                               break_on_hyphens=False)
        # Commands in it are to be copied: not wrapped.
        if finding.hint:
            lines.append(f"    {text.printable(finding.hint)}")
    return "\n".join(lines)
