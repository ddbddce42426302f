"""The questions of the manual of 2014, one record each.

asha.bootstrap.configure.interview asks them in a terminal, or finds the answers in a file. What
the machine can tell is not asked; what it suggests is the default.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from asha.bootstrap.configure import defaults
from asha.bootstrap.configure.context import Asking, Choices, Values
from asha.relay import KINDS


def _no_problem(asking: Asking, answer: str) -> str:
    return ""


def _never(asking: Asking) -> bool:
    return False


def _always(asking: Asking) -> bool:
    return True


@dataclass(frozen=True)
class Question:
    """``key`` is asha.conf's; it may depend on which node this is.

    ``choices`` are (what is typed, what it means) and ``answers`` turns the typed into
    asha.conf's; ``problem`` is the objection to an answer that asha.conf's own rules
    allow. A question whose ``when`` is false takes its default unasked.
    """

    key: Callable[[Asking], str]
    text: str
    help: str
    default: Callable[[Asking], str]
    problem: Callable[[Asking, str], str] = _no_problem
    when: Callable[[Asking], bool] = _always
    choices: Callable[[Asking], Choices] = lambda asking: ()
    answers: Callable[[Asking, str], Values] | None = None
    optional: bool = False

    def taken(self, asking: Asking, answer: str) -> Values:
        """The lines of asha.conf that this answer means."""
        if self.answers is not None:
            return self.answers(asking, answer)
        return {self.key(asking): answer}


def _key(name: str) -> Callable[[Asking], str]:
    return lambda asking: name


QUESTIONS = (
    Question(
        _key("PRIMARY"), "First or second node of the cluster",
        "The first is installed alone and serves calls; the second joins it. A replacement\n"
        "for a node that was lost is a second one, whichever it replaces.",
        defaults.role_default, answers=defaults.role,
        choices=lambda asking: (("first", ""), ("second", "")),
    ),
    Question(
        lambda asking: asking.own("NAME"), "This node's name", "As uname -n prints it.",
        lambda asking: asking.facts.name, problem=defaults.own_name_problem, when=_never,
    ),
    Question(
        lambda asking: asking.other("NAME"), "The other node's name",
        "As uname -n prints it there. The node need not exist yet.", defaults.other_name,
    ),
    Question(
        _key("USENIC1"), "One or two NICs",
        "Two: one for the LAN, one for a cable straight to the other node. One is for\n"
        "learning only.",
        defaults.nic_count_default, problem=defaults.nic_count_problem, answers=defaults.nic_count,
        choices=lambda asking: (("2", "LAN and cluster link"), ("1", "for learning")),
    ),
    Question(
        _key("LANNIC"), "The LAN's NIC", "The one that the telephones are reached by.",
        defaults.lan_nic, problem=defaults.nic_problem,
        when=lambda asking: not defaults.lan_nic(asking), choices=defaults.nic_choices,
    ),
    Question(
        _key("LINKNIC"), "The cluster link's NIC", "The one with the cable to the other node.",
        defaults.link_nic, problem=defaults.link_nic_problem, when=defaults.link_nic_is_open,
        choices=defaults.nic_choices,
    ),
    Question(
        _key("CLUSTERIP"), "The cluster's virtual address",
        "A free static address of the LAN, outside the DHCP server's range. Telephones and\n"
        "browsers use it; it moves between the nodes.",
        defaults.virtual_default, problem=defaults.virtual_problem,
    ),
    Question(
        _key("LANPREFIX"), "The LAN's prefix length", "24 is the netmask 255.255.255.0.",
        defaults.lan_prefix, when=defaults.lan_prefix_is_open,
    ),
    Question(
        lambda asking: asking.own("IP"), "This node's address on the cluster link",
        "In a subnet that nothing else uses. With one NIC: this node's static LAN address.",
        defaults.own_address, problem=defaults.own_address_problem,
    ),
    Question(
        _key("LINKPREFIX"), "The cluster link's prefix length", "24 is the netmask 255.255.255.0.",
        defaults.link_prefix, when=_never,
    ),
    Question(
        lambda asking: asking.other("IP"), "The other node's address on the cluster link",
        "In the same subnet.", defaults.other_address, problem=defaults.other_address_problem,
    ),
    Question(
        _key("DRBDDEV"), "The empty partition for the store",
        "It will hold Asterisk's and MariaDB's data, and must have the same size on both\n"
        "nodes. ALL THAT IS ON IT WILL BE LOST.",
        defaults.device_default, problem=defaults.device_problem, choices=defaults.device_choices,
    ),
    Question(
        _key("CLUSTERALERT"), "Mail address for alerts",
        "Kept for a later version: this one sends no mail.",
        defaults.kept("CLUSTERALERT"), optional=True,
    ),
    Question(
        _key("SITEID"), "The site's name",
        "For the subject of such mail, and the head of asha status.", defaults.site_id,
        optional=True,
    ),
    Question(
        _key("RHINOSPF"), f"Line relay ({', '.join(KINDS.values())})",
        "The card that moves an ISDN or analogue line, and which node's USB powers it.",
        defaults.relay_default, answers=defaults.relay,
        choices=lambda asking: (("none", ""), ("here", "this node powers it"),
                                ("there", f"{defaults.other(asking)} powers it")),
    ),
    Question(
        _key("RHINOUSB"), "The relay's device", "dmesg tells, when it is plugged in.",
        defaults.kept("RHINOUSB"), when=defaults.has_relay,
    ),
    Question(
        _key("RELAYDRIVER"), "The relay's kind", "", defaults.kept("RELAYDRIVER"),
        when=defaults.has_relay,
        choices=lambda asking: tuple(KINDS.items()),
    ),
    Question(
        _key("RELAYNUMBER"), "The relay on the module", "Counted from 0.",
        defaults.kept("RELAYNUMBER"), when=defaults.has_several_relays,
    ),
)
