"""An action killed half way (power, OOM, Pacemaker's timeout) leaves nothing stuck."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.single import AGENTS, call, environment, mount_store, without_judge
from tests.conftest import lab_or_skip
from tests.lab import Node

TRIES = 50
SCRIPT = Path(__file__).parent / "kill_actions.py"
SEED = 20141


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    with lab_or_skip("crm1", cluster=False) as lab:
        node = lab.node("crm1")
        mount_store(node)
        without_judge(node)
        node.write("/root/kill_actions.py", SCRIPT.read_text())
        yield node


@pytest.mark.parametrize("action", ["start", "stop"])
@pytest.mark.parametrize("agent", ["sark-data", "asterisk-health"])
def test_killed_half_way(node: Node, agent: str, action: str) -> None:
    if agent == "asterisk-health":
        assert call(node, "sark-data", "start").code == 0
    said = node.run(
        "/usr/bin/python3", "/root/kill_actions.py", f"{AGENTS}/{agent}", action,
        str(TRIES), str(SEED), env=environment(agent), timeout=TRIES * 30,
    )
    result = json.loads(said.out)
    assert result["failures"] == []
    assert result["killed"] == TRIES
