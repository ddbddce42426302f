"""What silences Asterisk without a hang: the known causes.

Each is a class: which silence it covers, and how it is recognised. They are tried in the order
of the tables at the end; a new one needs a class here and a line there. Imported only when
something is wrong.
"""

from __future__ import annotations

from asha.agents.asterisk_base import SERVING
from asha.asterisk.probes import (
    HUNG,
    REFUSED,
    CallSetup,
    ControlSocket,
    Database,
    ManagerInterface,
    SipOptions,
    ask,
)
from asha.asterisk.process.proc import BLOCKED, STOPPED, TRACED
from asha.asterisk.talk.control import Console
from asha.asterisk.taskprocessors import out_of_files, overloaded, records_waiting
from asha.ocf import Degraded, Failed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import NoReturn

    from asha.agents.asterisk_base import AsteriskAgent
    from asha.asterisk.probes import Probe, Verdict
    from asha.asterisk.process.proc import Process
    from asha.ocf.attributes import Remark

# Seconds that all threads must stand still after a SIGSTOP before it counts: a debugger
# that comes or goes stops them for some milliseconds too.
STOPPED_CONFIRM = 0.3
LOOK_EVERY = 0.02

IS_STOPPED = "is stopped by a signal (SIGSTOP or SIGTSTP)"


class Case:
    """One Asterisk that does not work: what it answered, and what follows from that.

    ``condemn`` declares it hung; ``sip_probes`` gives the probes of its SIP sockets.
    """

    def __init__(
        self,
        agent: AsteriskAgent,
        process: Process,
        condemn: Callable[[str], NoReturn],
        sip_probes: Callable[[], Sequence[Probe]],
        verdicts: Sequence[Verdict] = (),
    ) -> None:
        self.agent = agent
        self.process = process
        self.condemn = condemn
        self.sip_probes = sip_probes
        self.verdicts = list(verdicts)
        self.deadline = agent.deadline
        self.console = Console(agent.run_directory, process)
        self.remarks: list[Remark] = []
        self.is_explained = False
        # That it has no file left to open, in words: a cause, or a part of the reason.
        self.out_of_files = out_of_files(process) if verdicts else ""
        if self.out_of_files:
            self._remark(self.bad, self.out_of_files)

    @property
    def bad(self) -> list[Verdict]:
        """One for each part: several questions may have met the same silent manager."""
        return list({one.probe: one for one in self.verdicts if not one.healthy}.values())

    @property
    def silent(self) -> list[Probe]:
        return [one.probe for one in self.bad if one.finding == HUNG]

    @property
    def grave(self) -> list[Verdict]:
        """What takes the telephones' service away: a part hangs, or a vital one is gone."""
        return [
            one for one in self.bad
            if one.finding == HUNG or (one.finding == REFUSED and one.probe.vital)
        ]

    def look_for(self, causes: Sequence[Explanation]) -> None:
        """Explain the silence, and use what was answered meanwhile."""
        before = [one for one in self.bad if one.finding == HUNG]
        found = explained_by(causes, self.silent, self)
        self.is_explained = bool(found.reason)
        if found.reason:
            self._remark(before, found.reason)
        asked = {one.probe for one in found.verdicts}
        self.verdicts = [
            one for one in self.verdicts
            if one.probe not in asked and not (self.is_explained and one.finding == HUNG)
        ]
        self.verdicts += found.verdicts

    def _remark(self, verdicts: Sequence[Verdict], reason: str) -> None:
        """At the depth from which on it is seen; nothing is said twice."""
        if reason not in [said for _, said in self.remarks]:
            self.remarks.append((min(one.probe.depth for one in verdicts), reason))

    def at_its_limit(self, reason: str) -> Explained:
        """It has too much to do: no hang, unless the parameter says so."""
        if self.agent.when_overloaded == "failed":
            self.condemn(reason)
        return Explained(reason)


class Explained:
    """``reason``: what silences it, "" for a hang; ``verdicts``: what probes that were asked
    again have answered by then."""

    __slots__ = ("reason", "verdicts")

    def __init__(self, reason: str = "", verdicts: Sequence[Verdict] = ()) -> None:
        self.reason = reason
        self.verdicts = verdicts


class Explanation:
    """Base of all causes."""

    def covers(self, silent: Sequence[Probe]) -> bool:
        """Whether it can silence all of these."""
        return True

    def explain(self, silent: Sequence[Probe], case: Case) -> Explained | None:
        """None if it is not the cause. Raises it as what it is, if it is more than silence."""
        raise NotImplementedError


def explained_by(
    causes: Sequence[Explanation], silent: Sequence[Probe], case: Case
) -> Explained:
    """The first cause that applies; if none does it is a hang."""
    for cause in causes:
        if cause.covers(silent):
            found = cause.explain(silent, case)
            if found is not None:
                return found
    return Explained()


# What the kernel shows of the process


class Death(Explanation):
    def explain(self, silent: Sequence[Probe], case: Case) -> None:
        if case.process.gone:
            if case.agent.is_pacemakers:
                case.agent.forget(SERVING)
            raise Failed(f"{case.process} has died while it was looked at")


class Restart(Explanation):
    """Somebody else restarts it: no hang, and no evidence of one. The monitor waits."""

    def explain(self, silent: Sequence[Probe], case: Case) -> None:
        agent = case.agent
        if agent.action_name == "monitor" and agent.launcher().is_being_started():
            raise Failed(f"{case.process} is restarted, and not by the cluster")


class CoreDump(Explanation):
    def explain(self, silent: Sequence[Probe], case: Case) -> None:
        if case.process.is_dumping_core:
            raise Failed(f"{case.process} has crashed and is writing its core dump")


class Debugger(Explanation):
    def explain(self, silent: Sequence[Probe], case: Case) -> None:
        for task in case.process.tasks_in(TRACED):
            tracer = case.agent.proc.process(task.tracer)
            raise Degraded(
                f"a debugger, {tracer or 'unknown'}, has halted {task} of Asterisk, "
                "which is not judged until that is over"
            )


class StoppedBySignal(Explanation):
    def explain(self, silent: Sequence[Probe], case: Case) -> None:
        confirm = case.deadline.within(STOPPED_CONFIRM)
        if not confirm.poll(lambda: not case.process.tasks_in(STOPPED), every=LOOK_EVERY):
            case.condemn(f"{case.process} {IS_STOPPED}")


class FrozenByCgroup(Explanation):
    def explain(self, silent: Sequence[Probe], case: Case) -> None:
        frozen_by = case.process.frozen_by()
        if frozen_by:
            case.condemn(f"{case.process} is frozen by its cgroup: {frozen_by}")


# What silences some parts of one that runs


class FilesUsedUp(Explanation):
    """It takes no new call, and its present calls go on."""

    def covers(self, silent: Sequence[Probe]) -> bool:
        # A session that was let in has its file: its silence is another matter.
        return all(
            isinstance(one, ControlSocket | ManagerInterface)
            or (isinstance(one, SipOptions) and one.endpoint.protocol == "tcp")
            for one in silent
        )

    def explain(self, silent: Sequence[Probe], case: Case) -> Explained | None:
        if not case.out_of_files or not self._sip_answers(case):
            return None
        return case.at_its_limit(case.out_of_files)

    @staticmethod
    def _sip_answers(case: Case) -> bool:
        """Whether SIP answers anywhere; if no SIP is watched, nobody misses it."""
        agent = case.agent
        told = [one for one in case.verdicts if isinstance(one.probe, SipOptions)]
        if not told and agent.sip_port != [] and SipOptions.word in agent.probes.split():
            told = ask(case.sip_probes(), case.deadline, agent.probe_timeout)
        return not told or any(one.healthy for one in told)


class Reload(Explanation):
    """It may hold each lock for as long as it reads files or asks the DNS."""

    def explain(self, silent: Sequence[Probe], case: Case) -> Explained | None:
        agent = case.agent
        if not agent.launcher().is_reloading():
            return None
        refused = [one.probe for one in case.grave if one.finding == REFUSED]
        patience = case.deadline.within(agent.reload_patience)
        while not patience.expired:
            again = ask([*silent, *refused], patience, agent.probe_timeout)
            if not any(verdict.finding == HUNG for verdict in again):
                reason = "a reload of the configuration has held Asterisk up for seconds"
                return Explained(reason, again)
        return Explained()


class StalledDisk(Explanation):
    """AstDB is silent, and a thread is in the kernel: its disk is slow, or stalls.

    Only another node recovers a disk that stalls. Without one a restart would end the calls and
    then wait for the same disk; and DRBD holds each write for two seconds when its peer has
    lost power.
    """

    def covers(self, silent: Sequence[Probe]) -> bool:
        # It holds up what waits for a record or a registration, too.
        return any(isinstance(one, Database) for one in silent) and all(
            isinstance(one, Database | CallSetup | SipOptions) for one in silent
        )

    def explain(self, silent: Sequence[Probe], case: Case) -> Explained | None:
        blocked = {task.tid: task.switches for task in case.process.tasks_in(BLOCKED)}
        if not blocked:
            return None
        patience = case.agent.disk_patience
        again = ask(silent, case.deadline.within(patience), patience)
        hung = [verdict.probe for verdict in again if verdict.finding == HUNG]
        if not hung:
            return Explained("the disk has held AstDB up for seconds", again)
        others = [probe for probe in hung if not isinstance(probe, Database)]
        if len(others) == len(hung):
            # The disk is back, and what it has held up may be too much at once.
            excuse = explained_by(BACKLOG, hung, case).reason
            return Explained(
                excuse, [one for one in again if not (excuse and one.finding == HUNG)]
            )
        if others:
            from asha.asterisk.threads import stuck

            # SIP and calls may hang for another reason while a thread writes: not for one
            # that has not moved at all.
            if not stuck(case.process, blocked, patience):
                return Explained("", again)
        if case.agent.peer_available():
            return Explained("", again)
        names = ", ".join(dict.fromkeys(one.name for one in others))
        also = f" ({names} too)" if names else ""
        return Explained(f"AstDB{also} waits for its disk, and no other node is there to take over")


class CallRecords(Explanation):
    """The database of call records holds calls up: MariaDB is no reason to end them."""

    def covers(self, silent: Sequence[Probe]) -> bool:
        return all(isinstance(one, CallSetup) for one in silent)

    def explain(self, silent: Sequence[Probe], case: Case) -> Explained | None:
        waiting = records_waiting(case.console, case.deadline)
        if not waiting:
            return None
        return Explained(f"a call is held up by its record ({waiting}): see their database")


class Overload(Explanation):
    """A queue is beyond its mark, and moves."""

    def covers(self, silent: Sequence[Probe]) -> bool:
        return all(isinstance(one, CallSetup | SipOptions) for one in silent)

    def explain(self, silent: Sequence[Probe], case: Case) -> Explained | None:
        busy = overloaded(case.console, case.deadline)
        if not busy:
            return None
        drops = any(isinstance(one, SipOptions) for one in silent)
        what = " and drops SIP requests" if drops else ""
        return case.at_its_limit(f"Asterisk is overloaded{what}: {busy}")


# Before anything is believed that was heard, or not heard.
OF_THE_PROCESS = (Death(), Restart(), CoreDump(), Debugger(), StoppedBySignal(), FrozenByCgroup())

# What is left when a disk is back.
BACKLOG = (CallRecords(), Overload())

# Before a silence is a hang. A reload and a stalled disk have the last word where they
# are seen: who is silent beyond their patience hangs.
OF_SILENCE = (FilesUsedUp(), Reload(), StalledDisk(), *BACKLOG)
