"""asha.run.results: the numbers are those of the OCF standard and of Pacemaker."""

from __future__ import annotations

import pytest

from asha.run import results
from asha.run.results import AgentError, Exit

NUMBERS = {
    "SUCCESS": 0,
    "ERR_GENERIC": 1,
    "ERR_ARGS": 2,
    "ERR_UNIMPLEMENTED": 3,
    "ERR_PERM": 4,
    "ERR_INSTALLED": 5,
    "ERR_CONFIGURED": 6,
    "NOT_RUNNING": 7,
    "RUNNING_PROMOTED": 8,
    "FAILED_PROMOTED": 9,
    "DEGRADED": 190,
    "DEGRADED_PROMOTED": 191,
}


@pytest.mark.parametrize(("name", "number"), NUMBERS.items())
def test_each_code_has_its_number_and_its_name(name: str, number: int) -> None:
    code = getattr(Exit, name)
    assert isinstance(code, Exit)
    assert code == number
    assert code.name == name
    assert repr(code) == f"Exit.{name}"
    assert f"{code}" == str(number)


def test_every_declared_code_exists() -> None:
    declared = [name for name in Exit.__annotations__ if name.isupper()]
    assert declared == list(NUMBERS)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (results.Failed, 1),
        (results.Expired, 1),
        (results.BadHere, 2),
        (results.NotInstalled, 5),
        (results.BadConfig, 6),
        (results.NotRunning, 7),
        (results.FailedPromoted, 9),
        (results.Degraded, 190),
        (results.DegradedPromoted, 191),
    ],
)
def test_each_error_carries_its_code_and_reason(error: type[AgentError], code: int) -> None:
    problem = error("what to do")
    assert (problem.code, problem.reason) == (code, "what to do")
    assert str(problem) == "what to do"
