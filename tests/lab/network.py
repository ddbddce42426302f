"""The lab's wires: a switchboard namespace with two bridges, one namespace per node.

eth0 of each node is on the LAN (192.168.1.0/24), eth1 on the cluster link
(10.0.3.0/24). The switchboard is also where phones, probers and browsers live
(192.168.1.1). No address exists outside these namespaces.
"""

from __future__ import annotations

from pathlib import Path

from tests.lab.host import run

LAN = "br-lan"
LINK = "br-link"
BRIDGES = {"eth0": LAN, "eth1": LINK}
SWITCHBOARD_ADDRESS = "192.168.1.1"
# What the lab reaches a real node by, whatever becomes of its cables: no NIC of the node's.
LAB_NIC = "vec2"
LAB_BRIDGE = "br-lab"
LAB_NETWORK = "169.254.77"  # link-local, RFC 3927: in the switchboard alone


class Network:
    """Namespaces of one lab. ``lab`` is the lab's name, unique on the machine."""

    def __init__(self, lab: str) -> None:
        self.switchboard = f"asha-{lab}-sw"
        self._prefix = f"asha-{lab}-"

    def namespace(self, node: str) -> str:
        return f"{self._prefix}{node}"

    def path(self, node: str) -> str:
        return f"/run/netns/{self.namespace(node)}"

    @property
    def switchboard_path(self) -> str:
        return f"/run/netns/{self.switchboard}"

    def build_switchboard(self) -> None:
        run(["ip", "netns", "add", self.switchboard])
        for bridge in BRIDGES.values():
            self._switch("link", "add", "name", bridge, "type", "bridge")
        for device in ("lo", *BRIDGES.values()):
            self._switch("link", "set", device, "up")
        self._switch("addr", "add", f"{SWITCHBOARD_ADDRESS}/24", "dev", LAN)

    def build_node(self, node: str, addresses: dict[str, str]) -> None:
        """``addresses``: with prefix length, by the name of the NIC; one that has none
        is off, for the node itself to set up."""
        space = self.namespace(node)
        run(["ip", "netns", "add", space])
        for nic, bridge in BRIDGES.items():
            wire = self._wire(node, nic)
            self._switch(
                "link", "add", "name", wire, "type", "veth", "peer", "name", nic, "netns", space
            )
            self._switch("link", "set", wire, "master", bridge, "up")
        run(["ip", "-n", space, "link", "set", "lo", "up"])
        self.reset_node(node, addresses)

    def unplug(self, node: str, nic: str) -> None:
        """Pull the cable out: the node's NIC loses its carrier."""
        self._switch("link", "set", self._wire(node, nic), "down")

    def plug(self, node: str, nic: str) -> None:
        self._switch("link", "set", self._wire(node, nic), "up")

    def detach(self, node: str, nic: str) -> None:
        """Nobody is reached any more through the cable, whose carrier stays. Not the
        switchboard either, which would answer ARP for its addresses on any wire."""
        self._switch("link", "set", self._wire(node, nic), "nomaster", "arp", "off")

    def attach(self, node: str, nic: str) -> None:
        self._switch("link", "set", self._wire(node, nic), "master", BRIDGES[nic], "arp", "on")

    def give(self, address: str) -> None:
        """Another address on the LAN for the switchboard: that of a router, say."""
        self._switch("addr", "add", f"{address}/24", "dev", LAN)

    def take(self, address: str) -> None:
        self._switch("addr", "del", f"{address}/24", "dev", LAN)

    def reset_node(self, node: str, addresses: dict[str, str]) -> None:
        """What a reboot does to a NIC: addresses added since are forgotten."""
        space = self.namespace(node)
        for nic in BRIDGES:
            run(["ip", "-n", space, "addr", "flush", "dev", nic])
            if nic in addresses:
                run(["ip", "-n", space, "addr", "add", addresses[nic], "dev", nic])
            run(["ip", "-n", space, "link", "set", nic, "up" if nic in addresses else "down"])
        run(["ip", "netns", "exec", space, "nft", "flush", "ruleset"], check=False)

    def remove(self) -> None:
        """Every namespace of this lab and, with them, its wires."""
        spaces = Path("/run/netns")
        if not spaces.is_dir():
            return
        for space in spaces.iterdir():
            if space.name.startswith(self._prefix):
                run(["ip", "netns", "delete", space.name], check=False)

    def pids(self) -> list[int]:
        """Every process that lives in a namespace of this lab."""
        found: list[int] = []
        spaces = Path("/run/netns")
        if spaces.is_dir():
            for space in spaces.iterdir():
                if space.name.startswith(self._prefix):
                    said = run(["ip", "netns", "pids", space.name], check=False)
                    found += [int(word) for word in said.out.split()]
        return found

    def _switch(self, *arguments: str) -> None:
        run(["ip", "-n", self.switchboard, *arguments])

    def _wire(self, node: str, nic: str) -> str:
        return f"{node}-{nic}"


class TapNetwork(Network):
    """Of real nodes: their NICs are taps in the switchboard, one more for the lab itself.

    The NIC of User Mode Linux does not come back from a tap that was down, so that the end of
    a cable is a tap on no bridge: packets are lost, the node's carrier stays.
    """

    def build_switchboard(self) -> None:
        super().build_switchboard()
        self._switch("link", "add", "name", LAB_BRIDGE, "type", "bridge")
        self._switch("link", "set", LAB_BRIDGE, "up")
        self._switch("addr", "add", f"{LAB_NETWORK}.1/24", "dev", LAB_BRIDGE)

    def build_node(self, node: str, addresses: dict[str, str]) -> None:
        for nic, bridge in {**BRIDGES, LAB_NIC: LAB_BRIDGE}.items():
            tap = self.tap(node, nic)
            self._switch("tuntap", "add", tap, "mode", "tap")
            self._switch("link", "set", tap, "master", bridge, "up")
            # With any of these TCP falls to 0.2 MB/s.
            run(["ip", "netns", "exec", self.switchboard, "ethtool", "-K", tap,
                 *(word for what in ("gso", "tso", "gro", "tx", "sg") for word in (what, "off"))])

    def tap(self, node: str, nic: str) -> str:
        return self._wire(node, nic)

    def unplug(self, node: str, nic: str) -> None:
        self.detach(node, nic)

    def plug(self, node: str, nic: str) -> None:
        self.attach(node, nic)

    def reset_node(self, node: str, addresses: dict[str, str]) -> None:
        """The node's own kernel has forgotten everything."""
