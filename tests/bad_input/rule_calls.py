"""The well-formed calls of the rules."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastlangevin import rules

LADDER = [1.0, 0.5, 0.25]
BETAS = [0.1, 0.2, 0.3]


def _with(**options: Any) -> Callable[[Path], dict[str, Any]]:
    return lambda folder: dict(options)


RULE_CALLS: dict[str, tuple[Callable[..., Any], Callable[[Path], dict[str, Any]]]] = {
    "rules.langevin": (rules.langevin, _with(alpha=0.1)),
    "rules.ornstein_uhlenbeck": (rules.ornstein_uhlenbeck, _with(alpha=0.1, sigma=0.5)),
    "rules.annealed": (rules.annealed, _with(ladder=LADDER, epsilon=0.01)),
    "rules.consistent": (rules.consistent, _with(ladder=LADDER, epsilon=0.1)),
    "rules.signal_to_noise": (rules.signal_to_noise, _with(snr=0.16, ratio=0.5)),
    "rules.annealed_corrector": (rules.annealed_corrector, _with(snr=0.16, std=0.5)),
    "rules.ve_reverse_diffusion": (rules.ve_reverse_diffusion, _with(ladder=LADDER)),
    "rules.ve_ancestral": (rules.ve_ancestral, _with(ladder=LADDER)),
    "rules.ve_probability_flow": (rules.ve_probability_flow, _with(ladder=LADDER)),
    "rules.ve_euler_maruyama": (rules.ve_euler_maruyama, _with(ladder=LADDER)),
    "rules.euler_ancestral": (rules.euler_ancestral, _with(ladder=[*LADDER, 0.0])),
    "rules.vp_reverse_diffusion": (rules.vp_reverse_diffusion, _with(betas=BETAS)),
    "rules.vp_ancestral": (rules.vp_ancestral, _with(betas=BETAS)),
    "rules.vp_probability_flow": (rules.vp_probability_flow, _with(betas=BETAS)),
    "rules.ddpm_ancestral": (rules.ddpm_ancestral, _with(betas=BETAS)),
    "rules.alpha_bars": (rules.alpha_bars, _with(betas=BETAS)),
    "rules.vp_euler_maruyama": (rules.vp_euler_maruyama, _with(schedule=rules.LinearBeta())),
    "rules.subvp_euler_maruyama": (rules.subvp_euler_maruyama, _with(schedule=rules.LinearBeta())),
    "rules.subvp_probability_flow": (rules.subvp_probability_flow, _with(schedule=rules.LinearBeta())),
    "rules.LinearBeta": (rules.LinearBeta, _with()),
    "rules.LinearBeta.integral": (rules.LinearBeta.integral, _with(self=rules.LinearBeta(), t=0.5)),
    "rules.denoise": (rules.denoise, _with(sigma=0.5)),
    "rules.vp_denoise": (rules.vp_denoise, _with(alpha_bar=0.5)),
}
