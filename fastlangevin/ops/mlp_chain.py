"""Many updates of chains whose score is a small multilayer perceptron, in one call: ``mlp_chain_``."""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
from torch import Tensor

from fastlangevin import reference
from fastlangevin.noise import Seed, tensor_word
from fastlangevin.ops.memory import recorded
from fastlangevin.ops.operation import ADDRESS, register, sample_numbers
from fastlangevin.reference import ChainNetwork
from fastlangevin.runtime import choose

__all__ = [
    "MAX_DEPTH",
    "MAX_FEATURES",
    "MAX_WIDTH",
    "Matmul",
    "check_matmul",
    "mlp_chain_",
    "too_large",
    "too_large_for_gpu",
]

# What kernels hold for a whole chain; kMlpFeatures and kMlpWidth of csrc/plan.h.
MAX_FEATURES = 32
MAX_WIDTH = 128
MAX_DEPTH = 4

Matmul = Literal["fp32", "tf32", "bf16"]


def too_large(features: int, width: int, depth: int) -> str | None:
    """Why a network does not fit the kernels, or None where it does."""
    sizes = (("features", features, MAX_FEATURES), ("width", width, MAX_WIDTH), ("depth", depth, MAX_DEPTH))
    for name, size, most in sizes:
        if size > most:
            return f"{name} is {size}, and the kernels hold {most} at most"
    return None


def too_large_for_gpu(features: int, width: int, depth: int, matmul: str) -> str | None:
    """Why a network that fits the kernels does not fit a GPU's registers and shared memory, or None."""
    if width <= 64:
        return None
    if matmul != "fp32" and features > 16:
        return f"matmul={matmul!r} holds 16 features at most at a width over 64, and there are {features}"
    most = {"bf16": 4, "tf32": 2, "fp32": 3 if features <= 16 else 2}[matmul]
    if depth > most:
        return f"depth is {depth}, and a GPU holds {most} layers at a width over 64 with matmul={matmul!r}"
    return None


def check_matmul(matmul: str, name: str | None = None) -> None:
    """Raises unless an implementation multiplies matrices so; without a name any of them."""
    if matmul not in get_args(Matmul):
        raise ValueError(f"matmul must be one of {', '.join(get_args(Matmul))}, got {matmul!r}")
    if name is not None and matmul != "fp32" and name != "triton":
        raise ValueError(
            f"matmul={matmul!r} needs the matrix units of a GPU, but impl={name!r} runs here; leave it out for fp32"
        )


def _refuse(reason: str | None) -> None:
    if reason is not None:
        raise ValueError(f"the network is too large for whole chains: {reason}; sample with chain='loop'")


def _launch(
    x: Tensor,
    frames: Tensor | None,
    weights: list[Tensor],
    biases: Tensor,
    head: Tensor,
    frame: Tensor,
    mean: float,
    activation: str,
    levels: Tensor,
    coefficients: Tensor,
    noisy: Tensor,
    seed: int | Tensor,
    draw: int | Tensor,
    sample_ids: Tensor | None,
    sample_offset: int,
    purpose: int,
    every: int,
    matmul: str,
    impl: str,
) -> None:
    name, launchers = choose(impl, x.device)
    check_matmul(matmul, name)
    if name == "triton":
        depth, width = biases.shape[1:]
        _refuse(too_large_for_gpu(x.shape[1], width, depth, matmul))
    if launchers is not None and launchers.mlp_chain is not None:
        launchers.mlp_chain(
            x,
            weights,
            biases,
            head,
            frame,
            mean=mean,
            activation=activation,
            levels=levels,
            coefficients=coefficients,
            noisy=noisy,
            seed=seed,
            draw=draw,
            sample_ids=sample_ids,
            sample_offset=sample_offset,
            purpose=purpose,
            every=every,
            frames=frames,
            matmul=matmul,
        )
        return
    network = ChainNetwork(tuple(weights), biases, head, frame, mean, activation)
    ids = sample_numbers(sample_ids, sample_offset, x.shape[0], x.device)
    address: dict[str, Any] = {"seed": seed, "draw": int(draw), "sample_ids": ids, "purpose": purpose}
    x.copy_(reference.mlp_chain(x, network, levels, coefficients, noisy, **address, every=every, frames=frames))


def _fake(x: Tensor, *rest: object) -> None:
    return None


register(
    "mlp_chain_(Tensor(a!) x, Tensor(b!)? frames, Tensor[] weights, Tensor biases, Tensor head, Tensor frame, "
    f"float mean, str activation, Tensor levels, Tensor coefficients, Tensor noisy, {ADDRESS}, int purpose, int every, "
    "str matmul, str impl) -> ()",
    _launch,
    _fake,
)


def mlp_chain_(
    x: Tensor,
    network: ChainNetwork,
    *,
    levels: Tensor,
    coefficients: Tensor,
    noisy: Tensor,
    seed: Seed,
    draw: int | Tensor,
    sample_ids: Tensor | None,
    sample_offset: int,
    purpose: int,
    every: int = 0,
    frames: Tensor | None = None,
    matmul: Matmul = "fp32",
    impl: str = "auto",
) -> Tensor:
    """Updates x <- c*x + a*s(x, level) + b*z, one after the other, whose score is a small perceptron.

    The noise and the update have the bits of :func:`fastlangevin.step_`. The score is computed in fp32 like PyTorch's,
    but its sums are taken in another order and its activations are our own, so that it differs by a few roundings; a
    chain's bits depend on the implementation and on the processor, and on nothing else: not on the batch, the chain's
    place in it, the threads or where the chain is cut into calls. ``matmul="tf32"`` and ``"bf16"`` round the factors of
    the matrix products to 11 and 8 bits for the matrix units of a GPU.

    Its caller, :class:`fastlangevin.models.MLP`, has checked the rest.

    Args:
        x: fp32 ``(B, D)``, contiguous; written.
        network: the score, fp32 on the device of ``x``.
        levels: int64 ``(T,)``, of each update, from 0 to L - 1.
        coefficients: fp32 ``(T, 3)``: c, a and b of each.
        noisy: bool ``(T,)``: whether an update has noise at all.
        seed, draw, sample_ids, sample_offset, purpose: the address of the first update's noise, resolved as in
            :mod:`fastlangevin.noise`.
        every: after every draw whose number plus one divides by this, the state goes to the next of the frames; 0 keeps
            none.
        frames: fp32 ``(F, B, D)``, contiguous, or None.
        matmul: ``"fp32"``, ``"tf32"`` or ``"bf16"``.
        impl: ``"auto"``, ``"triton"``, ``"cpp"`` or ``"reference"``.

    Returns:
        ``x``.

    Raises:
        ValueError: the network is larger than the kernels hold, or ``matmul`` is not for this implementation.
        RuntimeError: ``impl`` cannot run here.
    """
    depth, width = network.biases.shape[1:]
    _refuse(too_large(x.shape[1], width, depth))
    check_matmul(matmul)
    tables = (*network[1:4], float(network.mean), network.activation, levels, coefficients, noisy)
    if recorded():
        words = tensor_word(seed, x), tensor_word(draw, x)
        rest = (sample_ids, sample_offset, purpose, every, matmul, impl)
        torch.ops.fastlangevin.mlp_chain_(x, frames, list(network.weights), *tables, *words, *rest)
        return x
    rest = (sample_ids, sample_offset, purpose, every, matmul, impl)
    _launch(x, frames, list(network.weights), *tables, seed, draw, *rest)
    return x
