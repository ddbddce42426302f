"""asterisk-health: Asterisk runs once, and answers, or Pacemaker is told why not.

One agent starts, stops and watches it, so that a failed question restarts Asterisk
and not a bystander. How Asterisk is looked at and asked is in asha/asterisk; here is
what is made of it.

The rule of monitor: what takes the phones' service away is a failure, after it was
seen twice within the action; what does not (a debugger at work, a lost control path,
a slow disk) is reported and left running, because a restart ends every call.
"""

from __future__ import annotations

import os

from asha.agents.asterisk_parameters import AsteriskParameters
from asha.asterisk import control, stacks
from asha.asterisk.ami import Credentials
from asha.asterisk.probes import (
    FAULTY,
    HUNG,
    PROBES,
    QUESTIONS,
    REFUSED,
    CallSetup,
    ControlSocket,
    Database,
    ManagerInterface,
    ManagerQuestion,
    SipOptions,
    ask,
)
from asha.asterisk.proc import BLOCKED, ENDED, STOPPED, TRACED, Endpoint, Proc
from asha.asterisk.wire import Silent, hold, is_address
from asha.ocf import (
    Agent,
    AgentError,
    BadConfig,
    BadHere,
    Degraded,
    Exit,
    Failed,
    NotInstalled,
    NotRunning,
    action,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asha.asterisk.probes import Probe, Verdict
    from asha.asterisk.proc import Process, Task
    from asha.asterisk.unit import Launcher
    from asha.ocf import Deadline

    # From which depth on it is looked at, and what somebody should know of it.
    Remark = tuple[int, str]

# Seconds that a thread must stand still before it counts, and all of them after a
# SIGSTOP: a debugger that comes or goes stops them for some milliseconds too.
CONFIRM = 1.0
STOPPED_CONFIRM = 0.5

# Seconds between two looks at an Asterisk that starts or ends: short beside the
# 0.25 s that it takes to end and the 0.7 s to start.
LOOK_EVERY = 0.02

# Seconds before a new Asterisk that does not answer as it should is asked again.
ASK_AGAIN = 0.2

# Seconds of one wait for the end of loading, after which is looked whether the
# process still lives.
LOADING_LOOK = 1.0

# Seconds without any SIP socket that are no failure yet.
BIND_SECONDS = 5.0

# Seconds for the greeting of an Asterisk that is to be stopped, and the grace of
# one that a monitor has found hung: twice what a healthy one takes. Neither is likely
# to end on its own, and every second is one without telephones.
GREETING_SECONDS = 1.0
HUNG_GRACE = 0.5

# Seconds that Pacemaker's attribute manager may take to be told.
ATTRIBUTE_SECONDS = 1.5

# Seconds that Pacemaker may take to say whether there is fencing, and who is there.
FENCING_SECONDS = 2.0

# Seconds of a stop that are kept for systemd, after the last kill.
SETTLE_SECONDS = 2.0

PID_FILE = "asterisk.pid"

# The state file whose presence says: a death is news. asha-asterisk-died@.service
# knows its name too.
SERVING = "serving"

IS_STOPPED = "is stopped by a signal (SIGSTOP or SIGTSTP)"

# More addresses than that are not asked.
SIP_ADDRESSES_MOST = 8


class NotBound(Failed):
    """Asterisk listens on no SIP port: its configuration rather than a hang."""


class AsteriskHealth(AsteriskParameters, Agent):
    """Runs one Asterisk, and sees when it hangs.

    Starts Asterisk through its systemd unit where there is one, or else directly,
    and returns when all modules are loaded and it answers. Stops it in the ordinary
    way (calls are ended, CDRs written, AstDB saved), kills what hangs, and says so
    honestly when something cannot be killed. One Asterisk per node: any other with
    the same binary is stopped with it.

    monitor looks at more with each depth (OCF_CHECK_LEVEL=0, 10 or 20), as the table
    below tells. All that is asked is asked side by side, each question on a connection
    of its own; one that is silent is asked again while the first still waits, and what
    answers neither has failed. A dead Asterisk, a zombie, one that is stopped by a
    signal or frozen by its cgroup, or that has no SIP socket, has failed too.

    Reported as degraded and left running: a debugger or core dumper at work, a
    thread that never rests or that waits for a disk (but see disk_patience), a control
    socket or AMI that is gone while SIP answers (see when_lost), an AstDB that answers
    with an error (see when_faulty), overload or no file left to open while SIP answers
    (see when_overloaded), SIP connections that are closed unanswered, a call that is
    refused, a missing pid file, an AMI user that is not accepted, TCP packets lost to a
    firewall rule on the node itself. The node attribute asha-asterisk says what, for as
    long as it is so (crm_mon -A).

    The call of depth 20 leaves no call record (CDR), no voicemail and no line in the log
    below verbose. It runs through the context asha-heartbeat, which the agent makes by
    AMI (pbx_config) and which a reload of the dialplan drops. Listeners to AMI's events
    see two Local channels come and go; channel event logging (CEL), where it is on,
    records them.

    Asterisk logs each look at its control socket at verbose 3 ("Remote UNIX
    connection"): hideconnect = yes in asterisk.conf keeps that quiet, and
    displayconnects = no in manager.conf the same for AMI. PJSIP logs each OPTIONS from
    an address without an endpoint ("No matching endpoint found"): an endpoint of its
    own with type=identify and match=127.0.0.1 keeps that quiet, and lets the question
    reach the dialplan.
    """

    name = "asterisk-health"

    proc = Proc()

    def validate(self, level: int) -> None:
        if "/" in self.unit or not (self.unit == "none" or self.unit.endswith(".service")):
            raise BadConfig(f'parameter unit="{self.unit}": must be none or NAME.service')
        if self.sip_address != "auto" and not is_address(self.sip_address):
            raise BadConfig(
                f'parameter sip_address="{self.sip_address}": must be auto or an IP address'
            )
        for word in self.probes.split():
            if word not in PROBES:
                raise BadConfig(f'parameter probes: "{word}" is none of {" ".join(PROBES)}')
        for module in self._cdr_modules():
            from asha.asterisk.records import is_module

            if not is_module(module):
                raise BadConfig(f'parameter cdr_modules: "{module}" must be none or NAME.so ...')
        if level < 10:
            return
        if not os.access(self.binary, os.X_OK):
            raise NotInstalled(f"{self.binary} is absent: install Asterisk, or set binary")
        self._launcher().validate()
        try:
            Credentials.read(self.ami_secret_file)
        except BadHere as problem:
            self.warn(problem.reason)  # the phones work without

    @classmethod
    def appendix(cls) -> str:
        from asha.asterisk.table import render
        from asha.asterisk.threads import Runaway, States

        rows = (States, ControlSocket, ManagerInterface, *QUESTIONS[:3], SipOptions,
                CallSetup, Runaway)
        return (
            "What monitor looks at, with the words of the parameter probes; channels, dialplan,\n"
            f"astdb and call are asked through AMI:\n\n{render(rows)}"
        )

    # Watching

    @action(timeout=20, interval=10, depth=0)
    @action(timeout=30, interval=4, depth=10)
    @action(timeout=40, interval=60, depth=20)
    def monitor(self) -> Exit:
        try:
            process, odd = self._find()
        except AgentError:
            if not self.is_probe:
                # This is how Pacemaker learns of it: one death is one failure.
                self._forget(SERVING)
            raise
        if self.is_probe:
            return Exit.SUCCESS
        try:
            found = [(0, reason) for reason in odd] + self._watch(process)
        except Degraded as problem:
            # A debugger is at work: nothing else was looked at.
            self._tell([(0, problem.reason)], 0)
            raise
        self._forget("hung")
        if self.check_level >= 10 and self._read_state("records") == process.identity:
            self._connect_records()
        self._tell(found, self.check_level)
        if found:
            raise Degraded("; ".join(reason for _, reason in found))
        return Exit.SUCCESS

    def _watch(self, process: Process) -> list[Remark]:
        """What somebody should look at. Raises Failed for what Pacemaker has to cure."""
        blocked = self._look_at_tasks(process)
        probes: list[Probe] = [ControlSocket(self.run_directory, process)]
        found: list[Remark] = []
        if self.check_level >= 10:
            more, lost = self._deep_probes(process)
            probes += more
            found += [(10, reason) for reason in lost]
        found += self._ask(process, probes, blocked)
        found += [(0, reason) for reason in self._stuck(process, blocked)]
        if self.check_level >= 20:
            found += [(20, reason) for reason in self._runaways(process, probes)]
        return found

    def _tell(self, found: list[Remark], looked: int) -> None:
        """Let the node's attribute say it; ``looked``: the deepest that was looked at.

        What is degraded is told once and not again: an attribute manager that is not
        there costs one monitor a moment, and not each. That all is well is told until
        it is heard.
        """
        kept = self._read_state("degraded")
        if not found and not kept:
            return
        from asha.asterisk import told

        text = told.merged(kept, found, looked)
        if not told.is_news(text, kept) and self.state_age("degraded") < told.TOLD_FOR:
            return
        if text:
            self._write_state("degraded", text)
            self.set_node_attribute(told.ATTRIBUTE, told.value(text), ATTRIBUTE_SECONDS)
        else:
            self._tell_all_is_well()

    def _tell_all_is_well(self) -> None:
        from asha.asterisk.told import ATTRIBUTE

        # Kept until it is told: nobody else would ever take the attribute back.
        if self.clear_node_attribute(ATTRIBUTE, ATTRIBUTE_SECONDS):
            self._forget("degraded")

    def _connect_records(self) -> None:
        """Let the back ends of call records see a database that came after them."""
        from asha.asterisk import records

        try:
            if not records.database_is_up(self.database_socket, self.deadline):
                return
            said = records.reload_modules(self.run_directory, self._cdr_modules(), self.deadline)
        except (Silent, OSError) as problem:
            # Tried again by the next monitor; calls do not depend on it.
            self.warn(f"call records do not reach the database yet: {problem}")
            return
        self._forget("records")
        for line in said:
            self.info(f"the database is up: {line}")

    def _cdr_modules(self) -> list[str]:
        return [] if self.cdr_modules == "none" else self.cdr_modules.split()

    def _find(self) -> tuple[Process, list[str]]:
        """The running Asterisk, and what is odd about it. Raises NotRunning, Failed."""
        pid_file = f"{self.run_directory}/{PID_FILE}"
        process = self.proc.from_pid_file(pid_file, self.binary)
        if process is not None and not process.gone:
            if process.state in ENDED:
                from asha.asterisk.ending import survivors

                raise Failed(f"Asterisk has died but does not end: {survivors([process])}")
            return process, []
        daemons = self.proc.daemons(self.binary)
        if daemons:
            return daemons[0], [f"{pid_file} does not name the Asterisk that runs, {daemons[0]}"]
        if os.path.exists(pid_file):
            # Asterisk removes it when it ends in the ordinary way.
            raise NotRunning(f"Asterisk is dead: it crashed or was killed and left {pid_file}")
        raise NotRunning("Asterisk is not running")

    def _look_at_tasks(self, process: Process) -> dict[int, str]:
        """The threads in the kernel, with what they had run (Task.switches).

        Raises Failed for a stopped process, Degraded for one under a debugger.
        """
        odd = process.tasks_in(STOPPED, TRACED, BLOCKED)
        if not odd:
            return {}
        self._excuse_debugger(odd)
        if any(task.state == STOPPED for task in odd):
            self._condemn_stopped(process)
        return {task.tid: task.switches for task in odd if task.state == BLOCKED}

    def _condemn_stopped(self, process: Process) -> None:
        """Raises Failed when it stays stopped."""
        confirm = self.deadline.within(STOPPED_CONFIRM)
        if not confirm.poll(lambda: not process.tasks_in(STOPPED), every=LOOK_EVERY):
            self._condemn(process, f"{process} {IS_STOPPED}")

    def _stuck(self, process: Process, blocked: dict[int, str]) -> list[str]:
        """Tasks come and go in D: only one that has not run at all in between hangs."""
        if not blocked:
            return []
        from asha.asterisk.threads import stuck

        self.deadline.within(CONFIRM).poll(
            lambda: not stuck(process, blocked, CONFIRM), every=CONFIRM / 10
        )
        return stuck(process, blocked, CONFIRM)

    def _runaways(self, process: Process, probes: list[Probe]) -> list[str]:
        from asha.asterisk.threads import Runaway, runaways

        look = Runaway(process, self.context.clock())
        found = runaways(look, self._read_state("cpu"), _manager(probes), self.deadline)
        self._write_state("cpu", look.remember())
        return found

    def _excuse_debugger(self, tasks: list[Task]) -> None:
        for task in tasks:
            if task.state == TRACED:
                tracer = self.proc.process(task.tracer)
                raise Degraded(
                    f"a debugger, {tracer or 'unknown'}, has halted {task} of Asterisk, "
                    "which is not judged until that is over"
                )

    def _deep_probes(self, process: Process) -> tuple[list[Probe], list[str]]:
        """Whom to ask at depth 10 and 20, and what is amiss without asking."""
        probes: list[Probe] = []
        remarks: list[str] = []
        wanted = self.probes.split()
        depth = max(10, self.check_level)
        questions = [one for one in QUESTIONS if one.word in wanted and one.depth <= depth]
        if self.ami_port and (questions or "ami" in wanted):
            who = None
            try:
                who = Credentials.read(self.ami_secret_file)
            except BadHere as problem:
                remarks.append(problem.reason)
            listening = process.listening(self.ami_port, ("tcp",))
            if listening:
                manager = ManagerInterface(listening[0], process, who)
                # Each question begins with what the manager's own would be.
                probes += [one(manager) for one in questions] if who and questions else [manager]
            elif self._read_state("ami") == process.identity:
                reason = f"AMI no longer listens on TCP port {self.ami_port}"
                remarks.append(self._lost(f"{reason}: see manager.conf"))
        if self.sip_port != [] and "sip" in wanted:
            probes += [SipOptions(one, process) for one in self._sip_endpoints(process)]
        return probes, remarks

    def _sip_endpoints(self, process: Process) -> list[Endpoint]:
        """Where to send OPTIONS. Raises NotBound when it is not taken where it must be."""
        wanted = self._sip_sockets(process)
        if self.sip_address != "auto":
            return [Endpoint("udp", self.sip_address, port, 0, "")
                    for protocols, port in wanted if "udp" in protocols]
        found: list[Endpoint] = []
        lacking: list[stacks.Socket] = []

        def bound() -> bool:
            found.clear()
            lacking.clear()
            for protocols, port in wanted:
                # A link-local address cannot be asked without naming an interface.
                here = [one for one in process.listening(port, protocols)
                        if not one.address.startswith("fe80:")]
                found.extend(here)
                if not here:
                    lacking.append((protocols, port))
            return not lacking

        # Not at once: "core restart now" closes them until the modules are loaded.
        if not self.deadline.within(BIND_SECONDS).poll(bound):
            self._reconsider(process)
            if self.sip_port is None:
                # Another transport by now, or a stack that somebody has unloaded.
                wanted = self._learn_sip_sockets(process)
            if not bound():
                raise NotBound(
                    f"Asterisk has no SIP socket on {stacks.words(lacking)}: see its pjsip.conf "
                    "or sip.conf, and sip_port of this resource (0 if this PBX has no SIP)"
                )
        return found[:SIP_ADDRESSES_MOST]

    def _sip_sockets(self, process: Process) -> list[stacks.Socket]:
        """Where Asterisk must take SIP."""
        ports = self.sip_port
        if ports is not None:
            return stacks.on_ports(ports)
        identity, _, kept = self._read_state("sip").partition("\n")
        known = stacks.read(kept) if identity == process.identity else []
        return known or stacks.on_ports([stacks.DEFAULT_PORT])

    def _learn_sip_sockets(self, process: Process) -> list[stacks.Socket]:
        """Ask Asterisk where it takes SIP, for this and the next actions.

        What it says and does not do, as its port was taken, is not missed later: the
        other telephones work.
        """
        known = self._sip_sockets(process)
        told = stacks.ask(self.run_directory, self.deadline)
        idle = [one for one in told if one not in known and not process.listening(one[1], one[0])]
        if idle:
            self.warn(f"Asterisk should take SIP on {stacks.words(idle)} and does not: see its log")
        told = [one for one in told if one not in idle] or told
        if told:
            self._write_state("sip", f"{process.identity}\n{stacks.kept(told)}")
        return self._sip_sockets(process)

    def _ask(
        self, process: Process, probes: list[Probe], blocked: dict[int, str]
    ) -> list[Remark]:
        """Raises Failed when a part hangs; returns what is only worth a remark."""
        verdicts = ask(probes, self.deadline, self.probe_timeout)
        # One of each: several questions may have met the same silent manager.
        bad = {one.probe: one for one in verdicts if not one.healthy}
        if not bad:
            return []
        self._reconsider(process)
        from asha.asterisk.load import out_of_files

        found: list[Remark] = []
        full = out_of_files(process)
        if full:
            found.append((min(probe.depth for probe in bad), full))
        hung = [one.probe for one in bad.values() if one.finding == HUNG]
        excused = False
        if hung:
            by_then: list[Verdict] = []
            if full and self._sip_answers(process, verdicts):
                excuse = self._overload(process, full)
            else:
                excuse, by_then = self._excuse(process, probes, hung)
                if excuse:
                    found.append((min(probe.depth for probe in hung), excuse))
            excused = bool(excuse)
        if excused:
            verdicts = [one for one in verdicts if one.finding != HUNG] + by_then
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

                grave += stuck(process, blocked, self.probe_timeout)
            self._condemn(process, "; ".join(grave))
        for verdict in bad.values():
            if verdict.finding == FAULTY and isinstance(verdict.probe, Database):
                from asha.asterisk import astdb

                verdict.reason += f": {astdb.why(self.proc, process, self.deadline)}"
        faulty = [verdict.reason for verdict in bad.values() if verdict.finding == FAULTY]
        if faulty and self.when_faulty == "failed":
            raise Failed("; ".join(faulty))
        if not excused and not any(verdict.healthy for verdict in verdicts):
            self._need_witness(process, next(iter(bad.values())).reason)
        return found + [
            (one.probe.depth, self._lost(one.reason) if one.finding == REFUSED else one.reason)
            for one in bad.values()
        ]

    def _excuse(
        self, process: Process, probes: list[Probe], silent: list[Probe]
    ) -> tuple[str, list[Verdict]]:
        """What explains the silence without a hang, or "", and what the silent ones have
        answered by then. Raises Failed as asked to."""
        if self._launcher().is_reloading():
            # It may hold each lock for as long as it reads files or asks the DNS.
            patience = self.deadline.within(self.reload_patience)
            while not patience.expired:
                again = ask(silent, patience, self.probe_timeout)
                if not any(verdict.finding == HUNG for verdict in again):
                    reason = "a reload of the configuration has held Asterisk up for seconds"
                    return reason, again
            return "", []
        if all(isinstance(probe, Database) for probe in silent) and process.tasks_in(BLOCKED):
            return self._excuse_disk(silent)
        return self._excuse_load(process, _manager(probes), silent), []

    def _excuse_load(
        self, process: Process, manager: ManagerInterface | None, silent: list[Probe]
    ) -> str:
        from asha.asterisk.load import overloaded, records_waiting

        if manager is None or manager.who is None:
            return ""
        if all(isinstance(probe, CallSetup) for probe in silent):
            waiting = records_waiting(manager.endpoint, manager.who, self.deadline)
            return waiting and f"a call is held up by its record ({waiting}): see their database"
        if all(isinstance(probe, SipOptions) for probe in silent):
            busy = overloaded(manager.endpoint, manager.who, self.deadline)
            if busy:
                reason = f"Asterisk is overloaded and drops SIP requests: {busy}"
                return self._overload(process, reason)
        return ""

    def _overload(self, process: Process, reason: str) -> str:
        if self.when_overloaded == "failed":
            self._condemn(process, reason)
        return reason

    def _sip_answers(self, process: Process, verdicts: list[Verdict]) -> bool:
        """Whether it answers somewhere; where none is watched, nobody misses it."""
        told = [one for one in verdicts if isinstance(one.probe, SipOptions)]
        if not told and self.sip_port != []:
            asked = [SipOptions(one, process) for one in self._sip_endpoints(process)]
            told = ask(asked, self.deadline, self.probe_timeout)
        return not told or any(one.healthy for one in told)

    def _excuse_disk(self, silent: list[Probe]) -> tuple[str, list[Verdict]]:
        """AstDB alone is silent, and a thread is in the kernel: its disk is slow, or stalls.

        Only another node cures a disk that stalls. Without one a restart would end the
        calls and then wait for the same disk; and DRBD holds each write for two seconds
        when its peer has lost power.
        """
        again = ask(silent, self.deadline.within(self.disk_patience), self.disk_patience)
        if not any(verdict.finding == HUNG for verdict in again):
            return "the disk has held AstDB up for seconds", again
        if not self._has_company():
            return "AstDB waits for its disk, and no other node is there to take over", []
        return "", []

    def _need_witness(self, process: Process, reason: str) -> None:
        """Nobody hangs and nobody has answered: does any part of it live?"""
        others, _ = self._deep_probes(process)
        verdicts = ask(others, self.deadline, self.probe_timeout)
        if not any(verdict.healthy for verdict in verdicts):
            reasons = [reason, *(verdict.reason for verdict in verdicts)]
            self._condemn(process, "; ".join(reasons))

    def _lost(self, reason: str) -> str:
        if self.when_lost == "failed":
            raise Failed(reason)
        return f"{reason}; when the calls allow it: crm resource restart {self.instance}"

    def _reconsider(self, process: Process) -> None:
        """Before a verdict: is there another cause than a hang? Raises what it is."""
        if process.gone:
            self._forget(SERVING)
            raise Failed(f"{process} has died while it was looked at")
        if process.is_dumping_core:
            raise Failed(f"{process} has crashed and is writing its core dump")
        self._excuse_debugger(process.tasks_in(TRACED))
        self._condemn_stopped(process)
        frozen_by = process.frozen_by()
        if frozen_by:
            self._condemn(process, f"{process} is frozen by its cgroup: {frozen_by}")

    def _condemn(self, process: Process, reason: str) -> None:
        """The one place where Asterisk is found hung."""
        if self._read_state("hung") != process.identity:
            # Spares stop the grace that a hung process would only waste.
            self._write_state("hung", process.identity)
            # Not of one that is being started: it answers late, and gdb would halt it.
            if self.evidence_keep and self.action_name == "monitor":
                self._keep_evidence(process, reason)
        raise Failed(reason)

    def _keep_evidence(self, process: Process, reason: str) -> None:
        from asha.asterisk.evidence import Collector, prune

        manager = None
        try:
            who = Credentials.read(self.ami_secret_file)
        except BadHere:
            who = None
        listening = process.listening(self.ami_port, ("tcp",)) if self.ami_port else []
        if listening and who:
            manager = (listening[0], who)
        sockets = list(listening)
        for protocols, port in self._sip_sockets(process):
            sockets += process.listening(port, protocols)
        logs = [path for path in self.log_files.split() if path.startswith("/")]
        place = Collector(
            process,
            self.deadline.within(self.evidence_seconds),
            self.run,
            self.evidence_directory,
        ).collect(reason, sockets, manager, logs)
        if place:
            self.info(f"evidence of the hang is kept in {place}")
        else:
            self.warn(f"no evidence of the hang could be kept in {self.evidence_directory}")
        try:
            prune(
                self.evidence_directory, self.evidence_keep, self.evidence_megabytes, self.deadline
            )
        except AgentError as problem:
            self.warn(f"old evidence cannot be deleted: {problem.reason}")

    # Starting

    @action(timeout=60)
    def start(self) -> None:
        self._forget(SERVING)
        launcher = self._launcher()
        if self.proc.daemons(self.binary):
            self.warn("an Asterisk that does not work is stopped first")
            self._end(launcher)
        warning = launcher.warning()
        if warning:
            self.warn(warning)
        launcher.launch()
        launcher.while_it_loads()
        process = self._await_loaded(launcher, self.deadline)
        while True:
            try:
                self._look_once(process)
                self._announce_deaths_of(process)
                return
            except NotBound:
                raise
            except Failed as problem:
                if process.gone:
                    raise self._early_death(launcher) or problem from None
                # As long as the action may last: at this moment all phones register.
                if self.deadline.expired:
                    raise
                self.deadline.pause(ASK_AGAIN)
            except Degraded:
                # A debugger is at work. It serves, and its death is news.
                self._announce_deaths_of(process)
                raise

    def adopt(self) -> bool:
        launcher = self._launcher()
        launcher.while_it_loads()
        try:
            half = self.deadline.within(self.deadline.remaining() / 2)
            process = self._await_loaded(launcher, half)
            self._look_once(process)
        except Degraded as problem:
            self.warn(problem.reason)
        except AgentError as problem:
            self.warn(f"the Asterisk that runs already is replaced: {problem.reason}")
            return False
        if not launcher.owns(process):
            # Ending it would end its calls; the next restart puts that right.
            self.warn(f"{process} was started by hand and not by {self.unit}: left running")
        self._announce_deaths_of(process)
        return True

    def _announce_deaths_of(self, process: Process) -> None:
        """Have systemd tell Pacemaker when it dies (asha/asterisk/notice.py)."""
        self._write_state(SERVING, f"{process.identity} {self.node} {self.binary}")

    def _await_loaded(self, launcher: Launcher, deadline: Deadline) -> Process:
        """Until all modules are loaded. Raises Failed with the reason of an early death."""
        path = f"{self.run_directory}/{control.SOCKET_NAME}"
        while True:
            process = self._present()
            if process is None:
                death = self._early_death(launcher)
                if death is not None:
                    raise death
            else:
                try:
                    hold(control.wait_fully_booted(path, deadline.within(LOADING_LOOK)))
                    return process
                except (Silent, OSError):
                    pass  # not that far yet
            deadline.require("Asterisk was loading its modules; does one of them wait for DNS?")
            deadline.pause(LOOK_EVERY)

    @staticmethod
    def _early_death(launcher: Launcher) -> Failed | None:
        reason = launcher.verdict_on_death()
        return None if reason is None else Failed(f"Asterisk ended while it started: {reason}")

    def _present(self) -> Process | None:
        try:
            return self._find()[0]
        except AgentError:
            return None

    def _look_once(self, process: Process) -> None:
        """As at depth 10, and remember what is there to be missed later. Raises Failed."""
        if self.sip_port is None:
            self._learn_sip_sockets(process)
        probes, remarks = self._deep_probes(process)
        if _manager(probes):
            self._write_state("ami", process.identity)
        elif self.ami_port:
            remarks.append(f"AMI is not watched: nothing listens on TCP port {self.ami_port}")
        remarks += [reason for _, reason in self._ask(process, probes, {})]
        self._forget("hung")
        if self._cdr_modules():
            # Even where the database answers now: it may have come a moment too late.
            self._write_state("records", process.identity)
        for remark in remarks:
            self.warn(remark)

    # Stopping

    @action(timeout=30)
    def stop(self) -> None:
        self._forget(SERVING)  # what dies from now on does so on purpose
        launcher = self._launcher()
        self._end(launcher)
        for kind in ("ami", "cpu", "hung", "records", "sip"):
            self._forget(kind)
        if self._read_state("degraded"):
            self._tell_all_is_well()

    def _end(self, launcher: Launcher) -> None:
        """Until nothing of Asterisk lives, nor anything that would start it again."""
        from asha.asterisk.ending import Ending

        ending = Ending(
            self.proc,
            self.binary,
            f"{self.run_directory}/{PID_FILE}",
            launcher,
            self.deadline,
            self._is_fenced,
        )
        grace = self._grace()
        if grace:
            ending.ask(grace)
        ending.force(SETTLE_SECONDS)
        launcher.settle()
        # A start that a killed action had asked for may have come in between.
        ending.force(0)

    def _is_fenced(self) -> bool:
        """Whether a fence cures: of what a monitor has found hung, where Pacemaker fences
        and another node is there to go on. Not known is no.

        A stop that somebody asked for waits for a slow disk, and so does the last node:
        DRBD holds each write for seconds when its peer has lost power.
        """
        if not self._read_state("hung"):
            return False
        try:
            done = self.run(
                *("crm_attribute", "--type", "crm_config", "--name", "stonith-enabled"),
                *("--query", "--quiet", "--default", "true"),
                cap=FENCING_SECONDS,
            )
        except AgentError:
            return False
        on = done.ok and done.out.strip().lower() in ("true", "yes", "on", "y", "1")
        return on and self._has_company()

    def _has_company(self) -> bool:
        """Whether another node is there to go on. Not known is no."""
        from asha.ocf.company import has_company

        return has_company(self.run, self.node, FENCING_SECONDS)

    def _grace(self) -> float:
        """Seconds that Asterisk is given to end by itself."""
        process = self._present()
        if process is None:
            return 0.0
        if process.tasks_in(STOPPED, TRACED) or process.frozen_by():
            return 0.0  # it will not even see the signal
        if self._read_state("hung") == process.identity:
            return HUNG_GRACE
        path = f"{self.run_directory}/{control.SOCKET_NAME}"
        try:
            hold(control.greet(path, self.deadline.within(GREETING_SECONDS)))
        except Silent:
            return 0.0
        except OSError:
            pass  # the socket is gone; Asterisk itself may be well
        return self.stop_grace

    # What else it needs

    def _launcher(self) -> Launcher:
        from asha.asterisk.unit import Direct, SystemdUnit, has_unit

        if self.unit != "none" and has_unit(self.unit):
            return SystemdUnit(self, self.proc, self.unit)
        return Direct(self, self.proc, self.binary, self.user, self.group)

    def _read_state(self, kind: str) -> str:
        try:
            with open(self.state_path(kind), encoding="ascii") as file:
                return file.read()
        except (OSError, UnicodeDecodeError):
            return ""

    def _write_state(self, kind: str, text: str) -> None:
        try:
            with open(self.state_path(kind), "w", encoding="ascii") as file:
                file.write(text)
        except OSError as problem:
            self.warn(f"cannot write {self.state_path(kind)}: {problem.strerror}")

    def _forget(self, kind: str) -> None:
        try:
            os.unlink(self.state_path(kind))
        except OSError:
            pass


def _manager(probes: list[Probe]) -> ManagerInterface | None:
    """The AMI that is asked, by itself or through questions."""
    for probe in probes:
        if isinstance(probe, ManagerInterface):
            return probe
        if isinstance(probe, ManagerQuestion):
            return probe.manager
    return None
