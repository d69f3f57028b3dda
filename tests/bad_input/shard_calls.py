"""The well-formed calls of sharded sampling, for the table of well-formed calls."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastlangevin import shards


def _sample(folder: Path) -> dict[str, Any]:
    return {
        "score": lambda x, labels: -x,
        "sigmas": [1.0, 0.5],
        "folder": folder / "run",
        "shape": (5, 3),
        "shard_size": 2,
        "epsilon": 0.01,
        "steps_per_level": 2,
        "seed": 0,
        "impl": "reference",
        "network": "gaussian",
        "rank": 0,
        "world": 1,
    }


def run(folder: Path) -> Path:
    """The folder of a run that is complete."""
    shards.sample(**_sample(folder))
    return folder / "run"


def sample_again(folder: Path) -> dict[str, Any]:
    run(folder)
    return _sample(folder)


SHARD_CALLS: dict[str, tuple[Callable[..., Any], Callable[[Path], dict[str, Any]]]] = {
    "shards.sample": (shards.sample, _sample),
    "shards.sample again": (shards.sample, sample_again),
    "shards.collect": (shards.collect, lambda folder: {"folder": run(folder)}),
    "shards.iterate": (shards.iterate, lambda folder: {"folder": run(folder)}),
    "shards.digest": (shards.digest, lambda folder: {"folder": run(folder)}),
    "RunFolder.shard_path": (
        lambda folder, index: shards.RunFolder(folder).shard_path(index),
        lambda folder: {"folder": run(folder), "index": 2},
    ),
}
