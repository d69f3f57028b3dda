"""Averaged weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor, nn

__all__ = ["DEFAULT_RULE", "RULE_OF_OLD_RUNS", "Average", "AverageRule", "check_rule"]

AverageRule = Literal["score_sde", "ncsnv2", "from_zero"]

DEFAULT_RULE: AverageRule = "score_sde"
# Runs that were begun before there was a choice name no rule.
RULE_OF_OLD_RUNS: AverageRule = "from_zero"

# The decay of update t = 1, 2, ...
_DECAYS: dict[AverageRule, Callable[[float, int], float]] = {
    "score_sde": lambda decay, t: min(decay, (1 + t) / (10 + t)),
    "ncsnv2": lambda decay, t: decay,
    "from_zero": lambda decay, t: min(decay, t / (9 + t)),
}


class Average:
    """Exponential moving average of a network's weights (Song and Ermon 2020, technique 5).

    After update t = 1, 2, ... the average is decay(t) average + (1 - decay(t)) weights; it starts at the weights that
    the network has when this is made. Three rules give decay(t):

    - ``"score_sde"``, as in score_sde (Song et al. 2021): min(decay, (1 + t) / (10 + t)), so that the random start is
      forgotten early.
    - ``"ncsnv2"``, as in ncsnv2 (Song and Ermon 2020): decay.
    - ``"from_zero"``: min(decay, t / (9 + t)), which is score_sde's rule with updates counted from 0. No published code
      has it. The network that ships with this package was made by it, and so were runs whose state names no rule.

    Args:
        net: the network that is trained; its weights are read at each update.
        decay: limit of the decay, in [0, 1). 0 keeps no average.
        rule: name of the rule.

    Raises:
        ValueError: ``rule`` is not one of these.
    """

    def __init__(self, net: nn.Module, decay: float, rule: AverageRule = DEFAULT_RULE) -> None:
        self.decay = decay
        self.rule = check_rule("rule", rule)
        self.updates = 0
        self.source = {name: parameter.detach() for name, parameter in net.named_parameters()}
        self.weights = {name: parameter.clone() for name, parameter in self.source.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Moves the average towards the network's present weights."""
        self.updates += 1
        decay = _DECAYS[self.rule](self.decay, self.updates)
        torch._foreach_lerp_(list(self.weights.values()), list(self.source.values()), 1 - decay)

    @torch.no_grad()
    def copy_to(self, net: nn.Module) -> None:
        """Overwrites a network's weights with the average."""
        for name, parameter in net.named_parameters():
            parameter.copy_(self.weights[name])

    @torch.no_grad()
    def restore(self, weights: dict[str, Tensor], updates: int) -> None:
        """Goes back to a saved average."""
        for name, weight in self.weights.items():
            weight.copy_(weights[name])
        self.updates = updates


def check_rule(name: str, rule: AverageRule) -> AverageRule:
    """Returns a rule of :class:`Average`; raises ValueError, with the argument's ``name``, for anything else."""
    if not isinstance(rule, str) or rule not in _DECAYS:
        raise ValueError(f"{name} must be one of {', '.join(get_args(AverageRule))}, got {rule!r}")
    return rule
