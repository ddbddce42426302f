"""The account with which asterisk-health logs in to Asterisk, and its SIP question.

The account goes into the copy of /etc/asterisk in files of our own, with one
``#include`` line each at the end of Asterisk's: SARK writes its own files anew, and a
person sees at a glance what is ours.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from asha.bootstrap import asteriskconf, copy, handover, live
from asha.bootstrap.action import Action, Call, Say, Write
from asha.cluster.secret import Secret
from asha.cluster.site import Site
from asha.data import owners
from asha.machine import Machine

SECRET_FILE = "/etc/asha/ami.secret"
# The account of each generation of the secret has a name of its own, so that two can
# stand side by side while the secret is changed (asha/bootstrap/rotation.py).
USER = "asha-{id}"

ETC = "/etc/asterisk"
COPY = live.STORE + ETC
# Whom the stock package runs Asterisk as.
ACCOUNT = "asterisk"

HEADER = "; Written by asha install, for the cluster's monitor. See asha(8).\n"

# What the README's account may: asks for state, runs "core show ..." commands, makes the
# monitor's own call.
ACCOUNT_TEXT = """
[{user}]
secret = {secret}
deny = 0.0.0.0/0.0.0.0
permit = 127.0.0.1/255.255.255.255
read = system,reporting
write = system,reporting,command,originate
"""

# The last value counts. Only where the manager is off: then nobody else needs it, and
# it need not listen to the LAN.
ENABLE_TEXT = """
[general]{add}
enabled = yes
bindaddr = 127.0.0.1
"""

# res_pjsip logs each OPTIONS from somebody unknown. Known by the header that our
# question has, which Asterisk tries last, so that no telephone is taken for it; from
# the machine itself only, so that nobody else gets by unlogged with that header. A call
# leads nowhere. (Asterisk 16.28: "pjsip show identifiers"; the ACL's refusal is logged.)
PJSIP_TEXT = """
[asha-monitor]
type = endpoint
context = asha-nowhere
disallow = all
allow = alaw
deny = 0.0.0.0/0.0.0.0,::/0
permit = 127.0.0.1/255.255.255.255,::1/128,{virtual}/255.255.255.255

[asha-monitor]
type = identify
endpoint = asha-monitor
match_header = User-Agent: ASHA
"""

MANAGER, MANAGER_OURS = "manager.conf", "asha_manager.conf"
PJSIP, PJSIP_OURS = "pjsip.conf", "asha_pjsip.conf"


def actions(site: Site, machine: Machine, secret: Secret) -> list[Action]:
    """The monitor's secret on both nodes; Asterisk's side of it on the first, in the copy."""
    own = Write(
        SECRET_FILE,
        own_text(secret),
        mode=0o600,
        secret=True,
        why="the monitor's account for Asterisk's manager interface",
    )
    if not site.is_first:
        return [own]

    def work(machine: Machine, say: Say) -> None:
        add_account(machine, secret)
        if uses_pjsip(machine.path(COPY)):
            add_endpoint(machine, site)

    def done(machine: Machine) -> bool:
        if handover.is_taken_over(machine) or not machine.exists(ETC):
            return True
        return copy.is_copied(machine) and _is_there(machine, site, secret)

    return [
        own,
        Call(
            "ami",
            "the monitor's account in the copy of Asterisk's configuration",
            f"Write {COPY}/{MANAGER_OURS} (user [{user(secret)}], from this machine only;\n"
            f"switches the manager on if it is off), #include it in {MANAGER}.\n"
            f"With PJSIP: {PJSIP_OURS}, by which the monitor's question is not logged as a\n"
            f"stranger's, #included in {PJSIP}.",
            work,
            done,
        ),
    ]


def user(secret: Secret) -> str:
    """The account's name."""
    return USER.format(id=secret.key_id())


def own_text(secret: Secret) -> str:
    """What asterisk-health logs in with: asha.asterisk.ami.Credentials."""
    return f"user={user(secret)}\nsecret={secret.ami()}\n"


def add_account(machine: Machine, secret: Secret) -> None:
    """Raises OSError; again and again the same."""
    _write(machine, MANAGER_OURS, account_text(machine.path(COPY), secret))
    _include(machine, MANAGER, MANAGER_OURS)


def add_endpoint(machine: Machine, site: Site) -> None:
    _write(machine, PJSIP_OURS, endpoint_text(site))
    _include(machine, PJSIP, PJSIP_OURS)


def account_text(directory: Path, secret: Secret) -> str:
    """``directory`` is Asterisk's, or a copy of it."""
    text = ACCOUNT_TEXT.format(user=user(secret), secret=secret.ami())
    general, enabled = False, False
    # Without what we wrote before, which does not say whether it was needed.
    for section in asteriskconf.read(directory, MANAGER, without=MANAGER_OURS):
        if section.name == "general":
            general = True
            if section.get("enabled"):
                enabled = asteriskconf.is_true(section.get("enabled"))
    if not enabled:
        text = ENABLE_TEXT.format(add="(+)" if general else "") + text
    return HEADER + text


def endpoint_text(site: Site) -> str:
    return HEADER + PJSIP_TEXT.format(virtual=site.virtual_address)


def uses_pjsip(directory: Path) -> bool:
    """Whether PJSIP listens: it has a transport, and its module is loaded."""
    off = [
        value.removesuffix(".so")
        for section in asteriskconf.read(directory, "modules.conf")
        for key, value in section.lines
        if key == "noload"
    ]
    return not {"res_pjsip", "chan_pjsip"} & set(off) and any(
        section.get("type") == "transport" for section in asteriskconf.read(directory, PJSIP)
    )


def _is_there(machine: Machine, site: Site, secret: Secret) -> bool:
    directory = machine.path(COPY)
    wanted = [(MANAGER, MANAGER_OURS, account_text(directory, secret))]
    if uses_pjsip(directory):
        wanted.append((PJSIP, PJSIP_OURS, endpoint_text(site)))
    return all(
        machine.read(f"{COPY}/{ours}") == text and asteriskconf.includes(directory, name, ours)
        for name, ours, text in wanted
    )


def _write(machine: Machine, name: str, text: str) -> None:
    """Readable for Asterisk and not for everybody."""
    user, group = ACCOUNT, ACCOUNT
    if owners.account(ACCOUNT) is None:
        user, group = machine.owner_of(COPY)
    machine.write(f"{COPY}/{name}", text, 0o640, user, group)


def _include(machine: Machine, name: str, ours: str) -> None:
    """Add our line at the end, if it is not there; the file keeps owner and mode."""
    if asteriskconf.includes(machine.path(COPY), name, ours):
        return
    path = f"{COPY}/{name}"
    text = machine.read(path)
    if text is None:
        _write(machine, name, f"#include {ours}\n")
        return
    about = machine.path(path).stat()
    if text and not text.endswith("\n"):
        text += "\n"
    machine.write(path, f"{text}#include {ours}\n", stat.S_IMODE(about.st_mode))
    if os.geteuid() == 0:
        os.chown(machine.path(path), about.st_uid, about.st_gid)
