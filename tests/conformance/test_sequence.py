"""Every agent through its life, by the rules of the OCF and of Pacemaker."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest

from tests.cluster.single import AGENTS as DIRECTORY
from tests.cluster.single import environment, reason
from tests.conformance.agents import CASES, Case
from tests.lab import Lab, Node, Result

# What any agent could write to, of ASHA's own and of the system's.
STATE = (
    "/run/resource-agents",
    "/run/systemd/system",
    "/etc/systemd",
    "/etc/asha",
    "/usr/lib/ocf/resource.d/asha",
    "/usr/lib/python3/dist-packages/asha",
)

INTERVAL = "OCF_RESKEY_CRM_meta_interval"

# The programs with which an agent tells the cluster something.
TELLERS = ("crm_attribute", "attrd_updater", "crm_resource", "cibadmin")
SPIES = "/root/spies"

PROMOTABLE = [case for case in CASES if case.promotable]
NOT_PROMOTABLE = [case for case in CASES if not case.promotable]


@pytest.fixture(scope="module", params=CASES, ids=str)
def case(request: pytest.FixtureRequest, lab: Lab) -> Iterator[Case]:
    """The case, with its node ready for it."""
    case: Case = request.param
    with case.prepare(lab):
        yield case
        act(lab.node("crm1"), case, "stop")


def act(
    node: Node,
    case: Case,
    action: str,
    changed: Mapping[str, str] | None = None,
    *,
    check_level: int = 0,
    probe: bool = False,
) -> Result:
    """One action with the working parameters, some changed, and its manners checked."""
    given = environment(case.agent, {**case.parameters, **(changed or {})}, check_level=check_level)
    if probe:
        del given[INTERVAL]  # as Pacemaker does it
    done = node.run(f"{DIRECTORY}/{case.agent}", action, env=given, timeout=90, check=False)
    assert done.out == ""
    assert "Traceback" not in done.err
    # One reason where something is wrong, none where nothing is.
    quiet = done.code in (0, 3, 8) or (done.code == 7 and probe)
    assert bool(reason(done)) != quiet, done
    return done


def stopped(node: Node, case: Case) -> None:
    assert act(node, case, "stop").code == 0
    assert act(node, case, "monitor", probe=True).code == 7


def started(node: Node, case: Case) -> None:
    assert act(node, case, "start").code == 0
    assert act(node, case, "monitor", probe=True).code == 0


def listing(node: Node, *directories: str) -> str:
    """Everything there with size, mode, and times of change, and all that is mounted."""
    looks = r"%p %y %m %u %s %T@ %C@\n"
    found = [
        # Asterisk's watcher gives its sign of life there.
        node.run("find", directory, "!", "-name", "*.beat", "-printf", looks, check=False).out
        for directory in directories
    ]
    lines = sorted("".join(found).splitlines())
    return "\n".join(lines) + node.run("cat", "/proc/self/mountinfo").out


# The whole of it, by the tool that Debian ships.


def test_ocf_tester(node: Node, case: Case) -> None:
    options = [part for key, value in case.parameters.items() for part in ("-o", f"{key}={value}")]
    tested = node.run(
        "ocf-tester",
        "-n",
        f"p_{case.agent}",
        *options,
        f"{DIRECTORY}/{case.agent}",
        timeout=300,
        check=False,
    )
    assert tested.code == 0, tested.out + tested.err
    assert "passed all tests" in tested.out
    assert "* rc=" not in tested.out


# The same step by step, in this order: action, whether as a probe, code.

PLAIN_STEPS = (
    ("stop", False, 0),
    ("monitor", True, 7),
    ("monitor", False, 7),
    ("validate-all", False, 0),
    ("start", False, 0),
    ("monitor", False, 0),
    ("monitor", True, 0),
    ("start", False, 0),
    ("monitor", False, 0),
    ("validate-all", False, 0),
    ("stop", False, 0),
    ("monitor", False, 7),
    ("stop", False, 0),
    ("monitor", True, 7),
)
PROMOTABLE_STEPS = (
    ("promote", False, 7),
    ("start", False, 0),
    ("demote", False, 0),
    ("promote", False, 0),
    ("monitor", False, 8),
    ("monitor", True, 8),
    ("promote", False, 0),
    ("monitor", False, 8),
    ("demote", False, 0),
    ("monitor", False, 0),
    ("demote", False, 0),
    ("monitor", True, 0),
    # A start leaves it unpromoted, and a stop needs no demote before.
    ("promote", False, 0),
    ("start", False, 0),
    ("monitor", False, 0),
    ("promote", False, 0),
    ("stop", False, 0),
    ("monitor", True, 7),
    # It is not promoted, and that is what a demote is for.
    ("demote", False, 0),
)


def numbered(steps: tuple[tuple[str, bool, int], ...]) -> list[object]:
    return [
        pytest.param(*step, id=f"{number:02}-{'probe' if step[1] else step[0]}")
        for number, step in enumerate(steps)
    ]


@pytest.mark.parametrize(("action", "probe", "code"), numbered(PLAIN_STEPS))
def test_step(node: Node, case: Case, action: str, probe: bool, code: int) -> None:
    done = act(node, case, action, probe=probe)
    assert done.code == code, done


@pytest.mark.parametrize("case", PROMOTABLE, ids=str, indirect=True)
@pytest.mark.parametrize(("action", "probe", "code"), numbered(PROMOTABLE_STEPS))
def test_promotable_step(node: Node, case: Case, action: str, probe: bool, code: int) -> None:
    done = act(node, case, action, probe=probe)
    assert done.code == code, done


@pytest.mark.parametrize("case", NOT_PROMOTABLE, ids=str, indirect=True)
@pytest.mark.parametrize("action", ["promote", "demote", "notify"])
def test_what_is_not_promotable_says_so(node: Node, case: Case, action: str) -> None:
    assert act(node, case, action).code == 3


@pytest.mark.parametrize(
    "action", ["frobnicate", "migrate_to", "migrate_from", "reload", "reload-agent", ""]
)
def test_unknown_action(node: Node, case: Case, action: str) -> None:
    assert act(node, case, action).code == 3


def test_interval_0_is_a_probe_too(node: Node, case: Case) -> None:
    # As ocf-tester and older Pacemakers have it.
    stopped(node, case)
    given = environment(case.agent, case.parameters) | {INTERVAL: "0"}
    done = node.run(f"{DIRECTORY}/{case.agent}", "monitor", env=given, check=False)
    assert (done.code, done.out, done.err) == (7, "", "")


def test_deep_monitor_and_validation(node: Node, case: Case) -> None:
    started(node, case)
    assert act(node, case, "monitor", check_level=10).code == 0
    assert act(node, case, "validate-all", check_level=10).code == 0


# A probe only looks.


def test_a_probe_of_what_is_stopped_changes_nothing(node: Node, case: Case) -> None:
    stopped(node, case)
    before = listing(node, *STATE, *case.data)
    assert act(node, case, "monitor", probe=True).code == 7
    assert listing(node, *STATE, *case.data) == before


def test_a_probe_of_what_runs_changes_nothing(node: Node, case: Case) -> None:
    # Not the data: the service itself writes there.
    started(node, case)
    before = listing(node, *STATE)
    assert act(node, case, "monitor", probe=True).code == 0
    assert listing(node, *STATE) == before


def test_a_probe_tells_the_cluster_nothing_new(node: Node, case: Case) -> None:
    """What was told before may be written again, as it was (docs/design.md, 39)."""
    node.run("rm", "-rf", SPIES)
    for program in TELLERS:
        node.write(f"{SPIES}/{program}", f'#!/bin/sh\necho "$0 $*" >>{SPIES}/told\n', 0o755)
    given = environment(case.agent, case.parameters)
    del given[INTERVAL]
    given["PATH"] = f"{SPIES}:/usr/sbin:/usr/bin:/sbin:/bin"
    for bring in (started, stopped):
        bring(node, case)
        node.run(f"{DIRECTORY}/{case.agent}", "monitor", env=given, check=False)
    again = f"{SPIES}/attrd_updater --refresh"
    told = node.run("cat", f"{SPIES}/told", check=False).out.splitlines()
    assert [line for line in told if line != again] == []
    assert told.count(again) == (1 if case.agent == "asterisk-health" else 0)
    # What looks like silence was listened to.
    node.run("attrd_updater", "-n", "x", env=given)
    assert node.run("tail", "-n1", f"{SPIES}/told").out == f"{SPIES}/attrd_updater -n x\n"
    node.run("rm", "-r", SPIES)


# Wrong parameters.


@pytest.fixture
def idle(node: Node, case: Case) -> Case:
    """The case, stopped."""
    stopped(node, case)
    return case


@pytest.mark.parametrize("action", ["start", "validate-all"])
def test_a_bad_parameter_is_refused_and_nothing_changes(
    node: Node, idle: Case, action: str
) -> None:
    for name, value in idle.bad:
        before = listing(node, *STATE, *idle.data)
        done = act(node, idle, action, {name: value})
        assert done.code == 6, (name, value, done)
        assert name in reason(done)
        assert listing(node, *STATE, *idle.data) == before, (name, value)


def test_a_bad_parameter_does_not_fail_a_stop(node: Node, idle: Case) -> None:
    for name, value in idle.bad:
        done = act(node, idle, "stop", {name: value})
        assert done.code == 0, (name, value, done)


def test_a_bad_parameter_in_a_probe_has_a_reason(node: Node, idle: Case) -> None:
    for name, value in idle.bad:
        done = act(node, idle, "monitor", {name: value}, probe=True)
        assert done.code in (6, 7), (name, value, done)


def test_a_stop_with_a_bad_parameter_stops_what_runs(node: Node, case: Case) -> None:
    started(node, case)
    name, value = case.harmless
    done = act(node, case, "stop", {name: value})
    assert done.code == 0, done
    assert act(node, case, "monitor", probe=True).code == 7


# What the node lacks.


def test_what_the_node_lacks(node: Node, idle: Case) -> None:
    for changed, code in idle.lacking:
        before = listing(node, *idle.data)
        done = act(node, idle, "start", changed)
        assert done.code == code, (changed, done)
        assert listing(node, *idle.data) == before
        assert act(node, idle, "monitor", changed, probe=True).code in (5, 7)
        assert act(node, idle, "stop", changed).code == 0
        assert act(node, idle, "monitor", probe=True).code == 7
