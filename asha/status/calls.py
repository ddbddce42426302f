"""Calls and registrations, as the Asterisk of this node tells them.

panoramisk speaks AMI and knows no deadline: it waits for ever for an answer,
reconnects for ever and reports on the standard error. Here it lives in an event loop
of its own that ends with the question, whatever the other side does.

Actions and their events: Asterisk's main/manager.c, res/res_pjsip/*, channels/chan_sip.c
(``manager show command NAME`` on Asterisk's console).
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from asha.asterisk.ami import Credentials
from asha.ocf.results import AgentError

SECRET = "/etc/asha/ami.secret"
ADDRESS = ("127.0.0.1", 5038)
SECONDS = 3.0

# Each where its channel driver is loaded; the others answer "Invalid/unknown command".
ACTIONS = (
    "CoreStatus",
    "CoreShowChannels",
    "PJSIPShowContacts",
    "SIPpeers",
    "PJSIPShowRegistrationsOutbound",
    "SIPshowregistry",
)


@dataclass(frozen=True)
class Calls:
    """What Asterisk counts. ``trouble`` says why nothing, or not all, is known.

    ``registered`` are telephones (and peers) with an address, ``silent`` those of them
    that do not answer; ``trunks`` are this PBX's own registrations elsewhere.
    ``longest`` is in seconds, of the channels that are up. None: not known.
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
    """Asterisk did not say, or not yes; the text is for the reader."""


# An answer is one message, or a list of them: the response, events, the last event.
Answers = dict[str, list[Any]]


def ask(secret: str = SECRET, address: tuple[str, int] = ADDRESS,
        seconds: float = SECONDS) -> Calls:
    """Ask everything within ``seconds`` in all. Never raises and never hangs."""
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
    # Its complaints, and asyncio's about its forgotten futures, are of no use to anyone.
    for name in ("panoramisk", "asyncio"):
        logger = logging.getLogger(name)
        logger.propagate = False
        if not logger.handlers:
            logger.addHandler(logging.NullHandler())
    return asyncio.run(_visit(library, who, address, seconds))


async def _visit(library: Any, who: Credentials, address: tuple[str, int],
                 seconds: float) -> Calls:
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda loop, context: None)
    end = loop.time() + seconds
    gone: asyncio.Future[None] = loop.create_future()

    def lost(manager: Any, problem: Any) -> None:
        if not gone.done():
            gone.set_result(None)

    manager = library.Manager(
        host=address[0],
        port=address[1],
        loop=loop,
        on_disconnect=lost,
    )
    try:
        await _connect(manager, who, gone, end)
        asked = {name: manager.send_action({"Action": name}) for name in ACTIONS}
        await _answered(asked.values(), gone, end)
        return summary({name: _messages(future) for name, future in asked.items()
                        if _is_answered(future)})
    except Unanswered as reason:
        return Calls(trouble=str(reason))
    finally:
        manager.close()


async def _connect(manager: Any, who: Credentials, gone: asyncio.Future[None],
                   end: float) -> None:
    where = f"{manager.config['host']}:{manager.config['port']}"
    connecting = manager.connect()
    await _answered([connecting], gone, end)
    if not _is_answered(connecting):
        problem = connecting.exception() if connecting.done() else None
        number = problem.errno if isinstance(problem, OSError) else None
        why = os.strerror(number) if number else "no answer"
        raise Unanswered(f"Asterisk's manager port {where} cannot be reached: {why}")
    # Not by the manager's own means, which keep the secret in its configuration.
    login = manager.send_action({"Action": "Login", "Username": who.user, "Secret": who.secret,
                                 "Events": "off"})
    await _answered([login], gone, end)
    if not _is_answered(login):
        raise Unanswered(f"Asterisk does not answer at its manager port {where}")
    if _messages(login)[0].response != "Success":
        raise Unanswered(f"Asterisk refuses the manager user {who.user}: {SECRET} and the user in "
                         "manager.conf must agree, then: asterisk -rx 'manager reload'")


async def _answered(futures: Iterable[asyncio.Future[Any]], gone: asyncio.Future[None],
                    end: float) -> None:
    """Until all are answered, the connection is gone, or the time is over."""
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


def summary(answers: Answers) -> Calls:
    """The counts in these answers; an action that is not in them was not answered."""
    if "CoreStatus" not in answers:
        return Calls(trouble="Asterisk takes the login and then does not answer")
    core = answers["CoreStatus"][0]
    if core.response != "Success":
        return Calls(trouble=f"Asterisk refuses CoreStatus ({core.message}): the manager user "
                             "needs write=system,reporting in manager.conf")
    late = [name for name in ACTIONS if name not in answers]
    telephones = [message for name, event in (("PJSIPShowContacts", "ContactList"),
                                              ("SIPpeers", "PeerEntry"))
                  for message in _events(answers, name, event)]
    # chan_sip lists every telephone it knows of; one that is away has no address.
    here = [message for message in telephones if message.ipaddress != "-none-"]
    trunks = [*_events(answers, "PJSIPShowRegistrationsOutbound", "OutboundRegistrationDetail"),
              *_events(answers, "SIPshowregistry", "RegistryEntry")]
    channels = _events(answers, "CoreShowChannels", "CoreShowChannel")
    knows_telephones = {"PJSIPShowContacts", "SIPpeers"} <= answers.keys()
    knows_trunks = {"PJSIPShowRegistrationsOutbound", "SIPshowregistry"} <= answers.keys()
    return Calls(
        calls=_number(core.corecurrentcalls),
        channels=len(channels) if "CoreShowChannels" in answers else None,
        longest=max((_seconds(message.duration) for message in channels), default=0)
        if "CoreShowChannels" in answers else None,
        registered=len(here) if knows_telephones else None,
        silent=sum(_is_silent(message.status) for message in here) if knows_telephones else None,
        trunks=len(trunks) if knows_trunks else None,
        trunks_up=sum(_is_registered(message) for message in trunks) if knows_trunks else None,
        started=f"{core.corestartupdate} {core.corestartuptime}".strip(),
        trouble=f"Asterisk did not answer in time: {', '.join(late)}" if late else "",
    )


def _events(answers: Answers, action: str, event: str) -> list[Any]:
    return [message for message in answers.get(action, []) if message.event == event]


def _is_silent(status: str) -> bool:
    """"UNREACHABLE" is chan_sip's word, "Unreachable" PJSIP's."""
    return status.lower().startswith("unreachable")


def _is_registered(message: Any) -> bool:
    return "Registered" in (message.status, message.state)


def _number(text: str) -> int | None:
    return int(text) if text.isdecimal() else None


def _seconds(text: str) -> int:
    """"HH:MM:SS", hours without bound. 0 for anything else."""
    parts = text.split(":")
    if len(parts) != 3 or not all(part.isdecimal() for part in parts):
        return 0
    hours, minutes, seconds = map(int, parts)
    return hours * 3600 + minutes * 60 + seconds
