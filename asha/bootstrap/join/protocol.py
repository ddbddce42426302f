"""A conversation of two nodes that share the cluster secret.

Lines over TCP. First each side says, without waiting for the other, who it is and a
number that it never said before::

    joiner    {"asha": 1, "node": "crm2", "nonce": "64 hex digits"}
    listener  {"asha": 1, "node": "crm1", "nonce": "64 hex digits"}

From the secret and both numbers comes a key for this conversation alone (HKDF-SHA256,
RFC 5869), and every line after that is a MAC (HMAC-SHA256, 64 hex digits) of its
direction, its number in that direction and its text; a blank; and the text, which is
JSON. The joiner proves itself first, then the listener, then requests and answers take
turns. What is cut short, too long, late, out of order, said before or by a stranger ends
the conversation.

Why this and not TLS: nothing that is said is secret (names, addresses, sizes, the text of
corosync.conf), it must only be authentic. TLS with a key that both have needs Python 3.13
(``SSLContext.set_psk_server_callback``), and Debian 12 has 3.11; certificates would be one
more thing to make, carry over and let expire. The secret has 256 random bits: whoever
overhears a proof cannot guess it, so that no exchange of keys is needed to hide it.
"""

from __future__ import annotations

import hmac
import json
import re
import secrets
import socket
from typing import Any

from asha.cluster.rules import NODE_NAME
from asha.cluster.secret import hkdf_sha256
from asha.run.deadline import Deadline
from asha.run.results import Expired

VERSION = 1
# Of one line, in bytes. A stranger's first line is a name and a number.
HELLO_MOST = 256
LINE_MOST = 1 << 17
NONCE = re.compile(r"[0-9a-f]{64}")
MAC_DIGITS = 64

Body = dict[str, Any]


class WireError(Exception):
    """What came does not belong to this point of the conversation; one line."""


class WrongSecret(WireError):
    """The other side has another secret."""


class Session:
    """One conversation, on either side. ``peer`` is the name that the other side gave.

    ``deadline`` ends it whatever the other side does; set a later one for a long answer.
    """

    def __init__(self, channel: socket.socket, deadline: Deadline) -> None:
        self.deadline = deadline
        self.peer = ""
        self._channel = channel
        self._key = b""
        self._pending = bytearray()
        # How many lines were said and heard since the key.
        self._said = 0
        self._heard = 0
        self._says, self._hears = b"", b""

    def join(self, join_key: bytes, name: str) -> None:
        """The joiner's start of the conversation. Raises WrongSecret, WireError."""
        nonce = self._say_hello(name)
        theirs = self._hear_hello()
        self._agree(join_key, nonce, theirs, joiner=name, listener=self.peer)
        self._says, self._hears = b"joiner", b"listener"
        self.say({"proof": True})
        self.hear()

    def listen(self, join_key: bytes, name: str, *others: bytes) -> int:
        """The listener's start of the conversation. Raises WrongSecret, WireError.

        Returns which of the keys the joiner has proved, 0 for the first: while the secret is
        changed there are two.
        """
        nonce = self._say_hello(name)
        theirs = self._hear_hello()
        self._says, self._hears = b"listener", b"joiner"
        line = self._line(HELLO_MOST)
        for number, key in enumerate((join_key, *others)):
            self._agree(key, theirs, nonce, joiner=self.peer, listener=name)
            if self._is_next(line):
                self._heard += 1
                self.say({"proof": True})
                return number
        self._send(b'{"refused": "secret"}')
        raise WrongSecret(f"{self.peer} has another secret")

    def say(self, body: Body) -> None:
        text = json.dumps(body).encode()
        self._send(self._mac(self._says, self._said, text) + b" " + text)
        self._said += 1

    def hear(self) -> Body:
        """The other side's next message. Raises WrongSecret for its first, else WireError."""
        line = self._line(LINE_MOST)
        if not self._is_next(line):
            if self._heard == 0:
                raise WrongSecret(f"{self.peer or 'the other side'} has another secret")
            raise WireError("a line that was changed on its way, or said before")
        self._heard += 1
        return _body(line[MAC_DIGITS + 1 :])

    def _is_next(self, line: bytes) -> bool:
        mac, text = line[:MAC_DIGITS], line[MAC_DIGITS + 1 :]
        return hmac.compare_digest(mac, self._mac(self._hears, self._heard, text))

    # The beginning.

    def _say_hello(self, name: str) -> str:
        nonce = secrets.token_hex(32)
        self._send(json.dumps({"asha": VERSION, "node": name, "nonce": nonce}).encode())
        return nonce

    def _hear_hello(self) -> str:
        body = _body(self._line(HELLO_MOST))
        name, nonce = body.get("node"), body.get("nonce")
        if body.get("asha") != VERSION:
            raise WireError("speaks another version: the two nodes need the same asha package")
        if not isinstance(name, str) or not NODE_NAME.fullmatch(name):
            raise WireError("no name of a node")
        if not isinstance(nonce, str) or not NONCE.fullmatch(nonce):
            raise WireError("no number to prove anything with")
        self.peer = name
        return nonce

    def _agree(self, join_key: bytes, first: str, second: str, joiner: str, listener: str) -> None:
        about = f"asha join session {VERSION} {joiner} {listener}"
        self._key = hkdf_sha256(join_key, bytes.fromhex(first + second), about.encode(), 32)

    def _mac(self, direction: bytes, number: int, text: bytes) -> bytes:
        # The direction's words differ in length and begin differently, and the
        # number has a fixed width: no two messages have the same bytes here.
        covered = direction + number.to_bytes(8, "big") + text
        return hmac.digest(self._key, covered, "sha256").hex().encode()

    # Lines.

    def _send(self, line: bytes) -> None:
        self._wait()
        try:
            self._channel.sendall(line + b"\n")
        except OSError as problem:
            raise WireError(_why(problem)) from None

    def _line(self, most: int) -> bytes:
        while b"\n" not in self._pending:
            if len(self._pending) > most:
                raise WireError("a line that is too long")
            self._wait()
            try:
                chunk = self._channel.recv(4096)
            except OSError as problem:
                raise WireError(_why(problem)) from None
            if not chunk:
                raise WireError("hung up in the middle" if self._pending else "hung up")
            self._pending += chunk
        line, _, rest = bytes(self._pending).partition(b"\n")
        if len(line) > most:
            raise WireError("a line that is too long")
        self._pending = bytearray(rest)
        return line

    def _wait(self) -> None:
        """Limit the next call on the socket to the rest of the conversation's time."""
        try:
            self.deadline.require("talking")
        except Expired:
            raise WireError("took too long") from None
        self._channel.settimeout(max(self.deadline.remaining(), 0.001))


def _body(text: bytes) -> Body:
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        raise WireError("not a message") from None
    if not isinstance(body, dict):
        raise WireError("not a message")
    return body


def _why(problem: OSError) -> str:
    return "took too long" if isinstance(problem, TimeoutError) else f"{problem.strerror}"
