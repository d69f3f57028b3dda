"""Files that are whole or not there, and files that are read without waiting for anybody."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import platform
import re
import secrets
import stat
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

__all__ = [
    "Handle",
    "NotAFileError",
    "check_writable",
    "host_name",
    "kind_of",
    "open_regular",
    "read_regular",
    "size_of_regular",
    "sweep",
    "try_lock",
    "unreadable",
    "write_whole",
]

# Of the target, the host and the process that writes it; the rest is random.
_TEMPORARY = re.compile(r"\.(?P<name>.+)\.(?P<host>[^.]+)\.(?P<pid>\d{1,9})\.[^.]+\.tmp", re.DOTALL)
# Never waits for the other end of a pipe, is not inherited, and makes no terminal the process's own. By name, since
# Windows, where the package can be imported, lacks some.
_FLAGS = sum(getattr(os, name, 0) for name in ("O_NONBLOCK", "O_CLOEXEC", "O_NOCTTY", "O_BINARY"))
_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}
_NOT_REGULAR = ", not a regular file"
# What flock says where the file system, or a sandbox, has no locks; and where another process has the lock.
_WITHOUT_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EPERM}
_HELD = {errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES}


class NotAFileError(OSError, ValueError):
    """A pipe, a device, a socket or a folder where a file must be: reading it could wait for ever, or never end."""

    def __str__(self) -> str:
        return str(self.strerror)


class _FolderError(NotAFileError, IsADirectoryError):
    """A folder where a file must be, for those who ask for Python's own error of it."""


def kind_of(mode: int) -> str:
    """The kind of a file that is not regular, in words.

    Args:
        mode: of the file, ``os.stat_result.st_mode``.

    Returns:
        The kind with its article, "a pipe".
    """
    return _KINDS.get(stat.S_IFMT(mode), "a special file")


def open_regular(path: str | os.PathLike[str], *, bare: bool = False) -> io.BufferedReader:
    """Open a regular file, or a link to one, for reading.

    Args:
        path: of the file.
        bare: raise what the system says, or "it is a pipe, not a regular file", for a caller that names the file and
            says what to do; by default the error says both.

    Returns:
        The file; nothing of it was read.

    Raises:
        NotAFileError: an ``OSError`` and a ``ValueError``: the path leads to a pipe, a device, a socket or a folder.
        OSError: it cannot be opened.
    """
    try:
        return _opened(Path(path))
    except OSError as error:
        if bare:
            raise
        raise unreadable(Path(path), error) from error


def _opened(path: Path) -> io.BufferedReader:
    # Before it is opened, since that alone makes some devices act; and again, since it may be another file then.
    _check_regular(os.stat(path).st_mode)
    (raw,) = map(io.FileIO, map(os.open, [path], [os.O_RDONLY | _FLAGS]), ["r"])  # see Handle
    file: io.BufferedReader = io.BufferedReader(raw)
    try:
        _check_regular(os.fstat(file.fileno()).st_mode)
    except BaseException:
        file.close()
        raise
    return file


def read_regular(path: str | os.PathLike[str], limit: int) -> bytes:
    """Read a regular file of bounded length.

    Args:
        path: of the file, or of a link to it.
        limit: of its bytes; no more than one byte beyond it is read.

    Returns:
        The content.

    Raises:
        NotAFileError: an ``OSError`` and a ``ValueError``: the path leads to a pipe, a device, a socket or a folder.
        ValueError: the file is longer than ``limit``; the message is a clause, "it has 9 bytes, more than 8".
        OSError: it cannot be read.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > limit:
            raise ValueError(f"it has {size} bytes, more than {limit}")
        try:
            content = file.read(limit + 1) or b""
        except OSError as error:
            raise unreadable(Path(path), error) from error
    if len(content) > limit:  # it grows, or has no size, as those of /proc
        raise ValueError(f"it has more than {limit} bytes")
    return content


def size_of_regular(path: str | os.PathLike[str]) -> int:
    """Bytes in a regular file, or in the one that a link leads to.

    Args:
        path: of the file.

    Returns:
        The number of bytes.

    Raises:
        NotAFileError: an ``OSError`` and a ``ValueError``: the path leads to a pipe, a device, a socket or a folder.
        OSError: it is not there.
    """
    status = os.stat(path)
    try:
        _check_regular(status.st_mode)
    except NotAFileError as error:
        raise unreadable(Path(path), error) from error
    return status.st_size


def _check_regular(mode: int) -> None:
    if stat.S_ISDIR(mode):
        raise _FolderError(errno.EISDIR, f"it is {kind_of(mode)}{_NOT_REGULAR}")
    if not stat.S_ISREG(mode):
        raise NotAFileError(errno.EINVAL, f"it is {kind_of(mode)}{_NOT_REGULAR}")


def unreadable(source: Path, error: OSError) -> OSError:
    """The error of a reader, with the file's name and what to do, unless it has them.

    Args:
        source: the file.
        error: what reading it raised.

    Returns:
        An error of the same type and number.
    """
    if str(error.strerror).startswith("cannot read "):
        return error
    if isinstance(error, NotAFileError):
        what = str(error).removesuffix(_NOT_REGULAR) + (" (a directory)" if isinstance(error, _FolderError) else "")
        advice = "check the path, and give that of a file or of a link to one"
        return type(error)(error.errno, f"cannot read {source}: {what}; {advice}")
    return type(error)(error.errno, f"cannot read {source}: {error.strerror or error}; check the path and its rights")


class Handle:
    """An open file, perhaps locked, that no interrupt leaves open.

    Python handles signals between two instructions, also between ``os.open`` and the one that keeps its result: the
    file would stay open, and locked, as long as the process lives. Here C code goes from the one to the other, and
    whoever makes a handle closes it in a ``finally`` that begins before the file is opened. That block can be
    interrupted as well, so that a lock has two of them, one inside the other.
    """

    def __init__(self) -> None:
        self._files: list[io.FileIO] = []

    def open(self, path: Path, flags: int) -> io.FileIO:
        """Open a file for reading and writing, or make it, without waiting; nothing else may be open."""
        self._files.clear()
        self._files.extend(map(io.FileIO, map(os.open, [path], [os.O_RDWR | _FLAGS | flags], [0o666]), ["r+"]))
        return self._files[0]

    @property
    def file(self) -> io.FileIO | None:
        """The file, if one is open."""
        return self._files[0] if self._files and not self._files[0].closed else None

    def close(self) -> None:
        """Close the file, and let its lock go; if none is open, nothing happens."""
        for file in self._files:
            file.close()
        self._files.clear()


def try_lock(handle: int) -> bool | None:
    """Take the lock of an open file without waiting; it is let go when the file is closed.

    Args:
        handle: the number of the open file.

    Returns:
        True: it is ours. False: another process, or another block of this one, has it. None: there are no locks here.

    Raises:
        OSError: the lock could be neither taken nor refused.
    """
    try:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except ImportError:
        return None
    except OSError as error:
        if error.errno in _HELD:
            return False
        if error.errno in _WITHOUT_LOCKS:
            return None
        raise
    return True


def write_whole(path: str | os.PathLike[str], payload: bytes | Iterable[bytes | memoryview]) -> None:
    """Write a file so that a reader, or a crash, never meets half of it.

    The bytes go to a temporary file in the same folder, are flushed to the disk, and take their name by a rename; then
    the folder's entry is flushed too. What killed processes left of the same file is removed first, see :func:`sweep`.

    Args:
        path: file to write, replaced if it exists.
        payload: its content, whole or in parts; the parts are written as they come and never joined.

    Raises:
        OSError: it cannot be written; what stood at ``path`` is untouched and nothing is left behind.
    """
    target = Path(path)
    if target.exists() and not target.is_file():
        raise OSError(f"cannot write {target}: it is a folder or a device; name a file")
    sweep(target.parent, re.escape(target.name))
    temporary = _Temporary(target)
    try:
        try:
            file = temporary.create()
            for part in (payload,) if isinstance(payload, bytes) else payload:
                _write_all(file, part)
            os.fsync(file.fileno())
            # Its lock, which says that it is no orphan, goes with the handle: it must have its name before.
            os.replace(temporary.path, target)
            temporary.handle.close()
        finally:
            temporary.discard()
    except OSError as error:
        raise _told(target, error) from error
    finally:
        temporary.discard()
    _sync_folder(target.parent)


def _write_all(file: io.FileIO, part: bytes | memoryview) -> None:
    rest = memoryview(part).cast("B")
    while rest:
        rest = rest[file.write(rest) :]


class _Temporary:
    """A new and locked file beside a target; :meth:`discard` closes it, and removes it unless it was renamed."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self.path = target
        self.handle = Handle()

    def create(self) -> io.FileIO:
        while True:
            self.path = self.target.with_name(
                f".{self.target.name}.{host_name()}.{os.getpid()}.{secrets.token_hex(8)}.tmp"
            )
            # With the rights that any new file gets: the kernel takes the process's umask off.
            file = self.handle.open(self.path, os.O_CREAT | os.O_EXCL)
            with contextlib.suppress(OSError, ImportError):
                import fcntl

                fcntl.flock(file.fileno(), fcntl.LOCK_EX)
            # A sweep may have come before the lock.
            if self.path.exists():
                return file
            self.handle.close()

    def discard(self) -> None:
        if self.handle.file is not None:  # only then was it made here
            with contextlib.suppress(OSError):
                self.path.unlink(missing_ok=True)
            self.handle.close()


def sweep(folder: str | os.PathLike[str], pattern: str) -> list[Path]:
    """Remove the temporary files that killed processes of this host left behind; those of living ones stay.

    A writer holds a lock on its temporary file, which the kernel lets go when the process ends, however it ends. The
    lock also tells the living where process ids do not: in containers of one host name, each has a process 1. Where
    the file system has no locks, the process id in the file's name is asked.

    Args:
        folder: where to look.
        pattern: regular expression that the whole name of the file being written must match.

    Returns:
        What was removed.
    """
    if os.name != "posix":  # os.kill(pid, 0), a question elsewhere, kills on Windows
        return []
    removed = []
    for path, pid in list(_temporaries(Path(folder), pattern)):
        handle = Handle()
        try:
            # Another user's, or gone meanwhile, or a link, which no writer makes.
            with contextlib.suppress(OSError):
                file = handle.open(path, _NOFOLLOW)
                if stat.S_ISREG(os.fstat(file.fileno()).st_mode) and _abandoned(file.fileno(), pid):
                    path.unlink()
                    removed.append(path)
        finally:
            handle.close()
    return removed


def _temporaries(folder: Path, pattern: str) -> Iterator[tuple[Path, int]]:
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            parts = _TEMPORARY.fullmatch(name)
            if parts and parts["host"] == host_name() and re.fullmatch(pattern, parts["name"]):
                yield folder / name, int(parts["pid"])


def _abandoned(handle: int, pid: int) -> bool:
    locked = try_lock(handle)
    return not _running(pid) if locked is None else locked


def _running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def host_name() -> str:
    """The host's name as a part of a file's name.

    Returns:
        Letters, digits and hyphens, 32 at most.
    """
    return re.sub(r"[^A-Za-z0-9-]", "-", platform.node())[:32] or "localhost"


def _told(target: Path, error: OSError) -> OSError:
    return type(error)(
        error.errno,
        f"cannot write {target}: {error.strerror or error}; give a path in a folder that exists, can be written to and "
        "has room",
    )


def _sync_folder(folder: Path) -> None:
    handles: list[int] = []
    try:
        try:
            # Some file systems cannot flush a folder; the rename has happened all the same.
            with contextlib.suppress(OSError):
                handles.extend(map(os.open, [folder], [os.O_RDONLY | _FLAGS]))
                os.fsync(handles[0])
        finally:
            _close_all(handles)
    finally:
        _close_all(handles)


def _close_all(handles: list[int]) -> None:
    # In C from taking a number off the list to closing it, so that none is closed twice: see Handle.
    list(map(os.close, map(handles.pop, [-1] * len(handles))))


def check_writable(path: Path, example: str) -> None:
    """Raises where a file cannot be written: found out before the work, not after it.

    Args:
        path: file that is to be written.
        example: name of such a file, for the message.

    Raises:
        ValueError: there is no folder for it, it is a folder itself, or the file system refuses.
    """
    if not path.parent.is_dir():
        raise ValueError(f"cannot write {path}: the folder {path.parent} does not exist; create it first")
    if path.is_dir():
        raise ValueError(f"cannot write {path}: it is a folder; name a file, such as {path / example}")
    if path.exists() and not path.is_file():
        raise ValueError(f"cannot write {path}: it is not a file; choose another path")
    try:
        # A trial, since os.access() says yes to root where the file system says no.
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise ValueError(f"cannot write {path}: {error.strerror}; choose another path") from error
