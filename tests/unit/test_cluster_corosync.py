"""corosync.conf: for one node and for two, and read back."""

from __future__ import annotations

import dataclasses

import pytest

from asha.cluster import corosync
from asha.cluster.corosync import Conf, Node
from asha.cluster.site import NodeConfig, Site

SITE = Site(
    first=NodeConfig("crm1", "10.0.3.251", "192.168.1.11", 1),
    second=NodeConfig("crm2", "10.0.3.252", "192.168.1.12", 2),
    is_first=True,
    two_nics=True,
    virtual_address="192.168.1.90",
    lan_prefix=24,
    lan_nic="eth0",
    link_nic="eth1",
    link_prefix=24,
    device="/dev/sda5",
)
DYNAMIC = dataclasses.replace(SITE, second=NodeConfig("crm2", "10.0.3.252", "", 2))
CRM1 = Node("crm1", 1, ("10.0.3.251", "192.168.1.11"))
CRM2 = Node("crm2", 2, ("10.0.3.252", "192.168.1.12"))


def test_two_nodes_and_two_rings() -> None:
    text = corosync.render(SITE, joined=True)
    assert corosync.parse(text) == Conf((CRM1, CRM2), two_node=True, cluster_name="asha")
    for line in (
        "transport: knet", "crypto_cipher: aes256", "crypto_hash: sha256", "token: 1000",
        "link_mode: passive", "knet_link_priority: 10", "knet_link_priority: 5",
        "provider: corosync_votequorum",
    ):
        assert line in [said.strip() for said in text.splitlines()]


def test_alone_it_has_quorum_and_one_ring() -> None:
    text = corosync.render(SITE, joined=False)
    conf = corosync.parse(text)
    assert conf.nodes == (Node("crm1", 1, ("10.0.3.251",)),)
    assert not conf.two_node
    assert "two_node" not in text
    assert "wait_for_all" not in text
    assert "linknumber: 1" not in text


def test_until_both_have_met_the_first_may_boot_alone() -> None:
    met = corosync.render(SITE, joined=True)
    text = corosync.render(SITE, joined=True, have_met=False)
    assert "    two_node: 1\n    wait_for_all: 0\n}" in text
    assert corosync.once_met(text) == met == corosync.once_met(met)
    by_hand = text.replace("token: 1000", "token: 3000")
    assert corosync.once_met(by_hand) == met.replace("token: 1000", "token: 3000")


def test_both_nodes_write_the_same_file_for_two() -> None:
    there = dataclasses.replace(SITE, is_first=False)
    assert corosync.render(there, joined=True) == corosync.render(SITE, joined=True)


def test_a_replacement_of_the_first_keeps_its_number() -> None:
    turned = dataclasses.replace(SITE, first=SITE.second, second=SITE.first)
    assert corosync.render(turned, joined=True) == corosync.render(SITE, joined=True)
    alone = corosync.parse(corosync.render(turned, joined=False))
    assert alone.nodes == (Node("crm2", 2, ("10.0.3.252",)),)


@pytest.mark.parametrize("site", [DYNAMIC, dataclasses.replace(SITE, two_nics=False)])
def test_no_second_ring_without_two_static_lan_addresses(site: Site) -> None:
    text = corosync.render(site, joined=True)
    assert [node.rings for node in corosync.parse(text).nodes] == [("10.0.3.251",), ("10.0.3.252",)]
    assert "192.168.1." not in text
    assert "linknumber: 1" not in text


def test_reads_what_others_wrote() -> None:
    """Order, tabs, comments, blanks and sections that are not known do not matter."""
    text = """
# a comment { that opens nothing
quorum{
\tprovider: corosync_votequorum
\ttwo_node:1
}
   nodelist   {
  node {
      ring1_addr: 192.168.1.12
      nodeid: 2
      # name: wrong
      ring0_addr:   10.0.3.252
      name: crm2
  }

  node {
      ring0_addr: fe80::1
      nodeid: 1
      name: crm1
  }
}
resources { system { memory_used { } } }
totem {
    interface {
        linknumber: 0
    }
    cluster_name: other
}
"""
    assert corosync.parse(text) == Conf(
        (CRM2, Node("crm1", 1, ("fe80::1",))), two_node=True, cluster_name="other"
    )


@pytest.mark.parametrize("text", ["", "}\n}\n", "nodelist {\n  node {\n", "nonsense\n\x00"])
def test_reads_anything_without_an_error(text: str) -> None:
    assert not corosync.parse(text).two_node


def test_debians_own_is_not_taken_for_ours() -> None:
    text = "totem {\n version: 2\n cluster_name: debian\n}\nnodelist {\n node {\n  name: node1\n" \
           "  nodeid: 1\n  ring0_addr: 127.0.0.1\n }\n}\n"
    conf = corosync.parse(text)
    assert conf.cluster_name == "debian"
    assert conf.nodes == (Node("node1", 1, ("127.0.0.1",)),)
