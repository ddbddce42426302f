"""The scripts of `asha plan`, run by hand as the prudent would: the same node."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cluster import customer
from tests.cluster.customer import FIRST
from tests.conftest import lab_or_skip
from tests.lab import Lab
from tests.lab.cluster import Cluster
from tests.lab.package import build_package

STEPS = ["10-network.sh", "20-drbd.sh", "30-data.sh", "50-cluster.sh", "70-resources.sh"]


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with lab_or_skip("crm1", customer=True) as lab:
        node = lab.node("crm1")
        customer.preseed(node, FIRST)
        customer.install_package(node, build_package(lab.release, print))
        yield lab


def test_one_after_the_other_from_one_shell(lab: Lab) -> None:
    node = lab.node("crm1")
    node.run("asha", "plan", "--scripts", "/root/scripts")
    assert node.run("ls", "/root/scripts").out.split() == STEPS
    node.run("sh", "-ec", 'for script in /root/scripts/*; do "$script"; done', timeout=300)
    assert Cluster(lab).wait_ready() == "crm1"
    assert "nothing to do" in node.run("asha", "install", "--yes").out
    assert not node.path("/var/lib/asha/handover.json").exists()


def test_a_shell_that_ends_half_way_has_changed_nothing_for_the_telephones(lab: Lab) -> None:
    """The services come back when the shell that ran 30 ends without 70."""
    node = lab.node("crm1")
    node.replace()
    customer.preseed(node, FIRST)
    customer.install_package(node, build_package(lab.release, print))
    node.run("asha", "plan", "--scripts", "/root/scripts")
    half = "".join(f"/root/scripts/{name}; " for name in STEPS[:3])
    node.run("sh", "-ec", f"{half} test -e /var/lib/asha/handover.json", timeout=300)
    node.run("timeout", "60", "sh", "-c", "while [ -e /var/lib/asha/handover.json ]; do :; done")
    for unit in ("asterisk", "mariadb", "apache2"):
        assert node.run("systemctl", "is-active", unit).out.strip() == "active"
        assert node.run("systemctl", "is-enabled", unit).out.strip() == "enabled"
