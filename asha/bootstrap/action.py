"""What a step is made of: single changes that know whether they are needed.

An action can say what it will do (``preview``), whether it is done (``is_done``), do it, and
write itself down as shell (``script``). The plan, the install and the scripts use the same
objects.
"""

from __future__ import annotations

import difflib
import shlex
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from asha.bootstrap.host import services
from asha.errors import UserError
from asha.machine import Machine
from asha.machine import Say as Say


class Action(ABC):
    """One change of the machine."""

    title: str

    @abstractmethod
    def is_done(self, machine: Machine) -> bool:
        """Whether nothing is left to do. Changes nothing; may be called at any time."""

    @abstractmethod
    def preview(self, machine: Machine) -> str:
        """The command, or the difference to the file, for a person to read."""

    @abstractmethod
    def script(self) -> str:
        """Shell lines that do the same."""

    @abstractmethod
    def do(self, machine: Machine, say: Say) -> None:
        """Make the change. Raises UserError. Called again after any interruption, the result is
        the same."""


@dataclass
class Write(Action):
    """A file with this text. ``secret``: it is never shown, unless ``masked`` is there: that
    returns a text without the secrets in it."""

    path: str
    text: str
    mode: int = 0o644
    owner: str = "root"
    group: str = "root"
    secret: bool = False
    why: str = ""
    masked: Callable[[str], str] | None = None

    @property
    def title(self) -> str:  # type: ignore[override]
        return self.why or f"write {self.path}"

    def is_done(self, machine: Machine) -> bool:
        if machine.read(self.path) != self.text:
            return False
        mode = machine.path(self.path).stat().st_mode & 0o7777
        return mode == self.mode and machine.owner_of(self.path) == (self.owner, self.group)

    def preview(self, machine: Machine) -> str:
        old = machine.read(self.path)
        about = f"write {self.path} (mode {self.mode:o}, {self.owner}:{self.group})"
        if self.secret and self.masked is None:
            return f"{about}: secret, not shown"
        shown = self.masked or str
        diff = difflib.unified_diff(
            shown(old or "").splitlines(),
            shown(self.text).splitlines(),
            self.path if old is not None else "/dev/null",
            self.path,
            lineterm="",
        )
        return "\n".join([about, *diff])

    def script(self) -> str:
        if self.secret:
            return f"# {self.path}: has a secret\nasha step --file {shlex.quote(self.path)}"
        quoted = shlex.quote(self.path)
        owner = f"-o {self.owner} -g {self.group}"
        return (
            f"install -D -m {self.mode:o} {owner} /dev/stdin {quoted} <<'END-OF-FILE'\n"
            f"{self.text.rstrip(chr(10))}\nEND-OF-FILE"
        )

    def do(self, machine: Machine, say: Say) -> None:
        machine.write(self.path, self.text, self.mode, self.owner, self.group)


@dataclass
class Run(Action):
    """A program to run, unless ``done`` is true already."""

    title: str
    argv: Sequence[str]
    done: Callable[[Machine], bool]
    timeout: float = 60.0
    hint: str = ""

    def is_done(self, machine: Machine) -> bool:
        return self.done(machine)

    def preview(self, machine: Machine) -> str:
        return self.script()

    def script(self) -> str:
        return shlex.join(self.argv)

    def do(self, machine: Machine, say: Say) -> None:
        try:
            machine.run(*self.argv, timeout=self.timeout)
        except UserError as trouble:
            raise UserError(str(trouble), trouble.hint or self.hint) from None


def enable(title: str, *units: str) -> Run:
    """Have systemd start these at each boot."""
    return Run(
        title=title,
        argv=["systemctl", "enable", *units],
        done=lambda machine: all(services.is_enabled(machine, unit) for unit in units),
    )


@dataclass
class Call(Action):
    """Work of our own that is not one command. It can be run alone by its name.

    ``name`` is unique in the plan (``asha step NAME``); ``what`` tells a person, in lines, what
    is done in which order.
    """

    name: str
    title: str
    what: str
    work: Callable[[Machine, Say], None]
    done: Callable[[Machine], bool]

    def is_done(self, machine: Machine) -> bool:
        return self.done(machine)

    def preview(self, machine: Machine) -> str:
        return self.what

    def script(self) -> str:
        comment = "".join(f"# {line}\n" for line in self.what.splitlines())
        return f"{comment}asha step {shlex.quote(self.name)}"

    def do(self, machine: Machine, say: Say) -> None:
        self.work(machine, say)


@dataclass
class Step:
    """A numbered group of actions: 10, 20, 30, 50 or 70, as in the manual of 2014."""

    number: int
    name: str
    title: str
    actions: list[Action] = field(default_factory=list)

    def is_done(self, machine: Machine) -> bool:
        return all(action.is_done(machine) for action in self.actions)
