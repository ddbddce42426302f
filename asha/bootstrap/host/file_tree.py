"""Directory trees: what is in one, and whether another is the same.

Everything is done in one pass over sorted names, so that a hundred thousand
recordings take no memory.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

CHUNK = 1 << 20
# More differences than this say no more.
PROBLEMS_MOST = 20

# Attributes that a program could miss. Not a security label's, which is the
# system's own, nor an overlay's.
XATTRS = ("user.", "security.capability", "system.posix_acl_")

NANO = 10**9

# Users and groups: ("user", 33).
Writers = frozenset[tuple[str, int]]
EVERYBODY = ("others", 0)


@dataclass(frozen=True)
class Tree:
    """A directory: ``name`` is its path for messages, ``path`` is where it is read.

    They differ where others may write: there it is read through a view (rootwork.View), whose
    descriptor is ``fd``.
    """

    name: str
    path: str
    fd: int = -1

    def named(self, text: str) -> str:
        """The message with the name that a person knows."""
        if self.fd < 0:
            return text
        return re.sub(rf"/proc/self/fd/{self.fd}(?!\d)(/\.(?![^/\"]))?", lambda _: self.name, text)


@dataclass
class Size:
    """The size of a tree: its entries, and the bytes in its files, with holes."""

    entries: int = 0
    bytes: int = 0
    sockets: list[str] = field(default_factory=list)
    # How large the files are that not everybody may read, or come to, where another owns a
    # directory above: with it he could give one the name of a file of his own.
    guarded: set[int] = field(default_factory=set)


def walk(top: str) -> Iterator[tuple[str, os.stat_result]]:
    """Every entry as (path below ``top``, lstat), the top itself as "", sorted.

    Sockets are left out: the program that made one makes it again.
    """
    waiting = [""]
    while waiting:
        inside = waiting.pop()
        about = os.lstat(f"{top}/{inside}" if inside else top)
        if stat.S_ISSOCK(about.st_mode):
            continue
        yield inside, about
        if stat.S_ISDIR(about.st_mode):
            prefix = f"{inside}/" if inside else ""
            names = sorted(os.listdir(f"{top}/{inside}"), reverse=True)  # by name: in a view
            waiting += [prefix + name for name in names]


def measure(top: str) -> Size:
    """Raises OSError. What is removed or replaced meanwhile is not counted."""
    size = Size()
    # By directory, who may rename above it, root left out, and who of them may not come to it.
    above: dict[str, tuple[Writers, Writers]] = {}
    for folder, folders, files in os.walk(top):  # by name: in a view
        outer, kept_out = above.pop(folder, (frozenset(), frozenset()))
        try:
            of_folder = os.lstat(folder)
        except OSError:
            continue
        if not of_folder.st_mode & stat.S_IXOTH:
            kept_out |= outer - _who_may(of_folder, stat.S_IXGRP)
        whose = outer | _who_writes(of_folder)
        above.update((f"{folder}/{name}", (whose, kept_out)) for name in folders)
        for name in files + folders:
            try:
                about = os.lstat(f"{folder}/{name}")
            except OSError:
                continue
            size.entries += 1
            if stat.S_ISREG(about.st_mode):
                size.bytes += max(about.st_size, about.st_blocks * 512)
                is_open = about.st_mode & stat.S_IROTH
                if kept_out or (not is_open and whose - _who_may(about, stat.S_IRGRP)):
                    size.guarded.add(about.st_size)
            elif stat.S_ISSOCK(about.st_mode):
                size.sockets.append(os.path.relpath(f"{folder}/{name}", top))
    return size


def _who_writes(about: os.stat_result) -> Writers:
    found = {("user", about.st_uid)} - {("user", 0)}
    if about.st_mode & stat.S_IWGRP:
        found.add(("group", about.st_gid))
    if about.st_mode & stat.S_IWOTH:
        found.add(EVERYBODY)
    return frozenset(found)


def _who_may(about: os.stat_result, group: int) -> Writers:
    """Read a file, or pass a directory, that not everybody may; ``group`` is its group's
    bit for that."""
    found = {("user", about.st_uid)}
    if about.st_mode & group:
        found.add(("group", about.st_gid))
    return frozenset(found)


def fingerprint(tops: Sequence[Tree]) -> str:
    """A text that changes with every write, creation, removal or renaming in these trees.

    By ctime, which no program can set back. Contents are not read.
    """
    digest = hashlib.sha256()
    for top in tops:
        digest.update(os.fsencode(top.name))
        for inside, about in walk(top.path):
            digest.update(os.fsencode(inside))
            size = about.st_size if stat.S_ISREG(about.st_mode) else 0
            fields = (about.st_mode, about.st_uid, about.st_gid, size, about.st_ino,
                      about.st_mtime_ns, about.st_ctime_ns)
            digest.update(f"\0{fields}\n".encode())
    return digest.hexdigest()


def newest(tops: Sequence[Tree]) -> str:
    """The entry that was changed last; a directory, if something in it was removed."""
    found, latest = "", -1
    for top in tops:
        for inside, about in walk(top.path):
            if about.st_ctime_ns > latest:
                found, latest = f"{top.name}/{inside}".rstrip("/"), about.st_ctime_ns
    return found


class Comparison:
    """A tree against its copy: counts, and what differs.

    ``by_content`` says of which files (path below the top, lstat) both sides are read; of the
    others size and time are compared. ``digest`` includes every checksum.
    """

    def __init__(
        self,
        by_content: Callable[[str, os.stat_result], bool],
        progress: Callable[[int], None] = lambda done: None,
    ) -> None:
        self.problems: list[str] = []
        self.entries = 0
        self.bytes = 0
        self.read = 0
        self.digest = hashlib.sha256()
        self._by_content = by_content
        self._progress = progress
        # Copies that are one file where the source has two. rsync --inplace leaves them so,
        # and writes what is in the one into the other.
        self.joined: list[str] = []
        self._links: dict[int, int] = {}
        self._joints: dict[int, int] = {}

    def add(self, source: Tree, copy: Tree) -> None:
        """Compare one tree. Raises OSError."""
        self._links.clear()
        self._joints.clear()
        theirs = walk(copy.path)
        other = next(theirs, None)
        for inside, about in walk(source.path):
            key = _key(inside)
            while other is not None and _key(other[0]) < key:
                self._note(f"{copy.name}/{other[0]} is not in {source.name}")
                other = next(theirs, None)
            if other is None or other[0] != inside:
                self._note(f"{source.name}/{inside} is missing in the copy")
                continue
            self._pair(source, copy, inside, about, other[1])
            other = next(theirs, None)
        while other is not None:
            self._note(f"{copy.name}/{other[0]} is not in {source.name}")
            other = next(theirs, None)

    def _pair(self, source: Tree, copy: Tree, inside: str, a: os.stat_result,
              b: os.stat_result) -> None:
        self.entries += 1
        name = f"{source.name}/{inside}".rstrip("/")
        one, other = (f"{tree.path}/{inside}".rstrip("/") for tree in (source, copy))
        if stat.S_IFMT(a.st_mode) != stat.S_IFMT(b.st_mode):
            self._note(f"{name} is of another kind in the copy")
            return
        if stat.S_ISLNK(a.st_mode):
            if os.readlink(one) != os.readlink(other):
                self._note(f"{name} points elsewhere in the copy")
        elif a.st_mode != b.st_mode:
            self._note(f"{name} has mode {a.st_mode & 0o7777:o}, the copy {b.st_mode & 0o7777:o}")
        if (a.st_uid, a.st_gid) != (b.st_uid, b.st_gid):
            self._note(f"{name} belongs to {a.st_uid}:{a.st_gid}, the copy to "
                       f"{b.st_uid}:{b.st_gid}")
        if not _same_time(a.st_mtime_ns, b.st_mtime_ns):
            self._note(f"{name} was changed at another time than the copy")
        if _attributes(one) != _attributes(other):
            self._note(f"{name} has other extended attributes or access lists than the copy")
        if stat.S_ISREG(a.st_mode):
            self._file(source, copy, inside, a, b)

    def _file(self, source: Tree, copy: Tree, inside: str, a: os.stat_result,
              b: os.stat_result) -> None:
        self.bytes += a.st_size
        name = f"{source.name}/{inside}"
        if b.st_nlink > 1 and self._joints.setdefault(b.st_ino, a.st_ino) != a.st_ino:
            self._note(f"{name} is a file of its own, and the copy a hard link")
            self.joined.append(f"{copy.name}/{inside}")
        if a.st_size != b.st_size:
            self._note(f"{name} has {a.st_size} bytes, the copy {b.st_size}")
            return
        if a.st_nlink > 1 and self._links.setdefault(a.st_ino, b.st_ino) != b.st_ino:
            self._note(f"{name} is a hard link, and the copy is one file more")
        if not self._by_content(inside, a):
            return
        checksum = self._checksum(f"{source.path}/{inside}")
        if checksum != self._checksum(f"{copy.path}/{inside}", from_disk=True):
            self._note(f"{name} has other contents than the copy")
        self.digest.update(os.fsencode(name) + b"\0" + checksum)

    def _checksum(self, path: str, from_disk: bool = False) -> bytes:
        digest = hashlib.sha256()
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        # by name: in a view
        with open(os.open(path, flags), "rb", buffering=0) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise OSError(errno.EINVAL, "is not an ordinary file any more", path)
            if from_disk:
                # What has just been written would be read from memory.
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            while chunk := file.read(CHUNK):
                digest.update(chunk)
                self.read += len(chunk)
                self._progress(self.read)
        return digest.digest()

    def _note(self, problem: str) -> None:
        if len(self.problems) < PROBLEMS_MOST:
            self.problems.append(problem)


def _key(inside: str) -> list[str]:
    """Sorts as ``walk`` does: a directory comes right before its contents."""
    return inside.split("/") if inside else []


def _same_time(source: int, copy: int) -> bool:
    """A small ext4 keeps whole seconds only."""
    return source == copy or (copy % NANO == 0 and source // NANO == copy // NANO)


def _attributes(path: str) -> dict[str, bytes]:
    try:
        # by name: in a View, or in the store, which is root's alone
        names = os.listxattr(path, follow_symlinks=False)
        return {name: os.getxattr(path, name, follow_symlinks=False)
                for name in names if name.startswith(XATTRS)}
    except OSError:
        return {}  # a file system that has none
