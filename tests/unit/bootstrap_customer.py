"""A customer's machine on paper: live data, systemd, a store that can be mounted, rsync."""

from __future__ import annotations

import os
import pwd
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from asha.bootstrap.host import data_directories, processes, services
from asha.bootstrap.takeover import state as records
from asha.cluster import cib
from asha.cluster.site import Site, site_of
from asha.data import owners
from tests.fakes.machine import FakeMachine, Outcome

ROOT_MOUNT = "1 0 254:0 / / rw,relatime - ext4 /dev/vda rw\n"
STORE_MOUNT = "2 1 147:0 / /drbd rw,noatime - ext4 /dev/drbd0 rw\n"
SERVICES = ("asterisk.service", "apache2.service", "mariadb.service")
LOADED = '<cib><resources><primitive id="p_asterisk"/></resources></cib>'

FILES = {
    "/etc/asterisk/manager.conf": "[general]\nenabled = yes\nbindaddr = 0.0.0.0\n",
    "/etc/asterisk/extensions.conf": "[lab]\n",
    "/var/lib/asterisk/agi-bin/x": "#!/bin/sh\n",
    "/var/log/asterisk/messages": "old\n",
    "/var/lib/mysql/ibdata1": "database " * 100,
}


def site(first: bool = True, **more: str) -> Site:
    return site_of({
        "PRIMARY": "true" if first else "false", "CLUSTERIP": "192.168.1.90",
        "ANODENAME": "crm1", "ANODEIP": "10.0.3.251", "BNODENAME": "crm2",
        "BNODEIP": "10.0.3.252", "DRBDDEV": "/dev/sda5", **more,
    })


class Customer(FakeMachine):
    """``running`` and ``enabled`` are systemd's; ``said`` is what a person would see."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.running = {*SERVICES, "cron.service", "mariadb.socket"}
        self.enabled = {*SERVICES, "cron.service"}
        self.existing = {*SERVICES, "cron.service", "mariadb.socket", *services.CLUSTER}
        self.broken: set[str] = set()
        self.said: list[str] = []
        self.rsyncs = 0
        self.on_rsync: Callable[[], object] = lambda: None
        self.store_busy = False
        for path, text in FILES.items():
            self.put(path, text)
        database = self.path("/opt/sark/db/sark.db")
        database.parent.mkdir(parents=True)
        link = sqlite3.connect(database)
        link.execute("CREATE TABLE globals (pkey TEXT, BINDADDR TEXT, HACLUSTERIP TEXT, "
                     "STATICIPV4 TEXT)")
        link.execute("INSERT INTO globals VALUES ('global', 'OFF', '', '')")
        link.commit()
        link.close()
        os.symlink("extensions.conf", self.path("/etc/asterisk/link"))
        self.put("/proc/self/mountinfo", ROOT_MOUNT)
        self.put(records.BOOT, "boot-1\n")
        self.absent("cibadmin", "sv")
        self.on("systemctl show", self._show)
        self.on("systemctl is-enabled", self._is_enabled)
        self.on("systemctl is-active", Outcome("inactive\n", 3))
        for verb in ("start", "stop", "enable", "disable", "try-restart"):
            self.on(f"systemctl {verb}", self._verb)
        self.on("systemd-run").on("sync").on("drbdadm role", "Primary\n")
        self.on("drbdadm secondary").on("mount", self._mount).on("umount", self._umount)
        self.on("setpriv --pdeathsig KILL rsync", self._rsync)

    def say(self, text: str) -> None:
        self.said.append(text)

    def load_cib(self) -> None:
        self.put(cib.ON_DISK, LOADED)

    def is_as_before(self) -> bool:
        """Every file where it was, every service as it was, nothing remembered."""
        here = all(self.read(path) == text for path, text in FILES.items())
        runs = self.running >= set(SERVICES) and self.enabled >= set(SERVICES)
        return here and runs and not self.exists(records.RECORD) and not self.is_mounted

    @property
    def is_mounted(self) -> bool:
        return STORE_MOUNT in (self.read("/proc/self/mountinfo") or "")

    def _show(self, argv: tuple[str, ...], stdin: str | None) -> str:
        name = argv[-1]
        return (f"LoadState={'loaded' if name in self.existing else 'not-found'}\n"
                f"ActiveState={'active' if name in self.running else 'inactive'}\n")

    def _is_enabled(self, argv: tuple[str, ...], stdin: str | None) -> Outcome:
        return Outcome("enabled\n") if argv[-1] in self.enabled else Outcome("disabled\n", 1)

    def _verb(self, argv: tuple[str, ...], stdin: str | None) -> Outcome:
        names = {one for one in argv[2:] if not one.startswith("-")}
        if argv[1] == "start":
            if names & self.broken:
                return Outcome(code=1, err="Job failed")
            self.running |= names
        elif argv[1] == "stop":
            self.running -= names
        elif argv[1] == "enable":
            self.enabled |= names
        elif argv[1] == "disable":
            self.enabled -= names
        return Outcome()

    # The store's contents are below the root also while it is "not mounted": kept aside.

    def _mount(self, argv: tuple[str, ...], stdin: str | None) -> Outcome:
        kept = self.path("/kept-store")
        if kept.exists():
            shutil.rmtree(self.path(data_directories.STORE), ignore_errors=True)
            os.rename(kept, self.path(data_directories.STORE))
        self._mounted(ROOT_MOUNT + STORE_MOUNT)
        return Outcome()

    def _umount(self, argv: tuple[str, ...], stdin: str | None) -> Outcome:
        if self.store_busy:
            return Outcome(code=32, err="target is busy")
        os.rename(self.path(data_directories.STORE), self.path("/kept-store"))
        os.mkdir(self.path(data_directories.STORE))
        self._mounted(ROOT_MOUNT)
        return Outcome()

    def _mounted(self, table: str) -> None:
        # Not by put: a test cuts the power at the changes that Path makes.
        self.path("/proc/self/mountinfo").write_text(table)

    def _rsync(self, argv: tuple[str, ...], stdin: str | None) -> Outcome:
        self.rsyncs += 1
        source, target = Path(argv[-2]), Path(argv[-1])
        mirror(source, target, "--checksum" in argv)
        self.on_rsync()
        return Outcome()


def mirror(source: Path, target: Path, checksum: bool) -> None:
    """What rsync --archive --delete does: of same size and time, a file is not read."""
    names = set(os.listdir(source))
    for one in target.iterdir():
        if one.name not in names:
            shutil.rmtree(one) if one.is_dir() and not one.is_symlink() else one.unlink()
    for name in names:
        a, b = source / name, target / name
        if a.is_symlink():
            b.unlink(missing_ok=True)
            os.symlink(os.readlink(a), b)
            shutil.copystat(a, b, follow_symlinks=False)
        elif a.is_dir():
            b.mkdir(exist_ok=True)
            mirror(a, b, checksum)
        elif checksum or not b.exists() or (a.stat().st_size, a.stat().st_mtime_ns) != (
            b.stat().st_size, b.stat().st_mtime_ns
        ):
            shutil.copy2(a, b)
    shutil.copystat(source, target)


@pytest.fixture
def customer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Customer:
    me = pwd.getpwuid(os.geteuid())
    monkeypatch.setattr(owners, "account", lambda user: me)
    # What runs on the machine that runs the tests is not what is tested.
    monkeypatch.setattr(processes, "daemons", list)
    monkeypatch.delenv(records.OWNER_VARIABLE, raising=False)
    return Customer(tmp_path)
