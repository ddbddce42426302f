"""The preflight: every problem of an installation, at once.

Each check is a small function that yields findings and changes nothing. The table gives their
order, and says which of them need a configuration alone.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

from asha.bootstrap import facts
from asha.bootstrap.facts import Facts
from asha.bootstrap.preflight import network, peer, storage, system, telephony
from asha.bootstrap.preflight.report import CheckContext
from asha.cluster.site import Site
from asha.errors import UserError
from asha.finding import Finding, error, warning
from asha.machine import Machine


@dataclass(frozen=True)
class Check:
    """``title`` says what is checked, for a person. ``anywhere``: it looks at asha.conf alone,
    so it works on another machine too. ``judges``: the names of the questions whose answers it
    judges (asha.bootstrap.configure.questions); it also runs when they are asked."""

    title: str
    look: Callable[[CheckContext], Iterator[Finding]]
    anywhere: bool = False
    judges: tuple[str, ...] = ()


def _agreement(look: CheckContext) -> Iterator[Finding]:
    if look.other is not None:
        yield from peer.compare(facts.shared_facts(look.machine, look.site, look.facts), look.other)


CHECKS = (
    Check("root", system.root),
    Check("systemd", system.systemd),
    Check("the node's name", system.node_name, judges=("name",)),
    Check("the NICs", network.cards, judges=("usenic1", "lannic", "linknic")),
    Check("the LAN", network.lan_has_address),
    Check("the LAN's prefix", network.lan, judges=("clusterip", "lanprefix")),
    Check("the virtual address", network.virtual_address, judges=("clusterip",)),
    Check("systemd-networkd", network.kept_by_networkd),
    Check("the cluster address", network.cluster_address, judges=("ip", "linkprefix")),
    Check("the other node's address", network.other_address, judges=("otherip",)),
    Check("the other node", network.other_node),
    Check("what the names resolve to", network.names),
    Check("the ports", network.listeners),
    Check("the partition for the store", storage.device, judges=("drbddev",)),
    Check("room for the live data", storage.room),
    Check("the directories of the data", storage.places),
    Check("other DRBD resources", storage.other_resources),
    Check("programs and versions", system.programs),
    Check("the firewall", system.firewall),
    Check("users and groups", system.accounts),
    Check("the telephone system's addresses", telephony.own_address),
    Check("the relay card", system.relay_card),
    Check("the phone book", system.phone_book),
    Check("other cluster managers", system.other_managers),
    Check("the clock", system.clock),
    Check("what the other node says of itself", _agreement),
    Check("the second ring", network.second_ring),
    Check("the number of NICs", network.one_nic, anywhere=True),
    Check("who else is on the link", network.private_link),
    Check("fencing", system.fencing, anywhere=True),
)


def look(
    machine: Machine,
    site: Site,
    here: Facts,
    other: dict[str, object] | None = None,
    checks: Sequence[Check] = CHECKS,
) -> list[Finding]:
    """All findings, errors first. ``other``: the other node's facts (facts.shared_facts, with
    "received", our time at which they came)."""
    about = CheckContext(machine, site, here, other)
    findings: list[Finding] = []
    for check in checks:
        try:
            findings += check.look(about)
        except UserError as trouble:
            findings.append(error(f"{check.title}: {trouble}", trouble.hint))
        except OSError as problem:
            findings.append(warning(f"{check.title} could not be looked at: {problem}",
                                    "run it again as root"))
    return sorted(findings, key=lambda finding: finding.severity != "error")


def of_answers(names: Collection[str]) -> tuple[Check, ...]:
    """The checks that judge the answers to these questions."""
    return tuple(check for check in CHECKS if not set(names).isdisjoint(check.judges))


def apart_from_machine() -> tuple[Check, ...]:
    """The checks that need only asha.conf."""
    return tuple(check for check in CHECKS if check.anywhere)
