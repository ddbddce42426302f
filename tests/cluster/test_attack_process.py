"""Who only looks like Asterisk changes nothing, and what Asterisk has started ends with it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cluster.single import call, mount_store, reason, without_judge
from tests.conftest import lab_or_skip
from tests.lab import Node, wait_for
from tests.lab.cluster import Cluster, asterisk
from tests.lab.host import start_time
from tests.lab.prober import Prober

AGENT = "asterisk-health"

# An Asterisk that needs nothing of the PBX's.
OWN = "/tmp/own-%s"
CONF = """\
[directories]
astetcdir => {0}
astvarlibdir => {0}
astdbdir => {0}
astkeydir => {0}
astdatadir => /usr/share/asterisk
astagidir => {0}
astspooldir => {0}
astrundir => {0}
astlogdir => {0}
"""
MODULES = "[modules]\nautoload=no\n"

# Seconds without an answer that are no gap: the machine may be busy, a restart takes longer.
SILENCE = 1.0


def by_systemd(user: str, conf: str) -> list[str]:
    return ["systemd-run", "--quiet", "--collect", f"--uid={user}",
            "/usr/sbin/asterisk", "-f", "-C", conf]


def by_cron(user: str, conf: str) -> list[str]:
    """As its jobs run: in the group of a service of root's, which becomes the user."""
    return ["systemd-run", "--quiet", "--collect", f"--unit=cron-{time.monotonic_ns()}",
            "setpriv", "--reuid", user, "--regid", user, "--clear-groups", "--",
            "/usr/sbin/asterisk", "-f", "-C", conf]


def in_a_session(user: str, conf: str) -> list[str]:
    return ["systemd-run", "--quiet", "--scope", "--slice=user-0.slice",
            "/usr/sbin/asterisk", "-f", "-U", user, "-C", conf]


def in_another_users(user: str, conf: str) -> list[str]:
    return ["systemd-run", "--quiet", "--scope", "--slice=user-1000.slice", f"--uid={user}",
            "/usr/sbin/asterisk", "-f", "-C", conf]


STRANGERS = {
    "nobody": ("nobody", by_systemd),
    "www-data": ("www-data", by_systemd),
    "asterisk by systemd-run": ("asterisk", by_systemd),
    "asterisk by cron": ("asterisk", by_cron),
}
PEOPLE = {"root": in_a_session, "an administrator": in_another_users}


@contextmanager
def another(
    node: Node, user: str, how: Callable[[str, str], list[str]], *, halted: bool
) -> Iterator[int]:
    """An Asterisk with a configuration of its own; its pid on the host."""
    folder = OWN % user
    node.run("mkdir", "-p", folder)
    node.write(f"{folder}/own.conf", CONF.format(folder))
    node.write(f"{folder}/modules.conf", MODULES)
    node.run("chown", "-R", f"{user}:", folder)
    before = set(node.pids("asterisk"))
    starter = node.start(*how(user, f"{folder}/own.conf"))
    pid = 0
    try:
        socket = node.path(f"{folder}/asterisk.ctl")
        wait_for(socket.exists, f"{user}'s Asterisk", every=0.05)
        (pid,) = set(node.pids("asterisk")) - before
        if halted:
            halt(pid)
        yield pid
    finally:
        for one in set(node.pids("asterisk")) - before:
            os.kill(one, signal.SIGKILL)
        starter.kill()
        starter.wait()
        wait_for(lambda: not pid or not start_time(pid), f"{user}'s Asterisk to end")
        node.run("rm", "-rf", folder)


def halt(pid: int) -> None:
    stat = Path(f"/proc/{pid}/stat")
    os.kill(pid, signal.SIGSTOP)
    wait_for(lambda: stat.read_text().rpartition(") ")[2][0] == "T", "it to halt", timeout=10)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with lab_or_skip() as lab:
        running = Cluster(lab)
        running.load()
        yield running


@pytest.fixture(scope="module")
def prober(cluster: Cluster) -> Iterator[Prober]:
    with Prober(cluster.lab) as asking:
        yield asking


@contextmanager
def undisturbed(cluster: Cluster, prober: Prober) -> Iterator[None]:
    """The same Asterisk, the same call, no silence, and all invariants."""
    cluster.wait_settled()
    active = cluster.active()
    pids = active.pids("asterisk")
    up = cluster.place_call()
    prober.wait_answering(time.monotonic())
    begun = time.monotonic()
    yield
    assert cluster.wait_ready() == active.name
    assert active.pids("asterisk") == pids
    assert cluster.call_is_up(up)
    assert prober.outage(begun) < SILENCE
    assert cluster.audit() == []
    asterisk(active, "channel request hangup all")


def refresh(cluster: Cluster) -> None:
    """Pacemaker asks both nodes anew, and does what it thinks fit."""
    node = cluster.active()
    node.run("crm", "resource", "refresh", "p_asterisk", timeout=60)
    node.run("crm_resource", "--wait", "--timeout=60s", timeout=90)


@pytest.mark.parametrize("who", STRANGERS)
def test_a_stranger_on_the_passive_node(cluster: Cluster, prober: Prober, who: str) -> None:
    user, how = STRANGERS[who]
    with undisturbed(cluster, prober):
        passive = cluster.passive()
        with another(passive, user, how, halted=False) as pid:
            probe = call(passive, AGENT, "monitor", probe=True)
            assert probe.code == 7, probe.err
            halt(pid)
            probe = call(passive, AGENT, "monitor", probe=True)
            assert probe.code == 7, probe.err
            refresh(cluster)


def test_a_pid_file_that_names_a_stranger(cluster: Cluster, prober: Prober) -> None:
    """/run/asterisk belongs to Asterisk's user, on the passive node too."""
    with undisturbed(cluster, prober):
        passive = cluster.passive()
        with another(passive, "nobody", by_systemd, halted=True):
            pid = passive.run("pidof", "asterisk").out.strip()
            passive.run("mkdir", "-p", "/run/asterisk")
            passive.write("/run/asterisk/asterisk.pid", f"{pid}\n")
            try:
                assert call(passive, AGENT, "monitor", probe=True).code == 7
                refresh(cluster)
            finally:
                passive.run("rm", "/run/asterisk/asterisk.pid")


@pytest.mark.parametrize("who", ["nobody", "asterisk by cron"])
def test_a_stranger_on_the_active_node(cluster: Cluster, prober: Prober, who: str) -> None:
    user, how = STRANGERS[who]
    with undisturbed(cluster, prober):
        active = cluster.active()
        with another(active, user, how, halted=True):
            refresh(cluster)
            for depth in (0, 10):
                seen = call(active, AGENT, "monitor", check_level=depth, timeout=30)
                assert seen.code == 0, seen.err


@pytest.mark.parametrize("who", PEOPLE)
def test_what_a_person_has_started_is_found(cluster: Cluster, prober: Prober, who: str) -> None:
    with undisturbed(cluster, prober):
        passive = cluster.passive()
        with another(passive, "asterisk", PEOPLE[who], halted=False):
            probe = call(passive, AGENT, "monitor", probe=True)
            assert probe.code == 0, reason(probe)
        assert call(passive, AGENT, "monitor", probe=True).code == 7


# One node without a cluster


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    with lab_or_skip("crm1", cluster=False) as lab:
        alone = lab.node("crm1")
        mount_store(alone)
        without_judge(alone)
        assert call(alone, "sark-data", "start").code == 0
        yield alone


ORPHAN = """\
#!/bin/sh
{how} sh -c 'exec sleep 34567' </dev/null >/dev/null 2>&1 &
"""
WAYS = {
    "setsid": "setsid",
    "its own PID namespace": "setsid unshare --user --map-root-user --pid --fork",
    "twice removed": "setsid setsid sh -c '\"$@\" & exit' sh",
}


@pytest.mark.parametrize("unit", ["none", "asterisk.service"])
@pytest.mark.parametrize("way", WAYS)
def test_an_orphan_ends_with_asterisk(node: Node, way: str, unit: str) -> None:
    given = {"unit": unit, "stop_grace": "1s"}
    started = call(node, AGENT, "start", given)
    assert started.code == 0, started.err
    node.write("/usr/local/bin/orphan", ORPHAN.format(how=WAYS[way]), mode=0o755)
    asterisk(node, "channel originate Local/101@lab application System /usr/local/bin/orphan")
    wait_for(lambda: bool(sleepers(node)), "the orphan", every=0.05)
    assert call(node, AGENT, "monitor", given, check_level=10).code == 0
    stop = call(node, AGENT, "stop", given)
    assert stop.code == 0, stop.err
    assert sleepers(node) == []
    assert node.pids("asterisk") == []


def sleepers(node: Node) -> list[int]:
    return [pid for pid in node.pids("sleep")
            if b"34567" in Path(f"/proc/{pid}/cmdline").read_bytes()]


@pytest.mark.parametrize("unit", ["none", "asterisk.service"])
def test_a_child_that_runs_asterisks_program_is_not_it(node: Node, unit: str) -> None:
    """It is in Asterisk's own control group, of its user, and its parents have ended."""
    given = {"unit": unit}
    assert call(node, AGENT, "start", given).code == 0
    (main,) = node.pids("asterisk")

    def by_asterisk(user: str, conf: str) -> list[str]:
        how = f"setsid /usr/sbin/asterisk -f -C {conf} #"
        node.write("/usr/local/bin/orphan", ORPHAN.format(how=how), mode=0o755)
        return ["asterisk", "-rx",
                "channel originate Local/101@lab application System /usr/local/bin/orphan"]

    with another(node, "asterisk", by_asterisk, halted=True) as child:
        node.run("sh", "-c", "rm /run/resource-agents/asterisk-health-*.known")
        seen = call(node, AGENT, "monitor", given, check_level=10)
        assert seen.code == 0, seen.err
        os.kill(main, signal.SIGKILL)
        wait_for(lambda: not start_time(main), "Asterisk's end")
        assert call(node, AGENT, "stop", given).code == 0
        assert not start_time(child)
    assert call(node, AGENT, "monitor", given, probe=True).code == 7


def test_a_stop_ends_the_accounts_strays_and_no_strangers(node: Node) -> None:
    assert call(node, AGENT, "start").code == 0
    with (
        another(node, "asterisk", by_cron, halted=True) as stray,
        another(node, "nobody", by_systemd, halted=True) as stranger,
    ):
        stop = call(node, AGENT, "stop")
        assert stop.code == 0, stop.err
        assert node.pids("asterisk") == [stranger]
        assert not start_time(stray)
        assert call(node, AGENT, "monitor", probe=True).code == 7
        start = call(node, AGENT, "start")
        assert start.code == 0, start.err
        assert call(node, AGENT, "stop").code == 0
    assert node.pids("asterisk") == []
