"""The cluster secret is changed while the telephones go on, and a removed node stays out.

One story on one lab, told in order, on two nodes that asha install has made.
"""

from __future__ import annotations

import contextlib
import functools
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from asha.bootstrap.steps import asterisk
from asha.cluster import corosync, drbd, generation
from asha.cluster.secret import PATH, Secret
from tests.cluster import customer
from tests.cluster.customer import FIRST, SECOND
from tests.conftest import lab_or_skip
from tests.lab import Lab, Node, Result, wait_for
from tests.lab.cluster import Cluster
from tests.lab.faults import GENEROUS, UNNOTICED
from tests.lab.package import build_package
from tests.lab.prober import Prober

ROTATE = ("asha", "secret", "rotate", "--yes")
TYPED = (*ROTATE, "--secret-file", "-")
SILENT = """\
import pathlib, signal, socket, sys
held = [socket.create_connection(("10.0.3.251", 5409), timeout=10) for _ in range(int(sys.argv[1]))]
pathlib.Path("/run/held").write_text("all")
signal.pause()
"""
# What a joiner asks first.
FACTS = """\
import time
from asha.bootstrap.join import client as join
from asha.cluster import site as conf
from asha.cluster.secret import Secret
from asha.machine import Machine
begun = time.monotonic()
print(join.ask_facts(conf.read(), Secret.read(), {}, 15, Machine())["name"])
print(time.monotonic() - begun)
"""
# What the firewall lets through.
KNOCK = """\
import socket, sys
for port in (5409, 7788):
    try:
        socket.create_connection(("10.0.3.251", port), timeout=2).close()
        print(port, "open")
    except TimeoutError:
        print(port, "dropped")
    except OSError as problem:
        print(port, problem.strerror)
"""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with lab_or_skip(customer=True) as lab:
        yield lab


@pytest.fixture(scope="module")
def cluster(lab: Lab) -> Cluster:
    """Installed, joined and in sync."""
    deb = build_package(lab.release, print)
    first, second = lab.node("crm1"), lab.node("crm2")
    with ThreadPoolExecutor(max_workers=2) as both:
        for done in [both.submit(_prepare, first, FIRST, deb),
                     both.submit(_prepare, second, SECOND, deb)]:
            done.result()
    customer.install_node(first)
    assert open_ports(first) == {5409}
    customer.install_node(second, customer.secret_of(first))
    cluster = Cluster(lab)
    cluster.wait_ready(active="crm1")
    customer.wait_in_sync(second)
    return cluster


def _prepare(node: Node, answers: dict[str, str], deb: Path) -> None:
    customer.preseed(node, answers)
    customer.install_package(node, deb)


def open_ports(node: Node) -> set[int]:
    """Of the table of our own: what the other node may reach."""
    said = json.loads(node.run("nft", "-j", "list", "table", "inet", "asha").out)["nftables"]
    return {int(entry["rule"]["comment"].split()[2]) for entry in said
            if "comment" in entry.get("rule", {})}


def secret(node: Node) -> Secret:
    return Secret.parse(node.path(PATH).read_text())


def keys_are_of(node: Node, wanted: Secret) -> list[str]:
    """What on this node is not made of it, in words; empty when all is."""
    wrong = []
    for path, text in ((PATH, wanted.text), (corosync.AUTHKEY, wanted.corosync_authkey()),
                       (asterisk.SECRET_FILE, asterisk.own_text(wanted))):
        place = node.path(path)
        if place.read_text() != text:
            wrong.append(path)
        if place.stat().st_mode & 0o077:
            wrong.append(f"{path} is for others to read")
    if f'shared-secret "{wanted.drbd()}"' not in node.path(drbd.CONF).read_text():
        wrong.append(drbd.CONF)
    if f"shared-secret\t\t\t\"{wanted.drbd()}\"" not in \
            node.run("drbdsetup", "show", "asha").out:
        wrong.append("DRBD's kernel")
    if node.path(generation.PENDING).exists():
        wrong.append(generation.PENDING)
    return wrong


def membership(node: Node) -> str:
    """Which ring this is; each change of the membership makes another."""
    said = node.run("corosync-quorumtool", "-s", check=False).out
    return next(line for line in said.splitlines() if line.startswith("Ring ID:"))


def refused_logins(node: Node) -> str:
    return node.run("sh", "-c", "grep -rh 'failed to authenticate\\|refused' /var/log/asterisk "
                                "2>/dev/null; true").out


@contextlib.contextmanager
def undisturbed(cluster: Cluster) -> Iterator[None]:
    """A call goes on, telephones are answered, no membership, disk or monitor changes."""
    lab = cluster.lab
    active = cluster.active()
    call = cluster.place_call()
    rings = {node.name: membership(node) for node in cluster.running}
    refused = refused_logins(active)
    failures = cluster.state().failures
    ended, lost = threading.Event(), []

    def watch() -> None:
        while not ended.wait(0.1):
            for node in cluster.running:
                said = node.run("drbdadm", "cstate", "asha", check=False).out.strip()
                if said and said != "Connected":
                    lost.append(f"{node.name}: {said}")

    with Prober(lab) as prober, ThreadPoolExecutor(max_workers=1) as watchers:
        prober.wait_answering(time.monotonic())
        begun = time.monotonic()
        watcher = watchers.submit(watch)
        try:
            yield
        finally:
            ended.set()
        watcher.result()
        assert prober.outage(begun) <= UNNOTICED * GENEROUS
    assert lost == []
    assert rings == {node.name: membership(node) for node in cluster.running}
    assert cluster.call_is_up(call)
    assert refused_logins(active) == refused
    assert [one for one in cluster.state().failures if one not in failures] == []
    active.run("asterisk", "-rx", "channel request hangup all")


def rotated(cluster: Cluster) -> Secret:
    """One command on the first, one and what is typed on the second."""
    first, second = cluster.lab.node("crm1"), cluster.lab.node("crm2")
    waiting = first.start(*ROTATE)
    wait_for(lambda: first.path(generation.PENDING).exists(), "a new secret")
    new = Secret.parse(first.path(generation.PENDING).read_text())
    said = second.run(*TYPED, stdin=new.typed.lower() + "\n", timeout=120)
    assert "have the new secret" in said.out
    assert waiting.wait(30) == 0
    return new


@contextlib.contextmanager
def background(node: Node, unit: str, *argv: str) -> Iterator[None]:
    """A program in the node, killed at the end."""
    node.run("systemd-run", "--quiet", "--collect", f"--unit={unit}", *argv)
    try:
        yield
    finally:
        node.run("systemctl", "kill", "--signal=KILL", unit, check=False)
        node.run("systemctl", "stop", unit, check=False)


def has_begun(node: Node, unit: str) -> bool:
    said = node.run("systemctl", "show", "--property=ExecMainStartTimestampMonotonic",
                    "--value", unit, check=False).out.strip()
    return said not in ("", "0")


def status(node: Node) -> dict[str, object]:
    said: dict[str, object] = json.loads(node.run("asha", "status", "--json", check=False).out)
    return said


def asked(node: Node, *argv: str) -> Result:
    return node.run("/usr/bin/python3", "-I", "-c", *argv, check=False, timeout=60)


def test_a_new_secret_in_a_call(lab: Lab, cluster: Cluster) -> None:
    first, second = lab.node("crm1"), lab.node("crm2")
    old = secret(first)
    assert open_ports(first) >= {5405, 7788, 5409}
    with undisturbed(cluster):
        new = rotated(cluster)
        # Each monitor of the telephones has been at work since.
        since = time.monotonic()
        wait_for(lambda: time.monotonic() - since > 12, "the next monitors")
    assert new != old
    assert keys_are_of(first, new) == keys_are_of(second, new) == []
    for node in (first, second):
        told = status(node)
        assert told["secrets"] == [
            {"node": name, "id": new.key_id(), "coming": ""} for name in ("crm1", "crm2")
        ]
        assert "secret" not in json.dumps(told["findings"])
        logs = node.run("journalctl", "--no-pager", "-o", "cat", timeout=60).out
        cib = node.run("cibadmin", "--query").out
        for hidden in (new.typed, new.ami(), new.corosync_authkey(), old.typed):
            assert hidden not in logs + cib
        assert "nothing to do" in customer.install_node(node)[1].out
    account = first.path("/etc/asterisk/asha_manager.conf").read_text()
    assert asterisk.user(new) in account
    assert asterisk.user(old) not in account


def test_cut_off_at_any_step_and_gone_on_with(lab: Lab, cluster: Cluster) -> None:
    """Killed on the node that walks, and the other node's half as well."""
    first, second = lab.node("crm1"), lab.node("crm2")
    with background(first, "waiter", *ROTATE):
        wait_for(first.path(generation.PENDING).exists, "a new secret")
    new = Secret.parse(first.path(generation.PENDING).read_text())
    assert "a change of the cluster secret is not finished" in json.dumps(status(first)["findings"])
    with undisturbed(cluster):
        for step in ("drbd", "corosync-key", "ami-switch"):
            unit = f"asha-secret@{step}:{new.key_id()}.service"
            second.write("/root/typed", new.typed, 0o600)
            with background(second, "walker", *ROTATE, "--secret-file", "/root/typed"):
                wait_for(functools.partial(has_begun, first, unit), f"the step {step}",
                         timeout=60, every=0.05)
                first.run("systemctl", "kill", "--signal=KILL", unit, check=False)
            second.path("/root/typed").unlink()
            assert first.run("systemctl", "is-active", "asha-join").out.strip() == "active"
        # Either node goes on.
        said = first.run(*ROTATE, timeout=120)
        assert "have the new secret" in said.out
    assert keys_are_of(first, new) == keys_are_of(second, new) == []


def test_a_secret_changed_by_hand_is_refused_and_cured(lab: Lab, cluster: Cluster) -> None:
    first, second = lab.node("crm1"), lab.node("crm2")
    kept = secret(second)
    first.write(PATH, Secret.generate().text, 0o600)
    before = {path: first.path(path).read_bytes()
              for path in (corosync.AUTHKEY, asterisk.SECRET_FILE, drbd.CONF)}
    _, refused = customer.install_node(first, check=False)
    assert refused.code == 1
    assert "is not the secret that this node's keys are made of" in refused.err
    assert "asha secret rotate" in refused.err
    assert before == {path: first.path(path).read_bytes() for path in before}
    assert "keys are made of" in first.run("asha", "check", check=False).out
    with undisturbed(cluster):
        first.run(*TYPED, stdin=kept.typed, timeout=120)
    assert keys_are_of(first, kept) == keys_are_of(second, kept) == []
    assert "nothing to do" in customer.install_node(first)[1].out


@pytest.mark.parametrize("count", [5, 50])
def test_silent_connections_hold_nobody_up(lab: Lab, cluster: Cluster, count: int) -> None:
    second = lab.node("crm2")
    second.run("rm", "-f", "/run/held")
    with background(second, "silent", "/usr/bin/python3", "-I", "-c", SILENT, str(count)):
        wait_for(second.path("/run/held").exists, "the silent connections")
        said = asked(second, FACTS)
        assert said.ok, said.err
        name, seconds = said.out.split()
        assert name == "crm1"
        assert float(seconds) < 5


def boot_unheard(lab: Lab) -> None:
    """The second as it was, which Corosync on the first does not hear any more."""
    second = lab.node("crm2")
    second.boot()
    wait_for(lambda: "Quorate:" in second.run("corosync-quorumtool", "-s", check=False).out,
             "Corosync", timeout=60)
    since = time.monotonic()
    wait_for(lambda: time.monotonic() - since > 5, "what it would say")
    assert "Quorate:          No" in second.run("corosync-quorumtool", "-s", check=False).out


def test_a_node_that_was_off_needs_to_be_told(lab: Lab, cluster: Cluster) -> None:
    first, second = lab.node("crm1"), lab.node("crm2")
    old = secret(first)
    call = cluster.place_call()
    refused = first.run(*ROTATE, "--alone", check=False, timeout=60)
    assert "crm2 is in the cluster" in refused.err
    second.crash()
    wait_for(lambda: cluster.state().online == ["crm1"], "crm2 to be missed")
    refused = first.run(*ROTATE, check=False, timeout=60)
    assert "--alone" in refused.err
    assert not first.path(generation.PENDING).exists()
    first.run(*ROTATE, "--alone", timeout=120)
    new = secret(first)
    assert new != old
    assert keys_are_of(first, new) == []
    told = json.dumps(status(first)["findings"])
    assert f"the nodes' secrets differ (crm1 {new.key_id()}, crm2 {old.key_id()})" in told
    boot_unheard(lab)
    assert cluster.state().online == ["crm1"]
    second.run(*TYPED, stdin=new.typed, timeout=120)
    cluster.wait_ready(active="crm1")
    customer.wait_in_sync(second)
    assert keys_are_of(first, new) == keys_are_of(second, new) == []
    assert cluster.call_is_up(call)


def test_a_removed_node_is_kept_out(lab: Lab, cluster: Cluster) -> None:
    first, second = lab.node("crm1"), lab.node("crm2")
    old = secret(first)
    second.crash()
    wait_for(lambda: cluster.state().online == ["crm1"], "crm2 to be missed")
    call = cluster.place_call()
    said = first.run("asha", "remove-node", "crm2", "--yes", timeout=120)
    new = secret(first)
    assert new != old
    assert new.typed in said.out
    assert keys_are_of(first, new) == []
    assert open_ports(first) == {5409}
    assert cluster.call_is_up(call)
    again = first.run("asha", "remove-node", "crm2", "--yes", timeout=60)
    assert "the cluster has no crm2" in again.out
    assert secret(first) == new

    # Not even with the firewall open does Corosync hear it.
    first.run("nft", "delete", "table", "inet", "asha")
    boot_unheard(lab)
    first.run("systemctl", "restart", "asha-firewall")
    assert open_ports(first) == {5409}
    ports = asked(second, KNOCK).out.splitlines()
    assert ports == ["5409 open", "7788 dropped"]
    refused = asked(second, FACTS)
    assert "the secret is not the one of crm1" in refused.err
    _, refused = customer.install_node(second, check=False)
    assert refused.code == 1
    assert cluster.state().online == ["crm1"]
    assert cluster.call_is_up(call)

    # With the new secret it may come back.
    second.run(*TYPED, stdin=new.typed, timeout=120)
    customer.install_node(second)
    cluster.wait_ready(active="crm1")
    customer.wait_in_sync(second)
    assert keys_are_of(first, new) == keys_are_of(second, new) == []
    assert open_ports(first) >= {5405, 7788, 5409}
    assert cluster.call_is_up(call)
