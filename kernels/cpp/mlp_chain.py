"""Launches the C++ kernel of a perceptron's chains."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..operands import ChainNetwork, ChainUpdates
from . import native
from .requests import MlpRequest

__all__ = ["ACTIVATIONS", "activate", "mlp_chain"]

# The enum Activation of csrc/activations.h.
ACTIVATIONS = {name: number for number, name in enumerate(("silu", "elu", "softplus", "relu", "tanh"))}
# Rows of weights that lie side by side, kPacked of csrc/mlp_chain.cpp.
PACKED = 8


def pack(weights: Sequence[Tensor], biases: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Weights of the hidden layers, their biases and those of the head as the kernel reads them.

    The width is padded to whole packs: what is added has no weight behind it.
    """
    width = biases.shape[2]
    more = -width % PACKED
    packed = []
    for index, weight in enumerate(weights[:-1]):
        padded = F.pad(weight, (0, more if index else 0, 0, more))
        packed.append(padded.view(-1, PACKED, padded.shape[1]).transpose(1, 2).reshape(-1))
    return torch.cat(packed), F.pad(biases, (0, more)).contiguous(), F.pad(weights[-1], (0, more)).contiguous()


def mlp_chain(x: Tensor, network: ChainNetwork, updates: ChainUpdates, matmul: str) -> None:
    """Makes some updates of every chain.

    Args:
        x: state ``(B, D)`` in fp32, contiguous; written.
        network: the score.
        updates: what is done.
        matmul: ``"fp32"``; a CPU has nothing else.
    """
    batch, features = x.shape
    if batch == 0 or not len(updates.levels):
        return
    hidden, shifts, last = pack(network.weights, network.biases)
    # Names keep what the request points to alive until the call is over.
    shift, frame, levels, coefficients, noisy = (
        each.contiguous() for each in (network.head, network.frame, updates.levels, updates.coefficients, updates.noisy)
    )
    seed, ids = updates.address.seed, updates.address.sample_ids
    address = updates.address._replace(
        seed=seed.contiguous() if isinstance(seed, Tensor) else seed,
        draw=int(updates.address.draw),
        sample_ids=None if ids is None else ids.contiguous(),
    )
    request = MlpRequest(
        instruction_set=native.chosen_set(),
        threads=torch.get_num_threads(),
        batch=batch,
        features=features,
        width=shifts.shape[2],
        depth=shifts.shape[1],
        steps=len(levels),
        activation=ACTIVATIONS[network.activation],
        x=x.data_ptr(),
        weights=hidden.data_ptr(),
        biases=shifts.data_ptr(),
        head=last.data_ptr(),
        head_bias=shift.data_ptr(),
        frame=frame.data_ptr(),
        levels=levels.data_ptr(),
        coefficients=coefficients.data_ptr(),
        noisy=noisy.data_ptr(),
        mean=network.mean,
        **native.chain_address(address),
        every=updates.every,
        frames=0 if updates.frames is None else updates.frames.data_ptr(),
    )
    if native.load().fl_mlp(bytes(request)):
        native.refused()


def activate(activation: str, y: Tensor) -> Tensor:
    """An activation alone, for sweeps over all floats; ``y`` is contiguous in fp32."""
    count = y.numel()
    padded = torch.zeros((count + 15) // 16 * 16, dtype=torch.float32, device="cpu")
    padded[:count] = y.flatten()
    values = torch.empty_like(padded)
    number = ACTIVATIONS[activation]
    if native.load().fl_activate(native.chosen_set(), number, padded.data_ptr(), padded.numel(), values.data_ptr()):
        native.refused()
    return values[:count].reshape(y.shape)
