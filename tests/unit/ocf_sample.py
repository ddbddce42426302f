"""Two small agents for the tests of asha.ocf: their state is the text of a file."""

from __future__ import annotations

import os

from asha.ocf import (
    Agent,
    BadHere,
    Boolean,
    Choice,
    Duration,
    Exit,
    Failed,
    Integer,
    NotRunning,
    Path,
    String,
    action,
)


class Plain(Agent):
    """A resource that is a file <&>

    It runs while the file exists. "Quotes", <tags> & ampersands
    are text here, and so is é.

        Indented lines stay so.
    """

    name = "plain"

    file = Path("Its file", "Where the state is.", required=True, unique=True)
    mode = Choice("How it works", choices=("slow", "fast"), default="slow")
    port = Integer("Its port", "A port > 1023.", default=5060, least=1024, most=65535)
    room = Integer("Space to keep free", default=100, unit="MiB")
    patience = Duration("How long it waits", default="500ms")
    noisy = Boolean("Whether it talks", default=False)
    motto = String("A saying", 'Any text, such as <a> & "b".', default='<&">\n')
    hint = String("Anything else")

    # Set by a test to stand in for what goes wrong.
    trouble: dict[str, BaseException]

    def _maybe(self, where: str) -> None:
        problem = getattr(type(self), "trouble", {}).get(where)
        if problem is not None:
            raise problem

    def _state(self) -> str:
        try:
            with open(self.file) as file:
                return file.read()
        except FileNotFoundError:
            return ""

    def _become(self, state: str) -> None:
        self._maybe(f"become {state}")
        with open(self.file, "w") as file:
            file.write(state)

    def validate(self, level: int) -> None:
        self._maybe(f"validate {level}")
        if level >= 10 and not os.path.isdir(os.path.dirname(self.file)):
            raise BadHere(f"{os.path.dirname(self.file)} does not exist: make it")

    @action(timeout=20)
    def start(self) -> None:
        self._become("unpromoted")

    @action(timeout=30)
    def stop(self) -> None:
        self._maybe("stop")
        if self._state():
            os.unlink(self.file)

    @action(timeout=20, interval=10, depth=0)
    @action(timeout=40, interval=61, depth=10)
    def monitor(self) -> Exit:
        self._maybe(f"monitor {self.check_level}")
        state = self._state()
        if not state:
            raise NotRunning("there is no file")
        if state == "broken":
            raise Failed("the file is broken")
        return Exit.RUNNING_PROMOTED if state == "promoted" else Exit.SUCCESS


class Promotable(Plain):
    """A resource that can be promoted."""

    name = "promotable"

    @action(timeout=20, interval=10, depth=0, role="Unpromoted")
    @action(timeout=20, interval=11, depth=0, role="Promoted")
    def monitor(self) -> Exit:
        return super().monitor()

    @action(timeout=15)
    def promote(self) -> None:
        self._become("promoted")

    @action(timeout=15)
    def demote(self) -> None:
        self._maybe("demote")
        if self._state():
            self._become("unpromoted")
