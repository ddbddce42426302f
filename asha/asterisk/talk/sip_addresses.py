"""Which addresses Asterisk's SIP stacks are bound to and tell others, as they themselves say.

Also whom they know by his address, whether they register somewhere, and which modules run.

Source: Asterisk res/res_pjsip/config_transport.c, cli_print_header() and cli_print_body()
("pjsip show transports"), res/res_pjsip/pjsip_cli.c, ast_sip_cli_print_sorcery_objectset()
("pjsip show transport NAME"), channels/chan_sip.c, sip_show_settings(),
res/res_pjsip_endpoint_identifier_ip.c, cli_print_body() ("pjsip show identifies"), the
handlers of "pjsip show registrations", "sip show registry" and "iax2 show registry", and
main/cli.c, modlist_modentry() ("module show").
"""

from __future__ import annotations

from asha.asterisk.process.ours import Ours
from asha.asterisk.process.proc import Proc, Process
from asha.asterisk.process.unit import account_number
from asha.asterisk.talk.connections import Silent, hold
from asha.asterisk.talk.control import Console
from asha.run.deadline import Deadline
from asha.run.results import AgentError

# As the resource has them by default (asterisk-health's parameters).
BINARY, RUN_DIRECTORY = "/usr/sbin/asterisk", "/run/asterisk"
ACCOUNT, UNIT = "asterisk", "asterisk.service"
SECONDS = 5.0

# More transports than anybody has; each costs a question.
TRANSPORTS_MOST = 20
TRANSPORT = "Transport:"
REGISTRIES = ("pjsip show registrations", "sip show registry", "iax2 show registry")
PJSIP_KEYS = ("bind", "external_media_address", "external_signaling_address")
# The words of "sip show settings", and the keys of sip.conf that they show.
CHAN_SIP_KEYS = {
    "UDP Bindaddress": "udpbindaddr",
    "TCP SIP Bindaddress": "tcpbindaddr",
    "TLS SIP Bindaddress": "tlsbindaddr",
    "Externaddr": "externaddr",
}


class Setting:
    """``key=address`` of a section of one of Asterisk's files."""

    __slots__ = ("address", "file", "key", "section")

    def __init__(self, file: str, section: str, key: str, address: str) -> None:
        self.file = file
        self.section = section
        self.key = key
        self.address = address

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Setting) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))

    def __repr__(self) -> str:
        return f"<{self}>"

    def __str__(self) -> str:
        return f"{self.file} [{self.section}] {self.key}={self.address}"


class Told:
    """What the Asterisk that runs here says; nothing where none does.

    ``identified``: names of PJSIP's identify sections, each with a network, as text.
    ``modules``: those that run. ``registers``: whether it registers with anybody.
    """

    __slots__ = ("identified", "modules", "registers", "settings")

    def __init__(self, settings: list[Setting] | None = None,
                 identified: list[tuple[str, str]] | None = None,
                 modules: frozenset[str] = frozenset(), registers: bool = False) -> None:
        self.settings = settings or []
        self.identified = identified or []
        self.modules = modules
        self.registers = registers


def ask(seconds: float = SECONDS) -> Told:
    """Raises nothing."""
    deadline = Deadline(seconds)
    try:
        ours = Ours(Proc(), BINARY, f"{RUN_DIRECTORY}/asterisk.pid", UNIT,
                    lambda: account_number(ACCOUNT, deadline))
        process = next(iter(ours.running()), None)
        return _ask(process, deadline) if process is not None else Told()
    except AgentError:
        return Told()


def _ask(process: Process, deadline: Deadline) -> Told:
    console = Console(RUN_DIRECTORY, process)

    def said(command: str) -> str:
        try:
            return hold(console.answer(deadline, command))
        except (OSError, Silent):
            return ""

    found = of_chan_sip(said("sip show settings"))
    for name in transports(said("pjsip show transports"))[:TRANSPORTS_MOST]:
        found += of_pjsip(name, said(f"pjsip show transport {name}"))
    return Told(found, identified(said("pjsip show identifies")), running(said("module show")),
                any(registers(said(question)) for question in REGISTRIES))


def running(text: str) -> frozenset[str]:
    """The names of the modules in the table."""
    rows = [line.split() for line in text.splitlines()]
    return frozenset(row[0] for row in rows if len(row) > 3 and row[0].endswith(".so")
                     and "Running" in row and "Not" not in row)


def registers(text: str) -> bool:
    """Whether there is one: each of the lists ends with their number."""
    rows = [line.split() for line in text.splitlines()]
    counts = [row[0] for row in rows if row[1:] and row[1] in ("SIP", "IAX2")]
    counts += [row[2] for row in rows if row[:2] == ["Objects", "found:"] and row[2:]]
    return any(count.isdecimal() and count.strip("0") for count in counts)


def identified(text: str) -> list[tuple[str, str]]:
    """Each network by which a telephone or trunk is known, after the section's name."""
    found, section = [], ""
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        if colon and key.strip() == "Identify":
            section = value.strip().partition("/")[0]
        elif colon and key.strip() == "Match" and _address(value.partition("/")[0]):
            found.append((section, value.strip()))
    return found


def transports(text: str) -> list[str]:
    """Their names. Such as cannot be a word of a command are left out."""
    rows = [line.split() for line in text.splitlines()]
    names = [row[1] for row in rows if len(row) > 2 and row[0] == TRANSPORT]
    return [name for name in names if name.isprintable() and not name.startswith("<")]


def of_pjsip(name: str, text: str) -> list[Setting]:
    pairs = (line.partition(":") for line in text.splitlines())
    return [
        Setting("pjsip.conf", name, key.strip(), address)
        for key, colon, value in pairs
        if colon and key.strip() in PJSIP_KEYS and (address := _address(value))
    ]


def of_chan_sip(text: str) -> list[Setting]:
    pairs = (line.partition(":") for line in text.splitlines())
    return [
        Setting("sip.conf", "general", CHAN_SIP_KEYS[key.strip()], address)
        for key, colon, value in pairs
        if colon and key.strip() in CHAN_SIP_KEYS and (address := _address(value))
    ]


def _address(text: str) -> str:
    """The IPv4 address, with or without a port; "" for anything else."""
    address = text.strip().partition(":")[0]
    parts = address.split(".")
    is_one = len(parts) == 4 and all(part.isdecimal() and int(part) < 256 for part in parts)
    return address if is_one else ""
