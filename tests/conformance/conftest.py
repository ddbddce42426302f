"""One whole node of each release, without Pacemaker running, for the tests of a module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conftest import lab_or_skip
from tests.lab import Lab, Node
from tests.lab.image import RELEASES


@pytest.fixture(scope="module", params=RELEASES)
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    with lab_or_skip("crm1", cluster=False, release=request.param) as lab:
        yield lab


@pytest.fixture(scope="module")
def node(lab: Lab) -> Node:
    return lab.node("crm1")
