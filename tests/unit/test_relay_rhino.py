"""The Rhino card: which programs are run, and what their end means."""

from pathlib import Path

import pytest

from asha.ocf import Deadline, Expired, Failed, NotInstalled
from asha.relay.contract import PATIENCE_SECONDS, Position
from asha.relay.rhino import RESET_SECONDS, Rhino
from asha.run.runner import Completed
from tests.fakes.ocf import CallQueue, FakeClock

PROGRAM = "/usr/local/bin/rhinofailover"


class Bench:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.deadline = Deadline(18.0, self.clock, self.clock.sleep)
        self.queue = CallQueue()
        self.caps: list[float | None] = []
        self.card = Rhino("/dev/null", PROGRAM, self.run)

    def run(self, *argv: str, cap: float | None = None) -> Completed:
        self.caps.append(cap)
        return self.queue.run(argv, self.deadline, cap=cap)


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.mark.parametrize(("wanted", "word"), [(Position.ON, "RELAYON"), (Position.OFF, "RELAYOFF")])
def test_a_command_stays_unconfirmed(bench: Bench, wanted: Position, word: str) -> None:
    bench.queue.expect(PROGRAM, "/dev/null", word, "0")
    assert bench.card.drive(wanted, bench.deadline) is Position.UNKNOWN
    bench.queue.done()


def test_reset_gives_the_card_its_second(bench: Bench) -> None:
    bench.queue.expect(PROGRAM, "/dev/null", "RESET")
    begun = bench.clock()
    bench.card.reset(bench.deadline)
    assert bench.clock() - begun == RESET_SECONDS
    bench.queue.done()


def test_it_never_says_where_it_is(bench: Bench) -> None:
    assert not bench.card.reads_back
    assert bench.card.read(bench.deadline) is Position.UNKNOWN
    assert "no read-back" in bench.card.trouble


def test_a_refusal_is_tried_again_and_then_told_in_the_program_s_words(bench: Bench) -> None:
    for _ in range(100):
        bench.queue.expect(PROGRAM, "/dev/null", "RELAYOFF", "0", code=1, err="port busy\n")
    begun = bench.clock()
    with pytest.raises(Failed, match="relay card /dev/null refused RELAYOFF 0: port busy"):
        bench.card.drive(Position.OFF, bench.deadline)
    assert len(bench.queue.seen) > 1
    assert bench.clock() - begun < PATIENCE_SECONDS + 1


def test_a_passing_refusal_is_no_failure(bench: Bench) -> None:
    bench.queue.expect(PROGRAM, "/dev/null", "RELAYON", "0", code=1)
    bench.queue.expect(PROGRAM, "/dev/null", "RELAYON", "0")
    bench.card.drive(Position.ON, bench.deadline)
    bench.queue.done()


def test_a_hanging_program_is_capped(bench: Bench) -> None:
    for _ in range(100):
        bench.queue.expect(
            PROGRAM, "/dev/null", "RELAYON", "0", raises=Expired("did not end within 3.0 s")
        )
    with pytest.raises(Expired):
        bench.card.drive(Position.ON, bench.deadline)
    assert all(cap is not None and cap <= 3.0 for cap in bench.caps)


def test_a_missing_program_is_not_tried_again(bench: Bench) -> None:
    bench.queue.expect(PROGRAM, "/dev/null", "RELAYON", "0", raises=NotInstalled("no program"))
    with pytest.raises(NotInstalled):
        bench.card.drive(Position.ON, bench.deadline)
    assert len(bench.queue.seen) == 1


def test_check_wants_a_program_that_can_be_run(bench: Bench, tmp_path: Path) -> None:
    program = tmp_path / "rhinofailover"
    card = Rhino("/dev/null", str(program), bench.run)
    with pytest.raises(NotInstalled, match=r"rhinofailover is not installed: build it"):
        card.check()
    program.touch(mode=0o644)
    with pytest.raises(NotInstalled):
        card.check()
    program.chmod(0o755)
    card.check()
