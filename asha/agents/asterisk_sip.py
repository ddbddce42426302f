"""Where the running Asterisk takes SIP: what it has told, what is there, what to ask.

Kept from action to action in the state file ``sip``: the process that told it, and the lines of
asha/asterisk/talk/sip_transports.py.
"""

from __future__ import annotations

from asha.asterisk.process.proc import WILDCARD, Endpoint
from asha.asterisk.talk import sip_transports
from asha.asterisk.talk.connections import Silent, hold
from asha.asterisk.talk.control import Console
from asha.ocf import Failed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from asha.agents.asterisk_base import AsteriskAgent
    from asha.asterisk.process.proc import Process
    from asha.run.deadline import Deadline

# Seconds without any SIP socket that are no failure yet, and those in which one that
# has loaded its modules says so.
BIND_SECONDS = 5.0
LOADED_SECONDS = 0.5
# The same in a start, where all stacks say that they take none.
NONE_SECONDS = 1.0

# More addresses than that are not asked.
ADDRESSES_MOST = 8


class NotBound(Failed):
    """Asterisk listens on no SIP port: its configuration rather than a hang."""


class SipSockets:
    """The SIP sockets of one Asterisk, within one action of the agent."""

    def __init__(self, agent: AsteriskAgent, process: Process) -> None:
        self.agent = agent
        self.process = process
        self.deadline = agent.deadline
        self.console = Console(agent.run_directory, process)
        # Whether no stack has told anything, nor is there another to tell.
        self._untold = False
        # Whether each stack has told, and none takes SIP.
        self._takes_none = False

    def endpoints(self, reconsider: Callable[[], None]) -> list[Endpoint]:
        """Where to send OPTIONS. Raises NotBound if SIP is not taken where it must be, or what
        ``reconsider`` raises, which is called before that is decided."""
        wanted = self._wanted()
        address = self.agent.sip_address
        if address != "auto" and self.agent.sip_port is not None:
            return [Endpoint("udp", address, port, 0, "") for _, port in wanted]
        found: list[Endpoint] = []
        lacking: list[sip_transports.Socket] = []

        def bound() -> bool:
            found.clear()
            lacking.clear()
            for protocols, port in wanted:
                here = self.process.listening(port, protocols)
                if not here:
                    lacking.append((protocols, port))
                # A link-local address cannot be asked without naming an interface.
                found.extend(one for one in here if not one.address.startswith("fe80:"))
            return not lacking

        # Not at once: "core restart now" closes them until the modules are loaded.
        patience = 0.0 if self._untold else BIND_SECONDS
        if self._takes_none and self.agent.action_name == "start":
            patience = NONE_SECONDS  # nobody restarts what has just been started
        if not self.deadline.within(patience).poll(bound):
            reconsider()
            self.deadline.within(self.agent.reload_patience).poll(
                lambda: bound() or not self.still_loads()
            )
            if self.agent.sip_port is None:
                # Another transport by now, or a stack that somebody has unloaded.
                wanted = self.learn(self.deadline)
            if not bound():
                if self._untold:
                    return found
                raise NotBound(
                    f"Asterisk has no SIP socket on {sip_transports.words(lacking)}: see its "
                    "pjsip.conf or sip.conf, and sip_port of this resource "
                    "(0 if this PBX has no SIP)"
                )
        if address != "auto":
            ports = {one.port for one in found
                     if one.protocol == "udp" and (one.bound == address or one.bound in WILDCARD)}
            # Where it takes none by UDP there, all are asked.
            found = [Endpoint("udp", address, port, 0, "") for port in sorted(ports)] or found
        return found[:ADDRESSES_MOST]

    def still_loads(self) -> bool:
        """Whether Asterisk loads its modules: it holds that answer back until then."""
        try:
            hold(self.console.wait_fully_booted(self.deadline.within(LOADED_SECONDS)))
        except Silent:
            return True
        except OSError:
            pass
        return False

    def _wanted(self) -> list[sip_transports.Socket]:
        """Where SIP must be taken."""
        entries = self._entries()
        if self.agent.sip_port is None and (
            not entries or any(one.lost and self._is_there(one) for one in entries)
        ):
            # Somebody has restarted it by hand, or loaded a stack again.
            return self.learn(self.deadline.within(self.agent.probe_timeout))
        return self.known()

    def known(self) -> list[sip_transports.Socket]:
        """The same, without asking Asterisk."""
        ports = self.agent.sip_port
        return (
            sip_transports.wanted(self._entries())
            if ports is None
            else sip_transports.on_ports(ports)
        )

    def _entries(self) -> list[sip_transports.Entry]:
        identity, _, kept = self.agent.read_state("sip").partition("\n")
        return sip_transports.read(kept) if identity == self.process.identity else []

    def _is_there(self, entry: sip_transports.Entry) -> bool:
        return bool(self.process.listening(entry.port, (entry.protocol,)))

    def learn(self, deadline: Deadline) -> list[sip_transports.Socket]:
        """Ask Asterisk, for this and the next actions."""
        known = self._entries()
        told = sip_transports.ask(self.console, deadline)
        entries, idle = sip_transports.merged(known, told, self._is_there)
        self._untold = not told and not known
        self._takes_none = len(told) == len(sip_transports.COMMANDS) and not entries
        if idle:
            ports = sip_transports.words([one.socket for one in idle])
            self.agent.warn(f"Asterisk should take SIP on {ports} and does not: see its log")
        # One that still loads has not told all.
        if sip_transports.kept(entries) != sip_transports.kept(known) and not self.still_loads():
            self.agent.write_state(
                "sip", f"{self.process.identity}\n{sip_transports.kept(entries)}"
            )
        return sip_transports.wanted(entries)

    def elsewhere(self) -> list[str]:
        """That SIP is taken where nobody asks, for a person to know."""
        if self._untold and not self._is_taken():
            # Nobody knows it better, and somebody else may have silenced the console.
            return ["SIP is not watched: Asterisk's console does not tell where it takes it "
                    "(or set sip_port)"]
        entries = self._entries() if self.agent.sip_port is None else []
        if not entries or any(one.is_asked for one in entries):
            return []
        return ["SIP is not watched: Asterisk takes it by TLS or WebSocket only "
                "(sip_port=0 if that is meant)"]

    def _is_taken(self) -> bool:
        return any(self.process.listening(port, protocols) for protocols, port in self.known())

    def lost(self) -> list[str]:
        """The stacks that are gone while another is there."""
        lost: dict[str, list[sip_transports.Socket]] = {}
        for one in self._entries() if self.agent.sip_port is None else []:
            if one.lost and one.is_asked:
                lost.setdefault(one.stack, []).append(one.socket)
        return [
            f"Asterisk no longer takes SIP on {sip_transports.words(sockets)}: {stack} is not "
            "loaded any more, see its log"
            for stack, sockets in lost.items()
        ]
