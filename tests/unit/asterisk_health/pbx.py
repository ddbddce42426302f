"""One node with a fake Asterisk, as the tests of asterisk-health see it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

from asha.agents import asterisk_health
from asha.agents.asterisk_health import AsteriskHealth
from asha.asterisk.process.proc import STOPPED, Proc
from asha.asterisk.process.unit import Direct, Launcher
from asha.ocf import Exit
from asha.run.deadline import Deadline
from tests.fakes.asterisk import SECRET, USER, FakeProc, FakeProcess, close, free_ports, silence
from tests.fakes.ocf import CallQueue, FakeClock, Outcome, perform

DEEP = 10
DEEPEST = 20
AUTO = {"sip_port": "auto"}
REPOSITORY = Path(asterisk_health.__file__).parents[2]


class FakeLauncher(Direct):
    """Starts a fake Asterisk, with all of its parts speaking."""

    started: ClassVar[list[FakeProcess]]
    ports: ClassVar[tuple[int, int]]
    clears: ClassVar[bool] = True
    reloading: ClassVar[bool] = False
    looks: ClassVar[list[Callable[[], object]]] = []

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        # systemd, where this machine has it, is no part of the scene.
        vars(self).pop("control_group", None)

    def is_reloading(self) -> bool:
        return self.reloading

    def is_being_started(self) -> bool:
        """A restart of somebody else's takes as many looks, and the last finds it over."""
        if not self.looks:
            return False
        self.looks.pop()()
        return bool(self.looks)

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
        parameters = self.parameters | dict(given or {})
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

    @property
    def parameters(self) -> dict[str, str]:
        return {
            "unit": "none",
            "binary": str(self.binary),
            "run_directory": str(self.run),
            "sip_port": str(self.sip_port),
            "ami_port": str(self.ami_port),
            "ami_secret_file": str(self.secret),
            "probe_timeout": "500ms",
            "stop_grace": "2s",
            "evidence_keep": "0",
            # Or a start would look at this machine's own.
            "when_damaged": "leave",
            "when_misconfigured": "fail",
            "evidence_directory": str(self.state) + "-evidence",
            "database_socket": str(self.run) + "-mysqld.sock",
        }

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


MON = ("crm_mon", "-1", "--output-as=xml")


def nodes_xml(other: str) -> str:
    return (
        '<pacemaker-result><nodes><node name="crm1" online="true" standby="false" type="member"/>'
        f'<node name="crm2" type="member" {other}/></nodes></pacemaker-result>'
    )


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
