"""Numato USB relay modules of 1 to 32 relays: a command line over USB CDC ACM.

``relay on N``, ``relay off N`` and ``relay read N``, each ended by CR. The module
echoes the command, answers (``on`` or ``off`` to a read, nothing otherwise) and ends
with the prompt ``>``. Relays from 10 up are written with one letter, A for 10 to V
for 31, which is not hexadecimal; the 64-relay modules count differently and are not
supported.

Sources: the vendor's samples (github.com/numato/samplecode, usbrelay16_32;
github.com/NumatoLab/NumatoIO_Python, usb_relay) and its numato_usb_relay 0.0.1 on PyPI.
"""

from __future__ import annotations

from asha.relay.contract import Card, Position
from asha.run.results import Failed, NotInstalled

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    from asha.relay.contract import Run, Settings
    from asha.run.deadline import Deadline

    class Port(Protocol):
        """What is used of a pyserial port."""

        @property
        def in_waiting(self) -> int: ...
        def read(self, size: int) -> bytes: ...
        def write(self, data: bytes) -> int | None: ...
        def reset_input_buffer(self) -> None: ...
        def reset_output_buffer(self) -> None: ...
        def close(self) -> None: ...


HIGHEST = 31
PROMPT = b">"

# USB CDC has no line speed; this one only has to exist. The vendor's samples use it.
BAUD = 19200

# Seconds. An answer comes within milliseconds; the pause is how often the deadline
# is looked at while waiting for it.
ANSWER_SECONDS = 1.0
PAUSE_SECONDS = 0.1

# A lost answer is asked for again before the card is said not to answer.
READ_TRIES = 3

# An exchange is 30 bytes; a device that goes on beyond this is not the module.
REPLY_BYTES = 1024


def relay_name(number: int) -> str:
    """A relay's number as the module writes it: 0 to 9, then A to V. Raises ValueError."""
    if not 0 <= number <= HIGHEST:
        raise ValueError(f"relay {number}: must be from 0 to {HIGHEST}")
    return str(number) if number < 10 else chr(ord("A") + number - 10)


def open_port(device: str) -> Port:
    """Open the tty, raw and exclusively. Raises OSError."""
    import serial

    port: Port = serial.Serial(
        device,
        BAUD,
        timeout=PAUSE_SECONDS,
        write_timeout=ANSWER_SECONDS,
        exclusive=True,
        rtscts=False,
        dsrdtr=False,
    )
    return port


def card(settings: Settings, run: Run) -> Card:
    return Numato(settings.device, settings.number)


class Numato(Card):
    """``opener`` opens the tty; a test gives its own."""

    reads_back = True

    def __init__(
        self, device: str, number: int, opener: Callable[[str], Port] = open_port
    ) -> None:
        super().__init__(device)
        self.relay = relay_name(number)
        self._open = opener

    def check(self) -> None:
        super().check()
        try:
            import serial  # noqa: F401
        except ImportError:
            raise NotInstalled(
                "python3-serial is not installed: apt install python3-serial"
            ) from None

    def command(self, wanted: Position, deadline: Deadline) -> Position:
        _, answer = self._talk((f"relay {wanted.value} {self.relay}", self._read_command), deadline)
        position = self._position(answer)
        if position is not wanted:
            raise Failed(
                f"relay card {self.device} was told {wanted.value} and says {answer!r}: "
                "is parameter relay the number of a relay that it has?"
            )
        return position

    def read(self, deadline: Deadline) -> Position:
        for _ in range(READ_TRIES):
            try:
                (answer,) = self._talk((self._read_command,), deadline)
            except Failed as problem:
                self.trouble = problem.reason
            else:
                position = self._position(answer)
                if position is not Position.UNKNOWN:
                    return position
                self.trouble = f"it says {answer!r}"
        return Position.UNKNOWN

    @property
    def _read_command(self) -> str:
        return f"relay read {self.relay}"

    @staticmethod
    def _position(answer: str) -> Position:
        for position in (Position.ON, Position.OFF):
            if answer == position.value:
                return position
        return Position.UNKNOWN

    def _talk(self, commands: tuple[str, ...], deadline: Deadline) -> list[str]:
        """Send these commands, each after the answer to the one before. Raises Failed."""
        import termios

        try:
            port = self._open(self.device)
        except (OSError, termios.error) as problem:
            raise Failed(f"relay card {self.device} cannot be opened: {problem}") from problem
        try:
            # What an earlier action did not live to read must not be taken for
            # the answer to this one.
            port.reset_input_buffer()
            return [self._ask(port, command, deadline) for command in commands]
        except (OSError, termios.error) as problem:
            raise Failed(f"relay card {self.device} went away: {problem}") from problem
        finally:
            self._close(port)

    def _ask(self, port: Port, command: str, deadline: Deadline) -> str:
        patience = deadline.within(ANSWER_SECONDS)
        port.write(command.encode("ascii") + b"\r")
        reply = b""
        while len(reply) < REPLY_BYTES:
            reply += port.read(max(1, port.in_waiting))
            # The last echo: what comes before it belongs to an earlier command.
            _, echo, rest = reply.rpartition(command.encode("ascii"))
            answer, prompt, _ = rest.partition(PROMPT)
            if echo and prompt:
                return answer.decode("ascii", "replace").strip()
            if patience.expired:
                said = f" but {reply[-20:]!r}" if reply else ""
                raise Failed(f"relay card {self.device} did not answer {command!r}{said}")
        raise Failed(f"relay card {self.device} does not speak the module's protocol")

    @staticmethod
    def _close(port: Port) -> None:
        import contextlib
        import termios

        with contextlib.suppress(OSError, termios.error):
            # Closing a tty waits up to 30 s for bytes that the device does not take.
            port.reset_output_buffer()
        with contextlib.suppress(OSError, termios.error):
            port.close()
