"""A lab for tests, or the reason why there is none; and what many tests need."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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


@pytest.fixture(scope="session")
def common() -> Iterator[Path]:
    """A directory that every user may come to: pytest's own are closed, and closed again
    by each pytest that starts."""
    with tempfile.TemporaryDirectory(prefix="asha-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)
