"""sark-data: the PBX's directories come from the replicated disk.

Binds mount what symbolic links used to point to: a mount is gone with the kernel,
so that a rebooted node says "not running", and open_basedir and AppArmor see the
path that they allow.

The mount table is the truth. A state file says which binds should be in it, and is
written before the first of them, so that an action killed half way is seen.
"""

from __future__ import annotations

import os

from asha.data import binds, mountinfo, space
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
    from collections.abc import Sequence

    from asha.data.mountinfo import Mount
    from asha.data.plan import Plan
    from asha.data.space import Space

# What a SARK, SAIL or plain Asterisk keeps its state in. /usr/share/asterisk as a
# whole: greetings (sounds/usergreeting*), each tenant's moh-* and AGI scripts are
# created there while it runs. Optional is what not every release has or uses.
PATHS = """
/etc/asterisk:asterisk
/var/lib/asterisk:asterisk
/var/spool/asterisk:asterisk
/var/log/asterisk:asterisk
/usr/share/asterisk
/var/lib/mysql:mysql
/var/lib/ldap:openldap?
/opt/sark/db:www-data
/opt/sark/passwd?
/opt/sark/media?
/opt/sark/www/origrecs?
/opt/sark/otrr?
/opt/sark/mixmon?
/opt/sark/bkup?
/opt/sark/snap?
/opt/sark/public?
"""

# Node attributes, shown by crm_mon -A. The first says "ok", or begins with "low"
# or "full"; the second is there only while a database is corrupt.
SPACE_ATTRIBUTE = "asha-data-space"
WARNING_ATTRIBUTE = "asha-data-warning"

# The share of its time after which a start gives up, so that it can still undo.
START_SHARE = 0.7


class SarkData(Agent):
    """Binds the PBX's directories from the replicated disk to their places.

    The store, a file system on the replicated disk, holds a directory under the same
    name for each of the paths: /drbd/etc/asterisk is shown at /etc/asterisk. Start it
    after the store's Filesystem resource and before Asterisk, MariaDB and Apache.

    A path is left out on a node that has no such directory or no such user: its
    program is not installed there. A path of an installed program that the store
    lacks refuses the start, unless it is optional.

    Monitor sees mounts that are gone, a disk that turned read-only and a disk that
    does not answer. A full disk is shown as degraded and never moves the PBX: the
    other node has the same full disk.
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
        "data_root/path. With a user, the directory must belong to that user or to root, and "
        "a node without that user leaves it out. A ? at the end makes it optional: where the "
        "store lacks it, the node's own is used, with a warning.",
        default=" ".join(PATHS.split()),
    )
    force_unmount = Boolean(
        "End processes that hold the data",
        "Whether stop ends the processes that still use a directory: SIGTERM, then SIGKILL. "
        "They are named in the log. Otherwise stop fails and names them.",
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
        "without a panel. refuse: do not start.",
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
        from asha.ocf.child import in_child

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
        from asha.data import news

        plan = self._plan
        for note in plan.notes:
            self.info(note)
        for warning in plan.warnings:
            self.warn(warning)
        # The cluster on this node may have been restarted since they were sent.
        news.forget(self, SPACE_ATTRIBUTE)
        news.forget(self, WARNING_ATTRIBUTE)
        self._unmount_all_but(plan.binds)
        self._remember(plan.binds)
        before = self._mounts()
        try:
            self._bind(plan, before)
            self._check_databases(plan.binds)
        except BaseException:
            self._undo([bind for bind in plan.binds if not bind.is_made(before)])
            raise
        self.info(f"bound {len(plan.binds)} directories of {self.data_root}")

    @action(timeout=60)
    def stop(self) -> None:
        from asha.data import news, unmount

        found = self._ours(self._mounts())
        self._unmount_all_but([])
        self._forget_binds()
        if found:
            unmount.warn_of_copies(self, found)
        news.withdraw(self, WARNING_ATTRIBUTE)
        news.withdraw(self, SPACE_ATTRIBUTE)

    @action(timeout=30, interval=10, depth=0)
    def monitor(self) -> Exit:
        mounts = self._mounts()
        expected = self._remembered()
        missing = [bind.point for bind in expected if not bind.is_made(mounts)]
        if missing or not expected:
            if not self._ours(mounts):
                raise NotRunning("no directory of the store is bound")
            if not expected:
                expected = self._would_bind()
                missing = [bind.point for bind in expected if not bind.is_made(mounts)]
        if missing:
            raise Failed(
                f"{', '.join(missing)} is not bound to the store (any more): somebody unmounted"
                f" it, or a start was interrupted"
            )
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
        return Exit.SUCCESS

    # The parts of a start.

    def _bind(self, plan: Plan, mounts: Sequence[Mount]) -> None:
        from asha.ocf.child import in_child

        missing = [
            (source, bind.point)
            for bind, source in zip(plan.binds, plan.sources, strict=True)
            if not bind.is_made(mounts)
        ]

        def work() -> str:
            for source, point in missing:
                try:
                    self.kernel.bind(source, point)
                except OSError as problem:
                    raise Failed(f"cannot bind {source} to {point}: {problem.strerror}") from None
            return ""

        limit = self.deadline.within(self.deadline.remaining() * START_SHARE)
        in_child(work, limit, f"binding the directories of {self.data_root}")

    def _check_databases(self, made: Sequence[Bind]) -> None:
        from asha.data import news, sqlite

        refuse = self.sqlite_errors == "refuse"
        limit = self.deadline.within(
            min(self.sqlite_timeout, self.deadline.remaining() * START_SHARE)
        )
        corrupt, unknown = sqlite.check_all([bind.point for bind in made], limit)
        for reason in (*corrupt, *unknown):
            self.warn(reason)
        if corrupt and refuse:
            raise Failed("; ".join(corrupt))
        if corrupt:
            news.tell(self, WARNING_ATTRIBUTE, "corrupt", "; ".join(corrupt))

    def _undo(self, made: Sequence[Bind]) -> None:
        """Take back what this start bound; what cannot be is left for the stop."""
        from asha.data import unmount

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
        """What should be bound where the state file is lost: what a start would bind."""
        self.validate(10)
        return self._plan.binds

    def _probe_disk(self, store: Mount) -> None:
        from asha.data import news

        limit = self.deadline.within(self.write_timeout)
        room = space.probe(store.point, self.node, self.state_path("stuck"), limit)
        state, text = self._judge(room)
        news.tell(self, SPACE_ATTRIBUTE, state, text)
        if room.is_full:
            raise space.full(store.point, room)

    def _judge(self, room: Space) -> tuple[str, str]:
        """The node attribute's state, which decides when it is sent, and its text."""
        if room.is_full:
            return "full", f"full: {room}"
        if room.percent < self.low_space:
            return f"low {room.percent}", f"low: {room}"
        return "ok", "ok"

    # The mount table and the memory of it.

    def _mounts(self) -> list[Mount]:
        return mountinfo.read(self.kernel.mountinfo)

    def _store(self, mounts: Sequence[Mount]) -> Mount | None:
        return mountinfo.visible(mounts, os.path.realpath(self.data_root))

    def _ours(self, mounts: Sequence[Mount]) -> list[Mount]:
        """What of ours is mounted, whatever became of parameters and state file."""
        from asha.data import paths

        try:
            words = {item.path for item in paths.parse(self.paths, self.data_root)}
        except BadConfig:
            points = None
        else:
            points = words | {os.path.realpath(path) for path in words}
        return binds.ours(mounts, self._remembered(), points, self._store(mounts))

    def _unmount_all_but(self, wanted: Sequence[Bind]) -> None:
        from asha.data import unmount

        def find(mounts: Sequence[Mount]) -> list[Mount]:
            return [
                mount
                for mount in self._ours(mounts)
                if not any(bind.is_mount(mount) for bind in wanted)
            ]

        unmount.remove(self, self.kernel, find, force=self.force_unmount)

    def _remembered(self) -> list[Bind]:
        return binds.load(self.state_path("mounts"))

    def _remember(self, wanted: Sequence[Bind]) -> None:
        try:
            binds.save(self.state_path("mounts"), wanted)
        except OSError as problem:
            # A full /run must not keep the phones down. The parameters say it too.
            self.warn(f"goes without its state file: {problem.strerror}")

    def _forget_binds(self) -> None:
        from contextlib import suppress

        # Absent, or on a broken /run: what counts is that nothing is mounted.
        with suppress(OSError):
            os.unlink(self.state_path("mounts"))
