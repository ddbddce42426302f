"""Where Asterisk takes SIP, as its stacks tell: PJSIP and chan_sip, one of them or both.

Asked at the start and stored for the monitors, as lines "udp 5060 PJSIP" of a state file.

Source: Asterisk res/res_pjsip/config_transport.c, cli_print_body(), and channels/chan_sip.c,
sip_show_settings(). A stack that is not loaded has no such command.
"""

from __future__ import annotations

from asha.asterisk.talk.connections import Silent, side_by_side
from asha.run.text import number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from asha.asterisk.talk.connections import Conversation
    from asha.asterisk.talk.control import Console
    from asha.run.deadline import Deadline

PROTOCOLS = ("udp", "tcp")
# TLS and WebSocket, which are not asked.
OTHERS = ("tls", "ws", "wss")

# Where nobody says otherwise (RFC 3261, 19.1.2).
DEFAULT_PORT = 5060

# Seconds for both to tell: just after the start all telephones register.
ASK_SECONDS = 5.0

COMMANDS = {"PJSIP": "pjsip show transports", "chan_sip": "sip show settings"}
UNKNOWN_COMMAND = "No such command"
# From the right, as a name may have blanks: type, cos, tos, address.
PJSIP_COLUMNS = 5
PJSIP_TYPE = -4
CHAN_SIP = {
    "UDP Bindaddress": "udp",
    "TCP SIP Bindaddress": "tcp",
    "TLS SIP Bindaddress": "tls",
}

# Which protocols, any of them being enough, and on which port.
Socket = tuple[tuple[str, ...], int]


class Entry:
    """A socket of a stack's. ``lost``: it existed, and its stack is not loaded any more."""

    __slots__ = ("lost", "port", "protocol", "stack")

    def __init__(self, protocol: str, port: int, stack: str, lost: bool = False) -> None:
        self.protocol = protocol
        self.port = port
        self.stack = stack
        self.lost = lost

    @property
    def socket(self) -> Socket:
        return (self.protocol,), self.port

    @property
    def is_asked(self) -> bool:
        """Whether OPTIONS can be sent there."""
        return self.protocol in PROTOCOLS


def ask(console: Console, deadline: Deadline) -> dict[str, list[Entry] | None]:
    """What each stack is bound to, None for one that is not loaded.

    One that does not answer is left out. Raises nothing.
    """
    patience = deadline.within(ASK_SECONDS)
    answers = side_by_side([_answer(console, command, patience) for command in COMMANDS.values()])
    return {
        stack: None if UNKNOWN_COMMAND in text else _entries(stack, text)
        for stack, text in zip(COMMANDS, answers, strict=True)
        if text
    }


def _answer(console: Console, command: str, deadline: Deadline) -> Conversation[str]:
    try:
        return (yield from console.answer(deadline, command))
    except (OSError, Silent):
        return ""


def _entries(stack: str, text: str) -> list[Entry]:
    found: dict[tuple[str, int], Entry] = {}
    for line in text.splitlines():
        name, colon, rest = line.strip().partition(":")
        words = rest.split()
        if not colon or not words:
            continue
        protocol = CHAN_SIP.get(name, "")
        if name == "Transport" and len(words) >= PJSIP_COLUMNS:
            protocol = words[PJSIP_TYPE]
        port = number(words[-1].rpartition(":")[2])
        # "Disabled", and the ruler above the list, have no port.
        if protocol in PROTOCOLS + OTHERS and port:
            found[protocol, port] = Entry(protocol, port, stack)
    return list(found.values())


def merged(
    known: Sequence[Entry],
    told: Mapping[str, Sequence[Entry] | None],
    is_there: Callable[[Entry], bool],
) -> tuple[list[Entry], list[Entry]]:
    """What is known now, and what a stack says without having it, as its port was taken.

    The latter is not missed later, the other telephones work; where nothing else is,
    it is all that there is to be missed.
    """
    before = {(one.protocol, one.port) for one in known}
    found: list[Entry] = []
    idle: list[Entry] = []
    for stack in COMMANDS:
        own = [one for one in known if one.stack == stack]
        if stack not in told:
            found += own
            continue
        now = told[stack]
        if now is None:
            found += [Entry(one.protocol, one.port, stack, lost=True) for one in own]
            continue
        for one in now:
            new = (one.protocol, one.port) not in before
            (idle if new and one.is_asked and not is_there(one) else found).append(one)
        if not any(one.is_asked for one in now):
            # PJSIP does not list a transport that could not start.
            found += [one for one in own if one.is_asked]
    if not any(one.is_asked for one in found):
        found += idle
    # One that another stack has taken over is not lost.
    there = {(one.protocol, one.port) for one in found if not one.lost}
    found = [one for one in found if not one.lost or (one.protocol, one.port) not in there]
    return found, idle


def on_ports(ports: list[int]) -> list[Socket]:
    """Each port, for every protocol."""
    return [(PROTOCOLS, port) for port in ports]


def wanted(entries: Sequence[Entry]) -> list[Socket]:
    """Where OPTIONS must be answered. If nothing is known: at SIP's own port."""
    asked = [one for one in entries if one.is_asked]
    there = [one for one in asked if not one.lost] or asked
    if not entries:
        return on_ports([DEFAULT_PORT])
    return list(dict.fromkeys(one.socket for one in there))


def kept(entries: Sequence[Entry]) -> str:
    return "".join(
        f"{one.protocol} {one.port} {one.stack}{' lost' if one.lost else ''}\n" for one in entries
    )


def read(text: str) -> list[Entry]:
    """Parse what kept() has written. A torn line is left out."""
    words = [line.split() for line in text.splitlines()]
    return [
        Entry(one[0], port, one[2], lost=len(one) == 4)
        for one in words
        if len(one) in (3, 4)
        and one[0] in PROTOCOLS + OTHERS
        and (port := number(one[1]))
        and one[2] in COMMANDS
        and one[3:] in ([], ["lost"])
    ]


def words(sockets: Sequence[Socket]) -> str:
    """For an exit reason: "port 5060", "ports 5060 and 5160"."""
    ports = list(dict.fromkeys(str(port) for _, port in sockets))
    return f"port{'s' if len(ports) > 1 else ''} {' and '.join(ports)}"
