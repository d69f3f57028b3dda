"""The folder of the C++ library: who could have put something else there, whom a build waits for, and for how long.

The tests run as root too, who may give files to others; elsewhere an owner is pretended.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from fastlangevin.kernels import environment as switches
from fastlangevin.kernels.cpp import cache, native

fcntl = pytest.importorskip("fcntl")
HASH = "0123456789abcdef0123456789abcdef"
STRANGER = 54321


@pytest.fixture
def give(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Gives a path to another user: in fact for root, and for others by what is said of it."""
    foreign: set[Path] = set()
    real = Path.lstat

    def lstat(path: Path) -> os.stat_result:
        status = real(path)
        return os.stat_result((*status[:4], STRANGER, *status[5:])) if path in foreign else status

    def given(path: Path) -> None:
        if os.geteuid() == 0:
            os.lchown(path, STRANGER, STRANGER)
        foreign.add(path)
        monkeypatch.setattr(Path, "lstat", lstat)

    return given


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """A library as a build leaves it, in a cache of its own; no real one, since nothing here may load it."""
    made = tmp_path / "cache" / "key" / "libfastlangevin.so"
    made.parent.mkdir(parents=True, mode=0o700)
    made.write_bytes(b"code " + HASH.encode())
    cache.note_digest(made)
    return made


def test_a_library_as_it_was_built_may_be_loaded(library: Path) -> None:
    assert cache.refusal(library, HASH) is None
    assert sorted(each.name for each in library.parent.iterdir()) == [library.name]
    assert library.stat().st_mode & 0o777 == 0o755
    assert cache.distrust(Path("/tmp").resolve()) is not None  # as the last folder, since anybody can write there
    noted = library.parent.with_suffix(".sha256").read_text()
    assert noted == hashlib.sha256(library.read_bytes()).hexdigest() + "\n"


@pytest.mark.parametrize("place", ["library", "key", "cache", "above"])
def test_a_library_is_refused_if_anything_on_the_way_is_another_users(
    library: Path, tmp_path: Path, give: Callable[[Path], None], place: str
) -> None:
    path = {"library": library, "key": library.parent, "cache": library.parents[1], "above": tmp_path}[place]
    give(path)
    assert cache.refusal(library, HASH) == f"{path} belongs to another user ({STRANGER})"


@pytest.mark.parametrize("mode", [0o775, 0o757, 0o777, 0o1777, 0o2775])
@pytest.mark.parametrize("place", ["library", "key", "cache", "above"])
def test_a_library_is_refused_if_others_can_write_anywhere_on_the_way(
    library: Path, tmp_path: Path, place: str, mode: int
) -> None:
    path = {"library": library, "key": library.parent, "cache": library.parents[1], "above": tmp_path}[place]
    path.chmod(mode)
    refused = cache.refusal(library, HASH)
    if mode == 0o1777 and place != "library":
        assert refused is None  # the sticky bit keeps others from what is in the folder, as in /tmp
        assert "can be written to by others (mode 1777)" in str(cache.distrust(path))
    else:
        assert refused == f"{path} can be written to by others (mode {mode:o})"


def test_links_are_followed_if_they_and_what_they_lead_to_are_ours(
    library: Path, tmp_path: Path, give: Callable[[Path], None]
) -> None:
    link = tmp_path / "link"
    link.symlink_to(library.parents[1])
    through = link / "key" / library.name
    assert cache.refusal(through, HASH) is None
    library.parents[1].chmod(0o777)
    assert f"{link} is a link, and {library.parents[1]} can be written to" in str(cache.refusal(through, HASH))
    library.parents[1].chmod(0o700)
    give(link)
    assert cache.refusal(through, HASH) == f"{link} belongs to another user ({STRANGER})"
    circle = tmp_path / "circle"
    circle.symlink_to(circle)
    assert "link" in str(cache.distrust(circle))
    library.rename(library.with_name("moved"))
    library.symlink_to(library.with_name("moved"))
    assert cache.refusal(library, HASH) == f"{library} is not a file"


def test_the_bytes_are_compared_before_anything_is_loaded(
    library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    intact = library.read_bytes()
    for content in (intact + b"\0", intact[:-1], b"", intact.replace(b"code", b"CODE")):
        library.write_bytes(content)
        assert cache.refusal(library, HASH) == f"{library} does not have the SHA-256 noted when it was built"
    library.write_bytes(intact)
    assert cache.refusal(library, HASH[::-1]) == f"{library} was built from other sources"
    library.parent.with_suffix(".sha256").unlink()
    assert "key.sha256 cannot be read (No such file" in str(cache.refusal(library, HASH))
    # Of what is refused nothing is loaded, in the cache or beside the Python files.
    loaded: list[str] = []
    monkeypatch.setattr(native.ctypes, "CDLL", lambda name: loaded.append(name))
    monkeypatch.setattr(native, "_library", None)
    monkeypatch.setattr(native, "__file__", str(library.with_name("native.py")))
    monkeypatch.setenv("FASTLANGEVIN_NO_BUILD", "1")
    with pytest.raises(RuntimeError, match="was built from other sources"):
        native.load()
    assert loaded == []


def test_a_library_beside_the_python_files_is_trusted_as_they_are(
    library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cache.refusal_beside(library, HASH) is None
    library.chmod(0o775)
    assert "can be written to by others (mode 775)" in str(cache.refusal_beside(library, HASH))
    library.parent.chmod(0o775)
    assert cache.refusal_beside(library, HASH) is None
    assert "other sources" in str(cache.refusal_beside(library, HASH[::-1]))
    assert "is not there" in str(cache.refusal_beside(library.with_name("none"), HASH))
    assert "is not a file" in str(cache.refusal_beside(library.parent, HASH))
    if os.geteuid() == 0:
        os.chown(library, STRANGER, -1)
        assert f"belongs to another user ({STRANGER})" in str(cache.refusal_beside(library, HASH))
        os.chown(library.parent, STRANGER, -1)  # a checkout that is mounted
        assert cache.refusal_beside(library, HASH) is None


# Folders.


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A temporary folder as /tmp is, and a home where nothing can be built."""
    for name in ("FASTLANGEVIN_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("HOME", str(tmp_path / "file"))
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    temporary.chmod(0o1777)
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    monkeypatch.setattr(cache, "_told", set())
    return temporary


def test_a_temporary_folder_of_another_user_does_not_make_a_new_one_at_every_call(
    nowhere: Path, give: Callable[[Path], None]
) -> None:
    usual = nowhere / f"fastlangevin-{os.getuid()}"
    usual.mkdir(mode=0o700)
    squatted = nowhere / f"fastlangevin-{os.getuid()}-aaaa"
    squatted.mkdir(mode=0o700)
    linked = nowhere / f"fastlangevin-{os.getuid()}-aaab"
    linked.symlink_to(nowhere)
    for path in (usual, squatted, linked):
        give(path)
    first = cache.cache_folder()
    assert first not in (usual, squatted, linked)
    assert first.parent == nowhere
    assert first.stat().st_mode & 0o777 == 0o700
    assert [cache.cache_folder() for _ in range(3)] == [first] * 3
    assert len(list(nowhere.iterdir())) == 4


def test_a_chosen_folder_that_others_can_write_to_is_told_and_not_used(
    nowhere: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    chosen = tmp_path / "shared"
    chosen.mkdir()
    chosen.chmod(0o1777)
    monkeypatch.setenv("FASTLANGEVIN_CACHE_DIR", str(chosen))
    for _ in range(2):
        assert cache.cache_folder() == nowhere / f"fastlangevin-{os.getuid()}"
    (message,) = caplog.messages
    for part in ("FASTLANGEVIN_CACHE_DIR=", str(chosen), "can be written to by others (mode 1777)", "chmod go-w"):
        assert part in message
    assert list(chosen.iterdir()) == []
    monkeypatch.setenv("FASTLANGEVIN_CACHE_DIR", str(chosen / "own"))
    assert cache.cache_folder() == chosen / "own"
    assert (chosen / "own").stat().st_mode & 0o777 == 0o700


def test_where_no_folder_is_safe_that_is_said(nowhere: Path) -> None:
    nowhere.chmod(0o777)
    with pytest.raises(RuntimeError, match=r"no folder that is safe .*mode 777.*FASTLANGEVIN_CACHE_DIR.*'reference'"):
        cache.cache_folder()
    assert [each.name for each in nowhere.iterdir()] == [f"fastlangevin-{os.getuid()}"]


@pytest.mark.parametrize("value", ["", "  ", "\t"])
def test_empty_variables_are_unset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("FASTLANGEVIN_CACHE_DIR", value)
    for base in (value, "relative"):  # which the standard of such folders has everybody ignore
        monkeypatch.setenv("XDG_CACHE_HOME", base)
        assert cache.cache_folder() == tmp_path / ".cache" / "fastlangevin"
    monkeypatch.setenv("FASTLANGEVIN_NO_BUILD", value)
    assert switches.switch("FASTLANGEVIN_NO_BUILD", False) is False
    assert switches.switch("FASTLANGEVIN_NO_BUILD", True) is True


@pytest.mark.parametrize(("value", "means"), [("1", True), (" Yes ", True), ("0", False), ("OFF", False)])
def test_a_switch_is_on_or_off(monkeypatch: pytest.MonkeyPatch, value: str, means: bool) -> None:
    monkeypatch.setenv("FASTLANGEVIN_NO_BUILD", value)
    assert switches.switch("FASTLANGEVIN_NO_BUILD", not means) is means


@pytest.mark.parametrize("value", ["2", "-1", "ja", "1.0", "nonsense" * 100])
def test_a_switch_that_is_neither_is_refused(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("FASTLANGEVIN_NO_BUILD", value)
    with pytest.raises(ValueError, match=r"FASTLANGEVIN_NO_BUILD must be 1 or 0, got '.*; unset it") as caught:
        switches.switch("FASTLANGEVIN_NO_BUILD", False)
    assert len(str(caught.value)) < 200


# Waiting.


class Builder(threading.Thread):
    """Somebody who holds the lock and touches its file, until it is told to end."""

    def __init__(self, path: Path, touches: bool) -> None:
        super().__init__()
        self.path, self.touches = path, touches
        self.holds, self.end = threading.Event(), threading.Event()

    def run(self) -> None:
        with self.path.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.write("4711\n")
            file.flush()
            self.holds.set()
            beat = 0
            while not self.end.wait(0.001):
                beat += self.touches
                os.utime(self.path, ns=(beat, beat))


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    return tmp_path / "key.lock"


def test_a_builder_that_lives_is_waited_for_and_named(
    lock: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """By a clock of which every look is an hour later than the last: only signs of life keep the waiting up."""
    builder = Builder(lock, touches=True)
    builder.start()
    builder.holds.wait()
    looks = 0

    class Time:
        @staticmethod
        def monotonic() -> float:
            nonlocal looks
            looks += 1
            if looks == 50:
                builder.end.set()
                builder.join()
            return looks * 3600.0

        @staticmethod
        def sleep(_: float) -> None:
            before = os.stat(lock).st_mtime_ns
            while builder.is_alive() and os.stat(lock).st_mtime_ns == before:
                pass

    monkeypatch.setattr(cache, "time", Time)
    assert cache.while_locked(lock, lambda: "built") == "built"
    assert looks >= 50
    assert caplog.messages[0] == f"waiting for another process (4711), which builds the C++ kernels in {lock.parent}"
    assert caplog.records[0].levelno == logging.WARNING
    assert lock.read_text() == f"{os.getpid()}\n"


def test_a_builder_without_a_sign_of_life_is_not_waited_for_for_ever(
    lock: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    builder = Builder(lock, touches=False)
    builder.start()
    builder.holds.wait()
    monkeypatch.setattr(cache, "LOCK_SECONDS", 0.2)
    with pytest.raises(RuntimeError, match=r"another process has held .* without a sign of life .*\(4711\); end it"):
        cache.while_locked(lock, lambda: None)
    builder.end.set()
    builder.join()


def test_whoever_builds_gives_signs_of_life(lock: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "BEAT_SECONDS", 0.001)

    def work() -> None:
        os.utime(lock, ns=(0, 0))
        while os.stat(lock).st_mtime_ns == 0:
            pass

    cache.while_locked(lock, work)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL, errno.EPERM, errno.EIO])
def test_without_locks_nobody_waits_and_other_errors_name_the_file(
    lock: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def fails(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", fails)
    if number == errno.EIO:
        with pytest.raises(OSError, match=r"cannot lock .*key\.lock: Input/output error"):
            cache.while_locked(lock, lambda: None)
    else:
        assert cache.while_locked(lock, lambda: 5) == 5


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ValueError])
def test_the_lock_goes_with_an_error(lock: Path, error: type[BaseException]) -> None:
    def fails() -> None:
        raise error

    with pytest.raises(error):
        cache.while_locked(lock, fails)
    assert cache.while_locked(lock, lambda: 5) == 5
