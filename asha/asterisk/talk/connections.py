"""Conversations with Asterisk, several side by side, none able to hang us.

A conversation is a generator that reads from top to bottom as if it blocked. It
yields a Wait where it would, and Multiplexer resumes it when the socket is ready
(True) or its time is over (False). No threads: those cannot be ended, and a
monitor has no time for them.

    def banner(path, deadline):
        with Line(AF_UNIX, SOCK_STREAM, deadline) as line:
            yield from line.connect(path)
            return (yield from line.read_until(b"\\n"))
"""

from __future__ import annotations

import select

# Not socket: that module brings in enum and selectors, 5 ms of the 20 that a
# monitor may cost, for constants as enums and file objects that are not used here.
from _socket import (
    AF_INET,
    AF_INET6,
    SO_ERROR,
    SOCK_CLOEXEC,
    SOCK_DGRAM,
    SOCK_NONBLOCK,
    SOL_SOCKET,
    inet_pton,
)
from _socket import socket as Socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from typing import Any, Self, TypeVar

    from asha.run.deadline import Deadline

    T = TypeVar("T")
    Conversation = Generator["Wait", bool, T]

POLLIN = select.POLLIN
POLLOUT = select.POLLOUT

# Seconds between two tries to get into the full queue of a Unix socket, for
# which the kernel cannot make us wait.
QUEUE_RETRY = 0.05

# Bytes of the longest answer that is read; what comes is a banner, a few headers or a
# listing.
ANSWER_MOST = 1 << 20

# What came in time and is only read late, as we had no processor, still counts; this
# many reads of it, so that who goes on sending does not keep us.
LATE_READS = 16


class Silent(Exception):
    """No answer in time. The message says to what; ``sent``: the bytes that came and were no
    answer."""

    def __init__(self, what: str, sent: int = 0) -> None:
        super().__init__(what)
        self.sent = sent


class Endless(Silent):
    """More came than an answer may have."""


class NotConnected(Silent):
    """Not even the kernel has answered, which accepts connections for Asterisk."""


class Wait:
    """What a conversation waits for: a socket (-1: only time) until ``deadline``."""

    __slots__ = ("deadline", "events", "socket")

    def __init__(self, socket: int, events: int, deadline: Deadline) -> None:
        self.socket = socket
        self.events = events
        self.deadline = deadline


class Line:
    """One connection, all of whose waits end at ``deadline``.

    OSError if the kernel refuses, Silent if nothing comes, Endless if more than ``most`` bytes
    come for one question.
    """

    most = ANSWER_MOST

    def __init__(self, family: int, kind: int, deadline: Deadline) -> None:
        self._kind = family, kind | SOCK_NONBLOCK | SOCK_CLOEXEC
        self.socket = Socket(*self._kind)
        self.stream = kind != SOCK_DGRAM
        self.deadline = deadline
        # What has come and is not read from ``_next`` on, and all that has come since the
        # question.
        self.received = b""
        self._next = 0
        self.taken = 0
        self._late = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def renew(self, deadline: Deadline) -> None:
        """Another question on the same connection."""
        self.deadline = deadline
        self.taken = 0
        self._late = 0

    def hang_up(self) -> None:
        """To connect elsewhere."""
        self.socket.close()
        self.socket = Socket(*self._kind)

    def connect(self, address: Any) -> Conversation[None]:
        while True:
            try:
                self.socket.connect(address)
                return
            except BlockingIOError as problem:
                from errno import EINPROGRESS

                if problem.errno == EINPROGRESS:
                    break
            # A Unix socket whose queue is full: nobody accepts.
            yield Wait(-1, 0, self.deadline.within(QUEUE_RETRY))
            if self.deadline.expired:
                raise NotConnected("connection")
        if not (yield Wait(self.socket.fileno(), POLLOUT, self.deadline)):
            raise NotConnected("connection")
        error = self.socket.getsockopt(SOL_SOCKET, SO_ERROR)
        if error:
            from os import strerror

            raise OSError(error, strerror(error))

    def send(self, data: bytes) -> Conversation[None]:
        while data:
            try:
                data = data[self.socket.send(data) :]
            except BlockingIOError:
                if not (yield Wait(self.socket.fileno(), POLLOUT, self.deadline)):
                    raise Silent("readiness to read") from None

    def receive(self, deadline: Deadline | None = None) -> Conversation[bytes | None]:
        """What came next, or None if nothing came until ``deadline``.

        ConnectionResetError if the other side has closed a stream. Waits each time, so one that
        sends without a pause blocks neither us nor the other conversations.
        """
        until = deadline or self.deadline
        while True:
            if not (yield Wait(self.socket.fileno(), POLLIN, until)):
                return None
            if self.deadline.expired:
                self._late += 1
                if self._late > LATE_READS:
                    return None
            try:
                data = self.socket.recv(65536)
            except BlockingIOError:
                continue
            if not data and self.stream:
                raise ConnectionResetError("closed the connection without an answer")
            self.taken += len(data)
            return data

    def read_until(self, mark: bytes, what: str) -> Conversation[bytes]:
        """A stream's text up to and with ``mark``; Silent(``what``) without one."""
        while True:
            found = self.received.find(mark, self._next)
            if found >= 0:
                begin, self._next = self._next, found + len(mark)
                return self.received[begin : self._next]
            yield from self._more(what)

    def read_to_end(self, what: str) -> Conversation[bytes]:
        """All of a stream until the other side closes it; Silent(``what``) if it does not."""
        try:
            while True:
                yield from self._more(what)
        except ConnectionResetError:
            return self.received[self._next :]

    def _more(self, what: str) -> Conversation[None]:
        if self.taken > self.most:
            raise Endless(what, self.taken)
        data = yield from self.receive()
        if data is None:
            raise Silent(what, self.taken)
        self.received = self.received[self._next :] + data
        self._next = 0


class Multiplexer:
    """Conversations that run in parallel; more may begin meanwhile.

    Raises what the first failing one raises: a conversation that may fail without ending the
    others catches its own errors. Closed like a file.
    """

    def __init__(self) -> None:
        # What each that has ended returned, by the number that begin() gave.
        self.results: dict[int, Any] = {}
        self._begun = 0
        # Those that have not ended, and what they wait for.
        self._talks: dict[int, Conversation[Any]] = {}
        self._waits: dict[int, Wait] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for talk in self._talks.values():
            talk.close()

    def begin(self, talk: Conversation[Any]) -> int:
        """Add a conversation; returns its number."""
        number = self._begun
        self._begun += 1
        self._talks[number] = talk
        self._go_on(number, None)
        return number

    def go_on(self, deadline: Deadline | None = None) -> None:
        """Run until all have ended, or until ``deadline``: then they can go on later."""
        while self._waits and not (deadline and deadline.expired):
            poller = select.poll()
            for wait in self._waits.values():
                if wait.socket >= 0:
                    poller.register(wait.socket, wait.events)
            seconds = min(wait.deadline.remaining() for wait in self._waits.values())
            if deadline:
                seconds = deadline.remaining(seconds)
            # Rounded up: a poll that ends a moment early would only be repeated.
            ready = {socket for socket, _ in poller.poll(int(seconds * 1000) + 1)}
            for number, wait in list(self._waits.items()):
                if wait.socket in ready:
                    self._go_on(number, True)
                elif wait.deadline.expired:
                    self._go_on(number, False)

    def _go_on(self, number: int, ready: bool | None) -> None:
        try:
            self._waits[number] = self._talks[number].send(ready)  # type: ignore[arg-type]
        except StopIteration as end:
            self._waits.pop(number, None)
            del self._talks[number]
            self.results[number] = end.value


def side_by_side(conversations: Sequence[Conversation[T]]) -> list[T]:
    """Run all in parallel; the results in the order given. Raises as Multiplexer does."""
    with Multiplexer() as talks:
        for conversation in conversations:
            talks.begin(conversation)
        talks.go_on()
        return [talks.results[number] for number in range(len(conversations))]


def is_address(text: str) -> bool:
    """Whether it is an IPv4 or IPv6 address in digits."""
    try:
        inet_pton(AF_INET6 if ":" in text else AF_INET, text)
    except OSError:
        return False
    return True


def hold(conversation: Conversation[T]) -> T:
    """Run one conversation to its end."""
    return side_by_side([conversation])[0]
