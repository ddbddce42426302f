"""What the agent says of itself."""

from __future__ import annotations

from asha.agents.asterisk_health import AsteriskHealth
from asha.asterisk import probes


def test_metadata_tells_what_each_parameter_is_for() -> None:
    from asha.ocf.metadata import render

    text = render(AsteriskHealth)
    for name in AsteriskHealth.parameters:
        assert f'name="{name}"' in text


def test_metadata_has_a_table_of_what_is_looked_at() -> None:
    text = AsteriskHealth.appendix()
    table = [line for line in text.splitlines() if line.startswith(" ")]
    assert all(len(line) <= 78 for line in table)
    words = {line.split()[0] for line in table}
    assert set(probes.PROBES) <= words
    assert "(always)" in words
