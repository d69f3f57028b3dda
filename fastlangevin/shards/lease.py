"""A claim on a piece of work: a lock on a file, which the kernel lets go when its holder ends, however it ends.

On network file systems flock reaches other machines where the server has locks (NFS since Linux 2.6.12). Where a file
system has none, or keeps them to one machine, every claim is granted: work may then be done twice, which costs time
and nothing else, since both write the same bits and a file takes its name in one step. So it is with each of the
errors ENOLCK, ENOTSUP, ENOSYS, EINVAL and EPERM of flock, by which file systems and sandboxes say that they have none.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
import stat
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from fastlangevin.storage.files import Handle, host_name, read_regular, try_lock

__all__ = ["Waiting", "claim", "holder", "while_claimed"]

logger = logging.getLogger("fastlangevin")

AGAIN_SECONDS = 60.0

T = TypeVar("T")
_HOLDER = re.compile(rb"(?P<pid>[0-9]{1,10}) (?P<host>[A-Za-z0-9-]{1,32})\n")
_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)


class claim:  # noqa: N801  (a block is entered by it, as by contextlib.suppress)
    """Claims what a lock file stands for, for the length of a block, which is given whether the claim is ours.

    False means that another process has it, or another block of this one; nothing is waited for. An interrupt between
    two lines of the block's own beginning or end can leave the claim to the garbage collector: whoever may be
    interrupted and go on uses :func:`while_claimed`.

    Args:
        path: the lock file, made where it is missing and removed at the end. That a killed holder leaves says nothing.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._handle = Handle()

    def __enter__(self) -> bool:
        try:
            return self._take()
        except BaseException:
            self.release()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def release(self) -> None:
        """Let the claim go; if it is not held, nothing happens."""
        file = self._handle.file
        if file is None:
            return
        # While it is still held: one that opens the file now finds, when it has the lock, that it has no name any more.
        # Whether it is held is asked of the lock, since an interrupt may have come before anything could be noted.
        with contextlib.suppress(OSError):
            if try_lock(file.fileno()) is not False and _is_at(file.fileno(), self._path):
                self._path.unlink(missing_ok=True)
        self._handle.close()

    def _take(self) -> bool:
        path = self._path
        while True:
            try:
                # A link would have a file made, or held, somewhere else.
                handle = self._handle.open(path, os.O_CREAT | _NOFOLLOW).fileno()
                if not stat.S_ISREG(os.fstat(handle).st_mode):
                    self._handle.close()
                    raise OSError(errno.EINVAL, "it is not a file")
                locked = try_lock(handle) is not False
            except OSError as error:
                raise type(error)(
                    error.errno,
                    f"cannot lock {path}: {error.strerror or error}; remove it if it is not an ordinary file, "
                    "and see that its folder can be written to",
                ) from error
            if locked and _is_at(handle, path):
                _sign(handle)
                return True
            self._handle.close()
            if not locked:
                return False


def while_claimed(path: Path, work: Callable[[], T]) -> T | None:
    """Does work while a claim is held, which no interrupt leaves held, wherever it comes.

    Args:
        path: the lock file, as of :class:`claim`.
        work: what is done.

    Returns:
        What ``work`` returned; None, without a call of it, if another has the claim.
    """
    ours = claim(path)
    try:
        with ours as granted:
            return work() if granted else None
    finally:
        ours.release()


def holder(path: Path) -> str:
    """Names the process and host that hold a lock file, for a message."""
    try:
        found = _HOLDER.fullmatch(read_regular(path, 64))
    except (OSError, ValueError):
        found = None
    if found is None:
        return "a process that is not known"
    pid, host = int(found["pid"]), found["host"].decode()
    if (pid, host) == (os.getpid(), host_name()):
        return "another thread of this process"
    return f"process {pid} on {host}"


class Waiting:
    """Says in the log whom a process waits for: at once, and again every minute, since the wait has no limit."""

    def __init__(self) -> None:
        self._said: float | None = None

    def say(self, whom: Callable[[], str]) -> None:
        """Tells, unless it has just been told; ``whom`` makes the text, such as "process 5 on a, which draws"."""
        now = time.monotonic()
        if self._said is None or now - self._said > AGAIN_SECONDS:
            self._said = now
            logger.warning("waiting for %s; its lock ends when it ends", whom())


def _sign(handle: int) -> None:
    """Writes into the lock file whose it is: for messages alone, so that a full disk is not an error here."""
    with contextlib.suppress(OSError):
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()} {host_name()}\n".encode(), 0)


def _is_at(handle: int, path: Path) -> bool:
    """Returns whether the open file is still the one of this name; the holder before may have removed it."""
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False
