"""What the cluster is told of an Asterisk that is not well."""

from __future__ import annotations

import pytest

from asha.asterisk.told import is_news, merged, value


def test_each_depth_keeps_its_own() -> None:
    text = merged("", [(10, "AstDB is full"), (20, "no call")], 20)
    assert value(text) == "degraded: AstDB is full; no call"
    # Depth 10 does not know of the call; depth 0 of neither.
    assert value(merged(text, [], 10)) == "degraded: no call"
    assert merged(text, [], 0).splitlines() == ["10 AstDB is full", "20 no call"]
    assert merged(text, [], 20) == ""


def test_a_reason_is_one_line_of_ascii() -> None:
    assert merged("", [(0, "caf\u00e9\nis full")], 0) == "0 caf? is full"


@pytest.mark.parametrize("torn", ["2", "x y", "\n"])
def test_a_torn_file_is_none(torn: str) -> None:
    assert merged(torn, [], 0) == ""


def test_other_figures_are_no_news() -> None:
    assert not is_news("10 600 tasks wait", "10 601 tasks wait")
    assert is_news("10 600 tasks wait", "")
    assert is_news("10 AMI is gone", "10 AstDB is full")
