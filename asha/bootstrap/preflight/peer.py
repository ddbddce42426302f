"""Whether two nodes fit together: each tells the other its facts before they join."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from asha.bootstrap.facts import OWNERS
from asha.data.space import size
from asha.finding import Finding, error, warning

# Two clocks further apart than this make call records and logs hard to follow.
CLOCK_SECONDS = 2.0
SECTOR = 512

# Debian policy 9.2.2: the system's accounts are below 1000; adduser takes from 999 down
# or 100 up, so that these are mostly free.
SYSTEM_IDS = range(998, 99, -1)

# Name, and how many parts of the number make a release series.
VERSIONS = {"pacemaker": ("Pacemaker", 1), "corosync": ("Corosync", 1),
            "drbd": ("DRBD's kernel module", 1), "mariadb-server": ("MariaDB", 2),
            "asterisk": ("Asterisk", 1)}

Facts = dict[str, object]


def compare(own: Facts, other: Facts) -> list[Finding]:
    """What does not fit, as seen from this node: the hint is for this node where possible.

    Both arguments are of facts.shared_facts. In an answer of another release something may be
    missing or of another kind: that is a finding, not an exception.
    """
    findings: list[Finding] = []
    for part in PARTS:
        try:
            findings += part(own, other)
        except (KeyError, TypeError, ValueError, AttributeError):
            return [error("the other node's asha is of another release and cannot be understood",
                          "install the same asha package on both nodes")]
    return findings


def _site(own: Facts, other: Facts) -> Iterator[Finding]:
    here, there = str(own["name"]), str(other["name"])
    hint = f"asha configure, here or on {there}: both must say the same"
    if other["first"] and own["first"]:
        yield error("both nodes are configured as the first one (PRIMARY=true)",
                    "set PRIMARY=false on the node that is to join")
    if _addresses(own) != _addresses(other):
        yield error(f"the nodes are {_spelt(own)} in {here}'s asha.conf "
                    f"and {_spelt(other)} in {there}'s", hint)
    mine, theirs = own["agree"], other["agree"]
    if not isinstance(mine, dict) or not isinstance(theirs, dict):
        raise TypeError
    for key, value in mine.items():
        if value != theirs[key]:
            yield error(f"{key} is {value} here and {theirs[key]} on {there}", hint, key)
    ours, others = own["relay"], other["relay"]
    if ours and others and ours != others:
        yield error(f"the line relay is powered by {ours} in {here}'s asha.conf and by {others} "
                    f"in {there}'s", hint, "RHINOSPF")


def _addresses(facts: Facts) -> dict[str, str]:
    nodes = facts["nodes"]
    if not isinstance(nodes, dict):
        raise TypeError
    return {str(name): str(address) for name, address in nodes.items()}


def _spelt(facts: Facts) -> str:
    return " and ".join(f"{name} {address}" for name, address in sorted(_addresses(facts).items()))


def _store(own: Facts, other: Facts) -> Iterator[Finding]:
    mine, theirs = _number(own["size"]), _number(other["size"])
    for size_read, facts in ((mine, own), (theirs, other)):
        if not size_read:
            yield warning(f"{facts['name']} cannot read the size of {facts['device']}: whether the "
                          "two partitions have the same is not known",
                          f"on both nodes: blockdev --getsize64 {facts['device']}")
    if mine and theirs and mine != theirs:
        yield error(
            f"the partitions for the store differ: {own['device']} here has {mine} bytes "
            f"({size(mine)}), {other['device']} on {other['name']} has {theirs} ({size(theirs)})",
            f"make the one here exactly {theirs // SECTOR} sectors of {SECTOR} bytes "
            f"(parted /dev/DISK unit s mkpart …)",
        )


def _owners(own: Facts, other: Facts) -> Iterator[Finding]:
    """The store keeps numbers, not names: the numbers must be the same on both nodes."""
    there = str(other["name"])
    for kind, sort in (("users", "uid"), ("groups", "gid")):
        mine, theirs = _table(own[kind]), _table(other[kind])
        for name in OWNERS:
            if name in theirs and name not in mine and name != "openldap":
                yield error(f"there is no {kind[:-1]} {name} here, but on {there}",
                            f"install here what {there} has, then: id {name}")
            elif name in theirs and name in mine and mine[name] != theirs[name]:
                yield error(
                    f"{name} has {sort} {mine[name]} here and {theirs[name]} on {there}: "
                    f"it could not read its files in the store",
                    _renumber(kind, name, mine, theirs),
                )


def _renumber(kind: str, name: str, mine: dict[str, int], theirs: dict[str, int]) -> str:
    """The commands that give ``name`` the other node's number, and its files with it."""
    commands = []
    wanted = theirs[name]
    squatter = next((who for who, number in mine.items() if number == wanted), "")
    if squatter:
        taken = {*mine.values(), *theirs.values()}
        free = next(number for number in SYSTEM_IDS if number not in taken)
        commands += _move(kind, squatter, wanted, free)
    commands += _move(kind, name, mine[name], wanted)
    return "stop the services here, then: " + "; ".join(commands)


def _move(kind: str, name: str, old: int, new: int) -> list[str]:
    everywhere = r"find / \( -fstype proc -o -fstype sysfs \) -prune -o"
    if kind == "users":
        return [f"usermod --uid {new} {name}",
                f"{everywhere} -uid {old} -exec chown --no-dereference {new} {{}} +"]
    return [f"groupmod --gid {new} {name}",
            f"{everywhere} -gid {old} -exec chgrp --no-dereference {new} {{}} +"]


def _table(value: object) -> dict[str, int]:
    if not isinstance(value, dict):
        raise TypeError
    return {str(name): _number(number) for name, number in value.items()}


def _number(value: object) -> int:
    if not isinstance(value, int):
        raise TypeError
    return value


def _clock(own: Facts, other: Facts) -> Iterator[Finding]:
    received, clock = other.get("received"), other["clock"]
    if received is None:
        return  # nobody noted our own clock when the other's came
    if not isinstance(received, int | float) or not isinstance(clock, int | float):
        raise TypeError
    apart = abs(received - clock)
    if apart > CLOCK_SECONDS:
        yield error(
            f"the clocks of {own['name']} and {other['name']} are {apart:.0f} s apart",
            "apt install chrony on both nodes, and wait until chronyc tracking says so",
        )


def _versions(own: Facts, other: Facts) -> Iterator[Finding]:
    mine, theirs = own["versions"], other["versions"]
    if not isinstance(mine, dict) or not isinstance(theirs, dict):
        raise TypeError
    there = other["name"]
    for key, (name, parts) in VERSIONS.items():
        one, two = str(mine.get(key, "")), str(theirs.get(key, ""))
        if one and two and one.split(".")[:parts] != two.split(".")[:parts]:
            yield warning(f"{name} is {one} here and {two} on {there}",
                          "bring both nodes to the same Debian release")


PARTS: tuple[Callable[[Facts, Facts], Iterator[Finding]], ...] = (
    _site, _store, _owners, _clock, _versions,
)
