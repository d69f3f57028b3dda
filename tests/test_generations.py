"""Numbered checkpoints: the newest is taken, an older one only with leave, and none is removed too early."""

import logging
import os

import pytest
import torch

from fastlangevin.storage import files
from fastlangevin.storage.generations import MAX_STEP, Generations, read_numbered


def tensors(step):
    return {"weights": torch.full((5,), float(step))}


@pytest.fixture
def run(tmp_path):
    run = Generations(tmp_path, "run")
    for step in (10, 20):
        run.save(step, tensors(step), {"step": step})
    return run


def damage(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def test_the_newest_is_loaded(run):
    step, loaded, description = run.load()
    assert (step, description) == (20, {"step": 20})
    assert torch.equal(loaded["weights"], tensors(20)["weights"])
    assert run.load(10).step == 10
    assert run.steps() == [10, 20]
    assert sorted(path.name for path in run.folder.iterdir()) == [
        "run-0000000010.safetensors",
        "run-0000000020.safetensors",
    ]


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_older_ones_are_removed_beyond_keep(tmp_path, keep):
    run = Generations(tmp_path, "run", keep=keep)
    for step in range(6):
        assert run.save(step, tensors(step), {}) == run.path(step)
        assert run.steps() == list(range(step + 1))[-keep:]


def test_nothing_is_removed_before_the_new_one_is_durable(run, monkeypatch):
    events = []

    def record(name, there):
        real = getattr(os, name)

        def call(*arguments, **options):
            events.append((name, there()))
            return real(*arguments, **options)

        return call

    for name in ("fsync", "replace", "unlink"):
        monkeypatch.setattr(files.os, name, record(name, run.steps))
    run.save(30, tensors(30), {})
    assert events == [
        ("fsync", [10, 20]),
        ("replace", [10, 20]),
        ("fsync", [10, 20, 30]),
        ("unlink", [10, 20, 30]),
    ]


def test_a_save_that_fails_removes_nothing(run, monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "fsync", full)
        with pytest.raises(OSError, match="No space left on device"):
            run.save(30, tensors(30), {})
    assert run.steps() == [10, 20]
    assert len(list(run.folder.iterdir())) == 2
    assert run.load().step == 20


def test_an_old_one_that_cannot_be_removed_does_not_end_the_run(run, monkeypatch, caplog):
    def busy(*_):
        raise OSError(16, "Device or resource busy")

    monkeypatch.setattr(os, "unlink", busy)
    run.save(30, tensors(30), {})
    assert "could not be removed: [Errno 16]" in caplog.text
    assert run.load().step == 30


def test_going_back_removes_nothing_newer(run):
    run.save(5, tensors(5), {})
    assert run.steps() == [5, 10, 20]
    run.save(15, tensors(15), {})
    assert run.steps() == [10, 15, 20]


def test_a_damaged_newest_is_refused_and_the_one_before_it_named(run):
    damage(run.path(20))
    with pytest.raises(
        ValueError,
        match=r"run-0000000020\.safetensors is damaged.*tensor 'weights' does not have the SHA-256.*"
        r"fallback=True takes the checkpoint before it, run-0000000010\.safetensors",
    ):
        run.load()
    assert run.steps() == [10, 20], "a damaged file stays for a look at it"


def test_fallback_takes_the_one_before_and_says_so(run, caplog):
    run.keep = 3
    run.save(30, tensors(30), {"step": 30})
    damage(run.path(20))
    run.path(30).write_bytes(b"")
    with caplog.at_level(logging.WARNING, "fastlangevin"):
        assert run.load(fallback=True).step == 10
    skipped = [record.getMessage() for record in caplog.records]
    assert len(skipped) == 2
    assert "run-0000000030.safetensors is damaged" in skipped[0]
    assert "run-0000000020.safetensors is damaged" in skipped[1]
    assert run.steps() == [10, 20, 30]


def test_fallback_of_an_intact_run_is_silent(run, caplog):
    assert run.load(fallback=True).step == 20
    assert not caplog.records


def test_with_all_damaged_even_fallback_refuses(run):
    for step in run.steps():
        damage(run.path(step))
    with pytest.raises(ValueError, match=r"run-0000000010\.safetensors is damaged"):
        run.load(fallback=True)
    with pytest.raises(ValueError, match="damaged") as caught:
        run.load(10)
    assert "fallback" not in str(caught.value), "there is nothing to fall back on"


def test_what_is_missing_is_said(tmp_path):
    run = Generations(tmp_path, "run")
    with pytest.raises(FileNotFoundError, match=r"no run-0000000000\.safetensors or later in .*nothing was saved"):
        run.load()
    run.save(4, tensors(4), {})
    with pytest.raises(FileNotFoundError, match=r"run-0000000005\.safetensors; there are the steps \[4\]"):
        run.load(5)


def test_other_files_are_no_generations(run):
    for name in ("run-30.safetensors", "other-0000000030.safetensors", "run-0000000030.safetensors.bak", "x"):
        (run.folder / name).write_bytes(b"")
    run.folder.joinpath("run-more-0000000040.safetensors").write_bytes(b"")
    assert run.steps() == [10, 20]
    run.save(30, tensors(30), {})
    assert run.steps() == [20, 30]
    assert len(list(run.folder.iterdir())) == 7
    assert Generations(run.folder, "run-more").steps() == [40]
    assert Generations(run.folder, "run.more").steps() == []


def test_orphans_are_swept_when_the_folder_is_opened(run):
    host = files.host_name()
    mine = run.folder / f".run-0000000030.safetensors.{host}.999999999.abc.tmp"
    others = [run.folder / f".{name}.{host}.999999999.abc.tmp" for name in ("run-30", "net", "run-more-0000000001")]
    for path in (mine, *others):
        path.write_bytes(b"half")
    assert run.sweep() == [mine]
    mine.write_bytes(b"half")
    Generations(run.folder, "run")
    assert not mine.exists()
    assert all(path.exists() for path in others)


def test_only_numbered_files_have_others_before_them(run):
    damage(run.path(10))
    for name in ("run.safetensors", "run-0000000010.safetensors", "more-0000000030.safetensors"):
        run.path(10).with_name(name).write_bytes(run.path(10).read_bytes())
        with pytest.raises(ValueError, match=rf"{name} is damaged"):
            read_numbered(run.folder / name, fallback=True)
    assert read_numbered(run.path(20), fallback=False)[0] == run.path(20)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("missing", "run"), "folder must be a folder that exists, got .*missing; create it first"),
        ((".", ""), "prefix must be the beginning of a file's name"),
        ((".", "a/b"), "prefix .* got 'a/b'"),
        ((".", 5), "prefix .* got 5"),
        ((".", "run", 0), "keep must be an integer of at least 1, got 0"),
        ((".", "run", True), "keep .* got True"),
    ],
)
def test_bad_arguments_are_refused(arguments, message, tmp_path):
    folder, *rest = arguments
    with pytest.raises(ValueError, match=message):
        Generations(tmp_path / folder, *rest)


@pytest.mark.parametrize("step", [-1, MAX_STEP + 1, 1.0, True])
def test_bad_steps_are_refused(step, run):
    with pytest.raises(ValueError, match="step must be an integer from 0 to 9999999999"):
        run.save(step, tensors(0), {})
    with pytest.raises(ValueError, match="step must be"):
        run.load(step)
    assert run.path(MAX_STEP).name == "run-9999999999.safetensors"
