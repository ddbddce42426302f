"""A machine for tests: files below a directory, programs from a table.

Nothing real is ever run. A program that the table does not know fails the test,
so that no test passes because a command was misspelt.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from asha.machine import Machine
from asha.run.results import NotInstalled
from asha.run.runner import Completed


@dataclass(frozen=True)
class Outcome:
    """How a program ends: what it prints, and its exit code."""

    out: str = ""
    code: int = 0
    err: str = ""


@dataclass(frozen=True)
class Call:
    """One run of a program."""

    argv: tuple[str, ...]
    stdin: str | None = None

    def __str__(self) -> str:
        return " ".join(self.argv)


# Given the whole argv and the input.
Program = Callable[[tuple[str, ...], str | None], "Outcome | str"]
# Text is what it prints, with exit code 0. Of a list each run takes the next one;
# the last answers for ever.
Answer = Outcome | str | Program | Sequence["Outcome | str"]


class FakeMachine(Machine):
    """``FakeMachine(tmp_path, {"ip -j addr": "[]", "mkfs.ext4": Outcome(code=1)})``.

    The keys are beginnings of command lines, word by word; the longest that fits
    answers. ``calls`` records what was run, ``owners`` who was to own what was
    written (nothing is chowned, so that it works as any user). Pauses take no time;
    ``clock`` is how long they would have taken.
    """

    def __init__(self, root: Path | str, programs: Mapping[str, Answer] | None = None) -> None:
        super().__init__(str(root))
        self.calls: list[Call] = []
        self.clock = 0.0
        self.owners: dict[str, tuple[str, str]] = {}
        self._table: dict[tuple[str, ...], Answer] = {}
        self._installed: set[str] = set()
        self._absent: set[str] = set()
        for beginning, answer in (programs or {}).items():
            self.on(beginning, answer)

    # What the test says.

    def on(self, beginning: str, answer: Answer = "") -> FakeMachine:
        """Have the command lines that begin so answer this from now on."""
        words = tuple(beginning.split())
        self._table[words] = list(answer) if isinstance(answer, list | tuple) else answer
        self._absent.discard(words[0])
        return self

    def installed(self, *programs: str) -> FakeMachine:
        """``has`` says yes; a run still needs an answer."""
        self._installed.update(programs)
        self._absent.difference_update(programs)
        return self

    def absent(self, *programs: str) -> FakeMachine:
        """Not installed: a run raises UserError, as it would for real."""
        self._absent.update(programs)
        return self

    def put(self, inside: str, text: str = "", mode: int = 0o644) -> FakeMachine:
        """A file that is there to begin with."""
        place = self.path(inside)
        # by name: a test's own directory
        place.parent.mkdir(parents=True, exist_ok=True)
        # by name: a test's own directory
        place.unlink(missing_ok=True)  # it may be read-only, for who is not root
        # by name: a test's own directory
        place.write_text(text, encoding="utf-8", errors="surrogateescape")
        # by name: a test's own directory
        place.chmod(mode)
        return self

    # What the test asks.

    @property
    def lines(self) -> list[str]:
        """The command lines that were run, in order."""
        return [str(call) for call in self.calls]

    def ran(self, beginning: str) -> list[Call]:
        """The runs that began with these words."""
        words = tuple(beginning.split())
        return [call for call in self.calls if call.argv[: len(words)] == words]

    # Machine.

    def write(self, inside: str, text: str, mode: int = 0o644, owner: str = "root",
              group: str = "") -> None:
        self.put(inside, text, mode)
        self.owners[inside] = (owner, group or owner)

    def owner_of(self, inside: str) -> tuple[str, str]:
        """As written; root's, where the test put it there."""
        return self.owners.get(inside, ("root", "root"))

    def now(self) -> float:
        return self.clock

    def pause(self, seconds: float) -> None:
        """No waiting: the clock is put on."""
        self.clock += seconds

    def has(self, program: str) -> bool:
        if program in self._absent:
            return False
        return program in self._installed or any(words[0] == program for words in self._table)

    def _run(self, argv: Sequence[str], timeout: float, stdin: str | None,
             environ: Mapping[str, str] | None, keep_open: Sequence[int]) -> Completed:
        if argv[0] in self._absent:
            raise NotInstalled(f"program {argv[0]} is not installed")
        self.calls.append(Call(tuple(argv), stdin))
        outcome = self._answer(tuple(argv), stdin)
        return Completed(argv, outcome.code, outcome.out, outcome.err)

    def _answer(self, argv: tuple[str, ...], stdin: str | None) -> Outcome:
        fitting = [words for words in self._table if argv[: len(words)] == words]
        if not fitting:
            raise AssertionError(f"the test has no answer for: {' '.join(argv)}")
        answer = self._table[max(fitting, key=len)]
        if isinstance(answer, list):
            answer = answer.pop(0) if len(answer) > 1 else answer[0]
        elif callable(answer):
            answer = answer(argv, stdin)
        if isinstance(answer, str):
            return Outcome(answer)
        assert isinstance(answer, Outcome)
        return answer
