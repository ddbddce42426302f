"""lan-source: what the active node sends into the LAN comes from the virtual address.

A telephone asks the virtual address, and an Asterisk that is bound to 0.0.0.0 answers from
the address that the route gives it: without this agent the node's own. Providers would see
another address after each switch.

Each route of the LAN's NIC gets a copy with the virtual address as its source, in front of
it (asha/lan/routes.py). The routes themselves stay as they are, so that a stop, however
it ends, leaves the node as it was. The copies cannot be there without the address: the
kernel takes them away with it.

No failure of this agent may silence a telephone. A start does what can be done, and what
cannot is degraded; each monitor tries again.
"""

from __future__ import annotations

from asha.lan import SOURCE_ATTRIBUTE
from asha.lan.routes import (
    FAR,
    Kernel,
    Route,
    address_of,
    late,
    neighbour_in,
    text_of,
    wanted,
)
from asha.ocf import Agent, Degraded, Exit, Failed, String, action

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from asha.ocf.attributes import NodeAttribute
    from asha.ocf.state import StateFile

# Routes that a message names.
NAMED_MOST = 3

# Seconds that news for the cluster may take out of an action.
CLUSTER_SECONDS = 2.0


class Address(String):
    """An IPv4 address."""

    def parse(self, environ: Mapping[str, str]) -> str:
        value = self.text(environ)
        try:
            address_of(value)
        except OSError:
            raise self.bad(value, "must be an IPv4 address") from None
        return value


class LanSource(Agent):
    """Sends from the virtual address.

    Gives each IPv4 route of one NIC in the main table a copy whose preferred source is
    the given address, which must be on that NIC: run it where and after an IPaddr2 with
    the same ip and nic. What programs send through the NIC without having chosen an
    address of their own then comes from that address. Routes of other NICs, and what is
    bound to an address (Corosync, DRBD), are left alone.

    The copies have the protocol 165 (ip route show proto 165); a default route is
    copied as 0.0.0.0/1 and 128.0.0.0/1. Routes that DHCP or a person changes are followed
    by the next monitor. Routes with several next hops and those of other tables are not
    touched.

    What it cannot do is degraded and no failure: the node sends from its own address then,
    as it would without this resource. The node attribute asha-lan-source says what, for as
    long as it is so (crm_mon -A).
    """

    name = "lan-source"

    ip = Address(
        "The virtual address",
        "The IPv4 address from which this node is to send, as IPaddr2 has it.",
        required=True,
    )
    nic = String(
        "The LAN's NIC",
        "The NIC whose routes are meant, such as eth0, as IPaddr2 has it.",
        required=True,
    )

    def adopt(self) -> bool:
        return self._recall() == (self.ip, self.nic)

    @action(timeout=20)
    def start(self) -> None:
        file = self.state_file("started")
        try:
            file.write(f"{self.ip}\n{self.nic}\n")
        except OSError as problem:
            raise Failed(f"cannot write {file.path}: {problem.strerror}") from problem
        self._arrange(self.ip, self.nic)

    @action(timeout=20)
    def stop(self) -> None:
        try:
            with Kernel() as kernel:
                for route in [one for one in kernel.routes() if one.is_ours]:
                    kernel.remove(route)
                left = [one for one in kernel.routes() if one.is_ours]
        except OSError as problem:
            raise Failed(f"the routes cannot be put back: {_words(problem)}") from problem
        if left:
            raise Failed(f"routes remain: {_list(left)}")
        if not self._memory.is_absent:
            self._attribute().withdraw()
        file = self.state_file("started")
        try:
            file.remove()
        except OSError as problem:
            raise Failed(f"cannot remove {file.path}: {problem.strerror}") from problem

    @action(timeout=20, interval=20, depth=0)
    def monitor(self) -> Exit:
        started = self._recall()
        if started is None:
            return Exit.NOT_RUNNING
        # After a start too: then it is the proof, and finds nothing to do.
        if not self.is_probe:
            try:
                self._arrange(*started)
            except Degraded as problem:
                self._attribute().tell_degraded([(0, problem.reason)], 0)
                raise
            if not self._memory.is_absent:
                self._attribute().tell_degraded([], 0)
        return Exit.SUCCESS

    @property
    def _memory(self) -> StateFile:
        """There while the attribute says something."""
        return self.state_file(SOURCE_ATTRIBUTE)

    def _attribute(self) -> NodeAttribute:
        from asha.ocf.attributes import NodeAttribute

        return NodeAttribute(self, SOURCE_ATTRIBUTE, cap=CLUSTER_SECONDS)

    def _recall(self) -> tuple[str, str] | None:
        """Address and NIC that were started; None when it was not."""
        file = self.state_file("started")
        lines = file.read().splitlines()
        if len(lines) == 2:
            return lines[0], lines[1]
        return None if not lines and file.is_absent else (self.ip, self.nic)

    def _arrange(self, ip: str, nic: str) -> None:
        """Put the copies where they belong, and look whether they do their work.

        Raises Degraded where they do not: the telephones work as they would without.
        """
        try:
            with Kernel() as kernel:
                number, source = kernel.nic(nic), address_of(ip)
                if not kernel.has_address(number, source):
                    raise Degraded(f"{ip} is not on {nic}: this node sends from its own address")
                self._put(kernel, number, source)
                stray = _stray(kernel, number, source)
        except OSError as problem:
            raise Degraded(
                f"this node does not send from {ip} through {nic}: {_words(problem)}"
            ) from problem
        if stray:
            raise Degraded(f"this node sends from {stray} through {nic}, not from {ip}")

    def _put(self, kernel: Kernel, nic: int, source: bytes) -> None:
        routes = kernel.routes()
        copies = wanted(routes, nic, source)
        moved = set(late(routes, copies))
        for route in moved:
            kernel.remove(route)
        ours = [route for route in routes if route.is_ours and route not in moved]
        # Sets: a router's protocol may bring thousands.
        there, needed = set(ours), set(copies)
        missing = [route for route in copies if route not in there]
        # The new one first: there is no moment without.
        for route in missing:
            kernel.put_first(route)
        surplus = [route for route in ours if route not in needed]
        for route in surplus:
            kernel.remove(route)
        if self.action_name == "monitor":
            if missing:
                self.warn(f"put back, as something has changed the routes: {_list(missing)}")
            if surplus:
                self.warn(f"taken away, as the route that they copied is gone: {_list(surplus)}")


def _stray(kernel: Kernel, nic: int, source: bytes) -> str:
    """The wrong address that what leaves by this NIC has, "" for none. What leaves by
    another one is not asked about."""
    near = neighbour_in(kernel.routes(), nic, source)
    for goal in (near, *FAR) if near else FAR:
        way, used = kernel.way_to(goal)
        if way == nic and used != source:
            return f"{text_of(used)} to {text_of(goal)}"
    return ""


def _list(routes: list[Route]) -> str:
    more = f" and {len(routes) - NAMED_MOST} more" if len(routes) > NAMED_MOST else ""
    return ", ".join(str(route) for route in routes[:NAMED_MOST]) + more


def _words(problem: OSError) -> str:
    about = f" ({problem.filename})" if problem.filename else ""
    return f"{problem.strerror or problem}{about}"
