"""The live data: which of sark-data's directories this machine has, and the store."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from asha.bootstrap.host.file_tree import Tree
from asha.data import PATHS, mountinfo, owners, paths
from asha.data.mountinfo import MOUNTINFO, Mount
from asha.data.paths import Item
from asha.errors import UserError
from asha.machine import Machine
from asha.rootwork import Directory, Untrusted, View, is_roots_alone

STORE = "/drbd"
DEVICE = "/dev/drbd0"
RESOURCE = "asha"
# While it is filled nobody needs to follow a link in it.
OPTIONS = "noatime,nosuid,nodev,nosymfollow"


@dataclass(frozen=True)
class DataDirectory:
    """One directory: the path that programs use, and where it really is.

    ``mount`` is what is mounted right there: the customer's own disk, or the cluster's bind.
    """

    path: str
    place: str
    mount: Mount | None

    @property
    def copy(self) -> str:
        return STORE + self.path


@dataclass
class Survey:
    """What this machine has of sark-data's directories.

    ``problems``: what the cluster cannot take over as it is. ``left_out``, with a hint: what
    may be missing, and lies where others than root decide what it is.
    """

    found: list[DataDirectory] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    hints: list[str] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)


def directories(machine: Machine) -> list[DataDirectory]:
    """What sark-data will bind here: every directory that exists and whose user exists.

    Raises UserError with all that the cluster cannot take over as it is.
    """
    seen = survey(machine)
    if seen.problems:
        hint = "; ".join(seen.hints) or "fix that"
        raise UserError("; ".join(seen.problems), f"{hint}, then run asha install again")
    return seen.found


def survey(machine: Machine) -> Survey:
    """Look at the directories. Changes nothing."""
    seen = Survey()
    table = mounts(machine)
    for item in paths.parse(PATHS, STORE):
        try:
            with trusted(machine, item.path) as here:
                _look(machine, item, here, table, seen)
        except Untrusted as problem:
            _untrusted(machine, item, problem, seen)
        except OSError as problem:
            # As before it was looked at, a file or a link to nowhere is no directory.
            if problem.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                seen.problems.append(f"{item.path} cannot be opened: {problem.strerror}")
    overlap = paths.overlap([one.place for one in seen.found], STORE)
    if overlap:
        seen.problems.append(f"with symbolic links resolved, {overlap}")
    return seen


def _look(machine: Machine, item: Item, here: Directory, table: list[Mount], seen: Survey) -> None:
    place = inside(machine, here.path)
    if paths.is_inside(place, STORE):
        seen.problems.append(f"{item.path} is a symbolic link into {STORE}, as older clusters made "
                             "it: put the data itself in its place")
    elif not item.user or owners.account(item.user):
        # What will be renamed, and where something else takes its name.
        with parent(machine, place):
            pass
        seen.found.append(DataDirectory(item.path, place, mountinfo.visible(table, place)))
        seen.problems += _problems(item, here, place, table)


def _untrusted(machine: Machine, item: Item, problem: Untrusted, seen: Survey) -> None:
    what = f"{inside(machine, problem.path)} {problem.reason}"
    if item.optional:
        seen.left_out.append((f"{item.path} is left out, and stays on each node alone: {what}",
                              problem.hint))
    elif not item.user or owners.account(item.user):
        seen.problems.append(what)
        if problem.hint:
            seen.hints.append(problem.hint)


def _problems(item: Item, here: Directory, place: str, table: list[Mount]) -> list[str]:
    problems = [
        f"{mount.source} is mounted at {mount.point}, inside {item.path}, and cannot move with it:"
        " unmount it, also in /etc/fstab"
        for mount in table
        if mount.point != place and paths.is_inside(mount.point, place)
    ]
    account = owners.account(item.user) if item.user else None
    if account is not None:
        uid = here.about().st_uid
        if uid not in (0, account.pw_uid):
            # sark-data would refuse it.
            problems.append(f"{item.path} belongs to uid {uid} and not to {item.user}: "
                            f"chown {item.user} {item.path}")
    return problems


def trusted(machine: Machine, path: str) -> Directory:
    """Open the directory, which nobody but root can have put there. Raises OSError."""
    return Directory.trusted(path, top=os.path.realpath(machine.root))


def parent(machine: Machine, place: str) -> Directory:
    """Open the directory above it, in which only root renames and creates. Raises OSError."""
    above = trusted(machine, os.path.dirname(place))
    if not is_roots_alone(above.about()):
        above.close()
        raise Untrusted(above.path, "is not root's alone to write",
                        f"chown root:root {above.path} && chmod go-w {above.path}")
    return above


def inside(machine: Machine, path: str) -> str:
    """A real path as this machine's own programs know it."""
    root = os.path.realpath(machine.root)
    return "/" + os.path.relpath(path, root) if paths.is_inside(path, root) else path


@contextmanager
def views(machine: Machine, directories: Sequence[DataDirectory]) -> Iterator[list[Tree]]:
    """Views of the live data, which can be read by name: nothing in them leads a reader
    elsewhere.

    Raises UserError.
    """
    trees: list[Tree] = []
    with told(trees), ExitStack() as stack:
        for one in directories:
            with trusted(machine, one.place) as here:
                trees.append(stack.enter_context(view(here, here.path)))
        yield trees


@contextmanager
def view(here: Directory, name: str) -> Iterator[Tree]:
    """A view of one directory. Raises UserError where the kernel has none, OSError."""
    try:
        seen = View(here)
    except OSError as problem:
        if problem.errno not in (errno.ENOSYS, errno.EINVAL):
            raise
        raise UserError(
            "this kernel cannot show a directory without its symbolic links: Linux 5.14 "
            "or newer is needed",
            "upgrade this machine to Debian 12 or 13, and boot its kernel",
        ) from None
    with seen:
        # Not the path itself, which is a symbolic link of /proc's.
        yield Tree(name, f"{seen.path}/.", seen.fd)


@contextmanager
def told(trees: Sequence[Tree] = ()) -> Iterator[None]:
    """Turn what the system refuses, or what somebody may have bent, into a UserError."""
    try:
        yield
    except Untrusted as problem:
        raise UserError(str(problem), problem.hint) from None
    except OSError as problem:
        raise UserError(complaint(problem, trees)) from None


def complaint(problem: OSError, trees: Sequence[Tree] = ()) -> str:
    """The system's error, with the names that a person knows."""
    text = f"{os.fsdecode(problem.filename)}: {problem.strerror}" \
        if isinstance(problem.filename, str | bytes) else str(problem)
    for one in trees:
        text = one.named(text)
    return text


def mounts(machine: Machine) -> list[Mount]:
    return [Mount(line) for line in (machine.read(MOUNTINFO) or "").split("\n") if line]


def store_mount(machine: Machine) -> Mount | None:
    """What is mounted at /drbd. Raises UserError when it is not the store."""
    top = mountinfo.visible(mounts(machine), STORE)
    if top is not None and os.path.realpath(top.source) != os.path.realpath(DEVICE):
        raise UserError(f"{top.source} is mounted at {STORE}, and not {DEVICE}",
                      f"umount {STORE}, also in /etc/fstab")
    return top


def mount_store(machine: Machine) -> None:
    """Mount the store on /drbd, for root alone. Raises UserError."""
    if store_mount(machine) is None:
        if not machine.output("drbdadm", "role", RESOURCE).startswith("Primary"):
            machine.run("drbdadm", "primary", RESOURCE)
        machine.path(STORE).mkdir(parents=True, exist_ok=True)  # by name: in root's own /
        machine.run("mount", "-t", "ext4", "-o", OPTIONS, DEVICE, STORE)
    # What is copied gets its owner at once, and root still works in it.
    with told(), trusted(machine, STORE) as store:
        store.own(0o700)


def unmount_store(machine: Machine) -> None:
    """Unmount the store: Pacemaker promotes and mounts it. Raises UserError."""
    from asha.bootstrap.host import processes

    if store_mount(machine) is not None:
        done = machine.run("umount", STORE, check=False)
        if not done.ok:
            who = ", ".join(str(one) for one in processes.find([STORE]))
            raise UserError(f"{STORE} cannot be unmounted: {who or done.complaint}",
                          f"leave that directory (fuser -vm {STORE} tells who is in it)")
    if machine.output("drbdadm", "role", RESOURCE).startswith("Primary"):
        machine.run("drbdadm", "secondary", RESOURCE)
