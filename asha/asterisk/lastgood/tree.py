"""The files of a configuration, as root may read them: by descriptor, and with an end.

They are Asterisk's user's and the panel's to write, also while they are read. What counts are
ordinary files, directories, and symbolic links as such: a link is neither followed nor
missed, and Asterisk follows it with its own rights. A FIFO, a socket or a device is no
configuration and left out. Nobody gets at what he could not read before: each copy has the
owner, group, mode (without setuid) and access list of what was read.
"""

from __future__ import annotations

import os
import stat
from hashlib import sha256
from itertools import islice

from asha.rootwork import Directory, access_list, read_open
from asha.run.results import Failed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

# More than any PBX has: a tenth of that is much.
NAMES_MOST = 5000
DEPTH_MOST = 10
FILE_MOST = 16 << 20
TOTAL_MOST = 64 << 20

# Bytes for each entry of a directory.
PER_NAME = 4096


class Limits:
    """What one look at a tree may still take. Raises Failed beyond that."""

    def __init__(self, path: str) -> None:
        self._path = path
        self.names = NAMES_MOST
        self.bytes = TOTAL_MOST

    def take(self, names: int = 0, size: int = 0) -> None:
        self.names -= names
        self.bytes -= size
        if self.names < 0:
            raise Failed(f"{self._path} has more than {NAMES_MOST} files")
        if self.bytes < 0:
            raise Failed(f"{self._path} has more than {TOTAL_MOST >> 20} MB")


class Item:
    """A file, link or directory. ``digest``: of its content and of who may read it."""

    __slots__ = ("digest", "size")

    def __init__(self, size: int, digest: str) -> None:
        self.size = size
        self.digest = digest


Items = dict[str, Item]


def state(top: Directory) -> str:
    """A digest that is another when anything was written, renamed or given to somebody else.

    Reads no file: some milliseconds. Raises OSError, Failed.
    """
    digest = sha256()
    for _, path, about in _walk(top, Limits(top.path)):
        digest.update(_told(path, about))
    return digest.hexdigest()


def rough(top: Directory) -> str:
    """Like ``state``, for a tree that has too much to be read: of as much as the limits allow.

    Who puts a large file beside a damaged one must not keep the last good ones from being used.
    Raises OSError.
    """
    digest = sha256(b"rough")
    with os.scandir(top.fd) as entries:
        names = sorted(entry.name for entry in islice(entries, NAMES_MOST))
    for name in names:
        try:
            digest.update(_told(name, top.stat(name)))
        except FileNotFoundError:
            continue  # somebody has just removed it
    try:
        for _, path, about in _walk(top, Limits(top.path)):
            digest.update(_told(path, about))
    except Failed:
        pass
    return digest.hexdigest()


def _told(path: str, about: os.stat_result) -> bytes:
    numbers = (about.st_ino, about.st_mode, about.st_uid, about.st_gid, about.st_size,
               about.st_mtime_ns, about.st_ctime_ns)
    # What a directory holds is told by what is in it: Asterisk may lock a file there.
    shown = numbers[:4] if stat.S_ISDIR(about.st_mode) else numbers
    return f"{path!r} {shown}\n".encode()


def read(top: Directory, into: Directory | None = None) -> Items:
    """All of it by path; copied ``into`` an empty directory of root's, where one is given.

    Raises OSError, Failed.
    """
    found: Items = {}
    limits = Limits(top.path)
    _read(top, into, "", limits, found, 0)
    return found


def digest_of(items: Items) -> str:
    digest = sha256()
    for path, item in sorted(items.items()):
        digest.update(f"{path!r} {item.digest}\n".encode())
    return digest.hexdigest()


def size_of(items: Items) -> int:
    """Bytes that a copy takes on a disk, rather more than less."""
    return sum(item.size + PER_NAME for item in items.values())


def text(top: Directory, path: str, most: int = 1 << 20) -> bytes | None:
    """An ordinary file of the tree; None where there is none or it has more. Raises nothing."""
    folder, _, name = path.rpartition("/")
    try:
        with top.below(folder) as place:
            return place.read(name, most)
    except (OSError, ValueError):
        return None


def _walk(
    here: Directory, limits: Limits, above: str = "", depth: int = 0
) -> Iterator[tuple[Directory, str, os.stat_result]]:
    """Each entry that counts: the directory that it is in, its path, its status."""
    for name in _names(here, limits):
        try:
            about = here.stat(name)
        except FileNotFoundError:
            continue  # somebody has just removed it
        path = f"{above}{name}"
        if stat.S_ISREG(about.st_mode) or stat.S_ISLNK(about.st_mode):
            yield here, path, about
        elif stat.S_ISDIR(about.st_mode):
            yield here, path, about
            if depth + 1 >= DEPTH_MOST:
                raise Failed(f"{here.name(name)}: more than {DEPTH_MOST} directories in each other")
            with here.enter(name) as inner:
                yield from _walk(inner, limits, f"{path}/", depth + 1)


def _names(here: Directory, limits: Limits) -> list[str]:
    with os.scandir(here.fd) as entries:
        names = [entry.name for entry in islice(entries, limits.names + 1)]
    limits.take(len(names))
    return sorted(names)


def _read(here: Directory, into: Directory | None, above: str, limits: Limits, found: Items,
          depth: int) -> None:
    for name in _names(here, limits):
        try:
            about = here.stat(name)
            if stat.S_ISREG(about.st_mode):
                found[f"{above}{name}"] = _file(here, name, into, limits)
            elif stat.S_ISLNK(about.st_mode):
                found[f"{above}{name}"] = _link(here, name, about, into)
            elif stat.S_ISDIR(about.st_mode):
                if depth + 1 >= DEPTH_MOST:
                    raise Failed(f"{here.name(name)}: more than {DEPTH_MOST} directories in "
                                 "each other")
                with here.enter(name) as inner:
                    about = inner.about()
                    found[f"{above}{name}"] = _item("directory", b"", about, inner.fd)
                    if into is None:
                        _read(inner, None, f"{above}{name}/", limits, found, depth + 1)
                        continue
                    with into.make(name) as made:
                        _read(inner, made, f"{above}{name}/", limits, found, depth + 1)
                        made.put_on(about, access_list(inner.fd))
        except FileNotFoundError:
            continue  # somebody has just removed it


def _file(here: Directory, name: str, into: Directory | None, limits: Limits) -> Item:
    descriptor = here.open(name)
    try:
        about = os.fstat(descriptor)
        # A file with holes is as long as it says, whatever it takes on the disk.
        if about.st_size > FILE_MOST:
            raise Failed(f"{here.name(name)} has more than {FILE_MOST >> 20} MB")
        data = read_open(descriptor, here.name(name), FILE_MOST)
        limits.take(size=len(data))
        item = _item("file", data, about, descriptor)
        if into is not None:
            into.put(name, data, about, access_list(descriptor))
        return item
    finally:
        os.close(descriptor)


def _link(here: Directory, name: str, about: os.stat_result, into: Directory | None) -> Item:
    target = here.target(name)
    if into is not None:
        into.put_link(name, target, about)
    return Item(0, sha256(f"link {target!r}".encode()).hexdigest())


def _item(kind: str, data: bytes, about: os.stat_result, descriptor: int) -> Item:
    who = f"{kind} {about.st_uid} {about.st_gid} {about.st_mode & 0o777:o} ".encode()
    return Item(len(data), sha256(who + access_list(descriptor) + b"\0" + data).hexdigest())
