"""What a lab's run did: every program on its nodes, and each change of power and cables.

A directory for each lab, which outlives it: /var/log/asha-lab/NAME/commands.log.
"""

from __future__ import annotations

import shutil
import time
from contextlib import suppress
from pathlib import Path

from asha import command_log
from asha.command_log import CommandLog
from asha.run.runner import Completed
from tests.lab.host import Result

LOGS = Path("/var/log/asha-lab")
# Labs whose log is kept, the newest; each has two files of 2 MB at most, and a real one what
# its nodes printed.
KEPT = 20
# And as many of those with a test that failed, which have this file and may be older.
FAILED = "failed"
KEPT_TEXT = 1 << 20  # characters


class LabLog(CommandLog):
    """The block of one process that uses a lab."""

    def __init__(self, lab: str) -> None:
        super().__init__(["lab", lab], str(LOGS / lab), live=False)
        self.path = LOGS / lab / command_log.NAME

    def ran(self, node: str, result: Result, seconds: float) -> None:
        """A program has ended on a node, or was ended."""
        self.record([f"{node}:", *result.argv], seconds,
                    Completed(result.argv, result.code, result.out, result.err))

    def note(self, text: str) -> None:
        """Something else was done to the lab."""
        with self._guard:
            self._flush()
            self._put([(time.time(), text)])

    def keep(self, name: str, text: str) -> None:
        """Put the text's end beside the log. Raises nothing."""
        with suppress(OSError):
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.path.with_name(name).write_text(text[-KEPT_TEXT:])


def begin(lab: str) -> None:
    """For a new lab of this name. The oldest logs are removed. Raises nothing."""
    with suppress(OSError):
        LOGS.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(LOGS / lab, ignore_errors=True)
        by_age = sorted(LOGS.iterdir(), key=lambda place: place.stat().st_mtime)
        failed = [place for place in by_age if (place / FAILED).exists()]
        for old in {*by_age[:-KEPT]} - {*failed[-KEPT:]}:
            shutil.rmtree(old, ignore_errors=True)
