"""The score of a multilayer perceptron, and segments of a chain that follows it.

With the frame of :mod:`fastlangevin.models.frame` as three numbers a level,

    score(x, i) = gain_i (W h_n + w) - pull_i (x - mean)
    h_l = f(W_l h_{l-1} + b_{l,i}),  h_0 = (x - mean) scale_i

all in fp32. The noise and the update are those of :func:`step`, bit for bit; the score is whatever PyTorch's matrix
products make of it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from fastlangevin.kernels.operands import ChainNetwork, ChainUpdates
from fastlangevin.reference.update import combine, normals

__all__ = ["ACTIVATIONS", "mlp_chain", "mlp_score"]

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "elu": F.elu,
    "softplus": F.softplus,
    "relu": F.relu,
    "tanh": torch.tanh,
}


def mlp_score(network: ChainNetwork, x: Tensor, level: int) -> Tensor:
    """The score at one level, for ``x`` ``(B, D)`` in fp32."""
    scale, gain, pull = network.frame[level]
    activation = ACTIVATIONS[network.activation]
    centred = x - network.mean
    hidden = centred * scale
    for weight, bias in zip(network.weights[:-1], network.biases[level], strict=True):
        hidden = activation(F.linear(hidden, weight, bias))
    score: Tensor = F.linear(hidden, network.weights[-1], network.head) * gain - centred * pull
    return score


def mlp_chain(x: Tensor, network: ChainNetwork, updates: ChainUpdates) -> Tensor:
    """The state after some updates of ``x`` ``(B, D)`` in fp32; the frames are written."""
    levels, coefficients, noisy, address, every, frames = updates
    kept, first = 0, int(address.draw)
    for index, (level, noise) in enumerate(zip(levels.tolist(), noisy.tolist(), strict=True)):
        c, a, b = coefficients[index]
        z = None
        if noise:
            z = normals(address._replace(draw=first + index), x.shape, x.device)
        x = combine([(c, x), (a, mlp_score(network, x, level))], b if noise else None, z)
        if every and frames is not None and (first + index + 1) % every == 0:
            frames[kept] = x
            kept += 1
    return x
