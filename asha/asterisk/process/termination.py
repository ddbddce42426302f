"""Ends Asterisk and all that belongs to it, and checks that in the kernel.

It is asked first, then killed; what does not die is named. Nothing here trusts a pid file,
systemd or an exit code: a process is gone when /proc does not show it any more.
"""

from __future__ import annotations

from signal import SIGKILL, SIGSTOP, SIGTERM

from asha.asterisk.process.proc import BLOCKED
from asha.run.results import Failed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from asha.asterisk.process.ours import Ours
    from asha.asterisk.process.proc import Proc, Process
    from asha.asterisk.process.unit import Launcher
    from asha.run.deadline import Deadline

# Seconds between two looks: Asterisk needs 0.25 s to end in the ordinary way.
LOOK_EVERY = 0.02

# Seconds that Asterisk gets to end its own children, before they are asked too: as
# systemd does at once.
ALONE_SECONDS = 1.0

# Seconds of the action that no grace may use up: the kill and its proof need them.
KILL_SECONDS = 4.0

# Seconds after the first SIGKILL before a process counts as one that cannot be killed:
# a large one takes some tenths to give its memory back.
DEATH_SECONDS = 0.5

# Seconds, after those, that all that is left of a killed Asterisk may stand still in the
# kernel, before a fence is the sooner cure.
STANDSTILL = 0.3


class Terminator:
    """Everything that must be gone: searched anew at each look, never forgotten."""

    def __init__(
        self,
        proc: Proc,
        ours: Ours,
        known: Process | None,
        launcher: Launcher,
        deadline: Deadline,
        fenced: Callable[[], bool],
    ) -> None:
        self.proc = proc
        self.ours = ours
        # The one that was started here, be it as it may now.
        self.known = known
        self.launcher = launcher
        self.deadline = deadline
        # Whether this node is fenced when the stop fails.
        self.fenced = fenced
        self._doomed: dict[str, Process] = {}
        self._standing: set[tuple[int, str, str]] = set()
        self._patience: Deadline | None = None

    def left(self) -> list[Process]:
        """What still lives of Asterisk, its wrappers and all that they have started."""
        for process in (*self._wrappers(), *self._daemons()):
            self._doomed[process.identity] = process
        # Of those, too, that have ended: their children have not for that.
        for process in self.launcher.family(list(self._doomed.values())):
            self._doomed[process.identity] = process
        return [process for process in self._doomed.values() if not process.gone]

    def _daemons(self) -> list[Process]:
        daemons = self.ours.all()
        if self.known is not None and all(one.pid != self.known.pid for one in daemons):
            daemons.append(self.known)
        return daemons

    def _wrappers(self) -> list[Process]:
        return self.proc.wrappers(self.ours.is_kin)

    def ask(self, grace: float) -> None:
        """Let Asterisk end by itself, for at most ``grace`` seconds.

        SIGTERM is its ordinary stop: calls that are left are hung up (BYE), CDRs written, the
        AstDB saved, in half of the time of "core stop now" (measured on 16.28).
        """
        known = self.left()  # before the signal: an ending process is harder to tell
        for wrapper in self._wrappers():
            _send(wrapper, SIGKILL)  # or it starts the next one
        for daemon in self._daemons():
            _send(daemon, SIGTERM)

        def ended() -> bool:
            return all(one.gone for one in known)

        patience = self.deadline.within(min(grace, self.deadline.remaining() - KILL_SECONDS))
        if patience.within(ALONE_SECONDS).poll(ended, LOOK_EVERY):
            return
        # A call that runs a program (System, AGI) ends when the program does.
        known = self.left()
        for process in known:
            _send(process, SIGTERM)
        patience.poll(ended, LOOK_EVERY)

    def force(self, spare: float) -> None:
        """Kill what is left until nothing is.

        Raises Failed, naming the task that does not die, if only ``spare`` seconds of the
        action are left, or if a fence recovers sooner.
        """
        struck = False
        while left := self._halted():
            # Children first: the end of a session's leader wakes the halted (setpgid(2)).
            for process in reversed(left):
                _send(process, SIGKILL)
                process.thaw()
            if not struck:
                struck = True
                if self.deadline.at_least(spare + DEATH_SECONDS).within(DEATH_SECONDS).poll(
                    lambda: not self.left(), LOOK_EVERY
                ):
                    return
            if self.deadline.remaining() <= spare or self._fence_is_sooner(left):
                raise Failed(
                    f"Asterisk cannot be killed: {survivors(left)}. It may still write to "
                    "its disk, so this node must be fenced or rebooted"
                )
            self.deadline.pause(LOOK_EVERY)

    def _halted(self) -> list[Process]:
        """Everything that is left, halted, so that none can start another.

        If they were killed one by one, a parent could have a child between the look and its
        end, and nobody would know that child's parent then.
        """
        halted: set[str] = set()
        while True:
            left = self.left()
            new = [process for process in left if process.identity not in halted]
            if not new or self.deadline.expired:
                return left
            for process in new:
                _send(process, SIGSTOP)
                halted.add(process.identity)

    def _fence_is_sooner(self, left: Sequence[Process]) -> bool:
        """Whether what is left stands still in the kernel, on a node that can be fenced.

        On a node that cannot, nothing else recovers it: the disk gets all the time to come
        back.
        """
        tasks = [task for process in left for task in process.living_tasks()]
        standing = {(task.tid, task.state, task.switches) for task in tasks}
        if standing != self._standing or any(task.state != BLOCKED for task in tasks):
            self._standing = standing
            self._patience = self.deadline.within(STANDSTILL)
        if self._patience is None or not self._patience.expired:
            return False
        self._patience = None  # asked once, not at each look
        return self.fenced()


def survivors(processes: Sequence[Process]) -> str:
    """The tasks that live on, those in the kernel first, with where they wait."""
    tasks = [task for process in processes for task in process.living_tasks()]
    tasks.sort(key=lambda task: task.state != BLOCKED)
    words = [f"{task} in state {task.state} waits in {task.where}" for task in tasks[:3]]
    return ", ".join(words) or ", ".join(str(process) for process in processes)


def _send(process: Process, signal: int) -> None:
    try:
        process.send(signal)
    except PermissionError:
        raise Failed(f"may not signal {process}: the agent must run as root") from None
