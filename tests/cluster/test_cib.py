"""cib/asha.crm on both releases: it loads, twice, verifies, and carries a switch."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from xml.etree import ElementTree

import pytest

from asha.lan import ATTRIBUTE, NO_ANSWER, NO_CARRIER, OK, UNSTEADY
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


STALE = 1000  # DRBD's score of a disk that is UpToDate as far as that node knows alone


@pytest.mark.parametrize(("active", "passive", "moves"), [
    (OK, OK, False),
    (NO_CARRIER, OK, True),
    (NO_ANSWER, OK, True),
    (UNSTEADY, OK, True),
    (OK, NO_CARRIER, False),
    (OK, UNSTEADY, False),
    (NO_CARRIER, NO_CARRIER, False),
    (NO_ANSWER, UNSTEADY, False),
    # A watcher that does not run is no reason to move, and its node as good as another.
    ("", OK, False),
    (OK, "", False),
    ("", NO_CARRIER, False),
    (NO_CARRIER, "", True),
    ("", "", False),
])
def test_what_pacemaker_makes_of_the_lans(
    cluster: Cluster, active: str, passive: str, moves: bool
) -> None:
    here, there = cluster.active().name, cluster.passive().name
    told = simulated(cluster, {here: active, there: passive})
    assert goes_to(told) == (there if moves else here)


def test_no_lan_is_worth_a_disk_that_is_not_up_to_date(cluster: Cluster) -> None:
    here, there = cluster.active().name, cluster.passive().name
    told = simulated(cluster, {here: NO_CARRIER, there: OK}, {there: STALE})
    assert goes_to(told) == here


def simulated(
    cluster: Cluster, lans: Mapping[str, str], disks: Mapping[str, int] | None = None
) -> str:
    """What Pacemaker itself would do if these were the nodes' LANs and DRBD's scores."""
    node = cluster.active()
    top = ElementTree.fromstring(node.run("cibadmin", "--query").out)
    for about in top.iterfind("status/node_state"):
        name = about.get("uname", "")
        known = about.find("transient_attributes/instance_attributes")
        assert known is not None
        for one in list(known):
            if one.get("name") == ATTRIBUTE:
                known.remove(one)
            elif one.get("name", "").startswith("master-p_drbd") and name in (disks or {}):
                one.set("value", str((disks or {})[name]))
        if lans[name]:
            ElementTree.SubElement(known, "nvpair", {
                "id": f"try-{name}", "name": ATTRIBUTE, "value": lans[name]})
    return node.run("crm_simulate", "--xml-pipe", "--simulate",
                    stdin=ElementTree.tostring(top, encoding="unicode")).out


def goes_to(told: str) -> str:
    """Where Asterisk is in the end, by what crm_simulate prints."""
    found: list[str] = re.findall(r"p_asterisk\s+\(\S+\):\s+Started (\S+)", told)
    return found[-1]


def test_planned_switch(cluster: Cluster) -> None:
    with Prober(cluster.lab) as prober:
        report = play(cluster, prober, by_name("planned"))
    assert report.problems() == []
