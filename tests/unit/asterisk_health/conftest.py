"""A node with a fake Asterisk; and one whose process is only on paper."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from asha.agents import asterisk_diagnosis, asterisk_health, asterisk_sip
from asha.asterisk import probes
from asha.asterisk.talk import control
from tests.fakes.asterisk import FakeAsterisk, FakeProcess
from tests.unit.asterisk_health.pbx import Pbx, Scene


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


@pytest.fixture
def scene(
    tmp_path: Path, binary: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Scene]:
    one = Scene(tmp_path, binary)
    one.state.mkdir()
    monkeypatch.setattr(control, "_peer", lambda line: one.PID)
    with FakeAsterisk(one.run, pid=one.PID):
        yield one
