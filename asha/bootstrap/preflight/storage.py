"""The preflight's checks of the disks: the partition for the store, and the live data."""

from __future__ import annotations

import re
from collections.abc import Iterator

from asha.bootstrap.host import data_directories, disks
from asha.bootstrap.host.data_directories import DEVICE
from asha.bootstrap.host.disks import Disk
from asha.bootstrap.preflight.report import CheckContext
from asha.bootstrap.steps import asterisk
from asha.cluster import drbd
from asha.cluster.cib import MARKER
from asha.data.plan import on_both
from asha.data.space import size
from asha.errors import UserError
from asha.finding import Finding, error, warning
from asha.machine import Machine

# Live data and a fifth; what grows while the PBX runs comes on top.
ROOM_PERCENT = 120
DU_SECONDS = 120.0

PROTECTED_HARDLINKS = "/proc/sys/fs/protected_hardlinks"


def device(look: CheckContext) -> Iterator[Finding]:
    """The partition is there, unused, empty and large enough."""
    path = look.site.device
    if not path or not look.facts.root or _is_up(look.machine):
        return
    try:
        disk = disks.look_at(look.machine, path)
    except UserError as trouble:
        free = ", ".join(f"{one.path} ({size(one.size)})" for one in look.facts.free_disks)
        yield error(f"DRBDDEV: {trouble}", f"free here: {free}" if free else trouble.hint,
                    "DRBDDEV")
        return
    yield from problems_of(disk, ours=is_ours(look.machine, path))


def problems_of(disk: Disk, ours: bool = False) -> Iterator[Finding]:
    """``ours``: our DRBD resource is on it already, so it may be in use and not empty."""
    if disk.use and not (ours and not disk.use.startswith(("mounted", "used as swap"))):
        yield error(f"{disk.path} is {disk.use}",
                    "choose a partition that nothing uses: lsblk shows them; "
                    "take this one out of /etc/fstab if it is to be used", "DRBDDEV")
    elif disk.signature and not ours:
        yield error(f"{disk.path} is not empty: {disk.signature} is on it",
                    f"wipefs {disk.path} shows it; only if all on it may be destroyed: "
                    f"wipefs --all {disk.path}", "DRBDDEV")
    if disk.size < disks.LEAST_BYTES:
        yield error(f"{disk.path} has {size(disk.size)}: the store needs at least "
                    f"{size(disks.LEAST_BYTES)}", "choose or make a larger partition", "DRBDDEV")


def is_ours(machine: Machine, path: str) -> bool:
    """Whether our DRBD resource names this device: an earlier run got that far."""
    return path in _devices(machine.read(drbd.CONF) or "")


def _devices(resource: str) -> list[str]:
    return re.findall(r"^\s*disk\s+\"?(/[^\s\";]+)\"?\s*;", resource, re.MULTILINE)


def _is_up(machine: Machine) -> bool:
    """Whether DRBD has the disk and this is a node of the cluster: then there is nothing to
    check."""
    return machine.exists(drbd.CONF) and machine.exists(DEVICE) and (
        machine.exists(MARKER))


def room(look: CheckContext) -> Iterator[Finding]:
    """The live data fits into the store. Only the first node brings data."""
    if not look.site.is_first or look.facts.owned:
        return
    try:
        disk = disks.look_at(look.machine, look.site.device)
        used = live_bytes(look.machine)
    except UserError as trouble:
        if "did not end" in str(trouble):
            yield warning(f"the live data could not be measured in {DU_SECONDS:.0f} s",
                          "du --summarize shows how much it is; the store must hold it")
        return  # device() and places() say what else there is
    if disk.size * 100 < used * ROOM_PERCENT:
        yield error(f"{disk.path} has {size(disk.size)}; the live data is {size(used)} and needs "
                    f"{size(used * ROOM_PERCENT // 100)}",
                    "make a larger partition, on both nodes, or move old recordings away")


def live_bytes(machine: Machine) -> int:
    """The disk space of the telephone system's data, in bytes. Raises UserError."""
    there = [str(machine.path(one.place)) for one in data_directories.directories(machine)]
    if not there:
        return 0
    # Not checked: a spool file that goes while it is counted makes du fail.
    said = machine.run("du", "--summarize", "--total", "--block-size=1", *there,
                       timeout=DU_SECONDS, check=False).out
    total = said.splitlines()[-1].split()[0] if said.strip() else "0"
    return int(total) if total.isdecimal() else 0


def places(look: CheckContext) -> Iterator[Finding]:
    """The directories can be moved: nothing is mounted in them, and their owners are right."""
    if look.facts.owned:
        return
    try:
        data_directories.directories(look.machine)
    except UserError as trouble:
        yield error(str(trouble), trouble.hint)
    for what, hint in data_directories.survey(look.machine).left_out:
        yield warning(what, on_both(hint))
    found = asterisk.problem(look.machine)
    if found is not None:
        yield error(f"{data_directories.inside(look.machine, found.path)} {found.reason}",
                    "put the file itself there: Asterisk's configuration is read by root")
    yield from _hard_links(look)


def _hard_links(look: CheckContext) -> Iterator[Finding]:
    """Without protection anybody can give a file of root's a name where he may write."""
    if (look.machine.read(PROTECTED_HARDLINKS) or "1").strip() == "0":
        yield error("the kernel lets anybody make hard links to files of root's "
                    "(fs.protected_hardlinks is 0)",
                    "sysctl -w fs.protected_hardlinks=1, and take the 0 out of /etc/sysctl.conf "
                    "or /etc/sysctl.d")


def other_resources(look: CheckContext) -> Iterator[Finding]:
    """No other DRBD resource has our device, number or port."""
    folder = look.machine.path("/etc/drbd.d")
    # by name: in root's /etc
    for file in sorted(folder.glob("*.res")) if folder.is_dir() else []:
        path = f"/etc/drbd.d/{file.name}"
        text = look.machine.read(path) or ""
        clash = look.site.device in _devices(text) or re.search(
            rf"({DEVICE}|minor\s+0|:{drbd.PORT})\s*;", text)
        if path != drbd.CONF and clash:
            yield error(
                f"{path} is another DRBD resource with {look.site.device}, {DEVICE} "
                f"or port {drbd.PORT}",
                f"if it may go: drbdadm down {file.stem}, and move {path} away",
            )
