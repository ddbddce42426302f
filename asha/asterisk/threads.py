"""What Asterisk's threads do, as the kernel sees it: halted, stuck, or never at rest.

Imported only when one of them looks odd, and at depth 20.
"""

from __future__ import annotations

from asha.asterisk.talk.connections import Silent, hold
from asha.run.text import number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asha.asterisk.process.proc import Process, Task
    from asha.asterisk.talk.control import Console
    from asha.run.deadline import Deadline

# A thread runs away that has not rested for this share of the time between two looks,
# and had the processor for this one: on a busy machine it waits for it, as all else does.
NEVER_RESTS = 0.9
RAN = 0.25

# Seconds between two looks below which nothing is said: a long piece of work is none.
LOOKS_APART = 20.0

# Asterisk gives itself that priority (-p, highpriority in asterisk.conf). sched(7).
HOLDS_UP = (
    " at real-time priority, which holds up all else on this node, SIP too: "
    "chrt --other --pid 0 {tid} takes that from it"
)

# Not more of them are named.
NAMED_MOST = 3

# Seconds for the console's list of threads.
LISTING_SECONDS = 1.0


class States:
    """Each thread's state, at each monitor; for the manual's table."""

    name = "threads"
    word = ""
    depth = 0
    asked = "/proc, each one's state; its cgroup when a part is silent"
    exercises = "the kernel lets each thread run"
    means = "stopped, frozen: failed; held by a debugger or a disk: degraded"
    costs = "nothing"


class Runaway:
    """A thread that has kept a processor to itself since the last look."""

    name = "runaway"
    word = ""
    depth = 20
    asked = "/proc, each thread's processor time since the look before"
    exercises = "each thread rests now and then"
    means = "one that loops: degraded; at real-time priority it holds up the node"
    costs = "nothing"

    def __init__(self, process: Process, now: float) -> None:
        self.process = process
        self.now = now
        self.times = process.cpu_times()

    def remember(self) -> str:
        """What the next look must know."""
        lines = [self.process.identity, str(self.now)]
        lines += [f"{tid} {ran} {waited}" for tid, (ran, waited) in self.times.items()]
        return "\n".join(lines)

    def since(self, remembered: str) -> list[tuple[Task, str]]:
        """The threads that did not rest since then, and the words for that."""
        lines = [line.split() for line in remembered.splitlines()]
        if len(lines) < 2 or lines[0] != self.process.identity.split() or not lines[1]:
            return []
        passed = self.now - float(lines[1][0])
        if passed < LOOKS_APART:
            return []
        restless = {}
        for line in lines[2:]:
            if len(line) != 3 or int(line[0]) not in self.times:
                continue  # it has begun or ended meanwhile
            tid, ran, waited = map(int, line)
            used = (self.times[tid][0] - ran) / passed / 1e9
            wanted = used + (self.times[tid][1] - waited) / passed / 1e9
            if wanted > NEVER_RESTS and used > RAN:
                restless[tid] = f"has not rested for {passed:.0f} s and used {used:.0%} of a core"
        if not restless:
            return []
        tasks = {task.tid: task for task in self.process.tasks()}
        return [
            (tasks[tid], said + (HOLDS_UP.format(tid=tid) if tasks[tid].is_realtime else ""))
            for tid, said in restless.items()
            if tid in tasks
        ]


def runaways(
    look: Runaway, remembered: str, console: Console, deadline: Deadline
) -> list[str]:
    """In words, with Asterisk's name for the thread's work if its console answers."""
    found = look.since(remembered)
    if not found:
        return []
    work = _work(console, deadline)
    return [
        f"{task} {said}{': ' + work[task.tid] if task.tid in work else ''}"
        for task, said in found[:NAMED_MOST]
    ]


def _work(console: Console, deadline: Deadline) -> dict[int, str]:
    """For each thread, the function with which it began, and where that is.

    Asterisk's lines (main/asterisk.c, handle_show_threads()): an address, the thread's number,
    the function, "started at [ line]", the file and the function that began it.
    """
    try:
        said = hold(console.answer(deadline.within(LISTING_SECONDS), "core show threads"))
    except (OSError, Silent):
        return {}
    work = {}
    for line in said.splitlines():
        words = line.split(None, 3)
        tid = number(words[1]) if len(words) == 4 else None
        if tid is not None and words[3].startswith("started at"):
            work[tid] = f"{words[2]}, {words[3]}"
    return work


def stuck(process: Process, before: dict[int, str], seconds: float) -> list[str]:
    """Which of these threads (thread id -> Task.switches) are still in the kernel and have not
    run since; in words."""
    from asha.asterisk.process.proc import BLOCKED

    now = [task for task in process.tasks_in(BLOCKED) if before.get(task.tid) == task.switches]
    return [
        f"{task} has waited {seconds:.0f} s in the kernel ({task.where}): look at the disks"
        for task in now[:NAMED_MOST]
    ]
