"""debian/asha.postrm: what a purge takes out of files that are not asha's."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

POSTRM = Path(__file__).parents[2] / "debian/asha.postrm"
OURS = "# asha begin\nACCEPT lan fw udp 5405\n# asha end\n"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (f"one\n{OURS}two\n", "one\ntwo\n"),
        # An end that somebody has deleted: better ours too many than theirs too few.
        ("one\n# asha begin\ntwo\n", "one\n# asha begin\ntwo\n"),
        ("one\n", "one\n"),
    ],
)
def test_of_shorewalls_files_only_ours_goes(tmp_path: Path, before: str, after: str) -> None:
    found = re.search(
        r"\tfor file in zones .*?\n\tdone\n", POSTRM.read_text(encoding="utf-8"), re.DOTALL
    )
    assert found
    rules = tmp_path / "rules"
    rules.write_text(before, encoding="utf-8")
    script = "set -e\n" + found[0].replace("/etc/shorewall", str(tmp_path))
    assert "/etc/" not in script
    subprocess.run(["sh", "-c", script], check=True)
    assert rules.read_text(encoding="utf-8") == after
