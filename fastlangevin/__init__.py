"""Fused, reproducible sampling from score-based generative models.

Every random number has an address, (seed, sample, draw, element, purpose), so that samples have the same bits on every
device, in any batch and after any resume. See README.md for what is here and :mod:`fastlangevin.noise` for the address.
"""

from fastlangevin import advisor, diagnostics, losses, models, rules, shards
from fastlangevin.advisor import SamplingPlan, plan
from fastlangevin.compat.patching import Patch, patch
from fastlangevin.fusion import FusionReport, fuse
from fastlangevin.losses import DenoisingScoreMatching, dsm_loss
from fastlangevin.mixture import GaussianMixture
from fastlangevin.noise import STREAM_VERSION, Purpose
from fastlangevin.ops import perturb, rand, randn, step, step_
from fastlangevin.samplers import (
    ChainState,
    Inpainting,
    NonFiniteError,
    SamplingResult,
    StepInfo,
    annealed_langevin,
    consistent_annealed,
    interpolation,
    langevin,
    predictor_corrector,
)
from fastlangevin.schedules import continuous_ve_sigmas, geometric_sigmas, karras_sigmas, linear_sigmas
from fastlangevin.scores import adapt

__version__ = "0.1.0"

__all__ = [
    "STREAM_VERSION",
    "ChainState",
    "DenoisingScoreMatching",
    "FusionReport",
    "GaussianMixture",
    "Inpainting",
    "NonFiniteError",
    "Patch",
    "Purpose",
    "SamplingPlan",
    "SamplingResult",
    "StepInfo",
    "__version__",
    "adapt",
    "advisor",
    "annealed_langevin",
    "consistent_annealed",
    "continuous_ve_sigmas",
    "diagnostics",
    "dsm_loss",
    "fuse",
    "geometric_sigmas",
    "interpolation",
    "karras_sigmas",
    "langevin",
    "linear_sigmas",
    "losses",
    "models",
    "patch",
    "perturb",
    "plan",
    "predictor_corrector",
    "rand",
    "randn",
    "rules",
    "shards",
    "step",
    "step_",
]
