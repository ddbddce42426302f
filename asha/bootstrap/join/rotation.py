"""A new cluster secret in the place of the old one, while the telephones go on.

The new one is kept beside the old (asha/cluster/generation.py) on each node until
everything is made from it. Nothing secret travels: it is typed on the second node. Then
one node walks (``Walk``); what is the other's, the other does (asha-secret@.service) when
it is asked by somebody who proves the new secret. Each step can be done again and again, and
is safe to be cut off after: DRBD and Corosync keep a connection whose key is changed on
both sides, and the accounts of both secrets stand side by side until both nodes use the
new one.

Seen on Corosync 3.1.7 and 3.1.9: ``corosync-cfgtool -R`` on one node has both read the
key's file anew, and both take old and new packets meanwhile (knet's two crypto
configurations; totemconfig.c, totemknet.c): the membership does not change. DRBD asks
for the shared secret when it connects and not later (drbd_receiver.c).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from asha.bootstrap.action import Say
from asha.bootstrap.join import accounts, nodelist
from asha.bootstrap.steps import asterisk
from asha.cluster import cib, corosync, drbd, generation, pacemaker
from asha.cluster import secret as secrets
from asha.cluster.pacemaker import TELEPHONES
from asha.cluster.secret import Secret
from asha.cluster.site import Site
from asha.errors import UserError
from asha.machine import Machine
from asha.rootwork import Untrusted

SHARED_SECRET = re.compile(r'shared-secret "[^"]*"')

DRBD_SECONDS = 60.0
# How long the membership is looked at after the new key: more than token and consensus.
SETTLED_SECONDS = 3.0
# A survivor that was alone without quorum starts the telephones first.
TELEPHONES_SECONDS = 120.0
# A monitor that has read the old account's secret may log in a little later. Longer
# than one of depth 20 takes.
MONITOR_SECONDS = 10.0
EVERY = 0.2

GO_ON = "asha secret rotate goes on with it"


# What is kept.

def begin(machine: Machine, site: Site, secret: Secret) -> None:
    machine.write(generation.PENDING, secret.text, mode=0o600)
    publish(machine, site)


def find(machine: Machine, key_id: str) -> Secret:
    """The secret with that id. Raises UserError."""
    new = generation.pending(machine)
    for secret in [new] if new else [generation.current(machine)]:
        if secret and secret.key_id() == key_id:
            return secret
    raise UserError(f"this node has no secret {key_id}", "asha secret rotate")


def publish(machine: Machine, site: Site) -> None:
    """Tell the cluster. If it does not run, the next installer does that."""
    machine.output("crm_attribute", "--node", site.here.name, "--name", generation.ATTRIBUTE,
                 "--update", generation.text(machine))


def is_applied(machine: Machine, secret: Secret) -> bool:
    """Whether this node's keys, as they are on its disk, are made from it."""
    said, disk = machine.read(asterisk.SECRET_FILE), machine.read(drbd.CONF)
    return (
        machine.read(corosync.AUTHKEY) == secret.corosync_authkey()
        and (said is None or said == asterisk.own_text(secret))
        and (disk is None or f'shared-secret "{secret.drbd()}"' in disk)
    )


def require_in_use(machine: Machine, secret: Secret | None) -> None:
    """Raises UserError if a member's keys are made from another secret, before an installer
    changes half of them. None: this node has no secret."""
    if generation.pending(machine):
        raise UserError("a change of the cluster secret is not finished on this node", GO_ON)
    conf = corosync.parse(machine.read(corosync.CONF) or "")
    is_ours = conf.cluster_name == corosync.CLUSTER_NAME and machine.exists(corosync.AUTHKEY)
    in_use = secret is not None and is_applied(machine, secret)
    if is_ours and not in_use and not cib.is_left_over(machine):
        raise UserError(
            f"{secrets.PATH} is not the secret that this node's keys are made of: Corosync, DRBD "
            "and AMI would each have another one" if machine.exists(secrets.PATH) else
            f"{secrets.PATH} is missing: this node's keys are made of a secret that it has not",
            "asha secret rotate puts one secret in all places, here and on the other node",
        )


# The steps of one node.

def _drbd(machine: Machine, site: Site, secret: Secret) -> None:
    text = machine.read(drbd.CONF)
    if text is None:
        return
    wanted, found = SHARED_SECRET.subn(f'shared-secret "{secret.drbd()}"', text)
    if found != 1:
        wanted = drbd.render(site, secret, drbd.version(machine))
    if wanted != text:
        machine.write(drbd.CONF, wanted, mode=0o600)
    # Also where the file was right: it may have been cut off in between.
    if drbd.status(machine).is_up:
        machine.run("drbdadm", "adjust", drbd.RESOURCE, timeout=DRBD_SECONDS)


def _connect(machine: Machine, site: Site, secret: Secret) -> None:
    """A connection that was lost between the two nodes' steps was refused then: connect again."""
    if drbd.status(machine).connection == "StandAlone":
        machine.run("drbdadm", "adjust", drbd.RESOURCE, timeout=DRBD_SECONDS)


def _corosync_key(machine: Machine, site: Site, secret: Secret) -> None:
    if machine.read(corosync.AUTHKEY) != secret.corosync_authkey():
        machine.write(corosync.AUTHKEY, secret.corosync_authkey(), mode=0o400)


def _corosync_reload(machine: Machine, site: Site, secret: Secret) -> None:
    if nodelist.quorate(machine) is None:
        return
    before = set(nodelist.members(machine))
    machine.run("corosync-cfgtool", "-R", timeout=30)
    if not machine.wait_while(
        lambda: before <= set(nodelist.members(machine)), SETTLED_SECONDS, EVERY
    ):
        raise UserError(
            f"{site.there.name} is lost since Corosync has a new key",
            "journalctl -u corosync on both nodes tells why; then: asha secret rotate",
        )


def _ami_add(machine: Machine, site: Site, secret: Secret) -> None:
    accounts.add(machine, secret)


def _ami_switch(machine: Machine, site: Site, secret: Secret) -> None:
    text = machine.read(asterisk.SECRET_FILE)
    if text is not None and text != asterisk.own_text(secret):
        machine.write(asterisk.SECRET_FILE, asterisk.own_text(secret), mode=0o600)


def _ami_drop(machine: Machine, site: Site, secret: Secret) -> None:
    if accounts.has_others(machine, secret):
        machine.pause(MONITOR_SECONDS)
        accounts.drop_others(machine, secret)


def _finish(machine: Machine, site: Site, secret: Secret) -> None:
    if generation.current(machine) != secret:
        machine.write(secrets.PATH, secret.text, mode=0o600)
    machine.remove(generation.PENDING)
    publish(machine, site)


Work = Callable[[Machine, Site, Secret], None]
STEPS: dict[str, Work] = {
    "drbd": _drbd,
    "drbd-connect": _connect,
    "corosync-key": _corosync_key,
    "corosync-reload": _corosync_reload,
    "ami-add": _ami_add,
    "ami-switch": _ami_switch,
    "ami-drop": _ami_drop,
    "finish": _finish,
}


def apply(step: str, machine: Machine, site: Site, secret: Secret) -> None:
    """Do one step on this node. Raises UserError."""
    try:
        STEPS[step](machine, site, secret)
    except Untrusted as problem:
        raise UserError(str(problem), f"{problem.hint or 'fix that'}; then: asha secret rotate, "
                                    "which resumes") from None
    except OSError as problem:
        raise UserError(f"{problem.filename or step}: {problem.strerror}",
                      "fix that, then: asha secret rotate, which resumes") from None


# As asha-secret@.service does it: why not, for who has asked. For root alone, gone at boot.
TOLD = "/run/asha-secret"


def told(machine: Machine) -> tuple[str, str]:
    """What is wrong and what to do about it, "" if nothing is."""
    what, _, hint = (machine.read(TOLD) or "").partition("\n")
    return what, hint.strip()


def tell(machine: Machine, trouble: UserError) -> None:
    machine.write(TOLD, f"{trouble}\n{trouble.hint}\n", mode=0o600)


# The walk.

@dataclass
class Walk:
    """``elsewhere`` does a step on the other node; None if this one is alone.
    ``with_accounts``: False if another node has done Asterisk's side."""

    machine: Machine
    site: Site
    secret: Secret
    say: Say
    elsewhere: Callable[[str], None] | None = None
    with_accounts: bool = True

    def run(self) -> None:
        """Do everything, in order. Raises UserError; called again it continues."""
        self._both("drbd", "DRBD's shared secret")
        self._both("drbd-connect")
        self._both("corosync-key", "Corosync's key")
        if nodelist.quorate(self.machine) is None and self.elsewhere:
            self.elsewhere("corosync-reload")
        else:
            self._here("corosync-reload")
        if self._has_monitor():
            active = self._active() if self.with_accounts else ""
            if active:
                self._at(active, "ami-add", f"Asterisk's account for the monitor, on {active}")
            self._both("ami-switch")
            if active:
                # Anew: it may have moved meanwhile.
                self._at(self._active(), "ami-drop", "the old account")
        self._both("finish", "the secret itself")

    def _both(self, step: str, title: str = "") -> None:
        if title:
            self.say(title)
        if self.elsewhere:
            self.elsewhere(step)
        self._here(step)

    def _here(self, step: str) -> None:
        apply(step, self.machine, self.site, self.secret)

    def _at(self, name: str, step: str, title: str) -> None:
        self.say(title)
        if name == self.site.here.name:
            self._here(step)
        elif self.elsewhere:
            self.elsewhere(step)
        else:
            raise UserError(f"the telephones run on {name}, which does not have the new secret",
                          f"on {name}: asha secret rotate")

    def _has_monitor(self) -> bool:
        return self.machine.exists(asterisk.SECRET_FILE)

    def _active(self) -> str:
        """The node where Asterisk runs, after a wait; "" where the cluster has no Asterisk.
        Raises UserError."""
        active = ""

        def is_awaited() -> bool:
            nonlocal active
            try:
                state = pacemaker.look(self.machine)
            except UserError:
                return True
            active = state.active_node
            return bool(state.of(TELEPHONES)) and not active

        if self.machine.wait_while(is_awaited, TELEPHONES_SECONDS, 1.0):
            raise UserError("the telephones do not run: Asterisk's account for the monitor is "
                            "still the old one", f"asha status tells why; when they run, {GO_ON}")
        return active
