"""Which cluster secret this node has, and by which one it is being replaced."""

from __future__ import annotations

from asha.cluster import secret as secrets
from asha.cluster.secret import Secret
from asha.machine import Machine

# The new one, until everything on both nodes is made from it.
PENDING = "/etc/asha/secret.new"
# A node attribute, for good: what ``text`` says.
ATTRIBUTE = "asha-secret"


def current(machine: Machine) -> Secret | None:
    """Raises UserError for a file that others could have written, OSError."""
    return _kept(machine, secrets.PATH)


def pending(machine: Machine) -> Secret | None:
    """The new secret, while there is one. Raises UserError, OSError."""
    return _kept(machine, PENDING)


def text(machine: Machine) -> str:
    """The secret's id, then ">" and the new one's while it is being replaced. No secret."""
    old, new = current(machine), pending(machine)
    told = old.key_id() if old else ""
    return f"{told}>{new.key_id()}" if new else told


def _kept(machine: Machine, path: str) -> Secret | None:
    try:
        return Secret.read(str(machine.path(path)))
    except FileNotFoundError:
        return None
