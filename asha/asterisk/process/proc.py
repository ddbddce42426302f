"""Asterisk as the kernel sees it: its processes, their tasks, their sockets.

Source: proc(5). Everything is read anew at each call, and whatever ends between two reads
counts as ended. Only processes of our own PID namespace count: on a host of containers /proc
also shows theirs.
"""

from __future__ import annotations

import os
import stat as modes
from errno import EACCES, ENODEV, ENOENT, ENOTDIR, EPERM, ESRCH

from asha.run.child import in_child, send
from asha.run.deadline import Deadline
from asha.run.results import AgentError, Failed
from asha.run.text import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# States of a task. TRACED is a debugger or core dumper at work, STOPPED a signal.
BLOCKED = "D"
STOPPED = "T"
TRACED = "t"
ENDED = ("Z", "X")

DELETED = " (deleted)"

# Of a process that has given back its memory: it is ending, and has only its name.
NO_PROGRAM = "none"

# Letters of asterisk's options that take an argument, and those that make it a
# console on a running Asterisk (main/asterisk.c, getopt_settings).
WITH_ARGUMENT = "CeGLMsUXx"
CONSOLE = "rRx"
# Print something and end.
SHORT_LIVED = "hV"

# The scheduling policy's place among the fields behind the name, and SCHED_FIFO and
# SCHED_RR (sched.h).
POLICY = 38
REALTIME = (b"1", b"2")

# Shells that start Asterisk again when it ends.
WRAPPER = "safe_asterisk"
SHELLS = ("sh", "dash", "bash")

# Seconds to wait for a command line before it counts as unreadable.
CMDLINE_SECONDS = 0.5

# After so many of one user no more of his are waited for: he could have thousands.
SILENT_MOST = 3

# More than a stat file has: 52 numbers and a name.
LINE_MOST = 2048

# Where control groups are: version 2, alone or beside version 1, and 1's freezer.
CGROUPS = "/sys/fs/cgroup"

# What the kernel says of what has gone meanwhile, and of what we may not see. Anything
# else (no file, no memory left for us) is no sign that somebody has ended.
NOT_THERE = (ENOENT, ESRCH, ENODEV, ENOTDIR, EACCES, EPERM)

NO_GROUP = 65534

# Bytes of a file of the kernel's: a table of all sockets can be so long.
READ_MOST = 1 << 28

# Bytes of a command line: how long it is, its process says (PR_SET_MM of prctl(2)).
CMDLINE_MOST = 1 << 17

# More than a pid file has.
PID_MOST = 10

# Where systemd itself is, below the root of what it manages: systemd.special(7).
INIT_SCOPE = "/init.scope"
# Version 2, or version 1's that is systemd's own.
HIERARCHIES = ("", "name=systemd")

TCP_LISTENING = "0A"
# __SO_ACCEPTCON (<linux/net.h>), SOCK_STREAM.
UNIX_LISTENING = [b"00010000", b"0001"]
LOOPBACK_6 = b"00000000000000000000000000000001 "
WILDCARD = {"0.0.0.0": "127.0.0.1", "::": "::1"}


class Task:
    """One thread of a process, when it was looked at."""

    __slots__ = ("folder", "name", "state", "tid")

    def __init__(self, folder: str, tid: int, name: str, state: str) -> None:
        self.folder = folder
        self.tid = tid
        self.name = name
        self.state = state

    def __str__(self) -> str:
        return f"thread {self.tid} ({printable(self.name)})"

    @property
    def where(self) -> str:
        """The kernel function in which it waits, or "unknown"."""
        text = _read(f"{self.folder}/wchan").decode("ascii", "replace").strip()
        return text if text not in ("", "0") else "unknown"

    @property
    def switches(self) -> str:
        """Changes whenever the task runs: two equal values mean that it stood still."""
        return " ".join(
            value for key, value in _status(self.folder).items() if key.endswith("ctxt_switches")
        )

    @property
    def is_realtime(self) -> bool:
        """Whether it has priority over every ordinary process. Source: proc(5), field 41."""
        fields = _read_line(f"{self.folder}/stat").rpartition(b") ")[2].split()
        return len(fields) > POLICY and fields[POLICY] in REALTIME

    @property
    def tracer(self) -> int:
        """The pid of the debugger that holds it, or 0."""
        text = _status(self.folder).get("TracerPid", "0")
        return int(text) if text.isdecimal() else 0


class Endpoint:
    """A socket on which Asterisk receives: where, and what waits unread."""

    __slots__ = ("address", "bound", "file", "inode", "port", "protocol", "queue")

    def __init__(self, protocol: str, bound: str, port: int, queue: int, inode: str) -> None:
        self.protocol = protocol
        self.bound = bound
        self.address = WILDCARD.get(bound, bound)
        self.port = port
        self.queue = queue
        self.inode = inode
        # Its place among the open files of who listens there, in /proc.
        self.file = ""

    @property
    def is_held(self) -> bool:
        """Whether the process in which it was found still has it open.

        A listening socket ends only when it is closed, and until then no other gets what is
        sent to its port. Costs a thousandth of a look at all sockets.
        """
        try:
            return os.readlink(self.file) == f"socket:[{self.inode}]"
        except OSError:
            return False

    def __str__(self) -> str:
        return f"{self.protocol.upper()} {self.address} port {self.port}"


class Process:
    """A process, distinguished from a later one with the same pid."""

    __slots__ = ("_tables", "folder", "name", "parent", "pid", "root", "session", "started")

    def __init__(self, root: str, pid: int, stat: tuple[str, str, int, int, str]) -> None:
        self.root = root
        self.pid = pid
        self.folder = f"{root}/{pid}"
        # All sockets there are, as they were last read, by protocol.
        self._tables: dict[str, bytes] = {}
        self.name, _, self.parent, self.session, self.started = stat

    def __str__(self) -> str:
        return f"{printable(self.name)} ({self.pid})"

    def send(self, number: int) -> None:
        """Signal this very process. It is no error if it is gone. Raises PermissionError."""
        send(self.pid, self.started, number)

    @property
    def users(self) -> tuple[int, ...]:
        """Its real, effective, saved and file system user; none if it is gone.

        Not the owner of its folder: that is root for one that may not be dumped (proc(5)).
        """
        words = _status(self.folder).get("Uid", "").split()
        return tuple(int(word) for word in words if word.isdecimal())

    @property
    def group(self) -> int:
        """Its real group; nogroup (base-passwd's) if it is gone."""
        words = _status(self.folder).get("Gid", "").split()
        return int(words[0]) if words and words[0].isdecimal() else NO_GROUP

    @property
    def capabilities(self) -> list[int]:
        """Its capabilities in its own user namespace: numbers of capabilities(7)."""
        bits = int(_status(self.folder).get("CapPrm", "0"), 16)
        return [number for number in range(bits.bit_length()) if bits >> number & 1]

    def is_in_user_namespace_of(self, pid: int) -> bool:
        try:
            return os.path.samestat(os.stat(f"{self.folder}/ns/user"),
                                    os.stat(f"{self.root}/{pid}/ns/user"))
        except OSError:
            return False

    @property
    def control_groups(self) -> dict[str, str]:
        """Its path by hierarchy, "" being version 2's: cgroups(7), /proc/PID/cgroup."""
        text = _read(f"{self.folder}/cgroup").decode("utf-8", "replace")
        lines = [line.partition(":")[2].partition(":") for line in text.splitlines()]
        return {hierarchy: path for hierarchy, _, path in lines}

    def control_group_files(self) -> list[str]:
        """The files into which a process writes its pid to enter this one's control group:
        those that systemd watches. Empty for the topmost, or if it cannot be seen from here."""
        found = []
        for hierarchy, roots in ("", ("", "/unified")), ("name=systemd", ("/systemd",)):
            path = self.control_groups.get(hierarchy, "")
            if path not in ("", "/") and not path.startswith("/.."):
                files = [f"{CGROUPS}{root}{path}/cgroup.procs" for root in roots]
                found += [file for file in files if os.path.exists(file)]
        return found

    @property
    def identity(self) -> str:
        return f"{self.pid} {self.started}"

    @property
    def state(self) -> str:
        """The leader's state; "X" if the process is gone."""
        stat = _stat(self.folder)
        return stat[1] if stat and stat[-1] == self.started else ENDED[1]

    @property
    def gone(self) -> bool:
        """Whether nothing of it can run any more. An unreaped leader alone is gone."""
        state = self.state
        if state not in ENDED:
            return False
        return state == ENDED[1] or not self.living_tasks()

    def tasks(self) -> list[Task]:
        """All of its threads as they are now."""
        return self._tasks(lambda state: True)

    def living_tasks(self) -> list[Task]:
        return self._tasks(lambda state: state not in ENDED)

    def tasks_in(self, *states: str) -> list[Task]:
        return self._tasks(lambda state: state in states)

    def _tasks(self, wanted: Callable[[str], bool]) -> list[Task]:
        # Each shallow monitor comes here, and 300 calls are a thousand threads: so
        # only what is wanted is taken apart.
        found = []
        folder = f"{self.folder}/task"
        for entry in _listdir(folder):
            place = f"{folder}/{entry}"
            text = _read_line(f"{place}/stat")
            end = text.rfind(b") ")
            state = chr(text[end + 2]) if end > 0 else ENDED[1]
            if text and wanted(state):
                name = text[text.find(b"(") + 1 : end].decode("utf-8", "replace")
                found.append(Task(place, int(entry), name, state))
        return found

    def files(self) -> tuple[int, int]:
        """How many files it has open, and how many it may have; the latter 0 if unknown."""
        limit = 0
        for line in _read(f"{self.folder}/limits").decode("ascii", "replace").splitlines():
            if line.startswith("Max open files"):
                soft = line.split()[3]
                limit = int(soft) if soft.isdecimal() else 0
        return len(_listdir(f"{self.folder}/fd")), limit

    def open_file(self, ending: str) -> str:
        """The path of a file that it has open, by the end of the path; "" if there is none."""
        folder = f"{self.folder}/fd"
        for entry in _listdir(folder):
            try:
                target = os.readlink(f"{folder}/{entry}")
            except OSError:
                continue
            if target.endswith(ending):
                return target
        return ""

    def cpu_times(self) -> dict[int, tuple[int, int]]:
        """For each thread: nanoseconds on a processor, and of waiting for one.

        Source: the kernel's Documentation/scheduler/sched-stats.rst, /proc/PID/schedstat.
        """
        found = {}
        folder = f"{self.folder}/task"
        for entry in _listdir(folder):
            words = _read_line(f"{folder}/{entry}/schedstat").split()
            if len(words) >= 2:
                found[int(entry)] = (int(words[0]), int(words[1]))
        return found

    def frozen_by(self) -> str:
        """The file by which its control group is frozen; "" if it is not.

        Version 2 (the kernel's cgroup-v2.rst, cgroup.events) shows the threads of a frozen
        group as sleeping, and lets SIGKILL through; version 1 (freezer-subsystem.rst) shows
        them in D, and holds every signal until it is thawed.
        """
        for line in _read(f"{self.folder}/cgroup").decode("utf-8", "replace").splitlines():
            number, _, rest = line.partition(":")
            controllers, _, path = rest.partition(":")
            if number == "0":
                for root in (CGROUPS, f"{CGROUPS}/unified"):
                    if b"frozen 1" in _read(f"{root}{path}/cgroup.events").split(b"\n"):
                        return f"{root}{path}/cgroup.freeze"
            elif "freezer" in controllers.split(","):
                file = f"{CGROUPS}/freezer{path}/freezer.state"
                if _read(file).strip() in (b"FROZEN", b"FREEZING"):
                    return file
        return ""

    def thaw(self) -> None:
        """Take it out of a version 1 freezer, in which not even SIGKILL reaches it."""
        file = self.frozen_by()
        if not file.endswith("/freezer.state"):
            return
        try:
            with open(file, "w", encoding="ascii") as state:
                state.write("THAWED")
        except OSError:
            pass  # it is found alive then, and named

    @property
    def is_dumping_core(self) -> bool:
        return _status(self.folder).get("CoreDumping") == "1"

    def listens_at(self) -> dict[str, str]:
        """By inode, the names of the Unix sockets on which it listens, as it has bound them."""
        bound = {}
        for line in _read(f"{self.folder}/net/unix").split(b"\n")[1:]:
            # Num, RefCount, Protocol, Flags, Type, St, Inode, Path: unix(7), proc(5). Who
            # binds one to a name with a line's end forges a line: ask who is there.
            fields = line.split(None, 7)
            if len(fields) == 8 and fields[3:5] == UNIX_LISTENING and fields[7][:1] == b"/":
                bound[fields[6].decode("ascii", "replace")] = os.fsdecode(fields[7])
        return {inode: bound[inode] for inode in self.sockets(set(bound))}

    def listening_still(self, port: int) -> list[Endpoint]:
        """Like listening() for TCP, but from what was read a moment ago where that has them.

        Reading the kernel's table of sockets is half of what a monitor costs. That they are
        open here is checked anew.
        """
        return self.listening(port, ("tcp",), anew=False) or self.listening(port, ("tcp",))

    def listening(
        self, port: int, protocols: tuple[str, ...], *, anew: bool = True
    ) -> list[Endpoint]:
        """Its own sockets that are bound to ``port``; protocols are tcp and udp."""
        found = self.bound(port, protocols, anew=anew)
        if not found:
            return []
        own = self.sockets(set(found))
        for inode, file in own.items():
            found[inode].file = file
        return [endpoint for endpoint in found.values() if endpoint.file]

    def bound(
        self, port: int, protocols: tuple[str, ...], *, anew: bool = True
    ) -> dict[str, Endpoint]:
        """By inode, everybody's sockets of its network that are bound to ``port``."""
        if anew:
            self._tables.clear()
        found: dict[str, Endpoint] = {}
        for protocol in protocols:
            for endpoint in self._bound(port, protocol):
                found.setdefault(endpoint.inode, endpoint)
        return found

    def _bound(self, port: int, protocol: str) -> Iterator[Endpoint]:
        mark = f":{port:04X} ".encode()
        for suffix in ("", "6"):
            place = f"{self.folder}/net/{protocol}{suffix}"
            table = self._tables.get(place)
            if table is None:
                table = self._tables[place] = _read(place)
            for line in table.split(b"\n")[1:]:
                if mark not in line:
                    continue
                fields = line.decode("ascii", "replace").split()
                local, state, queues, inode = fields[1], fields[3], fields[4], fields[9]
                address, _, number = local.rpartition(":")
                if int(number, 16) != port:
                    continue
                if protocol == "tcp" and state != TCP_LISTENING:
                    continue
                queue = int(queues.partition(":")[2], 16)
                endpoint = Endpoint(protocol, _address(address), port, queue, inode)
                if endpoint.bound == "::" and not self._has_ipv6():
                    # Such a socket takes IPv4 too, unless it was told not to.
                    endpoint.address = WILDCARD["0.0.0.0"]
                yield endpoint

    def _has_ipv6(self) -> bool:
        """Whether ::1 can be asked, and IPv6 is not switched off by sysctl."""
        return LOOPBACK_6 in _read(f"{self.folder}/net/if_inet6")

    def inodes(self, protocol: str) -> set[str]:
        """Of all sockets of its network, anybody's; ``protocol`` is tcp or udp."""
        lines = (line for suffix in ("", "6")
                 for line in _read(f"{self.folder}/net/{protocol}{suffix}").split(b"\n")[1:])
        return {fields[9].decode() for line in lines if len(fields := line.split()) > 9}

    def sockets(self, wanted: set[str]) -> dict[str, str]:
        """The inodes of ``wanted`` that it has open, and the file of each in /proc."""
        folder = f"{self.folder}/fd"
        open_here = {}
        for entry in _listdir(folder):
            try:
                target = os.readlink(f"{folder}/{entry}")
            except OSError:
                continue
            if target.startswith("socket:[") and target[8:-1] in wanted:
                open_here[target[8:-1]] = f"{folder}/{entry}"
                if len(open_here) == len(wanted):
                    break
        return open_here


class Proc:
    """All processes. ``root`` is where the proc file system is mounted."""

    def __init__(self, root: str = "/proc") -> None:
        self.root = root
        self._command_lines: dict[tuple[str, str], list[str]] = {}
        # Of whom a command line did not come.
        self._silent: list[tuple[int, ...]] = []
        self._top: tuple[str, str] | None = None

    def process(self, pid: int) -> Process | None:
        """The process with this pid, whether it is Asterisk or not."""
        stat = _stat(f"{self.root}/{pid}")
        return Process(self.root, pid, stat) if stat else None

    def pid_in(self, path: str) -> int:
        """The pid in a pid file; 0 for none."""
        text = _read_pid(path)
        return int(text) if text.isdigit() else 0

    def from_pid_file(self, path: str, binary: str) -> Process | None:
        """The Asterisk that the file names; None if the pid is another program's.

        The user that runs Asterisk writes the file: whose process it is has to be checked.
        """
        process = self.process(self.pid_in(path))
        return process if process is not None and self.runs(process, binary) else None

    def runs(self, process: Process, binary: str) -> bool:
        """Whether it runs a program of that name, or did until its end."""
        program = self._program(process.pid)
        name = process.name if program == NO_PROGRAM else os.path.basename(program)
        return name == os.path.basename(binary)

    def daemons(
        self, binary: str, counts: Callable[[Process], bool] = lambda process: True
    ) -> list[Process]:
        """Every Asterisk that runs this program, without its consoles: anybody's, unless
        ``counts`` chooses."""
        wanted = os.path.realpath(binary)
        name = os.path.basename(wanted)
        found = []
        for process in self.all():
            program = self._program(process.pid)
            if program == wanted:
                # Who counts first: a stranger's command line may take its time.
                if counts(process) and not self.is_console(process):
                    found.append(process)
            elif program == NO_PROGRAM and process.name == name and counts(process):
                # On its way out, and perhaps for ever: a dead disk can hold it there.
                found.append(process)
        return [process for process in found if not process.gone]

    def has_program(self, process: Process) -> bool:
        """Whether it still runs one, and is not about to end."""
        return self._program(process.pid) != NO_PROGRAM

    def lock_holders(self, device: int, inode: int) -> list[int]:
        """The PIDs that hold a lock on this file. Source: proc(5), /proc/locks."""
        wanted = f"{os.major(device):02x}:{os.minor(device):02x}:{inode}"
        found = []
        for line in _read(f"{self.root}/locks").decode("ascii", "replace").splitlines():
            words = line.split()
            # "->" marks one that only waits.
            if wanted in words and "->" not in words:
                pid = words[words.index(wanted) - 1]
                found += [int(pid)] if pid.isdecimal() else []
        return found

    def wrappers(self, counts: Callable[[Process], bool]) -> list[Process]:
        """The shells that would start Asterisk again, of those that count."""
        return [process for process in self.all() if self._is_wrapper(process, counts)]

    def members(self, unit: str) -> list[Process]:
        """Everything in the control group of a systemd unit, of any PID namespace."""
        return [process for process in self.all(everywhere=True) if self.is_in(process, unit)]

    def is_in(self, process: Process, unit: str) -> bool:
        """Whether it is in the control group of this unit, or below it.

        A unit of the system's: above it are only slices. Each user has a systemd of his own,
        and a service may make groups below its own; both choose their names freely.
        """
        return unit in units_of(self.place(process))

    def place(self, process: Process) -> str:
        """Its control group below what our systemd manages; "" if there is none.

        "/.." begins the group of a process from outside of our cgroup namespace.
        """
        hierarchy, top = self._where_systemd_is()
        path = process.control_groups.get(hierarchy, "")
        return path[len(top) :] if path.startswith(f"{top}/") else path

    def _where_systemd_is(self) -> tuple[str, str]:
        """The hierarchy in which systemd has its units, and below which path."""
        if self._top is None:
            init = self.process(1)
            groups = init.control_groups if init is not None else {}
            self._top = "", ""
            # In both where both are mounted; only version 2 tells where a dead one was.
            for hierarchy in HIERARCHIES:
                path = groups.get(hierarchy, "")
                if path.endswith(INIT_SCOPE):
                    self._top = hierarchy, path[: -len(INIT_SCOPE)]
                    break
        return self._top

    def descendants(self, ancestors: list[Process]) -> list[Process]:
        """Children, their children and so on, without the ancestors.

        Also those whose parents have ended, while they are in a session that one of the
        ancestors leads: a daemon leads its own, which a process leaves only if it asks to
        (setsid(2)).
        """
        everything = list(self.all(everywhere=True))
        now = {process.pid: process.identity for process in everything}
        # The number of one that has ended may be another's by now.
        true = [one for one in ancestors if now.get(one.pid, one.identity) == one.identity]
        sessions = {process.pid for process in true if process.session == process.pid}
        family = {process.pid for process in true}
        found = [one for one in everything if one.session in sessions and one.pid not in family]
        family |= {process.pid for process in found}
        while True:
            new = [one for one in everything if one.parent in family and one.pid not in family]
            if not new:
                return found
            found += new
            family |= {process.pid for process in new}

    def all(self, *, everywhere: bool = False) -> Iterator[Process]:
        """Those of our PID namespace, or also of those below it: a container's, and what
        anybody may make (unshare(1))."""
        space = self._namespace("self")
        for entry in _listdir(self.root):
            if entry.isdecimal():
                process = self.process(int(entry))
                if process is not None and (everywhere or self._namespace(entry) in (space, "")):
                    yield process

    def _namespace(self, pid: str) -> str:
        """The PID namespace; "" if we may not look, or the process is dead."""
        try:
            return os.readlink(f"{self.root}/{pid}/ns/pid")
        except OSError:
            return ""

    def _program(self, pid: int) -> str:
        """The program's path, also of one that an upgrade has replaced."""
        try:
            path = os.readlink(f"{self.root}/{pid}/exe")
        except (FileNotFoundError, ProcessLookupError):
            return NO_PROGRAM
        except OSError:
            return ""  # we may not look
        return path[: -len(DELETED)] if path.endswith(DELETED) else path

    def _is_wrapper(self, process: Process, counts: Callable[[Process], bool]) -> bool:
        if process.name != WRAPPER and process.name not in SHELLS:
            return False
        # Who counts first: a stranger's command line may take its time.
        if not counts(process):
            return False
        # As "safe_asterisk", or as "sh /usr/sbin/safe_asterisk".
        words = [process.name, *self._words(process)[:2]]
        return any(os.path.basename(word) == WRAPPER for word in words)

    def _words(self, process: Process) -> list[str]:
        """The command line; empty if the kernel does not give it in time.

        In a child: reading it waits for the process's memory map, without end if one of its
        threads holds that while a disk hangs.
        """
        # With the name, which changes when a shell becomes another program.
        known = (process.identity, process.name)
        if known not in self._command_lines and self._silent.count(process.users) >= SILENT_MOST:
            return [""]
        if known not in self._command_lines:
            path = f"{self.root}/{process.pid}/cmdline"
            try:
                text = in_child(
                    lambda: _read(path, CMDLINE_MOST).decode("utf-8", "replace"),
                    Deadline(CMDLINE_SECONDS),
                    f"reading {path}",
                )
            except AgentError:
                text = ""
                self._silent.append(process.users)
            self._command_lines[known] = text.split("\0")
        return self._command_lines[known]

    def is_console(self, process: Process) -> bool:
        """Whether it only talks to a running Asterisk, or prints something and ends."""
        words = self._words(process)
        if os.path.basename(words[0]).startswith("r"):
            return True  # rasterisk is a link to asterisk
        skip = False
        for word in words[1:]:
            if skip or not word.startswith("-"):
                skip = False
                continue
            for position, letter in enumerate(word[1:], 2):
                if letter in CONSOLE or letter in SHORT_LIVED:
                    return True
                if letter in WITH_ARGUMENT:
                    skip = position == len(word)
                    break
        return False


def _read(path: str, most: int = READ_MOST) -> bytes:
    """A whole file of proc, up to ``most`` bytes; b"" if it is gone.

    Not by open(): that costs three times as much, and one look reads a hundred files.
    """
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as problem:
        return _nothing(problem, path)
    try:
        parts = []
        while most > 0 and (part := os.read(file, 65536)):
            parts.append(part)
            most -= len(part)
        return b"".join(parts)
    except OSError as problem:
        return _nothing(problem, path)
    finally:
        os.close(file)


def _read_line(path: str) -> bytes:
    """A short file of proc in one read, b"" if it is gone."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as problem:
        return _nothing(problem, path)
    try:
        return os.read(file, LINE_MOST)
    except OSError as problem:
        return _nothing(problem, path)
    finally:
        os.close(file)


def _nothing(problem: OSError, path: str) -> bytes:
    """Raises Failed if nothing was read though something may be there: otherwise a stop would
    believe that what it cannot see is gone."""
    if problem.errno not in NOT_THERE:
        raise Failed(f"cannot read {path}: {problem.strerror}") from None
    return b""


def _read_pid(path: str) -> bytes:
    """The contents of a pid file, b"" if it cannot be one: Asterisk's user may put anything
    there."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return b""  # ELOOP for a link; those that run are found without it
    try:
        if not modes.S_ISREG(os.fstat(file).st_mode):
            return b""
        text = os.read(file, LINE_MOST).strip()
        return text if len(text) <= PID_MOST else b""
    except OSError:
        return b""
    finally:
        os.close(file)


def _stat(folder: str) -> tuple[str, str, int, int, str] | None:
    """Name, state, parent, session and start time (in ticks since boot) of a task."""
    text = _read_line(f"{folder}/stat").decode("utf-8", "replace")
    # The name is in parentheses and may itself contain any character.
    name, bracket, rest = text.partition("(")[2].rpartition(")")
    fields = rest.split(None, 20)
    if not bracket or len(fields) < 20:
        return None
    return name, fields[0], int(fields[1]), int(fields[3]), fields[19]


def units_of(place: str) -> list[str]:
    """The slices in which a control group is, and the unit below them."""
    found = []
    for part in place.strip("/").split("/"):
        found.append(part)
        if not part.endswith(".slice"):
            break
    return found


def _status(folder: str) -> dict[str, str]:
    text = _read(f"{folder}/status").decode("utf-8", "replace")
    pairs = [line.split(":", 1) for line in text.splitlines() if ":" in line]
    return {key: value.strip() for key, value in pairs}


def _listdir(path: str) -> list[str]:
    try:
        return os.listdir(path)
    except OSError as problem:
        _nothing(problem, path)
        return []


def _address(text: str) -> str:
    """The kernel prints each 32-bit word of an address in the host's byte order."""
    import sys
    from _socket import AF_INET, AF_INET6, inet_ntop

    words = [bytes.fromhex(text[start : start + 8]) for start in range(0, len(text), 8)]
    if sys.byteorder == "little":
        words = [word[::-1] for word in words]
    packed = b"".join(words)
    return inet_ntop(AF_INET if len(packed) == 4 else AF_INET6, packed)
