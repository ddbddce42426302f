"""DRBD: the version of this kernel's module, the resource "asha", and the state of both disks.

Debian's drbd-utils 9.22 drive both modules: the 8.4 of Debian's kernels and LINBIT's 9. They
take different configuration (drbd.conf-8.4(5), drbd.conf-9.0(5)) and report their state in
different ways.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from asha.cluster.secret import Secret
from asha.cluster.site import NodeConfig, Site
from asha.machine import Machine

RESOURCE = "asha"
DEVICE = "/dev/drbd0"
MINOR = 0
CONF = "/etc/drbd.d/asha.res"
# Registered for nobody, but DRBD's usual first port.
PORT = 7788

PROC = "/proc/drbd"
LOOK_SECONDS = 10.0

# What drbd-utils say where there is nothing to say.
UNCONFIGURED = "Unconfigured"
UNKNOWN = "Unknown"
DISK_UNKNOWN = "DUnknown"
# drbdsetup.c (peer_device_status_json): no speed yet, so no end.
NO_END = 987654321

# Connection states (8.4) and replication states (9) in which blocks are copied.
SYNCING = ("SyncSource", "SyncTarget", "PausedSyncS", "PausedSyncT")


@dataclass(frozen=True)
class Replication:
    """The state of both disks, in DRBD's own words.

    ``connection``: Connected; SyncSource or SyncTarget during a resync; Connecting or
    WFConnection while the peer is missing; StandAlone after a split brain; Unconfigured when
    the resource is not up. ``percent`` of what there is to copy is done, 100 when nothing is
    left. KiB, KiB/s and seconds; None: not known.
    """

    version: str
    role: str = UNKNOWN
    peer_role: str = UNKNOWN
    connection: str = UNCONFIGURED
    disk: str = DISK_UNKNOWN
    peer_disk: str = DISK_UNKNOWN
    percent: float | None = None
    out_of_sync: int | None = None
    speed: int | None = None
    seconds_left: int | None = None

    @property
    def is_up(self) -> bool:
        return self.connection != UNCONFIGURED

    @property
    def is_connected(self) -> bool:
        return self.connection in ("Connected", *SYNCING)

    @property
    def is_syncing(self) -> bool:
        return self.connection in SYNCING

    @property
    def is_whole(self) -> bool:
        """Whether both disks are there and UpToDate: either node may go on alone."""
        return self.is_connected and self.disk == self.peer_disk == "UpToDate"


def version(machine: Machine) -> str:
    """The version of the kernel's module, such as "8.4.11"; "" without one."""
    found = re.match(r"version: (\S+)", machine.read(PROC) or "")
    return found[1] if found else machine.output("modinfo", "-F", "version", "drbd").strip()


def is_old(version: str) -> bool:
    """Whether it is 8.4. Without a module drbdadm takes the configuration of 9."""
    return version.startswith("8.")


# Two nodes, each of which must be able to go on alone: no quorum, and no fencing of
# nodes until the site has a device for it. What is left is fencing the resource:
# when the disks lose each other while Pacemaker still has a link (the LAN ring), the
# survivor forbids the other's stale copy to be promoted, by a constraint that the
# resync's end removes. resource-and-stonith would freeze the disk for good when
# nobody can shoot. A node that leaves in an orderly way marks its own disk outdated.
# The scripts of drbd-utils 9.22 cannot read Pacemaker 2.1.7 and later: asha/fencing/handler.py.
HANDLER = "/usr/bin/python3 -I -m asha.fencing.handler"
NOTHING = "/bin/true"


def masked(text: str) -> str:
    """A DRBD resource without its shared secret, for a person to read."""
    return re.sub(r'(shared-secret\s+)("[^"\n]*"|[^\s;]+)', r'\1"(not shown)"', text)


def render(site: Site, secret: Secret, version: str) -> str:
    """The text of /etc/drbd.d/asha.res. The shared secret is in it: mode 600.

    Each node writes its own DRBDDEV in both sections: it reads only its own.
    """
    old = is_old(version)
    fencing = ["        fencing resource-only;"]
    lines = [
        f"# Written by asha, for DRBD {version or '9'}. The store's replicated disk.",
        "# What a section common says elsewhere does not count for what is said here.",
        f"resource {RESOURCE} {{",
        f"    device {DEVICE} minor {MINOR};",
        f"    disk {site.device};",
        "    meta-disk internal;",
        "    net {",
        "        # A write is done when it is on both disks. One node writes at a time.",
        "        protocol C;",
        "        allow-two-primaries no;",
        "        on-congestion block;",
        "        cram-hmac-alg sha256;",
        f'        shared-secret "{secret.drbd()}";',
        "        verify-alg crc32c;",
        "        # Of the data on its way, TCP's own sums are enough: a buffer that the file",
        "        # system changes meanwhile would cost the connection.",
        '        data-integrity-alg "";',
        '        csums-alg "";',
        "        # A dead peer holds writes up for 2 s and not 10 (s, tenths, tenths); a disk",
        "        # of its that is slow for 7 times the timeout is let go.",
        "        ping-int 1;",
        "        ping-timeout 10;",
        "        timeout 9;",
        "        ko-count 7;",
        "        # Seconds between two attempts to reach it.",
        "        connect-int 3;",
        "        # After a split brain: by itself only where no write is lost.",
        "        after-sb-0pri discard-zero-changes;",
        "        after-sb-1pri consensus;",
        "        after-sb-2pri disconnect;",
        "        always-asbp no;",
        "        rr-conflict disconnect;",
        "        # Room for a sync at the speed of the link.",
        "        max-buffers 8000;",
        "        max-epoch-size 8000;",
        "        sndbuf-size 0;",
        "        rcvbuf-size 0;",
        "        use-rle yes;",
        "        tcp-cork yes;",
        *([] if old else [*fencing, "        allow-remote-read yes;"]),
        "    }",
        "    disk {",
        "        # A disk with errors is dropped; the node goes on with the other one's.",
        "        on-io-error detach;",
        "        disk-timeout 0;",
        *(fencing if old else []),
        "        # What is written is on the platter, and so is the note of where it was.",
        "        disk-barrier no;",
        "        disk-flushes yes;",
        "        disk-drain yes;",
        "        md-flushes yes;",
        "        al-updates yes;",
        "        al-extents 1237;",
        "        read-balancing prefer-local;",
        "        # Sync as fast as link and disks go. What holds it back for the telephone system",
        "        # is how little of it is on its way at a time: no write waits behind more.",
        "        c-plan-ahead 20;",
        "        c-fill-target 2M;",
        "        c-max-rate 700M;",
        "        c-min-rate 0;",
        "        # The first tenth of a second's, before it is known what goes.",
        "        resync-rate 100M;",
        "    }",
        "    options {",
        "        # Without any disk there is an error, which Pacemaker sees, and no freeze.",
        "        on-no-data-accessible io-error;",
    ]
    if not old:
        lines += [
            "        # Pacemaker promotes, never a mount by itself; and it counts the nodes.",
            "        auto-promote no;",
            "        quorum off;",
        ]
    lines += ["    }", "    handlers {", f'        fence-peer "{HANDLER} fence";']
    if old:
        lines.append(f'        after-resync-target "{HANDLER} unfence";')
    lines += [
        # 9 calls it where 8.4 calls both: after-resync-target on the one node, this on the other.
        f'        unfence-peer "{HANDLER} unfence";',
        "        # In many a section common these reset the node, or forbid a sync.",
        *(f'        {name} "{NOTHING}";' for name in _silenced(old)),
        "    }",
    ]
    for node in sorted((site.first, site.second), key=lambda node: node.nodeid):
        lines += _on(node, old)
    return "\n".join([*lines, "}"]) + "\n"


def _silenced(old: bool) -> list[str]:
    """The handlers that do more than tell somebody."""
    both = ["pri-on-incon-degr", "pri-lost", "pri-lost-after-sb", "local-io-error",
            "before-resync-target", "before-resync-source"]
    return both if old else [*both, "after-resync-target", "quorum-lost"]


def _on(node: NodeConfig, old: bool) -> list[str]:
    lines = [f"    on {node.name} {{", f"        address {node.address}:{PORT};"]
    if not old:
        lines.append(f"        node-id {node.nodeid - 1};")
    return [*lines, "    }"]


def status(machine: Machine) -> Replication:
    """The state now. Never raises UserError: what cannot be asked is not known."""
    has = version(machine)
    said = machine.output("drbdsetup", "status", RESOURCE, "--json", timeout=LOOK_SECONDS)
    found = parse_json(said, has) or parse_proc(
        machine.read(PROC) or "", has, device_size(machine)
    )
    return found or _by_words(machine, has)


def device_size(machine: Machine) -> int | None:
    """KiB of the replicated disk; the kernel counts sectors of 512 bytes."""
    sectors = (machine.read(f"/sys/block/drbd{MINOR}/size") or "").strip()
    return int(sectors) // 2 if sectors.isdecimal() else None


def parse_json(text: str, version: str) -> Replication | None:
    """``drbdsetup status --json`` of drbd-utils 9 (user/v9/drbdsetup.c,
    resource_status_json and below). None where it is something else."""
    try:
        resources = json.loads(text)
        resource = next(one for one in resources if one["name"] == RESOURCE)
        device = resource["devices"][0]
        connections = resource.get("connections") or [{}]
        connection = connections[0]
        peer = (connection.get("peer_devices") or [{}])[0]
        state = str(connection.get("connection-state", "StandAlone"))
        replication = str(peer.get("replication-state", "Off"))
        return Replication(
            version=version,
            role=str(resource["role"]),
            peer_role=str(connection.get("peer-role", UNKNOWN)),
            # 9 tells the link and what goes over it apart; here they are one, as in 8.4.
            connection=replication if replication not in ("Off", "Established") else state,
            disk=str(device["disk-state"]),
            peer_disk=str(peer.get("peer-disk-state", DISK_UNKNOWN)),
            percent=_number(peer.get("percent-resync-done", peer.get("percent-in-sync"))),
            out_of_sync=_whole(peer.get("out-of-sync")),
            speed=_whole(peer.get("db1/dt1 [MiB/s]"), 1024),
            seconds_left=_end(peer.get("estimated-seconds-to-finish")),
        )
    except (ValueError, TypeError, KeyError, IndexError, StopIteration, AttributeError,
            ArithmeticError, RecursionError):
        return None


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _whole(value: object, unit: int = 1) -> int | None:
    return round(value * unit) if isinstance(value, int | float) else None


def _end(value: object) -> int | None:
    seconds = _whole(value)
    return None if seconds is None or seconds >= NO_END else seconds


# drbd 8.4, drbd_proc.c: one line of states, one of counters, two more while syncing.
STATES = re.compile(
    rf"^\s*{MINOR}: cs:(?P<connection>\S+)"
    r"(?: ro:(?P<role>[^/\s]+)/(?P<peer_role>\S+) ds:(?P<disk>[^/\s]+)/(?P<peer_disk>\S+))?",
    re.MULTILINE,
)
OUT_OF_SYNC = re.compile(r"\boos:(\d{1,18})\b")
SYNCED = re.compile(r"sync'ed:\s*(\d{1,3}(?:\.\d{1,9})?)%")
FINISH = re.compile(r"finish: (\d{1,9}):(\d\d):(\d\d)")
SPEED = re.compile(r"speed: (\d[\d,]{0,18})")


def parse_proc(text: str, version: str, size: int | None = None) -> Replication | None:
    """/proc/drbd of 8.4 (and 8.3). ``size``: KiB of the device. None: not in there."""
    states = STATES.search(text)
    if states is None:
        return None
    if states["role"] is None:
        return Replication(version, connection=states["connection"])
    # Up to the next resource's line.
    rest = re.split(r"^\s*\d+: cs:", text[states.end():], maxsplit=1, flags=re.MULTILINE)[0]
    oos, synced = OUT_OF_SYNC.search(rest), SYNCED.search(rest)
    finish, speed = FINISH.search(rest), SPEED.search(rest)
    out_of_sync = int(oos[1]) if oos else None
    percent: float | None = None
    if synced:
        percent = float(synced[1])
    elif out_of_sync == 0:
        percent = 100.0
    elif out_of_sync is not None and size:
        percent = 100.0 * (1 - min(out_of_sync, size) / size)
    return Replication(
        version=version,
        role=states["role"],
        peer_role=states["peer_role"],
        connection=states["connection"],
        disk=states["disk"],
        peer_disk=states["peer_disk"],
        percent=percent,
        out_of_sync=out_of_sync,
        speed=int(speed[1].replace(",", "")) if speed else None,
        seconds_left=sum(
            int(part) * unit for part, unit in zip(finish.groups(), (3600, 60, 1), strict=True)
        ) if finish else None,
    )


def _by_words(machine: Machine, version: str) -> Replication:
    """``drbdadm role|cstate|dstate``: no figures, but every version has them."""
    def ask(what: str) -> tuple[str, str]:
        said = machine.output("drbdadm", what, RESOURCE, timeout=LOOK_SECONDS).strip()
        here, _, there = said.splitlines()[0].partition("/") if said else ("", "", "")
        return here, there

    connection = ask("cstate")[0]
    if not connection:
        return Replication(version)
    role, disk = ask("role"), ask("dstate")
    return Replication(
        version=version,
        role=role[0] or UNKNOWN,
        peer_role=role[1] or UNKNOWN,
        connection=connection,
        disk=disk[0] or DISK_UNKNOWN,
        peer_disk=disk[1] or DISK_UNKNOWN,
    )
