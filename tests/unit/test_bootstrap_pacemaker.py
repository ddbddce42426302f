"""Step 70: the configuration is loaded once, and everything is waited for."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from asha.bootstrap.action import Action
from asha.bootstrap.steps import drbd
from asha.bootstrap.steps import pacemaker as pacemaker_step
from asha.cluster import cib
from asha.cluster.cib import MARKER
from asha.cluster.site import NodeConfig, Relay, Site
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
SECOND = dataclasses.replace(
    SITE, is_first=False, relay=Relay("numato", "/dev/ttyACM0", 0, "", "crm2")
)


def silent(text: str) -> None:
    pass


class Pacemaker:
    """What crm_mon shows; ``ready`` is when, on the machine's clock, a resource runs."""

    def __init__(self, tmp_path: Path) -> None:
        self.fake = fake = FakeMachine(tmp_path)
        self.loaded = False
        self.ready = {name: float(second) for second, name in enumerate(pacemaker_step.AWAITED, 1)}
        self.failures: dict[str, str] = {}
        self.busy_until = 0.0
        self.standby = False
        self.joined_at = 0.0
        self.relay = False
        self.down_until = 0.0
        fake.put(drbd.NEW, "/dev/sda5\n").put(MARKER)
        fake.on("cibadmin --query", "<cib/>")
        fake.on(
            "cibadmin --query --xpath",
            lambda argv, stdin: Outcome(code=0 if self.loaded else 105),
        )
        fake.on("crm --display=plain configure load update", self._load)
        fake.on("crm_mon", lambda argv, stdin: self._show())
        fake.on("drbdsetup status asha --json", "[]").on("drbdadm", Outcome(code=10))
        fake.on("modinfo", "9.2.8")

    def _load(self, argv: tuple[str, ...], stdin: str | None) -> Outcome:
        text = Path(argv[-1]).read_text()
        self.relay = "p_line" in text
        self.loaded = "p_asterisk" in text
        return Outcome()

    def _show(self) -> Outcome:
        now = self.fake.clock
        if now < self.down_until:
            return Outcome(code=102)
        shown = []
        for name in self.ready if self.loaded else ():
            role = "Promoted" if name == "p_drbd" else "Started"
            shown.append(self._resource(name, role, "crm1", now >= self.ready[name]))
        if self.loaded:
            shown.append(self._resource("p_drbd", "Unpromoted", "crm2",
                                        now >= self.joined_at and not self.standby))
        if self.relay:
            shown.append(self._resource("p_line", "Stopped", "crm1", False))
        failures = "".join(
            f'<failure op_key="{name}_start_0" node="crm1" exitstatus="error" '
            f'exitreason="{reason}" task="start"/>' for name, reason in self.failures.items()
        )
        online = "true" if now >= self.joined_at else "false"
        standby = "true" if self.standby else "false"
        return Outcome(
            '<crm_mon><summary><current_dc present="true" name="crm1" with_quorum="true"/>'
            '</summary><nodes><node name="crm1" online="true"/>'
            f'<node name="crm2" online="{online}" standby="{standby}" pending="false"/></nodes>'
            f"<resources>{''.join(shown)}</resources><failures>{failures}</failures></crm_mon>"
        )

    def _resource(self, name: str, role: str, node: str, runs: bool) -> str:
        pending = 'pending="Starting"' if self.fake.clock < self.busy_until else ""
        where = f'<node name="{node}"/>' if runs else ""
        return (f'<resource id="{name}" role="{role if runs else "Stopped"}" '
                f'active="{"true" if runs else "false"}" failed="false" '
                f'managed="true" {pending if not runs else ""}>{where}</resource>')

    def install(self, actions: list[Action]) -> list[str]:
        done = []
        for action in actions:
            if not action.is_done(self.fake):
                action.do(self.fake, silent)
                assert action.is_done(self.fake)
                done.append(action.title)
        return done


@pytest.fixture
def pacemaker(tmp_path: Path) -> Pacemaker:
    return Pacemaker(tmp_path)


def first(pacemaker: Pacemaker, site: Site = SITE) -> list[str]:
    return pacemaker.install(pacemaker_step.actions(site))


def second(pacemaker: Pacemaker, site: Site = SECOND) -> list[str]:
    return pacemaker.install(pacemaker_step.joined_actions(site))


def test_the_first_node_loads_it_and_waits_for_all_of_it(pacemaker: Pacemaker) -> None:
    first(pacemaker)
    assert pacemaker.loaded
    assert pacemaker.fake.clock >= max(pacemaker.ready.values())
    # From now on nothing may be forced on the disk.
    assert not pacemaker.fake.exists(drbd.NEW)
    assert first(pacemaker) == []


def test_nothing_is_loaded_beside_what_systemd_runs(pacemaker: Pacemaker) -> None:
    pacemaker.fake.remove(MARKER)
    with pytest.raises(UserError, match="systemd still runs"):
        first(pacemaker)
    assert not pacemaker.loaded


def test_what_is_awaited_are_resources_of_the_configuration() -> None:
    text = cib.render(SITE)
    assert all(f"primitive {name} " in text for name in pacemaker_step.AWAITED)
    assert f"primitive {pacemaker_step.RELAY} " in cib.render(SECOND)


def test_it_is_said_what_is_waited_for(pacemaker: Pacemaker) -> None:
    said: list[str] = []
    for action in pacemaker_step.actions(SITE)[:2]:
        action.do(pacemaker.fake, said.append)
    assert said[0].startswith("waiting for the replicated disk, the store's file system")
    assert said[-1].startswith("waiting for Apache (")


def test_a_configuration_that_is_there_is_not_loaded_again(pacemaker: Pacemaker) -> None:
    pacemaker.loaded = True
    first(pacemaker)
    assert not pacemaker.fake.ran("crm")


def test_a_slow_start_is_waited_for_while_pacemaker_works_on_it(pacemaker: Pacemaker) -> None:
    pacemaker.failures = {"p_mysql": "first attempt"}
    pacemaker.ready["p_mysql"] = pacemaker.busy_until = 250.0
    first(pacemaker)


def test_what_failed_and_is_given_up_is_told_with_its_reason(pacemaker: Pacemaker) -> None:
    pacemaker.ready["p_apache"] = 1e9
    pacemaker.failures = {"p_apache": "port 80 is taken", "p_other": "not ours"}
    with pytest.raises(UserError, match=r"no Apache; p_apache start on crm1: port 80 is taken$"):
        first(pacemaker)
    assert pacemaker.fake.clock < 60
    # The cluster does not have everything: what is on the disk is still only here.
    assert pacemaker.fake.exists(drbd.NEW)


def test_what_never_starts_and_never_fails_has_an_end(pacemaker: Pacemaker) -> None:
    pacemaker.ready["p_asterisk"] = 1e9
    with pytest.raises(UserError, match="still no Asterisk"):
        first(pacemaker)
    assert pacemaker_step.START_SECONDS <= pacemaker.fake.clock <= pacemaker_step.START_SECONDS + 2


def test_a_pacemaker_that_does_not_answer_for_a_moment(pacemaker: Pacemaker) -> None:
    pacemaker.loaded, pacemaker.down_until = True, 30.0
    first(pacemaker)


def test_a_relay_that_is_missing_holds_nothing_up(pacemaker: Pacemaker) -> None:
    site = dataclasses.replace(SITE, relay=Relay("numato", "/dev/ttyACM0", 0, "", "crm1"))
    first(pacemaker, site)
    assert pacemaker.relay


def test_the_second_node_waits_for_its_disk_and_adds_its_relay(pacemaker: Pacemaker) -> None:
    pacemaker.loaded, pacemaker.joined_at = True, 7.0
    second(pacemaker)
    assert pacemaker.fake.clock >= 7.0
    assert pacemaker.relay
    assert not pacemaker.fake.exists(drbd.NEW)
    assert second(pacemaker) == []


def test_the_second_node_loads_nothing_where_the_relay_is_there_or_elsewhere(
    pacemaker: Pacemaker
) -> None:
    pacemaker.loaded = pacemaker.relay = True
    second(pacemaker)
    pacemaker.relay = False
    second(pacemaker, dataclasses.replace(SITE, is_first=False))
    assert not pacemaker.fake.ran("crm")


def test_a_second_node_in_standby_has_joined(pacemaker: Pacemaker) -> None:
    pacemaker.loaded = pacemaker.standby = pacemaker.relay = True
    pacemaker.fake.remove(drbd.NEW)
    assert second(pacemaker) == []


def test_disks_that_hold_different_stores_are_told_of(pacemaker: Pacemaker) -> None:
    pacemaker.loaded, pacemaker.joined_at = True, 1e9
    pacemaker.fake.on("drbdadm cstate asha", "StandAlone\n")
    with pytest.raises(UserError, match="the two hold different data"):
        second(pacemaker)
