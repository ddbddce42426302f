"""A lab for tests, or the reason why there is none; and what many tests need."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pluggy import Result

from tests.lab import Lab, LabUnavailable
from tests.lab.image import Say
from tests.lab.lab import FAST, NODES

# The labs that are up, or on their way.
LABS: list[Lab] = []


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport() -> Generator[None, Result[pytest.TestReport], None]:
    """A test that fails says where the log of its lab is, and what the cluster said last."""
    outcome = yield
    report = outcome.get_result()
    if report.failed:
        report.sections += [("what ran on the nodes", lab.tell_failure(report.nodeid))
                            for lab in LABS]


@contextmanager
def lab_or_skip(
    *nodes: str, cluster: bool = True, customer: bool = False, release: str = "",
    kind: str = FAST, say: Say = lambda text: None,
) -> Iterator[Lab]:
    """A lab that is up. Where none can run the test is skipped; in CI it fails."""
    try:
        lab = Lab(nodes=nodes or NODES, cluster=cluster, customer=customer, release=release,
                  kind=kind, say=say)
        # One that did not come up was kept for the report of that.
        LABS[:] = [*(one for one in LABS if one.directory.exists()), lab]
        lab.up()
    except LabUnavailable as reason:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(reason))
    try:
        yield lab
    except Exception as problem:
        # A test that has a lab of its own.
        problem.add_note(lab.tell_failure(os.environ.get("PYTEST_CURRENT_TEST", "")))
        raise
    finally:
        lab.down()
        LABS.remove(lab)


@pytest.fixture(scope="session")
def common() -> Iterator[Path]:
    """A directory that every user may come to: pytest's own are closed, and closed again
    by each pytest that starts."""
    with tempfile.TemporaryDirectory(prefix="asha-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)
