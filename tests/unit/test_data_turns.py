"""A look at every process in turns: what one user does is not paid by the others."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence

import pytest

from asha.data.release import holders, turns
from asha.ocf import Deadline
from asha.run.child import NoAnswer

STUCK, FULL, FINE = 1001, 1002, 1003
ME = os.getpid()

# As su(1) does.
HALTS_WITH_IT = """
import os, signal, subprocess, sys
child = subprocess.Popen(sys.argv[1:])
while os.WIFSTOPPED(os.waitpid(child.pid, os.WUNTRACED)[1]):
    os.kill(os.getpid(), signal.SIGSTOP)
"""

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="starts processes of other users")


def look(pids: Sequence[int]) -> Iterator[str]:
    """The pids are not of processes: each says what looking at it is like."""
    for pid in pids:
        yield ""
        if pid == STUCK:
            time.sleep(1000)
        while pid == FULL:
            yield ""
        yield f"saw {pid}"


def users(monkeypatch: pytest.MonkeyPatch, **found: list[int]) -> None:
    table = {int(name[1:]): pids for name, pids in found.items()}
    monkeypatch.setattr(
        turns, "by_user", lambda: ({one: list(pids) for one, pids in table.items()}, False))
    monkeypatch.setattr(holders, "uids", lambda pid: [pid] * 4)


@pytest.mark.parametrize("which", [STUCK, FULL])
def test_one_user_costs_the_others_nothing(monkeypatch: pytest.MonkeyPatch, which: int) -> None:
    users(monkeypatch, u0=[5], u1001=[which], u1003=[FINE, 7], u1004=[8])
    begun = time.monotonic()
    seen = turns.take(look, Deadline(3), "looking")
    assert time.monotonic() - begun < 4
    assert {line for _, line in seen.lines} == {"saw 5", f"saw {FINE}", "saw 7", "saw 8"}
    assert seen.unseen == [which]
    assert seen.users == {1001, which}


def test_root_has_no_share(monkeypatch: pytest.MonkeyPatch) -> None:
    users(monkeypatch, u0=[FULL], u1003=[FINE])
    with pytest.raises(NoAnswer, match="looking takes too long"):
        turns.take(look, Deadline(1), "looking")


@needs_root
def test_who_ends_meanwhile_is_held_still(monkeypatch: pytest.MonkeyPatch) -> None:
    """And goes on unharmed; nobody else is stopped for a moment."""
    genuine = holders.signal_all

    def ours_only(user: int, number: signal.Signals, limit: Deadline) -> None:
        # Other users of this machine are no part of the test.
        if user in (54321, 54322):
            genuine(user, number, limit)

    monkeypatch.setattr(holders, "signal_all", ours_only)
    loop = "while :; do /bin/true; done"
    made = [
        subprocess.Popen([*parent, "setpriv", f"--reuid={uid}", "--clear-groups", "sh", "-c", code],
                         start_new_session=True)
        for parent, uid, code in (((sys.executable, "-c", HALTS_WITH_IT), 54321, loop),
                                  ((), 54322, "sleep 1000"))
    ]
    seen, looks = set[str](), 0

    def states(pids: Sequence[int]) -> Iterator[str]:
        for pid in pids:
            about = holders.status(pid)
            if about and about["Uid"].split()[0] in ("54321", "54322"):
                yield f"{about['Uid'].split()[0]} {about['State'][0]}"

    def all_run() -> bool:
        found = [holders.status(pid) for pid in holders.pids()]
        return not any(about["State"][0] == "T" for about in found if about)

    try:
        while "54321 T" not in seen:
            looks += 1
            look = turns.take(states, Deadline(20), "looking")
            assert (look.unseen, look.users, looks < 200) == ([], set(), True)
            seen |= {line for _, line in look.lines}
        assert "54322 T" not in seen
        assert Deadline(20).poll(all_run)
    finally:
        for process in made:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@needs_root
def test_by_the_real_uid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asha.data.owners.local_uids", lambda users: {54320})
    made = [
        subprocess.Popen(["setpriv", *options, sys.executable, "-c", "input()"],
                         stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        for options in (["--ruid=54321", "--euid=0"], ["--reuid=54320"], ["--reuid=100777"])
    ]
    try:
        one, pacemakers, of_many = (process.pid for process in made)

        def there() -> bool:
            found = turns.by_user()[0]
            return (one in found.get(54321, []) and pacemakers in found[0]
                    and of_many in found.get(turns.MANY, []))

        assert Deadline(20).poll(there), turns.by_user()[0]
        assert ME in turns.by_user()[0][0]
    finally:
        for process in made:
            process.kill()
            process.communicate()


# A search that is killed while it holds a user's processes still.
KILLED_HALFWAY = """
import os, signal
from asha.data.release import turns
from asha.ocf import Deadline

def look(pids):
    yield ""
    if any(open(f"/proc/{pid}/stat").read().split(") ")[1][0] == "T" for pid in pids):
        os.killpg(0, signal.SIGKILL)

turns.restless = lambda limit: {54321}
turns.by_user = lambda: ({}, True)
turns.take(look, Deadline(20), "looking")
"""


@needs_root
def test_who_is_held_still_goes_on_when_the_search_is_killed() -> None:
    user = ["setpriv", "--reuid=54321", "--clear-groups", "sleep", "1000"]
    with subprocess.Popen([sys.executable, "-c", HALTS_WITH_IT, *user],
                          start_new_session=True) as process:
        try:
            def states() -> set[str]:
                found = [holders.status(pid) for pid in holders.pids()
                         if _session(pid) == process.pid]
                return {about["State"][0] for about in found if about}

            assert Deadline(20).poll(
                lambda: any(holders.uids(pid)[:1] == [54321] for pid in holders.pids()))
            killed = subprocess.run([sys.executable, "-c", KILLED_HALFWAY], check=False,
                                    start_new_session=True, timeout=60)
            assert killed.returncode == -signal.SIGKILL
            assert Deadline(20).poll(lambda: states() == {"S"}), states()
        finally:
            os.killpg(process.pid, signal.SIGKILL)


def _session(pid: int) -> int:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return 0
