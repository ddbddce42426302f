"""Fakes for tests of agents: a clock that only moves when told, a queue of calls."""

from __future__ import annotations

import io

from asha.ocf.agent import CUT, REASON_MOST, Agent, Context, main
from asha.run.runner import Completed, Runner

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from asha.run.deadline import Deadline


class FakeClock:
    """``clock()`` is the time; sleeping moves it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        # A sleep of nothing still lets a moment pass, or a poll at its end
        # would never see the deadline go by.
        self.now += max(seconds, 0.001)


class CallQueue(Runner):
    """A runner that expects these programs in this order and no other.

    A wrong call fails at once; ``done()`` fails for calls that never came.
    """

    def __init__(self) -> None:
        super().__init__()
        self._expected: list[tuple[list[str], Completed | Exception]] = []
        self.seen: list[list[str]] = []

    def expect(
        self,
        *argv: str,
        code: int = 0,
        out: str = "",
        err: str = "",
        raises: Exception | None = None,
    ) -> None:
        answer = raises or Completed(argv, code, out, err)
        self._expected.append((list(argv), answer))

    def run(
        self,
        argv: Sequence[str],
        deadline: Deadline,
        *,
        cap: float | None = None,
        environ: Mapping[str, str] | None = None,
        stdin: str | None = None,
        share_lock: bool = True,
        leave: Callable[[], bool] | None = None,
    ) -> Completed:
        self.seen.append(list(argv))
        if not self._expected:
            raise AssertionError(f"unexpected call: {list(argv)}")
        wanted, answer = self._expected.pop(0)
        if wanted != list(argv):
            raise AssertionError(f"expected {wanted}, got {list(argv)}")
        if isinstance(answer, Exception):
            raise answer
        return answer

    def done(self) -> None:
        if self._expected:
            raise AssertionError(f"calls that never came: {self._expected}")


class Outcome:
    """What one action of an agent did, as Pacemaker would see it."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code = code
        self.out = out
        self.err = err

    @property
    def reason(self) -> str:
        """The exit reason; where it was cut for Pacemaker, the whole from the log."""
        prefix = "ocf-exit-reason:"
        found = [line for line in self.err.splitlines() if line.startswith(prefix)]
        assert len(found) <= 1, f"more than one exit reason: {found}"
        shown = found[0][len(prefix) :] if found else ""
        assert len(shown) <= REASON_MOST
        if not shown.endswith(CUT):
            return shown
        begin = shown[: -len(CUT)]
        logged = [line[line.index(begin) :] for line in self.err.splitlines() if begin in line]
        return max(logged, key=len)


def perform(
    agent_class: type[Agent],
    action_name: str,
    state_directory: str,
    *,
    runner: Runner | None = None,
    clock: FakeClock | None = None,
    timeout: float = 20.0,
    instance: str = "p_test",
    meta: Mapping[str, str] | None = None,
    check_level: int | None = None,
    **parameters: str,
) -> Outcome:
    """Run one action with these parameters, as Pacemaker would.

    A monitor is a recurring one, unless ``meta`` has another interval: "" leaves it
    out, as Pacemaker does for a probe.
    """
    environ = {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "HA_RSCTMP": state_directory,
        "OCF_RESOURCE_INSTANCE": instance,
        "OCF_RESKEY_CRM_meta_timeout": str(int(timeout * 1000)),
        "OCF_RESKEY_CRM_meta_on_node": "crm1",
    }
    told = {"interval": "10000"} if action_name == "monitor" else {}
    told.update(meta or {})
    environ.update({f"OCF_RESKEY_CRM_meta_{key}": value for key, value in told.items() if value})
    environ.update({f"OCF_RESKEY_{key}": value for key, value in parameters.items()})
    if check_level is not None:
        environ["OCF_CHECK_LEVEL"] = str(check_level)
    out, err = io.StringIO(), io.StringIO()
    context = Context(environ, runner=runner, out=out, err=err)
    if clock is not None:
        context.clock, context.sleep = clock, clock.sleep
    code = main(agent_class, [action_name], context)
    return Outcome(code, out.getvalue(), err.getvalue())
