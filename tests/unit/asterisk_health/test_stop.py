"""Stop: nothing of Asterisk survives it, and nobody else is hurt."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from asha.asterisk.process.proc import Proc, Process
from asha.ocf import Exit
from asha.run.deadline import Deadline
from tests.fakes.asterisk import ENDED_CALLS, SAYS, SIP, TERM, FakeProcess, free_ports
from tests.unit.asterisk_health.pbx import DEEP, Pbx


def test_stubborn_asterisk_is_killed(pbx: Pbx) -> None:
    process = pbx.start()
    pbx.silence(TERM)
    assert pbx.act("stop").code == Exit.SUCCESS
    assert process.popen.wait() == -signal.SIGKILL


def test_hung_one_gets_less_grace(pbx: Pbx) -> None:
    pbx.start()
    pbx.silence(TERM)
    pbx.silence(SIP)
    assert pbx.act("monitor", DEEP).code == Exit.ERR_GENERIC
    began = time.monotonic()
    assert pbx.act("stop", given={"stop_grace": "15s"}).code == Exit.SUCCESS
    assert time.monotonic() - began < 10


def test_a_long_grace_leaves_time_to_kill(pbx: Pbx) -> None:
    """Its end is proven within the action, though the grace is longer than that."""
    pbx.start()
    pbx.silence(TERM)
    assert pbx.act("stop", given={"stop_grace": "30s"}, timeout=7).code == Exit.SUCCESS
    assert pbx.alive() == []


def test_recovered_one_gets_its_grace_again(pbx: Pbx) -> None:
    pbx.start()
    pbx.silence(SIP)
    assert pbx.act("monitor", DEEP).code == Exit.ERR_GENERIC
    assert list(pbx.state.glob("*.hung"))
    (pbx.run / f"silent-{SIP}").unlink()
    assert pbx.act("monitor", DEEP).code == Exit.SUCCESS
    assert not list(pbx.state.glob("*.hung"))


def test_another_copy_that_the_pid_file_names_is_stopped(pbx: Pbx, tmp_path: Path) -> None:
    """Monitor takes it for the Asterisk that runs, so stop has to end it."""
    folder = tmp_path / "local"
    folder.mkdir()
    copy = folder / pbx.binary.name
    shutil.copy(pbx.binary, copy)
    pbx.run.joinpath("asterisk.pid").unlink(missing_ok=True)
    with subprocess.Popen([str(copy), "-c", "import time; time.sleep(600)"]) as other:
        try:
            (pbx.run / "asterisk.pid").write_text(f"{other.pid}\n")
            wait_for_exe(other.pid, copy)
            assert pbx.probe().code == Exit.SUCCESS
            assert pbx.act("stop").code == Exit.SUCCESS
            assert other.wait(timeout=10) < 0
        finally:
            other.kill()


def wait_for_exe(pid: int, program: Path) -> None:
    deadline = time.monotonic() + 10
    while os.readlink(f"/proc/{pid}/exe") != str(program):
        assert time.monotonic() < deadline


def test_every_other_asterisk_is_stopped_too(pbx: Pbx, tmp_path: Path) -> None:
    pbx.start()
    other = FakeProcess(pbx.binary, tmp_path / "other", free_ports())
    pbx.started.append(other)
    assert pbx.act("stop").code == Exit.SUCCESS
    assert pbx.alive() == []


ACCOUNT = 54321


@pytest.fixture
def strangers(pbx: Pbx) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Processes of Asterisk's program that somebody else than root runs."""
    made: list[subprocess.Popen[bytes]] = []

    def make(uid: int, *, halted: bool = False) -> subprocess.Popen[bytes]:
        argv = [str(pbx.binary), "-I", "-c", "import time; time.sleep(600)"]
        made.append(subprocess.Popen(argv, user=uid, cwd="/"))
        wait_for_exe(made[-1].pid, pbx.binary)
        if halted:
            os.kill(made[-1].pid, signal.SIGSTOP)
        return made[-1]

    yield make
    for one in made:
        one.kill()
        one.wait()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
@pytest.mark.parametrize("halted", [True, False])
def test_a_strangers_process_is_neither_found_nor_ended(
    pbx: Pbx, strangers: Callable[..., subprocess.Popen[bytes]], halted: bool
) -> None:
    stranger = strangers(65534, halted=halted)
    (pbx.run / "asterisk.pid").write_text(f"{stranger.pid}\n")
    assert pbx.probe().code == Exit.NOT_RUNNING
    (pbx.run / "asterisk.pid").unlink()
    pbx.start()
    (pbx.run / "asterisk.pid").write_text(f"{stranger.pid}\n")
    outcome = pbx.act("monitor", DEEP)
    assert outcome.code == Exit.DEGRADED
    assert "does not name the Asterisk that runs" in outcome.reason
    assert pbx.act("stop").code == Exit.SUCCESS
    assert stranger.poll() is None
    assert pbx.alive() == [stranger.pid]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_the_accounts_strays_end_with_a_stop(
    pbx: Pbx, strangers: Callable[..., subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asha.asterisk.process.unit.account_number", lambda name, deadline: ACCOUNT)
    pbx.start()
    stray = strangers(ACCOUNT, halted=True)
    assert pbx.act("stop").code == Exit.SUCCESS
    assert stray.wait(timeout=10) == -signal.SIGKILL
    assert pbx.alive() == []


def test_who_keeps_asterisk_from_its_port_is_named(pbx: Pbx) -> None:
    port = free_ports()[1]
    with socket.socket(type=socket.SOCK_DGRAM) as holder:
        holder.bind(("127.0.0.1", port))
        outcome = pbx.act("start", given={"sip_port": str(port)})
    assert outcome.code == Exit.ERR_GENERIC
    user = pwd.getpwuid(os.getuid()).pw_name
    assert f"({os.getpid()}) of user {user} holds UDP 127.0.0.1 port {port}" in (
        outcome.reason
    )


def test_children_end_with_it(pbx: Pbx, tmp_path: Path) -> None:
    process = pbx.start()
    child = Process("/proc", 0, ("", "", 0, 0, ""))

    class Family(pbx.launcher):  # type: ignore[name-defined, misc]
        def family(self, daemons: list[Process]) -> list[Process]:
            return [child]

    with subprocess.Popen(["sleep", "60"]) as agi:
        found = Proc().process(agi.pid)
        assert found is not None
        child = found
        pbx.agent.launcher_class = Family
        assert pbx.act("stop").code == Exit.SUCCESS
        assert agi.wait() in (-signal.SIGTERM, -signal.SIGKILL)
    assert process.popen.wait() == 0


# Started by Asterisk, it outlives it, and then starts the next one.
AGI = """\
trap "" TERM
echo $$ >>{file}
while grep -q . /proc/{parent}/maps; do :; done
sleep 600 &
echo $! >>{file}
"""


def test_what_an_orphan_starts_ends_too(pbx: Pbx, tmp_path: Path) -> None:
    """A writer whose parents are all gone: only the session tells whose it is."""
    file = tmp_path / "pids"
    code = (
        "import os, subprocess, time\n"
        f"script = {AGI!r}.format(file={str(file)!r}, parent=os.getpid())\n"
        "subprocess.Popen(['sh', '-c', script])\n"
        "time.sleep(600)\n"
    )
    argv = [str(pbx.binary), "-I", "-c", code]
    with subprocess.Popen(argv, start_new_session=True) as process:
        try:
            assert Deadline(30).poll(lambda: file.exists() and bool(file.read_text()))
            assert pbx.act("stop").code == Exit.SUCCESS
            family = [Proc().process(int(pid)) for pid in file.read_text().split()]
            assert [one for one in family if one is not None and not one.gone] == []
        finally:
            process.kill()
    assert pbx.alive() == []


def test_the_calls_end_before_asterisk_is_asked_to(pbx: Pbx) -> None:
    """It would sleep for more than a second otherwise."""
    pbx.start()
    assert pbx.act("stop").code == Exit.SUCCESS
    assert (pbx.run / ENDED_CALLS).exists()


def test_calls_that_do_not_end_are_left_to_asterisk(pbx: Pbx) -> None:
    process = pbx.start()
    (pbx.run / f"{SAYS}core-show-channels-count").write_text("7 active channels\n")
    assert pbx.act("stop").code == Exit.SUCCESS
    assert process.popen.wait() == 0  # by itself, not by a SIGKILL


def test_a_hung_one_is_not_asked_to_end_its_calls(pbx: Pbx) -> None:
    pbx.start()
    pbx.silence(SIP)
    assert pbx.act("monitor", DEEP).code == Exit.ERR_GENERIC
    assert pbx.act("stop").code == Exit.SUCCESS
    assert not (pbx.run / ENDED_CALLS).exists()
