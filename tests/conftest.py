"""A lab for tests, or the reason why there is none."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.lab import Lab, LabUnavailable
from tests.lab.lab import NODES


@contextmanager
def lab_or_skip(
    *nodes: str, cluster: bool = True, customer: bool = False, release: str = ""
) -> Iterator[Lab]:
    """A lab that is up. Where none can run the test is skipped; in CI it fails."""
    try:
        lab = Lab(nodes=nodes or NODES, cluster=cluster, customer=customer, release=release)
        lab.up()
    except LabUnavailable as reason:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(reason))
    try:
        yield lab
    finally:
        lab.down()
