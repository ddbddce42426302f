"""Block devices that could hold the store: what is on them, and what uses them."""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass

from asha.data import mountinfo
from asha.errors import UserError
from asha.machine import Machine

# Where partitions and logical volumes have their nodes. Not lsblk, which lists what
# the kernel has, and not what can be opened here under which name.
PLACES = ("sd*[0-9]", "vd*[0-9]", "xvd*[0-9]", "hd*[0-9]", "nvme*n*p*[0-9]", "mmcblk*p*[0-9]",
          "md[0-9]*", "mapper/*")

# DRBD's metadata and ext4's journal leave little of less.
LEAST_BYTES = 128 << 20


@dataclass(frozen=True)
class Disk:
    """``size`` is in bytes. ``signature``: the file systems and the like on it, "" if none is
    known. ``use``: what the kernel does with it, "" if nothing."""

    path: str
    size: int
    signature: str = ""
    use: str = ""


def look_at(machine: Machine, path: str) -> Disk:
    """Read what a block device is. Raises UserError if it is none that can be read."""
    place = str(machine.path(path))
    try:
        status = os.stat(place)
    except OSError:
        raise UserError(f"there is no {path}", "lsblk lists the disks and partitions") from None
    if not is_block(status):
        raise UserError(f"{path} is not a disk or a partition",
                      "lsblk lists the disks and partitions")
    try:
        use = ""
        descriptor = _open(place, os.O_EXCL)
        if descriptor < 0:
            use = use_of(machine, path, status.st_rdev)
        else:
            os.close(descriptor)
        size = size_of(machine, path)
    except OSError as problem:
        raise UserError(f"{path} cannot be read: {problem.strerror}") from None
    return Disk(path, size, _signature(machine, path), use)


def size_of(machine: Machine, path: str) -> int:
    """The size in bytes, also of a disk in use. Raises OSError."""
    descriptor = _open(str(machine.path(path)), 0)
    try:
        return os.lseek(descriptor, 0, os.SEEK_END)
    finally:
        os.close(descriptor)


def is_block(status: os.stat_result) -> bool:
    return stat.S_ISBLK(status.st_mode)


def _open(place: str, flag: int) -> int:
    """-1 if the kernel has it in use: an O_EXCL fails for this reason alone (open(2))."""
    try:
        # by name: the kernel's own
        return os.open(place, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | flag)
    except OSError as problem:
        if flag and problem.errno == errno.EBUSY:
            return -1
        raise


def use_of(machine: Machine, path: str, number: int) -> str:
    """What uses a busy device, in words."""
    name = f"{os.major(number)}:{os.minor(number)}"
    for mount in mountinfo.read(str(machine.path(mountinfo.MOUNTINFO))):
        if mount.device == name:
            return f"mounted on {mount.point}"
    for line in (machine.read("/proc/swaps") or "").splitlines()[1:]:
        swap = line.split()[0]
        if swap == path or _number(machine, swap) == number:
            return "used as swap"
    try:
        # by name: the kernel's own
        holders = sorted(os.listdir(machine.path(f"/sys/dev/block/{name}/holders")))
    except OSError:
        holders = []
    return f"used by {', '.join(holders)}" if holders else "in use"


def _number(machine: Machine, path: str) -> int:
    try:
        status = os.stat(machine.path(path))
    except OSError:
        return 0
    return status.st_rdev if is_block(status) else 0


def _signature(machine: Machine, path: str) -> str:
    said = machine.run("wipefs", "--noheadings", "--output", "TYPE", path, timeout=20).out
    return " and ".join(dict.fromkeys(said.split()))


def candidates(machine: Machine) -> tuple[Disk, ...]:
    """The partitions and volumes that are unused, empty and large enough; largest first."""
    found: dict[int, Disk] = {}
    for pattern in PLACES:
        # by name: the kernel's own
        for place in sorted(machine.path("/dev").glob(pattern)):
            path = f"/dev/{place.relative_to(machine.path('/dev'))}"
            number = _number(machine, path)
            if number and number not in found:
                try:
                    found[number] = look_at(machine, path)
                except UserError:
                    continue  # a drive without a disk in it, for example
    free = [d for d in found.values() if not d.use and not d.signature and d.size >= LEAST_BYTES]
    return tuple(sorted(free, key=lambda disk: (-disk.size, disk.path)))
