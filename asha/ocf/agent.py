"""A class is an agent: parameters and actions declared, the rest done here.

    class Dummy(Agent):
        '''A resource that does nothing.

        The rest of the docstring is the long description.
        '''
        name = "dummy"
        file = Path("Where the state is kept", default="/run/dummy")

        @action(timeout=20)
        def start(self) -> None: ...
        @action(timeout=20)
        def stop(self) -> None: ...
        @action(timeout=20, interval=10, depth=0)
        def monitor(self) -> Exit: ...

    sys.exit(main(Dummy))

Behaviour is that of the OCF Resource Agent API 1.1 as Pacemaker uses it. Nothing
here knows telephony, and nothing is imported that a monitor does not need.
"""

from __future__ import annotations

import os
import sys
import time

from asha import gate
from asha.ocf.action import UNDECLARED_TIMEOUT
from asha.ocf.params import Parameter
from asha.ocf.state import StateFile
from asha.run.deadline import Deadline
from asha.run.results import (
    AgentError,
    BadConfig,
    Degraded,
    DegradedPromoted,
    Exit,
    Failed,
    NotRunning,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import ClassVar, TextIO

    from asha.ocf.action import ActionSpec
    from asha.run.runner import Completed, Runner

# Where agents keep what they must remember until the next boot; a tmpfs that
# the package resource-agents makes.
STATE_DIRECTORY = "/run/resource-agents"

# We must end before Pacemaker kills us, so that the reason is ours: a tenth of
# the action's timeout, at most two seconds, is kept back.
RESERVE_SHARE = 0.1
RESERVE_MOST = 2.0

# Seconds that the cluster may take to be told something.
TELL_SECONDS = 5.0

# Bytes of an exit reason; Pacemaker 2.1 and 3.0 cut what is longer.
REASON_MOST = 127
CUT = " ... (see the log)"

# Severities of the system log (RFC 3164, 4.1.1).
LOG_ERR, LOG_WARNING, LOG_INFO = 3, 4, 6

# Actions that change something. They exclude one another per resource.
TAKING = frozenset(("start", "promote"))
GIVING_UP = frozenset(("stop", "demote"))
CHANGING = TAKING | GIVING_UP
PLAIN = frozenset(("meta-data", "usage", "help"))

UNPROMOTED = (Exit.SUCCESS, Exit.DEGRADED)
PROMOTED = (Exit.RUNNING_PROMOTED, Exit.DEGRADED_PROMOTED)
RUNNING = UNPROMOTED + PROMOTED
# A monitor that says "not installed" or "cannot be configured like this" says
# also that nothing can have been started.
STOPPED = (Exit.NOT_RUNNING, Exit.ERR_INSTALLED, Exit.ERR_CONFIGURED)


class Context:
    """What an agent gets from outside; a test gives its own.

    ``runner`` is made when it is first used: importing subprocess costs a monitor a quarter of
    its time.
    """

    def __init__(
        self,
        environ: Mapping[str, str] | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        runner: Runner | None = None,
        out: TextIO | None = None,
        err: TextIO | None = None,
        use_syslog: bool = False,
    ) -> None:
        self.environ = dict(os.environ if environ is None else environ)
        self.clock = clock
        self.sleep = sleep
        self.runner = runner
        self.out = out if out is not None else sys.stdout
        self.err = err if err is not None else sys.stderr
        self.use_syslog = use_syslog


class Agent:
    """Base of all agents. Subclasses declare parameters and actions."""

    name: ClassVar[str]
    version: ClassVar[str] = "1.0"
    parameters: ClassVar[dict[str, Parameter]]
    actions: ClassVar[tuple[ActionSpec, ...]]

    def __init_subclass__(cls, *, is_base: bool = False) -> None:
        super().__init_subclass__()
        if is_base:
            return  # no agent itself: what its subclasses share
        cls.parameters = {}
        specs: dict[str, tuple[ActionSpec, ...]] = {}
        for klass in reversed(cls.__mro__):
            for attribute, value in vars(klass).items():
                if isinstance(value, Parameter):
                    if hasattr(Agent, attribute):
                        raise TypeError(f"{cls.__name__}: {attribute} cannot be a parameter")
                    cls.parameters[attribute] = value
                elif getattr(value, "ocf_actions", None):
                    specs[attribute] = value.ocf_actions
        cls.actions = tuple(spec for some in specs.values() for spec in some)
        names = {spec.name for spec in cls.actions}
        wanted = {"start", "stop", "monitor"}
        if names & {"promote", "demote"}:
            wanted |= {"promote", "demote"}
        if wanted - names:
            raise TypeError(f"{cls.__name__} lacks {', '.join(sorted(wanted - names))}")
        for name in names:
            if not hasattr(cls, _performer(name)):
                raise TypeError(f"{cls.__name__}: {name} is not an action of an agent")
        if not cls.parameters:
            # The metadata schema of OCF 1.1 wants at least one.
            raise TypeError(f"{cls.__name__} declares no parameter")

    def __init__(self, action_name: str, context: Context) -> None:
        self.action_name = action_name
        self.context = context
        self.environ = context.environ
        self.deadline = Deadline(self._budget(), context.clock, context.sleep)
        self._lock: int | None = None

    # What every agent may use.

    @property
    def promotable(self) -> bool:
        return any(spec.name == "promote" for spec in self.actions)

    @property
    def instance(self) -> str:
        """The resource's name in the CIB, with a clone's instance number."""
        return self.environ.get("OCF_RESOURCE_INSTANCE", "") or self.name

    @property
    def node(self) -> str:
        """This node's name as Pacemaker knows it."""
        return self.environ.get("OCF_RESKEY_CRM_meta_on_node", "") or os.uname().nodename

    @property
    def check_level(self) -> int:
        """OCF_CHECK_LEVEL: 0, 10 or 20."""
        text = self.environ.get("OCF_CHECK_LEVEL", "") or "0"
        return int(text) if text.isdecimal() else 0

    @property
    def is_probe(self) -> bool:
        """Whether Pacemaker asks, once, what runs here: a monitor that is not recurring.

        Pacemaker 2.1 and 3.0 send no interval for a probe (as the shell agents' ocf-shellfuncs
        expect), ocf-tester sends 0.
        """
        return (
            self.action_name == "monitor"
            and self.environ.get("OCF_RESKEY_CRM_meta_interval", "0") == "0"
        )

    @property
    def runner(self) -> Runner:
        if self.context.runner is None:
            from asha.run.runner import Runner

            self.context.runner = Runner(keep_open=() if self._lock is None else (self._lock,))
        return self.context.runner

    def run(
        self,
        *argv: str,
        cap: float | None = None,
        stdin: str | None = None,
        share_lock: bool = True,
    ) -> Completed:
        """Run a program under the action's deadline; see Runner.run."""
        return self.runner.run(argv, self.deadline, cap=cap, stdin=stdin, share_lock=share_lock)

    def state_path(self, kind: str) -> str:
        """A file of this resource that lives until the next boot."""
        base = self.environ.get("HA_RSCTMP", "") or STATE_DIRECTORY
        safe = self.instance.replace("/", "_").replace(":", "_")
        return f"{base}/{self.name}-{safe}.{kind}"

    def state_file(self, kind: str) -> StateFile:
        return StateFile(self.state_path(kind))

    def info(self, message: str) -> None:
        self._say("INFO", LOG_INFO, message)

    def warn(self, message: str) -> None:
        self._say("WARNING", LOG_WARNING, message)

    def error(self, message: str) -> None:
        self._say("ERROR", LOG_ERR, message)

    def set_promotion_score(self, score: int) -> None:
        """Set how much Pacemaker wants this node promoted. Lost at reboot."""
        self._tell_cluster(
            f"promotion score {score}", "crm_attribute", "--promotion", "--update", str(score), "-q"
        )

    def clear_promotion_score(self) -> None:
        self._tell_cluster("no promotion score", "crm_attribute", "--promotion", "--delete", "-q")

    def set_node_attribute(self, name: str, value: str, cap: float = TELL_SECONDS) -> bool:
        """Set an attribute of this node in the cluster. Lost at reboot. False if the cluster
        did not take it within ``cap`` seconds."""
        from asha.run.text import plain

        value = plain(value)
        return self._tell_cluster(
            f"node attribute {name}={value}",
            *("attrd_updater", "--name", name, "--update", value),
            cap=cap,
        )

    def clear_node_attribute(self, name: str, cap: float = TELL_SECONDS) -> bool:
        """False if the cluster did not take it within ``cap`` seconds."""
        return self._tell_cluster(
            f"no node attribute {name}", "attrd_updater", "--name", name, "--delete", cap=cap
        )

    def _tell_cluster(self, what: str, *argv: str, cap: float = TELL_SECONDS) -> bool:
        """Never fails the action. Does nothing in a probe, which changes nothing."""
        if self.is_probe:
            return False
        try:
            done = self.run(*argv, cap=cap)
        except AgentError as problem:
            self.warn(f"the cluster was not told: {what} ({problem.reason})")
            return False
        if not done.ok:
            self.warn(f"the cluster was not told: {what} ({done.complaint})")
        return done.ok

    # What an agent may replace.

    @classmethod
    def appendix(cls) -> str:
        """What the agent's description adds to the docstring, "" for nothing."""
        return ""

    def validate(self, level: int) -> None:
        """Check the parameters beyond their syntax.

        At level 0 only what is wrong on every node (BadConfig), at level 10 also what this node
        lacks (NotInstalled, BadHere).
        """

    def adopt(self) -> bool:
        """At a start, for what the shallowest monitor finds running: is it as start leaves it?

        May correct what is cheap. False: start() is called all the same.
        """
        return True

    def start(self) -> None:
        raise NotImplementedError

    def stop(self) -> None:
        raise NotImplementedError

    def monitor(self) -> Exit:
        raise NotImplementedError

    def promote(self) -> None:
        raise NotImplementedError

    def demote(self) -> None:
        raise NotImplementedError

    # How an action runs.

    def perform(self) -> Exit:
        """Do the action and return its code. Raises AgentError where it failed."""
        if self.action_name in TAKING:
            self._check_parameters()  # before the lock: nothing is written for a typing error
        elif self.action_name in GIVING_UP:
            self._forgive_parameters()
        if self.action_name in CHANGING:
            self._take_lock()
        return getattr(self, _performer(self.action_name))()  # type: ignore[no-any-return]

    def _perform_start(self) -> Exit:
        self.validate(10)
        state = self._observe()
        if state in UNPROMOTED and self.adopt():
            self.info("is running already")
            return Exit.SUCCESS
        if state in PROMOTED:
            # Pacemaker takes what a start leaves for unpromoted.
            return self._perform_demote()
        self._change(self.start)
        self._verify(UNPROMOTED, "started")
        return Exit.SUCCESS

    def _perform_stop(self) -> Exit:
        # No validation: a stop that fails for a bad parameter gets the node
        # fenced. Each stop is written to be right from any state.
        try:
            self._change(self.stop)
        except NotRunning as problem:
            self.info(problem.reason)
        except BadConfig as problem:
            # Without even a default to go by. No start accepts that either.
            self.warn(f"{problem.reason}; nothing can have been started so")
            return Exit.SUCCESS
        self._verify(STOPPED, "stopped")
        return Exit.SUCCESS

    def _perform_monitor(self) -> Exit:
        code = self.monitor()
        if not isinstance(code, Exit):
            raise Failed(f"internal error: monitor returned {code!r}")
        if code == Exit.NOT_RUNNING:
            raise NotRunning("is not running")
        return code

    def _perform_promote(self) -> Exit:
        state = self._observe()
        if state == Exit.RUNNING_PROMOTED:
            self.info("is promoted already")
            return Exit.SUCCESS
        if state == Exit.NOT_RUNNING:
            raise NotRunning("cannot be promoted: it is not running")
        self._change(self.promote)
        self._verify(PROMOTED, "promoted")
        return Exit.SUCCESS

    def _perform_demote(self) -> Exit:
        self._change(self.demote)
        if self._verify((*UNPROMOTED, Exit.NOT_RUNNING), "demoted") == Exit.NOT_RUNNING:
            # Not 7: after a failed start Pacemaker demotes what it is not sure of, and
            # a failure here would replace start's, which keeps it from trying that
            # again at once and for ever (seen with a relay card that was pulled out).
            self.warn("demoted, but it was not running")
        return Exit.SUCCESS

    def _perform_validate_all(self) -> Exit:
        self._check_parameters()
        self.validate(self.check_level)
        return Exit.SUCCESS

    def _check_parameters(self) -> None:
        for parameter in self.parameters.values():
            parameter.parse(self.environ)

    def _forgive_parameters(self) -> None:
        """Read a parameter that does not parse as its default, where it has one."""
        for parameter in self.parameters.values():
            try:
                parameter.parse(self.environ)
            except BadConfig as problem:
                if not parameter.required:
                    self.warn(f"{problem.reason}; goes by the default")
                    self.environ.pop(f"OCF_RESKEY_{parameter.name}", None)

    def _change(self, work: Callable[[], None]) -> None:
        """Run the agent's own method. Only a monitor may answer with a warning."""
        try:
            work()
        except (Degraded, DegradedPromoted) as problem:
            self.warn(problem.reason)

    def _observe(self) -> Exit:
        """The result of the shallowest monitor, an error as its code."""
        deep = self.environ.pop("OCF_CHECK_LEVEL", None)
        self._observed = ""
        try:
            return self._perform_monitor()
        except AgentError as problem:
            self._observed = problem.reason
            return problem.code
        finally:
            if deep is not None:
                self.environ["OCF_CHECK_LEVEL"] = deep

    def _verify(self, wanted: Sequence[Exit], done: str) -> Exit:
        state = self._observe()
        if state not in wanted:
            why = self._observed or f"its state is {state.name}"
            raise Failed(f"{done}, but {why}")
        return state

    def _budget(self) -> float:
        """The action's own seconds: Pacemaker's timeout less the reserve, and less the time for
        which an upgrade made us wait."""
        text = self.environ.get("OCF_RESKEY_CRM_meta_timeout", "")
        if text.isdecimal() and int(text) > 0:
            total = int(text) / 1000
        else:
            total = max(
                (spec.timeout for spec in self.actions if spec.name == self.action_name),
                default=UNDECLARED_TIMEOUT,
            )
        return total - min(RESERVE_MOST, total * RESERVE_SHARE) - gate.waited

    def _take_lock(self) -> None:
        """Wait until no earlier changing action of this resource runs."""
        from asha.run.lock import take

        self._lock = take(
            self.state_path("lock"),
            self.deadline,
            end_leftovers=self.action_name in GIVING_UP,
            warn=self.warn,
        )

    def release(self) -> None:
        """Release the lock; for tests, which do not end with the action."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _say(self, word: str, priority: int, message: str) -> None:
        from asha.run.text import printable

        # One line: what follows a newline on this stream could be taken for an exit reason.
        line = printable(f"{self.name}({self.instance}): {message}")
        try:
            print(f"{line}" if word == "INFO" else f"{word}: {line}", file=self.context.err)
            if self.context.use_syslog:
                from asha.run.log import send

                send(priority, self.name, f"{word}: {line}")
        except (OSError, ValueError):
            pass  # a broken log never fails an action


def main(
    agent_class: type[Agent],
    argv: Sequence[str] | None = None,
    context: Context | None = None,
) -> int:
    """Run the one action that the command line names and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    real = context is None
    context = context or Context(use_syslog=True)
    name = arguments[0] if len(arguments) == 1 else "usage"
    known = {spec.name for spec in agent_class.actions} | {"validate-all"}
    if name in PLAIN or name not in known:
        return _plain(agent_class, name, arguments, context)
    if real:
        _settle(name)
    agent = agent_class(name, context)
    try:
        return int(agent.perform())
    except AgentError as problem:
        _explain(agent, problem)
        return int(problem.code)
    except KeyboardInterrupt:
        _give_reason(context, f"{name} was interrupted by a signal")
        return int(Exit.ERR_GENERIC)
    except Exception as problem:  # a defect of ours: say where, never hide it
        import traceback

        for line in traceback.format_exc().splitlines():
            agent.error(line)
        _give_reason(context, f"internal error in {name}: {problem!r}")
        return int(Exit.ERR_GENERIC)
    finally:
        agent.release()


def _performer(action_name: str) -> str:
    return "_perform_" + action_name.replace("-", "_")


def _settle(action_name: str) -> None:
    """Prepare the process for its action."""
    os.chdir("/")  # or it may hold the very file system that it has to unmount
    if action_name in CHANGING:
        import signal

        # Like Ctrl-C, so that the programs it runs are ended with it.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        # Inherited as ignored, it would hide how those programs ended.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def _plain(agent_class: type[Agent], name: str, arguments: Sequence[str], context: Context) -> int:
    if name == "meta-data":
        from asha.ocf.metadata import render

        print(render(agent_class), end="", file=context.out)
        return int(Exit.SUCCESS)
    names = sorted({spec.name for spec in agent_class.actions} | {"meta-data", "validate-all"})
    usage = f"usage: {agent_class.name} {{{'|'.join(names)}}}"
    if arguments and arguments[0] in ("usage", "help", "--help", "-h"):
        print(usage, file=context.out)
        print(
            "Pacemaker calls this; see crm ra info ocf:asha:" + agent_class.name, file=context.out
        )
        return int(Exit.SUCCESS)
    print(usage, file=context.err)
    return int(Exit.ERR_UNIMPLEMENTED)


def _explain(agent: Agent, problem: AgentError) -> None:
    if problem.code == Exit.NOT_RUNNING and agent.is_probe:
        return  # the ordinary answer of a probe, not news
    agent.warn(problem.reason) if problem.code in RUNNING else agent.error(problem.reason)
    _give_reason(agent.context, problem.reason)


def _give_reason(context: Context, reason: str) -> None:
    """Print the one line on stderr that Pacemaker shows beside the failure."""
    from asha.run.text import plain

    line = plain(" ".join(reason.split()))
    if len(line) > REASON_MOST:
        # Between two words, and marked: the log has the whole.
        line = line[: REASON_MOST - len(CUT)].rsplit(" ", 1)[0] + CUT
    try:
        print(f"ocf-exit-reason:{line}", file=context.err)
    except (OSError, ValueError):
        pass  # nobody listens; the exit code still tells
