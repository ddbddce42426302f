"""The LAN counts: what moves the telephones, and what must not."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from asha.lan import NO_ANSWER, NO_CARRIER, OK
from tests.conftest import lab_or_skip
from tests.lab.cluster import Cluster
from tests.lab.faults import lans_are_good
from tests.lab.host import wait_for, wait_steady
from tests.lab.lab import VIRTUAL_ADDRESS
from tests.lab.node import Node

GATEWAY = "192.168.1.254"
# Longer than a move takes to begin, after all that is waited for in the watcher.
WATCH_SECONDS = 12.0


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with lab_or_skip() as lab:
        running = Cluster(lab)
        running.load()
        lab.network.give(GATEWAY)
        for node in lab.running:
            node.run("ip", "route", "add", "default", "via", GATEWAY, "dev", "eth0")
        yield running


@pytest.fixture(autouse=True)
def good(cluster: Cluster) -> None:
    """A watcher that is started anew remembers no earlier losses, and trusts its LAN half a
    minute later."""
    for node in cluster.lab.running:
        cluster.lab.network.attach(node.name, "eth0")
    cluster.heal()
    for node in cluster.lab.running:
        said = said_since_its_start(node)
        if NO_CARRIER in said or NO_ANSWER in said:
            node.run("systemctl", "stop", "asha-lan")
        node.run("systemctl", "start", "asha-lan")
    lans_are_good(cluster)


def said_since_its_start(node: Node) -> str:
    """What its watcher has said; "" where it does not run."""
    run = node.run("systemctl", "show", "--property=InvocationID", "--value", "asha-lan").out
    return run.strip() and node.run("journalctl", "-b", "-o", "cat",
                                    f"_SYSTEMD_INVOCATION_ID={run.strip()}").out


@contextmanager
def nothing_moves(cluster: Cluster, seconds: float = WATCH_SECONDS) -> Iterator[None]:
    """While the block runs, and for so long afterwards."""
    node, call = cluster.active(), cluster.place_call()
    pids = node.pids("asterisk")
    yield
    end = time.monotonic() + seconds
    wait_for(lambda: time.monotonic() >= end or node.pids("asterisk") != pids,
             "a restart of Asterisk, or the end of the watch", timeout=seconds + 30)
    assert node.pids("asterisk") == pids
    assert cluster.active() is node
    assert cluster.call_is_up(call)
    assert cluster.audit() == []


def lan_is(cluster: Cluster, node: Node, *values: str, timeout: float = 30) -> None:
    wait_for(lambda: cluster.lans().get(node.name) in values,
             f"{node.name}'s LAN to be {' or '.join(values)}", timeout=timeout)


def test_the_passive_nodes_cable_moves_nothing_and_is_told(cluster: Cluster) -> None:
    passive = cluster.passive()
    with nothing_moves(cluster):
        passive.cut("eth0")
        lan_is(cluster, passive, NO_CARRIER)
    said = cluster.active().run("asha", "status", check=False)
    assert f"the LAN of {passive.name} is dead (no carrier" in " ".join(said.out.split())
    assert said.code == 1


def test_both_cables_move_nothing_also_when_they_are_back(cluster: Cluster) -> None:
    active, passive = cluster.active(), cluster.passive()
    with nothing_moves(cluster):
        active.cut("eth0")
        passive.cut("eth0")
        lan_is(cluster, active, NO_CARRIER)
        lan_is(cluster, passive, NO_CARRIER)
    with nothing_moves(cluster, seconds=5):
        active.restore("eth0")
        passive.restore("eth0")
        lans_are_good(cluster)


def test_a_passive_cable_in_and_out_moves_nothing(cluster: Cluster) -> None:
    passive = cluster.passive()
    with nothing_moves(cluster, seconds=5):
        for _ in range(6):
            for change, seen in ((passive.cut, False), (passive.restore, True)):
                change("eth0")
                wait_steady(lambda seen=seen: has_carrier(passive) is seen,  # type: ignore[misc]
                            "the cable to be seen")
        assert cluster.lans()[passive.name] != OK


def has_carrier(node: Node) -> bool:
    return "LOWER_UP" in node.run("ip", "link", "show", "eth0").out


def test_a_router_that_reboots_moves_nothing(cluster: Cluster) -> None:
    network = cluster.lab.network
    with ExitStack() as undo, nothing_moves(cluster):
        network.take(GATEWAY)
        undo.callback(network.give, GATEWAY)
    assert set(cluster.lans().values()) == {OK}


def test_a_lan_that_is_dead_with_carrier_moves_the_telephones(cluster: Cluster) -> None:
    active, passive = cluster.active(), cluster.passive()
    cluster.lab.network.detach(active.name, "eth0")
    lan_is(cluster, active, NO_ANSWER)
    assert has_carrier(active)
    assert cluster.wait_ready(active=passive.name) == passive.name
    assert cluster.lans()[passive.name] == OK
    # And back in its place it takes nothing over.
    with nothing_moves(cluster, seconds=2):
        cluster.lab.network.attach(active.name, "eth0")
        lans_are_good(cluster)


def judgements(node: Node) -> int:
    """How often its watcher has judged its LAN anew: each does when it has started."""
    return node.run("journalctl", "-u", "asha-lan", "-b", "-o", "cat").out.count("the LAN at eth0")


def test_a_watcher_that_ends_moves_nothing(cluster: Cluster) -> None:
    active = cluster.active()
    with nothing_moves(cluster, seconds=5):
        before = judgements(active)
        active.run("systemctl", "kill", "--signal=KILL", "asha-lan")
        wait_for(lambda: judgements(active) > before, "the watcher to be started again")
        lan_is(cluster, active, OK)
        # In order: nothing is known any more. (One that is killed leaves what it told.)
        active.run("systemctl", "stop", "asha-lan")
        wait_for(lambda: not cluster.lans().get(active.name), "nothing to be known of its LAN")


def test_an_address_that_pacemaker_does_not_manage_is_left_alone(cluster: Cluster) -> None:
    active = cluster.active()
    meta = ("crm_resource", "--resource", "p_ip", "--meta")
    address = (f"{VIRTUAL_ADDRESS}/24", "dev", "eth0")
    active.run(*meta, "--set-parameter", "is-managed", "--parameter-value", "false")
    try:
        active.run("ip", "address", "delete", *address)
        # It asks Pacemaker within a second.
        end = time.monotonic() + 3
        wait_for(lambda: time.monotonic() >= end, "the end of the watch")
        # Its own monitor may have looked in that time.
        assert [one for one in cluster.state().failures if "asyncmon" in one] == []
        active.run("ip", "address", "add", *address)
    finally:
        active.run(*meta, "--delete-parameter", "is-managed")
    # Its source comes back with the next monitor of lan-source.
    assert cluster.audit() == []


def test_a_switch_is_no_loss_of_the_address(cluster: Cluster) -> None:
    active, passive = cluster.active(), cluster.passive()
    cluster.standby(active)
    cluster.wait_ready(active=passive.name)
    cluster.online(active)
    cluster.wait_settled()
    assert [one for one in cluster.state().failures if "p_ip" in one] == []
    assert "was deleted" not in active.run("journalctl", "-u", "asha-lan", "-b").out
