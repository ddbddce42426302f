"""Taking our mounts away, whoever uses them, or saying who prevents it."""

from __future__ import annotations

import errno
import os
import signal
import time

from asha.data import holders, mountinfo
from asha.ocf.child import in_child
from asha.ocf.results import Failed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from asha.data.holders import Holder
    from asha.data.kernel import Kernel
    from asha.data.mountinfo import Mount
    from asha.ocf.agent import Agent
    from asha.ocf.deadline import Deadline

# How long a process may take to close its files after SIGTERM, and to be gone
# after SIGKILL, before we look again.
TERM_SECONDS = 3.0
KILL_SECONDS = 2.0

# With less than this left another round would only replace the reason by "no time".
ROUND_SECONDS = 0.5

# Seconds between two looks at what nobody seems to hold.
LOOK_AGAIN = 0.1

# A search for holders that takes longer hangs on a process that hangs itself.
SEARCH_SECONDS = 5.0


def remove(
    agent: Agent,
    kernel: Kernel,
    find: Callable[[Sequence[Mount]], Sequence[Mount]],
    *,
    force: bool,
) -> None:
    """Unmount until ``find`` finds nothing of ours in the mount table.

    With ``force`` the processes that use a mount are ended, and what others have
    mounted on it is unmounted too. Raises Failed with who holds what.
    """
    number = signal.SIGTERM
    why = ""
    told: set[str] = set()
    while True:
        mounts = mountinfo.read(kernel.mountinfo)
        tops = find(mounts)
        if not tops:
            return
        if agent.deadline.remaining() < ROUND_SECONDS:
            raise Failed(why or f"ran out of time before unmounting {tops[0].point}")
        chain = mountinfo.below(mounts, tops)
        _mind_strangers(agent, [mount for mount in chain if mount not in tops], force)
        busy = _unmount_each(agent, kernel, chain)
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
            agent.deadline.pause(LOOK_AGAIN)
            continue
        if not force:
            raise Failed(why)
        victims = [holder for holder in found if not holder.protected]
        if not victims:
            raise Failed(f"{why}, which may not be killed: end it or let it go elsewhere")
        for victim in victims:
            line = f"{victim}: sends it {number.name}"
            if line not in told:
                agent.warn(line)
            told.add(line)
            victim.send(number)
        patience = KILL_SECONDS
        if number == signal.SIGTERM:
            patience = min(TERM_SECONDS, agent.deadline.remaining() / 4)
        _wait_for_end(victims, agent.deadline.within(patience))
        number = signal.SIGKILL


def _wait_for_end(victims: Sequence[Holder], deadline: Deadline) -> None:
    deadline.poll(lambda: all(victim.is_gone for victim in victims))


def _mind_strangers(agent: Agent, strangers: Sequence[Mount], force: bool) -> None:
    for mount in strangers:
        what = f"{mount.source} is mounted on {mount.point}, on top of ours"
        if not force:
            raise Failed(f"{what}: unmount it first")
        agent.warn(f"{what}: unmounts it too")


def _unmount_each(agent: Agent, kernel: Kernel, chain: Sequence[Mount]) -> list[str]:
    """Try each; return the points that are busy. Raises Failed for other trouble."""

    def work() -> str:
        busy = []
        for mount in chain:
            try:
                kernel.unmount(mount.point)
            except OSError as problem:
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


def warn_of_copies(agent: Agent, removed: Sequence[Mount]) -> None:
    """Say who still has in a namespace of its own what is unmounted in ours.

    No failure: the binds are gone from the node. But DRBD will not be demoted.
    """
    limit = agent.deadline.within(SEARCH_SECONDS)
    try:
        answer = in_child(
            lambda: "\n".join(holders.other_namespaces(removed)),
            limit,
            "looking into other mount namespaces",
        )
    except Failed as problem:
        agent.warn(problem.reason)
        return
    for name in filter(None, answer.split("\n")):
        agent.warn(f"{name} still has the store in its own mount namespace: end it")
