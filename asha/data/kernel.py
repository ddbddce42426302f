"""The system calls that bind a directory to another and undo it.

Not mount(8): sixteen of them take 40 ms on a fast machine and half a second on a
slow one, at each switch; the calls take 2 ms. Constants: <sys/mount.h>.
"""

from __future__ import annotations

import os

from asha.data.mountinfo import MOUNTINFO

MS_BIND = 1 << 12
MS_PRIVATE = 1 << 18
UMOUNT_NOFOLLOW = 8


class Kernel:
    """What an agent asks of the mount table. Tests bring their own."""

    mountinfo = MOUNTINFO

    def bind(self, source: str, point: str) -> None:
        """Show ``source`` at ``point``. Raises OSError.

        The bind is made private: systemd makes / and so the store "shared", and
        a bind of a shared mount is its twin, in which everything appears that is
        later mounted inside the store, to make our umount fail. Services with a
        mount namespace of their own (PrivateTmp= and the like) do not need it
        shared: mounts and umounts reach them through the parent mount, which
        stays shared. A file that such a service holds open keeps ours busy too.
        """
        _call("mount", point, os.fsencode(source), os.fsencode(point), None, MS_BIND, None)
        _call("mount", point, None, os.fsencode(point), None, MS_PRIVATE, None)

    def unmount(self, point: str) -> None:
        """Take the topmost mount off ``point``. Raises OSError, EBUSY among them.

        Never lazily (MNT_DETACH): that reports success while the disk is still
        written, and DRBD cannot be demoted.
        """
        _call("umount2", point, os.fsencode(point), UMOUNT_NOFOLLOW)


def _call(function: str, point: str, *arguments: bytes | int | None) -> None:
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, function)(*arguments) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), point)
