"""What the watcher asks, and what nobody has answered since when.

The probes are the monitor's own (asha/asterisk/probes.py). Only AMI is held differently: one
session for each lock, kept open, because Asterisk logs each login.
"""

from __future__ import annotations

from asha.asterisk.probes import (
    HUNG,
    ConsoleQuestion,
    ControlSocket,
    ManagerQuestion,
    SipOptions,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asha.asterisk.probes import Probe, Verdict
    from asha.asterisk.talk.ami import Ami
    from asha.asterisk.talk.connections import Conversation, Multiplexer
    from asha.run.deadline import Deadline

# Seconds from one question to the next, multiples of the watcher's own step: what costs
# Asterisk a connection or a write to the store's disk is asked less often.
EVERY = 1.0
CONSOLE_EVERY = 2.0
CONNECTION_EVERY = 4.0
# AstDB's begins with it.
GREETING_EVERY = 10.0

# What does not answer as it should so often in a row is worth a look: Asterisk closes and
# opens its sockets when it restarts itself.
ODD_MOST = 2


class Question:
    """One probe, asked again and again."""

    def __init__(self, probe: Probe) -> None:
        self.probe = probe
        self.key = probe.key
        self.due = self.asked = 0.0
        # When the oldest question was put that nobody has answered, by the clock.
        self.since: float | None = None
        # Answers in a row that were not what a healthy one says.
        self._odd = 0
        self._number = -1

    @property
    def every(self) -> float:
        if isinstance(self.probe, SipOptions) and self.probe.endpoint.protocol == "udp":
            return EVERY
        if isinstance(self.probe, ControlSocket):
            return GREETING_EVERY
        return CONSOLE_EVERY if isinstance(self.probe, ConsoleQuestion) else CONNECTION_EVERY

    @property
    def is_pending(self) -> bool:
        return self._number >= 0

    @property
    def is_odd(self) -> bool:
        """Whether it refuses to answer, or answers with an error."""
        return self._odd >= ODD_MOST

    def put(self, talks: Multiplexer, deadline: Deadline, now: float) -> None:
        self.asked, self.due = now, now + self.every
        if self.since is None:
            self.since = now
        self._number = talks.begin(self.attempt(deadline))

    def attempt(self, deadline: Deadline) -> Conversation[Verdict]:
        return self.probe.attempt(deadline)

    def take(self, talks: Multiplexer, now: float) -> None:
        """Take the answer in, if there is one. After silence it is asked again at once."""
        verdict: Verdict | None = talks.results.pop(self._number, None)
        if verdict is None:
            return
        self._number = -1
        if verdict.finding == HUNG:
            self.due = now
            return
        self.since = None
        self._odd = 0 if verdict.healthy else self._odd + 1

    def forgive(self, seconds: float, now: float) -> None:
        """We were halted ourselves for so long: nobody owes us an answer for that."""
        if self.since is not None:
            self.since = min(self.since + seconds, now)

    def close(self) -> None:
        """Nothing is asked any more."""


class HeldQuestion(Question):
    """Through a session of AMI's that is kept for the next time."""

    probe: ManagerQuestion

    def __init__(self, probe: ManagerQuestion) -> None:
        super().__init__(probe)
        self._ami: Ami | None = None

    @property
    def every(self) -> float:
        return EVERY

    def attempt(self, deadline: Deadline) -> Conversation[Verdict]:
        patience = deadline.remaining()
        if self._ami is None:
            manager = self.probe.manager
            ami = self._ami = manager.visit(deadline)
            entry = yield from manager.judge(manager.enter(ami), patience)
            if not entry.healthy:
                self.close()
                return entry
        ami = self._ami
        ami.renew(deadline)
        verdict = yield from self.probe.judge(self.probe.put(ami), patience)
        if not verdict.healthy:
            # A late answer would be taken for the next one's, or it is broken.
            self.close()
        return verdict

    def close(self) -> None:
        if self._ami is not None:
            self._ami.socket.close()
            self._ami = None


def questions(probes: list[Probe]) -> list[Question]:
    return [HeldQuestion(one) if isinstance(one, ManagerQuestion) else Question(one)
            for one in probes]
