"""Files that are whole or not there."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

__all__ = ["check_writable", "write_whole"]


def write_whole(path: str | os.PathLike[str], payload: bytes) -> None:
    """Write a file so that a reader, or a crash, never meets half of it.

    The bytes go to a temporary file in the same folder, are flushed to the disk, and take their name by a rename; then
    the folder's entry is flushed too.

    Args:
        path: file to write, replaced if it exists.
        payload: its content.

    Raises:
        OSError: it cannot be written; what stood at ``path`` is untouched and nothing is left behind.
    """
    target = Path(path)
    if target.exists() and not target.is_file():
        raise OSError(f"cannot write {target}: it is a folder or a device; name a file")
    try:
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".tmp")
    except OSError as error:
        raise _told(target, error) from error
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(payload)
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
    """Raises where a file cannot be written: found out before the work, not after it."""
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
