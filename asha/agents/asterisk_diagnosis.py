"""What asterisk-health makes of an Asterisk that runs: is it well, and if not, what is it?

The rule: what takes the phones' service away is a failure, after it was seen twice within
the action; what does not (a debugger at work, a lost control path, a slow disk) is a
remark, because a restart ends every call. A hang is condemned in one place, after every
other cause that is known of was looked for.
"""

from __future__ import annotations

from asha.agents.asterisk_base import SERVING
from asha.agents.asterisk_sip import SipSockets
from asha.asterisk.probes import (
    CONSOLE_QUESTIONS,
    FAULTY,
    HUNG,
    QUESTIONS,
    REFUSED,
    CallSetup,
    ControlSocket,
    Database,
    ManagerInterface,
    SipOptions,
    ask,
)
from asha.asterisk.process.proc import BLOCKED, STOPPED, TRACED
from asha.asterisk.talk.ami import Credentials
from asha.ocf import AgentError, BadHere, Degraded, Failed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asha.agents.asterisk_base import AsteriskAgent
    from asha.asterisk.probes import Probe, Verdict
    from asha.asterisk.process.proc import Process, Task

    # From which depth on it is looked at, and what somebody should know of it.
    Remark = tuple[int, str]

# Seconds that a thread must stand still before it counts, and all of them after a
# SIGSTOP: a debugger that comes or goes stops them for some milliseconds too.
CONFIRM = 1.0
STOPPED_CONFIRM = 0.3
LOOK_EVERY = 0.02

IS_STOPPED = "is stopped by a signal (SIGSTOP or SIGTSTP)"


class Diagnosis:
    """Looks at one Asterisk, within one action of the agent."""

    def __init__(self, agent: AsteriskAgent, process: Process) -> None:
        self.agent = agent
        self.process = process
        self.deadline = agent.deadline
        self.sip = SipSockets(agent, process)
        self.control_socket = ControlSocket(agent.run_directory, process)

    def watch(self) -> list[Remark]:
        """What somebody should look at. Raises Failed for what Pacemaker has to cure."""
        blocked = self._look_at_tasks()
        probes: list[Probe] = [self.control_socket]
        found: list[Remark] = []
        if self.agent.check_level >= 10:
            more, lost = self.deep_probes()
            probes += more
            found += [(10, reason) for reason in lost]
        found += self.ask_all(probes, blocked)
        found += [(0, reason) for reason in self._stuck(blocked)]
        if self.agent.check_level >= 20:
            found += [(20, reason) for reason in self._runaways()]
        return found

    def _look_at_tasks(self) -> dict[int, str]:
        """The threads in the kernel, with what they had run (Task.switches).

        Raises Failed for a stopped process, Degraded for one under a debugger.
        """
        odd = self.process.tasks_in(STOPPED, TRACED, BLOCKED)
        if not odd:
            return {}
        self._excuse_debugger(odd)
        if any(task.state == STOPPED for task in odd):
            self._condemn_stopped()
        return {task.tid: task.switches for task in odd if task.state == BLOCKED}

    def _condemn_stopped(self) -> None:
        """Raises Failed when it stays stopped."""
        confirm = self.deadline.within(STOPPED_CONFIRM)
        if not confirm.poll(lambda: not self.process.tasks_in(STOPPED), every=LOOK_EVERY):
            self._condemn(f"{self.process} {IS_STOPPED}")

    def _stuck(self, blocked: dict[int, str]) -> list[str]:
        """Tasks come and go in D: only one that has not run at all in between hangs."""
        if not blocked:
            return []
        from asha.asterisk.threads import stuck

        self.deadline.within(CONFIRM).poll(
            lambda: not stuck(self.process, blocked, CONFIRM), every=CONFIRM / 10
        )
        return stuck(self.process, blocked, CONFIRM)

    def _runaways(self) -> list[str]:
        from asha.asterisk.threads import Runaway, runaways

        look = Runaway(self.process, self.agent.context.clock())
        console = self.control_socket.console
        found = runaways(look, self.agent.read_state("cpu"), console, self.deadline)
        self.agent.write_state("cpu", look.remember())
        return found

    def _excuse_debugger(self, tasks: list[Task]) -> None:
        for task in tasks:
            if task.state == TRACED:
                tracer = self.agent.proc.process(task.tracer)
                raise Degraded(
                    f"a debugger, {tracer or 'unknown'}, has halted {task} of Asterisk, "
                    "which is not judged until that is over"
                )

    def deep_probes(self) -> tuple[list[Probe], list[str]]:
        """Whom to ask at depth 10 and 20, and what is amiss without asking."""
        probes: list[Probe] = []
        remarks: list[str] = []
        wanted = self.agent.probes.split()
        depth = max(10, self.agent.check_level)
        questions = [one for one in QUESTIONS if one.word in wanted]
        sip: list[Probe] = []
        # First, as it waits for one that loads its modules, AMI's among them.
        if self.agent.sip_port != [] and SipOptions.word in wanted:
            sip += self._sip_probes()
            remarks += self.sip.elsewhere() + [self._lost(reason) for reason in self.sip.lost()]
        if self.agent.ami_port and (questions or "ami" in wanted):
            is_configured, who = True, None
            try:
                who = Credentials.read(self.agent.ami_secret_file)
                is_configured = who is not None
            except BadHere as problem:
                remarks.append(problem.reason)
            # Only a socket of its own: whoever else has the port is told nothing.
            listening = self.process.listening_still(self.agent.ami_port)
            known = self.agent.read_state("ami") == self.process.identity
            if listening:
                manager = ManagerInterface(listening[0], self.process, who)
                # Each question begins with what the manager's own would be.
                probes += [one(manager) for one in questions] if who and questions else [manager]
                if not known:
                    self.agent.write_state("ami", self.process.identity)
            elif is_configured or known:
                remarks.append(self._no_ami(known))
        probes += [
            one(self.control_socket)
            for one in CONSOLE_QUESTIONS
            if one.word in wanted and one.depth <= depth
        ]
        # Last: a held lock silences SIP too, and the reason begins with the lock.
        return probes + sip, remarks

    def _no_ami(self, known: bool) -> str:
        """Why nobody is there to be asked; ``known``: this Asterisk has had it."""
        from asha.asterisk.process.port_owner import AGAIN, holder

        port = self.agent.ami_port
        squatter = holder(self.agent.proc, self.process, port)
        if squatter:
            # No failure whatever when_lost says: anybody could have all calls ended.
            return f"{squatter} has AMI's port {port}: end it, touch manager.conf, {AGAIN}"
        if known:
            return self._lost(f"AMI no longer listens on TCP port {port}: see manager.conf")
        return f"AMI is not watched: no port {port}: set enabled=yes in manager.conf, then: {AGAIN}"

    def _sip_probes(self) -> list[SipOptions]:
        return [SipOptions(one, self.process) for one in self.sip.endpoints(self.reconsider)]

    def ask_all(self, probes: list[Probe], blocked: dict[int, str]) -> list[Remark]:
        """Raises Failed when a part hangs; returns what is only worth a remark."""
        verdicts = ask(probes, self.deadline, self.agent.probe_timeout)
        # One of each: several questions may have met the same silent manager.
        bad = {one.probe: one for one in verdicts if not one.healthy}
        if not bad:
            return []
        self.reconsider()
        from asha.asterisk.taskprocessors import out_of_files

        found: list[Remark] = []
        full = out_of_files(self.process)
        if full:
            found.append((min(probe.depth for probe in bad), full))
        hung = [one.probe for one in bad.values() if one.finding == HUNG]
        excused = False
        by_then: list[Verdict] = []
        if hung:
            if full and all(map(_waits_to_be_let_in, hung)) and self._sip_answers(verdicts):
                excuse = self._overload(full)
            else:
                refused = [one.probe for one in bad.values()
                           if one.finding == REFUSED and one.probe.vital]
                excuse, by_then = self._excuse(hung, refused)
                if excuse:
                    found.append((min(probe.depth for probe in hung), excuse))
            excused = bool(excuse)
        if excused or by_then:
            asked = {one.probe for one in by_then}
            verdicts = [one for one in verdicts if one.probe not in asked
                        and not (excused and one.finding == HUNG)] + by_then
            bad = {one.probe: one for one in verdicts if not one.healthy}
        grave = [
            verdict.reason
            for verdict in bad.values()
            if verdict.finding == HUNG or (verdict.finding == REFUSED and verdict.probe.vital)
        ]
        if grave:
            if full:
                grave.append(full)
            if blocked:
                from asha.asterisk.threads import stuck

                grave += stuck(self.process, blocked, self.agent.probe_timeout)
            self._condemn("; ".join(grave))
        for verdict in bad.values():
            if verdict.finding == FAULTY and isinstance(verdict.probe, Database):
                from asha.asterisk import astdb

                why = astdb.why(self.agent.proc, self.process, self.deadline)
                verdict.reason += f": {why}"
        faulty = [verdict.reason for verdict in bad.values() if verdict.finding == FAULTY]
        if faulty and self.agent.when_faulty == "failed":
            raise Failed("; ".join(faulty))
        if not excused and not any(verdict.healthy for verdict in verdicts):
            self._need_witness(next(iter(bad.values())).reason)
        return found + [
            (one.probe.depth, self._lost(one.reason) if one.finding == REFUSED else one.reason)
            for one in bad.values()
        ]

    def _excuse(self, silent: list[Probe], refused: list[Probe]) -> tuple[str, list[Verdict]]:
        """What explains the silence without a hang, or "", and what those that were asked
        again have answered by then. Raises Failed as asked to."""
        if self.agent.launcher().is_reloading():
            # It may hold each lock for as long as it reads files or asks the DNS.
            patience = self.deadline.within(self.agent.reload_patience)
            while not patience.expired:
                again = ask(silent + refused, patience, self.agent.probe_timeout)
                if not any(verdict.finding == HUNG for verdict in again):
                    reason = "a reload of the configuration has held Asterisk up for seconds"
                    return reason, again
            return "", []
        # A disk that stalls holds up what waits for a record or a registration, too.
        if (
            any(isinstance(probe, Database) for probe in silent)
            and all(isinstance(probe, Database | CallSetup | SipOptions) for probe in silent)
            and self.process.tasks_in(BLOCKED)
        ):
            return self._excuse_disk(silent)
        return self._excuse_load(silent), []

    def _excuse_load(self, silent: list[Probe]) -> str:
        from asha.asterisk.taskprocessors import overloaded, records_waiting

        console = self.control_socket.console
        calls = [probe for probe in silent if isinstance(probe, CallSetup)]
        sip = [probe for probe in silent if isinstance(probe, SipOptions)]
        if len(calls) + len(sip) < len(silent):
            return ""
        if not sip:
            waiting = records_waiting(console, self.deadline)
            if waiting:
                return f"a call is held up by its record ({waiting}): see their database"
        busy = overloaded(console, self.deadline)
        if not busy:
            return ""
        what = " and drops SIP requests" if sip else ""
        return self._overload(f"Asterisk is overloaded{what}: {busy}")

    def _overload(self, reason: str) -> str:
        if self.agent.when_overloaded == "failed":
            self._condemn(reason)
        return reason

    def _sip_answers(self, verdicts: list[Verdict]) -> bool:
        """Whether it answers somewhere; where none is watched, nobody misses it."""
        told = [one for one in verdicts if isinstance(one.probe, SipOptions)]
        if not told and self.agent.sip_port != [] and SipOptions.word in self.agent.probes.split():
            told = ask(self._sip_probes(), self.deadline, self.agent.probe_timeout)
        return not told or any(one.healthy for one in told)

    def _excuse_disk(self, silent: list[Probe]) -> tuple[str, list[Verdict]]:
        """AstDB is silent, and a thread is in the kernel: its disk is slow, or stalls.

        Only another node cures a disk that stalls. Without one a restart would end the
        calls and then wait for the same disk; and DRBD holds each write for two seconds
        when its peer has lost power.
        """
        from asha.asterisk.threads import stuck

        patience = self.agent.disk_patience
        blocked = {task.tid: task.switches for task in self.process.tasks_in(BLOCKED)}
        again = ask(silent, self.deadline.within(patience), patience)
        hung = [verdict.probe for verdict in again if verdict.finding == HUNG]
        if not hung:
            return "the disk has held AstDB up for seconds", again
        others = [probe.name for probe in hung if not isinstance(probe, Database)]
        if len(others) == len(hung):
            # The disk is back, and what it has held up may be too much at once.
            excuse = self._excuse_load(hung)
            return excuse, [one for one in again if not (excuse and one.finding == HUNG)]
        # SIP and calls may hang for another reason while a thread writes: not for one
        # that has not moved at all.
        if others and not stuck(self.process, blocked, patience):
            return "", again
        if self.agent.peer_available():
            return "", again
        also = f" ({', '.join(dict.fromkeys(others))} too)" if others else ""
        return f"AstDB{also} waits for its disk, and no other node is there to take over", []

    def _need_witness(self, reason: str) -> None:
        """Nobody hangs and nobody has answered: does any part of it live?"""
        others, _ = self.deep_probes()
        verdicts = ask(others, self.deadline, self.agent.probe_timeout)
        if not any(verdict.healthy for verdict in verdicts):
            reasons = [reason, *(verdict.reason for verdict in verdicts)]
            self._condemn("; ".join(reasons))

    def _lost(self, reason: str) -> str:
        if self.agent.when_lost == "failed":
            raise Failed(reason)
        return f"{reason}; when the calls allow it: crm resource restart {self.agent.instance}"

    def reconsider(self) -> None:
        """Before a verdict: is there another cause than a hang? Raises what it is."""
        if self.process.gone:
            self.agent.forget(SERVING)
            raise Failed(f"{self.process} has died while it was looked at")
        if self.process.is_dumping_core:
            raise Failed(f"{self.process} has crashed and is writing its core dump")
        self._excuse_debugger(self.process.tasks_in(TRACED))
        self._condemn_stopped()
        frozen_by = self.process.frozen_by()
        if frozen_by:
            self._condemn(f"{self.process} is frozen by its cgroup: {frozen_by}")

    def _condemn(self, reason: str) -> None:
        """The one place where Asterisk is found hung."""
        if self.agent.read_state("hung") != self.process.identity:
            # Spares stop the grace that a hung process would only waste.
            self.agent.write_state("hung", self.process.identity)
            # Not of one that is being started: it answers late, and gdb would halt it.
            if self.agent.evidence_keep and self.agent.action_name == "monitor":
                self._keep_evidence(reason)
        raise Failed(reason)

    def _keep_evidence(self, reason: str) -> None:
        from asha.asterisk.evidence import Collector, prune

        port = self.agent.ami_port
        sockets = self.process.listening(port, ("tcp",)) if port else []
        for protocols, number in self.sip.known():
            sockets += self.process.listening(number, protocols)
        logs = [path for path in self.agent.log_files.split() if path.startswith("/")]
        directory = self.agent.evidence_directory
        patience = self.deadline.within(self.agent.evidence_seconds)
        place = Collector(self.process, patience, self.agent.run, directory).collect(
            reason, sockets, self.control_socket.console, logs
        )
        if place:
            self.agent.info(f"evidence of the hang is kept in {place}")
        else:
            self.agent.warn(f"no evidence of the hang could be kept in {directory}")
        try:
            prune(
                directory, self.agent.evidence_keep, self.agent.evidence_megabytes, self.deadline
            )
        except AgentError as problem:
            self.agent.warn(f"old evidence cannot be deleted: {problem.reason}")


def _waits_to_be_let_in(probe: Probe) -> bool:
    """Whether its silence may be that of a door: a session that was let in has its file."""
    return isinstance(probe, ControlSocket | ManagerInterface) or (
        isinstance(probe, SipOptions) and probe.endpoint.protocol == "tcp"
    )
