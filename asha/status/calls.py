"""Calls and registrations, as the Asterisk of this node tells them.

panoramisk speaks AMI and knows no deadline: it waits without end for an answer,
reconnects without end and reports on the standard error. Here it lives in an event loop
of its own that ends with the question, whatever the other side does.

Actions and their events: Asterisk's main/manager.c, res/res_pjsip/*, channels/chan_sip.c
(``manager show command NAME`` on Asterisk's console).
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from asha.asterisk.process.ours import Ours
from asha.asterisk.process.port_owner import AGAIN, RELOAD, holder
from asha.asterisk.process.proc import Endpoint, Proc, Process
from asha.asterisk.process.unit import account_number
from asha.asterisk.talk.ami import Credentials, answer_to
from asha.asterisk.talk.connections import Silent, hold
from asha.asterisk.talk.control import Console
from asha.run.deadline import Deadline
from asha.run.results import AgentError
from asha.run.text import number

SECRET = "/etc/asha/ami.secret"
PORT = 5038
BINARY = "/usr/sbin/asterisk"
RUN_DIRECTORY = "/run/asterisk"
# As the resource has them by default (asterisk-health's parameters user and unit).
ACCOUNT, UNIT = "asterisk", "asterisk.service"
SECONDS = 3.0

# Bytes that are taken of all answers together: a thousand calls are one million.
VISIT_MOST = 16 << 20

# Each where its channel driver is loaded; the others answer "Invalid/unknown command".
# Of the class "reporting" all: the account has no other.
ACTIONS = (
    "CoreStatus",
    "CoreShowChannels",
    "SIPpeers",
    "PJSIPShowRegistrationsOutbound",
    "SIPshowregistry",
)


@dataclass(frozen=True)
class Calls:
    """What Asterisk counts. ``trouble`` says why nothing, or not all, is known.

    ``registered`` are telephones (and peers) with an address, ``silent`` those of them that do
    not answer; ``trunks`` are this PBX's own registrations elsewhere. ``longest`` is in
    seconds, of the channels that are up. None: not known.
    """

    calls: int | None = None
    channels: int | None = None
    longest: int | None = None
    registered: int | None = None
    silent: int | None = None
    trunks: int | None = None
    trunks_up: int | None = None
    started: str = ""
    trouble: str = ""


class Unanswered(Exception):
    """Asterisk did not answer, or answered with an error; the text is for a person."""


# An answer is one message, or a list of them: the response, events, the last event.
Answers = dict[str, list[Any]]


def ask(secret: str = SECRET, port: int = PORT, seconds: float = SECONDS,
        run_directory: str = RUN_DIRECTORY, process: Process | None = None) -> Calls:
    """Ask everything, within ``seconds`` in all. Never raises and never hangs.

    Only ``process`` (by default the Asterisk that runs) is asked; nobody else gets anything.
    """
    deadline = Deadline(seconds)
    try:
        library = importlib.import_module("panoramisk")
    except ImportError:
        return Calls(trouble="python3-panoramisk is not installed: "
                             "apt install python3-panoramisk")
    try:
        who = Credentials.read(secret)
    except AgentError as problem:
        return Calls(trouble=problem.reason)
    if who is None:
        return Calls(trouble=f"there is no {secret}: asha install writes it")
    proc = Proc()
    try:
        process = process or running_asterisk(proc, run_directory)
        if process is None:
            return Calls(trouble="Asterisk does not run on this node")
        listening = process.listening(port, ("tcp",))
        if not listening:
            return Calls(trouble=_nobody(proc, process, port))
    except AgentError as problem:
        return Calls(trouble=problem.reason)
    contacts = _contacts(Console(run_directory, process), deadline)
    # Its complaints, and asyncio's about its forgotten futures, are of no use to anyone.
    for name in ("panoramisk", "asyncio"):
        logger = logging.getLogger(name)
        logger.propagate = False
        if not logger.handlers:
            logger.addHandler(logging.NullHandler())
    return asyncio.run(_visit(library, who, listening[0], contacts, deadline))


def running_asterisk(proc: Proc, run_directory: str = RUN_DIRECTORY) -> Process | None:
    """The Asterisk of this node. Raises AgentError where that cannot be told."""
    def account() -> int:
        return account_number(ACCOUNT, Deadline(SECONDS))

    ours = Ours(proc, BINARY, f"{run_directory}/asterisk.pid", UNIT, account)
    return next(iter(ours.running()), None)


def _nobody(proc: Proc, process: Process, port: int) -> str:
    squatter = holder(proc, process, port)
    if squatter:
        return (f"{squatter} has Asterisk's manager port {port}, so nothing is said to it: "
                f"end that process, then: {RELOAD}")
    return (f"Asterisk does not listen on manager port {port}: set enabled=yes in "
            f"manager.conf, then: {AGAIN}")


# Seconds of the whole for PJSIP's telephones, which AMI tells only to users who may do all.
CONTACTS_SECONDS = 1.0


def _contacts(console: Console, deadline: Deadline) -> list[bool] | None:
    """For each telephone that PJSIP knows, whether it is silent; None if that is unknown.

    Source: Asterisk res/res_pjsip/location.c, cli_contact_print_body().
    """
    patience = deadline.within(min(CONTACTS_SECONDS, deadline.remaining() / 2))
    try:
        said = hold(console.answer(patience, "pjsip show contacts"))
    except (OSError, Silent):
        return None
    rows = [line.split() for line in said.splitlines()]
    return [row[-2] == "Unavail" for row in rows
            if len(row) >= 4 and row[0] == "Contact:" and not row[1].startswith("<")]


def _bounded(library: Any, end: Callable[[], None]) -> type:
    """panoramisk's protocol; ``end`` is called when more arrives than answers can be."""

    class Bounded(library.ami_protocol.AMIProtocol):  # type: ignore[misc]
        taken = 0

        def data_received(self, data: bytes) -> None:
            self.taken += len(data)
            if self.taken > VISIT_MOST:
                self.transport.abort()
                end()
                return
            super().data_received(data)

    return Bounded


async def _visit(library: Any, who: Credentials, endpoint: Endpoint,
                 contacts: list[bool] | None, deadline: Deadline) -> Calls:
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda loop, context: None)
    end = loop.time() + deadline.remaining()
    gone: asyncio.Future[None] = loop.create_future()

    def over() -> None:
        if not gone.done():
            gone.set_result(None)

    def lost(manager: Any, problem: Any) -> None:
        over()

    manager = library.Manager(
        host=endpoint.address,
        port=endpoint.port,
        loop=loop,
        on_disconnect=lost,
        protocol_factory=_bounded(library, over),
    )
    try:
        await _connect(manager, gone, end)
        if not endpoint.is_held:
            raise Unanswered(f"manager port {endpoint.port} is not Asterisk's any more: nothing "
                             "was said to it")
        await _login(manager, who, gone, end)
        asked = {name: manager.send_action({"Action": name}) for name in ACTIONS}
        await _answered(asked.values(), gone, end)
        return summary({name: _messages(future) for name, future in asked.items()
                        if _is_answered(future)}, contacts)
    except Unanswered as reason:
        return Calls(trouble=str(reason))
    finally:
        manager.close()


async def _connect(manager: Any, gone: asyncio.Future[None], end: float) -> None:
    where = f"{manager.config['host']}:{manager.config['port']}"
    connecting = manager.connect()
    await _answered([connecting], gone, end)
    if not _is_answered(connecting):
        problem = connecting.exception() if connecting.done() else None
        number = problem.errno if isinstance(problem, OSError) else None
        why = os.strerror(number) if number else "no answer"
        raise Unanswered(f"Asterisk's manager port {where} cannot be reached: {why}")


async def _login(manager: Any, who: Credentials, gone: asyncio.Future[None], end: float) -> None:
    # Not by the manager's own means, which send the secret itself.
    where = f"{manager.config['host']}:{manager.config['port']}"
    challenge = manager.send_action({"Action": "Challenge", "AuthType": "MD5"})
    await _answered([challenge], gone, end)
    if not _is_answered(challenge):
        raise Unanswered(f"Asterisk does not answer at its manager port {where}")
    key = answer_to(str(_messages(challenge)[0].challenge), who)
    login = manager.send_action({"Action": "Login", "AuthType": "MD5", "Username": who.user,
                                 "Key": key, "Events": "off"})
    await _answered([login], gone, end)
    if not _is_answered(login):
        raise Unanswered(f"Asterisk does not answer at its manager port {where}")
    if _messages(login)[0].response != "Success":
        raise Unanswered(f"Asterisk refuses the manager user {who.user}: {SECRET} and the user in "
                         "manager.conf must agree, then: asterisk -rx 'manager reload'")


async def _answered(futures: Iterable[asyncio.Future[Any]], gone: asyncio.Future[None],
                    end: float) -> None:
    """Wait until all are answered, the connection is gone, or the time is over."""
    left = set(futures)
    while left and not gone.done():
        patience = max(0.0, end - asyncio.get_running_loop().time())
        done, _ = await asyncio.wait({*left, gone}, timeout=patience,
                                     return_when=asyncio.FIRST_COMPLETED)
        if not done:
            return
        left -= done


def _is_answered(future: asyncio.Future[Any]) -> bool:
    return future.done() and not future.cancelled() and future.exception() is None


def _messages(future: asyncio.Future[Any]) -> list[Any]:
    answer = future.result()
    return answer if isinstance(answer, list) else [answer]


def summary(answers: Answers, contacts: list[bool] | None) -> Calls:
    """The counts in these answers; an action that is missing in them was not answered.

    ``contacts``: for each of PJSIP's telephones, whether it is silent.
    """
    if "CoreStatus" not in answers:
        return Calls(trouble="Asterisk takes the login and then does not answer")
    core = answers["CoreStatus"][0]
    if core.response != "Success":
        return Calls(trouble=f"Asterisk refuses CoreStatus ({core.message}): the manager user "
                             "needs write=reporting in manager.conf")
    late = [name for name in ACTIONS if name not in answers]
    if contacts is None:
        late.append("pjsip show contacts")
    telephones = _events(answers, "SIPpeers", "PeerEntry")
    # chan_sip lists every telephone it knows of; one that is away has no address.
    here = [message for message in telephones if message.ipaddress != "-none-"]
    trunks = [*_events(answers, "PJSIPShowRegistrationsOutbound", "OutboundRegistrationDetail"),
              *_events(answers, "SIPshowregistry", "RegistryEntry")]
    channels = _events(answers, "CoreShowChannels", "CoreShowChannel")
    knows_telephones = contacts is not None and "SIPpeers" in answers
    knows_trunks = {"PJSIPShowRegistrationsOutbound", "SIPshowregistry"} <= answers.keys()
    return Calls(
        calls=number(core.corecurrentcalls),
        channels=len(channels) if "CoreShowChannels" in answers else None,
        longest=max((_seconds(message.duration) for message in channels), default=0)
        if "CoreShowChannels" in answers else None,
        registered=len(here) + len(contacts or []) if knows_telephones else None,
        silent=sum(_is_silent(message.status) for message in here) + sum(contacts or [])
        if knows_telephones else None,
        trunks=len(trunks) if knows_trunks else None,
        trunks_up=sum(_is_registered(message) for message in trunks) if knows_trunks else None,
        started=f"{core.corestartupdate} {core.corestartuptime}".strip(),
        trouble=f"Asterisk did not answer in time: {', '.join(late)}" if late else "",
    )


def _events(answers: Answers, action: str, event: str) -> list[Any]:
    return [message for message in answers.get(action, []) if message.event == event]


def _is_silent(status: str) -> bool:
    return status.startswith("UNREACHABLE")


def _is_registered(message: Any) -> bool:
    return "Registered" in (message.status, message.state)


def _seconds(text: str) -> int:
    """"HH:MM:SS", hours without bound. 0 for anything else."""
    parts = text.split(":")
    values = [value for value in map(number, parts) if value is not None]
    if len(parts) != 3 or len(values) != 3:
        return 0
    hours, minutes, seconds = values
    return hours * 3600 + minutes * 60 + seconds
