"""What is written for Corosync and DRBD, before their own programs, on both releases."""

from __future__ import annotations

import re
from collections.abc import Iterator
from xml.etree import ElementTree

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


def drbd_parser(conf: str, version: str, *command: str) -> list[str]:
    """The one of drbd-utils that this module's drbdadm would use, on a file alone.

    To be run where ``uname -n`` is one of the two nodes.
    """
    program = "/lib/drbd/drbdadm-84" if drbd.is_old(version) else "/sbin/drbdadm"
    return [program, "-c", conf, *(command or ["dump"])]


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


# What a customer may have set for all resources: of each option that asha.res says the opposite,
# by section.
BOTH = {
    "net": {
        "protocol": "A", "allow-two-primaries": "yes", "on-congestion": "pull-ahead",
        "cram-hmac-alg": "md5", "shared-secret": "theirs", "verify-alg": "md5",
        "data-integrity-alg": "md5", "csums-alg": "md5", "ping-int": "60",
        "ping-timeout": "300", "timeout": "500", "ko-count": "0", "connect-int": "120",
        "after-sb-0pri": "discard-younger-primary", "after-sb-1pri": "discard-secondary",
        "after-sb-2pri": "call-pri-lost-after-sb", "always-asbp": "yes",
        "rr-conflict": "violently", "max-buffers": "32", "max-epoch-size": "1",
        "sndbuf-size": "64k", "rcvbuf-size": "64k", "use-rle": "no", "tcp-cork": "no",
    },
    "disk": {
        "on-io-error": "pass_on", "disk-timeout": "6000", "disk-barrier": "yes",
        "disk-flushes": "no", "disk-drain": "no", "md-flushes": "no", "al-updates": "no",
        "al-extents": "67", "read-balancing": "round-robin", "c-plan-ahead": "0",
        "c-fill-target": "1", "c-max-rate": "1M", "c-min-rate": "1M",
        "resync-rate": "1M",
    },
    "options": {"on-no-data-accessible": "suspend-io"},
    "handlers": dict.fromkeys(
        ("fence-peer", "unfence-peer", "after-resync-target", "pri-on-incon-degr", "pri-lost",
         "pri-lost-after-sb", "local-io-error", "before-resync-target", "before-resync-source"),
        "/sbin/theirs"),
}
ONLY_84 = {"disk": {"fencing": "dont-care"}}
ONLY_9 = {
    "net": {"fencing": "dont-care", "allow-remote-read": "no"},
    "options": {"auto-promote": "yes", "quorum": "majority"},
    "handlers": {"quorum-lost": "/sbin/theirs"},
}
# Options of drbdsetup that asha.res leaves to the kernel, and to a customer's section common.
# Of no meaning beside what is said:
IDLE = {"c-delay-target", "congestion-fill", "congestion-extents", "csums-after-crash-only",
        "resync-after", "auto-promote-timeout", "on-no-quorum", "quorum-minimum-redundancy",
        "on-suspended-primary-outdated"}
# Only about speed and load, or how the disk beneath is spoken to:
SPEED = {"unplug-watermark", "cpu-mask", "discard-zeroes-if-aligned", "disable-write-same",
         "rs-discard-granularity", "max-io-depth", "peer-ack-window", "peer-ack-delay",
         "bitmap"}
# Time-outs of a connection that is being made, and of 9's own:
WAITS = {"socket-check-timeout", "twopc-timeout", "twopc-retry-timeout"}
BARE = """\
resource asha {
    device /dev/drbd0 minor 0; disk /dev/sda5; meta-disk internal;
    on crm1 { node-id 0; address 10.0.3.251:7788; }
    on crm2 { node-id 1; address 10.0.3.252:7788; }
}
"""


def common_of(version: str) -> dict[str, dict[str, str]]:
    only = ONLY_84 if drbd.is_old(version) else ONLY_9
    return {name: {**options, **only.get(name, {})} for name, options in BOTH.items()}


def as_common(sections: dict[str, dict[str, str]]) -> str:
    lines = ["common {"]
    for name, options in sections.items():
        lines += [f"    {name} {{", *(f'        {key} "{value}";' if name == "handlers" else
                                      f"        {key} {value};"
                                      for key, value in options.items()), "    }"]
    return "\n".join([*lines, "}", ""])


def words(node: Node, site: Site, text: str, version: str) -> list[str]:
    """The options that drbdadm would give to the kernel, and the resource's handlers."""
    node.write("/root/common.res", text, mode=0o600)
    up = run_as(node, site.first, *drbd_parser("/root/common.res", version, "-d", "up", "asha"))
    dump = run_as(node, site.first, *drbd_parser("/root/common.res", version, "dump", "asha"))
    resource = dump[dump.index("resource asha"):]
    handlers = resource[resource.index("handlers {"):] if "handlers {" in resource else ""
    return sorted([word.removeprefix("--") for word in up.split() if word.startswith("--")]
                  + [f"{key}={value.strip(';')}" for key, _, value in (
                      " ".join(line.split()).partition(" ") for line in handlers.splitlines())
                     if value.endswith(";")])


@pytest.mark.parametrize("version", ["8.4.11", "9.2.8"])
def test_nothing_comes_from_the_common_section(node: Node, version: str) -> None:
    """It says the opposite of every option that asha.res has, and counts for none."""
    site, common = parse(STATIC), common_of(version)
    ours = drbd.render(site, SECRET, version)
    said = words(node, site, ours, version)
    opposites = {key: value for options in common.values() for key, value in options.items()}
    assert {word.partition("=")[0] for word in said} - {"_name"} == set(opposites)
    assert {f"{key}={value}" for key, value in opposites.items()}.isdisjoint(said)
    assert words(node, site, as_common(common) + ours, version) == said
    # It does count where nothing is said.
    bare = BARE if not drbd.is_old(version) else re.sub(r"node-id \d;", "", BARE)
    theirs = words(node, site, as_common({**common, "handlers": {}}) + bare, version)
    assert set(theirs) - {"_name=crm2"} == {
        f"{key}={value}" for name, options in common.items() if name != "handlers"
        for key, value in options.items()}


@pytest.mark.parametrize("version", ["8.4.11", "9.2.8"])
def test_each_option_is_said_or_left_out_on_purpose(node: Node, version: str) -> None:
    if drbd.is_old(version):
        program, commands = "/lib/drbd/drbdsetup-84", ["disk-options"]
    else:  # where the lab has put Debian's own: 12 has it in /sbin, 13 in /usr/sbin
        program = next(path for path in (f"/usr/lib/lab{place}/sbin/drbdsetup"
                                         for place in ("/usr", "")) if node.path(path).exists())
        commands = ["disk-options", "peer-device-options"]
    known = {str(option.get("name"))
             for command in (*commands, "net-options", "resource-options")
             for option in ElementTree.fromstring(
                 node.run(program, "xml-help", command).out).iter("option")}
    said = {key for options in common_of(version).values() for key in options}
    assert "fencing" in known
    assert known - said <= IDLE | SPEED | WAITS | {"set-defaults", "_name"}


@pytest.mark.parametrize("joined", [False, True])
@pytest.mark.parametrize("text", [STATIC, DYNAMIC], ids=["two rings", "one ring"])
def test_corosync_takes_its_configuration(node: Node, text: str, joined: bool) -> None:
    site: Site = parse(text)
    node.write("/root/authkey", SECRET.corosync_authkey(), mode=0o400)
    conf = corosync.render(site, joined=joined)
    node.write("/root/corosync.conf",
               conf.replace("    version: 2\n", "    version: 2\n    keyfile: /root/authkey\n"))
    run_as(node, site.here, "corosync", "-c", "/root/corosync.conf", "-t")
