"""Loop devices and swap files: root's use of a file of the store without a process.

Ending either could cost data, so a stop only names it. Source: <linux/loop.h>, proc(5).
"""

from __future__ import annotations

import os

from asha.data.mountinfo import unescape
from asha.data.paths import is_inside
from asha.run.text import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

LOOP_GET_STATUS64 = 0x4C05
# Of struct loop_info64, which begins with the device of the file.
STATUS_BYTES, DEVICE_BYTES = 232, 8

BLOCKS = "/sys/block"
SWAPS = "/proc/swaps"


def look(devices: Collection[str], points: Sequence[str]) -> list[str]:
    """Those on a file of these devices ("major:minor"), or with a name below ``points``, each
    with the command that ends it. For a child: a disk may not answer."""
    found = []
    for name in sorted(os.listdir(BLOCKS)):  # by name: the kernel's
        file = _read(f"{BLOCKS}/{name}/loop/backing_file")
        if file and (_device(f"/dev/{name}") in devices or _is_below(file, points)):
            # One that is mounted only ends when it is not any more.
            found.append(f"loop device /dev/{name} on {printable(file)}:"
                         f" umount /dev/{name}; losetup -d /dev/{name}")
    for line in _read(SWAPS).split("\n")[1:]:
        file = unescape(line.split(" ")[0])
        if line and (_device_of(file) in devices or _is_below(file, points)):
            found.append(f"swap file {printable(file)}: swapoff {printable(file)}")
    return found


def _is_below(name: str, points: Sequence[str]) -> bool:
    return any(is_inside(name, point) for point in points)


def _device(path: str) -> str:
    """The device of the file behind a loop device; "" if that is unknown."""
    import fcntl
    import sys

    try:
        # by name: in /dev, which is root's
        loop = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
    except OSError:
        return ""
    try:
        status = fcntl.ioctl(loop, LOOP_GET_STATUS64, bytes(STATUS_BYTES))
    except OSError:
        return ""
    finally:
        os.close(loop)
    return _words(int.from_bytes(status[:DEVICE_BYTES], sys.byteorder))


def _device_of(file: str) -> str:
    try:
        about = os.lstat(file)  # by name: only its number is looked at
    except OSError:
        return ""
    import stat

    return _words(about.st_dev) if stat.S_ISREG(about.st_mode) else ""


def _words(device: int) -> str:
    return f"{os.major(device)}:{os.minor(device)}"


def _read(path: str) -> str:
    try:
        # by name: the kernel's, below /proc and /sys
        with open(path, encoding="utf-8", errors="surrogateescape", newline="\n") as file:
            return file.read().rstrip("\n")
    except OSError:
        return ""
