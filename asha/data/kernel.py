"""The system calls that bind a directory to another and undo it.

Not mount(8): at each switch, sixteen of them take 40 ms on a fast machine and half a second on
a slow one; the calls take 2 ms. Constants: <sys/mount.h>; statx(2): <linux/stat.h>.
"""

from __future__ import annotations

import errno
import os

from asha.data.mountinfo import MOUNTINFO

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asha.rootwork import Directory

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8
MS_REMOUNT, MS_BIND, MS_PRIVATE = 1 << 5, 1 << 12, 1 << 18
MNT_FORCE, MNT_DETACH = 1, 2
UMOUNT_NOFOLLOW = 8
CLONE_NEWNS = 0x00020000

AT_FDCWD, AT_STATX_DONT_SYNC = -100, 0x4000
STATX_INO, STATX_MNT_ID = 0x100, 0x1000


class Kernel:
    """The mount calls of an agent. Tests have their own."""

    mountinfo = MOUNTINFO

    def bind(self, source: Directory, place: Directory) -> None:
        """Bind ``source`` to ``place``. Raises OSError.

        By descriptors: what a path means may change, these directories do not.

        The bind is made private. systemd makes / and so the store "shared", and a bind of a
        shared mount is its peer: everything that is mounted inside the store later would appear
        in it and make our umount fail. Services with a mount namespace of their own
        (PrivateTmp= and the like) do not need it shared: mounts and umounts reach them through
        the parent mount, which stays shared. A file that such a service holds open keeps ours
        busy too.

        No program gets the rights of its file's owner there, and no file is a device, however
        the store itself is mounted. Links are links there, also where an installation has
        mounted the store with nosymfollow.
        """
        from asha.rootwork import Directory, Untrusted

        _call("mount", place.path, os.fsencode(source.proc_path), os.fsencode(place.proc_path),
              None, MS_BIND, None)
        # The descriptor is of what now lies below: of the bind there is none yet.
        with Directory.trusted(place.path) as made:
            if not os.path.samestat(made.about(), source.about()):
                raise Untrusted(place.path, "was replaced while it was bound")
            here = os.fsencode(made.proc_path)
            _call("mount", place.path, None, here, None, MS_PRIVATE, None)
            kept = os.fstatvfs(made.fd).f_flag & (MS_RDONLY | MS_NOEXEC)
            wanted = MS_REMOUNT | MS_BIND | MS_NOSUID | MS_NODEV | kept
            _call("mount", place.path, None, here, None, wanted, None)

    def unmount(self, point: str, detach: bool = False, abort: bool = False) -> None:
        """Unmount the topmost mount at ``point``. Raises OSError, EBUSY among them.

        For a child: it changes the working directory. No link on the way or at the end is
        followed: it is the mount that the table has at this path, or an error.

        Our mounts are never unmounted lazily (``detach``): that reports success while the disk
        is still written, and DRBD cannot be demoted. ``abort`` is for a file system whose
        server is a user's, and may not answer.
        """
        from asha.rootwork import Directory

        above, name = os.path.split(point)
        if not name:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), point)
        # by name: nobody puts another there
        root = Directory(os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC), "/")
        try:
            with root, root.below(above) as folder:
                os.fchdir(folder.fd)
            flags = UMOUNT_NOFOLLOW | (MNT_DETACH if detach else 0) | (MNT_FORCE if abort else 0)
            _call("umount2", point, os.fsencode(name), flags)
        finally:
            os.chdir("/")


class Sight:
    """What a path leads to: on which disk ("major:minor"), on which mount."""

    __slots__ = ("device", "inode", "mount")

    def __init__(self, device: str, inode: int, mount: int) -> None:
        self.device = device
        self.inode = inode
        self.mount = mount


class Looker:
    """statx(2) without asking a file server: it answers also where that hangs."""

    def __init__(self) -> None:
        import ctypes

        libc = ctypes.CDLL(None, use_errno=True)
        self._statx, self._statfs = libc.statx, libc.statfs
        self._buffer = ctypes.create_string_buffer(256)

    def look(self, path: str) -> Sight | None:
        """Links under /proc are followed. None if there is nothing."""
        import sys

        if self._statx(AT_FDCWD, os.fsencode(path), AT_STATX_DONT_SYNC,
                       STATX_INO | STATX_MNT_ID, self._buffer):
            return None
        raw = self._buffer.raw
        inode, major, minor, mount = (
            int.from_bytes(raw[start:end], sys.byteorder)
            for start, end in ((32, 40), (136, 140), (140, 144), (144, 152))
        )
        return Sight(f"{major}:{minor}", inode, mount)

    def kind(self, path: str) -> int:
        """The file system's number in <linux/magic.h>, 0 if there is nothing. This does ask a
        file server."""
        import sys

        if self._statfs(os.fsencode(path), self._buffer):
            return 0
        return int.from_bytes(self._buffer.raw[:8], sys.byteorder)


def enter_namespace(descriptor: int) -> None:
    """Go to the root of another mount namespace. For a child. Raises OSError.

    From then on the child imports nothing: the namespace's owner would choose what.
    """
    from asha.run.child import import_nothing

    import_nothing()
    _call("setns", "", descriptor, CLONE_NEWNS)


def _call(function: str, point: str, *arguments: bytes | int | None) -> None:
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, function)(*arguments) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), point)
