"""``asha secret rotate``: a new secret for the cluster, on both nodes."""

from __future__ import annotations

import argparse
import sys

from asha.bootstrap.console import Console, ask
from asha.bootstrap.host import ports
from asha.bootstrap.join import client, nodelist, rotation
from asha.bootstrap.join.client import WrongSecretThere
from asha.bootstrap.join.protocol import Body
from asha.cluster import generation
from asha.cluster.secret import Secret
from asha.cluster.site import Site
from asha.commands.common import (
    SECRET,
    end_orderly,
    given_secret,
    load_site,
    need_installed,
    need_root,
    only_one,
)
from asha.errors import UserError
from asha.machine import Machine
from asha.terminal import answer, say

EPILOG = """\
On one node, asha secret rotate makes a new secret, shows it and waits for the
other node. On the other node, asha secret rotate asks for it. Then Corosync,
DRBD and the monitor's AMI account get their new keys on both nodes. No call is
interrupted, and the nodes stay connected. When it is interrupted, on either
node, the same command resumes.

When: somebody may know the secret; or asha install or asha status reports that
the secrets differ. asha remove-node does it itself.

--alone: the other node is off, or must not get the new secret. Corosync, DRBD
and asha install reject that node until asha secret rotate there has asked for
the new secret.

--secret-file: the new secret as you would type it; - for standard input. With
--yes on the first node and --secret-file on the other, nothing is asked.
"""

# For a person who walks to the other machine, and types 56 letters there.
WAIT_SECONDS = 3600.0
LOOK_EVERY = 0.5


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", choices=("rotate", "apply"), metavar="rotate",
                        help="change it")
    parser.add_argument("step", nargs="?", help=argparse.SUPPRESS)
    parser.add_argument("--yes", action="store_true", help="do not ask before the change")
    parser.add_argument("--alone", action="store_true", help="on this node only")
    parser.add_argument("--secret-file", metavar="FILE",
                        help="a file with the new secret, - for standard input")


def run(options: argparse.Namespace) -> int:
    need_root("asha secret")
    machine = Machine()
    site = load_site()
    if options.what == "apply":
        return _apply(machine, site, options.step or "")
    need_installed(machine)
    end_orderly()
    console = Console()
    given = given_secret(options.secret_file) if options.secret_file else None
    try:
        if options.alone or not ports.is_member(site, machine):
            _alone(machine, site, options, given, console)
        else:
            _together(machine, site, options, given, console)
    except KeyboardInterrupt:
        if generation.pending(machine):
            say("\ninterrupted: asha secret rotate goes on, on either node")
        raise
    return 0


# One node.

def _alone(machine: Machine, site: Site, options: argparse.Namespace, given: Secret | None,
           console: Console) -> None:
    there = site.there.name
    if site.there.nodeid in nodelist.members(machine):
        raise UserError(f"{there} is in the cluster: nothing was changed",
                      "asha secret rotate without --alone changes it on both nodes")
    new = generation.pending(machine)
    if new is None:
        _confirm(options, f"The secret is changed on {site.here.name} alone. {there} has to be "
                          "told before it\nis heard: by asha secret rotate there, or by asha "
                          "install where it is not yet a node.")
    with only_one():
        new = given or new or Secret.generate()
        rotation.begin(machine, site, new)
        rotation.Walk(machine, site, new, console.note).run()
    say(f"\n{shown(new)}\n\n{there} needs it before it may come back: asha secret rotate there "
          "asks for it\n(a bare machine: asha install).")


def shown(secret: Secret, where: str = f"It stays in {SECRET}") -> str:
    return ("The new cluster secret. Write it down.\n\n"
            f"    {secret.typed}\n\n({where}, for root alone.)")


# Two nodes.

def _together(machine: Machine, site: Site, options: argparse.Namespace, given: Secret | None,
              console: Console) -> None:
    there = site.there.name
    mine, own = generation.pending(machine), generation.current(machine)
    proved, look = _look(site, [one for one in (mine, own) if one])
    if look is None:
        say(f"{there} has another secret. It is in {SECRET} on {there},\nor in {SECRET}.new.")
        proved, look = _typed(site, given, "")
    elif look["new"] and look["new"] != proved.key_id():
        say(f"{there} has a new secret already, and shows it there ({SECRET}.new).")
        proved, look = _typed(site, given, str(look["new"]))
    elif proved == own and proved != mine and not look["new"]:
        # Nothing is begun there.
        _offer(machine, site, options, given or mine, console)
        return
    if look["new"] not in ("", proved.key_id()):
        raise UserError(f"that is the old secret of {there}, which is changing it",
                      f"the new one is in {SECRET}.new there")
    walk(machine, site, proved, look, console)


def _look(site: Site, secrets: list[Secret]) -> tuple[Secret, Body | None]:
    """The first of these secrets that the other node accepts, and what it says of its own; None
    if it accepts none. Raises UserError if it cannot be asked."""
    for secret in secrets:
        try:
            return secret, client.ask_secret(site, secret)
        except WrongSecretThere:
            continue
        except UserError as trouble:
            raise UserError(
                f"{trouble}; nothing was changed",
                f"{trouble.hint}. If it is off for long: asha secret rotate --alone; for "
                "good: asha remove-node",
            ) from None
    return Secret.generate(), None


def _typed(site: Site, given: Secret | None, key_id: str) -> tuple[Secret, Body]:
    """A secret that the other node accepts, from ``given`` or a person. Raises UserError."""
    if given is None and not sys.stdin.isatty():
        raise UserError(f"the secret of {site.there.name} is needed",
                      "give it with --secret-file FILE (- for standard input)")
    while True:
        try:
            secret = given or Secret.parse(answer("new cluster secret: "))
            if key_id and secret.key_id() != key_id:
                raise ValueError(f"it is not the new one of {site.there.name}")
            return secret, client.ask_secret(site, secret)
        except (ValueError, WrongSecretThere) as wrong:
            if given:
                raise UserError(str(wrong), f"it is in {SECRET}.new (or {SECRET}) on "
                                          f"{site.there.name}") from None
            say(f"  {wrong}")
        except EOFError:
            raise KeyboardInterrupt from None


def _offer(machine: Machine, site: Site, options: argparse.Namespace, new: Secret | None,
           console: Console) -> None:
    """Store the new secret, and wait until the other node has it and has done everything."""
    there = site.there.name
    if generation.pending(machine) is None:
        _confirm(options, "A new cluster secret for both nodes. The telephones go on.\n"
                          f"It has to be typed on {there}.")
    with only_one():
        new = new or Secret.generate()
        rotation.begin(machine, site, new)
    waits = f"Until both nodes have it, it is in {SECRET}.new"
    say(f"{shown(new, waits)}\n\nNow on {there}: asha secret rotate asks for it.")

    def is_awaited() -> bool:
        return generation.pending(machine) is not None or generation.current(machine) != new

    def tell(_: bool, passed: float) -> None:
        if rotation.is_applied(machine, new):
            console.say(f"{there} has it; the last keys are being changed")
        else:
            console.say(f"waiting for {there} ({passed:.0f} s); Ctrl-C does no harm")

    if machine.wait_while(is_awaited, WAIT_SECONDS, LOOK_EVERY, tell):
        raise UserError(f"{there} has not got the new secret yet",
                        "the old one is in use until then; asha secret rotate resumes")
    console.note(f"{site.here.name} and {there} have the new secret: asha status")


def walk(machine: Machine, site: Site, new: Secret, look: Body, console: Console) -> None:
    """Bring both nodes to ``new``. If this one is no member of the other's cluster, or the
    other has finished, only this node's own part is left."""
    there, member = site.there.name, look["member"] is True
    finished = look["id"] == new.key_id() and look["applied"] is True and not look["new"]
    with only_one():
        if generation.current(machine) != new or not rotation.is_applied(machine, new):
            rotation.begin(machine, site, new)
        rotation.Walk(
            machine, site, new, console.note,
            elsewhere=(lambda step: client.have_rotated(site, new, step)) if member else None,
            with_accounts=member and not finished,
        ).run()
    if member:
        say(f"{site.here.name} and {there} have the new secret: asha status")
    else:
        say(f"{site.here.name} has the new secret, and is no member of {there}'s cluster: "
              "asha install\nasks to be let in")


def _confirm(options: argparse.Namespace, text: str) -> None:
    if not options.yes:
        say(text)
        if not ask("Go on?"):
            raise UserError("nothing was changed", "asha secret rotate --yes does not ask")


# As asha-secret@.service runs it.

def _apply(machine: Machine, site: Site, instance: str) -> int:
    step, _, key_id = instance.partition(":")
    if step not in rotation.STEPS:
        raise UserError(f"there is no step {step}", ", ".join(rotation.STEPS))
    machine.remove(rotation.TOLD)
    try:
        with only_one():
            rotation.apply(step, machine, site, rotation.find(machine, key_id))
    except UserError as trouble:
        rotation.tell(machine, trouble)
        raise
    return 0
