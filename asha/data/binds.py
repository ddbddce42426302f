"""Our binds: what they are, which ones we remember, which ones exist.

The mount table is the truth. The state file says what should be in it, so that monitor and stop
need no parameter and do not touch the store.
"""

from __future__ import annotations

import os

from asha.data.mountinfo import escape, unescape, visible

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from asha.data.mountinfo import Mount
    from asha.ocf.state import StateFile


class Bind:
    """A directory of the store (``root`` on ``device``), bound to ``point``.

    ``inode`` is its number, 0 if unknown. The telephones can do without an ``optional`` one.
    """

    __slots__ = ("device", "inode", "optional", "point", "root")

    def __init__(self, device: str, root: str, point: str, inode: int = 0,
                 optional: bool = False) -> None:
        self.device = device
        self.root = root
        self.point = point
        self.inode = inode
        self.optional = optional

    @classmethod
    def from_line(cls, line: str) -> Bind:
        """Read a line, also of an earlier version. Raises ValueError."""
        device, root, point, *more = (unescape(field) for field in line.split(" "))
        inode, optional = more or ("0", "0")
        return cls(device, root, point, int(inode), optional == "1")

    def to_line(self) -> str:
        return " ".join((self.device, escape(self.root), escape(self.point), str(self.inode),
                         f"{self.optional:d}"))

    def is_made(self, mounts: Iterable[Mount]) -> bool:
        """Whether a program that uses ``point`` gets this directory."""
        top = visible(mounts, self.point)
        return top is not None and self.is_mount(top)

    def is_mount(self, mount: Mount) -> bool:
        return (mount.point, mount.device, mount.root) == (self.point, self.device, self.root)

    def is_renamed(self, mounts: Iterable[Mount]) -> bool:
        """Whether it is bound there, and has another name in the store by now."""
        top = visible(mounts, self.point)
        if top is None or top.device != self.device or not self.inode:
            return False
        try:
            about = os.stat(self.point)  # by name: only looked at; to programs it is the same
        except OSError:
            return False
        return about.st_ino == self.inode and about.st_nlink > 0


def save(file: StateFile, binds: Sequence[Bind]) -> None:
    """Store the binds, all or none. Raises OSError."""
    file.write("".join(bind.to_line() + "\n" for bind in binds))


def load(file: StateFile) -> list[Bind]:
    """The stored binds; none if the file is absent or damaged."""
    try:
        return [Bind.from_line(line) for line in file.read().split("\n") if line]
    except ValueError:
        return []


def ours(
    mounts: Sequence[Mount],
    remembered: Sequence[Bind],
    points: Collection[str] | None,
    store: Mount | None,
) -> list[Mount]:
    """Every mount that this resource made, also those that it forgot.

    ``points`` are the parameter's paths, None if the parameter is invalid: then everything
    counts that the store shows under its own name. Without the store (gone, or its parameter
    invalid) a mount on one of the paths is ours if its disk is a foreign one and has the
    directory under the same name, which nothing else does.
    """
    by_id = {mount.id: mount for mount in mounts}

    def is_ours(mount: Mount) -> bool:
        if any(bind.point == mount.point and bind.device == mount.device for bind in remembered):
            return True
        if store is not None:
            if mount.device != store.device or mount.point == store.point:
                return False
            if points is None:
                return mount.root == store.root.rstrip("/") + mount.point
            return mount.point in points
        if points is None or mount.point not in points:
            return False
        under = by_id.get(mount.parent)
        return mount.root == mount.point and under is not None and under.device != mount.device

    return [mount for mount in mounts if is_ours(mount)]
