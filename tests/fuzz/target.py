"""What a target is, and the list of them."""

from __future__ import annotations

import inspect
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asha.errors import UserError
from asha.run.results import AgentError
from tests.fuzz import mutate

Run = Callable[[bytes, Path], None]
Make = Callable[[random.Random], bytes]

# What every function may raise.
DECLARED: tuple[type[Exception], ...] = (UserError, AgentError, OSError)


class Wrong(Exception):
    """The function has returned, and what it says or has done is not right."""


@dataclass(frozen=True)
class Target:
    """``run`` is given an input and an empty directory; ``errors`` are what the function
    may raise beside DECLARED. ``seconds``: after which an input counts as hung."""

    name: str
    run: Run
    make: Make
    errors: tuple[type[Exception], ...] = ()
    seconds: float = 20.0
    about: str = ""


TARGETS: dict[str, Target] = {}


def target(
    name: str,
    *samples: str | bytes,
    make: Make | None = None,
    errors: tuple[type[Exception], ...] = (),
    seconds: float = 20.0,
) -> Callable[[Run], Run]:
    """Register a function: inputs are mutations of ``samples``, or what ``make`` makes."""
    raw = [one.encode("utf-8", "surrogateescape") if isinstance(one, str) else one
           for one in samples]

    def register(run: Run) -> Run:
        assert name not in TARGETS, name
        assert raw or make, f"{name} has no samples"
        TARGETS[name] = Target(
            name, run, make or (lambda rng: mutate.some(rng, raw)), errors, seconds,
            (run.__doc__ or "").strip().split("\n")[0],
        )
        return run

    return register


def given(function: Callable[..., Any], **arguments: Any) -> Any:
    """Call it with those of the arguments that it has."""
    names = inspect.signature(function).parameters
    return function(**{name: value for name, value in arguments.items() if name in names})


def text(data: bytes) -> str:
    """As ASHA reads a file."""
    return data.decode("utf-8", "surrogateescape")
