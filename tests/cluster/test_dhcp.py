"""The virtual address and the source of the routes, beside what really rules a NIC.

One node without Pacemaker gets its LAN address by DHCP; IPaddr2 and lan-source are called by
hand. Deletions of the address with Pacemaker: test_lan.py.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator

import pytest

from asha.lan.routes import PROTOCOL
from tests.cluster.single import call
from tests.conftest import lab_or_skip
from tests.lab import Node, Result, dhcp
from tests.lab.host import run, wait_for
from tests.lab.image import image_path
from tests.lab.lab import VIRTUAL_ADDRESS, Lab
from tests.lab.network import SWITCHBOARD_ADDRESS

FAR = "198.51.100.7"  # beyond the gateway (RFC 5737)
WANTED = {"ip": VIRTUAL_ADDRESS, "nic": "eth0"}
IPADDR2 = "/usr/lib/ocf/resource.d/heartbeat/IPaddr2"
INTERFACES = """\
auto lo
iface lo inet loopback
"""
IFUPDOWN = INTERFACES + """\
iface eth0 inet dhcp
iface eth1 inet static
    address 10.0.3.250/24
"""
NETWORK = "/etc/systemd/network/10-lan.network"
NETWORKD = "[Match]\nName=eth0\n[Network]\nDHCP=ipv4\n"
KEEP = {f"{NETWORK}.d/asha.conf": "[Network]\nKeepConfiguration=static\n",
        "/etc/systemd/networkd.conf.d/asha.conf": "[Network]\nManageForeignRoutes=no\n"}


Given = Callable[[], int]


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with lab_or_skip("crm1", cluster=False) as running:
        yield running


@pytest.fixture(scope="module")
def given(lab: Lab) -> Iterator[Given]:
    """How many leases the server has given or renewed."""
    with dhcp.server(lab) as count:
        yield count


@pytest.fixture
def node(lab: Lab) -> Iterator[Node]:
    """Its LAN's NIC is up and has no address; afterwards nothing rules it."""
    node = lab.nodes["crm1"]
    node.run("ip", "addr", "flush", "dev", "eth0")
    node.run("ip", "link", "set", "eth0", "up")
    yield node
    call(node, "lan-source", "stop", WANTED)
    assert node.run("ip", "route", "show", "proto", str(PROTOCOL)).out == ""
    ipaddr2(node, "stop")
    assert VIRTUAL_ADDRESS not in node.run("ip", "route", "show").out


def ipaddr2(node: Node, action: str) -> Result:
    return node.run(IPADDR2, action, env={
        "OCF_ROOT": "/usr/lib/ocf", "OCF_RESOURCE_INSTANCE": "p_ip",
        "OCF_RESKEY_ip": VIRTUAL_ADDRESS, "OCF_RESKEY_nic": "eth0",
        "OCF_RESKEY_cidr_netmask": "24", "OCF_RESKEY_CRM_meta_timeout": "20000"})


def addresses(node: Node) -> str:
    return node.run("ip", "-4", "addr", "show", "dev", "eth0").out


def is_there(node: Node) -> bool:
    return f"inet {VIRTUAL_ADDRESS}/" in addresses(node)


def has_route(node: Node) -> bool:
    return "default via" in node.run("ip", "-4", "route", "show").out


def has_lease(node: Node) -> bool:
    return "dynamic" in addresses(node) and has_route(node)


def activate(node: Node) -> None:
    """As Pacemaker does it on the active node, once there is a lease."""
    wait_for(lambda: has_lease(node), "a lease", timeout=60)
    ipaddr2(node, "start")
    assert call(node, "lan-source", "start", WANTED).code == 0
    outlives(node)


def outlives(node: Node) -> None:
    """The address is there, and the routes have it as their source, at the latest when
    lan-source has looked."""
    def is_source() -> bool:
        seen = call(node, "lan-source", "monitor", WANTED)
        return seen.code == 0 and all(
            f"src {VIRTUAL_ADDRESS}" in node.run("ip", "-4", "route", "get", goal, check=False).out
            for goal in (SWITCHBOARD_ADDRESS, FAR))

    assert is_there(node)
    wait_for(is_source, "the source")
    node.run("ping", "-c", "1", "-W", "5", SWITCHBOARD_ADDRESS)


def outlives_renewal(node: Node, given: Given) -> None:
    """The second from now has not begun before."""
    before = given()
    wait_for(lambda: given() >= before + 2, "two renewals", timeout=60)
    outlives(node)


def test_ifupdown_and_dhclient(node: Node, given: Given) -> None:
    node.write("/etc/network/interfaces", IFUPDOWN)
    node.run("ifup", "eth0")
    try:
        activate(node)
        outlives_renewal(node, given)
        node.run("ifdown", "--force", "eth1")
        node.run("ifup", "eth1")
        outlives(node)
        # Its own NIC down takes the address away; it can be put back.
        node.run("ifdown", "eth0")
        node.run("ifup", "eth0")
        assert not is_there(node)
        activate(node)
    finally:
        node.run("ifdown", "eth0")
        node.write("/etc/network/interfaces", INTERFACES)


def leases(node: Node) -> int:
    """How many networkd has got anew, as it says."""
    said = node.run("journalctl", "-b", "-u", "systemd-networkd", "--no-pager").out
    return said.count("eth0: DHCPv4 address ")


def test_networkd(lab: Lab, node: Node, given: Given) -> None:
    """It takes an address that it does not know for a leftover, unless it is told to keep it:
    asha check says how."""
    def again(*argv: str) -> None:
        before = leases(node)
        node.run(*argv)
        wait_for(lambda: leases(node) > before, f"a lease after {' '.join(argv)}", timeout=60)
        wait_for(lambda: has_lease(node), "its address and routes")

    # As networkd itself does it, where it is no container's: an address does not go together
    # with the first one of its network.
    run(["ip", "netns", "exec", lab.network.namespace("crm1"), "tee",
         "/proc/sys/net/ipv4/conf/eth0/promote_secondaries"], stdin="1")
    node.run("systemctl", "unmask", "systemd-networkd.service", "systemd-networkd.socket")
    node.write(NETWORK, NETWORKD)
    again("systemctl", "start", "systemd-networkd")
    try:
        activate(node)
        outlives_renewal(node, given)
        again("networkctl", "reconfigure", "eth0")
        assert not is_there(node)
        activate(node)
        for path, text in KEEP.items():
            node.write(path, text)
        again("systemctl", "restart", "systemd-networkd")
        outlives(node)
        again("networkctl", "reconfigure", "eth0")
        outlives(node)
        node.write(NETWORK, NETWORKD + "# changed\n")
        again("networkctl", "reload")
        outlives(node)
    finally:
        node.run("systemctl", "stop", "systemd-networkd.socket", "systemd-networkd.service")


def test_network_manager(lab: Lab, node: Node, given: Given) -> None:
    """It outlives its renewals and restarts. Where a person has a profile applied anew it is
    gone, and can be put back."""
    shutil.copytree(image_path(lab.release, "customer") / "srv/packages",
                    node.path("/srv/packages"))
    node.run("apt-get", "update")
    node.run("apt-get", "install", "-y", "--no-install-recommends", "network-manager", timeout=120)
    node.run("systemctl", "start", "NetworkManager")
    node.run("nmcli", "connection", "add", "type", "ethernet", "con-name", "lan", "ifname", "eth0",
             "ipv4.method", "auto", "ipv6.method", "disabled")
    node.run("nmcli", "connection", "up", "lan")
    try:
        activate(node)
        node.run("nmcli", "connection", "reload")
        node.run("systemctl", "restart", "NetworkManager")
        wait_for(lambda: "eth0:connected:lan" in node.run(
            "nmcli", "-t", "-f", "DEVICE,STATE,CONNECTION", "device").out, "NetworkManager")
        outlives_renewal(node, given)
        for command in (("device", "reapply", "eth0"), ("connection", "up", "lan")):
            node.run("nmcli", *command)
            wait_for(lambda: not is_there(node), "the address to be gone")
            activate(node)
    finally:
        node.run("systemctl", "stop", "NetworkManager")
