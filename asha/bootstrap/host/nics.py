"""The NICs and their addresses, and which machines answer on the cable."""

from __future__ import annotations

import ipaddress
import json
import os
import re
import socket
import struct
import time
from dataclasses import dataclass

from asha.machine import Machine

# Kinds of interface that carry no cable of their own (ip-link(8), TYPE).
NOT_CABLED = frozenset(("dummy", "ifb", "tun", "wireguard", "vxlan", "geneve", "macvtap"))
# Bridges that other programs make for their guests.
MAC = re.compile(r"[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5}")
FOR_GUESTS = re.compile(r"(docker|virbr|br-|lxcbr|lxdbr|podman|vnet|tap)")

ARP_ETHERNET, ARP_IPV4 = 1, 0x0800
ARP_REQUEST = 1
ARP_FORM = struct.Struct("!HHBBH6s4s6s4s")
# RFC 5227, 2.1.1 (PROBE_NUM).
ARP_PROBES = 3


@dataclass(frozen=True)
class Address:
    """An IPv4 address of a NIC. ``dynamic``: it was leased and may change."""

    local: str
    prefix: int
    dynamic: bool = False

    @property
    def network(self) -> ipaddress.IPv4Network:
        return ipaddress.IPv4Network((self.local, self.prefix), strict=False)


@dataclass(frozen=True)
class Nic:
    """``up``: the administrator switched it on. ``carrier``: the other end of the cable is
    alive."""

    name: str
    mac: str = ""
    up: bool = True
    carrier: bool = True
    addresses: tuple[Address, ...] = ()

    def holds(self, address: str) -> Address | None:
        return next((one for one in self.addresses if one.local == address), None)

    def in_network(self, address: str) -> Address | None:
        """Our address whose network contains this one."""
        wanted = ipaddress.IPv4Address(address)
        return next((one for one in self.addresses if wanted in one.network), None)


def read(machine: Machine) -> tuple[Nic, ...]:
    """The Ethernet NICs, in the kernel's order. A bond is one, its parts are not."""
    try:
        listed = json.loads(machine.output("ip", "-json", "-details", "address") or "[]")
    except (ValueError, RecursionError):
        return ()
    cabled = [one for one in listed if isinstance(one, dict) and _is_cabled(one)] \
        if isinstance(listed, list) else []
    return tuple(_nic(one) for one in cabled)


def _is_cabled(one: dict[str, object]) -> bool:
    flags = one.get("flags")
    info = one.get("linkinfo")
    kind = info.get("info_kind", "") if isinstance(info, dict) else ""
    if one.get("link_type") != "ether" or not isinstance(flags, list) or "NOARP" in flags:
        return False
    if not isinstance(kind, str):
        return False
    return "master" not in one and kind not in NOT_CABLED and not FOR_GUESTS.match(
        str(one.get("ifname", ""))
    )


def _nic(one: dict[str, object]) -> Nic:
    flags = one.get("flags")
    listed = one.get("addr_info")
    assert isinstance(flags, list)
    return Nic(
        name=str(one.get("ifname", "")),
        mac=mac if MAC.fullmatch(mac := str(one.get("address", ""))) else "",
        up="UP" in flags,
        carrier="LOWER_UP" in flags,
        addresses=tuple(
            address
            for a in (listed if isinstance(listed, list) else ())
            if isinstance(a, dict) and a.get("family") == "inet" and a.get("scope") == "global"
            and (address := _address(a)) is not None
        ),
    )


def _address(one: dict[str, object]) -> Address | None:
    try:
        # The kernel says "dynamic" of an address whose lease ends.
        found = Address(str(one["local"]), int(str(one["prefixlen"])), bool(one.get("dynamic")))
        found.network  # noqa: B018  (whether it has one)
    except (ValueError, KeyError):
        return None
    return found


def default_route_nic(machine: Machine) -> str:
    """The NIC towards the router, "" without one."""
    try:
        routes = json.loads(machine.output("ip", "-json", "route", "show", "default") or "[]")
    except (ValueError, RecursionError):
        return ""
    first = routes[0] if isinstance(routes, list) and routes else None
    return str(first.get("dev", "")) if isinstance(first, dict) else ""


def who_has(nic: Nic, address: str, seconds: float = 1.0) -> str:
    """The MAC address of the other machine that has an IPv4 address, "" if none answers.

    An ARP probe (RFC 5227, 2.1.1): its sender's address is 0.0.0.0, so it needs no address of
    ours and changes nobody's table. Raises OSError: not root, or the NIC is not up.
    """
    wanted = socket.inet_aton(address)
    own = bytes.fromhex(nic.mac.replace(":", ""))
    probe = ARP_FORM.pack(ARP_ETHERNET, ARP_IPV4, 6, 4, ARP_REQUEST, own, bytes(4), bytes(6),
                          wanted)
    ethernet_arp = 0x0806
    with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ethernet_arp)) as wire:
        wire.bind((nic.name, ethernet_arp))
        end = time.monotonic() + seconds
        for turn in range(ARP_PROBES):
            wire.sendto(probe, (nic.name, ethernet_arp, 0, 0, b"\xff" * 6))
            until = end - seconds * (ARP_PROBES - 1 - turn) / ARP_PROBES
            mac = _answer(wire, wanted, own, until)
            if mac:
                return mac
    return ""


def _answer(wire: socket.socket, wanted: bytes, own: bytes, until: float) -> str:
    while (left := until - time.monotonic()) > 0:
        wire.settimeout(left)
        try:
            packet = wire.recv(256)
        except TimeoutError:
            return ""
        mac = _claims(packet, wanted)
        if mac and mac != own:
            return mac.hex(":")
    return ""


def _claims(packet: bytes, wanted: bytes) -> bytes:
    """The MAC of an ARP packet, request or reply, whose sender has this address."""
    if len(packet) < ARP_FORM.size:
        return b""
    _, kind, _, _, _, mac, sender, _, _ = ARP_FORM.unpack_from(packet)
    return bytes(mac) if kind == ARP_IPV4 and sender == wanted else b""


def connects(address: str, port: int, seconds: float = 3.0) -> str:
    """Why a TCP connection fails, "" if it succeeds."""
    try:
        with socket.create_connection((address, port), timeout=seconds):
            return ""
    except TimeoutError:
        return "no answer"
    except OSError as problem:
        return os.strerror(problem.errno) if problem.errno else str(problem)
