"""A short run of tests.fuzz, and that its oracle sees what it is there for."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fuzz import __main__ as fuzz
from tests.fuzz import runner
from tests.fuzz.target import TARGETS, Target, Wrong

# Fixed: the same inputs each time. Other seeds are for `make fuzz`.
SEED = 9
SECONDS = 25.0


def test_a_short_run_over_every_parser_and_protocol(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = fuzz.main(["--seconds", str(SECONDS), "--seed", str(SEED), "--keep", str(tmp_path),
                      "--workers", "2"])
    said = capsys.readouterr().out
    assert code == 0, said
    rows = {words[0]: int(words[1]) for line in said.splitlines()
            if len(words := line.split()) == 5 and words[1].isdecimal()}
    assert rows.keys() == {*TARGETS, "all"}
    assert all(rows.values()), said


# The oracle.

def _traceback(data: bytes, scratch: Path) -> None:
    raise KeyError("x")


def _hang(data: bytes, scratch: Path) -> None:
    while True:
        try:
            time.sleep(10)
        except Exception:
            continue


def _escape(data: bytes, scratch: Path) -> None:
    (scratch.parent.parent / "asha-fuzz-escaped").write_bytes(data)


def _link(data: bytes, scratch: Path) -> None:
    os.chmod("/", 0o755)


def _memory(data: bytes, scratch: Path) -> None:
    bytearray(2 << 30)


def _crash(data: bytes, scratch: Path) -> None:
    os._exit(3)


def _wrong(data: bytes, scratch: Path) -> None:
    raise Wrong("not so")


def _fine(data: bytes, scratch: Path) -> None:
    (scratch / "inside").write_bytes(data)
    raise OSError("declared")


@pytest.fixture
def bad(request: pytest.FixtureRequest) -> Iterator[str]:
    work = request.param
    name = f"test{work.__name__}"
    TARGETS[name] = Target(name, work, lambda rng: rng.randbytes(8), seconds=0.2)
    yield name
    del TARGETS[name]


@pytest.mark.parametrize(("bad", "kind"), [
    (_traceback, "traceback"), (_hang, "hang"), (_escape, "escape"), (_link, "escape"),
    (_memory, "memory"), (_crash, "crash"), (_wrong, "wrong"), (_fine, ""),
], indirect=["bad"])
def test_the_oracle_sees(bad: str, kind: str, tmp_path: Path) -> None:
    [result] = runner.run([bad], SEED, 30.0, tmp_path, inputs=2, say=lambda text: None)
    kinds = {failure.kind for failure in result.failures.values()}
    assert kinds == ({kind} if kind else set())
    if kind:
        # The reproducer is the very input.
        [failure] = result.failures.values()
        assert Path(failure.file).read_bytes() == runner.nth(TARGETS[bad], SEED, failure.index)


def test_an_input_depends_on_the_seed_alone() -> None:
    for name in TARGETS:
        old = len(runner.earlier(name))
        once = [runner.nth(TARGETS[name], 1, old + number) for number in range(5)]
        again = [runner.nth(TARGETS[name], 1, old + number) for number in range(5)]
        assert once == again, name
        assert once != [runner.nth(TARGETS[name], 2, old + number) for number in range(5)], name


def test_the_corpus_is_of_targets_that_there_are() -> None:
    assert {place.name for place in runner.CORPUS.iterdir() if place.is_dir()} <= TARGETS.keys()
