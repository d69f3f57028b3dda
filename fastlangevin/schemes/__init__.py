"""Schemes: samplers as tables of numbers, each made by a function.

A :class:`Scheme` numbers its steps. A :class:`Step` has rows, in most samplers a single :class:`Move`: it evaluates the
network and writes a sum of slots and noise to a slot, such as the state. ``print(scheme)`` shows the table,
``scheme.evaluations`` is its cost, and ``scheme.law(mean, variance)`` the exact mean and variance of its samples on
Gaussian data. :func:`fastlangevin.sample` runs it.
"""

from fastlangevin.schemes.consistent import consistent_annealed
from fastlangevin.schemes.inpainting import Inpainting
from fastlangevin.schemes.langevin_dynamics import annealed_langevin, langevin
from fastlangevin.schemes.law import Law
from fastlangevin.schemes.scheme import Scheme
from fastlangevin.schemes.table import Apply, Clamp, Evaluate, Measure, Move, Row, Step
from fastlangevin.schemes.variance_exploding import (
    ancestral,
    euler_ancestral,
    euler_maruyama,
    predictor_corrector,
    probability_flow,
    reverse_diffusion,
)
from fastlangevin.schemes.variance_preserving import (
    ddpm,
    subvp_euler_maruyama,
    subvp_probability_flow,
    vp_ancestral,
    vp_euler_maruyama,
    vp_probability_flow,
    vp_reverse_diffusion,
)

__all__ = [
    "Apply",
    "Clamp",
    "Evaluate",
    "Inpainting",
    "Law",
    "Measure",
    "Move",
    "Row",
    "Scheme",
    "Step",
    "ancestral",
    "annealed_langevin",
    "consistent_annealed",
    "ddpm",
    "euler_ancestral",
    "euler_maruyama",
    "langevin",
    "predictor_corrector",
    "probability_flow",
    "reverse_diffusion",
    "subvp_euler_maruyama",
    "subvp_probability_flow",
    "vp_ancestral",
    "vp_euler_maruyama",
    "vp_probability_flow",
    "vp_reverse_diffusion",
]
