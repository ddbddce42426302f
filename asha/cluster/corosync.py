"""corosync.conf: written for a cluster of one and of two, and read back.

A first node alone has a cluster of one: ``two_node`` turns on wait_for_all
(votequorum(5)), and would leave it without quorum until it has seen the other. When
the second joins, the file is written anew and corosync told to read it
(corosync-cfgtool -R): seen on Corosync 3.1.7 and 3.1.9 to take the other node and a
second link up, without losing quorum for a moment.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from asha.cluster.site import NodeConfig, Site

CONF = "/etc/corosync/corosync.conf"
AUTHKEY = "/etc/corosync/authkey"

CLUSTER_NAME = "asha"
# Milliseconds. Corosync 3's own default is 3000; a telephone call is worth two seconds.
TOKEN = 1000
# How long the nodes then wait for agreement on who is left. corosync.conf(5): for two
# nodes less than token is safe, as long as it is more than join (50 ms); the default,
# 1.2 times token, would only add its length to each fail-over.
CONSENSUS = 300
# two_node implies wait_for_all (votequorum(5)): until the second has been here, a first
# that reboots would wait for it, perhaps without end. Only the first may have this line, and
# only until they have met: if both had it, each would start alone.
ALONE_AT_BOOT = "wait_for_all: 0"
# knet counts up from mcastport for each link: 5405/udp, and 5406/udp on the LAN.
PORTS = (5405, 5406)


@dataclass(frozen=True)
class Node:
    """A node of the nodelist. ``rings`` are its addresses, link 0 first."""

    name: str
    nodeid: int
    rings: tuple[str, ...]


@dataclass(frozen=True)
class Conf:
    """What other modules need to know of a corosync.conf."""

    nodes: tuple[Node, ...] = ()
    two_node: bool = False
    cluster_name: str = ""


@dataclass
class _Section:
    name: str
    values: dict[str, str] = field(default_factory=dict)
    inside: list[_Section] = field(default_factory=list)

    def all(self, name: str) -> Iterator[_Section]:
        return (section for section in self.inside if section.name == name)


def render(site: Site, *, joined: bool, have_met: bool = True) -> str:
    """``joined``: both nodes; else only the one that is being installed. ``have_met``: the
    second has been in the cluster; until then the first may boot alone.

    A LAN address that is not known yet is no reason to wait: the second link comes
    with the second node, on both at once.
    """
    rings = 2 if joined and site.second_ring else 1
    nodes = sorted(
        (site.first, site.second) if joined else (site.here,), key=lambda node: node.nodeid
    )
    lines = [
        "# Written by asha. Corosync: who the nodes are, and how they hear each other.",
        "# Encrypted links: the cluster link first"
        + (", the LAN when it is cut." if rings == 2 else "; there is no second one."),
        "totem {",
        "    version: 2",
        f"    cluster_name: {CLUSTER_NAME}",
        "    transport: knet",
        "    crypto_cipher: aes256",
        "    crypto_hash: sha256",
        "    link_mode: passive",
        "    # A lost node is noticed after this many milliseconds without its token.",
        f"    token: {TOKEN}",
        "    # Then the other is waited for this long. Two nodes need no longer.",
        f"    consensus: {CONSENSUS}",
    ]
    for link in range(rings):
        lines += [
            "    interface {",
            f"        linknumber: {link}",
            f"        knet_link_priority: {10 - 5 * link}",
            "    }",
        ]
    lines += ["}", "nodelist {"]
    for node in nodes:
        lines += ["    node {", f"        name: {node.name}", f"        nodeid: {node.nodeid}"]
        lines += [
            f"        ring{link}_addr: {address}"
            for link, address in enumerate(_addresses(node)[:rings])
        ]
        lines.append("    }")
    lines += ["}", "quorum {", "    provider: corosync_votequorum"]
    if joined:
        lines += [
            "    # Either may go on alone; both must have met after a power cut of both.",
            "    two_node: 1",
        ]
        if not have_met:
            lines.append(f"    {ALONE_AT_BOOT}")
    lines += ["}", "logging {", "    to_syslog: yes", "    to_stderr: no", "}"]
    return "\n".join(lines) + "\n"


def once_met(text: str) -> str:
    """The same file without what only holds until both nodes have met."""
    return "".join(line for line in text.splitlines(keepends=True)
                   if line.strip() != ALONE_AT_BOOT)


def _addresses(node: NodeConfig) -> tuple[str, str]:
    return node.address, node.lan


def parse(text: str) -> Conf:
    """Any corosync.conf(5): comments, blank lines and order do not matter.

    What it does not understand it leaves out: the caller compares with what should be there.
    """
    top = _sections(text)
    nodes = []
    for nodelist in top.all("nodelist"):
        for node in nodelist.all("node"):
            rings = []
            for link in range(8):
                if address := node.values.get(f"ring{link}_addr", ""):
                    rings.append(address)
            nodeid = node.values.get("nodeid", "")
            nodes.append(Node(
                node.values.get("name", ""),
                int(nodeid) if nodeid.isdecimal() and len(nodeid) <= 10 else 0,
                tuple(rings),
            ))
    return Conf(
        tuple(nodes),
        any(quorum.values.get("two_node") == "1" for quorum in top.all("quorum")),
        next((t.values["cluster_name"] for t in top.all("totem") if "cluster_name" in t.values),
             ""),
    )


def _sections(text: str) -> _Section:
    """coroparse.c: a line is a comment, ``name {``, ``}`` or ``key: value``."""
    top = _Section("")
    open_ones = [top]
    for raw in text.splitlines():
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        if line.endswith("{"):
            section = _Section(line[:-1].strip())
            open_ones[-1].inside.append(section)
            open_ones.append(section)
        elif line == "}":
            if len(open_ones) > 1:
                open_ones.pop()
        else:
            key, colon, value = line.partition(":")
            if colon:
                open_ones[-1].values[key.strip()] = value.strip()
    return top
