"""Who answers on a LAN: ARP by hand (RFC 826), as arping does.

An answer needs no IP address of the asked one's but the one that is asked for, no route,
and passes every firewall of the LAN's own.
"""

from __future__ import annotations

import socket
import struct
from array import array
from collections.abc import Iterable

ARP = 0x0806  # linux/if_ether.h, ETH_P_ARP
BROADCAST = b"\xff" * 6
# Hardware Ethernet, protocol IPv4, lengths 6 and 4; then the operation.
HEAD = struct.pack("!HHBB", 1, 0x0800, 6, 4)
REQUEST, REPLY = 1, 2
FRAME = struct.Struct("!6s6sH6sH6s4s6s4s")
READ_MOST = 2048
# Answers that are read at a time, more than a socket's queue holds: a flood ends somewhere.
ANSWERS_MOST = 1024
OUTGOING = 4  # packet(7), PACKET_OUTGOING

# linux/filter.h: load 32 or 16 bits; skip so many where they are (not) this; take so much.
SO_ATTACH_FILTER = 26
INSTRUCTION = struct.Struct("=HBBI")
LOAD_32, LOAD_16, IS, TAKE = 0x20, 0x28, 0x15, 0x06


def question(mac: bytes, own: str, target: str) -> bytes:
    """The frame that asks for ``target``. ``own`` "": there is no address to ask from, and
    this is RFC 5227's probe."""
    return FRAME.pack(BROADCAST, mac, ARP, HEAD, REQUEST, mac, socket.inet_aton(own or "0.0.0.0"),
                      bytes(6), socket.inet_aton(target))


def answerer(frame: bytes, mac: bytes) -> str:
    """The address whose owner answers us, "" for any other frame."""
    if len(frame) < FRAME.size:
        return ""  # Ethernet fills a short one up, and cuts none
    _, _, kind, head, operation, _, sender, target_mac, _ = FRAME.unpack_from(frame)
    if (kind, head, operation, target_mac) != (ARP, HEAD, REPLY, mac):
        return ""
    return socket.inet_ntoa(sender)


def only(mac: bytes, targets: Iterable[str]) -> bytes:
    """The filter that lets pass the answers of ``targets`` to us, and nothing else.

    Who floods the LAN with others would fill the socket's queue, and the node would seem deaf.
    """
    senders = sorted({socket.inet_aton(one) for one in targets})
    program = []
    for load, at, value in ((LOAD_16, 20, REPLY.to_bytes(2, "big")), (LOAD_32, 32, mac[:4]),
                            (LOAD_16, 36, mac[4:6])):
        program += [(load, 0, 0, at), (IS, 1, 0, int.from_bytes(value, "big")), (TAKE, 0, 0, 0)]
    program.append((LOAD_32, 0, 0, 28))
    for one in senders:
        program += [(IS, 0, 1, int.from_bytes(one, "big")), (TAKE, 0, 0, 0xFFFF)]
    program.append((TAKE, 0, 0, 0))
    return b"".join(INSTRUCTION.pack(*one) for one in program)


class Ears:
    """A NIC's ARP. OSError where that may not be, or where there is no such NIC."""

    def __init__(self, nic: str, mac: bytes) -> None:
        self.mac = mac
        self._targets: list[str] = []
        # Of no protocol until the filter is there, so that nothing comes before it.
        self._socket = socket.socket(
            socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, 0)
        try:
            self._let_pass([])
            self._socket.bind((nic, ARP))
        except BaseException:
            self._socket.close()
            raise

    def close(self) -> None:
        self._socket.close()

    def ask(self, own: str, targets: Iterable[str]) -> None:
        """One that cannot be sent is not answered: no error."""
        targets = list(targets)
        if targets != self._targets:
            self._let_pass(targets)
        for target in targets:
            try:
                self._socket.send(question(self.mac, own, target))
            except OSError:
                pass

    def _let_pass(self, targets: list[str]) -> None:
        program = array("B", only(self.mac, targets))
        count = len(program) // INSTRUCTION.size
        self._socket.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER,
                                struct.pack("@HP", count, program.buffer_info()[0]))
        self._targets = targets

    def answered(self) -> set[str]:
        """Who has answered since."""
        found = set()
        for _ in range(ANSWERS_MOST):
            try:
                frame, sender = self._socket.recvfrom(READ_MOST)
            except BlockingIOError:
                break
            except OSError:
                continue  # the NIC went down: told once, and the socket serves on
            if sender[2] != OUTGOING:
                found.add(answerer(frame, self.mac))
        return found - {""}
