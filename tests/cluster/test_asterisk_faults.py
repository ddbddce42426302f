"""asterisk-health on a real Asterisk: each fault seen, named, and cured by stop and start."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.single import call, mount_store, reason
from tests.conftest import lab_or_skip
from tests.lab import Node, Result, wait_for
from tests.lab.cluster import asterisk

AGENT = "asterisk-health"
CONTROL_SOCKET = "/run/asterisk/asterisk.ctl"


@pytest.fixture(scope="module")
def idle() -> Iterator[Node]:
    with lab_or_skip("crm1", cluster=False) as lab:
        node = lab.node("crm1")
        mount_store(node)
        assert call(node, "sark-data", "start").code == 0
        yield node


@pytest.fixture
def node(idle: Node) -> Iterator[Node]:
    """With a healthy Asterisk; afterwards the agent must be able to stop anything."""
    started = call(idle, AGENT, "start")
    assert started.code == 0, started.err
    assert monitor(idle, 10).code == 0
    yield idle
    stopped = call(idle, AGENT, "stop")
    assert stopped.code == 0, stopped.err
    assert idle.pids("asterisk") == []
    assert monitor(idle, 0).code == 7


def monitor(node: Node, depth: int) -> Result:
    return call(node, AGENT, "monitor", timeout=30, check_level=depth)


def recover(node: Node) -> None:
    """What Pacemaker does about a failed monitor."""
    assert call(node, AGENT, "stop").code == 0
    assert node.pids("asterisk") == []
    assert call(node, AGENT, "start").code == 0
    assert monitor(node, 10).code == 0


def gdb(node: Node, expression: str) -> None:
    """Call a function inside Asterisk; what it locks stays locked."""
    pid = node.run("cat", "/run/asterisk/asterisk.pid").out.strip()
    node.run(
        "gdb", "--batch", "-p", pid, "-ex", f"call (int){expression}", "-ex", "detach",
        timeout=90, env={"DEBUGINFOD_URLS": ""},
    )


def test_killed(node: Node) -> None:
    node.kill("asterisk")
    wait_for(lambda: not node.pids("asterisk"), "Asterisk to be gone")
    seen = monitor(node, 0)
    assert seen.code == 7
    assert "dead" in reason(seen)
    recover(node)


def test_systemd_does_not_restart_it(node: Node) -> None:
    shown = node.run("systemctl", "show", "-p", "Restart", "--value", "asterisk").out.strip()
    assert shown == "no"


def test_stopped_by_the_panels_button(node: Node) -> None:
    node.run("systemctl", "stop", "asterisk")
    assert monitor(node, 0).code == 7
    assert call(node, AGENT, "start").code == 0


def test_frozen(node: Node) -> None:
    node.kill("asterisk", signal.SIGSTOP)
    seen = monitor(node, 0)
    assert seen.code == 1
    assert "SIGSTOP" in reason(seen)
    recover(node)


def test_control_socket_gone(node: Node) -> None:
    """Calls go on: reported, and restarted only where the site wants that."""
    node.run("rm", CONTROL_SOCKET)
    seen = monitor(node, 0)
    assert seen.code == 190
    assert CONTROL_SOCKET in reason(seen)
    wanted = call(node, AGENT, "monitor", {"when_lost": "failed"}, timeout=30)
    assert wanted.code == 1
    assert CONTROL_SOCKET in reason(wanted)
    recover(node)
    assert node.path(CONTROL_SOCKET).is_socket()


def test_dialplan_lock_held(node: Node) -> None:
    """The stock agent's view stays green; SIP is dead."""
    gdb(node, "ast_wrlock_contexts()")
    assert monitor(node, 0).code == 0
    assert "active calls" in asterisk(node, "core show channels count")
    seen = monitor(node, 10)
    assert seen.code == 1
    assert reason(seen).startswith("dialplan lock")
    events = node.run("python3", "-m", "asha", "evidence", "list").out
    assert "dialplan lock" in events.splitlines()[-1]
    shown = node.run("python3", "-m", "asha", "evidence", "show", "last", "--all").out
    assert "#0 " in shown  # gdb's backtraces
    recover(node)


def test_a_debugger_is_no_hang(node: Node) -> None:
    pid = node.run("cat", "/run/asterisk/asterisk.pid").out.strip()
    node.run(
        "systemd-run", "--unit=debugger", "gdb", "--quiet", "-p", pid, "-ex", "shell sleep 600"
    )
    try:
        wait_for(lambda: monitor(node, 0).code == 190, "the debugger to be seen", timeout=60)
        assert "gdb" in reason(monitor(node, 0))
    finally:
        node.run("systemctl", "kill", "--signal=KILL", "debugger")
    wait_for(lambda: monitor(node, 10).code == 0, "Asterisk to run on", timeout=30)


def test_stop_with_a_thread_that_no_signal_reaches(node: Node) -> None:
    """A disk that does not answer: said honestly, so that the node is fenced."""
    [pid] = node.pids("asterisk")
    node.run("fsfreeze", "--freeze", "/drbd")
    try:
        with node.start("timeout", "5", "asterisk", "-rx", "database put a b c") as console:
            wait_for(lambda: "D" in task_states(pid), "a thread to wait for the disk")
            stopped = call(node, AGENT, "stop", timeout=12)
            console.kill()
        assert stopped.code == 1
        assert "in state D" in reason(stopped)
    finally:
        node.run("fsfreeze", "--unfreeze", "/drbd")
    wait_for(lambda: not task_states(pid), "Asterisk to be gone when the disk is back")


def task_states(pid: int) -> list[str]:
    """Of every thread, as the host sees it; empty when the process is gone."""
    states = []
    for stat in Path(f"/proc/{pid}/task").glob("*/stat"):
        try:
            states.append(stat.read_text().rpartition(") ")[2][0])
        except OSError:
            continue  # has just ended
    return states


def test_stop_while_systemd_does_not_answer(node: Node) -> None:
    """Asterisk is gone, but a start may be in systemd's queue: no success."""
    os.kill(node.init, signal.SIGSTOP)
    try:
        stopped = call(node, AGENT, "stop", timeout=12)
        assert node.pids("asterisk") == []
        assert stopped.code == 1
        assert "systemd may start it" in reason(stopped)
    finally:
        os.kill(node.init, signal.SIGCONT)


def test_call_records_reach_a_database_that_comes_later(node: Node) -> None:
    """The telephones start first: nothing that they write may be lost for it."""
    assert not node.path("/run/mysqld/mysqld.sock").exists()
    node.run("systemctl", "start", "mariadb")
    try:
        assert monitor(node, 10).code == 0
        asterisk(node, "channel originate Local/100@lab application Wait 1")

        def recorded() -> bool:
            said = node.run("mariadb", "-BN", "-e", "SELECT COUNT(*) FROM asterisk.cdr").out
            return int(said) > 0

        wait_for(recorded, "the call's record in MariaDB", timeout=40, every=0.5)
    finally:
        node.run("systemctl", "stop", "mariadb")
