"""The agent as Pacemaker runs it, over a fake Asterisk that is a real process."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import pytest

from asha.agents import (
    asterisk_base,
    asterisk_diagnosis,
    asterisk_explanations,
    asterisk_health,
    asterisk_sip,
)
from asha.agents.asterisk_diagnosis import Diagnosis
from asha.agents.asterisk_health import AsteriskHealth
from asha.agents.asterisk_sip import SipSockets
from asha.asterisk import probes
from asha.asterisk.evidence import events_in
from asha.asterisk.probes import HEALTHY, Probe, SipOptions, Verdict
from asha.asterisk.process import proc, termination
from asha.asterisk.process.proc import BLOCKED, STOPPED, Endpoint, Proc, Process, Task
from asha.asterisk.process.unit import Direct, Launcher
from asha.asterisk.talk import control, sip
from asha.asterisk.talk.ami import Ami
from asha.asterisk.talk.connections import Line, Wait
from asha.ocf import Context, Degraded, Exit, Failed
from asha.run.deadline import Deadline
from tests.fakes.asterisk import (
    AMI,
    ASTDB_LOCKED,
    CALL_LEFT,
    CALLS,
    CONTEXT,
    CONTROL,
    DRAINING,
    FORBIDDEN,
    HUNG_UP,
    LOADING,
    NO_CALLS,
    NO_RECORDS,
    OVERLOAD,
    RECORDS_MOVE,
    RECORDS_WAIT,
    REFUSES,
    SECRET,
    SIP,
    SIP_HANGS_UP,
    STUCK,
    TERM,
    USER,
    FakeAsterisk,
    FakeProc,
    FakeProcess,
    close,
    free_ports,
    silence,
)
from tests.fakes.ocf import CallQueue, FakeClock, Outcome, perform

if TYPE_CHECKING:
    from asha.asterisk.talk.connections import Conversation

DEEP = 10
DEEPEST = 20
REPOSITORY = Path(asterisk_health.__file__).parents[2]


class FakeLauncher(Direct):
    """Starts a fake Asterisk, with all of its parts speaking."""

    started: ClassVar[list[FakeProcess]]
    ports: ClassVar[tuple[int, int]]
    clears: ClassVar[bool] = True
    reloading: ClassVar[bool] = False

    def is_reloading(self) -> bool:
        return self.reloading

    def validate(self) -> None:
        pass  # the fake needs no user

    def verdict_on_death(self) -> str | None:
        # Unlike a daemon's, its exec may be half done when launch() returns.
        code = self.started[-1].popen.poll()
        return None if code is None else f"{super().verdict_on_death()} (exit code {code})"

    def launch(self) -> None:
        folder = Path(self.agent.run_directory)  # type: ignore[attr-defined]
        if self.clears:
            for flag in (*folder.glob("silent-*"), *folder.glob("closed-*")):
                flag.unlink()
        self.started.append(FakeProcess(Path(self.binary), folder, self.ports))


class Agent(AsteriskHealth):
    """The agent, with the fake's launcher."""

    launcher_class: ClassVar[type[FakeLauncher]]

    def launcher(self) -> Launcher:
        return self.launcher_class(self, self.proc, self.binary, self.user, self.group)


class Pbx:
    """One node with its own fake Asterisk."""

    def __init__(self, folder: Path, binary: Path) -> None:
        self.run = folder / "run"
        self.run.mkdir()
        self.state = folder / "state"
        self.secret = folder / "ami.secret"
        self.binary = binary
        self.ami_port, self.sip_port = free_ports()
        self.started: list[FakeProcess] = []

        class Launching(FakeLauncher):
            started = self.started
            ports = (self.ami_port, self.sip_port)

        class Acting(Agent):
            launcher_class = Launching

        self.launcher: type[FakeLauncher] = Launching
        self.agent: type[Agent] = Acting

    def act(
        self,
        action: str,
        depth: int | None = None,
        given: Mapping[str, str] | None = None,
        *,
        timeout: float = 20,
        clock: FakeClock | None = None,
        runner: CallQueue | None = None,
    ) -> Outcome:
        """Run an action with parameters of a fake, and those ``given``."""
        parameters = {
            "unit": "none",
            "binary": str(self.binary),
            "run_directory": str(self.run),
            "sip_port": str(self.sip_port),
            "ami_port": str(self.ami_port),
            "ami_secret_file": str(self.secret),
            "probe_timeout": "500ms",
            "stop_grace": "2s",
            "evidence_keep": "0",
            "evidence_directory": str(self.state) + "-evidence",
        }
        parameters.update(given or {})
        # A stop ends every process of the binary: never that of another program.
        assert parameters["binary"] in (str(self.binary), "/nonexistent/asterisk")
        run: Callable[..., Outcome] = perform
        return run(
            self.agent,
            action,
            str(self.state),
            timeout=timeout,
            check_level=depth,
            clock=clock,
            runner=runner,
            **parameters,
        )

    def probe(self, given: Mapping[str, str] | None = None) -> Outcome:
        parameters = {
            "unit": "none",
            "binary": str(self.binary),
            "run_directory": str(self.run),
        }
        parameters.update(given or {})
        run: Callable[..., Outcome] = perform
        return run(self.agent, "monitor", str(self.state), meta={"interval": ""}, **parameters)

    def start(self) -> FakeProcess:
        outcome = self.act("start")
        assert outcome.code == Exit.SUCCESS, outcome.err
        return self.started[-1]

    def silence(self, part: str) -> None:
        silence(self.run, part)

    def close(self, part: str) -> None:
        close(self.run, part)

    def alive(self) -> list[int]:
        return [process.pid for process in Proc().daemons(str(self.binary))]


@pytest.fixture(scope="session")
def binary(common: Path) -> Path:
    made = FakeProcess.make_binary(common)
    made.chmod(0o755)
    return made


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asterisk_diagnosis, "CONFIRM", 0.3)
    monkeypatch.setattr(asterisk_health, "GREETING_SECONDS", 0.5)
    monkeypatch.setattr(asterisk_health, "HUNG_GRACE", 0.3)
    monkeypatch.setattr(asterisk_sip, "BIND_SECONDS", 0.5)
    monkeypatch.setattr(probes, "SECOND_TRY_AFTER", 0.01)


@pytest.fixture
def pbx(tmp_path: Path, binary: Path) -> Iterator[Pbx]:
    scene = Pbx(tmp_path, binary)
    yield scene
    for process in scene.started:
        process.end()


def halt(process: FakeProcess) -> None:
    """SIGSTOP, and wait: a process halts only when it gets a processor."""
    os.kill(process.pid, signal.SIGSTOP)
    target = Proc().process(process.pid)
    assert target is not None
    assert Deadline(30).poll(lambda: target.state == STOPPED, every=0.005)


def before_call(
    monkeypatch: pytest.MonkeyPatch,
    where: object,
    name: str,
    number: int,
    happens: Callable[[], object],
) -> list[None]:
    """Have something happen just before that call of a function; returns the calls."""
    real = getattr(where, name)
    calls: list[None] = []

    def call(*args: object, **named: object) -> object:
        calls.append(None)
        if len(calls) == number:
            happens()
        return real(*args, **named)

    monkeypatch.setattr(where, name, call)
    return calls


# Life


def test_whole_life(pbx: Pbx) -> None:
    assert pbx.probe().code == Exit.NOT_RUNNING
    first = pbx.start()
    assert pbx.alive() == [first.pid]
    assert pbx.probe().code == Exit.SUCCESS
    assert pbx.act("monitor", 0).code == Exit.SUCCESS
    assert pbx.act("monitor", DEEP).code == Exit.SUCCESS
    assert pbx.start() is first
    assert pbx.act("stop").code == Exit.SUCCESS
    assert pbx.alive() == []
    assert first.popen.wait() == 0  # it was asked, not killed
    assert pbx.act("stop").code == Exit.SUCCESS
    gone = pbx.act("monitor", 0)
    assert gone.code == Exit.NOT_RUNNING
    assert gone.reason == "Asterisk is not running"


def test_probe_changes_nothing(pbx: Pbx) -> None:
    for _ in range(2):
        before = sorted(pbx.run.rglob("*"))
        pbx.probe()
        assert sorted(pbx.run.rglob("*")) == before
        assert not pbx.state.exists()
        # And once more with one that runs.
        pbx.started.append(FakeProcess(pbx.binary, pbx.run, (pbx.ami_port, pbx.sip_port)))
        end = time.monotonic() + 10
        while not (pbx.run / "asterisk.pid").exists() and time.monotonic() < end:
            time.sleep(0.02)


def test_one_death_is_told_by_one(pbx: Pbx) -> None:
    """By the monitor that finds it, or by the notice (asha/asterisk/process/death_notice.py)."""
    first = pbx.start()
    (serving,) = pbx.state.glob("*.serving")
    assert str(pbx.binary) in serving.read_text()
    assert pbx.act("monitor", 0).code == Exit.SUCCESS
    first.popen.kill()
    first.popen.wait()
    assert pbx.probe().code == Exit.NOT_RUNNING
    assert serving.exists()  # a probe changes nothing
    assert pbx.act("monitor", 0).code == Exit.NOT_RUNNING
    assert not serving.exists()


def test_a_debugger_at_the_start_changes_nothing(
    pbx: Pbx, monkeypatch: pytest.MonkeyPatch
) -> None:
    def debugged(agent: AsteriskHealth, process: Process) -> None:
        raise Degraded("a debugger is at work")

    monkeypatch.setattr(AsteriskHealth, "_look_once", debugged)
    first = pbx.start()
    (serving,) = pbx.state.glob("*.serving")
    # And where it runs already it is not replaced.
    serving.unlink()
    assert pbx.start() is first
    assert serving.exists()
    assert first.popen.poll() is None


def test_probe_where_nothing_is_installed(pbx: Pbx) -> None:
    outcome = pbx.probe({"binary": "/nonexistent/asterisk"})
    assert outcome.code == Exit.NOT_RUNNING


def test_start_where_nothing_is_installed(pbx: Pbx) -> None:
    outcome = pbx.act("start", given={"binary": "/nonexistent/asterisk"})
    assert outcome.code == Exit.ERR_INSTALLED
    assert "/nonexistent/asterisk" in outcome.reason


@pytest.mark.parametrize(
    "parameters",
    [
        {"unit": "asterisk"},
        {"unit": "../asterisk.service"},
        {"sip_address": "pbx.example.org"},
        {"sip_port": "70000"},
        {"sip_port": "5060 0"},
        {"sip_port": "5060,5080"},
        {"sip_port": "auto 5060"},
        {"run_directory": "run/asterisk"},
        {"probe_timeout": "soon"},
        {"when_lost": "perhaps"},
    ],
)
def test_bad_parameter(pbx: Pbx, parameters: dict[str, str]) -> None:
    outcome = pbx.act("start", given=parameters)
    assert outcome.code == Exit.ERR_CONFIGURED
    (name,) = parameters
    assert name in outcome.reason
    assert pbx.started == []
    assert pbx.act("stop", given=parameters).code == Exit.SUCCESS


# Dead


def test_killed_asterisk(pbx: Pbx) -> None:
    pbx.start().end()
    outcome = pbx.act("monitor", 0)
    assert outcome.code == Exit.NOT_RUNNING, outcome.err
    assert "crashed or was killed" in outcome.reason
    assert pbx.act("stop").code == Exit.SUCCESS
    pbx.start()


def test_stopped_by_a_signal(pbx: Pbx) -> None:
    process = pbx.start()
    halt(process)
    outcome = pbx.act("monitor", 0)
    assert outcome.code == Exit.ERR_GENERIC
    assert "stopped by a signal (SIGSTOP" in outcome.reason
    began = time.monotonic()
    assert pbx.act("stop", given={"stop_grace": "15s"}).code == Exit.SUCCESS
    assert time.monotonic() - began < 10  # no grace for one that cannot use it
    assert pbx.alive() == []


def test_stopped_in_the_middle_of_a_look(scene: Scene) -> None:
    process = Proc(str(scene.proc.root)).process(scene.PID)
    assert process is not None
    scene.proc.task(50, 51, "T")
    environ = {"HA_RSCTMP": str(scene.state), "OCF_RESKEY_evidence_keep": "0"}
    agent = scene.agent("monitor", Context(environ))
    with pytest.raises(Failed, match="stopped by a signal"):
        Diagnosis(agent, process).reconsider()


def test_stopped_for_a_moment(pbx: Pbx, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asterisk_explanations, "STOPPED_CONFIRM", 10.0)
    process = pbx.start()
    halt(process)
    seen = before_call(
        monkeypatch, Process, "tasks_in", 3, lambda: os.kill(process.pid, signal.SIGCONT)
    )
    outcome = pbx.act("monitor", 0)
    assert outcome.code == Exit.SUCCESS, outcome.reason
    assert len(seen) >= 3


# Silent


def test_silent_control_socket(pbx: Pbx) -> None:
    pbx.start()
    pbx.silence(CONTROL)
    outcome = pbx.act("monitor", 0)
    assert outcome.code == Exit.ERR_GENERIC
    assert "control socket" in outcome.reason
    assert "asked twice" in outcome.reason
    assert pbx.probe().code == Exit.SUCCESS


@pytest.mark.parametrize(("part", "name"), [(AMI, "AMI"), (SIP, "SIP")])
def test_silent_part_is_seen_at_depth_10_only(pbx: Pbx, part: str, name: str) -> None:
    pbx.start()
    pbx.silence(part)
    assert pbx.act("monitor", 0).code == Exit.SUCCESS
    outcome = pbx.act("monitor", DEEP)
    assert outcome.code == Exit.ERR_GENERIC
    assert outcome.reason.startswith(f"{name} at ")


def test_part_that_is_switched_off_is_not_asked(pbx: Pbx) -> None:
    pbx.start()
    pbx.silence(AMI)
    pbx.silence(SIP)
    assert pbx.act("monitor", DEEP, {"sip_port": "0", "ami_port": "0"}).code == Exit.SUCCESS


def test_given_sip_address_is_asked(pbx: Pbx) -> None:
    pbx.start()
    assert pbx.act("monitor", DEEP, {"sip_address": "127.0.0.1"}).code == Exit.SUCCESS
    outcome = pbx.act("monitor", DEEP, {"sip_address": "127.0.0.2"})
    assert outcome.code == Exit.ERR_GENERIC
    assert "127.0.0.2" in outcome.reason


# Lost, and the phones work


def test_removed_control_socket(pbx: Pbx) -> None:
    pbx.start()
    (pbx.run / "asterisk.ctl").unlink()
    for depth in (0, DEEP):
        outcome = pbx.act("monitor", depth)
        assert outcome.code == Exit.DEGRADED
        assert "asterisk.ctl is gone" in outcome.reason
    assert pbx.act("monitor", 0, {"when_lost": "failed"}).code == Exit.ERR_GENERIC
    assert pbx.act("monitor", 0, {"sip_port": "0", "ami_port": "0"}).code == Exit.ERR_GENERIC


def test_removed_control_socket_and_no_other_sign_of_life(pbx: Pbx) -> None:
    pbx.start()
    (pbx.run / "asterisk.ctl").unlink()
    pbx.silence(SIP)
    pbx.silence(AMI)
    outcome = pbx.act("monitor", 0)
    assert outcome.code == Exit.ERR_GENERIC
    assert "asterisk.ctl is gone" in outcome.reason
    assert "SIP" in outcome.reason


def test_missing_pid_file(pbx: Pbx) -> None:
    process = pbx.start()
    (pbx.run / "asterisk.pid").write_text("1")
    outcome = pbx.act("monitor", 0)
    assert outcome.code == Exit.DEGRADED
    assert f"({process.pid})" in outcome.reason
    assert pbx.probe().code == Exit.SUCCESS
    assert pbx.act("stop").code == Exit.SUCCESS
    assert pbx.alive() == []


def test_ami_that_was_there_is_missed(pbx: Pbx) -> None:
    pbx.start()
    pbx.close(AMI)
    outcome = pbx.act("monitor", DEEP)
    assert outcome.code == Exit.DEGRADED
    assert "AMI no longer listens" in outcome.reason
    assert pbx.act("monitor", DEEP, {"when_lost": "failed"}).code == Exit.ERR_GENERIC


def test_ami_that_was_never_there_is_not_missed(pbx: Pbx) -> None:
    pbx.launcher.clears = False
    (pbx.run / f"closed-{AMI}").touch()
    outcome = pbx.act("start")
    assert outcome.code == Exit.SUCCESS
    assert "AMI" not in outcome.err
    assert pbx.act("monitor", DEEP).code == Exit.SUCCESS


def test_ami_that_is_configured_and_was_never_there_is_missed(pbx: Pbx) -> None:
    keep_secret(pbx)
    pbx.launcher.clears = False
    (pbx.run / f"closed-{AMI}").touch()
    outcome = pbx.act("start")
    assert outcome.code == Exit.SUCCESS
    assert "set enabled=yes in manager.conf" in outcome.err
    for given in ({}, {"when_lost": "failed"}):
        outcome = pbx.act("monitor", DEEP, given)
        assert outcome.code == Exit.DEGRADED
        assert "AMI is not watched: no port" in outcome.reason


@pytest.mark.parametrize("known", [False, True])
def test_nothing_is_said_to_a_squatter(pbx: Pbx, known: bool) -> None:
    """He is named, and no parameter makes a failure of it: he could end all calls."""
    keep_secret(pbx)
    if not known:
        pbx.launcher.clears = False
        (pbx.run / f"closed-{AMI}").touch()
    assert pbx.act("start").code == Exit.SUCCESS
    if known:
        pbx.close(AMI)
    with squatter(pbx.ami_port) as came:
        for depth in (DEEP, DEEPEST):
            outcome = pbx.act("monitor", depth, {"when_lost": "failed"})
            assert outcome.code == Exit.DEGRADED, outcome.reason
            assert f"({os.getpid()}) of user " in outcome.reason
            assert f"has AMI's port {pbx.ami_port}: end it, touch manager.conf" in outcome.reason
        assert came == []


def test_a_port_that_is_bound_anew_while_it_is_asked_is_told_nothing(
    pbx: Pbx, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_secret(pbx)
    with contextlib.ExitStack() as stack:
        came: list[list[bytes]] = []

        def taken() -> None:
            pbx.close(AMI)
            came.append(stack.enter_context(squatter(pbx.ami_port)))

        before_call(monkeypatch, Ami, "greet", 1, taken)
        outcome = pbx.act("monitor", DEEP, {"probes": "ami"})
        assert outcome.code == Exit.DEGRADED, outcome.reason
        assert "is not Asterisk's any more: nothing was said to it" in outcome.reason
        # Connected to, greeted by it, and not one byte was sent.
        assert came
        assert b"".join(came[0]) == b""


def test_the_secret_is_never_sent(pbx: Pbx) -> None:
    with_secret(pbx)
    sent: list[bytes] = []
    send = Line.send

    def watched(line: Line, data: bytes) -> Conversation[None]:
        sent.append(data)
        return send(line, data)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Line, "send", watched)
        assert pbx.act("monitor", DEEPEST).code == Exit.SUCCESS
    assert any(b"Action: Login" in data for data in sent)
    assert not any(SECRET.encode() in data or b"Secret:" in data for data in sent)


def test_closed_sip_is_a_failure(pbx: Pbx) -> None:
    pbx.start()
    pbx.close(SIP)
    assert pbx.act("monitor", 0).code == Exit.SUCCESS
    outcome = pbx.act("monitor", DEEP)
    assert outcome.code == Exit.ERR_GENERIC
    assert "no SIP socket" in outcome.reason


# The AMI secret


def test_ami_secret(pbx: Pbx) -> None:
    pbx.start()
    pbx.secret.write_text(f"user={USER}\nsecret={SECRET}\n")
    pbx.secret.chmod(0o600)
    assert pbx.act("monitor", DEEP).code == Exit.SUCCESS
    pbx.secret.write_text(f"user={USER}\nsecret=wrong\n")
    outcome = pbx.act("monitor", DEEP, {"when_lost": "failed"})
    assert outcome.code == Exit.DEGRADED
    assert "does not accept user asha" in outcome.reason
    pbx.secret.chmod(0o644)
    outcome = pbx.act("monitor", DEEP)
    assert outcome.code == Exit.DEGRADED
    assert "chmod 600" in outcome.reason
    assert "wrong" not in outcome.err


# What is asked through AMI


def keep_secret(pbx: Pbx) -> None:
    pbx.secret.write_text(f"user={USER}\nsecret={SECRET}\n")
    pbx.secret.chmod(0o600)


def with_secret(pbx: Pbx) -> None:
    pbx.start()
    keep_secret(pbx)


@contextlib.contextmanager
def squatter(port: int) -> Iterator[list[bytes]]:
    """Greets as AMI does; gives what each that came has said to it."""
    came: list[bytes] = []
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen()

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                caller, _ = listener.accept()
                with caller:
                    caller.settimeout(30)
                    caller.sendall(b"Asterisk Call Manager/5.0.4\r\n")
                    came.append(caller.recv(65536))

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield came
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(10)
        listener.close()


@pytest.mark.parametrize(
    ("part", "named"),
    [("channels", "channel lock"), ("dialplan", "dialplan lock"), ("astdb", "AstDB")],
)
def test_a_held_lock_is_named_and_failed(pbx: Pbx, part: str, named: str) -> None:
    with_secret(pbx)
    pbx.silence(part)
    assert pbx.act("monitor", 0).code == Exit.SUCCESS
    outcome = pbx.act("monitor", DEEP)
    assert outcome.code == Exit.ERR_GENERIC
    assert outcome.reason.startswith(f"{named} at ")
    assert "asked twice" in outcome.reason
    others = {"channel lock", "dialplan lock", "AstDB", "AMI at", "SIP at"} - {named}
    assert not any(other in outcome.reason for other in others)


@pytest.fixture
def waits_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread of Asterisk's is in the kernel, when that is asked for alone."""
    tasks_in = Process.tasks_in

    def with_one(process: Process, *states: str) -> list[Task]:
        return process.tasks()[:1] if states == (BLOCKED,) else tasks_in(process, *states)

    monkeypatch.setattr(Process, "tasks_in", with_one)


MON = ("crm_mon", "-1", "--output-as=xml")


def nodes_xml(other: str) -> str:
    return (
        '<pacemaker-result><nodes><node name="crm1" online="true" standby="false" type="member"/>'
        f'<node name="crm2" type="member" {other}/></nodes></pacemaker-result>'
    )


@pytest.mark.parametrize(
    ("other", "code"),
    [
        ('online="true" standby="false"', Exit.ERR_GENERIC),
        ('online="true" standby="true"', Exit.DEGRADED),
        ('online="false" standby="false"', Exit.DEGRADED),
    ],
)
def test_a_stalled_disk_is_a_failure_where_another_node_cures_it(
    pbx: Pbx, waits_for_the_disk: None, other: str, code: Exit
) -> None:
    """When the other has just lost power, DRBD holds each write: no reason to end calls."""
    with_secret(pbx)
    pbx.silence("astdb")
    runner = CallQueue()
    runner.expect(*MON, out=nodes_xml(other))
    if code == Exit.DEGRADED:
        told = "degraded: AstDB waits for its disk, and no other node is there to take over"
        runner.expect("attrd_updater", "--name", "asha-asterisk", "--update", told)
    outcome = pbx.act("monitor", DEEP, {"disk_patience": "500ms"}, runner=runner)
    runner.done()
    assert outcome.code == code
    assert "AstDB" in outcome.reason


def test_a_slow_disk_is_waited_for(
    pbx: Pbx, waits_for_the_disk: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_secret(pbx)
    pbx.silence("astdb")
    late = threading.Timer(1.0, (pbx.run / "silent-astdb").unlink)
    before_call(monkeypatch, asterisk_explanations, "ask", 1, late.start)
    outcome = pbx.act("monitor", DEEP, {"disk_patience": "15s"}, timeout=30)
    late.join()
    assert outcome.code == Exit.DEGRADED
    assert "the disk has held AstDB up" in outcome.reason


def test_a_disk_that_is_full_in_the_end_is_no_hang(
    pbx: Pbx, waits_for_the_disk: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_secret(pbx)
    pbx.silence("astdb")
    pbx.silence(ASTDB_LOCKED)  # which is what comes when the silence ends
    late = threading.Timer(1.0, (pbx.run / "silent-astdb").unlink)
    before_call(monkeypatch, asterisk_explanations, "ask", 1, late.start)
    outcome = pbx.act("monitor", DEEP, {"disk_patience": "15s"}, timeout=30)
    late.join()
    assert outcome.code == Exit.DEGRADED
    assert "the disk has held AstDB up" in outcome.reason
    assert "AstDB does not take a key" in outcome.reason


def test_a_connection_that_is_closed_unanswered_is_no_hang(pbx: Pbx) -> None:
    """chan_sip beyond its tcpauthlimit: whoever connects often enough could end all calls."""
    with_secret(pbx)
    pbx.silence(SIP_HANGS_UP)
    outcome = pbx.act("monitor", DEEP)
    assert outcome.code == Exit.DEGRADED
    assert "closed the connection without an answer" in outcome.reason
    # That is no excuse for what hangs beside it.
    pbx.silence("dialplan")
    assert pbx.act("monitor", DEEP).code == Exit.ERR_GENERIC


@pytest.fixture
def no_files_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Process, "files", lambda process: (1020, 1024))


@pytest.mark.parametrize("answer", ["degraded", "failed"])
def test_no_file_left_to_open_is_no_hang(pbx: Pbx, no_files_left: None, answer: str) -> None:
    """It accepts nobody then, and the calls that it has go on."""
    with_secret(pbx)
    for part in (CONTROL, AMI):
        pbx.silence(part)
    outcome = pbx.act("monitor", DEEP, {"when_overloaded": answer})
    assert outcome.code == (Exit.DEGRADED if answer == "degraded" else Exit.ERR_GENERIC)
    assert "has 1020 files open and may have 1024" in outcome.reason
    assert "LimitNOFILE=" in outcome.reason
    # The same where SIP has to be asked first.
    assert pbx.act("monitor", 0, {"when_overloaded": answer}).code == outcome.code


def test_want_of_files_does_not_excuse_a_held_lock(pbx: Pbx, no_files_left: None) -> None:
    """Who was let in has its file: a lock that it waits for is another matter."""
    with_secret(pbx)
    pbx.silence("dialplan")
    outcome = pbx.act("monitor", DEEP)
    assert outcome.code == Exit.ERR_GENERIC
    assert outcome.reason.startswith("dialplan lock")


def test_no_file_left_where_sip_is_not_watched(pbx: Pbx, no_files_left: None) -> None:
    with_secret(pbx)
    for part in (CONTROL, SIP):
        pbx.silence(part)
    given = {"probes": "ami channels"}
    assert pbx.act("monitor", 0, given).code == Exit.DEGRADED


def test_no_file_left_and_sip_silent_is_a_hang_with_its_cause(
    pbx: Pbx, no_files_left: None
) -> None:
    with_secret(pbx)
    for part in (CONTROL, AMI, SIP):
        pbx.silence(part)
    outcome = pbx.act("monitor", DEEP)
    assert outcome.code == Exit.ERR_GENERIC
    assert outcome.reason.startswith("control socket")
    assert "may have 1024" in outcome.reason


def test_a_stop_that_is_over_at_once_is_no_hang(
    pbx: Pbx, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A debugger that comes or goes: the threads are stopped for some milliseconds."""
    with_secret(pbx)
    pbx.close(CONTROL)  # so that it is looked at more closely
    tasks_in, looks = Process.tasks_in, [1]

    def momentarily(process: Process, *states: str) -> list[Task]:
        if states == (STOPPED,) and looks:
            looks.pop()
            return process.tasks()[:1]
        return tasks_in(process, *states)

    monkeypatch.setattr(Process, "tasks_in", momentarily)
    assert pbx.act("monitor", DEEP).code == Exit.DEGRADED
    assert not looks


@pytest.mark.parametrize("answer", ["degraded", "failed"])
def test_overload_is_told_from_a_hang(pbx: Pbx, answer: str) -> None:
    with_secret(pbx)
    pbx.silence(SIP)
    pbx.silence(OVERLOAD)
    outcome = pbx.act("monitor", DEEP, {"when_overloaded": answer})
    assert outcome.code == (Exit.DEGRADED if answer == "degraded" else Exit.ERR_GENERIC)
    assert "overloaded and drops SIP requests: pjsip/distributor" in outcome.reason


def test_a_queue_on_its_way_down_still_has_requests_dropped(pbx: Pbx) -> None:
    with_secret(pbx)
    pbx.silence(SIP)
    pbx.silence(DRAINING)
    outcome = pbx.act("monitor", DEEP)
    assert outcome.code == Exit.DEGRADED
    assert "has 470 tasks waiting" in outcome.reason


@pytest.mark.parametrize(
    ("part", "said"), [(HUNG_UP, "closed the connection"), (FORBIDDEN, "needs write=reporting")]
)
def test_a_question_that_ami_does_not_take_is_no_hang(pbx: Pbx, part: str, said: str) -> None:
    with_secret(pbx)
    pbx.silence(part)
    outcome = pbx.act("monitor", DEEP)
    assert outcome.code == Exit.DEGRADED
    assert outcome.reason.startswith("channel lock")
    assert said in outcome.err


def test_a_queue_that_does_not_move_is_a_hang(pbx: Pbx) -> None:
    with_secret(pbx)
    pbx.silence(SIP)
    pbx.silence(STUCK)
    outcome = pbx.act("monitor", DEEP)
    assert outcome.code == Exit.ERR_GENERIC
    assert "overloaded" not in outcome.reason


def test_overload_excuses_a_late_call_too(pbx: Pbx) -> None:
    with_secret(pbx)
    for part in (SIP, "call", OVERLOAD):
        pbx.silence(part)
    outcome = pbx.act("monitor", DEEPEST)
    assert outcome.code == Exit.DEGRADED
    assert "overloaded and drops SIP requests" in outcome.reason


@pytest.mark.parametrize("part", [SIP, "call"])
def test_a_stalled_disk_holds_up_more_than_astdb(
    pbx: Pbx, waits_for_the_disk: None, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """chan_sip writes a registration in its only thread; a record of a call may be a file."""
    monkeypatch.setattr(Task, "switches", "1")
    with_secret(pbx)
    pbx.silence("astdb")
    pbx.silence(part)
    for other, code in (
        ('online="false" standby="false"', Exit.DEGRADED),
        ('online="true" standby="false"', Exit.ERR_GENERIC),
    ):
        runner = CallQueue()
        runner.expect(*MON, out=nodes_xml(other))
        if code == Exit.DEGRADED:
            what = "SIP" if part == SIP else "call setup"
            told = f"degraded: AstDB ({what} too) waits for its disk, and no other node is there"
            runner.expect(
                "attrd_updater", "--name", "asha-asterisk", "--update", f"{told} to take over"
            )
        outcome = pbx.act("monitor", DEEPEST, {"disk_patience": "500ms"}, runner=runner)
        assert outcome.code == code, outcome.reason


def test_a_thread_that_writes_does_not_excuse_a_silent_sip(
    pbx: Pbx, waits_for_the_disk: None
) -> None:
    """It moves: what SIP and AstDB wait for may be each other."""
    with_secret(pbx)
    pbx.silence("astdb")
    pbx.silence(SIP)
    outcome = pbx.act("monitor", DEEP, {"disk_patience": "500ms"}, runner=CallQueue())
    assert outcome.code == Exit.ERR_GENERIC


@pytest.mark.parametrize(("part", "why"), [(SIP, OVERLOAD), ("call", RECORDS_WAIT)])
def test_a_disk_that_is_back_leaves_a_backlog(
    pbx: Pbx, waits_for_the_disk: None, monkeypatch: pytest.MonkeyPatch, part: str, why: str
) -> None:
    with_secret(pbx)
    for one in ("astdb", part, why):
        pbx.silence(one)
    before_call(monkeypatch, asterisk_explanations, "ask", 1, (pbx.run / "silent-astdb").unlink)
    outcome = pbx.act("monitor", DEEPEST, {"disk_patience": "1s"})
    assert outcome.code == Exit.DEGRADED, outcome.reason
    assert "AstDB" not in outcome.reason


def test_a_sip_that_hangs_is_no_disk(
    pbx: Pbx, waits_for_the_disk: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """AstDB is back, SIP is not: nobody need be asked who else is there."""
    with_secret(pbx)
    pbx.silence("astdb")
    pbx.silence(SIP)
    before_call(monkeypatch, asterisk_explanations, "ask", 1, (pbx.run / "silent-astdb").unlink)
    outcome = pbx.act("monitor", DEEP, {"disk_patience": "1s"}, runner=CallQueue())
    assert outcome.code == Exit.ERR_GENERIC
    assert "SIP at" in outcome.reason
    assert "AstDB" not in outcome.reason


@pytest.mark.parametrize("address", ["auto", "127.0.0.1"])
def test_a_firewall_that_refuses_is_no_dead_sip(
    pbx: Pbx, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    """REJECT, which says "port unreachable" as the kernel does where nobody listens."""
    pbx.start()

    def refused(*_: object) -> Generator[Wait, bool, str]:
        yield from ()
        raise ConnectionRefusedError(111, "Connection refused")

    monkeypatch.setattr(sip, "options", refused)
    outcome = pbx.act("monitor", DEEP, {"sip_address": address})
    assert outcome.code == Exit.DEGRADED
    assert "refused though Asterisk listens there: look at the firewall" in outcome.reason


def test_overload_does_not_excuse_a_held_lock(pbx: Pbx) -> None:
    with_secret(pbx)
    for part in (SIP, OVERLOAD, "dialplan"):
        pbx.silence(part)
    assert pbx.act("monitor", DEEP).code == Exit.ERR_GENERIC


def test_a_reload_may_hold_the_locks_for_a_while(
    pbx: Pbx, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_secret(pbx)
    pbx.launcher.reloading = True
    pbx.silence("dialplan")
    asked = before_call(
        monkeypatch, asterisk_explanations, "ask", 2, (pbx.run / "silent-dialplan").unlink
    )
    outcome = pbx.act("monitor", DEEP)
    assert len(asked) == 2
    assert outcome.code == Exit.DEGRADED
    assert "reload" in outcome.reason


def test_a_reload_that_never_ends_is_a_hang(pbx: Pbx) -> None:
    with_secret(pbx)
    pbx.launcher.reloading = True
    pbx.silence("dialplan")
    outcome = pbx.act("monitor", DEEP, {"reload_patience": "1s"})
    assert outcome.code == Exit.ERR_GENERIC
    assert outcome.reason.startswith("dialplan lock")


def test_evidence_is_kept_once_per_hang(pbx: Pbx) -> None:
    with_secret(pbx)
    pbx.silence(SIP)
    given = {"evidence_keep": "3", "evidence_seconds": "2s"}
    first = pbx.act("monitor", DEEP, given)
    assert first.code == Exit.ERR_GENERIC
    assert pbx.act("monitor", DEEP, given).code == Exit.ERR_GENERIC
    (event,) = events_in(f"{pbx.state}-evidence")
    summary = Path(f"{pbx.state}-evidence", event, "summary.txt").read_text()
    assert f"Why: {first.reason}" in summary


def test_no_evidence_of_an_asterisk_that_only_starts_slowly(pbx: Pbx) -> None:
    """gdb would halt it at the very moment at which all telephones register."""
    pbx.launcher.clears = False
    flag = pbx.run / f"silent-{SIP}"
    flag.touch()
    timer = threading.Timer(2.5, flag.unlink)
    timer.start()
    given = {"evidence_keep": "3", "evidence_seconds": "1s"}
    assert pbx.act("start", given=given).code == Exit.SUCCESS
    timer.join()
    assert events_in(f"{pbx.state}-evidence") == []


def test_a_lock_that_is_not_asked_for_is_not_seen(pbx: Pbx) -> None:
    with_secret(pbx)
    pbx.silence("channels")
    assert pbx.act("monitor", DEEP, {"probes": "ami dialplan astdb sip"}).code == Exit.SUCCESS


def test_silent_ami_is_named_alone(pbx: Pbx) -> None:
    with_secret(pbx)
    pbx.silence(AMI)
    outcome = pbx.act("monitor", DEEP)
    assert outcome.code == Exit.ERR_GENERIC
    assert outcome.reason.startswith("AMI at TCP 127.0.0.1 port")
    assert "lock" not in outcome.reason


def test_an_astdb_that_answers_with_an_error_is_no_hang(pbx: Pbx) -> None:
    with_secret(pbx)
    pbx.silence(ASTDB_LOCKED)
    outcome = pbx.act("monitor", DEEP)
    assert outcome.code == Exit.DEGRADED
    assert "AstDB does not take a key (Failed to update entry)" in outcome.reason
    assert pbx.act("monitor", DEEP, {"when_faulty": "failed"}).code == Exit.ERR_GENERIC


def test_unknown_question_is_refused(pbx: Pbx) -> None:
    outcome = pbx.act("validate-all", given={"probes": "ami astbd"})
    assert outcome.code == Exit.ERR_CONFIGURED
    assert '"astbd" is none of' in outcome.reason


# The call of depth 20


def test_a_call_is_made_at_depth_20_only(pbx: Pbx) -> None:
    with_secret(pbx)
    assert pbx.act("monitor", DEEP).code == Exit.SUCCESS
    assert not (pbx.run / CONTEXT).exists()
    for _ in range(2):
        assert pbx.act("monitor", DEEPEST).code == Exit.SUCCESS
    # Its context was made once, without a record, and is not made anew.
    assert (pbx.run / CONTEXT).read_text().splitlines() == [
        "s,1,Set(CDR_PROP(disable)=1)", "s,2,Answer()", "s,3,Wait(60)",
        "_k.,1,Set(CDR_PROP(disable)=1)", "_k.,2,Set(GLOBAL(ASHA_CALL)=${EXTEN})",
    ]
    calls = (pbx.run / CALLS).read_text().splitlines()
    assert len(calls) == 2
    assert calls[0].startswith("Local/s@asha-heartbeat/n extension k")
    assert calls[0] != calls[1]  # the sign of one is never taken for the other's


def test_without_a_cdr_engine_nothing_is_set(pbx: Pbx) -> None:
    with_secret(pbx)
    pbx.silence(NO_RECORDS)
    assert pbx.act("monitor", DEEPEST).code == Exit.SUCCESS
    assert "CDR" not in (pbx.run / CONTEXT).read_text()
    assert "s,1,Answer()\n" in (pbx.run / CONTEXT).read_text()


def test_a_call_that_hangs_is_failed(pbx: Pbx) -> None:
    with_secret(pbx)
    pbx.silence("call")
    assert pbx.act("monitor", DEEP).code == Exit.SUCCESS
    outcome = pbx.act("monitor", DEEPEST)
    assert outcome.code == Exit.ERR_GENERIC
    assert outcome.reason.startswith(f"call setup at {pbx.run}/asterisk.ctl is silent")
    assert "no end of the call within 0.5 s, asked twice" in outcome.reason


def test_a_call_that_waits_for_its_record_is_no_hang(pbx: Pbx) -> None:
    """The database of call records hangs; the calls go on."""
    with_secret(pbx)
    pbx.silence("call")
    pbx.silence(RECORDS_WAIT)
    outcome = pbx.act("monitor", DEEPEST)
    assert outcome.code == Exit.DEGRADED
    assert "held up by its record (stasis/m:cdr:aggregator" in outcome.reason


def test_records_that_are_soon_written_hold_no_call_up(pbx: Pbx) -> None:
    with_secret(pbx)
    for part in ("call", RECORDS_WAIT, RECORDS_MOVE):
        pbx.silence(part)
    outcome = pbx.act("monitor", DEEPEST)
    assert outcome.code == Exit.ERR_GENERIC
    assert outcome.reason.startswith("call setup")


def test_there_are_never_two_calls(pbx: Pbx) -> None:
    with_secret(pbx)
    pbx.silence(CALL_LEFT)
    outcome = pbx.act("monitor", DEEPEST)
    assert outcome.code == Exit.DEGRADED
    assert "s@asha-heartbeat) has not ended" in outcome.reason
    assert not (pbx.run / CALLS).exists()


def test_a_refused_call_is_no_hang(pbx: Pbx) -> None:
    with_secret(pbx)
    pbx.silence(REFUSES)
    outcome = pbx.act("monitor", DEEPEST)
    assert outcome.code == Exit.DEGRADED
    assert "sets up no call: is it at its maxcalls" in outcome.reason
    assert pbx.act("monitor", DEEPEST, {"when_faulty": "failed"}).code == Exit.ERR_GENERIC


def test_an_asterisk_that_has_no_such_command_is_told_what_to_add(pbx: Pbx) -> None:
    with_secret(pbx)
    pbx.silence(NO_CALLS)
    outcome = pbx.act("monitor", DEEPEST)
    assert outcome.code == Exit.DEGRADED
    assert "load pbx_config.so and res_clioriginate.so" in outcome.reason


# What the cluster is told


def test_the_attribute_says_what_is_degraded_and_for_how_long(pbx: Pbx) -> None:
    with_secret(pbx)
    pbx.silence(ASTDB_LOCKED)
    runner = CallQueue()
    told = "degraded: AstDB does not take a key (Failed to update entry): Asterisk has not its " \
           "file open"
    runner.expect("attrd_updater", "--name", "asha-asterisk", "--update", told)
    for _ in range(3):  # told once
        assert pbx.act("monitor", DEEP, runner=runner).code == Exit.DEGRADED
    # A shallower look has not seen it, and says nothing of it.
    assert pbx.act("monitor", 0, runner=runner).code == Exit.SUCCESS
    (pbx.run / f"silent-{ASTDB_LOCKED}").unlink()
    runner.expect("attrd_updater", "--name", "asha-asterisk", "--delete")
    for _ in range(2):
        assert pbx.act("monitor", DEEP, runner=runner).code == Exit.SUCCESS
    runner.done()


def test_the_attribute_is_told_again_for_a_manager_that_forgot_it(pbx: Pbx) -> None:
    with_secret(pbx)
    pbx.silence(ASTDB_LOCKED)
    assert pbx.act("monitor", DEEP).code == Exit.DEGRADED
    (state,) = pbx.state.glob("*.degraded")
    before = time.time() - 400
    os.utime(state, (before, before))
    for news in (True, False):
        runner = CallQueue()
        if news:
            runner.expect("attrd_updater", "--name", "asha-asterisk", "--update",
                          "degraded: " + state.read_text().partition(" ")[2])
        assert pbx.act("monitor", DEEP, runner=runner).code == Exit.DEGRADED
        runner.done()


def test_an_attribute_manager_that_is_not_there_changes_nothing(pbx: Pbx) -> None:
    with_secret(pbx)
    pbx.silence(ASTDB_LOCKED)
    runner = CallQueue()
    told = "degraded: AstDB does not take a key (Failed to update entry): Asterisk has not its " \
           "file open"
    runner.expect("attrd_updater", "--name", "asha-asterisk", "--update", told,
                  raises=Failed("attrd_updater did not end within 1.5 s"))
    first = pbx.act("monitor", DEEP, runner=runner)
    assert first.code == Exit.DEGRADED
    assert "the cluster was not told" in first.err
    again = pbx.act("monitor", DEEP, runner=runner)
    assert again.code == Exit.DEGRADED
    assert "not told" not in again.err


def test_the_attribute_is_taken_back_until_that_is_heard(pbx: Pbx) -> None:
    with_secret(pbx)
    pbx.silence(ASTDB_LOCKED)
    assert pbx.act("monitor", DEEP).code == Exit.DEGRADED
    (pbx.run / f"silent-{ASTDB_LOCKED}").unlink()
    runner = CallQueue()
    delete = ("attrd_updater", "--name", "asha-asterisk", "--delete")
    runner.expect(*delete, raises=Failed("attrd_updater did not end within 1.5 s"))
    runner.expect(*delete)
    for _ in range(3):
        assert pbx.act("monitor", DEEP, runner=runner).code == Exit.SUCCESS
    runner.done()


def test_stop_takes_the_attribute_back(pbx: Pbx) -> None:
    with_secret(pbx)
    pbx.silence(ASTDB_LOCKED)
    assert pbx.act("monitor", DEEP).code == Exit.DEGRADED
    assert list(pbx.state.glob("*.degraded"))
    runner = CallQueue()
    runner.expect("attrd_updater", "--name", "asha-asterisk", "--delete")
    assert pbx.act("stop", runner=runner).code == Exit.SUCCESS
    runner.done()
    assert not list(pbx.state.glob("*.degraded"))


# Start


def test_start_waits_for_the_end_of_loading(pbx: Pbx) -> None:
    pbx.launcher.clears = False
    flag = pbx.run / f"silent-{LOADING}"
    flag.touch()
    timer = threading.Timer(1.5, flag.unlink)
    timer.start()
    began = time.monotonic()
    pbx.start()
    assert time.monotonic() - began > 1.4
    timer.join()


def test_start_that_never_ends_loading(pbx: Pbx) -> None:
    pbx.launcher.clears = False
    (pbx.run / f"silent-{LOADING}").touch()
    outcome = pbx.act("start", timeout=3)
    assert outcome.code == Exit.ERR_GENERIC
    assert "loading its modules" in outcome.reason


def test_start_waits_for_sip(pbx: Pbx) -> None:
    pbx.launcher.clears = False
    flag = pbx.run / f"silent-{SIP}"
    flag.touch()
    timer = threading.Timer(2.0, flag.unlink)
    timer.start()
    pbx.start()
    assert not flag.exists()
    timer.join()


def test_start_without_sip_says_what_to_set(pbx: Pbx) -> None:
    began = time.monotonic()
    outcome = pbx.act("start", given={"sip_port": str(free_ports()[0])})
    assert outcome.code == Exit.ERR_GENERIC
    assert "0 if this PBX has no SIP" in outcome.reason
    assert time.monotonic() - began < 10


def pjsip(*ports: int) -> str:
    lines = (f"Transport:  transport-{port}  udp  0  0  0.0.0.0:{port}\n" for port in ports)
    return f"\n{''.join(lines)}\nObjects found: {len(ports)}\n\n"


def chan_sip(port: int) -> str:
    return f"Global Settings:\n  UDP Bindaddress:        127.0.0.1:{port}\n"


def says(pbx: Pbx, pjsip_says: str, chan_sip_says: str) -> None:
    (pbx.run / "says-pjsip-show-transports").write_text(pjsip_says)
    (pbx.run / "says-sip-show-settings").write_text(chan_sip_says)


AUTO = {"sip_port": "auto"}
NO_CHAN_SIP = "No such command 'sip show settings'\n"


def start_and_learn(pbx: Pbx) -> Path:
    """PJSIP alone is there; the file in which its socket is remembered."""
    says(pbx, pjsip(pbx.sip_port), "")
    assert pbx.act("start", given=AUTO).code == Exit.SUCCESS
    return next(pbx.state.parent.rglob("*.sip"))


def test_where_sip_is_taken_is_learned_at_the_start(pbx: Pbx) -> None:
    says(pbx, pjsip(pbx.sip_port), NO_CHAN_SIP)
    assert pbx.act("start", given=AUTO).code == Exit.SUCCESS
    assert pbx.act("monitor", DEEP, AUTO).code == Exit.SUCCESS
    pbx.silence(SIP)
    outcome = pbx.act("monitor", DEEP, AUTO)
    assert outcome.code == Exit.ERR_GENERIC
    assert f"UDP 127.0.0.1 port {pbx.sip_port}" in outcome.reason


def test_a_stack_without_its_port_keeps_nobody_waiting(pbx: Pbx) -> None:
    taken = free_ports()[0]  # by somebody else: Asterisk says so, and has no such socket
    says(pbx, pjsip(pbx.sip_port), chan_sip(taken))
    outcome = pbx.act("start", given=AUTO)
    assert outcome.code == Exit.SUCCESS
    assert f"should take SIP on port {taken} and does not" in outcome.err
    assert pbx.act("monitor", DEEP, AUTO).code == Exit.SUCCESS


def test_no_stack_has_its_port(pbx: Pbx) -> None:
    taken = free_ports()[0]
    says(pbx, pjsip(taken), "")
    outcome = pbx.act("start", given=AUTO)
    assert outcome.code == Exit.ERR_GENERIC
    assert f"no SIP socket on port {taken}:" in outcome.reason


def test_each_stack_is_missed(pbx: Pbx) -> None:
    state = start_and_learn(pbx)
    lost = free_ports()[0]  # it was there, it is not now, and chan_sip still says that it is
    state.write_text(state.read_text() + f"udp {lost} chan_sip\n")
    says(pbx, pjsip(pbx.sip_port), chan_sip(lost))
    outcome = pbx.act("monitor", DEEP, AUTO)
    assert outcome.code == Exit.ERR_GENERIC
    assert f"no SIP socket on port {lost}:" in outcome.reason


def test_a_stack_that_is_gone_is_told_and_no_reason_to_end_calls(pbx: Pbx) -> None:
    state = start_and_learn(pbx)
    learned = state.read_text()
    lost = free_ports()[0]
    state.write_text(f"{learned}udp {lost} chan_sip\n")
    says(pbx, pjsip(pbx.sip_port), NO_CHAN_SIP)
    for _ in range(2):
        outcome = pbx.act("monitor", DEEP, AUTO)
        assert outcome.code == Exit.DEGRADED
        assert f"no longer takes SIP on port {lost}: chan_sip is not loaded" in outcome.reason
    assert state.read_text() == f"{learned}udp {lost} chan_sip lost\n"
    # Loaded again, and then bound elsewhere.
    with socket.socket(type=socket.SOCK_DGRAM) as other, pytest.MonkeyPatch.context() as patch:
        other.bind(("127.0.0.1", lost))
        listening = Process.listening

        def listed(
        process: Process, port: int, protocols: tuple[str, ...], **_: bool
    ) -> list[Endpoint]:
            if port == lost:
                return [Endpoint("udp", "127.0.0.1", port, 0, "1")]
            return listening(process, port, protocols)

        patch.setattr(Process, "listening", listed)
        says(pbx, pjsip(pbx.sip_port), chan_sip(lost))
        patch.setattr(SipOptions, "converse", lambda probe, _: healthy(probe))
        assert pbx.act("monitor", DEEP, AUTO).code == Exit.SUCCESS
    assert state.read_text() == f"{learned}udp {lost} chan_sip\n"
    says(pbx, pjsip(pbx.sip_port), chan_sip(pbx.sip_port))
    assert pbx.act("monitor", DEEP, AUTO).code == Exit.SUCCESS
    assert pbx.act("stop", given=AUTO).code == Exit.SUCCESS
    assert not state.exists()


def healthy(probe: Probe) -> Generator[Wait, bool, Verdict]:
    yield from ()
    return Verdict(probe, HEALTHY)


def test_a_stack_that_does_not_tell_is_not_forgotten(pbx: Pbx) -> None:
    state = start_and_learn(pbx)
    state.write_text(f"{state.read_text()}udp {free_ports()[0]} chan_sip\n")
    before = state.read_text()
    says(pbx, pjsip(pbx.sip_port), "")  # its answer does not come
    assert pbx.act("monitor", DEEP, AUTO).code == Exit.ERR_GENERIC
    assert state.read_text() == before


def test_after_a_restart_by_hand_all_is_watched_again(pbx: Pbx) -> None:
    state = start_and_learn(pbx)
    learned = state.read_text()
    ami = next(pbx.state.glob("*.ami"))
    ami.write_text("1 1")
    state.write_text(learned.replace(learned.split()[1], "1"))
    assert pbx.act("monitor", DEEP, AUTO).code == Exit.SUCCESS
    assert state.read_text() == learned
    assert ami.read_text() == learned.splitlines()[0]


@pytest.mark.parametrize("transports", ["tls", "wss"])
def test_tls_alone_is_not_watched_and_no_reason_not_to_start(pbx: Pbx, transports: str) -> None:
    pbx.launcher.clears = False
    says(pbx, pjsip(5061).replace("udp", transports), NO_CHAN_SIP)
    outcome = pbx.act("start", given=AUTO)
    assert outcome.code == Exit.SUCCESS, outcome.reason
    assert "by TLS or WebSocket only" in outcome.err
    outcome = pbx.act("monitor", DEEP, AUTO)
    assert outcome.code == Exit.DEGRADED
    assert "by TLS or WebSocket only" in outcome.reason


def test_tls_does_not_make_up_for_what_was_there(pbx: Pbx) -> None:
    """PJSIP does not list a transport that could not start."""
    start_and_learn(pbx)
    says(pbx, pjsip(5061).replace("udp", "tls"), NO_CHAN_SIP)
    pbx.close(SIP)
    for _ in range(2):
        outcome = pbx.act("monitor", DEEP, AUTO)
        assert outcome.code == Exit.ERR_GENERIC
        assert f"no SIP socket on port {pbx.sip_port}:" in outcome.reason


def test_what_is_told_while_it_loads_is_not_all(pbx: Pbx) -> None:
    state = start_and_learn(pbx)
    state.unlink()
    (pbx.run / f"silent-{LOADING}").touch()
    assert pbx.act("monitor", DEEP, AUTO).code == Exit.SUCCESS
    assert not state.exists()
    (pbx.run / f"silent-{LOADING}").unlink()
    assert pbx.act("monitor", DEEP, AUTO).code == Exit.SUCCESS
    assert state.exists()


def test_ami_that_is_closed_while_it_loads_is_not_lost(
    pbx: Pbx, monkeypatch: pytest.MonkeyPatch
) -> None:
    pbx.start()
    closed = [True]
    listening = Process.listening

    def listed(
        process: Process, port: int, protocols: tuple[str, ...], **_: bool
    ) -> list[Endpoint]:
        return [] if closed else listening(process, port, protocols)

    monkeypatch.setattr(Process, "listening", listed)
    before_call(monkeypatch, SipSockets, "still_loads", 2, closed.clear)
    (pbx.run / f"silent-{LOADING}").touch()
    assert pbx.act("monitor", DEEP, {"when_lost": "failed"}).code == Exit.SUCCESS


def test_what_cannot_be_kept_is_asked_again(pbx: Pbx) -> None:
    """A full /run, and SIP on a port that nobody would guess."""
    says(pbx, pjsip(pbx.sip_port), "")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AsteriskHealth, "write_state", lambda *_: None)
        assert pbx.act("start", given=AUTO).code == Exit.SUCCESS
        assert pbx.act("monitor", DEEP, AUTO).code == Exit.SUCCESS


def test_one_that_still_loads_is_waited_for(pbx: Pbx, monkeypatch: pytest.MonkeyPatch) -> None:
    """After "core restart now", which is the same process."""
    pbx.start()
    pbx.close(SIP)
    (pbx.run / f"silent-{LOADING}").touch()
    listening = Process.listening
    looks = before_call(monkeypatch, SipSockets, "still_loads", 1, lambda: None)

    def listed(
        process: Process, port: int, protocols: tuple[str, ...], **_: bool
    ) -> list[Endpoint]:
        if port == pbx.sip_port and looks:
            return [Endpoint("udp", "127.0.0.1", port, 0, "1")]
        return listening(process, port, protocols)

    monkeypatch.setattr(Process, "listening", listed)
    monkeypatch.setattr(SipOptions, "converse", lambda probe, _: healthy(probe))
    assert pbx.act("monitor", DEEP).code == Exit.SUCCESS


def test_one_that_loads_for_ever_is_not(pbx: Pbx) -> None:
    pbx.start()
    pbx.close(SIP)
    (pbx.run / f"silent-{LOADING}").touch()
    outcome = pbx.act("monitor", DEEP, {"reload_patience": "500ms"})
    assert outcome.code == Exit.ERR_GENERIC
    assert "no SIP socket" in outcome.reason


def test_one_address_is_asked_where_sip_is_taken_there(pbx: Pbx) -> None:
    """The other port belongs to a stack that is bound to another address."""
    with socket.socket(type=socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.2", free_ports()[0]))
        elsewhere = other.getsockname()[1]
        listening = Process.listening

        def listed(
        process: Process, port: int, protocols: tuple[str, ...], **_: bool
    ) -> list[Endpoint]:
            if port == elsewhere:
                return [Endpoint("udp", "127.0.0.2", port, 0, "1")]
            return listening(process, port, protocols)

        says(pbx, pjsip(pbx.sip_port), chan_sip(elsewhere))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Process, "listening", listed)
            given = {**AUTO, "sip_address": "127.0.0.1"}
            assert pbx.act("start", given=given).code == Exit.SUCCESS
            outcome = pbx.act("monitor", DEEP, given)
            assert outcome.code == Exit.SUCCESS, outcome.reason
            pbx.silence(SIP)
            assert pbx.act("monitor", DEEP, given).code == Exit.ERR_GENERIC


def test_the_only_stack_is_missed(pbx: Pbx) -> None:
    says(pbx, pjsip(pbx.sip_port), "")
    assert pbx.act("start", given=AUTO).code == Exit.SUCCESS
    says(pbx, "No such command", "No such command")
    pbx.close(SIP)
    outcome = pbx.act("monitor", DEEP, AUTO)
    assert outcome.code == Exit.ERR_GENERIC
    assert f"no SIP socket on port {pbx.sip_port}:" in outcome.reason


def test_one_that_was_started_by_an_older_agent_is_asked_when_it_matters(pbx: Pbx) -> None:
    pbx.start()  # with a port in its parameters, so that nothing is remembered
    says(pbx, pjsip(pbx.sip_port), "")
    assert pbx.act("monitor", DEEP, AUTO).code == Exit.SUCCESS
    (state,) = pbx.state.glob("*.sip")
    assert state.read_text().endswith(f"\nudp {pbx.sip_port} PJSIP\n")


def test_early_death_is_told(pbx: Pbx) -> None:
    class Dying(pbx.launcher):  # type: ignore[name-defined, misc]
        def launch(self) -> None:
            pass

        def verdict_on_death(self) -> str:
            return "no such user"

    pbx.agent.launcher_class = Dying
    outcome = pbx.act("start")
    assert outcome.code == Exit.ERR_GENERIC
    assert outcome.reason == "Asterisk ended while it started: no such user"


def test_hung_leftover_is_replaced_and_never_doubled(pbx: Pbx) -> None:
    old = pbx.start()
    halt(old)
    new = pbx.start()
    assert new is not old
    assert pbx.alive() == [new.pid]


def test_leftover_whose_sip_hangs_is_replaced(pbx: Pbx) -> None:
    old = pbx.start()
    pbx.silence(SIP)
    new = pbx.start()
    assert new is not old
    assert pbx.alive() == [new.pid]


def test_start_of_a_killed_action_that_still_loads_is_waited_for(pbx: Pbx) -> None:
    flag = pbx.run / f"silent-{LOADING}"
    first = pbx.start()
    flag.touch()
    timer = threading.Timer(1.0, flag.unlink)
    timer.start()
    assert pbx.start() is first
    timer.join()


# Stop


def test_stubborn_asterisk_is_killed(pbx: Pbx) -> None:
    process = pbx.start()
    pbx.silence(TERM)
    assert pbx.act("stop").code == Exit.SUCCESS
    assert process.popen.wait() == -signal.SIGKILL


def test_hung_one_gets_less_grace(pbx: Pbx) -> None:
    pbx.start()
    pbx.silence(TERM)
    pbx.silence(SIP)
    assert pbx.act("monitor", DEEP).code == Exit.ERR_GENERIC
    began = time.monotonic()
    assert pbx.act("stop", given={"stop_grace": "15s"}).code == Exit.SUCCESS
    assert time.monotonic() - began < 10


def test_a_long_grace_leaves_time_to_kill(pbx: Pbx) -> None:
    """Its end is proven within the action, though the grace is longer than that."""
    pbx.start()
    pbx.silence(TERM)
    assert pbx.act("stop", given={"stop_grace": "30s"}, timeout=7).code == Exit.SUCCESS
    assert pbx.alive() == []


def test_recovered_one_gets_its_grace_again(pbx: Pbx) -> None:
    pbx.start()
    pbx.silence(SIP)
    assert pbx.act("monitor", DEEP).code == Exit.ERR_GENERIC
    assert list(pbx.state.glob("*.hung"))
    (pbx.run / f"silent-{SIP}").unlink()
    assert pbx.act("monitor", DEEP).code == Exit.SUCCESS
    assert not list(pbx.state.glob("*.hung"))


def test_another_copy_that_the_pid_file_names_is_stopped(pbx: Pbx, tmp_path: Path) -> None:
    """Monitor takes it for the Asterisk that runs, so stop has to end it."""
    folder = tmp_path / "local"
    folder.mkdir()
    copy = folder / pbx.binary.name
    shutil.copy(pbx.binary, copy)
    pbx.run.joinpath("asterisk.pid").unlink(missing_ok=True)
    with subprocess.Popen([str(copy), "-c", "import time; time.sleep(600)"]) as other:
        try:
            (pbx.run / "asterisk.pid").write_text(f"{other.pid}\n")
            wait_for_exe(other.pid, copy)
            assert pbx.probe().code == Exit.SUCCESS
            assert pbx.act("stop").code == Exit.SUCCESS
            assert other.wait(timeout=10) < 0
        finally:
            other.kill()


def wait_for_exe(pid: int, program: Path) -> None:
    deadline = time.monotonic() + 10
    while os.readlink(f"/proc/{pid}/exe") != str(program):
        assert time.monotonic() < deadline


def test_every_other_asterisk_is_stopped_too(pbx: Pbx, tmp_path: Path) -> None:
    pbx.start()
    other = FakeProcess(pbx.binary, tmp_path / "other", free_ports())
    pbx.started.append(other)
    assert pbx.act("stop").code == Exit.SUCCESS
    assert pbx.alive() == []


ACCOUNT = 54321


@pytest.fixture
def strangers(pbx: Pbx) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Processes of Asterisk's program that somebody else than root runs."""
    made: list[subprocess.Popen[bytes]] = []

    def make(uid: int, *, halted: bool = False) -> subprocess.Popen[bytes]:
        argv = [str(pbx.binary), "-I", "-c", "import time; time.sleep(600)"]
        made.append(subprocess.Popen(argv, user=uid, cwd="/"))
        wait_for_exe(made[-1].pid, pbx.binary)
        if halted:
            os.kill(made[-1].pid, signal.SIGSTOP)
        return made[-1]

    yield make
    for one in made:
        one.kill()
        one.wait()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
@pytest.mark.parametrize("halted", [True, False])
def test_a_strangers_process_is_neither_found_nor_ended(
    pbx: Pbx, strangers: Callable[..., subprocess.Popen[bytes]], halted: bool
) -> None:
    stranger = strangers(65534, halted=halted)
    (pbx.run / "asterisk.pid").write_text(f"{stranger.pid}\n")
    assert pbx.probe().code == Exit.NOT_RUNNING
    (pbx.run / "asterisk.pid").unlink()
    pbx.start()
    (pbx.run / "asterisk.pid").write_text(f"{stranger.pid}\n")
    outcome = pbx.act("monitor", DEEP)
    assert outcome.code == Exit.DEGRADED
    assert "does not name the Asterisk that runs" in outcome.reason
    assert pbx.act("stop").code == Exit.SUCCESS
    assert stranger.poll() is None
    assert pbx.alive() == [stranger.pid]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_the_accounts_strays_end_with_a_stop(
    pbx: Pbx, strangers: Callable[..., subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asha.asterisk.process.unit.account_number", lambda name, deadline: ACCOUNT)
    pbx.start()
    stray = strangers(ACCOUNT, halted=True)
    assert pbx.act("stop").code == Exit.SUCCESS
    assert stray.wait(timeout=10) == -signal.SIGKILL
    assert pbx.alive() == []


def test_who_keeps_asterisk_from_its_port_is_named(pbx: Pbx) -> None:
    port = free_ports()[1]
    with socket.socket(type=socket.SOCK_DGRAM) as holder:
        holder.bind(("127.0.0.1", port))
        outcome = pbx.act("start", given={"sip_port": str(port)})
    assert outcome.code == Exit.ERR_GENERIC
    user = pwd.getpwuid(os.getuid()).pw_name
    assert f"({os.getpid()}) of user {user} holds UDP 127.0.0.1 port {port}" in (
        outcome.reason
    )


def test_children_end_with_it(pbx: Pbx, tmp_path: Path) -> None:
    process = pbx.start()
    child = Process("/proc", 0, ("", "", 0, 0, ""))

    class Family(pbx.launcher):  # type: ignore[name-defined, misc]
        def family(self, daemons: list[Process]) -> list[Process]:
            return [child]

    with subprocess.Popen(["sleep", "60"]) as agi:
        found = Proc().process(agi.pid)
        assert found is not None
        child = found
        pbx.agent.launcher_class = Family
        assert pbx.act("stop").code == Exit.SUCCESS
        assert agi.wait() in (-signal.SIGTERM, -signal.SIGKILL)
    assert process.popen.wait() == 0


# Started by Asterisk, it outlives it, and then starts the next one.
AGI = """\
trap "" TERM
echo $$ >>{file}
while grep -q . /proc/{parent}/maps; do :; done
sleep 600 &
echo $! >>{file}
"""


def test_what_an_orphan_starts_ends_too(pbx: Pbx, tmp_path: Path) -> None:
    """A writer whose parents are all gone: only the session tells whose it is."""
    file = tmp_path / "pids"
    code = (
        "import os, subprocess, time\n"
        f"script = {AGI!r}.format(file={str(file)!r}, parent=os.getpid())\n"
        "subprocess.Popen(['sh', '-c', script])\n"
        "time.sleep(600)\n"
    )
    argv = [str(pbx.binary), "-I", "-c", code]
    with subprocess.Popen(argv, start_new_session=True) as process:
        try:
            assert Deadline(30).poll(lambda: file.exists() and bool(file.read_text()))
            assert pbx.act("stop").code == Exit.SUCCESS
            family = [Proc().process(int(pid)) for pid in file.read_text().split()]
            assert [one for one in family if one is not None and not one.gone] == []
        finally:
            process.kill()
    assert pbx.alive() == []


# What only the kernel can show, in a fake /proc


class Scene(Pbx):
    """The sockets of a fake Asterisk, its process only on paper."""

    PID = 50

    def __init__(self, folder: Path, binary: Path) -> None:
        super().__init__(folder, binary)
        root = folder / "proc"
        root.mkdir()
        self.proc = FakeProc(root)
        self.proc.add(self.PID, "asterisk", exe=str(binary), argv=("asterisk", "-f"))
        self.proc.add(77, "gdb")
        self.agent.proc = Proc(str(root))
        self.clock = FakeClock()

    def look(self) -> Outcome:
        return self.act("monitor", 0, {"sip_port": "0", "ami_port": "0"}, clock=self.clock)


@pytest.fixture
def scene(
    tmp_path: Path, binary: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Scene]:
    one = Scene(tmp_path, binary)
    one.state.mkdir()
    monkeypatch.setattr(control, "_peer", lambda line: one.PID)
    with FakeAsterisk(one.run, pid=one.PID):
        yield one


@pytest.mark.parametrize("ends", [True, False])
def test_one_on_its_way_out_does_not_run(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, ends: bool
) -> None:
    """A console that ends just then is none; what never ends is not over."""
    monkeypatch.setattr(asterisk_base, "ENDING_SECONDS", 0.3)
    (scene.run / "asterisk.pid").unlink()
    gone = scene.proc.root / "50"
    (gone / "exe").unlink()
    if ends:
        before_call(monkeypatch, Proc, "has_program", 1, lambda: shutil.rmtree(gone))
    outcome = scene.look()
    assert outcome.code == (Exit.NOT_RUNNING if ends else Exit.ERR_GENERIC), outcome.reason
    assert ends or "has died but does not end" in outcome.reason


def test_debugger_is_no_failure(scene: Scene) -> None:
    scene.proc.task(50, 51, "t", tracer=77)
    outcome = scene.look()
    assert outcome.code == Exit.DEGRADED
    assert "gdb (77)" in outcome.reason


def test_thread_in_the_kernel_is_reported(scene: Scene) -> None:
    scene.proc.task(50, 51, "D", where="jbd2_log_wait_commit")
    outcome = scene.look()
    assert outcome.code == Exit.DEGRADED
    assert "thread 51 (asterisk)" in outcome.reason
    assert "jbd2_log_wait_commit" in outcome.reason


def test_thread_that_reads_a_disk_is_not(scene: Scene) -> None:
    scene.proc.task(50, 51, "D", switches=1)
    advance = scene.clock.sleep

    def run_meanwhile(seconds: float) -> None:
        advance(seconds)
        scene.proc.task(50, 51, "D", switches=int(scene.clock.now * 1000))

    scene.clock.sleep = run_meanwhile  # type: ignore[method-assign]
    assert scene.look().code == Exit.SUCCESS


def test_one_stopped_thread_among_many(scene: Scene) -> None:
    scene.proc.task(50, 51, "S")
    scene.proc.task(50, 52, "T")
    outcome = scene.look()
    assert outcome.code == Exit.ERR_GENERIC
    assert "stopped by a signal" in outcome.reason


def test_frozen_by_its_cgroup(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proc, "CGROUPS", str(tmp_path))
    events = tmp_path / "cgroup.events"
    events.write_text("populated 1\nfrozen 0\n")
    process = Proc(str(scene.proc.root)).process(scene.PID)
    assert process is not None
    environ = {"HA_RSCTMP": str(scene.state), "OCF_RESKEY_evidence_keep": "0"}
    agent = scene.agent("monitor", Context(environ))
    Diagnosis(agent, process).reconsider()
    events.write_text("populated 1\nfrozen 1\n")
    with pytest.raises(Failed, match=r"frozen by its cgroup: .*/cgroup\.freeze"):
        Diagnosis(agent, process).reconsider()


def test_a_thread_that_never_rests_is_reported(scene: Scene) -> None:
    def look(ran: int) -> Outcome:
        scene.proc.task(50, 51, "R", name="loop", ran=ran)
        given = {"sip_port": "0", "ami_port": "0"}
        return scene.act("monitor", DEEPEST, given, clock=scene.clock)

    second = 1_000_000_000
    assert look(0).code == Exit.SUCCESS
    scene.clock.sleep(60)
    outcome = look(58 * second)
    assert outcome.code == Exit.DEGRADED
    assert "thread 51 (loop) has not rested for 60 s and used 97% of a core" in outcome.reason
    scene.clock.sleep(60)
    assert look(70 * second).code == Exit.SUCCESS


def test_zombie_that_a_thread_holds(scene: Scene) -> None:
    scene.proc.task(50, 50, "Z")
    scene.proc.task(50, 51, "D", name="worker", where="rpc_wait_bit_killable")
    outcome = scene.look()
    assert outcome.code == Exit.ERR_GENERIC
    assert "thread 51 (worker) in state D waits in rpc_wait_bit_killable" in outcome.reason


def test_zombie_alone_is_dead(scene: Scene) -> None:
    scene.proc.task(50, 50, "Z")
    assert scene.look().code == Exit.NOT_RUNNING


def test_crash_with_a_core_is_named(scene: Scene) -> None:
    (scene.proc.root / "50" / "status").write_text("Uid:\t0\t0\t0\t0\nCoreDumping:\t1\n")
    (scene.run / "asterisk.ctl").unlink()
    outcome = scene.look()
    assert outcome.code == Exit.ERR_GENERIC
    assert "writing its core dump" in outcome.reason


@pytest.fixture
def signals(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """What would have been sent: the processes of a fake /proc are others' in truth."""
    sent: list[tuple[int, int]] = []

    def send(process: Process, number: int) -> None:
        sent.append((process.pid, number))

    monkeypatch.setattr(termination, "_send", send)
    return sent


def test_stop_that_cannot_kill_says_which_thread(
    scene: Scene, signals: list[tuple[int, int]]
) -> None:
    scene.proc.task(50, 51, "D", name="db_sync", where="jbd2_log_wait_commit")
    outcome = scene.act("stop", clock=scene.clock)
    assert outcome.code == Exit.ERR_GENERIC
    assert "thread 51 (db_sync) in state D waits in jbd2_log_wait_commit" in outcome.reason
    assert "fenced" in outcome.reason
    assert (50, signal.SIGKILL) in signals


@pytest.mark.parametrize(
    ("hung", "fencing", "other", "least", "most"),
    [
        (True, "true", 'online="true"', 1, 4),
        (True, "true", 'online="true" standby="true"', 15, 20),  # nobody is there to go on
        (True, "true", 'online="false"', 15, 20),
        (True, "false", "", 15, 20),
        (False, "", "", 15, 20),  # somebody asked for this stop, and the disk is slow
    ],
)
def test_stop_that_cannot_kill_is_shorter_where_a_fence_cures(
    scene: Scene, signals: list[tuple[int, int]],
    hung: bool, fencing: str, other: str, least: float, most: float,
) -> None:
    scene.proc.task(50, 50, "Z")
    scene.proc.task(50, 51, "D", name="db_sync")
    runner = CallQueue()
    if hung:
        (scene.state / "asterisk-health-p_test.hung").write_text("50 100")
        runner.expect(
            *("crm_attribute", "--type", "crm_config", "--name", "stonith-enabled"),
            *("--query", "--quiet", "--default", "true"),
            out=f"{fencing}\n",
        )
    if other:
        runner.expect(*MON, out=nodes_xml(other))
    begun = scene.clock.now
    outcome = scene.act("stop", clock=scene.clock, runner=runner)
    assert outcome.code == Exit.ERR_GENERIC
    assert "thread 51 (db_sync) in state D" in outcome.reason
    assert least <= scene.clock.now - begun <= most
    runner.done()


def test_a_wrapper_of_a_strangers_is_left_alone(
    scene: Scene, signals: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.proc.add(49, "safe_asterisk", uid=65534)

    def die(process: Process, number: int) -> None:
        signals.append((process.pid, number))
        scene.proc.remove(process.pid)

    monkeypatch.setattr(termination, "_send", die)
    assert scene.act("stop", clock=scene.clock).code == Exit.SUCCESS
    assert signals == [(50, signal.SIGTERM)]


def test_wrapper_is_killed_before_asterisk_is_asked(
    scene: Scene, signals: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.proc.add(49, "safe_asterisk")

    def die(process: Process, number: int) -> None:
        signals.append((process.pid, number))
        scene.proc.remove(process.pid)

    monkeypatch.setattr(termination, "_send", die)
    assert scene.act("stop", clock=scene.clock).code == Exit.SUCCESS
    assert signals[:2] == [(49, signal.SIGKILL), (50, signal.SIGTERM)]


# The cost


def test_monitor_imports_nothing_that_it_does_not_need(pbx: Pbx) -> None:
    pbx.start()
    code = (
        f"import sys; sys.path.insert(0, {str(REPOSITORY)!r})\n"
        "from asha.agents.asterisk_health import AsteriskHealth\n"
        "from asha.ocf import main\n"
        "code = main(AsteriskHealth, ['monitor'])\n"
        "print(code, *sys.modules)"
    )
    environ = {
        "HA_RSCTMP": str(pbx.state),
        "OCF_RESKEY_CRM_meta_interval": "5000",
        "OCF_CHECK_LEVEL": "10",
        "OCF_RESKEY_binary": str(pbx.binary),
        "OCF_RESKEY_run_directory": str(pbx.run),
        "OCF_RESKEY_sip_port": str(pbx.sip_port),
        "OCF_RESKEY_ami_port": str(pbx.ami_port),
    }
    done = subprocess.run(
        [sys.executable, "-I", "-c", code], env=environ, capture_output=True, text=True, check=True
    )
    result, *modules = done.stdout.split()
    assert result == "0", done.stderr
    costly = {
        *("subprocess", "socket", "selectors", "enum", "re", "json", "logging", "signal"),
        *("pathlib", "dataclasses", "typing", "asyncio", "threading", "traceback"),
    }
    # What Python itself has loaded at its start is no matter of ours.
    bare = subprocess.run(
        [sys.executable, "-I", "-c", "import sys; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert costly & set(modules) <= set(bare.stdout.split())


def test_metadata_tells_what_each_parameter_is_for() -> None:
    from asha.ocf.metadata import render

    text = render(AsteriskHealth)
    for name in AsteriskHealth.parameters:
        assert f'name="{name}"' in text


def test_metadata_has_a_table_of_what_is_looked_at() -> None:
    text = AsteriskHealth.appendix()
    table = [line for line in text.splitlines() if line.startswith(" ")]
    assert all(len(line) <= 78 for line in table)
    words = {line.split()[0] for line in table}
    assert set(probes.PROBES) <= words
    assert "(always)" in words
