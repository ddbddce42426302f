"""A telephone that looks at who speaks to it: each sender, Contact, Via, SDP and RTP.

Run in the switchboard's namespace. It prints what it saw as JSON. SIP: RFC 3261; SDP: RFC
4566; RTP: RFC 3550; IAX: RFC 5456. A socket that is not connected takes packets from anybody.
"""

from __future__ import annotations

import argparse
import json
import socket
import struct
import sys
import time
from typing import Any

from tests.lab.host import Result, run
from tests.lab.lab import REPOSITORY, Lab
from tests.lab.network import SWITCHBOARD_ADDRESS

# An extension that answers and sends back what it hears (extensions.conf of the lab).
ECHO = "101"
RTP = struct.Struct("!BBHII")
PACKET_SECONDS = 0.02  # of sound in one packet of RTP
CODEC_ULAW = 0
# A full frame (RFC 5456, 8.1.1), its type and subclasses for control (8.4).
IAX = struct.Struct("!HHIBBBB")
IAX_PORT, IAX_FULL, IAX_CONTROL, IAX_PONG, IAX_POKE = 4569, 0x8000, 6, 3, 30
POKE_SECONDS = 0.5
# Longer than a stack takes to repeat what was lost (RFC 3261, timer A).
PATIENCE = 15.0
# A registration that nobody answers is repeated, in the lab's configuration, every 2 s.
LISTEN_SECONDS = 60.0

SDP = (
    "v=0\r\no=- 1 1 IN IP4 {own}\r\ns=-\r\nc=IN IP4 {own}\r\nt=0 0\r\n"
    "m=audio {rtp} RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\n"
)
MESSAGE = (
    "{method} sip:{user}@{target}:{port} SIP/2.0\r\n"
    "Via: SIP/2.0/UDP {own}:{sip};branch=z9hG4bK-{branch};rport\r\n"
    "From: <sip:phone@{own}>;tag={call}\r\n"
    "To: {to}\r\n"
    "Call-ID: {call}@phone\r\n"
    "CSeq: {number} {method}\r\n"
    "Contact: <sip:phone@{own}:{sip}>\r\n"
    "Max-Forwards: 70\r\n"
    "{type}Content-Length: {length}\r\n\r\n{body}"
)


def on(lab: Lab, *arguments: str) -> Any:
    """What ``main`` prints, run in that lab's switchboard."""
    said: Result = run(
        ["ip", "netns", "exec", lab.network.switchboard, sys.executable, "-m", "tests.lab.phone",
         *arguments],
        timeout=LISTEN_SECONDS + 30, env={"PYTHONPATH": str(REPOSITORY)},
    )
    return json.loads(said.out)


def header(text: str, name: str) -> str:
    """The first header of that name; "" without one."""
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        if colon and key.strip().lower() == name.lower():
            return value.strip()
    return ""


class Phone:
    """One telephone, one call at a time."""

    def __init__(self, target: str, port: int) -> None:
        self.target = target
        self.port = port
        self.call = str(time.monotonic_ns())
        self.to = f"<sip:{ECHO}@{target}>"
        self.senders: set[str] = set()
        self.sip = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.rtp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        for plug in (self.sip, self.rtp):
            plug.bind((SWITCHBOARD_ADDRESS, 0))
        self.sip.settimeout(PATIENCE)
        self.rtp.settimeout(PACKET_SECONDS)

    def options(self) -> dict[str, object]:
        self._send("OPTIONS", 1)
        answer = self._answer("OPTIONS")
        return {"senders": sorted(self.senders), "contact": header(answer, "Contact")}

    def call_echo(self) -> dict[str, object]:
        """A call with sound both ways, and its end."""
        body = SDP.format(own=SWITCHBOARD_ADDRESS, rtp=self.rtp.getsockname()[1])
        self._send("INVITE", 1, body)
        answer = self._answer("INVITE")
        self.to = header(answer, "To")
        self._send("ACK", 1, branch="ack")
        sound = answer.partition("\r\n\r\n")[2]
        lines = dict(line.split("=", 1) for line in sound.splitlines() if "=" in line)
        media = (lines["c"].split()[-1], int(lines["m"].split()[1]))
        heard = self._listen(media)
        self._send("BYE", 2, branch="bye")
        self._answer("BYE")
        return {
            "senders": sorted(self.senders),
            "contact": header(answer, "Contact"),
            "sdp": media[0],
            "origin": lines["o"].split()[-1],
            "rtp": heard,
        }

    def _listen(self, media: tuple[str, int]) -> list[str]:
        """Speak until something is heard; who was."""
        end = time.monotonic() + PATIENCE
        number = 0
        while time.monotonic() < end:
            number += 1
            head = RTP.pack(0x80, CODEC_ULAW, number, number * 160, 1)
            self.rtp.sendto(head + bytes([255]) * 160, media)
            try:
                return [self.rtp.recvfrom(4096)[1][0]]
            except TimeoutError:
                continue
        return []

    def _send(self, method: str, number: int, body: str = "", branch: str = "") -> None:
        text = MESSAGE.format(
            method=method, user=ECHO, target=self.target, port=self.port,
            own=SWITCHBOARD_ADDRESS, sip=self.sip.getsockname()[1], to=self.to, call=self.call,
            branch=f"{self.call}{branch}", number=number, body=body, length=len(body),
            type="Content-Type: application/sdp\r\n" if body else "",
        )
        self.sip.sendto(text.encode(), (self.target, self.port))

    def _answer(self, method: str) -> str:
        """The final one to that request, whoever sent it."""
        while True:
            data, sender = self.sip.recvfrom(65536)
            text = data.decode("utf-8", "replace")
            self.senders.add(f"{sender[0]}:{sender[1]}")
            status = text.split(" ", 2)
            if status[0] == "SIP/2.0" and status[1] >= "200" and \
                    header(text, "CSeq").endswith(method):
                return text


def poke(target: str) -> dict[str, object]:
    """Ask whether somebody is there (RFC 5456, 6.7.1 to 6.7.3), by IAX; who said so."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as plug:
        plug.bind((SWITCHBOARD_ADDRESS, 0))
        plug.settimeout(POKE_SECONDS)
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            plug.sendto(IAX.pack(IAX_FULL | 1, 0, 0, 0, 0, IAX_CONTROL, IAX_POKE),
                        (target, IAX_PORT))
            try:
                data, sender = plug.recvfrom(4096)
            except TimeoutError:
                continue
            if len(data) >= IAX.size and IAX.unpack_from(data)[5:] == (IAX_CONTROL, IAX_PONG):
                return {"senders": [f"{sender[0]}:{sender[1]}"]}
    raise SystemExit(f"nobody answers IAX at {target} in {PATIENCE:.0f} s")


def listen(port: int, methods: list[str]) -> dict[str, dict[str, str]]:
    """Be the one that Asterisk registers with and asks: the first request of each method."""
    plug = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    plug.bind((SWITCHBOARD_ADDRESS, port))
    end = time.monotonic() + LISTEN_SECONDS
    found: dict[str, dict[str, str]] = {}
    while missing := [method for method in methods if method not in found]:
        plug.settimeout(max(0.01, end - time.monotonic()))
        try:
            data, sender = plug.recvfrom(65536)
        except TimeoutError:
            raise SystemExit(f"no {' and no '.join(missing)} in {LISTEN_SECONDS:.0f} s") from None
        text = data.decode("utf-8", "replace")
        method = text.split(" ", 1)[0]
        found.setdefault(method, {
            "sender": sender[0],
            "contact": header(text, "Contact"),
            "via": header(text, "Via"),
        })
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("options", "call", "listen", "poke"))
    parser.add_argument("rest", nargs="+")
    given = parser.parse_args()
    if given.what == "listen":
        print(json.dumps(listen(int(given.rest[0]), given.rest[1:])))
        return
    if given.what == "poke":
        print(json.dumps(poke(given.rest[0])))
        return
    phone = Phone(given.rest[0], int(given.rest[1]))
    print(json.dumps(phone.options() if given.what == "options" else phone.call_echo()))


if __name__ == "__main__":
    main()
