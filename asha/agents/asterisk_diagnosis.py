"""The diagnosis of an Asterisk that runs: does it work, and if not, what is wrong?

The rule: what takes the telephones' service away is a failure, after it was seen twice within
the action. What does not (a debugger at work, a lost control path, a slow disk) is a remark,
because a restart ends every call. A hang is declared in one place, after every other known
cause was looked for (asterisk_explanations).
"""

from __future__ import annotations

from asha.agents.asterisk_sip import SipSockets
from asha.asterisk.probes import (
    CONSOLE_QUESTIONS,
    FAULTY,
    QUESTIONS,
    REFUSED,
    ControlSocket,
    Database,
    ManagerInterface,
    SipOptions,
    ask,
)
from asha.asterisk.process.proc import BLOCKED, STOPPED, TRACED
from asha.asterisk.talk.ami import Credentials
from asha.ocf import AgentError, BadHere, Failed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

    from asha.agents.asterisk_base import AsteriskAgent
    from asha.agents.asterisk_explanations import Case
    from asha.asterisk.probes import Probe, Verdict
    from asha.asterisk.process.proc import Process
    from asha.ocf.attributes import Remark

# Seconds that a thread must stand still before it counts.
CONFIRM = 1.0


class Diagnosis:
    """Examines one Asterisk, within one action of the agent."""

    def __init__(self, agent: AsteriskAgent, process: Process) -> None:
        self.agent = agent
        self.process = process
        self.deadline = agent.deadline
        self.sip = SipSockets(agent, process)
        self.control_socket = ControlSocket(agent.run_directory, process)

    def watch(self) -> list[Remark]:
        """What somebody should look at. Raises Failed for what Pacemaker has to recover."""
        blocked = self._look_at_tasks()
        probes: list[Probe] = [self.control_socket]
        found: list[Remark] = []
        if self.agent.check_level >= 10:
            more, lost = self.deep_probes()
            probes += more
            found += [(10, reason) for reason in lost]
        found += self.examine(probes, blocked)
        found += [(0, reason) for reason in self._stuck(blocked)]
        if self.agent.check_level >= 20:
            found += [(20, reason) for reason in self._runaways()]
        return found

    def _look_at_tasks(self) -> dict[int, str]:
        """The threads in the kernel, with how much they had run (Task.switches).

        Raises Failed for a stopped process, Degraded for one under a debugger.
        """
        odd = self.process.tasks_in(STOPPED, TRACED, BLOCKED)
        if any(task.state != BLOCKED for task in odd):
            self.reconsider()
        return {task.tid: task.switches for task in odd if task.state == BLOCKED}

    def _stuck(self, blocked: dict[int, str]) -> list[str]:
        """Tasks enter and leave state D: only one that has not run at all in between hangs."""
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

    def deep_probes(self) -> tuple[list[Probe], list[str]]:
        """The probes of depth 10 and 20, and what is wrong without asking."""
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
        """Why there is no AMI to ask; ``known``: this Asterisk has had it."""
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

    def examine(self, probes: list[Probe], blocked: dict[int, str]) -> list[Remark]:
        """Ask, confirm, explain, decide: in this order.

        Raises Failed if a part hangs; returns what deserves only a remark.
        """
        agent = self.agent
        verdicts = ask(probes, self.deadline, agent.probe_timeout, agent.owes_another)
        if all(one.healthy for one in verdicts):
            return []
        self.reconsider()
        case = self._case(verdicts)
        if case.silent:
            from asha.agents.asterisk_explanations import OF_SILENCE

            case.look_for(OF_SILENCE)
        self._fail_what_hangs(case, blocked)
        self._fail_what_is_faulty(case)
        self._fail_without_a_sign_of_life(case)
        return case.remarks + [
            (one.probe.depth, self._lost(one.reason) if one.finding == REFUSED else one.reason)
            for one in case.bad
        ]

    def _case(self, verdicts: Sequence[Verdict] = ()) -> Case:
        from asha.agents.asterisk_explanations import Case

        return Case(self.agent, self.process, self._condemn, self._sip_probes, verdicts)

    # What is decided, each of it once nothing before it has failed

    def _fail_what_hangs(self, case: Case, blocked: dict[int, str]) -> None:
        grave = [one.reason for one in case.grave]
        if not grave:
            return
        if case.out_of_files:
            grave.append(case.out_of_files)
        if blocked:
            from asha.asterisk.threads import stuck

            grave += stuck(self.process, blocked, self.agent.probe_timeout)
        self._condemn("; ".join(grave))

    def _fail_what_is_faulty(self, case: Case) -> None:
        """As the parameter says; AstDB's words are the same for a full disk and a lock."""
        faulty = [one for one in case.bad if one.finding == FAULTY]
        for verdict in faulty:
            if isinstance(verdict.probe, Database):
                from asha.asterisk import astdb

                why = astdb.why(self.agent.proc, self.process, self.deadline)
                verdict.reason += f": {why}"
        if faulty and self.agent.when_faulty == "failed":
            raise Failed("; ".join(one.reason for one in faulty))

    def _fail_without_a_sign_of_life(self, case: Case) -> None:
        """No part hangs, and none has answered: does any part of it live?"""
        if case.is_explained or any(one.healthy for one in case.verdicts):
            return
        others, _ = self.deep_probes()
        verdicts = ask(others, self.deadline, self.agent.probe_timeout)
        if not any(one.healthy for one in verdicts):
            self._condemn("; ".join(one.reason for one in (case.bad[0], *verdicts)))

    def _lost(self, reason: str) -> str:
        if self.agent.when_lost == "failed":
            raise Failed(reason)
        return f"{reason}; when the calls allow it: crm resource restart {self.agent.instance}"

    def reconsider(self) -> None:
        """Before a verdict: is there another cause than a hang? Raises it as what it is."""
        from asha.agents.asterisk_explanations import OF_THE_PROCESS, explained_by

        explained_by(OF_THE_PROCESS, [], self._case())

    def _condemn(self, reason: str) -> NoReturn:
        """The only place where Asterisk is declared hung."""
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

