"""Which programs ran, and how each ended: /var/log/asha/commands.log.

One block for each asha command: its command line, a line for each program, its exit code.
``asha --debug`` shows the same lines on standard error as they come.

The log never gets in the way: nothing here raises, waits for a lock, or writes as another
user than root. It holds no secret: standard input is never logged, and what looks like a
secret is masked in command lines and in output.
"""

from __future__ import annotations

import fcntl
import os
import re
import shlex
import stat
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from io import FileIO

from asha import __version__, rootwork, terminal
from asha.rootwork import Directory, Untrusted
from asha.run.results import AgentError
from asha.run.runner import Completed
from asha.run.text import printable

DIRECTORY = "/var/log/asha"
NAME = "commands.log"

# Bytes; a larger file becomes commands.log.1. An installation needs about 0.2 MB.
FILE_MOST = 2 << 20

# Lines of output that are kept, and characters of each: of a program that failed, and of
# one that did not.
FAILED, GOOD = (20, 1000), (3, 200)
# Characters of a command line that are kept, and of output that are looked at.
LINE_MOST, OUTPUT_MOST = 1000, 16 << 10
# Command lines that are remembered, to see that one is repeated.
REMEMBERED_MOST = 1000

HIDDEN = "HIDDEN"
_NAME = r"(?:secret|passw(?:or)?d|passphrase|authkey)\d*"
_VALUE = r"""(?:"(?:\\.|[^"\\])*"?|'[^']*'?|\S+)"""
# NAME = VALUE, as configuration files, XML, JSON and drbdadm(8) have it. Not the path of
# a file that is called secret.
_ASSIGNED = re.compile(
    rf"""(?i)((?<!/){_NAME}["']?\s*[=:]\s*|shared-secret["']?\s+|(?<!/){_NAME}\s+(?=["'])
          |name=["'][^"'\s]*{_NAME}["']\s+value=){_VALUE}""",
    re.VERBOSE,
)
# What our own keys look like, also without a name before them: the secret as it is typed,
# with dashes and without; DRBD's (48 hex digits, of which drbdadm's parser quotes 20) and
# AMI's (40); Corosync's (256 letters, digits, - and _). The names of disks and units are
# shorter, or have signs in between.
_KEYS = re.compile(
    # The longest first: it has parts that look like the others.
    r"[0-9A-Za-z][0-9A-Za-z_-]{99,}|[0-9A-Za-z]{50,}|[0-9A-Fa-f]{20,}"
    r"|(?<![0-9A-Za-z])(?:[0-9A-Za-z]{4}[- ]){5,}[0-9A-Za-z]{1,4}(?![0-9A-Za-z])"
)
# Of a command line: --password=X, passwd=X; and --password X.
_ASSIGNMENT = re.compile(rf"(?i)([\w.-]*{_NAME}=).*", re.DOTALL)
_OPTION = re.compile(rf"(?i)--?[\w-]*{_NAME}")


def masked(text: str) -> str:
    """The text, with everything that looks like a secret masked."""
    return _KEYS.sub(HIDDEN, _ASSIGNED.sub(rf"\g<1>{HIDDEN}", text))


def command_line(argv: Sequence[str]) -> str:
    """The command as it would be typed in a shell, masked."""
    words = []
    hide = False
    for word in argv:
        words.append(HIDDEN if hide and not word.startswith("-")
                     else masked(_ASSIGNMENT.sub(rf"\g<1>{HIDDEN}", word)))
        hide = bool(_OPTION.fullmatch(word))
    return shlex.join(words)


@dataclass(frozen=True)
class _Entry:
    """One run of a program. ``more``: how many runs like it this line stands for."""

    when: float
    line: str
    end: str
    seconds: float
    output: tuple[str, ...]
    more: int = 0

    def lines(self) -> list[str]:
        again = f", the last of {self.more} like it" if self.more > 1 else ""
        return [f"{self.end}, {self.seconds:.2f} s{again}: {self.line}",
                *(f"    | {one}" for one in self.output)]


class CommandLog:
    """The block of one asha command. ``directory`` is "" for no file; ``live`` prints the lines
    on standard error too."""

    def __init__(self, words: Sequence[str], directory: str, live: bool) -> None:
        self.is_written = False
        self._words = list(words)
        self._directory = directory
        self._live = live
        self._begun = time.monotonic()
        self._has_header = False
        self._is_cut = False
        self._guard = threading.Lock()
        # What waits is asked twice a second, for minutes. Such a run is counted, and the
        # last one written when something else happens. By command line: how it ended, and
        # the number of the line in which it did.
        self._known: dict[str, tuple[str, int]] = {}
        self._number = 0
        self._news = 0
        self._repeats: dict[str, _Entry] = {}

    def record(self, argv: Sequence[str], seconds: float,
               result: Completed | BaseException) -> None:
        """Log a program that has ended or could not be run. Raises nothing."""
        with self._guard:
            entry = _entry(argv, seconds, result)
            end, number = self._known.get(entry.line, ("", 0))
            if end == entry.end and number >= self._news:
                before = self._repeats.pop(entry.line, None)
                self._repeats[entry.line] = replace(entry, more=before.more + 1 if before else 1)
                return
            self._flush()
            self._number += 1
            if end != entry.end:
                self._news = self._number
            if len(self._known) >= REMEMBERED_MOST:
                self._known.clear()
            self._known[entry.line] = (entry.end, self._number)
            self._write([entry])

    def finish(self, how: str) -> None:
        """Log the end of the command. Raises nothing."""
        with self._guard:
            self._flush()
            if self._has_header:
                seconds = time.monotonic() - self._begun
                self._put([(time.time(), f"=== {how}, {seconds:.1f} s")])

    def _flush(self) -> None:
        """Write each repeated line once, in the order of their ends."""
        waiting, self._repeats = list(self._repeats.values()), {}
        self._write(waiting)

    def _write(self, entries: Sequence[_Entry]) -> None:
        if not entries:
            return
        lines = []
        if not self._has_header:
            self._has_header = True
            now = time.time()
            zone = time.strftime("%z", time.localtime(now))
            lines.append((now, f"=== {command_line(['asha', *self._words])} "
                               f"(asha {__version__}, time zone {zone})"))
        for entry in entries:
            lines += [(entry.when, line) for line in entry.lines()]
        self._put(lines)

    def _put(self, lines: Sequence[tuple[float, str]]) -> None:
        text = "".join(f"{_stamp(when)} [{os.getpid()}] {printable(line)}\n"
                       for when, line in lines)
        if self._live:
            terminal.warn(text.rstrip("\n"))
        if self._directory:
            # A full or read-only disk, no directory, one that is not root's alone.
            with suppress(OSError, ValueError):
                self._append(text.encode("utf-8", "backslashreplace"))
                self.is_written = True

    def _append(self, data: bytes) -> None:
        above, _, name = self._directory.rpartition("/")
        with Directory.trusted(above or "/") as parent, parent.ensure(name) as place:
            if not rootwork.is_roots_alone(place.about()):
                raise Untrusted(place.path, "can be written by others than root")
            with _open(place) as log:
                if os.fstat(log.fileno()).st_size + len(data) <= FILE_MOST:
                    self._add(log, data)
                    return
                _rotate(place, log)
            with _open(place) as log:
                self._add(log, data)

    def _add(self, log: FileIO, data: bytes) -> None:
        # The disk was full in the middle of a line.
        start = b"\n" if self._is_cut else b""
        self._is_cut = log.write(start + data) < len(start + data)


def _open(place: Directory) -> FileIO:
    """Open the log for appending. Raises Untrusted for what is not an ordinary file; OSError."""
    flags = (os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
             | os.O_NOCTTY | os.O_CLOEXEC)
    log = FileIO(os.open(NAME, flags, 0o600, dir_fd=place.fd), "w")
    try:
        if not stat.S_ISREG(os.fstat(log.fileno()).st_mode):
            raise Untrusted(place.name(NAME), "is not an ordinary file")
        os.fchmod(log.fileno(), 0o600)
    except BaseException:
        log.close()
        raise
    return log


def _rotate(place: Directory, log: FileIO) -> None:
    """Rename the open log to commands.log.1, unless another asha is doing so or has done so."""
    with suppress(BlockingIOError):
        fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(place.stat(NAME), os.fstat(log.fileno())):
            place.rename(NAME, f"{NAME}.1")


def _stamp(when: float) -> str:
    clock = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(when))
    return f"{clock}.{int(when * 1000) % 1000:03d}"


def _entry(argv: Sequence[str], seconds: float, result: Completed | BaseException) -> _Entry:
    output = ""
    if isinstance(result, Completed):
        end = f"exit {result.code}"
        output = f"{_last(result.out)}\n{_last(result.err)}"
        count, width = GOOD if result.ok else FAILED
    else:
        end = result.reason if isinstance(result, AgentError) else type(result).__name__
        end = masked(end.removeprefix(" ".join(argv)).strip())
        output = _last(getattr(result, "out", ""))
        count, width = FAILED
    lines = [line.strip()[:width] for line in output.splitlines() if line.strip()]
    return _Entry(time.time(), command_line(argv)[:LINE_MOST], end[:LINE_MOST], seconds,
                  tuple(lines[-count:]))


def _last(text: str) -> str:
    """The end of the text, masked. It starts at the beginning of a line: half a secret could
    not be recognised."""
    if len(text) > OUTPUT_MOST:
        text = text[-OUTPUT_MOST:].partition("\n")[2]
    return masked(text)


# Of this process; none in a library and in tests.
_log: CommandLog | None = None


def begin(words: Sequence[str], *, file: bool, live: bool) -> None:
    """Log the programs of this process, which is ``asha`` with these arguments, from now on.
    ``file``: to the file too, if we are root."""
    global _log
    directory = DIRECTORY if file and os.geteuid() == 0 else ""
    _log = CommandLog(words, directory, live) if directory or live else None


def record(argv: Sequence[str], seconds: float, result: Completed | BaseException) -> None:
    """See CommandLog."""
    if _log is not None:
        _log.record(argv, seconds, result)


def finish(how: str) -> None:
    """See CommandLog. Afterwards nothing is logged."""
    global _log
    if _log is not None:
        _log.finish(how)
    _log = None


def written() -> str:
    """The path of the log, "" where nothing was written to it."""
    return f"{DIRECTORY}/{NAME}" if _log is not None and _log.is_written else ""
