"""Deaths of Asterisk that follow each other: how many, how far apart, of what.

Written down by the notice of a death (death_notice.py) in a file of the resource, and told
to the cluster as a node attribute, so that `asha status` on either node can name a crash
loop. Forgotten with the file and the attribute, at the next boot.
"""

from __future__ import annotations

import os
import time

from asha.run.text import plain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

# The node attribute that says it.
ATTRIBUTE = "asha-asterisk-deaths"
# A death after so many seconds of life is the first of others (failure-timeout).
QUIET_SECONDS = 600.0
# Who has died so often is in a crash loop (migration-threshold).
LOOP = 3

# Where the kernel leaves a core, or to which program it gives it: core(5).
CORE_PATTERN = "/proc/sys/kernel/core_pattern"


class Deaths:
    """``count`` of them, ``between`` seconds from one to the next on average; ``last``: when
    (seconds since 1970), ``how`` it ended ("signal SEGV", "exit status 1", "" unknown), and
    the kernel's pattern for its ``core``, "" if it left none."""

    def __init__(self, count: int, between: int, last: int, how: str, core: str) -> None:
        self.count = count
        self.between = between
        self.last = last
        self.how = how
        self.core = core

    @property
    def is_loop(self) -> bool:
        return self.count >= LOOP

    def __str__(self) -> str:
        how = self.how.replace(" ", "-") or "-"
        return f"{self.count} {self.between} {self.last} {how} {self.core}".rstrip()


def parse(text: str) -> Deaths | None:
    """What __str__ wrote; None for what it did not."""
    words = [*text.split(None, 4), ""]
    if len(words) < 5 or not all(word.isdecimal() and len(word) < 12 for word in words[:3]):
        return None
    how = "" if words[3] == "-" else words[3].replace("-", " ")
    return Deaths(int(words[0]), int(words[1]), int(words[2]), how, words[4])


def count(path: str, environ: Mapping[str, str], core_pattern: str = CORE_PATTERN) -> Deaths:
    """One more. ``path``: where the others are written down. Raises OSError.

    ``environ``: systemd tells in it what the unit that failed has ended with
    (systemd.exec(5), $MONITOR_EXIT_CODE; since 251).
    """
    now = time.clock_gettime(time.CLOCK_BOOTTIME)
    number, first = 0, now
    try:
        with open(path, encoding="utf-8") as file:
            words = file.read().split()
        if now - float(words[2]) < QUIET_SECONDS:
            number, first = int(words[0]), float(words[1])
    except (OSError, ValueError, IndexError):
        pass  # the first
    number += 1
    draft = f"{path}.{os.getpid()}"
    with open(draft, "w", encoding="utf-8") as file:
        file.write(f"{number} {first} {now}")
    os.rename(draft, path)
    between = round((now - first) / (number - 1)) if number > 1 else 0
    code, status = (plain(environ.get(name, "")) for name in
                    ("MONITOR_EXIT_CODE", "MONITOR_EXIT_STATUS"))
    how = {"exited": "exit status ", "killed": "signal ", "dumped": "signal "}.get(code)
    return Deaths(number, between, round(time.time()),
                  f"{how}{status.replace('-', '_')}" if how and status else "",
                  _core(core_pattern) if code == "dumped" else "")


def _core(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return plain(file.read().strip())
    except (OSError, ValueError):
        return ""
