"""SIP OPTIONS, the question whose every answer means that SIP is alive.

A 404, 401, 200 or 503 alike: what counts is that somebody read the request and
wrote a response (RFC 3261, sections 11 and 17.1.2).
"""

from __future__ import annotations

import os
from _socket import AF_INET, AF_INET6, SOCK_DGRAM, SOCK_STREAM

from asha.asterisk.talk.connections import Endless, Line, Silent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asha.asterisk.process.proc import Endpoint
    from asha.asterisk.talk.connections import Conversation
    from asha.run.deadline import Deadline

# Over UDP a request is repeated after T1, then after twice as long each time
# (RFC 3261, 17.1.2.2, timer E): one lost packet is not silence.
T1 = 0.5


def options(endpoint: Endpoint, deadline: Deadline) -> Conversation[str]:
    """Ask at ``endpoint``; return the status line of the response."""
    udp = endpoint.protocol == "udp"
    family = AF_INET6 if ":" in endpoint.address else AF_INET
    with Line(family, SOCK_DGRAM if udp else SOCK_STREAM, deadline) as line:
        yield from line.connect((endpoint.address, endpoint.port))
        own = line.socket.getsockname()
        branch = "z9hG4bK" + os.urandom(8).hex()
        request = _request(endpoint, own[0], own[1], branch)
        if udp:
            return (yield from _ask_by_datagram(line, request, branch))
        yield from line.send(request)
        while True:
            answer = yield from line.read_until(b"\r\n\r\n", "response to OPTIONS")
            if _answers(answer, branch):
                return _status(answer)


def _ask_by_datagram(line: Line, request: bytes, branch: str) -> Conversation[str]:
    # The line is connected: the kernel drops what comes from any other address or port.
    patience = T1
    while not line.deadline.expired:
        yield from line.send(request)
        pause = line.deadline.within(patience)
        while not pause.expired:
            answer = yield from line.receive(pause)
            if answer is not None and _answers(answer, branch):
                return _status(answer)
            if line.taken > line.most:
                raise Endless("response to OPTIONS", line.taken)
        patience *= 2
    raise Silent("response to OPTIONS", line.taken)


def _request(endpoint: Endpoint, host: str, port: int, branch: str) -> bytes:
    # With a user, which Asterisk looks up: the answer then goes through the dialplan's
    # lock too, that a hung realtime or reload holds (res_pjsip, options handler).
    there = "asha@" + _host(endpoint.address)
    here = _host(host)
    tag = os.urandom(4).hex()
    return (
        f"OPTIONS sip:{there}:{endpoint.port} SIP/2.0\r\n"
        f"Via: SIP/2.0/{endpoint.protocol.upper()} {here}:{port};branch={branch};rport\r\n"
        "Max-Forwards: 70\r\n"
        f"From: <sip:asha@{here}:{port}>;tag={tag}\r\n"
        f"To: <sip:{there}:{endpoint.port}>\r\n"
        f"Call-ID: {branch}@asha\r\n"
        "CSeq: 1 OPTIONS\r\n"
        f"Contact: <sip:asha@{here}:{port}>\r\n"
        "User-Agent: ASHA\r\n"
        "Accept: application/sdp\r\n"
        "Content-Length: 0\r\n\r\n"
    ).encode()


def _answers(text: bytes, branch: str) -> bool:
    # The branch names the transaction in the Via line and is in our Call-ID too.
    return text.startswith(b"SIP/2.0 ") and text.count(branch.encode()) >= 2


def _status(text: bytes) -> str:
    return text.split(b"\r\n", 1)[0].decode("utf-8", "replace")


def _host(address: str) -> str:
    return f"[{address}]" if ":" in address else address
