"""A damaged AstDB keeps no Asterisk from starting, and people are told until they have looked."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from asha.asterisk import astdb
from asha.data.salvage import recovery
from asha.ocf import Exit, Failed
from tests.unit.asterisk_health.pbx import DEEP, DEEPEST, Pbx
from tests.unit.test_data_salvage import COUNT, EVERY, fill, first_page, rows

ON = {"when_damaged": "recover"}


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "lib"
    folder.mkdir()
    monkeypatch.setattr(astdb, "folder", lambda deadline: str(folder))
    path = folder / recovery.FILE
    fill(path)
    return path


def kept(base: Path) -> Path:
    (found,) = [one for one in base.parent.iterdir()
                if recovery.KEPT in one.name and not one.name.endswith(recovery.NOTE)]
    return found


def told(pbx: Pbx) -> str:
    """What the node attribute has been given to say."""
    files = list(pbx.state.glob("*.degraded"))
    return files[0].read_text() if files else ""


def test_one_that_is_well_says_nothing(pbx: Pbx, base: Path) -> None:
    outcome = pbx.act("start", given=ON)
    assert outcome.code == Exit.SUCCESS, outcome.err
    assert "AstDB" not in outcome.err
    assert [one.name for one in base.parent.iterdir()] == [recovery.FILE]


def test_a_damaged_one_is_recovered_and_told_until_it_is_removed(pbx: Pbx, base: Path) -> None:
    first_page(base)
    outcome = pbx.act("start", given=ON)
    assert outcome.code == Exit.SUCCESS, outcome.err
    words = f"AstDB was damaged: {COUNT} of at least {COUNT} keys are back (file is not a database)"
    assert words in outcome.err
    assert rows(base) == EVERY
    place = kept(base)
    assert f"it is {place}; once you have looked at it: rm {place}*" in told(pbx)
    assert pbx.act("monitor", DEEP).code == Exit.SUCCESS
    for _ in range(2):
        outcome = pbx.act("monitor", DEEPEST)
        assert outcome.code == Exit.DEGRADED
        assert words in outcome.reason
    for one in base.parent.glob(f"{place.name}*"):
        one.unlink()
    assert pbx.act("monitor", DEEPEST).code == Exit.SUCCESS


def test_the_command_that_is_shown_is_no_other(
    pbx: Pbx, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = base.parent.parent / "x; reboot #"
    folder.mkdir()
    base.rename(folder / base.name)
    monkeypatch.setattr(astdb, "folder", lambda deadline: str(folder))
    first_page(folder / base.name)
    assert pbx.act("start", given=ON).code == Exit.SUCCESS
    assert f": rm '{kept(folder / base.name)}'*" in told(pbx)


def test_it_is_told_after_a_restart_and_by_the_other_node(pbx: Pbx, base: Path) -> None:
    first_page(base)
    assert pbx.act("start", given=ON).code == Exit.SUCCESS
    assert pbx.act("stop").code == Exit.SUCCESS
    assert pbx.act("start", given=ON).code == Exit.SUCCESS
    assert "keys are back" in told(pbx)
    assert pbx.act("stop").code == Exit.SUCCESS
    for one in pbx.state.iterdir():
        one.unlink()  # as a boot does
    assert pbx.act("start", given=ON).code == Exit.SUCCESS
    assert f"{kept(base)}.txt says what was lost" in told(pbx)
    assert pbx.act("monitor", DEEPEST).code == Exit.DEGRADED


def test_what_cannot_be_checked_is_started_with(pbx: Pbx, base: Path) -> None:
    base.unlink()
    os.mkfifo(base)
    outcome = pbx.act("start", given=ON)
    assert outcome.code == Exit.SUCCESS, outcome.err
    assert "AstDB was not checked: it is no ordinary file" in outcome.err


@pytest.mark.parametrize("also_aside", [True, False])
def test_what_cannot_be_read_in_time_is_put_aside(
    pbx: Pbx, base: Path, monkeypatch: pytest.MonkeyPatch, also_aside: bool
) -> None:
    real = recovery._replace

    def replace(path: str, why: str, found: object) -> str:
        if getattr(found, "rows", None) or not also_aside:
            raise Failed("too slow")
        return real(path, why, found)  # type: ignore[arg-type]

    monkeypatch.setattr(recovery, "_replace", replace)
    first_page(base)
    outcome = pbx.act("start", given=ON)
    assert outcome.code == Exit.SUCCESS, outcome.err  # the fake does without
    assert f"{base} is not recovered: too slow" in outcome.err
    assert base.exists() is not also_aside
    assert ("it begins anew" if also_aside else f"{base} is damaged") in told(pbx)


def test_it_can_be_left_alone(pbx: Pbx, base: Path) -> None:
    first_page(base)
    before = base.read_bytes()
    outcome = pbx.act("start", given={"when_damaged": "leave"})
    assert outcome.code == Exit.SUCCESS
    assert "AstDB" not in outcome.err
    assert base.read_bytes() == before
