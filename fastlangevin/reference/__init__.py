"""The operations in plain PyTorch: the specification of the kernels, on any device.

They follow it bit for bit, but for the norms, ELU and the scores of small networks, where they differ by a few
roundings.
"""

from fastlangevin.reference.add_elu import add_elu
from fastlangevin.reference.dsm import drawn_levels, dsm, level_of, perturb, segment_elements
from fastlangevin.reference.group_norm import group_norm, group_norm_backward, group_statistics
from fastlangevin.reference.instance_norm import instance_norm, instance_norm_backward, statistics
from fastlangevin.reference.mixture import mixture_score
from fastlangevin.reference.mlp_chain import ACTIVATIONS, mlp_chain, mlp_score
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
from fastlangevin.reference.sample_norms import norms
from fastlangevin.reference.update import (
    NO_FAULT,
    combine,
    noise,
    normals,
    sample_numbers,
    step,
    uniforms,
)

__all__ = [
    "ACTIVATIONS",
    "NO_FAULT",
    "add_elu",
    "combine",
    "cos_sin",
    "drawn_levels",
    "dsm",
    "group_norm",
    "group_norm_backward",
    "group_statistics",
    "instance_norm",
    "instance_norm_backward",
    "level_of",
    "mixture_score",
    "mlp_chain",
    "mlp_score",
    "noise",
    "normal_pair",
    "normals",
    "norms",
    "perturb",
    "philox",
    "radius",
    "rand",
    "randn",
    "sample_numbers",
    "segment_elements",
    "signed64",
    "statistics",
    "step",
    "uniforms",
    "words",
]
