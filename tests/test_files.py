"""Writing: the order of its steps, what a failure leaves, orphans of killed writers, memory."""

import errno
import fcntl
import os
import signal
import stat
import subprocess
import sys

import pytest
import torch

from fastlangevin.storage import container, files
from tests.long.promises import FULL_SIZES

DESCRIPTION = {"step": 5, "losses": [0.5, 0.25]}


def tensors():
    return {"weights": torch.arange(1000.0), "ids": torch.arange(7)}


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "state.safetensors"
    container.write(path, tensors(), DESCRIPTION)
    return path


def test_written_flushed_renamed_and_the_folder_flushed_in_this_order(path, monkeypatch):
    size = path.stat().st_size
    events = []
    fsync, replace = os.fsync, os.replace

    def note_fsync(descriptor):
        status = os.fstat(descriptor)
        events.append("folder" if stat.S_ISDIR(status.st_mode) else f"{status.st_size - size} bytes missing")
        fsync(descriptor)

    def note_replace(source, target):
        events.append("rename")
        assert os.path.dirname(source) == os.path.dirname(target)
        replace(source, target)

    monkeypatch.setattr(files.os, "fsync", note_fsync)
    monkeypatch.setattr(files.os, "replace", note_replace)
    container.write(path, tensors(), DESCRIPTION)
    assert events == ["0 bytes missing", "rename", "folder"]


def test_payload_in_parts_is_written_as_it_comes(tmp_path):
    path = tmp_path / "parts"

    def parts():
        yield b"one"
        (temporary,) = tmp_path.iterdir()
        assert temporary.name.startswith(".parts.")
        assert not path.exists()
        yield memoryview(b"two")

    files.write_whole(path, parts())
    assert path.read_bytes() == b"onetwo"

    def broken():
        yield b"half"
        raise KeyError

    with pytest.raises(KeyError):
        files.write_whole(path, broken())
    assert [each.name for each in tmp_path.iterdir()] == ["parts"]
    assert path.read_bytes() == b"onetwo"


def process(code, *arguments):
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


FULL = """
import resource, sys, torch
from pathlib import Path
from fastlangevin import checkpoint, container
from fastlangevin.models import MLP, MLPConfig
path, limits = Path(sys.argv[1]), int(sys.argv[2])
size = path.stat().st_size
intact = path.read_bytes()
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
state = {"weights": torch.zeros(size // 4)}
net = MLP([1.0, 0.5], MLPConfig(features=2, width=64, depth=2))
refused = 0
for limit in range(0, size, size // limits):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        container.write(path, state, {})
    except OSError as error:
        refused += "File too large; give a path in a folder that exists" in str(error)
    try:
        checkpoint.save(path, net)
    except RuntimeError as error:
        refused += f"cannot write {path}: File too large" in str(error)
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert path.read_bytes() == intact
    assert list(path.parent.iterdir()) == [path]
container.write(path, state, {})
print(refused)
"""


def test_a_full_disk_leaves_the_old_file_and_nothing_else(path):
    # The limit on a file's size stands for the full disk: writing fails after any number of bytes.
    container.write(path, {"weights": torch.ones(3000)}, {})
    size = path.stat().st_size
    out, _ = process(FULL, path, FULL_SIZES).communicate(timeout=900)
    assert int(out) == 2 * len(range(0, size, size // FULL_SIZES)) >= 2 * FULL_SIZES


HALF = """
import sys
from fastlangevin.storage.files import write_whole
def parts():
    yield b"half"
    print("writing", flush=True)
    sys.stdin.read()  # until it is killed
write_whole(sys.argv[1], parts())
"""


def test_a_killed_writer_leaves_an_orphan_that_the_next_write_sweeps(path):
    intact = path.read_bytes()
    writer = process(HALF, path)
    try:
        assert writer.stdout.readline() == "writing\n"
        (temporary,) = path.parent.glob(".*.tmp")
        assert f".{writer.pid}." in temporary.name
        # Alive: neither a sweep nor another write takes its file away.
        assert files.sweep(path.parent, ".*") == []
        container.write(path, tensors(), DESCRIPTION)
        assert temporary.exists()
    finally:
        writer.send_signal(signal.SIGKILL)
        writer.communicate()
    assert temporary.exists()
    container.write(path.with_name("other"), {}, {})
    assert temporary.exists(), "of another file"
    container.write(path, tensors(), DESCRIPTION)
    assert sorted(each.name for each in path.parent.iterdir()) == ["other", path.name]
    assert path.read_bytes() == intact


def orphan(path, host=None, pid=999_999_999):
    made = path.with_name(f".{path.name}.{host or files.host_name()}.{pid}.abc_1.tmp")
    made.write_bytes(b"half")
    return made


def test_only_orphans_of_this_host_are_swept(path):
    elsewhere, here = orphan(path, host="elsewhere"), orphan(path)
    # Left by a process of the same number in an earlier container of the same name: nobody holds its lock.
    namesake = orphan(path, pid=os.getpid())
    foreign = [path.with_name(name) for name in (f".{path.name}.tmp", f".{path.name}.x.tmp", ".nfs0001", "x.tmp")]
    for each in foreign:
        each.write_bytes(b"")
    assert sorted(files.sweep(path.parent, ".*")) == sorted([here, namesake])
    assert all(each.exists() for each in (elsewhere, path, *foreign))
    assert files.sweep(path.parent / "missing", ".*") == []


def test_without_locks_the_process_id_tells(path, monkeypatch):
    def without(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", without)
    gone, mine, first = orphan(path), orphan(path, pid=os.getpid()), orphan(path, pid=1)
    container.write(path, tensors(), DESCRIPTION)
    assert not gone.exists()
    assert mine.exists()
    assert first.exists()


def test_a_sweep_between_creation_and_lock_is_noticed(path, monkeypatch):
    real, swept = fcntl.flock, []

    def flock(handle, operation):
        if not swept:
            swept.extend(path.parent.glob(".*.tmp"))
            swept[0].unlink()
        real(handle, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    container.write(path, {"x": torch.ones(3)}, {})
    assert len(swept) == 1
    assert torch.equal(container.read(path)[0]["x"], torch.ones(3))
    assert list(path.parent.iterdir()) == [path]


def test_a_new_file_has_the_rights_of_any_other(path):
    plain = path.with_name("plain")
    plain.write_bytes(b"")
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


def test_a_write_never_touches_the_umask_which_all_threads_share(path, monkeypatch):
    before = os.umask(0o077)
    try:
        with monkeypatch.context() as patched:
            patched.setattr(os, "umask", None)
            container.write(path, tensors(), DESCRIPTION)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    finally:
        assert os.umask(before) == 0o077


WRITER = """
import sys, torch
from fastlangevin import container
for number in range(8):
    container.write(sys.argv[1], {"x": torch.full((50_000,), number)}, {"number": number})
"""


@pytest.mark.long
def test_readers_and_other_writers_never_meet_half_a_file(path):
    container.write(path, {"x": torch.full((50_000,), 0)}, {"number": 0})
    writers = [process(WRITER, path) for _ in range(2)]
    reads = 0
    while any(writer.poll() is None for writer in writers):
        loaded, description = container.read(path)
        assert bool((loaded["x"] == description["number"]).all())
        reads += 1
    for writer in writers:
        writer.communicate()
    assert [writer.returncode for writer in writers] == [0, 0]
    assert reads > 5
    assert list(path.parent.iterdir()) == [path]


MEMORY = """
import sys, torch
from fastlangevin import container
def peak(call):
    # The kernel's own record of the most that the process ever held, started anew.
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    before = held("VmHWM")
    result = call()
    return held("VmHWM") - before, result
def held(name):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(name))
state = {"a": torch.zeros(2**24), "b": torch.ones(2**23)}
container.write(sys.argv[1], {"x": torch.zeros(2**18)}, {})
container.read(sys.argv[1])
writing, _ = peak(lambda: container.write(sys.argv[1], state, {}))
reading, _ = peak(lambda: container.read(sys.argv[1]))
print(writing, reading)
"""


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="the kernel keeps no record of the peak")
def test_there_is_no_second_copy_in_memory(path):
    out, _ = process(MEMORY, path).communicate(timeout=900)
    writing, reading = map(int, out.split())
    size = 3 * 2**25
    # A tenth for what Python and the allocator do meanwhile; a copy would add a third of the size at the least.
    assert writing < size / 10
    assert size * 0.9 < reading < size * 1.1
