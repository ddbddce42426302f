"""Step 50: the services stay out of systemd's hands; what their agents need is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from asha.bootstrap.steps import systemd
from asha.cluster import corosync
from asha.cluster.cib import MARKER
from asha.cluster.site import NodeConfig, Site
from asha.errors import UserError
from tests.fakes.machine import FakeMachine, Outcome

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
DEBIANS_SITE = "<VirtualHost *:80>\n  DocumentRoot /var/www/html\n</VirtualHost>\n"
REPOSITORY = Path(__file__).resolve().parents[2]


def silent(text: str) -> None:
    pass


class Debian:
    """systemd with these units, and an Apache."""

    def __init__(self, tmp_path: Path, *names: str, apache_runs: bool = False) -> None:
        self.fake = fake = FakeMachine(tmp_path).installed("curl")
        self.units = (*names, *systemd.COME_BACK)
        self.apache_runs = apache_runs
        self.read: set[str] = set()  # drop-ins that systemd knows
        fake.put(corosync.CONF, corosync.render(SITE, joined=False))  # nothing to reset
        fake.on("systemctl", self._systemctl)
        fake.on("install -d", lambda argv, stdin: self._install(argv))
        fake.on("a2enmod --quiet status", lambda argv, stdin: self._enable_status())
        fake.on("a2enconf --quiet asha-status", lambda argv, stdin: self._enable_conf())
        fake.on("apache2ctl configtest", "Syntax OK")
        fake.on("curl", lambda argv, stdin: (
            Outcome("<h1>Apache Server Status for x</h1>") if self.answers() else
            Outcome("<html>302 Found</html>")))
        fake.put("/etc/apache2/apache2.conf",
                 "<Directory />\n  AllowOverride None\n</Directory>\n#AllowOverride All\n")
        fake.put("/etc/apache2/ports.conf", "Listen 80\n")
        fake.put("/etc/apache2/sites-enabled/000-default.conf", DEBIANS_SITE)
        self.enabled_before_restart = False

    def answers(self) -> bool:
        return self.enabled_before_restart

    def _systemctl(self, argv: tuple[str, ...], stdin: str | None) -> Outcome:
        if argv[1] == "show" and argv[2] == "--property=LoadState,ActiveState":
            state = "loaded" if argv[3] in self.units else "not-found"
            return Outcome(f"LoadState={state}\nActiveState=inactive\n")
        if argv[1] == "show":
            on_disk = {name for name in self.units if self.fake.exists(drop_in(name))}
            return Outcome("".join(
                f"DropInPaths={drop_in(name) if name in self.read else ''}\n"
                f"NeedDaemonReload={'yes' if name in on_disk - self.read else 'no'}\n"
                for name in argv[3:]
            ))
        if argv[1] == "daemon-reload":
            self.read = {name for name in self.units if self.fake.exists(drop_in(name))}
        elif argv[1] == "is-enabled":
            return Outcome("enabled\n")
        elif argv[1:] == ("is-active", "apache2.service"):
            return Outcome("active\n") if self.apache_runs else Outcome("inactive\n", 3)
        elif argv[1:] == ("restart", "apache2.service"):
            self.enabled_before_restart = self.fake.exists("/etc/apache2/mods-enabled/status.load")
        else:
            raise AssertionError(f"systemctl {argv[1:]}")
        return Outcome()

    def _install(self, argv: tuple[str, ...]) -> Outcome:
        self.fake.path(argv[-1]).mkdir(parents=True)
        return Outcome()

    def _enable_status(self) -> Outcome:
        for end in ("load", "conf"):
            self.fake.put(f"/etc/apache2/mods-enabled/status.{end}")
        return Outcome()

    def _enable_conf(self) -> Outcome:
        self.fake.put(systemd.STATUS_ENABLED, self.fake.read(systemd.STATUS_CONF) or "")
        return Outcome()

    def install(self) -> list[str]:
        done = []
        for action in systemd.actions(SITE, systemd.look(self.fake)):
            if not action.is_done(self.fake):
                action.do(self.fake, silent)
                assert action.is_done(self.fake)
                done.append(action.title)
        return done


def drop_in(unit: str) -> str:
    return f"/etc/systemd/system/{unit}.d/asha.conf"


def test_each_service_that_is_there_is_kept_off_by_the_marker(tmp_path: Path) -> None:
    debian = Debian(tmp_path, "mariadb.service", "mariadb.socket", "apache2.service",
                    "asterisk.service")
    debian.install()
    for name in ("mariadb.service", "mariadb.socket", "apache2.service"):
        text = debian.fake.read(drop_in(name)) or ""
        assert text.splitlines()[1:] == ["[Unit]", f"ConditionPathExists=!{MARKER}"]
    assert not debian.fake.exists(drop_in("slapd.service"))
    assert debian.read == set(debian.units)
    assert debian.install() == []


def test_asterisk_may_start_once_the_store_is_mounted(tmp_path: Path) -> None:
    debian = Debian(tmp_path, "asterisk.service")
    debian.install()
    assert (debian.fake.read(drop_in("asterisk.service")) or "").splitlines()[1:] == [
        "[Unit]", f"ConditionPathExists=|!{MARKER}", "ConditionPathIsMountPoint=|/drbd"
    ]


def test_a_drop_in_that_systemd_has_not_read_is_not_done(tmp_path: Path) -> None:
    debian = Debian(tmp_path, "asterisk.service", "mariadb.service")
    debian.install()
    debian.read.remove("mariadb.service")
    assert debian.install() == ["reload systemd"]


def test_the_clusters_daemons_come_back(tmp_path: Path) -> None:
    debian = Debian(tmp_path)
    assert len(debian.install()) == 3  # two drop-ins, and systemd reads them
    text = debian.fake.read(drop_in("corosync.service")) or ""
    unit = (REPOSITORY / "asha/bootstrap/asha-come-back@.service").read_text()
    assert "OnFailure=asha-come-back@%N.service\n" in text
    # It would stop the telephones: pacemaker.service requires Corosync's.
    assert "Restart=" not in text
    assert "ExecStart=/usr/bin/systemctl start --no-block %i.service\n" in unit
    # A start that Corosync's own limit refuses would be a failure again, and so on.
    assert "StartLimitIntervalSec=0\n" in text
    assert "StartLimitBurst=" in unit
    assert "Restart=on-failure" in (debian.fake.read(drop_in("pacemaker.service")) or "")
    assert debian.install() == []


def test_the_file_that_root_gives_to_mysql_is_in_a_directory_of_roots() -> None:
    """ocf:heartbeat:mysql does touch, chown and chmod by its name."""
    crm = (REPOSITORY / "cib/asha.crm").read_text()
    (log,) = re.findall(r" log=(\S+)", crm)
    assert log.rpartition("/")[0] == "/var/log"


def test_debians_apache_needs_nothing_but_mod_status(tmp_path: Path) -> None:
    debian = Debian(tmp_path, "apache2.service", apache_runs=True)
    done = debian.install()
    assert "enable Apache's mod_status" in done
    assert not debian.fake.exists(systemd.STATUS_CONF)
    assert debian.install() == []
    assert f'statusurl="{systemd.STATUS_URL}"' in (REPOSITORY / "cib/asha.crm").read_text()


@pytest.mark.parametrize("extra", [
    "RewriteEngine on\n  RewriteRule ^ https://%{SERVER_NAME}%{REQUEST_URI}\n",
    'Redirect permanent "/" "https://pbx/"\n',
    "RedirectMatch ^ https://pbx/\n",
    "ProxyPass / http://127.0.0.1:8080/\n",
    "<Directory /opt/sark/www>\n AllowOverride All\n</Directory>\n",
])
def test_a_site_that_takes_everything_does_not_get_the_monitors_question(
    tmp_path: Path, extra: str
) -> None:
    debian = Debian(tmp_path, "apache2.service")
    debian.fake.put("/etc/apache2/sites-enabled/sark.conf", extra)
    debian.install()
    text = debian.fake.read(systemd.STATUS_CONF) or ""
    assert "<VirtualHost 127.0.0.1:80>" in text
    assert "Listen" not in text
    assert debian.fake.exists(systemd.STATUS_ENABLED)
    assert debian.install() == []


@pytest.mark.parametrize(("ports", "own"), [
    ("Listen 44300\n<IfModule ssl_module>\n\tListen 443\n</IfModule>\n", True),
    ("Listen 8080\n", True),
    ("#Listen 80\n", True),
    ("listen 0.0.0.0:80\n", False),
    ("Listen 80 http\n", False),
])
def test_an_apache_without_port_80_listens_on_the_loopback(
    tmp_path: Path, ports: str, own: bool
) -> None:
    debian = Debian(tmp_path, "apache2.service")
    debian.fake.put("/etc/apache2/ports.conf", ports)
    debian.install()
    text = debian.fake.read(systemd.STATUS_CONF) or ""
    assert bool(re.search("^Listen 127.0.0.1:80$", text, re.MULTILINE)) == own


def test_an_apache_that_does_not_answer_is_told_of(tmp_path: Path) -> None:
    debian = Debian(tmp_path, "apache2.service", apache_runs=True)
    debian.fake.on("curl", Outcome(code=7, err="refused"))
    with pytest.raises(UserError, match="does not answer"):
        debian.install()
    assert debian.fake.clock >= systemd.ANSWER_SECONDS


def test_an_apache_whose_configuration_is_broken_is_not_restarted(tmp_path: Path) -> None:
    debian = Debian(tmp_path, "apache2.service", apache_runs=True)
    debian.fake.on("apache2ctl configtest", Outcome(code=1, err="Syntax error on line 5"))
    with pytest.raises(UserError, match="Syntax error"):
        debian.install()
    assert not debian.fake.ran("systemctl restart")
