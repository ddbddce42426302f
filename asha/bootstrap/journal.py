"""What an install did, one JSON line each, so that the next one knows where it was.

It decides nothing: whether an action is needed is asked of the machine itself.
"""

from __future__ import annotations

import json
import os
import time
from typing import TextIO

from asha.machine import Machine

JOURNAL = "/var/lib/asha/journal"


class Journal:
    """Appends; each line is on the disk before the action it tells of begins."""

    def __init__(self, machine: Machine) -> None:
        self._place = machine.path(JOURNAL)
        self._file: TextIO | None = None

    def note(self, event: str, action: str = "", reason: str = "") -> None:
        """``event``: begin, done, failed, interrupted."""
        if self._file is None:
            # by name: in root's /var/lib/asha
            self._place.parent.mkdir(parents=True, exist_ok=True)
            # by name: in root's /var/lib/asha
            self._file = self._place.open("a", encoding="utf-8")
        entry = {"time": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "event": event, "action": action}
        if reason:
            entry["reason"] = reason
        self._file.write(json.dumps(entry) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def cut_off_in(self) -> str:
        """The action that was begun last and never ended, "" if none."""
        try:
            # by name: in root's /var/lib/asha
            lines = self._place.read_text(encoding="utf-8").splitlines()
        except OSError:
            return ""
        for line in reversed(lines):
            try:
                entry = json.loads(line)
            except ValueError:
                continue  # the line at which the power failed
            return str(entry["action"]) if entry.get("event") == "begin" else ""
        return ""
