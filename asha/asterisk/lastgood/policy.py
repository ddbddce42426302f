"""With which configuration a start is made, and what is done about it afterwards.

    plan = Plan(agent, directory, is_there_a_peer)     before the start
    plan.failed(problem, ...)                          it did not succeed
    plan.refuse(sip)                                   it takes less SIP than the last
    plan.served(identity)                              it succeeded
    keep(agent, directory, identity, sip)              of a monitor, some time later

Nothing here raises but what the start itself has to say: no disk, full or slow, and nothing
that somebody has put into /etc/asterisk may cost the telephones more than a remark.
"""

from __future__ import annotations

from asha.asterisk import astdb
from asha.asterisk.lastgood import KEPT, UNKEPT, WAS, generations, tree
from asha.asterisk.lastgood.generations import ANY_NODE, TODAY, Failure, Generation
from asha.rootwork import Directory, Untrusted
from asha.run.child import in_child
from asha.run.results import AgentError, Failed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from asha.ocf.agent import Agent
    from asha.run.deadline import Deadline

ETC = astdb.ETC

# For which of today's files evidence was kept.
SHOWN = "last-good-shown"

# What has failed here while the store took no file more: it is full, or has no inode left.
FAILED_HERE = "last-good-failed"

# A start may have failed so often here before the other node's counts for nothing: as many
# as move it (migration-threshold), so that it cannot be moved.
TRIES = 3

# Seconds before a start for what was kept, and for today's files where some have failed; for
# their state, some milliseconds on a disk that is well; to write a failure down.
LOOK_SECONDS = 2.0
STATE_SECONDS = 1.0
NOTE_SECONDS = 2.0
COMPARE_SECONDS = 3.0

# Seconds for the copy, in a monitor: a death waits for that one's end.
KEEP_SECONDS = 3.0
# Seconds before another try, where that did not suffice.
AGAIN_SECONDS = 600.0

# Bytes of a file of which its changes are kept as evidence, and how many of both.
DIFF_FILE = 64 << 10
DIFF_FILES = 20


class LostSip(Failed):
    """It runs, without the SIP that it had, and its files are damaged."""


class Plan:
    """Of one start. ``path``: of the files to start with; "" for those in /etc/asterisk."""

    def __init__(
        self, agent: Agent, directory: str, is_there_a_peer: Callable[[], bool]
    ) -> None:
        self.agent = agent
        self.directory = directory
        self.kept: Generation | None = None
        self._generations: list[Generation] = []
        self._failed: list[Failure] = []
        # The digest of today's files; "" where nobody has asked.
        self._today = ""
        self._state = ""
        self._unkept = ""
        try:
            self._look()
            self.kept = generations.choose(self._generations, self._failed, self._today,
                                           agent.node, is_there_a_peer, TRIES)
        except AgentError as problem:
            agent.warn(f"starts with the files in {ETC}: {problem.reason}")

    @property
    def path(self) -> str:
        return self.kept.files(self.directory) if self.kept else ""

    def _look(self) -> None:
        here = generations.parsed(self.agent.state_file(FAILED_HERE).read())

        def work() -> str:
            try:
                place = generations.enter(self.directory)
            except FileNotFoundError:
                return ""  # nothing has served yet
            with place:
                found = generations.listed(place)
                failed = [*generations.failures(place), *here] if found else []
            today = _digest() if failed else ""
            lines = [f"generation {one.name} {one.digest}" for one in found]
            lines += [f"sip {line}" for one in found[:1] for line in one.sip.splitlines()]
            lines += [f"failed {one.digest} {one.node} {one.what} {one.count}" for one in failed]
            return "\n".join([f"today {today}", *lines])

        said = self._child(work, LOOK_SECONDS, f"looking into {self.directory}")
        for line in said.splitlines():
            word, *rest = line.split(" ")
            if word == "today":
                self._today = rest[0]
            elif word == "generation":
                self._generations.append(Generation(rest[0], rest[1]))
            elif word == "sip":
                self._generations[0].sip += " ".join(rest) + "\n"
            elif word == "failed":
                self._failed.append(Failure(rest[0], rest[1], rest[2], int(rest[3])))

    def begins(self) -> None:
        """Before Asterisk is launched: how the files are that it loads. What somebody writes
        while it loads them may be what it has not read."""
        if self.kept:
            return
        try:
            self._state = self._child(lambda: _on_etc(tree.state), STATE_SECONDS,
                                      f"looking at {ETC}")
        except AgentError as problem:
            self._unkept = f"{ETC} is not kept as one that serves: {problem.reason}"
            self.agent.warn(self._unkept)

    def failed(self, problem: AgentError, may_be_configuration: bool) -> AgentError:
        """Write it down. Returns what to raise."""
        if self.kept:
            self._note(self._today, self.kept.name)
            if not isinstance(problem, Failed):
                return problem
            text = (f"with {ETC} of {self.kept.when}, the last that served, it does not start "
                    f"either: {problem.reason}")
            return Failed(text)
        if may_be_configuration and self._generations and not isinstance(problem, LostSip):
            self._note_today()
        return problem

    def refuse(self, sip: str) -> None:
        """Raises LostSip where this start takes less SIP than the last that served, and that is
        damage: then the next is made with what was kept.

        ``sip``: where it takes SIP, as lines of talk/sip_transports.py. Only where the files are
        not those that served, where something in them is damaged, and not a second
        time: a start with the kept ones may fail, and this one takes some SIP.
        """
        lost = sorted(set(self._generations[0].sip.splitlines()) - set(sip.splitlines())
                      if self._generations and sip and not self.kept else ())
        if not lost:
            return
        words = [line.split() for line in lost]
        stacks = {one[2] for one in words if len(one) == 3}
        path = self._generations[0].files(self.directory)
        said = ", ".join(f"{one[2]} on {one[0]} port {one[1]}" for one in words if len(one) == 3)

        def work() -> str:
            from asha.asterisk.lastgood import damage

            with Directory.trusted(ETC) as now, Directory.trusted(path) as before:
                return "; ".join(damage.of_stack(now, before, stacks))

        try:
            found = self._child(work, COMPARE_SECONDS, f"comparing {ETC}")
        except AgentError as problem:
            self._serves_less(f"Asterisk takes less SIP than before ({said}): {problem.reason}")
            return
        if not found:
            self.agent.warn(f"Asterisk takes less SIP than before ({said}); no file of that is "
                            "damaged, so somebody means it")
            return
        if self._note_today(just_this=True):
            raise LostSip(f"Asterisk has lost SIP: {found} ({said})")
        self._serves_less(f"Asterisk has lost SIP: {found} ({said})")

    def _serves_less(self, text: str) -> None:
        """Some SIP is better than none, but such files are not kept as those that serve: the
        next start would measure by them."""
        self._state, self._unkept = "", text
        self.agent.warn(text)

    def served(self, identity: str) -> list[str]:
        """What people must know of this start."""
        _forget(self.agent)
        kept = self.kept
        if not kept:
            if self._state:
                _write(self.agent, WAS, f"{identity}\n{self._state}")
            if self._unkept:
                _write(self.agent, UNKEPT, self._unkept)
            return []
        why = "it does not start with today's files"
        if not any(one.digest == self._today for one in self._failed):
            why = "files that change all the time have failed again and again"
            self._forget_failures()
        record = [f"{self.directory}/{generations.FAILED}"]
        if not self.agent.state_file(FAILED_HERE).is_absent:
            record.insert(0, f"-f {self.agent.state_path(FAILED_HERE)}")
        text = (f"Asterisk runs with {ETC} of {kept.when}, the last that served ({self.path}), "
                f"as {why}. Repair today's (or, to have them tried as they are: "
                f"rm {' '.join(record)}), then: "
                f"crm resource restart {self.agent.instance}. A reload and systemctl restart read "
                # Last, as the end of a long text is cut off.
                f"the old ones too. Today: {self._differences(self.path)}")
        _write(self.agent, KEPT, f"{kept.name}\n{text}")
        self.agent.warn(text)
        return [text]

    def evidence(self) -> tuple[str, dict[str, str]] | None:
        """Why, and the changes of the files, by name; None where that was kept already."""
        if not self.kept or self.agent.state_file(SHOWN).read() == self._today:
            return None
        path = self.path

        def work() -> str:
            with Directory.trusted(ETC) as now, Directory.trusted(path) as before:
                return _changes(now, before)

        try:
            changes = self._child(work, COMPARE_SECONDS, "comparing the files")
        except AgentError as problem:
            changes = problem.reason
        _write(self.agent, SHOWN, self._today)
        reason = self.agent.state_file(KEPT).read().partition("\n")[2]
        return reason, {"changes.txt": changes}

    def _differences(self, path: str) -> str:
        def work() -> str:
            from asha.asterisk.lastgood import damage

            with Directory.trusted(ETC) as now, Directory.trusted(path) as before:
                today, old = tree.read(now), tree.read(before)
                paths = damage.differences(today, old)
                told = damage.described(paths[:damage.NAMED_MOST], today, old, now, before)
            if len(paths) > damage.NAMED_MOST:
                told.append(f"{len(paths) - damage.NAMED_MOST} more files differ")
            return "; ".join(told) or "all are the same by now"

        try:
            return self._child(work, COMPARE_SECONDS, "comparing the files")
        except AgentError as problem:
            return problem.reason

    def _note_today(self, just_this: bool = False) -> bool:
        """Write down that today's files have failed; False if they are none to blame.

        ``just_this``: only where no start with a generation has failed for them.
        """
        try:
            self._today = self._child(_digest, NOTE_SECONDS, f"reading {ETC}")
        except AgentError as problem:
            self.agent.warn(f"cannot tell whether {ETC} has changed: {problem.reason}")
            return False
        if any(one.digest == self._today for one in self._generations):
            return False  # they have served
        if just_this and any(one.digest == self._today and one.what != TODAY
                             for one in self._failed):
            return False
        # Nothing but the content of a file has to change, and the disk is the same: the
        # other node finds the same damage.
        return self._note(self._today, TODAY, everywhere=just_this)

    def _note(self, digest: str, what: str, everywhere: bool = False) -> bool:
        nodes = (self.agent.node, *((ANY_NODE,) if everywhere else ()))

        def work() -> str:
            with generations.enter(self.directory) as place:
                for node in nodes:
                    generations.add_failure(place, digest, node, what)
            return ""

        try:
            self._child(work, NOTE_SECONDS, "writing down that it failed")
        except AgentError as problem:
            self.agent.warn(f"only this node remembers that this start failed: {problem.reason}")
            here = self.agent.state_file(FAILED_HERE).read()
            for node in nodes:
                here = generations.with_another(generations.parsed(here), digest, node, what)
            return _write(self.agent, FAILED_HERE, here)
        return True

    def _forget_failures(self) -> None:
        """Nobody has tried today's: they are the next start's."""

        def work() -> str:
            with generations.enter(self.directory) as place:
                generations.forget_failures(place)
            return ""

        _remove(self.agent, FAILED_HERE)
        try:
            self._child(work, NOTE_SECONDS, "forgetting what failed")
        except AgentError as problem:
            self.agent.warn(f"the next start is not made with today's files: {problem.reason}")

    def _child(self, work: Callable[[], str], seconds: float, doing: str) -> str:
        return _in_child(work, self.agent.deadline.at_least(seconds).within(seconds), doing)


def keep(agent: Agent, directory: str, identity: str, sip: str) -> None:
    """Keep the files with which this Asterisk was started, which has served by now."""
    was, text = agent.state_file(WAS), agent.state_file(UNKEPT)
    started, _, state = was.read().partition("\n")
    if started != identity:
        _forget(agent)  # somebody has restarted it: nobody knows with which files
        return
    if not text.is_absent and was.age() < AGAIN_SECONDS:
        return
    deadline = agent.deadline.within(KEEP_SECONDS)
    try:
        made = _in_child(lambda: _keep(directory, state, agent.node, sip), deadline,
                         f"keeping {ETC} as one that serves")
    except AgentError as problem:
        reason = f"{ETC} is not kept as one that serves: {problem.reason}"
        agent.warn(reason)
        _write(agent, UNKEPT, reason)
        _write(agent, WAS, f"{started}\n{state}")  # its age counts anew
        return
    _forget(agent)
    if made:
        _remove(agent, FAILED_HERE)
    if made == generations.NOWHERE:
        agent.info(f"{ETC} is not kept as one that serves: there is no {directory}, nor what it "
                   "could be made in")
        return
    agent.info(f"{ETC} is kept as one that serves: {directory}/{made}" if made else
               f"{ETC} has changed since Asterisk was started: it is kept when it serves "
               "after a start")


def _forget(agent: Agent) -> None:
    _remove(agent, WAS, KEPT, UNKEPT)


def _remove(agent: Agent, *kinds: str) -> None:
    for kind in kinds:
        try:
            agent.state_file(kind).remove()
        except OSError:
            pass


def _keep(directory: str, state: str, node: str, sip: str) -> str:
    elsewhere = astdb.directory("astetcdir", ETC)
    if elsewhere != ETC:
        raise Failed(f"Asterisk's files are in {elsewhere} (astetcdir), and only {ETC} is kept")
    with Directory.trusted(ETC) as source:
        return generations.keep(directory, source, state, node, sip)


def _in_child(work: Callable[[], str], deadline: Deadline, doing: str) -> str:
    def answer() -> str:
        try:
            return work()
        except Untrusted as problem:
            hint = f" ({problem.hint})" if problem.hint else ""
            raise Failed(f"{problem}{hint}") from None
        except OSError as problem:
            where = f"{problem.filename}: " if problem.filename else ""
            raise Failed(f"{where}{problem.strerror}") from None

    return in_child(answer, deadline, doing)


def _digest() -> str:
    return _on_etc(_digest_of)


def _digest_of(top: Directory) -> str:
    try:
        return tree.digest_of(tree.read(top))
    except Failed:
        return tree.rough(top)


def _on_etc(work: Callable[[Directory], str]) -> str:
    with Directory.trusted(ETC) as top:
        return work(top)


def _write(agent: Agent, kind: str, text: str) -> bool:
    try:
        agent.state_file(kind).write(text)
    except OSError as problem:
        agent.warn(f"cannot write {kind} of {agent.instance}: {problem.strerror}")
        return False
    return True


def _changes(now: Directory, before: Directory) -> str:
    """As diff -u words them; secrets are among them."""
    from difflib import unified_diff

    from asha.asterisk.lastgood import damage

    paths = damage.differences(tree.read(now), tree.read(before))
    lines: list[str] = []
    for path in paths[:DIFF_FILES]:
        texts = [tree.text(top, path, DIFF_FILE) for top in (before, now)]
        old, new = ((text or b"").decode("utf-8", "replace").splitlines() for text in texts)
        lines += unified_diff(old, new, f"served/{path}", f"today/{path}", lineterm="")
    lines += [f"{path} differs too" for path in paths[DIFF_FILES:]]
    return "\n".join(lines) + "\n"
