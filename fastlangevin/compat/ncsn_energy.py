"""Energies as scores, for the objectives of ermongroup/ncsn that take an energy."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from fastlangevin.samplers.options import check_callable

__all__ = ["Energy", "Score", "energy_score"]

Energy = Callable[[Tensor], Tensor]
Score = Callable[[Tensor], Tensor]


def energy_score(energy_net: Energy) -> Score:
    """The score of exp(-E): minus the gradient of an energy, which can be differentiated again.

    Args:
        energy_net: ``energy_net(x)`` returns the energies ``(B,)`` or ``(B, 1)``, each of its sample alone.

    Returns:
        A callable ``x -> score``, ``(B, ...)`` both.
    """
    check_callable("energy_net", energy_net, "energy_net(x)")

    def score(x: Tensor) -> Tensor:
        with torch.enable_grad():
            point = x if x.requires_grad else x.detach().requires_grad_()
            (slope,) = torch.autograd.grad(energy_net(point.clone()).sum(), point, create_graph=True)
        return -slope

    return score
