"""Valid inputs: the texts that the unit tests are made of."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

UNIT = Path(__file__).parents[1] / "unit"
REPOSITORY = Path(__file__).parents[2]


@cache
def _texts(name: str) -> tuple[str, ...]:
    tree = ast.parse((UNIT / name).read_text(encoding="utf-8"))
    return tuple(node.value for node in ast.walk(tree)
                 if isinstance(node, ast.Constant) and isinstance(node.value, str))


def of(name: str, mark: str) -> list[str]:
    """The strings in that test file with ``mark`` in them. There is one, or the test file
    has changed."""
    found = [one for one in _texts(name) if mark in one]
    assert found, f"{name} has no sample with {mark!r}"
    return found


def file(name: str) -> str:
    return (UNIT / name).read_text(encoding="utf-8")


SITE = """PRIMARY=true
USENIC1=true
CLUSTERIP=192.168.1.90
LANPREFIX=24
LANNIC=eth0
LINKNIC=eth1
LINKPREFIX=24
CLUSTERNET=10.0.3.0
ANODENAME=crm1
ANODEIP=10.0.3.251
ANODELAN=192.168.1.11
BNODENAME=crm2
BNODEIP=10.0.3.252
IP=10.0.3.251
DRBDDEV=/dev/sda5
CLUSTERALERT=admin@example.com
SITEID="The site"
RHINOSPF=YES
RHINOUSB=/dev/ttyUSB0
RELAYDRIVER=numato
RELAYNUMBER=3
LDAP=NO
"""
