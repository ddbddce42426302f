"""Step 20: the replicated disk of the store.

The first node makes it: metadata, the first Primary, a file system. The second gets it by
DRBD's resync. Once Pacemaker has the resource (its configuration names it) nothing is left to
do here: then Pacemaker decides about up, down and Primary.
"""

from __future__ import annotations

from asha.bootstrap.action import Action, Call, Run, Say, Write, enable
from asha.bootstrap.host import services
from asha.bootstrap.host.data_directories import STORE
from asha.cluster import cib, drbd
from asha.cluster.drbd import Replication
from asha.cluster.secret import Secret
from asha.cluster.site import Site
from asha.errors import UserError
from asha.machine import Machine

# There from before the metadata is made until the cluster has the store: the disk was
# empty when this installation began, and nobody else's data can be on it. Without it
# nothing is ever forced.
NEW = "/var/lib/asha/store-is-new"

# Writing the bitmap of a large disk; making a file system on it, through DRBD.
METADATA_SECONDS = 300.0
MKFS_SECONDS = 900.0
DRBD_SECONDS = 120.0

NO_MODULE = ("apt install linux-image-amd64 (Debian's cloud kernels of some versions have no "
             "DRBD), reboot, and run asha install again")


def actions(site: Site, version: str, secret: Secret) -> list[Action]:
    """``version`` is the kernel module's."""
    made: list[Action] = [
        Run(
            title="load DRBD",
            argv=["modprobe", "drbd"],
            done=lambda machine: machine.exists(drbd.PROC) or _is_up(machine),
            hint=NO_MODULE,
        ),
        Write(
            drbd.CONF,
            drbd.render(site, secret, version),
            mode=0o600,
            secret=True,
            masked=drbd.masked,
            why=f"the replicated disk: {drbd.CONF}",
        ),
        Run(
            title="disable drbd.service: Pacemaker starts DRBD",
            argv=["systemctl", "disable", "drbd.service"],
            done=lambda machine: not services.is_enabled(machine, "drbd.service"),
        ),
        Call(
            name="drbd-metadata",
            title=f"prepare {site.device} for DRBD",
            what=f"refuse {site.device} unless it is empty (wipefs)\n"
                 f"drbdadm --force create-md {drbd.RESOURCE}",
            work=lambda machine, say: _make_metadata(site, machine),
            done=lambda machine: _is_up(machine) or _has_metadata(machine),
        ),
        Call(
            name="drbd-up",
            title="start the replicated disk",
            what=f"drbdadm up {drbd.RESOURCE}",
            work=lambda machine, say: _up(machine),
            done=_is_up,
        ),
        Run(
            title=f"the store's mount point {STORE}",
            argv=["mkdir", "-p", STORE],
            done=lambda machine: machine.path(STORE).is_dir(),
        ),
    ]
    if site.is_first:
        made.append(Call(
            name="drbd-store",
            title="make the store: first Primary, file system",
            what=f"drbdadm primary --force {drbd.RESOURCE}   (a disk made just now only)\n"
                 f"mkfs.ext4 -q -L asha {drbd.DEVICE}   (without a file system on it only)",
            work=lambda machine, say: _make_store(site, machine, say),
            done=_has_store,
        ))
    # Before any service is stopped for the first time, on either node.
    made.append(enable("after a power cut, roll back an unfinished installation",
                       "asha-recover.service"))
    return made


def _is_up(machine: Machine) -> bool:
    if cib.is_loaded(machine):
        return True
    now = drbd.status(machine)
    return now.is_up and now.disk not in (drbd.DISK_UNKNOWN, "Diskless")


def _has_metadata(machine: Machine) -> bool:
    """drbdmeta(8) finds no generation identifiers where there is no metadata."""
    return bool(machine.output("drbdadm", "get-gi", drbd.RESOURCE).strip())


def _make_metadata(site: Site, machine: Machine) -> None:
    on_it = machine.run("wipefs", "--noheadings", "--output", "TYPE", site.device).out.split()
    if on_it:
        raise UserError(
            f"{site.device} is not empty: {' and '.join(on_it)} is on it",
            f"if nothing on it is needed any more: wipefs --all {site.device}",
        )
    machine.write(NEW, f"{site.device}\n", mode=0o600)
    # It asks about what it finds on the disk; that there is nothing was seen above.
    machine.run("drbdadm", "--force", "create-md", drbd.RESOURCE, timeout=METADATA_SECONDS)


def _up(machine: Machine) -> None:
    if drbd.status(machine).is_up:
        # Cut off half way: up would refuse what is there already.
        machine.run("drbdadm", "down", drbd.RESOURCE, timeout=DRBD_SECONDS)
    machine.run("drbdadm", "up", drbd.RESOURCE, timeout=DRBD_SECONDS)


# The first node's store.

def _has_store(machine: Machine) -> bool:
    if cib.is_loaded(machine):
        return True
    return drbd.status(machine).role == "Primary" and bool(_file_system(machine))


def _file_system(machine: Machine) -> str:
    """What blkid(8) sees on the replicated disk, "" if nothing. Needs the Primary."""
    return machine.output("blkid", "-p", "-o", "value", "-s", "TYPE", drbd.DEVICE).strip()


def _make_store(site: Site, machine: Machine, say: Say) -> None:
    now = drbd.status(machine)
    if now.role != "Primary":
        _promote(site, machine, now)
    found = _file_system(machine)
    if not found:
        say(f"making a file system on {drbd.DEVICE}")
        machine.run("mkfs.ext4", "-q", "-L", "asha", drbd.DEVICE, timeout=MKFS_SECONDS)
    elif found != "ext4":
        raise UserError(f"{drbd.DEVICE} has {found} on it, and not ext4",
                      f"if nothing on it is needed any more: wipefs --all {drbd.DEVICE}")


def _promote(site: Site, machine: Machine, now: Replication) -> None:
    if now.peer_role == "Primary" or (now.is_connected and now.peer_disk == "UpToDate"):
        raise UserError(
            f"{site.there.name} has the store already: {site.here.name} is not the first node",
            "asha configure: answer that this is the second node (PRIMARY=false)",
        )
    if now.disk == "UpToDate":
        machine.run("drbdadm", "primary", drbd.RESOURCE)
    elif machine.exists(NEW):
        # Inconsistent: never promoted. Consistent: it was, and the machine was
        # rebooted since, and DRBD cannot ask the node that does not exist yet.
        machine.run("drbdadm", "primary", "--force", drbd.RESOURCE)
    else:
        raise UserError(
            f"the replicated disk is {now.disk} here, and was not made by this installation",
            f"if nothing on {site.device} is needed any more: drbdadm down {drbd.RESOURCE}; "
            f"wipefs --all {site.device}; and run asha install again",
        )
