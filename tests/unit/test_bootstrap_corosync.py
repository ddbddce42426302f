"""Step 50: Corosync and Pacemaker, made ours once and never again."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from asha.bootstrap.join import rotation
from asha.bootstrap.steps import corosync as corosync_step
from asha.cluster import cib, corosync
from asha.cluster.cib import MARKER
from asha.cluster.secret import PATH, Secret
from asha.cluster.site import NodeConfig, Relay, Site
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
# Debian's, shortened.
DEBIANS = """\
totem {
    version: 2
    cluster_name: debian
    crypto_cipher: none
}
nodelist {
    node {
        name: node1
        nodeid: 1
        ring0_addr: 127.0.0.1
    }
}
"""


def silent(text: str) -> None:
    pass


class Cluster:
    """systemd, and a Pacemaker that has its DC some time after its start."""

    def __init__(self, tmp_path: Path) -> None:
        self.fake = fake = FakeMachine(tmp_path)
        self.active: set[str] = {"corosync.service", "pacemaker.service"}
        self.enabled: set[str] = set()
        self.dc_after = 24.0
        self.told = ""
        self.started = 0.0
        fake.put(corosync.CONF, DEBIANS)
        fake.put(f"{corosync_step.CIB}/cib.xml", '<cib><node id="1" uname="node1"/></cib>')
        fake.put(f"{corosync_step.CIB}/cib-1.raw").put(f"{corosync_step.RINGS}/ringid_1")
        fake.on("systemctl", self._systemctl)
        fake.on("crm_node -p", lambda argv, stdin: Outcome("crm1 \n"))
        fake.on("crmadmin --dc_lookup", lambda argv, stdin: (
            Outcome("Designated Controller is: crm1\n")
            if fake.clock - self.started >= self.dc_after
            else Outcome("Designated Controller is: not yet elected\n")))
        fake.on("cibadmin --empty", "<cib/>")
        fake.on("crm_attribute", lambda argv, stdin: self._attribute(argv))

    def _systemctl(self, argv: tuple[str, ...], stdin: str | None) -> Outcome:
        verb, names = argv[1], argv[2:]
        if verb == "start":
            assert "node1" not in (self.fake.read(corosync.CONF) or "")
            if "corosync.service" in names:
                self.started = self.fake.clock
            self.active.update(names)
        elif verb == "stop":
            self.active.difference_update(names)
        elif verb == "enable":
            self.enabled.update(names)
        elif verb == "is-active":
            return Outcome("active\n") if names[0] in self.active else Outcome("inactive\n", 3)
        elif verb == "is-enabled":
            return Outcome("enabled\n") if names[0] in self.enabled else Outcome("disabled\n", 1)
        else:
            raise AssertionError(argv)
        return Outcome()

    def _attribute(self, argv: tuple[str, ...]) -> Outcome:
        if argv[1:5] == ("--node", argv[2], "--name", "asha-secret"):
            assert "pacemaker.service" in self.active
            if argv[5] == "--update":
                self.told = argv[6]
            return Outcome(self.told)
        assert argv[1:] == ("--type", "crm_config", "--name", "dc-deadtime", "--update", "5s")
        assert "pacemaker.service" not in self.active, "it has read its configuration already"
        return Outcome()

    def install(self, site: Site = SITE) -> list[str]:
        done = []
        # As asha install keeps it before its first change.
        self.fake.put(PATH, SECRET.text, 0o600)
        for action in [
            *corosync_step.reset_actions(site),
            *corosync_step.actions(site, SECRET),
        ]:
            if not action.is_done(self.fake):
                action.do(self.fake, silent)
                assert action.is_done(self.fake)
                done.append(action.title)
        return done


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    return Cluster(tmp_path)


def test_the_first_node_is_a_cluster_of_its_own(cluster: Cluster) -> None:
    cluster.install()
    fake = cluster.fake
    assert fake.read(corosync.CONF) == corosync.render(SITE, joined=False)
    assert fake.read(corosync.AUTHKEY) == SECRET.corosync_authkey()
    assert fake.path(corosync.AUTHKEY).stat().st_mode & 0o777 == 0o400
    assert fake.read(f"{corosync_step.CIB}/cib.xml") == "<cib/>"
    assert fake.owners[f"{corosync_step.CIB}/cib.xml"] == ("hacluster", "haclient")
    assert fake.ran("crm_attribute --type")
    assert cluster.told == SECRET.key_id()
    assert not fake.exists(f"{corosync_step.CIB}/cib-1.raw")
    assert not fake.exists(f"{corosync_step.RINGS}/ringid_1")
    assert fake.lines.index("systemctl stop pacemaker.service corosync.service") < (
        fake.lines.index("systemctl start corosync.service pacemaker.service"))
    assert cluster.enabled == {"corosync.service", "pacemaker.service", "asha-join.service",
                               "asha-lan.service"}
    assert {"asha-join.service", "asha-lan.service", "asha-retry.service"} <= cluster.active
    assert fake.clock >= cluster.dc_after
    assert cluster.install() == []


@pytest.mark.parametrize("no", ["lan_watch", "two_nics"])
def test_a_lan_that_is_not_to_be_watched(cluster: Cluster, no: str) -> None:
    cluster.install(dataclasses.replace(SITE, **{no: False}))  # type: ignore[arg-type]
    assert "asha-lan.service" not in cluster.enabled | cluster.active


def test_the_key_is_never_shown(cluster: Cluster) -> None:
    shown = "".join(action.preview(cluster.fake) + action.script()
                    for action in corosync_step.actions(SITE, SECRET))
    assert SECRET.corosync_authkey() not in shown


def test_the_file_of_two_nodes_is_never_made_one_of_one(cluster: Cluster) -> None:
    cluster.install()
    joined = corosync.render(SITE, joined=True)
    # As the listener writes it, and as an administrator or a later version might.
    for text in (joined, corosync.render(SITE, joined=True, have_met=False),
                 joined.replace("token: 1000", "token: 3000")):
        cluster.fake.put(corosync.CONF, text)
        assert cluster.install() == []
        assert cluster.fake.read(corosync.CONF) == text


def test_the_second_node_leaves_the_file_to_the_join(cluster: Cluster) -> None:
    [reset] = corosync_step.reset_actions(SECOND)
    reset.do(cluster.fake, silent)
    assert reset.is_done(cluster.fake)
    assert cluster.active == set()
    joined = corosync.render(SECOND, joined=True)
    cluster.fake.put(corosync.CONF, joined)
    cluster.fake.on("crm_node -p", "crm1 crm2\n")
    # Pacemaker would find two telephone systems and stop both.
    with pytest.raises(UserError, match="systemd still runs"):
        cluster.install(SECOND)
    assert cluster.active == set()
    cluster.fake.put(MARKER)
    cluster.install(SECOND)
    assert cluster.fake.read(corosync.CONF) == joined
    assert cluster.active >= {"corosync.service", "pacemaker.service"}
    # The first node's configuration is the one that counts.
    assert not cluster.fake.exists(f"{corosync_step.CIB}/cib.xml")


def test_a_reset_that_was_cut_off_is_done_again(cluster: Cluster) -> None:
    [reset] = corosync_step.reset_actions(SITE)
    cluster.fake.path(f"{corosync_step.CIB}/cib.xml").unlink()
    assert not reset.is_done(cluster.fake)
    reset.do(cluster.fake, silent)
    assert not cluster.fake.exists(f"{corosync_step.CIB}/cib-1.raw")


def test_another_cluster_of_the_customers_is_not_destroyed(cluster: Cluster) -> None:
    cluster.fake.put(
        f"{corosync_step.CIB}/cib.xml", '<cib><primitive id="p_web" class="ocf"/></cib>'
    )
    with pytest.raises(UserError, match="node of another cluster"):
        cluster.install()
    assert cluster.fake.exists(f"{corosync_step.CIB}/cib.xml")
    assert not cluster.fake.ran("systemctl stop")


def test_our_own_cluster_is_never_reset(cluster: Cluster) -> None:
    cluster.install()
    cluster.fake.put(f"{corosync_step.CIB}/cib.xml", '<cib><primitive id="p_asterisk"/></cib>')
    cluster.active.clear()  # as after a reboot with nothing started yet
    [reset] = corosync_step.reset_actions(SITE)
    assert reset.is_done(cluster.fake)


def test_what_a_purge_left_is_nobodys(cluster: Cluster) -> None:
    """Its keys are made of a secret that is gone: it stands in nobody's way, and Pacemaker
    starts none of its resources."""
    old = Secret(bytes(32))
    fake = cluster.fake
    fake.put(corosync.CONF, corosync.render(SITE, joined=True))
    fake.put(corosync.AUTHKEY, old.corosync_authkey())
    fake.put(f"{corosync_step.CIB}/cib.xml", '<cib><primitive id="p_asterisk"/></cib>')
    cluster.active.clear()
    rotation.require_in_use(fake, SECRET)
    fake.on("cibadmin --query", Outcome(code=102))  # no answer
    assert not cib.is_loaded(fake)
    assert "remove the default cluster" in cluster.install()[0]
    assert fake.read(corosync.CONF) == corosync.render(SITE, joined=False)
    assert fake.read(corosync.AUTHKEY) == SECRET.corosync_authkey()
    assert "p_asterisk" not in (fake.read(f"{corosync_step.CIB}/cib.xml") or "")
    assert cluster.install() == []


def test_a_cluster_that_runs_is_never_what_a_purge_left(cluster: Cluster) -> None:
    """Whatever has become of the marker and of the secret."""
    cluster.install()
    fake = cluster.fake
    fake.put(f"{corosync_step.CIB}/cib.xml", '<cib><primitive id="p_asterisk"/></cib>')
    for changed in (Secret(bytes(32)), None):
        fake.path(PATH).unlink()
        if changed:
            fake.put(PATH, changed.text, 0o600)
        assert not cib.is_left_over(fake)
        with pytest.raises(UserError, match="keys are made of"):
            rotation.require_in_use(fake, Secret(bytes(32)))
        [reset] = corosync_step.reset_actions(SITE)
        assert reset.is_done(fake)
    fake.put(MARKER)
    cluster.active.clear()
    assert not cib.is_left_over(fake)


def test_no_dc_is_told_with_the_logs(cluster: Cluster) -> None:
    cluster.dc_after = 10000.0
    said: list[str] = []
    start = next(action for action in corosync_step.actions(SITE, SECRET)
                 if action.title == "start Corosync and Pacemaker")
    cluster.fake.put(corosync.CONF, corosync.render(SITE, joined=False))
    with pytest.raises(UserError, match="still waiting for a coordinator") as trouble:
        start.do(cluster.fake, said.append)
    assert "journalctl" in trouble.value.hint
    assert "waiting for a coordinator (DC) (24 s)" in said
    assert cluster.fake.clock <= corosync_step.DC_SECONDS + 5


def test_daemons_that_do_not_start_are_told_with_the_logs(cluster: Cluster) -> None:
    cluster.install()
    cluster.active.clear()
    cluster.fake.on("systemctl start corosync.service", Outcome(code=1, err="Job failed"))
    with pytest.raises(UserError, match="Job failed") as trouble:
        cluster.install()
    assert "journalctl" in trouble.value.hint


@pytest.mark.parametrize(("site", "parked"), [
    (dataclasses.replace(SITE, relay=Relay("rhino", "/dev/ttyUSB0", 0, "", "crm1")), True),
    (dataclasses.replace(SITE, relay=Relay("rhino", "/dev/ttyUSB0", 0, "", "crm2")), False),
    (SITE, False),
])
def test_the_relay_is_parked_at_boot_where_the_card_is(
    cluster: Cluster, site: Site, parked: bool
) -> None:
    cluster.install(site)
    assert ("asha-relay-park.service" in cluster.enabled) == parked
