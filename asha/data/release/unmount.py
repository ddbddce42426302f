"""Unmounts our mounts, whatever uses them, or says what prevents it."""

from __future__ import annotations

import errno
import os
import signal
import time
from contextlib import suppress

from asha.data import mountinfo
from asha.data.paths import is_inside
from asha.data.release import holders
from asha.run.child import NoAnswer, in_child
from asha.run.results import Failed
from asha.run.text import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from asha.data.kernel import Kernel
    from asha.data.mountinfo import Mount
    from asha.data.release.copies import Found
    from asha.data.release.holders import Holder
    from asha.ocf.agent import Agent

# How long a process may take to close its files after SIGTERM, and to be gone
# after SIGKILL, before we look again.
TERM_SECONDS = 3.0
KILL_SECONDS = 2.0

# With less than this left another round would only replace the reason by "no time".
ROUND_SECONDS = 0.5

# Seconds between two looks at what nobody seems to hold.
LOOK_AGAIN = 0.1

# Seconds for which a descriptor may lie in a queue.
QUEUE_SECONDS = 0.3

# So many users are ended one by one for what cannot be seen; then all.
ONE_BY_ONE = 3

# Seconds that what a process had may stay after its end: an io_uring is taken down by a
# worker of the kernel's, later.
SETTLE_SECONDS = 3.0

# So many looks in vain, and what holds it is where no look reaches.
UNSEEN_ROUNDS = 5

# For one search for holders. A process that hangs can make it hang, and one user can have
# millions of open descriptors: it is asha.data.release.turns that shares the time.
SEARCH_SECONDS = 5.0

# So many holders are named, in a reason and in the log; there may be thousands.
NAMED_MOST = 5


def remove(
    agent: Agent,
    kernel: Kernel,
    find: Callable[[Sequence[Mount]], Sequence[Mount]],
    *,
    force: bool,
    users: Callable[[], Collection[int]] = frozenset,
) -> None:
    """Unmount until ``find`` finds nothing of ours in the mount table.

    With ``force`` the processes that use a mount are ended, and what others have mounted on it
    is unmounted too. If no user of it is seen, the processes of ``users`` (uids) are ended: a
    descriptor in a socket's queue is in no list. If that does not help either, a stop ends the
    processes of others, except root's. Raises Failed with the holders.
    """
    ending = _Ending(agent)
    last = _Others()
    why = ""
    unseen = 0
    settled = agent.deadline.within(0)
    while True:
        mounts = mountinfo.read(kernel.mountinfo)
        tops = find(mounts)
        if not tops:
            return
        if agent.deadline.remaining() < ROUND_SECONDS:
            raise Failed(why or f"ran out of time before unmounting {tops[0].point}")
        chain = mountinfo.below(mounts, tops)
        strangers = [mount for mount in chain if mount not in tops]
        _mind_strangers(agent, strangers, force)
        devices = {mount.device for mount in tops}
        others = {mount.id for mount in strangers if mount.device not in devices}
        is_settled = settled.expired  # before the try: a search takes its time
        busy = _unmount_each(agent, kernel, chain, others)
        if not busy:
            continue
        found = _search(agent, busy)
        if found:
            why = _named(found)
        elif found is not None or not why:
            why = (
                f"{', '.join(busy)} is busy, though no process is seen to use it:"
                f" look for a swap file, a loop device or an NFS export there"
            )
        if not found:
            unseen += 1
            if unseen == UNSEEN_ROUNDS:
                kept = _kept_by_root(agent, devices, busy)
                if kept:
                    # Nobody's end would help.
                    raise Failed(f"{', '.join(busy)} is held by {kept}")
            if force and found is not None and unseen >= UNSEEN_ROUNDS and is_settled:
                found.holders = _of_users(agent, busy[0], users)
                found.holders += _unlisted(agent, busy[0], busy)
                if not found.holders and agent.action_name == "stop":
                    found.holders = last.next(agent, busy)
        if not found:
            agent.deadline.pause(LOOK_AGAIN)
            continue
        if not force:
            raise Failed(why)
        ending.of(found, why)
        settled = agent.deadline.within(min(SETTLE_SECONDS, agent.deadline.remaining() / 4))


def uncover(
    agent: Agent, kernel: Kernel, points: Collection[str], *, inside: bool = True
) -> None:
    """Unmount what users have mounted on these directories, and ``inside`` them, by file
    systems of their own: the owner of a directory may do that (fusermount3(1)), and root cannot
    look at it then."""
    covers = [one for one in mountinfo.read(kernel.mountinfo)
              if one.user and any(
                  one.point == point or (inside and is_inside(one.point, point))
                  for point in points
              )]
    for cover in covers:
        agent.warn(f"{printable(cover.source)} of uid {cover.user} is mounted on"
                   f" {printable(cover.point)}: unmounts it")

    def work() -> str:
        # Those that lie on others go with them.
        for cover in covers:
            with suppress(OSError):
                kernel.unmount(cover.point, detach=True, abort=True)
        return ""

    if covers:
        in_child(work, agent.deadline, "unmounting what users have mounted")


class _Ending:
    """SIGTERM at first, then SIGKILL. If a user has more processes than before, all of his are
    ended."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._told: set[str] = set()
        self._killed: set[tuple[int, str]] = set()
        self._number = signal.SIGTERM

    def of(self, found: Found, why: str) -> None:
        """Signal them, log it once, and wait for their end. Raises Failed with ``why`` if they
        may not be ended."""
        victims = [holder for holder in found.holders if not holder.protected]
        if not victims and not found.users:
            raise Failed(f"{why}, which may not be killed: end it or let it go elsewhere")
        users = set(found.users)
        if self._number == signal.SIGTERM and victims:
            users.clear()
        elif self._killed:
            # All that there were have been killed: these were made meanwhile, and they may
            # be quicker than we are.
            new = [one.pid for one in victims if (one.pid, one.started) not in self._killed]
            users |= {uids[0] for pid in new if (uids := holders.uids(pid))}
        if users:
            from asha.data import owners
            from asha.data.release.turns import PACEMAKERS

            # Whose daemons run the cluster; what one of them has is ended one by one.
            users -= {0, *owners.local_uids({PACEMAKERS})}
        for user in users:
            self._end_whole(user)
        for victim in victims[:NAMED_MOST]:
            self._tell(f"{victim}: sends it {self._number.name}")
        if len(victims) > NAMED_MOST:
            self._tell(f"and {len(victims) - NAMED_MOST} more: {self._number.name}")
        for victim in victims:
            victim.send(self._number)
        patience = KILL_SECONDS
        if self._number == signal.SIGTERM:
            patience = min(TERM_SECONDS, self._agent.deadline.remaining() / 4)
        else:
            self._killed |= {(one.pid, one.started) for one in victims}
        self._number = signal.SIGKILL
        left = list(victims)

        def gone() -> bool:
            while left and left[-1].is_gone:
                left.pop()
            return not left

        self._agent.deadline.within(patience).poll(gone)

    def _end_whole(self, user: int) -> None:
        self._tell(f"uid {user} has more processes or more open than can be looked at:"
                   f" ends all its processes")
        try:
            limit = self._agent.deadline.within(KILL_SECONDS)
            holders.signal_all(user, signal.SIGKILL, limit)
        except Failed:
            pass  # the user has ended it before: another search tells what that did

    def _tell(self, line: str) -> None:
        if line not in self._told and len(self._told) < 4 * NAMED_MOST:
            self._told.add(line)
            self._agent.warn(line)


def _named(found: Found) -> str:
    words = [*map(str, found.holders[:NAMED_MOST]), *found.rest[:NAMED_MOST]]
    if len(found.holders) > NAMED_MOST:
        words.append(f"and {len(found.holders) - NAMED_MOST} more")
    if found.users and not found.holders:
        words.append(f"uid {', '.join(map(str, sorted(found.users)))} has more than could be"
                     f" looked at")
    return "; ".join(words)


def _mind_strangers(agent: Agent, strangers: Sequence[Mount], force: bool) -> None:
    for mount in strangers:
        source, point = printable(mount.source), printable(mount.point)
        what = f"{source} is mounted on {point}, on top of ours"
        if not force:
            raise Failed(f"{what}: unmount it first")
        agent.warn(f"{what}: unmounts it too")


def _of_users(
    agent: Agent, point: str, users: Callable[[], Collection[int]]
) -> list[Holder]:
    """The processes that run as one of the users of the data, when none may any more."""
    from asha.data.release import copies

    def work() -> str:
        return "\n".join(one.to_line() for one in copies.of_users(users(), point))

    limit = agent.deadline.within(SEARCH_SECONDS)
    answer = in_child(work, limit, "looking for processes of the users of the data")
    found = [holders.Holder.from_line(line) for line in answer.split("\n") if line]
    return [one for one in found if not one.protected]


class _Others:
    """The last measure against what cannot be seen: all processes of one user after the other
    are ended, except root's and Pacemaker's, people's before the system's; then those of all."""

    def __init__(self) -> None:
        self._rounds = 0
        self._tried: set[int] = set()

    def next(self, agent: Agent, points: Sequence[str]) -> list[Holder]:
        """The processes to end now."""
        from asha.data.release import turns

        users = turns.by_user()[0]
        users.pop(0, None)
        self._rounds += 1
        if self._rounds <= ONE_BY_ONE:
            new = sorted(users.keys() - self._tried, reverse=True)[:1]
            self._tried.update(new)
        else:
            new = sorted(users)
        for user in new:
            agent.warn(f"{points[0]} is busy, though nobody is seen to use it:"
                       f" ends what uid {user} runs")
        pids = [pid for user in new for pid in users[user]]
        return [one for one in holders.perhaps(pids, points[0]) if not one.protected]


def _kept_by_root(agent: Agent, devices: Collection[str], points: Sequence[str]) -> str:
    """The swap files and loop devices there, with the command that ends each; "" for none."""
    from asha.data.release import loops

    def work() -> str:
        return "; ".join(loops.look(devices, points)[:NAMED_MOST])

    limit = agent.deadline.within(SEARCH_SECONDS)
    try:
        return in_child(work, limit, "looking for swap files and loop devices")
    except Failed as problem:
        agent.warn(problem.reason)
        return ""


def _unlisted(agent: Agent, point: str, points: Sequence[str] = ()) -> list[Holder]:
    """What may hold it without being in a list; of root's only where ``points`` are busy. Two
    looks, because something may be in a queue for a moment only."""
    from asha.data.release import turns, unlisted

    def among(pids: Sequence[int]) -> Iterator[str]:
        return unlisted.look(pids, points)

    seen: list[set[str]] = []
    while len(seen) < 2:
        limit = agent.deadline.within(SEARCH_SECONDS)
        try:
            look = turns.take(among, limit, "looking at sockets' queues", roots=bool(points))
        except Failed as problem:
            agent.warn(problem.reason)
            return []
        seen.append({line for _, line in look.lines})
        if not seen[0]:
            return []
        agent.deadline.pause(QUEUE_SECONDS)
    return holders.perhaps({int(line.split(" ")[0]) for line in seen[0] & seen[1]}, point)


def _unmount_each(
    agent: Agent, kernel: Kernel, chain: Sequence[Mount], strangers: Collection[int]
) -> list[str]:
    """Try each; return the points that are busy. Raises Failed for other errors.

    ``strangers`` (mount ids) are of other disks: their holders may not keep ours.
    """

    def work() -> str:
        busy = []
        for mount in chain:
            try:
                kernel.unmount(mount.point)
            except OSError as problem:
                if mount.id in strangers:
                    try:
                        kernel.unmount(mount.point, detach=True)
                    except OSError:
                        pass  # then ours is busy, and tells
                    continue
                if problem.errno in (errno.EINVAL, errno.ENOENT):
                    time.sleep(LOOK_AGAIN)  # somebody was quicker: look at the table again
                    continue
                if problem.errno != errno.EBUSY:
                    raise Failed(
                        f"cannot unmount {mount.point}: {os.strerror(problem.errno or 0)}"
                    ) from None
                busy.append(mount.point)
        return "\n".join(busy)

    answer = in_child(work, agent.deadline, "unmounting the directories of the store")
    return list(dict.fromkeys(point for point in answer.split("\n") if point))


def _search(agent: Agent, points: Sequence[str]) -> Found | None:
    """The holders of these points, also possible ones if need be; None if the search did not
    end."""
    from asha.data.release import turns
    from asha.data.release.copies import Found

    found, seen = Found(), turns.Look()
    for thorough in (False, True):

        def look(pids: Sequence[int], thorough: bool = thorough) -> Iterator[str]:
            return holders.look(points, pids, thorough)

        limit = agent.deadline.within(SEARCH_SECONDS)
        try:
            seen = turns.take(look, limit, "looking for the processes that use the data")
        except Failed as problem:
            agent.warn(problem.reason)
            if not thorough:
                return None
        found.holders = [holders.Holder.from_line(line) for _, line in seen.lines]
        found.users = seen.moving & {user for user, _ in seen.lines}
        if found:
            return found
    found.suspect(seen, points[0])
    return found


def end_copies(
    agent: Agent,
    devices: Collection[str],
    point: str,
    users: Callable[[], Collection[int]],
    *,
    force: bool,
) -> None:
    """End what still has the store's disk, in whatever mount namespace. ``point`` is the
    store's, where Pacemaker's Filesystem resource mounts and unmounts it.

    Without ``force`` only look. Raises Failed with what stays.
    """
    ending = _Ending(agent)
    why = ""
    ways = [True, False]
    for device in devices:
        while True:
            if why and agent.deadline.remaining() < ROUND_SECONDS:
                raise Failed(why)
            found = _holders(agent, device, point, users, force, ways)
            for one in found.released:
                agent.warn(f"unmounted {point} in the mount namespace of {one}")
            if not found and found.again:
                why = why or f"cannot find out who still has {point}: it changes all the time"
                continue
            if not found and force:
                found.holders = _unlisted(agent, point)
            if not found:
                # By a name in the store's own directory it keeps none of ours busy.
                kept = _kept_by_root(agent, [device], [point])
                if kept:
                    raise Failed(f"{point} is held by {kept}")
                break
            why = _named(found)
            if not force:
                raise Failed(why)
            if found.rest and not found.holders:
                raise Failed(f"{why}: end what keeps it, or restart this node")
            ending.of(found, why)


def _holders(
    agent: Agent,
    device: str,
    point: str,
    users: Callable[[], Collection[int]],
    release: bool,
    ways: list[bool],
) -> Found:
    """``ways``: with memory maps and without. One that did not end is not tried again."""
    from asha.data.release import copies

    for maps in tuple(ways):
        limit = agent.deadline.within(min(SEARCH_SECONDS, agent.deadline.remaining() / 3))
        try:
            return copies.search(device, point, users, release=release, maps=maps, limit=limit)
        except NoAnswer as problem:
            agent.warn(problem.reason)
            ways.remove(maps)
    raise Failed(f"cannot find out who still has {point}: a search does not end")
