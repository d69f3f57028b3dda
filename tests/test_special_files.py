"""Pipes, devices, sockets and folders in the place of files: every reader refuses them, and reads within bounds."""

from __future__ import annotations

import builtins
import contextlib
import io
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import fastlangevin as fl
from fastlangevin import shards
from fastlangevin.cli import main
from fastlangevin.models import MLP, MLPConfig
from fastlangevin.storage import checkpoint, container, files, stopped_chain
from fastlangevin.storage.generations import Generations
from fastlangevin.storage.published import load_published
from fastlangevin.training.log import MAX_LINE, Log

KINDS = ["pipe", "device", "socket", "folder"]
RUN: dict[str, Any] = {"shape": (4, 2), "shard_size": 2, "epsilon": 1e-3, "steps_per_level": 1, "network": "gaussian"}


def special(kind: str, path: Path) -> Path:
    """Something that is not a file, under a name; a device by a link, since only root can make one."""
    path.parent.mkdir(exist_ok=True)
    if path.is_file():
        path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    else:
        # From its folder, since such an address must be short.
        with socket.socket(socket.AF_UNIX) as made, contextlib.chdir(path.parent):
            made.bind(path.name)
    return path


@pytest.fixture
def unopened(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Makes an attempt to open a path an error of its own: the test would wait for a pipe, or fill the memory."""

    def forbid(path: Path) -> None:
        def guarded(real: Callable[..., Any]) -> Callable[..., Any]:
            def opened(name: Any, *arguments: Any, **options: Any) -> Any:
                assert not isinstance(name, str | os.PathLike) or Path(name) != path, f"{path} was opened"
                return real(name, *arguments, **options)

            return opened

        for module in (builtins, io, os):
            monkeypatch.setattr(module, "open", guarded(module.open))

    return forbid


def run(folder: Path) -> Path:
    shards.sample(lambda x, labels: -x, [1.0], folder, seed=0, impl="reference", **RUN)
    return folder


def _shard(folder: Path) -> tuple[Path, Callable[[], object]]:
    return run(folder / "run") / "shard-0000000001.safetensors", lambda: shards.collect(folder / "run")


def _generation(folder: Path) -> tuple[Path, Callable[[], object]]:
    generations = Generations(folder, "state")
    return generations.save(1, {}, {}), generations.load


def _of_a_path(read: Callable[[Path], object]) -> Callable[[Path], tuple[Path, Callable[[], object]]]:
    return lambda folder: (folder / "file", lambda: read(folder / "file"))


READERS: dict[str, Callable[[Path], tuple[Path, Callable[[], object]]]] = {
    "container": _of_a_path(container.read),
    "checkpoint": _of_a_path(checkpoint.load),
    "from_pretrained": _of_a_path(MLP.from_pretrained),
    "chain": _of_a_path(stopped_chain.load),
    "published": _of_a_path(load_published),
    "record of a run": lambda folder: (run(folder / "run") / "run.json", lambda: shards.RunFolder(folder / "run")),
    "record of a run that goes on": lambda folder: (run(folder / "run") / "run.json", lambda: run(folder / "run")),
    "shard": _shard,
    "generation": _generation,
    "log": _of_a_path(lambda path: Log(path, 5)),
    "bytes": _of_a_path(lambda path: files.read_regular(path, 8)),
    "temporary files": lambda folder: (folder / "file", lambda: files.write_whole(folder / "file", b"x")),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", READERS)
def test_no_reader_opens_what_is_not_a_file(
    tmp_path: Path, unopened: Callable[[Path], None], name: str, kind: str
) -> None:
    path, read = READERS[name](tmp_path)
    special(kind, path)
    unopened(path)
    with pytest.raises((ValueError, RuntimeError, OSError)) as caught:
        read()
    message = str(caught.value)
    assert f"{path}" in message
    assert ("it is a folder or a device; name a file" if name == "temporary files" else kind) in message
    assert path.exists()


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_the_command_line_refuses_them_in_one_line(
    tmp_path: Path, unopened: Callable[[Path], None], capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    path = special(kind, tmp_path / "net")
    unopened(path)
    for command in (["sample", "--checkpoint", str(path)], ["convert", str(path), str(tmp_path / "out")]):
        assert main(command) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert f"cannot read {path}: it is a {kind}; check the path, and give that of a file" in line


def test_a_pipe_that_takes_a_files_place_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, plain = special("pipe", tmp_path / "pipe"), tmp_path / "plain"
    plain.write_bytes(b"")
    real = os.stat
    monkeypatch.setattr(files.os, "stat", lambda name, **options: real(plain if name == path else name, **options))
    with pytest.raises(files.NotAFileError, match="it is a pipe"):
        files.open_regular(path)


def test_links_to_files_are_read(tmp_path: Path) -> None:
    net = MLP([1.0, 0.5], MLPConfig(features=2, width=4, depth=1))
    checkpoint.save(tmp_path / "net", net)
    (tmp_path / "link").symlink_to(tmp_path / "net")
    assert torch.equal(checkpoint.load(tmp_path / "link").sigmas, net.sigmas)
    assert files.read_regular(tmp_path / "link", 10**6) == (tmp_path / "net").read_bytes()


def test_no_more_is_read_than_may_be(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"12345678")
    assert files.read_regular(path, 8) == b"12345678"
    with pytest.raises(ValueError, match="it has 8 bytes, more than 7"):
        files.read_regular(path, 7)
    # Files of /proc say that they have no bytes.
    proc = Path("/proc/self/status")
    if proc.exists():
        assert proc.stat().st_size == 0
        with pytest.raises(ValueError, match="it has more than 10 bytes"):
            files.read_regular(proc, 10)


def test_a_line_of_a_log_that_never_ends_is_read_to_a_limit(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with path.open("wb") as file:
        file.truncate(2**40)  # a hole, which takes no room on the disk and all of the memory
    assert Log(path, 5).lines == []
    assert path.stat().st_size == 0 < MAX_LINE


def test_lines_of_a_log_ascend(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    line = '{"step": 5, "loss": 1.0, "lr": 0.5, "gradient_norm": 2.0}\n'
    path.write_text(line + line.replace("5,", "6,", 1) + line * 1000)
    assert [each["step"] for each in Log(path, 10).lines] == [5, 6]


def test_a_checkpoint_as_long_as_the_disk_is_read_by_its_header(tmp_path: Path) -> None:
    fl.models.MLP([1.0, 0.5], MLPConfig(features=2, width=4, depth=1)).save_pretrained(tmp_path / "net")
    shutil.copy(tmp_path / "net", tmp_path / "long")
    os.truncate(tmp_path / "long", 2**40)
    with pytest.raises(ValueError, match="1099511627776 bytes, its header speaks of"):
        checkpoint.load(tmp_path / "long")
