"""A look at every process, one user after the other, each with a share of the time.

Without shares one user could keep the look from ending, and so a store from moving to the other
node: millions of descriptors cost him nothing (dup(2)), and reading the memory map of a process
takes as long as that process wants (its mmap lock).
"""

from __future__ import annotations

import signal
from contextlib import suppress

from asha.data import owners
from asha.data.release import holders
from asha.run.child import IfKilled, NoAnswer, in_child, send, stat_of
from asha.run.deadline import Deadline
from asha.run.results import Failed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

# From here on a uid may be one of the many that a user has for his user namespaces
# (subuid(5)), or an account from elsewhere: they take one turn together. Debian's own and
# its administrators' are below (Debian Policy 9.2.2).
MANY = 65536

# Of a user who makes so many processes within so many seconds they are held still.
MADE_MOST = 5
WATCH_SECONDS = 0.05

# Seconds for letting them go on.
RESUME_SECONDS = 2.0

# Seconds within which a parent has noticed that its child was halted.
NOTICE_SECONDS = 0.3

# New processes while they are listed, from which on that is looked into.
MADE_MANY = 20

# Whose daemons run the cluster. Nobody else is that user.
PACEMAKERS = "hacluster"

# Of the time that is left: what root's processes may take.
ROOTS_SHARE = 0.5

# Of a turn: what is left of it for bringing the answer home.
WORK_SHARE = 0.8


class Look:
    """What was seen: (user, line). ``unseen`` are the pids of whom not all was, ``users``
    (uids) whose those are. ``moving`` are those who had to be held still: the pid that was
    seen to have something may be gone, and what it had another's."""

    def __init__(self) -> None:
        self.lines: list[tuple[int, str]] = []
        self.unseen: list[int] = []
        self.users: set[int] = set()
        self.moving: set[int] = set()


def take(look: Callable[[Sequence[int]], Iterator[str]], limit: Deadline, doing: str, *,
         roots: bool = True) -> Look:
    """Have ``look`` go through the pids of each user, in a child.

    It yields a line for each find and "" for each step. Without ``roots`` root's processes are
    left out. Raises Failed if root's alone take too long, NoAnswer if one of them makes the
    look hang.
    """
    begun = _newest()
    users, missed = by_user()
    seen = Look()
    share = limit.within(limit.remaining() * ROOTS_SHARE)
    of_root = users.pop(0, [])
    if roots and not _turn(look, 0, of_root, seen, share, doing):
        raise NoAnswer(f"{doing} takes too long", 0, False)
    moving = restless(limit) if missed or _newest() - begun > MADE_MANY else set()
    # Who has little comes first: what he leaves of his share is for the others.
    queue = sorted(users.items(), key=lambda one: len(one[1]))
    for number, (user, pids) in enumerate(queue):
        share = limit.within(limit.remaining() / (len(queue) - number + bool(moving)))
        try:
            whole = _turn(look, user, pids, seen, share, doing)
        except NoAnswer:
            whole = False
        if not whole:
            seen.unseen += pids
            seen.users |= {user} if user < MANY else set()
            seen.users |= {uids[0] for pid in pids if (uids := holders.uids(pid))}
        elif user < MANY and not all(holders.uids(pid) for pid in pids):
            moving.add(user)
    for number, user in enumerate(sorted(moving - seen.users - {0})):
        share = limit.within(limit.remaining() / (len(moving) - number))
        (seen.moving if _still(look, user, seen, share, doing) else seen.users).add(user)
    return seen


def _still(look: Callable[[Sequence[int]], Iterator[str]], user: int, seen: Look,
           share: Deadline, doing: str) -> bool:
    """Look at a user's processes while none of them can start another, or end.

    A process that ends while we look may have left what it had to one that is in no list.
    """
    halted = _halted()

    def go_on() -> None:
        pids = _pids_of(user)
        with suppress(Failed):
            holders.signal_all(user, signal.SIGCONT, Deadline(RESUME_SECONDS))
        _wake_parents(pids, halted)

    try:
        with IfKilled(go_on, share, doing):
            try:
                holders.signal_all(user, signal.SIGSTOP, share)
                return _turn(look, user, _pids_of(user), seen, share, doing)
            finally:
                go_on()
    except Failed:
        return False


def _pids_of(user: int) -> list[int]:
    return [pid for pid in holders.pids() if holders.uids(pid)[:1] == [user]]


def _wake_parents(pids: Sequence[int], halted: Collection[int]) -> None:
    """su(1), runuser(1) and the like halt as soon as they notice that their child has."""
    abouts = {pid: about for pid in pids if (about := stat_of(pid)) is not None}
    parents = {int(about[1]) for about in abouts.values()} - {0, 1, *pids, *halted}
    if parents:
        def wake() -> bool:
            for pid in parents:
                about = stat_of(pid)
                if about is not None and about[0] == "T":
                    with suppress(PermissionError):
                        send(pid, about[19], signal.SIGCONT)
            return False

        Deadline(NOTICE_SECONDS).poll(wake)


def _halted() -> set[int]:
    return {pid for pid in holders.pids() if (about := stat_of(pid)) is not None
            and about[0] == "T"}


def _turn(look: Callable[[Sequence[int]], Iterator[str]], user: int, pids: Sequence[int],
          seen: Look, share: Deadline, doing: str) -> bool:
    """Whether everything was seen. Raises Failed, NoAnswer."""
    mine = share.within(share.remaining() * WORK_SHARE)

    def work() -> str:
        lines = [""]
        for line in look(pids):
            if line:
                lines.append(line)
            if mine.expired:
                lines[0] = "not all"
                break
        return "\n".join(lines)

    missing, *lines = in_child(work, share, doing).split("\n")
    seen.lines += [(user, line) for line in lines]
    return not missing


def by_user() -> tuple[dict[int, list[int]], bool]:
    """The pids of each user, by the real uid: a program with its owner's rights counts for
    who has started it. Pacemaker's own are with root's. And whether one was gone before it
    was known whose it was."""
    pacemakers = owners.local_uids({PACEMAKERS})
    found: dict[int, list[int]] = {}
    missed = False
    # The newest first: it may not be there for long.
    for pid in sorted(holders.pids(), reverse=True):
        uids = holders.uids(pid)
        if uids:
            user = 0 if uids[0] in pacemakers else min(uids[0], MANY)
            found.setdefault(user, []).append(pid)
        elif not missed:
            missed = not holders.status(pid)
    return found, missed


def restless(limit: Deadline) -> set[int]:
    """The users (uids) who make process after process: each may have ended before it is looked
    at, and have left what it has to the next."""
    made: dict[int, set[int]] = {}
    time = limit.within(WATCH_SECONDS)
    while not time.expired:
        pid = _newest()
        about = holders.status(pid)
        if about:
            made.setdefault(int(about["Uid"].split()[0]), set()).add(pid)
    others = {0, *owners.local_uids({PACEMAKERS})}
    return {user for user, pids in made.items() if len(pids) >= MADE_MOST} - others


def _newest() -> int:
    """The last number that was given to a process or thread: proc_loadavg(5)."""
    # by name: /proc is the kernel's
    with open("/proc/loadavg", encoding="ascii") as file:
        return int(file.read().split()[-1])
