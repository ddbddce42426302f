"""Having Asterisk's modules see a database that came after them."""

from __future__ import annotations

import os
from collections.abc import Generator

import pytest

from asha.asterisk import cdr
from asha.asterisk.process.proc import Proc
from asha.asterisk.talk.connections import Wait
from asha.asterisk.talk.control import Console
from asha.ocf import Deadline

# As main/cli.c, handle_module_reload(), words them.
DONE = "Module 'cdr_mysql.so' reloaded successfully."
UNKNOWN = "No such module 'cdr_mysql.so'"
BUSY = "A module reload request is already in progress; please be patient"
QUEUED = "Asterisk cannot reload a module yet; request queued"
BROKEN = "The module 'cdr_mysql.so' reported a reload failure"


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What Asterisk says, one after the other."""
    coming: list[str] = []

    def command(_: Console, text: str, deadline: Deadline) -> Generator[Wait, bool, str]:
        assert text.startswith("module reload ")
        yield from ()
        return coming.pop(0)

    monkeypatch.setattr(Console, "first_line", command)
    return coming


def reload(*modules: str) -> list[str]:
    me = Proc().process(os.getpid())
    assert me is not None
    return cdr.reload_modules(Console("/nowhere", me), modules, Deadline(5))


def test_what_is_not_loaded_is_not_told(answers: list[str]) -> None:
    answers += [UNKNOWN, DONE]
    assert reload("cdr_pgsql.so", "cdr_mysql.so") == [DONE]


@pytest.mark.parametrize("busy", [BUSY, QUEUED])
def test_one_that_is_not_done_now_is_not_done(answers: list[str], busy: str) -> None:
    answers += [busy]
    with pytest.raises(cdr.NotYet, match=busy):
        reload("cdr_mysql.so")


def test_a_failure_is_told(answers: list[str]) -> None:
    answers += [BROKEN]
    assert reload("cdr_mysql.so") == [BROKEN]
    assert cdr.RELOADED not in BROKEN
