"""The image of a real node: a kernel with DRBD, as a program, and a disk for it to boot from.

Made of Debian's packages: User Mode Linux of sid (its kernel has DRBD 8.4, softdog and
device-mapper as modules), and of the release the customer's PBX, without the lab's stand-ins
for DRBD. User Mode Linux wants a newer C library than Debian 12 has, so it gets the release's
(see RealNode). The result is a directory:

    root.img   the disk, sparse
    usr/       what the kernel's program is run with, mounted over /usr for it alone
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

KERNEL_RELEASE = "sid"
KERNEL_PACKAGE = "user-mode-linux"
# What a customer's machine has, and a container does not need.
REAL_PACKAGES = "udev ethtool dmsetup fdisk".split()
DISK_SIZE = 3 << 30
# Places of the stand-ins, which are in files/node and never in this image; only the room
# that was made for them is to be given back.
UNDIVERT = (
    'for place; do dpkg-divert --local --no-rename --remove "$place"; done; rm -rf /usr/lib/lab; '
    '! dpkg-divert --list | grep -i drbd'
)
LIBRARIES = "usr/lib/x86_64-linux-gnu"
LOADER = "usr/lib64/ld-linux-x86-64.so.2"
PROGRAM = "usr/bin/linux.uml"


def make(customer: Path, source: str, files: Path, diverted: Sequence[str],
         packages: Sequence[str], directory: Path,
         step: Callable[[str, Sequence[str]], None]) -> None:
    """In ``directory``, of the customer's image; ``source`` is Debian's mirror.

    ``packages``: those that asha's package depends on. apt would take a minute for them on a
    real node, and nothing of DRBD's is in that: the fast nodes' tests install them as a
    customer does.
    """
    directory.mkdir()
    tree = directory / "tree"
    step("a copy of the customer's PBX",
         ["cp", "--archive", "--reflink=auto", str(customer), str(tree)])
    chroot = ["chroot", str(tree)]
    step("room for the true DRBD", [*chroot, "sh", "-e", "-c", UNDIVERT, "sh", *diverted])
    lists = tree / "etc/apt/sources.list.d/mirror.list"
    # Sid's Release file may be past its date and stays right.
    lists.write_text(f"deb {source} trixie main\n"
                     f"deb [check-valid-until=no] {source} {KERNEL_RELEASE} main\n")
    pinned = tree / "etc/apt/preferences.d/kernel"
    pinned.write_text(f"Package: *\nPin: release n={KERNEL_RELEASE}\nPin-Priority: 50\n")
    policy = tree / "usr/sbin/policy-rc.d"
    policy.write_text("#!/bin/sh\nexit 101\n")
    policy.chmod(0o755)
    shutil.copy("/etc/resolv.conf", tree / "etc/resolv.conf")
    step("the package lists", [*chroot, "apt-get", "update"])
    step("what a machine has",
         [*chroot, "apt-get", "install", "-y", "--no-install-recommends", *REAL_PACKAGES])
    step("what asha's package depends on",
         [*chroot, "apt-get", "install", "-y", "--no-install-recommends", *packages])
    step("the kernel, 36 MB",
         [*chroot, "sh", "-e", "-c", f"cd /tmp && apt-get download {KERNEL_PACKAGE}/"
          f"{KERNEL_RELEASE} && dpkg-deb -x {KERNEL_PACKAGE}_*.deb kernel && rm *.deb"])
    for one in (lists, pinned, policy, tree / "etc/resolv.conf"):
        one.unlink()
    shutil.rmtree(tree / "var/lib/apt/lists")
    step("apt's own lists", [*chroot, "sh", "-c", "apt-get clean && apt-get update"])
    take_kernel(tree, directory)
    shutil.copytree(files / "real", tree, dirs_exist_ok=True)
    shutil.copy(files / "customize-real", tree / "tmp/customize")
    step("its own devices", [*chroot, "/tmp/customize"])
    disk = directory / "root.img"
    with disk.open("wb") as image:
        image.truncate(DISK_SIZE)
    # Orphan files and checksum seeds are not for every host's kernel to mount.
    step("the disk", ["mkfs.ext4", "-q", "-F", "-O", "^metadata_csum_seed,^orphan_file", "-m", "0",
                      "-d", str(tree), str(disk)])
    shutil.rmtree(tree)


def take_kernel(tree: Path, directory: Path) -> None:
    """The modules into the tree; the program, with its C library, beside it."""
    unpacked = tree / "tmp/kernel"
    (tree / "usr/lib/modules").mkdir(exist_ok=True)
    for version in (unpacked / "usr/lib/uml/modules").iterdir():
        shutil.copytree(version, tree / "usr/lib/modules" / version.name, symlinks=True)
    for place in (PROGRAM, LIBRARIES, LOADER):
        (directory / place).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(unpacked / PROGRAM, directory / PROGRAM)
    (directory / LIBRARIES).mkdir()
    for name in ("libc.so.6", "ld-linux-x86-64.so.2"):
        shutil.copy2(tree / LIBRARIES / name, directory / LIBRARIES / name)
    (directory / LOADER).symlink_to("../lib/x86_64-linux-gnu/ld-linux-x86-64.so.2")
    shutil.rmtree(unpacked)
