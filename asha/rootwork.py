"""Root's work in directories that others can write: by descriptor, never by name.

Who can write a directory chooses what each name in it means, and can choose anew between
two of our calls. So nothing here resolves a path that somebody else could bend:

* ``Directory.trusted`` walks to a directory through others that are root's alone. Who
  comes there may do as he likes inside, but cannot have put another in its place.
* From there on every name is one component, opened without following a link; what is
  read, changed or deleted is what was opened.
* What is read has a type and a size limit. A FIFO, a device or an endless file is an
  error, and no wait.
* ``View`` shows a tree to a program that goes by names (rsync): read-only, and the kernel
  follows no link in it.

Every error is an OSError; ``Untrusted`` is the one that says that somebody else could
bend the path, or put something there that is no ordinary file.

Sources: openat2(2), open_tree(2), mount_setattr(2); their numbers are the same on every
architecture (asm-generic/unistd.h).
"""

from __future__ import annotations

import errno
import os
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

# More than any configuration, log line or list that is read has.
READ_MOST = 1 << 24

# As many links as the kernel itself follows (path_resolution(7)).
LINKS_MOST = 40

SYS_OPEN_TREE, SYS_OPENAT2, SYS_MOUNT_SETATTR = 428, 437, 442

# <linux/openat2.h>
RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, RESOLVE_BENEATH = 0x02, 0x04, 0x08

# <linux/mount.h>, <linux/fcntl.h>
OPEN_TREE_CLONE = 1
MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID, MOUNT_ATTR_NODEV = 0x1, 0x2, 0x4
MOUNT_ATTR_NOSYMFOLLOW = 0x200000
AT_FDCWD, AT_EMPTY_PATH = -100, 0x1000

ACCESS_LIST = "system.posix_acl_access"

_ENTER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Untrusted(OSError):
    """Somebody else could choose what is there. ``hint`` says what to do."""

    def __init__(self, path: str, reason: str, hint: str = "") -> None:
        super().__init__(errno.EPERM, reason, path)
        self.path = path
        self.reason = reason
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.path} {self.reason}"


class Directory:
    """An open directory, closed like a file. ``path`` is for messages.

    Names are single components; anything else is a ValueError.
    """

    def __init__(self, descriptor: int, path: str) -> None:
        self.fd = descriptor
        self.path = path

    @classmethod
    def trusted(cls, path: str, top: str = "/") -> Directory:
        """Open the directory at ``path``, which nobody but root can have put there.

        Links are followed where root made them, so ``path`` of the result may differ. The
        directory itself may belong to anybody. ``top`` is not checked. Raises Untrusted for a
        directory above it that others can write; OSError.
        """
        return cls(*_walk(path, top))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    @property
    def proc_path(self) -> str:
        """A name for this very directory, for a system call or a child that has ``fd``."""
        return f"/proc/self/fd/{self.fd}"

    def name(self, name: str) -> str:
        """The path of an entry, for messages."""
        return f"{self.path.rstrip('/')}/{name}"

    # Looking.

    def about(self) -> os.stat_result:
        return os.fstat(self.fd)

    def stat(self, name: str) -> os.stat_result:
        """The status of the entry itself, also of a link."""
        return os.stat(_single(name), dir_fd=self.fd, follow_symlinks=False)

    def exists(self, name: str) -> bool:
        try:
            self.stat(name)
        except FileNotFoundError:
            return False
        return True

    def names(self) -> list[str]:
        return sorted(os.listdir(self.fd))

    def enter(self, name: str) -> Directory:
        """Open a directory in this one. Raises Untrusted for a link."""
        try:
            return Directory(os.open(_single(name), _ENTER, dir_fd=self.fd), self.name(name))
        except OSError as problem:
            raise self._explained(name, problem) from None

    def below(self, path: str) -> Directory:
        """Open the directory at that path below this one, through no link and never outside of
        it."""
        try:
            descriptor = _openat2(self.fd, path.strip("/") or ".", _ENTER)
        except OSError as problem:
            if problem.errno != errno.ENOSYS:
                raise self._explained(path.strip("/"), problem) from None
        else:
            return Directory(descriptor, self.name(path.strip("/")).rstrip("/"))
        here = Directory(os.dup(self.fd), self.path)
        for part in filter(None, path.split("/")):
            with here as above:
                here = above.enter(part)
        return here

    def read(self, name: str, most: int = READ_MOST) -> bytes:
        """Read a file. Raises Untrusted for what is not an ordinary file or is too large."""
        descriptor = self.open(name)
        try:
            return read_open(descriptor, self.name(name), most)
        finally:
            os.close(descriptor)

    def open(self, name: str) -> int:
        """Open an ordinary file for reading. Raises Untrusted for anything else."""
        try:
            descriptor = os.open(_single(name), _READ, dir_fd=self.fd)
        except OSError as problem:
            raise self._explained(name, problem) from None
        try:
            _require_regular(descriptor, self.name(name))
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def open_within(self, path: str) -> int:
        """Open an ordinary file in this tree for reading; links that stay inside are followed.

        Raises Untrusted for what leads outside, and for what is not an ordinary file.
        """
        waiting = _components(path)
        real: list[str] = []
        links = 0
        while waiting:
            part = waiting.pop()
            if part == "..":
                if not real:
                    raise Untrusted(self.name(path), f"leads out of {self.path}")
                real.pop()
                continue
            target = self._link("/".join(real), part)
            if target is None:
                real.append(part)
                continue
            links += 1
            if target.startswith("/") or links > LINKS_MOST:
                raise Untrusted(self.name(path), f"leads out of {self.path}, to {target}")
            waiting += _components(target)
        if not real:
            raise Untrusted(self.name(path), "is not an ordinary file")
        # What is a link by now is refused.
        with self.below("/".join(real[:-1])) as folder:
            return folder.open(real[-1])

    def _link(self, folder: str, name: str) -> str | None:
        """The target of a link; None for anything else."""
        with self.below(folder) as place:
            try:
                return os.readlink(_single(name), dir_fd=place.fd)
            except OSError as problem:
                if problem.errno == errno.EINVAL:
                    return None
                raise OSError(problem.errno, problem.strerror, place.name(name)) from None

    # Changing.

    def make(self, name: str, mode: int = 0o700) -> Directory:
        """Make a new directory, which is root's until ``copy_ownership``. FileExistsError if
        there is one."""
        os.mkdir(_single(name), 0o700, dir_fd=self.fd)
        made = self.enter(name)
        os.fchmod(made.fd, mode)
        return made

    def ensure(self, name: str, mode: int = 0o700) -> Directory:
        """Open the directory of this name; make it if there is none."""
        try:
            return self.make(name, mode)
        except FileExistsError:
            return self.enter(name)

    def create(self, name: str, about: os.stat_result) -> None:
        """Make a new, empty file with that owner and mode. FileExistsError if there is one."""
        descriptor = os.open(_single(name), _NEW, 0o600, dir_fd=self.fd)
        try:
            _set_access_list(descriptor, b"")
            _copy_ownership(
                descriptor, about.st_uid, about.st_gid, stat.S_IMODE(about.st_mode) & 0o777
            )
        finally:
            os.close(descriptor)

    def write(self, name: str, data: bytes, *, uid: int = 0, gid: int = 0,
              mode: int = 0o600, acl: bytes = b"") -> None:
        """Write the whole file or leave the old one, also when the power fails.

        ``acl`` comes from ``access_list``. Without it nobody gets more than ``mode`` allows,
        whatever the directory would give to new files.
        """
        draft = f".{_single(name)}.asha-new"
        self.remove(draft)
        descriptor = os.open(draft, _NEW, 0o600, dir_fd=self.fd)
        try:
            try:
                with open(descriptor, "wb", closefd=False) as file:
                    file.write(data)
                _set_access_list(descriptor, b"")
                _copy_ownership(descriptor, uid, gid, mode)
                if acl:
                    _set_access_list(descriptor, acl)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            os.replace(draft, name, src_dir_fd=self.fd, dst_dir_fd=self.fd)
        except BaseException:
            try:
                self.remove(draft)
            except OSError:
                pass
            raise
        self.sync()

    def put(self, name: str, data: bytes, about: os.stat_result, acl: bytes = b"") -> None:
        """Make a new file with that content and the owner, mode and time of another, without
        setuid. FileExistsError if there is one. A power cut may take it, up to ``sync_all``."""
        descriptor = os.open(_single(name), _NEW, 0o600, dir_fd=self.fd)
        try:
            with open(descriptor, "wb", closefd=False) as file:
                file.write(data)
            _set_access_list(descriptor, b"")
            _copy_ownership(descriptor, about.st_uid, about.st_gid, about.st_mode & 0o777)
            if acl:
                _set_access_list(descriptor, acl)
            os.utime(descriptor, ns=(about.st_atime_ns, about.st_mtime_ns))
        finally:
            os.close(descriptor)

    def put_link(self, name: str, target: str, about: os.stat_result) -> None:
        """Make a symbolic link with the owner of another. FileExistsError if there is one."""
        os.symlink(target, _single(name), dir_fd=self.fd)
        if os.geteuid() == 0:
            os.chown(name, about.st_uid, about.st_gid, dir_fd=self.fd, follow_symlinks=False)

    def target(self, name: str) -> str:
        """Where a symbolic link leads. Raises OSError for anything else."""
        return os.readlink(_single(name), dir_fd=self.fd)

    def remove(self, name: str) -> None:
        """Remove a file, link, FIFO or socket. It is no error if there is none."""
        try:
            os.unlink(_single(name), dir_fd=self.fd)
        except FileNotFoundError:
            pass

    def remove_directory(self, name: str) -> None:
        """Remove an empty directory. Raises OSError."""
        os.rmdir(_single(name), dir_fd=self.fd)

    def remove_tree(self, name: str) -> None:
        """Remove a directory with all that is in it, or anything else. It is no error if there
        is none. Raises OSError."""
        try:
            inner = self.enter(name)
        except FileNotFoundError:
            return
        except OSError:
            self.remove(name)
            return
        with inner:
            for one in inner.names():
                inner.remove_tree(one)
        self.remove_directory(name)

    def rename(self, name: str, new: str) -> None:
        """Rename an entry within this directory."""
        os.rename(_single(name), _single(new), src_dir_fd=self.fd, dst_dir_fd=self.fd)

    def copy_ownership(self, about: os.stat_result) -> None:
        """Give this directory that owner and mode: the last thing that root does in it."""
        _copy_ownership(self.fd, about.st_uid, about.st_gid, stat.S_IMODE(about.st_mode))

    def put_on(self, about: os.stat_result, acl: bytes = b"") -> None:
        """Give this directory another's owner, mode (no setgid) and access list: the last
        thing that root does in it."""
        _copy_ownership(self.fd, about.st_uid, about.st_gid, about.st_mode & 0o777)
        if acl:
            _set_access_list(self.fd, acl)

    def own(self, mode: int) -> None:
        """Make this directory root's, with that mode."""
        _copy_ownership(self.fd, 0, 0, mode)

    def sync(self) -> None:
        """Make what was created, renamed and removed here survive a power cut."""
        os.fsync(self.fd)

    def sync_all(self) -> None:
        """Make all that was written to this file system survive a power cut: syncfs(2)."""
        import ctypes

        if ctypes.CDLL(None, use_errno=True).syncfs(self.fd) < 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), self.path)

    def _explained(self, name: str, problem: OSError) -> OSError:
        if problem.errno == errno.ELOOP:
            return Untrusted(self.name(name), "is a symbolic link")
        if problem.errno == errno.ENOTDIR:
            try:
                if stat.S_ISLNK(self.stat(name).st_mode):
                    return Untrusted(self.name(name), "is a symbolic link")
            except (OSError, ValueError):
                pass  # gone by now, or further down
        if problem.errno == errno.ENXIO:
            return Untrusted(self.name(name), "is a socket or a device, not an ordinary file")
        return OSError(problem.errno or errno.EIO, problem.strerror, self.name(name))


class View:
    """A tree as it is, read-only, in which the kernel follows no symbolic link.

    For a program or a walk that goes by names: if somebody swaps a directory for a link
    meanwhile, it gets an error (ELOOP) and reads nothing elsewhere. The view is not mounted
    anywhere and is gone with its descriptor. Without root's rights it is the directory itself.
    """

    def __init__(self, directory: Directory) -> None:
        """Raises OSError; ENOSYS where the kernel is older than 5.14."""
        if os.geteuid() != 0:
            self.fd = os.dup(directory.fd)
        else:
            self.fd = _syscall(
                SYS_OPEN_TREE, AT_FDCWD, os.fsencode(directory.proc_path),
                OPEN_TREE_CLONE | os.O_CLOEXEC,
            )
            try:
                wanted = (MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV
                          | MOUNT_ATTR_NOSYMFOLLOW)
                attributes = _words(wanted, 0, 0, 0)
                _syscall(SYS_MOUNT_SETATTR, self.fd, b"", AT_EMPTY_PATH, attributes,
                         len(attributes))
            except BaseException:
                os.close(self.fd)
                raise
        self.path = f"/proc/self/fd/{self.fd}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)


def read(path: str, most: int = READ_MOST) -> bytes:
    """Read a file in a directory of root's; links are followed. Raises Untrusted for what is
    not an ordinary file or is too large."""
    try:
        descriptor = os.open(path, _READ & ~os.O_NOFOLLOW)
    except OSError as problem:
        if problem.errno == errno.ENXIO:
            raise Untrusted(path, "is a socket or a device, not an ordinary file") from None
        raise
    try:
        _require_regular(descriptor, path)
        return read_open(descriptor, path, most)
    finally:
        os.close(descriptor)


def read_within(directory: Directory, path: str, most: int = READ_MOST) -> bytes:
    """Like Directory.read, for what ``open_within`` finds."""
    descriptor = directory.open_within(path)
    try:
        return read_open(descriptor, directory.name(path), most)
    finally:
        os.close(descriptor)


def is_roots_alone(about: os.stat_result) -> bool:
    """Whether nobody but root can add, rename or remove anything in a directory.

    An access list shows in the group's bits, which are its mask (acl(5)).
    """
    return about.st_uid in (0, os.geteuid()) and not about.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _holds_fast(above: os.stat_result, entry: os.stat_result) -> bool:
    """Whether nobody but root can put something else in the entry's place.

    In a sticky directory of root's everybody may add entries, but only move his own (chmod(1)).
    """
    if is_roots_alone(above):
        return True
    mine = (0, os.geteuid())
    return bool(above.st_uid in mine and above.st_mode & stat.S_ISVTX and entry.st_uid in mine)


def _walk(path: str, top: str) -> tuple[int, str]:
    """The descriptor and the real path of the directory."""
    descriptor = os.open(top, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    here = top
    inside = path[len(top.rstrip("/")):] if path.startswith(top.rstrip("/")) else path
    waiting = [part for part in reversed(inside.split("/")) if part not in ("", ".")]
    links = 0
    try:
        while waiting:
            part = waiting.pop()
            if part == "..":
                # Only from a link of root's; names are walked anew from the top.
                above = [one for one in os.path.dirname(here)[len(top.rstrip("/")):].split("/")
                         if one]
                waiting += reversed(above)
                descriptor, here = _top_again(descriptor, top), top
                continue
            entry = os.stat(part, dir_fd=descriptor, follow_symlinks=False)
            about = os.fstat(descriptor)
            if not _holds_fast(about, entry):
                raise Untrusted(
                    f"{here.rstrip('/')}/{part}",
                    f"could be replaced by others than root: {here} is theirs to write",
                    f"chown root:root {here} && chmod go-w {here}",
                )
            if stat.S_ISLNK(entry.st_mode):
                links += 1
                if links > LINKS_MOST:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
                target = os.readlink(part, dir_fd=descriptor)
                waiting += [one for one in reversed(target.split("/")) if one not in ("", ".")]
                if target.startswith("/"):
                    descriptor, here = _top_again(descriptor, top), top
                continue
            try:
                below = os.open(part, _ENTER, dir_fd=descriptor)
            except OSError as problem:
                raise OSError(problem.errno or errno.EIO, problem.strerror,
                              f"{here.rstrip('/')}/{part}") from None
            os.close(descriptor)
            descriptor, here = below, f"{here.rstrip('/')}/{part}"
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor, here


def _top_again(descriptor: int, top: str) -> int:
    fresh = os.open(top, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    os.close(descriptor)
    return fresh


def _components(path: str) -> list[str]:
    """The components of a path, the first one last."""
    return [part for part in reversed(path.split("/")) if part not in ("", ".")]


def _single(name: str) -> str:
    if name in ("", ".", "..") or "/" in name or "\0" in name:
        raise ValueError(f"{name!r} is not a name in a directory")
    return name


def _require_regular(descriptor: int, path: str) -> None:
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        raise Untrusted(path, "is not an ordinary file")


def read_open(descriptor: int, path: str, most: int = READ_MOST) -> bytes:
    """Read the rest of an open file; ``path`` is for messages. Raises Untrusted, OSError."""
    parts: list[bytes] = []
    size = 0
    while part := os.read(descriptor, 1 << 20):
        parts.append(part)
        size += len(part)
        if size > most:
            raise Untrusted(path, f"has more than {most} bytes")
    return b"".join(parts)


def _copy_ownership(descriptor: int, uid: int, gid: int, mode: int) -> None:
    if os.geteuid() == 0:
        os.fchown(descriptor, uid, gid)
    os.fchmod(descriptor, mode)


def access_list(descriptor: int) -> bytes:
    """The access list of an open file; b"" if it has none beside its mode (acl(5))."""
    try:
        return os.getxattr(descriptor, ACCESS_LIST)
    except OSError:
        return b""


def _set_access_list(descriptor: int, acl: bytes) -> None:
    """Set the access list. A directory's owner decides what new files in it get by themselves."""
    if acl:
        os.setxattr(descriptor, ACCESS_LIST, acl)
        return
    try:
        os.removexattr(descriptor, ACCESS_LIST)
    except OSError as problem:
        if problem.errno not in (errno.ENODATA, errno.ENOTSUP):
            raise


def _openat2(descriptor: int, path: str, flags: int) -> int:
    how = _words(flags, 0, RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS)
    return _syscall(SYS_OPENAT2, descriptor, os.fsencode(path), how, len(how))


def _words(*numbers: int) -> bytes:
    import sys

    return b"".join(number.to_bytes(8, sys.byteorder) for number in numbers)


def _syscall(number: int, *arguments: int | bytes) -> int:
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    given = [ctypes.c_long(one) if isinstance(one, int) else one for one in arguments]
    result: int = libc.syscall(ctypes.c_long(number), *given)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result
