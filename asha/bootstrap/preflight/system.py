"""The preflight's checks of the system: name, versions, accounts, clock, other managers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from xml.etree import ElementTree

from asha.bootstrap.preflight.report import CheckContext
from asha.cluster import corosync
from asha.cluster.site import Site
from asha.finding import Finding, error, warning

CIB = "/var/lib/pacemaker/cib/cib.xml"

# What must be installed, with its oldest and newest release that this was made for.
NEEDED = {
    "pacemaker": ("Pacemaker", (2, 1), (3, 0)),
    "corosync": ("Corosync", (3,), (3,)),
    "crmsh": ("crmsh", (4,), (5,)),
    "drbd-utils": ("DRBD's tools", (9,), (9,)),
}
ASTERISK_OLDEST, ASTERISK_NEWEST = 16, 22


def root(look: CheckContext) -> Iterator[Finding]:
    if not look.facts.root:
        yield error("not run as root: disks and addresses could not be looked at",
                    "sudo asha check")


def systemd(look: CheckContext) -> Iterator[Finding]:
    if not look.facts.systemd:
        yield error("this machine was not started by systemd", "apt install systemd-sysv, reboot")


def node_name(look: CheckContext) -> Iterator[Finding]:
    """The machine's name is that of this node in asha.conf."""
    site, name = look.site, look.facts.name
    if site.here.name in ("", name):
        return
    key = "ANODENAME" if site.is_first else "BNODENAME"
    if name == site.there.name:
        yield error(
            f"this machine is {name}, but asha.conf says that it is {site.here.name} "
            f"(PRIMARY={str(site.is_first).lower()})",
            f"PRIMARY={str(not site.is_first).lower()} and IP={site.there.address} in asha.conf",
            key,
        )
    else:
        yield error(f"this machine is called {name}: neither {site.first.name} nor "
                    f"{site.second.name}",
                    f"hostnamectl set-hostname {site.here.name}, or asha configure", key)


def programs(look: CheckContext) -> Iterator[Finding]:
    versions = look.facts.versions
    for package, (name, oldest, newest) in NEEDED.items():
        version = versions.get(package, "")
        number = _number(version, len(oldest))
        if not version:
            yield error(f"{name} is not installed", f"apt install {package}")
        elif number < oldest:
            yield error(f"{name} {version} is too old: {_spelt(oldest)} is needed",
                        "upgrade this machine to Debian 12 or 13")
        elif number > newest:
            yield warning(f"{name} {version} is newer than what this was made for "
                          f"({_spelt(newest)})", "try a fail-over before you rely on it")
    if "drbd" not in versions:
        yield error("this kernel has no DRBD module (modinfo drbd)",
                    "apt install linux-image-$(dpkg --print-architecture), Debian's standard "
                    "kernel, and reboot into it")
    yield from _telephone_system(versions)
    if not look.machine.has("gdb"):
        yield warning("gdb is not installed: what is kept of a hung Asterisk (asha evidence) has "
                      "no backtraces", "apt install gdb")


def _telephone_system(versions: Mapping[str, str]) -> Iterator[Finding]:
    asterisk = versions.get("asterisk", "")
    if not asterisk:
        yield error("there is no Asterisk here", "install the telephone system first")
    elif not ASTERISK_OLDEST <= _number(asterisk, 1)[0] <= ASTERISK_NEWEST:
        yield warning(f"Asterisk {asterisk}: this was made for {ASTERISK_OLDEST} to "
                      f"{ASTERISK_NEWEST}", "try a fail-over before you rely on it")
    for package, name in (("mariadb-server", "MariaDB"), ("apache2", "Apache")):
        if package not in versions:
            yield warning(f"{name} is not installed: the cluster has none to take care of",
                          f"apt install {package}, if the telephone system uses it")


def _number(version: str, parts: int) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:parts] if part.isdecimal())


def _spelt(number: tuple[int, ...]) -> str:
    return ".".join(str(part) for part in number)


def firewall(look: CheckContext) -> Iterator[Finding]:
    """What closes the cluster's ports can be loaded here: asked of the kernel."""
    if not look.facts.root:
        return
    refused = look.facts.firewall.refusal(look.site, look.machine)
    if refused:
        yield error(f"the firewall's table cannot be loaded: {refused}",
                    "apt install nftables linux-image-$(dpkg --print-architecture), Debian's "
                    "standard kernel, and reboot into it; or set up Shorewall or firewalld, "
                    "which asha then uses")


def accounts(look: CheckContext) -> Iterator[Finding]:
    """The users and groups of the installed programs exist: the data belongs to them."""
    versions = look.facts.versions
    for program, user, hint in (
        ("asterisk", "asterisk", "adduser --system --group asterisk, and have Asterisk run as it"),
        ("mariadb-server", "mysql", "apt install --reinstall mariadb-server"),
        ("apache2", "www-data", "apt install --reinstall base-passwd"),
    ):
        if program in versions:
            for kind, known in (("user", look.facts.users), ("group", look.facts.groups)):
                if user not in known:
                    yield error(f"there is no {kind} {user}", hint)
                    break


def relay_card(look: CheckContext) -> Iterator[Finding]:
    """The card and its program are there, on the node that powers it."""
    relay = look.site.relay
    if relay is None or relay.node != look.site.here.name:
        return
    if not look.machine.exists(relay.device):
        yield error(f"there is no relay card at {relay.device}",
                    "plug it in (dmesg tells its device), or RHINOSPF=NO in asha.conf")
    if relay.driver == "rhino" and not look.machine.exists(relay.program):
        yield error(f"the Rhino's program {relay.program} is not installed",
                    "build it from the vendor's sources, or RELAYPROGRAM= where it is")


def phone_book(look: CheckContext) -> Iterator[Finding]:
    """Its data moves with the rest: slapd must be the cluster's, or not be installed."""
    there = "slapd" in look.facts.versions
    if there and not look.site.ldap:
        yield error("slapd is installed, and the cluster is not to run it (LDAP=NO)",
                    "LDAP=YES in asha.conf on both nodes; or apt remove slapd, if nobody uses it")
    elif look.site.ldap and not there:
        yield error("the cluster is to run slapd (LDAP=YES), and it is not installed",
                    "apt install slapd; or LDAP=NO in asha.conf on both nodes")


def clock(look: CheckContext) -> Iterator[Finding]:
    if look.facts.synchronised is False:
        yield warning("this machine's clock is not synchronised",
                      "apt install systemd-timesyncd: call records of two nodes need one time")


def other_managers(look: CheckContext) -> Iterator[Finding]:
    """Nothing else starts the services or makes a cluster here."""
    machine = look.machine
    for name in ("asterisk", "mysql", "apache2"):
        if machine.exists(f"/etc/service/{name}"):
            yield error(f"runit starts {name} (/etc/service/{name})",
                        f"sv down {name}; rm /etc/service/{name}: it would start it on both nodes")
    for path in ("/etc/ha.d/haresources", "/etc/ha.d/ha.cf"):
        if machine.exists(path):
            yield error(f"Heartbeat is configured here ({path})",
                        "apt purge heartbeat, or move /etc/ha.d away")
            break
    text = machine.read(corosync.CONF)
    if text is not None and not belongs(text, look.site):
        yield error(f"{corosync.CONF} is another cluster's",
                    f"if that may go: systemctl stop pacemaker corosync; "
                    f"mv {corosync.CONF} {corosync.CONF}.old")
    yield from _resources(look)


def belongs(text: str, site: Site) -> bool:
    """Whether a corosync.conf is ours, or the one of Debian's package (node1, 127.0.0.1)."""
    conf = corosync.parse(text)
    if {ring for node in conf.nodes for ring in node.rings} == {"127.0.0.1"}:
        return True
    return conf.cluster_name == corosync.CLUSTER_NAME and (
        {node.name for node in conf.nodes} <= {site.first.name, site.second.name})


def _resources(look: CheckContext) -> Iterator[Finding]:
    try:
        root = ElementTree.fromstring(look.machine.read(CIB) or "<cib/>")
    except (ElementTree.ParseError, PermissionError):
        return  # Pacemaker itself discards what it cannot read
    found = [str(one.get("id")) for one in root.findall("./configuration/resources//primitive")]
    ours = root.find("./configuration/resources//primitive[@provider='asha']")
    if found and ours is None:
        yield error(f"Pacemaker has resources of another cluster: {', '.join(sorted(found)[:5])}",
                    "if they may go: crm configure erase, with the resources stopped")


def fencing(look: CheckContext) -> Iterator[Finding]:
    cut, keep = ("both cables", "keep the two cables apart, and ") if look.site.two_nics else (
        "its cable", "")
    yield warning(f"there is no fencing: a node that hangs with {cut} cut is not switched off",
                  f"{keep}see man asha, FENCING")
