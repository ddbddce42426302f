"""A start with today's files fails on both nodes: the next is made with those that served."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import pytest

from asha.asterisk import astdb, hindrance
from asha.asterisk.lastgood import generations, policy, tree
from asha.ocf import Exit
from tests.fakes.asterisk import LOADING
from tests.fakes.ocf import Outcome
from tests.unit.asterisk_health.pbx import AUTO, DEEP, DEEPEST, Pbx
from tests.unit.asterisk_health.test_sip_sockets import NO_CHAN_SIP, chan_sip, pjsip, says

GOOD = "[transport]\ntype=transport\n"


class Site:
    """A PBX whose Asterisk reads this etc, and does not start with an empty pjsip.conf."""

    def __init__(self, pbx: Pbx, folder: Path) -> None:
        self.pbx = pbx
        self.etc = folder / "etc"
        self.etc.mkdir()
        self.kept = folder / "last-good"
        self.peer = ""
        self.given = {"when_misconfigured": "last-good", "last_good_directory": str(self.kept)}
        self.write(GOOD)
        used: list[str] = []
        self.used = used
        etc = self.etc

        class Reading(pbx.launcher):  # type: ignore[name-defined, misc]
            dies = False

            def launch(self) -> None:
                used.append(self._files)
                files = Path(self._files or etc)
                self.dies = not (files / "pjsip.conf").read_text()
                if not self.dies:
                    super().launch()

            def verdict_on_death(self) -> str | None:
                return "it has no transport" if self.dies else super().verdict_on_death()

            def last_end(self) -> dict[str, str]:
                return Site.ended

        pbx.agent.launcher_class = Reading

    # How it ended, in systemd's words.
    ended: ClassVar[dict[str, str]] = {}

    def write(self, text: str) -> None:
        (self.etc / "pjsip.conf").write_text(text)

    def act(self, action: str, depth: int | None = None, **more: str) -> Outcome:
        return self.pbx.act(action, depth, {**self.given, **more})

    def start(self, **more: str) -> Outcome:
        outcome = self.act("start", None, **more)
        if outcome.code:
            assert self.act("stop").code == Exit.SUCCESS
        return outcome

    def serve(self, **more: str) -> None:
        """A start, and a monitor that finds it has served."""
        outcome = self.act("start", None, **more)
        assert outcome.code == Exit.SUCCESS, outcome.err
        seen = self.act("monitor", DEEP, **more)
        assert seen.code == Exit.SUCCESS, seen.err

    def fails_on_peer(self) -> None:
        """The same files have failed there too: the store is the same."""
        path = self.kept / "failed"
        digest = path.read_text().split()[0]
        path.write_text(path.read_text() + f"{digest} crm9 today 3\n")


@pytest.fixture
def site(pbx: Pbx, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    made = Site(pbx, tmp_path)
    monkeypatch.setattr(policy, "ETC", str(made.etc))
    monkeypatch.setattr(astdb, "ETC", str(made.etc))
    from asha.agents import asterisk_health

    monkeypatch.setattr(asterisk_health, "SERVED_SECONDS", 0.0)
    monkeypatch.setattr(asterisk_health.AsteriskHealth, "peer_available",
                        lambda agent: bool(made.peer))
    return made


def told(site: Site) -> str:
    """What the node attribute has been given to say."""
    files = list(site.pbx.state.glob("*.degraded"))
    return files[0].read_text() if files else ""


def test_files_that_change_before_each_start(site: Site) -> None:
    """Whoever does it: the kept ones serve at last, and the next start is today's again."""
    site.serve()
    assert site.act("stop").code == Exit.SUCCESS
    site.peer = "crm2"
    site.write("")
    for number in range(generations.CHANGING):
        (site.etc / "time.conf").write_text(f"; {number}\n")
        assert site.start().code == Exit.ERR_GENERIC
    assert not any(site.used)
    (site.etc / "time.conf").write_text("; now\n")
    assert site.start().code == Exit.SUCCESS
    assert site.used[-1]
    assert "files that change all the time" in told(site)
    assert site.act("stop").code == Exit.SUCCESS
    site.write(GOOD + "; repaired\n")
    site.serve()
    assert site.used[-1] == ""


def test_what_served_is_kept_once(site: Site) -> None:
    site.serve()
    (made,) = site.kept.iterdir()
    assert (made / "files/pjsip.conf").read_text() == GOOD
    before = made.stat().st_mtime_ns
    assert site.act("monitor", DEEP).code == Exit.SUCCESS
    assert site.act("stop").code == Exit.SUCCESS
    site.serve()
    assert [one.name for one in site.kept.iterdir()] == [made.name]
    assert made.stat().st_mtime_ns == before


def test_not_before_it_has_served(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    from asha.agents import asterisk_health

    monkeypatch.setattr(asterisk_health, "SERVED_SECONDS", 1000.0)
    site.serve()
    assert not site.kept.exists()


def test_what_changed_after_the_start_is_not_kept(site: Site) -> None:
    assert site.start().code == Exit.SUCCESS
    site.write("[half")
    outcome = site.act("monitor", DEEP)
    assert outcome.code == Exit.SUCCESS
    assert "has changed since Asterisk was started" in outcome.err
    assert not site.kept.exists()


def test_what_changes_while_it_loads_is_not_kept(site: Site) -> None:
    """It may have been read before."""

    class Late(site.pbx.agent.launcher_class):  # type: ignore[name-defined, misc]
        def launch(self) -> None:
            super().launch()
            site.write("[half")

    site.pbx.agent.launcher_class = Late
    site.serve()
    assert not site.kept.exists()


def test_both_nodes_fail_and_the_kept_files_serve(site: Site) -> None:
    site.serve()
    assert site.act("stop").code == Exit.SUCCESS
    site.peer = "crm2"
    site.write("")
    for _ in range(2):  # the other node has not tried
        assert site.start().code == Exit.ERR_GENERIC
    site.fails_on_peer()
    outcome = site.start(evidence_keep="20")
    assert outcome.code == Exit.SUCCESS, outcome.err
    (made,) = [one for one in site.kept.iterdir() if one.is_dir()]
    assert site.used == ["", "", "", str(made / "files")]
    assert "pjsip.conf is empty" in told(site)
    assert "crm resource restart" in told(site)
    assert (site.etc / "pjsip.conf").read_text() == ""
    (event,) = Path(f"{site.pbx.state}-evidence").iterdir()
    assert "-[transport]" in (event / "changes.txt").read_text()
    assert "Why: Asterisk runs with" in (event / "summary.txt").read_text()
    # A monitor tells it, and keeps nothing of what was kept.
    assert site.act("monitor", DEEP).code == Exit.SUCCESS
    for _ in range(2):
        seen = site.act("monitor", DEEPEST)
        assert seen.code == Exit.DEGRADED
        assert "the last that served" in seen.reason
    assert (site.kept / "failed").exists()
    # No further failure is needed to know.
    assert site.act("stop").code == Exit.SUCCESS
    assert site.start().code == Exit.SUCCESS
    assert site.used[-1]
    # Repaired: they are tried, and count from then on.
    assert site.act("stop").code == Exit.SUCCESS
    site.write(GOOD + "; repaired\n")
    site.serve()
    assert site.used[-1] == ""
    assert site.act("monitor", DEEPEST).code == Exit.SUCCESS
    assert not (site.kept / "failed").exists()


def test_a_node_alone_needs_one_failure(site: Site) -> None:
    site.serve()
    assert site.act("stop").code == Exit.SUCCESS
    site.write("")
    assert [site.start().code for _ in range(2)] == [Exit.ERR_GENERIC, Exit.SUCCESS]


def test_it_can_be_switched_off(site: Site) -> None:
    site.serve()
    assert site.act("stop").code == Exit.SUCCESS
    site.write("")
    for _ in range(4):
        assert site.start(when_misconfigured="fail").code == Exit.ERR_GENERIC
    assert not (site.kept / "failed").exists()
    site.write(GOOD + "; other\n")
    site.serve(when_misconfigured="fail")
    assert len(list(site.kept.iterdir())) == 1


def lacks_memory(site: Site) -> None:
    site.write("")
    Site.ended = {"MONITOR_EXIT_CODE": "killed", "MONITOR_EXIT_STATUS": "KILL"}


def held_up(site: Site) -> None:
    site.write("")
    base = "/var/lib/asterisk/astdb.sqlite3 is a directory and no file: remove it"
    site.pbx.agent._what_holds = lambda agent, process: [base]  # type: ignore[assignment]


@pytest.mark.parametrize("happens", [lacks_memory, held_up])
def test_what_is_no_fault_of_the_files(
    site: Site, monkeypatch: pytest.MonkeyPatch, happens: Callable[[Site], None]
) -> None:
    monkeypatch.setattr(Site, "ended", {})
    site.serve()
    assert site.act("stop").code == Exit.SUCCESS
    happens(site)
    for _ in range(3):
        assert site.start().code == Exit.ERR_GENERIC
    assert not any(site.used)


def test_a_fifo_elsewhere_hides_no_damage(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asterisk waits at one, and does not end; who can damage its files can make one anywhere."""
    base = "/var/lib/asterisk/astdb.sqlite3 is a "
    found = ["/var/log/asterisk/x is a FIFO, at which Asterisk waits: rm /var/log/asterisk/x",
             f"{base} is a FIFO, at which Asterisk waits: rm {base}",
             "looking at Asterisk's files did not end within 0.5 s"]
    monkeypatch.setattr(hindrance, "odd_files", lambda *_: list(found))
    site.serve()
    assert site.act("stop").code == Exit.SUCCESS
    site.write("")
    assert [site.start().code for _ in range(2)] == [Exit.ERR_GENERIC, Exit.SUCCESS]
    assert site.used[-1]


@pytest.mark.parametrize("much", ["a large file", "many files"])
def test_what_is_too_much_to_read_hides_no_damage(
    site: Site, monkeypatch: pytest.MonkeyPatch, much: str
) -> None:
    site.serve()
    assert site.act("stop").code == Exit.SUCCESS
    site.write("")
    if much == "a large file":
        with (site.etc / "backup.tar").open("wb") as file:
            file.truncate(1 << 40)
    else:
        monkeypatch.setattr(tree, "NAMES_MOST", 4)
        for number in range(6):
            (site.etc / f"{number}.conf").touch()
    assert [site.start().code for _ in range(2)] == [Exit.ERR_GENERIC, Exit.SUCCESS]
    assert site.used[-1]
    assert "MB" in told(site) if much == "a large file" else "4 files" in told(site)
    assert site.act("stop").code == Exit.SUCCESS
    # Repaired, though as much as before: today's.
    site.write(GOOD + "; repaired\n")
    if much == "a large file":
        assert site.start().code == Exit.SUCCESS
        assert site.used[-1] == ""


def test_todays_files_are_tried_as_they_are_by_the_command_that_is_told(site: Site) -> None:
    """What was wrong was elsewhere: a package, what a link leads to."""
    site.serve()
    assert site.act("stop").code == Exit.SUCCESS
    site.write("")
    assert [site.start().code for _ in range(2)] == [Exit.ERR_GENERIC, Exit.SUCCESS]
    command = told(site).partition("tried as they are: ")[2].partition(")")[0]
    assert command == f"rm {site.kept}/failed"
    Path(command.removeprefix("rm ")).unlink()
    assert site.act("stop").code == Exit.SUCCESS
    site.start()
    assert site.used[-1] == ""


def test_who_starts_it_by_hand_has_todays_files(site: Site) -> None:
    """After a stop."""
    site.serve()
    assert site.act("stop").code == Exit.SUCCESS
    site.write("")
    assert [site.start().code for _ in range(2)] == [Exit.ERR_GENERIC, Exit.SUCCESS]
    wanted: list[str] = []

    class Asked(site.pbx.agent.launcher_class):  # type: ignore[name-defined, misc]
        def use(self, files: str) -> None:
            wanted.append(files)
            super().use(files)

    site.pbx.agent.launcher_class = Asked
    assert site.act("stop").code == Exit.SUCCESS
    assert wanted == [""]


def test_a_store_that_others_can_write_is_told_with_the_command(site: Site) -> None:
    above = site.kept.parent / "open"
    above.mkdir()
    above.chmod(0o777)
    given = {"last_good_directory": str(above / "last-good/x")}
    (above / "last-good").mkdir()
    os.chown(above, os.geteuid(), os.getegid())
    site.serve(**given)
    seen = site.act("monitor", DEEPEST, **given)
    assert seen.code == Exit.DEGRADED
    assert f"chmod go-w {above}" in seen.err


def test_evidence_of_many_contents_has_an_end(site: Site) -> None:
    """Each content that does not start has its own, and who changes files makes many."""
    site.serve()
    assert site.act("stop").code == Exit.SUCCESS
    place = Path(f"{site.pbx.state}-evidence")
    for number in range(10, 15):
        (place / f"20260101-0000{number}-7").mkdir(parents=True)
    site.write("")
    assert site.start().code == Exit.ERR_GENERIC
    outcome = site.start(evidence_keep="2")
    assert outcome.code == Exit.SUCCESS, outcome.err
    left = sorted(one.name for one in place.iterdir())
    assert left[0] == "20260101-000014-7"
    assert len(left) == 2
    assert (place / left[1] / "changes.txt").exists()


def test_a_store_that_takes_no_file_more(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full one is how half-written files come about."""
    site.serve()
    assert site.act("stop").code == Exit.SUCCESS
    site.peer = "crm2"
    site.write("")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(generations, "add_failure", full)
        for _ in range(policy.TRIES):
            outcome = site.start()
            assert outcome.code == Exit.ERR_GENERIC
            assert "only this node remembers" in outcome.err
        assert site.start().code == Exit.SUCCESS
        assert site.used[-1]
    # The command that is told has today's tried again.
    command = told(site).partition("tried as they are: ")[2].partition(")")[0].split()
    assert command[:2] == ["rm", "-f"]
    assert site.act("stop").code == Exit.SUCCESS
    for path in command[2:]:
        Path(path).unlink(missing_ok=True)
    assert site.start().code == Exit.ERR_GENERIC
    assert site.used[-1] == ""


def test_names_of_any_bytes_and_length_keep_no_start(site: Site) -> None:
    site.serve()
    assert site.act("stop").code == Exit.SUCCESS
    site.write("")
    folder = os.fsencode(site.etc)
    for number in range(3):
        folder += b"/" + str(number).encode() + b"\xff\n\x1b[2J" * 30
        os.mkdir(folder)
        with open(folder + b"/\xfe" + b"x" * 200, "wb"):
            pass
    assert [site.start().code for _ in range(2)] == [Exit.ERR_GENERIC, Exit.SUCCESS]
    assert site.used[-1]
    assert len(told(site)) < 1200
    assert "crm resource restart p_test" in told(site)
    assert site.act("monitor", DEEPEST).code == Exit.DEGRADED


@pytest.mark.parametrize(("found", "serves"), [
    (["/etc/asterisk/x.conf is a FIFO, at which Asterisk waits: rm /etc/asterisk/x.conf"], True),
    (["it has started sleep (7); does #exec in its configuration wait for that?"], True),
    (["asterisk (7) waits for who opens the other end of a FIFO"], True),
    (["/var/log/asterisk/full is a FIFO, at which Asterisk waits"], False),
    ([], False),
])
def test_what_it_waits_for_while_it_loads(
    site: Site, monkeypatch: pytest.MonkeyPatch, found: list[str], serves: bool
) -> None:
    """A time-out alone is a busy machine's, or a disk's."""
    site.serve()
    assert site.act("stop").code == Exit.SUCCESS
    site.write("#exec /bin/wait\n")
    monkeypatch.setattr(site.pbx.launcher, "clears", False)
    monkeypatch.setattr(hindrance, "odd_files", lambda *_: [])
    monkeypatch.setattr(hindrance, "waits_for", lambda *_: found)
    flag = site.pbx.run / f"silent-{LOADING}"
    flag.touch()
    outcome = site.pbx.act("start", given=site.given, timeout=3)
    assert outcome.code == Exit.ERR_GENERIC
    assert "loading its modules" in outcome.reason
    assert site.act("stop").code == Exit.SUCCESS
    flag.unlink()
    assert site.start().code == Exit.SUCCESS
    assert bool(site.used[-1]) is serves


def test_files_that_have_served_are_not_to_blame(site: Site) -> None:
    site.write("x")
    site.serve()
    assert site.act("stop").code == Exit.SUCCESS

    class Dying(site.pbx.agent.launcher_class):  # type: ignore[name-defined, misc]
        def launch(self) -> None:
            site.used.append(self._files)

        def verdict_on_death(self) -> str:
            return "its disk is full"

    site.pbx.agent.launcher_class = Dying
    for _ in range(4):
        assert site.start().code == Exit.ERR_GENERIC
    assert not any(site.used)
    assert not (site.kept / "failed").exists()


def test_kept_files_that_fail_too_are_tried_in_turns(site: Site) -> None:
    site.serve()
    assert site.act("stop").code == Exit.SUCCESS
    (made,) = site.kept.iterdir()
    site.write("")
    (made / "files/pjsip.conf").write_text("")
    said = [site.start() for _ in range(5)]
    assert {one.code for one in said} == {Exit.ERR_GENERIC}
    assert [bool(one) for one in site.used[1:]] == [False, True, False, True, False]
    assert "does not start either" in said[1].reason


def test_a_stack_that_is_lost_by_damage(site: Site) -> None:
    pbx = site.pbx
    (site.etc / "sip.conf").write_text("[general]\n")
    says(pbx, pjsip(pbx.sip_port), chan_sip(pbx.sip_port))
    site.serve(**AUTO)
    assert "chan_sip" in next(site.kept.glob("*/about")).read_text()
    assert site.act("stop").code == Exit.SUCCESS
    says(pbx, pjsip(pbx.sip_port), NO_CHAN_SIP)
    (site.etc / "sip.conf").write_text("[gener")
    outcome = site.start(**AUTO)
    assert outcome.code == Exit.ERR_GENERIC
    assert "Asterisk has lost SIP: sip.conf is cut off (chan_sip on udp port" in outcome.err
    outcome = site.start(**AUTO)
    assert outcome.code == Exit.SUCCESS, outcome.err
    assert site.used[-1]
    assert site.act("stop").code == Exit.SUCCESS
    # Some SIP is better than none: should the kept files fail, today's are not refused again.
    (made,) = [one for one in site.kept.iterdir() if one.is_dir()]
    (made / "files/pjsip.conf").write_text("")
    assert [site.start(**AUTO).code for _ in range(2)] == [Exit.ERR_GENERIC, Exit.SUCCESS]
    assert site.used[-1] == ""
    # That is told, and is no measure for the next start.
    assert site.act("monitor", DEEP, **AUTO).code == Exit.SUCCESS
    seen = site.act("monitor", DEEPEST, **AUTO)
    assert seen.code == Exit.DEGRADED
    assert "Asterisk has lost SIP: sip.conf is cut off" in seen.err
    assert [one for one in site.kept.iterdir() if one.is_dir()] == [made]


def test_a_stack_that_somebody_has_removed(site: Site) -> None:
    pbx = site.pbx
    (site.etc / "sip.conf").write_text("[general]\n")
    says(pbx, pjsip(pbx.sip_port), chan_sip(pbx.sip_port))
    site.serve(**AUTO)
    assert site.act("stop").code == Exit.SUCCESS
    says(pbx, pjsip(pbx.sip_port), NO_CHAN_SIP)
    (site.etc / "sip.conf").unlink()
    (site.etc / "extensions.conf").write_text("")
    outcome = site.start(**AUTO)
    assert outcome.code == Exit.SUCCESS, outcome.err
    assert "so somebody means it" in outcome.err


@pytest.mark.parametrize("trouble", ["room", "elsewhere"])
def test_what_cannot_be_kept_is_told(
    site: Site, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    if trouble == "room":
        monkeypatch.setattr(generations, "ROOM", 1 << 60)
    else:
        (site.etc / "asterisk.conf").write_text("[directories]\nastetcdir => /srv/etc\n")
    site.serve()
    seen = site.act("monitor", DEEPEST)
    assert seen.code == Exit.DEGRADED
    words = {"room": "has no room", "elsewhere": "are in /srv/etc (astetcdir)"}
    assert words[trouble] in seen.err
    # The next monitor does not try again, and a stop forgets it.
    assert "warning" not in site.act("monitor", DEEP).err.lower()
    assert site.act("stop").code == Exit.SUCCESS
    assert site.act("start").code == Exit.SUCCESS
    assert site.act("monitor", DEEPEST).code == Exit.SUCCESS


def test_a_path_that_systemd_would_read_otherwise(site: Site) -> None:
    outcome = site.act("start", last_good_directory="/drbd/last good:%n")
    assert outcome.code == Exit.ERR_CONFIGURED
    assert site.used == []
