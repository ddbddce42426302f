"""Step 10: the cluster link's address, by whichever rules the machine."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from asha.bootstrap.action import Action
from asha.bootstrap.facts import gather
from asha.bootstrap.steps import link_address
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
DEBIANS = "source /etc/network/interfaces.d/*\n\nauto lo\niface lo inet loopback\n"


def silent(text: str) -> None:
    pass


def addresses(*here: str) -> str:
    return json.dumps([
        {
            "ifname": "eth1", "link_type": "ether", "flags": ["BROADCAST", "UP"],
            "address": "02:00:00:00:00:01",
            "addr_info": [
                {"family": "inet", "scope": "global", "local": one.split("/")[0],
                 "prefixlen": int(one.split("/")[1])}
                for one in here
            ],
        },
    ])


def machine_with(tmp_path: Path, *active: str) -> FakeMachine:
    """These units are active; the NIC has no address until a test says so."""
    fake = FakeMachine(tmp_path, {"ip -json -details address": addresses()})
    fake.on("systemctl is-active", lambda argv, stdin: Outcome(
        "active\n" if argv[2] in active else "inactive\n", 0 if argv[2] in active else 3))
    return fake.absent("ifup", "nmcli", "networkctl")


def gives(fake: FakeMachine, *here: str) -> Callable[[tuple[str, ...], str | None], str]:
    def program(argv: tuple[str, ...], stdin: str | None) -> str:
        fake.on("ip -json -details address", addresses(*here))
        return ""
    return program


def walk(fake: FakeMachine, actions: list[Action]) -> list[str]:
    """Do what is not done; the titles of that."""
    done = []
    for action in actions:
        if not action.is_done(fake):
            action.do(fake, silent)
            done.append(action.title)
    return done


WAIT = f"wait until {SITE.link_nic} has the address"


def settled(fake: FakeMachine, site: Site = SITE) -> bool:
    actions = link_address.actions(site, gather(fake).link)
    return all(action.is_done(fake) for action in actions)


def test_one_nic_has_nothing_to_set(tmp_path: Path) -> None:
    assert (
        link_address.actions(dataclasses.replace(SITE, two_nics=False), link_address.Found()) == []
    )


def test_an_address_that_is_defined_somewhere_is_left_alone(tmp_path: Path) -> None:
    fake = machine_with(tmp_path, "systemd-networkd.service")
    fake.on("ip -json -details address", addresses("10.0.3.251/24"))
    fake.put("/etc/netplan/50.yaml", "addresses: [10.0.3.251/24]")
    assert [one.title for one in link_address.actions(SITE, gather(fake).link)] == [WAIT]
    assert settled(fake)


def test_an_address_given_by_hand_is_written_down_but_not_touched(tmp_path: Path) -> None:
    fake = machine_with(tmp_path, "systemd-networkd.service")
    fake.on("ip -json -details address", addresses("10.0.3.251/24"))
    # Another that only begins alike.
    fake.put("/etc/netplan/50.yaml", "addresses: [110.0.3.251/24, 10.0.3.2511]")
    assert walk(fake, link_address.actions(SITE, gather(fake).link)) == [
        f"eth1's address: {link_address.NETWORKD}"
    ]
    assert not fake.ran("networkctl")
    assert settled(fake)


def test_an_address_that_nobody_can_write_down_is_left_alone(tmp_path: Path) -> None:
    fake = machine_with(tmp_path)
    fake.on("ip -json -details address", addresses("10.0.3.251/24"))
    assert [one.title for one in link_address.actions(SITE, gather(fake).link)] == [WAIT]
    assert settled(fake)


def test_the_right_address_with_another_prefix_is_not_it(tmp_path: Path) -> None:
    fake = machine_with(tmp_path)
    fake.on("ip -json -details address", addresses("10.0.3.251/16"))
    assert not link_address.has_address(SITE, fake)


def test_networkd(tmp_path: Path) -> None:
    fake = machine_with(tmp_path, "systemd-networkd.service")
    fake.on("networkctl reload").on("networkctl reconfigure", gives(fake, "10.0.3.251/24"))
    walk(fake, link_address.actions(SITE, gather(fake).link))
    text = fake.read(link_address.NETWORKD) or ""
    assert "Name=eth1\n" in text
    assert "Address=10.0.3.251/24\n" in text
    assert "ConfigureWithoutCarrier=yes" in text
    assert [line for line in fake.lines if line.startswith("networkctl")] == [
        "networkctl reload", "networkctl reconfigure eth1"
    ]
    assert settled(fake)


def test_network_manager_where_it_has_the_nic(tmp_path: Path) -> None:
    fake = machine_with(tmp_path, "NetworkManager.service", "systemd-networkd.service")
    fake.on("nmcli -t -f DEVICE,STATE device", "eth0:connected\neth1:unavailable\nlo:unmanaged\n")
    fake.on("nmcli general reload").on("nmcli connection load")
    fake.on("nmcli connection up asha-link", gives(fake, "10.0.3.251/24"))
    walk(fake, link_address.actions(SITE, gather(fake).link))
    profile = fake.read(link_address.NM_PROFILE) or ""
    assert "interface-name=eth1\n" in profile
    assert "address1=10.0.3.251/24\n" in profile
    # NetworkManager does not read profiles that others can.
    assert fake.path(link_address.NM_PROFILE).stat().st_mode & 0o777 == 0o600
    assert "ignore-carrier=yes" in (fake.read(link_address.NM_DEVICE) or "")
    assert not fake.exists(link_address.NETWORKD)
    assert settled(fake)


def test_network_manager_that_does_not_manage_the_nic_is_passed_by(tmp_path: Path) -> None:
    fake = machine_with(tmp_path, "NetworkManager.service").installed("ifup")
    fake.on("nmcli -t -f DEVICE,STATE device", "eth0:connected\neth1:unmanaged\n")
    fake.put(link_address.INTERFACES, DEBIANS).on("ifup --force eth1", gives(fake, "10.0.3.251/24"))
    walk(fake, link_address.actions(SITE, gather(fake).link))
    assert fake.exists(link_address.IFUPDOWN)
    assert not fake.exists(link_address.NM_PROFILE)


def test_ifupdown(tmp_path: Path) -> None:
    fake = machine_with(tmp_path).put(link_address.INTERFACES, DEBIANS)
    fake.on("ifup --force eth1", gives(fake, "10.0.3.251/24"))
    walk(fake, link_address.actions(SITE, gather(fake).link))
    text = fake.read(link_address.IFUPDOWN) or ""
    assert "auto eth1\niface eth1 inet static\n    address 10.0.3.251/24\n" in text
    assert fake.read(link_address.INTERFACES) == DEBIANS
    assert settled(fake)


def test_ifupdown_that_does_not_read_the_directory_is_told_to(tmp_path: Path) -> None:
    before = "auto lo\niface lo inet loopback\n#source /etc/network/interfaces.d/*\n"
    fake = machine_with(tmp_path).put(link_address.INTERFACES, before)
    fake.on("ifup --force eth1", gives(fake, "10.0.3.251/24"))
    walk(fake, link_address.actions(SITE, gather(fake).link))
    assert fake.read(link_address.INTERFACES) == f"{before}\nsource {link_address.IFUPDOWN}\n"
    assert settled(fake)


def test_a_right_definition_that_is_down_is_only_brought_up(tmp_path: Path) -> None:
    fake = machine_with(tmp_path).put(
        link_address.INTERFACES,
        f"{DEBIANS}auto eth1\niface eth1 inet static\n"
        "  address 10.0.3.251\n  netmask 255.255.255.0\n",
    )
    fake.on("ifup --force eth1", gives(fake, "10.0.3.251/24"))
    assert walk(fake, link_address.actions(SITE, gather(fake).link)) == ["set eth1's address"]
    assert not fake.exists(link_address.IFUPDOWN)


@pytest.mark.parametrize("place", [link_address.INTERFACES, "/etc/network/interfaces.d/eth1"])
@pytest.mark.parametrize("stanza", [
    "iface eth1 inet dhcp\n",
    "iface eth1 inet static\n  address 10.0.3.25\n  netmask 255.255.255.0\n",
    # The right address, but of another NIC.
    "iface eth1 inet manual\niface eth2 inet static\n  address 10.0.3.251\n",
])
def test_another_definition_of_the_nic_is_refused(
    tmp_path: Path, place: str, stanza: str
) -> None:
    fake = machine_with(tmp_path).installed("ifup").put(link_address.INTERFACES, DEBIANS)
    fake.put(place, (fake.read(place) or "") + stanza)
    [action] = link_address.actions(SITE, gather(fake).link)
    assert "CANNOT" in action.preview(fake)
    with pytest.raises(UserError, match=place) as trouble:
        action.do(fake, silent)
    assert "ifdown --force eth1" in trouble.value.hint
    assert not fake.ran("ifup")


def test_where_nothing_rules_the_mend_is_told(tmp_path: Path) -> None:
    fake = machine_with(tmp_path)
    [action] = link_address.actions(SITE, gather(fake).link)
    assert not action.is_done(fake)
    with pytest.raises(UserError, match="neither NetworkManager") as trouble:
        action.do(fake, silent)
    assert "10.0.3.251/24" in trouble.value.hint


def test_an_address_that_does_not_come_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    fake = machine_with(tmp_path, "systemd-networkd.service").on("networkctl")
    *_, wait = link_address.actions(SITE, gather(fake).link)
    with pytest.raises(UserError, match="eth1 has no address"):
        wait.do(fake, silent)
    assert link_address.ADDRESS_SECONDS <= fake.clock <= link_address.ADDRESS_SECONDS + 1
