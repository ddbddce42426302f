"""cib/asha.crm on both releases: it loads, twice, verifies, and carries a switch."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conftest import lab_or_skip
from tests.lab.cluster import CIB, Cluster
from tests.lab.faults import by_name
from tests.lab.image import RELEASES
from tests.lab.play import play
from tests.lab.prober import Prober


@pytest.fixture(scope="module", params=RELEASES)
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    with lab_or_skip(release=request.param) as lab:
        running = Cluster(lab)
        running.load()
        yield running


def test_loaded_again_changes_nothing(cluster: Cluster) -> None:
    node = cluster.active()
    before = node.run("cibadmin", "--query", "--scope=configuration").out
    node.write("/root/again.crm", CIB.read_text())
    node.run("crm", "configure", "load", "update", "/root/again.crm")
    assert node.run("cibadmin", "--query", "--scope=configuration").out == before


def test_verifies_without_a_word(cluster: Cluster) -> None:
    said = cluster.active().run("crm_verify", "-LV")
    assert (said.out + said.err).strip() == ""


def test_user_commands(cluster: Cluster) -> None:
    said = cluster.active().run("crm", "resource", "status").out
    for name in ("p_fs", "p_data", "p_ip", "p_source", "p_asterisk", "p_mysql", "p_apache"):
        assert name in said
    assert cluster.audit() == []


def test_no_secret_in_the_cib(cluster: Cluster) -> None:
    secret = cluster.active().path("/etc/asha/ami.secret").read_text().split("secret=")[1].strip()
    assert secret
    assert secret not in cluster.active().run("cibadmin", "--query").out


def test_planned_switch(cluster: Cluster) -> None:
    with Prober(cluster.lab) as prober:
        report = play(cluster, prober, by_name("planned"))
    assert report.problems() == []
