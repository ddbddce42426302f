"""The child's walls: where it may write, how much memory it has, how long an input takes."""

from __future__ import annotations

import os
import resource
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import NoReturn

MEMORY = 512 << 20

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
# The arguments of each event that are paths (docs.python.org/3/library/audit_events).
CHANGING = {
    "os.rename": (0, 1), "os.remove": (0,), "os.rmdir": (0,), "os.mkdir": (0,), "os.link": (1,),
    "os.symlink": (1,), "os.chmod": (0,), "os.chown": (0,), "os.truncate": (0,),
    "os.setxattr": (0,), "os.utime": (0,), "shutil.rmtree": (0,),
}
PROGRAMS = ("subprocess.Popen", "os.exec", "os.posix_spawn", "os.system")


class Hung(BaseException):
    """An input's time is over. No Exception: nobody may take it for one of his own."""


class Escaped(BaseException):
    """Something was written outside the scratch directory, or a program was run."""


def wall_in(scratch: Path) -> None:
    """For the rest of this process."""
    sys.dont_write_bytecode = True
    inside = f"{scratch}/"
    # Devices that keep nothing, and what the kernel makes of a descriptor.
    free = ("/dev/null", "/proc/self/fd/")

    def may_be_changed(path: object) -> bool:
        if isinstance(path, int) or path is None:
            return True
        name = os.path.abspath(os.fsdecode(path))  # type: ignore[arg-type]
        return name.startswith((inside, *free)) or name == str(scratch)

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if event == "open":
            flags = arguments[2]
            if isinstance(flags, int) and flags & WRITING and not may_be_changed(arguments[0]):
                raise Escaped(f"opened for writing: {arguments[0]!r}")
        elif event in CHANGING:
            for place in CHANGING[event]:
                if not may_be_changed(arguments[place]):
                    raise Escaped(f"{event}: {arguments[place]!r}")
        elif event in PROGRAMS:
            raise Escaped(f"{event}: {arguments[0]!r}")

    sys.addaudithook(hook)
    with open("/proc/self/statm", encoding="ascii") as file:
        pages = int(file.read().split()[0])
    most = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGALRM, _hang)


def _hang(number: int, frame: FrameType | None) -> NoReturn:
    raise Hung("its time is over")
