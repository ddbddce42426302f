"""What a command prints, and for whom: the only place that writes to the standard streams.

``show`` is for requested output. It fails when nobody gets it: a full disk behind ``>``, or a
``head`` that has read enough. ``say`` and ``warn`` are for what is told beside the work: they
never fail, so that no work stays half done because nobody reads. All three escape what others
put into the text (see asha.run.text).
"""

from __future__ import annotations

import errno
import os
import sys
import textwrap
from contextlib import suppress
from typing import TextIO

from asha.errors import UserError
from asha.run.text import lines, printable

HINT_INDENT = " " * 6
COLUMNS = 79


class Unwritten(UserError):
    """Requested output did not reach its reader. ``quiet``: the reader left by himself."""

    def __init__(self, problem: Exception, code: int) -> None:
        reason = getattr(problem, "strerror", None) or str(problem)
        super().__init__(f"standard output: {reason}", "nothing more was written there", code)
        self.quiet = isinstance(problem, BrokenPipeError)


def settle() -> None:
    """Prepare the standard streams for any text, and for being closed. For main alone."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError as problem:
            if problem.errno == errno.EBADF:
                # Or the next file that is opened would be taken for it.
                os.open(os.devnull, os.O_RDWR)
    if sys.stdin is None:
        sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)
    if sys.stdout is None:
        sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w", encoding="utf-8", closefd=False)
    # What is typed may be in another encoding than the locale's. (A test's stream has no
    # such thing.)
    with suppress(AttributeError, OSError, ValueError):
        sys.stdin.reconfigure(errors="surrogateescape")  # type: ignore[union-attr]


def show(text: str = "", *, end: str = "\n", ours: bool = False, code: int = 1) -> None:
    """Print requested output. Raises Unwritten with the exit code ``code``. ``ours``: the text
    is escaped already and has colours."""
    try:
        _write(sys.stdout, (text if ours else lines(text)) + end)
    except (OSError, ValueError) as problem:
        _drop(sys.stdout)
        raise Unwritten(problem, code) from None


def say(text: str = "", *, end: str = "\n", ours: bool = False) -> None:
    """Print to standard output. Raises nothing."""
    _try(sys.stdout, (text if ours else lines(text)) + end)


def warn(text: str) -> None:
    """Print to standard error. Raises nothing."""
    _try(sys.stderr, lines(text) + "\n")


def report(trouble: UserError) -> None:
    """Print to standard error what is wrong, each point on a line, and what to do. On a
    terminal the lines are wrapped, except what to do: it has commands to be copied."""
    told = [f"asha: {printable(trouble.what)}",
            *(f"{HINT_INDENT}{printable(point)}" for point in trouble.points)]
    if sys.stderr is not None and sys.stderr.isatty():
        told = [line for one in told for line in textwrap.wrap(
            one, COLUMNS, subsequent_indent=HINT_INDENT, break_long_words=False,
            break_on_hyphens=False)]
    warn("\n".join(told))
    if trouble.hint:
        warn(f"{HINT_INDENT}{printable(trouble.hint)}")


def answer(prompt: str) -> str:
    """Read a line that is typed, without the blanks around it. Raises EOFError,
    KeyboardInterrupt.

    A terminal that is gone counts as the end.
    """
    try:
        return input(lines(prompt)).strip()
    except OSError as problem:
        raise EOFError(str(problem)) from None


def finish() -> None:
    """Write what is left of the output of a command that ended well. Raises Unwritten."""
    show(end="")


def _try(stream: TextIO | None, text: str) -> None:
    if stream is None:
        return  # closed before we began
    try:
        _write(stream, text)
    except (OSError, ValueError):
        _drop(stream)


def _write(stream: TextIO, text: str) -> None:
    try:
        stream.write(text)
    except UnicodeEncodeError:
        # The locale's encoding lacks a letter.
        stream.write(text.encode("ascii", "backslashreplace").decode())
    stream.flush()


def _drop(stream: TextIO) -> None:
    """Discard what is in the buffer; otherwise Python would complain at its end."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, stream.fileno())
        finally:
            os.close(nowhere)
