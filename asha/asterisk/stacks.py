"""Where Asterisk takes SIP, as its stacks tell: PJSIP and chan_sip, one of them or both.

Asked for at the start and kept for the monitors, as lines "udp 5060" of a state file.

Source: Asterisk res/res_pjsip/config_transport.c, cli_print_body(), and
channels/chan_sip.c, sip_show_settings(). A stack that is not loaded has no such command.
"""

from __future__ import annotations

from asha.asterisk import control
from asha.asterisk.wire import Silent, side_by_side

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from asha.asterisk.wire import Conversation
    from asha.ocf.deadline import Deadline

PROTOCOLS = ("udp", "tcp")

# Where nobody says otherwise (RFC 3261, 19.1.2).
DEFAULT_PORT = 5060

# Seconds for both to tell: just after the start all telephones register.
ASK_SECONDS = 5.0

COMMANDS = ("pjsip show transports", "sip show settings")
# Identity, protocol, cos, tos, address.
PJSIP_COLUMNS = 5
CHAN_SIP = {"UDP Bindaddress": "udp", "TCP SIP Bindaddress": "tcp"}

# Which protocols, any of them being enough, and on which port.
Socket = tuple[tuple[str, ...], int]


def ask(run_directory: str, deadline: Deadline) -> list[Socket]:
    """What the stacks are bound to, without TLS and WebSocket; [] where none says.

    Raises nothing.
    """
    path = f"{run_directory}/{control.SOCKET_NAME}"
    patience = deadline.within(ASK_SECONDS)
    answers = side_by_side([_answer(path, command, patience) for command in COMMANDS])
    found = [socket for text in answers for socket in _sockets(text)]
    return list(dict.fromkeys(found))


def _answer(path: str, command: str, deadline: Deadline) -> Conversation[str]:
    try:
        return (yield from control.whole_answer(path, command, deadline))
    except (OSError, Silent):
        return ""


def _sockets(text: str) -> Iterator[Socket]:
    for line in text.splitlines():
        name, colon, rest = line.strip().partition(":")
        words = rest.split()
        if not colon or not words:
            continue
        protocol = CHAN_SIP.get(name, "")
        if name == "Transport" and len(words) == PJSIP_COLUMNS:
            protocol = words[1]
        port = words[-1].rpartition(":")[2]
        # "Disabled", and the ruler above the list, have no port.
        if protocol in PROTOCOLS and port.isdecimal() and int(port):
            yield (protocol,), int(port)


def on_ports(ports: list[int]) -> list[Socket]:
    """Each port, by whichever protocol."""
    return [(PROTOCOLS, port) for port in ports]


def kept(sockets: list[Socket]) -> str:
    return "".join(f"{protocols[0]} {port}\n" for protocols, port in sockets)


def read(text: str) -> list[Socket]:
    """Of what kept() has written. A torn line is left out."""
    words = [line.split() for line in text.splitlines()]
    return [
        ((one[0],), int(one[1]))
        for one in words
        if len(one) == 2 and one[0] in PROTOCOLS and one[1].isdecimal()
    ]


def words(sockets: list[Socket]) -> str:
    """For a reason: "port 5060", "ports 5060 and 5160"."""
    ports = list(dict.fromkeys(str(port) for _, port in sockets))
    return f"port{'s' if len(ports) > 1 else ''} {' and '.join(ports)}"
