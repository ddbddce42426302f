"""The journal: what was cut off, also after the power failed in the middle of a line."""

from __future__ import annotations

from pathlib import Path

import pytest

from asha.bootstrap.journal import JOURNAL, Journal
from asha.machine import Machine


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(str(tmp_path))


def test_nothing_was_cut_off_before_the_first_run(machine: Machine) -> None:
    assert Journal(machine).cut_off_in() == ""


def test_what_was_begun_and_not_ended(machine: Machine) -> None:
    journal = Journal(machine)
    journal.note("begin", "copy the data")
    assert Journal(machine).cut_off_in() == "copy the data"
    journal.note("done", "copy the data")
    assert Journal(machine).cut_off_in() == ""


def test_a_failure_was_told_and_is_no_cut(machine: Machine) -> None:
    journal = Journal(machine)
    journal.note("begin", "copy")
    journal.note("failed", "copy", "no space")
    assert Journal(machine).cut_off_in() == ""


def test_half_a_line_at_the_end(machine: Machine) -> None:
    Journal(machine).note("begin", "copy")
    with machine.path(JOURNAL).open("a") as file:
        file.write('{"time": "2026-')
    assert Journal(machine).cut_off_in() == "copy"
