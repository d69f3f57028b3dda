"""Many updates of chains whose score is a small multilayer perceptron, in one call: ``mlp_chain_``."""

from __future__ import annotations

from typing import Any, Literal, get_args

from torch import Tensor

from fastlangevin import reference
from fastlangevin.kernels.address import Address
from fastlangevin.kernels.operands import ChainNetwork, ChainUpdates
from fastlangevin.ops.operation import ADDRESS, Operation, flat_address
from fastlangevin.runtime import Launchers

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
    """Returns why a network does not fit the kernels, or None where it does."""
    sizes = (("features", features, MAX_FEATURES), ("width", width, MAX_WIDTH), ("depth", depth, MAX_DEPTH))
    for name, size, most in sizes:
        if size > most:
            return f"{name} is {size}, and the kernels hold {most} at most"
    return None


def too_large_for_gpu(features: int, width: int, depth: int, matmul: str) -> str | None:
    """Returns why a network that fits the kernels does not fit a GPU's registers and shared memory, or None."""
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


def _launch(launchers: Launchers, x: Tensor, network: ChainNetwork, updates: ChainUpdates, matmul: str) -> None:
    depth, width = network.biases.shape[1:]
    check_matmul(matmul, launchers.name)
    if launchers.name == "triton":
        _refuse(too_large_for_gpu(x.shape[1], width, depth, matmul))
    launchers.mlp_chain(x, network, updates, matmul)


def _plain(x: Tensor, network: ChainNetwork, updates: ChainUpdates, matmul: str) -> None:
    check_matmul(matmul, "reference")
    x.copy_(reference.mlp_chain(x, network, updates))


def _flat(x: Tensor, network: ChainNetwork, updates: ChainUpdates, matmul: str) -> tuple[Any, ...]:
    weights, *tensors, mean, activation = network
    levels, coefficients, noisy, address, every, frames = updates
    words = flat_address(address, x)
    return (
        x,
        frames,
        list(weights),
        *tensors,
        float(mean),
        activation,
        levels,
        coefficients,
        noisy,
        *words,
        every,
        matmul,
    )


def _typed(x: Tensor, frames: Tensor | None, weights: list[Tensor], *rest: Any) -> tuple[Any, ...]:
    biases, head, frame, mean, activation, levels, coefficients, noisy, *address, every, matmul = rest
    network = ChainNetwork(tuple(weights), biases, head, frame, mean, activation)
    return x, network, ChainUpdates(levels, coefficients, noisy, Address(*address), every, frames), matmul


_CHAIN = Operation(
    "mlp_chain_(Tensor(a!) x, Tensor(b!)? frames, Tensor[] weights, Tensor biases, Tensor head, Tensor frame, "
    f"float mean, str activation, Tensor levels, Tensor coefficients, Tensor noisy, {ADDRESS}, int every, str matmul) "
    "-> ()",
    _launch,
    plain=_plain,
    fake=lambda x, *rest: None,
    flatten=_flat,
    typed=_typed,
)


def mlp_chain_(
    x: Tensor, network: ChainNetwork, updates: ChainUpdates, *, matmul: Matmul = "fp32", impl: str = "auto"
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
        updates: what is done.
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
    _CHAIN(impl, x.device, x, network, updates, matmul)
    return x
