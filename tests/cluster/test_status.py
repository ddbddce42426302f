"""status, switchover, standby and online on two real nodes with a real Pacemaker.

DRBD is told by a stand-in here: what `drbdsetup status --json` prints is what the
test wants. A real sync is the installer's test.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from asha.status import switchover
from tests.conftest import lab_or_skip
from tests.lab import Node, Result, sipp, wait_for
from tests.lab.cluster import Cluster
from tests.lab.cluster import asterisk as pbx
from tests.lab.injectors import sigstop, stopped
from tests.lab.prober import PORT

# SEARCH of asha.machine has it before the true one.
DRBDSETUP = "/usr/local/sbin/drbdsetup"
SITE = """\
PRIMARY={first}
CLUSTERIP=192.168.1.90
ANODENAME=crm1
ANODEIP=10.0.3.251
ANODELAN=192.168.1.11
BNODENAME=crm2
BNODEIP=10.0.3.252
BNODELAN=192.168.1.12
DRBDDEV=/dev/sda5
CLUSTERALERT=admin@example.com
SITEID=AEL TEST CLUSTER
RELAYNODE=crm1
"""
TOLD = """\
#!/bin/sh
[ "$*" != "status asha --json" ] || exec cat /root/drbd.json
exec /usr/sbin/drbdsetup "$@"
"""
# The promise is ten seconds; a busy machine starts an interpreter slowly.
PROMISE = 10.0
START_SLACK = 3.0


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with lab_or_skip() as lab:
        running = Cluster(lab)
        for node in lab.running:
            # As the image's SARK has it, an item of the path set would be left out and told.
            node.run("chown", "root:root", "/opt/sark/www")
            node.write("/etc/asha/asha.conf",
                       SITE.format(first="true" if node.name == "crm1" else "false"))
            give_panoramisk(node)
            disks(node)
        running.load()
        yield running


@pytest.fixture(autouse=True)
def as_it_was(cluster: Cluster) -> Iterator[None]:
    yield
    for node in cluster.lab.running:
        disks(node)
        node.run("systemctl", "start", "pacemaker", timeout=90)
    cluster.heal()


def give_panoramisk(node: Node) -> None:
    """The image may have Debian's; otherwise that of this test's interpreter."""
    if node.run("python3", "-c", "import panoramisk", check=False).ok:
        return
    found = importlib.util.find_spec("panoramisk")
    assert found is not None
    assert found.origin is not None
    shutil.copytree(Path(found.origin).parent,
                    node.path("/usr/lib/python3/dist-packages/panoramisk"))


def disks(node: Node, peer_disk: str = "UpToDate", replication: str = "Established",
          **figures: float) -> None:
    """What DRBD says on this node from now on."""
    peer = {"volume": 0, "replication-state": replication, "peer-disk-state": peer_disk, **figures}
    said = [{
        "name": "asha", "role": "Primary",
        "devices": [{"volume": 0, "minor": 0, "disk-state": "UpToDate"}],
        "connections": [{"connection-state": "Connected", "peer-role": "Secondary",
                         "peer_devices": [peer]}],
    }]
    node.write("/root/drbd.json", json.dumps(said))
    node.write(DRBDSETUP, TOLD, mode=0o755)


def asha(node: Node, *words: str, timeout: float = 120.0) -> Result:
    return node.run("python3", "-m", "asha", *words, check=False, timeout=timeout)


def status(node: Node) -> dict[str, Any]:
    begun = time.monotonic()
    said = asha(node, "status", "--json")
    assert time.monotonic() - begun < PROMISE + START_SLACK
    assert said.err == ""
    found = json.loads(said.out)
    assert isinstance(found, dict)
    assert found["exit_code"] == said.code
    return found


def warnings(found: dict[str, Any]) -> str:
    return "\n".join(f["what"] for f in found["findings"] if f["level"] == "warning")


@contextmanager
def unmanaged(node: Node) -> Iterator[None]:
    """Pacemaker looks at Asterisk and does nothing about it, or would cure it meanwhile."""
    resource = ("crm_resource", "--resource", "p_asterisk")
    node.run(*resource, "--meta", "--set-parameter", "is-managed", "--parameter-value", "false")
    try:
        yield
    finally:
        # In this order, or what was seen meanwhile has it restarted.
        node.run(*resource, "--cleanup")
        node.run(*resource, "--meta", "--delete-parameter", "is-managed")


def constraints(node: Node) -> str:
    return node.run("cibadmin", "--query", "--scope=constraints").out


def test_both_nodes_tell_the_same_of_a_healthy_cluster(cluster: Cluster) -> None:
    active, passive = cluster.active(), cluster.passive()
    here, there = status(active), status(passive)
    assert warnings(here) == warnings(there) == ""
    assert (here["exit_code"], there["exit_code"]) == (0, 0)
    for key in ("active", "active_since", "services", "address", "line"):
        assert here[key] == there[key]
    assert here["active"] == active.name
    assert all(one["nodes"] == [active.name] for one in here["services"])
    assert here["line"]["node"] == cluster.lab.line_switch.line_goes_to()
    assert {link["state"] for link in here["links"]} == {"connected"}
    assert any("NO FENCING" in finding["what"] for finding in here["findings"])
    screen = asha(active, "status")
    assert screen.code == 0
    assert f"The telephones run on {active.name}" in screen.out
    assert max(map(len, screen.out.splitlines())) <= 80
    assert "\033" not in screen.out


def test_calls_are_counted_where_they_are(cluster: Cluster) -> None:
    cluster.place_call()
    known = status(cluster.active())["calls"]
    assert known["trouble"] == ""
    assert known["calls"] >= 1
    assert known["channels"] >= 1
    assert status(cluster.passive())["calls"] is None


def test_a_hanging_asterisk_does_not_hang_the_status(cluster: Cluster) -> None:
    node = cluster.active()
    with unmanaged(node), stopped(node):
        found = status(node)
    assert found["calls"] is None or found["calls"]["trouble"]


def test_a_hanging_pacemaker_does_not_hang_the_status(cluster: Cluster) -> None:
    node = cluster.passive()
    with sigstop(*node.pids("pacemaker-based")):
        found = status(node)
    assert not found["pacemaker"]
    assert found["disks"]["in_sync"]


def test_the_telephones_are_heard_where_pacemaker_hangs(cluster: Cluster) -> None:
    node = cluster.active()
    with sigstop(*node.pids("pacemaker-based")):
        found = status(node)
        assert found["exit_code"] == 1
        assert (found["active"], found["address_answers"]) == (node.name, True)
        assert "This node has the telephones" in asha(node, "status").out


def test_pacemaker_is_stopped(cluster: Cluster) -> None:
    node = cluster.passive()
    node.run("systemctl", "stop", "pacemaker", timeout=90)
    found = status(node)
    assert not found["pacemaker"]
    assert found["nodes"] == []
    other = status(cluster.active())
    assert other["exit_code"] == 1
    assert f"{node.name} is offline" in warnings(other)


def test_no_cluster_at_all(cluster: Cluster) -> None:
    """A machine without Pacemaker and without asha.conf, as far as asha can see."""
    node = cluster.passive()
    node.run("mv", "/etc/asha/asha.conf", "/etc/asha/asha.conf.away")
    node.run("systemctl", "stop", "pacemaker", "corosync", timeout=90)
    try:
        said = asha(node, "status")
        assert said.code == 2
        assert "not a node of a cluster" in said.err
        assert "asha install" in said.err
    finally:
        node.run("mv", "/etc/asha/asha.conf.away", "/etc/asha/asha.conf")
        node.run("systemctl", "start", "corosync", "pacemaker", timeout=90)


def test_switchover_leaves_nothing_behind(cluster: Cluster) -> None:
    source, target = cluster.active(), cluster.passive()
    before = constraints(source)
    said = asha(source, "switchover", "--yes")
    assert said.code == 0, said.err
    assert f"everything runs on {target.name}" in said.out
    assert cluster.not_ready(cluster.state()) == []
    assert cluster.active() is target
    assert cluster.audit() == []
    assert constraints(source) == before
    found = status(target)
    assert (found["exit_code"], found["moved_from"]) == (0, source.name)


def test_switchover_asks_and_without_an_answer_does_nothing(cluster: Cluster) -> None:
    source = cluster.active()
    said = asha(source, "switchover")
    assert said.code == 1
    assert "nothing was moved" in said.err
    assert cluster.active() is source


def test_switchover_refuses_with_the_reason(cluster: Cluster) -> None:
    source, target = cluster.active(), cluster.passive()
    for node in (source, target):
        disks(node, "Inconsistent", "SyncSource",
              **{"percent-in-sync": 15.9, "out-of-sync": 2469104})
    said = asha(source, "switchover", "--yes")
    assert said.code == 1
    assert "15.9 % in sync" in said.err
    for node in (source, target):
        disks(node, "Outdated")
    said = asha(source, "switchover", "--yes")
    assert f"{target.name} Outdated" in said.err
    for node in (source, target):
        disks(node)
    cluster.standby(target)
    said = asha(source, "switchover", "--yes")
    assert f"asha online {target.name}" in said.err
    assert f"asha online {target.name}" in asha(source, "standby", "--yes").err
    cluster.online(target)
    target.run("systemctl", "stop", "pacemaker", timeout=90)
    # If it was the DC there is none for a moment, and another reason.
    wait_for(lambda: cluster.state().online == [source.name], f"{source.name} to be alone")
    said = asha(source, "switchover", "--yes")
    assert f"{target.name} is not online" in said.err
    assert cluster.active() is source


@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGKILL])
def test_switchover_killed_half_way(cluster: Cluster, signal_number: int) -> None:
    """Either node has everything in the end, and nothing for ever stands in the CIB."""
    source = cluster.active()
    process = source.start("python3", "-m", "asha", "switchover", "--yes", "--timeout", "10")
    try:
        wait_for(lambda: "cli-prefer" in constraints(source), "the order to move")
        inside = source.run("pgrep", "--full", "asha switchover").out.split()
        source.run("kill", f"-{int(signal_number)}", *inside)
        process.wait(timeout=30)
    finally:
        process.kill()
        process.communicate()
    cluster.wait_settled()
    assert cluster.audit() == []
    assert cluster.state().standby == []
    left = switchover.read_preferences(
        source.run("cibadmin", "--query", "--xpath", switchover.PREFERENCES, check=False).out
    )
    if signal_number == signal.SIGTERM:
        assert left == []
        return
    # Killed, it could not clear up: what it left ends by itself, and the next one
    # (asked on the other node here) clears it.
    assert [one.until is not None for one in left] == [True]
    assert "a switchover to" in warnings(status(source))
    said = asha(cluster.passive(), "switchover", "--yes")
    assert said.code == 0, said.err
    assert "cli-prefer" not in constraints(source)


ENDED = "asha-test"


def timed_call(node: Node, name: str, seconds: int) -> None:
    """A call of so many seconds; one that ends by itself leaves its name in AstDB."""
    steps = ("Answer()", f"Wait({seconds})", f"Set(DB({ENDED}/{name})=yes)")
    for number, step in enumerate(steps, 1):
        pbx(node, f"dialplan add extension {name},{number},{step} into {ENDED} replace")
    pbx(node, f"channel originate Local/101@lab extension {name}@{ENDED}")
    wait_for(lambda: f"!{name}!" in pbx(node, "core show channels concise"), f"call {name}")


def ended(node: Node, name: str) -> bool:
    return "Value: yes" in pbx(node, f"database get {ENDED} {name}")


# Of SIPp's calls, which begin one each second.
SIPP_CALLS, SIPP_SECONDS = 3, 12.0


def test_a_drain_cuts_no_call(cluster: Cluster) -> None:
    """Neither the PBX's own nor a telephone's, begun before it or while it waits."""
    source, target = cluster.active(), cluster.passive()
    timed_call(source, "before", 12)
    text = sipp.scenario(sipp.ECHO)
    with sipp.Calls(cluster.lab, text, PORT, SIPP_CALLS, SIPP_SECONDS) as telephones:
        wait_for(lambda: "PJSIP/" in pbx(source, "core show channels concise"), "SIPp's first call")
        process = source.start("python3", "-m", "asha", "switchover", "--yes", "--drain=120")
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert "waiting for" in line, line
            timed_call(source, "meanwhile", 15)
            out, err = process.communicate(timeout=150)
        finally:
            process.kill()
        assert process.returncode == 0, err
        assert "no call is up, and none is taken until the move is done" in out
        telephones.wait()
    cluster.wait_ready(active=target.name)
    assert [ended(target, name) for name in ("before", "meanwhile")] == [True, True]
    # Refused only for the move.
    with sipp.Calls(cluster.lab, text, PORT) as telephone:
        telephone.wait()
    assert cluster.audit() == []


def test_a_drain_that_does_not_end_moves_nothing(cluster: Cluster) -> None:
    source = cluster.active()
    call = cluster.place_call()
    said = asha(source, "switchover", "--yes", "--drain=10")
    assert said.code == 1
    assert "still up: nothing was moved" in said.err
    process = source.start("python3", "-m", "asha", "standby", "--yes", "--drain=120")
    try:
        assert process.stdout is not None
        assert "waiting for" in process.stdout.readline()
        inside = source.run("pgrep", "--full", "asha standby").out.split()
        source.run("kill", "-INT", *inside)
        process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode not in (0, 1)
    assert cluster.call_is_up(call)
    assert cluster.state().standby == []
    timed_call(source, "after", 1)
    wait_for(lambda: ended(source, "after"), "a new call to be taken and to end")
    pbx(source, "channel request hangup all")
    elsewhere = asha(cluster.passive(), "switchover", "--yes", "--drain")
    assert elsewhere.code == 1
    assert f"run it on {source.name}" in elsewhere.err
    assert cluster.active() is source


HELD = """
import os, signal
from asha.asterisk.process.proc import Proc
from asha.machine import Machine
from asha.status import calls, drain
asterisk = drain.Asterisk(calls.running_asterisk(Proc()), calls.RUN_DIRECTORY)
with drain.drained(Machine(), asterisk, 60, lambda: None, print):
    print(os.getpid(), flush=True)
    signal.pause()
"""


def test_a_drain_that_is_killed_leaves_an_asterisk_that_takes_calls(cluster: Cluster) -> None:
    source = cluster.active()
    started = source.run("pgrep", "--exact", "asterisk").out
    process = source.start("python3", "-c", HELD)
    try:
        assert process.stdout is not None
        number = process.stdout.readline().strip()
        assert number, process.communicate(timeout=60)
        assert "cannot be run" in pbx(source, "core show calls")
        source.run("kill", "-KILL", number)
        process.communicate(timeout=60)
    finally:
        process.kill()
    wait_for(lambda: "active call" in pbx(source, "core show calls"), "calls to be taken again")
    wait_for(lambda: "asha-drain" not in pbx(source, "core show channels concise"),
             "no channel of ours")
    # Somebody's own order is not ours to take back.
    call = cluster.place_call()
    source.run("timeout", "1", "asterisk", "-rx", "core stop gracefully", check=False)
    said = asha(source, "switchover", "--yes", "--drain=10")
    assert said.code == 1
    assert "somebody has told it to" in said.err
    assert "cannot be run" in pbx(source, "core show calls")
    pbx(source, "core abort shutdown")
    assert cluster.call_is_up(call)
    assert source.run("pgrep", "--exact", "asterisk").out == started
    pbx(source, "channel request hangup all")


def test_standby_and_online(cluster: Cluster) -> None:
    source, target = cluster.active(), cluster.passive()
    said = asha(source, "standby", "--yes")
    assert said.code == 0, said.err
    assert cluster.state().standby == [source.name]
    assert cluster.wait_ready(active=target.name)
    found = status(target)
    assert found["exit_code"] == 1
    assert f"{source.name} is in standby" in warnings(found)
    # Both at once would be no service at all.
    assert asha(target, "standby", "--yes").code == 1
    said = asha(target, "online", source.name)
    assert said.code == 0, said.err
    wait_for(lambda: cluster.state().standby == [], f"{source.name} to be online")
    assert cluster.wait_ready(active=target.name)


def test_standby_of_the_passive_node_cuts_nothing(cluster: Cluster) -> None:
    active, passive = cluster.active(), cluster.passive()
    call = cluster.place_call()
    said = asha(active, "standby", passive.name)
    assert said.code == 0, said.err
    assert asha(passive, "online").code == 0
    assert cluster.wait_ready(active=active.name)
    assert cluster.call_is_up(call)


def test_an_unknown_node(cluster: Cluster) -> None:
    said = asha(cluster.active(), "standby", "crm9")
    assert said.code == 1
    assert "crm9 is no node of the cluster" in said.err


def test_sync(cluster: Cluster) -> None:
    node = cluster.active()
    assert asha(node, "sync").code == 0
    disks(node, "Inconsistent", "SyncSource", **{"percent-in-sync": 50.0, "out-of-sync": 1000000,
                                                 "db1/dt1 [MiB/s]": 20.0,
                                                 "estimated-seconds-to-finish": 49})
    said = asha(node, "sync")
    assert said.code == 3
    assert "50.0 % in sync, 1.0 GB to go at 21 MB/s, 49 s left" in said.out
    process = node.start("python3", "-m", "asha", "sync", "--watch")
    try:
        assert process.stdout is not None
        assert "50.0 %" in process.stdout.readline()
        disks(node)
        assert process.wait(timeout=30) == 0
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    assert "in sync" in process.communicate()[0]
