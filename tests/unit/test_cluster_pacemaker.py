"""crm_mon's XML, as Pacemaker 2.1.5 and 3.0.0 printed it, and what it is read as.

Taken where Asterisk had just been killed on crm1, crm2 was in standby, DRBD's fence
handler had banned crm2 and a person had banned Apache from it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from asha.cluster import pacemaker
from asha.cluster.pacemaker import Ban, Failure, Node
from asha.errors import UserError
from tests.fakes.machine import FakeMachine, Outcome

HERE = Path(__file__).parent
VERSIONS = ("2.1", "3.0")
LOOK = "crm_mon -1 --output-as=xml --inactive"

NOT_CONNECTED = """\
<pacemaker-result api-version="2.38" request="crm_mon -1 --output-as=xml --inactive">
  <status code="102" message="Not connected">
    <errors>
      <error>crm_mon: Connection to cluster failed: Connection refused</error>
    </errors>
  </status>
</pacemaker-result>
"""


@pytest.fixture(params=VERSIONS)
def text(request: pytest.FixtureRequest) -> str:
    return (HERE / f"cluster_crm_mon_{request.param}.xml").read_text()


@pytest.fixture
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Both kinds of time stamp are then the same clock's."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def test_nodes_and_quorum(text: str) -> None:
    state = pacemaker.parse(text)
    assert state.dc == "crm1"
    assert state.quorum
    assert state.nodes == (
        Node("crm1", online=True, is_dc=True),
        Node("crm2", online=True, standby=True),
    )
    assert state.node("CRM2") == state.nodes[1]
    assert state.node("crm3") is None
    assert not state.maintenance


def test_what_runs_where(text: str) -> None:
    state = pacemaker.parse(text)
    assert state.active_node == "crm1"
    assert not state.busy
    for name in ("p_fs", "p_data", "p_ip", "p_asterisk", "p_mysql", "p_apache"):
        assert state.where(name, "Started") == ["crm1"], name
    for name in ("p_drbd", "p_line"):
        assert state.where(name, "Promoted") == ["crm1"], name
        assert state.where(name, "Unpromoted") == []
        assert [(one.role, one.node, one.active) for one in state.of(name)] == [
            ("Promoted", "crm1", True), ("Stopped", "", False),
        ]
    assert state.of("p_asterisk")[0].agent == "ocf:asha:asterisk-health"


def test_failures_have_a_reason_and_a_time(text: str, utc: None) -> None:
    state = pacemaker.parse(text)
    is_old = 'api-version="2.25"' in text
    when = datetime(2026, 11, 22, 14, 27, 36) if is_old else datetime(2026, 11, 22, 14, 24, 19)
    found = state.failures[0]
    assert found == Failure(
        resource="p_asterisk", action="monitor", node="crm1", status=found.status,
        reason="Asterisk is dead: it crashed or was killed and left /run/asterisk/asterisk.pid",
        when=when, code="7",
    )
    assert found.status.lower() == "not running"
    assert not found.is_degraded
    assert len(state.failures) == 1
    assert state.last_start is not None
    assert state.last_start.node == "crm1"
    assert 0 <= (state.last_start.when - when).total_seconds() < 5


def test_bans(text: str) -> None:
    assert pacemaker.parse(text).bans == (
        Ban("drbd-fence-by-handler-asha-rule-cl_drbd", "cl_drbd", "crm2"),
        Ban("cli-ban-p_apache-on-crm2", "p_apache", "crm2"),
    )


def test_what_the_agents_tell(text: str) -> None:
    state = pacemaker.parse(text)
    assert state.attribute("crm1", "asha-line").startswith("on")
    assert state.attribute("crm2", "asha-line") == ""
    assert state.attribute("crm1", "nothing") == ""


def test_no_fencing_without_a_device(text: str) -> None:
    assert not pacemaker.parse(text).has_fencing
    enabled = text.replace('stonith-enabled="false"', 'stonith-enabled="true"')
    assert enabled != text
    assert pacemaker.parse(enabled).stonith_enabled
    assert not pacemaker.parse(enabled).has_fencing
    with_device = enabled.replace("ocf:heartbeat:apache", "stonith:fence_ipmilan")
    assert pacemaker.parse(with_device).has_fencing
    device_but_off = text.replace("ocf:heartbeat:apache", "stonith:fence_ipmilan")
    assert not pacemaker.parse(device_but_off).has_fencing


ASTERISK = 'resource_agent="ocf:asha:asterisk-health" role="Started" active="true"'


@pytest.mark.parametrize(("there", "instead", "busy"), [
    (ASTERISK, ASTERISK + ' pending="Stopping"', True),
    (ASTERISK, ASTERISK.replace("Started", "Starting"), False),
    (ASTERISK, ASTERISK.replace("Started", "Stopped"), False),
    (ASTERISK, ASTERISK.replace("true", "false"), False),
])
def test_nowhere_active_on_the_way(text: str, there: str, instead: str, busy: bool) -> None:
    assert there in text
    state = pacemaker.parse(text.replace(there, instead))
    assert state.active_node == ""
    assert state.busy is busy


def test_failed_is_not_active(text: str) -> None:
    line = next(line for line in text.splitlines() if ASTERISK in line)
    failed = text.replace(line, line.replace('failed="false"', 'failed="true"'))
    state = pacemaker.parse(failed)
    assert state.active_node == ""
    assert state.of("p_asterisk")[0].failed


def test_a_pending_monitor_is_no_work(text: str) -> None:
    state = pacemaker.parse(text.replace(ASTERISK, ASTERISK + ' pending="Monitoring"'))
    assert state.active_node == "crm1"
    assert not state.busy


def test_no_dc(text: str) -> None:
    line = next(line for line in text.splitlines() if "<current_dc" in line)
    state = pacemaker.parse(text.replace(line, '    <current_dc present="false"/>'))
    assert (state.dc, state.quorum) == ("", False)


def test_degraded_is_told_apart(text: str) -> None:
    assert not pacemaker.parse(text).failures[0].is_degraded
    text = text.replace('exitcode="7"', 'exitcode="190"')
    assert pacemaker.parse(text).failures[0].is_degraded


@pytest.mark.parametrize(("stamp", "when"), [
    ("Sun Nov  1 04:05:06 2026", datetime(2026, 11, 1, 4, 5, 6)),
    ("2026-11-22 14:24:19Z", datetime(2026, 11, 22, 14, 24, 19)),
    ("2026-11-22 15:24:19 +01:00", datetime(2026, 11, 22, 14, 24, 19)),
    ("2026-11-22 09:24:19 -05:00", datetime(2026, 11, 22, 14, 24, 19)),
    ("yesterday", None),
])
def test_time_stamps(text: str, stamp: str, when: datetime | None, utc: None) -> None:
    line = next(line for line in text.splitlines() if "<last_change" in line)
    changed = text.replace(line, f'    <last_change time="{stamp}"/>')
    assert pacemaker.parse(changed).last_change == when


def test_an_empty_cluster() -> None:
    state = pacemaker.parse('<pacemaker-result><status code="0"/></pacemaker-result>')
    assert (state.dc, state.nodes, state.resources, state.active_node) == ("", (), (), "")
    assert state.last_start is None


def test_looks_with_crm_mon(tmp_path: Path, text: str) -> None:
    machine = FakeMachine(tmp_path, {LOOK: text})
    assert pacemaker.look(machine).active_node == "crm1"
    assert machine.lines == [LOOK]


@pytest.mark.parametrize("answer", [Outcome(NOT_CONNECTED, code=102), Outcome(code=1)])
def test_pacemaker_does_not_run(tmp_path: Path, answer: Outcome) -> None:
    with pytest.raises(UserError, match="Pacemaker does not run") as trouble:
        pacemaker.look(FakeMachine(tmp_path, {LOOK: answer}))
    assert "systemctl start" in trouble.value.hint


def test_nonsense_is_trouble() -> None:
    with pytest.raises(UserError, match="cannot be understood"):
        pacemaker.parse("crm_mon: cluster is not available on this node")


@pytest.mark.parametrize(
    ("threshold", "count", "worn"),
    [("3", "3", True), ("3", "2", False), ("3", "1000000", True), ("3", "INFINITY", True),
     ("INFINITY", "9", False), ("0", "9", False), ("3", "", False)],
)
def test_where_a_resource_has_failed_too_often(threshold: str, count: str, worn: bool) -> None:
    history = (f'<node_history><node name="crm1"><resource_history id="p_asterisk" '
               f'migration-threshold="{threshold}" fail-count="{count}"/></node></node_history>')
    state = pacemaker.parse(f"<crm_mon>{history}</crm_mon>")
    assert state.worn_out == ({("p_asterisk", "crm1")} if worn else set())
