"""Questions that a living Asterisk answers, each on its own connection.

A probe is a small class: a name, what part of Asterisk must work for an answer, and
a conversation. New ones only add a class here and a line in the agent's list.
"""

from __future__ import annotations

from asha.asterisk import control, sip
from asha.asterisk.ami import Ami
from asha.asterisk.wire import NotConnected, Silent, side_by_side

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

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
    name: str = ""
    # What has to work inside Asterisk for an answer, for the manual.
    exercises: str = ""
    # Asterisk's users notice when this does not answer.
    vital = True

    def where(self) -> str:
        """The address that is asked, for the reason."""
        raise NotImplementedError

    def converse(self, deadline: Deadline) -> Conversation[Verdict]:
        """Ask, within the deadline. OSError and Silent are judged by attempt()."""
        raise NotImplementedError

    def attempt(self, deadline: Deadline) -> Conversation[Verdict]:
        """Ask once. Raises nothing."""
        patience = deadline.remaining()
        try:
            return (yield from self.converse(deadline))
        except Silent as what:
            reason = f"{self.name} at {self.where()} is silent: no {what} within {patience:.1f} s"
            return self.silence(what, reason)
        except (ConnectionError, FileNotFoundError) as problem:
            return Verdict(self, REFUSED, f"{self.name}: {self.refusal(problem)}")
        except OSError as problem:
            reason = f"{self.name} at {self.where()} cannot be asked: {problem.strerror}"
            return Verdict(self, UNKNOWN, reason)

    def refusal(self, problem: OSError) -> str:
        """Why, in words a person can act on."""
        raise NotImplementedError

    def silence(self, what: Silent, reason: str) -> Verdict:
        """What it means that nothing came."""
        return Verdict(self, HUNG, reason)


class ControlSocket(Probe):
    name = "control socket"
    exercises = "the console listener: a new thread starts and writes its greeting"
    vital = False

    def __init__(self, run_directory: str, process: Process) -> None:
        self.path = f"{run_directory}/{control.SOCKET_NAME}"
        self.process = process

    def where(self) -> str:
        return self.path

    def converse(self, deadline: Deadline) -> Conversation[Verdict]:
        greeting = yield from control.greet(self.path, deadline)
        pid = greeting.rpartition("/")[0].rpartition("/")[2]
        if pid != str(self.process.pid):
            reason = (
                f"control socket {self.path} belongs to process {pid}, "
                f"but Asterisk is process {self.process.pid}"
            )
            return Verdict(self, UNKNOWN, reason)
        return Verdict(self, HEALTHY)

    def refusal(self, problem: OSError) -> str:
        if isinstance(problem, FileNotFoundError):
            return f"{self.path} is gone, somebody has removed it"
        return f"nobody listens at {self.path}"


class PortProbe(Probe):
    """Base of those that ask at a port of Asterisk's."""

    def __init__(self, endpoint: Endpoint, process: Process) -> None:
        self.endpoint = endpoint
        self.process = process

    def where(self) -> str:
        return str(self.endpoint)

    def refusal(self, problem: OSError) -> str:
        if isinstance(problem, ConnectionResetError):
            return f"{self.where()} closed the connection without an answer"
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
        now = self.process.listening(self.endpoint.port, (self.endpoint.protocol,))
        return sum(one.queue for one in now if one.inode == self.endpoint.inode)


class ManagerInterface(PortProbe):
    name = "AMI"
    exercises = "the manager's listener and session threads, and the list of its users"
    vital = False

    def __init__(self, endpoint: Endpoint, process: Process, who: Credentials | None) -> None:
        super().__init__(endpoint, process)
        self.who = who

    def converse(self, deadline: Deadline) -> Conversation[Verdict]:
        with Ami((self.endpoint.address, self.endpoint.port), deadline) as ami:
            yield from ami.greet()
            if self.who is not None and not (yield from ami.login(self.who)):
                reason = (
                    f"AMI does not accept user {self.who.user}: "
                    "compare its secret with Asterisk's manager.conf"
                )
                return Verdict(self, UNKNOWN, reason)
        return Verdict(self, HEALTHY)


class ManagerQuestion(PortProbe):
    """Base of those that have AMI do something which takes one lock of Asterisk's.

    Each in a session of its own: an action that waits for a lock stops its session,
    and no other (main/manager.c serves each session by a thread of its own).
    """

    # Who waits for a lock is silent. One that is hung up on met AMI's own limit
    # (authlimit in manager.conf) or its reload, of which no call knows.
    vital = False

    def __init__(self, endpoint: Endpoint, process: Process, who: Credentials) -> None:
        super().__init__(endpoint, process)
        self.who = who

    def converse(self, deadline: Deadline) -> Conversation[Verdict]:
        with Ami((self.endpoint.address, self.endpoint.port), deadline) as ami:
            yield from ami.greet()
            if not (yield from ami.login(self.who)):
                reason = f"{self.name} not looked at: AMI does not accept user {self.who.user}"
                return Verdict(self, UNKNOWN, reason)
            try:
                problem = yield from self.question(ami)
            except Forbidden:
                reason = (
                    f"{self.name} not looked at: AMI's user {self.who.user} needs "
                    "read=system,reporting and write=system,reporting in manager.conf"
                )
                return Verdict(self, UNKNOWN, reason)
        return Verdict(self, FAULTY, problem) if problem else Verdict(self, HEALTHY)

    def question(self, ami: Ami) -> Conversation[str]:
        """Ask; "" or what Asterisk complains of. Raises Forbidden."""
        raise NotImplementedError


class Forbidden(Exception):
    """AMI refuses the action before it takes any lock."""


def _allowed(ami: Ami, name: str, **fields: str) -> Conversation[dict[str, str]]:
    """The response to an action. Raises Forbidden (main/manager.c, process_message())."""
    answer = yield from ami.action(name, **fields)
    if answer.get("Message") == "Permission denied":
        raise Forbidden
    return answer


class ChannelLocks(ManagerQuestion):
    name = "channel lock"
    exercises = "the list of channels and the lock of each: calls begin and end under them"

    def question(self, ami: Ami) -> Conversation[str]:
        # A channel that cannot exist is searched in all of them, under the container's
        # lock and each channel's own, and nothing is made (ast_channel_get_by_name).
        yield from _allowed(ami, "Getvar", Channel="ASHA/no-such-channel", Variable="ASHA")
        return ""


class DialplanLock(ManagerQuestion):
    name = "dialplan lock"
    exercises = "the list of contexts: each step of each call, and most of SIP, reads it"

    def question(self, ami: Ami) -> Conversation[str]:
        # Refused, and only after it was searched under the lock (main/pbx.c, conlock).
        yield from _allowed(ami, "ShowDialPlan", Context="asha-no-such-context")
        return ""


class Database(ManagerQuestion):
    name = "AstDB"
    exercises = "the database of registrations: its lock, its file and the disk below"

    def question(self, ami: Ami) -> Conversation[str]:
        key = {"Family": "asha", "Key": "heartbeat"}
        put = yield from _allowed(ami, "DBPut", **key, Val=self.process.started)
        if put.get("Response") != "Success":
            said = put.get("Message", "no reason given")
            return f"AstDB does not take a key ({said}): is its disk full, or its file locked?"
        got = yield from _allowed(ami, "DBGet", **key)
        if got.get("Response") != "Success":
            return f"AstDB does not give a key back ({got.get('Message', 'no reason given')})"
        return ""


class SipOptions(PortProbe):
    name = "SIP"
    exercises = "the SIP transport, its thread and the dispatch of a request"

    def converse(self, deadline: Deadline) -> Conversation[Verdict]:
        yield from sip.options(self.endpoint, deadline)
        return Verdict(self, HEALTHY)


def ask(probes: Sequence[Probe], deadline: Deadline, patience: float) -> list[Verdict]:
    """Ask all side by side, ``patience`` seconds each; in the order of the probes.

    One lost answer is not a hang: who is silent or refuses is asked once more, and
    only the second answer counts.
    """
    verdicts = _round(probes, deadline, patience)
    doubtful = [
        number for number, verdict in enumerate(verdicts) if verdict.finding in (HUNG, REFUSED)
    ]
    if doubtful:
        if any(verdict.finding == REFUSED for verdict in verdicts):
            deadline.pause(SECOND_TRY_AFTER)
        again = _round([probes[number] for number in doubtful], deadline, patience)
        for number, verdict in zip(doubtful, again, strict=True):
            if verdict.finding == HUNG and verdicts[number].finding == HUNG:
                verdict.reason += ", asked twice"
            verdicts[number] = verdict
    return verdicts


def _round(probes: Sequence[Probe], deadline: Deadline, patience: float) -> list[Verdict]:
    return side_by_side([probe.attempt(deadline.within(patience)) for probe in probes])
