"""The monitor's account in the running Asterisk: a second one is added, an old one removed.

The file is Asterisk's, in a directory where others can write: everything goes through
asha.rootwork. asha/bootstrap/steps/asterisk.py says what an account may do, and writes the
first one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator

from asha.asterisk.talk.ami import Ami, Credentials
from asha.asterisk.talk.connections import Silent, Wait, hold
from asha.bootstrap.steps import asterisk
from asha.cluster.secret import Secret
from asha.errors import UserError
from asha.machine import Machine
from asha.rootwork import Directory
from asha.run.deadline import Deadline

ADDRESS = ("127.0.0.1", 5038)
# Asterisk reads manager.conf anew within a moment; a machine under load gets more.
LOGIN_SECONDS = 10.0
RELOAD_SECONDS = 30.0
ASK_SECONDS = 3.0
EVERY = 0.5

# A section's head, such as "[general](+)".
HEAD = re.compile(r"^\[([^\]]*)\]")
OURS = re.compile(r"asha(-[0-9A-Z]{4})?")


def add(machine: Machine, secret: Secret) -> None:
    """Add this secret's account to those that Asterisk knows.

    Can be repeated. Raises UserError, OSError.
    """
    name = asterisk.user(secret)
    wanted = asterisk.ACCOUNT_TEXT.format(user=name, secret=secret.ami())
    with _directory(machine) as directory:
        before = _read(directory, asterisk.MANAGER_OURS)
        text = _without(before, lambda section: section == name) or asterisk.HEADER
        if text + wanted != before:
            asterisk.write(directory, asterisk.MANAGER_OURS, text + wanted)
        # SARK may have written Asterisk's own file anew, without our line.
        asterisk.include(directory, asterisk.MANAGER, asterisk.MANAGER_OURS)
    _reload(machine)
    _require_login(machine, Credentials(name, secret.ami()))


def drop_others(machine: Machine, secret: Secret) -> None:
    """Remove all accounts of ours but this secret's. Raises UserError, OSError."""
    name = asterisk.user(secret)
    with _directory(machine) as directory:
        before = _read(directory, asterisk.MANAGER_OURS)
        text = _without(before, lambda section: section != name and bool(OURS.fullmatch(section)))
        if text != before:
            asterisk.write(directory, asterisk.MANAGER_OURS, text)
    _reload(machine)


def has_others(machine: Machine, secret: Secret) -> bool:
    with _directory(machine) as directory:
        text = _read(directory, asterisk.MANAGER_OURS)
    return any(OURS.fullmatch(section) and section != asterisk.user(secret)
               for section, _ in _sections(text))


def _directory(machine: Machine) -> Directory:
    return Directory.trusted(str(machine.path(asterisk.ETC)), str(machine.root))


def _read(directory: Directory, name: str) -> str:
    try:
        return directory.read(name).decode("utf-8", "surrogateescape")
    except FileNotFoundError:
        return ""


def _sections(text: str) -> list[tuple[str, str]]:
    """The name ("" before the first) and the whole text of each section."""
    found = [("", "")]
    for line in text.splitlines(keepends=True):
        if head := HEAD.match(line):
            found.append((head[1], ""))
        found[-1] = (found[-1][0], found[-1][1] + line)
    return found


def _without(text: str, is_meant: Callable[[str], bool]) -> str:
    kept = "".join(part for section, part in _sections(text) if not is_meant(section))
    return kept.rstrip("\n") + "\n" if kept.strip() else ""


def _reload(machine: Machine) -> None:
    machine.run("asterisk", "-rx", "manager reload", timeout=RELOAD_SECONDS)


def _require_login(machine: Machine, who: Credentials) -> None:
    if problem := machine.wait_while(lambda: login_problem(who), LOGIN_SECONDS, EVERY):
        raise UserError(f"Asterisk rejects the new account {who.user}: {problem}",
                        "asterisk -rx 'manager show settings' and manager.conf tell why; then: "
                        "asha secret rotate, which resumes")


def login_problem(who: Credentials) -> str:
    """Why Asterisk refuses this user's login, "" if it does not."""

    def visit() -> Generator[Wait, bool, bool]:
        with Ami(ADDRESS, Deadline(ASK_SECONDS)) as manager:
            yield from manager.greet()
            return (yield from manager.login(who))

    try:
        return "" if hold(visit()) else "refused"
    except OSError as problem:
        return problem.strerror or str(problem)
    except Silent as problem:
        return f"no {problem}"
