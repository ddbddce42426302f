"""Every agent's metadata, as each program that reads it reads it."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from tests.cluster.single import AGENTS as DIRECTORY
from tests.conformance.agents import AGENTS, CASES
from tests.lab import Node, Result

SCHEMAS = "/usr/share/resource-agents"
PCS_SCHEMA = "/usr/share/pcs/data/ocf-1.0.rng"


@pytest.fixture(scope="module", params=AGENTS)
def agent(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_every_agent_is_tested() -> None:
    assert {case.agent for case in CASES} == set(AGENTS)


def metadata(node: Node, agent: str) -> str:
    return node.run(f"{DIRECTORY}/{agent}", "meta-data").out


def parsed(node: Node, agent: str) -> ElementTree.Element:
    return ElementTree.fromstring(metadata(node, agent))


def lint(node: Node, text: str, *options: str) -> Result:
    return node.run(
        "sh",
        "-c",
        f"cd {SCHEMAS} && xmllint --noout {' '.join(options)} -",
        stdin=text,
        check=False,
    )


def test_nobody_may_ask_and_needs_no_environment(node: Node, agent: str) -> None:
    asked = node.run(
        "runuser", "-u", "nobody", "--", "env", "-i", f"{DIRECTORY}/{agent}", "meta-data"
    )
    assert asked.out == metadata(node, agent)
    assert asked.err == ""


def test_dtd(node: Node, agent: str) -> None:
    checked = lint(node, metadata(node, agent), "--valid")
    assert checked.code == 0, checked.err


@pytest.mark.parametrize("schema", [f"{SCHEMAS}/metadata.rng", PCS_SCHEMA])
def test_rng(node: Node, agent: str, schema: str) -> None:
    checked = lint(node, metadata(node, agent), "--relaxng", schema)
    assert checked.code == 0, checked.err
    assert "validates" in checked.err


@pytest.mark.parametrize("option", ["--valid", f"--relaxng {SCHEMAS}/metadata.rng"])
def test_the_schemas_can_refuse(node: Node, option: str) -> None:
    broken = metadata(node, AGENTS[0]).replace("<version>1.0</version>\n", "")
    assert lint(node, broken, option).code != 0


def test_it_is_named_as_its_file(node: Node, agent: str) -> None:
    assert parsed(node, agent).get("name") == agent


def test_no_two_monitors_share_an_interval(node: Node, agent: str) -> None:
    # Pacemaker tells them apart by it, and pcs warns.
    monitors = [
        one.get("interval")
        for one in parsed(node, agent).iter("action")
        if one.get("name") == "monitor"
    ]
    assert monitors
    assert len(set(monitors)) == len(monitors)


def test_every_parameter_is_described(node: Node, agent: str) -> None:
    root = parsed(node, agent)
    for one in [root, *root.iter("parameter")]:
        for part in ("shortdesc", "longdesc"):
            text = one.findtext(part)
            assert text, f"{one.get('name')} has no {part}"
            assert text.strip()


def test_crmsh_shows_it(node: Node, agent: str) -> None:
    shown = node.run("crm", "ra", "info", f"ocf:asha:{agent}")
    assert "ERROR" not in shown.err
    assert "WARNING" not in shown.err
    root = parsed(node, agent)
    assert f"ocf:asha:{agent}" in shown.out
    assert str(root.findtext("shortdesc")) in shown.out
    for one in root.iter("parameter"):
        assert str(one.get("name")) in shown.out
        assert str(one.findtext("shortdesc")) in shown.out


def test_pcs_shows_it(node: Node, agent: str) -> None:
    shown = node.run("pcs", "resource", "describe", f"ocf:asha:{agent}")
    assert "Warning" not in shown.out + shown.err
    assert "Error" not in shown.err
    root = parsed(node, agent)
    assert str(root.findtext("shortdesc")) in shown.out
    for one in root.iter("parameter"):
        required = " (required)" if one.get("required") == "1" else ""
        assert f"{one.get('name')}{required}" in shown.out
    for one in root.iter("action"):
        if one.get("name") == "monitor":
            assert f"interval={one.get('interval')}" in shown.out


def test_pacemaker_reads_it(node: Node, agent: str) -> None:
    shown = node.run("crm_resource", "--show-metadata", f"ocf:asha:{agent}")
    canonical = ElementTree.canonicalize
    assert canonical(shown.out) == canonical(metadata(node, agent))


def test_it_is_listed(node: Node, agent: str) -> None:
    listed = node.run("crm_resource", "--list-agents", "ocf:asha")
    assert agent in listed.out.split()
