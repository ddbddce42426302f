"""What all relay cards share: being there, being the same one, trying again."""

import os
from pathlib import Path

import pytest

from asha.ocf import Deadline, Failed, NotInstalled
from asha.relay import DRIVERS, card_for
from asha.relay.contract import PATIENCE_SECONDS, Card, NoRelay, Position, Settings
from asha.run.runner import Completed
from tests.fakes.ocf import FakeClock


class Stubborn(Card):
    """Refuses as many commands as it is told to."""

    def __init__(self, device: str, refusals: int) -> None:
        super().__init__(device)
        self.refusals = refusals
        self.tries = 0

    def command(self, wanted: Position, deadline: Deadline) -> Position:
        self.tries += 1
        if self.tries <= self.refusals:
            raise Failed(f"refusal {self.tries}")
        return wanted


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def deadline(clock: FakeClock, seconds: float = 18.0) -> Deadline:
    return Deadline(seconds, clock, clock.sleep)


def test_a_missing_device_is_named_with_what_to_do(tmp_path: Path) -> None:
    card = Card(f"{tmp_path}/ttyUSB0")
    with pytest.raises(NotInstalled, match="ttyUSB0 is not there: is the USB cable plugged in"):
        card.check()
    assert card.identity() == ""


def test_a_file_is_not_a_device(tmp_path: Path) -> None:
    (tmp_path / "ttyUSB0").touch()
    with pytest.raises(NotInstalled, match="not a serial device"):
        Card(f"{tmp_path}/ttyUSB0").check()


def test_a_character_device_will_do_also_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "by-id").symlink_to("/dev/null")
    Card("/dev/null").check()
    Card(f"{tmp_path}/by-id").check()
    assert Card(f"{tmp_path}/by-id").identity() == Card("/dev/null").identity() != ""


def test_a_device_that_came_back_is_another_one(tmp_path: Path) -> None:
    device = tmp_path / "ttyUSB0"
    device.touch()
    before = Card(str(device)).identity()
    assert Card(str(device)).identity() == before
    # As the kernel does it: a new node under the old name.
    replacement = tmp_path / "new"
    replacement.touch()
    os.replace(replacement, device)
    assert Card(str(device)).identity() != before


def test_a_refusal_that_passes_is_no_failure(clock: FakeClock) -> None:
    card = Stubborn("/dev/null", refusals=3)
    assert card.drive(Position.ON, deadline(clock)) is Position.ON
    assert card.tries == 4


def test_a_card_that_keeps_refusing_fails_within_its_patience(clock: FakeClock) -> None:
    card = Stubborn("/dev/null", refusals=1000)
    begun = clock()
    with pytest.raises(Failed, match="refusal"):
        card.drive(Position.OFF, deadline(clock))
    assert PATIENCE_SECONDS <= clock() - begun < PATIENCE_SECONDS + 1


def test_the_action_deadline_is_shorter_than_patience(clock: FakeClock) -> None:
    begun = clock()
    with pytest.raises(Failed):
        Stubborn("/dev/null", refusals=1000).drive(Position.OFF, deadline(clock, 1.0))
    assert clock() - begun < 1.1


def test_a_card_that_is_gone_is_not_waited_for(clock: FakeClock, tmp_path: Path) -> None:
    card = Stubborn(f"{tmp_path}/ttyUSB0", refusals=1000)
    with pytest.raises(Failed, match="refusal 1"):
        card.drive(Position.OFF, deadline(clock))


def test_no_relay_is_always_there_and_knows_nothing(clock: FakeClock) -> None:
    nothing = NoRelay()
    nothing.check()
    nothing.reset(deadline(clock))
    assert nothing.identity()
    for wanted in (Position.ON, Position.OFF):
        assert nothing.drive(wanted, deadline(clock)) is Position.UNKNOWN
    assert nothing.read(deadline(clock)) is Position.UNKNOWN
    assert not nothing.reads_back


def run(*argv: str, cap: float | None = None) -> Completed:
    raise AssertionError(f"making a driver runs nothing: {argv}")


@pytest.mark.parametrize("driver", DRIVERS)
def test_every_driver_can_be_made(driver: str) -> None:
    card = card_for(Settings(driver, "/dev/null", 0, "/bin/true"), run)
    assert card.device == "/dev/null"
    assert type(card).__name__.lower() == driver


def test_an_unknown_driver_is_refused() -> None:
    with pytest.raises(ValueError, match=f"no driver 'abacus'; there is {', '.join(DRIVERS)}"):
        card_for(Settings("abacus", "/dev/null", 0, ""), run)


@pytest.mark.parametrize(("place", "words"), [
    ("debian/asha.templates", "{} is"),
    ("debian/po/templates.pot", "{} is"),
    ("docs/man/asha.conf.5.md", "**{}**"),
    ("asha/agents/rhino_relay.py", "{}:"),
])
def test_every_driver_is_described(place: str, words: str) -> None:
    """Where a table of names would not do."""
    source = (Path(__file__).parents[2] / place).read_text(encoding="utf-8")
    text = " ".join(source.replace('"', " ").split())
    assert [name for name in DRIVERS if f" {words.format(name)} " not in text] == []
