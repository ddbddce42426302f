"""What a take-over has changed so far; it is written to disk before the change.

A take-over lasts several minutes, and at any moment the installer may be killed or the power
fail. The roll-back goes by this file. Who holds the lock may change it; the installer that
wrote it is its owner.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

from asha.bootstrap.action import Say
from asha.bootstrap.file_lock import file_lock
from asha.bootstrap.host.services import Unit
from asha.errors import UserError
from asha.machine import Machine
from asha.run.child import is_alive, start_time

RECORD = "/var/lib/asha/handover.json"
LOCK = "/var/lib/asha/handover.lock"
BOOT = "/proc/sys/kernel/random/boot_id"

# The scripts of `asha plan` run each step as a process of its own. They name the
# shell that runs them as the owner, so that the services come back when that ends.
OWNER_VARIABLE = "ASHA_OWNER"

# Putting everything back takes as long as MariaDB takes to start.
LOCK_SECONDS = 1200.0

# The stages, in their order: stopped for the copy, copied and verified, being moved
# aside, all moved and the marker written.
BEGUN, COPIED, MOVING, TAKEN = STAGES = ("begun", "copied", "moving", "taken")


@dataclass
class Moved:
    """A directory of live data, renamed from ``path`` to ``aside``.

    ``logs``: its file names are needed also while it is empty (see takeover.LOGS).
    """

    path: str
    aside: str
    logs: bool = False


@dataclass
class Record:
    """The whole file. ``owner`` is a pid, its start time and the id of its boot."""

    owner: tuple[int, str, str]
    stage: str = BEGUN
    # Handed over: off for good when the cluster has them.
    units: list[Unit] = field(default_factory=list)
    # Only kept from writing meanwhile: on again at the end, however it ends.
    paused: list[Unit] = field(default_factory=list)
    runit: list[str] = field(default_factory=list)
    moved: list[Moved] = field(default_factory=list)
    # Of the source as it was copied; see tree.fingerprint.
    fingerprint: str = ""

    @property
    def is_ours(self) -> bool:
        return self.owner[:2] == owner()[:2]

    def is_orphaned(self, machine: Machine) -> bool:
        """Whether the installer that wrote it has ended."""
        pid, started, boot = self.owner
        return boot != boot_id(machine) or not is_alive(pid, started)

    def reached(self, stage: str) -> bool:
        return STAGES.index(self.stage) >= STAGES.index(stage)


def owner() -> tuple[int, str]:
    """The process whose end means that the installation was interrupted."""
    text = os.environ.get(OWNER_VARIABLE, "")
    pid = int(text) if text.isdecimal() else os.getpid()
    return pid, start_time(pid)


def boot_id(machine: Machine) -> str:
    return (machine.read(BOOT) or "").strip()


def load(machine: Machine) -> Record | None:
    """None where there is none. Raises UserError if it cannot be read."""
    text = machine.read(RECORD)
    if text is None:
        return None
    try:
        return _from(json.loads(text))
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, ArithmeticError,
            RecursionError) as problem:
        # Written whole or not at all, so this is a person's or a disk's doing.
        raise UserError(
            f"{RECORD} is damaged ({problem}): it says what an unfinished installation moved",
            "look for directories named *.asha-DATE beside /etc/asterisk, /var/lib/mysql and the "
            f"others, rename them back, then delete {RECORD}",
        ) from None


def save(machine: Machine, record: Record) -> None:
    machine.write(RECORD, json.dumps(asdict(record), indent=1) + "\n", 0o600)


def _from(values: dict[str, Any]) -> Record:
    pid, started, boot = values["owner"]
    if values["stage"] not in STAGES:
        raise ValueError(f"stage {values['stage']}")
    return Record(
        owner=(int(pid), str(started), str(boot)),
        stage=values["stage"],
        units=[_unit(**unit) for unit in values["units"]],
        paused=[_unit(**unit) for unit in values["paused"]],
        runit=[_text(name) for name in values["runit"]],
        moved=[Moved(_text(one["path"]), _text(one["aside"])) for one in values["moved"]],
        fingerprint=str(values["fingerprint"]),
    )


def _unit(name: object, enabled: object, active: object) -> Unit:
    return Unit(_text(name), bool(enabled), bool(active))


def _text(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise TypeError(f"{value!r:.50} where a name should be")
    return value


@contextmanager
def locked(machine: Machine, say: Say) -> Iterator[None]:
    """Only one at a time: an installer, the guard, the service at boot. Raises UserError."""
    # by name: in root's /var/lib/asha
    machine.path(LOCK).parent.mkdir(parents=True, exist_ok=True)
    busy = UserError("another asha is still rolling back",
                     "systemctl status asha-guard asha-recover; ps -ef | grep asha")
    with file_lock(machine, LOCK, LOCK_SECONDS, busy,
                   lambda: say("waiting for another asha that rolls back")):
        yield
