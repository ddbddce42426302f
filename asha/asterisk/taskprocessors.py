"""Whether Asterisk is too busy, or at a limit, rather than hung.

Above its high-water mark a task processor makes PJSIP drop requests that come by UDP, silently,
until it is down at its low-water mark (res_pjsip/pjsip_distributor.c, distributor();
main/taskprocessor.c; 500 and 450 tasks by default). From outside that looks like a dead SIP
thread. From inside they differ: an overloaded queue is long and moves, a stuck one does not
move.
"""

from __future__ import annotations

from asha.asterisk.talk.connections import Silent, hold

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asha.asterisk.process.proc import Process
    from asha.asterisk.talk.control import Console
    from asha.run.deadline import Deadline

COMMAND = "core show taskprocessors"

# In the name of the CDR engine's queue: "subm:cdr_engine-00000003" in 16, "stasis/m:cdr:"
# and more in 18 and later.
CDR_ENGINE = "cdr"

# Seconds for the listing, which an overloaded Asterisk is slow to give, and between the
# two looks at what moves.
LISTING_SECONDS = 3.0
BETWEEN = 0.5

# So few files short of its limit Asterisk fails in places: a call takes several.
FILES_SPARE = 8


class Queue:
    """One task processor: how much it has done, how much waits, did wait at most and may wait."""

    __slots__ = ("high", "low", "most", "name", "processed", "waiting")

    def __init__(
        self, name: str, processed: int, waiting: int, most: int, low: int, high: int
    ) -> None:
        self.name = name
        self.processed = processed
        self.waiting = waiting
        self.most = most
        self.low = low
        self.high = high

    @property
    def may_alarm(self) -> bool:
        """Whether it is above its high mark, or on the way down from there."""
        return self.waiting >= self.high or (self.waiting > self.low and self.most >= self.high)


def overloaded(console: Console, deadline: Deadline) -> str:
    """The queue that is above its mark and moves, in words; "" if there is none."""
    before = {queue.name: queue for queue in _queues(console, deadline) if queue.may_alarm}
    if not before:
        return ""
    deadline.pause(BETWEEN)
    for queue in _queues(console, deadline):
        earlier = before.get(queue.name)
        if earlier is not None and queue.processed > earlier.processed:
            return f"{queue.name} has {queue.waiting} tasks waiting and works on them"
    return ""


def records_waiting(console: Console, deadline: Deadline) -> str:
    """The queue of the CDR engine if it holds calls up, in words; "" if it does not.

    Back ends of call records write in that queue's thread (main/cdr.c, without batch mode). So
    a database that hangs stops it, and with it each call that sets a value of its record, as
    our own call does. A queue that soon has done everything that was waiting holds nobody up.
    """
    before = {queue.name: queue for queue in _queues(console, deadline)
              if CDR_ENGINE in queue.name and queue.waiting}
    if not before:
        return ""
    deadline.pause(BETWEEN)
    for queue in _queues(console, deadline):
        earlier = before.get(queue.name)
        if earlier is not None and queue.processed - earlier.processed < earlier.waiting:
            return f"{queue.name} has {queue.waiting} tasks waiting"
    return ""


def out_of_files(process: Process) -> str:
    """That it has as many files open as it may, in words; "" if it has not.

    Then it takes no call and no connection, at its control socket and AMI neither; the calls
    that it has go on.
    """
    used, most = process.files()
    if not most or used < most - FILES_SPARE:
        return ""
    return (f"Asterisk has {used} files open and may have {most}: it takes no more calls "
            "(LimitNOFILE= in its systemd unit)")


def _queues(console: Console, deadline: Deadline) -> list[Queue]:
    try:
        return parse(hold(console.answer(deadline.within(LISTING_SECONDS), COMMAND)))
    except (OSError, Silent):
        return []


def parse(text: str) -> list[Queue]:
    """Its lines are: name, processed, in queue, max depth, low water, high water."""
    found = []
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 6 and all(word.isdecimal() for word in words[-5:]):
            found.append(Queue(" ".join(words[:-5]), *map(int, words[-5:])))
    return found
