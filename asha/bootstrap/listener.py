"""The side of the conversation that lets the other node in.

One conversation at a time, each with an end: whoever comes, and whatever he says, the
next one is served. The wire is asha.bootstrap.wire, the work asha.bootstrap.membership.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import NoReturn

from asha.bootstrap import facts, membership
from asha.bootstrap.wire import PORT, Body, Talk, WireError, WrongSecret
from asha.cluster import drbd
from asha.cluster.secret import Secret
from asha.cluster.site import Site
from asha.machine import Machine
from asha.ocf.deadline import Deadline
from asha.trouble import Trouble

# From the first byte to the whole request; what a stranger can hold us up.
EXCHANGE_SECONDS = 10.0
# For the answer to be taken, after the work.
ANSWER_SECONDS = 5.0
# After somebody who was not the other node: bounds the log and the work.
PAUSE_SECONDS = 0.2
# How often to look whether the second has come.
TICK_SECONDS = 2.0

# linux/in.h. Python has no name for it before 3.14.
IP_FREEBIND = 15


def open_socket(address: str, port: int = PORT) -> socket.socket:
    """Listening on that address alone, also before the NIC has it. Raises OSError."""
    server = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.setsockopt(socket.IPPROTO_IP, IP_FREEBIND, 1)
    server.bind((address, port))
    server.listen(4)
    return server


def agreement(site: Site) -> dict[str, str]:
    """The values of asha.conf that both nodes must have, by their keys."""
    return {
        "CLUSTERIP": site.virtual_address,
        "LANPREFIX": str(site.lan_prefix),
        "LINKPREFIX": str(site.link_prefix),
        "USENIC1": str(site.two_nics).lower(),
    }


class Listener:
    """``load`` gives asha.conf and the secret as they are now; ``alone`` keeps other
    changes of this machine out and raises Trouble while one is under way."""

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
            with channel:
                self.attend(channel, address)

    def tick(self) -> None:
        """What is left to do once the second node has come."""
        try:
            site, _ = self._load()
            if membership.settle(self._machine, site):
                self._log(f"{site.there.name} has come: from now on neither starts alone")
        except (Trouble, OSError) as problem:
            self._log(str(problem))
            self._machine.pause(PAUSE_SECONDS)

    def attend(self, channel: socket.socket, address: str) -> None:
        """One conversation, to its end. Raises nothing."""
        talk = Talk(channel, Deadline(EXCHANGE_SECONDS))
        try:
            self._converse(talk, address)
        except WrongSecret:
            self._turn_away(address, f"{talk.peer} does not have the cluster secret")
        except WireError as problem:
            self._turn_away(address, str(problem))
        except (Trouble, OSError) as problem:
            self._turn_away(address, f"{problem}")
        except Exception as problem:  # the next one must be served, whatever this was
            self._turn_away(address, f"{type(problem).__name__}: {problem}")

    def _turn_away(self, address: str, why: str) -> None:
        self._log(f"{address}: turned away: {why}")
        self._machine.pause(PAUSE_SECONDS)

    def _converse(self, talk: Talk, address: str) -> None:
        site, secret = self._load()
        talk.listen(secret.join_key(), site.here.name)
        request = talk.hear()
        wish = request.get("do")
        try:
            if wish == "facts":
                answer = self._facts(site)
            elif wish == "join":
                answer = self._join(site, request, address)
            else:
                raise Trouble("asks for what this release does not know",
                              "install the same asha package on both nodes")
        except Trouble as trouble:
            self._log(f"{talk.peer} ({address}) asks {wish!r:.40}: no: {trouble}")
            answer = {"ok": False, "reason": str(trouble), "mend": trouble.mend}
        else:
            self._log(f"{talk.peer} ({address}) asks {wish}: yes")
        talk.deadline = Deadline(ANSWER_SECONDS)
        talk.say(answer)

    def _facts(self, site: Site) -> Body:
        return {"ok": True, "facts": facts.shared_facts(self._machine, site)}

    def _join(self, site: Site, request: Body, address: str) -> Body:
        lan = _checked(site, request, address)
        if not self._machine.exists(facts.MARKER):
            raise Trouble(f"{site.here.name} is not installed to the end yet",
                          f"on {site.here.name}: asha install")
        with self._alone():
            site = membership.admit(self._machine, site, lan, request.get("runs") is True)
        # The second ring needs a hole in the firewall, which our sandbox may not make.
        self._machine.run("systemctl", "start", "--no-block", "asha-network.service", check=False)
        return {
            "ok": True,
            "conf": membership.agreed(self._machine),
            "lan": {peer.name: peer.lan for peer in (site.first, site.second)},
            "up_to_date": drbd.status(self._machine).disk == "UpToDate",
        }


def _checked(site: Site, request: Body, address: str) -> str:
    """The LAN address of who wants to join. Raises Trouble unless it is the other node."""
    there, here = site.there, site.here
    mend = f"asha configure, here or on {here.name}: both must say the same"
    for key, ours, what in (
        ("name", there.name, "the joining node is"),
        ("address", there.address, f"{there.name} has"),
        ("ids", {peer.name: peer.nodeid for peer in (here, there)}, "the nodes' numbers are"),
        ("addresses", {peer.name: peer.address for peer in (here, there)}, "the nodes are"),
    ):
        if request.get(key) != ours:
            raise Trouble(f"{what} {ours} in {here.name}'s asha.conf, "
                          f"and {request.get(key)!r:.200} in the joining node's", mend)
    if address != there.address:
        raise Trouble(f"{there.name} speaks from {address}, and should from {there.address}", mend)
    theirs = request.get("agree")
    differ = [
        f"{key} is {value} on {here.name} and "
        f"{theirs.get(key) if isinstance(theirs, dict) else None!r:.50} here"
        for key, value in agreement(site).items()
        if not isinstance(theirs, dict) or theirs.get(key) != value
    ]
    if differ:
        raise Trouble("; ".join(differ), mend)
    lan = request.get("lan")
    if not isinstance(lan, str):
        raise Trouble("says nothing about its LAN address", mend)
    return lan
