"""Two commands per node, as a customer types them, in the lab."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from pathlib import Path

from tests.lab import Lab, Node, Result, wait_for
from tests.lab.lab import NODES

DEB = "/root/asha.deb"
SECRET = "/etc/asha/secret"
# Hands off, and with the packages in reach: what may be asked of a node.
INSTALL_SECONDS = 180.0
APT_SECONDS = 600.0

# The answers to the package's questions: the reference site of the manual of 2014.
SITE = {
    "usenic1": "true",
    "clusterip": "192.168.1.90",
    "lannic": "eth0",
    "lanprefix": "24",
    "linknic": "eth1",
    "linkprefix": "24",
    "drbddev": "/dev/sda5",
    "clusteralert": "admin@example.com",
    "siteid": "the lab",
}
FIRST = {**SITE, "primary": "true", "ip": "10.0.3.251", "otherip": "10.0.3.252",
         "othername": "crm2", "relay": "here", "relaydriver": "rhino",
         "rhinousb": "/dev/ttyUSB0"}
SECOND = {**SITE, "primary": "false", "ip": "10.0.3.252", "otherip": "10.0.3.251",
          "othername": "crm1", "relay": "none"}
# debconf's types, where they are not string; see debian/asha.templates.
KINDS = {**dict.fromkeys(("primary", "usenic1", "lanwatch"), "boolean"),
         **dict.fromkeys(("relay", "relaydriver"), "select")}


def answers_for(lab: Lab, name: str) -> dict[str, str]:
    """FIRST or SECOND, as it is on these nodes: their partition, and no relay where none is."""
    answers = {**(FIRST if name == NODES[0] else SECOND), "drbddev": lab.node(name).partition}
    if not lab.has_line:
        answers = {key: value for key, value in answers.items() if not key.startswith("rhino")
                   and key != "relaydriver"}
        answers["relay"] = "none"
    return answers


def preseed(node: Node, answers: Mapping[str, str]) -> None:
    """Answer debconf's questions, asha/KEY, before the package asks them."""
    lines = [f"asha asha/{key} {KINDS.get(key, 'string')} {value}\n"
             for key, value in answers.items()]
    node.run("debconf-set-selections", stdin="".join(lines))


def install_package(node: Node, deb: Path) -> float:
    """``apt install ./asha.deb``, hands off; the seconds that it took."""
    node.path(DEB).write_bytes(deb.read_bytes())
    begun = time.monotonic()
    node.run("apt-get", "install", "-y", DEB, timeout=APT_SECONDS,
             env={"DEBIAN_FRONTEND": "noninteractive"})
    return time.monotonic() - begun


def install_node(
    node: Node, secret: str | None = None, *, check: bool = True, timeout: float = APT_SECONDS
) -> tuple[float, Result]:
    """``asha install --yes``: the seconds that it took, and what it said.

    ``secret``: what the person has from the first node and types on the second.
    """
    if secret is not None:
        node.write(SECRET, secret + "\n", mode=0o600)
    begun = time.monotonic()
    said = node.run("asha", "install", "--yes", timeout=timeout, check=check)
    return time.monotonic() - begun, said


def secret_of(node: Node) -> str:
    """The cluster secret, in the form that can be typed."""
    return node.path(SECRET).read_text().strip()


def secrets_of(node: Node) -> list[str]:
    """The cluster secret, and what is made of it: DRBD's, Corosync's, the AMI user's."""
    typed = secret_of(node)
    drbd = re.findall(r'shared-secret "(.*)"', node.path("/etc/drbd.d/asha.res").read_text())
    ami = re.findall(r"[0-9a-f]{40}", node.path("/etc/asha/ami.secret").read_text())
    key = node.path("/etc/corosync/authkey").read_text()
    assert len(drbd) == len(ami) == 1
    return [typed, typed.replace("-", ""), *drbd, *ami, key]


def wait_in_sync(node: Node, timeout: float = 120.0) -> float:
    """Until both disks have all of the data; the seconds that it took."""
    return wait_for(
        lambda: node.run("drbdadm", "dstate", "asha", check=False).out.strip()
        == "UpToDate/UpToDate",
        "both disks to be the same", timeout=timeout,
    )
