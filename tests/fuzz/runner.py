"""Gives inputs to targets, each in a child that may hang, die or eat its memory."""

from __future__ import annotations

import json
import mmap
import os
import random
import select
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.fuzz.guard import Escaped, Hung, wall_in
from tests.fuzz.target import DECLARED, TARGETS, Target

CORPUS = Path(__file__).parent / "corpus"

# Beyond a target's own seconds: a child that is stuck where no signal of ours reaches it.
STUCK_SECONDS = 20.0
# Of one target; then it is given up.
FAILURES_MOST = 40
TICK = 0.05

HEARTBEAT = struct.Struct("qd")


@dataclass
class Failure:
    """``kind``: traceback, hang, memory, escape, wrong or crash."""

    target: str
    index: int
    kind: str
    what: str
    where: str
    count: int = 1
    file: str = ""


@dataclass
class Result:
    target: str
    inputs: int = 0
    failures: dict[tuple[str, str], Failure] = field(default_factory=dict)

    def add(self, failure: Failure) -> Failure | None:
        """None if the same is known: kind, and the line of ASHA's that it came from."""
        known = self.failures.get((failure.kind, failure.where))
        if known is not None:
            known.count += 1
            return None
        self.failures[failure.kind, failure.where] = failure
        return failure


def earlier(name: str) -> list[bytes]:
    """The corpus: inputs that failed once. Given first, in the order of their names."""
    return [place.read_bytes() for place in sorted((CORPUS / name).glob("*"))]


def nth(target: Target, seed: int, index: int) -> bytes:
    """The input of that number: from the corpus, then made."""
    old = earlier(target.name)
    if index < len(old):
        return old[index]
    return target.make(random.Random(f"{seed}/{target.name}/{index - len(old)}"))


def try_one(target: Target, data: bytes, scratch: Path) -> tuple[str, str, str] | None:
    """Kind, text and place of what went wrong; None if nothing did."""
    signal.setitimer(signal.ITIMER_REAL, target.seconds)
    try:
        target.run(data, scratch)
    except (*DECLARED, *target.errors):
        return None
    except Hung as problem:
        return "hang", str(problem), _place(problem)
    except Escaped as problem:
        return "escape", str(problem), _place(problem)
    except MemoryError as problem:
        return "memory", repr(problem), _place(problem)
    except Exception as problem:
        kind = "wrong" if type(problem).__name__ == "Wrong" else "traceback"
        return kind, f"{type(problem).__name__}: {problem!s:.300}", _place(problem)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return None


def _place(problem: BaseException) -> str:
    """The innermost line of ASHA's own."""
    frames = traceback.extract_tb(problem.__traceback__)
    ours = [one for one in frames if "/asha/" in one.filename] or frames
    last = ours[-1]
    return f"{'/'.join(Path(last.filename).parts[-3:])}:{last.lineno}"


class _Child:
    """One target at work in a process of its own."""

    def __init__(self, target: Target, seed: int, first: int, last: int, end: float) -> None:
        self.target = target
        self.last = last
        self.end = end
        self.scratch = Path(tempfile.mkdtemp(prefix="asha-fuzz-"))
        self.beat = mmap.mmap(-1, HEARTBEAT.size)
        self.beat[:] = HEARTBEAT.pack(first, time.monotonic())
        self.reader, writer = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            code = 1
            try:
                os.close(self.reader)
                _work(self, seed, first, writer)
                code = 0
            except BaseException as problem:
                about = [str(self.index), "crash", repr(problem), _place(problem)]
                os.write(writer, json.dumps(about).encode() + b"\n")
            finally:
                os._exit(code)
        os.close(writer)
        os.set_blocking(self.reader, False)
        self.pending = b""

    @property
    def index(self) -> int:
        return int(HEARTBEAT.unpack(self.beat[:])[0])

    @property
    def is_stuck(self) -> bool:
        since = HEARTBEAT.unpack(self.beat[:])[1]
        return bool(time.monotonic() - since > self.target.seconds + STUCK_SECONDS)

    def told(self) -> list[list[str]]:
        """The failures that came since."""
        try:
            while part := os.read(self.reader, 65536):
                self.pending += part
        except BlockingIOError:
            pass
        *lines, self.pending = self.pending.split(b"\n")
        return [json.loads(line) for line in lines]

    def close(self) -> None:
        os.close(self.reader)
        self.beat.close()
        shutil.rmtree(self.scratch, ignore_errors=True)


def _work(child: _Child, seed: int, first: int, writer: int) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    target, scratch = child.target, child.scratch
    os.chdir(scratch)
    old = earlier(target.name)
    wall_in(scratch)
    index = first
    while index < child.last and (index < len(old) or time.monotonic() < child.end):
        child.beat[:] = HEARTBEAT.pack(index, time.monotonic())
        data = old[index] if index < len(old) else \
            target.make(random.Random(f"{seed}/{target.name}/{index - len(old)}"))
        room = scratch / "room"
        room.mkdir()
        found = try_one(target, data, room)
        if found:
            os.write(writer, json.dumps([str(index), *found]).encode() + b"\n")
        shutil.rmtree(room, ignore_errors=True)
        index += 1
    child.beat[:] = HEARTBEAT.pack(index, time.monotonic())


def run(
    names: Sequence[str], seed: int, seconds: float, keep: Path, *, workers: int = 2,
    inputs: int = sys.maxsize, say: Callable[[str], None] = print,
) -> list[Result]:
    """Give each target its share of ``seconds``, or ``inputs`` at most; all its corpus."""
    share = seconds * workers / max(1, len(names))
    results = {name: Result(name) for name in names}
    waiting = [(TARGETS[name], 0, share) for name in names]
    active: list[_Child] = []
    try:
        while waiting or active:
            while waiting and len(active) < workers:
                target, first, left = waiting.pop(0)
                active.append(_Child(target, seed, first, inputs, time.monotonic() + left))
            select.select([child.reader for child in active], [], [], TICK)
            for child in list(active):
                _attend(child, results[child.target.name], seed, keep, say, waiting, active)
    finally:
        for child in active:
            os.kill(child.pid, signal.SIGKILL)
            os.waitpid(child.pid, 0)
            child.close()
    return list(results.values())


def _attend(child: _Child, result: Result, seed: int, keep: Path, say: Callable[[str], None],
            waiting: list[tuple[Target, int, float]], active: list[_Child]) -> None:
    name = child.target.name

    def record(index: int, kind: str, what: str, where: str) -> None:
        new = result.add(Failure(name, index, kind, what, where))
        if new is not None:
            keep.mkdir(parents=True, exist_ok=True)
            file = keep / f"{name}-{seed}-{index}"
            file.write_bytes(nth(child.target, seed, index))
            new.file = str(file)
            say(f"{name}: {kind}: {what} ({where}); {file}")

    stuck = child.is_stuck
    if stuck:
        os.kill(child.pid, signal.SIGKILL)
    pid, status = os.waitpid(child.pid, 0 if stuck else os.WNOHANG)
    for index, kind, what, where in child.told():
        record(int(index), kind, what, where)
    if not pid:
        return
    active.remove(child)
    reached = child.index
    result.inputs = reached
    if stuck:
        record(reached, "hang", "stuck, and no signal ends it", "?")
    elif status:
        record(reached, "crash", f"the process has ended: {os.waitstatus_to_exitcode(status)}", "?")
    left = child.end - time.monotonic()
    if status and (left > 0 or reached < len(earlier(name))) \
            and sum(one.count for one in result.failures.values()) < FAILURES_MOST:
        waiting.append((child.target, reached + 1, max(left, 0.0)))
    child.close()
