"""debian/asha.postrm: what a purge takes out of files that are not asha's."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

POSTRM = Path(__file__).parents[2] / "debian/asha.postrm"
OURS = "# asha begin\nACCEPT lan fw udp 5405\n# asha end\n"
SOURCE = "source {}/etc/network/interfaces.d/asha-link"


def purge(root: Path) -> str:
    """The whole script, on a machine below ``root``; what it said."""
    text = re.sub(r"(?<![\w.])/(etc|run|var)/", rf"{root}/\1/", POSTRM.read_text(encoding="utf-8"))
    assert f"{root}/etc/shorewall" in text
    for folder in ("etc/network/interfaces.d", "etc/shorewall", "run"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    done = subprocess.run(["sh", "-c", text, "postrm", "purge"], check=True, text=True,
                          encoding="utf-8", errors="surrogateescape", capture_output=True)
    assert [place.name for place in root.rglob("*.asha-*")] == []
    return done.stderr


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        (f"one\n{OURS}two\n", "one\ntwo\n", False),
        (f"{OURS}one\n{OURS}{OURS}two\n", "one\ntwo\n", False),
        # An end that somebody has deleted: better ours too many than theirs too few.
        ("one\n# asha begin\ntwo\n", "one\n# asha begin\ntwo\n", True),
        (f"one\n{OURS}two\n# asha begin\nthree\n", "one\ntwo\n# asha begin\nthree\n", True),
        (f"one\n# asha begin\ntwo\n{OURS}three\n", f"one\n# asha begin\ntwo\n{OURS}three\n", True),
        ("# asha begin\n# asha begin\n# asha begin\nx\n",
         "# asha begin\n# asha begin\n# asha begin\nx\n", True),
        # Not our marks.
        ("one\n", "one\n", False),
        ("one\n# asha end\ntwo\n", "one\n# asha end\ntwo\n", False),
        ("# asha begin \n#  asha begin\n# asha end\n", "# asha begin \n#  asha begin\n# asha end\n",
         False),
        (f"caf\udce9 \\n %s $(reboot)\n{OURS}`x`\n", "caf\udce9 \\n %s $(reboot)\n`x`\n", False),
    ],
)
def test_of_shorewalls_files_only_ours_goes(
    tmp_path: Path, before: str, after: str, told: bool
) -> None:
    rules = tmp_path / "etc/shorewall/rules"
    rules.parent.mkdir(parents=True)
    rules.write_text(before, encoding="utf-8", errors="surrogateescape")
    rules.chmod(0o640)
    said = purge(tmp_path)
    assert rules.read_text(encoding="utf-8", errors="surrogateescape") == after
    assert rules.stat().st_mode & 0o777 == 0o640
    assert ("delete them by hand" in said) == told


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "elsewhere"
    target.write_text(f"one\n{OURS}two\n")
    rules = tmp_path / "etc/shorewall/rules"
    rules.parent.mkdir(parents=True)
    rules.symlink_to(target)
    said = purge(tmp_path)
    assert target.read_text() == f"one\n{OURS}two\n"
    assert rules.is_symlink()
    assert "no ordinary file" in said


@pytest.mark.parametrize("lines", [["auto lo", "", "iface lo inet loopback", "OURS"], ["OURS"]])
def test_ifupdown_is_told_no_more_of_our_file(tmp_path: Path, lines: list[str]) -> None:
    interfaces = tmp_path / "etc/network/interfaces"
    link = interfaces.with_name("interfaces.d") / "asha-link"
    link.parent.mkdir(parents=True)
    link.touch()
    ours = SOURCE.format(tmp_path)
    interfaces.write_text("".join(f"{ours if one == 'OURS' else one}\n" for one in lines))
    purge(tmp_path)
    assert interfaces.read_text() == "".join(f"{one}\n" for one in lines[:-1])
    assert not link.exists()


def test_an_interfaces_file_that_is_a_link_stays_whole(tmp_path: Path) -> None:
    interfaces = tmp_path / "etc/network/interfaces"
    link = interfaces.with_name("interfaces.d") / "asha-link"
    link.parent.mkdir(parents=True)
    link.write_text("iface eth1\n")
    (tmp_path / "real").write_text(SOURCE.format(tmp_path) + "\n")
    interfaces.symlink_to(tmp_path / "real")
    purge(tmp_path)
    # What ifupdown is told to read is there, and says nothing.
    assert interfaces.is_symlink()
    assert link.read_text() == ""


def test_owner_is_kept(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    rules = tmp_path / "etc/shorewall/rules"
    rules.parent.mkdir(parents=True)
    rules.write_text(OURS)
    os.chown(rules, 33, 33)
    purge(tmp_path)
    about = rules.stat()
    assert (about.st_uid, about.st_gid, rules.read_text()) == (33, 33, "")
