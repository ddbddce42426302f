"""The side of the conversation that asks: for the other node's facts, and to join.

The other side is asha.bootstrap.join.server on the node that runs already.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import time
from collections.abc import Iterator

from asha.bootstrap.action import Action, Call, Say, Write
from asha.bootstrap.host import nics
from asha.bootstrap.host.ports import JOIN_PORT
from asha.bootstrap.join import nodelist, server
from asha.bootstrap.join.protocol import Body, Session, WireError, WrongSecret
from asha.cluster import corosync
from asha.cluster.secret import Secret
from asha.cluster.site import Site, agreement
from asha.errors import UserError
from asha.machine import Machine
from asha.run.deadline import Deadline

# The other node changes its membership meanwhile, and looks whether that went well.
JOIN_SECONDS = 90.0
# Corosync's links are up within a few seconds of both having the same file.
MEET_SECONDS = 30.0
# A NIC that was just switched on needs a moment for its cable.
CONNECT_EVERY = 1.0

# A question that is answered at once; the listener's limits are shorter.
ASK_SECONDS = 15.0
# A step of a change of the secret: longer than the listener waits for it.
STEP_SECONDS = server.STEP_SECONDS + 15.0

# What passes while a link comes up.
NOT_YET = (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN)


def ask_facts(site: Site, secret: Secret, own: dict[str, object], timeout: float,
              machine: Machine | None = None) -> dict[str, object]:
    """The other node's facts.shared_facts, within ``timeout`` seconds.

    "received" is added: this node's clock (Unix time, seconds) when they came. A NIC that does
    not have this node's link address yet gets it while we ask. Raises UserError.
    """
    with _lent_address(machine or Machine(), site):
        answer = _ask(site, secret, {"do": "facts", "facts": own}, timeout)
    given = answer.get("facts")
    if not isinstance(given, dict):
        raise UserError(f"{site.there.name} sent no facts about itself",
                      "install the same asha package on both nodes")
    return {**given, "received": time.time()}


def ask_secret(site: Site, secret: Secret) -> Body:
    """What the other node says of its secrets to a peer that proves one of them: "id", "new",
    "applied", "member" (asha.bootstrap.join.server). Raises WrongSecretThere, UserError."""
    return _ask(site, secret, {"do": "secret"}, ASK_SECONDS)


def have_rotated(site: Site, secret: Secret, step: str) -> None:
    """Have the other node do its part of a step of a rotation. Raises UserError."""
    _ask(site, secret, {"do": "rotate", "step": step}, STEP_SECONDS)


def actions(site: Site, secret: Secret) -> list[Action]:
    """What makes this machine a node for the other one. Its own daemons come later."""
    return [Call(
        name="join",
        title=f"join {site.here.name} to {site.there.name}'s cluster",
        what=(
            f"prove the cluster secret to {site.there.address}, port {JOIN_PORT}/tcp, without "
            f"sending it\nthere, by itself: {corosync.CONF} gets {site.here.name} as its "
            f"second node and is read anew\nhere: write {corosync.CONF} as {site.there.name} "
            f"gives it, and {corosync.AUTHKEY}"
        ),
        work=lambda machine, say: _join(site, secret, machine, say),
        done=lambda machine: _is_joined(site, secret, machine),
    )]


def _is_joined(site: Site, secret: Secret, machine: Machine) -> bool:
    """Whether both nodes are in the file and the key is right; and quorum, if Corosync runs.

    Without quorum the other may have removed this node (asha remove-node): ask again.
    """
    listed = {node.name for node in corosync.parse(machine.read(corosync.CONF) or "").nodes}
    return (
        {site.here.name, site.there.name} <= listed
        and _authkey(secret).is_done(machine)
        and nodelist.quorate(machine) is not False
    )


def _authkey(secret: Secret) -> Write:
    return Write(corosync.AUTHKEY, secret.corosync_authkey(), mode=0o400, secret=True)


def _join(site: Site, secret: Secret, machine: Machine, say: Say) -> None:
    there, here = site.there, site.here
    say(f"asking {there.name}")
    # As this node; Debian's package starts one as "node1".
    runs = here.name in nodelist.running_names(machine)
    answer = _ask(site, secret, {
        "do": "join",
        "name": here.name,
        "address": here.address,
        "lan": here.lan,
        "runs": runs,
        "ids": {peer.name: peer.nodeid for peer in (here, there)},
        "addresses": {peer.name: peer.address for peer in (here, there)},
        "agree": agreement(site),
        "card": nodelist.card(site),
    }, JOIN_SECONDS)
    text, lan = answer.get("conf"), answer.get("lan")
    listed = {node.name for node in corosync.parse(text).nodes} if isinstance(text, str) else set()
    if not isinstance(text, str) or listed != {here.name, there.name} or not isinstance(lan, dict):
        raise UserError(f"{there.name} sent a {corosync.CONF} without both nodes",
                      "install the same asha package on both nodes")
    _authkey(secret).do(machine, say)
    machine.write(corosync.CONF, text)
    nodelist.remember(machine, {str(name): str(address) for name, address in lan.items()})
    nodelist.remember_card(machine, site, answer.get("card"))
    if runs:
        # Without quorum, or we would not ask: nothing runs here that it could disturb.
        machine.run("corosync-cfgtool", "-R", timeout=30)
        _meet(site, machine)
    if answer.get("up_to_date") is not True:
        say(f"{there.name}'s own disk is not UpToDate: see asha status there")


def _meet(site: Site, machine: Machine) -> None:
    """Wait until this node's Corosync hears the other's."""
    if machine.wait_while(lambda: not nodelist.quorate(machine), MEET_SECONDS):
        raise UserError(
            f"{site.there.name} has accepted this node, but Corosync here does not reach it",
            "check that 5405/udp is open to the peer on both nodes; "
            "journalctl -u corosync tells more",
        )


# Asking.

class WrongSecretThere(UserError):
    """The other node has another secret."""


def _ask(site: Site, secret: Secret, request: Body, timeout: float) -> Body:
    """The answer to one request. Raises UserError, also for a refusal."""
    there = site.there
    deadline = Deadline(timeout)
    with _connected(site, deadline) as channel:
        talk = Session(channel, deadline)
        try:
            talk.join(secret.join_key(), site.here.name)
            _know(talk.peer, site)
            talk.say(request)
            answer = talk.hear()
        except WrongSecret:
            raise WrongSecretThere(
                f"the secret is not the one of {there.name}",
                f"it is in /etc/asha/secret on {there.name}. A bare machine: put it in "
                "/etc/asha/secret here; one that was a node: asha secret rotate asks for it",
            ) from None
        except WireError as problem:
            raise UserError(f"{there.name} ({there.address}) cannot be understood: {problem}",
                          f"on {there.name}: journalctl -u asha-join tells why") from None
    if answer.get("ok") is not True:
        raise UserError(f"{there.name} says: {answer.get('reason')}", str(answer.get("hint", "")))
    return answer


def _know(name: str, site: Site) -> None:
    if name != site.there.name:
        raise UserError(f"the node at {site.there.address} is {name}, and in asha.conf here it is "
                      f"{site.there.name}", "asha configure changes it")


@contextlib.contextmanager
def _connected(site: Site, deadline: Deadline) -> Iterator[socket.socket]:
    there, here = site.there, site.here
    while True:
        channel = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            channel.settimeout(max(0.001, deadline.remaining()))
            # By this address the other node, and its firewall, know us.
            channel.bind((here.address, 0))
            channel.connect((there.address, JOIN_PORT))
        except OSError as problem:
            channel.close()
            if problem.errno in NOT_YET and not deadline.expired:
                deadline.pause(CONNECT_EVERY)
                continue
            raise _unreachable(site, problem) from None
        with channel:
            yield channel
        return


def _unreachable(site: Site, problem: OSError) -> UserError:
    there, here = site.there, site.here
    nic = _link_nic(site)
    if problem.errno == errno.EADDRNOTAVAIL:
        return UserError(f"{nic} does not have this node's address {here.address}",
                       f"look at: ip address show dev {nic}; step 10 sets it")
    if problem.errno == errno.ECONNREFUSED:
        return UserError(
            f"{there.name} ({there.address}) refused the connection to TCP port {JOIN_PORT}: "
            "asha-join does not run there",
            f"install {there.name} first (asha install); if it is installed, on {there.name}: "
            "systemctl status asha-join",
        )
    return UserError(
        f"{there.name} does not answer at {there.address}",
        f"is it on, is the cable in {nic} here and there? then, there: "
        f"systemctl status asha-join",
    )


def _link_nic(site: Site) -> str:
    return site.link_nic if site.two_nics else site.lan_nic


@contextlib.contextmanager
def _lent_address(machine: Machine, site: Site) -> Iterator[None]:
    """A context in which the link's NIC is up, with this node's address.

    Before step 10 a bare machine has neither, and whether the other node can be reached must be
    known before anything is changed.
    """
    name, address = _link_nic(site), f"{site.here.address}/{site.link_prefix}"
    nic = next((nic for nic in nics.read(machine) if nic.name == name), None)
    if nic is None or nic.holds(site.here.address):
        yield
        return
    try:
        machine.run("ip", "address", "add", address, "dev", name)
        machine.run("ip", "link", "set", "dev", name, "up")
        yield
    finally:
        machine.run("ip", "address", "del", address, "dev", name, check=False)
        if not nic.up:
            machine.run("ip", "link", "set", "dev", name, "down", check=False)
