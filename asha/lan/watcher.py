"""The watcher: what the kernel tells and who answers, and what follows from it."""

from __future__ import annotations

import select
import time
from collections.abc import Callable
from typing import Protocol

from asha.lan import NO_ANSWER, NO_CARRIER, OK, arp, beside, rtnetlink
from asha.lan.health import Health
from asha.lan.report import Cluster
from asha.lan.rtnetlink import Address, Link, Message, Overrun, Route
from asha.run.text import printable
from asha.terminal import warn

# Seconds between two questions, and how many may remain without any answer.
ASK_EVERY = 1.0
SILENT_ROUNDS = 4
# Seconds between two looks while something is about to be certain.
SOON = 0.1

# Seconds after which the cluster is told again what it knows: an attribute manager that was
# restarted has forgotten it.
TELL_EVERY = 30.0
# Seconds between two attempts while it does not hear, growing to the most.
RETRY, RETRY_MOST = 1.0, 5.0

# Seconds that Pacemaker gets to say that it is taking the address away itself, and how long
# and how often it is asked: after that the address's own monitor is near.
GRACE = 0.1
LOSS_SECONDS, LOSS_EVERY = 15.0, 0.5


class Source(Protocol):
    """The kernel (rtnetlink.Kernel)."""

    def fileno(self) -> int: ...
    def events(self) -> list[Message]: ...
    def links(self) -> list[Link]: ...
    def addresses(self) -> list[Address]: ...
    def default_routes(self) -> list[Route]: ...


class Answers(Protocol):
    """Who answers on the LAN (arp.Ears)."""

    def close(self) -> None: ...
    def ask(self, own: str, targets: list[str]) -> None: ...
    def answered(self) -> set[str]: ...


class Watcher:
    """Of the NIC ``nic``. ``virtual`` is the virtual address, ``peer`` the other node's LAN
    address, "" where it is not known."""

    def __init__(
        self, nic: str, virtual: str, peer: str, cluster: Cluster, *,
        kernel: Source | None = None,
        listen: Callable[[str, bytes], Answers] = arp.Ears,
        end_beside: Callable[[], list[str]] = beside.end,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.nic, self.virtual, self.peer = nic, virtual, peer
        self._cluster, self._listen, self._clock = cluster, listen, clock
        self._end_beside = end_beside
        self._kernel = kernel or rtnetlink.Kernel()
        self._health = Health()
        self._link: Link | None = None
        self._addresses: set[Address] = set()
        self._gateway = ""
        # ARP: who was asked in this round, whether anybody answered, and rounds without.
        self._ears: Answers | None = None
        self._deaf = ""
        self._asked: list[str] = []
        self._heard = False
        self._silent = 0
        # What is due when, by the clock.
        self._ask_at = self._tell_at = 0.0
        self._retry = RETRY
        # What the cluster knows, and what it was to know when it was told last.
        self._told = self._tried = ""
        # Whether the telephones would leave this node; None while nothing is lost.
        self._leave: bool | None = None
        self._lost_at: float | None = None
        self._loss_at = 0.0
        self._look_again = self._ask_routes = True

    # The loop.

    def run(self, goes_on: Callable[[], bool]) -> None:
        """Until ``goes_on``, asked about once a second, says no."""
        while goes_on():
            self.step(self._clock())
            self._wait()

    def _wait(self) -> None:
        # Answers wait for the next round: no flood of them keeps us busy.
        select.select([self._kernel], [], [], max(0.0, self.next_step() - self._clock()))

    def next_step(self) -> float:
        """When it is to look again although nobody tells anything."""
        now = self._clock()
        due = [self._ask_at]
        if self._health.is_pending:
            due.append(now + SOON)
        if self._lost_at is not None:
            due.append(self._loss_at)
        if self._told != self._health.verdict:
            due.append(self._tell_at)
        return min(due)

    def step(self, now: float) -> None:
        """Take in what has come, judge, and tell."""
        self._hear_kernel(now)
        self._hear_answers()
        if now >= self._ask_at:
            self._next_round(now)
        verdict = self._health.judge(now, self.seen(), self.is_active)
        self._tell(now, verdict)
        self._foresee()
        self._follow_loss(now)

    # The kernel.

    @property
    def is_active(self) -> bool:
        return any(one.address == self.virtual for one in self._addresses)

    def seen(self) -> str:
        """What is so at this moment."""
        if self._link is None or not self._link.has_carrier:
            return NO_CARRIER
        return NO_ANSWER if self._silent >= SILENT_ROUNDS else OK

    def _hear_kernel(self, now: float) -> None:
        was_active = self.is_active
        try:
            for event in self._kernel.events():
                self._take(event)
        except Overrun:
            self._look_again = True
        if self._look_again:
            self._look()
        if was_active and not self.is_active:
            self._lost_at = now
            self._loss_at = now + GRACE
        elif self.is_active:
            self._lost_at = None

    def _take(self, event: Message) -> None:
        if event.kind in (rtnetlink.NEWLINK, rtnetlink.DELLINK):
            found = rtnetlink.link(event.body)
            if found is not None:
                self._take_link(found, event.kind == rtnetlink.NEWLINK)
        elif event.kind in (rtnetlink.NEWADDR, rtnetlink.DELADDR):
            address = rtnetlink.address(event.body)
            if address is not None and event.kind == rtnetlink.NEWADDR:
                self._addresses.add(address)
            elif address is not None:
                self._addresses.discard(address)
        elif event.kind in (rtnetlink.NEWROUTE, rtnetlink.DELROUTE):
            self._ask_routes = True

    def _take_link(self, found: Link, exists: bool) -> None:
        if found.name == self.nic and exists:
            if self._link is None or (found.index, found.mac) != (self._link.index, self._link.mac):
                self._stop_listening()
                self._ask_routes = True
            self._link = found
        elif self._link is not None and found.index == self._link.index:
            # Gone, or it has another name now. (A bridge tells of its ports by DELLINK too,
            # with their own index and name, when they leave it: a look tells.)
            self._look_again = True

    def _look(self) -> None:
        """At everything, anew."""
        try:
            links, addresses = self._kernel.links(), self._kernel.addresses()
        except OSError as problem:
            warn(f"the kernel does not list links and addresses: {problem.strerror}")
            return  # at the next step again
        self._look_again = False
        self._ask_routes = True
        self._addresses = set(addresses)
        own = next((one for one in links if one.name == self.nic), None)
        if own is None:
            self._stop_listening()
            self._link = None
        else:
            self._take_link(own, exists=True)

    def _look_for_gateway(self) -> None:
        try:
            routes = self._kernel.default_routes()
        except OSError:
            return
        self._ask_routes = False
        index = self._link.index if self._link else 0
        here = [one for one in routes if one.index == index]
        self._gateway = min(here, key=lambda one: one.metric).gateway if here else ""

    # ARP.

    def _next_round(self, now: float) -> None:
        self._ask_at = now + ASK_EVERY
        if self._ask_routes:
            self._look_for_gateway()
        asked, heard = self._asked, self._heard
        self._asked, self._heard = self._targets(), False
        # The gateway is what the LAN is for. Where it alone is silent it is rebooting; where
        # none is known, the other node's silence may as well be that one's own trouble.
        counts = self._gateway in asked and self._gateway in self._asked
        self._silent = self._silent + 1 if counts and not heard else 0
        if self._asked and self._ears is not None:
            self._ears.ask(self._own_address(), self._asked)

    def _targets(self) -> list[str]:
        """Whom to ask now: nobody while there is no carrier, or nobody to ask."""
        link = self._link
        if link is None or not link.has_carrier or link.hardware != rtnetlink.ETHERNET:
            return []
        found = [one for one in (self._gateway, self.peer) if one]
        if found and self._ears is None:
            try:
                self._ears = self._listen(self.nic, link.mac)
                self._deaf = ""
            except OSError as problem:
                if self._deaf != str(problem):
                    self._deaf = str(problem)
                    warn(printable(f"cannot ask by ARP on {self.nic}: {problem.strerror}"))
                return []
        return found

    def _own_address(self) -> str:
        """One of this node's own on the LAN; the virtual one moves."""
        index = self._link.index if self._link else 0
        return min((one.address for one in self._addresses
                    if one.index == index and one.address != self.virtual), default="")

    def _hear_answers(self) -> None:
        if self._ears is not None and self._ears.answered() & set(self._asked):
            self._heard = True
            self._silent = 0

    def _stop_listening(self) -> None:
        if self._ears is not None:
            self._ears.close()
            self._ears = None

    # The cluster.

    def _tell(self, now: float, verdict: str) -> None:
        """News at once; otherwise what is due: again what it knows, or has not heard."""
        is_news = verdict != self._tried
        if not verdict or (not is_news and now < self._tell_at):
            return
        if is_news:
            before = f", before {self._tried}" if self._tried else ""
            warn(f"the LAN at {self.nic}: {verdict}{before}")
            self._tried, self._retry = verdict, RETRY
        if self._cluster.tell(verdict):
            self._told = verdict
            self._tell_at = self._clock() + TELL_EVERY
        else:
            self._tell_at = self._clock() + self._retry
            self._retry = min(2 * self._retry, RETRY_MOST)
        if is_news and verdict in (NO_CARRIER, NO_ANSWER) and self._told == verdict:
            self._make_room()

    def _foresee(self) -> None:
        """While a loss on the active node is waited for: would the telephones leave it? The
        look takes longer than Pacemaker does, once it is told."""
        if not (self.is_active and self._health.is_pending and self._health.verdict == OK):
            self._leave = None
        elif self._leave is None:
            self._leave = self._cluster.is_left_for_another()

    def _make_room(self) -> None:
        """On the node that the telephones are about to leave, for the stop of Asterisk."""
        leave = self._leave
        if leave is None and self.is_active:
            leave = self._cluster.is_left_for_another()  # a flapping cable is not waited for
        # Looked at again, as the other node tells what both feel a moment before this one.
        if leave and self._cluster.has_better_lan():
            for one in self._end_beside():
                warn(f"the telephones leave this node: {one} is asked to end")

    def _follow_loss(self, now: float) -> None:
        """The virtual address is gone: by Pacemaker's will, or is it to be told?"""
        if self._lost_at is None or now < self._loss_at:
            return
        if now - self._lost_at > LOSS_SECONDS:
            self._lost_at = None  # its monitor will notice
            return
        self._loss_at = now + LOSS_EVERY
        believed = self._cluster.has_address()
        if believed is None:
            return
        if not believed:
            self._lost_at = None
            return
        self._hear_kernel(now)
        if self.is_active:
            return  # it came back meanwhile
        warn(f"the virtual address {self.virtual} was deleted: Pacemaker is told")
        if self._cluster.fail_address():
            self._lost_at = None
