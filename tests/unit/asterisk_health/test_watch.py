"""Between two monitors: the watcher asks, the judge judges, one failure is told once."""

from __future__ import annotations

import io
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import pytest

from asha.agents.asterisk_diagnosis import Diagnosis
from asha.agents.watch import beat, begin, silence, watcher
from asha.agents.watch.judge import Judge
from asha.agents.watch.questions import HeldQuestion
from asha.agents.watch.watcher import PAUSE, Watcher
from asha.asterisk import HANG_ATTRIBUTE, cdr
from asha.asterisk.probes import SECOND_ASKING, Database, Verdict
from asha.asterisk.process.unit import Direct
from asha.ocf import Context, Deadline, Exit
from asha.run.results import NotInstalled
from tests.fakes.asterisk import AMI, ASTDB_LOCKED, CONTROL, LOCKS, SIP, USER
from tests.fakes.ocf import CallQueue
from tests.unit.asterisk_health.pbx import DEEP, Pbx, keep_secret

if TYPE_CHECKING:
    from asha.asterisk.talk.connections import Conversation

UNITS = Path(watcher.__file__).parents[1]
RESOURCE = "p_test"
MON = ("crm_mon", "-1", "--output-as=xml", "--resource", RESOURCE)
FAIL = ("crm_resource", "--fail", "--resource", RESOURCE, "--node", "crm1")
MANAGED = f'<resource id="{RESOURCE}" active="true" managed="true" failed="false"/>'
PATIENCE = 0.5


class Watch:
    """A watcher of that Asterisk, whose judge is only noted. Its clock can be set ahead."""

    def __init__(self, pbx: Pbx) -> None:
        self.pbx = pbx
        self.ahead = 0.0
        # One for each run of the judge: what it was told.
        self.heard: list[list[str]] = []

        class Watching(pbx.agent):  # type: ignore[name-defined, misc]
            is_pacemakers = False

        self.watcher = Watcher(files(pbx), environ(pbx), agent=Watching, clock=self.clock,
                               sleep=self.sleep, start=self.start)

    def clock(self) -> float:
        return time.monotonic() + self.ahead

    def sleep(self, seconds: float) -> None:
        self.ahead += seconds

    def start(self, unit: str) -> bool:
        assert unit == f"asha-asterisk-silent@{RESOURCE}.service"
        text = Path(f"{files(self.pbx)}.{silence.KIND}").read_text(encoding="utf-8")
        self.heard.append([line.partition(" ")[2] for line in text.splitlines()])
        return True

    def end_judge(self) -> None:
        Path(f"{files(self.pbx)}.{silence.JUDGING}").unlink()

    def look(self) -> None:
        """Long enough for all that answers."""
        self.watcher.step(self.clock() + 2 * PATIENCE)

    def look_until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 30
        while not condition():
            assert time.monotonic() < deadline
            self.look()


def files(pbx: Pbx) -> str:
    return f"{pbx.state}/asterisk-health-{RESOURCE}"


def environ(pbx: Pbx) -> dict[str, str]:
    given = {f"OCF_RESKEY_{name}": value for name, value in pbx.parameters.items()}
    return {"OCF_RESOURCE_INSTANCE": RESOURCE, "HA_RSCTMP": str(pbx.state),
            "OCF_RESKEY_CRM_meta_on_node": "crm1", **given}


@pytest.fixture
def watch(pbx: Pbx) -> Watch:
    pbx.start()
    keep_secret(pbx)
    return Watch(pbx)


@pytest.fixture
def queue() -> Iterator[CallQueue]:
    made = CallQueue()
    yield made
    made.done()


# The watcher.


def test_one_that_answers_is_not_judged(watch: Watch) -> None:
    watch.look()
    asked = watch.watcher._questions
    held = [one for one in asked if isinstance(one, HeldQuestion)]
    sessions = [one._ami for one in held]
    assert len(sessions) == len(LOCKS)
    assert all(sessions)
    for _ in range(3):
        watch.ahead += 3
        watch.look()
    assert watch.heard == []
    words = {one.key.split()[0] for one in asked}
    assert words == {"sip", "channels", "dialplan", "astdb", str(watch.pbx.run / "asterisk.ctl")}
    assert all(one.since is None and not one.is_pending for one in asked)
    # Asterisk would log each login.
    assert [one._ami for one in held] == sessions


@pytest.mark.parametrize("part", [SIP, CONTROL, "channels", "dialplan", "astdb"])
def test_a_silent_part_is_judged(watch: Watch, part: str) -> None:
    watch.look()
    watch.pbx.silence(part)
    watch.look_until(lambda: bool(watch.heard))
    words = {CONTROL: ("astdb ", " ")}.get(part, (f"{part} ",))
    assert all(key.startswith(words) for key in watch.heard[0])
    assert watch.heard[0]


def test_it_looks_again_as_soon_as_a_silence_counts(watch: Watch) -> None:
    watch.look()
    watch.pbx.silence(SIP)
    watch.ahead += 10  # all is due
    begun = watch.clock()
    watch.watcher.step(begun)
    since = [one.since for one in watch.watcher._questions if one.since is not None]
    assert min(since) >= begun
    counts = min(since) + PATIENCE * SECOND_ASKING
    watch.ahead += counts - watch.clock() - 0.1
    assert watch.watcher._next() <= counts
    watch.ahead += counts - watch.clock()
    assert watch.watcher.silent(watch.clock())


def test_when_one_is_silent_all_are_asked(watch: Watch) -> None:
    """So that the judge is not the first to ask one of them. Once, however long it lasts."""
    watch.look()
    watch.pbx.silence("dialplan")
    watch.ahead += 1.1
    [silent] = [one for one in watch.watcher._questions if one.key.startswith("dialplan ")]
    others = [one for one in watch.watcher._questions if one is not silent]
    watch.watcher._ask(watch.clock())
    assert silent.since is not None
    suspected = silent.since + watcher.SUSPECT
    watch.ahead += suspected - watch.clock()
    watch.watcher._ask(watch.clock())
    deadline = time.monotonic() + 30
    while not all(one.asked >= suspected and one.since is None for one in others):
        assert time.monotonic() < deadline
        watch.watcher._ask(watch.clock() + 0.1)
    for one in others:
        one.due = watch.clock() + 3600
    before = [one.asked for one in others]
    for _ in range(3):
        watch.watcher._ask(watch.clock() + 0.1)
    assert [one.asked for one in others] == before


def test_a_whole_ami_that_is_silent_is_judged(watch: Watch) -> None:
    watch.pbx.silence(AMI)
    watch.look_until(lambda: bool(watch.heard))


def test_a_lost_sip_socket_is_judged(watch: Watch) -> None:
    watch.look()
    watch.pbx.close(SIP)
    watch.look_until(lambda: bool(watch.heard))
    assert watch.heard[0][0].startswith("sip ")


def test_a_silence_that_was_judged_is_not_judged_at_once_again(watch: Watch) -> None:
    watch.look()
    watch.pbx.silence("dialplan")
    watch.look_until(lambda: bool(watch.heard))
    said = Path(f"{files(watch.pbx)}.{silence.KIND}")
    said.unlink()
    watch.ahead += PAUSE / 2
    watch.look()
    assert len(watch.heard) == 1  # it is at work, and told what is so now
    assert said.read_text(encoding="utf-8").split()[1] == "dialplan"
    watch.end_judge()
    watch.look()
    assert len(watch.heard) == 1
    # Another part is news.
    watch.pbx.silence(SIP)
    watch.look_until(lambda: len(watch.heard) == 2)
    assert {key.split()[0] for key in watch.heard[1]} == {"dialplan", "sip"}
    watch.end_judge()
    watch.look()
    watch.ahead += 2 * PAUSE
    watch.look_until(lambda: len(watch.heard) == 3)


def test_the_monitor_looks_again_when_all_is_well_again(watch: Watch) -> None:
    """The node attribute says what is so now."""
    watch.pbx.silence(ASTDB_LOCKED)
    watch.look_until(lambda: bool(watch.heard))
    assert watch.heard[0][0].startswith("astdb ")
    watch.end_judge()
    (watch.pbx.run / f"silent-{ASTDB_LOCKED}").unlink()
    watch.look()
    watch.ahead += PAUSE
    watch.look_until(lambda: len(watch.heard) == 2)
    watch.end_judge()
    for _ in range(3):
        watch.ahead += 2 * PAUSE
        watch.look()
    assert len(watch.heard) == 2


def test_that_we_were_halted_is_no_silence_of_asterisks(watch: Watch) -> None:
    watch.look()
    watch.pbx.silence(SIP)
    asked = watch.clock() + 1.1  # all is due again
    watch.ahead += 1.1
    watch.watcher.step(watch.clock())
    [before] = {one.since for one in watch.watcher._questions if one.key.startswith("sip UDP")}
    assert before is not None
    assert before >= asked
    until = watch.clock()
    watch.ahead += 60
    watch.watcher._come_back(until)
    [since] = {one.since for one in watch.watcher._questions if one.key.startswith("sip UDP")}
    assert since is not None
    assert since >= before + 60


def test_who_is_halted_while_it_waits_for_answers_judges_nothing(
    watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the whole node may be, for minutes: Asterisk has not had its time."""
    watch.look()
    watch.pbx.silence(SIP)
    watch.ahead += 1.1  # all is due again
    real = watch.watcher._talks.go_on

    def go_on(deadline: Deadline | None = None) -> None:
        watch.ahead += 60
        real(deadline)

    monkeypatch.setattr(watch.watcher._talks, "go_on", go_on)
    begun = watch.clock()
    assert watch.watcher.step(begun) >= begun + 60
    asked = [one for one in watch.watcher._questions if one.key.startswith("sip UDP")]
    assert all(one.since is not None and one.since <= watch.clock() for one in asked)
    assert asked
    assert watch.heard == []
    monkeypatch.undo()
    watch.look_until(lambda: bool(watch.heard))


def test_it_ends_with_the_service(watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    turns: list[float] = []

    def step(until: float) -> float:
        turns.append(until)
        assert len(turns) < 10
        if len(turns) == 2:
            Path(f"{files(watch.pbx)}.serving").unlink()
        return until

    monkeypatch.setattr(watch.watcher, "step", step)
    watch.watcher.run()
    assert len(turns) == 2


def test_where_it_listens_no_more_nothing_stays_silent(
    watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The judge has found no hang: perhaps that address is gone."""
    watch.look()
    watch.pbx.silence(SIP)
    watch.look_until(lambda: bool(watch.heard))
    monkeypatch.setattr(Diagnosis, "deep_probes", lambda self: ([], []))
    watch.ahead += watcher.LEARN_EVERY - 10  # the judge may take no more
    watch.look()
    assert {key.split()[0] for key in watch.watcher.silent(watch.clock())} == {"sip"}
    watch.end_judge()
    watch.ahead += watcher.LEARN_EVERY
    watch.look()
    assert watch.watcher.silent(watch.clock()) == {}


def test_another_asterisk_is_asked_anew(watch: Watch) -> None:
    watch.look()
    first = watch.watcher._questions
    watch.pbx.started[-1].end()
    watch.look()
    assert watch.watcher._questions == []
    # Nobody else sees the death of one that no unit has started.
    assert watch.heard == [["a dead Asterisk"]]
    watch.end_judge()
    assert watch.pbx.act("stop").code == Exit.SUCCESS
    watch.pbx.start()
    watch.look()
    assert watch.watcher._questions
    assert watch.watcher._questions is not first
    assert len(watch.heard) == 1


def test_call_records_do_not_wait_for_the_next_monitor(pbx: Pbx, tmp_path: Path) -> None:
    """Asterisk loses each, once it has loaded, until it has connected to the database."""
    pbx.start()
    watch = Watch(pbx)
    watch.look()
    assert watch.heard == []
    path = pbx.parameters["database_socket"]
    with socket.socket(socket.AF_UNIX) as database:
        database.bind(path)
        database.listen()
        watch.look_until(lambda: bool(watch.heard))
        assert watch.heard == [["call records"]]
        Path(f"{files(pbx)}.records").unlink()  # the monitor has told Asterisk
        watch.end_judge()
        watch.ahead += 2 * PAUSE
        watch.look()
        assert len(watch.heard) == 1


def test_a_database_is_not_waited_for_while_asterisk_is_silent(
    pbx: Pbx, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that hangs, or is somebody else's, takes its time with each step."""
    pbx.start()
    watch = Watch(pbx)
    watch.look()
    asked: list[str] = []

    def is_up(path: str, deadline: Deadline) -> bool:
        asked.append(path)
        return False

    monkeypatch.setattr(cdr, "database_is_up", is_up)
    watch.look()
    assert asked
    pbx.silence(SIP)
    watch.ahead += 1.1
    watch.watcher._ask(watch.clock() + 0.05)
    asked.clear()
    watch.watcher._have_it_judged()
    assert asked == []


def test_another_secret_is_learned(watch: Watch) -> None:
    """As by `asha secret rotate`, while the sessions go on."""
    watch.look()
    held = [one for one in watch.watcher._questions if isinstance(one, HeldQuestion)]
    sessions = [one._ami for one in held]
    watch.pbx.secret.write_text(f"user={USER}\nsecret=another\n")
    watch.ahead += watcher.LEARN_EVERY
    watch.look()
    assert [one._ami for one in held] == sessions
    assert {one.probe.manager.who.secret for one in held if one.probe.manager.who} == {"another"}
    # That one is not accepted, which the judge says; the next is looked for soon.
    for one in held:
        one.close()
    watch.look_until(lambda: bool(watch.heard))
    keep_secret(watch.pbx)
    watch.ahead += watcher.LEARN_AGAIN
    watch.look()
    watch.ahead += 1
    watch.look()
    assert all(one._ami for one in held)


def test_its_sign_of_life(watch: Watch) -> None:
    path = f"{files(watch.pbx)}.{beat.KIND}"
    Path(f"{files(watch.pbx)}.{begin.GONE}").touch()
    assert not beat.is_fresh(path, watch.clock())
    watch.look()
    assert beat.is_fresh(path, watch.clock())
    assert not beat.is_fresh(path, watch.clock() + beat.ALIVE_SECONDS)
    assert not Path(f"{files(watch.pbx)}.{begin.GONE}").exists()


def test_a_judge_that_was_killed_or_not_started_is_not_waited_for(watch: Watch) -> None:
    watch.look()
    watch.pbx.silence(SIP)
    watch.look_until(lambda: bool(watch.heard))
    watch.ahead += 2 * watcher.JUDGE_SECONDS
    watch.look()
    watch.ahead += PAUSE
    watch.look_until(lambda: len(watch.heard) == 2)


@pytest.mark.parametrize("code", [0, 1])
def test_systemd_starts_the_judge(pbx: Pbx, queue: CallQueue, code: int) -> None:
    pbx.start()
    one = Watcher(files(pbx), environ(pbx))
    one._agent.context.runner = queue
    unit = f"asha-asterisk-silent@{RESOURCE}.service"
    queue.expect("systemctl", "start", "--no-block", unit, code=code, err="Unit is masked.")
    one._judge.begin(100.0)
    assert one._judge.is_at_work(101.0) == (code == 0)
    assert not one._judge.is_at_work(101.0 + watcher.JUDGE_SECONDS)


# What the watcher hands over.


def test_who_owes_an_answer_for_long_enough_has_been_asked() -> None:
    text = silence.written({"sip UDP 127.0.0.1 port 5060": 100.0, "astdb /a b": 100.9})
    late = 100.0 + 2 * SECOND_ASKING
    assert silence.due(text, late, 2.0) == {"sip UDP 127.0.0.1 port 5060"}
    assert silence.due(text, late + 1, 2.0) == {"sip UDP 127.0.0.1 port 5060",
                                                         "astdb /a b"}
    assert silence.due("nonsense\n\nx y\n1", 1000.0, 2.0) == {""}


def test_what_the_agent_was_given() -> None:
    text = "OCF_RESKEY_x=a\nb=c\0HA_RSCTMP=/run\0"
    assert begin.given(text) == {"OCF_RESKEY_x": "a\nb=c", "HA_RSCTMP": "/run"}
    assert begin.given("") == {}


# The judge.


def judged(
    pbx: Pbx, queue: CallQueue, owes: Callable[[str], bool] = lambda key: False
) -> tuple[int, str]:
    class Judging(Judge):
        launcher = pbx.agent.launcher
        launcher_class: ClassVar = pbx.agent.launcher_class

        def owes_another(self, key: str) -> bool:
            return owes(key)

    said = io.StringIO()
    meta = {"OCF_CHECK_LEVEL": "10", "OCF_RESKEY_CRM_meta_interval": "1",
            "OCF_RESKEY_CRM_meta_timeout": "20000"}
    judge = Judging("monitor", Context({**os.environ, **environ(pbx), **meta}, runner=queue,
                                       err=said))
    return judge.judge(), said.getvalue()


def expect_telling(queue: CallQueue, fail: int = 0) -> None:
    queue.expect(*MON, out=MANAGED)
    queue.expect(*FAIL, code=fail)


def has(pbx: Pbx, kind: str) -> bool:
    return Path(f"{files(pbx)}.{kind}").exists()


class Told(CallQueue):
    """Takes the node attribute too, whose value has the time."""

    value = ""

    def run(self, argv, deadline, **named):  # type: ignore[no-untyped-def]
        if list(argv[:3]) == ["attrd_updater", "--name", HANG_ATTRIBUTE]:
            self.value = argv[-1]
            argv = argv[:3]
        return super().run(argv, deadline, **named)


def test_a_hang_is_told_once(pbx: Pbx) -> None:
    queue = Told()
    pbx.start()
    pbx.silence(SIP)
    expect_telling(queue)
    queue.expect("attrd_updater", "--name", HANG_ATTRIBUTE)
    code, said = judged(pbx, queue)
    assert code == 0
    assert "SIP at " in said
    assert "Pacemaker is told" in said
    assert "SIP at " in queue.value
    assert has(pbx, "hung")
    assert not has(pbx, "serving")
    # The monitor that was looking at the same.
    outcome = pbx.act("monitor", DEEP)
    assert outcome.code == Exit.DEGRADED
    assert "Pacemaker was told" in outcome.reason
    # And the watcher's next judge.
    assert judged(pbx, queue)[0] == 0
    # Pacemaker has not acted on it: then the monitor counts.
    told = f"{files(pbx)}.told"
    # Whatever somebody sets the other clock to.
    assert os.stat(told).st_mtime <= time.monotonic()
    old = time.monotonic() - 60
    os.utime(told, (old, old))
    assert pbx.act("monitor", DEEP).code == Exit.ERR_GENERIC
    queue.done()


def test_what_the_monitor_has_failed_is_not_told(pbx: Pbx, queue: CallQueue) -> None:
    pbx.start()
    pbx.silence(SIP)
    assert pbx.act("monitor", DEEP).code == Exit.ERR_GENERIC
    assert judged(pbx, queue)[0] == 0
    assert not has(pbx, "told")


@pytest.mark.parametrize(("answers", "questions"), [
    ([True, True], 1), ([False], 2), ([True, False], 2),
])
def test_what_owes_the_watcher_an_answer_is_asked_once(
    pbx: Pbx, monkeypatch: pytest.MonkeyPatch, answers: list[bool], questions: int
) -> None:
    """And twice if it has answered the watcher meanwhile."""
    asked: list[Database] = []
    real = Database.attempt

    def attempt(probe: Database, deadline: Deadline) -> Conversation[Verdict]:
        asked.append(probe)
        return real(probe, deadline)

    monkeypatch.setattr(Database, "attempt", attempt)
    queue = Told()
    pbx.start()
    asked.clear()
    pbx.silence("astdb")
    expect_telling(queue)
    queue.expect("attrd_updater", "--name", HANG_ATTRIBUTE)
    left = iter(answers)
    code, said = judged(pbx, queue, lambda key: key.startswith("astdb ") and next(left))
    assert code == 0
    assert "asked twice" in said
    assert len(asked) == questions
    assert list(left) == []
    queue.done()


class Stopping(CallQueue):
    """Pacemaker stops Asterisk while it is to be told of the hang, and takes nothing in."""

    def __init__(self, pbx: Pbx) -> None:
        super().__init__()
        self.pbx = pbx

    def run(self, argv, deadline, **named):  # type: ignore[no-untyped-def]
        if tuple(argv) == FAIL:
            assert self.pbx.act("stop").code == Exit.SUCCESS
            assert not has(self.pbx, "told")
        return super().run(argv, deadline, **named)


def test_a_stop_meanwhile_leaves_nobody_to_tell(pbx: Pbx) -> None:
    """Its kill would be told as a death, and the watcher would watch a node without Asterisk."""
    queue = Stopping(pbx)
    pbx.start()
    pbx.silence(SIP)
    expect_telling(queue, fail=1)
    assert judged(pbx, queue)[0] == 1
    queue.done()
    assert not has(pbx, "serving")
    assert not has(pbx, "told")


def test_only_news_of_the_watcher_count(pbx: Pbx) -> None:
    pbx.state.mkdir()
    judge = Judge("monitor", Context(environ(pbx)))
    now = time.monotonic()
    Path(f"{files(pbx)}.{silence.KIND}").write_text(silence.written({"astdb x": now - PATIENCE}))
    assert not judge.owes_another("astdb x")
    beat.give(f"{files(pbx)}.{beat.KIND}", now + 600)
    assert not judge.owes_another("astdb x")
    judge.context.clock = lambda: now
    beat.give(f"{files(pbx)}.{beat.KIND}", now)
    assert judge.owes_another("astdb x")
    assert not judge.owes_another("sip UDP 127.0.0.1 port 5060")
    judge.context.clock = lambda: now + 3
    assert not judge.owes_another("astdb x")


def test_one_that_answers_is_not_told(pbx: Pbx, queue: CallQueue) -> None:
    pbx.start()
    assert judged(pbx, queue) == (0, "")
    assert has(pbx, "serving")


@pytest.mark.parametrize("why", ["unmanaged", "refused", "absent"])
def test_a_hang_that_cannot_be_told_is_the_monitors(
    pbx: Pbx, queue: CallQueue, why: str
) -> None:
    pbx.start()
    pbx.silence(SIP)
    queue.expect(*MON, out=MANAGED.replace('managed="true"', f'managed="{_(why)}"'))
    if why == "refused":
        queue.expect(*FAIL, code=1, err="no such device")
    elif why == "absent":
        queue.expect(*FAIL, raises=NotInstalled("program crm_resource is not installed"))
    assert judged(pbx, queue)[0] == (0 if why == "unmanaged" else 1)
    assert has(pbx, "serving")
    assert not has(pbx, "told")
    assert pbx.act("monitor", DEEP).code == Exit.ERR_GENERIC


def _(why: str) -> str:
    return "false" if why == "unmanaged" else "true"


def test_one_that_is_stopped_meanwhile_is_not_told(pbx: Pbx, queue: CallQueue) -> None:
    pbx.start()
    pbx.silence(SIP)
    Path(f"{files(pbx)}.serving").unlink()  # with which a stop begins
    assert judged(pbx, queue)[0] == 0


def test_a_death_that_no_unit_tells_of(pbx: Pbx, queue: CallQueue) -> None:
    pbx.start()
    pbx.started[-1].end()
    expect_telling(queue)
    assert judged(pbx, queue)[0] == 0
    assert not has(pbx, "serving")


# The monitor, the start and the stop.


@pytest.fixture
def with_systemd(pbx: Pbx, monkeypatch: pytest.MonkeyPatch) -> Pbx:
    monkeypatch.setattr(Direct, "control_group", "asterisk.service")
    monkeypatch.setattr(pbx.agent, "_account", lambda self: os.geteuid())
    return pbx


RESTART = ("systemctl", "restart", "--no-block", f"asha-asterisk-watch@{RESOURCE}.service")


def test_the_start_starts_it_and_the_stop_leaves_nothing(
    with_systemd: Pbx, queue: CallQueue
) -> None:
    pbx = with_systemd
    queue.expect(*RESTART)
    assert pbx.act("start", runner=queue).code == Exit.SUCCESS
    given = begin.given(Path(f"{files(pbx)}.{begin.GIVEN}").read_text(encoding="utf-8"))
    assert given["OCF_RESKEY_sip_port"] == str(pbx.sip_port)
    assert given["OCF_RESOURCE_INSTANCE"] == RESOURCE
    assert pbx.act("monitor", DEEP, runner=queue).code == Exit.SUCCESS  # it was started just now
    assert pbx.act("stop", runner=queue).code == Exit.SUCCESS
    assert [path.name for path in pbx.state.iterdir() if path.suffix != ".lock"] == []


def test_a_monitor_starts_one_that_is_gone_and_says_if_that_does_not_help(
    with_systemd: Pbx, queue: CallQueue
) -> None:
    pbx = with_systemd
    queue.expect(*RESTART)
    assert pbx.act("start", runner=queue).code == Exit.SUCCESS
    Path(f"{files(pbx)}.beat").unlink()
    queue.expect(*RESTART)
    assert pbx.act("monitor", DEEP, runner=queue).code == Exit.SUCCESS
    Path(f"{files(pbx)}.beat").unlink()
    queue.expect(*RESTART, code=1, err="Unit is masked.")
    queue.expect("attrd_updater", "--name", "asha-asterisk", "--update",
                 "degraded: hangs are found later, by the monitor alone: "
                 f"systemctl status asha-asterisk-watch@{RESOURCE}.service")
    outcome = pbx.act("monitor", DEEP, runner=queue)
    assert outcome.code == Exit.DEGRADED
    assert "hangs are found later" in outcome.reason
    # A shallow one does not ask, nor does a probe.
    assert pbx.act("monitor", 0, runner=queue).code == Exit.SUCCESS


@pytest.mark.parametrize("kept", ["", "1 1 crm1 asterisk.service asterisk /usr/sbin/asterisk"])
def test_a_monitor_announces_one_of_which_nobody_has(
    with_systemd: Pbx, queue: CallQueue, kept: str
) -> None:
    """Somebody else has started it. Its death is news, and its hang."""
    pbx = with_systemd
    queue.expect(*RESTART)
    assert pbx.act("start", runner=queue).code == Exit.SUCCESS
    serving = Path(f"{files(pbx)}.serving")
    said = serving.read_text(encoding="utf-8")
    if kept:
        serving.write_text(kept, encoding="utf-8")
    else:
        serving.unlink()
    queue.expect(*RESTART)
    for _ in range(2):  # once
        assert pbx.act("monitor", DEEP, runner=queue).code == Exit.SUCCESS
    assert serving.read_text(encoding="utf-8") == said


# The units.


@pytest.mark.parametrize(("unit", "module"), [("watch", "watcher"), ("silent", "judge")])
def test_the_units(unit: str, module: str) -> None:
    said = (UNITS / f"asha-asterisk-{unit}@.service").read_text(encoding="utf-8").splitlines()
    path = "/run/resource-agents/asterisk-health-%i"
    assert f"ExecStart=/usr/bin/python3 -I -m asha.agents.watch.{module} {path}" in said
    # Who stops Asterisk on purpose has nobody judged.
    assert f"ConditionPathExists={path}.serving" in said


def test_the_watcher_has_no_mounts_of_its_own() -> None:
    """They would be copies of the store's (systemd.exec(5), SANDBOXING)."""
    said = (UNITS / "asha-asterisk-watch@.service").read_text(encoding="utf-8")
    settings = [line for line in said.splitlines() if not line.startswith("#")]
    for word in ("Protect", "Private", "Paths=", "RootDirectory", "TemporaryFileSystem"):
        assert not [line for line in settings if word in line and "Condition" not in line]
