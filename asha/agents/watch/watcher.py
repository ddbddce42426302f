"""The watcher: asks Asterisk every second, and starts the judge where it is silent.

    python3 -m asha.agents.watch.watcher FILES

FILES is how the state files of the resource begin. asha-asterisk-watch@.service runs it from
the end of the agent's start until the state file ``serving`` is gone, with which each stop
begins. Whatever becomes of it costs time only: Pacemaker's own monitor looks at the same, and
starts it again.
"""

from __future__ import annotations

import os
import sys
import time

from asha.agents.asterisk_base import SERVING
from asha.agents.asterisk_diagnosis import Diagnosis
from asha.agents.asterisk_health import AsteriskHealth
from asha.agents.watch import beat, silence
from asha.agents.watch.begin import GIVEN, GONE, given
from asha.agents.watch.questions import Question, questions
from asha.asterisk import cdr
from asha.asterisk.probes import SECOND_ASKING
from asha.asterisk.process.proc import STOPPED
from asha.asterisk.talk.connections import Multiplexer
from asha.ocf import AgentError, Context, Deadline
from asha.ocf.state import StateFile
from asha.run.text import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from asha.asterisk.process.proc import Process

JUDGE_UNIT = "asha-asterisk-silent@{}.service"

# Seconds between two looks at the process, and at what is due to be asked.
EVERY = 0.5

# Seconds of one's silence after which all others are asked, whatever is due: a question that the
# judge had to be the first to ask would be asked twice.
SUSPECT = 0.25

# Seconds between two looks at where Asterisk listens, and for each.
LEARN_EVERY = 60.0
LEARN_SECONDS = 5.0
# Before the next look where Asterisk does not let itself be looked at.
LEARN_AGAIN = 5.0

# What the judge is asked to look at besides what is silent.
RECORDS = "call records"

# Seconds before what the judge has not found hung is judged again: twice as long each time.
PAUSE, PAUSE_MOST = 3.0, 30.0
# More than the judge may take (TimeoutStartSec= of its unit); and for systemd, which is
# only told.
JUDGE_SECONDS = 60.0
START_SECONDS = 2.0

# Seconds that we may come late: beyond it somebody has halted us, or there is no processor,
# and what is silent then may have answered.
LATE = 0.5


class Watched(AsteriskHealth):
    """The agent, for its parameters and its memory. It performs no action."""

    name = AsteriskHealth.name
    is_pacemakers = False


class Judge:
    """The run of asha-asterisk-silent@, which is the agent's monitor. It removes the ``file``
    at its end."""

    def __init__(self, unit: str, file: StateFile, start: Callable[[str], bool]) -> None:
        self._unit = unit
        self._file = file
        self._start = start

    def begin(self, now: float) -> None:
        try:
            self._file.write(f"{now}")
            if not self._start(self._unit):
                self._file.remove()
        except OSError as problem:
            print(f"cannot start the judge: {problem.strerror}", file=sys.stderr, flush=True)

    def is_at_work(self, now: float) -> bool:
        begun = self._file.read()
        try:
            return bool(begun) and 0 <= now - float(begun) <= JUDGE_SECONDS
        except ValueError:
            return False


class Watcher:
    """Of the Asterisk of one resource. ``files``: how its state files begin."""

    def __init__(
        self,
        files: str,
        environ: Mapping[str, str],
        *,
        agent: type[AsteriskHealth] = Watched,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        start: Callable[[str], bool] | None = None,
    ) -> None:
        self._files = files
        self._environ = {**environ, "OCF_CHECK_LEVEL": "10", "OCF_RESKEY_CRM_meta_interval": "1",
                         "OCF_RESKEY_CRM_meta_timeout": str(int(LEARN_SECONDS * 1000))}
        self._class = agent
        self._clock, self._sleep = clock, sleep
        self._agent = self._new_agent()
        self._judge = Judge(JUDGE_UNIT.format(self._agent.instance),
                            self._file(silence.JUDGING), start or self._start)
        self._process: Process | None = None
        self._is_dead = False
        self._talks = Multiplexer()
        self._questions: list[Question] = []
        self._learn_at = 0.0
        # What could not even be looked at, since then.
        self._odd: float | None = None
        # What the judge has heard of last, when it may hear of it again, and the next pause.
        self._judged: set[str] = set()
        self._judge_at = 0.0
        self._pause = PAUSE
        self._has_judged = False
        self._is_known_to_work = False

    def _new_agent(self) -> AsteriskHealth:
        """One with time of its own."""
        return self._class("monitor", Context(self._environ, clock=self._clock, sleep=self._sleep))

    def _start(self, unit: str) -> bool:
        """Have systemd start it; False if it does not take that."""
        argv = ("systemctl", "start", "--no-block", unit)
        try:
            done = self._agent.runner.run(argv, Deadline(START_SECONDS))
        except AgentError as problem:
            print(problem.reason, file=sys.stderr, flush=True)
            return False
        if not done.ok:
            print(f"systemd does not start {unit}: {done.complaint}", file=sys.stderr, flush=True)
        return done.ok

    def _file(self, kind: str) -> StateFile:
        return StateFile(f"{self._files}.{kind}")

    # The loop.

    def run(self) -> None:
        """Until Asterisk is to stop, or Pacemaker was told of a failure."""
        while not self._file(SERVING).is_absent:
            until = self._next()
            self._come_back(self.step(until))

    def _next(self) -> float:
        """When to look again: as soon as something has been silent for long enough."""
        now = self._clock()
        enough = self._agent.probe_timeout * SECOND_ASKING
        due = [one.since + seconds for one in self._questions if one.since is not None
               for seconds in (SUSPECT, enough)]
        return min([now + EVERY, *(moment for moment in due if moment > now)])

    def _come_back(self, until: float) -> None:
        left = until - self._clock()
        if left > 0:
            self._sleep(left)
        self._forgive(until)

    def _forgive(self, until: float) -> float:
        """What waited while we were late. Returns ``until``, or now where that was so."""
        now = self._clock()
        late = now - until
        if late > LATE:
            for one in self._questions:
                one.forgive(late, now)
            if self._odd is not None:
                self._odd = min(self._odd + late, now)
            return now
        return until

    def step(self, until: float) -> float:
        """Ask what is due, and take in what comes ``until`` then. Returns ``until``, or how long
        we were halted meanwhile."""
        now = self._clock()
        self._look_at_the_process()
        if self._process is not None:
            if now >= self._learn_at:
                self._learn(now)
            self._ask(until)
        # Before anything is judged: it was perhaps halted while it waited for answers.
        until = self._forgive(until)
        self._have_it_judged()
        self._beat()
        return until

    def _beat(self) -> None:
        try:
            beat.give(f"{self._files}.{beat.KIND}", self._clock())
            if not self._is_known_to_work:
                self._file(GONE).remove()
                self._is_known_to_work = True
        except OSError as problem:
            print(f"no sign of life: {problem.strerror}", file=sys.stderr, flush=True)

    # Asterisk.

    def _look_at_the_process(self) -> None:
        try:
            process = self._agent.known()
        except AgentError:
            process = None
        before = self._process
        if before is not None and (process is None or process.identity != before.identity):
            self._forget()
            # Where a unit has run it systemd sees its death.
            self._is_dead = process is None and not (
                self._agent.launcher().control_group.endswith(".service"))
        if process is not None and (before is None or process.identity != before.identity):
            self._process = process
            self._is_dead = False
            self._learn_at = 0.0

    def _forget(self) -> None:
        self._stop_asking()
        self._process = None
        self._odd = None
        self._judged = set()

    def _stop_asking(self) -> None:
        with self._talks:
            pass
        self._talks = Multiplexer()
        for one in self._questions:
            one.close()
        self._questions = []

    def _learn(self, now: float) -> None:
        """Where it listens, as a monitor finds it."""
        assert self._process is not None
        self._learn_at = now + LEARN_EVERY
        if any(one.since is not None for one in self._questions) and (
            not self._judged or self._judge.is_at_work(now)
        ):
            return  # who is silent is not forgotten before the judge knows better
        self._agent = self._new_agent()
        diagnosis = Diagnosis(self._agent, self._process)
        try:
            probes, _ = diagnosis.deep_probes()
        except AgentError:
            # The judge will say what it means.
            self._odd = self._odd or now
            self._learn_at = now + LEARN_AGAIN
            return
        self._odd = None
        # As the judge does: it waits for all that is silent.
        probes = [diagnosis.control_socket, *probes]
        before = [one.key for one in self._questions]
        if [one.key for one in probes] != before:
            self._stop_asking()
            self._questions = questions(probes)
        for one, probe in zip(self._questions, probes, strict=True):
            # Its socket may be another, or its secret.
            one.probe = probe

    def _ask(self, until: float) -> None:
        while True:
            now = self._clock()
            # Once for each silence.
            suspected = max((one.since + SUSPECT for one in self._questions
                             if one.since is not None and now - one.since >= SUSPECT), default=0.0)
            for one in self._questions:
                if not one.is_pending and (one.due <= now or one.asked < suspected):
                    one.put(self._talks, self._deadline(), now)
            self._talks.go_on(Deadline(max(0.0, until - now), self._clock))
            now = self._clock()
            for one in self._questions:
                one.take(self._talks, now)
            if now >= until or not any(one.is_pending for one in self._questions):
                return

    # The judge.

    def silent(self, now: float) -> dict[str, float]:
        """What has been silent for long enough to be asked a second time, and since when; and
        what answers as a healthy one does not."""
        enough = self._agent.probe_timeout * SECOND_ASKING
        found = {one.key: one.since for one in self._questions
                 if one.since is not None and now - one.since >= enough}
        found.update({one.key: now for one in self._questions if one.is_odd})
        if self._odd is not None and now - self._odd >= enough:
            found["its sockets"] = self._odd
        if self._process is not None and self._process.state == STOPPED:
            found["all of Asterisk"] = now
        if self._is_dead:
            found["a dead Asterisk"] = now
        return found

    def _records_wait(self) -> bool:
        """Whether the database of call records is up, and Asterisk does not know: a monitor
        tells it (asha/asterisk/cdr.py). It may let us wait, so not while Asterisk does."""
        return (
            self._process is not None
            and all(one.since is None for one in self._questions)
            and self._file("records").read() == self._process.identity
            and cdr.database_is_up(self._agent.database_socket, self._deadline())
        )

    def _deadline(self) -> Deadline:
        return Deadline(self._agent.probe_timeout, self._clock)

    def _have_it_judged(self) -> None:
        now = self._clock()
        found = self.silent(now)
        if self._judge.is_at_work(now):
            self._say(found)
            return
        if self._has_judged:
            # It has just ended, and Pacemaker need not know: not at once again.
            self._has_judged = False
            self._judge_at = now + self._pause
            self._pause = min(2 * self._pause, PAUSE_MOST)
        is_well = not found
        if self._records_wait():
            found[RECORDS] = now
        if is_well and now >= self._judge_at and self._judged - {RECORDS}:
            # What was said against it is so no more.
            found.update(dict.fromkeys(self._judged, now))
            self._judged, self._pause = set(), PAUSE
        elif not found or (now < self._judge_at and self._judged.issuperset(found)):
            return
        else:
            self._judged = set(found)
        self._say(found)
        print(printable(f"the monitor is to look at: {', '.join(found)}"), flush=True)
        self._judge.begin(now)
        self._has_judged = True
        # Perhaps it listens elsewhere by now.
        self._learn_at = min(self._learn_at, now + LEARN_AGAIN)

    def _say(self, found: Mapping[str, float]) -> None:
        """Let the judge know."""
        try:
            self._file(silence.KIND).write(silence.written(found))
        except OSError as problem:
            print(f"the judge does not know since when: {problem.strerror}", file=sys.stderr,
                  flush=True)


def main(arguments: Sequence[str]) -> int:
    """0 when Asterisk need not be watched any more."""
    (files,) = arguments
    environ = given(StateFile(f"{files}.{GIVEN}").read())
    if not environ:
        print(f"cannot read {files}.{GIVEN}: the next monitor writes it", file=sys.stderr)
        return 0
    Watcher(files, {**os.environ, **environ}).run()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
