"""Step 20: the replicated disk is made once, and never over anything."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from asha.bootstrap.action import Write
from asha.bootstrap.steps import drbd as drbd_step
from asha.cluster import drbd
from asha.cluster.secret import Secret
from asha.cluster.site import NodeConfig, Site
from asha.errors import UserError
from tests.fakes.machine import FakeMachine, Outcome

SECRET = Secret(bytes(range(32)))
SITE = Site(
    first=NodeConfig("crm1", "10.0.3.251", "", 1),
    second=NodeConfig("crm2", "10.0.3.252", "", 2),
    is_first=True,
    two_nics=True,
    virtual_address="192.168.1.90",
    lan_prefix=24,
    lan_nic="eth0",
    link_nic="eth1",
    link_prefix=24,
    device="/dev/sda5",
)
SECOND = dataclasses.replace(SITE, is_first=False)
FRESH = "0000000000000004:0:0:0:0:0:0:0:1:0:0:0:0:0:0:0\n"


def silent(text: str) -> None:
    pass


class Disk:
    """DRBD 9, as far as its programs show it. ``fs``: what is on /dev/drbd0."""

    def __init__(self, tmp_path: Path) -> None:
        self.fake = fake = FakeMachine(tmp_path)
        self.metadata = False
        self.up = False
        self.role = "Secondary"
        self.disk = "Inconsistent"
        self.peer = ("Connecting", "Unknown", "DUnknown")
        self.fs = ""
        self.on_partition = ""
        self.loaded = False
        self.enabled = {"drbd.service": True, "asha-recover.service": False}
        fake.on("modinfo -F version drbd", "9.2.8\n").on("modprobe drbd")
        fake.on("cibadmin --query", lambda argv, stdin: Outcome(code=0 if self.loaded else 105))
        fake.on("drbdsetup status asha --json", lambda argv, stdin: self._status())
        fake.on("drbdadm get-gi asha", lambda argv, stdin: (
            Outcome(FRESH) if self.metadata else Outcome(code=1)))
        fake.on("drbdadm --force create-md asha", lambda argv, stdin: self._create())
        fake.on("drbdadm up asha", lambda argv, stdin: self._up())
        fake.on("drbdadm down asha", lambda argv, stdin: self._down())
        fake.on("drbdadm primary", lambda argv, stdin: self._primary(argv))
        fake.on("blkid -p -o value -s TYPE /dev/drbd0", lambda argv, stdin: (
            Outcome(self.fs) if self.fs and self.role == "Primary" else Outcome(code=2)))
        fake.on("mkfs.ext4", lambda argv, stdin: self._mkfs(argv))
        fake.on("wipefs --noheadings", lambda argv, stdin: self.on_partition)
        fake.on("mkdir -p /drbd", lambda argv, stdin: self._mkdir())
        fake.on("drbdadm cstate", Outcome(code=10))
        fake.on("systemctl", self._systemctl)

    def _systemctl(self, argv: tuple[str, ...], stdin: str | None) -> Outcome:
        if argv[1] in ("enable", "disable"):
            self.enabled[argv[2]] = argv[1] == "enable"
            return Outcome()
        assert argv[1] == "is-enabled"
        return Outcome("enabled\n") if self.enabled[argv[2]] else Outcome("disabled\n", 1)

    def _status(self) -> Outcome:
        if not self.up:
            return Outcome("[]")
        connection, peer_role, peer_disk = self.peer
        replication = "Established" if connection == "Connected" else "Off"
        return Outcome(json.dumps([{
            "name": "asha", "role": self.role, "devices": [{"disk-state": self.disk}],
            "connections": [{"connection-state": connection, "peer-role": peer_role,
                             "peer_devices": [{"replication-state": replication,
                                               "peer-disk-state": peer_disk}]}],
        }]))

    def _create(self) -> Outcome:
        assert not self.metadata, "the metadata would be written over"
        assert self.fake.exists(drbd_step.NEW), (
            "a power cut now would leave a disk nobody may force"
        )
        self.metadata = True
        return Outcome()

    def _up(self) -> Outcome:
        if self.up or not self.metadata:
            return Outcome(code=10)
        self.up = True
        return Outcome()

    def _down(self) -> Outcome:
        self.up, self.role = False, "Secondary"
        return Outcome()

    def _primary(self, argv: tuple[str, ...]) -> Outcome:
        if "--force" in argv:
            self.disk = "UpToDate"
        if self.disk != "UpToDate":
            return Outcome(code=17, err="Need access to UpToDate data")
        self.role = "Primary"
        return Outcome()

    def _mkfs(self, argv: tuple[str, ...]) -> Outcome:
        assert argv[-1] == "/dev/drbd0"
        assert not self.fs, "the file system would be written over"
        assert self.role == "Primary"
        self.fs = "ext4"
        return Outcome()

    def _mkdir(self) -> Outcome:
        self.fake.path("/drbd").mkdir(exist_ok=True)
        return Outcome()

    def install(self, site: Site = SITE, stop_before: str = "") -> list[str]:
        """Do what is not done; the titles of that. ``stop_before`` is killed there."""
        done = []
        for action in drbd_step.actions(site, drbd.version(self.fake), SECRET):
            if not action.is_done(self.fake):
                if stop_before and action.title.startswith(stop_before):
                    break
                action.do(self.fake, silent)
                assert action.is_done(self.fake) or action.title == "load DRBD"
                done.append(action.title)
        return done


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    return Disk(tmp_path)


def test_the_first_node_makes_the_store(disk: Disk) -> None:
    disk.install()
    assert (disk.role, disk.disk, disk.fs) == ("Primary", "UpToDate", "ext4")
    assert disk.enabled == {"drbd.service": False, "asha-recover.service": True}
    assert disk.fake.path("/drbd").is_dir()
    assert disk.install() == []


def test_the_second_node_gets_it_and_forces_nothing(disk: Disk) -> None:
    disk.install(SECOND)
    assert disk.up
    assert not disk.fake.ran("drbdadm primary")
    assert not disk.fake.ran("mkfs.ext4")
    assert disk.install(SECOND) == []


def test_the_resource_file_is_root_s_and_never_shown(disk: Disk) -> None:
    [conf] = [action for action in drbd_step.actions(SITE, drbd.version(disk.fake), SECRET)
              if isinstance(action, Write)]
    assert (conf.path, conf.mode, conf.secret) == (drbd.CONF, 0o600, True)
    assert SECRET.drbd() in conf.text
    assert SECRET.drbd() not in conf.preview(disk.fake) + conf.script()


def test_drbd_8_gets_its_own_syntax(disk: Disk) -> None:
    disk.fake.on("modinfo -F version drbd", "8.4.11\n")
    disk.install(stop_before="prepare")
    assert disk.fake.read(drbd.CONF) == drbd.render(SITE, SECRET, "8.4.11")


def test_a_kernel_without_drbd(disk: Disk) -> None:
    disk.fake.on("modprobe drbd", Outcome(code=1, err="Module drbd not found"))
    with pytest.raises(UserError, match="not found") as trouble:
        disk.install()
    assert "linux-image" in trouble.value.hint


def test_a_partition_with_something_on_it_is_never_written_to(disk: Disk) -> None:
    disk.on_partition = "ext4\nLVM2_member\n"
    with pytest.raises(UserError, match="/dev/sda5 is not empty: ext4 and LVM2_member"):
        disk.install()
    assert not disk.metadata
    assert not disk.fake.exists(drbd_step.NEW)


@pytest.mark.parametrize("stop", ["prepare", "start", "the store's", "make the store"])
def test_cut_off_and_run_again(disk: Disk, stop: str) -> None:
    disk.install(stop_before=stop)
    disk.install()
    assert (disk.role, disk.fs) == ("Primary", "ext4")


def test_rebooted_before_the_cluster_has_the_store(disk: Disk) -> None:
    disk.install()
    # DRBD cannot ask the other whether it went on alone.
    disk.up, disk.role, disk.disk = False, "Secondary", "Consistent"
    disk.install()
    assert (disk.role, disk.fs) == ("Primary", "ext4")
    assert len(disk.fake.ran("mkfs.ext4")) == 1


def test_rebooted_between_first_primary_and_file_system(disk: Disk) -> None:
    disk.install(stop_before="make the store")
    disk.disk = "UpToDate"
    disk.up = False
    disk.install()
    assert disk.fs == "ext4"
    assert not any("--force" in call.argv for call in disk.fake.ran("drbdadm primary"))


def test_cut_off_within_up(disk: Disk) -> None:
    disk.install(stop_before="start")
    disk.up, disk.disk = True, "Diskless"
    down = disk._down

    def attaches_next_time(argv: tuple[str, ...], stdin: str | None) -> Outcome:
        disk.disk = "Inconsistent"
        return down()

    disk.fake.on("drbdadm down asha", attaches_next_time)
    disk.install()
    assert disk.fs == "ext4"


@pytest.mark.parametrize("peer", [
    ("Connected", "Primary", "UpToDate"),
    ("Connected", "Secondary", "UpToDate"),
])
def test_a_first_node_that_finds_a_store_at_the_other_is_none(
    disk: Disk, peer: tuple[str, str, str]
) -> None:
    disk.peer = peer
    with pytest.raises(UserError, match="crm2 has the store already") as trouble:
        disk.install()
    assert "PRIMARY=false" in trouble.value.hint
    assert not disk.fake.ran("drbdadm primary")


@pytest.mark.parametrize("state", ["Inconsistent", "Outdated", "Consistent"])
def test_a_disk_that_this_installation_did_not_make_is_not_forced(disk: Disk, state: str) -> None:
    disk.metadata, disk.disk = True, state
    with pytest.raises(UserError, match=f"is {state} here"):
        disk.install()
    assert not disk.fake.ran("drbdadm primary")


def test_another_file_system_on_the_replicated_disk_is_kept(disk: Disk) -> None:
    disk.fs = "xfs"
    with pytest.raises(UserError, match="has xfs on it"):
        disk.install()
    assert not disk.fake.ran("mkfs.ext4")


@pytest.mark.parametrize("site", [SITE, SECOND])
@pytest.mark.parametrize("state", ["Primary", "Secondary", "down"])
def test_nothing_is_left_to_do_once_pacemaker_has_it(
    disk: Disk, site: Site, state: str
) -> None:
    disk.install(site)
    disk.loaded = True
    disk.up = state != "down"
    disk.role = state if disk.up else "Secondary"
    assert disk.install(site) == []
