"""The cluster secret is changed on two nodes, cut off at every action and gone on with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from asha.bootstrap.join import accounts, rotation
from asha.bootstrap.steps import asterisk
from asha.cluster import cib, corosync, drbd, generation
from asha.cluster import secret as secrets
from asha.cluster import site as conf
from asha.cluster.secret import Secret
from asha.errors import UserError
from asha.rootwork import Directory
from tests.fakes.machine import FakeMachine, Outcome

OLD, NEW = Secret(bytes(range(32))), Secret(bytes(range(1, 33)))
TEXT = """\
PRIMARY={first}
CLUSTERIP=192.168.1.90
ANODENAME=crm1
ANODEIP=10.0.3.251
BNODENAME=crm2
BNODEIP=10.0.3.252
DRBDDEV=/dev/sda5
"""
SITES = {"crm1": conf.parse(TEXT.format(first="true")),
         "crm2": conf.parse(TEXT.format(first="false"))}
CRM_MON = """\
<pacemaker-result><summary><current_dc present="true" name="crm1" with_quorum="true"/></summary>
<nodes/><resources><resource id="p_asterisk" role="Started" active="true" managed="true"
failed="false"><node name="{active}"/></resource></resources></pacemaker-result>
"""


class CutOff(BaseException):
    """As by kill -9."""


class Asterisk:
    """It knows the accounts that were in its file when it last read it."""

    def __init__(self) -> None:
        self.known: set[str] = set()

    def read(self, text: str) -> None:
        self.known = {section for section, _ in accounts._sections(text) if section != ""}


class Node(FakeMachine):
    """A member, of which every change is counted and looked at."""

    def __init__(self, root: Path, name: str, pair: Pair) -> None:
        super().__init__(root)
        self.name, self.pair = name, pair
        self.site = SITES[name]
        self.put(secrets.PATH, OLD.text, 0o600)
        self.put(corosync.AUTHKEY, OLD.corosync_authkey(), 0o400)
        self.put(corosync.CONF, corosync.render(self.site, joined=True))
        self.put(drbd.CONF, drbd.render(self.site, OLD, "9.2.0"), 0o600)
        self.put(asterisk.SECRET_FILE, asterisk.own_text(OLD), 0o600)
        self.heard_by = OLD.corosync_authkey()
        self.drbd_secret = OLD.drbd()
        self.on("modinfo", "9.2.0").on("drbdsetup status", Outcome(code=10))
        self.on("drbdadm role", "Primary/Secondary\n").on("drbdadm dstate", "UpToDate/UpToDate\n")
        self.on("drbdadm cstate", lambda argv, stdin: f"{self.pair.connection}\n")
        self.on("drbdadm adjust asha", self._adjust)
        self.on("corosync-quorumtool -s", "Quorate:          Yes\n")
        self.on("corosync-cfgtool -R", lambda argv, stdin: self.pair.reload())
        self.on("corosync-cmapctl runtime.members.", lambda argv, stdin: self.pair.members())
        self.on("crm_attribute")
        self.on("crm_mon", lambda argv, stdin: CRM_MON.format(active=self.pair.active))
        self.on("asterisk -rx", self._asterisk)

    def _adjust(self, argv: tuple[str, ...], stdin: str | None) -> str:
        text = self.read(drbd.CONF) or ""
        self.drbd_secret = text.split('shared-secret "')[1].split('"')[0]
        return ""

    def _asterisk(self, argv: tuple[str, ...], stdin: str | None) -> str:
        assert argv == ("asterisk", "-rx", "manager reload")
        self.pair.asterisk.read(self.read("/etc/asterisk/asha_manager.conf") or "")
        return ""

    # Every change is a moment at which the power may fail.

    def write(self, inside: str, text: str, mode: int = 0o644, owner: str = "root",
              group: str = "") -> None:
        self.pair.moment()
        super().write(inside, text, mode, owner, group)
        self.pair.moment()

    def remove(self, inside: str) -> None:
        self.pair.moment()
        super().remove(inside)
        self.pair.moment()

    def run(self, *argv: str, **how: object) -> object:  # type: ignore[override]
        changes = argv[:2] in (("drbdadm", "adjust"), ("corosync-cfgtool", "-R"),
                               ("asterisk", "-rx"))
        if changes:
            self.pair.moment()
        done = super().run(*argv, **how)  # type: ignore[arg-type]
        if changes:
            self.pair.moment()
        return done


class Pair:
    def __init__(self, root: Path, active: str = "crm1") -> None:
        self.active, self.connection = active, "Connected"
        self.asterisk = Asterisk()
        self.moments, self.cut_at = 0, -1
        self.nodes: dict[str, Node] = {}
        for name in ("crm1", "crm2"):
            self.nodes[name] = Node(root / name, name, self)
        node = self.nodes[active]
        node.put("/etc/asterisk/manager.conf", "[general]\nenabled=yes\n#include asha_manager.conf")
        node.put("/etc/asterisk/asha_manager.conf", asterisk.HEADER + asterisk.ACCOUNT_TEXT.format(
            user=asterisk.user(OLD), secret=OLD.ami()))
        self.asterisk.read(node.read("/etc/asterisk/asha_manager.conf") or "")

    def moment(self) -> None:
        for node in self.nodes.values():
            said = dict(line.split("=") for line in (node.read(asterisk.SECRET_FILE) or "").split())
            assert said["user"] in self.asterisk.known, "a monitor would be refused"
            on_disk = self.nodes[self.active].read("/etc/asterisk/asha_manager.conf") or ""
            assert f"[{said['user']}]" in on_disk, "a monitor would be refused after a fail-over"
        assert len({node.heard_by for node in self.nodes.values()}) == 1, "not heard"
        self.moments += 1
        if self.moments == self.cut_at:
            raise CutOff

    def reload(self) -> str:
        """Both read the key's file anew, whichever is told."""
        for node in self.nodes.values():
            node.heard_by = node.read(corosync.AUTHKEY) or ""
        return "Done\n"

    def members(self) -> str:
        return "".join(f"runtime.members.{number}.status (str) = joined\n" for number in (1, 2))

    def walk(self, name: str) -> None:
        """What asha secret rotate does on that node when both have the new secret."""
        here = self.nodes[name]
        other = next(node for node in self.nodes.values() if node is not here)
        secret = generation.pending(here) or generation.current(here)
        assert secret is not None

        def elsewhere(step: str) -> None:
            rotation.apply(step, other, other.site, rotation.find(other, secret.key_id()))

        if generation.current(here) != secret or not rotation.is_applied(here, secret):
            rotation.begin(here, here.site, secret)
        rotation.Walk(here, here.site, secret, lambda text: None, elsewhere).run()

    def require_done(self) -> None:
        for node in self.nodes.values():
            assert node.read(secrets.PATH) == NEW.text
            assert not node.exists(generation.PENDING)
            assert rotation.is_applied(node, NEW)
            assert node.heard_by == NEW.corosync_authkey()
            assert node.drbd_secret == NEW.drbd()
            for path in (secrets.PATH, asterisk.SECRET_FILE, drbd.CONF, corosync.AUTHKEY):
                assert node.path(path).stat().st_mode & 0o077 == 0
        assert self.asterisk.known == {asterisk.user(NEW)}

    def begin(self) -> None:
        for node in self.nodes.values():
            rotation.begin(node, node.site, NEW)


@pytest.fixture(autouse=True)
def _login(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pair's Asterisk takes who it knows; what is written for it is a moment too."""
    monkeypatch.setattr(accounts, "login_problem", lambda who: "")


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Pair]:
    count = 0
    write = Directory.write

    def one(active: str) -> Pair:
        nonlocal count
        count += 1
        pair = Pair(tmp_path / str(count), active)

        def counted(self: Directory, name: str, data: bytes, **how: Any) -> None:
            pair.moment()
            write(self, name, data, **how)
            pair.moment()

        monkeypatch.setattr(Directory, "write", counted)
        return pair

    return one


def moments(make: Callable[[str], Pair]) -> int:
    pair = make("crm1")
    pair.begin()
    before = pair.moments
    pair.walk("crm2")
    pair.require_done()
    return pair.moments - before


@pytest.mark.parametrize("active", ["crm1", "crm2"])
@pytest.mark.parametrize("goes_on", ["crm1", "crm2"])
def test_cut_off_at_every_action_and_gone_on_with(make: Callable[[str], Pair], active: str,
                                                  goes_on: str) -> None:
    count = moments(make)
    assert count > 20
    for number in range(1, count + 1):
        pair = make(active)
        pair.begin()
        pair.cut_at = pair.moments + number
        with pytest.raises(CutOff):
            pair.walk("crm2")
        pair.walk(goes_on)
        pair.require_done()
        # And once more changes nothing.
        pair.walk(goes_on)
        pair.require_done()


def test_disks_that_parted_in_between_are_connected_again(make: Callable[[str], Pair]) -> None:
    pair = make("crm1")
    pair.begin()
    pair.connection = "StandAlone"
    pair.walk("crm1")
    for node in pair.nodes.values():
        assert len(node.ran("drbdadm adjust asha")) == 2


def test_alone(make: Callable[[str], Pair]) -> None:
    pair = make("crm1")
    node = pair.nodes["crm1"]
    pair.nodes.pop("crm2")
    rotation.begin(node, node.site, NEW)
    rotation.Walk(node, node.site, NEW, lambda text: None).run()
    pair.require_done()
    assert node.clock >= rotation.MONITOR_SECONDS


def test_the_telephones_are_waited_for(make: Callable[[str], Pair]) -> None:
    pair = make("crm1")
    pair.begin()
    pair.nodes["crm1"].on("crm_mon", [CRM_MON.format(active=""), Outcome(code=102),
                                      CRM_MON.format(active="crm1")])
    pair.walk("crm1")
    pair.require_done()


def test_what_was_not_done_is_told_and_everything_else_is(make: Callable[[str], Pair]) -> None:
    pair = make("crm1")
    node = pair.nodes["crm1"]
    pair.nodes.pop("crm2")
    rotation.begin(node, node.site, NEW)
    node.on("crm_mon", CRM_MON.format(active=""))
    with pytest.raises(UserError, match="the telephones do not run") as trouble:
        rotation.Walk(node, node.site, NEW, lambda text: None).run()
    assert "asha secret rotate goes on" in trouble.value.hint
    # A node that was removed is kept out already.
    assert node.heard_by == NEW.corosync_authkey()
    assert generation.pending(node) == NEW
    node.on("crm_mon", CRM_MON.format(active="crm1"))
    rotation.Walk(node, node.site, NEW, lambda text: None).run()
    pair.require_done()


def test_a_node_that_is_lost_is_told(make: Callable[[str], Pair]) -> None:
    pair = make("crm1")
    pair.begin()
    one = "runtime.members.1.status (str) = joined\n"
    pair.nodes["crm2"].on("corosync-cmapctl runtime.members.", [pair.members(), one])
    with pytest.raises(UserError, match="crm1 is lost"):
        pair.walk("crm2")


def test_an_account_that_asterisk_does_not_take(make: Callable[[str], Pair],
                                                monkeypatch: pytest.MonkeyPatch) -> None:
    pair = make("crm1")
    pair.begin()
    monkeypatch.setattr(accounts, "login_problem", lambda who: "refused")
    with pytest.raises(UserError, match=f"the new account {asterisk.user(NEW)}: refused"):
        pair.walk("crm1")
    # The old ones are in use as before.
    assert all(
        node.read(asterisk.SECRET_FILE) == asterisk.own_text(OLD) for node in pair.nodes.values()
    )
    assert asterisk.user(OLD) in pair.asterisk.known


def test_only_what_a_node_has_is_applied(make: Callable[[str], Pair]) -> None:
    node = make("crm1").nodes["crm1"]
    assert rotation.find(node, OLD.key_id()) == OLD
    with pytest.raises(UserError):
        rotation.find(node, NEW.key_id())
    rotation.begin(node, node.site, NEW)
    assert rotation.find(node, NEW.key_id()) == NEW
    # While it is changed nobody goes back to the old one.
    with pytest.raises(UserError):
        rotation.find(node, OLD.key_id())


def test_generations_are_told(make: Callable[[str], Pair]) -> None:
    node = make("crm1").nodes["crm1"]
    assert generation.text(node) == OLD.key_id()
    rotation.begin(node, node.site, NEW)
    assert node.lines[-1] == (f"crm_attribute --node crm1 --name asha-secret "
                              f"--update {OLD.key_id()}>{NEW.key_id()}")
    for hidden in (OLD.typed, NEW.typed, NEW.ami(), NEW.drbd(), NEW.corosync_authkey()):
        assert not any(hidden in line for line in node.lines)


def test_a_secret_changed_by_hand(make: Callable[[str], Pair]) -> None:
    node = make("crm1").nodes["crm1"]
    rotation.require_in_use(node, OLD)
    with pytest.raises(
        UserError, match="not the secret that this node's keys are made of"
    ) as wrong:
        rotation.require_in_use(node, NEW)
    assert "asha secret rotate" in wrong.value.hint
    kept = node.put(cib.MARKER).read(secrets.PATH) or ""
    node.remove(secrets.PATH)
    for secret in (None, NEW):
        with pytest.raises(UserError, match="secret is missing"):
            rotation.require_in_use(node, secret)
    node.put(secrets.PATH, kept, 0o600)
    rotation.begin(node, node.site, NEW)
    with pytest.raises(UserError, match="not finished"):
        rotation.require_in_use(node, OLD)
    # A machine on which Corosync is Debian's, or nobody's.
    bare = FakeMachine(node.root / "bare").put(corosync.AUTHKEY, "somebody's")
    rotation.require_in_use(bare, NEW)
    rotation.require_in_use(bare, None)


def test_a_manager_file_that_sark_wrote_anew_gets_our_line(make: Callable[[str], Pair]) -> None:
    pair = make("crm1")
    node = pair.nodes["crm1"]
    node.put("/etc/asterisk/manager.conf", "[general]\nenabled=yes")
    accounts.add(node, NEW)
    accounts.add(node, NEW)
    assert node.read("/etc/asterisk/manager.conf") == (
        "[general]\nenabled=yes\n#include asha_manager.conf\n")
    text = node.read("/etc/asterisk/asha_manager.conf") or ""
    assert text.count(f"[{asterisk.user(NEW)}]") == text.count(f"[{asterisk.user(OLD)}]") == 1
    assert node.path("/etc/asterisk/asha_manager.conf").stat().st_mode & 0o777 == 0o640


def test_what_switches_the_manager_on_stays(make: Callable[[str], Pair]) -> None:
    node = make("crm1").nodes["crm1"]
    enable = asterisk.ENABLE_TEXT.format(add="(+)")
    node.put("/etc/asterisk/asha_manager.conf", asterisk.HEADER + enable
             + asterisk.ACCOUNT_TEXT.format(user="asha", secret=OLD.ami()))
    # As an earlier release has named it, on both nodes.
    node.pair.asterisk.known.add("asha")
    for one in node.pair.nodes.values():
        one.put(asterisk.SECRET_FILE, f"user=asha\nsecret={OLD.ami()}\n", 0o600)
    accounts.add(node, NEW)
    for one in node.pair.nodes.values():
        one.put(asterisk.SECRET_FILE, asterisk.own_text(NEW), 0o600)
    accounts.drop_others(node, NEW)
    text = node.read("/etc/asterisk/asha_manager.conf") or ""
    assert text == asterisk.HEADER + enable + asterisk.ACCOUNT_TEXT.format(
        user=asterisk.user(NEW), secret=NEW.ami())


def test_a_link_in_asterisks_directory_is_not_followed(make: Callable[[str], Pair]) -> None:
    node = make("crm1").nodes["crm1"]
    shadow = node.put("/etc/shadow", "root's").path("/etc/shadow")
    place = node.path("/etc/asterisk/asha_manager.conf")
    place.unlink()
    place.symlink_to(shadow)
    with pytest.raises(UserError, match="symbolic link"):
        rotation.apply("ami-add", node, SITES["crm1"], NEW)
    assert shadow.read_text() == "root's"


