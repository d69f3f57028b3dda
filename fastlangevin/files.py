"""Files that are whole or not there."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

__all__ = ["check_writable", "sweep", "write_whole"]

# Of the target, the host and the process that writes it; the rest is mkstemp's.
_TEMPORARY = re.compile(r"\.(?P<name>.+)\.(?P<host>[^.]+)\.(?P<pid>\d{1,9})\.[^.]+\.tmp", re.DOTALL)


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
    try:
        handle, temporary = _temporary(target)
    except OSError as error:
        raise _told(target, error) from error
    try:
        # Its lock, which says that it is no orphan, goes with the handle: it must have its name before.
        with os.fdopen(handle, "wb") as file:
            for part in (payload,) if isinstance(payload, bytes) else payload:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
            # mkstemp makes the file private; it gets the rights that open() would give.
            os.chmod(temporary, 0o666 & ~_umask())
            os.replace(temporary, target)
    except BaseException as error:
        Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise _told(target, error) from error
        raise
    _sync_folder(target.parent)


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
        # Another user's, or gone meanwhile.
        with contextlib.suppress(OSError), open(path, "r+b") as file:
            if _abandoned(file.fileno(), pid):
                path.unlink()
                removed.append(path)
    return removed


def _temporary(target: Path) -> tuple[int, str]:
    """An open and locked temporary file beside the target, and its name."""
    while True:
        handle, name = tempfile.mkstemp(
            dir=target.parent, prefix=f".{target.name}.{_host()}.{os.getpid()}.", suffix=".tmp"
        )
        with contextlib.suppress(OSError, ImportError):
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX)
        # A sweep may have come before the lock.
        if os.path.exists(name):
            return handle, name
        os.close(handle)


def _temporaries(folder: Path, pattern: str) -> Iterator[tuple[Path, int]]:
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            parts = _TEMPORARY.fullmatch(entry.name)
            if parts and parts["host"] == _host() and re.fullmatch(pattern, parts["name"]):
                yield Path(entry.path), int(parts["pid"])


def _abandoned(handle: int, pid: int) -> bool:
    import fcntl

    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return not _running(pid)
    return True


def _running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _host() -> str:
    """The host's name as a part of a file's name: without dots, and short."""
    return re.sub(r"[^A-Za-z0-9-]", "-", platform.node())[:32] or "localhost"


def _told(target: Path, error: OSError) -> OSError:
    return type(error)(
        error.errno,
        f"cannot write {target}: {error.strerror or error}; give a path in a folder that exists, can be written to and "
        "has room",
    )


def _umask() -> int:
    # There is no call that only reads it.
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def _sync_folder(folder: Path) -> None:
    # Some file systems cannot flush a folder; the rename has happened all the same.
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


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
