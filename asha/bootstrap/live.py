"""The live data: which of sark-data's directories this machine has, and the store."""

from __future__ import annotations

import os
from dataclasses import dataclass

from asha.agents.sark_data import PATHS
from asha.data import mountinfo, owners, paths
from asha.data.mountinfo import MOUNTINFO, Mount
from asha.data.paths import Item
from asha.machine import Machine
from asha.trouble import Trouble

STORE = "/drbd"
DEVICE = "/dev/drbd0"
RESOURCE = "asha"


@dataclass(frozen=True)
class Live:
    """One directory: the name under which programs know it, and where it really is.

    ``mount`` is what is mounted right there: a disk of the customer's own, or the
    cluster's bind.
    """

    path: str
    place: str
    mount: Mount | None

    @property
    def copy(self) -> str:
        return STORE + self.path


def directories(machine: Machine) -> list[Live]:
    """What sark-data will bind here: every directory that exists and whose user does.

    Raises Trouble with all that cannot be handed over as it is.
    """
    found: list[Live] = []
    problems: list[str] = []
    table = mounts(machine)
    for item in paths.parse(PATHS, STORE):
        place = resolve(machine, item.path)
        if paths.is_inside(place, STORE):
            problems.append(f"{item.path} is a symbolic link into {STORE}, as older clusters made "
                            "it: put the data itself in its place")
        elif machine.path(place).is_dir() and (not item.user or owners.account(item.user)):
            found.append(Live(item.path, place, mountinfo.visible(table, place)))
            problems += _problems(machine, item, place, table)
    overlap = paths.overlap([one.place for one in found], STORE)
    if overlap:
        problems.append(f"with symbolic links resolved, {overlap}")
    if problems:
        raise Trouble("; ".join(problems), "mend that, then run asha install again")
    return found


def _problems(machine: Machine, item: Item, place: str, table: list[Mount]) -> list[str]:
    problems = [
        f"{mount.source} is mounted at {mount.point}, inside {item.path}, and cannot move with it:"
        " unmount it, also in /etc/fstab"
        for mount in table
        if mount.point != place and paths.is_inside(mount.point, place)
    ]
    account = owners.account(item.user) if item.user else None
    if account is not None:
        about = machine.path(place).stat()
        if about.st_uid not in (0, account.pw_uid):
            # sark-data would refuse it.
            problems.append(f"{item.path} belongs to uid {about.st_uid} and not to {item.user}: "
                            f"chown {item.user} {item.path}")
    return problems


def resolve(machine: Machine, path: str) -> str:
    """The path with symbolic links resolved."""
    root = os.path.realpath(machine.root)
    real = os.path.realpath(machine.path(path))
    return "/" + os.path.relpath(real, root) if paths.is_inside(real, root) else real


def mounts(machine: Machine) -> list[Mount]:
    return [Mount(line) for line in (machine.read(MOUNTINFO) or "").split("\n") if line]


def store_mount(machine: Machine) -> Mount | None:
    """What is mounted at /drbd. Raises Trouble when it is not the store."""
    top = mountinfo.visible(mounts(machine), STORE)
    if top is not None and os.path.realpath(top.source) != os.path.realpath(DEVICE):
        raise Trouble(f"{top.source} is mounted at {STORE}, and not {DEVICE}",
                      f"umount {STORE}, also in /etc/fstab")
    return top


def mount_store(machine: Machine) -> None:
    """Show the store at /drbd. Raises Trouble."""
    if store_mount(machine) is not None:
        return
    if not machine.says("drbdadm", "role", RESOURCE).startswith("Primary"):
        machine.run("drbdadm", "primary", RESOURCE)
    machine.path(STORE).mkdir(parents=True, exist_ok=True)
    machine.run("mount", "-t", "ext4", "-o", "noatime", DEVICE, STORE)


def unmount_store(machine: Machine) -> None:
    """Leave the disk to Pacemaker, which mounts and promotes it. Raises Trouble."""
    from asha.bootstrap import writers

    if store_mount(machine) is not None:
        done = machine.run("umount", STORE, check=False)
        if not done.ok:
            who = ", ".join(str(one) for one in writers.find([STORE]))
            raise Trouble(f"{STORE} cannot be unmounted: {who or done.complaint}",
                          f"leave that directory (fuser -vm {STORE} tells who is in it)")
    if machine.says("drbdadm", "role", RESOURCE).startswith("Primary"):
        machine.run("drbdadm", "secondary", RESOURCE)
