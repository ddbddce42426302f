"""The account with which asterisk-health logs in to Asterisk, and its SIP endpoint.

The account goes into the copy of /etc/asterisk in files of our own, with one ``#include`` line
each at the end of Asterisk's: SARK rewrites its own files, and a person sees at once what is
ours.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress

from asha import rootwork, terminal
from asha.asterisk import configuration
from asha.asterisk.configuration import Warn
from asha.bootstrap.action import Action, Call, Say, Write
from asha.bootstrap.host import data_directories
from asha.bootstrap.host.data_directories import STORE
from asha.bootstrap.steps import data
from asha.bootstrap.takeover import takeover
from asha.cluster.secret import Secret
from asha.cluster.site import Site
from asha.data import owners
from asha.machine import Machine
from asha.rootwork import Directory, Untrusted

SECRET_FILE = "/etc/asha/ami.secret"
# The account of each generation of the secret has a name of its own, so that two can
# stand side by side while the secret is changed (asha/bootstrap/join/rotation.py).
USER = "asha-{id}"

ETC = "/etc/asterisk"
COPY = STORE + ETC
# Whom the stock package runs Asterisk as.
ACCOUNT = "asterisk"

HEADER = "; Written by asha install, for the cluster's monitor. See asha(8).\n"

# It may look and nothing else: class "reporting" is what Getvar, ShowDialPlan, CoreStatus
# and the lists of asha status need. "system" could load a module from any directory,
# "command" and "originate" run programs as Asterisk's user.
ACCOUNT_TEXT = """
[{user}]
secret = {secret}
deny = 0.0.0.0/0.0.0.0
permit = 127.0.0.1/255.255.255.255
read = none
write = reporting
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


def actions(site: Site, secret: Secret) -> list[Action]:
    """The monitor's secret on both nodes; on the first also Asterisk's side of it, in the copy."""
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
        def warn(text: str) -> None:
            say(f"warning: {text}")

        with data_directories.told(), open_copy(machine) as directory:
            add_account(directory, secret, warn)
            if uses_pjsip(directory, warn):
                add_endpoint(directory, site)

    def done(machine: Machine) -> bool:
        if takeover.is_taken_over(machine) or not machine.exists(ETC):
            return True
        return data.is_copied(machine) and _is_there(machine, site, secret)

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


def open_copy(machine: Machine) -> Directory:
    """The copy of Asterisk's directory in the store. Raises OSError."""
    with data_directories.trusted(machine, STORE) as store:
        return store.below(ETC.strip("/"))


def user(secret: Secret) -> str:
    """The account's name."""
    return USER.format(id=secret.key_id())


def own_text(secret: Secret) -> str:
    """What asterisk-health logs in with: asha.asterisk.talk.ami.Credentials."""
    return f"user={user(secret)}\nsecret={secret.ami()}\n"


def add_account(directory: Directory, secret: Secret, warn: Warn = terminal.warn) -> None:
    """Add the monitor's account to Asterisk's files. Can be repeated.

    ``directory`` is /etc/asterisk itself or a copy; Asterisk may write in it meanwhile. Raises
    Untrusted for a manager.conf that is not an ordinary file, OSError.
    """
    text = account_text(directory, secret, warn)
    write(directory, MANAGER_OURS, text)
    include(directory, MANAGER, MANAGER_OURS)


def add_endpoint(directory: Directory, site: Site) -> None:
    write(directory, PJSIP_OURS, endpoint_text(site))
    include(directory, PJSIP, PJSIP_OURS)


def account_text(directory: Directory, secret: Secret, warn: Warn = terminal.warn) -> str:
    """``directory`` is Asterisk's, or a copy of it."""
    text = ACCOUNT_TEXT.format(user=user(secret), secret=secret.ami())
    general, enabled = False, False
    # Without what we wrote before, which does not say whether it was needed.
    for section in configuration.read(directory, MANAGER, without=MANAGER_OURS, warn=warn):
        if section.name == "general":
            general = True
            if section.get("enabled"):
                enabled = configuration.is_true(section.get("enabled"))
    if not enabled:
        text = ENABLE_TEXT.format(add="(+)" if general else "") + text
    return HEADER + text


def endpoint_text(site: Site) -> str:
    return HEADER + PJSIP_TEXT.format(virtual=site.virtual_address)


def uses_pjsip(directory: Directory, warn: Warn = terminal.warn) -> bool:
    """Whether PJSIP listens: it has a transport, and its module is loaded."""
    off = [
        value.removesuffix(".so")
        for section in configuration.read(directory, "modules.conf", warn=warn)
        for key, value in section.lines
        if key == "noload"
    ]
    return not {"res_pjsip", "chan_pjsip"} & set(off) and any(
        section.get("type") == "transport"
        for section in configuration.read(directory, PJSIP, warn=warn)
    )


def problem(machine: Machine) -> Untrusted | None:
    """The file to which the installer could not add its line, with the reason. Changes nothing."""
    try:
        with data_directories.trusted(machine, ETC) as directory:
            for name in (MANAGER, PJSIP):
                with suppress(FileNotFoundError):
                    configuration.text_of(directory, name)
    except Untrusted as found:
        return found
    except OSError:
        pass  # said by who looks at the directory
    return None


def _is_there(machine: Machine, site: Site, secret: Secret) -> bool:
    def ignore(text: str) -> None:
        pass

    try:
        with open_copy(machine) as directory:
            wanted = [(MANAGER, MANAGER_OURS, account_text(directory, secret, ignore))]
            if uses_pjsip(directory, ignore):
                wanted.append((PJSIP, PJSIP_OURS, endpoint_text(site)))
            return all(
                directory.read(ours, configuration.FILE_MOST) == text.encode()
                and configuration.includes(directory, name, ours)
                for name, ours, text in wanted
            )
    except OSError:
        return False


def write(directory: Directory, name: str, text: str) -> None:
    """Write a file that Asterisk can read, and not everybody."""
    account = owners.account(ACCOUNT)
    about = directory.about()
    uid, gid = (about.st_uid, about.st_gid) if account is None \
        else (account.pw_uid, account.pw_gid)
    directory.write(name, text.encode("utf-8", "surrogateescape"), uid=uid, gid=gid, mode=0o640)


def include(directory: Directory, name: str, ours: str) -> None:
    """Add our line at the end, if it is not there; the file keeps its owner and mode.

    A link's target is not changed: a file replaces the link.
    """
    if configuration.includes(directory, name, ours):
        return
    line = f"#include {ours}\n".encode()
    try:
        descriptor = directory.open_within(name)
    except FileNotFoundError:
        write(directory, name, line.decode())
        return
    try:
        # Of one and the same file, whatever has its name by now.
        about = os.fstat(descriptor)
        acl = rootwork.access_list(descriptor)
        text = rootwork.read_open(descriptor, directory.name(name), configuration.FILE_MOST)
    finally:
        os.close(descriptor)
    if text and not text.endswith(b"\n"):
        text += b"\n"
    directory.write(name, text + line, uid=about.st_uid, gid=about.st_gid,
                    mode=stat.S_IMODE(about.st_mode) & 0o777, acl=acl)
