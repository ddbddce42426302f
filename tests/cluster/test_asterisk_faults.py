"""asterisk-health on a real Asterisk: each fault seen, named, and cured by stop and start."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.single import call, mount_store, reason, without_judge
from tests.conftest import lab_or_skip
from tests.lab import Node, Result, wait_for
from tests.lab.cluster import asterisk
from tests.lab.daemon import PID_FILE, thread_that_runs
from tests.lab.faults import by_name
from tests.lab.injectors import (
    CONTROL_SOCKET,
    background,
    control_socket_gone,
    dialplan_locked,
    helper,
    sigstop,
    stopped,
    store_frozen,
    thread_parked,
)

AGENT = "asterisk-health"


@pytest.fixture(scope="module")
def idle() -> Iterator[Node]:
    with lab_or_skip("crm1", cluster=False) as lab:
        node = lab.node("crm1")
        mount_store(node)
        without_judge(node)
        assert call(node, "sark-data", "start").code == 0
        yield node


@pytest.fixture
def node(idle: Node) -> Iterator[Node]:
    """With a healthy Asterisk; afterwards the agent must be able to stop anything."""
    started = call(idle, AGENT, "start")
    assert started.code == 0, started.err
    assert monitor(idle, 10).code == 0
    yield idle
    stop = call(idle, AGENT, "stop")
    assert stop.code == 0, stop.err
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


MODULES = "/etc/asterisk/modules.conf"
SIP_CONF = "/etc/asterisk/sip.conf"


@pytest.fixture
def two_stacks(node: Node) -> Iterator[Node]:
    """PJSIP on port 5060, and chan_sip on UDP 5160 and TCP 5161."""
    kept = {path: node.path(path).read_text() for path in (MODULES, SIP_CONF)}
    node.path(MODULES).write_text(kept[MODULES].replace("noload => chan_sip.so", ""))
    node.path(SIP_CONF).write_text(
        "[general]\nudpbindaddr=0.0.0.0:5160\ntcpenable=yes\ntcpbindaddr=0.0.0.0:5161\n"
    )
    try:
        recover(node)
        yield node
    finally:
        for path, text in kept.items():
            node.path(path).write_text(text)


def test_chan_sip_is_watched_beside_pjsip(two_stacks: Node) -> None:
    node = two_stacks
    with thread_parked(node, thread_that_runs(node, "do_monitor", "chan_sip.c")):
        seen = monitor(node, 10)
        assert seen.code == 1
        assert "SIP at UDP 127.0.0.1 port 5160 is silent" in reason(seen)
        assert "port 5060" not in reason(seen)
    recover(node)


def test_a_stack_that_is_unloaded_is_told(two_stacks: Node) -> None:
    node = two_stacks
    asterisk(node, "module unload chan_sip.so")
    wait_for(lambda: ":5160" not in node.run("ss", "-Hlun").out, "chan_sip to be gone")
    for _ in range(2):
        seen = monitor(node, 10)
        assert seen.code == 190
        assert "no longer takes SIP on ports 5160 and 5161: chan_sip is not" in reason(seen)
    asterisk(node, "module load chan_sip.so")
    wait_for(lambda: ":5160" in node.run("ss", "-Hlun").out, "chan_sip to be back")
    seen = monitor(node, 10)
    assert seen.code == 0, reason(seen)


ADDRESSES = ("from asha.asterisk.talk import sip_addresses\nt = sip_addresses.ask()\n"
             "print(*t.settings, t.identified, *sorted(t.modules), t.registers, sep='\\n')")


def test_both_stacks_tell_which_addresses_they_use(two_stacks: Node) -> None:
    said = two_stacks.run("/usr/bin/python3", "-c", ADDRESSES).out.splitlines()
    assert sorted(said[:3]) == [
        "pjsip.conf [transport-udp] bind=0.0.0.0",
        "sip.conf [general] tcpbindaddr=0.0.0.0",
        "sip.conf [general] udpbindaddr=0.0.0.0",
    ]
    assert {"chan_sip.so", "res_pjsip.so", "res_rtp_asterisk.so"} <= set(said)
    assert (said[3], said[-1]) == ("[]", "False")


def test_both_stacks_are_watched_after_a_restart_by_hand(two_stacks: Node) -> None:
    node = two_stacks
    node.run("systemctl", "restart", "asterisk")
    seen = monitor(node, 10)
    assert seen.code == 0, reason(seen)
    with thread_parked(node, thread_that_runs(node, "do_monitor", "chan_sip.c")):
        assert "SIP at UDP 127.0.0.1 port 5160 is silent" in reason(monitor(node, 10))
    recover(node)


HELD = "/etc/systemd/system/asterisk.service.d/held.conf"
HOLD = "/run/hold"


@pytest.mark.parametrize("when", ["ExecStopPost", "ExecStartPre"])
def test_a_restart_of_somebody_elses_is_waited_for(node: Node, when: str) -> None:
    """As the upgrade of its package has it: cut off, it fails, and so does the upgrade."""
    [before] = node.pids("asterisk")
    node.write(HELD, f"[Service]\n{when}=/bin/sh -c 'test ! -p {HOLD} || cat {HOLD}'\n")
    try:
        node.run("mkfifo", HOLD)
        node.run("systemctl", "daemon-reload")
        node.run("systemctl", "restart", "--no-block", "asterisk")
        wait_for(lambda: bool(node.pids("cat")), "the restart to be held")
        assert before not in node.pids("asterisk")
        begun = time.monotonic()
        seen = call(node, AGENT, "monitor", timeout=6, check_level=10)
        assert seen.code == 7, "not for ever"
        assert time.monotonic() - begun > 3
        with background(node, "sh", "-c", f"exec > {HOLD}"):
            seen = monitor(node, 10)
        assert seen.code == 0, reason(seen)
        shown = node.run("systemctl", "show", "-p", "ActiveState,Result,NRestarts", "asterisk").out
        assert {"ActiveState=active", "Result=success"} <= set(shown.split())
    finally:
        node.run("rm", "-f", HELD, HOLD)
        node.run("systemctl", "daemon-reload")


def test_a_restart_from_its_console_is_no_failure(node: Node) -> None:
    """Its sockets are closed for a while, in the same process. AMI may be missed by then."""
    [before] = node.pids("asterisk")
    asterisk(node, "core restart now")
    seen = [monitor(node, 10) for _ in range(3)]
    assert [one.code for one in seen[:2] if one.code not in (0, 190)] == []
    assert seen[2].code == 0, reason(seen[2])
    assert node.pids("asterisk") == [before]


# Idle TCP connections to chan_sip, more than its tcpauthlimit (100).
CROWD = """\
import socket, time
crowd = [socket.create_connection(("127.0.0.1", 5161)) for _ in range(130)]
print("there", flush=True)
time.sleep(3600)
"""
# Consoles, each of which takes one of Asterisk's files, until none is greeted any more.
CONSOLES = f"""\
import socket, time
crowd = []
while True:
    one = socket.socket(socket.AF_UNIX)
    one.settimeout(1)
    crowd.append(one)
    try:
        one.connect({CONTROL_SOCKET!r})
        if b"/" not in one.recv(100):
            break  # it says that it failed
    except OSError:
        break
print("there", flush=True)
time.sleep(3600)
"""
LIMIT = "/run/systemd/system/asterisk.service.d/99-lab.conf"


def test_a_crowd_at_the_door_ends_no_calls(two_stacks: Node) -> None:
    node = two_stacks
    with helper(node, "python3", "-c", CROWD):
        seen = monitor(node, 10)
        assert seen.code == 190
        assert "TCP 127.0.0.1 port 5161 closed the connection" in reason(seen)
    wait_for(lambda: monitor(node, 10).code == 0, "the crowd to be gone")


def test_no_file_left_to_open(node: Node) -> None:
    node.write(LIMIT, "[Service]\nLimitNOFILE=64\n")
    try:
        node.run("systemctl", "daemon-reload")
        recover(node)
        with helper(node, "python3", "-c", CONSOLES):
            seen = monitor(node, 10)
        assert seen.code == 190, reason(seen)
        assert "may have 64: it takes no more calls" in reason(seen)
        wait_for(lambda: monitor(node, 10).code == 0, "the consoles to be gone")
    finally:
        node.run("rm", "-f", LIMIT)
        node.run("systemctl", "daemon-reload")


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
    with stopped(node):
        seen = monitor(node, 0)
        assert seen.code == 1
        assert by_name("sigstop").named in reason(seen)
        recover(node)


def test_control_socket_gone(node: Node) -> None:
    """Calls go on: reported, and restarted only where the site wants that."""
    with control_socket_gone(node):
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
    with dialplan_locked(node):
        assert monitor(node, 0).code == 0
        assert "active calls" in asterisk(node, "core show channels count")
        seen = monitor(node, 10)
        assert seen.code == 1
        assert reason(seen).startswith(by_name("dialplan-lock").named)
        events = node.run("python3", "-m", "asha", "evidence", "list").out
        assert "dialplan lock" in events.splitlines()[-1]
        shown = node.run("python3", "-m", "asha", "evidence", "show", "last", "--all").out
        assert "#0 " in shown  # gdb's backtraces
        recover(node)


def test_a_debugger_is_no_hang(node: Node) -> None:
    pid = node.run("cat", PID_FILE).out.strip()
    node.run(
        "systemd-run", "--unit=debugger", "gdb", "--quiet", "-p", pid, "-ex", "shell sleep 600"
    )
    try:
        wait_for(lambda: monitor(node, 0).code == 190, "the debugger to be seen", timeout=60)
        assert "gdb" in reason(monitor(node, 0))
    finally:
        node.run("systemctl", "kill", "--signal=KILL", "debugger")
    wait_for(lambda: monitor(node, 10).code == 0, "Asterisk to run on")


def test_stop_with_a_thread_that_no_signal_reaches(node: Node) -> None:
    """A disk that does not answer: said honestly, so that the node is fenced."""
    [pid] = node.pids("asterisk")
    with store_frozen(node):
        with node.start("timeout", "5", "asterisk", "-rx", "database put a b c") as console:
            wait_for(lambda: "D" in task_states(pid), "a thread to wait for the disk")
            stop = call(node, AGENT, "stop", timeout=12)
            console.kill()
        assert stop.code == 1
        assert "in state D" in reason(stop)
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
    with sigstop(node.init):
        stop = call(node, AGENT, "stop", timeout=12)
        assert node.pids("asterisk") == []
        assert stop.code == 1
        assert "systemd may start it" in reason(stop)


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

        wait_for(recorded, "the call's record in MariaDB", every=0.5)
    finally:
        node.run("systemctl", "stop", "mariadb")


MASTER_CSV = "/var/log/asterisk/cdr-csv/Master.csv"
HEARTBEATS = "SELECT COUNT(*) FROM asterisk.cdr WHERE dcontext = 'asha-heartbeat'"


def traces(node: Node) -> tuple[str, ...]:
    """All that a call may leave behind on the disk."""
    files = ("/var/log/asterisk/messages", MASTER_CSV)
    spool = node.run("find", "/var/spool/asterisk/", "-type", "f").out
    logs = node.run("find", "/var/log/asterisk/").out  # a cel-custom would be new
    return (*(node.run("cat", file).out for file in files), spool, logs)


def channels(node: Node) -> str:
    return asterisk(node, "core show channels concise").strip()


def test_the_call_of_depth_20_leaves_nothing(node: Node) -> None:
    node.run("systemctl", "start", "mariadb")
    try:
        assert monitor(node, 10).code == 0  # connects the call records to MariaDB
        assert monitor(node, 20).code == 0
        wait_for(lambda: not channels(node), "the call to end")
        before = traces(node)
        for _ in range(3):
            # A reload drops the context, which the next monitor makes anew.
            asterisk(node, "dialplan reload")
            seen = monitor(node, 20)
            assert seen.code == 0, seen.err
            wait_for(lambda: not channels(node), "the call to end")
        assert "2. Answer()" in asterisk(node, "dialplan show asha-heartbeat")
        asterisk(node, "channel originate Local/100@lab application Wait 1")

        def recorded() -> bool:
            return traces(node)[1] != before[1]

        wait_for(recorded, "an ordinary call's record")
        after = traces(node)
        assert "asha-heartbeat" not in after[1]
        assert (after[0], *after[2:]) == (before[0], *before[2:])
        assert node.run("mariadb", "-BN", "-e", HEARTBEATS).out.strip() == "0"
    finally:
        node.run("systemctl", "stop", "mariadb")


def test_a_database_that_hangs_keeps_no_more_than_one_call(node: Node) -> None:
    """Calls wait for their records then; ours is let go when the database is back."""
    node.run("systemctl", "start", "mariadb")
    try:
        assert monitor(node, 10).code == 0
        hold_a_call_up(node)
        wait_for(lambda: not channels(node), "the call to end")
        assert monitor(node, 20).code == 0
    finally:
        node.run("systemctl", "stop", "mariadb")


def hold_a_call_up(node: Node) -> None:
    with sigstop(*node.pids("mariadbd")):
        asterisk(node, "channel originate Local/100@lab application Wait 1")
        wait_for(lambda: monitor(node, 20).code == 190, "the record to hold a call up")
        for _ in range(2):
            seen = monitor(node, 20)
            assert seen.code == 190
            assert "has not ended" in reason(seen)
        # Both halves of one.
        assert len({line.partition(";")[0] for line in channels(node).splitlines()}) == 1
        assert monitor(node, 10).code == 0


# The watcher between two monitors.

WATCH = f"asha-asterisk-watch@p_{AGENT}.service"
BEAT = f"/run/resource-agents/{AGENT}-p_{AGENT}.beat"


def watcher(node: Node) -> int:
    """Its process; 0 without one."""
    return int(node.run("systemctl", "show", "--property=MainPID", "--value", WATCH).out)


def is_watching(node: Node) -> bool:
    """Whether it has given a sign of life since ``let_it_look_dead``."""
    return node.path(BEAT).exists() and node.path(BEAT).stat().st_mtime > 1


def let_it_look_dead(node: Node) -> None:
    node.run("touch", "--date=@0", BEAT)


def test_the_watcher_lives_as_long_as_asterisk_serves(node: Node) -> None:
    wait_for(lambda: watcher(node) > 0, "the watcher")
    let_it_look_dead(node)
    wait_for(lambda: is_watching(node), "its sign of life")
    node.run("kill", "-KILL", str(watcher(node)))
    let_it_look_dead(node)
    wait_for(lambda: is_watching(node), "systemd to start it again")
    assert call(node, AGENT, "stop").code == 0
    wait_for(lambda: watcher(node) == 0, "its end")
    wait_for(
        lambda: node.run("systemctl", "is-active", WATCH, check=False).out == "inactive\n",
        "systemd to let it be",
    )


def test_a_monitor_starts_a_watcher_that_stands_still(node: Node) -> None:
    wait_for(lambda: watcher(node) > 0, "the watcher")
    halted = watcher(node)
    node.run("kill", "-STOP", str(halted))
    let_it_look_dead(node)
    assert monitor(node, 10).code == 0
    wait_for(lambda: watcher(node) not in (0, halted), "another watcher")
    let_it_look_dead(node)
    wait_for(lambda: is_watching(node), "its sign of life")


def test_a_watcher_that_does_not_start_is_told(node: Node) -> None:
    node.run("systemctl", "mask", "--runtime", "--now", WATCH)
    try:
        let_it_look_dead(node)
        seen = monitor(node, 10)
        assert seen.code == 190
        assert "hangs are found later" in reason(seen)
    finally:
        node.run("systemctl", "unmask", "--runtime", WATCH)
    let_it_look_dead(node)
    monitor(node, 10)
    wait_for(lambda: is_watching(node), "its sign of life")
    wait_for(lambda: monitor(node, 10).code == 0, "all to be well")
