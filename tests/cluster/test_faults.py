"""Every fault of the cluster's on two real nodes, with the invariants after each.

The times asserted are generous: `make bench` measures, these tests find hangs.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conftest import lab_or_skip
from tests.lab.cluster import Cluster
from tests.lab.faults import CLUSTER, GENEROUS, Fault, of_kind
from tests.lab.play import play
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


@pytest.mark.parametrize("fault", of_kind(CLUSTER), ids=lambda fault: fault.name)
def test_fault(cluster: Cluster, prober: Prober, fault: Fault) -> None:
    cluster.heal()
    report = play(cluster, prober, fault)
    assert report.problems() == []
    assert report.outage <= fault.limit * GENEROUS
