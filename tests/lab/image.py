"""The nodes' images: read-only trees per Debian release, built once and cached.

Four variants. ``customer``: a PBX in service, without any trace of a cluster, and
beside it in /srv/packages what apt will want, since a node has no network.
``cluster``: the same with the cluster's packages and the data in a store.
``builder``: a clean Debian in which the package is built. ``real``: no tree, but the
disk of a customer's PBX and a kernel to boot it (tests/lab/real_image.py).

A tree's name in the cache ends in a hash of everything it is made from, so that
a change of the recipe builds anew and nothing else does.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.lab import real_image
from tests.lab.host import LabError, LabUnavailable, check_host, run

FILES = Path(__file__).parent / "files"
RELEASES = ("trixie", "bookworm")
VARIANTS = ("customer", "cluster", "builder", "real")
# User Mode Linux of today runs with this one's C library.
REAL_RELEASE = "trixie"

# A customer's Debian and his PBX.
PBX_PACKAGES = (
    "systemd-sysv dbus apt-utils iproute2 iputils-ping procps nftables kmod e2fsprogs "
    "util-linux less ifupdown mariadb-server apache2 sqlite3 curl python3"
).split()

# In neither bookworm nor trixie; bullseye's installs and runs on both.
ASTERISK_RELEASE = "bullseye"
ASTERISK_PACKAGES = (
    "asterisk asterisk-modules asterisk-config asterisk-voicemail asterisk-mysql "
    "asterisk-core-sounds-en-gsm"
).split()

# What the package asha depends on or recommends, with all that these need.
CLUSTER_PACKAGES = (
    "pacemaker pacemaker-cli-utils corosync crmsh drbd-utils resource-agents "
    "iputils-arping psmisc rsync gdb python3-serial python3-lxml python3-panoramisk"
).split()
# For the tests and for the stock agents.
TEST_PACKAGES = (
    "make pcs libxml2-utils sipsak sip-tester lsof dnsmasq-base isc-dhcp-client"
).split()
# Not installed, as it would take the nodes' NICs: a test may.
OFFERED_PACKAGES = ("network-manager",)
# Kept although they are installed, so that a test can have them installed again.
UPGRADED_PACKAGES = (
    "mariadb-server mariadb-server-core apache2 apache2-bin asterisk asterisk-modules"
).split()

BUILDER_PACKAGES = (
    "build-essential fakeroot debhelper dh-python python3-all python3-setuptools "
    "bash-completion go-md2man po-debconf lintian"
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
# Of drbd-utils: the lab's stand-ins take their places, and dpkg leaves them there.
# Bookworm's package still says /sbin.
DIVERTED = ("/usr/sbin/drbdsetup", "/sbin/drbdsetup", "/usr/lib/ocf/resource.d/linbit/drbd")
PACKAGES_LIST = "deb [trusted=yes] file:/srv/packages ./\n"
BUILD_SECONDS = 1800.0

Say = Callable[[str], None]
# Told a step's title and its command.
Step = Callable[[str, Sequence[str]], None]


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


def recipe_hash(release: str, variant: str) -> str:
    digest = hashlib.sha256()
    if variant == "builder":
        parts: tuple[str, ...] = (release, *BUILDER_PACKAGES, *APT_OPTIONS, *DPKG_OPTIONS)
    elif variant == "customer":
        parts = (release, *PBX_PACKAGES, ASTERISK_RELEASE, *ASTERISK_PACKAGES, *CLUSTER_PACKAGES,
                 *TEST_PACKAGES, *OFFERED_PACKAGES, *UPGRADED_PACKAGES, *APT_OPTIONS,
                 *DPKG_OPTIONS, *DIVERTED)
    elif variant == "real":
        recipe = Path(real_image.__file__).read_text()
        parts = (recipe_hash(release, "customer"), recipe)
    else:
        parts = (recipe_hash(release, "customer"), *CLUSTER_PACKAGES, *TEST_PACKAGES)
    digest.update("\n".join(parts).encode())
    for path in sorted(FILES.rglob("*")):
        if path.is_file() and image_file(path, variant):
            digest.update(f"{path.relative_to(FILES)} {path.stat().st_mode & 0o111}".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def image_file(path: Path, variant: str) -> bool:
    """Whether the file is part of that image (others are installed per node)."""
    return path.relative_to(FILES).parts[0] in (variant, f"customize-{variant}")


def image_path(release: str, variant: str = "cluster") -> Path:
    return cache_directory() / f"{release}-{variant}-{recipe_hash(release, variant)}"


def program(release: str, path: str) -> list[str]:
    """The command that runs a program of the nodes' image on this machine, with the image's
    own libraries. It sees this machine's files."""
    tree = image_path(release)
    [loader] = (tree / "usr/lib").glob("*-linux-gnu/ld-linux*.so.*")
    return [str(loader), "--library-path", str(loader.parent), f"{tree}{path}"]


def ensure_image(release: str, say: Say, variant: str = "cluster") -> Path:
    """The tree of a release, built now if the cache has none.

    Two callers build it once: the second waits. A build that is cut off leaves
    nothing that a later one would take for whole.
    """
    if release not in RELEASES:
        raise LabError(f"unknown release {release}: one of {', '.join(RELEASES)}")
    if variant == "real" and release != REAL_RELEASE:
        raise LabError(f"real nodes have Debian {REAL_RELEASE} alone")
    cache = cache_directory()
    check_host(cache)
    wanted = image_path(release, variant)
    with (cache / f"{release}-{variant}.lock").open("w") as lock:
        if not wanted.is_dir():
            fcntl.flock(lock, fcntl.LOCK_EX)
        if not wanted.is_dir():
            remove_trees(cache, f"building-{release}-{variant}-")
            building = cache / f"building-{wanted.name}"
            try:
                build(release, variant, building, say)
                building.rename(wanted)
            finally:
                if building.is_dir():
                    remove_trees(cache, building.name)
            remove_trees(cache, f"{release}-{variant}-", keep=wanted.name)
    return wanted


def build(release: str, variant: str, tree: Path, say: Say) -> None:
    """Make the tree in place; minutes, mostly downloading."""
    if variant in ("cluster", "real"):
        # Before this one's clock starts: it says its own steps.
        ensure_image(release, say, "customer")
    begun = time.monotonic()
    what, make = {
        "customer": ("a PBX on Debian", make_customer),
        "cluster": ("the same as a cluster's node, Debian", make_cluster),
        "builder": ("where packages are built, Debian", make_builder),
        "real": ("a PBX with a kernel and a DRBD of its own, Debian", make_real),
    }[variant]
    say(f"making an image, once: {what} {release}")
    log = cache_directory() / f"{release}-{variant}.log"
    with log.open("w") as out:

        def step(title: str, argv: Sequence[str]) -> None:
            say(f"  [{time.monotonic() - begun:4.0f} s] {title}")
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
                raise LabError(f"{title} failed (whole log: {log}):\n{tail}")

        make(release, tree, step)
    say(f"  [{time.monotonic() - begun:4.0f} s] done, kept in {cache_directory()}")


def make_customer(release: str, tree: Path, step: Step) -> None:
    source = mirror()
    debootstrap(release, tree, step, PBX_PACKAGES, source)
    apt = tree / "etc/apt"
    (apt / "sources.list.d/asterisk.list").write_text(f"deb {source} {ASTERISK_RELEASE} main\n")
    (apt / "preferences.d/asterisk").write_text(
        f"Package: *\nPin: release n={ASTERISK_RELEASE}\nPin-Priority: 50\n"
    )
    chroot = ["chroot", str(tree)]
    with QuietServices(tree):
        shutil.copy("/etc/resolv.conf", tree / "etc/resolv.conf")
        step("Asterisk's package list", [*chroot, "apt-get", "update"])
        step("Asterisk", [*chroot, "apt-get", "install", "-y", *ASTERISK_PACKAGES])
        packages = "-oDir::Cache::archives=/srv/packages"
        (tree / "srv/packages/partial").mkdir(parents=True)
        download = [*chroot, "apt-get", "install", "-y", "--download-only", packages]
        step("the cluster's packages, not installed",
             [*download, *CLUSTER_PACKAGES, *TEST_PACKAGES, *OFFERED_PACKAGES])
        step("packages to install again", [*download, "--reinstall", *UPGRADED_PACKAGES])
        (tree / "etc/resolv.conf").unlink()
    shutil.rmtree(tree / "srv/packages/partial")
    (tree / "srv/packages/lock").unlink(missing_ok=True)
    step("their index",
         [*chroot, "sh", "-c", "cd /srv/packages && apt-ftparchive packages . >Packages"])
    for old in (apt / "sources.list", apt / "sources.list.d/asterisk.list",
                apt / "preferences.d/asterisk"):
        old.unlink()
    shutil.rmtree(tree / "var/lib/apt/lists")
    (apt / "sources.list.d/packages.list").write_text(PACKAGES_LIST)
    # As apt is by default: who installs a package gets what it recommends.
    (apt / "apt.conf.d/99mmdebstrap").write_text('Acquire::Languages "none";\n')
    step("apt's own lists", [*chroot, "sh", "-c", "apt-get clean && apt-get update"])
    # Not beside the original: Pacemaker would take it for an agent.
    step("room for the stand-ins",
         [*chroot, "sh", "-e", "-c", 'for place; do mkdir -p "/usr/lib/lab${place%/*}"; '
          'dpkg-divert --local --rename --divert "/usr/lib/lab$place" --add "$place"; done',
          "sh", *DIVERTED])
    customize("customer", tree, step, "the PBX's data")


def make_cluster(release: str, tree: Path, step: Step) -> None:
    step("a copy of the customer's PBX",
         ["cp", "--archive", "--reflink=auto", str(image_path(release, "customer")), str(tree)])
    with QuietServices(tree):
        step("the cluster's packages",
             ["chroot", str(tree), "apt-get", "install", "-y", "--no-install-recommends",
              *CLUSTER_PACKAGES, *TEST_PACKAGES])
    customize("cluster", tree, step, "the store")


def make_builder(release: str, tree: Path, step: Step) -> None:
    debootstrap(release, tree, step, BUILDER_PACKAGES, mirror())


def make_real(release: str, directory: Path, step: Step) -> None:
    real_image.make(image_path(release, "customer"), mirror(), FILES, DIVERTED,
                    CLUSTER_PACKAGES, directory, step)


def debootstrap(
    release: str, tree: Path, step: Step, packages: Sequence[str], source: str
) -> None:
    step(
        f"the base system and {len(packages)} packages",
        [
            "mmdebstrap",
            "--variant=apt",
            "--mode=root",
            "--format=directory",
            *(f"--aptopt={option}" for option in APT_OPTIONS),
            *(f"--dpkgopt={option}" for option in DPKG_OPTIONS),
            f"--include={','.join(packages)}",
            release,
            str(tree),
            source,
        ],
    )


def customize(variant: str, tree: Path, step: Step, title: str) -> None:
    """Lay the variant's files over the tree and run its script in it."""
    shutil.copytree(FILES / variant, tree, dirs_exist_ok=True)
    shutil.copy(FILES / f"customize-{variant}", tree / "tmp/customize")
    step(title, ["chroot", str(tree), "/tmp/customize"])
    (tree / "tmp/customize").unlink()


class QuietServices:
    """``with QuietServices(tree):`` no package starts a service."""

    def __init__(self, tree: Path) -> None:
        self._policy = tree / "usr/sbin/policy-rc.d"

    def __enter__(self) -> None:
        self._policy.write_text("#!/bin/sh\nexit 101\n")
        self._policy.chmod(0o755)

    def __exit__(self, *rest: object) -> None:
        self._policy.unlink()


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
