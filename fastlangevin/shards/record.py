"""The record of a run. Two runs with the same record have the same samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypedDict

import torch
from torch import nn

from fastlangevin import rules
from fastlangevin.ladders import Sigmas, check_sigmas, positive
from fastlangevin.noise import MAX_DRAW, MAX_SAMPLE_ID, MAX_SEED, STREAM_VERSION, integer
from fastlangevin.ops.arguments import FLOAT_NAMES, FLOATS, elements_per_sample, sizes
from fastlangevin.rules import Corrector
from fastlangevin.samplers.options import check_names
from fastlangevin.shards.digests import network_digest

__all__ = ["DEFAULTS", "RecordOptions", "check_same", "check_sense", "describe", "dtype_of"]

FORMAT = 1
MAX_SHARDS = 10**10  # names have ten digits
_INTEGERS = {"seed": MAX_SEED, "n": MAX_SAMPLE_ID, "sample_offset": MAX_SAMPLE_ID, "shard_size": MAX_SAMPLE_ID}


class RecordOptions(TypedDict, total=False):
    """Keyword arguments of :func:`fastlangevin.shards.sample` that decide the samples: the record of a run has them.

    Attributes:
        init: ``"uniform"`` or ``"normal"``.
        epsilon, step_lr, steps_per_level, corrector, denoise, dtype: as for :func:`fastlangevin.annealed_langevin`.
        sample_offset: id of the first sample.
        shard_size: samples in a shard, the unit that is handed out.
        network: names the score in the record; by default the digest of a ``torch.nn.Module``.
        logit: alpha of the logit transform of the data that the network was trained on; the samples that are written
            have gone back by :func:`fastlangevin.data.expit`. By default they are written as they are drawn.
    """

    init: str
    epsilon: float | None
    step_lr: float | None
    steps_per_level: int
    corrector: Corrector
    denoise: bool
    dtype: torch.dtype
    sample_offset: int
    shard_size: int
    network: str | None
    logit: float | None


DEFAULTS: RecordOptions = {
    "init": "uniform",
    "epsilon": None,
    "step_lr": None,
    "steps_per_level": 100,
    "corrector": "langevin",
    "denoise": False,
    "dtype": torch.float32,
    "sample_offset": 0,
    "shard_size": 256,
    "network": None,
    "logit": None,
}


def describe(
    score: Callable[..., Any], sigmas: Sigmas, shape: Sequence[int], seed: int, options: RecordOptions
) -> dict[str, Any]:
    """The record of a run, from the arguments of :func:`fastlangevin.shards.sample`, which are checked here."""
    check_names(RecordOptions, options)
    given: RecordOptions = {**DEFAULTS, **options}
    init, dtype, network, corrector = given["init"], given["dtype"], given["network"], given["corrector"]
    if not callable(score):
        raise TypeError(f"score must be callable as score(x, labels), got {type(score).__name__}")
    if network is None:
        if not isinstance(score, nn.Module):
            raise ValueError(
                "score is no torch.nn.Module, so that a digest of it cannot be taken; give network=, a text that names "
                "it, such as network='gaussian 0.5 0.3'"
            )
        network = network_digest(score)
    elif not isinstance(network, str) or not network:
        raise TypeError(f"network must be a text that names the score, got {network!r}")
    ladder = check_sigmas(sigmas)
    size = rules.step_size(given["epsilon"], given["step_lr"])
    rules.annealed(ladder, size, corrector)
    if init not in ("uniform", "normal"):
        raise ValueError(f"init must be 'uniform' or 'normal', got {init!r}")
    if dtype not in FLOATS:
        raise TypeError(f"dtype must be {FLOAT_NAMES}, got {dtype}")
    extents = sizes(shape)
    if not extents or extents[0] < 1:
        raise ValueError(f"shape must be (N, ...) of at least 1 sample, got {tuple(shape)}")
    elements_per_sample(extents)
    if seed is None:
        raise ValueError("seed must be given, from 0 to 2^64 - 1: without one every process would draw another")
    first = integer("sample_offset", given["sample_offset"], 0, MAX_SAMPLE_ID)
    if first + extents[0] - 1 > MAX_SAMPLE_ID:
        raise ValueError(
            f"sample_offset {first} with {extents[0]} samples goes past the last sample id, {MAX_SAMPLE_ID}"
        )
    shard = integer("shard_size", given["shard_size"], 1, MAX_SAMPLE_ID)
    _check_shards(extents[0], shard)
    record = {
        "format": FORMAT,
        "stream_version": STREAM_VERSION,
        "network": network,
        "sampler": "annealed_langevin",
        "sigmas": ladder,
        "init": init,
        "epsilon": size,
        "steps_per_level": integer("steps_per_level", given["steps_per_level"], 1, (MAX_DRAW + 1) // len(ladder)),
        "corrector": corrector,
        "denoise": bool(given["denoise"]),
        "seed": integer("seed", seed, 0, MAX_SEED),
        "n": extents[0],
        "sample_offset": first,
        "shape": list(extents[1:]),
        "dtype": str(dtype).removeprefix("torch."),
        "shard_size": shard,
    }
    if given["logit"] is not None:
        # Here, since data of images take Pillow along, which `import fastlangevin` does without.
        from fastlangevin.data import Augment

        record["logit"] = positive("logit", Augment(logit=given["logit"]).logit)
    return record


def _check_shards(n: int, size: int) -> None:
    if -(-n // size) > MAX_SHARDS:
        raise ValueError(f"{n} samples in shards of {size} are more than {MAX_SHARDS} shards; take larger ones")


def check_same(found: Mapping[str, Any], wanted: Mapping[str, Any], where: object) -> None:
    """Raises ValueError unless a record that was found is the present run's, naming all that differs."""
    different = [
        _ladders(found[name], wanted[name])
        if name == "sigmas" and isinstance(found.get(name), list) and isinstance(wanted.get(name), list)
        else f"{name} was {found.get(name)!r} and is now {wanted.get(name)!r}"
        for name in {**wanted, **found}
        if found.get(name) != wanted.get(name)
    ]
    if different:
        raise ValueError(
            f"{where} is of another run: {'; '.join(different)}. Nothing was changed; give what it was begun with, or "
            "another folder"
        )


def _ladders(was: list[float], now: list[float]) -> str:
    if len(was) != len(now):
        return f"sigmas had {len(was)} levels and now has {len(now)}"
    level = next(index for index, (one, other) in enumerate(zip(was, now, strict=True)) if one != other)
    return f"sigmas[{level}] was {was[level]!r} and is now {now[level]!r}"


def check_sense(record: Mapping[str, Any]) -> None:
    """Raises ValueError unless a record that was read can be worked with: its sizes become names and tensors."""
    for name, largest in _INTEGERS.items():
        integer(name, record.get(name), 0 if name in ("seed", "sample_offset") else 1, largest)
    _check_shards(record["n"], record["shard_size"])
    shape = record.get("shape")
    if not isinstance(shape, list):
        raise ValueError(f"shape is {shape!r}")
    sizes([record["n"], *shape])
    dtype_of(record)


def dtype_of(record: Mapping[str, Any]) -> torch.dtype:
    """The dtype that a record names."""
    for dtype in FLOATS:
        if str(dtype) == f"torch.{record.get('dtype')}":
            return dtype
    raise ValueError(f"dtype is {record.get('dtype')!r}, not {FLOAT_NAMES}")
