"""A claim on a piece of work: a lock on a file, which the kernel lets go when its holder ends, however it ends.

On network file systems flock reaches other machines where the server has locks (NFS since Linux 2.6.12). Where a file
system has none, or keeps them to one machine, every claim is granted: work may then be done twice, which costs time
and nothing else, since both write the same bits and a file takes its name in one step.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

__all__ = ["claim"]

WITHOUT_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}
HELD = {errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES}


@contextlib.contextmanager
def claim(path: Path) -> Iterator[bool]:
    """Claims what a lock file stands for, for the length of a block.

    Args:
        path: the lock file, made where it is missing and removed at the end. That a killed holder leaves says nothing.

    Yields:
        False where another process has it, or another block of this one; nothing is waited for.
    """
    handle = _take(path)
    if handle is None:
        yield False
        return
    try:
        yield True
    finally:
        # While it is still held: one that opens the file now finds, when it has the lock, that it has no name any more.
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
        os.close(handle)


def _take(path: Path) -> int | None:
    while True:
        # A link would have a file made, or held, somewhere else.
        handle = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
        try:
            locked = _locked(handle)
            if locked and _is_at(handle, path):
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)
        if not locked:
            return None


def _locked(handle: int) -> bool:
    try:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except ImportError:
        return True
    except OSError as error:
        if error.errno in HELD:
            return False
        if error.errno not in WITHOUT_LOCKS:
            raise
    return True


def _is_at(handle: int, path: Path) -> bool:
    """Whether the open file is still the one of this name; the holder before may have removed it."""
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False
