"""A :class:`fastlangevin.models.MLP` at one noise level, for loops: its products and activations, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from fastlangevin.memory import observed
from fastlangevin.models.mlp_chain import Perceptron, chain_network, changed, misfit
from fastlangevin.reference import ACTIVATIONS

__all__ = ["of_level"]

IN_PLACE: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": partial(F.silu, inplace=True),
    "elu": partial(F.elu, inplace=True),
    "relu": torch.relu_,
    "tanh": torch.tanh_,
}


def of_level(net: Perceptron, kind: type, x: Tensor, level: int) -> Callable[[Tensor], Tensor] | None:
    """The network as a function of the state alone, with the weights of this moment.

    What the level and the frame make of the state is part of the first and the last layer's weights, so that the score
    differs from the module's by roundings.

    Args:
        net: the network.
        kind: the class that computes what its weights say.
        x: a state as those of the chain.
        level: index of the noise level.

    Returns:
        None where the module must be called: on a device, where its launches cost more than Python does; in other
        dtypes; and where the network computes something else than its weights say.
    """
    if x.device.type != "cpu" or x.dtype != torch.float32 or observed() or torch.is_autocast_enabled("cpu"):
        return None
    if changed(net, kind) or misfit(net, x):
        return None
    network = chain_network(net)
    inward, outward, pull = network.frame[level].tolist()
    first, *hidden, last = network.weights
    shift, *shifts = network.biases[level]
    with torch.no_grad():
        first = first * inward
        shift = shift - first.sum(1) * network.mean
        last, bias = last * outward, network.head * outward + pull * network.mean
    activation = IN_PLACE.get(network.activation, ACTIVATIONS[network.activation])

    def score(x: Tensor) -> Tensor:
        h = activation(F.linear(x, first, shift))
        for weight, own in zip(hidden, shifts, strict=True):
            h = activation(F.linear(h, weight, own))
        return F.linear(h, last, bias).sub_(x, alpha=pull)

    return score
