"""Who is ended whole."""

from __future__ import annotations

import subprocess
from types import SimpleNamespace
from typing import cast

import pytest

from asha.data import owners
from asha.data.release import holders, unmount
from asha.data.release.copies import Found
from asha.ocf import Deadline
from asha.ocf.agent import Agent

USER, CLUSTER = 60001, 60002


def test_the_clusters_own_user_is_not_ended_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pacemaker's daemons run as it: without them nothing is stopped or started any more."""
    ended: list[int] = []
    monkeypatch.setattr(owners, "local_uids", lambda names: {CLUSTER})
    agent = cast(Agent, SimpleNamespace(deadline=Deadline(5), warn=lambda text: None))
    ending = unmount._Ending(agent)
    monkeypatch.setattr(ending, "_end_whole", ended.append)
    found = Found()
    found.users = {0, USER, CLUSTER}
    ending.of(found, "held")
    assert ended == [USER]

    # One that is new after the others were killed.
    monkeypatch.setattr(holders, "uids", lambda pid: [CLUSTER] * 4)
    for _ in range(2):
        process = subprocess.Popen(["sleep", "60"])
        holder = holders.describe(process.pid, "/drbd", set())
        assert holder is not None
        found = Found()
        found.holders = [holder]
        ending.of(found, "held")
        process.wait(timeout=5)
    assert ended == [USER]
