"""Typed parameters of an agent: declared once, parsed when they are first read.

Each is a descriptor: declared in the class, read as an attribute of the agent. A value that
does not parse raises BadConfig (it is invalid on every node), and only when it is read: an
action that does not read it is not disturbed.
"""

from __future__ import annotations

from asha.run.results import BadConfig

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Protocol

    class HasParameters(Protocol):
        @property
        def environ(self) -> Mapping[str, str]: ...


TRUE_WORDS = frozenset(("1", "y", "yes", "true", "on"))
FALSE_WORDS = frozenset(("0", "n", "no", "false", "off"))

# Pacemaker's time units (pcmk_parse_interval_spec); seconds without a unit.
TIME_UNITS = (
    ("msec", 0.001),
    ("ms", 0.001),
    ("min", 60.0),
    ("sec", 1.0),
    ("hr", 3600.0),
    ("m", 60.0),
    ("h", 3600.0),
    ("s", 1.0),
)

# Beyond any sense, and less than the 2**31 ms that poll() can be asked to wait.
LONGEST_DURATION = 500 * 3600.0


class Parameter:
    """Base of all parameters; not declared itself."""

    # string, integer or boolean: what ra-api-1.dtd and metadata.rng both know.
    content_type = "string"
    name = ""

    def __init__(
        self,
        short: str,
        long: str = "",
        *,
        default: str | None = None,
        required: bool = False,
        unique: bool = False,
    ) -> None:
        if required and default is not None:
            raise TypeError("a required parameter has no default")
        self.short = short
        self.long = long or short
        self.default = default
        self.required = required
        self.unique = unique

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def text(self, environ: Mapping[str, str]) -> str:
        """The value as given, or the default, or "" where there is neither."""
        given = environ.get(f"OCF_RESKEY_{self.name}", "").strip()
        if given:
            return given
        if self.required:
            raise BadConfig(f"parameter {self.name} is required")
        return self.default or ""

    def bad(self, value: str, wanted: str) -> BadConfig:
        return BadConfig(f'parameter {self.name}="{value}": {wanted}')

    def parse(self, environ: Mapping[str, str]) -> object:
        """The typed value. Raises BadConfig when the text is bad."""
        return self.text(environ)


class String(Parameter):
    """Any text."""

    def __get__(self, agent: HasParameters, owner: type) -> str:
        return self.parse(agent.environ)

    def parse(self, environ: Mapping[str, str]) -> str:
        return self.text(environ)


class Choice(String):
    """One word of a list."""

    def __init__(self, short: str, long: str = "", *, choices: Sequence[str], default: str) -> None:
        super().__init__(short, long, default=default)
        self.choices = tuple(choices)
        if default not in self.choices:
            raise TypeError("the default of a choice is one of its words")

    def parse(self, environ: Mapping[str, str]) -> str:
        value = self.text(environ)
        if value not in self.choices:
            raise self.bad(value, f"must be one of {', '.join(self.choices)}")
        return value


class Path(String):
    """An absolute path in its shortest spelling; existence is not looked at."""

    def parse(self, environ: Mapping[str, str]) -> str:
        value = self.text(environ)
        if value:
            problem = path_problem(value)
            if problem:
                raise self.bad(value, problem)
        return value


class Integer(Parameter):
    """A whole number within a range."""

    content_type = "integer"

    def __init__(
        self,
        short: str,
        long: str = "",
        *,
        default: int,
        least: int = 0,
        most: int | None = None,
        unit: str = "",
    ) -> None:
        super().__init__(short, long, default=str(default))
        self.least = least
        self.most = most
        self.unit = unit

    def __get__(self, agent: HasParameters, owner: type) -> int:
        return self.parse(agent.environ)

    def parse(self, environ: Mapping[str, str]) -> int:
        text = self.text(environ)
        try:
            # int() would take 1_000 and the digits of every script.
            value = int(text if text.isascii() and "_" not in text else "")
        except ValueError:
            raise self.bad(text, "must be a whole number") from None
        if value < self.least or (self.most is not None and value > self.most):
            raise self.bad(text, f"must be {self.span} {self.unit}".rstrip())
        return value

    @property
    def span(self) -> str:
        """The range in words."""
        up_to = "upwards" if self.most is None else f"to {self.most}"
        return f"from {self.least} {up_to}"


class Boolean(Parameter):
    """Yes or no, in the words that resource agents in shell accept."""

    content_type = "boolean"

    def __init__(self, short: str, long: str = "", *, default: bool) -> None:
        super().__init__(short, long, default="true" if default else "false")

    def __get__(self, agent: HasParameters, owner: type) -> bool:
        return self.parse(agent.environ)

    def parse(self, environ: Mapping[str, str]) -> bool:
        text = self.text(environ).lower()
        if text in TRUE_WORDS:
            return True
        if text in FALSE_WORDS:
            return False
        raise self.bad(text, "must be true or false")


class Duration(Parameter):
    """A time with one of Pacemaker's units (``500ms``, ``10s``, ``2min``).

    Read as seconds, as is a bare number.
    """

    def __init__(self, short: str, long: str = "", *, default: str) -> None:
        super().__init__(short, long, default=default)

    def __get__(self, agent: HasParameters, owner: type) -> float:
        return self.parse(agent.environ)

    def parse(self, environ: Mapping[str, str]) -> float:
        text = self.text(environ)
        number, factor = text.lower(), 1.0
        for unit, seconds in TIME_UNITS:
            if number.endswith(unit):
                number, factor = number[: -len(unit)].strip(), seconds
                break
        if not (number.isascii() and number.replace(".", "", 1).isdecimal()):
            raise self.bad(text, "must be a time such as 500ms, 10s or 2min")
        value = float(number) * factor
        if not 0 < value <= LONGEST_DURATION:
            raise self.bad(text, "must be more than nothing and at most 500 hours")
        return value


def path_problem(path: str) -> str:
    """What is wrong with a path's spelling, "" if nothing is."""
    if not path.startswith("/"):
        return "must be an absolute path"
    parts = path.split("/")[1:]
    if ".." in parts or "." in parts:
        return "must not contain . or .."
    if path != "/" and "" in parts:
        return "must not contain // or end in /"
    if any(ord(character) < 32 for character in path):
        return "must not contain control characters"
    return ""
