"""What is written for Corosync and DRBD, before their own programs, on both releases."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from asha.cluster import corosync, drbd
from asha.cluster.secret import Secret
from asha.cluster.site import NodeConfig, Site, parse
from tests.conftest import lab_or_skip
from tests.lab import Node
from tests.lab.image import RELEASES

STATIC = """\
PRIMARY=true
CLUSTERIP=192.168.1.90
ANODENAME=crm1
ANODEIP=10.0.3.251
ANODELAN=192.168.1.11
BNODENAME=crm2
BNODEIP=10.0.3.252
BNODELAN=192.168.1.12
DRBDDEV=/dev/sda5
"""
DYNAMIC = "".join(line for line in STATIC.splitlines(keepends=True) if "LAN=" not in line)
SECRET = Secret.generate()

# Both want this host's name or address in the file: in namespaces of their own.
AS_NODE = (
    'hostname "$1"; ip link set lo up; ip link add lan type veth peer name cable; '
    'ip link set lan up; ip address add "$2/24" dev lan; '
    'test -z "$3" || ip address add "$3/24" dev lan; shift 3; exec "$@"'
)


@pytest.fixture(scope="module", params=RELEASES)
def node(request: pytest.FixtureRequest) -> Iterator[Node]:
    with lab_or_skip("crm1", customer=True, release=request.param) as lab:
        node = lab.node("crm1")
        node.run("apt-get", "install", "-y", "--no-install-recommends", "corosync", "drbd-utils",
                 env={"DEBIAN_FRONTEND": "noninteractive"}, timeout=300)
        yield node


def run_as(node: Node, peer: NodeConfig, *argv: str) -> str:
    return node.run("unshare", "--uts", "--net", "sh", "-ec", AS_NODE, "sh",
                    peer.name, peer.address, peer.lan, *argv).out


def drbd_parser(conf: str, version: str) -> list[str]:
    """The one of drbd-utils that this module's drbdadm would use, on a file alone.

    To be run where ``uname -n`` is one of the two nodes.
    """
    return ["/lib/drbd/drbdadm-84" if drbd.is_old(version) else "/sbin/drbdadm", "-c", conf, "dump"]


@pytest.mark.parametrize("version", ["8.4.11", "9.2.8"])
def test_drbd_utils_parse_the_resource(node: Node, version: str) -> None:
    site = parse(STATIC)
    node.write("/root/asha.res", drbd.render(site, SECRET, version), mode=0o600)
    for peer in (site.first, site.second):
        said = run_as(node, peer, *drbd_parser("/root/asha.res", version))
        assert "resource asha" in said
        assert f"{peer.address}:7788" in said
        assert "resource-only" in said


def test_drbd_utils_refuse_the_other_versions_file(node: Node) -> None:
    """Otherwise the test above would say nothing."""
    site = parse(STATIC)
    node.write("/root/wrong.res", drbd.render(site, SECRET, "9.2.8"), mode=0o600)
    said = node.run("unshare", "--uts", "--net", "sh", "-ec", AS_NODE, "sh", "crm1", "10.0.3.251",
                    "", *drbd_parser("/root/wrong.res", "8.4.11"), check=False)
    assert said.code != 0
    assert "wrong.res" in said.err


@pytest.mark.parametrize("joined", [False, True])
@pytest.mark.parametrize("text", [STATIC, DYNAMIC], ids=["two rings", "one ring"])
def test_corosync_takes_its_configuration(node: Node, text: str, joined: bool) -> None:
    site: Site = parse(text)
    node.write("/root/authkey", SECRET.corosync_authkey(), mode=0o400)
    conf = corosync.render(site, joined=joined)
    node.write("/root/corosync.conf",
               conf.replace("    version: 2\n", "    version: 2\n    keyfile: /root/authkey\n"))
    run_as(node, site.here, "corosync", "-c", "/root/corosync.conf", "-t")
