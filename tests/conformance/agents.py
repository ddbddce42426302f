"""What each agent needs to work in a node, and how its parameters can be wrong.

A new agent is entered here and is then held to everything in this directory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from tests.cluster.single import mount_store
from tests.lab import Lab
from tests.lab.lab import VIRTUAL_ADDRESS

# Every executable there is an agent.
AGENTS = tuple(sorted(path.name for path in (Path(__file__).parents[2] / "agents").iterdir()))

Parameters = Mapping[str, str]


def nothing(lab: Lab) -> AbstractContextManager[None]:
    return nullcontext()


@contextmanager
def mounted_store(lab: Lab) -> Iterator[None]:
    node = lab.node("crm1")
    mount_store(node)
    yield
    node.run("umount", "/drbd")


@contextmanager
def virtual_address(lab: Lab) -> Iterator[None]:
    """What IPaddr2 does before lan-source starts."""
    node = lab.node("crm1")
    node.run("ip", "addr", "add", f"{VIRTUAL_ADDRESS}/24", "dev", "eth0")
    yield
    node.run("ip", "addr", "del", f"{VIRTUAL_ADDRESS}/24", "dev", "eth0")


@contextmanager
def numato_card(lab: Lab) -> Iterator[None]:
    lab.line_switch.swap_card("numato")
    yield
    lab.line_switch.swap_card("rhino")


@dataclass(frozen=True)
class Case:
    """An agent with one working set of parameters.

    ``bad``: values that are wrong on every node, each alone spoils the working set.
    ``harmless``: one of a parameter that stop can do without.
    ``lacking``: what this node lacks, and the code a start ends with then.
    ``data``: directories of the service, which a probe leaves alone.
    """

    agent: str
    parameters: Parameters
    bad: tuple[tuple[str, str], ...]
    harmless: tuple[str, str]
    lacking: tuple[tuple[Parameters, int], ...]
    data: tuple[str, ...]
    prepare: Callable[[Lab], AbstractContextManager[None]] = nothing
    promotable: bool = False
    label: str = field(default="")

    def __str__(self) -> str:
        return f"{self.agent}-{self.label}" if self.label else self.agent


RHINO_BAD = (
    ("card_node", ""),
    ("driver", "rhyno"),
    ("device", "ttyUSB0"),
    ("relay", "first"),
    ("relay", "32"),
    ("program", "rhinofailover"),
)

CASES = (
    Case(
        "sark-data",
        {},
        bad=(
            ("data_root", "drbd"),
            ("data_root", "/drbd/../etc"),
            ("paths", "etc/asterisk"),
            ("paths", "/drbd/etc"),
            ("paths", "/etc/asterisk /etc/asterisk"),
            ("low_space", "10%"),
            ("low_space", "100"),
            ("sqlite_timeout", "soon"),
            ("force_unmount", "perhaps"),
        ),
        harmless=("sqlite_timeout", "soon"),
        # Not mounted is for Pacemaker to try again: the store may be on its way.
        lacking=(({"data_root": "/nowhere"}, 1),),
        data=("/drbd", "/etc/asterisk", "/var/lib/asterisk", "/var/spool/asterisk", "/opt/sark"),
        prepare=mounted_store,
    ),
    Case(
        "asterisk-health",
        {},
        bad=(
            ("unit", "asterisk"),
            ("binary", "asterisk"),
            ("run_directory", "run/asterisk"),
            ("sip_port", "sip"),
            ("sip_port", "65536"),
            ("sip_address", "localhost.localdomain"),
            ("probe_timeout", "0"),
        ),
        harmless=("probe_timeout", "soon"),
        lacking=(({"binary": "/nowhere/asterisk"}, 5),),
        data=("/etc/asterisk", "/var/lib/asterisk", "/var/spool/asterisk", "/run/asterisk"),
    ),
    Case(
        "lan-source",
        {"ip": VIRTUAL_ADDRESS, "nic": "eth0"},
        bad=(("ip", ""), ("ip", "192.168.1"), ("ip", "fe80::1"), ("nic", "")),
        harmless=("ip", "192.168.1"),
        # A NIC or an address that is not there yet is degraded, and tried again.
        lacking=(),
        data=(),
        prepare=virtual_address,
    ),
    Case(
        "rhino-relay",
        {"card_node": "crm1"},
        bad=RHINO_BAD,
        harmless=("relay", "first"),
        lacking=(
            ({"card_node": "crm1", "device": "/dev/nowhere"}, 5),
            ({"card_node": "crm1", "program": "/nowhere/rhinofailover"}, 5),
        ),
        data=(),
        promotable=True,
    ),
    Case(
        "rhino-relay",
        {"card_node": "crm1", "driver": "numato"},
        bad=RHINO_BAD,
        harmless=("relay", "first"),
        lacking=(({"card_node": "crm1", "driver": "numato", "device": "/dev/nowhere"}, 5),),
        data=(),
        prepare=numato_card,
        promotable=True,
        label="numato",
    ),
    Case(
        "rhino-relay",
        {"card_node": "crm2"},
        bad=RHINO_BAD,
        harmless=("relay", "first"),
        lacking=(),
        data=(),
        promotable=True,
        label="without-card",
    ),
)
