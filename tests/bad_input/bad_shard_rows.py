"""Bad calls of sharded sampling, and runs that a call does not go on with."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from bad_call_row import NAN, Row
from well_formed_calls import Arguments

from fastlangevin.storage import container


def _new(name: str, change: Arguments, error: type[Exception], *says: str) -> Row:
    return Row(name, "shards.sample", lambda k: change, error, says)


def _other(name: str, change: Arguments, *says: str) -> Row:
    return Row(f"other {name}", "shards.sample again", lambda k: change, ValueError, (*says, "another run", "folder"))


def _flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-2] ^= 0x10
    path.write_bytes(content)


def _recorded(path: Path, **change: Any) -> None:
    """A shard whose record was changed, with the right digests: written by another version of the package."""
    tensors, description = container.read(path)
    description["record"].update(change)
    container.write(path, tensors, description)


def _spoilt(name: str, spoil: Callable[[Path], object], error: type[Exception], *says: str) -> list[Row]:
    """What is refused by all that read a run."""

    def bad(arguments: Arguments) -> Arguments:
        spoil(arguments["folder"])
        return {}

    calls = ("shards.sample again", "shards.collect", "shards.digest")
    return [Row(name, call, bad, error, says) for call in calls]


def _below_a_file(arguments: Arguments) -> Arguments:
    file = arguments["folder"].parent / "file"
    file.write_text("no folder")
    return {"folder": file}


def _full(arguments: Arguments) -> Arguments:
    arguments["folder"].mkdir()
    (arguments["folder"] / "thesis.tex").write_text("mine")
    return {}


SHARD_1 = "shard-0000000001.safetensors"

SHARDS = [
    _new("no samples", {"shape": (0, 3)}, ValueError, "at least 1 sample", "(0, 3)"),
    _new("negative number of samples", {"shape": (-5, 3)}, ValueError, "shape", "-5"),
    _new("shape is a number", {"shape": 5}, TypeError, "shape must be"),
    _new("no shape", {"shape": ()}, ValueError, "shape must be (N, ...)"),
    _new("shard of nothing", {"shard_size": 0}, ValueError, "shard_size must be from 1", "got 0"),
    _new("negative shard", {"shard_size": -2}, ValueError, "shard_size", "-2"),
    _new("shard of a fraction", {"shard_size": 2.0}, TypeError, "shard_size", "integer", "2.0"),
    _new("more shards than names", {"shape": (10**11, 3), "shard_size": 1}, ValueError, "10000000000", "larger"),
    _new("an option of no such name", {"shard_sise": 2}, TypeError, "shard_sise=", "fastlangevin.shards.RecordOptions"),
    _new("empty batch", {"batch": 0}, ValueError, "batch must be from 1", "got 0"),
    _new("batch of a fraction", {"batch": 0.5}, TypeError, "batch", "0.5"),
    _new("no seed", {"seed": None}, ValueError, "seed must be given", "every process"),
    _new("seed negative", {"seed": -1}, ValueError, "seed", "-1"),
    _new("seed float", {"seed": 0.5}, TypeError, "seed", "0.5"),
    _new("past the last id", {"sample_offset": 2**56 - 2}, ValueError, "sample_offset", "last sample id"),
    _new("logit text", {"logit": "a"}, TypeError, "logit", "'a'"),
    _new("logit 1", {"logit": 1.0}, ValueError, "logit", "1.0"),
    _new("nameless score", {"network": None}, ValueError, "score is no torch.nn.Module", "network="),
    _new("network by a number", {"network": 7}, TypeError, "network", "7"),
    _new("score is None", {"score": None}, TypeError, "score", "callable"),
    _new("tensor for a start", {"init": torch.zeros(5, 3)}, ValueError, "init must be 'uniform' or 'normal'"),
    _new("dtype int", {"dtype": torch.int64}, TypeError, "dtype", "torch.int64"),
    _new("two step sizes", {"step_lr": 0.1}, ValueError, "exactly one", "epsilon="),
    _new("step size NaN", {"epsilon": NAN}, ValueError, "epsilon", "nan"),
    _new("ladder upwards", {"sigmas": [0.5, 1.0]}, ValueError, "sigmas"),
    _new("unknown corrector", {"corrector": "mala"}, ValueError, "corrector", "'mala'"),
    _new("more updates than draws", {"steps_per_level": 2**31 + 1}, ValueError, "steps_per_level", str(2**31)),
    _new("unknown impl", {"impl": "fast"}, ValueError, "impl must be one of", "'fast'"),
    _new("rank past the world", {"rank": 2, "world": 2}, ValueError, "rank must be from 0 to 1", "2"),
    _new("no processes", {"world": 0}, ValueError, "world must be from 1", "0"),
    Row("folder is a file", "shards.sample", _below_a_file, ValueError, ("not a folder",)),
    Row(
        "folder in none",
        "shards.sample",
        lambda k: {"folder": k["folder"] / "deeper"},
        ValueError,
        ("does not exist", "create it first"),
    ),
    Row("folder of other things", "shards.sample", _full, ValueError, ("thesis.tex", "run.json", "empty folder")),
    _other("seed", {"seed": 2**64 - 1}, "seed was 0 and is now 18446744073709551615"),
    _other("level", {"sigmas": [1.0, 0.25]}, "sigmas[1] was 0.5 and is now 0.25"),
    _other("number of levels", {"sigmas": [1.0, 0.5, 0.25]}, "sigmas had 2 levels and now has 3"),
    _other("step size", {"epsilon": 0.02}, "epsilon was 0.01 and is now 0.02"),
    _other("number of updates", {"steps_per_level": 3}, "steps_per_level was 2 and is now 3"),
    _other("network", {"network": "mixture"}, "network was 'gaussian' and is now 'mixture'"),
    _other("shape", {"shape": (5, 4)}, "shape was [3] and is now [4]"),
    _other("number of samples", {"shape": (6, 3)}, "n was 5 and is now 6"),
    _other("first sample", {"sample_offset": 5}, "sample_offset was 0 and is now 5"),
    _other("dtype", {"dtype": torch.float64}, "dtype was 'float32' and is now 'float64'"),
    _other("shard size", {"shard_size": 3}, "shard_size was 2 and is now 3"),
    _other("start", {"init": "normal"}, "init was 'uniform' and is now 'normal'"),
    _other("end", {"denoise": True, "seed": 1}, "denoise was False and is now True", "seed was 0 and is now 1"),
    *_spoilt("corrupted shard", lambda run: _flipped(run / SHARD_1), ValueError, SHARD_1, "damaged", "SHA-256"),
    *_spoilt(
        "shard of another stream version",
        lambda run: _recorded(run / SHARD_1, stream_version=2),
        ValueError,
        f"{SHARD_1} is of another run",
        "stream_version was 2 and is now 1",
    ),
    *_spoilt(
        "shard of another place",
        lambda run: (run / SHARD_1).write_bytes((run / SHARD_1.replace("1", "0")).read_bytes()),
        ValueError,
        f"{SHARD_1} holds other samples than its name says",
        "shard 0",
    ),
    *_spoilt(
        "record cut short",
        lambda run: (run / "run.json").write_text((run / "run.json").read_text()[:-9]),
        ValueError,
        "run.json is damaged",
        "remove it",
    ),
    *_spoilt(
        "record that is a pipe",
        lambda run: (run / "run.json").unlink() or os.mkfifo(run / "run.json"),
        ValueError,
        "run.json: it is a pipe",
        "check the path",
    ),
    Row(
        "missing shard",
        "shards.collect",
        lambda k: (k["folder"] / SHARD_1).unlink() or {},
        FileNotFoundError,
        ("1 of 3 shards", SHARD_1, "samples 2 to 3", "run the same again"),
    ),
    Row("more than all", "shards.collect", lambda k: {"count": 6}, ValueError, ("count must be from 1 to 5", "6")),
    Row(
        "folder without a run", "shards.iterate", lambda k: {"folder": k["folder"].parent}, FileNotFoundError, ("run",)
    ),
    Row("path for a number", "RunFolder.shard_path", lambda k: {"index": "../../x"}, TypeError, ("index", "../../x")),
    Row("number past the last", "RunFolder.shard_path", lambda k: {"index": 3}, ValueError, ("index", "from 0 to 2")),
]
