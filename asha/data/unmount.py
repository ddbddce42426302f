"""Taking our mounts away, whoever uses them, or saying who prevents it."""

from __future__ import annotations

import errno
import os
import signal
import time

from asha.data import holders, mountinfo
from asha.ocf.child import NoAnswer, in_child
from asha.ocf.results import Failed
from asha.ocf.text import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from asha.data.copies import Found
    from asha.data.holders import Holder
    from asha.data.kernel import Kernel
    from asha.data.mountinfo import Mount
    from asha.ocf.agent import Agent

# How long a process may take to close its files after SIGTERM, and to be gone
# after SIGKILL, before we look again.
TERM_SECONDS = 3.0
KILL_SECONDS = 2.0

# With less than this left another round would only replace the reason by "no time".
ROUND_SECONDS = 0.5

# Seconds between two looks at what nobody seems to hold.
LOOK_AGAIN = 0.1

# So many looks in vain, and what holds it is where no look reaches.
UNSEEN_ROUNDS = 5

# A search for holders that takes longer hangs on a process that hangs itself.
SEARCH_SECONDS = 5.0


def remove(
    agent: Agent,
    kernel: Kernel,
    find: Callable[[Sequence[Mount]], Sequence[Mount]],
    *,
    force: bool,
    users: Callable[[], Collection[int]] = frozenset,
) -> None:
    """Unmount until ``find`` finds nothing of ours in the mount table.

    With ``force`` the processes that use a mount are ended, and what others have
    mounted on it is unmounted too. Where none is seen to use it, those of ``users``
    (uids) are ended: a descriptor that lies in a socket's queue is in no list. Raises
    Failed with who holds what.
    """
    number = signal.SIGTERM
    why = ""
    told: set[str] = set()
    unseen = 0
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
        busy = _unmount_each(agent, kernel, chain, others)
        if not busy:
            continue
        found = _search(agent, busy)
        if found:
            why = "; ".join(str(holder) for holder in found)
        elif found is not None or not why:
            why = (
                f"{', '.join(busy)} is busy, though no process is seen to use it:"
                f" look for a swap file, a loop device or an NFS export there"
            )
        if not found:
            unseen += 1
            if force and found is not None and unseen >= UNSEEN_ROUNDS:
                found = _of_users(agent, kernel, busy[0], users)
        if not found:
            agent.deadline.pause(LOOK_AGAIN)
            continue
        if not force:
            raise Failed(why)
        victims = [holder for holder in found if not holder.protected]
        if not victims:
            raise Failed(f"{why}, which may not be killed: end it or let it go elsewhere")
        _end(agent, victims, number, told)
        number = signal.SIGKILL


def _end(agent: Agent, victims: Sequence[Holder], number: signal.Signals, told: set[str]) -> None:
    """Signal them, say so once, and wait a while for their end."""
    for victim in victims:
        line = f"{victim}: sends it {number.name}"
        if line not in told:
            agent.warn(line)
        told.add(line)
        victim.send(number)
    patience = KILL_SECONDS
    if number == signal.SIGTERM:
        patience = min(TERM_SECONDS, agent.deadline.remaining() / 4)
    agent.deadline.within(patience).poll(lambda: all(victim.is_gone for victim in victims))


def _mind_strangers(agent: Agent, strangers: Sequence[Mount], force: bool) -> None:
    for mount in strangers:
        source, point = printable(mount.source), printable(mount.point)
        what = f"{source} is mounted on {point}, on top of ours"
        if not force:
            raise Failed(f"{what}: unmount it first")
        agent.warn(f"{what}: unmounts it too")


def _of_users(
    agent: Agent, kernel: Kernel, point: str, users: Callable[[], Collection[int]]
) -> list[Holder]:
    """Who runs as one of the users of the data, when none may any more."""

    def work() -> str:
        return "\n".join(one.to_line() for one in kernel.processes_of(users(), point))

    limit = agent.deadline.within(SEARCH_SECONDS)
    answer = in_child(work, limit, "looking for processes of the users of the data")
    found = [holders.Holder.from_line(line) for line in answer.split("\n") if line]
    return [one for one in found if not one.protected]


def _unmount_each(
    agent: Agent, kernel: Kernel, chain: Sequence[Mount], strangers: Collection[int]
) -> list[str]:
    """Try each; return the points that are busy. Raises Failed for other trouble.

    ``strangers`` (mount ids) are of other disks: who keeps them may not keep ours.
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


def _search(agent: Agent, points: Sequence[str]) -> list[Holder] | None:
    """Who holds these points; None when the search itself hangs."""
    for thorough in (False, True):

        def work(thorough: bool = thorough) -> str:
            return "\n".join(one.to_line() for one in holders.find(points, thorough))

        limit = agent.deadline.within(SEARCH_SECONDS)
        try:
            answer = in_child(work, limit, "looking for the processes that use the data")
        except Failed as problem:
            agent.warn(problem.reason)
            return None
        if answer:
            return [holders.Holder.from_line(line) for line in answer.split("\n")]
    return []


def end_copies(
    agent: Agent,
    kernel: Kernel,
    devices: Collection[str],
    point: str,
    users: Callable[[], Collection[int]],
    *,
    force: bool,
) -> None:
    """End what still has the store's disk, in whatever mount namespace. ``point`` is the
    store's, where Pacemaker's Filesystem resource has it mounted and takes it away.

    Without ``force`` only look. Raises Failed with who stays.
    """
    number = signal.SIGTERM
    told: set[str] = set()
    why = ""
    ways = [True, False]
    for device in devices:
        while True:
            if why and agent.deadline.remaining() < ROUND_SECONDS:
                raise Failed(why)
            found = _holders(agent, kernel, device, point, users, force, ways)
            for one in found.released:
                agent.warn(f"unmounted {point} in the mount namespace of {one}")
            if not found.holders and not found.rest:
                break
            why = "; ".join([*map(str, found.holders), *found.rest])
            if not force:
                raise Failed(why)
            victims = [holder for holder in found.holders if not holder.protected]
            if not victims and found.holders:
                raise Failed(f"{why}, which may not be killed: end it or let it go elsewhere")
            if not victims:
                raise Failed(f"{why}: end what keeps it, or restart this node")
            _end(agent, victims, number, told)
            number = signal.SIGKILL


def _holders(
    agent: Agent,
    kernel: Kernel,
    device: str,
    point: str,
    users: Callable[[], Collection[int]],
    release: bool,
    ways: list[bool],
) -> Found:
    """``ways``: with memory maps and without. One that did not end is not tried again."""
    from asha.data.copies import Found

    for maps in tuple(ways):

        def work(maps: bool = maps) -> str:
            return kernel.holders(device, point, users(), release=release, maps=maps).to_text()

        limit = agent.deadline.within(min(SEARCH_SECONDS, agent.deadline.remaining() / 3))
        try:
            return Found.from_text(in_child(work, limit, "looking for who still has the store"))
        except NoAnswer as problem:
            agent.warn(problem.reason)
            ways.remove(maps)
    raise Failed(f"cannot find out who still has {point}: a search does not end")
