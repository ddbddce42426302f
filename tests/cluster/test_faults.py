"""Every fault on two real nodes, in the demo's order, with the invariants after each.

The times asserted are generous: `make bench` measures, these tests find hangs.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conftest import lab_or_skip
from tests.lab.cluster import Cluster
from tests.lab.faults import FAULTS, GENEROUS, MARIADB_BROKEN, Fault, play
from tests.lab.prober import Prober


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with lab_or_skip() as lab:
        running = Cluster(lab)
        running.load()
        yield running


@pytest.fixture(scope="module")
def prober(cluster: Cluster) -> Iterator[Prober]:
    with Prober(cluster.lab) as asking:
        yield asking


@pytest.mark.parametrize("fault", [*FAULTS, MARIADB_BROKEN], ids=lambda fault: fault.name)
def test_fault(cluster: Cluster, prober: Prober, fault: Fault) -> None:
    if fault.name != "node-returns":  # which starts from the wreck of the one before
        cluster.heal()
    elif all(node.is_up for node in cluster.lab.nodes.values()):
        cluster.passive().crash()
    report = play(cluster, prober, fault)
    assert report.problems() == []
    assert report.outage <= fault.limit * GENEROUS
