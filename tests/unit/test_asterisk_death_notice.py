"""The notice of Asterisk's death: told once, and only of the one that served."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

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


def test_the_unit_looks_for_the_file_that_the_agent_writes() -> None:
    from asha.agents.asterisk_base import SERVING
    from asha.agents.asterisk_health import AsteriskHealth
    from asha.ocf import Context

    agent = AsteriskHealth("start", Context({"OCF_RESOURCE_INSTANCE": "p_asterisk"}))
    path = agent.state_path(SERVING).replace("p_asterisk", "%i")
    text = UNIT.read_text()
    assert f"ConditionPathExists={path}\n" in text
    assert text.count(path) == 2
