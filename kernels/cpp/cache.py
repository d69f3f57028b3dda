"""The folder in which the C++ library is built on first use, and who could have put something else there.

A library runs as whoever loads it, from the moment that it is loaded: a digest that it carries inside says nothing
then. So it is loaded from a folder that nobody but this user and root could have written to, on the whole way to it,
and after its bytes were compared with the digest that was noted when it was built.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import logging
import os
import re
import stat
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from .build import UNFINISHED

__all__ = ["cache_folder", "distrust", "note_digest", "refusal", "refusal_beside", "while_locked"]

T = TypeVar("T")

logger = logging.getLogger("fastlangevin")

# Without a sign of life from the one that builds. It gives one every few seconds, also on a machine that is far too
# busy, and its compiler has a limit of its own.
LOCK_SECONDS = 600.0
BEAT_SECONDS = 2.0
TOLD_SECONDS = 60.0
MAX_LINKS = 40
_WITHOUT_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EPERM}
_HELD = {errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES}
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def distrust(path: Path) -> str | None:
    """Returns why others than this user and root could have written what a path leads to, or None if they could not.

    Every folder and every link on the way must belong to one of the two, and must not be writable for a group or for
    all. Folders above the last one may be, if their entries are safe from others by the sticky bit, as those of /tmp.

    Args:
        path: of a file or a folder; absolute.

    Returns:
        A clause that names the folder, or None.
    """
    return _distrust(path, MAX_LINKS)


def _trusted() -> set[int]:
    # Whoever owns the root folder could replace anything; in a namespace of its own that need not be user 0.
    return {0, os.geteuid(), os.stat("/").st_uid}


def _distrust(path: Path, links: int) -> str | None:
    for each in (*reversed(path.parents), path):
        try:
            status = each.lstat()
        except OSError as error:
            return f"{each} cannot be looked at ({error.strerror})"
        if status.st_uid not in _trusted():
            return f"{each} belongs to another user ({status.st_uid})"
        if stat.S_ISLNK(status.st_mode):
            if not links:
                return f"{each} is a link of links"
            found = _distrust(Path(os.path.normpath(each.parent / os.readlink(each))), links - 1)
            if found is not None:
                return f"{each} is a link, and {found}"
            continue
        sticky = stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX and each != path
        if status.st_mode & _OTHERS_WRITE and not sticky:
            return f"{each} can be written to by others (mode {stat.S_IMODE(status.st_mode):o})"
    return None


def cache_folder() -> Path:
    """Returns where libraries are built: FASTLANGEVIN_CACHE_DIR, XDG_CACHE_HOME or ~/.cache, else a temporary folder.

    The folder is there, can be written to, and is this user's alone.

    Raises:
        RuntimeError: there is no such folder.
    """
    chosen = os.environ.get("FASTLANGEVIN_CACHE_DIR", "").strip()
    if chosen:
        folder = Path(os.path.expanduser(chosen)).absolute()  # its own name where it names no user
    else:
        base = os.environ.get("XDG_CACHE_HOME", "").strip()
        home = Path(base) if os.path.isabs(base) else Path(os.path.expanduser("~")) / ".cache"
        folder = home.absolute() / "fastlangevin"
    reason = _unusable(folder)
    if reason is None:
        return folder
    if chosen:
        _tell(
            f"FASTLANGEVIN_CACHE_DIR={chosen!r} is not used: {reason}; give a folder of your own that nobody else can "
            "write to, nor to the folders above it (chmod go-w)"
        )
    return _private_temporary(reason)


def _unusable(folder: Path) -> str | None:
    """Returns why libraries cannot be built in a folder, which is made if it is missing; None if they can."""
    try:
        for each in (*reversed(folder.parents), folder):
            if not each.is_dir():
                each.mkdir(mode=0o700, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        return f"{folder} cannot be written to ({error.strerror})"
    return distrust(folder)


def _private_temporary(reason: str) -> Path:
    """A folder only this user can write, the same in every process where that is possible."""
    place = Path(tempfile.gettempdir()).absolute()
    usual = f"fastlangevin-{os.getuid()}"
    with contextlib.suppress(OSError):
        (place / usual).mkdir(mode=0o700, exist_ok=True)
    # Where the usual name is somebody else's, the one that an earlier process has made.
    names = [usual, *sorted(name for name in os.listdir(place) if name.startswith(f"{usual}-"))]
    for name in names:
        folder = place / name
        if not folder.is_symlink() and folder.is_dir() and distrust(folder) is None:
            return folder
    folder = Path(tempfile.mkdtemp(prefix=f"{usual}-", dir=place))
    found = distrust(folder)
    if found is not None:
        folder.rmdir()
        raise RuntimeError(
            f"there is no folder that is safe for building the C++ kernels: {reason}, and {found}; set "
            "FASTLANGEVIN_CACHE_DIR to a folder of your own, or use impl='reference'"
        )
    return folder


_told: set[str] = set()


def _tell(message: str) -> None:
    """A warning, once in a process."""
    if message not in _told:
        _told.add(message)
        logger.warning("%s", message)


# The library.


def refusal(library: Path, source_hash: str) -> str | None:
    """Returns why a library of the cache is not loaded; None if it may be.

    Args:
        library: the file.
        source_hash: of the sources that it must be built from.

    Returns:
        A clause, or None.
    """
    if not library.exists():
        return f"{library} is not there"
    found = distrust(library)
    if found is not None:
        return found
    try:
        if not stat.S_ISREG(library.lstat().st_mode):
            return f"{library} is not a file"
        content = library.read_bytes()
        noted = _digest_path(library).read_text(encoding="ascii", errors="replace").strip()
    except OSError as error:
        return f"{error.filename} cannot be read ({error.strerror})"
    if hashlib.sha256(content).hexdigest() != noted:
        return f"{library} does not have the SHA-256 noted when it was built"
    if source_hash.encode() not in content:
        return f"{library} was built from other sources"
    return None


def note_digest(library: Path) -> None:
    """Notes the digest of a library that was built just now, and takes the rights of others from it.

    Args:
        library: the file, in a folder of :func:`cache_folder`.
    """
    library.chmod(0o755)
    handle, name = tempfile.mkstemp(dir=library.parent, prefix=UNFINISHED)
    with os.fdopen(handle, "w", encoding="ascii") as file:
        file.write(hashlib.sha256(library.read_bytes()).hexdigest() + "\n")
    os.replace(name, _digest_path(library))


def _digest_path(library: Path) -> Path:
    return library.parent.with_suffix(".sha256")


def refusal_beside(library: Path, source_hash: str) -> str | None:
    """Returns why a library that lies beside the Python files is not loaded; None if it may be.

    It is trusted as they are: what could be done through it could be done through them.

    Args:
        library: the file.
        source_hash: of the sources that it must be built from.

    Returns:
        A clause, or None.
    """
    try:
        status, folder = library.stat(), library.parent.stat()
        if not stat.S_ISREG(status.st_mode):
            return f"{library} is not a file"
        if status.st_uid not in _trusted() | {folder.st_uid}:
            return f"{library} belongs to another user ({status.st_uid}) than its folder"
        if status.st_mode & ~folder.st_mode & _OTHERS_WRITE:
            return f"{library} can be written to by others (mode {stat.S_IMODE(status.st_mode):o})"
        if source_hash.encode() not in library.read_bytes():
            return f"{library} was built from other sources"
    except FileNotFoundError:
        return f"{library} is not there"
    except OSError as error:
        return f"{library} cannot be read ({error.strerror})"
    return None


# One builds, the others wait.


def while_locked(path: Path, work: Callable[[], T], clean: Callable[[], object] | None = None) -> T:
    """Works while it holds an flock, which the kernel drops with its holder: the file of a killed build blocks nobody.

    Whoever comes next waits as long as the holder lives and shows it, which it does by touching the file. Where the
    file system has no locks nobody waits: the rename at the end of a build is atomic all the same. No interrupt leaves
    the lock held: C code goes from opening the file to noting it, and one of two blocks closes it.

    Args:
        path: the lock file, in a folder of :func:`cache_folder`.
        work: what is done.
        clean: removes what killed holders have left; called before ``work``, but not without a lock, since somebody
            else may be at work then.

    Returns:
        What ``work`` returned.

    Raises:
        RuntimeError: the holder has shown no sign of life for :data:`LOCK_SECONDS`.
        OSError: the file cannot be locked.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    held: list[io.FileIO] = []
    ended = threading.Event()
    try:
        try:
            held.extend(map(io.FileIO, map(os.open, [path], [flags], [0o600]), ["r+"]))
            locked = _take(held[0].fileno(), path)
            if locked:
                held[0].truncate(0)
                held[0].write(f"{os.getpid()}\n".encode())
            threading.Thread(target=_beat, args=(path, ended), daemon=True).start()
            if locked and clean is not None:
                clean()
            return work()
        finally:
            _end(ended, held)
    finally:
        _end(ended, held)


def _end(ended: threading.Event, held: list[io.FileIO]) -> None:
    for file in held:
        file.close()
    ended.set()


def _beat(path: Path, ended: threading.Event) -> None:
    """Shows that the builder lives, until it has ended."""
    while not ended.wait(BEAT_SECONDS):
        with contextlib.suppress(OSError):
            os.utime(path)


def _take(handle: int, path: Path) -> bool:
    """Waits for the lock; False where there are none."""
    import fcntl

    seen, since = -1, time.monotonic()
    told: float | None = None
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except OSError as error:
            if error.errno in _WITHOUT_LOCKS:
                return False
            if error.errno not in _HELD:
                raise type(error)(error.errno, f"cannot lock {path}: {error.strerror}") from error
        now, beat = time.monotonic(), os.fstat(handle).st_mtime_ns
        if beat != seen:
            seen, since = beat, now
        if now - since > LOCK_SECONDS:
            raise RuntimeError(
                f"another process has held {path} for {LOCK_SECONDS:.0f} s without a sign of life while building the "
                f"C++ kernels{_holder(handle)}; end it, set FASTLANGEVIN_CACHE_DIR to another folder, or use "
                "impl='reference'"
            )
        if told is None or now - told > TOLD_SECONDS:
            told = now
            logger.warning(
                "waiting for another process%s, which builds the C++ kernels in %s", _holder(handle), path.parent
            )
        time.sleep(0.05)


def _holder(handle: int) -> str:
    found = re.fullmatch(rb"([0-9]{1,10})\n", os.pread(handle, 32, 0))
    return f" ({int(found[1])})" if found else ""
