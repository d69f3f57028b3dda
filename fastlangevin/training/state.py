"""The state of a run as tensors and JSON: what a checkpoint holds, and whether another run may go on from it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from fastlangevin.data import Source
from fastlangevin.models.base import ScoreNet
from fastlangevin.noise import STREAM_VERSION
from fastlangevin.training.average import Average
from fastlangevin.training.config import TrainConfig
from fastlangevin.training.log import Window

__all__ = ["check_same_run", "describe", "restore", "tensors"]

FORMAT = 1


def describe(net: ScoreNet, source: Source, config: TrainConfig) -> dict[str, Any]:
    """What makes a run this run: two runs of one description have the same weights at the same step."""
    described = {
        "format": FORMAT,
        "stream_version": STREAM_VERSION,
        "network": {"class": type(net).__name__, **dataclasses.asdict(net.config)},
        "sigmas": net.sigmas.tolist(),
        "data": {"name": source.name, "samples": len(source), "shape": list(source.shape), "greys": source.greys},
        "config": config.fixed(),
    }
    # As a file gives it back: tuples are lists there.
    plain: dict[str, Any] = json.loads(json.dumps(described))
    return plain


def check_same_run(saved: Mapping[str, Any], wanted: Mapping[str, Any], where: object) -> None:
    """Raises ValueError unless a saved run's description is the present one's, naming what differs."""
    if saved.get("format") != wanted["format"]:
        raise ValueError(
            f"{where} holds a state of format {saved.get('format')!r}, this fastlangevin goes on from format "
            f"{wanted['format']}; go on with the version that wrote it, or start anew in another folder"
        )
    if saved["stream_version"] != wanted["stream_version"]:
        raise ValueError(
            f"{where} was trained with stream version {saved['stream_version']} of the noise, this fastlangevin has "
            f"{wanted['stream_version']}; go on with the version that wrote it, or start anew in another folder"
        )
    for part in ("network", "sigmas", "data", "config"):
        differences = _differences(saved[part], wanted[part])
        if differences:
            raise ValueError(
                f"{where} is another run: its {part} has {'; '.join(differences)}; give the options it was started "
                "with, or start anew in another folder"
            )


def _differences(saved: Any, wanted: Any) -> list[str]:
    if not isinstance(saved, dict) or not isinstance(wanted, dict):
        return [] if saved == wanted else [f"{saved!r} where this one has {wanted!r}"]
    names = [name for name in {**wanted, **saved} if saved.get(name) != wanted.get(name)]
    return [f"{name} = {saved.get(name)!r} where this one has {wanted.get(name)!r}" for name in names]


def tensors(net: ScoreNet, optimiser: Optimizer, average: Average, window: Window) -> dict[str, Tensor]:
    """Every tensor of a run's state, by name."""
    named = {f"net.{name}": value for name, value in net.state_dict().items()}
    named |= {f"average.{name}": value for name, value in average.weights.items()}
    for name, parameter in net.named_parameters():
        for key, value in optimiser.state[parameter].items():
            named[f"optimiser.{key}.{name}"] = torch.as_tensor(value)
    named |= {f"window.{name}": value for name, value in window.tensors().items()}
    return named


def restore(
    saved: Mapping[str, Tensor], updates: int, net: ScoreNet, optimiser: Optimizer, average: Average, window: Window
) -> None:
    """Goes back to what :func:`tensors` returned; ``updates`` are the average's."""

    def part(prefix: str) -> dict[str, Tensor]:
        return {name.removeprefix(prefix): value for name, value in saved.items() if name.startswith(prefix)}

    net.load_state_dict(part("net."))
    average.restore(part("average."), updates)
    window.restore(part("window."))
    state: dict[int, dict[str, Tensor]] = {}
    for index, (name, _) in enumerate(net.named_parameters()):
        keys = [key for key in saved if key.startswith("optimiser.") and key.endswith(f".{name}")]
        state[index] = {key.split(".")[1]: saved[key] for key in keys if key == f"optimiser.{key.split('.')[1]}.{name}"}
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
