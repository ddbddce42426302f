"""The configuration that served: what is kept of it, when it is used, what counts as damage."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from asha.asterisk.lastgood import damage, generations, tree
from asha.asterisk.lastgood.generations import TODAY, Failure, Generation
from asha.ocf import Failed
from asha.rootwork import Directory, Untrusted

STRANGER = 65534  # nobody
PJSIP = "[transport-udp]\ntype=transport\n#include more.conf\n"
SIP = "udp 5060 PJSIP\n"

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="gives files to another user")


@pytest.fixture
def etc(tmp_path: Path) -> Path:
    folder = tmp_path / "etc"
    (folder / "sub").mkdir(parents=True)
    (folder / "pjsip.conf").write_text(PJSIP)
    (folder / "more.conf").write_text("; more\n")
    (folder / "sub/extra.conf").write_text("[extra]\n")
    (folder / "link.conf").symlink_to("/etc/shadow")
    (folder / "pjsip.conf").chmod(0o4640)
    return folder


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    return tmp_path / "last-good"


def state(etc: Path) -> str:
    with Directory.trusted(str(etc)) as top:
        return tree.state(top)


def keep(etc: Path, kept: Path, sip: str = SIP, was: str = "") -> str:
    with Directory.trusted(str(etc)) as top:
        return generations.keep(str(kept), top, was or tree.state(top), "crm1", sip)


def listed(kept: Path) -> list[Generation]:
    with generations.enter(str(kept)) as place:
        return generations.listed(place)


def digest(folder: Path) -> str:
    with Directory.trusted(str(folder)) as top:
        return tree.digest_of(tree.read(top))


# What is kept.

def test_a_copy_is_the_same(etc: Path, kept: Path) -> None:
    os.mkfifo(etc / "fifo.conf")
    made = keep(etc, kept)
    files = kept / made / "files"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o700
    assert sorted(one.name for one in files.iterdir()) == [
        "link.conf", "more.conf", "pjsip.conf", "sub"]
    assert (files / "pjsip.conf").read_text() == PJSIP
    assert stat.S_IMODE((files / "pjsip.conf").stat().st_mode) == 0o640
    assert (files / "pjsip.conf").stat().st_mtime_ns == (etc / "pjsip.conf").stat().st_mtime_ns
    assert os.readlink(files / "link.conf") == "/etc/shadow"
    assert digest(files) == digest(etc)
    (found,) = listed(kept)
    assert (found.name, found.sip, found.digest) == (made, SIP, digest(etc))


@needs_root
def test_it_has_its_owners(etc: Path, kept: Path) -> None:
    for path in (etc / "pjsip.conf", etc / "sub", etc):
        os.chown(path, STRANGER, STRANGER)
    os.chown(etc / "link.conf", STRANGER, STRANGER, follow_symlinks=False)
    made = kept / keep(etc, kept)
    for name in ("files", "files/pjsip.conf", "files/sub", "files/link.conf"):
        assert (made / name).lstat().st_uid == STRANGER
    assert (made / "about").stat().st_uid == 0
    assert made.stat().st_uid == 0


def test_only_what_differs_is_kept_and_three_of_it(etc: Path, kept: Path) -> None:
    first = keep(etc, kept)
    assert keep(etc, kept) == first
    # A start that had less SIP says nothing about the files.
    assert keep(etc, kept, "") == first
    made = [first]
    for number in range(4):
        (etc / "more.conf").write_text(f"; {number}\n")
        made.append(keep(etc, kept))
    assert [one.name for one in listed(kept)] == made[:-4:-1]
    # An older one that serves again is the newest, and there once.
    (etc / "more.conf").write_text("; 2\n")
    again = keep(etc, kept)
    assert [one.name for one in listed(kept)] == [again, made[-1], made[-3]]


def test_what_has_changed_since_the_start_is_not_kept(etc: Path, kept: Path) -> None:
    was = state(etc)
    (etc / "more.conf").write_text("; half of it")
    assert keep(etc, kept, was=was) == ""
    assert not kept.exists()


@pytest.mark.parametrize("change", [
    lambda etc: (etc / "more.conf").write_text("; mord\n"),
    lambda etc: (etc / "more.conf").chmod(0o600),
    lambda etc: (etc / "more.conf").rename(etc / "other.conf"),
    lambda etc: (etc / "sub/extra.conf").unlink(),
    lambda etc: (etc / "new.conf").touch(),
])
def test_a_change_is_seen(etc: Path, change: object) -> None:
    before = state(etc), digest(etc)
    assert before == (state(etc), digest(etc))
    change(etc)  # type: ignore[operator]
    now = state(etc), digest(etc)
    assert before[0] != now[0]
    assert before[1] != now[1]


def test_the_ten_thousandth_is_the_newest(etc: Path, kept: Path) -> None:
    made = keep(etc, kept)
    old = f"9999-{made.partition('-')[2]}"
    (kept / made).rename(kept / old)
    (etc / "more.conf").write_text("; changed\n")
    newest = keep(etc, kept)
    assert newest.startswith("10000-")
    assert [one.name for one in listed(kept)] == [newest, old]
    (kept / ("9" * 200 + made[4:])).mkdir()  # no number of ours
    assert [one.name for one in listed(kept)] == [newest, old]


def test_asterisk_tells_of_more_sockets_than_are_kept(etc: Path, kept: Path) -> None:
    made = keep(etc, kept, "".join(f"udp {number} PJSIP\n" for number in range(9000)))
    (found,) = listed(kept)
    assert found.name == made
    assert set(found.sip.splitlines()) <= {f"udp {number} PJSIP" for number in range(9000)}


def test_no_half_one_is_left(etc: Path, kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep(etc, kept)
    (etc / "more.conf").write_text("; changed\n")

    def fail(directory: Directory) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Directory, "sync_all", fail)
    with pytest.raises(OSError, match="No space left"):
        keep(etc, kept)
    assert len(list(kept.iterdir())) == 1
    monkeypatch.undo()
    # Nor does what a killed one has left bother anybody.
    (kept / generations.DRAFT / "files").mkdir(parents=True)
    assert len(listed(kept)) == 1
    keep(etc, kept)
    assert len(listed(kept)) == len(list(kept.iterdir())) == 2


def test_no_store(etc: Path, tmp_path: Path) -> None:
    assert keep(etc, tmp_path / "drbd/last-good") == generations.NOWHERE


def test_a_disk_without_room(etc: Path, kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generations, "ROOM", 1 << 60)
    with pytest.raises(Failed, match="has no room"):
        keep(etc, kept)


@pytest.mark.parametrize(("limit", "most", "words"), [
    ("NAMES_MOST", 4, "more than 4 files"),
    ("FILE_MOST", 10, "has more than"),
    ("TOTAL_MOST", 50, "has more than"),
    ("DEPTH_MOST", 1, "directories in each other"),
])
def test_everything_has_an_end(
    etc: Path, kept: Path, monkeypatch: pytest.MonkeyPatch, limit: str, most: int, words: str
) -> None:
    was = state(etc)
    monkeypatch.setattr(tree, limit, most)
    with pytest.raises(Failed, match=words):
        keep(etc, kept, was=was)
    assert not kept.exists() or list(kept.iterdir()) == []


def test_a_file_of_a_terabyte_that_is_not_there(etc: Path, kept: Path) -> None:
    with open(etc / "big.conf", "wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(Failed, match=r"big\.conf has more than 16 MB"):
        keep(etc, kept)


def test_a_directory_that_others_can_write_is_not_used(etc: Path, kept: Path) -> None:
    keep(etc, kept)
    kept.chmod(0o770)
    with pytest.raises(Untrusted):
        generations.enter(str(kept))


# Which of today's have failed.

def test_failures_are_counted_by_content_node_and_files(etc: Path, kept: Path) -> None:
    keep(etc, kept)
    with generations.enter(str(kept)) as place:
        assert generations.failures(place) == []
        for what in (("d", "crm1", TODAY), ("d", "crm1", TODAY), ("d", "crm2", TODAY)):
            generations.add_failure(place, *what)
        found = {(one.node, one.count) for one in generations.failures(place)}
        assert found == {("crm1", 2), ("crm2", 1)}
        for number in range(100):
            generations.add_failure(place, str(number), "crm1", TODAY)
        assert len(generations.failures(place)) == generations.FAILED_MOST
        place.write("failed", b"\xff garbage\nd crm1 today x\nd crm1 today " + b"9" * 5000)
        assert generations.failures(place) == []
    keep(etc, kept)
    assert not (kept / "failed").exists()


NEW, OLD = Generation("0002-x", "new"), Generation("0001-x", "old")


def chosen(*failed: tuple[str, str, int], peer: bool = True, today: str = "d") -> str:
    """failed: node, what, count."""
    found = generations.choose([NEW, OLD], [Failure("d", *one) for one in failed], today,
                               "crm1", lambda: peer, 3)
    return found.name if found else TODAY


@pytest.mark.parametrize(("failed", "wanted"), [
    ([], TODAY),
    ([("crm2", TODAY, 3)], TODAY),  # not here yet
    ([("crm1", TODAY, 2)], TODAY),  # nor there
    ([("crm1", TODAY, 1), ("crm2", TODAY, 3)], NEW.name),
    ([("crm1", TODAY, 3)], NEW.name),  # Pacemaker cannot move it
    # In turns, and each of what was kept.
    ([("crm1", TODAY, 1), ("crm2", TODAY, 3), ("crm1", NEW.name, 1)], TODAY),
    ([("crm1", TODAY, 2), ("crm2", TODAY, 3), ("crm1", NEW.name, 1)], OLD.name),
    ([("crm1", TODAY, 3), ("crm2", TODAY, 3), ("crm1", NEW.name, 1), ("crm1", OLD.name, 1)],
     NEW.name),
])
def test_both_nodes_come_first(failed: list[tuple[str, str, int]], wanted: str) -> None:
    assert chosen(*failed) == wanted


def test_files_that_change_all_the_time() -> None:
    def chosen_of(count: int, in_vain: int = 0) -> Generation | None:
        failed = [Failure(str(number), ("crm1", "crm2")[number % 2], TODAY, 1)
                  for number in range(count)]
        if in_vain:
            failed.append(Failure("0", "crm1", NEW.name, in_vain))
        return generations.choose([NEW, OLD], failed, "again another", "crm1", lambda: True, 3)

    many = generations.CHANGING
    assert [chosen_of(many - 1), chosen_of(many)] == [None, NEW]
    assert [chosen_of(many, 1), chosen_of(2 * many, 1)] == [None, OLD]
    assert many * 2 < generations.FAILED_MOST


def test_a_node_alone_waits_for_nobody() -> None:
    assert chosen(("crm1", TODAY, 1), peer=False) == NEW.name
    assert chosen(peer=False) == TODAY


def test_other_files_are_tried_first() -> None:
    failed = [("crm1", TODAY, 3), ("crm2", TODAY, 3)]
    assert chosen(*failed) == NEW.name
    assert chosen(*failed, today="repaired") == TODAY
    # What has served is not what is wrong.
    assert chosen(*failed, today="new") == TODAY


# What nobody means.

@pytest.mark.parametrize(("text", "why"), [
    ("", "is empty"),
    ("\n \n", "is empty"),
    ("\0" * 30, "has zero bytes"),
    (PJSIP[:20], "is cut off"),
    (PJSIP + "[half", "has no closing ] in line 4"),
    (PJSIP + "#include gone.conf\n", "includes gone.conf, which is missing"),
    # What somebody may have wanted.
    (PJSIP, ""),
    (PJSIP[:16], ""),  # whole lines
    (PJSIP[:15], ""),  # also where no newline ends the last
    (PJSIP + "#tryinclude gone.conf\n", ""),
    (PJSIP + "#include gone*.conf\n", ""),
    (PJSIP + "; [half\n", ""),
    (PJSIP + "#include ../elsewhere/x.conf\n#include /srv/x.conf\n", ""),
    ("[large]\n" + ";" * (1 << 20), ""),
    ("[other]\n", ""),
])
def test_damage_is_what_nobody_means(etc: Path, tmp_path: Path, text: str, why: str) -> None:
    before = tmp_path / "before"
    before.mkdir()
    (before / "pjsip.conf").write_text(PJSIP)
    (before / "more.conf").write_text("")
    (etc / "pjsip.conf").write_text(text)
    with Directory.trusted(str(etc)) as now, Directory.trusted(str(before)) as old:
        assert damage.of_file(now, "pjsip.conf", old) == why


def test_only_the_files_of_the_lost_stack_count(etc: Path, kept: Path) -> None:
    (etc / "sip.conf").write_text("[general]\n")
    (etc / "more.conf").write_text("[more]\n")
    files = kept / keep(etc, kept) / "files"

    def found(stack: str) -> list[str]:
        with Directory.trusted(str(etc)) as now, Directory.trusted(str(files)) as before:
            return damage.of_stack(now, before, {stack})

    assert found("PJSIP") == []
    (etc / "more.conf").write_text("")
    assert (found("PJSIP"), found("chan_sip")) == (["more.conf is empty"], [])
    (etc / "modules.conf").write_text("[modules]\n")  # new, and no damage
    assert found("chan_sip") == []
    (etc / "sip.conf").write_text("[gen")
    assert found("chan_sip") == ["sip.conf is cut off"]


def test_differences_in_words(etc: Path, kept: Path) -> None:
    (etc / "gone.conf").write_text("[gone]\n")
    files = kept / keep(etc, kept) / "files"
    (etc / "gone.conf").unlink()
    (etc / "pjsip.conf").write_text("")
    (etc / "new.conf").write_text("[new]\n")
    (etc / "sub/extra.conf").write_text("[extra]\nx=1\n")
    with Directory.trusted(str(etc)) as now, Directory.trusted(str(files)) as before:
        today, old = tree.read(now), tree.read(before)
        paths = damage.differences(today, old)
        assert damage.described(paths, today, old, now, before) == [
            "gone.conf is not there any more", "pjsip.conf is empty", "new.conf is new",
            "sub/extra.conf has changed"]
