"""A second node joins a first that is running, is destroyed, is replaced, is forgotten.

Corosync and Pacemaker are real, their configuration and the listener are asha's. A
dummy resource under ``no-quorum-policy=stop`` stands for the telephones: it is stopped
when the first node loses its quorum for a moment.
"""

from __future__ import annotations

import contextlib
import random
import shutil
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from asha.cluster import corosync, generation
from asha.cluster import site as conf
from asha.cluster.cib import MARKER
from asha.cluster.secret import PATH, Secret
from asha.cluster.site import Site
from asha.conf import values_of
from tests.conftest import lab_or_skip
from tests.lab import Lab, Node, Result, wait_for
from tests.lab.lab import REPOSITORY

SECRET = Secret.generate()
ANSWERS = """\
PRIMARY={first}
CLUSTERIP=192.168.1.90
ANODENAME=crm1
ANODEIP=10.0.3.251
BNODENAME=crm2
BNODEIP=10.0.3.252
DRBDDEV=/dev/sdb
{own_lan}
"""
FIRST = ANSWERS.format(first="true", own_lan="ANODELAN=192.168.1.11")
SECOND = ANSWERS.format(first="false", own_lan="BNODELAN=192.168.1.12")
DAEMONS = ("corosync", "pacemaker")
RESOURCE = """\
property stonith-enabled=false no-quorum-policy=stop
primitive p_phones ocf:pacemaker:Dummy params state=/run/phones op monitor interval=1s
location l_phones p_phones 100: crm1
rsc_defaults resource-stickiness=1000
"""
# What `asha step join` does; here without the rest of the plan.
JOIN = """\
import sys
from asha.bootstrap.join import client as join
from asha.machine import Machine
from asha.cluster import site as conf
from asha.cluster.secret import Secret
from asha.errors import UserError
site, secret, machine = conf.read(), Secret.read(), Machine()
try:
    if sys.argv[1:] == ["facts"]:
        print(join.ask_facts(site, secret, {}, 15)["name"])
    else:
        [action] = join.actions(site, secret)
        action.do(machine, print)
        print("done" if action.is_done(machine) else "not done")
except UserError as trouble:
    sys.exit(f"{trouble}|{trouble.hint}")
"""
# Whatever a network has: nothing, noise, half a hello, a hello and then noise.
NOISE = """\
import random, socket
dice = random.Random(7)
hello = b'{"asha": 1, "node": "crm2", "nonce": "' + b"0" * 64 + b'"}\\n'
for turn in range(200):
    beginning = dice.choice((b"", hello, hello[: dice.randrange(len(hello))], b"\\0" * 64))
    try:
        with socket.create_connection(("10.0.3.251", 5409), timeout=12) as visitor:
            visitor.sendall(beginning + dice.randbytes(dice.choice((0, 1, 64, 4096, 200000))))
            visitor.shutdown(socket.SHUT_WR)
            while visitor.recv(4096):
                pass
    except ConnectionError:
        pass
"""


@pytest.fixture
def lab() -> Iterator[Lab]:
    with lab_or_skip(cluster=False) as lab:
        equip(lab.node("crm1"), FIRST)
        equip(lab.node("crm2"), SECOND)
        start_first(lab.node("crm1"))
        yield lab


def equip(node: Node, answers: str) -> None:
    """What the steps before this one, and the package, leave on a node."""
    node.write(conf.CONF, answers)
    node.write(PATH, SECRET.text, 0o600)
    for unit in ("asha-join.service", "asha-secret@.service"):
        text = (REPOSITORY / "asha/bootstrap" / unit).read_text()
        node.write(f"/usr/lib/systemd/system/{unit}", text)
    if node.is_up:
        node.run("systemctl", "daemon-reload")


def start_first(node: Node) -> None:
    node.write(MARKER, "")
    node.write(corosync.CONF, corosync.render(site(node), joined=False))
    node.write(corosync.AUTHKEY, SECRET.corosync_authkey(), 0o400)
    node.run("systemctl", "enable", "--now", *DAEMONS, "asha-join")
    wait_for(lambda: online(node) == {"crm1"}, "the first node to be alone", timeout=60)
    node.run("crm", "configure", "load", "update", "-", stdin=RESOURCE)
    wait_for(lambda: phones(node) != "", "the resource", timeout=60)


def site(node: Node) -> Site:
    return conf.parse(node.path(conf.CONF).read_text())


def online(node: Node) -> set[str]:
    said = node.run("crm_node", "--partition", check=False)
    return set(said.out.split()) if said.ok else set()


def quorate(node: Node) -> bool:
    said = node.run("corosync-quorumtool", "-s", check=False)
    return "Quorate:          Yes" in said.out


def phones(node: Node) -> str:
    """Which start of the resource this is; "" while it does not run."""
    return node.run("stat", "--format=%i %W %Y", "/run/phones", check=False).out.strip()


def join(node: Node, *argv: str) -> Result:
    return node.run("/usr/bin/python3", "-I", "-c", JOIN, *argv, check=False, timeout=120)


def start_second(lab: Lab) -> None:
    lab.node("crm2").run("systemctl", "enable", "--now", *DAEMONS, timeout=120)
    wait_for(lambda: all(online(node) == {"crm1", "crm2"} for node in lab.running),
             "both to be online", timeout=60)


def told_the_secret(lab: Lab) -> None:
    """A removal ends with a new one, which a person types on the second node."""
    lab.node("crm2").write(PATH, lab.node("crm1").path(PATH).read_text(), 0o600)


def joined(lab: Lab) -> None:
    said = join(lab.node("crm2"))
    assert said.out.splitlines()[-1] == "done", said.err
    start_second(lab)


def log(node: Node) -> str:
    return node.run("journalctl", "--unit=asha-join", "--output=cat", "--no-pager").out


def settled(node: Node) -> None:
    """The first has seen the second: neither starts alone any more."""
    wait_for(lambda: node.path(corosync.CONF).read_text() ==
             corosync.render(site(node), joined=True), "the listener to settle")


def both_links_up(node: Node) -> bool:
    links = node.run("corosync-cfgtool", "-s", check=False).out
    states = links.count("LINK ID"), links.count("connected"), links.count("disconnected")
    return states == (2, 2, 0)


@contextlib.contextmanager
def quorum_never_lost(node: Node) -> Iterator[None]:
    """Asked all the time by one, and proved by the resource that never stopped."""
    ended = threading.Event()

    def watch() -> list[float]:
        lost = []
        while not ended.is_set():
            if not quorate(node):
                lost.append(time.monotonic())
        return lost

    before = phones(node)
    with ThreadPoolExecutor(max_workers=1) as watchers:
        watcher = watchers.submit(watch)
        try:
            yield
        finally:
            ended.set()
    assert watcher.result() == []  # raises what the watcher may have ended by
    assert phones(node) == before != ""


def test_joins_a_running_first(lab: Lab) -> None:
    first, second = lab.node("crm1"), lab.node("crm2")
    # A bare machine: no address on the link, its NIC off.
    second.run("ip", "address", "flush", "dev", "eth1")
    second.run("ip", "link", "set", "eth1", "down")
    assert join(second, "facts").out == "crm1\n"
    assert "10.0.3.252" not in second.run("ip", "address", "show", "eth1").out
    said = join(second)
    assert "does not have this node's address 10.0.3.252" in said.err
    second.run("ip", "address", "add", "10.0.3.252/24", "dev", "eth1")
    second.run("ip", "link", "set", "eth1", "up")
    with quorum_never_lost(first):
        joined(lab)
        settled(first)
        assert join(second).out.splitlines()[-1] == "done"
    assert second.path(corosync.CONF).read_text() == first.path(corosync.CONF).read_text()
    assert site(second).second_ring
    wait_for(lambda: both_links_up(first), "both links to be connected")
    # Neither is started by itself again: the telephones stay where they are.
    second.run("systemctl", "stop", *reversed(DAEMONS), timeout=120)
    assert quorate(first)
    assert SECRET.typed not in log(first)


def test_strangers_and_killed_listeners(lab: Lab) -> None:
    first, second = lab.node("crm1"), lab.node("crm2")
    alone = first.path(corosync.CONF).read_text()
    other = Secret.generate()
    second.write(PATH, other.text, 0o600)
    with quorum_never_lost(first):
        said = join(second)
        assert said.err.startswith("the secret is not the one of crm1|")
        assert "crm2 does not have the cluster secret" in log(first)
        second.write(PATH, SECRET.text, 0o600)
        pid = first.run("systemctl", "show", "--property=MainPID", "--value", "asha-join").out
        second.run("/usr/bin/python3", "-I", "-c", NOISE, timeout=300)
        assert join(second, "facts").out == "crm1\n"
        assert first.run(
            "systemctl", "show", "--property=MainPID", "--value", "asha-join"
        ).out == pid
        assert first.path(corosync.CONF).read_text() == alone

        # Killed at any moment of a request: the file is the old or the new one, whole.
        expected = corosync.render(
            conf.site_of({**values_of(FIRST), "BNODELAN": "192.168.1.12"}), joined=True,
            have_met=False)
        dice = random.Random(3)
        for _ in range(8):
            wait_for(lambda: join(second, "facts").ok, "the listener")
            asking = second.start("/usr/bin/python3", "-I", "-c", JOIN)
            time.sleep(dice.uniform(0.1, 1.2))
            first.run("systemctl", "kill", "--signal=KILL", "asha-join")
            asking.wait(60)
            assert first.path(corosync.CONF).read_text() in (alone, expected)
            assert first.run("corosync", "-t").ok
            removed = first.run("/usr/bin/python3", "-I", "-m", "asha", "remove-node", "crm2",
                                "--yes")
            assert "crm1 is alone" in removed.out
            assert first.path(corosync.CONF).read_text() == alone
            told_the_secret(lab)
        wait_for(lambda: join(second, "facts").ok, "the listener")
        joined(lab)
    assert other.typed not in log(first)


def test_a_first_that_reboots_before_the_second_has_come(lab: Lab) -> None:
    first, second = lab.node("crm1"), lab.node("crm2")
    assert join(second).out.splitlines()[-1] == "done"
    second.crash()
    first.crash()
    first.boot()
    wait_for(lambda: quorate(first) and phones(first) != "", "the first alone", timeout=90)
    second.boot()
    with quorum_never_lost(first):
        start_second(lab)
        settled(first)


def test_replaced_and_forgotten(lab: Lab) -> None:
    first, second = lab.node("crm1"), lab.node("crm2")
    joined(lab)
    settled(first)
    refused = first.run("/usr/bin/python3", "-I", "-m", "asha", "remove-node", "crm2", "--yes",
                        check=False)
    assert "crm2 is in the cluster" in refused.err
    first.run("crm_attribute", "--node=crm2", "--name=standby", "--update=on")

    # Destroyed; a bare machine with its name and addresses takes its place.
    second.crash()
    for trace in ("etc/corosync/*", "etc/asha/*", "var/lib/corosync/*", "var/lib/pacemaker/cib/*",
                  "etc/systemd/system/multi-user.target.wants/*"):
        for path in second.root.glob(trace):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    second.boot()
    equip(second, SECOND)
    with quorum_never_lost(first):
        joined(lab)
        settled(first)
    assert "standby" not in first.run("crm_mon", "-1").out

    # Gone for good: the survivor waits after a reboot, until it is told.
    second.crash()
    first.reboot()
    wait_for(lambda: "Quorate:" in first.run("corosync-quorumtool", "-s", check=False).out,
             "Corosync", timeout=60)
    assert not quorate(first)
    removed = first.run("/usr/bin/python3", "-I", "-m", "asha", "remove-node", "crm2", "--yes")
    assert "crm1 is alone" in removed.out
    wait_for(lambda: quorate(first) and phones(first) != "", "the resource", timeout=60)
    first.reboot()
    wait_for(lambda: quorate(first) and phones(first) != "", "the survivor alone", timeout=90)
    again = first.run("/usr/bin/python3", "-I", "-m", "asha", "remove-node", "crm2", "--yes")
    assert "the cluster has no crm2" in again.out

    # The old machine comes back as it was: it stays outside, until it asks.
    with quorum_never_lost(first):
        second.boot()
        wait_for(lambda: "Quorate:" in second.run("corosync-quorumtool", "-s", check=False).out,
                 "Corosync", timeout=60)
        assert not quorate(second)
        assert online(first) == {"crm1"}
        assert "the secret is not the one of crm1" in join(second).err
        told_the_secret(lab)
        joined(lab)
        settled(first)


def ring(node: Node) -> str:
    """Each change of the membership makes another."""
    said = node.run("corosync-quorumtool", "-s", check=False).out
    return next(line for line in said.splitlines() if line.startswith("Ring ID:"))


# What a later release of Corosync does is seen in test_secret.py.
@pytest.mark.parametrize("release", ["bookworm"])
def test_a_new_secret_changes_no_membership(release: str) -> None:
    with lab_or_skip(cluster=False, release=release) as lab:
        first, second = lab.node("crm1"), lab.node("crm2")
        equip(first, FIRST)
        equip(second, SECOND)
        start_first(first)
        joined(lab)
        settled(first)
        second.write(MARKER, "")
        second.run("systemctl", "enable", "--now", "asha-join")
        rings = [ring(node) for node in (first, second)]
        with quorum_never_lost(first):
            waiting = first.start("asha", "secret", "rotate", "--yes")
            wait_for(lambda: first.path(generation.PENDING).exists()
                     or waiting.poll() is not None, "a new secret", timeout=60)
            assert waiting.poll() is None, waiting.communicate()
            new = Secret.parse(first.path(generation.PENDING).read_text())
            second.run("asha", "secret", "rotate", "--secret-file", "-", stdin=new.typed,
                       timeout=120)
            assert waiting.wait(30) == 0
        for node in (first, second):
            assert node.path(PATH).read_text() == new.text
            assert node.path(corosync.AUTHKEY).read_text() == new.corosync_authkey()
        assert rings == [ring(node) for node in (first, second)]
        # The new key is in use, and the old one is not heard.
        second.run("systemctl", "stop", *reversed(DAEMONS), timeout=120)
        start_second(lab)
        second.run("systemctl", "stop", *reversed(DAEMONS), timeout=120)
        second.write(corosync.AUTHKEY, SECRET.corosync_authkey(), 0o400)
        second.run("systemctl", "start", "corosync", timeout=60)
        wait_for(lambda: "Quorate:" in second.run("corosync-quorumtool", "-s", check=False).out,
                 "Corosync", timeout=60)
        assert not quorate(second)
        assert online(first) == {"crm1"}
