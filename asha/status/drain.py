"""Moving while nobody telephones: wait for the last call, then let none begin.

While calls end by themselves, new ones are taken as ever. Once there is none, Asterisk is
told to stop gracefully, which refuses every new call at once, and is kept running by a
channel of our own until Pacemaker stops it. A call that came in between is noticed by its
RTP sockets, as Asterisk's console counts nothing from then on: then all is taken back and
the waiting goes on.

Should this be killed meanwhile, a child of ours takes all back. Should that be killed too,
the channel ends by itself, Asterisk then stops, and Pacemaker starts it again.

Source: Asterisk main/asterisk.c (handle_stop_gracefully, handle_abort_shutdown),
main/cli.c ("cannot be run during shutdown"), main/channel.c (a new channel is refused while
ast_shutting_down()).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress

from asha.asterisk.probes import CallSetup
from asha.asterisk.process.proc import Process
from asha.asterisk.talk.connections import Silent, hold
from asha.asterisk.talk.control import Console
from asha.errors import UserError
from asha.machine import Machine
from asha.run.child import IfKilled
from asha.run.deadline import Deadline
from asha.run.results import AgentError
from asha.run.text import number

# Seconds that one question may take, and that the order to stop is watched.
ANSWER_SECONDS = 5.0
ORDER_SECONDS = 0.3
# Seconds between two looks at the calls.
EVERY = 1.0

CONTEXT = "asha-drain"
# Seconds after which our channel ends by itself: Pacemaker stops Asterisk last of all that
# stops at once, and MariaDB may take two minutes (cib/asha.crm).
HELD_SECONDS = 180
STEPS = (CallSetup.NO_RECORD, "Answer()", f"Wait({HELD_SECONDS})")
REFUSED = "cannot be run during shutdown"

# Channels of ours, the monitor's and the one above, are no calls. "-" ends the context's name:
# somebody's own may begin like ours.
OURS = (f"Local/s@{CallSetup.CONTEXT}-", f"Local/s@{CONTEXT}-")


class Asterisk:
    """The one of this node, whose calls are waited for."""

    def __init__(self, process: Process, run_directory: str) -> None:
        self.process = process
        self.console = Console(run_directory, process)
        self._has_begun = False

    def ask(self, *commands: str) -> str:
        """Raises UserError where the console does not answer."""
        try:
            return hold(self.console.answer(Deadline(ANSWER_SECONDS), *commands))
        except (OSError, Silent) as problem:
            raise UserError(f"Asterisk's console does not answer ({problem}), so nobody knows "
                            "when its calls have ended",
                            "asha status tells what is wrong; without --drain calls are cut"
                            ) from None

    def channels(self) -> list[str]:
        """The names of the channels of calls."""
        said = self.ask("core show channels concise")
        names = [line.partition("!")[0] for line in said.splitlines() if "!" in line]
        return [one for one in names if not one.startswith(OURS)]

    def calls(self) -> int:
        """How many calls are up; 0 only where there is not one channel.

        Raises UserError where somebody else has told Asterisk to stop.
        """
        channels = self.channels()
        said = self.ask("core show calls")
        if REFUSED in said:
            raise UserError("Asterisk is about to stop, as somebody has told it to (core stop "
                            "gracefully): nothing was moved",
                            "wait until Pacemaker has started it again; to take the order back: "
                            "asterisk -rx 'core abort shutdown'")
        first = said.split(None, 1)[:1]
        return max(number(first[0] if first else "") or 0, 1) if channels else 0

    def refuse_calls(self) -> bool:
        """From now on. False, and all is as before, when one has come in between.

        Raises UserError where Asterisk does not do it.
        """
        self._has_begun = True
        before = self._media()
        self.ask(*(f"dialplan add extension s,{priority},{step} into {CONTEXT} replace"
                   for priority, step in enumerate(STEPS, 1)))
        self.ask(f"channel originate Local/s@{CONTEXT}/n extension s@{CONTEXT}")
        held = self.ask("core show channels concise")
        if f"Local/s@{CONTEXT}" not in held:
            stops = self.refuses()
            self.take_calls()
            if stops:
                return False
            raise UserError("Asterisk makes no channel for us: nothing was moved",
                            "does it have pbx_config.so and res_clioriginate.so? "
                            "Without --drain calls are cut")
        # Asterisk that another has told to stop just now shows none, also where there are some.
        if self.channels() or self.refuses():
            self.take_calls()
            return False
        self._order()
        if not self.refuses():
            self.take_calls()
            raise UserError("Asterisk goes on taking calls: nothing was moved",
                            "without --drain calls are cut")
        if self._media() - before:
            self.take_calls()
            return False
        return True

    def _order(self) -> None:
        # It answers when Asterisk has ended.
        with suppress(OSError, Silent):
            hold(self.console.first_line("core stop gracefully", Deadline(ORDER_SECONDS)))

    def refuses(self) -> bool:
        """Whether it takes no call now."""
        return REFUSED in self.ask("core show calls")

    def take_calls(self) -> None:
        """Again, if it runs still and we have begun to refuse them: what another has ordered is
        not ours to take back. Never raises."""
        if self._has_begun:
            self._has_begun = False
            self.take_back()

    def take_back(self) -> None:
        """Whatever has been ordered. Never raises."""
        if self.process.gone:
            return
        with suppress(UserError):
            self.ask("core abort shutdown")
            for name in self._held():
                self.ask(f"channel request hangup {name}")
            self.ask(f"dialplan remove context {CONTEXT}")

    def _held(self) -> list[str]:
        said = self.ask("core show channels concise")
        names = [line.partition("!")[0] for line in said.splitlines()]
        return [one for one in names if one.startswith(f"Local/s@{CONTEXT}-")]

    def _media(self) -> set[str]:
        """The UDP sockets that it has open: a call's RTP comes before its channel."""
        return set(self.process.sockets(self.process.inodes("udp")))


@contextmanager
def drained(
    machine: Machine, asterisk: Asterisk, seconds: float, check: Callable[[], object],
    say: Callable[[str], None],
) -> Iterator[None]:
    """Run the body while no call is up and none is taken; before it, wait ``seconds`` at most.

    ``check`` raises UserError where the move makes no sense any more. Raises UserError when
    calls go on for longer; then, and after a Ctrl-C, Asterisk takes calls as before.
    """
    begun = machine.now()
    child = ExitStack()

    def busy() -> int:
        calls = asterisk.calls()
        if calls:
            return calls
        check()
        with suppress(AgentError):  # no process is free: our channel has an end all the same
            child.enter_context(IfKilled(asterisk.take_back, Deadline(ANSWER_SECONDS), "the drain"))
        if asterisk.refuse_calls():
            return 0
        child.close()
        return 1

    def tell(calls: int, passed: float) -> None:
        say(f"waiting for {calls} {'call' if calls == 1 else 'calls'} to end"
            f" ({passed:.0f} of at most {seconds:.0f} s)")

    try:
        left = machine.wait_while(busy, seconds, EVERY, tell)
        if left:
            raise UserError(
                f"after {machine.now() - begun:.0f} s {left} {'call' if left == 1 else 'calls'} "
                f"{'is' if left == 1 else 'are'} still up: nothing was moved",
                "give it longer (--drain=SECONDS), or cut the calls: without --drain")
        yield
    finally:
        asterisk.take_calls()
        child.close()
