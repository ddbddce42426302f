"""Questions that a working Asterisk answers, each on its own connection.

A probe is a small class: a name, which part of Asterisk must work for an answer, and a
conversation. A new one needs a class here and a line in the agent's list; the manual's table is
made of their attributes (asha/asterisk/probe_table.py).
"""

from __future__ import annotations

from _socket import AF_UNIX, SOCK_STREAM

from asha.asterisk.process.proc import WILDCARD
from asha.asterisk.talk import control, sip
from asha.asterisk.talk.ami import Ami
from asha.asterisk.talk.connections import (
    Endless,
    Line,
    Multiplexer,
    NotConnected,
    Silent,
    Wait,
    side_by_side,
)
from asha.asterisk.talk.control import Console

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import ClassVar

    from asha.asterisk.process.proc import Endpoint, Process
    from asha.asterisk.talk.ami import Credentials
    from asha.asterisk.talk.connections import Conversation
    from asha.run.deadline import Deadline

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

# The console's words for a command that it has not, or does not let root give, and what to
# do (main/cli.c).
CONSOLE_REFUSES = {
    "No such command": "load pbx_config.so and res_clioriginate.so (modules.conf)",
    "You don't have permissions to run": "let root have it in cli_permissions.conf",
}

# What "dialplan show" prints of the context of the call when it is whole.
LAST_STEP = "'_k.' =>"

# What a call that hangs owes.
END_OF_CALL = "end of the call"

# Seconds between two looks at a call that is to end.
LOOK_AGAIN = 0.1

# Share of its patience after which one that is silent is asked a second time, while
# the first question still waits: so a hang is certain after 1.5 times the patience.
SECOND_ASKING = 0.5


class Verdict:
    """The result of one probe, in a word and in a sentence."""

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

    @property
    def key(self) -> str:
        """The same for each process that asks the same."""
        return f"{self.word} {self.where()}"

    def converse(self, deadline: Deadline) -> Conversation[Verdict]:
        """Ask, within the deadline. attempt() handles OSError and Silent."""
        raise NotImplementedError

    def attempt(self, deadline: Deadline) -> Conversation[Verdict]:
        """Ask once. Raises nothing."""
        return (yield from self.judge(self.converse(deadline), deadline.remaining()))

    def judge(
        self, conversation: Conversation[Verdict], patience: float
    ) -> Conversation[Verdict]:
        """The verdict on what came, or on what it means that nothing came. Raises nothing."""
        try:
            return (yield from conversation)
        except Endless as what:
            # Whoever can have it do that must not have all calls ended.
            said = f"sends without end: no {what} in {what.sent} bytes"
            return Verdict(self, UNKNOWN, f"{self.name} at {self.where()} {said}")
        except Silent as what:
            does = f"sent {what.sent} bytes and" if what.sent else "is silent:"
            reason = f"{self.name} at {self.where()} {does} no {what} within {patience:.1f} s"
            return self.silence(what, reason)
        except (ConnectionError, FileNotFoundError) as problem:
            finding = self.meaning_of(problem)
            return Verdict(self, finding, f"{self.name}: {self.refusal(problem, finding)}")
        except OSError as problem:
            reason = f"{self.name} at {self.where()} cannot be asked: {problem.strerror}"
            return Verdict(self, UNKNOWN, reason)

    def meaning_of(self, problem: OSError) -> str:
        """The verdict if the kernel or Asterisk refuses."""
        return self.hung_up if isinstance(problem, ConnectionResetError) else REFUSED

    def refusal(self, problem: OSError, finding: str) -> str:
        """The reason, in words a person can act on."""
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
        self.console = Console(run_directory, process)
        self.process = process

    def where(self) -> str:
        return self.console.path

    def visit(self, deadline: Deadline) -> Line:
        return Line(AF_UNIX, SOCK_STREAM, deadline)

    def enter(self, line: Line) -> Conversation[Verdict]:
        """The greeting of a visit."""
        yield from self.console.connect(line)
        greeting = yield from control.greeting(line)
        # Not from the end: a version may be "certified/18.9-cert3".
        pid = [*greeting.split("/", 2), ""][1]
        if not pid.isdecimal():
            # Out of open files, for one: it says so and hangs up.
            reason = f'control socket {self.where()} says "{greeting}" instead of its greeting'
            return Verdict(self, UNKNOWN, reason)
        if pid != str(self.process.pid):
            reason = (
                f"control socket {self.where()} belongs to process {pid}, "
                f"but Asterisk is process {self.process.pid}"
            )
            return Verdict(self, UNKNOWN, reason)
        return Verdict(self, HEALTHY)

    def converse(self, deadline: Deadline) -> Conversation[Verdict]:
        with self.visit(deadline) as line:
            return (yield from self.enter(line))

    def refusal(self, problem: OSError, finding: str) -> str:
        return console_is_gone(self.where(), problem)


def console_is_gone(path: str, problem: OSError) -> str:
    """Why nothing accepts a connection at the control socket."""
    if isinstance(problem, FileNotFoundError):
        return f"{path} is gone, somebody has removed it"
    if isinstance(problem, ConnectionResetError):
        return f"{path} closed the connection without an answer"
    from asha.asterisk.hindrance import kind_at

    kind = kind_at(path)
    if kind not in ("", "socket"):
        return f"{path} is a {kind} and no socket: rm -r {path}"
    return f"nobody listens at {path}"


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
        """The same socket as it is now, None if it is closed."""
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
        if not self.endpoint.is_held:
            # It was there all the time, or the greeting may be somebody else's.
            reason = f"{self.where()} is not Asterisk's any more: nothing was said to it"
            return Verdict(self, UNKNOWN, f"{self.name}: {reason}")
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
    """Base of those that make AMI take one lock of Asterisk's.

    Each has its own session: an action that waits for a lock stops its session and no other
    (main/manager.c has a thread for each session). What goes wrong before the question is
    AMI's, and is the verdict of ManagerInterface.
    """

    # Who waits for a lock is silent. One that is hung up on met AMI's own limit
    # (authlimit in manager.conf) or its reload, of which no call knows.
    vital = False
    # What the account must be allowed, as in manager.conf.
    needs = "write=reporting"

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
        """Ask; returns "" or Asterisk's complaint. Raises NotAsked."""
        raise NotImplementedError

    def allowed(self, ami: Ami, name: str, **fields: str) -> Conversation[dict[str, str]]:
        """The response to an action. Raises NotAsked if the account may not do it: that is
        refused before any lock is taken (main/manager.c, process_message())."""
        answer = yield from ami.action(name, **fields)
        if answer.get("Message") == "Permission denied":
            user = self.manager.who.user if self.manager.who else ""
            raise NotAsked(f"AMI's user {user} needs {self.needs} in manager.conf")
        return answer


class NotAsked(Exception):
    """The question could not be asked; the message says why."""


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


class Asking:
    """The console questions of one attempt, until ``deadline``."""

    __slots__ = ("control_socket", "deadline", "was_let_in")

    def __init__(self, control_socket: ControlSocket, deadline: Deadline) -> None:
        self.control_socket = control_socket
        self.deadline = deadline
        self.was_let_in = False

    def put(self, *commands: str) -> Conversation[str]:
        """The output of these commands. Raises NotAsked, NotLetIn; Silent and OSError too."""
        with self.control_socket.visit(self.deadline) as line:
            entering = self.control_socket.enter(line)
            if self.was_let_in:
                # Not judged again: the patience of this one is what the others have left.
                entry = yield from entering
            else:
                entry = yield from self.control_socket.judge(entering, self.deadline.remaining())
            if not entry.healthy:
                raise NotLetIn(entry)
            self.was_let_in = True
            answer = yield from control.last_answer(line, *commands)
        for refusal, hint in CONSOLE_REFUSES.items():
            if refusal in answer:
                raise NotAsked(f"{answer.strip().splitlines()[0]}: {hint}")
        return answer


class NotLetIn(Exception):
    """The verdict on the control socket, before the question could be asked."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(verdict.reason)
        self.verdict = verdict


class ConsoleQuestion(Probe):
    """Base of those that ask on the console, which only root may use.

    AMI's user would need rights with which anybody who has its secret can run programs as
    Asterisk's user: DBPut is of the class "system", as is ModuleLoad, which runs a file of any
    directory (seen with 16.28); "command" and "originate" lead to System(). Each command has
    its own thread (main/asterisk.c, netconsole()): one that waits for a lock stops no other.
    What goes wrong before the question is the verdict on the control socket.
    """

    depth = 10
    vital = False

    def __init__(self, control_socket: ControlSocket) -> None:
        self.control_socket = control_socket

    def where(self) -> str:
        return self.control_socket.where()

    def refusal(self, problem: OSError, finding: str) -> str:
        return console_is_gone(self.where(), problem)

    def attempt(self, deadline: Deadline) -> Conversation[Verdict]:
        patience = deadline.remaining()
        try:
            return (yield from self.judge(self.converse(deadline), patience))
        except NotLetIn as problem:
            return problem.verdict

    def converse(self, deadline: Deadline) -> Conversation[Verdict]:
        try:
            problem = yield from self.question(Asking(self.control_socket, deadline))
        except NotAsked as why:
            return Verdict(self, UNKNOWN, f"{self.name} not looked at: {why}")
        return Verdict(self, FAULTY, problem) if problem else Verdict(self, HEALTHY)

    def question(self, asking: Asking) -> Conversation[str]:
        """Ask; returns "" or Asterisk's complaint. Raises NotAsked."""
        raise NotImplementedError


class Database(ConsoleQuestion):
    name = "AstDB"
    word = "astdb"
    asked = "database put and get of asha/heartbeat, on the console"
    exercises = "the database of registrations: its lock, its file and the disk below"
    means = "hung (see disk_patience): telephones cannot register; an error: degraded "\
        "(when_faulty)"
    costs = "a connection, a key written"

    def question(self, asking: Asking) -> Conversation[str]:
        said = yield from asking.put(
            f"database put asha heartbeat {self.control_socket.process.started}",
            "database get asha heartbeat",
        )
        lines = said.strip().splitlines() or ["no reason given"]
        if "Updated database successfully" not in said:
            return f"AstDB does not take a key ({lines[0]})"
        if "Value: " not in said:
            return f"AstDB does not give a key back ({lines[-1]})"
        return ""


class CallSetup(ConsoleQuestion):
    name = "call setup"
    word = "call"
    depth = 20
    asked = "a Local channel through a context of our own, by the console"
    exercises = "a whole call: channels, a thread, the dialplan, an answer, the end"
    means = "hung; refused: degraded (when_faulty)"
    costs = "two channels for milliseconds"

    # The context is made by the console when it is not there: a reload of the dialplan
    # drops it, and nobody's extensions.conf is touched. One half answers and waits; the
    # other then runs the extension of this one call, which leaves the sign that it came so
    # far, and hangs up both: a call of some milliseconds, so that hardly a reload meets
    # it. NoCDR is gone in Asterisk 21, CDR_PROP is in all since 12 (funcs/func_cdr.c).
    CONTEXT = "asha-heartbeat"
    NO_RECORD = "Set(CDR_PROP(disable)=1)"
    SIGN = "ASHA_CALL"
    # Seconds for the waiting half to end by itself: more than any patience.
    STEPS = (
        ("s", (NO_RECORD, "Answer()", "Wait(60)")),
        ("_k.", (NO_RECORD, f"Set(GLOBAL({SIGN})=${{EXTEN}})")),
    )
    # As "local show channels" names one that has not ended.
    HALF = f"s@{CONTEXT}"

    def __init__(self, control_socket: ControlSocket) -> None:
        super().__init__(control_socket)
        # Of the calls asked for in this look.
        self._signs: list[str] = []

    def question(self, asking: Asking) -> Conversation[str]:
        yield from self._end_of_the_last(asking)
        for again in range(REMADE_MOST + 1):
            # A call without it is refused, and Asterisk logs a warning.
            if again or LAST_STEP not in (yield from asking.put(f"dialplan show {self.CONTEXT}")):
                yield from self._make_context(asking)
            if (yield from self._call(asking)):
                return ""
        return (
            "Asterisk sets up no call: is it at its maxcalls or maxload (asterisk.conf), or "
            "being stopped when it is idle?"
        )

    def _end_of_the_last(self, asking: Asking) -> Conversation[None]:
        """Never two calls: what holds one up would keep each of them without end."""
        ours = bool(self._signs)
        patience = asking.deadline.within(asking.deadline.remaining() / (1 if ours else 2))
        while (yield from self._is_there(asking)):
            if patience.expired:
                if ours:
                    raise Silent(END_OF_CALL)
                raise NotAsked(
                    f"the call of the monitor before ({self.HALF}) has not ended: does the "
                    "database for call records answer?"
                )
            yield Wait(-1, 0, patience.within(LOOK_AGAIN))

    def _call(self, asking: Asking) -> Conversation[bool]:
        """Whether the call came through to its end; False if it was refused."""
        import os

        extension = f"k{os.urandom(4).hex()}"
        self._signs.append(f"{self.SIGN}={extension}")
        # Asterisk makes both channels before it answers, or none; and gives up by itself
        # after 30 s (res/res_clioriginate.c), also when nobody listens any more.
        yield from asking.put(
            f"channel originate Local/{self.HALF}/n extension {extension}@{self.CONTEXT}"
        )
        while (yield from self._is_there(asking)):
            yield Wait(-1, 0, asking.deadline.within(LOOK_AGAIN))
        said = yield from asking.put("dialplan show globals")
        return any(sign in said for sign in self._signs)

    def _is_there(self, asking: Asking) -> Conversation[bool]:
        """Whether a call of ours has not ended. Raises Silent if there is no time left to ask."""
        if self._signs and asking.deadline.expired:
            raise Silent(END_OF_CALL)
        try:
            return self.HALF in (yield from asking.put("local show channels"))
        except Endless:
            raise
        except Silent:
            raise Silent(END_OF_CALL if self._signs else "list of Local channels") from None

    def _make_context(self, asking: Asking) -> Conversation[None]:
        engine = yield from asking.put("module show like func_cdr.so")
        # Without it nobody keeps records, and the step would be logged.
        off = "\n0 modules loaded" in f"\n{engine}"
        commands = [
            f"dialplan add extension {extension},{priority},{step} into {self.CONTEXT} replace"
            for extension, steps in self.STEPS
            for priority, step in enumerate(steps[1:] if off else steps, 1)
        ]
        yield from asking.put(*commands)


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


# What is asked through AMI, and on the console; their words, and the other two's, are for
# the parameter probes.
QUESTIONS = (ChannelLocks, DialplanLock)
CONSOLE_QUESTIONS = (Database, CallSetup)
PROBES = tuple(
    probe.word for probe in (ManagerInterface, *QUESTIONS, *CONSOLE_QUESTIONS, SipOptions)
)


def ask(
    probes: Sequence[Probe],
    deadline: Deadline,
    patience: float,
    owes_another: Callable[[str], bool] = lambda key: False,
) -> list[Verdict]:
    """Ask all in parallel, ``patience`` seconds each; results in the order of the probes.

    One lost answer is not a hang: a probe that is silent or refused is asked once more, and
    counts as hung only if neither question is answered. ``owes_another``: whether the probe of
    this key owes somebody else an answer, for so long that a second question is due. Who does,
    from the beginning to the end, is asked once.
    """
    with Multiplexer() as talks:
        for probe in probes:
            talks.begin(probe.attempt(deadline.within(patience)))
        talks.go_on(deadline.within(patience * SECOND_ASKING))
        silent = [
            number for number in range(len(probes))
            if number not in talks.results or talks.results[number].finding == HUNG
        ]
        again = {
            number: talks.begin(probes[number].attempt(deadline.within(patience)))
            for number in silent if not owes_another(probes[number].key)
        }
        talks.go_on()
        # Its other question was answered meanwhile.
        again |= {
            number: talks.begin(probes[number].attempt(deadline.within(patience)))
            for number in silent
            if number not in again and talks.results[number].finding == HUNG
            and not owes_another(probes[number].key)
        }
        talks.go_on()
        verdicts: list[Verdict] = [talks.results[number] for number in range(len(probes))]
        for number, second in again.items():
            if verdicts[number].finding == HUNG:
                verdicts[number] = talks.results[second]
    verdicts = [_second_of_two(one) for one in verdicts]
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
