"""lan-source on a kernel's own routes, in a network namespace that only this test has."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from asha.agents.lan_source import LanSource
from asha.lan.routes import (
    PROTOCOL,
    RTA_DST,
    RTA_GATEWAY,
    RTA_OIF,
    RTA_PRIORITY,
    Kernel,
    Route,
    address_of,
    late,
    wanted,
)
from asha.ocf import Exit
from asha.run.runner import Runner
from tests.fakes.ocf import CallQueue, Outcome, perform

REPOSITORY = Path(__file__).parents[2]
CLONE_NEWNET = 0x40000000  # <linux/sched.h>
OWN, VIRTUAL, GATEWAY = "192.168.1.12", "192.168.1.90", "192.168.1.1"
FAR = "198.51.100.7"


def enter_namespace() -> None:
    """A new one for this thread, and for the programs that it runs (unshare(2))."""
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "unshare")


def cannot_run() -> str:
    if os.geteuid() != 0:
        return "needs root: it makes a network namespace"
    if shutil.which("ip") is None:
        return "needs the program ip"
    if subprocess.run(["unshare", "--net", "true"], capture_output=True).returncode:
        return "needs the right to make a network namespace"
    return ""


on_a_kernel = pytest.mark.skipif(bool(cannot_run()), reason=cannot_run() or "-")


class Node:
    """A node with LAN (eth0) and cluster link (eth1)."""

    def __init__(self, thread: ThreadPoolExecutor, folder: Path) -> None:
        self._thread = thread
        self._folder = folder
        self.ip("link", "set", "lo", "up")
        for nic, address in (("eth0", f"{OWN}/24"), ("eth1", "10.0.3.251/24")):
            self.ip("link", "add", nic, "type", "veth", "peer", "name", f"{nic}-wire")
            self.ip("link", "set", nic, "up")
            self.ip("link", "set", f"{nic}-wire", "up")
            self.ip("addr", "add", address, "dev", nic)

    def inside(self, work: Callable[[], object]) -> object:
        return self._thread.submit(work).result()

    def ip(self, *words: str) -> str:
        done = self._thread.submit(
            subprocess.run, ["ip", "-4", *words], capture_output=True, text=True
        ).result()
        assert done.returncode == 0, done.stderr
        return str(done.stdout)

    def act(
        self, action: str, *, probe: bool = False, ip: str = VIRTUAL, nic: str = "eth0",
        runner: Runner | None = None,
    ) -> Outcome:
        meta = {"interval": ""} if probe else None
        return self._thread.submit(
            lambda: perform(LanSource, action, str(self._folder), runner=runner, meta=meta,
                            ip=ip, nic=nic)
        ).result()

    def take_address(self) -> None:
        self.ip("addr", "add", f"{VIRTUAL}/24", "dev", "eth0")

    def lose_address(self) -> None:
        self.ip("addr", "del", f"{VIRTUAL}/24", "dev", "eth0")

    def routes(self) -> list[str]:
        return [line.strip() for line in self.ip("route", "show").splitlines()]

    def sends_from(self, goal: str) -> str:
        words = self.ip("route", "get", goal).split()
        return words[words.index("src") + 1]


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with ThreadPoolExecutor(max_workers=1, initializer=enter_namespace) as thread:
        yield Node(thread, tmp_path)


@pytest.fixture
def active(node: Node) -> Node:
    """With the virtual address, a default route and one to another branch."""
    node.ip("route", "add", "default", "via", GATEWAY)
    node.ip("route", "add", "10.9.0.0/16", "via", "192.168.1.7", "metric", "50")
    node.ip("route", "add", "10.8.0.0/16", "via", "10.0.3.252")
    node.take_address()
    return node


GOALS = (GATEWAY, "192.168.1.200", FAR, "8.8.8.8", "10.9.1.1")


@on_a_kernel
def test_all_that_leaves_by_the_lan_comes_from_the_address(active: Node) -> None:
    assert [active.sends_from(goal) for goal in GOALS] == [OWN] * len(GOALS)
    started = active.act("start")
    assert (started.code, started.err) == (Exit.SUCCESS, "")
    assert [active.sends_from(goal) for goal in GOALS] == [VIRTUAL] * len(GOALS)
    for goal in ("10.0.3.252", "10.8.1.1"):
        assert active.sends_from(goal) == "10.0.3.251"
    assert active.act("monitor").err == ""


@on_a_kernel
def test_stop_leaves_the_routes_as_they_were(active: Node) -> None:
    before = active.routes()
    active.act("start")
    assert set(before) < set(active.routes())
    assert active.act("stop").code == Exit.SUCCESS
    assert active.routes() == before
    assert active.act("monitor", probe=True).code == Exit.NOT_RUNNING
    assert active.act("stop").code == Exit.SUCCESS


@on_a_kernel
def test_stop_gives_up_what_was_started_whatever_the_parameters_say(active: Node) -> None:
    before = active.routes()
    active.act("start")
    for ip, nic in (("192.168.1.91", "eth0"), ("nonsense", "eth0"), ("", "eth7")):
        active.act("start")
        assert active.act("stop", ip=ip, nic=nic).code == Exit.SUCCESS
        assert active.routes() == before


@on_a_kernel
def test_a_probe_changes_nothing(active: Node) -> None:
    before = active.routes()
    assert active.act("monitor", probe=True).code == Exit.NOT_RUNNING
    assert active.routes() == before
    active.act("start")
    active.ip("route", "flush", "proto", str(PROTOCOL))
    assert active.act("monitor", probe=True).code == Exit.SUCCESS
    assert active.routes() == before


@on_a_kernel
def test_the_kernel_takes_the_copies_with_the_address(active: Node) -> None:
    """Nothing of ours need run for that."""
    before = active.routes()
    active.act("start")
    active.lose_address()
    assert active.routes() == before
    seen = active.act("monitor")
    assert seen.code == Exit.DEGRADED
    assert f"{VIRTUAL} is not on eth0" in seen.reason
    active.take_address()
    assert active.act("monitor").code == Exit.SUCCESS
    assert active.sends_from(FAR) == VIRTUAL


@on_a_kernel
@pytest.mark.parametrize("rewrite", [
    (("flush", "default"), ("add", "default", "via", GATEWAY)),
    (("del", "default"), ("add", "default", "via", "192.168.1.254", "metric", "100")),
    (("replace", "default", "via", "192.168.1.254"),),
    (("del", "192.168.1.0/24", "dev", "eth0"),),
    (("replace", "192.168.1.0/24", "dev", "eth0", "src", OWN),),
    (("change", "10.9.0.0/16", "via", "192.168.1.8", "metric", "50"),),
    (("flush", "proto", str(PROTOCOL)),),
], ids=lambda rewrite: " ".join(rewrite[0][:2]))
def test_what_was_rewritten_is_followed_and_told(
    active: Node, rewrite: tuple[tuple[str, ...], ...]
) -> None:
    active.act("start")
    for words in rewrite:
        active.ip("route", *words)
    theirs = [line for line in active.routes() if f"proto {PROTOCOL}" not in line]
    seen = active.act("monitor")
    assert seen.code == Exit.SUCCESS
    assert [active.sends_from(goal) for goal in GOALS] == [VIRTUAL] * len(GOALS)
    # Each copy goes the way of what it copies, and no other is left.
    for goal in GOALS:
        way = active.ip("route", "get", goal).split("src")[0]
        active.act("stop")
        assert active.ip("route", "get", goal).split("src")[0] == way
        assert active.routes() == theirs
        active.act("start")
    assert active.act("monitor").err == ""


@on_a_kernel
def test_what_it_put_back_is_in_the_log(active: Node) -> None:
    active.act("start")
    active.ip("route", "flush", "proto", str(PROTOCOL))
    assert "put back, as something has changed the routes: " in active.act("monitor").err
    active.ip("route", "del", "default")
    assert "taken away, as the route that they copied is gone: 0.0.0.0/1" in \
        active.act("monitor").err


@on_a_kernel
def test_without_a_default_route(node: Node) -> None:
    node.take_address()
    assert node.act("start").err == ""
    assert node.sends_from(GATEWAY) == VIRTUAL


@on_a_kernel
def test_a_default_route_by_another_nic_stays_the_better_one(active: Node) -> None:
    active.ip("route", "replace", "default", "via", GATEWAY, "metric", "200")
    active.ip("route", "del", "default", "via", GATEWAY, "metric", "0")
    active.ip("route", "add", "default", "via", "10.0.3.252", "metric", "100")
    assert active.act("start").code == Exit.SUCCESS
    assert active.sends_from(FAR) == "10.0.3.251"
    assert active.sends_from(GATEWAY) == VIRTUAL


@on_a_kernel
def test_a_vpn_that_takes_the_default_route_keeps_it(active: Node) -> None:
    """OpenVPN's redirect-gateway def1 adds the same halves; it may come later."""
    active.act("start")
    for half in ("0.0.0.0/1", "128.0.0.0/1"):
        active.ip("route", "add", half, "via", "10.0.3.252", "dev", "eth1")
    assert active.act("monitor").code == Exit.SUCCESS
    assert (active.sends_from(FAR), active.sends_from("8.8.8.8")) == ("10.0.3.251", "10.0.3.251")
    assert active.sends_from(GATEWAY) == VIRTUAL


@on_a_kernel
def test_without_the_address_a_start_is_degraded_and_no_failure(node: Node) -> None:
    before = node.routes()
    started = node.act("start")
    assert started.code == Exit.SUCCESS
    assert f"{VIRTUAL} is not on eth0" in started.err
    assert node.routes() == before
    node.take_address()
    assert node.act("monitor").code == Exit.SUCCESS
    assert node.sends_from(GATEWAY) == VIRTUAL


@on_a_kernel
def test_many_routes_take_no_longer_each(active: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """A router's protocol may bring thousands, and a monitor has 20 s."""
    count = 300
    for number in range(count):
        active.ip("route", "add", f"10.1.{number // 250}.{number % 250}", "dev", "eth0")
    compared: list[Route] = []
    equal = Route.__eq__

    def counted(self: Route, other: object) -> bool:
        compared.append(self)
        return equal(self, other)

    monkeypatch.setattr(Route, "__eq__", counted)
    for action in ("start", "monitor", "stop"):
        assert active.act(action).code == Exit.SUCCESS
    assert len(compared) < 20 * count
    assert "proto 165" not in active.ip("route", "show")


@on_a_kernel
def test_what_is_degraded_is_told_once_and_taken_back(active: Node) -> None:
    runner = CallQueue()
    active.act("start", runner=runner)
    active.lose_address()
    told = f"degraded: {VIRTUAL} is not on eth0: this node sends from its own address"
    runner.expect("attrd_updater", "--name", "asha-lan-source", "--update", told)
    for _ in range(2):
        assert active.act("monitor", runner=runner).code == Exit.DEGRADED
    active.take_address()
    runner.expect("attrd_updater", "--name", "asha-lan-source", "--delete")
    for _ in range(2):
        assert active.act("monitor", runner=runner).code == Exit.SUCCESS
    active.lose_address()
    runner.expect("attrd_updater", "--name", "asha-lan-source", "--update", told)
    runner.expect("attrd_updater", "--name", "asha-lan-source", "--delete")
    active.act("monitor", runner=runner)
    assert active.act("stop", runner=runner).code == Exit.SUCCESS
    runner.done()


@on_a_kernel
def test_a_nic_that_is_not_there(active: Node) -> None:
    assert active.act("start", nic="eth7").code == Exit.SUCCESS
    seen = active.act("monitor", nic="eth7")
    assert seen.code == Exit.DEGRADED
    assert "eth7" in seen.reason
    assert active.act("stop", nic="eth7").code == Exit.SUCCESS


@on_a_kernel
def test_a_rule_that_leads_elsewhere_is_told(active: Node) -> None:
    """What no route of the main table decides cannot be put right here."""
    active.ip("route", "add", "default", "via", GATEWAY, "table", "77")
    active.ip("rule", "add", "to", "192.0.2.0/24", "lookup", "77")
    active.act("start")
    seen = active.act("monitor")
    assert seen.code == Exit.DEGRADED
    assert f"sends from {OWN} to 192.0.2.1 through eth0, not from {VIRTUAL}" in seen.reason


@on_a_kernel
def test_another_address_takes_the_place_of_the_first(active: Node) -> None:
    active.act("start")
    active.ip("addr", "add", "192.168.1.91/24", "dev", "eth0")
    assert active.act("start", ip="192.168.1.91").code == Exit.SUCCESS
    assert active.sends_from(FAR) == "192.168.1.91"
    assert not [line for line in active.routes() if f"src {VIRTUAL} " in f"{line} "]


@on_a_kernel
def test_a_copy_that_came_to_stand_behind_is_put_in_front(active: Node) -> None:
    active.act("start")
    active.ip("route", "prepend", "10.9.0.0/16", "via", "192.168.1.8", "metric", "50")
    assert active.sends_from("10.9.1.1") == OWN
    active.act("monitor")
    assert active.sends_from("10.9.1.1") == VIRTUAL
    assert "via 192.168.1.8 " in active.ip("route", "get", "10.9.1.1")


@on_a_kernel
def test_the_kernels_refusal_is_an_error(active: Node) -> None:
    def add() -> None:
        with Kernel() as kernel:
            route = kernel.routes()[0].copy(address_of("192.168.7.7"))  # nobody's
            kernel.put_first(route)

    with pytest.raises(OSError, match="Invalid argument"):
        active.inside(add)


@pytest.mark.parametrize("ip", ["", "192.168.1", "192.168.1.999", "fe80::1", "crm"])
def test_what_is_no_address_is_refused(ip: str, tmp_path: Path) -> None:
    done = perform(LanSource, "start", str(tmp_path), ip=ip, nic="eth0")
    assert done.code == Exit.ERR_CONFIGURED
    assert "ip" in done.reason
    assert list(tmp_path.iterdir()) == []


# What is copied, without a kernel.


def route(length: int, destination: str, nic: int, *, gateway: str = "", metric: int = 0,
          protocol: int = 3) -> Route:
    attributes = {RTA_OIF: nic.to_bytes(4, sys.byteorder)}
    if length:
        attributes[RTA_DST] = address_of(destination)
    if gateway:
        attributes[RTA_GATEWAY] = address_of(gateway)
    if metric:
        attributes[RTA_PRIORITY] = metric.to_bytes(4, sys.byteorder)
    return Route(length, 0, protocol, 0, 0, attributes)


LAN, LINK = 2, 3
SOURCE = address_of(VIRTUAL)


def copied(*routes: Route) -> list[str]:
    return [str(one) for one in wanted(routes, LAN, SOURCE)]


def test_what_another_route_hides_is_left_alone() -> None:
    first, second = route(16, "10.9.0.0", LINK), route(16, "10.9.0.0", LAN)
    assert copied(first, second) == []
    assert copied(second, first) == ["10.9.0.0/16"]
    assert copied(first, route(16, "10.9.0.0", LAN, metric=5)) == ["10.9.0.0/16"]


def test_of_several_default_routes_the_one_in_use_is_copied() -> None:
    near = route(0, "", LAN, gateway=GATEWAY, metric=100)
    far = route(0, "", LAN, gateway="192.168.1.2", metric=200)
    halves = [f"0.0.0.0/1 via {GATEWAY}", f"128.0.0.0/1 via {GATEWAY}"]
    assert copied(far, near) == halves
    assert copied(route(0, "", LINK, gateway="10.0.3.1", metric=50), far, near) == []


def test_link_local_and_our_own_are_not_copied() -> None:
    ours = route(24, "192.168.1.0", LAN, protocol=PROTOCOL)
    assert copied(route(16, "169.254.0.0", LAN), ours) == []
    assert copied(route(16, "169.253.0.0", LAN)) == ["169.253.0.0/16"]


def test_what_comes_from_the_address_already_needs_no_copy() -> None:
    """The kernel's own route, where the virtual address is the only one."""
    assert copied(route(24, "192.168.1.0", LAN).copy(SOURCE)) == []
    kernels = route(24, "192.168.1.0", LAN)
    assert copied(kernels) == ["192.168.1.0/24"]


def test_which_copies_stand_behind_another() -> None:
    original = route(24, "192.168.1.0", LAN)
    copy = original.copy(SOURCE)
    assert late([copy, original], [copy]) == []
    assert late([original, copy], [copy]) == [copy]
    assert late([original], [copy]) == []


def test_a_monitor_imports_nothing_that_it_does_not_need() -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(REPOSITORY)!r})\n"
        "import asha.agents.lan_source\nprint(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True,
                          check=True)
    bare = subprocess.run([sys.executable, "-I", "-c", "import sys; print(*sys.modules)"],
                          capture_output=True, text=True, check=True)
    costly = {"subprocess", "socket", "selectors", "enum", "re", "json", "logging", "signal",
              "pathlib", "dataclasses", "typing", "asyncio", "threading", "traceback",
              "contextlib", "ipaddress"}
    assert costly & (set(done.stdout.split()) - set(bare.stdout.split())) == set()
