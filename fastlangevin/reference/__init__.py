"""The operations in plain PyTorch: the specification that the kernels follow bit for bit, on any device."""

from fastlangevin.reference.denoising import dsm, level_of, perturb, segment_elements
from fastlangevin.reference.random import (
    cos_sin,
    normal_pair,
    philox,
    radius,
    rand,
    randn,
    signed64,
    words,
)
from fastlangevin.reference.update import step

__all__ = [
    "cos_sin",
    "dsm",
    "level_of",
    "normal_pair",
    "perturb",
    "philox",
    "radius",
    "rand",
    "randn",
    "segment_elements",
    "signed64",
    "step",
    "words",
]
