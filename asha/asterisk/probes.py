"""Questions that a living Asterisk answers, each on its own connection.

A probe is a small class: a name, what part of Asterisk must work for an answer, and
a conversation. New ones only add a class here and a line in the agent's list; the
manual's table is made of their attributes (asha/asterisk/table.py).
"""

from __future__ import annotations

from asha.asterisk import control, sip
from asha.asterisk.ami import Ami
from asha.asterisk.proc import WILDCARD
from asha.asterisk.wire import NotConnected, Silent, Talks, Wait, side_by_side

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import ClassVar

    from asha.asterisk.ami import Credentials
    from asha.asterisk.proc import Endpoint, Process
    from asha.asterisk.wire import Conversation
    from asha.ocf.deadline import Deadline

# What a probe can find.
HEALTHY = "healthy"
# Somebody listens and nothing comes: the sign of a hang.
HUNG = "hung"
# Somebody says no, at once: nobody listens, or the login is not accepted.
REFUSED = "refused"
# It answers at once, with an error: the database is locked, the disk is full.
FAULTY = "faulty"
# Nothing is known, because our question could not be put: for a reason on our side.
UNKNOWN = "unknown"

# Seconds before one that refused is asked again: Asterisk closes and opens its
# sockets when it restarts itself.
SECOND_TRY_AFTER = 1.0

# How often the context of a call is made anew within one look: a reload may drop it
# just then.
REMADE_MOST = 3

# Seconds between two looks at a call that is to end.
LOOK_AGAIN = 0.1

# Share of its patience after which one that is silent is asked a second time, while
# the first question still waits: so a hang is certain after 1.5 times the patience.
SECOND_ASKING = 0.5


class Verdict:
    """What one probe found, in a word and in a sentence."""

    __slots__ = ("finding", "probe", "reason")

    def __init__(self, probe: Probe, finding: str, reason: str = "") -> None:
        self.probe = probe
        self.finding = finding
        self.reason = reason

    @property
    def healthy(self) -> bool:
        return self.finding == HEALTHY


class Probe:
    """Base of all probes."""

    # The part of Asterisk, as the reason names it.
    name: ClassVar[str] = ""
    # Its word in the parameter probes, "" for what is always asked.
    word: ClassVar[str] = ""
    # The OCF_CHECK_LEVEL from which on it is asked.
    depth: ClassVar[int] = 0
    # For the manual: how it is asked, what has to work inside Asterisk for an answer,
    # what it means that none comes, and what of Asterisk it costs.
    asked: ClassVar[str] = ""
    exercises: ClassVar[str] = ""
    means: ClassVar[str] = ""
    costs: ClassVar[str] = ""
    # Asterisk's users notice when this does not answer.
    vital = True
    # What it means that a connection is taken and closed without a word.
    hung_up: ClassVar[str] = REFUSED

    def where(self) -> str:
        """The address that is asked, for the reason."""
        raise NotImplementedError

    def converse(self, deadline: Deadline) -> Conversation[Verdict]:
        """Ask, within the deadline. OSError and Silent are judged by attempt()."""
        raise NotImplementedError

    def attempt(self, deadline: Deadline) -> Conversation[Verdict]:
        """Ask once. Raises nothing."""
        return (yield from self.judge(self.converse(deadline), deadline.remaining()))

    def judge(
        self, conversation: Conversation[Verdict], patience: float
    ) -> Conversation[Verdict]:
        """What comes of it, or what it means that nothing does. Raises nothing."""
        try:
            return (yield from conversation)
        except Silent as what:
            reason = f"{self.name} at {self.where()} is silent: no {what} within {patience:.1f} s"
            return self.silence(what, reason)
        except (ConnectionError, FileNotFoundError) as problem:
            finding = self.meaning_of(problem)
            return Verdict(self, finding, f"{self.name}: {self.refusal(problem, finding)}")
        except OSError as problem:
            reason = f"{self.name} at {self.where()} cannot be asked: {problem.strerror}"
            return Verdict(self, UNKNOWN, reason)

    def meaning_of(self, problem: OSError) -> str:
        """The finding, when the kernel or Asterisk says no."""
        return self.hung_up if isinstance(problem, ConnectionResetError) else REFUSED

    def refusal(self, problem: OSError, finding: str) -> str:
        """Why, in words a person can act on."""
        raise NotImplementedError

    def silence(self, what: Silent, reason: str) -> Verdict:
        """What it means that nothing came."""
        return Verdict(self, HUNG, reason)


class ControlSocket(Probe):
    name = "control socket"
    asked = "its greeting"
    exercises = "the console's listener, and that a new thread starts"
    means = "hung; gone: degraded (when_lost)"
    costs = "a thread for a moment"
    vital = False

    def __init__(self, run_directory: str, process: Process) -> None:
        self.path = f"{run_directory}/{control.SOCKET_NAME}"
        self.process = process

    def where(self) -> str:
        return self.path

    def converse(self, deadline: Deadline) -> Conversation[Verdict]:
        greeting = yield from control.greet(self.path, deadline)
        # Not from the end: a version may be "certified/18.9-cert3".
        pid = [*greeting.split("/", 2), ""][1]
        if not pid.isdecimal():
            # Out of open files, for one: it says so and hangs up.
            reason = f'control socket {self.path} says "{greeting}" instead of its greeting'
            return Verdict(self, UNKNOWN, reason)
        if pid != str(self.process.pid):
            reason = (
                f"control socket {self.path} belongs to process {pid}, "
                f"but Asterisk is process {self.process.pid}"
            )
            return Verdict(self, UNKNOWN, reason)
        return Verdict(self, HEALTHY)

    def refusal(self, problem: OSError, finding: str) -> str:
        if isinstance(problem, FileNotFoundError):
            return f"{self.path} is gone, somebody has removed it"
        return f"nobody listens at {self.path}"


class PortProbe(Probe):
    """Base of those that ask at a port of Asterisk's."""

    depth = 10

    def __init__(self, endpoint: Endpoint, process: Process) -> None:
        self.endpoint = endpoint
        self.process = process

    def where(self) -> str:
        return str(self.endpoint)

    def meaning_of(self, problem: OSError) -> str:
        if isinstance(problem, ConnectionRefusedError) and self._now():
            return UNKNOWN
        return super().meaning_of(problem)

    def refusal(self, problem: OSError, finding: str) -> str:
        if isinstance(problem, ConnectionResetError):
            return f"{self.where()} closed the connection without an answer"
        if finding == UNKNOWN:
            return (
                f"{self.where()} is refused though Asterisk listens there: look at the "
                "firewall rules of this node"
            )
        return f"nobody listens at {self.where()} any more"

    def silence(self, what: Silent, reason: str) -> Verdict:
        unread = self._unread()
        if isinstance(what, NotConnected) and not unread:
            # The kernel connects for Asterisk while its queue has room.
            reason = (
                f"{self.name} at {self.where()} cannot be asked: packets to it are lost "
                "though its queue is empty; look at the firewall rules of this node"
            )
            return Verdict(self, UNKNOWN, reason)
        if unread:
            unit = "connections" if self.endpoint.protocol == "tcp" else "bytes"
            reason += f", {unread} {unit} wait unread"
        return Verdict(self, HUNG, reason)

    def _unread(self) -> int:
        """What waits in the socket now: bytes, or connections to accept."""
        return sum(one.queue for one in self._now())

    def _now(self) -> list[Endpoint]:
        """The same socket as it is now, none when it is closed."""
        mine = self.endpoint
        now = self.process.listening(mine.port, (mine.protocol,))
        if mine.inode:
            return [one for one in now if one.inode == mine.inode]
        # An address that the resource was given.
        return [one for one in now if one.bound == mine.address or one.bound in WILDCARD]


class ManagerInterface(PortProbe):
    name = "AMI"
    word = "ami"
    asked = "greeting and login"
    exercises = "the manager's listener and sessions, the list of its users"
    means = "hung; gone: degraded (when_lost)"
    costs = "a session, shared with the questions"
    vital = False

    def __init__(self, endpoint: Endpoint, process: Process, who: Credentials | None) -> None:
        super().__init__(endpoint, process)
        self.who = who

    def visit(self, deadline: Deadline) -> Ami:
        return Ami((self.endpoint.address, self.endpoint.port), deadline)

    def enter(self, ami: Ami) -> Conversation[Verdict]:
        """The greeting and the login of a visit."""
        yield from ami.greet()
        if self.who is not None and not (yield from ami.login(self.who)):
            reason = (
                f"AMI does not accept user {self.who.user}: "
                "compare its secret with Asterisk's manager.conf"
            )
            return Verdict(self, UNKNOWN, reason)
        return Verdict(self, HEALTHY)

    def converse(self, deadline: Deadline) -> Conversation[Verdict]:
        with self.visit(deadline) as ami:
            return (yield from self.enter(ami))


class ManagerQuestion(PortProbe):
    """Base of those that have AMI do something which takes one lock of Asterisk's.

    Each in a session of its own: an action that waits for a lock stops its session,
    and no other (main/manager.c serves each session by a thread of its own). What
    goes wrong before the question is AMI's, and is the manager's verdict.
    """

    # Who waits for a lock is silent. One that is hung up on met AMI's own limit
    # (authlimit in manager.conf) or its reload, of which no call knows.
    vital = False
    # What the account must be allowed, as in manager.conf.
    needs = "read=system,reporting and write=system,reporting"

    def __init__(self, manager: ManagerInterface) -> None:
        super().__init__(manager.endpoint, manager.process)
        self.manager = manager

    def attempt(self, deadline: Deadline) -> Conversation[Verdict]:
        patience = deadline.remaining()
        with self.manager.visit(deadline) as ami:
            entry = yield from self.manager.judge(self.manager.enter(ami), patience)
            if not entry.healthy:
                return entry
            return (yield from self.judge(self.put(ami), patience))

    def put(self, ami: Ami) -> Conversation[Verdict]:
        try:
            problem = yield from self.question(ami)
        except NotAsked as why:
            return Verdict(self, UNKNOWN, f"{self.name} not looked at: {why}")
        return Verdict(self, FAULTY, problem) if problem else Verdict(self, HEALTHY)

    def question(self, ami: Ami) -> Conversation[str]:
        """Ask; "" or what Asterisk complains of. Raises NotAsked."""
        raise NotImplementedError

    def allowed(self, ami: Ami, name: str, **fields: str) -> Conversation[dict[str, str]]:
        """The response to an action. Raises NotAsked where the account may not have it:
        that is refused before any lock is taken (main/manager.c, process_message())."""
        answer = yield from ami.action(name, **fields)
        if answer.get("Message") == "Permission denied":
            user = self.manager.who.user if self.manager.who else ""
            raise NotAsked(f"AMI's user {user} needs {self.needs} in manager.conf")
        return answer


class NotAsked(Exception):
    """The question could not be put; says why."""


class ChannelLocks(ManagerQuestion):
    name = "channel lock"
    word = "channels"
    asked = "Getvar on a channel that cannot exist"
    exercises = "the list of channels and the lock of each: calls begin and end under them"
    means = "hung: calls neither begin nor end"
    costs = "a session, a walk over the channels"

    def question(self, ami: Ami) -> Conversation[str]:
        # A channel that cannot exist is searched in all of them, under the container's
        # lock and each channel's own, and nothing is made (ast_channel_get_by_name).
        yield from self.allowed(ami, "Getvar", Channel="ASHA/no-such-channel", Variable="ASHA")
        return ""


class DialplanLock(ManagerQuestion):
    name = "dialplan lock"
    word = "dialplan"
    asked = "ShowDialPlan of a context that does not exist"
    exercises = "the list of contexts: each step of each call, and most of SIP, reads it"
    means = "hung: calls stand still"
    costs = "a session, a walk over the names"

    def question(self, ami: Ami) -> Conversation[str]:
        # Refused, and only after it was searched under the lock (main/pbx.c, conlock).
        yield from self.allowed(ami, "ShowDialPlan", Context="asha-no-such-context")
        return ""


class Database(ManagerQuestion):
    name = "AstDB"
    word = "astdb"
    asked = "DBPut and DBGet of asha/heartbeat"
    exercises = "the database of registrations: its lock, its file and the disk below"
    means = "hung (see disk_patience): telephones cannot register; an error: degraded "\
        "(when_faulty)"
    costs = "a session, a key written"

    def question(self, ami: Ami) -> Conversation[str]:
        key = {"Family": "asha", "Key": "heartbeat"}
        put = yield from self.allowed(ami, "DBPut", **key, Val=self.process.started)
        if put.get("Response") != "Success":
            said = put.get("Message", "no reason given")
            return f"AstDB does not take a key ({said})"
        got = yield from self.allowed(ami, "DBGet", **key)
        if got.get("Response") != "Success":
            return f"AstDB does not give a key back ({got.get('Message', 'no reason given')})"
        return ""


class CallSetup(ManagerQuestion):
    name = "call setup"
    word = "call"
    depth = 20
    asked = "Originate of a Local channel through a context of our own"
    exercises = "a whole call: channels, a thread, the dialplan, an answer, the end"
    means = "hung; refused: degraded (when_faulty)"
    costs = "two channels for milliseconds"
    needs = "read=system,reporting and write=system,reporting,originate"

    # The context is made by AMI when it is not there: a reload of the dialplan drops it,
    # and nobody's extensions.conf is touched. Both halves run it, and the first to come to
    # its end hangs up the other: a call of some milliseconds, so that hardly a reload
    # meets it. NoCDR is gone in Asterisk 21, CDR_PROP is in all since 12 (funcs/func_cdr.c).
    CONTEXT = "asha-heartbeat"
    NO_RECORD = ("Set", "CDR_PROP(disable)=1")
    STEPS = (NO_RECORD, ("Answer", ""))
    # By these names an earlier one is found that has not ended.
    HALVES = ("asha-heartbeat-1", "asha-heartbeat-2")

    def __init__(self, manager: ManagerInterface) -> None:
        super().__init__(manager)
        self._called = False

    def question(self, ami: Ami) -> Conversation[str]:
        yield from self._end_of_the_last(ami)
        self._called = True
        answer = yield from self._originate(ami)
        for _ in range(REMADE_MOST):
            if answer.get("Response") == "Success":
                break
            # Refused at once and without a word in the log where the context is not there.
            yield from self._make_context(ami)
            answer = yield from self._originate(ami)
        if answer.get("Response") == "Success":
            return ""
        said = answer.get("Message", "no reason given")
        return (
            f"Asterisk sets up no call ({said}): is it at its maxcalls or maxload "
            "(asterisk.conf), or being stopped when it is idle?"
        )

    def _end_of_the_last(self, ami: Ami) -> Conversation[None]:
        """Never two of them: what holds one up would keep each for ever."""
        patience = ami.deadline.within(ami.deadline.remaining() / (1 if self._called else 2))
        for half in self.HALVES:
            while True:
                found = yield from self.allowed(ami, "Getvar", Channel=half, Variable="ASHA")
                if found.get("Response") != "Success":
                    break
                if patience.expired:
                    if self._called:
                        raise Silent("end of the call that was asked for first")
                    raise NotAsked(
                        f"the call of the monitor before ({half}) has not ended: does the "
                        "database for call records answer?"
                    )
                yield Wait(-1, 0, patience.within(LOOK_AGAIN))

    def _originate(self, ami: Ami) -> Conversation[dict[str, str]]:
        # Asterisk gives up by itself, also when nobody listens any more: not before us,
        # or its refusal would be taken for an answer.
        patience = int(2000 * ami.deadline.remaining()) + 1
        return (
            yield from self.allowed(
                ami,
                "Originate",
                Channel=f"Local/s@{self.CONTEXT}/n",
                Context=self.CONTEXT,
                Exten="s",
                Priority="1",
                Timeout=str(patience),
                ChannelId=self.HALVES[0],
                OtherChannelId=self.HALVES[1],
            )
        )

    def _make_context(self, ami: Ami) -> Conversation[None]:
        steps = list(self.STEPS)
        engine = yield from self.allowed(ami, "ModuleCheck", Module="func_cdr")
        if engine.get("Response") != "Success":
            steps.remove(self.NO_RECORD)  # nobody keeps records, and it would be logged
        for priority, (application, data) in enumerate(steps, 1):
            made = yield from self.allowed(
                ami,
                "DialplanExtensionAdd",
                Context=self.CONTEXT,
                Extension="s",
                Priority=str(priority),
                Application=application,
                ApplicationData=data,
                Replace="yes",
            )
            if made.get("Response") != "Success":
                said = made.get("Message", "no reason given")
                raise NotAsked(f"its context {self.CONTEXT} cannot be made ({said})")


class SipOptions(PortProbe):
    name = "SIP"
    word = "sip"
    # Somebody lives who does that: chan_sip, with more connections than its tcpauthlimit.
    # Whoever can connect could else have all calls ended.
    hung_up = UNKNOWN
    asked = "OPTIONS to each UDP and TCP address it is bound to"
    exercises = "the transport, its thread, the dispatch of a request"
    means = "hung; too busy, out of files: degraded (when_overloaded); closed unanswered, "\
        "refused by a firewall: degraded"
    costs = "a request each"

    def converse(self, deadline: Deadline) -> Conversation[Verdict]:
        yield from sip.options(self.endpoint, deadline)
        return Verdict(self, HEALTHY)


# What is asked through AMI; their words, and the other two's, are for the parameter probes.
QUESTIONS = (ChannelLocks, DialplanLock, Database, CallSetup)
PROBES = tuple(probe.word for probe in (ManagerInterface, *QUESTIONS, SipOptions))


def ask(probes: Sequence[Probe], deadline: Deadline, patience: float) -> list[Verdict]:
    """Ask all side by side, ``patience`` seconds each; in the order of the probes.

    One lost answer is not a hang: who is silent or refuses is asked once more, and
    counts as hung only when neither question is answered.
    """
    with Talks() as talks:
        for probe in probes:
            talks.begin(probe.attempt(deadline.within(patience)))
        talks.go_on(deadline.within(patience * SECOND_ASKING))
        again = {
            number: talks.begin(probe.attempt(deadline.within(patience)))
            for number, probe in enumerate(probes)
            if number not in talks.results or talks.results[number].finding == HUNG
        }
        talks.go_on()
        verdicts: list[Verdict] = [talks.results[number] for number in range(len(probes))]
        for number, second in again.items():
            if verdicts[number].finding == HUNG:
                verdicts[number] = _second_of_two(talks.results[second])
    refused = [number for number, one in enumerate(verdicts) if one.finding == REFUSED]
    if refused:
        deadline.pause(SECOND_TRY_AFTER)
        more = side_by_side([probes[n].attempt(deadline.within(patience)) for n in refused])
        for number, verdict in zip(refused, more, strict=True):
            verdicts[number] = verdict
    return verdicts


def _second_of_two(verdict: Verdict) -> Verdict:
    if verdict.finding == HUNG:
        verdict.reason += ", asked twice"
    return verdict
