"""Files of data, opened only if they are regular: a pipe or a device would keep its reader waiting."""

from __future__ import annotations

import os
import stat
from typing import BinaryIO

__all__ = ["kind_of", "open_regular"]

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def kind_of(mode: int) -> str:
    """What a file of this mode (``os.stat_result.st_mode``) is, in words."""
    return _KINDS.get(stat.S_IFMT(mode), "a special file")


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Opens a file for reading, without waiting for a writer.

    Raises:
        OSError: it cannot be opened, or is not a regular file.
    """
    # Without a writer the opening of a pipe waits, unless it is asked not to.
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
    try:
        mode = os.fstat(handle).st_mode
        if not stat.S_ISREG(mode):
            raise OSError(f"it is {kind_of(mode)}, not a regular file")
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise
