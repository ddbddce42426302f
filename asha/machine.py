"""The machine that is being installed: its files and its programs.

Everything that the bootstrap reads, writes or runs goes through here. So a test can give it
another root and other programs, and a dry run none at all.
"""

from __future__ import annotations

import grp
import os
import pwd
import shutil
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from asha import command_log, rootwork
from asha.errors import UserError
from asha.rootwork import Untrusted
from asha.run.deadline import Deadline
from asha.run.results import AgentError
from asha.run.runner import Completed, Runner

# Of what a failed program printed.
LAST_LINES = 4
# Debian's own; an administrator's PATH may lack sbin.
SEARCH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


T = TypeVar("T")

# For a line that tells how far something is.
Say = Callable[[str], None]


class Machine:
    """The real machine; ``root`` is for tests, which give a directory that looks like one."""

    def __init__(self, root: str = "/") -> None:
        self.root = Path(root)

    # Files.

    def path(self, inside: str) -> Path:
        return self.root / inside.lstrip("/")

    def exists(self, inside: str) -> bool:
        return os.path.lexists(self.path(inside))

    def read(self, inside: str) -> str | None:
        """Return the text of a file; None if there is none.

        Raises UserError for what is not an ordinary file or has no end; OSError.
        """
        try:
            data = rootwork.read(str(self.path(inside)))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except Untrusted as problem:
            raise UserError(f"{inside} {problem.reason}", f"ls -l {inside}") from None
        text = data.decode("utf-8", "surrogateescape")
        return text.replace("\r\n", "\n").replace("\r", "\n")

    def write(self, inside: str, text: str, mode: int = 0o644, owner: str = "root",
              group: str = "") -> None:
        """Write the whole file or leave the old one, also when the power fails: it is written
        beside the old one and renamed.

        Only where nobody but root may write; elsewhere see rootwork.Directory.write.
        """
        place = self.path(inside)
        # by name: only for directories of root's
        place.parent.mkdir(parents=True, exist_ok=True)
        beside = place.with_name(f".{place.name}.asha-new")
        # by name: only for directories of root's
        beside.unlink(missing_ok=True)
        # by name: only for directories of root's
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        # by name: only for directories of root's
        with open(descriptor, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(text)
            file.flush()
            if os.geteuid() == 0:
                # by name: only for directories of root's
                shutil.chown(descriptor, owner, group or None)
            os.fchmod(descriptor, mode)
            os.fsync(descriptor)
        # by name: only for directories of root's
        beside.rename(place)
        sync_directory(place.parent)

    def owner_of(self, inside: str) -> tuple[str, str]:
        """The names of the file's user and group; "" for a number without a name. Raises
        OSError."""
        status = self.path(inside).stat()
        try:
            user = pwd.getpwuid(status.st_uid).pw_name
        except KeyError:
            user = ""
        try:
            group = grp.getgrgid(status.st_gid).gr_name
        except KeyError:
            group = ""
        return user, group

    def remove(self, inside: str) -> None:
        """Remove a file. It is no error if there is none."""
        place = self.path(inside)
        # by name: only for directories of root's
        place.unlink(missing_ok=True)
        if place.parent.is_dir():
            sync_directory(place.parent)

    # Time, so that a test need not wait.

    def now(self) -> float:
        """Seconds on a clock that only goes forward."""
        return time.monotonic()

    def pause(self, seconds: float) -> None:
        time.sleep(seconds)

    def wait_while(self, problem: Callable[[], T], seconds: float, every: float = 0.5,
                   meanwhile: Callable[[T, float], object] = lambda problem, passed: None) -> T:
        """Ask for the ``problem`` until there is none, for at most ``seconds``.

        Returns the last answer, which is false ("", [], False) when the problem has gone. It is
        asked at least once, and once more at the end. ``meanwhile`` is called before each
        pause, with the answer and the seconds that have passed.
        """
        begun = self.now()
        while (found := problem()) and (passed := self.now() - begun) < seconds:
            meanwhile(found, passed)
            self.pause(every)
        return found

    # Programs.

    def has(self, program: str) -> bool:
        # by name: only for directories of root's
        return shutil.which(program, path=SEARCH) is not None

    def run(
        self,
        *argv: str,
        timeout: float = 60.0,
        check: bool = True,
        stdin: str | None = None,
        environ: Mapping[str, str] | None = None,
        keep_open: Sequence[int] = (),
    ) -> Completed:
        """Run a program to its end, for at most ``timeout`` seconds; then its process group is
        killed.

        It inherits the descriptors in ``keep_open`` under their own numbers.

        Raises UserError when the program is missing, does not end, or (``check``) does not exit
        with 0.
        """
        begun = time.monotonic()
        try:
            done = self._run(argv, timeout, stdin, environ, keep_open)
        except BaseException as problem:
            command_log.record(argv, time.monotonic() - begun, problem)
            if isinstance(problem, AgentError):
                raise UserError(problem.reason) from None
            raise
        command_log.record(argv, time.monotonic() - begun, done)
        if check and not done.ok:
            raise UserError(f"{' '.join(argv)}: exit {done.code}: {last_words(done)}")
        return done

    def _run(self, argv: Sequence[str], timeout: float, stdin: str | None,
             environ: Mapping[str, str] | None, keep_open: Sequence[int]) -> Completed:
        """Raises AgentError when the program is missing or does not end."""
        env = {"PATH": SEARCH, "HOME": "/root", "TERM": "dumb", **(environ or {})}
        return Runner(keep_open).run(list(argv), Deadline(timeout), environ=env, stdin=stdin)

    def output(self, *argv: str, timeout: float = 20.0) -> str:
        """What a program prints; "" when it fails or is missing. Only for reading the machine's
        state."""
        try:
            done = self.run(*argv, timeout=timeout, check=False)
        except UserError:
            return ""
        return done.out if done.ok else ""


class UnknownMachine(Machine):
    """Another machine, of which nothing is known: it has no files and no programs."""

    def __init__(self) -> None:
        super().__init__("/nonexistent")  # Debian policy, 9.2.3

    def has(self, program: str) -> bool:
        return False

    def run(
        self,
        *argv: str,
        timeout: float = 60.0,
        check: bool = True,
        stdin: str | None = None,
        environ: Mapping[str, str] | None = None,
        keep_open: Sequence[int] = (),
    ) -> Completed:
        raise UserError(f"{argv[0]} cannot be run on another machine")


class DeadlineMachine(Machine):
    """A machine all of whose programs end by the deadline, whatever their own time-outs.

    ``cap`` is the longest that any one of them gets, so that one which hangs leaves time for
    the others. Both are in seconds.
    """

    def __init__(self, machine: Machine, deadline: Deadline, cap: float) -> None:
        super().__init__(str(machine.root))
        self.deadline = deadline
        self._machine = machine
        self._cap = cap

    def has(self, program: str) -> bool:
        return self._machine.has(program)

    def run(
        self,
        *argv: str,
        timeout: float = 60.0,
        check: bool = True,
        stdin: str | None = None,
        environ: Mapping[str, str] | None = None,
        keep_open: Sequence[int] = (),
    ) -> Completed:
        patience = self.deadline.remaining(min(timeout, self._cap))
        return self._machine.run(*argv, timeout=patience, check=check, stdin=stdin,
                                 environ=environ, keep_open=keep_open)


def last_words(done: Completed) -> str:
    """The last lines that a program printed: drbdadm and crm need several lines for a reason."""
    said = [line.strip() for line in command_log.masked(done.err or done.out).splitlines()
            if line.strip()]
    return "; ".join(said[-LAST_LINES:]) or command_log.masked(done.complaint)


def sync_directory(place: Path) -> None:
    """Make a rename or removal in the directory survive a power cut."""
    # by name: only for directories of root's
    descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def tell_ready() -> None:
    """Tell systemd, which waits for it, that the service is up: sd_notify(3)."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as link:
            link.sendto(b"READY=1", "\0" + address[1:] if address[0] == "@" else address)
