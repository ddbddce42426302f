"""The watcher: what the kernel and the LAN say, and what Pacemaker is told of it."""

from __future__ import annotations

import socket
from collections import deque
from typing import cast

import pytest

from asha.lan import NO_ANSWER, NO_CARRIER, OK, UNSTEADY
from asha.lan.report import Cluster
from asha.lan.rtnetlink import (
    DELADDR,
    DELLINK,
    NEWADDR,
    NEWLINK,
    NEWROUTE,
    Address,
    Link,
    Message,
    Overrun,
    Route,
)
from asha.lan.watcher import LOSS_SECONDS, RETRY_MOST, TELL_EVERY, Watcher
from tests.unit.test_lan_rtnetlink import MAC, RUNNING, address, link, route

VIRTUAL, OWN, PEER, GATEWAY = "192.168.1.90", "192.168.1.11", "192.168.1.12", "192.168.1.1"


class FakeKernel:
    """``links``, addresses and routes as they are; ``tell`` puts an event into the queue."""

    def __init__(self) -> None:
        self.queue: deque[Message] = deque()
        self.overrun = False
        self.eth0 = Link(2, "eth0", 1, True, MAC)
        self.there = [self.eth0, Link(3, "eth1", 1, True, bytes(6))]
        self.own = [Address(2, OWN), Address(3, "10.0.3.251")]
        self.routes = [Route(2, GATEWAY, 0), Route(3, "10.0.3.1", 5)]
        self.fails = False

    def fileno(self) -> int:
        raise AssertionError

    def tell(self, kind: int, body: bytes) -> None:
        self.queue.append(Message(kind, 0, 0, body))

    def events(self) -> list[Message]:
        if self.overrun:
            self.overrun = False
            self.queue.clear()
            raise Overrun
        found, self.queue = list(self.queue), deque()
        return found

    def links(self) -> list[Link]:
        if self.fails:
            raise OSError(4, "changes all the time")
        return self.there

    def addresses(self) -> list[Address]:
        return self.own

    def default_routes(self) -> list[Route]:
        return self.routes


class FakeLan:
    """Who answers at once when asked."""

    def __init__(self) -> None:
        self.alive = {GATEWAY, PEER}
        self.asked: list[tuple[str, list[str]]] = []
        self.waiting: set[str] = set()
        self.opened = self.closed = 0
        self.refuses = False

    def __call__(self, nic: str, mac: bytes) -> FakeLan:
        assert (nic, mac) == ("eth0", MAC)
        if self.refuses:
            raise PermissionError(1, "not permitted")
        self.opened += 1
        return self

    def close(self) -> None:
        self.closed += 1

    def ask(self, own: str, targets: list[str]) -> None:
        self.asked.append((own, targets))
        self.waiting |= set(targets) & self.alive

    def answered(self) -> set[str]:
        found, self.waiting = self.waiting, set()
        return found


class FakeCluster:
    def __init__(self) -> None:
        self.told: list[str] = []
        self.hears = True
        self.attempts = 0
        self.believes: bool | None = True
        self.asked = 0
        self.failed = 0
        self.is_left = self.is_better = True
        self.looks = 0

    def tell(self, value: str) -> bool:
        self.attempts += 1
        if self.hears:
            self.told.append(value)
        return self.hears

    def has_address(self) -> bool | None:
        self.asked += 1
        return self.believes

    def is_left_for_another(self) -> bool:
        self.looks += 1
        return self.is_left

    def has_better_lan(self) -> bool:
        return self.is_better

    def fail_address(self) -> bool:
        self.failed += self.hears
        return self.hears


class World:
    def __init__(self, active: bool = True, peer: str = PEER) -> None:
        self.now = 1000.0
        self.kernel, self.lan, self.cluster = FakeKernel(), FakeLan(), FakeCluster()
        if active:
            self.kernel.own.append(Address(2, VIRTUAL))
        self.watcher = Watcher(
            "eth0", VIRTUAL, peer, cast(Cluster, self.cluster), kernel=self.kernel,
            listen=self.lan, end_beside=self.end_beside, clock=lambda: self.now,
        )
        # When the others were asked to end, and what the cluster had been told by then.
        self.ended: list[list[str]] = []

    def end_beside(self) -> list[str]:
        self.ended.append(list(self.cluster.told))
        return ["mariadbd 7"]

    def pass_seconds(self, seconds: float) -> None:
        """As run() does: a step now, and whenever one is due."""
        end = self.now + seconds
        while True:
            self.watcher.step(self.now)
            due = max(self.watcher.next_step(), self.now + 0.01)
            if due > end:
                self.now = end
                return
            self.now = due

    def carrier(self, there: bool) -> None:
        self.kernel.tell(NEWLINK, link("eth0", flags=RUNNING if there else 0x1003))

    @property
    def told(self) -> list[str]:
        """Each once, in the order in which it became so."""
        told = self.cluster.told
        return [one for place, one in enumerate(told) if place == 0 or told[place - 1] != one]


def test_all_is_well_and_little_is_done() -> None:
    world = World()
    world.pass_seconds(60)
    assert world.told == [OK]
    # Told again, in case it was forgotten.
    assert len(world.cluster.told) == 3
    assert 58 <= len(world.lan.asked) <= 61
    assert world.lan.asked[-1] == (OWN, [GATEWAY, PEER])
    assert (world.lan.opened, world.lan.closed) == (1, 0)
    assert world.cluster.asked == 0


def test_the_cable_is_pulled_and_put_in() -> None:
    world = World()
    world.pass_seconds(5)
    world.carrier(False)
    world.pass_seconds(1)
    assert world.told == [OK, NO_CARRIER]
    asked = len(world.lan.asked)
    world.pass_seconds(5)
    assert len(world.lan.asked) == asked, "there is nobody to ask"
    world.carrier(True)
    world.pass_seconds(5)
    assert world.told == [OK, NO_CARRIER, UNSTEADY]
    world.pass_seconds(30)
    assert world.told == [OK, NO_CARRIER, UNSTEADY, OK]


def test_what_is_beside_the_telephones_ends_once_they_are_about_to_leave() -> None:
    world = World()
    world.pass_seconds(5)
    world.carrier(False)
    world.pass_seconds(0.2)
    # It is looked before, once, and told when it is certain.
    assert (world.cluster.looks, world.ended) == (1, [])
    world.pass_seconds(60)
    assert (world.cluster.looks, world.ended) == (1, [[OK, NO_CARRIER]])


@pytest.mark.parametrize(("active", "is_left", "is_better", "hears"), [
    (False, True, True, True),
    (True, False, True, True),  # no better node
    (True, True, False, True),  # it has just lost its LAN too
    (True, True, True, False),  # nobody moves them
])
def test_what_is_beside_the_telephones_stays_with_them(
    active: bool, is_left: bool, is_better: bool, hears: bool
) -> None:
    world = World(active)
    world.pass_seconds(5)
    world.cluster.is_left, world.cluster.is_better = is_left, is_better
    world.cluster.hears = hears
    world.carrier(False)
    world.pass_seconds(60)
    assert world.ended == []


def test_a_moment_without_carrier_ends_nothing() -> None:
    """And the next one is looked at anew."""
    world = World()
    world.pass_seconds(5)
    for looks in (1, 2):
        world.carrier(False)
        world.pass_seconds(0.1)
        world.carrier(True)
        world.pass_seconds(20)
        assert (world.cluster.looks, world.ended) == (looks, [])


def test_another_nic_is_none_of_its_business() -> None:
    world = World()
    world.pass_seconds(1)
    world.kernel.tell(NEWLINK, link("eth1", index=3, flags=0))
    world.pass_seconds(5)
    assert world.told == [OK]


def test_a_nic_that_is_not_there_and_one_that_comes() -> None:
    world = World(active=False)
    world.kernel.there = []
    world.pass_seconds(2)
    assert world.told == [NO_CARRIER]
    world.carrier(True)
    world.pass_seconds(40)
    assert world.told == [NO_CARRIER, UNSTEADY, OK]


def test_a_nic_that_is_taken_out() -> None:
    world = World()
    world.pass_seconds(1)
    world.kernel.there = []
    world.kernel.tell(DELLINK, link("eth0"))
    world.pass_seconds(2)
    assert world.told == [OK, NO_CARRIER]
    assert world.lan.closed == 1


@pytest.mark.parametrize(("alive", "told"), [
    ({PEER}, [OK]),  # the router boots
    ({GATEWAY}, [OK]),  # the other node's LAN is bad
    (set(), [OK, NO_ANSWER]),
    ({"192.168.1.77"}, [OK, NO_ANSWER]),  # who was not asked proves nothing
])
def test_who_must_be_silent(alive: set[str], told: list[str]) -> None:
    world = World()
    world.pass_seconds(5)
    world.lan.alive = alive
    world.pass_seconds(15)
    assert world.told == told


def test_several_seconds_of_silence_are_none() -> None:
    world = World(active=False)
    world.pass_seconds(40)
    world.lan.alive = set()
    world.pass_seconds(3)
    world.lan.alive = {PEER}
    world.pass_seconds(10)
    assert world.told == [UNSTEADY, OK]


def test_without_a_gateway_the_others_silence_may_be_his_own_trouble() -> None:
    world = World()
    world.kernel.routes = [Route(3, "10.0.3.1", 0)]
    world.lan.alive = set()
    world.pass_seconds(20)
    assert world.told == [OK]


def test_a_gateway_that_comes_later_is_asked() -> None:
    world = World(peer="")
    world.kernel.routes = []
    world.pass_seconds(3)
    assert not world.lan.asked
    world.kernel.routes = [Route(2, "192.168.1.2", 10), Route(2, "192.168.1.3", 20)]
    world.kernel.tell(NEWROUTE, route("192.168.1.2", metric=10))
    world.lan.alive = set()
    world.pass_seconds(10)
    assert world.lan.asked[-1] == (OWN, ["192.168.1.2"])
    assert world.told == [OK, NO_ANSWER]


def test_who_may_not_ask_goes_by_the_carrier() -> None:
    world = World()
    world.lan.refuses = True
    world.pass_seconds(10)
    assert world.told == [OK]
    world.carrier(False)
    world.pass_seconds(1)
    assert world.told == [OK, NO_CARRIER]


def test_a_time_in_which_it_did_not_run_is_no_silence() -> None:
    """A program that hung, or the whole node."""
    world = World()
    world.pass_seconds(5)
    world.now += 60
    world.pass_seconds(2)
    assert world.told == [OK]


def test_the_cluster_is_told_until_it_hears() -> None:
    world = World()
    world.cluster.hears = False
    world.pass_seconds(60)
    assert 60 / RETRY_MOST <= world.cluster.attempts <= 20
    world.cluster.hears = True
    world.pass_seconds(RETRY_MOST + 1)
    assert world.told == [OK]


def test_news_need_not_wait_for_the_next_attempt() -> None:
    world = World()
    world.cluster.hears = False
    world.pass_seconds(60)
    world.cluster.hears = True
    world.carrier(False)
    world.pass_seconds(0.7)
    assert world.told[-1] == NO_CARRIER


def test_lost_events_are_made_good_by_a_look() -> None:
    world = World()
    world.pass_seconds(5)
    world.kernel.overrun = True
    world.kernel.there = [Link(2, "eth0", 1, False, MAC)]
    world.kernel.own = [Address(2, OWN)]
    world.pass_seconds(2)
    assert world.told == [OK, NO_CARRIER]
    assert world.cluster.failed == 1


def test_a_look_that_fails_is_repeated() -> None:
    world = World()
    world.kernel.fails = True
    world.pass_seconds(3)
    world.kernel.fails = False
    world.pass_seconds(40)
    assert world.told[-1] == OK


# The virtual address.

def lose(world: World) -> None:
    world.pass_seconds(TELL_EVERY / 10)
    world.kernel.tell(DELADDR, address(VIRTUAL))


def test_an_address_that_somebody_deletes_is_told_once() -> None:
    world = World()
    lose(world)
    world.pass_seconds(0.3)
    assert world.cluster.failed == 1
    world.pass_seconds(30)
    assert world.cluster.failed == 1


def test_each_loss_is_told() -> None:
    world = World()
    for _ in range(3):
        lose(world)
        world.pass_seconds(1)
        world.kernel.tell(NEWADDR, address(VIRTUAL))
        world.pass_seconds(1)
    assert world.cluster.failed == 3


def test_another_address_is_none_of_its_business() -> None:
    world = World()
    world.pass_seconds(1)
    world.kernel.tell(DELADDR, address(OWN))
    world.pass_seconds(5)
    assert world.cluster.asked == 0


@pytest.mark.parametrize("believes", [False, None])
def test_pacemaker_takes_it_away_itself_or_cannot_be_asked(believes: bool | None) -> None:
    world = World()
    world.cluster.believes = believes
    lose(world)
    world.pass_seconds(LOSS_SECONDS + 5)
    assert world.cluster.failed == 0
    assert world.cluster.asked == 1 if believes is False else 2 < world.cluster.asked < 40


def test_an_address_that_is_back_at_once_is_not_told() -> None:
    world = World()
    lose(world)
    world.pass_seconds(0.05)
    world.kernel.tell(NEWADDR, address(VIRTUAL))
    world.pass_seconds(5)
    assert world.cluster.failed == 0


def test_a_pacemaker_that_does_not_hear_is_told_again() -> None:
    world = World()
    lose(world)
    world.watcher.step(world.now)
    world.cluster.hears = False
    world.pass_seconds(2)
    world.cluster.hears = True
    world.pass_seconds(2)
    assert world.cluster.failed == 1


def test_the_passive_node_has_nothing_to_lose() -> None:
    world = World(active=False)
    lose(world)
    world.pass_seconds(5)
    assert world.cluster.asked == 0


def test_what_it_waits_for_can_be_waited_for() -> None:
    """run() itself, with sockets that select() takes."""
    near, far = socket.socketpair()
    with near, far:
        world = World()
        world.kernel.fileno = near.fileno  # type: ignore[method-assign]
        far.send(b"news")
        left = iter((True, True, False))
        world.watcher.run(lambda: next(left))
    assert world.told == [OK]
