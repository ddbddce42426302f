"""The Debian package of this checkout, built as in a clean Debian, and lintian's word on it."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.lab.host import LabError, Result, run
from tests.lab.image import Say, cache_directory, ensure_image, recipe_hash
from tests.lab.lab import REPOSITORY

BUILD_SECONDS = 600.0
KEPT = 5
# Tests are in the source package and change nothing in what it builds.
NOT_BUILT = ("tests/",)
# Where the checkout is in the builder.
SOURCE = "/build/asha"

# Constant: lays a writable layer ($2: upper and work below it) over the tree $1, there
# only in this process's own namespace, and becomes the program in it.
IN_OVERLAY = (
    'mount -t overlay overlay -o "lowerdir=$1,upperdir=$2/upper,workdir=$2/work" "$2/root" && '
    'mount -t proc proc "$2/root/proc" && root=$2 && shift 2 && exec chroot "$root/root" "$@"'
)


def build_package(release: str, say: Say) -> Path:
    """The .deb, built now unless the same sources were built before. LabError with the
    end of the build's output where it cannot be built."""
    tree = ensure_image(release, say, "builder")
    kept = cache_directory() / "packages"
    kept.mkdir(exist_ok=True)
    place = kept / f"{release}-{recipe_hash(release, 'builder')}-{sources_hash()}"
    with (kept / f"{release}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not place.is_dir():
            build_into(place, tree, release, say)
            # Others may be installing theirs just now.
            all_kept = sorted(kept.glob(f"{release}-*"), key=lambda path: path.stat().st_mtime)
            for old in all_kept[:-KEPT]:
                shutil.rmtree(old, ignore_errors=True)
    return next(place.glob("asha_*_all.deb"))


def build_into(place: Path, tree: Path, release: str, say: Say) -> None:
    """The .deb and what belongs to it, in the directory ``place``: whole, or not at all."""
    say(f"building the Debian package for {release}")
    with tempfile.TemporaryDirectory(prefix="asha-build-", dir=cache_directory()) as scratch:
        copy_sources(make_layer(Path(scratch)) / SOURCE.lstrip("/"))
        built = in_builder(tree, Path(scratch), "dpkg-buildpackage", "-us", "-uc", "-b")
        made = sorted((Path(scratch) / "upper/build").glob("asha_*_all.deb"))
        if not built.ok or not made:
            tail = "\n".join((built.out + built.err).splitlines()[-15:])
            raise LabError(f"the package for {release} cannot be built:\n{tail}")
        whole = Path(scratch) / "whole"
        whole.mkdir()
        for file in made[0].parent.iterdir():
            if file.is_file():
                shutil.copy(file, whole)
        whole.rename(place)


def lint_package(release: str, say: Say, *options: str) -> str:
    """What lintian has to say of the package and its .changes: nothing, if all is well."""
    deb = build_package(release, say)
    tree = ensure_image(release, say, "builder")
    with tempfile.TemporaryDirectory(prefix="asha-lint-", dir=cache_directory()) as scratch:
        inside = make_layer(Path(scratch)) / SOURCE.lstrip("/")
        inside.mkdir(parents=True)
        for file in deb.parent.iterdir():
            shutil.copy(file, inside)
        changes = next(inside.glob("*.changes")).name
        said = in_builder(tree, Path(scratch), "lintian", "--allow-root", *options, changes)
    return (said.out + said.err).strip()


def sources() -> list[Path]:
    """The checkout's files, by their paths in it: those that git has or would take."""
    listed = run(
        ["git", "-C", str(REPOSITORY), "-c", f"safe.directory={REPOSITORY}", "ls-files", "-z",
         "--cached", "--others", "--exclude-standard"]
    ).out
    names = sorted(set(listed.split("\0")) - {""})
    return [Path(name) for name in names if (REPOSITORY / name).is_symlink()
            or (REPOSITORY / name).is_file()]


def sources_hash() -> str:
    digest = hashlib.sha256()
    for path in sources():
        place = REPOSITORY / path
        if str(path).startswith(NOT_BUILT) or place.is_symlink():
            continue
        digest.update(f"{path} {place.stat().st_mode & 0o111}\0".encode())
        digest.update(place.read_bytes())
    return digest.hexdigest()[:16]


def copy_sources(target: Path) -> None:
    for path in sources():
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(REPOSITORY / path, target / path, follow_symlinks=False)


def make_layer(scratch: Path) -> Path:
    """The directories of an overlay; the one whose files are laid over the tree."""
    for part in ("upper", "work", "root"):
        (scratch / part).mkdir()
    return scratch / "upper"


def in_builder(tree: Path, scratch: Path, *argv: str) -> Result:
    """Run a program in the builder, in the sources' directory, without a network."""
    words: Sequence[str] = (
        "unshare", "--mount", "--net", "--pid", "--fork", "--kill-child",
        "--propagation", "private",
        "sh", "-c", IN_OVERLAY, "sh", str(tree), str(scratch),
        "env", "-i", f"--chdir={SOURCE}", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root",
        "LC_ALL=C.UTF-8", *argv,
    )
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          errors="replace", timeout=BUILD_SECONDS, check=False)
    return Result(argv, done.returncode, done.stdout, done.stderr)
