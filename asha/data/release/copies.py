"""What still holds the store's disk when our binds are gone: in every mount namespace.

A namespace that was cut off from ours (a container, PrivateMounts=, unshare of a user's)
keeps its copy of what was mounted, and a detached mount (open_tree(2)) has no place in
any. Who has one still writes, and DRBD cannot be demoted.

Not counted is what Pacemaker's Filesystem resource takes away with its own umount: the
store at its mount point, and the copies of that which the kernel removes together with
it (mount_namespaces(7), "propagation"). Sources: proc_pid_mountinfo(5), ioctl_ns(2).
"""

from __future__ import annotations

import errno
import os

from asha.data import mountinfo
from asha.data.kernel import Kernel, Looker, enter_namespace
from asha.data.mountinfo import Mount
from asha.data.paths import is_inside
from asha.data.release import holders

# Imported here: in another mount namespace somebody else chooses what a module's file is.
from asha.rootwork import Directory  # noqa: F401
from asha.run.child import in_child, name_of
from asha.run.results import Failed
from asha.run.text import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

    from asha.data.kernel import Sight
    from asha.data.release.holders import Holder
    from asha.data.release.turns import Look
    from asha.run.deadline import Deadline

LOOKING = "looking for who still has the store"

# <linux/nsfs.h>
NS_GET_USERNS, NS_GET_PARENT, NS_GET_OWNER_UID = 0xB701, 0xB702, 0xB704

# File systems of which even a look may wait for a server.
REMOTE = ("nfs", "cifs", "smb", "ceph", "9p", "autofs")

# The file system that lies on directories of others, and that a user mounts in a user
# namespace of his own.
LAYERS = "overlay"

# What else a user may mount there: <linux/magic.h> of overlay, tmpfs, FUSE.
UNPRIVILEGED = (0x794C7630, 0x01021994, 0x65735546)

# User namespaces can be nested that deep (user_namespaces(7)).
NESTED_MOST = 32

# Bytes of a memory map that are looked at in one go.
CHUNK = 1 << 20

# Bytes that tell of the mounts of another user namespace: some 8000, where a user may
# have 100000 in each of thousands (/proc/sys/fs/mount-max).
FOREIGN_MOST = 1 << 20


class Namespace:
    """A mount namespace that is not ours; ``path``, below /proc, leads to it.

    ``pids`` live in it, ``keepers`` hold a descriptor of it; ``user`` is the one in whose turn
    it was found (asha.data.release.turns). A ``foreign`` one is in another user namespace,
    which is ``owner``'s: there nobody can unmount what was copied when it was made
    (mount_namespaces(7), "locked"). One that ``hides`` may have the disk without our seeing it.
    ``mounts`` are those of the disk, and what they lie on.
    """

    def __init__(self, inode: int, path: str, user: int, device: int) -> None:
        self.inode = inode
        self.device = device
        self.path = path
        self.user = user
        self.pids: list[int] = []
        self.keepers: list[int] = []
        self.mounts: list[Mount] = []
        self.foreign = False
        self.owner = 0
        self.hides = False

    def reach(self, proc: int) -> int:
        """Open it, by a descriptor of the kernel's own /proc: in the namespace that we have
        entered, that name may be anything. Raises OSError, also if it is gone.

        The descriptor's owner may have put something else in its place by now: opening a FIFO
        would block us, and a device may do something when it is opened. So it is checked
        before.
        """
        # by name: /proc is the kernel's, and nothing is opened by this
        found = os.open(self.path, os.O_PATH | os.O_CLOEXEC, dir_fd=proc)
        try:
            about = os.fstat(found)
            if (about.st_dev, about.st_ino) != (self.device, self.inode):
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self.path)
            # by name: what was found, in the kernel's own /proc
            return os.open(f"{os.getpid()}/fd/{found}", os.O_RDONLY | os.O_CLOEXEC, dir_fd=proc)
        finally:
            os.close(found)


class Found:
    """The processes to end, and what holds the disk without being a process. ``users`` (uids)
    hold it by processes that never live long, or may hold it by what could not be seen.
    ``again``: one that held it has ended since."""

    def __init__(self) -> None:
        self.holders: list[Holder] = []
        self.users: set[int] = set()
        self.again = False
        self.rest: list[str] = []
        self.released: list[str] = []

    def to_text(self) -> str:
        lines = [f"holder {one.to_line()}" for one in self.holders]
        lines += [f"released {text}" for text in self.released]
        lines += [f"user {user}" for user in self.users]
        lines += ["again -"] if self.again else []
        return "\n".join(lines + [f"rest {text}" for text in self.rest])

    def __bool__(self) -> bool:
        return bool(self.holders or self.users or self.rest)

    def suspect(self, seen: Look, point: str) -> None:
        """Add those of whom not everything was seen, if no holder was seen."""
        if not self:
            self.holders = holders.perhaps(seen.unseen, point)
            self.users = set(seen.users)

    @classmethod
    def from_text(cls, text: str) -> Found:
        found = cls()
        for line in filter(None, text.split("\n")):
            word, _, rest = line.partition(" ")
            if word == "holder":
                found.holders.append(holders.Holder.from_line(rest))
            elif word == "user":
                found.users.add(int(rest))
            elif word == "again":
                found.again = True
            else:
                (found.rest if word == "rest" else found.released).append(rest)
        return found


def look(device: str, among: Iterable[int], maps: bool) -> Iterator[str]:
    """What these pids have of the disk ``device`` ("major:minor"): lines for ``find``, and
    "" for each step on the way.

    Without ``maps`` what is only mapped is not seen: a process whose memory map is locked
    makes one who reads it wait. To be called in a child (asha.data.release.turns).
    """
    looker = Looker()
    own = mountinfo.read()
    remote = [mount.point for mount in own if mount.kind.startswith(REMOTE)]
    odd = _Odd(own, looker)
    mine = looker.look("/proc/self/ns/mnt")
    assert mine is not None
    major, _, minor = device.partition(":")
    mapped = f" {int(major):02x}:{int(minor):02x} "
    for pid in among:
        found = set[tuple[str, int]]()
        for task in holders.threads(pid):
            yield ""
            namespace = looker.look(f"{task}/ns/mnt")
            if namespace is None:
                continue  # a kernel thread's can be seen, one's that has ended not
            if namespace.inode != mine.inode and ("lives", namespace.inode) not in found:
                found.add(("lives", namespace.inode))
                yield f"lives {pid} {namespace.inode} {task.removeprefix('/proc/')}/ns/mnt"
            for path in holders.of_task(task):
                yield ""
                if remote and _is_below(path, remote):
                    continue
                sight = looker.look(path)
                if sight is None:
                    continue
                if sight.device == device and ("holds", sight.mount) not in found:
                    found.add(("holds", sight.mount))
                    yield f"holds {pid} {sight.mount} -"
                elif (sight.device == mine.device and sight.inode != mine.inode
                      and ("keeps", sight.inode) not in found and is_mount_space(path)):
                    found.add(("keeps", sight.inode))
                    yield f"keeps {pid} {sight.inode} {path.removeprefix('/proc/')}"
                if ("on", sight.mount) not in found and odd.may_hide(path, sight):
                    found.add(("on", sight.mount))
                    yield f"on {pid} {sight.mount} -"
        if maps and not any(word == "holds" for word, _ in found):
            yield from _look_at_maps(pid, device, mapped, looker, odd)


def _look_at_maps(pid: int, device: str, mapped: str, looker: Looker,
                  odd: _Odd) -> Iterator[str]:
    """What is only mapped. A kernel thread has no map."""
    try:
        # by name: /proc is the kernel's
        with open(f"/proc/{pid}/maps", "rb", buffering=0) as file:
            # Not as a whole: a user's can have 65530 lines, each with a long name.
            is_roots = holders.uids(pid)[:1] == [0]
            found, rest = False, b""
            while part := file.read(CHUNK):
                yield ""
                lines, _, rest = (rest + part).rpartition(b"\n")
                found = found or mapped.encode() in lines
                if found and is_roots:
                    break
                if not is_roots:
                    yield from odd.in_maps(pid, lines.decode(errors="replace"))
    except OSError:
        return
    if not found:
        return
    for name in holders.entries(f"/proc/{pid}/map_files"):
        sight = looker.look(f"/proc/{pid}/map_files/{name}")
        is_there = sight is not None and sight.device == device
        yield f"holds {pid} {sight.mount} -" if sight is not None and is_there else ""


class _Odd:
    """Files on mounts that our own namespace does not have. Where no other has them either
    they are unmounted, and may still have below them what they had: copies of the store
    that are locked (disconnect_mount() in the kernel's fs/namespace.c), or, as layers of
    an overlay, directories of it."""

    def __init__(self, own: Sequence[Mount], looker: Looker) -> None:
        self._mounts = {mount.id for mount in own}
        self._devices = {mount.device for mount in own}
        self._looker = looker

    def may_hide(self, path: str, sight: Sight) -> bool:
        if sight.mount in self._mounts:
            return False
        if sight.device in self._devices:
            return True
        # The rest are mostly the kernel's own: of sockets, pipes, memory and the like.
        return (sight.device.startswith("0:") and not _is_memory(path)
                and self._looker.kind(path) in UNPRIVILEGED)

    def in_maps(self, pid: int, maps: str) -> Iterator[str]:
        found: set[int] = set()
        for line in maps.split("\n"):
            fields = line.split(" ", 5)
            # What is mapped of no file has no inode; a file's name may hold a line's end.
            if len(fields) < 6 or fields[4] == "0":
                continue
            # The kernel's names in map_files have no leading zeros.
            place = "-".join(end.lstrip("0") or "0" for end in fields[0].split("-"))
            path = f"/proc/{pid}/map_files/{place}"
            sight = self._looker.look(path)
            if sight is None or sight.mount in found:
                yield ""
            elif self.may_hide(path, sight):
                found.add(sight.mount)
                yield f"on {pid} {sight.mount} -"


def _is_memory(path: str) -> bool:
    """Whether it lies on the kernel's own tmpfs: memfd_create(2), shmget(2)."""
    made = os.memfd_create("asha")
    try:
        # by name: /proc is the kernel's
        return os.fstat(made).st_dev == os.stat(path).st_dev
    except OSError:
        return False
    finally:
        os.close(made)


def search(device: str, point: str, users: Callable[[], Collection[int]], *,
           release: bool, maps: bool, limit: Deadline) -> Found:
    """What still has the disk though our binds are gone: ``find``, in children.

    Raises Failed; NoAnswer with ``maps`` if one of root's memory maps cannot be read.
    """
    from asha.data.release import turns

    def among(pids: Iterable[int]) -> Iterator[str]:
        return look(device, pids, maps)

    def work() -> str:
        return find(device, point, users(), seen, release=release,
                    limit=limit.within(limit.remaining() * 0.9)).to_text()

    # Half of the time is for the namespaces that are found.
    seen = turns.take(among, limit.within(limit.remaining() / 2), LOOKING)
    found = Found.from_text(in_child(work, limit, LOOKING))
    found.suspect(seen, point)
    return found


def find(device: str, point: str, users: Collection[int], seen: Look, *, release: bool,
         limit: Deadline) -> Found:
    """Everything that holds the disk ``device``, whose store is mounted at ``point``.

    ``seen`` is what ``look`` has found. With ``release`` the copies are unmounted where that
    can be done from outside, and what remains is found. The mount namespaces of ``users``
    (uids) count whatever they show: their owner can hide a mount from us. So do those of others
    that hide one, or that are too many for the time.

    To be called in a child: it enters other mount namespaces. Raises Failed if root's alone
    take longer than ``limit``.
    """
    own = mountinfo.read()
    groups = _Groups(own)
    spaces = _Spaces(device, own, groups, seen)
    spaces.read(limit)
    ours = {mount.id for mount in own if mount.device == device and mount.point == point}
    stores = [(mount, parent) for mount in own if mount.id in ours
              for parent in own if parent.id == mount.parent]
    found = Found()
    named = dict[int, str]()
    for space in spaces.all.values():
        left = _counted(space, device, stores, groups)
        if left and release and not space.foreign:
            _release(space, left)
            left = _counted(space, device, stores, groups)
            if not left and space.pids:
                first = space.pids[0]
                found.released.append(f"{name_of(first)} (pid {first})")
        counted = {mount.id for mount in left}
        ours |= {mount.id for mount in space.mounts
                 if mount.device == device and mount.id not in counted}
        # Who only keeps one that hides may be root's, but not where it was his to be found.
        hides = release and (
            (bool(space.pids) and (space.hides or (space.foreign and space.owner in users)))
            or (bool(space.keepers) and space.user != 0 and space.hides))
        if not left and not hides:
            continue
        inside = [pid for pid in space.pids if pid in spaces.holding and not space.foreign]
        for pid in inside or space.pids or space.keepers:
            named[pid] = f"{point}, in a mount namespace of its own,"
        if not space.pids and not space.keepers:
            found.rest.append(f"{point} is still mounted in a mount namespace without a process,"
                              f" at {printable(left[0].point)}")
    for pid, others in spaces.odd.items():
        if release and others - spaces.mounts:
            named.setdefault(pid, f"{point}, by what was unmounted perhaps,")
    for pid, where in spaces.holding.items():
        if where - ours:
            named.setdefault(pid, f"{point}, by a way of its own,")
    family = holders.family()
    for pid, how in sorted(named.items()):
        holder = holders.describe(pid, how, family)
        if holder is not None:
            found.holders.append(holder)
        else:
            found.again = True
        found.users |= seen.moving & {spaces.whose.get(pid, 0)}
    return found


def of_users(users: Collection[int], point: str) -> list[Holder]:
    """Every process that runs as one of these uids, or in a user namespace of theirs."""
    mine = os.stat("/proc/self/ns/user").st_ino
    family = holders.family()
    found = []
    for pid in holders.pids():
        if not set(users).isdisjoint(holders.uids(pid)) or _space_owners(pid, mine) & set(users):
            holder = holders.describe(pid, f"{point}, by what cannot be seen,", family)
            if holder is not None:
                found.append(holder)
    return found


class _Spaces:
    """The mount namespaces that were found, and what each has of the disk."""

    def __init__(self, device: str, own: Sequence[Mount], groups: _Groups, seen: Look) -> None:
        self._device = device
        self._groups = groups
        self.all: dict[int, Namespace] = {}
        # The mounts of the disk by whose way a process holds something.
        self.holding: dict[int, set[int]] = {}
        self.whose: dict[int, int] = {}
        # On which mounts that are not ours a process has something, and which are there.
        self.odd: dict[int, set[int]] = {}
        self._own = {mount.device for mount in own}
        self.mounts = {mount.id for mount in own}
        mine = Looker().look("/proc/self/ns/mnt")
        assert mine is not None
        major, _, minor = mine.device.partition(":")
        self._nsfs = os.makedev(int(major), int(minor))
        # After a change of namespace /proc may be another's, or none.
        # by name: /proc is the kernel's
        self._proc = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        # by name: the same
        self._mine = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        self._user = os.stat("/proc/self/ns/user").st_ino
        self._known = {_kept(mount) for mount in own}
        for user, line in seen.lines:
            word, pid, number, path = line.split(" ", 3)
            self.whose[int(pid)] = user
            if word == "holds":
                self.holding.setdefault(int(pid), set()).add(int(number))
                continue
            if word == "on":
                if user:  # root's processes have it from root
                    self.odd.setdefault(int(pid), set()).add(int(number))
                continue
            space = self.all.setdefault(
                int(number), Namespace(int(number), path, user, self._nsfs))
            (space.pids if word == "lives" else space.keepers).append(int(pid))

    def read(self, limit: Deadline) -> None:
        """Read the mounts of each, root's first, then each user's in a share of the time."""
        by_user: dict[int, list[Namespace]] = {}
        for space in self.all.values():
            by_user.setdefault(space.user, []).append(space)
        if not by_user:
            return
        queue = sorted(by_user.items(), key=lambda one: (one[0] != 0, len(one[1])))
        for number, (user, spaces) in enumerate(queue):
            share = limit if user == 0 else limit.within(
                limit.remaining() / (len(queue) - number))
            while spaces:
                if share.expired:
                    if user == 0:
                        raise Failed("looking at the mount namespaces takes too long")
                    for space in spaces:
                        space.hides = True
                    break
                spaces += self._read(spaces.pop())
        try:
            enter_namespace(self._mine)
        except OSError:
            return  # without the right to, we have not left it
        os.chdir("/")

    def _read(self, space: Namespace) -> list[Namespace]:
        """Also finds namespaces that only a mount in it keeps."""
        more: list[Namespace] = []
        try:
            descriptor = space.reach(self._proc)
        except OSError:
            # It may be gone, or kept by another descriptor than the one that was seen.
            space.hides = space.user != 0
            return more
        try:
            space.foreign, space.owner = _ownership(descriptor, self._user)
            enter_namespace(descriptor)
            mounts = read_here(self._proc, FOREIGN_MOST if space.foreign else 0)
        except OverflowError:
            space.hides = True
            return more
        except OSError:
            return more  # without the right to: then what its processes hold tells
        finally:
            os.close(descriptor)
        self._groups.learn(mounts)
        for mount in mounts:
            # Its layers are where nobody sees them (clone_private_mount() in the kernel's
            # fs/namespace.c), and its options tell what their owner wants.
            if space.foreign and mount.kind == LAYERS and mount.device not in self._own:
                space.hides = True
            self.mounts.add(mount.id)
        of_disk = [mount for mount in mounts if mount.device == self._device]
        needed = {mount.id for mount in of_disk} | {mount.parent for mount in of_disk}
        space.mounts = [mount for mount in mounts if mount.id in needed]
        for mount in mounts:
            number = _kept(mount)
            if not number or number in self.all:
                continue
            if space.foreign:
                # Nobody of root's walks there: what lies on the way is a user's, and may be
                # a file system that does not answer.
                space.hides = space.hides or number not in self._known
                continue
            reached = self._reach(mount.point, number)
            if reached >= 0:
                path = f"{os.getpid()}/fd/{reached}"
                self.all[number] = Namespace(number, path, space.user, self._nsfs)
                more.append(self.all[number])
        return more

    def _reach(self, point: str, number: int) -> int:
        """Open the namespace that is mounted there, -1 for anything else.

        The owner of the namespace in which we are chooses what lies at the point: a FIFO would
        block us, and a device may do something when it is opened. So it is checked before.
        """
        try:
            # by name: nothing is opened by this, and what was found is looked at
            found = os.open(point, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            return -1
        try:
            about = os.fstat(found)
            if (about.st_dev, about.st_ino) != (self._nsfs, number):
                return -1
            # by name: what was found, in the kernel's own /proc
            return os.open(f"{os.getpid()}/fd/{found}", os.O_RDONLY | os.O_CLOEXEC,
                           dir_fd=self._proc)
        except OSError:
            return -1
        finally:
            os.close(found)


def _kept(mount: Mount) -> int:
    """The mount namespace that a mount keeps, 0 for none."""
    number = mount.root.removeprefix("mnt:[").removesuffix("]")
    return int(number) if mount.kind == "nsfs" and number.isdecimal() else 0


def _is_below(path: str, points: Sequence[str]) -> bool:
    try:
        target = os.readlink(path)
    except OSError:
        return False
    return any(is_inside(target, point) for point in points)


def read_here(proc: int, most: int = 0) -> list[Mount]:
    """The mounts of the namespace in which this process is now.

    Raises OSError; OverflowError if they are more than ``most`` bytes, 0 for no limit.
    """
    # by name: in the kernel's own /proc
    descriptor = os.open(f"{os.getpid()}/mountinfo", os.O_RDONLY | os.O_CLOEXEC, dir_fd=proc)
    # by name: a descriptor
    with open(descriptor, encoding="utf-8", errors="surrogateescape", newline="\n") as file:
        text = file.read(most or -1)
        if most and file.read(1):
            raise OverflowError(f"more than {most} bytes of mounts")
    return [Mount(line) for line in text.split("\n") if line]


def is_mount_space(path: str) -> bool:
    """Whether the link leads to a mount namespace, and not to one of another kind."""
    try:
        return os.readlink(path).startswith("mnt:")
    except OSError:
        return False


class _Groups:
    """Which groups of mounts receive what is mounted and unmounted in which others."""

    def __init__(self, mounts: Iterable[Mount]) -> None:
        self._masters: dict[str, set[str]] = {}
        self.learn(mounts)

    def learn(self, mounts: Iterable[Mount]) -> None:
        for mount in mounts:
            tags = dict(tag.partition(":")[::2] for tag in mount.tags)
            masters = {tags[word] for word in ("master", "propagate_from") if word in tags}
            if "shared" in tags:
                self._masters.setdefault(tags["shared"], set()).update(masters)

    def follows(self, mount: Mount, leader: Mount) -> bool:
        """Whether an umount at ``leader`` unmounts ``mount`` too."""
        goal = {tag.partition(":")[2] for tag in leader.tags if tag.startswith("shared:")}
        waiting = [tag.partition(":")[2] for tag in mount.tags]
        seen = set(waiting)
        while waiting:
            group = waiting.pop()
            if group in goal:
                return True
            more = self._masters.get(group, set()) - seen
            seen |= more
            waiting += more
        return False


def _counted(space: Namespace, device: str, stores: Sequence[tuple[Mount, Mount]],
             groups: _Groups) -> list[Mount]:
    """The mounts of the disk there that no umount of ours removes."""
    parents = {mount.id: mount for mount in space.mounts}

    def goes(mount: Mount) -> bool:
        below = parents.get(mount.parent)
        # A copy in another user namespace is locked, but not against ours
        # (propagate_mount_unlock() in the kernel's fs/pnode.c).
        return below is not None and any(
            mount.root == store.root and below.device == under.device
            and _name_in(below, mount.point) == _name_in(under, store.point)
            and groups.follows(below, under)
            for store, under in stores
        )

    return [mount for mount in space.mounts if mount.device == device and not goes(mount)]


def _name_in(under: Mount, point: str) -> str:
    """A mount point as a path in the file system on which it lies."""
    return under.root.rstrip("/") + point[len(under.point.rstrip("/")):]


def _release(space: Namespace, copies: Sequence[Mount]) -> None:
    """Unmount them there, the last first; what cannot be unmounted stays."""
    # by name: /proc is the kernel's
    proc = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    # by name: the same
    back = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    there = -1
    try:
        there = space.reach(proc)
        enter_namespace(there)
        for mount in reversed(copies):
            try:
                Kernel().unmount(mount.point)
            except OSError:
                continue
        space.mounts = read_here(proc)
    except OSError:
        pass
    finally:
        enter_namespace(back)
        os.chdir("/")
        for descriptor in {there, back, proc} - {-1}:
            os.close(descriptor)


def _ownership(descriptor: int, mine: int) -> tuple[bool, int]:
    """Whether a namespace belongs to another user namespace than ours, and its owner's uid."""
    try:
        owner = _ioctl(descriptor, NS_GET_USERNS)
    except OSError:
        return False, 0
    try:
        if os.fstat(owner).st_ino == mine:
            return False, 0
        return True, _owner_uid(owner)
    except OSError:
        return True, 0
    finally:
        os.close(owner)


def _space_owners(pid: int, mine: int) -> set[int]:
    """The makers of the user namespaces below ours in which a process is."""
    found: set[int] = set()
    try:
        # by name: /proc is the kernel's
        here = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return found
    for _ in range(NESTED_MOST):
        try:
            if os.fstat(here).st_ino == mine:
                break
            found.add(_owner_uid(here))
            above = _ioctl(here, NS_GET_PARENT)
        except OSError:
            break
        os.close(here)
        here = above
    os.close(here)
    return found


def _owner_uid(space: int) -> int:
    import fcntl
    import sys

    answer = fcntl.ioctl(space, NS_GET_OWNER_UID, bytes(4))
    return int.from_bytes(answer, sys.byteorder)


def _ioctl(descriptor: int, request: int) -> int:
    import fcntl

    return fcntl.ioctl(descriptor, request)
