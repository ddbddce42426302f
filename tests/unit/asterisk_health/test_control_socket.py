"""The control socket's place is Asterisk's user's: he may put anything there."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from asha.agents import asterisk_health
from asha.asterisk.process.unit import Launcher
from asha.ocf import Exit
from tests.fakes.asterisk import CONTROL, LOADING, MOVED, free_ports
from tests.unit.asterisk_health.pbx import AUTO, DEEP, Pbx


def by_other_signs(pbx: Pbx, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asterisk_health, "UNHEARD_SECONDS", 0.3)
    pbx.launcher.clears = False


@pytest.mark.parametrize("given", [{}, AUTO])
def test_a_directory_where_the_control_socket_should_be(
    pbx: Pbx, monkeypatch: pytest.MonkeyPatch, given: dict[str, str]
) -> None:
    """Asterisk goes on without, and so do the telephones."""
    by_other_signs(pbx, monkeypatch)
    # SIP's port is known, or nobody tells it and systemd has been told that all is loaded.
    monkeypatch.setattr(Launcher, "is_ready", lambda launcher, process: bool(given))
    (pbx.run / "asterisk.ctl/x").mkdir(parents=True)
    outcome = pbx.act("start", given=given)
    assert outcome.code == Exit.SUCCESS, outcome.err
    assert "asterisk.ctl is a directory and no socket" in outcome.err
    assert ("SIP is not watched" in outcome.err) == bool(given)
    first = pbx.started[-1]
    for depth in (0, DEEP):
        outcome = pbx.act("monitor", depth, given)
        assert outcome.code == Exit.DEGRADED, outcome.err
        assert "asterisk.ctl is a directory and no socket" in outcome.reason
    assert pbx.act("start", given=given).code == Exit.SUCCESS
    assert pbx.started == [first]
    assert pbx.act("stop").code == Exit.SUCCESS
    assert pbx.alive() == []


def test_no_control_socket_and_no_sip_is_no_start(
    pbx: Pbx, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_other_signs(pbx, monkeypatch)
    (pbx.run / "asterisk.ctl").mkdir()
    outcome = pbx.act("start", timeout=4, given={"sip_port": str(free_ports()[0])})
    assert outcome.code == Exit.ERR_GENERIC
    assert "loading its modules" in outcome.reason


@pytest.mark.parametrize("there", [False, True])
def test_a_control_socket_at_another_place_is_found(
    pbx: Pbx, tmp_path: Path, there: bool
) -> None:
    """astrundir and astctl of asterisk.conf are Asterisk's user's to write."""
    pbx.launcher.clears = False
    (pbx.run / MOVED).write_text(str(tmp_path / "other.ctl"))
    if there:
        # Somebody else's, at the old place.
        squatter = socket.socket(socket.AF_UNIX)
        squatter.bind(str(pbx.run / "asterisk.ctl"))
        squatter.listen()
    pbx.start()
    for depth in (0, DEEP):
        outcome = pbx.act("monitor", depth)
        assert outcome.code == Exit.SUCCESS, outcome.err
    pbx.silence(CONTROL)
    outcome = pbx.act("monitor", 0)
    assert outcome.code == Exit.ERR_GENERIC
    assert f"control socket at {tmp_path}/other.ctl is silent" in outcome.reason
    (pbx.run / "asterisk.pid").unlink()
    (pbx.run / f"silent-{CONTROL}").unlink()
    assert "astrundir" in pbx.act("monitor", 0).reason


def filled(path: Path) -> list[socket.socket]:
    """Callers, until the socket's queue has no room."""
    found = []
    while True:
        found.append(socket.socket(socket.AF_UNIX))
        found[-1].setblocking(False)
        try:
            found[-1].connect(str(path))
        except BlockingIOError:
            return found


def test_a_strangers_full_queue_is_no_hang(pbx: Pbx) -> None:
    """Who put his own socket there could have all calls ended by not listening."""
    pbx.start()
    path = pbx.run / "asterisk.ctl"
    path.unlink()
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.bind(str(path))
        stranger.listen(0)
        callers = filled(path)
        for depth in (0, DEEP):
            outcome = pbx.act("monitor", depth)
            assert outcome.code == Exit.DEGRADED, outcome.err
            assert "another process has put its socket there" in outcome.reason
        for one in callers:
            one.close()


def test_its_own_full_queue_is_one(pbx: Pbx) -> None:
    pbx.start()
    pbx.silence(CONTROL)
    callers = filled(pbx.run / "asterisk.ctl")
    outcome = pbx.act("monitor", 0)
    assert outcome.code == Exit.ERR_GENERIC
    assert "control socket" in outcome.reason
    assert "no connection" in outcome.reason
    for one in callers:
        one.close()


def test_a_run_directory_into_which_root_may_not_look(
    pbx: Pbx, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where Asterisk's user has mounted a file system of his own on it (FUSE)."""
    pbx.start()
    (pbx.run / "asterisk.pid").unlink()
    look = os.lstat

    def refused(path: str, **options: int) -> os.stat_result:
        if str(path).startswith(str(pbx.run)):
            raise PermissionError(13, "Permission denied")
        return look(path, **options)

    monkeypatch.setattr(os, "lstat", refused)
    outcome = pbx.act("monitor", 0)
    assert outcome.code == Exit.DEGRADED
    assert f"(Permission denied): is something mounted on {pbx.run}?" in outcome.reason


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it becomes Asterisk's user")
def test_start_names_what_holds_it(pbx: Pbx, common: Path) -> None:
    """Asterisk waits at a FIFO without a cluster too: but a person must know which."""
    pbx.launcher.clears = False
    pbx.run = common / "run"
    pbx.run.mkdir(mode=0o755)
    (pbx.run / f"silent-{LOADING}").touch()
    os.mkfifo(pbx.run / "messages")
    outcome = pbx.act("start", timeout=3, given={"user": "nobody"})
    assert outcome.code == Exit.ERR_GENERIC
    assert "loading its modules" in outcome.reason
    assert f"{pbx.run}/messages is a FIFO" in outcome.err
    assert pbx.act("stop").code == Exit.SUCCESS
