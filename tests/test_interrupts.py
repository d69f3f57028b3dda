"""Ctrl-C at every instruction leaves no lock held, no file open and no temporary file; whoever waits says for whom.

Python raises KeyboardInterrupt between any two instructions. A trace function raises it here, at one after the other,
and the traceback is kept, as an interactive session keeps it, so that nothing is cleaned up by chance.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from fastlangevin.shards import lease, working
from fastlangevin.shards.lease import claim, holder, while_claimed
from fastlangevin.storage import files

fcntl = pytest.importorskip("fcntl")


def interrupted_at(instruction: int, call: Callable[[], object], traced: tuple[str, ...]) -> BaseException | None:
    """Calls, with an interrupt before the instruction of this number in the traced files; None where it has fewer."""
    count = 0

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal count
        if not frame.f_code.co_filename.endswith(traced):
            return None
        frame.f_trace_opcodes = True
        count += 1
        if count == instruction:
            sys.settrace(None)
            raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    try:
        sys.settrace(trace)
        call()
    except KeyboardInterrupt as error:
        return error
    finally:
        sys.settrace(before)
    assert count < instruction, "the interrupt was swallowed"
    return None


def held(folder: Path) -> list[str]:
    """What this process has open or locked in a folder, and temporary files there."""
    found = [path.name for path in folder.glob(".*.tmp")]
    for path in folder.glob("*.lock"):
        handle = os.open(path, os.O_RDWR)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            found.append(path.name)
        finally:
            os.close(handle)
    descriptors = Path("/proc/self/fd")
    for each in descriptors.iterdir() if descriptors.exists() else ():
        with contextlib.suppress(OSError):
            if os.readlink(each).startswith(str(folder)):
                found.append(os.readlink(each))
    return found


def interrupted_everywhere(call: Callable[[], object], folder: Path, *traced: str) -> list[tuple[int, list[str]]]:
    """The instructions at which an interrupt leaves something held, and what; the last entry is the call's end."""
    leaks = []
    instruction = 1
    while (error := interrupted_at(instruction, call, traced)) is not None:
        left = held(folder)
        if left:
            leaks.append((instruction, left))
        del error
        for each in folder.iterdir():
            each.unlink()
        instruction += 1
    assert instruction > 100
    return leaks


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the disk, whose flushes take most of the time."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


def test_an_interrupt_anywhere_in_a_write_leaves_neither_its_file_nor_a_handle(tmp_path: Path, quick: None) -> None:
    path = tmp_path / "state"
    assert (
        interrupted_everywhere(lambda: files.write_whole(path, b"new"), tmp_path, "fastlangevin/storage/files.py") == []
    )
    assert path.read_bytes() == b"new"


def test_an_interrupt_anywhere_in_a_claim_lets_it_go(tmp_path: Path) -> None:
    done: list[int] = []

    def call() -> None:
        assert while_claimed(tmp_path / "shard.lock", lambda: done.append(1) or True)

    traced = ("fastlangevin/storage/files.py", "fastlangevin/shards/lease.py")
    assert interrupted_everywhere(call, tmp_path, *traced) == []
    assert list(tmp_path.iterdir()) == []
    assert done


def test_a_claim_by_a_generator_is_left_held_by_interrupts_of_the_same_harness(tmp_path: Path) -> None:
    @contextlib.contextmanager
    def plain(path: Path) -> Iterator[bool]:
        handle = os.open(path, os.O_RDWR | os.O_CREAT)
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            yield True
        finally:
            os.close(handle)

    def call() -> None:
        with plain(tmp_path / "shard.lock") as ours:
            assert ours

    leaks = interrupted_everywhere(call, tmp_path, "contextlib.py", __file__)
    assert any("shard.lock" in left for _, left in leaks)
    for handle in os.listdir("/proc/self/fd"):  # what the control has left open
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/self/fd/{handle}").startswith(str(tmp_path)):
                os.close(int(handle))


# Whom a claim waits for.


def test_a_holder_is_named_by_process_and_host(tmp_path: Path) -> None:
    lock = tmp_path / "shard.lock"
    with claim(lock) as ours:
        assert ours
        assert lock.read_text() == f"{os.getpid()} {files.host_name()}\n"
        assert holder(lock) == "another thread of this process"
        lock.write_text("17 elsewhere\n")
        assert holder(lock) == "process 17 on elsewhere"
        for text in ("", "17", "17 else where\n", "17 elsewhere\nmore", "x" * 10_000):
            lock.write_text(text)
            assert holder(lock) == "a process that is not known"
    assert not lock.exists()
    assert holder(lock) == "a process that is not known"
    with claim(lock) as ours:
        assert ours
        lock.write_text("a longer text than a holder writes")
    lock.write_text("what a killed holder left behind it, and longer")
    with claim(lock):
        assert lock.read_text() == f"{os.getpid()} {files.host_name()}\n"


def test_waiting_is_told_at_once_and_again_after_a_while(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = lease.Waiting()
    for _ in range(3):
        waiting.say(lambda: "process 5 on a, which draws shard 1")
    assert caplog.messages == ["waiting for process 5 on a, which draws shard 1; its lock ends when it ends"]
    assert caplog.records[0].levelno == logging.WARNING
    monkeypatch.setattr(lease, "AGAIN_SECONDS", -1.0)
    waiting.say(lambda: "the same")
    assert len(caplog.messages) == 2


class _Run:
    """A run of as many shards as are missing."""

    path = Path("run")

    def lock_path(self, index: int) -> Path:
        return Path(f"none-{index}.lock")


def test_of_many_holders_a_few_are_named() -> None:
    unknown = "a process that is not known, which draws shard"
    assert working._holders(_Run(), [3]) == f"{unknown} 3 (run)"  # type: ignore[arg-type]
    said = working._holders(_Run(), list(range(100)))  # type: ignore[arg-type]
    assert said == f"{unknown} 0; {unknown} 1; {unknown} 2, and those who draw 97 more (run)"


# What flock says.


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL, errno.EPERM])
def test_without_locks_every_claim_is_granted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def without(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", without)
    with claim(tmp_path / "a.lock") as ours, claim(tmp_path / "a.lock") as theirs:
        assert ours
        assert theirs
    assert list(tmp_path.iterdir()) == []
    files.write_whole(tmp_path / "file", b"x")
    assert files.sweep(tmp_path, ".*") == []


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.EACCES])
def test_a_lock_that_another_has_is_not_granted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def taken(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", taken)
    with claim(tmp_path / "a.lock") as ours:
        assert not ours
    assert [path.name for path in tmp_path.iterdir()] == ["a.lock"]


@pytest.mark.parametrize("number", [errno.EIO, errno.EBADF])
def test_any_other_error_of_a_lock_names_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def fails(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patched:
        patched.setattr(fcntl, "flock", fails)
        says = r"cannot lock .*a\.lock: .*folder can be written to"
        with pytest.raises(OSError, match=says), claim(tmp_path / "a.lock"):
            pass
    assert held(tmp_path) == []


@pytest.mark.parametrize("kind", ["pipe", "folder"])
def test_a_lock_that_is_no_file_is_refused_without_waiting(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.lock"
    os.mkfifo(path) if kind == "pipe" else path.mkdir()
    with pytest.raises(OSError, match=r"cannot lock .*a\.lock: .*remove it"), claim(path):
        pass
    assert path.exists()


def test_two_threads_do_not_hold_one_claim(tmp_path: Path) -> None:
    lock, taken, leave = tmp_path / "a.lock", threading.Event(), threading.Event()

    def hold() -> None:
        with claim(lock):
            taken.set()
            leave.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    taken.wait()
    try:
        assert while_claimed(lock, lambda: True) is None
    finally:
        leave.set()
        thread.join()
    assert while_claimed(lock, lambda: True)
