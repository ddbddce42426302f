"""The Numato module's protocol, spoken with a tty in memory."""

import sys
from pathlib import Path

import pytest

from asha.ocf import Deadline, Failed, NotInstalled
from asha.relay.contract import PATIENCE_SECONDS, Position
from asha.relay.numato import ANSWER_SECONDS, HIGHEST, READ_TRIES, Numato, open_port, relay_name
from tests.fakes.ocf import FakeClock
from tests.fakes.relay import FakePort


class Module:
    """A module in order; ``say`` replaces its answer to commands it is given for."""

    def __init__(self, clock: FakeClock) -> None:
        self.on = False
        self.obeys = True
        self.say: dict[str, bytes] = {}
        self.port = FakePort(self.answer, lambda: clock.sleep(0.1))
        self.opened: list[str] = []

    def open(self, device: str) -> FakePort:
        self.opened.append(device)
        return self.port

    def answer(self, command: str) -> bytes:
        for known, answer in self.say.items():
            if command.startswith(known):
                return answer
        echo = command.encode() + b"\n\r"
        if command.startswith("relay read"):
            return echo + (b"on" if self.on else b"off") + b"\n\r>"
        if self.obeys:
            self.on = command.startswith("relay on")
        return echo + b">"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def module(clock: FakeClock) -> Module:
    return Module(clock)


@pytest.fixture
def limit(clock: FakeClock) -> Deadline:
    return Deadline(18.0, clock, clock.sleep)


def card(module: Module, number: int = 0) -> Numato:
    return Numato("/dev/null", number, module.open)


@pytest.mark.parametrize(
    ("number", "name"), [(0, "0"), (9, "9"), (10, "A"), (15, "F"), (16, "G"), (HIGHEST, "V")]
)
def test_relays_beyond_9_are_letters(number: int, name: str) -> None:
    assert relay_name(number) == name


@pytest.mark.parametrize("number", [-1, HIGHEST + 1])
def test_a_relay_that_no_module_has_is_refused(number: int) -> None:
    with pytest.raises(ValueError, match=f"relay {number}: must be from 0 to {HIGHEST}"):
        relay_name(number)


def test_a_command_is_read_back(module: Module, limit: Deadline) -> None:
    relay = card(module, 11)
    assert relay.drive(Position.ON, limit) is Position.ON
    assert module.on
    assert module.port.commands == ["relay on B", "relay read B"]
    assert relay.drive(Position.OFF, limit) is Position.OFF
    assert relay.read(limit) is Position.OFF
    assert module.port.closed


def test_reading_commands_nothing(module: Module, limit: Deadline) -> None:
    module.on = True
    assert card(module).read(limit) is Position.ON
    assert module.port.commands == ["relay read 0"]


def test_what_an_earlier_action_left_unread_is_not_the_answer(
    module: Module, limit: Deadline
) -> None:
    module.port.waiting = b"relay read 0\n\ron\n\r>"
    assert card(module).read(limit) is Position.OFF


def test_an_answer_that_was_still_under_way_is_not_the_answer(
    module: Module, limit: Deadline
) -> None:
    """It arrives after the buffer was emptied, before our own echo."""
    module.say["relay read"] = b"ay on 0\n\r>relay read 0\n\roff\n\r>"
    assert card(module).read(limit) is Position.OFF


@pytest.mark.parametrize("at", range(1, 20))
def test_an_answer_may_come_in_pieces(
    module: Module, limit: Deadline, clock: FakeClock, at: int
) -> None:
    whole = b"relay read 0\n\roff\n\r>"
    module.say["relay read"] = whole[:at]
    later = [whole[at:]]

    def idle() -> None:
        clock.sleep(0.1)
        module.port.waiting += later.pop() if later else b""

    module.port.idle = idle
    assert card(module).read(limit) is Position.OFF


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\xff\xfe\x00",
        b"relay read 0",
        b"relay read 0\n\ron\n\r",  # no prompt: perhaps half of something else
        b"on\n\r>",  # no echo: perhaps the answer to something else
        b"relay read 0\n\r>",
        b"relay read 0\n\rmaybe\n\r>",
        b"relay read 0\n\ronoff\n\r>",
    ],
)
def test_a_garbled_answer_is_unknown_and_in_words(
    module: Module, limit: Deadline, clock: FakeClock, answer: bytes
) -> None:
    module.say["relay read"] = answer
    relay = card(module)
    begun = clock()
    assert relay.read(limit) is Position.UNKNOWN
    assert relay.trouble
    assert len(module.opened) == READ_TRIES
    assert clock() - begun < READ_TRIES * (ANSWER_SECONDS + 0.2)


def test_one_lost_answer_is_asked_for_again(module: Module, limit: Deadline) -> None:
    answers = [b"", b"relay read 0\n\ron\n\r>"]
    module.port.answer = lambda command: answers.pop(0)
    assert card(module).read(limit) is Position.ON


def test_a_babbling_device_is_given_up_at_once(
    module: Module, limit: Deadline, clock: FakeClock
) -> None:
    module.say["relay read"] = b"x" * 100_000
    relay = card(module)
    begun = clock()
    assert relay.read(limit) is Position.UNKNOWN
    assert "does not speak the module's protocol" in relay.trouble
    assert clock() == begun


def test_a_relay_that_does_not_move_fails(
    module: Module, limit: Deadline, clock: FakeClock
) -> None:
    module.obeys = False
    begun = clock()
    with pytest.raises(Failed, match="was told on and says 'off'"):
        card(module).drive(Position.ON, limit)
    assert clock() - begun < PATIENCE_SECONDS + 3


def test_a_mute_module_fails_a_command(module: Module, limit: Deadline, clock: FakeClock) -> None:
    module.say["relay"] = b""
    begun = clock()
    with pytest.raises(Failed, match="did not answer 'relay off 0'"):
        card(module).drive(Position.OFF, limit)
    assert clock() - begun < PATIENCE_SECONDS + 3


def test_a_spent_deadline_ends_the_talk(module: Module, clock: FakeClock) -> None:
    module.say["relay"] = b""
    begun = clock()
    with pytest.raises(Failed):
        card(module).drive(Position.OFF, Deadline(0.5, clock, clock.sleep))
    assert clock() - begun < 1.0


def test_a_port_in_other_hands_is_unknown(limit: Deadline) -> None:
    def refuse(device: str) -> FakePort:
        raise OSError(16, "Device or resource busy")

    relay = Numato("/dev/null", 0, refuse)
    assert relay.read(limit) is Position.UNKNOWN
    assert "cannot be opened: [Errno 16] Device or resource busy" in relay.trouble
    with pytest.raises(Failed, match="cannot be opened"):
        relay.drive(Position.OFF, limit)


def test_a_card_pulled_while_talking_fails_and_is_closed(module: Module, limit: Deadline) -> None:
    def pull(command: str) -> bytes:
        raise OSError(5, "Input/output error")

    module.port.answer = pull
    relay = card(module)
    assert relay.read(limit) is Position.UNKNOWN
    assert "went away" in relay.trouble
    assert module.port.closed


def test_check_wants_pyserial(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "serial", None)
    with pytest.raises(NotInstalled, match="apt install python3-serial"):
        Numato("/dev/null", 0).check()


def test_a_device_that_is_not_there_cannot_be_opened(tmp_path: Path) -> None:
    pytest.importorskip("serial")
    with pytest.raises(OSError, match="ttyACM0"):
        open_port(f"{tmp_path}/ttyACM0")
