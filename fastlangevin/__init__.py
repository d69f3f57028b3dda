"""Fused, reproducible sampling from score-based generative models.

Every random number has an address, (seed, sample, draw, element, purpose), see :mod:`fastlangevin.noise`. So noise and
updates have the same bits on every implementation, in any batch, from any number of processes and after any resume; a
whole sample has them where the score treats samples separately, bit for bit.

Samplers: :func:`sample` runs a scheme of :mod:`fastlangevin.schemes`; :func:`annealed_langevin`,
:func:`consistent_annealed`, :func:`predictor_corrector`, :func:`interpolation` and :func:`langevin` are a scheme and a
call of it; what they take beside a network, :class:`GaussianMixture`, :class:`Inpainting`, :func:`adapt`.

Ladders: :func:`geometric_sigmas`, :func:`linear_sigmas`, :func:`karras_sigmas`, :func:`continuous_ve_sigmas`, and
:func:`plan`, which chooses a ladder and a step size for a budget.

Learning: :class:`DenoisingScoreMatching`, :mod:`fastlangevin.losses`, :mod:`fastlangevin.models`,
:mod:`fastlangevin.training`, :mod:`fastlangevin.data`, :mod:`fastlangevin.checkpoint`, :mod:`fastlangevin.published`.

Tools: :func:`fuse`, for networks of other classes; :func:`patch` and :mod:`fastlangevin.compat`, for other code bases;
:mod:`fastlangevin.shards`, for many processes; :mod:`fastlangevin.diagnostics`, for what chains say of themselves.

Pieces: :func:`step` and :func:`step_`, the update; :func:`randn`, :func:`rand`, :func:`perturb`, addressed noise;
:mod:`fastlangevin.rules`, the coefficients of every sampler.

The command line, ``fastlangevin``, samples, trains, converts, plans and tests itself; ``fastlangevin --help``.
"""

# First, since everything imports the types of the kernels, which it finds.
from fastlangevin import kernels_link as kernels_link

# isort: split
from fastlangevin import advisor, diagnostics, losses, models, rules, schemes, shards
from fastlangevin.advisor import SamplingPlan, plan
from fastlangevin.fusion import FusionReport, fuse
from fastlangevin.ladders import continuous_ve_sigmas, geometric_sigmas, karras_sigmas, linear_sigmas
from fastlangevin.losses import DenoisingScoreMatching, dsm_loss
from fastlangevin.mixture import GaussianMixture
from fastlangevin.noise import STREAM_VERSION, Purpose
from fastlangevin.ops import perturb, rand, randn, step, step_
from fastlangevin.patching import Patch, patch
from fastlangevin.samplers import (
    ChainState,
    Inpainting,
    NonFiniteError,
    Sampler,
    SamplingResult,
    StepInfo,
    annealed_langevin,
    consistent_annealed,
    interpolation,
    langevin,
    predictor_corrector,
    sample,
)
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
    "Sampler",
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
    "sample",
    "schemes",
    "shards",
    "step",
    "step_",
]
