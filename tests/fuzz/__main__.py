"""``python3 -m tests.fuzz``: a bounded run over all targets, or some."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.fuzz import files, parsers, peers  # noqa: F401  (they register the targets)
from tests.fuzz.guard import wall_in
from tests.fuzz.runner import Result, run, try_one
from tests.fuzz.target import TARGETS

KEEP = Path(__file__).parents[2] / "build" / "fuzz"


def main(argv: Sequence[str] | None = None) -> int:
    """0: nothing found. 1: something. 2: wrong usage."""
    parser = argparse.ArgumentParser(
        prog="python3 -m tests.fuzz",
        description="Bad input for every parser and protocol that takes bytes from another "
                    "user or host. Nothing may hang, end in a traceback, take much memory or "
                    "write elsewhere.",
    )
    parser.add_argument("--seconds", type=float, default=600.0, help="in all (600)")
    parser.add_argument("--seed", type=int, default=None, help="(the time) the same inputs again")
    parser.add_argument("--target", action="append", choices=sorted(TARGETS), metavar="NAME",
                        help="only this one; several times for several")
    parser.add_argument("--inputs", type=int, default=sys.maxsize, help="of each target, at most")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--keep", type=Path, default=KEEP, metavar="DIR",
                        help="where inputs that fail are written (build/fuzz)")
    parser.add_argument("--replay", type=Path, metavar="FILE",
                        help="give this input to --target and show what comes of it")
    parser.add_argument("--list", action="store_true", help="the targets")
    options = parser.parse_args(argv)
    names = options.target or sorted(TARGETS)
    if options.list:
        for name in names:
            print(f"{name:<16}{TARGETS[name].about}")
        return 0
    if options.replay is not None:
        if len(names) != 1:
            parser.error("--replay needs one --target")
        return replay(names[0], options.replay.read_bytes())
    seed = int(time.time()) if options.seed is None else options.seed
    print(f"seed {seed}, {options.seconds:.0f} s, {len(names)} targets", flush=True)
    begun = time.monotonic()
    results = run(names, seed, options.seconds, options.keep, workers=options.workers,
                  inputs=options.inputs, say=lambda text: print(text, flush=True))
    print(table(results))
    print(f"{time.monotonic() - begun:.0f} s")
    return 1 if any(result.failures for result in results) else 0


def replay(name: str, data: bytes) -> int:
    """In this process, so that a debugger can look."""
    with tempfile.TemporaryDirectory(prefix="asha-fuzz-") as place:
        scratch = Path(place) / "room"
        scratch.mkdir()
        wall_in(Path(place))
        found = try_one(TARGETS[name], data, scratch)
        print("nothing wrong" if found is None else ": ".join(found))
    return 0 if found is None else 1


def table(results: Sequence[Result]) -> str:
    lines = [f"{'target':<16}{'inputs':>9}{'failures':>10}{'hangs':>7}{'tracebacks':>12}"]
    total = [0, 0, 0, 0]
    for result in sorted(results, key=lambda one: one.target):
        failures = result.failures.values()
        row = [result.inputs, sum(one.count for one in failures),
               sum(one.count for one in failures if one.kind == "hang"),
               sum(one.count for one in failures if one.kind == "traceback")]
        total = [a + b for a, b in zip(total, row, strict=True)]
        lines.append(_row(result.target, row))
    return "\n".join([*lines, _row("all", total)])


def _row(name: str, row: Sequence[int]) -> str:
    return f"{name:<16}{row[0]:>9}{row[1]:>10}{row[2]:>7}{row[3]:>12}"


if __name__ == "__main__":
    sys.exit(main())
