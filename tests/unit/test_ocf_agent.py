"""asha.ocf.agent: what Pacemaker gets for each action, by the OCF rules."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from asha import gate
from asha.ocf import (
    Agent,
    BadConfig,
    BadHere,
    Context,
    Degraded,
    DegradedPromoted,
    Exit,
    Expired,
    Failed,
    FailedPromoted,
    NotInstalled,
    NotRunning,
    String,
    action,
    main,
)
from asha.ocf.agent import Agent as Base
from asha.run import log
from tests.fakes.ocf import CallQueue, FakeClock, Outcome, perform
from tests.unit.ocf_sample import Plain, Promotable

PROBE = {"interval": ""}
OF_OCF_TESTER = {"interval": "0"}
RECURRING = {"interval": "10000"}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    return tmp_path / "data" / "it"


@pytest.fixture
def act(tmp_path: Path, file: Path) -> Callable[..., Outcome]:
    """Perform an action of an agent on that file."""

    def do(agent: type[Agent], name: str, **options: object) -> Outcome:
        options.setdefault("file", str(file))
        return perform(agent, name, str(tmp_path / "state"), **options)  # type: ignore[arg-type]

    return do


def troubled(agent: type[Plain], **trouble: BaseException) -> type[Plain]:
    """The agent with an exception at these places; _ stands for a space."""
    places = {place.replace("_", " "): problem for place, problem in trouble.items()}
    return type("Troubled", (agent,), {"trouble": places})


Act = Callable[..., Outcome]


# Start.


def test_start(act: Act, file: Path) -> None:
    done = act(Plain, "start")
    assert (done.code, done.reason) == (0, "")
    assert file.read_text() == "unpromoted"


def test_start_of_what_runs_changes_nothing(act: Act, file: Path) -> None:
    file.write_text("unpromoted")
    agent = troubled(Plain, become_unpromoted=Failed("was started again"))
    done = act(agent, "start")
    assert (done.code, done.reason) == (0, "")
    assert "is running already" in done.err


def test_start_of_what_runs_with_a_warning_changes_nothing(act: Act, file: Path) -> None:
    agent = troubled(
        Plain, monitor_0=Degraded("one disk"), become_unpromoted=Failed("was started again")
    )
    assert act(agent, "start").code == 0


def test_start_of_what_is_broken_starts_it(act: Act, file: Path) -> None:
    file.write_text("broken")
    assert act(Plain, "start").code == 0
    assert file.read_text() == "unpromoted"


def test_start_that_does_not_last_is_a_failure_with_the_monitors_reason(act: Act) -> None:
    class Gone(Plain):
        def _become(self, state: str) -> None:
            pass

    done = act(Gone, "start")
    assert (done.code, done.reason) == (1, "started, but there is no file")


def test_a_start_that_ends_promoted_is_a_failure(act: Act) -> None:
    class Eager(Promotable):
        @action(timeout=20)
        def start(self) -> None:
            self._become("promoted")

    done = act(Eager, "start")
    assert (done.code, done.reason) == (1, "started, but its state is RUNNING_PROMOTED")


def test_start_of_what_is_promoted_demotes_it(act: Act, file: Path) -> None:
    class Watches(Promotable):
        @action(timeout=20)
        def start(self) -> None:
            raise Failed("was started again")

    file.write_text("promoted")
    done = act(Watches, "start")
    assert (done.code, done.reason) == (0, "")
    assert file.read_text() == "unpromoted"


@pytest.mark.parametrize("name", ["start", "promote", "validate-all"])
@pytest.mark.parametrize(
    "bad",
    [
        {"file": ""},
        {"file": "relative"},
        {"mode": "sideways"},
        {"port": "abc"},
        {"port": "80"},
        {"patience": "soon"},
        {"noisy": "perhaps"},
    ],
    ids=str,
)
def test_a_bad_parameter_is_refused_before_anything_changes(
    act: Act, tmp_path: Path, name: str, bad: dict[str, str]
) -> None:
    done = act(Promotable, name, **bad)
    assert done.code == Exit.ERR_CONFIGURED
    assert next(iter(bad)) in done.reason
    # Neither the file nor even the lock.
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["data"]


def test_what_this_node_lacks_is_found_before_anything_changes(act: Act, tmp_path: Path) -> None:
    done = act(Plain, "start", file=f"{tmp_path}/nowhere/it")
    assert done.code == Exit.ERR_ARGS
    assert done.reason == f"{tmp_path}/nowhere does not exist: make it"
    assert not (tmp_path / "nowhere").exists()


def test_a_warning_from_start_itself_is_no_failure(act: Act, file: Path) -> None:
    class Warns(Plain):
        @action(timeout=20)
        def start(self) -> None:
            super().start()
            raise Degraded("short of space")

    done = act(Warns, "start")
    assert (done.code, done.reason) == (0, "")
    assert "WARNING: plain(p_test): short of space" in done.err


@pytest.mark.parametrize("adopts", [True, False])
def test_an_agent_may_look_closer_at_what_runs_already(act: Act, file: Path, adopts: bool) -> None:
    class Choosy(Plain):
        def adopt(self) -> bool:
            return adopts

    file.write_text("unpromoted, and not as a start leaves it")
    assert act(Choosy, "start").code == 0
    assert (file.read_text() == "unpromoted") is not adopts


# Stop.


def test_stop(act: Act, file: Path) -> None:
    file.write_text("unpromoted")
    assert act(Plain, "stop").code == 0
    assert not file.exists()


def test_stop_of_what_does_not_run(act: Act) -> None:
    done = act(Plain, "stop")
    assert (done.code, done.reason) == (0, "")


def test_stop_that_says_it_was_stopped_already(act: Act) -> None:
    assert act(troubled(Plain, stop=NotRunning("no process")), "stop").code == 0


def test_stop_is_believed_only_by_the_monitor(act: Act, file: Path) -> None:
    file.write_text("unpromoted")
    agent = troubled(Plain, stop=NotRunning("no process"))
    done = act(agent, "stop")
    assert (done.code, done.reason) == (1, "stopped, but its state is SUCCESS")


def test_stop_that_leaves_something_broken_is_a_failure(act: Act, file: Path) -> None:
    class Lazy(Plain):
        @action(timeout=20)
        def stop(self) -> None:
            pass

    file.write_text("broken")
    done = act(Lazy, "stop")
    assert (done.code, done.reason) == (1, "stopped, but the file is broken")


@pytest.mark.parametrize(
    "bad", [{"mode": "sideways"}, {"port": "abc"}, {"patience": "soon"}, {"noisy": "?"}], ids=str
)
def test_stop_goes_by_the_default_of_a_bad_parameter(
    act: Act, file: Path, bad: dict[str, str]
) -> None:
    class Reads(Plain):
        @action(timeout=20)
        def stop(self) -> None:
            used = (self.mode, self.port, self.patience, self.noisy)
            assert used == ("slow", 5060, 0.5, False)
            super().stop()

    file.write_text("unpromoted")
    done = act(Reads, "stop", **bad)
    assert (done.code, done.reason) == (0, "")
    assert "goes by the default" in done.err
    assert not file.exists()


@pytest.mark.parametrize("bad", [{"file": ""}, {"file": "relative"}], ids=str)
def test_stop_without_a_parameter_that_has_no_default(act: Act, bad: dict[str, str]) -> None:
    # No start accepts it, so nothing runs with it; a failure would fence the node.
    done = act(Plain, "stop", **bad)
    assert (done.code, done.reason) == (0, "")
    assert "nothing can have been started so" in done.err


def test_stop_where_the_monitor_finds_nothing_installed(act: Act) -> None:
    assert act(troubled(Plain, monitor_0=NotInstalled("no program")), "stop").code == 0


def test_stop_that_lacks_its_own_program_does_not_lie(act: Act, file: Path) -> None:
    file.write_text("unpromoted")
    done = act(troubled(Plain, stop=NotInstalled("no program x: install it")), "stop")
    assert (done.code, done.reason) == (5, "no program x: install it")


def test_stop_does_not_validate(act: Act, file: Path) -> None:
    agent = troubled(Plain, validate_0=BadHere("asked"), validate_10=BadHere("asked"))
    assert act(agent, "stop").code == 0


def test_stop_looks_only_at_the_shallowest_depth(act: Act) -> None:
    agent = troubled(Plain, monitor_10=Failed("looked deeply"))
    assert act(agent, "stop", check_level=10).code == 0
    assert act(agent, "start", check_level=10).code == 0


# Monitor and probe.


@pytest.mark.parametrize("meta", [PROBE, OF_OCF_TESTER, RECURRING], ids=str)
def test_monitor(act: Act, file: Path, meta: Mapping[str, str]) -> None:
    assert act(Promotable, "monitor", meta=meta).code == Exit.NOT_RUNNING
    file.write_text("unpromoted")
    assert act(Promotable, "monitor", meta=meta).code == Exit.SUCCESS
    file.write_text("promoted")
    assert act(Promotable, "monitor", meta=meta).code == Exit.RUNNING_PROMOTED
    file.write_text("broken")
    done = act(Promotable, "monitor", meta=meta)
    assert (done.code, done.reason) == (1, "the file is broken")


@pytest.mark.parametrize("meta", [PROBE, OF_OCF_TESTER], ids=str)
def test_a_probe_that_finds_nothing_says_nothing(act: Act, meta: Mapping[str, str]) -> None:
    assert act(Plain, "monitor", meta=meta).err == ""


def test_a_recurring_monitor_is_no_probe(act: Act) -> None:
    done = act(Plain, "monitor", meta=RECURRING)
    assert (done.code, done.reason) == (7, "there is no file")


def test_only_a_monitor_is_a_probe(act: Act, file: Path) -> None:
    class Asks(Plain):
        @action(timeout=20)
        def start(self) -> None:
            assert not self.is_probe
            super().start()

    assert act(Asks, "start", meta=PROBE).code == 0


def test_a_probe_leaves_no_trace(act: Act, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    act(Plain, "monitor", meta=PROBE)
    act(Plain, "monitor", meta=RECURRING)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("problem", "code"), [(Degraded("look"), 190), (DegradedPromoted("look"), 191)]
)
def test_a_monitor_may_work_and_warn(act: Act, problem: Exception, code: int) -> None:
    done = act(troubled(Plain, monitor_0=problem), "monitor")
    assert (done.code, done.reason) == (code, "look")
    assert "WARNING: plain(p_test): look" in done.err


@pytest.mark.parametrize("answer", [None, True, 0, "running"])
def test_a_monitor_that_answers_anything_else_has_failed(act: Act, answer: object) -> None:
    class Odd(Plain):
        @action(timeout=20)
        def monitor(self) -> Exit:
            return answer  # type: ignore[return-value]

    done = act(Odd, "monitor")
    assert (done.code, done.reason) == (1, f"internal error: monitor returned {answer!r}")
    assert act(Odd, "stop").code == 1


def test_a_monitor_may_return_that_it_does_not_run(act: Act) -> None:
    class Curt(Plain):
        @action(timeout=20)
        def monitor(self) -> Exit:
            return Exit.NOT_RUNNING

    done = act(Curt, "monitor", meta=RECURRING)
    assert (done.code, done.reason) == (7, "is not running")
    done = act(Curt, "monitor", meta=PROBE)
    assert (done.code, done.err) == (7, "")
    assert act(Curt, "start").reason == "started, but is not running"
    assert act(Curt, "stop").code == 0


@pytest.mark.parametrize(
    ("text", "level"), [("", 0), ("0", 0), ("10", 10), ("20", 20), ("deep", 0), ("-1", 0)]
)
def test_check_level(text: str, level: int) -> None:
    assert Plain("monitor", Context({"OCF_CHECK_LEVEL": text})).check_level == level


def test_monitor_with_a_bad_parameter_that_it_reads(act: Act) -> None:
    done = act(Plain, "monitor", file="relative")
    assert done.code == Exit.ERR_CONFIGURED
    assert done.reason == 'parameter file="relative": must be an absolute path'


def test_monitor_is_not_disturbed_by_one_that_it_does_not_read(act: Act, file: Path) -> None:
    file.write_text("unpromoted")
    assert act(Plain, "monitor", port="abc").code == 0


# Promote and demote.


def test_promote_and_demote(act: Act, file: Path) -> None:
    file.write_text("unpromoted")
    assert act(Promotable, "promote").code == 0
    assert file.read_text() == "promoted"
    assert act(Promotable, "demote").code == 0
    assert file.read_text() == "unpromoted"


def test_promote_of_what_is_promoted_changes_nothing(act: Act, file: Path) -> None:
    file.write_text("promoted")
    agent = troubled(Promotable, become_promoted=Failed("was promoted again"))
    assert act(agent, "promote").code == 0


def test_promote_of_what_is_degraded_tries_to_mend_it(act: Act, file: Path) -> None:
    agent = troubled(
        Promotable, monitor_0=DegradedPromoted("unknown"), become_promoted=Degraded("tried")
    )
    done = act(agent, "promote")
    assert (done.code, done.reason) == (0, "")
    assert "tried" in done.err


def test_promote_of_what_does_not_run(act: Act, file: Path) -> None:
    done = act(Promotable, "promote")
    assert (done.code, done.reason) == (7, "cannot be promoted: it is not running")
    assert not file.exists()


def test_promote_that_does_not_last_is_a_failure(act: Act, file: Path) -> None:
    class Weak(Promotable):
        @action(timeout=20)
        def promote(self) -> None:
            pass

    file.write_text("unpromoted")
    done = act(Weak, "promote")
    assert (done.code, done.reason) == (1, "promoted, but its state is SUCCESS")


def test_demote_of_what_is_demoted(act: Act, file: Path) -> None:
    file.write_text("unpromoted")
    assert act(Promotable, "demote").code == 0


def test_demote_of_what_does_not_run_says_so(act: Act) -> None:
    done = act(Promotable, "demote")
    assert (done.code, done.reason) == (0, "")
    assert "it was not running" in done.err


def test_demote_that_fails_to_is_a_failure(act: Act, file: Path) -> None:
    class Stubborn(Promotable):
        @action(timeout=20)
        def demote(self) -> None:
            pass

    file.write_text("promoted")
    done = act(Stubborn, "demote")
    assert (done.code, done.reason) == (1, "demoted, but its state is RUNNING_PROMOTED")


def test_demote_goes_by_the_default_of_a_bad_parameter(act: Act, file: Path) -> None:
    file.write_text("promoted")
    assert act(Promotable, "demote", port="abc").code == 0
    assert file.read_text() == "unpromoted"


def test_failed_while_promoted_has_its_own_code(act: Act) -> None:
    done = act(troubled(Promotable, monitor_0=FailedPromoted("no dial tone")), "monitor")
    assert (done.code, done.reason) == (9, "no dial tone")


# The rest of the actions.


def test_a_clone_that_is_not_notified_says_so(act: Act) -> None:
    done = act(Promotable, "notify")
    assert done.code == Exit.ERR_UNIMPLEMENTED
    assert done.err.startswith("usage: promotable {demote|meta-data|monitor|promote|")


def test_validate_all_asks_as_deeply_as_told(act: Act, tmp_path: Path) -> None:
    elsewhere = f"{tmp_path}/nowhere/it"
    assert act(Plain, "validate-all", file=elsewhere).code == 0
    assert act(Plain, "validate-all", file=elsewhere, check_level=0).code == 0
    assert act(Plain, "validate-all", file=elsewhere, check_level=10).code == Exit.ERR_ARGS
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize(
    "name", ["promote", "demote", "notify", "migrate_to", "reload", "nonsense"]
)
def test_an_unknown_action(act: Act, tmp_path: Path, name: str) -> None:
    done = act(Plain, name)
    assert done.code == Exit.ERR_UNIMPLEMENTED
    assert done.err.startswith("usage: plain {meta-data|monitor|start|stop|validate-all}")
    assert done.out == ""


@pytest.mark.parametrize("arguments", [[], ["start", "now"], ["_perform_start"], [""]])
def test_arguments_that_are_no_action(arguments: list[str]) -> None:
    err = io.StringIO()
    assert main(Plain, arguments, Context({}, err=err)) == Exit.ERR_UNIMPLEMENTED
    assert err.getvalue().startswith("usage: plain")


@pytest.mark.parametrize("name", ["usage", "help", "--help"])
def test_help_goes_to_stdout(name: str) -> None:
    out = io.StringIO()
    assert main(Plain, [name], Context({}, out=out)) == 0
    assert "crm ra info ocf:asha:plain" in out.getvalue()


def test_meta_data_needs_no_parameter() -> None:
    out = io.StringIO()
    assert main(Plain, ["meta-data"], Context({}, out=out)) == 0
    assert out.getvalue().startswith('<?xml version="1.0"?>\n')


# Reasons and what goes wrong inside.


def test_a_reason_is_one_printable_line(act: Act) -> None:
    done = act(troubled(Plain, monitor_0=Failed("two\nlines \x1b[31m\tand \udcff")), "monitor")
    assert done.reason == r"two lines \x1b[31m and \udcff"
    assert done.err.count("ocf-exit-reason:") == 1


def test_a_defect_of_ours_is_an_error_with_its_place(act: Act) -> None:
    done = act(troubled(Plain, stop=ZeroDivisionError("by zero")), "stop")
    assert done.code == 1
    assert done.reason == "internal error in stop: ZeroDivisionError('by zero')"
    assert "Traceback" in done.err
    assert "_maybe" in done.err


@pytest.mark.parametrize("name", ["start", "stop"])
def test_an_interrupt_is_an_error_and_frees_the_lock(act: Act, name: str) -> None:
    agent = troubled(Plain, become_unpromoted=KeyboardInterrupt(), stop=KeyboardInterrupt())
    done = act(agent, name)
    assert (done.code, done.reason) == (1, f"{name} was interrupted by a signal")
    assert act(Plain, "start", clock=FakeClock()).code == 0


def test_closed_streams_do_not_change_the_code() -> None:
    err = io.StringIO()
    err.close()
    context = Context({"OCF_RESKEY_file": "relative"}, err=err)
    assert main(Plain, ["monitor"], context) == 6


def test_a_broken_syslog_does_not_change_the_code(
    act: Act, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> None:
        raise OSError("no /dev/log")

    monkeypatch.setattr(log, "send", refuse)
    err = io.StringIO()
    file.write_text("broken")
    context = Context({"OCF_RESKEY_file": str(file)}, err=err, use_syslog=True)
    assert main(Plain, ["monitor"], context) == 1
    assert "ocf-exit-reason:the file is broken" in err.getvalue()


# Time.


@pytest.mark.parametrize(
    ("name", "timeout", "seconds"),
    [
        ("monitor", "10000", 9.0),
        ("monitor", "60000", 58.0),
        ("stop", "60000", 58.0),
        ("stop", "", 28.0),  # as declared
        ("stop", "0", 28.0),
        ("stop", "soon", 28.0),
        ("monitor", "", 38.0),  # the longest of those declared
        ("validate-all", "", 18.0),
    ],
)
def test_the_deadline_comes_before_pacemakers(name: str, timeout: str, seconds: float) -> None:
    clock = FakeClock()
    environ = {"OCF_RESKEY_CRM_meta_timeout": timeout}
    agent = Plain(name, Context(environ, clock=clock, sleep=clock.sleep))
    assert agent.deadline.remaining() == pytest.approx(seconds)


def test_what_was_waited_for_an_upgrade_is_a_part_of_the_action(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gate, "waited", 9.5)
    clock = FakeClock()
    environ = {"OCF_RESKEY_CRM_meta_timeout": "20000"}
    agent = Plain("monitor", Context(environ, clock=clock, sleep=clock.sleep))
    assert agent.deadline.remaining() == pytest.approx(8.5)


def test_expired_says_where(act: Act) -> None:
    clock = FakeClock()

    class Slow(Plain):
        @action(timeout=20)
        def stop(self) -> None:
            self.deadline.poll(lambda: False)
            self.deadline.require("waiting for the end")

    begun = clock.now
    done = act(Slow, "stop", clock=clock, timeout=10)
    assert (done.code, done.reason) == (1, "ran out of time while waiting for the end")
    assert clock.now - begun < 10


# The lock.


@pytest.mark.parametrize("name", ["start", "stop", "promote", "demote"])
def test_changing_actions_take_the_lock(act: Act, file: Path, name: str) -> None:
    held = []
    paths = set()

    class Looks(Promotable):
        def _maybe(self, where: str) -> None:
            paths.add(self.state_path("lock"))
            held.append(paths <= open_files())

    file.write_text("unpromoted")
    act(Looks, name)
    assert held
    assert all(held)
    assert paths.isdisjoint(open_files())


def open_files() -> set[str]:
    return {os.path.realpath(f"/proc/self/fd/{fd}") for fd in fds()}


def fds() -> list[str]:
    return os.listdir("/proc/self/fd")


def test_an_earlier_action_still_at_work_is_waited_for(act: Act, tmp_path: Path) -> None:
    first = Plain("start", Context({"HA_RSCTMP": f"{tmp_path}/state"}))
    first.environ["OCF_RESOURCE_INSTANCE"] = "p_test"
    first._take_lock()
    try:
        done = act(Plain, "start", clock=FakeClock())
        assert done.code == 1
        assert done.reason.startswith("an earlier action is still at work")
    finally:
        first.release()
    assert act(Plain, "start", clock=FakeClock()).code == 0


def test_resources_do_not_wait_for_one_another(act: Act, tmp_path: Path) -> None:
    first = Plain("start", Context({"HA_RSCTMP": f"{tmp_path}/state"}))
    first.environ["OCF_RESOURCE_INSTANCE"] = "p_other"
    first._take_lock()
    try:
        assert act(Plain, "start", clock=FakeClock()).code == 0
    finally:
        first.release()


def test_programs_that_a_changing_action_runs_share_its_lock(act: Act, file: Path) -> None:
    class Runs(Plain):
        @action(timeout=20)
        def start(self) -> None:
            script = f"readlink /proc/self/fd/* | grep -c '{self.state_path('lock')}'"
            assert self.run("sh", "-c", script).out == "1\n"
            assert self.run("sh", "-c", script, share_lock=False).out == "0\n"
            super().start()

    done = act(Runs, "start")
    assert (done.code, done.reason) == (0, "")


@pytest.mark.parametrize(
    ("instance", "name"),
    [("p_x", "plain-p_x.lock"), ("cl:0", "plain-cl_0.lock"), ("../x", "plain-.._x.lock")],
)
def test_state_is_kept_in_one_folder(instance: str, name: str) -> None:
    environ = {"OCF_RESOURCE_INSTANCE": instance}
    assert Plain("start", Context(environ)).state_path("lock") == f"/run/resource-agents/{name}"
    environ["HA_RSCTMP"] = "/tmp/x"
    assert Plain("start", Context(environ)).state_path("lock") == f"/tmp/x/{name}"


# What is told to the cluster.


class Tells(Plain):
    """Tells the cluster things from its monitor."""

    name = "tells"

    @action(timeout=20)
    def monitor(self) -> Exit:
        self.set_promotion_score(10)
        self.clear_promotion_score()
        self.set_node_attribute("asha-line", "on")
        self.clear_node_attribute("asha-line")
        return Exit.SUCCESS


SCORE = ("crm_attribute", "--promotion", "--update", "10", "-q")
CLEAR = ("crm_attribute", "--promotion", "--delete", "-q")
ATTRIBUTE = ("attrd_updater", "--name", "asha-line", "--update", "on")
FORGET = ("attrd_updater", "--name", "asha-line", "--delete")


def test_the_cluster_is_told(act: Act) -> None:
    queue = CallQueue()
    for argv in (SCORE, CLEAR, ATTRIBUTE, FORGET):
        queue.expect(*argv)
    done = act(Tells, "monitor", runner=queue, meta=RECURRING)
    assert (done.code, done.err) == (0, "")
    queue.done()


def test_a_probe_tells_the_cluster_nothing(act: Act) -> None:
    assert act(Tells, "monitor", runner=CallQueue(), meta=PROBE).code == 0


def test_a_cluster_that_does_not_listen_fails_nothing(act: Act) -> None:
    queue = CallQueue()
    queue.expect(*SCORE, code=102, err="Not connected\n")
    queue.expect(*CLEAR, raises=Expired("took too long"))
    queue.expect(*ATTRIBUTE, raises=NotInstalled("program attrd_updater is not installed"))
    queue.expect(*FORGET, code=1)
    done = act(Tells, "monitor", runner=queue, meta=RECURRING)
    assert (done.code, done.reason) == (0, "")
    assert "not told: promotion score 10 (Not connected)" in done.err
    assert "not told: no promotion score (took too long)" in done.err
    assert "not told: node attribute asha-line=on (program attrd_updater is not" in done.err
    assert "not told: no node attribute asha-line (exit code 1)" in done.err
    queue.done()


# Declaring an agent.


def test_names() -> None:
    agent = Plain("start", Context({"OCF_RESOURCE_INSTANCE": "p_x"}))
    assert (agent.instance, agent.promotable) == ("p_x", False)
    assert Promotable("start", Context({})).promotable
    assert Plain("start", Context({})).instance == "plain"
    assert Plain("start", Context({})).node == os.uname().nodename
    assert Plain("start", Context({"OCF_RESKEY_CRM_meta_on_node": "crm2"})).node == "crm2"


def test_subclasses_do_not_share_their_parameters() -> None:
    class More(Plain):
        extra = String("One more")

    assert set(More.parameters) - set(Plain.parameters) == {"extra"}


def declare(**body: object) -> type[Agent]:
    return type("Declared", (Base,), {"name": "declared", **body})


def method(name: str) -> object:
    def nothing(self: object) -> None:
        pass

    nothing.__name__ = name
    return action(timeout=20)(nothing)


THREE = {name: method(name) for name in ("start", "stop", "monitor")}


def test_an_agent_declares_what_the_standard_wants() -> None:
    assert declare(word=String("Word"), **THREE).parameters.keys() == {"word"}


def test_what_agents_share_need_be_no_agent() -> None:
    class Shared(Agent, is_base=True):
        word = String("Word")

    class Whole(Shared):
        @action(timeout=20)
        def start(self) -> None: ...

        @action(timeout=20)
        def stop(self) -> None: ...

        @action(timeout=20)
        def monitor(self) -> Exit:
            return Exit.SUCCESS

    assert list(Whole.parameters) == ["word"]
    with pytest.raises(TypeError, match="notify is not an action"):
        class Notified(Whole):
            @action(timeout=20)
            def notify(self) -> None: ...


@pytest.mark.parametrize("missing", ["start", "stop", "monitor"])
def test_an_agent_lacks_nothing(missing: str) -> None:
    rest = {name: what for name, what in THREE.items() if name != missing}
    with pytest.raises(TypeError, match=f"lacks {missing}"):
        declare(word=String("Word"), **rest)


def test_promote_comes_with_demote() -> None:
    with pytest.raises(TypeError, match="lacks demote"):
        declare(word=String("Word"), promote=method("promote"), **THREE)
    with pytest.raises(TypeError, match="lacks promote"):
        declare(word=String("Word"), demote=method("demote"), **THREE)


def test_an_agent_has_a_parameter() -> None:
    with pytest.raises(TypeError, match="declares no parameter"):
        declare(**THREE)


def test_an_agent_advertises_only_what_it_can_do() -> None:
    with pytest.raises(TypeError, match="frobnicate is not an action"):
        declare(word=String("Word"), frobnicate=method("frobnicate"), **THREE)


def test_a_parameter_does_not_hide_what_every_agent_has() -> None:
    with pytest.raises(TypeError, match="node cannot be a parameter"):
        declare(node=String("Word"), **THREE)


def test_an_unread_bad_parameter_is_bad_config() -> None:
    with pytest.raises(BadConfig):
        _ = Plain("monitor", Context({"OCF_RESKEY_port": "abc"})).port


def test_a_long_reason_is_cut_between_words_and_marked(act: Act) -> None:
    whole = ("the disk is full of words " * 10).strip()

    class Wordy(Plain):
        def monitor(self) -> Exit:
            raise Failed(whole)

    done = act(Wordy, "monitor")
    shown = done.err.split("ocf-exit-reason:")[1].strip()
    assert len(shown) <= 127
    assert shown.endswith(" ... (see the log)")
    assert done.reason == whole
