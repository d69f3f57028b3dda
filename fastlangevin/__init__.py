"""Fused, reproducible sampling from score-based generative models.

Every random number has an address, (seed, sample, draw, element, purpose), so that samples have the same bits on every
device, in any batch and after any resume. See README.md for what is here and :mod:`fastlangevin.noise` for the address.
"""

from fastlangevin import losses, models, rules
from fastlangevin.fusion import FusionReport, fuse
from fastlangevin.losses import DenoisingScoreMatching, dsm_loss
from fastlangevin.noise import STREAM_VERSION, Purpose
from fastlangevin.ops import perturb, rand, randn, step, step_
from fastlangevin.samplers import ChainState, SamplingResult, StepInfo, annealed_langevin, langevin
from fastlangevin.schedules import geometric_sigmas
from fastlangevin.scores import adapt

__version__ = "0.1.0"

__all__ = [
    "STREAM_VERSION",
    "ChainState",
    "DenoisingScoreMatching",
    "FusionReport",
    "Purpose",
    "SamplingResult",
    "StepInfo",
    "__version__",
    "adapt",
    "annealed_langevin",
    "dsm_loss",
    "fuse",
    "geometric_sigmas",
    "langevin",
    "losses",
    "models",
    "perturb",
    "rand",
    "randn",
    "rules",
    "step",
    "step_",
]
