"""What an Asterisk was doing when it was found hung, kept before it is killed.

One directory for each event on local disk, named by its time. Everything here is limited, in
seconds and in megabytes, and nothing may delay the recovery or make it fail: what cannot be
collected is named in the summary and left out.
"""

from __future__ import annotations

import os
import shutil
import signal
import stat
import time
from functools import partial

from asha.asterisk.process.proc import BLOCKED, STOPPED
from asha.asterisk.talk.connections import Silent, side_by_side
from asha.run.child import in_child
from asha.run.results import AgentError, Expired

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from asha.asterisk.process.proc import Endpoint, Process
    from asha.asterisk.talk.connections import Conversation
    from asha.asterisk.talk.control import Console
    from asha.run.deadline import Deadline
    from asha.run.runner import Completed

DIRECTORY = "/var/lib/asha/evidence"
SUMMARY = "summary.txt"

# Seconds for what is read from /proc and written, and for the console's commands.
LOOK_SECONDS = 1.0
CONSOLE_SECONDS = 0.5
# Kept back for the backtraces and the summary to be written.
WRITE_SECONDS = 0.5

# Seconds after its time by which gdb is ended even if nobody of us is there to do it.
TIMEOUT_LATER = 1.0
# gdb opens what the process names (libraries, its program, source files) and takes from it
# what to run: whoever made the process has gdb do as he likes (a library whose name begins
# with a place that gdb trusts was enough, seen with 13.1). So gdb is what the process is: of
# its user and group, with its capabilities, and nothing that is root's.
BARE = ("env", "-i", "LC_ALL=C", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/nonexistent",
        "PYTHONNOUSERSITE=1")
# Nor may it stay among the cluster's own processes, where a program of Asterisk's counts as
# one that the cluster has put there (asha.asterisk.process.ours).
IN_GROUP = ("sh", "-c", 'while [ "$1" != -- ]; do echo $$ >"$1" || exit 126; shift; done; '
                        'shift; exec "$@"', "sh")
NOT_IN_GROUP = 126
FORBIDDEN = "ptrace: Operation not permitted"

# timeout(1) where the program is not there.
CANNOT_FIND = 127

# Bytes from the end of a log.
LOG_TAIL = 64 << 10

# Of what the threads do, in the summary.
PLACES_MOST = 8

# To have the console do these is safe on a sick Asterisk: they walk caches, and take none
# of the locks that the probes found held.
# The last is in builds with DEBUG_THREADS only, and then all that a developer wants.
COMMANDS = {
    "taskprocessors.txt": "core show taskprocessors",
    "channels.txt": "core show channels concise",
    "threads.txt": "core show threads",
    "locks.txt": "core show locks",
}
UNKNOWN_COMMAND = "No such command"


class Collector:
    """Collects for one event. ``run`` is the agent's: argv, a cap in seconds."""

    def __init__(
        self,
        process: Process,
        deadline: Deadline,
        run: Callable[..., Completed],
        directory: str = DIRECTORY,
    ) -> None:
        self.process = process
        self.deadline = deadline
        self.run = run
        self.directory = directory
        self.notes: list[str] = []
        self.place = ""

    def collect(
        self,
        reason: str,
        sockets: Sequence[Endpoint],
        console: Console | None,
        logs: Sequence[str],
    ) -> str:
        """Return the event's directory, "" if none could be made. Raises nothing."""
        begun = time.monotonic()
        name = time.strftime("%Y%m%d-%H%M%S") + f"-{self.process.pid}"
        self.place = f"{self.directory}/{name}"
        if not self._keep("the event's directory", self._make):
            return ""
        self._keep("tasks.txt", lambda: _tasks(self.process))
        self._keep("sockets.txt", lambda: _sockets(sockets))
        # What is halted as a whole answers nothing, a frozen one would hold gdb too, and
        # where the threads were says nothing then: the time is the telephones'.
        halted = bool(self.process.tasks_in(STOPPED)) or bool(self.process.frozen_by())
        blocked = {task.tid: task.switches for task in self.process.tasks_in(BLOCKED)}
        if halted:
            self.notes.append("no backtraces, nothing of Asterisk's own: it is halted from outside")
        elif console:
            self._ask(console)
        for log in logs:
            self._keep(f"log-{os.path.basename(log)}.txt", partial(_log, log))
        if not halted:
            self._backtraces(blocked)
        took = time.monotonic() - begun
        self._keep(SUMMARY, lambda: _summary(self.process, self.place, reason, self.notes, took))
        return self.place

    def _make(self) -> str:
        os.makedirs(self.place, mode=0o700)
        return ""

    def _keep(self, name: str, text: Callable[[], str]) -> bool:
        """In a child: the disk that is read or written may be the one that hangs."""
        if self.deadline.expired:
            self.notes.append(f"no {name}: the time for evidence was over")
            return False

        def work() -> str:
            content = text()
            if not content:
                return ""
            with open(f"{self.place}/{name}", "w", encoding="utf-8", errors="replace") as file:
                file.write(content)
            return ""

        try:
            in_child(work, self.deadline.within(LOOK_SECONDS), f"keeping {name}")
        except AgentError as problem:
            self.notes.append(f"no {name}: {problem.reason}")
            return False
        return True

    def _ask(self, console: Console) -> None:
        """All at once, each on its own connection: one that hangs delays no other."""
        deadline = self.deadline.within(CONSOLE_SECONDS)
        answers = side_by_side(
            [_answer(console.answer(deadline, command)) for command in COMMANDS.values()]
        )
        for (file, command), answer in zip(COMMANDS.items(), answers, strict=True):
            if isinstance(answer, Exception):
                self.notes.append(f"no {command}: {answer}")
            elif UNKNOWN_COMMAND not in answer:
                self._keep(file, partial(str, answer))

    def _backtraces(self, blocked: dict[int, str]) -> None:
        """All backtraces by gdb; if that takes too long, those that there are by then.

        ``blocked``: the threads that waited in the kernel before, and how much they had run.
        """
        for task in self.process.tasks_in(BLOCKED):
            if blocked.get(task.tid) == task.switches:
                self.notes.append(f"no backtraces: gdb would wait for {task}, which waits in the "
                                  f"kernel ({task.where})")
                return
        seconds = max(0.1, self.deadline.remaining() - WRITE_SECONDS)
        # When Pacemaker kills this monitor, gdb must not go on holding Asterisk up.
        argv = ["timeout", "--signal=KILL", f"{seconds + TIMEOUT_LATER:.1f}",
                *BARE, *_in_group_of(self.process), *_as_process(self.process),
                "gdb", "-batch", "-nx", "-p", str(self.process.pid), "-iex", "set auto-load off",
                "-iex", "set debuginfod enabled off",
                # Not through the process's mount namespace, which takes more rights.
                "-iex", "set sysroot /", "-ex", "thread apply all bt"]
        try:
            done = self.run(*argv, cap=seconds)
            if done.code == CANNOT_FIND:
                self.notes.append("no backtraces: program gdb is not installed")
                return
            said = done.out + done.err
            if done.code == NOT_IN_GROUP:
                self.notes.append(f"no backtraces: gdb cannot run among what is Asterisk's: "
                                  f"{done.complaint}")
                return
            if FORBIDDEN in said:
                self.notes.append("no backtraces: only root may look into it, and gdb is not "
                                  "run as root: Asterisk was not started with -g, or the "
                                  "kernel forbids it (sysctl kernel.yama.ptrace_scope)")
                return
        except Expired as late:
            said = late.out
            self.notes.append(f"{'not all' if said else 'no'} backtraces: {late.reason}")
        except AgentError as problem:
            self.notes.append(f"no backtraces: {problem.reason}")
            return
        finally:
            # A killed gdb lets go of the process (ptrace(2)), but the SIGSTOP that it
            # had just sent to a thread, to attach to it, then stops all of them (seen).
            self.process.send(signal.SIGCONT)
        self._keep("backtraces.txt", lambda: said)


def note(directory: str, why: str, files: Mapping[str, str], deadline: Deadline) -> str:
    """Keep an event that is no hang: a reason, and files. Its directory, "" if none could be
    made. Raises nothing."""
    place = f"{directory}/{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    summary = f"Kept on {time.strftime('%Y-%m-%d at %H:%M:%S %Z')}.\n\nWhy: {why}\n"

    def work() -> str:
        os.makedirs(place, mode=0o700)
        for name, text in {**files, SUMMARY: summary}.items():
            with open(f"{place}/{name}", "w", encoding="utf-8", errors="replace") as file:
                file.write(text)
        return place

    try:
        return in_child(work, deadline.within(LOOK_SECONDS), f"keeping {place}")
    except AgentError:
        return ""


def _in_group_of(process: Process) -> tuple[str, ...]:
    """A prefix that runs a command in the process's control group, so that it ends with it."""
    files = process.control_group_files() if os.geteuid() == 0 else []
    return (*IN_GROUP, *files, "--") if files else ()


def _as_process(process: Process) -> tuple[str, ...]:
    """A prefix that runs a command with the process's own rights; empty for root's process.

    Not with more, such as the right to look into any process (CAP_SYS_PTRACE): that is as good
    as root. Without it the process must allow a dump of itself, as it does with -g (ptrace(2)).
    """
    if os.geteuid() != 0:
        return ()
    user = next(filter(None, process.users), 0)
    if not user:
        return ()
    # In this order: a process can leave our user namespace, where it has all, and not return.
    group, numbers = process.group, process.capabilities
    here = process.is_in_user_namespace_of(os.getpid()) and not process.gone
    allowed = ",".join(["-all", *(f"+cap_{number}" for number in numbers if here)])
    return ("setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups",
            f"--inh-caps={allowed}", f"--ambient-caps={allowed}", f"--bounding-set={allowed}",
            "--no-new-privs")


def prune(directory: str, events: int, megabytes: int, deadline: Deadline) -> None:
    """Delete the oldest until at most that many are left, and that much. Raises AgentError."""
    in_child(
        lambda: _prune(directory, events, megabytes),
        deadline.within(LOOK_SECONDS),
        f"deleting old events in {directory}",
    )


def _prune(directory: str, events: int, megabytes: int) -> str:
    kept = events_in(directory)
    sizes = {name: _size(f"{directory}/{name}") for name in kept}
    while kept and (len(kept) > events or sum(sizes[n] for n in kept) > megabytes << 20):
        # With what somebody has unpacked in there.
        shutil.rmtree(f"{directory}/{kept.pop(0)}")
    return ""


def events_in(directory: str) -> list[str]:
    """The events' names, oldest first; none without the directory.

    A file is no event: a person may pack an event into a file beside it.
    """
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return []
    return sorted(name for name in names if _is_event(name) and _is_folder(f"{directory}/{name}"))


def _is_event(name: str) -> bool:
    """Whether it can only be an event: a person may keep other things there."""
    parts = name.split("-")  # day, time, process
    return [len(part) for part in parts[:2]] == [8, 6] and len(parts) == 3 and all(
        part.isascii() and part.isdecimal() for part in parts
    )


def _is_folder(path: str) -> bool:
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except OSError:
        return False


def _size(place: str) -> int:
    return sum(os.lstat(f"{place}/{name}").st_size for name in os.listdir(place))


def _answer(conversation: Conversation[str]) -> Conversation[str | Exception]:
    """The answer's text, or why there is none."""
    try:
        return (yield from conversation)
    except (OSError, Silent) as problem:
        return problem


def _tasks(process: Process) -> str:
    parts = []
    for task in process.tasks():
        stack = _tail(f"{task.folder}/stack")
        about = f"{task.tid} {task.name} state {task.state} in {task.where}, ran {task.switches}"
        parts.append(f"{about}\n{stack}")
    return "\n".join(parts)


def _sockets(sockets: Sequence[Endpoint]) -> str:
    lines = [f"{one}: {one.queue} unread" for one in sockets]
    return "\n".join(lines or ["none listens"]) + "\n"


def _log(path: str) -> str:
    """The end of a log: in its directory, and in those below one that is his, Asterisk's user
    puts what he likes."""
    from asha.rootwork import Directory

    try:
        with Directory.trusted(os.path.dirname(path)) as folder:
            return _end_of(folder.open(os.path.basename(path)), path)
    except FileNotFoundError:
        return ""
    except OSError as problem:
        return f"cannot read {path}: {problem.strerror}\n"


def _tail(path: str) -> str:
    """The end of a file of the kernel's."""
    try:
        return _end_of(os.open(path, os.O_RDONLY | os.O_CLOEXEC), path)
    except FileNotFoundError:
        return ""
    except OSError as problem:
        return f"cannot read {path}: {problem.strerror}\n"


def _end_of(descriptor: int, path: str) -> str:
    with open(descriptor, "rb") as file:
        try:
            file.seek(-LOG_TAIL, os.SEEK_END)
        except OSError:
            pass  # shorter, or of no known length
        return file.read(LOG_TAIL).decode("utf-8", "replace")


# What an event may have, as the summary explains it.
FILES = {
    "tasks.txt": "every thread: its state, where it waits, its kernel stack",
    "backtraces.txt": "where each thread is in Asterisk (gdb): two that wait for\n"
                      "                    each other's lock are what the developers need to see",
    "sockets.txt": "what waited unread",
    "taskprocessors.txt": "Asterisk's queues",
    "channels.txt": "its calls",
    "threads.txt": "what it calls its threads",
    "locks.txt": "who holds which lock",
}


def _summary(
    process: Process, folder: str, reason: str, notes: Sequence[str], took: float
) -> str:
    places: dict[str, int] = {}
    for task in process.tasks():
        place = f"in state {task.state}, in the kernel's {task.where}"
        places[place] = places.get(place, 0) + 1
    common = sorted(places.items(), key=lambda place: -place[1])
    frozen_by = process.frozen_by()
    lines = [
        f"Asterisk was found hung on {time.strftime('%Y-%m-%d at %H:%M:%S %Z')}.",
        "",
        f"Why: {reason}",
        f"Process: {process}, {sum(places.values())} threads:",
        *(f"  {count} {place}" for place, count in common[:PLACES_MOST]),
        *([f"It is frozen by its cgroup: {frozen_by}"] if frozen_by else []),
        f"Load of the machine: {_tail('/proc/loadavg').strip()}",
        f"Gathering this took {took:.1f} s; then Pacemaker was told.",
        "",
    ]
    there = sorted(os.listdir(folder))
    lines += [f"{name:<20}{FILES[name]}" for name in FILES if name in there]
    lines += [f"{name:<20}the last lines of that log" for name in there if name.startswith("log-")]
    if notes:
        lines += ["", "Not there:", *(f"  {note}" for note in notes)]
    return "\n".join(lines) + "\n"
