"""Starts Asterisk and cleans up after it: by its systemd unit, or directly.

Its processes are not ended here: that is the same either way, and must work when systemd does
not.
"""

from __future__ import annotations

import os
import stat

from asha.asterisk.process.ours import NO_ACCOUNT
from asha.run.child import in_child
from asha.run.results import AgentError, Expired, Failed, NotInstalled

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from asha.asterisk.process.proc import Proc, Process
    from asha.ocf.agent import Agent
    from asha.run.deadline import Deadline

# There while systemd is PID 1: sd_booted(3).
SYSTEMD_RUNS = "run/systemd/system"

# Where systemd looks, first wins: systemd.unit(5), system unit search path.
UNIT_FOLDERS = (
    "etc/systemd/system.control",
    "run/systemd/system.control",
    "run/systemd/transient",
    "run/systemd/generator.early",
    "etc/systemd/system",
    "run/systemd/system",
    "run/systemd/generator",
    "usr/local/lib/systemd/system",
    "usr/lib/systemd/system",
    "lib/systemd/system",
    "run/systemd/generator.late",
)

# Of the C library's resolver (resolv.conf(5), RES_OPTIONS): by default a server that is
# silent costs 10 s for each name, in which Asterisk does not start, or a thread of it
# does nothing else. Two tries of a second each are enough for a server that lives.
PATIENCE_WITH_DNS = "timeout:1 attempts:2"

# In /run, because only the node of a running cluster needs it. It stays when
# Asterisk is stopped: the next start would have to reload systemd for it, a fifth
# of a second of a fail-over.
DROP_IN = """\
# Written by ocf:asha:asterisk-health; gone at the next boot.
[Unit]
# At shutdown systemd stops units in the reverse order: Pacemaker first, which moves
# the PBX to the other node, and this unit only when it is no longer its business.
Before=pacemaker.service
# Pacemaker counts failures itself (migration-threshold).
StartLimitIntervalSec=0
# And learns of a death at once, not from the next monitor.
OnFailure=asha-asterisk-died@{resource}.service
[Service]
# Two that restart Asterisk would sooner or later start two of them.
Restart=no
# A name server that is silent must not keep the telephones waiting.
Environment="RES_OPTIONS={dns}"
"""

# Beside it, for a start with the files that served last. Nothing has to be undone: the
# mount is in the namespace of Asterisk's processes, and gone with them. Read-only, so that
# nobody can change what was kept. By a link, which systemd follows and a stop removes, without
# the time of a daemon-reload. "-": without the link, or on a node without the store, Asterisk
# starts with the files that are there.
KEPT_DROP_IN = """\
# Written by ocf:asha:asterisk-health; gone at the next boot, or start with today's files.
[Service]
BindReadOnlyPaths=-{link}:{place}
"""
# The same without a unit: $1 on $2, then the rest is what is run.
WITH_FILES = (
    *("unshare", "--mount", "--propagation=slave", "--", "sh", "-c",
      'mount --bind "$1" "$2" && mount -o remount,bind,ro,nosuid,nodev "$2" && '
      'shift 2 && exec "$@"', "sh"),
)
ETC = "/etc/asterisk"
KEPT_LINK = "run/asha-last-good"

# systemd's word for a unit's result, and what it comes from here. Said beside Asterisk's
# last words: those are of the process that was left, and need not have to do with it.
RESULTS = {"protocol": "it has left its unit's process: is alwaysfork on in asterisk.conf?"}

# Of a process that has ended: sigaction(2), si_code; and systemd's words for it.
CODES = {1: "exited", 2: "killed", 3: "dumped"}

# systemd's words for the jobs that leave a unit running: systemctl(1), list-jobs. A restart
# is called start from the moment on when the old one has ended.
STARTING_JOBS = ("start", "restart", "try-restart")

# Seconds that one call of systemctl may take. It only passes a request on.
SYSTEMCTL_MOST = 5.0

# Seconds for the journal to take in what was said: it writes to the node's own disk for that.
SYNC_MOST = 1.0

# Seconds for the accounts of this node, and for the end of a log.
ACCOUNT_SECONDS = 5.0
LOG_SECONDS = 2.0

# systemd's words for a unit whose main process has ended.
AT_REST = ("inactive", "failed", "deactivating")

# Seconds between two looks at a unit that comes to rest.
SETTLE_EVERY = 0.02

# Where Asterisk says why it ended when it has no journal (logger.conf).
LOGS = ("var/log/asterisk/messages.log", "var/log/asterisk/messages", "var/log/asterisk/full")
TAIL_BYTES = 4096

# What Asterisk says on many a healthy machine too.
NOISE = ("declined to load", "seeding global EID")


class Launcher:
    """How Asterisk is started on this node."""

    # The unit or slice in whose control group all is that launch() starts; "" for none.
    control_group = ""

    def main(self) -> int | None:
        """The process that systemd takes for Asterisk; None if it does not know, 0 if it has
        ended and only leftovers are in its group."""
        return None

    def validate(self) -> None:
        """Raises NotInstalled for what this node lacks."""

    def warning(self) -> str:
        """What is wrong with the set-up and prevents nothing, or ""."""
        return ""

    def is_reloading(self) -> bool:
        """Whether Asterisk has said that it is reading its configuration again."""
        return False

    def is_ready(self, process: Process) -> bool:
        """Whether this Asterisk has told somebody else than us that it has loaded its modules."""
        return False

    def is_being_started(self) -> bool:
        """Whether somebody's start or restart is under way. An action of ours that starts
        Asterisk waits for it, so another action only ever sees a stranger's."""
        return False

    def use(self, files: str) -> None:
        """Have the next launch() give Asterisk this directory as its /etc/asterisk, read-only;
        "" for what is there. Raises Failed."""
        raise NotImplementedError

    def launch(self) -> None:
        """Request a start; does not wait for Asterisk to be ready.

        Raises AgentError if that is refused.
        """
        raise NotImplementedError

    def while_it_loads(self) -> None:
        """What can be done while Asterisk loads its modules."""

    def verdict_on_death(self) -> str | None:
        """Why there is no process after launch(), or None if one may still come."""
        raise NotImplementedError

    def last_end(self) -> dict[str, str]:
        """How it has ended, in the words in which systemd tells that (deaths.count)."""
        return {}

    def family(self, ancestors: list[Process]) -> list[Process]:
        """What these processes, which may have ended, have started and must end with Asterisk."""
        raise NotImplementedError

    def settle(self) -> None:
        """After the last process is gone: make sure that nothing starts another.

        Raises Failed if something still may.
        """


class Direct(Launcher):
    """Asterisk is started as a child that turns itself into a daemon."""

    def __init__(
        self, agent: Agent, proc: Proc, binary: str, user: str, group: str, root: str = "/"
    ) -> None:
        self.agent = agent
        self.proc = proc
        self.binary = binary
        self.user = user
        self.group = group
        self.root = root
        # A slice and not a scope of a fixed name: a new scope would have to wait until
        # systemd has forgotten the last. "-" in its name would make one below another.
        if os.path.isdir(os.path.join(root, SYSTEMD_RUNS)):
            self.control_group = f"asha-{agent.instance.replace('-', '_')}.slice"
        self._began = 0.0
        self._files = ""

    def use(self, files: str) -> None:
        self._files = files

    def validate(self) -> None:
        # In a child: a directory service (LDAP) may not answer.
        in_child(
            lambda: _check_accounts(self.user, self.group),
            self.agent.deadline.within(ACCOUNT_SECONDS),
            f"looking up user {self.user} and group {self.group}",
        )

    def launch(self) -> None:
        from time import time

        self._began = time()
        # Nothing of ours: neither the cluster's variables nor the action's lock,
        # which Asterisk would hold for as long as it lives.
        done = self.agent.runner.run(
            # -g: leave a core when it crashes, as Debian's unit has it.
            (*self._in_group(), *self._with_files(),
             self.binary, "-g", "-U", self.user, "-G", self.group),
            self.agent.deadline,
            environ={
                "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
                "RES_OPTIONS": PATIENCE_WITH_DNS,
            },
            share_lock=False,
            leave=self._is_there,
        )
        if not done.ok:
            raise Failed(f"{self.binary} did not start: {done.complaint}")

    def _is_there(self) -> bool:
        """Whether it runs and stays in the foreground: Asterisk's user may have chosen that
        (nofork and console in asterisk.conf)."""
        if not self.control_group:
            return bool(self.proc.daemons(self.binary))
        return any(self.proc.runs(one, self.binary) and not one.gone
                   for one in self.proc.members(self.control_group))

    def _in_group(self) -> tuple[str, ...]:
        """A prefix that puts a command into a control group of its own: whatever Asterisk
        starts stays in it, also what leaves its session and its parents."""
        if not self.control_group:
            return ()
        return (
            *("systemd-run", "--quiet", "--scope", "--collect", f"--slice={self.control_group}"),
            # As in DROP_IN.
            *("--property=Before=pacemaker.service", "--"),
        )

    def _with_files(self) -> tuple[str, ...]:
        return (*WITH_FILES, self._files, ETC) if self._files else ()

    def verdict_on_death(self) -> str | None:
        # launch() returned when Asterisk had become a daemon.
        # As a daemon it says nothing on a terminal.
        advice = f"without a word in its log; {self.binary} -f -U {self.user} shows why"
        try:
            # In a child: the logs are on the store, whose disk may not answer.
            error = in_child(
                self._last_error,
                self.agent.deadline.within(LOG_SECONDS),
                "reading Asterisk's log",
            )
        except AgentError as problem:
            return problem.reason
        return error or advice

    def family(self, ancestors: list[Process]) -> list[Process]:
        members = self.proc.members(self.control_group) if self.control_group else []
        return members + self.proc.descendants(ancestors)

    def settle(self) -> None:
        if self.control_group:
            return
        # Nothing tells whose child it was. Who holds the store ends with that.
        try:
            account = account_number(self.user, self.agent.deadline)
        except AgentError as problem:
            self.agent.warn(problem.reason)
            return
        orphans = [str(one) for one in self.proc.all(everywhere=True)
                   if one.parent == 1 and account in one.users and not one.gone]
        if orphans:
            self.agent.warn(
                f"without systemd nothing tells whether Asterisk has started these of user "
                f"{self.user}, which still run: {', '.join(orphans)}"
            )

    def _last_error(self) -> str:
        for name in LOGS:
            path = os.path.join(self.root, name)
            try:
                # Asterisk's user may put what he likes where its logs are.
                file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
                with open(file, "rb") as log:
                    about = os.fstat(file)
                    if not stat.S_ISREG(about.st_mode) or about.st_mtime < self._began:
                        continue
                    log.seek(max(0, about.st_size - TAIL_BYTES))
                    # No more, also when somebody goes on writing.
                    text = log.read(TAIL_BYTES).decode("utf-8", "replace")
            except OSError:
                continue
            line = telling_line(text.splitlines())
            if line:
                return f"{line} ({path})"
        return ""


class SystemdUnit(Launcher):
    """Asterisk is started and known by systemd, whose own restarts are switched off."""

    def __init__(self, agent: Agent, proc: Proc, name: str, root: str = "/") -> None:
        self.agent = agent
        self.proc = proc
        self.name = self.control_group = name
        self.root = root
        self.folder = os.path.join(root, f"run/systemd/system/{name}.d")
        self.drop_in = f"{self.folder}/50-asha.conf"
        self.kept_drop_in = f"{self.folder}/60-asha-last-good.conf"
        self.kept_link = os.path.join(root, KEPT_LINK)
        self.drop_in_text = DROP_IN.format(resource=agent.instance, dns=PATIENCE_WITH_DNS)

    def warning(self) -> str:
        if starts_at_boot(self.name, self.root):
            return (
                f"{self.name} is enabled, so a boot starts a second Asterisk beside the "
                f"cluster's: systemctl disable {self.name}"
            )
        return ""

    def main(self) -> int | None:
        try:
            known = self._show("MainPID", "ActiveState")
        except AgentError:
            return None
        number = known["MainPID"]
        if number.isdecimal() and int(number):
            return int(number)
        # A start script of System V leaves none behind, and a unit that is active.
        return 0 if known["ActiveState"] in AT_REST else None

    def is_reloading(self) -> bool:
        # Asterisk says RELOADING=1 and READY=1 to systemd (main/loader.c,
        # ast_module_reload; units of Type=notify).
        try:
            return self._show("ActiveState")["ActiveState"] == "reloading"
        except AgentError:
            return False

    def is_ready(self, process: Process) -> bool:
        # READY=1, said by its main process only (NotifyAccess= of systemd.service(5)).
        try:
            known = self._show("Type", "MainPID", "ActiveState")
        except AgentError:
            return False
        return (
            known["Type"].startswith("notify")
            and known["MainPID"] == str(process.pid)
            and known["ActiveState"] in ("active", "reloading")
        )

    def is_being_started(self) -> bool:
        try:
            done = self.agent.run(
                "systemctl", "list-jobs", "--no-legend", "--plain", self.name, cap=SYSTEMCTL_MOST
            )
        except AgentError:
            return False
        # A job's number, its unit, its type, its state.
        jobs = [line.split() for line in done.out.splitlines()]
        return done.ok and any(
            len(job) >= 3 and job[1] == self.name and job[2] in STARTING_JOBS for job in jobs
        )

    def use(self, files: str) -> None:
        before = _text(self.kept_drop_in)
        try:
            _link(self.kept_link, files)
            if not files:
                # Without the link it counts for nothing: while_it_loads() reloads for it.
                _replace(self.kept_drop_in, "")
                return
            _replace(self.kept_drop_in, KEPT_DROP_IN.format(link=self.kept_link, place=ETC))
            complaint = self._systemctl("daemon-reload")
            if complaint is None:
                return
            # Or the next start would not see that systemd has still the old one.
            _replace(self.kept_drop_in, before)
        except OSError as problem:
            complaint = (f"cannot write {problem.filename2 or problem.filename}: "
                         f"{problem.strerror}")
        raise Failed(f"systemd does not take other files for {self.name}: {complaint}")

    def launch(self) -> None:
        self._write_drop_in()
        # Not start: systemd may not have noticed yet that the last one was killed,
        # and would have nothing to do. Not waiting, because it would for ever.
        complaint = self._systemctl("restart", "--no-block", self.name)
        if complaint is not None:
            raise Failed(f"systemd does not start {self.name}: {complaint}")

    def while_it_loads(self) -> None:
        self._write_drop_in()
        try:
            known = self._show("DropInPaths", "NeedDaemonReload")
        except AgentError as problem:
            self.agent.warn(problem.reason)
            return
        # A unit that systemd had not in memory was read with its drop-in.
        if self.drop_in in known["DropInPaths"].split() and known["NeedDaemonReload"] == "no":
            return
        complaint = self._systemctl("daemon-reload")
        if complaint is not None:
            self.agent.warn(
                f"systemd did not reload, {self.name} may restart by itself: {complaint}"
            )

    def verdict_on_death(self) -> str | None:
        try:
            state = self._show("ActiveState", "SubState", "Result", "Job")
        except Expired:
            return None  # systemd is slow, which is not Asterisk's death
        waiting = state["Job"] not in ("", "0")
        # "exited" is what remains of a start script of System V.
        ended = state["ActiveState"] == "inactive" or state["SubState"] == "exited"
        # With a job waiting, "failed" is the last run's.
        failed = (state["ActiveState"] == "failed" and not waiting) or (
            state["SubState"] == "auto-restart"
        )
        if not failed and (waiting or not ended):
            return None
        known = RESULTS.get(state["Result"], "")
        words = self._last_words() or ("" if known else f"result {state['Result']}")
        return f"{self.name}: {'; '.join(filter(None, (known, words)))}"

    def last_end(self) -> dict[str, str]:
        from signal import Signals

        try:
            known = self._show("ExecMainCode", "ExecMainStatus")
            how = CODES.get(int(known["ExecMainCode"]), "")
            number = int(known["ExecMainStatus"])
            status = str(number) if how == "exited" else Signals(number).name[3:]
        except (AgentError, ValueError):
            return {}
        return {"MONITOR_EXIT_CODE": how, "MONITOR_EXIT_STATUS": status}

    def family(self, ancestors: list[Process]) -> list[Process]:
        # An Asterisk that somebody has started by hand has its children elsewhere.
        return self.proc.members(self.name) + self.proc.descendants(ancestors)

    def settle(self) -> None:
        """No job is queued, nothing is about to restart, the next start will not be refused."""
        while True:
            try:
                state = self._show("ActiveState", "Job")
            except NotInstalled as problem:
                # Without systemctl nobody has given systemd a job.
                self.agent.warn(problem.reason)
                return
            except AgentError as problem:
                # It may yet do a start that a killed action has asked for.
                if self.agent.deadline.expired:
                    raise Failed(
                        f"all of Asterisk is gone, but systemd may start it: {problem.reason}"
                    ) from None
                self.agent.deadline.pause(SETTLE_EVERY)
                continue
            busy = state["Job"] not in ("", "0")
            if state["ActiveState"] == "inactive" and not busy:
                return
            if state["ActiveState"] == "failed" and not busy:
                # By our own SIGKILL. Nobody has to look at that.
                self._systemctl("reset-failed", self.name)
                return
            if self.agent.deadline.expired:
                raise Failed(
                    f"all of Asterisk is gone, but systemd calls {self.name} "
                    f"{state['ActiveState']}: see systemctl status {self.name}"
                )
            # Also takes back a start that a killed action had asked for. Not waiting:
            # at shutdown this job waits for Pacemaker, which waits for us.
            self._systemctl("stop", "--no-block", self.name)
            self.agent.deadline.pause(SETTLE_EVERY)

    def _write_drop_in(self) -> None:
        try:
            _replace(self.drop_in, self.drop_in_text)
        except OSError as problem:
            self.agent.warn(
                f"{self.name} may restart by itself: cannot write {self.drop_in}: "
                f"{problem.strerror}"
            )

    def _systemctl(self, *arguments: str) -> str | None:
        """None if it succeeded, or else the complaint."""
        try:
            done = self.agent.run("systemctl", *arguments, cap=SYSTEMCTL_MOST)
        except AgentError as problem:
            return problem.reason
        if done.ok:
            return None
        # The first line says what, those after it where to read more.
        return (done.err.strip() or done.complaint).splitlines()[0]

    def _show(self, *names: str) -> dict[str, str]:
        """Raises AgentError if systemd does not answer."""
        done = self.agent.run(
            "systemctl", "show", "-p", ",".join(names), self.name, cap=SYSTEMCTL_MOST
        )
        if not done.ok:
            raise Failed(f"systemd does not tell the state of {self.name}: {done.complaint}")
        pairs = [line.partition("=") for line in done.out.splitlines()]
        return dict.fromkeys(names, "") | {key: value for key, _, value in pairs}

    def _last_words(self) -> str:
        # By invocation, so that an earlier run's words are not taken for this one's.
        known = self._show("InvocationID")["InvocationID"]
        match = f"_SYSTEMD_INVOCATION_ID={known}" if known else f"--unit={self.name}"
        try:
            # The journal takes in what was said a moment later than it is said.
            self.agent.run("journalctl", "--sync", cap=SYNC_MOST)
        except AgentError:
            pass  # what it has by now will have to do
        try:
            done = self.agent.run(
                "journalctl", "-q", "-o", "cat", "-n", "50", match, cap=SYSTEMCTL_MOST
            )
        except AgentError:
            return ""
        return telling_line(done.out.splitlines())


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except OSError:
        return ""


def _replace(path: str, text: str) -> None:
    """Have the file in /run say this; "" for no file. Raises OSError."""
    if text == _text(path):
        return
    if not text:
        os.unlink(path)
        return
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    with open(f"{path}.new", "w", encoding="utf-8") as file:
        os.fchmod(file.fileno(), 0o644)  # whatever Pacemaker's umask is
        file.write(text)
    os.replace(f"{path}.new", path)


def _link(path: str, target: str) -> None:
    """Have the link in /run lead there; "" for no link. Raises OSError."""
    for old in (f"{path}.new", *([] if target else [path])):
        try:
            os.unlink(old)
        except FileNotFoundError:
            pass
    if target:
        os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
        os.symlink(target, f"{path}.new")
        os.replace(f"{path}.new", path)


def account_number(name: str, deadline: Deadline) -> int:
    """The uid of a user; raises AgentError if it cannot be known."""
    from pwd import getpwnam

    def look_up() -> str:
        try:
            return str(getpwnam(name).pw_uid)
        except KeyError:
            return str(NO_ACCOUNT)

    # In a child: a directory service (LDAP) may not answer.
    return int(in_child(look_up, deadline.within(ACCOUNT_SECONDS), f"looking up user {name}"))


def _check_accounts(user: str, group: str) -> str:
    from grp import getgrnam
    from pwd import getpwnam

    for what, name, look_up in (("user", user, getpwnam), ("group", group, getgrnam)):
        try:
            look_up(name)
        except KeyError:
            raise NotInstalled(
                f"{what} {name}, as which Asterisk is to run, does not exist on this node"
            ) from None
    return ""


def has_unit(name: str, root: str = "/") -> bool:
    """Whether systemd is PID 1, knows this unit and may start it.

    Looks at files only: asking systemd costs as much as a whole monitor. False for a masked
    unit, which is a link to /dev/null.
    """
    if not os.path.isdir(os.path.join(root, SYSTEMD_RUNS)):
        return False
    for folder in UNIT_FOLDERS:
        path = os.path.join(root, folder, name)
        if os.path.lexists(path):
            return os.path.realpath(path) != "/dev/null"
    return False


def starts_at_boot(name: str, root: str = "/") -> bool:
    """Whether systemd starts the unit by itself, before the cluster decides."""
    wants = os.path.join(root, "etc/systemd/system/multi-user.target.wants", name)
    return os.path.lexists(wants)


def telling_line(lines: Sequence[str]) -> str:
    """The line that most likely gives the reason: the last error, or else the last one."""
    plain = [_without_colours(line).strip() for line in lines]
    said = [line for line in plain if line and not any(words in line for words in NOISE)]
    errors = [line for line in said if "ERROR" in line]
    return (errors or said or [""])[-1]


def _without_colours(line: str) -> str:
    pieces = line.split("\x1b[")
    return pieces[0] + "".join(piece.partition("m")[2] for piece in pieces[1:])
