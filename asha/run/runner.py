"""Runs other programs: argv only, under a deadline; the whole process group is killed."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from functools import partial

from asha.run.results import Expired, Failed, NotInstalled

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from asha.run.deadline import Deadline

# Seconds before it is asked whether a program is to be left running.
LEAVE_EVERY = 2.0

# After SIGKILL a process that still does not end is in the kernel (state D).
# Waiting longer would only eat the reserve that the action's reason needs.
REAP_SECONDS = 0.3

# Of each stream; what a program prints beyond it is read and dropped.
OUTPUT_MOST = 16 << 20

# The most that Linux lets a pipe hold, so that one read empties it.
PIPE_MOST = 1 << 20

# poll() takes no more than 2**31 ms.
WAIT_MOST = 3600.0


class Completed:
    """How a program ended: ``code`` is negative for a signal, output is text."""

    def __init__(self, argv: Sequence[str], code: int, out: str, err: str) -> None:
        self.argv = list(argv)
        self.code = code
        self.out = out
        self.err = err

    @property
    def ok(self) -> bool:
        return self.code == 0

    @property
    def complaint(self) -> str:
        """The last non-empty line that the program printed, for a reason."""
        lines = [line.strip() for line in (self.out + "\n" + self.err).splitlines()]
        said = [line for line in lines if line]
        return said[-1] if said else f"exit code {self.code}"


class Runner:
    """Starts programs for an agent.

    Every child inherits the file descriptors in ``keep_open``. The action's lock is one of
    them, so that the next action waits for a child that outlived a killed agent.
    """

    def __init__(self, keep_open: Sequence[int] = ()) -> None:
        self.keep_open = list(keep_open)

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
        """Run a program until it ends itself, whatever it leaves behind.

        Raises NotInstalled when the program is missing, Expired when it does not end within the
        deadline (or ``cap`` seconds); its group is killed then. ``share_lock=False`` is for a
        program that leaves a daemon behind, which would otherwise hold the action's lock
        without end. ``leave`` is asked now and then, and is true when a program that was to
        become a daemon already serves as it is: it counts as successful then, and runs on. Its
        output is not kept: Asterisk ends when what it has for a console breaks
        (main/asterisk.c, after el_gets()).
        """
        deadline.require(f"about to run {argv[0]}")
        env = dict(os.environ if environ is None else environ)
        env["LC_ALL"] = "C"
        patience = deadline.remaining(cap)
        if not share_lock:
            _inherit_nothing()
        try:
            process = subprocess.Popen(
                list(argv),
                stdin=subprocess.PIPE if stdin is not None else subprocess.DEVNULL,
                stdout=subprocess.PIPE if leave is None else subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env=env,
                start_new_session=True,
                pass_fds=tuple(self.keep_open) if share_lock else (),
                close_fds=share_lock,
            )
        except FileNotFoundError as error:
            raise NotInstalled(f"program {argv[0]} is not installed") from error
        except PermissionError as error:
            raise NotInstalled(f"cannot run {argv[0]}: {error.strerror}") from error
        except OSError as error:
            # Out of memory, processes or files: not the program's absence, for
            # which Pacemaker would never try this node again.
            raise Failed(f"cannot run {argv[0]}: {error.strerror}") from error
        talk = _Talk(process, (stdin or "").encode("utf-8", "surrogateescape"))
        try:
            ended = talk.until_end(patience if leave is None else deadline.remaining(LEAVE_EVERY))
            while leave is not None and not ended and not deadline.expired:
                if leave():
                    return Completed(argv, 0, "", "")
                ended = talk.until_end(deadline.remaining(LEAVE_EVERY))
            if not ended:
                out = talk.out.decode("utf-8", "replace")
                raise Expired(f"{' '.join(argv)} did not end within {patience:.1f} s", out)
        except BaseException as problem:
            if not talk.kill() and isinstance(problem, Expired):
                raise Expired(
                    f"{problem.reason} and cannot be killed: a disk or a device does not answer",
                    problem.out,
                ) from None
            raise
        finally:
            talk.close()
        return Completed(
            argv,
            process.returncode,
            talk.out.decode("utf-8", "replace"),
            talk.err.decode("utf-8", "replace"),
        )


def _inherit_nothing() -> None:
    """Have the kernel close all but the standard streams when it runs the program.

    Popen closes them a moment before. Then neither is the lock held nor has the process the
    daemon's name yet, and an action right after a kill of this one would think that the daemon
    was not started.
    """
    for name in os.listdir("/proc/self/fd"):
        descriptor = int(name)
        if descriptor > 2:
            try:
                os.set_inheritable(descriptor, False)
            except OSError:
                pass  # that of the listing itself


class _Talk:
    """Feeds a process and reads from it at the same time, so that no full pipe stops it.

    Not communicate(), which waits for the end of the pipes: a daemon that the program left
    behind keeps them open.
    """

    def __init__(self, process: subprocess.Popen[bytes], data: bytes) -> None:
        self.out = bytearray()
        self.err = bytearray()
        self._process = process
        self._data = memoryview(data)
        self._ending = os.pidfd_open(process.pid)
        self._poller = select.poll()
        self._poller.register(self._ending, select.POLLIN)
        self._serve: dict[int, Callable[[], None]] = {}
        if process.stdin is not None:
            self._attend(process.stdin.fileno(), select.POLLOUT, self._write)
        for pipe, buffer in ((process.stdout, self.out), (process.stderr, self.err)):
            if pipe is None:
                continue
            descriptor = pipe.fileno()
            self._attend(descriptor, select.POLLIN, partial(self._read, descriptor, buffer))

    def until_end(self, seconds: float) -> bool:
        """False if the process has not ended by then."""
        end = time.monotonic() + seconds
        while True:
            left = end - time.monotonic()
            ready = {fd for fd, _ in self._poller.poll(max(0, min(left, WAIT_MOST)) * 1000)}
            ended = self._ending in ready
            # After its end all that it wrote is in the pipes, and each is read
            # once: one that a daemon goes on filling would never be empty.
            for descriptor, serve in list(self._serve.items()):
                if ended or descriptor in ready:
                    serve()
            if ended:
                self._process.wait()
                return True
            if left <= 0:
                return False

    def kill(self) -> bool:
        """Kill the whole group; False if the process does not die."""
        if self._process.returncode is None:
            # Not reaped yet, so the number is still its own.
            os.killpg(self._process.pid, signal.SIGKILL)
        return self.until_end(REAP_SECONDS)

    def close(self) -> None:
        os.close(self._ending)
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()

    def _attend(self, descriptor: int, events: int, serve: Callable[[], None]) -> None:
        os.set_blocking(descriptor, False)
        self._poller.register(descriptor, events)
        self._serve[descriptor] = serve

    def _leave(self, descriptor: int) -> None:
        self._poller.unregister(descriptor)
        del self._serve[descriptor]

    def _read(self, descriptor: int, buffer: bytearray) -> None:
        try:
            chunk = os.read(descriptor, PIPE_MOST)
        except BlockingIOError:
            return
        if not chunk:
            self._leave(descriptor)
        elif len(buffer) < OUTPUT_MOST:
            buffer += chunk

    def _write(self) -> None:
        stdin = self._process.stdin
        assert stdin is not None
        try:
            self._data = self._data[os.write(stdin.fileno(), self._data) :]
        except BlockingIOError:
            return
        except BrokenPipeError:
            self._data = self._data[:0]  # it does not want the rest
        if not self._data:
            self._leave(stdin.fileno())
            stdin.close()
