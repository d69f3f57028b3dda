"""The state of a run as tensors and JSON: what a checkpoint holds, and whether another run may go on from it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from fastlangevin.data import Source
from fastlangevin.data.fingerprint import Fingerprint, difference
from fastlangevin.models.base import ScoreNet
from fastlangevin.noise import STREAM_VERSION
from fastlangevin.storage.checkpoint import check_fit
from fastlangevin.training.average import RULE_OF_OLD_RUNS, Average
from fastlangevin.training.config import TrainConfig
from fastlangevin.training.log import Window

__all__ = ["average_rule", "check_same_run", "describe", "has_ended", "has_fingerprint", "restore", "tensors"]

FORMAT = 1


def describe(
    net: ScoreNet, source: Source, config: TrainConfig, fingerprint: Fingerprint | None = None
) -> dict[str, Any]:
    """The identity of a run: two runs with the same description have the same weights at the same step.

    Args:
        net: the network.
        source: the data.
        config: how it is trained.
        fingerprint: of the data. None leaves it out, for a run that keeps nothing.
    """
    described: dict[str, Any] = {
        "format": FORMAT,
        "stream_version": STREAM_VERSION,
        "network": {"class": type(net).__name__, **dataclasses.asdict(net.config)},
        "sigmas": net.sigmas.tolist(),
        "data": {"name": source.name, "samples": len(source), "shape": list(source.shape), "greys": source.greys},
        "config": config.fixed(),
    }
    if fingerprint is not None:
        described["data"]["fingerprint"] = fingerprint
    # As a file gives it back: tuples are lists there.
    plain: dict[str, Any] = json.loads(json.dumps(described))
    return plain


def average_rule(saved: Mapping[str, Any]) -> object:
    """The rule of a saved run's averages; runs that were begun before there was a choice do not name it."""
    config = saved.get("config")
    return config.get("ema_rule", RULE_OF_OLD_RUNS) if isinstance(config, dict) else RULE_OF_OLD_RUNS


def has_fingerprint(saved: Mapping[str, Any]) -> bool:
    """Returns whether a saved run tells its data from others of the same name, number and shape; old ones do not."""
    data = saved.get("data")
    return isinstance(data, dict) and "fingerprint" in data


def check_same_run(
    saved: Mapping[str, Any],
    wanted: Mapping[str, Any],
    where: object,
    label: Callable[[int], str] = "sample {}".format,
) -> None:
    """Raises ValueError unless a saved run's description is the present one's, naming what differs.

    Args:
        saved: of the saved run.
        wanted: of the present one.
        where: of the saved run, for the message.
        label: names a sample of the present data by its index.
    """
    if saved.get("format") != wanted["format"]:
        raise ValueError(
            f"{where} holds a state of format {saved.get('format')!r}, this fastlangevin goes on from format "
            f"{wanted['format']}; go on with the version that wrote it, or start anew in another folder"
        )
    if saved.get("stream_version") != wanted["stream_version"]:
        was = saved.get("stream_version")
        raise ValueError(
            f"{where} was trained with stream version {was} of the noise, this fastlangevin has "
            f"{wanted['stream_version']}; go on with the version that wrote it, or start anew in another folder"
        )
    for part in ("network", "sigmas", "data", "config"):
        before = saved.get(part)
        if part == "config" and isinstance(before, dict):
            before = {**before, "ema_rule": average_rule(saved)}
        differences = (
            _data_differences(before, wanted[part], label) if part == "data" else _differences(before, wanted[part])
        )
        if differences:
            raise ValueError(
                f"{where} is another run: its {part} has {'; '.join(differences)}; give the options it was started "
                "with, or start anew in another folder"
            )


def has_ended(step: int, saved: Mapping[str, Any]) -> bool:
    """Returns whether a saved run had made all its steps; what says nothing of them has not."""
    config = saved.get("config")
    steps = config.get("steps") if isinstance(config, dict) else None
    return isinstance(steps, int) and step >= steps


def _data_differences(saved: Any, wanted: dict[str, Any], label: Callable[[int], str]) -> list[str]:
    if not isinstance(saved, dict) or not {"fingerprint"} <= saved.keys() & wanted.keys():
        plain = {name: value for name, value in wanted.items() if name != "fingerprint"}
        return _differences(saved, plain)
    before, after = dict(saved), dict(wanted)
    was, now = before.pop("fingerprint"), after.pop("fingerprint")
    count = after["samples"]
    found = difference(was, now, count, label, same_count=before.get("samples") == count)
    return _differences(before, after) + ([] if found is None else [found])


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
        for key, value in optimiser.state.get(parameter, {}).items():
            named[f"optimiser.{key}.{name}"] = torch.as_tensor(value, device="cpu")
    named |= {f"window.{name}": value for name, value in window.tensors().items()}
    return named


def restore(
    saved: Mapping[str, Tensor], updates: int, net: ScoreNet, optimiser: Optimizer, average: Average, window: Window
) -> None:
    """Goes back to what :func:`tensors` returned; ``updates`` are the average's.

    Raises:
        ValueError: these are no tensors of such a run. Nothing was changed.
    """
    parts: dict[str, dict[str, Tensor]] = {"net": {}, "average": {}, "window": {}, "optimiser": {}}
    for name, value in saved.items():
        prefix, _, rest = name.partition(".")
        if prefix not in parts:
            raise ValueError(f"there is a tensor {name!r}")
        parts[prefix][rest] = value
    if type(updates) is not int or updates < 0:
        raise ValueError(f"its average has {updates!r} updates")
    check_fit(parts["net"], net.state_dict())
    check_fit(parts["average"], average.weights)
    window.check_fit(parts["window"])
    state = _moments(parts["optimiser"], dict(net.named_parameters()))
    net.load_state_dict(parts["net"])
    average.restore(parts["average"], updates)
    window.restore(parts["window"])
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})


def _moments(saved: Mapping[str, Tensor], parameters: Mapping[str, Tensor]) -> dict[int, dict[str, Tensor]]:
    """An optimiser's state by a parameter's number, from ``<key>.<parameter>``: the same keys for every parameter.

    A parameter without a gradient, frozen or never used, has no state.
    """
    split = [name.partition(".") for name in saved]
    keys, moved = {key for key, _, _ in split}, {name for _, _, name in split}
    if not moved <= parameters.keys() or saved.keys() != {f"{key}.{name}" for key in keys for name in moved}:
        raise ValueError("the state of its optimiser is not that of these parameters")
    for name in moved:
        parameter = parameters[name]
        for key in keys:
            value = saved[f"{key}.{name}"]
            if (value.shape, value.dtype) not in (((), torch.float32), (parameter.shape, parameter.dtype)):
                raise ValueError(f"{key} of {name} is {value.dtype} of shape {tuple(value.shape)}")
    return {
        index: {key: saved[f"{key}.{name}"] for key in keys} for index, name in enumerate(parameters) if name in moved
    }
