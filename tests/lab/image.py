"""The node's image: one read-only tree per Debian release, built once and cached.

The cache's key is a hash of everything the tree is made from, so that a change
of the recipe builds anew and nothing else does.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from tests.lab.host import LabError, LabUnavailable, check_host, run

FILES = Path(__file__).parent / "files"
RELEASES = ("trixie", "bookworm")

# A customer's Debian with the cluster's packages; xmllint, gdb, sipsak, curl
# and lsof are for the tests and for the stock agents.
PACKAGES = (
    "systemd-sysv dbus iproute2 iputils-arping iputils-ping procps psmisc nftables kmod "
    "e2fsprogs util-linux less make pacemaker pacemaker-cli-utils corosync crmsh pcs "
    "resource-agents mariadb-server apache2 sqlite3 libxml2-utils gdb sipsak curl lsof "
    "python3 python3-serial python3-lxml"
).split()

# In neither bookworm nor trixie; bullseye's installs and runs on both.
ASTERISK_RELEASE = "bullseye"
ASTERISK_PACKAGES = (
    "asterisk asterisk-modules asterisk-config asterisk-voicemail asterisk-mysql "
    "asterisk-core-sounds-en-gsm"
).split()

APT_OPTIONS = (
    'Acquire::Languages "none"',
    'APT::Install-Recommends "false"',
    # Bullseye is archived: its Release file is past its date and stays right.
    'Acquire::Check-Valid-Until "false"',
)
DPKG_OPTIONS = (
    "force-unsafe-io",
    "path-exclude=/usr/share/doc/*",
    "path-exclude=/usr/share/locale/*",
)
BUILD_SECONDS = 1800.0

Say = Callable[[str], None]


def cache_directory() -> Path:
    return Path(os.environ.get("ASHA_LAB_CACHE", "/var/cache/asha-lab"))


def mirror() -> str:
    """The Debian mirror that this machine itself uses (or ASHA_LAB_MIRROR)."""
    chosen = os.environ.get("ASHA_LAB_MIRROR", "")
    if chosen:
        return chosen
    listed = run(["apt-get", "indextargets", "--format", "$(REPO_URI)"], check=False)
    for uri in listed.out.split():
        if uri.rstrip("/").endswith("/debian"):
            return uri.rstrip("/")
    raise LabUnavailable(
        "this machine's apt names no Debian mirror: set ASHA_LAB_MIRROR to one, "
        "the address that ends in /debian"
    )


def recipe_hash(release: str) -> str:
    digest = hashlib.sha256()
    parts = (release, *PACKAGES, ASTERISK_RELEASE, *ASTERISK_PACKAGES, *DPKG_OPTIONS)
    digest.update("\n".join(parts).encode())
    for path in sorted(FILES.rglob("*")):
        if path.is_file() and image_file(path):
            digest.update(f"{path.relative_to(FILES)} {path.stat().st_mode & 0o111}".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def image_file(path: Path) -> bool:
    """Whether the file is part of the image (others are installed per node)."""
    parts = path.relative_to(FILES).parts
    return parts[0] in ("image", "customize")


def image_path(release: str) -> Path:
    return cache_directory() / f"{release}-{recipe_hash(release)}"


def ensure_image(release: str, say: Say) -> Path:
    """The tree of a release, built now if the cache has none.

    Two callers build it once: the second waits. A build that is cut off leaves
    nothing that a later one would take for whole.
    """
    if release not in RELEASES:
        raise LabError(f"unknown release {release}: one of {', '.join(RELEASES)}")
    cache = cache_directory()
    check_host(cache)
    wanted = image_path(release)
    with (cache / f"{release}.lock").open("w") as lock:
        if not wanted.is_dir():
            fcntl.flock(lock, fcntl.LOCK_EX)
        if not wanted.is_dir():
            remove_trees(cache, f"building-{release}-")
            building = cache / f"building-{wanted.name}"
            try:
                build(release, building, say)
                building.rename(wanted)
            finally:
                if building.is_dir():
                    remove_trees(cache, building.name)
            remove_trees(cache, f"{release}-", keep=wanted.name)
    return wanted


def build(release: str, tree: Path, say: Say) -> None:
    """Make the tree in place; about three minutes, mostly downloading."""
    begun = time.monotonic()
    say(f"building the node image: Debian {release} with Asterisk, once (3 to 6 minutes)")
    log = cache_directory() / f"{release}.log"
    source = mirror()
    with log.open("w") as out:

        def step(what: str, argv: list[str]) -> None:
            say(f"  [{time.monotonic() - begun:4.0f} s] {what}")
            done = subprocess.run(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                timeout=BUILD_SECONDS,
                check=False,
                env={
                    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
                    "LC_ALL": "C",
                    "DEBIAN_FRONTEND": "noninteractive",
                    **{k: v for k, v in os.environ.items() if k.lower().endswith("_proxy")},
                },
            )
            if done.returncode != 0:
                out.flush()
                tail = "\n".join(log.read_text(errors="replace").splitlines()[-5:])
                raise LabError(f"{what} failed (whole log: {log}):\n{tail}")

        step(
            f"the base system and {len(PACKAGES)} packages",
            [
                "mmdebstrap",
                "--variant=apt",
                "--mode=root",
                "--format=directory",
                *(f"--aptopt={option}" for option in APT_OPTIONS),
                *(f"--dpkgopt={option}" for option in DPKG_OPTIONS),
                f"--include={','.join(PACKAGES)}",
                release,
                str(tree),
                source,
            ],
        )
        apt = tree / "etc/apt"
        (apt / "sources.list.d/asterisk.list").write_text(
            f"deb {source} {ASTERISK_RELEASE} main\n"
        )
        (apt / "preferences.d/asterisk").write_text(
            f"Package: *\nPin: release n={ASTERISK_RELEASE}\nPin-Priority: 50\n"
        )
        shutil.copy("/etc/resolv.conf", tree / "etc/resolv.conf")
        # No package starts a service while the image is made.
        policy = tree / "usr/sbin/policy-rc.d"
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
        chroot = ["chroot", str(tree)]
        step("Asterisk's package list", [*chroot, "apt-get", "update"])
        step("Asterisk", [*chroot, "apt-get", "install", "-y", *ASTERISK_PACKAGES])
        policy.unlink()
        (tree / "etc/resolv.conf").unlink()
        shutil.copytree(FILES / "image", tree, dirs_exist_ok=True)
        shutil.copy(FILES / "customize", tree / "tmp/customize")
        step("the PBX's data and the store", [*chroot, "/tmp/customize"])
        (tree / "tmp/customize").unlink()
    say(f"  [{time.monotonic() - begun:4.0f} s] done, kept in {cache_directory()}")


def remove_trees(cache: Path, prefix: str, keep: str = "") -> None:
    """Delete trees by the beginning of their names, except those in use."""
    mounts = Path("/proc/mounts").read_text()
    for tree in cache.iterdir():
        if tree.is_dir() and tree.name.startswith(prefix) and tree.name != keep:
            if f"lowerdir={tree}," in mounts:
                continue
            # Something of a cut-off build may still be mounted inside.
            for line in reversed(mounts.splitlines()):
                place = line.split()[1]
                if place.startswith(f"{tree}/"):
                    run(["umount", "--lazy", place], check=False)
            shutil.rmtree(tree, ignore_errors=True)
