"""The mount table, from the kernel: /proc/self/mountinfo.

Format: proc_pid_mountinfo(5). Reading it never touches a disk, so it answers also while a disk
is stalled.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

MOUNTINFO = "/proc/self/mountinfo"

# The kernel writes these four as octal, so that fields can be split at blanks.
ESCAPES = (("\\", "\\134"), (" ", "\\040"), ("\t", "\\011"), ("\n", "\\012"))

# Super block options that say "no more writing". The last two are ext4's since
# Linux 6.15, which no longer turns itself to "ro" after an error.
READ_ONLY_WORDS = frozenset(("ro", "emergency_ro", "shutdown"))


class Mount:
    """One line: which directory (``root``) of which disk is mounted at ``point``.

    ``device`` is "major:minor". ``root`` is a path inside that file system and ends in
    ``//deleted`` if the directory is gone. ``user`` is the uid of who has mounted it by a file
    system of his own (FUSE), else 0. ``tags`` say with which other mounts this one shares what
    is mounted on it ("shared:1", "master:2").
    """

    __slots__ = ("device", "id", "kind", "parent", "point", "read_only", "root", "source",
                 "tags", "user")

    def __init__(self, line: str) -> None:
        own, _, disk = line.partition(" - ")
        fields = own.split(" ")
        about = disk.split(" ")
        self.id = int(fields[0])
        self.parent = int(fields[1])
        self.device = fields[2]
        self.root = unescape(fields[3])
        self.point = unescape(fields[4])
        self.tags = fields[6:]
        self.kind = about[0]
        self.source = unescape(about[1])
        self.user = _user_of(about[2]) if self.kind.startswith("fuse") else 0
        self.read_only = "ro" in fields[5].split(",") or not READ_ONLY_WORDS.isdisjoint(
            about[2].split(",")
        )

    def __repr__(self) -> str:
        return f"<{self.device} {self.root} on {self.point}>"


def _user_of(options: str) -> int:
    found = [word.partition("=")[2] for word in options.split(",") if word.startswith("user_id=")]
    return int(found[0]) if found and found[0].isdecimal() else 0


def read(path: str = MOUNTINFO) -> list[Mount]:
    """Every mount of this namespace."""
    # A path may hold what Python takes for a line's end and the kernel does not.
    # by name: the kernel's, below /proc
    with open(path, encoding="utf-8", errors="surrogateescape", newline="\n") as file:
        return [Mount(line) for line in file.read().split("\n") if line]


def visible(mounts: Iterable[Mount], point: str) -> Mount | None:
    """The mount that a program gets at this path: the top of its stack."""
    stack = [mount for mount in mounts if mount.point == point]
    covered = {mount.parent for mount in stack}
    for mount in reversed(stack):
        if mount.id not in covered:
            return mount
    return None


def below(mounts: Sequence[Mount], tops: Sequence[Mount]) -> list[Mount]:
    """These mounts and all that is mounted on them, in an order in which they can be unmounted.

    By the tree and not by the paths: what was mounted below the path before ours is hidden by
    ours, and is not our business.
    """
    found: dict[int, Mount] = {}
    waiting = list(reversed(tops))
    while waiting:
        mount = waiting.pop()
        # Again to the end, where it is already known: a child must come later.
        found.pop(mount.id, None)
        found[mount.id] = mount
        waiting.extend(one for one in mounts if one.parent == mount.id and one is not mount)
    return list(reversed(found.values()))


def holding(mounts: Iterable[Mount], path: str) -> Mount | None:
    """The mount on which a path without symbolic links lies."""
    best: Mount | None = None
    for mount in mounts:
        inside = path == mount.point or path.startswith(mount.point.rstrip("/") + "/")
        if inside and (best is None or len(mount.point) >= len(best.point)):
            best = mount
    return best


def escape(path: str) -> str:
    """The spelling of a path in which it contains no blank."""
    for character, code in ESCAPES:
        path = path.replace(character, code)
    return path


def unescape(text: str) -> str:
    """Undo ``escape``, and the kernel's own octal codes."""
    if "\\" not in text:
        return text
    first, *rest = text.split("\\")
    return first + "".join(chr(int(part[:3], 8)) + part[3:] for part in rest)
