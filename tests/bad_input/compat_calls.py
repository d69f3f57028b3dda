"""The well-formed calls of the modules that stand in for other code bases."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import torch
from torch import Tensor

import fastlangevin as fl
from fastlangevin.compat import k_diffusion, score_sde

SIGMAS = [1.0, 0.5, 0.0]


def _with(**options: Any) -> Callable[[Path], dict[str, Any]]:
    return lambda folder: dict(options)


def image(channels: int = 3) -> Tensor:
    return torch.linspace(-1.0, 1.0, 2 * channels * 4).reshape(2, channels, 2, 2)


def _sampled(getter: Callable[..., Any], *names: str) -> Callable[..., Any]:
    """A sampler made and called: the named arguments are its own."""

    def call(**arguments: Any) -> Any:
        given = {name: arguments.pop(name) for name in names}
        return getter(**arguments)(**given)

    return call


def _net(x: Tensor, labels: Tensor) -> Tensor:
    return -x / 4


def _sampler(**options: Any) -> Callable[[Path], dict[str, Any]]:
    return lambda folder: {
        "sde": score_sde.VESDE(0.1, 1.0, 4),
        "predictor": "reverse_diffusion",
        "corrector": "langevin",
        "inverse_scaler": lambda x: x,
        "snr": 0.16,
        "seed": 0,
        "model": _net,
        **options,
    }


def _loss(**options: Any) -> Callable[[Path], dict[str, Any]]:
    return lambda folder: {"train": True, "model": _net, "batch": image(), "seed": 0, **options}


def _loss_call(getter: Callable[..., Any]) -> Callable[..., Any]:
    return _sampled(lambda **k: lambda **rest: getter(**k)(**rest), "model", "batch", "seed")


def checkout(sampler: Callable[..., Any] = lambda *arguments: None) -> ModuleType:
    """A module with a function of score_sde's."""
    module = ModuleType("sampling")
    vars(module)["get_pc_sampler"] = sampler
    return module


def _patched(name: str, module: Any, **options: Any) -> int:
    with mock.patch.dict(sys.modules, {"sampling": module}), fl.patch(name, module, **options) as done:
        return len(done.replaced)


COMPAT_CALLS: dict[str, tuple[Callable[..., Any], Callable[[Path], dict[str, Any]]]] = {
    "patch": (_patched, lambda folder: {"name": "score_sde", "module": checkout()}),
    "score_sde.VESDE": (score_sde.VESDE, _with()),
    "score_sde.VPSDE": (score_sde.VPSDE, _with()),
    "score_sde.subVPSDE": (score_sde.subVPSDE, _with()),
    "score_sde.get_predictor": (score_sde.get_predictor, _with(name="ancestral_sampling")),
    "score_sde.get_corrector": (score_sde.get_corrector, _with(name="ald")),
    "score_sde.AddressedNoise": (score_sde.AddressedNoise, _with(seed=0)),
    "score_sde.get_pc_sampler": (
        _sampled(score_sde.get_pc_sampler, "model"),
        _sampler(shape=(2, 3), device="cpu"),
    ),
    "score_sde.get_pc_inpainter": (
        _sampled(score_sde.get_pc_inpainter, "model", "data", "mask"),
        _sampler(data=image(), mask=torch.ones(1, 1, 2, 2)),
    ),
    "score_sde.get_pc_colorizer": (
        _sampled(score_sde.get_pc_colorizer, "model", "gray_scale_img"),
        _sampler(gray_scale_img=image()),
    ),
    "score_sde.get_score_fn": (
        score_sde.get_score_fn,
        lambda folder: {"sde": score_sde.VESDE(), "model": _net},
    ),
    "score_sde.get_sde_loss_fn": (
        _loss_call(score_sde.get_sde_loss_fn),
        _loss(sde=score_sde.VPSDE()),
    ),
    "score_sde.get_smld_loss_fn": (
        _loss_call(score_sde.get_smld_loss_fn),
        _loss(vesde=score_sde.VESDE()),
    ),
    "score_sde.get_ddpm_loss_fn": (
        _loss_call(score_sde.get_ddpm_loss_fn),
        _loss(vpsde=score_sde.VPSDE()),
    ),
    "k_diffusion.noise_sampler": (k_diffusion.noise_sampler, _with(x=image(), sigmas=SIGMAS, seed=0)),
    "k_diffusion.noise": (
        lambda sigma, sigma_next: k_diffusion.noise_sampler(image(), SIGMAS, seed=0)(sigma, sigma_next),
        _with(sigma=1.0, sigma_next=0.5),
    ),
    "k_diffusion.sample_euler_ancestral": (
        k_diffusion.sample_euler_ancestral,
        lambda folder: {
            "model": lambda x, sigma: x / 2,
            "x": image(),
            "sigmas": SIGMAS,
            "disable": True,
            "seed": 0,
        },
    ),
}
