"""sark-data: the PBX's directories come from the replicated disk.

Binds replace symbolic links. A mount is gone with the kernel, so a rebooted node says "not
running"; and open_basedir and AppArmor see the path that they allow.

The mount table is the truth. A state file says which binds should be in it, and is written
before the first of them, so an action that is killed half way is seen.
"""

from __future__ import annotations

import os

from asha.data import PATHS, binds, mountinfo, space
from asha.data.binds import Bind
from asha.data.kernel import Kernel
from asha.ocf import (
    Agent,
    BadConfig,
    Boolean,
    Choice,
    Duration,
    Exit,
    Failed,
    Integer,
    NotRunning,
    Path,
    String,
    action,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from asha.data.mountinfo import Mount
    from asha.data.plan import Plan
    from asha.data.space import Space
    from asha.ocf.attributes import NodeAttribute
    from asha.ocf.state import StateFile

# Node attributes, shown by crm_mon -A. The first says "ok", or begins with "low"
# or "full"; the second is there only while somebody has to fix something: a corrupt
# database, a path that is left out.
SPACE_ATTRIBUTE = "asha-data-space"
WARNING_ATTRIBUTE = "asha-data-warning"

# The share of its time after which a start gives up, so that it can still undo.
START_SHARE = 0.7


class SarkData(Agent):
    """Binds the PBX's directories from the replicated disk to their places.

    The store, a file system on the replicated disk, holds a directory under the same
    name for each of the paths: /drbd/etc/asterisk is shown at /etc/asterisk. Start it
    after the store's Filesystem resource and before Asterisk, MariaDB and Apache.

    The store itself is closed to all but root (mode 0700): programs reach their data
    through the paths only. There no program gets the rights of its file's owner, and
    no file is a device (nosuid, nodev).

    A path is left out on a node that has no such directory or no such user: its
    program is not installed there. A path of an installed program that the store
    lacks fails the start, unless it is optional.

    A path counts only where nobody but root can write any directory above it: who
    could, would choose what the data is laid over. Otherwise it is left out, the node
    attribute asha-data-warning says so until it is fixed (chown root:root DIRECTORY,
    chmod go-w DIRECTORY on both nodes, then crm resource restart), and the rest runs.
    So is an optional path that is something else than a directory in the store.

    Monitor sees mounts that are gone, a disk that turned read-only and a disk that
    does not answer. A full disk and the lost mount of an optional path are shown as
    degraded and never move the PBX.
    """

    name = "sark-data"

    data_root = Path(
        "Mount point of the store",
        "Where the Filesystem resource mounts the replicated disk.",
        default="/drbd",
    )
    paths = String(
        "Directories to bind",
        "Words separated by blanks, each /path or /path:user. The path is kept in "
        "data_root/path, with no symbolic link on the way. With a user, the directory must belong "
        "to that user or to root, and a node without that user leaves it out. A ? at the end "
        "makes it optional: where the store lacks it, or has something else there, the node's "
        "own is used, with a warning.",
        default=" ".join(PATHS.split()),
    )
    force_unmount = Boolean(
        "End processes that hold the data",
        "Whether stop ends the processes that still use the data, also those that have it in a "
        "mount namespace of their own (a container): SIGTERM, then SIGKILL. A directory that is "
        "in use though no process is seen to use it ends those of the users of paths, and at "
        "last those of any user but root; so does a user who has more open than can be looked "
        "at in the time. They are named in the log. Otherwise stop fails and names them.",
        default=True,
    )
    low_space = Integer(
        "Free space to warn at",
        "With less free space the node attribute asha-data-space says so.",
        default=10,
        least=0,
        most=99,
        unit="percent",
    )
    sqlite_errors = Choice(
        "What a corrupt database does",
        "warn: start, log it and set the node attribute asha-data-warning, because calls go on "
        "without a panel. refuse: do not start. AstDB is left to asterisk-health.",
        choices=("warn", "refuse"),
        default="warn",
    )
    sqlite_timeout = Duration(
        "Time for the check of the databases",
        "A database that takes longer is not checked.",
        default="5s",
    )
    write_timeout = Duration(
        "Time for a write to the store",
        "A write that takes longer means a stalled disk.",
        default="5s",
    )

    kernel = Kernel()

    def validate(self, level: int) -> None:
        from asha.data import paths

        items = paths.parse(self.paths, self.data_root)
        if level < 10:
            return
        from asha.data import plan
        from asha.run.child import in_child

        if self.action_name == "start":
            self._uncover()
        mounts = self._mounts()
        store = self._store(mounts)
        if store is None:
            raise Failed(
                f"nothing is mounted at {self.data_root}: is data_root the directory of the "
                "Filesystem resource, and is that started?"
            )
        if store.read_only:
            raise Failed(space.read_only(store.point))
        self._plan = plan.Plan.from_text(
            in_child(
                lambda: plan.make(items, mounts, store).to_text(),
                self.deadline,
                f"looking into {store.point}",
            )
        )

    @action(timeout=60)
    def start(self) -> None:
        plan = self._plan
        for note in plan.notes:
            self.info(note)
        for warning in (*plan.lasting, *plan.warnings):
            self.warn(warning)
        # The cluster on this node may have been restarted since they were sent.
        self._attribute(SPACE_ATTRIBUTE).forget()
        self._attribute(WARNING_ATTRIBUTE).forget()
        self._unmount_all_but(plan.binds)
        self._remember(plan.binds)
        before = self._mounts()
        wanted = list(plan.binds)
        try:
            self._bind(plan, before)
            corrupt = self._check_databases(plan.binds)
        except BaseException:
            self._undo([bind for bind in wanted if not bind.is_made(before)])
            raise
        self._attribute(WARNING_ATTRIBUTE).keep("; ".join([*corrupt, *plan.lasting]))
        self.info(f"bound {len(plan.binds)} directories of {self.data_root}")

    def adopt(self) -> bool:
        # What is bound may be less than what can be by now, and the store's root open.
        mounts = self._mounts()
        if not all(bind.is_made(mounts) for bind in self._plan.binds):
            return False
        self._close_store()
        return [bind.to_line() for bind in self._remembered()] == [
            bind.to_line() for bind in self._plan.binds
        ]

    @action(timeout=60)
    def stop(self) -> None:
        from asha.data.release import unmount

        self._uncover()
        mounts = self._mounts()
        store = self._store(mounts)
        devices = {mount.device for mount in self._ours(mounts)}
        devices |= {bind.device for bind in self._remembered()}
        if store is not None:
            devices.add(store.device)
        # Never what the whole node lies on, whatever data_root says.
        devices -= {mount.device for mount in mounts if mount.point == "/"}
        self._unmount_all_but([])
        self._unmount_others(devices)
        unmount.end_copies(self, sorted(devices), self.data_root, self._users,
                           force=self.force_unmount)
        self._forget_binds()
        self._attribute(WARNING_ATTRIBUTE).withdraw()
        self._attribute(SPACE_ATTRIBUTE).withdraw()

    @action(timeout=30, interval=10, depth=0)
    def monitor(self) -> Exit:
        everything = self._mounts()
        # What a user has laid on it is no loss of ours, or he could end all calls.
        mounts = [mount for mount in everything if not mount.user]
        expected = self._remembered()
        missing = [bind for bind in expected if not bind.is_made(mounts)]
        if missing or not expected:
            if not self._ours(mounts):
                raise NotRunning("no directory of the store is bound")
            if not expected:
                expected = self._would_bind()
                missing = [bind for bind in expected if not bind.is_made(mounts)]
        lost = [
            bind.point for bind in missing
            if not bind.optional and not bind.is_renamed(mounts)
        ]
        if lost:
            raise Failed(
                f"{', '.join(lost)} is not bound to the store (any more): somebody unmounted"
                f" it, or a start was interrupted"
            )
        covered = [bind.point for bind in expected
                   if bind not in missing and not bind.is_made(everything)]
        if covered and not self.is_probe:
            from asha.data.release import unmount

            unmount.uncover(self, self.kernel, covered, inside=False)
        store = self._store(mounts)
        if store is None or store.device != expected[0].device:
            raise Failed(f"{self.data_root} is no longer mounted, though its directories are bound")
        points = {store.point, *(bind.point for bind in expected)}
        for mount in mounts:
            # By the device too: what our mounts cover may well be read-only.
            if mount.read_only and mount.device == store.device and mount.point in points:
                raise Failed(space.read_only(mount.point))
        if self.action_name == "monitor" and not self.is_probe:
            self._probe_disk(store)
        if missing:
            from asha.run.results import Degraded

            raise Degraded(
                f"{', '.join(bind.point for bind in missing)} is not bound as it was: what is"
                f" written there may be this node's only; restart this resource at a quiet time"
            )
        return Exit.SUCCESS

    # The parts of a start.

    def _bind(self, plan: Plan, mounts: Sequence[Mount]) -> None:
        """An optional directory that cannot be bound is taken out of the plan."""
        from asha.data.mountinfo import unescape
        from asha.run.child import in_child

        missing = [
            (source, bind)
            for bind, source in zip(plan.binds, plan.sources, strict=True)
            if not bind.is_made(mounts)
        ]
        limit = self.deadline.within(self.deadline.remaining() * START_SHARE)
        answer = in_child(
            lambda: self._bind_each(missing),
            limit,
            f"binding the directories of {self.data_root}",
        )
        for line in filter(None, answer.split("\n")):
            point, _, reason = line.partition(" ")
            reason = f"{unescape(point)} is left out: {unescape(reason)}"
            self.warn(reason)
            plan.lasting.append(reason)
            left = [bind.point for bind in plan.binds].index(unescape(point))
            del plan.binds[left], plan.sources[left]
        if answer:
            self._unmount_all_but(plan.binds)
            self._remember(plan.binds)

    def _bind_each(self, wanted: Sequence[tuple[str, Bind]]) -> str:
        """By descriptors, opened anew: what the plan has seen may have been replaced."""
        from asha.data import store
        from asha.data.mountinfo import escape
        from asha.rootwork import Directory

        left = []
        try:
            root = store.enter(os.path.realpath(self.data_root))
            store.close_to_others(root)
        except OSError as problem:
            raise Failed(f"cannot close {self.data_root} to all but root: {problem}") from None
        with root:
            for source, bind in wanted:
                try:
                    with store.item(root, source) as data, Directory.trusted(bind.point) as place:
                        if place.path != bind.point or data.about().st_ino != bind.inode:
                            raise OSError(0, "was replaced just now")
                        self.kernel.bind(data, place)
                except OSError as problem:
                    reason = f"cannot bind {self.data_root}{source} to {bind.point}: " + (
                        problem.strerror or str(problem)
                    )
                    if not bind.optional:
                        raise Failed(reason) from None
                    left.append(f"{escape(bind.point)} {escape(reason)}")
        return "\n".join(left)

    def _close_store(self) -> None:
        from asha.run.child import in_child

        in_child(lambda: self._bind_each([]), self.deadline, f"closing {self.data_root}")

    def _check_databases(self, made: Sequence[Bind]) -> list[str]:
        """The corrupt databases, as reasons."""
        from asha.data import sqlite

        refuse = self.sqlite_errors == "refuse"
        limit = self.deadline.within(
            min(self.sqlite_timeout, self.deadline.remaining() * START_SHARE)
        )
        corrupt, unknown = sqlite.check_all([bind.point for bind in made], limit)
        for reason in (*corrupt, *unknown):
            self.warn(reason)
        if corrupt and refuse:
            raise Failed("; ".join(corrupt))
        return corrupt

    def _undo(self, made: Sequence[Bind]) -> None:
        """Unmount what this start bound; what cannot be unmounted is left for the stop."""
        from asha.data.release import unmount

        def find(mounts: Sequence[Mount]) -> list[Mount]:
            return [mount for mount in mounts if any(bind.is_mount(mount) for bind in made)]

        try:
            unmount.remove(self, self.kernel, find, force=False)
        except Failed as problem:
            self.warn(f"the start is not undone: {problem.reason}")
            return
        if not self._ours(self._mounts()):
            self._forget_binds()

    # The parts of a monitor.

    def _would_bind(self) -> list[Bind]:
        """What should be bound if the state file is lost: what a start would bind."""
        self.validate(10)
        return self._plan.binds

    def _probe_disk(self, store: Mount) -> None:
        limit = self.deadline.within(self.write_timeout)
        room = space.probe(store.point, self.node, self.state_path("stuck"), limit)
        state, text = self._judge(room)
        self._attribute(SPACE_ATTRIBUTE).tell(state, text)
        self._attribute(WARNING_ATTRIBUTE).repeat()
        if room.is_full:
            raise space.full(store.point, room)

    def _judge(self, room: Space) -> tuple[str, str]:
        """The node attribute's state, which decides when it is sent, and its text."""
        if room.is_full:
            return "full", f"full: {room}"
        if room.percent < self.low_space:
            return f"low {room.percent}", f"low: {room}"
        return "ok", "ok"

    def _attribute(self, name: str) -> NodeAttribute:
        from asha.ocf.attributes import NodeAttribute

        return NodeAttribute(self, name)

    # The mount table and the memory of it.

    def _mounts(self) -> list[Mount]:
        return mountinfo.read(self.kernel.mountinfo)

    def _store(self, mounts: Sequence[Mount]) -> Mount | None:
        return mountinfo.visible(mounts, os.path.realpath(self.data_root))

    def _ours(self, mounts: Sequence[Mount]) -> list[Mount]:
        """What of ours is mounted, whatever happened to parameters and state file."""
        from asha.data import paths

        try:
            words = {item.path for item in paths.parse(self.paths, self.data_root)}
        except BadConfig:
            points = None
        else:
            points = words | self._places(words)
        return binds.ours(mounts, self._remembered(), points, self._store(mounts))

    def _places(self, words: Collection[str]) -> set[str]:
        """The real places, with root's links followed, and nobody else's."""
        from asha.rootwork import Directory

        found = set()
        for path in words:
            try:
                with Directory.trusted(path) as place:
                    found.add(place.path)
            except OSError:
                continue
        return found

    def _users(self) -> set[int]:
        """The uids of the users of paths, without root."""
        from asha.data import owners, paths

        try:
            items = paths.parse(self.paths, self.data_root)
        except BadConfig:
            return set()
        return owners.local_uids({item.user for item in items if item.user})

    def _uncover(self) -> None:
        from asha.data import paths
        from asha.data.release import unmount

        try:
            items = paths.parse(self.paths, self.data_root)
        except BadConfig:
            return  # a stop gets along without, a start has been told
        unmount.uncover(self, self.kernel, [self.data_root, *(item.path for item in items)])

    def _unmount_others(self, devices: Collection[str]) -> None:
        """Unmount what else somebody has mounted of the store on this node, except for the
        store itself."""
        from asha.data.release import unmount

        root = os.path.realpath(self.data_root)

        def find(mounts: Sequence[Mount]) -> list[Mount]:
            return [one for one in mounts if one.device in devices and one.point != root]

        others = find(self._mounts())
        for mount in others:
            what = f"{mount.root} of the store is mounted on {mount.point} too"
            if not self.force_unmount:
                raise Failed(f"{what}: unmount it first")
            self.warn(f"{what}: unmounts it")
        if others:
            unmount.remove(self, self.kernel, find, force=True, users=self._users)

    def _unmount_all_but(self, wanted: Sequence[Bind]) -> None:
        from asha.data.release import unmount

        def find(mounts: Sequence[Mount]) -> list[Mount]:
            return [
                mount
                for mount in self._ours(mounts)
                if not any(bind.is_mount(mount) for bind in wanted)
            ]

        # Those who use the data may run while a start tidies up.
        users = self._users if not wanted else frozenset
        unmount.remove(self, self.kernel, find, force=self.force_unmount, users=users)

    @property
    def _memory(self) -> StateFile:
        return self.state_file("mounts")

    def _remembered(self) -> list[Bind]:
        return binds.load(self._memory)

    def _remember(self, wanted: Sequence[Bind]) -> None:
        try:
            binds.save(self._memory, wanted)
        except OSError as problem:
            # A full /run must not keep the phones down. The parameters say it too.
            self.warn(f"goes without its state file: {problem.strerror}")

    def _forget_binds(self) -> None:
        try:
            self._memory.remove()
        except OSError:
            pass  # a broken /run: what counts is that nothing is mounted
