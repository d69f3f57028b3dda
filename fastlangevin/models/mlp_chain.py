"""Whole chains of a :class:`fastlangevin.models.MLP`: when kernels take them, and the network as they read it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from copy import copy
from functools import cache
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from fastlangevin.chain_score import Segment
from fastlangevin.kernels.operands import ChainNetwork, ChainUpdates
from fastlangevin.memory import observed
from fastlangevin.ops.mlp_chain import Matmul, check_matmul, mlp_chain_, too_large, too_large_for_gpu
from fastlangevin.reference import ACTIVATIONS
from fastlangevin.runtime import choose

__all__ = ["MLPKernel", "Perceptron", "chain_network", "changed", "log_once", "misfit", "reason_for_loop"]

logger = logging.getLogger("fastlangevin")
HOOKS = ("_forward_hooks", "_forward_pre_hooks")
OWN = ("forward", "features", "check", "check_shape", "sigma_of")


class Sizes(Protocol):
    """The sizes of :class:`fastlangevin.models.MLPConfig`."""

    @property
    def features(self) -> int: ...
    @property
    def width(self) -> int: ...
    @property
    def depth(self) -> int: ...
    @property
    def activation(self) -> str: ...
    @property
    def conditioning(self) -> str: ...


class Perceptron(Protocol):
    """The parts of a :class:`fastlangevin.models.MLP` that are read here."""

    @property
    def config(self) -> Sizes: ...
    @property
    def sigmas(self) -> Tensor: ...

    training: bool
    mean: float
    variance: float
    activation: Callable[[Tensor], Tensor]
    layers: nn.ModuleList
    levels: nn.Embedding | None
    head: nn.Linear

    def modules(self) -> Iterator[nn.Module]: ...


def _hooked() -> bool:
    module = nn.modules.module
    return any(getattr(module, name, None) for name in ("_global_forward_hooks", "_global_forward_pre_hooks"))


def changed(net: Perceptron, kind: type) -> str | None:
    """Returns why the network may compute something else than its weights say, or None."""
    if type(net) is not kind:
        return f"it is of class {type(net).__name__}, which may compute something else"
    if any(name in vars(net) for name in OWN) or any("forward" in vars(module) for module in net.modules()):
        return "one of its methods is overridden"
    if net.activation is not ACTIVATIONS[net.config.activation]:
        return f"its activation is not the {net.config.activation} of its configuration"
    if any(getattr(module, name) for module in net.modules() for name in HOOKS) or _hooked():
        return "it has hooks, which a kernel does not call"
    if any(map(is_parametrized, net.modules())):
        return "it has parametrisations"
    plain = {nn.Linear, nn.Embedding, nn.ModuleList, kind}
    others = [type(module).__name__ for module in net.modules() if type(module) not in plain]
    if others:
        return f"its layers are of class {others[0]}"
    if any(isinstance(module, nn.Linear) and module.bias is None for module in net.modules()):
        return "one of its layers has no bias"
    if len(net.layers) != net.config.depth or (net.levels is None) != (net.config.conditioning == "log_sigma"):
        return "its layers are not those of its configuration"
    if net.levels is not None and net.levels.max_norm is not None:
        return "its levels are scaled to a largest norm"
    return None


def _read(net: Perceptron) -> Iterator[tuple[str, Any, tuple[int, ...]]]:
    """Name and tensor of what a kernel reads, and the shape that it has by the configuration.

    The attributes themselves, which need not be the parameters that are registered under these names.
    """
    config, levels = net.config, net.sigmas.numel()
    inputs = config.features + (net.levels is None)
    for index, layer in enumerate(net.layers):
        yield f"layers.{index}.weight", layer.weight, (config.width, config.width if index else inputs)
        yield f"layers.{index}.bias", layer.bias, (config.width,)
    if net.levels is not None:
        yield "levels.weight", net.levels.weight, (levels, config.depth * config.width)
    yield "head.weight", net.head.weight, (config.features, config.width)
    yield "head.bias", net.head.bias, (config.features,)
    yield "sigmas", net.sigmas, (levels,)


def misfit(net: Perceptron, x: Tensor) -> str | None:
    """Returns why the weights are not those of the configuration, or do not fit a state; None where they do."""
    config = net.config
    for name, tensor, shape in _read(net):
        if tensor.shape != shape:
            return f"{name} has the shape {tuple(tensor.shape)} and not {shape}, that of its configuration"
        if tensor.dtype != torch.float32:
            return f"{name} is {tensor.dtype}, and the kernels compute in torch.float32"
        if tensor.device != x.device:
            return f"{name} is on {tensor.device} and the state on {x.device}"
    if x.ndim != 2 or x.shape[1] != config.features:
        return f"the state of shape {tuple(x.shape)} is no batch of {config.features} features"
    return None


def reason_for_loop(net: Perceptron, kind: type, x: Tensor, impl: str) -> str | None:
    """Returns why chains of this network are run update by update, or None where a kernel takes them."""
    config = net.config
    if net.training:
        return "the network is in training mode; call net.eval()"
    sizes = config.features, config.width, config.depth
    reason = too_large(*sizes) or changed(net, kind)
    if reason is not None:
        return reason
    reason = misfit(net, x)
    if reason is not None:
        return reason
    if torch.is_autocast_enabled(x.device.type):
        return "autocast is on, which a kernel does not follow"
    if observed():
        return "a tracer, a dispatch mode or a transform is at work, which sees no kernel's updates"
    name, _ = choose(impl, x.device)
    if name == "reference":
        return "impl='reference' has no kernels"
    return too_large_for_gpu(*sizes, "fp32") if name == "triton" else None


@cache
def log_once(reason: str) -> None:
    logger.info("chains of an MLP run update by update: %s", reason)


def _check_finite(net: Perceptron) -> None:
    on_device = net.sigmas.is_cuda and torch.cuda.is_current_stream_capturing()
    for name, tensor, _ in () if on_device else _read(net):
        if not tensor.isfinite().all():
            bad = tensor.detach().flatten()
            value = bad[~bad.isfinite()][0].item()
            raise ValueError(f"{name} of the network has the value {value}; a chain would follow it to nowhere")


def chain_network(net: Perceptron) -> ChainNetwork:
    """The network's weights as :func:`fastlangevin.ops.mlp_chain_` takes them, read now."""
    config, sigma = net.config, net.sigmas
    with torch.no_grad():
        layers = [cast(nn.Linear, layer) for layer in (*net.layers, net.head)]
        weights = [layer.weight.detach() for layer in layers]
        shared = torch.stack([layer.bias for layer in layers[:-1]])
        if net.levels is not None:
            biases: Tensor = shared + net.levels.weight.view(len(sigma), config.depth, config.width)
        else:
            biases = shared.repeat(len(sigma), 1, 1)
            biases[:, 0] += (sigma.log() / 4)[:, None] * weights[0][:, -1]
            weights[0] = weights[0][:, :-1].contiguous()
        wide = sigma.double()
        total = net.variance + wide * wide
        frame = torch.stack((total.rsqrt(), (net.variance / total).sqrt() / wide, 1 / total), dim=1).float()
        return ChainNetwork(tuple(weights), biases, net.head.bias.detach(), frame, net.mean, config.activation)


class MLPKernel:
    """Makes a segment's updates: see :class:`fastlangevin.chain_score.ChainKernel`.

    The score differs from the module's by roundings, so a chain is a kernel's from its first update to its last.
    """

    own_bits = True

    def __init__(self, net: Perceptron, impl: str) -> None:
        _check_finite(net)
        self.net = net
        self.impl = impl
        self.matmul: Matmul = "fp32"

    def multiplying(self, matmul: Matmul) -> MLPKernel:
        """The same with other matrix products; raises where they cannot be had."""
        check_matmul(matmul, choose(self.impl, self.net.sigmas.device)[0])
        other = copy(self)
        other.matmul = matmul
        return other

    def __call__(self, x: Tensor, segment: Segment) -> None:
        levels = [level for _, level, times in segment.runs for _ in range(times)]
        # Anew for every segment: a callback between two of them may have changed the weights.
        network = chain_network(self.net)
        known = network.biases.shape[0]
        if max(levels) >= known:
            raise ValueError(
                f"the chain's ladder has a level number {max(levels)}, but the network was built with {known} levels; "
                "pass its own ladder, sigmas=net.sigmas"
            )
        rules = [rule for rule, _, times in segment.runs for _ in range(times)]
        numbers = [(c, a, 0.0 if b is None else b) for c, a, b in rules]
        updates = ChainUpdates(
            levels=torch.tensor(levels, dtype=torch.int64, device=x.device),
            coefficients=torch.tensor(numbers, dtype=torch.float32, device=x.device),
            noisy=torch.tensor([b is not None for _, _, b in rules], dtype=torch.bool, device=x.device),
            address=segment.address,
            every=segment.every,
            frames=segment.frames,
        )
        mlp_chain_(x, network, updates, matmul=self.matmul, impl=self.impl)
