"""The machine the lab runs on: what it must offer, and running its programs."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

# An image is up to 1.2 GB, and is built beside the old one before it replaces it.
DISK_NEEDED = 3 << 30
# A node's programs and its changed files, twice; measured with two nodes up.
MEMORY_NEEDED = 2 << 30
# Seconds that what is waited for may take at most, where nothing else is said. It costs a test
# that passes nothing, and a machine may be ten times slower than this one.
PATIENCE = 60.0
# Longer than Pacemaker rests before it begins what it has just been given cause for.
STEADY_SECONDS = 1.5

PROGRAMS = {
    "systemd-nspawn": "systemd-container",
    "mmdebstrap": "mmdebstrap",
    "ip": "iproute2",
    "losetup": "util-linux",
    "mkfs.ext4": "e2fsprogs",
    "nsenter": "util-linux",
    "make": "make",
}


class LabError(Exception):
    """The lab could not do what it was asked."""


class LabUnavailable(LabError):
    """This machine cannot run the lab; the text says why and what mends it."""


@dataclass(frozen=True)
class Result:
    """How a program ended. ``code`` is negative for a signal."""

    argv: tuple[str, ...]
    code: int
    out: str
    err: str

    @property
    def ok(self) -> bool:
        return self.code == 0


class CommandFailed(LabError):
    """A program ended with a code other than 0, or did not end in time."""

    def __init__(self, result: Result, where: str = "") -> None:
        said = "\n".join(filter(None, (result.out.strip()[-2000:], result.err.strip()[-2000:])))
        at = f" on {where}" if where else ""
        super().__init__(f"{' '.join(result.argv)}{at}: exit {result.code}: {said}")
        self.result = result


def run(
    argv: Sequence[str],
    *,
    timeout: float = 60.0,
    check: bool = True,
    env: Mapping[str, str] | None = None,
    stdin: str | None = None,
    where: str = "",
) -> Result:
    """Run a program in a session of its own; kill the session at the timeout.

    Raises CommandFailed for a non-zero code (with ``check``) and for a timeout.
    """
    process = subprocess.Popen(
        list(argv),
        stdin=subprocess.PIPE if stdin is not None else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        env={**os.environ, "LC_ALL": "C", **(env or {})},
        start_new_session=True,
    )
    try:
        out, err = process.communicate(stdin, timeout=timeout)
    except subprocess.TimeoutExpired:
        kill_session(process)
        late = Result(tuple(argv), -9, "", f"did not end within {timeout:.0f} s")
        raise CommandFailed(late, where) from None
    except BaseException:
        kill_session(process)
        raise
    result = Result(tuple(argv), process.returncode, out, err)
    if check and not result.ok:
        raise CommandFailed(result, where)
    return result


def kill_session(process: subprocess.Popen[str]) -> None:
    """SIGKILL a process and its session, and reap it if it ends within a second."""
    try:
        os.killpg(process.pid, 9)
    except ProcessLookupError:
        pass
    try:
        process.communicate(timeout=1)
    except subprocess.TimeoutExpired:
        pass


def wait_for(
    condition: Callable[[], bool],
    what: str,
    *,
    timeout: float = PATIENCE,
    every: float = 0.1,
) -> float:
    """Ask until it holds; return the seconds it took. LabError after ``timeout``."""
    begun = time.monotonic()
    while not condition():
        if time.monotonic() - begun > timeout:
            raise LabError(f"waited {timeout:.0f} s in vain: {what}")
        time.sleep(every)
    return time.monotonic() - begun


def wait_steady(
    condition: Callable[[], bool],
    what: str,
    *,
    steady: float = STEADY_SECONDS,
    timeout: float = PATIENCE,
    every: float = 0.25,
) -> None:
    """As wait_for, until it has held for ``steady`` seconds on end."""
    since = time.monotonic()

    def steadily() -> bool:
        nonlocal since
        if not condition():
            since = time.monotonic()
        return time.monotonic() - since >= steady

    wait_for(steadily, what, timeout=timeout, every=every)


def cgroup_root() -> Path:
    """Where the unified hierarchy is: alone, or beside version 1."""
    for place in (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified")):
        if (place / "cgroup.procs").exists() and (place / "cgroup.controllers").exists():
            return place
    raise LabUnavailable(
        "no cgroup version 2 is mounted: mount -t cgroup2 none /sys/fs/cgroup/unified"
    )


def check_host(cache: Path) -> None:
    """Raise LabUnavailable, in one line with the mend, where the lab cannot run."""
    if os.geteuid() != 0:
        raise LabUnavailable("the lab boots whole nodes and needs root: run it with sudo")
    missing = sorted({pkg for prog, pkg in PROGRAMS.items() if shutil.which(prog) is None})
    if missing:
        raise LabUnavailable(f"programs are missing: apt-get install {' '.join(missing)}")
    cgroup_root()
    trial = subprocess.run(
        ["unshare", "--mount", "--net", "--pid", "--fork", "true"],
        capture_output=True,
        text=True,
        check=False,
    )
    if trial.returncode != 0:
        raise LabUnavailable(
            f"no namespaces here ({trial.stderr.strip()}): use a virtual or real machine "
            "instead of an unprivileged container"
        )
    if not Path("/dev/loop-control").exists():
        raise LabUnavailable("no loop devices here: modprobe loop")
    if "overlay" not in Path("/proc/filesystems").read_text():
        subprocess.run(["modprobe", "overlay"], capture_output=True, check=False)
        if "overlay" not in Path("/proc/filesystems").read_text():
            raise LabUnavailable("the kernel has no overlayfs: modprobe overlay")
    cache.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(cache).free
    if free < DISK_NEEDED:
        raise LabUnavailable(
            f"{cache} has {free >> 20} MB free and the node image needs "
            f"{DISK_NEEDED >> 20} MB: free some, or set ASHA_LAB_CACHE to another disk"
        )
    available = memory_available()
    if available < MEMORY_NEEDED:
        raise LabUnavailable(
            f"{available >> 20} MB of memory are available and two nodes need "
            f"{MEMORY_NEEDED >> 20} MB: stop something, or use a larger machine"
        )


def memory_available() -> int:
    """MemAvailable in bytes."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) << 10
    return 0


def start_time(pid: int) -> int:
    """A process's start in clock ticks since boot, 0 if it is gone.

    With the pid it names one process for ever, however often pids are reused.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    fields = stat.rsplit(")", 1)[1].split()
    return 0 if fields[0] in "ZX" else int(fields[19])
