"""What of the bench needs no lab: the stacks' texts, the journal, medians, tables, limits."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.bench import report
from tests.bench.__main__ import main as bench_main
from tests.bench.cpu import OURS_DEEP, STOCK_SHALLOW
from tests.bench.record import Idle, Run, Sample
from tests.bench.rounds import phases
from tests.bench.stacks import (
    LINKS,
    STOCK_TOKEN,
    primitive,
    seconds,
    stacks,
    stock_corosync,
    token,
    without_resources,
)
from tests.bench.watch import FAILURE, NODE_LOST, matching
from tests.lab.faults import OURS, STOCK, STOCK_SIP, of_bench
from tests.lab.image import FILES

JOURNAL = """\
1795369692.214064 crm1 pacemaker-attrd[100]:  notice: Setting last-failure-p_asterisk#\
monitor_10000[crm2] in instance_attributes: (unset) -> 1795369692
1795369692.214326 crm1 pacemaker-attrd[100]:  notice: Setting fail-count-p_asterisk#\
monitor_10000[crm2] in instance_attributes: (unset) -> 1
1795369847.937519 crm2 pacemaker-attrd[93]:  notice: Setting fail-count-p_asterisk#\
monitor_10000[crm2] in instance_attributes: 1 -> (unset)
1795369900.500000 crm1 pacemaker-attrd[100]:  notice: Setting fail-count-p_mysql#\
monitor_20000[crm2] in instance_attributes: (unset) -> 1
1795369901.180782 crm2 corosync[59]:   [TOTEM ] A new membership (1.9) was formed. Members left: 1
-- a line without a time
""".splitlines()


def sample(stack: str, fault: str, outage: float | None, number: int = 1, **rest: object) -> Sample:
    values: dict[str, object] = {"detection": outage, "watched": 22.0, **rest}
    return Sample(number, stack, fault, outage, **values)  # type: ignore[arg-type]


def whole_run() -> Run:
    """As good as it must be."""
    run = Run("python3 -m tests.bench", 5, {"Debian": "13.1"})
    for fault in of_bench():
        for stack in fault.bench:
            for number in range(1, 6):
                outage = 100.0 if stack != OURS else 0.5 + number / 10
                run.samples.append(sample(stack, fault.name, outage, number))
    run.monitors = {STOCK_SHALLOW: [30.0, 32.0], OURS_DEEP: [29.0, 31.0]}
    run.idle = [Idle(stack, 600_000.0, 60.0, 200_000.0, 40.0) for stack in (STOCK, STOCK_SIP, OURS)]
    return run


# The stacks.


def test_the_stock_group_is_serial_and_in_the_order_of_2014() -> None:
    text = stacks()[0].text
    [group] = [line for line in text.splitlines() if line.startswith("group ")]
    members = group.split()[2:]
    assert members[0] == "p_fs"
    assert len(LINKS) == 6
    assert members[7:] == ["p_mysql", "p_ip", "p_apache", "p_asterisk"]
    for path, name in zip(LINKS, members[1:7], strict=True):
        link = primitive(text, name)
        assert link.agent == "ocf:heartbeat:symlink"
        assert (link.params["link"], link.params["target"]) == (path, f"/drbd{path}")
    assert "@" not in text.replace("@127.0.0.1", "")


def test_the_two_stock_stacks_differ_in_one_parameter() -> None:
    plain, sip, ours = stacks()
    assert [plain.name, sip.name, ours.name] == [STOCK, STOCK_SIP, OURS]
    assert plain.asterisk.params == {"realtime": "false"}
    assert set(sip.asterisk.params) == {"realtime", "monitor_sipuri"}
    assert plain.interval == sip.interval == 10
    assert plain.patience == 20


def test_ours_is_as_shipped() -> None:
    ours = stacks()[2]
    assert ours.asterisk.agent == "ocf:asha:asterisk-health"
    assert ours.interval == min(ours.asterisk.intervals)
    assert ours.patience >= 2 * ours.interval


def test_a_primitive_is_read() -> None:
    text = (
        "primitive p_other ocf:x:y params a=1\n"
        'primitive p_it ocf:asha:it \\\n    params a=1 b="two words" \\\n'
        "    op start timeout=9s interval=0s \\\n"
        "    op monitor interval=1m timeout=30s OCF_CHECK_LEVEL=20 \\\n"
        "    meta critical=false\n"
    )
    read = primitive(text, "p_it")
    assert read.params == {"a": "1", "b": "two words"}
    assert read.monitors == [{"interval": "1m", "timeout": "30s", "OCF_CHECK_LEVEL": "20"}]
    assert read.intervals == [60.0]
    with pytest.raises(KeyError):
        primitive(text, "p_i")


@pytest.mark.parametrize(
    ("text", "expected"), [("10s", 10.0), ("7", 7.0), ("2min", 120.0), ("500ms", 0.5)]
)
def test_seconds(text: str, expected: float) -> None:
    assert seconds(text) == expected


def test_a_time_that_is_none() -> None:
    with pytest.raises(ValueError, match="no time"):
        seconds("soon")


def test_the_stock_corosync_keeps_the_links_and_loses_the_timing() -> None:
    ours = (FILES / "corosync.conf").read_text()
    stock = stock_corosync(ours)
    assert token(stock) == STOCK_TOKEN != token(ours)
    assert stock.count("token:") == 1
    assert "consensus" not in stock
    assert stock.count("linknumber") == ours.count("linknumber") == 2


def test_a_configuration_is_emptied_of_all_but_its_nodes() -> None:
    emptied = without_resources(
        "<configuration><crm_config><cluster_property_set id='c'>"
        "<nvpair id='c-dc' name='dc-version' value='3'/>"
        "<nvpair id='c-s' name='stop-all-resources' value='true'/></cluster_property_set>"
        "</crm_config><nodes><node id='1'/></nodes>"
        "<resources><primitive id='p'/></resources><constraints/><rsc_defaults/></configuration>"
    )
    assert "<node " in emptied
    assert "dc-version" in emptied
    assert "stop-all-resources" not in emptied
    assert "primitive" not in emptied
    assert "rsc_defaults" not in emptied
    assert emptied.count("<resources") == 1


# The journal.


def test_the_failure_is_found_in_the_journal() -> None:
    assert matching(JOURNAL, 1795369690.0, FAILURE) == [pytest.approx(2.214326)]


def test_what_was_before_the_fault_does_not_count() -> None:
    assert matching(JOURNAL, 1795369693.0, FAILURE) == []


def test_a_lost_node_is_found_in_the_journal() -> None:
    assert matching(JOURNAL, 1795369900.0, NODE_LOST) == [pytest.approx(1.180782)]


# The figures.


def test_the_phases_are_spread_over_the_interval() -> None:
    found = phases(5, random.Random(1))
    assert sorted(int(phase * 5) for phase in found) == [0, 1, 2, 3, 4]


def test_median_with_and_without_never() -> None:
    values = [sample(STOCK, "sigstop", value) for value in (3.0, 1.0, 2.0)]
    assert report.median(values, report.outage) == 2.0
    never = [sample(STOCK, "sigstop", None) for _ in range(3)]
    assert report.median(never, report.outage) is None
    assert report.median([*values, *never], report.outage) is None
    assert report.median([*values, *never[:2]], report.outage) == 3.0
    assert report.median([], report.outage) is None


def test_cells() -> None:
    values = [sample(STOCK, "sigstop", value) for value in (3.0, 1.0, 2.0)]
    assert report.cell(values, report.outage) == "2.00 (1.00 - 3.00) s"
    never = sample(STOCK, "sigstop", None)
    assert report.cell([never], report.outage) == "never in 22 s"
    assert report.cell([*values, never], report.outage).endswith("never in 1 of 4")
    assert report.cell([], report.outage) == "-"


def test_the_ratio_is_of_the_medians() -> None:
    run = Run("", 1)
    run.samples = [sample(STOCK, "planned", 10.0), sample(OURS, "planned", 2.0)]
    assert report.ratio(run, "planned") == pytest.approx(0.2)
    run.samples.append(sample(STOCK, "planned", 90.0, problem="no nodes"))
    assert report.ratio(run, "planned") == pytest.approx(0.2)
    assert report.ratio(run, "active-crashed") is None


def test_a_run_as_good_as_it_must_be() -> None:
    run = whole_run()
    assert report.limits(run) == []
    assert report.complete(run, 5) == []
    assert "All are reached." in report.markdown(run, [])


@pytest.mark.parametrize(
    ("fault", "outage", "word"),
    [
        ("planned", 15.0, "0.14"),
        ("active-crashed", 17.0, "0.16"),
        ("sigstop", 5.0, "0.04"),
        ("asterisk-killed", 1.0, "under 1 s"),
        ("store-frozen", 9.1, "at most 9 s"),
        ("channel-lock", None, "never in 22 s"),
    ],
)
def test_each_limit_of_an_outage(fault: str, outage: float | None, word: str) -> None:
    run = whole_run()
    run.samples = [one for one in run.samples if (one.stack, one.fault) != (OURS, fault)]
    run.samples += [sample(OURS, fault, outage, number) for number in range(1, 6)]
    [line] = report.limits(run)
    assert word in line


def test_the_worst_round_of_a_hang_counts() -> None:
    run = whole_run()
    run.samples.append(sample(OURS, "sip-thread", 9.5, 6))
    [line] = report.limits(run)
    assert "SIP thread" in line


def test_the_limits_of_the_cpu() -> None:
    run = whole_run()
    run.monitors[OURS_DEEP] = [40.0, 40.0]
    run.idle[-1] = Idle(OURS, 1_300_000.0, 60.0, 0.0, 40.0)
    deep, idle = report.limits(run)
    assert OURS_DEEP in deep
    assert "2.17%" in idle


def test_a_turn_that_could_not_be_played_is_told() -> None:
    run = whole_run()
    run.samples.append(Sample(2, STOCK, "planned", problem="waited in vain"))
    [line] = report.limits(run)
    assert "round 2" in line
    assert "waited in vain" in line


def test_what_was_not_measured_is_not_judged_and_not_the_whole() -> None:
    run = Run("", 1)
    assert report.limits(run) == []
    assert report.tables(run) == []
    assert report.complete(run, 5)[0].startswith("0 of ")
    short = whole_run()
    short.idle.pop()
    assert report.complete(short, 5) == [f"no idle CPU of {OURS}"]
    short.samples.pop()
    turns = 5 * sum(len(fault.bench) for fault in of_bench())
    assert report.complete(short, 5)[0] == f"{turns - 1} of {turns} turns were played"


def test_the_tables_in_both_forms() -> None:
    run = whole_run()
    made = report.tables(run)
    assert [table.title for table in made] == list(report.NOTES)
    outage, detection = made[0], made[1]
    assert len(outage.rows) == len(of_bench()) + 1
    assert not any("planned" in row[0] for row in detection.rows)
    assert report.pipes(outage).splitlines()[3] == "| --- | --- | --- | --- | --- |"
    lines = report.plain(made).splitlines()
    assert lines[0] == "Outage"
    page = report.markdown(run, ["planned on ours: 1 of 5 rounds"])
    assert "Not the whole bench" in page
    assert "| Debian | 13.1 |" in page


def test_the_raw_figures_come_back(tmp_path: Path) -> None:
    run = whole_run()
    run.save(tmp_path / "new" / "raw.json")
    assert Run.load(tmp_path / "new" / "raw.json") == run


def test_each_limit_stands_beside_its_figure() -> None:
    run = whole_run()
    page = report.markdown(run, [])
    assert "| Asterisk killed (SIGKILL) | median under 1 s | " in page
    assert "| all agents idle | under 1% of a core | " in page
    assert len(report.judged(run)) == len(report.limits_table(run).rows) - 1
    assert "NOT REACHED" not in page
    run.idle[-1] = Idle(OURS, 1_300_000.0, 60.0, 0.0, 40.0)
    assert "2.17% of a core: NOT REACHED" in report.markdown(run, [])


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--show", "/nonexistent"], "is none of its raw files"),
        (["--show", str(Path(__file__))], "is none of its raw files"),
        (["--output", "/nonexistent/page.md"], "there is no directory /nonexistent"),
        (["--rounds", "0"], "at least 1"),
    ],
)
def test_bad_words_are_refused_at_once(
    words: list[str], complaint: str,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("sys.argv", ["bench", *words])
    monkeypatch.setattr("signal.signal", lambda number, handler: None)
    try:
        code: object = bench_main()
    except SystemExit as end:
        code = end.code
    assert code == 2
    assert complaint in capsys.readouterr().err
