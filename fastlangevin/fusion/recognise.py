"""Finds modules that could be norms, by the number and the shapes of their parameters alone.

Names of classes and parameters say nothing here, so this only proposes; :mod:`fastlangevin.fusion.agree` decides.
"""

from __future__ import annotations

from itertools import permutations

import torch
from torch import nn

from fastlangevin.fusion.formulas import Formula, Groups, Table, Vectors
from fastlangevin.fusion.modules import Fused
from fastlangevin.models.instance_norm import ConditionalInstanceNormPlusPlus, InstanceNormPlusPlus

__all__ = ["is_fused", "readings"]

USUAL_NAMES = ["gamma", "alpha", "beta"]


def is_fused(module: nn.Module) -> bool:
    """Returns whether the module is a fused norm already: one that was fused, or one of this package's networks."""
    return isinstance(module, Fused | ConditionalInstanceNormPlusPlus | InstanceNormPlusPlus)


def readings(module: nn.Module) -> list[Formula]:
    """The formulas that the parameters fit, the likeliest first; none for most modules.

    Args:
        module: any module. GroupNorm is known by its type; other modules of PyTorch's own are none of these norms.
    """
    if isinstance(module, torch.jit.ScriptModule) or is_fused(module):
        return []
    if isinstance(module, nn.GroupNorm):
        return [Groups()]
    parameters = dict(module.named_parameters())
    if type(module).__module__.startswith("torch.nn.") or not parameters or any(True for _ in module.buffers()):
        return []
    first = next(iter(parameters.values()))
    if first.ndim == 1 and first.numel() > 1 and len(parameters) in (2, 3):
        if any("." in name or value.shape != first.shape for name, value in parameters.items()):
            return []
        names = sorted(parameters, key=lambda name: USUAL_NAMES.index(name) if name in USUAL_NAMES else 3)
        return [Vectors(*order, *[None] * (3 - len(order))) for order in permutations(names)]
    (name, _, last) = next(iter(parameters)).partition(".")
    if len(parameters) > 1 or last != "weight" or type(getattr(module, name)) is not nn.Embedding:
        return []
    # A row of 6 numbers can be three pairs or two triples, which the input's channels tell.
    parts = [count for count in (3, 2) if not first.shape[1] % count]
    return [Table(name, order) for count in parts for order in permutations(range(count))]
