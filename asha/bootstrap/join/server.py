"""The side of the conversation that lets the other node in.

Each visitor has a thread of its own until he has proved a secret of this node's, for at most
two seconds. The number of threads is limited: when all are taken, the visitor who has been
silent for longest is sent away. So strangers, however many, delay nobody. The requests of
proved peers are done one at a time. The protocol is asha.bootstrap.join.protocol, the work is
done by asha.bootstrap.join.nodelist and asha.bootstrap.join.rotation.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import NoReturn

from asha.bootstrap import facts
from asha.bootstrap.host import ports
from asha.bootstrap.host.ports import JOIN_PORT
from asha.bootstrap.join import nodelist, rotation
from asha.bootstrap.join.protocol import Body, Session, WireError, WrongSecret
from asha.cluster import drbd, generation
from asha.cluster.cib import MARKER
from asha.cluster.secret import Secret
from asha.cluster.site import Site, agreement
from asha.errors import UserError
from asha.machine import Machine
from asha.run.deadline import Deadline

# From the first byte to the proof; what a stranger can hold a place for. A joiner that
# finds all places taken waits so long for one at most, and it waits for 15 s.
PROOF_SECONDS = 2.0
# From there to the whole request.
EXCHANGE_SECONDS = 5.0
# How long a request waits for the work of another.
TURN_SECONDS = 5.0
# For the answer to be taken, after the work.
ANSWER_SECONDS = 5.0
# One step of a change of the secret, done by asha-secret@.service.
STEP_SECONDS = 120.0
# After somebody who was not the other node: bounds the log and the work.
PAUSE_SECONDS = 0.2
# How often to look whether the second has come.
TICK_SECONDS = 2.0
# Visitors at a time; asha-join.service may have 64 threads and processes.
PLACES = 24
# Who waits for a place.
BACKLOG = 64

SECRET_UNIT = "asha-secret@{step}:{id}.service"

# linux/in.h. Python has no name for it before 3.14.
IP_FREEBIND = 15


def open_socket(address: str, port: int = JOIN_PORT) -> socket.socket:
    """A socket that listens on that address alone, also before the NIC has it. Raises OSError."""
    server = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.setsockopt(socket.IPPROTO_IP, IP_FREEBIND, 1)
    server.bind((address, port))
    server.listen(BACKLOG)
    return server


class Listener:
    """``load`` gives asha.conf and the secret as they are now; ``alone`` excludes other changes
    of this machine, and raises UserError while there is one."""

    def __init__(
        self,
        machine: Machine,
        load: Callable[[], tuple[Site, Secret]],
        alone: Callable[[], AbstractContextManager[None]],
        log: Callable[[str], None],
    ) -> None:
        self._machine = machine
        self._load = load
        self._alone = alone
        self._log = log
        self._turn = threading.Lock()
        self._places = threading.BoundedSemaphore(PLACES)
        self._guard = threading.Lock()
        # Who has proved nothing yet, the oldest first.
        self._strangers: dict[socket.socket, None] = {}
        # Who had to make room: no news, and no pause.
        self._dismissed: set[socket.socket] = set()

    def serve(self, server: socket.socket) -> NoReturn:
        server.settimeout(TICK_SECONDS)
        while True:
            self.tick()
            try:
                channel, (address, _) = server.accept()
            except TimeoutError:
                continue
            except OSError as problem:
                # The visitor's, such as ECONNABORTED (accept(2)); or no descriptors left.
                self._log(f"accept: {problem.strerror}")
                self._machine.pause(PAUSE_SECONDS)
                continue
            self.receive(channel, address)

    def receive(self, channel: socket.socket, address: str) -> None:
        """Give a visitor a place, if need be that of the one who has been silent for longest."""
        while not self._places.acquire(blocking=False):
            with self._guard:
                oldest = next(iter(self._strangers), None)
                if oldest is not None:
                    del self._strangers[oldest]
                    self._dismissed.add(oldest)
                    with contextlib.suppress(OSError):
                        oldest.shutdown(socket.SHUT_RDWR)
            if self._places.acquire(timeout=PAUSE_SECONDS):
                break
        with self._guard:
            self._strangers[channel] = None

        def attend() -> None:
            try:
                with channel:
                    self.attend(channel, address)
            finally:
                self._forget(channel)
                self._places.release()

        try:
            threading.Thread(target=attend, daemon=True).start()
        except RuntimeError as problem:  # no more threads
            self._log(f"{address}: {problem}")
            self._forget(channel)
            channel.close()
            self._places.release()

    def _forget(self, channel: socket.socket) -> None:
        """The visitor is no stranger any more."""
        with self._guard:
            self._strangers.pop(channel, None)
            self._dismissed.discard(channel)

    def tick(self) -> None:
        """Do what is left to do once the second node has come."""
        try:
            site, _ = self._load()
            if nodelist.settle(self._machine, site):
                self._log(f"{site.there.name} has come: from now on neither starts alone")
        except (UserError, OSError) as problem:
            self._log(str(problem))
            self._machine.pause(PAUSE_SECONDS)

    def attend(self, channel: socket.socket, address: str) -> None:
        """One conversation, from start to end. Raises nothing."""
        talk = Session(channel, Deadline(PROOF_SECONDS))
        try:
            self._converse(talk, channel, address)
        except WrongSecret:
            self._turn_away(address, f"{talk.peer} does not have the cluster secret")
        except WireError as problem:
            if channel not in self._dismissed:
                self._turn_away(address, str(problem))
        except (UserError, OSError) as problem:
            self._turn_away(address, f"{problem}")
        except Exception as problem:  # the next one must be served, whatever this was
            self._turn_away(address, f"{type(problem).__name__}: {problem}")

    def _turn_away(self, address: str, why: str) -> None:
        self._log(f"{address}: turned away: {why}")
        self._machine.pause(PAUSE_SECONDS)

    def _converse(self, talk: Session, channel: socket.socket, address: str) -> None:
        site, secret = self._load()
        new = generation.pending(self._machine)
        known = [secret] if new is None else [secret, new]
        if new is not None and not ports.is_member(site, self._machine):
            # Who was removed has the old one.
            known = [new]
        which = talk.listen(known[0].join_key(), site.here.name,
                            *(one.join_key() for one in known[1:]))
        self._forget(channel)
        talk.deadline = Deadline(EXCHANGE_SECONDS)
        request = talk.hear()
        wish = request.get("do")
        try:
            with self._one_at_a_time():
                answer = self._answer(site, known[which], request, talk.peer, address)
        except UserError as trouble:
            self._log(f"{talk.peer} ({address}) asks {wish!r:.40}: no: {trouble}")
            answer = {"ok": False, "reason": str(trouble), "hint": trouble.hint}
        else:
            self._log(f"{talk.peer} ({address}) asks {wish}: yes")
        talk.deadline = Deadline(ANSWER_SECONDS)
        talk.say(answer)

    @contextlib.contextmanager
    def _one_at_a_time(self) -> Iterator[None]:
        if not self._turn.acquire(timeout=TURN_SECONDS):
            raise UserError("another request is in progress", "try again in a minute")
        try:
            yield
        finally:
            self._turn.release()

    def _answer(self, site: Site, proved: Secret, request: Body, name: str,
                address: str) -> Body:
        """Raises UserError for a refusal."""
        wish = request.get("do")
        if wish == "facts":
            return self._facts(site)
        if wish == "join":
            return self._join(site, request, address)
        if wish == "secret":
            return self._secret(site)
        if wish == "rotate":
            return self._rotate(site, proved, request, name, address)
        raise UserError("sent a request that this release does not know",
                      "install the same asha package on both nodes")

    def _secret(self, site: Site) -> Body:
        """The ids of this node's secrets, not the secrets."""
        old, new = generation.current(self._machine), generation.pending(self._machine)
        return {
            "ok": True,
            "id": old.key_id() if old else "",
            "new": new.key_id() if new else "",
            "applied": old is not None and rotation.is_applied(self._machine, old),
            "member": ports.is_member(site, self._machine),
        }

    def _rotate(self, site: Site, proved: Secret, request: Body, name: str,
                address: str) -> Body:
        """Do this node's part of a step, by a unit that has more rights than we."""
        step = request.get("step")
        if name != site.there.name or address != site.there.address \
                or not ports.is_member(site, self._machine):
            raise UserError(f"{name} at {address} is no member of {site.here.name}'s cluster",
                          "asha install makes it one")
        if not isinstance(step, str) or step not in rotation.STEPS:
            raise UserError("sent a request that this release does not know",
                          "install the same asha package on both nodes")
        rotation.find(self._machine, proved.key_id())
        unit = SECRET_UNIT.format(step=step, id=proved.key_id())
        done = self._machine.run("systemctl", "start", unit, timeout=STEP_SECONDS, check=False)
        if not done.ok:
            what, hint = rotation.told(self._machine)
            raise UserError(what or f"{unit}: {done.complaint}",
                          hint or f"on {site.here.name}: journalctl -u {unit} tells why")
        return {"ok": True}

    def _facts(self, site: Site) -> Body:
        return {"ok": True, "facts": facts.shared_facts(self._machine, site,
                                                          facts.gather(self._machine))}

    def _join(self, site: Site, request: Body, address: str) -> Body:
        lan = _checked(site, request, address)
        if not self._machine.exists(MARKER):
            raise UserError(f"{site.here.name} is not completely installed yet",
                          f"on {site.here.name}: asha install")
        if generation.pending(self._machine):
            raise UserError(f"the cluster secret of {site.here.name} is being changed",
                          f"on {site.here.name}: {rotation.GO_ON}")
        with self._alone():
            site = nodelist.add_node(self._machine, site, lan, request.get("runs") is True)
            nodelist.remember_card(self._machine, site, request.get("card"))
        # A member may reach more ports, which our sandbox may not open.
        self._machine.run("systemctl", "start", "--no-block", "asha-network.service", check=False)
        return {
            "ok": True,
            "conf": nodelist.agreed(self._machine),
            "lan": {peer.name: peer.lan for peer in (site.first, site.second)},
            "card": nodelist.card(site),
            "up_to_date": drbd.status(self._machine).disk == "UpToDate",
        }


def _checked(site: Site, request: Body, address: str) -> str:
    """The LAN address of who wants to join. Raises UserError unless it is the other node."""
    there, here = site.there, site.here
    hint = f"asha configure, here or on {here.name}: both must say the same"
    for key, ours, what in (
        ("name", there.name, "the joining node is"),
        ("address", there.address, f"{there.name} has"),
        ("ids", {peer.name: peer.nodeid for peer in (here, there)}, "the nodes' numbers are"),
        ("addresses", {peer.name: peer.address for peer in (here, there)}, "the nodes are"),
    ):
        if request.get(key) != ours:
            raise UserError(f"{what} {ours} in {here.name}'s asha.conf, "
                          f"and {request.get(key)!r:.200} in the joining node's", hint)
    if address != there.address:
        raise UserError(
            f"{there.name} speaks from {address}, and should from {there.address}", hint
        )
    theirs = request.get("agree")
    differ = [
        f"{key} is {value} on {here.name} and "
        f"{theirs.get(key) if isinstance(theirs, dict) else None!r:.50} here"
        for key, value in agreement(site).items()
        if not isinstance(theirs, dict) or theirs.get(key) != value
    ]
    if differ:
        raise UserError("; ".join(differ), hint)
    lan = request.get("lan")
    if not isinstance(lan, str):
        raise UserError("says nothing about its LAN address", hint)
    return lan
