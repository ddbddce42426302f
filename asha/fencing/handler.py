"""What DRBD calls when it loses the peer, and when the peer's disk is whole again.

    python3 -I -m asha.fencing.handler fence|unfence

``fence`` answers one question: may this node write on alone? Only if the peer cannot be
promoted with an older copy. So it makes a constraint in Pacemaker's configuration (promote the
disk on this node only) and is certain that it counts: the peer has it, or the peer is off.
``unfence`` takes the constraint away once both disks are the same.

The scripts that come with drbd-utils 9.22 do this too. Debian 13's cannot read its Pacemaker's
node_state (times since 2.1.7, no words), and then wait for all of their --timeout; a short one
lets a node that is cut off write on before it is shot. Here Pacemaker is asked in its own words
(crm_mon, crmadmin), and with fencing on there is no time-out that gives a wrong answer: as long
as nothing is certain this does not end, and DRBD keeps the disk frozen.

Exit codes of fence: drbd.conf(5), "fence-peer", and conn_try_outdate_peer() in drbd_nl.c (8.4).
The environment of a handler names the peer; here Pacemaker names it, as the one other node.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from os import uname
from xml.etree import ElementTree

from asha.cluster import drbd, pacemaker
from asha.cluster.pacemaker import State
from asha.errors import UserError
from asha.machine import Machine
from asha.run import log

NAME = "asha-fence"

# The peer's disk is outdated now: it will not be promoted.
OUTDATED = 4
# It is down. DRBD takes this for outdated only where this node's disk is UpToDate.
DOWN = 5
# The node was fenced.
FENCED = 7
# Nothing is certain. A frozen disk stays frozen; a promotion is refused.
UNKNOWN = 1

# As drbd-utils' own scripts call it, so that `crm configure` and older versions know it.
PREFIX = "drbd-fence-by-handler-asha"
CLONE = "cl_drbd"
AGENT = ":linbit:drbd"
CONSTRAINT = f"{PREFIX}-{CLONE}"
RULE = f"{PREFIX}-rule-{CLONE}"
EXPRESSION = f"{PREFIX}-expr-{CLONE}"

# Seconds. Without fencing nobody will ever tell more than the membership does.
UNFENCED_SECONDS = 15.0
# With it: Pacemaker tries again for ever, a person may have to help. The next promotion or
# `drbdadm resume-io` asks again.
FENCED_SECONDS = 3600.0
LOOK_EVERY = 0.2
ASK_SECONDS = 3.0
CHANGE_SECONDS = 10.0
UNFENCE_SECONDS = 60.0

# Linux: syslog(3).
NOTICE, WARNING = 5, 4


def fence(machine: Machine, node: str) -> int:
    """One of the exit codes above."""
    begun = machine.now()
    last = ""
    while True:
        state, why = _look(machine), "Pacemaker does not answer"
        if state is not None:
            code, why = _judge(machine, state, node)
            if code:
                _say(f"the peer {why}: exit {code}", NOTICE if code != UNKNOWN else WARNING)
                return code
        # Without an answer of Pacemaker's fencing may be on.
        most = UNFENCED_SECONDS if state and not state.stonith_enabled else FENCED_SECONDS
        if machine.now() - begun >= most:
            _say(f"{why}, for {most:.0f} s: exit {UNKNOWN}", WARNING)
            return UNKNOWN
        if why != last:
            _say(f"waiting: {why}", NOTICE)
            last = why
        machine.pause(LOOK_EVERY)


def _judge(machine: Machine, state: State, node: str) -> tuple[int, str]:
    """An exit code and why, or 0 and what is waited for."""
    disk = drbd.status(machine).disk
    others = [one for one in state.nodes if one.name.lower() != node.lower()]
    if len(others) > 1:
        return UNKNOWN, f"is one of {len(others)}: two nodes are what this is for"
    if not state.quorum or not state.dc:
        return 0, "this node has no quorum" if state.dc else "Pacemaker has no DC"
    if disk not in ("UpToDate", "Consistent"):
        return DOWN, f"may have what this node's disk ({disk}) has not"
    if not others:
        return DOWN, "is no node of this cluster any more"
    (peer,) = others
    clone = _clone(state)
    if not clone:
        return UNKNOWN, f"may promote its disk: {CLONE} is no clone in Pacemaker's configuration"
    if peer.online and peer.pending:
        # It may bring a configuration that wins over this one's, without the constraint.
        return 0, f"{peer.name} is joining"
    if peer.online and not (peer.unclean and state.stonith_enabled):
        return _outdate(machine, node, peer.name, clone)
    if state.stonith_enabled and peer.unclean:
        return 0, f"{peer.name} is to be fenced"
    if disk != "UpToDate":
        # That it is off does not make this disk the newer one.
        return DOWN, f"{peer.name} is off, and this node's disk is {disk} only"
    problem = _constrain(machine, node, clone)
    if problem:
        return _refused(problem)
    if state.stonith_enabled:
        return FENCED, f"{peer.name} is off, as Pacemaker is certain"
    return DOWN, f"{peer.name} is not in the cluster; nobody has fenced it"


def _clone(state: State) -> str:
    """The clone of the disk; "" without one, or where it is one of several: a constraint on what
    does not exist forbids nothing."""
    disks = {clone for clone, agent in state.clones if agent.endswith(AGENT)}
    if CLONE in disks:
        return CLONE
    return disks.pop() if len(disks) == 1 else ""


def _outdate(machine: Machine, node: str, peer: str, clone: str) -> tuple[int, str]:
    """The cluster still has the peer, only DRBD's connection is lost. Corosync hands each node
    the same messages in the same order. So a controller that answers, asked after the
    constraint was made, is on a node that has it. One that is silent may just be dying."""
    problem = _constrain(machine, node, clone)
    if problem:
        return _refused(problem)
    if not _answers(machine, peer):
        return 0, f"{peer} is a member and does not answer"
    if drbd.status(machine).is_whole:
        # Connected meanwhile, and nobody would take the constraint away.
        _release(machine)
        return UNKNOWN, f"{peer} is connected again"
    return OUTDATED, f"{peer} is alive and may not promote its disk any more"


def _refused(problem: str) -> tuple[int, str]:
    """It may be over in a moment (no DC), and is not where the peer holds the disk."""
    return (UNKNOWN, problem) if problem.startswith("has ") else (0, problem)


def _answers(machine: Machine, peer: str) -> bool:
    """Whether its controller does, asked now."""
    try:
        said = machine.run("crmadmin", "--output-as=xml", f"--timeout={ASK_SECONDS:.0f}s",
                           f"--status={peer}", timeout=ASK_SECONDS + 2, check=False)
        found = ElementTree.fromstring(said.out).find("crmd") if said.ok else None
    except (UserError, ElementTree.ParseError, ValueError):
        return False
    return found is not None and found.get("result") == "ok"


# The constraint

def owner(machine: Machine) -> str | None:
    """The node that alone may promote; "" without such a constraint, None where the
    configuration cannot be read or the constraint is of another form."""
    said = machine.run("cibadmin", "--query", "--xpath", f"//rsc_location[@id='{CONSTRAINT}']",
                       timeout=CHANGE_SECONDS, check=False)
    if not said.ok:
        # CRM_EX_NOSUCH (lib/common/results.c)
        return "" if said.code == 105 else None
    try:
        expressions = list(ElementTree.fromstring(said.out).iter("expression"))
    except (ElementTree.ParseError, ValueError):
        return None
    if len(expressions) != 1 or expressions[0].get("operation") != "ne":
        return None
    return expressions[0].get("value")


def _constrain(machine: Machine, node: str, clone: str) -> str:
    """Make it, if it is not there. What is wrong, "" for nothing: "has ..." is for good."""
    for _ in range(2):
        try:
            holder = owner(machine)
            if holder is None:
                return "Pacemaker's configuration cannot be read"
            if holder:
                return "" if holder.lower() == node.lower() else (
                    f"has this disk for itself: {CONSTRAINT} in Pacemaker's configuration")
            # Fails where somebody has made one meanwhile.
            made = machine.run("cibadmin", "--create", "--scope=constraints", "--xml-pipe",
                               stdin=_constraint(node, clone), timeout=CHANGE_SECONDS, check=False)
        except UserError as problem:
            return str(problem)
        if made.ok:
            return ""
    return f"cibadmin --create: exit {made.code}"


def _constraint(node: str, clone: str) -> str:
    """Double negation: no disk is promoted but this node's."""
    top = ElementTree.Element("rsc_location", {"rsc": clone, "id": CONSTRAINT})
    rule = ElementTree.SubElement(top, "rule", {
        "role": "Promoted", "score": "-INFINITY", "id": RULE})
    ElementTree.SubElement(rule, "expression", {
        "attribute": "#uname", "operation": "ne", "value": node, "id": EXPRESSION})
    return ElementTree.tostring(top, encoding="unicode")


def _release(machine: Machine) -> str:
    """Take it away. What is wrong, "" for nothing."""
    try:
        gone = machine.run("cibadmin", "--delete", "--xml-text",
                           f'<rsc_location id="{CONSTRAINT}"/>', timeout=CHANGE_SECONDS,
                           check=False)
    except UserError as problem:
        return str(problem)
    return "" if gone.ok else f"cibadmin --delete: exit {gone.code}"


def unfence(machine: Machine) -> int:
    """0 once nobody is forbidden any more, or where that is still right."""
    def problem() -> str:
        replication = drbd.status(machine)
        if not replication.is_whole:
            return f"the disks are {replication.disk} and {replication.peer_disk}"
        return _release(machine)

    left = machine.wait_while(problem, UNFENCE_SECONDS, every=1.0)
    _say(f"the constraint stays: {left}" if left else "the disks are the same: either node may"
         " be promoted", WARNING if left else NOTICE)
    return 1 if left else 0


def _look(machine: Machine) -> State | None:
    try:
        return pacemaker.look(machine)
    except UserError:
        return None


def _say(text: str, severity: int) -> None:
    print(text, file=sys.stderr, flush=True)
    try:
        log.send(severity, NAME, text)
    except OSError:
        pass  # nobody waits for the log


def main(arguments: Sequence[str], machine: Machine | None = None, node: str = "") -> int:
    machine = machine or Machine()
    if list(arguments) == ["fence"]:
        return fence(machine, node or uname().nodename)
    if list(arguments) == ["unfence"]:
        return unfence(machine)
    print("usage: python3 -I -m asha.fencing.handler fence|unfence", file=sys.stderr)
    return UNKNOWN


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
