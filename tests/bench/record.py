"""What a run measured, raw: kept on disk while it goes on, so that one cut off is not lost."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Sample:
    """One fault on one stack. Times in seconds, from the beginning of the injection.

    ``outage`` None: it was not cured while it was watched. ``detection`` None: the
    cluster did not say that it saw it. ``problem``: why the turn could not be played
    to its end; such a sample has no times.
    """

    round: int
    stack: str
    fault: str
    outage: float | None = None
    detection: float | None = None
    watched: float = 0.0
    problem: str = ""


@dataclass(frozen=True)
class Idle:
    """CPU of a whole node in microseconds, over so many seconds, with and without monitors."""

    stack: str
    with_monitors: float
    with_seconds: float
    without: float
    without_seconds: float

    @property
    def share(self) -> float:
        """Of one core, 0 to 1."""
        return (self.with_monitors / self.with_seconds
                - self.without / self.without_seconds) / 1e6


@dataclass
class Run:
    """Everything that a report is made of."""

    command: str
    rounds: int
    about: dict[str, str] = field(default_factory=dict)
    samples: list[Sample] = field(default_factory=list)
    # Milliseconds of CPU per monitor, by name, one per turn.
    monitors: dict[str, list[float]] = field(default_factory=dict)
    idle: list[Idle] = field(default_factory=list)
    # What happened beside the plan.
    notes: list[str] = field(default_factory=list)

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_suffix(".new")
        fresh.write_text(json.dumps(asdict(self), indent=1))
        fresh.rename(path)

    @classmethod
    def load(cls, path: Path) -> Run:
        """Raises OSError, ValueError or TypeError for what save did not write."""
        said = json.loads(path.read_text())
        said["samples"] = [Sample(**one) for one in said["samples"]]
        said["idle"] = [Idle(**one) for one in said["idle"]]
        return cls(**said)
