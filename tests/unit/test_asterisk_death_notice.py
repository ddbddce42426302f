"""The notice of Asterisk's death: told once, and only of the one that served."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from asha.asterisk.process import deaths
from asha.asterisk.process.death_notice import main
from asha.asterisk.process.proc import Proc
from asha.run.runner import Completed
from tests.fakes.asterisk import FakeProc
from tests.fakes.ocf import CallQueue

UNIT = Path(__file__).parents[2] / "asha/asterisk/asha-asterisk-died@.service"


@pytest.fixture
def queue() -> Iterator[CallQueue]:
    made = CallQueue()
    yield made
    made.done()


@pytest.fixture
def serving(tmp_path: Path) -> Path:
    return tmp_path / "asterisk-health-p_asterisk.serving"


def dead_pid() -> int:
    child = subprocess.Popen(["true"])
    child.wait()
    return child.pid


MON = ("crm_mon", "-1", "--output-as=xml", "--resource", "p_asterisk")
MANAGED = '<resource id="p_asterisk" active="false" managed="true" failed="false"/>'


def tell(queue: CallQueue, serving: Path) -> int:
    return main(["p_asterisk", str(serving)], queue)


def test_a_death_is_told_once(queue: CallQueue, serving: Path) -> None:
    serving.write_text(f"{dead_pid()} 4711 crm1")
    queue.expect(*MON, out=MANAGED)
    queue.expect("crm_resource", "--fail", "--resource", "p_asterisk", "--node", "crm1")
    assert tell(queue, serving) == 0
    assert not serving.exists()
    assert tell(queue, serving) == 0


def test_one_that_lives_is_not_told(queue: CallQueue, serving: Path) -> None:
    own = Proc().process(os.getpid())
    assert own is not None
    serving.write_text(f"{own.identity} crm1")
    assert tell(queue, serving) == 0
    assert serving.exists()  # for its own death


def test_one_that_somebody_has_started_meanwhile_is_left_alone(
    queue: CallQueue, serving: Path, tmp_path: Path
) -> None:
    proc = FakeProc(tmp_path / "proc")
    proc.add(60, "asterisk", exe="/usr/sbin/asterisk", argv=("/usr/sbin/asterisk",))
    serving.write_text(f"{dead_pid()} 4711 crm1 /usr/sbin/asterisk")
    queue.expect(*MON, out=MANAGED)
    look = Proc(str(proc.root))
    assert main(["p_asterisk", str(serving)], queue, look) == 0
    assert serving.exists()
    proc.remove(60)
    queue.expect(*MON, out=MANAGED)
    queue.expect("crm_resource", "--fail", "--resource", "p_asterisk", "--node", "crm1")
    assert main(["p_asterisk", str(serving)], queue, look) == 0
    assert not list(serving.parent.glob("*.serving*"))


@pytest.mark.parametrize("state", ["S", "T"])
def test_a_strangers_is_no_reason_to_keep_quiet(
    queue: CallQueue, serving: Path, tmp_path: Path, state: str
) -> None:
    proc = FakeProc(tmp_path / "proc")
    argv = ("/usr/sbin/asterisk", "-f")
    proc.add(60, "asterisk", state, exe=argv[0], argv=argv, uid=65534)
    serving.write_text(f"{dead_pid()} 4711 crm1 asterisk.service root /usr/sbin/asterisk")
    queue.expect(*MON, out=MANAGED)
    queue.expect("crm_resource", "--fail", "--resource", "p_asterisk", "--node", "crm1")
    assert main(["p_asterisk", str(serving)], queue, Proc(str(proc.root))) == 0


def test_one_that_is_not_managed_is_not_told(queue: CallQueue, serving: Path) -> None:
    serving.write_text(f"{dead_pid()} 4711 crm1")
    queue.expect(*MON, out=MANAGED.replace('managed="true"', 'managed="false"'))
    assert tell(queue, serving) == 0
    assert serving.exists()


def test_the_next_one_that_serves_already_is_left_alone(queue: CallQueue, serving: Path) -> None:
    """The monitor was first: stop and start have been, while Pacemaker was asked."""
    serving.write_text(f"{dead_pid()} 4711 crm1")

    class Meanwhile(CallQueue):
        def run(self, *given: Any, **named: Any) -> Completed:
            serving.write_text("4712 4713 crm1")
            return queue.run(*given, **named)

    queue.expect(*MON, out=MANAGED)
    assert tell(Meanwhile(), serving) == 0
    assert serving.read_text() == "4712 4713 crm1"


def test_another_with_the_same_number_is_no_witness(queue: CallQueue, serving: Path) -> None:
    serving.write_text(f"{os.getpid()} 1 crm1")
    queue.expect(*MON, out=MANAGED)
    queue.expect("crm_resource", "--fail", "--resource", "p_asterisk", "--node", "crm1")
    assert tell(queue, serving) == 0


def test_a_pacemaker_that_refuses_leaves_it_to_the_monitor(
    queue: CallQueue, serving: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    serving.write_text(f"{dead_pid()} 4711 crm1")
    queue.expect(*MON, code=102)  # not known is no reason to keep quiet
    queue.expect(
        "crm_resource", "--fail", "--resource", "p_asterisk", "--node", "crm1",
        code=102, err="crm_resource: Could not connect to the CIB manager",
    )
    assert tell(queue, serving) == 1
    assert "the monitor will notice" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "4711", "a b c"])
def test_a_spoilt_file_is_said(
    queue: CallQueue, serving: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    serving.write_text(text)
    assert tell(queue, serving) == 1
    assert str(serving) in capsys.readouterr().err


class Attributes(CallQueue):
    """Takes what is told of deaths, which has the time in it."""

    def __init__(self, queue: CallQueue) -> None:
        super().__init__()
        self.queue = queue
        self.told: list[str] = []

    def run(self, argv: Sequence[str], *given: Any, **named: Any) -> Completed:
        if argv[:4] == ("attrd_updater", "--name", deaths.ATTRIBUTE, "--update"):
            self.told.append(argv[4])
            return Completed(argv, 0, "", "")
        return self.queue.run(argv, *given, **named)


def test_a_crash_loop_is_told(
    queue: CallQueue, serving: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the third death on; systemd says in the environment what it was."""
    monkeypatch.setenv("MONITOR_EXIT_CODE", "killed")
    monkeypatch.setenv("MONITOR_EXIT_STATUS", "SEGV")
    runner = Attributes(queue)
    for number in range(1, 5):
        serving.write_text(f"{dead_pid()} 4711 crm1")
        queue.expect(*MON, out=MANAGED)
        queue.expect("crm_resource", "--fail", "--resource", "p_asterisk", "--node", "crm1")
        assert main(["p_asterisk", str(serving)], runner) == 0
        assert len(runner.told) == max(0, number - deaths.LOOP + 1)
    found = deaths.parse(runner.told[-1])
    assert found is not None
    assert (found.count, found.how, found.core) == (4, "signal SEGV", "")


def test_deaths_that_lie_apart_are_no_loop(tmp_path: Path) -> None:
    path = tmp_path / "deaths"
    now = time.clock_gettime(time.CLOCK_BOOTTIME)
    path.write_text(f"5 {now - 5000} {now - deaths.QUIET_SECONDS}")
    assert deaths.count(str(path), {}).count == 1
    path.write_text(f"2 {now - 480} {now - 240}")
    found = deaths.count(str(path), {})
    assert (found.count, found.between, found.is_loop) == (3, 240, True)
    for nonsense in ("", "5", "x y z"):
        path.write_text(nonsense)
        assert deaths.count(str(path), {}).count == 1


@pytest.mark.parametrize(("code", "status", "how", "core"), [
    ("dumped", "SEGV", "signal SEGV", "|/usr/lib/systemd/systemd-coredump %P %u"),
    ("killed", "KILL", "signal KILL", ""),
    ("exited", "1", "exit status 1", ""),
    ("", "", "", ""),
])
def test_how_it_died(tmp_path: Path, code: str, status: str, how: str, core: str) -> None:
    pattern = tmp_path / "core_pattern"
    pattern.write_text("|/usr/lib/systemd/systemd-coredump %P %u\n")
    about = {"MONITOR_EXIT_CODE": code, "MONITOR_EXIT_STATUS": status}
    found = deaths.count(str(tmp_path / "deaths"), about, str(pattern))
    assert (found.how, found.core) == (how, core)
    kept = deaths.parse(str(found))
    assert kept is not None
    assert (kept.how, kept.core, kept.last) == (how, core, found.last)


def test_the_unit_looks_for_the_file_that_the_agent_writes() -> None:
    from asha.agents.asterisk_base import SERVING
    from asha.agents.asterisk_health import AsteriskHealth
    from asha.ocf import Context

    agent = AsteriskHealth("start", Context({"OCF_RESOURCE_INSTANCE": "p_asterisk"}))
    path = agent.state_path(SERVING).replace("p_asterisk", "%i")
    text = UNIT.read_text()
    assert f"ConditionPathExists={path}\n" in text
    assert text.count(path) == 2
