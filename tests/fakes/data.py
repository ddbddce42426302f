"""Fakes for tests: a mount table in a file, which forked children change too."""

from __future__ import annotations

import errno
import os

from asha.data import mountinfo
from asha.data.kernel import Kernel
from asha.data.mountinfo import Mount, escape

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

    from asha.rootwork import Directory


class FakeKernel(Kernel):
    """Binds and unmounts by the kernel's rules, on paper only.

    ``refuses`` are points that cannot be mounted on, ``busy`` those that cannot be
    unmounted.
    """

    def __init__(self, directory: str) -> None:
        self.mountinfo = f"{directory}/mountinfo"
        self.refuses: Collection[str] = ()
        self.busy: Collection[str] = ()
        self._write(["1 0 254:0 / / rw,relatime - ext4 /dev/vda rw"])

    def mount(
        self,
        point: str,
        device: str,
        root: str = "/",
        *,
        options: str = "rw",
        super_options: str = "rw",
        source: str = "/dev/drbd0",
    ) -> None:
        """Put a file system on top of what is at the point."""
        table = self.table()
        number = max(mount.id for mount in table) + 1
        under = mountinfo.visible(table, point) or mountinfo.holding(table, point)
        assert under is not None
        self._write(
            [
                *self._lines(),
                f"{number} {under.id} {device} {escape(root)} {escape(point)} {options} shared:7"
                f" - ext4 {source} {super_options}",
            ]
        )

    def table(self) -> list[Mount]:
        return mountinfo.read(self.mountinfo)

    def shown_at(self, point: str) -> str:
        """The directory of its disk that a program meets there, or ""."""
        top = mountinfo.visible(self.table(), point)
        return top.root if top else ""

    def bind(self, source: Directory, place: Directory) -> None:
        self.show(source.path, place.path)

    def show(self, source: str, point: str) -> None:
        """Bind by paths."""
        if point in self.refuses:
            raise OSError(errno.EACCES, os.strerror(errno.EACCES), point)
        disk = mountinfo.holding(self.table(), source)
        assert disk is not None
        inside = source[len(disk.point.rstrip("/")) :]
        self.mount(point, disk.device, disk.root.rstrip("/") + inside, source=disk.source)

    def unmount(self, point: str, detach: bool = False, abort: bool = False) -> None:
        table = self.table()
        top = mountinfo.visible(table, point)
        if top is None:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), point)
        if point in self.busy or any(mount.parent == top.id for mount in table):
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), point)
        self._write([line for line in self._lines() if int(line.split(" ")[0]) != top.id])

    def change(self, point: str, before: str, after: str) -> None:
        """Edit the line of the topmost mount at the point, as a remount does."""
        top = mountinfo.visible(self.table(), point)
        assert top is not None
        lines = self._lines()
        for number, line in enumerate(lines):
            if int(line.split(" ")[0]) == top.id:
                assert before in line
                lines[number] = line.replace(before, after)
        self._write(lines)

    def _lines(self) -> list[str]:
        # by name: a test's own file
        with open(self.mountinfo, encoding="utf-8") as file:
            return file.read().split("\n")[:-1]

    def _write(self, lines: list[str]) -> None:
        # by name: a test's own file
        with open(self.mountinfo, "w", encoding="utf-8") as file:
            file.writelines(line + "\n" for line in lines)
