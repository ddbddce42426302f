"""The questions of the manual of 2014, one record each.

asha.bootstrap.configure.interview asks them, in a terminal or through debconf, or finds the
answers in a file. What the machine can tell is not asked; what it suggests is the
default. What an answer must be is said elsewhere: of the value alone in
asha.cluster.rules, of the value on this machine in asha.bootstrap.preflight.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from asha.bootstrap.configure import defaults
from asha.bootstrap.configure.context import Asking, Choices, Values
from asha.relay import KINDS


def _never(asking: Asking) -> bool:
    return False


def _always(asking: Asking) -> bool:
    return True


@dataclass(frozen=True)
class Question:
    """``name`` is debconf's (asha/NAME, debian/asha.templates), ``key`` asha.conf's, which
    may depend on which node this is.

    ``choices`` are (what is typed, what it means); ``answers`` turns the typed into
    asha.conf's. A question whose ``when`` is false is not asked, and one that the
    machine has told the answer of (``told``) only by debconf, of who wants all
    questions: both take their default. ``vital``: nobody else can know it. ``later``: on a
    node of a cluster it can still be changed. ``here``: what this machine has to choose
    from, where ``choices`` do not say it.
    """

    name: str
    key: Callable[[Asking], str]
    text: str
    help: str
    default: Callable[[Asking], str]
    when: Callable[[Asking], bool] = _always
    told: Callable[[Asking], bool] = _never
    choices: Callable[[Asking], Choices] = lambda asking: ()
    answers: Callable[[Asking, str], Values] | None = None
    here: Callable[[Asking], str] | None = None
    optional: bool = False
    vital: bool = False
    later: bool = False

    def taken(self, asking: Asking, answer: str) -> Values:
        """The lines of asha.conf that this answer means."""
        if self.answers is not None:
            return self.answers(asking, answer)
        return {self.key(asking): answer}

    def is_asked(self, asking: Asking) -> bool:
        return self.when(asking) and not self.told(asking)

    def surroundings(self, asking: Asking) -> str:
        """What this machine has to choose from, for the question's text."""
        if self.here is not None:
            return self.here(asking)
        return ", ".join(f"{word} ({meaning})" if meaning else word
                         for word, meaning in self.choices(asking)) or "none found"


def _key(name: str) -> Callable[[Asking], str]:
    return lambda asking: name


def _two_nics(asking: Asking) -> bool:
    return not asking.one_nic


QUESTIONS = (
    Question(
        "primary", _key("PRIMARY"), "First or second node of the cluster",
        "The first is installed alone and serves calls; the second joins it. A replacement\n"
        "for a node that was lost is a second one, whichever it replaces.",
        defaults.role_default, answers=defaults.role,
        choices=lambda asking: (("first", ""), ("second", "")),
    ),
    Question(
        "name", lambda asking: asking.own("NAME"), "This node's name", "As uname -n prints it.",
        lambda asking: asking.facts.name, when=_never,
    ),
    Question(
        "othername", lambda asking: asking.other("NAME"), "The other node's name",
        "As uname -n prints it there. The node need not exist yet.", defaults.other_name,
        here=lambda asking: asking.facts.name,
    ),
    Question(
        "usenic1", _key("USENIC1"), "One or two NICs",
        "Two: one for the LAN, one for a cable straight to the other node. One is for\n"
        "learning only.",
        defaults.nic_count_default, answers=defaults.nic_count,
        choices=lambda asking: (("2", "LAN and cluster link"), ("1", "for learning")),
    ),
    Question(
        "lannic", _key("LANNIC"), "The LAN's NIC", "The one that the telephones are reached by.",
        defaults.lan_nic, told=lambda asking: bool(defaults.lan_nic(asking)),
        choices=defaults.nic_choices,
    ),
    Question(
        "linknic", _key("LINKNIC"), "The cluster link's NIC",
        "The one with the cable to the other node.",
        defaults.link_nic, when=_two_nics, told=lambda asking: bool(defaults.link_nic(asking)),
        choices=defaults.nic_choices,
    ),
    Question(
        "clusterip", _key("CLUSTERIP"), "The cluster's virtual address",
        "A free static address of the LAN, outside the DHCP server's range. Telephones and\n"
        "browsers use it; it moves between the nodes.",
        defaults.virtual_default, here=defaults.lan_in_words, vital=True,
    ),
    Question(
        "lanprefix", _key("LANPREFIX"), "The LAN's prefix length",
        "24 is the netmask 255.255.255.0.", defaults.lan_prefix, told=defaults.lan_is_known,
    ),
    Question(
        "ip", lambda asking: asking.own("IP"), "This node's address on the cluster link",
        "In a subnet that nothing else uses. With one NIC: this node's static LAN address.",
        defaults.own_address, here=defaults.free_subnet,
    ),
    Question(
        "linkprefix", _key("LINKPREFIX"), "The cluster link's prefix length",
        "24 is the netmask 255.255.255.0.", defaults.link_prefix, when=_two_nics, told=_always,
    ),
    Question(
        "lanwatch", _key("LANWATCH"), "Loss of the LAN moves the telephones",
        "A node whose LAN is dead gives the telephones to the other, if that one's LAN works.\n"
        "The same on both nodes.",
        defaults.kept("LANWATCH"), when=_two_nics, told=_always,
        choices=lambda asking: (("true", ""), ("false", "nothing moves for it")),
    ),
    Question(
        "otherip", lambda asking: asking.other("IP"),
        "The other node's address on the cluster link",
        "In the same subnet.", defaults.other_address,
        here=lambda asking: asking.values.get(asking.own("IP"), ""),
    ),
    Question(
        "drbddev", _key("DRBDDEV"), "The empty partition for the store",
        "It will hold Asterisk's and MariaDB's data, and must have the same size on both\n"
        "nodes. ALL THAT IS ON IT WILL BE LOST.",
        defaults.device_default, choices=defaults.device_choices, vital=True,
    ),
    Question(
        "clusteralert", _key("CLUSTERALERT"), "Mail address for alerts",
        "Kept for a later version: this one sends no mail.",
        defaults.kept("CLUSTERALERT"), optional=True, later=True,
    ),
    Question(
        "siteid", _key("SITEID"), "The site's name",
        "For the subject of such mail, and the head of asha status.", defaults.site_id,
        optional=True, later=True,
    ),
    Question(
        "relay", _key("RHINOSPF"), f"Line relay ({', '.join(KINDS.values())})",
        "The card that moves an ISDN or analogue line, and which node's USB powers it.",
        defaults.relay_default, answers=defaults.relay, later=True,
        choices=lambda asking: (("none", ""), ("here", "this node powers it"),
                                ("there", f"{defaults.other(asking)} powers it")),
    ),
    Question(
        "rhinousb", _key("RHINOUSB"), "The relay's device", "dmesg tells, when it is plugged in.",
        defaults.relay_device, when=defaults.has_relay, choices=defaults.relay_devices, later=True,
    ),
    Question(
        "relaydriver", _key("RELAYDRIVER"), "The relay's kind", "", defaults.kept("RELAYDRIVER"),
        when=defaults.has_relay, later=True,
        choices=lambda asking: tuple(KINDS.items()),
    ),
    Question(
        "relaynumber", _key("RELAYNUMBER"), "The relay on the module", "Counted from 0.",
        defaults.kept("RELAYNUMBER"), when=defaults.has_several_relays, later=True,
    ),
)
