"""What the soak reads (SIPp's statistics, Pacemaker's log, the CIB), and its verdict."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.lab import LabError
from tests.soak import calls, monitors
from tests.soak.__main__ import parse_arguments
from tests.soak.calls import Counts
from tests.soak.cost import Cost, Costs, Recurring, Window, add, parse, seconds
from tests.soak.monitors import Monitor
from tests.soak.report import Report, Sample, overlap, parse_samples, silence

# SIPp 3.7.3's columns, those that matter here and two that must not be taken for them.
COLUMNS = (
    "ElapsedTime(C);CallRate(C);TotalCallCreated;CurrentCall;SuccessfulCall(P);SuccessfulCall(C);"
    "FailedCall(P);FailedCall(C);FailedMaxUDPRetrans(P);FailedMaxUDPRetrans(C);"
    "FailedUnexpectedMessage(P);FailedUnexpectedMessage(C);OutOfCallMsgs(C);DeadCallMsgs(C);"
    "Retransmissions(C);ResponseTimeRepartition1;"
)
EARLY = "00:00:01;5;5;5;0;0;0;0;0;0;0;0;0;0;0;;"
LATER = "00:01:39;3.7;374;124;3;196;9;54;9;3;0;51;2;1;17;;"


def test_sipp_is_read_to_its_last_whole_line() -> None:
    counts = calls.parse(f"{COLUMNS}\n{EARLY}\n{LATER}\n00:01:40;3.7;3")
    assert counts == Counts(
        made=374, up=124, completed=196, failed=54,
        causes={"MaxUDPRetrans": 3, "UnexpectedMessage": 51},
        unexpected=54, retransmissions=17,
    )


@pytest.mark.parametrize("text", ["", COLUMNS, f"{COLUMNS}\n", f"{COLUMNS}\n{EARLY}"])
def test_sipp_has_not_counted_yet(text: str) -> None:
    assert calls.parse(text) == Counts()


@pytest.mark.parametrize(
    "text", ["what is\nthis\n", f"{COLUMNS}\n00:01:39;3.7;\n", f"{COLUMNS}\n00:01:39;3.7;many;1\n"]
)
def test_what_is_not_sipps_is_refused(text: str) -> None:
    with pytest.raises(LabError, match="have no number"):
        calls.parse(text)


# Pacemaker 3.0.0, debug messages of its executor.
LOG = """\
Nov 22 17:51:54.272 crm2 pacemaker-execd     [125] (log_execute) \tdebug: executing - rsc:p_data action:monitor call_id:42
Nov 22 17:51:54.296 crm2 pacemaker-execd     [125] (async_action_complete) \tdebug: p_data_monitor_10000[671] exited with status 0
Nov 22 17:52:01.100 crm2 pacemaker-execd     [125] (recurring_action_timer) \tdebug: Scheduling another invocation of p_asterisk_monitor_5000
Nov 22 17:52:01.104 crm2 pacemaker-execd     [125] (recurring_action_timer) \tdebug: Scheduling another invocation of p_line_monitor_10000
Nov 22 17:52:01.140 crm2 pacemaker-execd     [125] (async_action_complete) \tdebug: p_line_monitor_10000[1317] exited with status 8
Nov 22 17:52:01.140 crm2 pacemaker-execd     [125] (log_finished) \tdebug: p_line monitor (call 43, PID 1317) exited with status 8 (execution time 0s)
Nov 22 17:52:01.156 crm2 pacemaker-execd     [125] (async_action_complete) \tdebug: p_asterisk_monitor_5000[1320] exited with status 190
Nov 22 17:52:01.156 crm2 pacemaker-execd     [125] (log_op_output) \tinfo: p_asterisk_monitor_5000[1320] error output [ WARNING: asterisk-health(p_asterisk): a debugger ]
Nov 22 17:52:01.156 crm2 pacemaker-execd     [125] (log_op_output) \tinfo: p_asterisk_monitor_5000[1320] error output [ ocf-exit-reason:a debugger [gdb] has halted it ]
Nov 22 17:52:06.100 crm2 pacemaker-execd     [125] (recurring_action_timer) \tdebug: Scheduling another invocation of p_asterisk_monitor_5000
Nov 22 17:52:06.152 crm2 pacemaker-execd     [125] (async_action_complete) \tdebug: p_asterisk_monitor_5000[1374] exited with status 0
Nov 22 17:52:07.152 crm2 pacemaker-execd     [125] (async_action_complete) \tdebug: p_asterisk_start_0[1375] exited with status 1
Dec 31 23:59:59.900 crm2 pacemaker-execd     [125] (recurring_action_timer) \tdebug: Scheduling another invocation of p_fs_monitor_20000
Jan 01 00:00:40.000 crm2 pacemaker-execd     [125] (child_timeout_callback) \twarning: p_fs_monitor_20000[1380] timed out after 40s
Jan 01 00:00:40.004 crm2 pacemaker-execd     [125] (async_action_complete) \tdebug: p_fs_monitor_20000[1380] exited with status 1
Jan 01 00:00:41.000 crm2 pacemaker-execd     [125] (recurring_action_timer) \tdebug: Scheduling another invocation of p_asterisk_monitor_5000
Jan 01 00:00:41.500 crm2 pacemaker-controld  [128] (log_executor_event) \tnotice: p_asterisk_monitor_5000[1] exited with status 3
"""  # noqa: E501


def test_monitors_are_read() -> None:
    assert monitors.parse(LOG) == [
        Monitor("p_data", 10.0, 0, None),
        Monitor("p_line", 10.0, 8, 0.036),
        Monitor("p_asterisk", 5.0, 190, 0.056, "a debugger [gdb] has halted it"),
        Monitor("p_asterisk", 5.0, 0, 0.052),
        Monitor("p_fs", 20.0, -1, 40.1, "after 40s"),
    ]
    assert [one.failed for one in monitors.parse(LOG)] == [False, False, False, False, True]
    assert [one.degraded for one in monitors.parse(LOG)] == [False, False, True, False, False]


def test_the_shortest_stamp_is_read() -> None:
    text = LOG.replace(".100 crm2", " crm2").replace(".152 crm2", " crm2")
    assert Monitor("p_asterisk", 5.0, 0, 0.0) in monitors.parse(text)


# Pacemaker 3.0.0, after a killed Apache and a degraded Asterisk.
FAIL_COUNTS = """\
<pacemaker-result api-version="2.38" request="crm_mon -1 --output-as=xml">
  <node_history>
    <node name="crm2">
      <resource_history id="p_apache" orphan="false" migration-threshold="3" fail-count="1" \
last-failure="Sun Nov 22 18:43:19 2026"/>
      <resource_history id="p_ip" orphan="false" migration-threshold="3" fail-count="0"/>
      <resource_history id="p_fs" orphan="false" migration-threshold="3"/>
    </node>
  </node_history>
  <status code="0" message="OK"/>
</pacemaker-result>
"""


def test_fail_counts() -> None:
    assert monitors.fail_counts(FAIL_COUNTS) == ["p_apache on crm2: fail-count 1"]
    assert monitors.fail_counts("<pacemaker-result><node_history/></pacemaker-result>") == []


PRIMITIVE = """\
<primitive id="p_asterisk" class="ocf" provider="asha" type="asterisk-health">
  <!-- a comment -->
  <instance_attributes id="a"><nvpair name="probe_timeout" value="2s" id="b"/></instance_attributes>
  <operations>
    <op name="start" timeout="90s" interval="0s" id="c"/>
    <op name="monitor" interval="5s" timeout="30s" id="d">
      <instance_attributes id="e"><nvpair name="OCF_CHECK_LEVEL" value="10" id="f"/>
      </instance_attributes>
    </op>
    <op name="monitor" interval="1m" timeout="30s" id="g"/>
  </operations>
</primitive>
"""


def test_monitors_as_configured() -> None:
    assert parse(PRIMITIVE) == ({"probe_timeout": "2s"}, [Recurring(5.0, 10), Recurring(60.0, 0)])


@pytest.mark.parametrize(("text", "expected"), [("500ms", 0.5), ("5s", 5), ("2m", 120), ("7", 7)])
def test_durations(text: str, expected: float) -> None:
    assert seconds(text) == expected


def test_cost_is_the_difference_per_run() -> None:
    cost = Cost(Recurring(5.0, 10))
    for other in (0.6, 0.7, 1.0):
        add(cost, Window(seconds=10.0, rounds=100, own=3.0, other=other, codes=[0, 190]), 0.04)
    assert cost.asterisk == pytest.approx([0.002, 0.003, 0.006])
    assert cost.share(cost.asterisk) == pytest.approx(0.0006)
    assert cost.share(cost.own) == pytest.approx(0.006)
    with pytest.raises(LabError, match="depth 10"):
        add(cost, Window(seconds=10.0, rounds=1, own=0.0, other=0.0, codes=[0, 1]), 0.04)


def test_overlap() -> None:
    assert overlap((1.0, 4.0), [(0.0, 1.5), (2.0, 2.5), (3.0, 9.0), (9.0, 10.0)]) == 2.0


def test_silence_counts_to_the_end_and_excuses_a_debugger() -> None:
    answers = [9.0, 10.5, 11.0, 14.0, 14.5, 30.0]
    seen = silence(answers, 10.0, 15.5, [(11.5, 13.5)])
    assert seen.longest == 3.0
    assert seen.unexplained == 1.0
    assert silence(answers, 10.0, 20.0, []).unexplained == 5.5
    assert silence([], 10.0, 20.0, [(12.0, 14.0)]).unexplained == 8.0


def test_samples_are_read_to_the_last_whole_line() -> None:
    line = '{"probe": "SIP", "begun": 1.5, "seconds": 0.25, "finding": "healthy"}\n'
    assert parse_samples(line + line[:30]) == [Sample("SIP", 1.5, 0.25, "healthy")]


def good() -> Report:
    """Two minutes in which nothing was wrong."""
    ran = [Monitor("p_asterisk", 5.0, 0, 0.05)] * 23
    return Report(
        seconds=120.0, wanted=300, rate=5.0,
        counts=Counts(made=600, up=299, completed=301, retransmissions=12), lowest=290,
        channels=299, node="crm1", node_after="crm1",
        monitors=[*ran, Monitor("p_asterisk", 5.0, 190, 0.4, "a debugger, gdb, has halted it")],
        disturbances={"core reload": [(1.0, 2.0)], "gdb attached": [(10.0, 11.0)]},
        debugged=[(10.0, 11.0)],
        silence=silence([float(n) / 10 for n in range(1200)], 0.0, 119.0, []),
        samples=[Sample("AMI", 1.0, 0.01, "healthy"), Sample("AMI", 10.5, 10.0, "hung")],
        costs=Costs([Cost(Recurring(5.0, 10), [0.0027], [0.05])], [0.034, 0.036]),
    )


def test_nothing_failed() -> None:
    report = good()
    assert report.problems() == []
    text = "\n".join(report.lines())
    assert "600 made, 301 completed, 0 failed" in text
    assert "1 x p_asterisk: a debugger, gdb, has halted it" in text
    assert "24 ran, 0 failed, 1 degraded, median 0.050 s, slowest 0.400 s" in text
    assert "slowest 0.010 s, beside a debugger 10.000 s" in text
    assert "Asterisk 0.05 %, themselves 1.00 % of a core" in text


FAILED = Monitor("p_data", 10.0, 1, 0.1, "no space")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"monitors": [*good().monitors, FAILED]}, "failed monitor: p_data every 10 s: exit 1 no"),
        ({"failures": ["p_ip_monitor_10000 on crm1: error"]}, "Pacemaker has a failure: p_ip"),
        ({"same_process": False}, "not the process"),
        ({"node_after": "crm2"}, "moved from crm1 to crm2"),
        ({"node_after": ""}, "moved from crm1 to nowhere"),
        ({"silence": silence([1.0], 0.0, 2.5, [])}, "no SIP answer for 1.50 s"),
        ({"counts": Counts(failed=2, causes={"CallRejected": 2})}, "2 calls failed: CallRejected"),
        ({"lowest": 269}, "SIPp had 269 calls up"),
        ({"channels": 269}, "Asterisk, at the end, had 269 calls up"),
        ({"disturbances": {"core reload": []}}, "core reload never happened"),
        ({"monitors": []}, "no monitor of p_asterisk"),
        ({"monitors": good().monitors[:18]}, "monitor every 5 s only 18 were seen"),
        ({"samples": []}, "the sampler asked nothing"),
        ({"samples": [Sample("SIP", 20.0, 10.0, "hung")]}, "sampled: SIP was found hung, 1 times"),
        ({"costs": None}, "cost is not known"),
        ({"costs": Costs([Cost(Recurring(5.0, 10), [0.05], [0.05])])}, "cost Asterisk 1.00 %"),
        ({"violations": ["the line goes to none"]}, "the line goes to none"),
    ],
)
def test_what_is_not_as_it_must_be(change: dict[str, object], expected: str) -> None:
    problems = replace(good(), **change).problems()  # type: ignore[arg-type]
    assert len(problems) == 1
    assert expected in problems[0]


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--rate", "nan"], "must be more than 0"),
        (["--rate", "inf"], "must be more than 0"),
        (["--minutes", "nan"], "must be a number"),
        (["--minutes", "1"], "must leave one"),
        (["--flapping-lan", "--minutes", "3"], "--minutes must be 4 at least"),
        (["--output", "/nonexistent/report"], "there is no directory /nonexistent"),
    ],
)
def test_bad_words_are_refused_at_once(
    words: list[str], complaint: str,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("sys.argv", ["soak", *words])
    with pytest.raises(SystemExit) as end:
        parse_arguments()
    assert end.value.code == 2
    assert complaint in capsys.readouterr().err
