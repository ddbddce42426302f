"""asterisk-health: one Asterisk runs and answers, or Pacemaker is told why not.

One agent starts, stops and watches it, so a failed question restarts Asterisk and not a
bystander. Here are its actions and what it tells the cluster. asterisk_base says which process
is Asterisk, asterisk_diagnosis how it is; how Asterisk is looked at and asked is in
asha/asterisk.
"""

from __future__ import annotations

import os

from asha.agents.asterisk_base import (
    ASTDB,
    FENCING_SECONDS,
    KNOWN,
    LOOK_EVERY,
    SERVING,
    TOLD,
    TOLD_SECONDS,
    AsteriskAgent,
)
from asha.agents.asterisk_diagnosis import Diagnosis
from asha.agents.asterisk_sip import NotBound
from asha.agents.watch import beat
from asha.asterisk.lastgood import KEPT, SERVED_SECONDS, UNKEPT, WAS
from asha.asterisk.probes import (
    PROBES,
    QUESTIONS,
    CallSetup,
    ControlSocket,
    Database,
    ManagerInterface,
    SipOptions,
)
from asha.asterisk.process.proc import BLOCKED, STOPPED, TRACED
from asha.asterisk.talk.ami import Credentials
from asha.asterisk.talk.connections import Silent, hold, is_address
from asha.asterisk.talk.control import Console
from asha.ocf import (
    AgentError,
    BadConfig,
    BadHere,
    Degraded,
    Exit,
    Expired,
    Failed,
    NotInstalled,
    action,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asha.asterisk.lastgood.policy import Plan
    from asha.asterisk.process.proc import Process
    from asha.asterisk.process.unit import Launcher
    from asha.ocf import Deadline
    from asha.ocf.attributes import NodeAttribute, Remark

# The state file of what the cluster was told.
DEGRADED = "degraded"

# Seconds before a new Asterisk that does not answer as it should is asked again.
ASK_AGAIN = 0.2

# Seconds of one wait for the end of loading, after which is looked whether the
# process still lives.
LOADING_LOOK = 1.0

# Seconds for which a new Asterisk's console is tried before other signs count too.
UNHEARD_SECONDS = 2.0

# Seconds of a start that are kept to find out what Asterisk waits for.
REASON_SECONDS = 0.5

# Seconds for the greeting of an Asterisk that is to be stopped, and the grace of
# one that a monitor has found hung: twice what a healthy one takes. Neither is likely
# to end on its own, and every second is one without telephones.
GREETING_SECONDS = 1.0
HUNG_GRACE = 0.5
# Seconds in which a thread that waits for a disk has moved, if the disk is only slow.
STANDSTILL_LOOK = 0.1

# Seconds for the calls' end before Asterisk is asked to end: less than it would sleep.
HANG_UP_SECONDS = 0.5
HANG_UP_LOOK = 0.02

# Seconds that Pacemaker's attribute manager may take to be told.
ATTRIBUTE_SECONDS = 1.5

# Seconds of a stop that are kept for systemd, after the last kill.
SETTLE_SECONDS = 2.0

# Seconds of a monitor for a restart that somebody else has asked systemd for: an upgrade of
# Asterisk's package does. No restart of ours would be quicker, and it would cut that one off.
RESTART_SECONDS = 10.0
RESTART_LOOK = 0.1

# The state files of the watcher, which ends without "serving".
WATCHERS = ("given", "unwatched", "beat", "silent", "judging")

# Where SIP is taken, if nobody says otherwise.
SIP_PORT = 5060

# What needs no quotes in a unit of systemd's.
PLAIN_PATH = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-")

# Signals that somebody else sends (the kernel, where memory is short): no configuration's fault.
SENT = ("KILL", "TERM")


class EarlyDeath(Failed):
    """It ended while it started. ``may_be_files``: and its configuration may be why."""

    def __init__(self, reason: str, may_be_files: bool) -> None:
        super().__init__(reason)
        self.may_be_files = may_be_files


class NotLoaded(Expired):
    """It has not loaded its modules in time. ``may_be_files``: as above."""

    def __init__(self, reason: str, may_be_files: bool) -> None:
        super().__init__(reason)
        self.may_be_files = may_be_files


class AsteriskHealth(AsteriskAgent):
    """Runs one Asterisk, and sees when it hangs.

    Starts Asterisk through its systemd unit where there is one, or else directly,
    and returns when all modules are loaded and it answers. Stops it in the ordinary
    way (calls are ended, CDRs written, AstDB saved), kills what hangs, and says so
    honestly when something cannot be killed. One Asterisk per node: any other of
    root's or of Asterisk's user is stopped with it. One of another user's is neither
    taken for Asterisk nor ended, and named where it keeps Asterisk from its SIP port.

    monitor looks at more with each depth (OCF_CHECK_LEVEL=0, 10 or 20), as the table
    below tells. All that is asked is asked side by side, each question on a connection
    of its own; one that is silent is asked again while the first still waits, and what
    answers neither has failed. A dead Asterisk, a zombie, one that is stopped by a
    signal or frozen by its cgroup, or that has no SIP socket, has failed too.

    Where systemd runs, the start starts a watcher (asha-asterisk-watch@RESOURCE), which asks
    the same as depth 10 every second until Asterisk is to stop. Where a part is silent it
    has a monitor of depth 10 run at once (asha-asterisk-silent@RESOURCE), and only if that
    fails Pacemaker is told (crm_resource --fail). So depth 10 may be rare; it starts a watcher
    that is gone, and reports one that does not start as degraded.

    Reported as degraded and left running: a debugger or core dumper at work, a
    thread that never rests or that waits for a disk (but see disk_patience), a control
    socket, AMI or one of two SIP stacks that is gone while SIP answers (see when_lost),
    SIP that is taken by TLS or WebSocket only, an AstDB that answers with an error (see
    when_faulty), overload or no file left to open while SIP answers (see
    when_overloaded), SIP connections that are closed unanswered, a call that is refused,
    a missing pid file, an AMI user that is not accepted, TCP packets that a firewall
    rule on the node itself drops, any that it rejects, and an AstDB that was damaged (see
    when_damaged). The node attribute
    asha-asterisk says what, for as long as it is so (crm_mon -A).

    The call of depth 20 leaves no call record (CDR), no voicemail and no line in the log
    below verbose. It runs through the context asha-heartbeat, which the agent makes on the
    console (pbx_config, res_clioriginate) and which a reload of the dialplan drops, and
    leaves a word in the global variable ASHA_CALL. Listeners to AMI's events
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
        if not PLAIN_PATH.issuperset(self.last_good_directory):
            raise BadConfig(f'parameter last_good_directory="{self.last_good_directory}": must '
                            "have letters, digits, / . _ - only")
        for module in self._cdr_modules():
            from asha.asterisk.cdr import is_module

            if not is_module(module):
                raise BadConfig(f'parameter cdr_modules: "{module}" must be none or NAME.so ...')
        if level < 10:
            return
        if not os.access(self.binary, os.X_OK):
            raise NotInstalled(f"{self.binary} is absent: install Asterisk, or set binary")
        self.launcher().validate()
        try:
            Credentials.read(self.ami_secret_file)
        except BadHere as problem:
            self.warn(problem.reason)  # the phones work without

    @classmethod
    def appendix(cls) -> str:
        from asha.asterisk.probe_table import render
        from asha.asterisk.threads import Runaway, States

        rows = (States, ControlSocket, ManagerInterface, *QUESTIONS, Database, SipOptions,
                CallSetup, Runaway)
        return (
            "What monitor looks at, with the words of the parameter probes; channels and dialplan\n"
            f"are asked through AMI:\n\n{render(rows)}"
        )

    # Watching

    @action(timeout=20, interval=10, depth=0)
    @action(timeout=30, interval=20, depth=10)
    @action(timeout=40, interval=60, depth=20)
    def monitor(self) -> Exit:
        before = self.known()
        try:
            return self._watch()
        except Degraded:
            raise
        except AgentError as problem:
            if self.is_probe or self.action_name != "monitor":
                raise
            if not self._was_restarted(before):
                self._claim(problem, before)
                raise
        return self._watch()

    def _claim(self, problem: AgentError, process: Process | None) -> None:
        """Raises Degraded where Pacemaker knows it already: one failure counts once.

        A monitor and the watcher's judge may look at the same hang.
        """
        if not self.is_pacemakers or not isinstance(problem, Failed) or self.claim():
            return
        if process is not None and self._was_told_of(process):
            raise Degraded(f"{problem.reason}; Pacemaker was told of it")

    def _was_told_of(self, process: Process) -> bool:
        """Whether Pacemaker is about to act on a failure that the judge has told."""
        return self.read_state(TOLD) == process.identity and beat.is_fresh(
            self.state_path(TOLD), self.context.clock(), TOLD_SECONDS)

    def _was_restarted(self, before: Process | None) -> bool:
        """Whether it failed because somebody else restarts Asterisk, and it is up again."""
        launcher = self.launcher()
        patience = self.deadline.within(RESTART_SECONDS)
        is_seen = False
        while launcher.is_being_started():
            is_seen = True
            if patience.expired:
                return False
            patience.pause(RESTART_LOOK)
        process = self.present()
        is_another = before is not None and process is not None and (
            process.identity != before.identity
        )
        if process is None or not (is_seen or is_another):
            return False
        try:
            process = self._await_loaded(launcher, patience)
        except AgentError as problem:
            self.warn(problem.reason)
            return False
        self.info(f"somebody has restarted Asterisk: {process} serves")
        self._announce_deaths_of(process)
        return True

    def _watch(self) -> Exit:
        try:
            process, odd = self.find()
        except AgentError:
            if not self.is_probe and self.is_pacemakers:
                # This is how Pacemaker learns of it: one death is one failure.
                if self.read_state(SERVING):
                    self._count_death(self.launcher())
                self.forget(SERVING)
            raise
        if self.is_probe:
            self._refresh_attributes()
            return Exit.SUCCESS
        try:
            found = [(0, reason) for reason in odd] + Diagnosis(self, process).watch()
        except Degraded as problem:
            # A debugger is at work: nothing else was looked at.
            self._tell([(0, problem.reason)], 0)
            raise
        self.forget("hung")
        if self.check_level >= 20 and self.read_state(ASTDB):
            from asha.agents import asterisk_astdb

            found += asterisk_astdb.remarks(self)
        if self.check_level >= 20:
            told = self.read_state(KEPT).partition("\n")[2], self.read_state(UNKEPT)
            found += [(20, text) for text in told if text]
        if self.check_level >= 10 and self.read_state(WAS):
            self._keep_files(process)
        if self.check_level >= 10 and self.read_state("records") == process.identity:
            self._connect_records(process)
        if self.check_level >= 10 and self.is_pacemakers:
            found += self._see_that_it_is_watched(process)
        self._tell(found, self.check_level)
        if found:
            raise Degraded("; ".join(reason for _, reason in found))
        return Exit.SUCCESS

    def _see_that_it_is_watched(self, process: Process) -> list[Remark]:
        """Start the watcher if it is gone; a remark if that did not help."""
        is_announced = self.read_state(SERVING).startswith(f"{process.identity} ")
        if not is_announced and not self._was_told_of(process):
            # Somebody else has started it, or a failure was told and Pacemaker left it running.
            self._announce_deaths_of(process)
            return []
        if beat.is_fresh(self.state_path(beat.KIND), self.context.clock()):
            return []
        from asha.agents.watch import begin

        return begin.again(self)

    def _refresh_attributes(self) -> None:
        """Have the node's attributes written again: Pacemaker did not know that Asterisk runs.

        When a node's pacemaker-controld dies (with pacemaker-execd too), the other one's
        erases this node's attributes from the CIB, but pacemaker-attrd has them still and
        writes only what changes (seen with 3.0). Without DRBD's promotion score the
        telephones would move. It changes nothing here, so a probe may.
        """
        try:
            self.run("attrd_updater", "--refresh", cap=ATTRIBUTE_SECONDS)
        except AgentError as problem:
            self.warn(problem.reason)

    def _tell(self, found: list[Remark], looked: int) -> None:
        """Set the node's attribute; ``looked``: the depth of the deepest monitor."""
        if found or self.read_state(DEGRADED):
            self._attribute().tell_degraded(found, looked)

    def _attribute(self) -> NodeAttribute:
        from asha.asterisk import ATTRIBUTE
        from asha.ocf.attributes import NodeAttribute

        return NodeAttribute(self, ATTRIBUTE, memory=DEGRADED, cap=ATTRIBUTE_SECONDS)

    def _connect_records(self, process: Process) -> None:
        """Let the back ends of call records find a database that started after them."""
        from asha.asterisk import cdr

        try:
            if not cdr.database_is_up(self.database_socket, self.deadline):
                return
            console = Console(self.run_directory, process)
            said = cdr.reload_modules(console, self._cdr_modules(), self.deadline)
        except (Silent, OSError, cdr.NotYet) as problem:
            # Tried again by the next monitor; calls do not depend on it.
            self.warn(f"call records do not reach the database yet: {problem}")
            return
        self.forget("records")
        for line in said:
            if cdr.RELOADED in line:
                self.info(f"the database is up: {line}")
            else:
                # Again and again would only fill its log.
                self.warn(f"the database is up, but call records do not reach it: {line}")

    def _cdr_modules(self) -> list[str]:
        return [] if self.cdr_modules == "none" else self.cdr_modules.split()

    # Starting

    @action(timeout=60)
    def start(self) -> None:
        self.forget(SERVING)
        launcher = self.launcher()
        if self.ours(launcher).all():
            self.warn("an Asterisk that does not work is stopped first")
            self._end(launcher)
        warning = launcher.warning()
        if warning:
            self.warn(warning)
        remarks = self._make_astdb_usable()
        plan = self._plan()
        try:
            launcher.use(plan.path if plan else "")
            if plan:
                plan.begins()
            launcher.launch()
            launcher.while_it_loads()
            if remarks:
                self._tell(remarks, 20)
            process = self._await_loaded(launcher, self.deadline)
            self._await_service(launcher, process)
            if plan:
                plan.refuse(self._takes_sip(process))
        except Degraded:
            # A debugger is at work. It serves, and its death is news.
            self._announce_deaths_of(process)
            if plan:
                self._tell_files(plan, process, remarks)
            raise
        except AgentError as problem:
            if plan:
                by_files = isinstance(problem, NotBound) or (
                    isinstance(problem, EarlyDeath | NotLoaded) and problem.may_be_files
                )
                raise plan.failed(problem, by_files) from None
            raise
        self._announce_deaths_of(process)
        if plan:
            self._tell_files(plan, process, remarks)

    def _await_service(self, launcher: Launcher, process: Process) -> None:
        """Raises Failed."""
        while True:
            try:
                self._look_once(process)
                return
            except NotBound as problem:
                raise self._with_strangers(problem, process) from None
            except Failed as problem:
                if process.gone:
                    raise self._early_death(launcher) or problem from None
                # As long as the action may last: at this moment all phones register.
                if self.deadline.expired:
                    raise
                self.deadline.pause(ASK_AGAIN)

    def _plan(self) -> Plan | None:
        """With which files it is started."""
        if self.when_misconfigured == "fail":
            return None
        from asha.asterisk.lastgood.policy import Plan

        return Plan(self, self.last_good_directory, self.peer_available)

    def _tell_files(self, plan: Plan, process: Process, remarks: list[Remark]) -> None:
        told = [(20, text) for text in plan.served(process.identity)]
        if told:
            self._tell(remarks + told, 20)
        shown = plan.evidence() if self.evidence_keep else None
        if shown:
            from asha.asterisk import evidence

            place = evidence.note(self.evidence_directory, *shown, self.deadline)
            if place:
                self.info(f"how the files differ is kept in {place}")
            try:
                # Who changes the files has as many kept as he likes.
                evidence.prune(self.evidence_directory, self.evidence_keep,
                               self.evidence_megabytes, self.deadline)
            except AgentError as problem:
                self.warn(f"old evidence cannot be deleted: {problem.reason}")

    def _keep_files(self, process: Process) -> None:
        """As those of a start that served; some time after it."""
        if self.when_misconfigured == "fail" or (
            self.state_file(WAS).age() < SERVED_SECONDS
        ):
            return
        from asha.asterisk.lastgood import policy

        policy.keep(self, self.last_good_directory, process.identity, self._takes_sip(process))

    def _takes_sip(self, process: Process) -> str:
        """Where its stacks take SIP, as lines (SipSockets); "" where nobody has asked them."""
        identity, _, lines = self.read_state("sip").partition("\n")
        return lines if identity == process.identity else ""

    def _make_astdb_usable(self) -> list[Remark]:
        if self.when_damaged == "leave":
            return []
        from asha.agents import asterisk_astdb

        return asterisk_astdb.make_usable(self)

    def adopt(self) -> bool:
        launcher = self.launcher()
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
        if launcher.control_group == self.unit and not self.ours(launcher).is_member(process):
            # Ending it would end its calls; the next restart puts that right.
            self.warn(f"{process} was started by hand and not by {self.unit}: left running")
        self._announce_deaths_of(process)
        return True

    def _announce_deaths_of(self, process: Process) -> None:
        """Have systemd tell Pacemaker when it dies (asha/asterisk/process/death_notice.py), and
        the watcher when it hangs (asha/agents/watch)."""
        from asha.agents.watch import begin

        self.forget(TOLD)
        self.write_state(
            SERVING, f"{process.identity} {self.node} {self.unit} {self.user} {self.binary}"
        )
        begin.begin(self)

    def _await_loaded(self, launcher: Launcher, deadline: Deadline) -> Process:
        """Wait until all modules are loaded. Raises Failed with the reason of an early death."""
        deadline = deadline.within(deadline.remaining() - REASON_SECONDS)
        patience = deadline.within(UNHEARD_SECONDS)
        while True:
            process = self.present()
            if process is None:
                death = self._early_death(launcher)
                if death is not None:
                    raise death
            else:
                try:
                    console = Console(self.run_directory, process)
                    hold(console.wait_fully_booted(deadline.within(LOADING_LOOK)))
                    return process
                except (Silent, OSError) as problem:
                    if patience.expired:
                        patience = deadline.within(UNHEARD_SECONDS)
                        if self._has_loaded(launcher, process, problem):
                            return process
            if deadline.expired:
                from asha.asterisk import hindrance

                held = self._what_holds(process)
                why = "; ".join(held) or "does one of them wait for DNS?"
                raise NotLoaded(
                    f"ran out of time while Asterisk was loading its modules: {why}",
                    hindrance.is_of_configuration(held),
                )
            deadline.pause(LOOK_EVERY)

    def _has_loaded(self, launcher: Launcher, process: Process, problem: Exception) -> bool:
        """By other signs than the console's: the console's place is Asterisk's user's, who may
        have put something there, and the telephones do not need it."""
        if launcher.is_ready(process):
            return True
        # It makes its socket before it loads any module.
        return isinstance(problem, OSError) and any(
            process.listening(port, ("udp", "tcp")) for port in self.sip_port or [SIP_PORT]
        )

    def _what_holds(self, process: Process | None) -> list[str]:
        """What may keep Asterisk from starting, in words."""
        from asha.asterisk import hindrance

        limit = self.deadline.at_least(REASON_SECONDS).within(REASON_SECONDS)
        folders = [*hindrance.FOLDERS, self.run_directory]
        found = hindrance.odd_files(folders, self._account(), limit)
        if process is not None:
            # A FIFO that it waits at is named already, where one was found.
            waits = hindrance.waits_for(self.proc, process)
            found += [one for one in waits if not found or one.startswith(hindrance.STARTED)]
        return found

    def _with_strangers(self, problem: Failed, process: Process) -> Failed:
        """A process that keeps Asterisk from its ports is not ours to kill, but to name."""
        from asha.asterisk.process.port_owner import strangers_at

        learned = [int(line.split()[1]) for line in self.read_state("sip").splitlines()[1:]]
        ports = self.sip_port or learned or [SIP_PORT]
        found = strangers_at(self.proc, process, ports)
        return Failed("; ".join([problem.reason, *found])) if found else problem

    def _early_death(self, launcher: Launcher) -> EarlyDeath | None:
        reason = launcher.verdict_on_death()
        if reason is None:
            return None
        self._count_death(launcher)
        from asha.asterisk import hindrance

        held = self._what_holds(None)
        # First, as the end of a long reason is cut off.
        why = "; ".join([*held, reason])
        sent = launcher.last_end().get("MONITOR_EXIT_STATUS", "") in SENT
        return EarlyDeath(f"Asterisk ended while it started: {why}",
                          not (hindrance.ends_it(held) or sent))

    def _count_death(self, launcher: Launcher) -> None:
        """One of which systemd has not told (death_notice.py): `asha status` names a crash
        loop by them."""
        from asha.asterisk.process import deaths

        end = launcher.last_end()
        if end.get("MONITOR_EXIT_CODE") == "exited" and end["MONITOR_EXIT_STATUS"] == "0":
            return  # somebody has stopped it, or restarts it
        try:
            found = deaths.count(self.state_path("deaths"), end)
        except OSError as problem:
            self.warn(f"cannot write the death down: {problem.strerror}")
            return
        if found.is_loop:
            self.set_node_attribute(deaths.ATTRIBUTE, str(found), ATTRIBUTE_SECONDS)

    def _look_once(self, process: Process) -> None:
        """Check as at depth 10, and remember what is there, to be missed later. Raises Failed."""
        diagnosis = Diagnosis(self, process)
        if self.sip_port is None:
            diagnosis.sip.learn(self.deadline)
        probes, remarks = diagnosis.deep_probes()
        remarks += [reason for _, reason in diagnosis.examine(probes, {})]
        self.forget("hung")
        if self._cdr_modules():
            # Even where the database answers now: it may have come a moment too late.
            self.write_state("records", process.identity)
        for remark in remarks:
            self.warn(remark)

    # Stopping

    @action(timeout=30)
    def stop(self) -> None:
        self.forget(TOLD)  # first: a judge that cannot tell gives SERVING back only with it
        self.forget(SERVING)  # what dies from now on does so on purpose
        launcher = self.launcher()
        self._end(launcher)
        try:
            launcher.use("")  # who starts it by hand from now on wants today's files
        except AgentError as problem:
            self.warn(problem.reason)
        for kind in ("ami", "cpu", "hung", KNOWN, "records", "sip", *WATCHERS, KEPT, UNKEPT, WAS):
            self.forget(kind)
        if self.read_state(DEGRADED):
            self._attribute().tell_all_is_well()

    def _end(self, launcher: Launcher) -> None:
        """Work until nothing of Asterisk lives, nor anything that would start it again."""
        from asha.asterisk.process.termination import Terminator

        ending = Terminator(
            self.proc,
            self.ours(launcher),
            self.known(),
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
        """Whether a fence recovers: from what a monitor has found hung, if Pacemaker fences and
        another node is there to go on. Unknown means no.

        A stop that somebody asked for waits for a slow disk, and so does the last node: DRBD
        holds each write for seconds when its peer has lost power.
        """
        if not self.read_state("hung"):
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
        return on and self.peer_available()

    def _stands_still(self, process: Process) -> bool:
        """Whether one of its threads waits for a disk that stalls: it could save nothing."""
        before = {task.tid: task.switches for task in process.tasks_in(BLOCKED)}
        if not before:
            return False
        self.deadline.pause(STANDSTILL_LOOK)
        return any(before.get(task.tid) == task.switches for task in process.tasks_in(BLOCKED))

    def _grace(self) -> float:
        """The seconds in which Asterisk may end by itself."""
        process = self.present()
        if process is None:
            return 0.0
        if process.tasks_in(STOPPED, TRACED) or process.frozen_by():
            return 0.0  # it will not even see the signal
        if self.read_state("hung") == process.identity:
            return 0.0 if self._stands_still(process) else HUNG_GRACE
        console = Console(self.run_directory, process)
        try:
            hold(console.greet(self.deadline.within(GREETING_SECONDS)))
        except Silent:
            return HUNG_GRACE  # or only busy
        except OSError:
            pass  # the socket is gone; Asterisk itself may be well
        else:
            self._hang_up(console)
        return self.stop_grace

    def _hang_up(self, console: Console) -> None:
        """All calls, in the ordinary way, and wait a moment for their end.

        Asterisk does that itself when it is to end, but then sleeps for 1.1 s if there was any
        call (seen on 16.28: clock_nanosleep(2), 0.1 s and 1 s); the calls end within 20 ms.
        """
        patience = self.deadline.within(HANG_UP_SECONDS)
        try:
            hold(console.answer(patience, "channel request hangup all"))
            patience.poll(
                lambda: hold(console.answer(patience, "core show channels count"))
                .startswith("0 "), HANG_UP_LOOK)
        except (Silent, OSError):
            pass  # then Asterisk does it
