"""Runs of a network that leave it, and every generator of random numbers, as they were found."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["Probe", "changes", "generators_kept", "magnitudes"]


class Probe:
    """A network and the inputs that it is tried on, in evaluation mode and without gradients or autocast.

    Every run starts from the same state: training flags, buffers and random numbers are put back behind it, and the
    inputs are copies.
    """

    def __init__(self, net: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        self.net, self.inputs, self.named = net, inputs, named
        self.modules = list(net.modules())
        tensors = [*net.parameters(), *net.buffers(), *_tensors((inputs, named))]
        self.devices = list(dict.fromkeys(tensor.device for tensor in tensors))

    def run(self, behind: Callable[[], None] = lambda: None) -> list[Tensor]:
        """The floating-point tensors of the network's output, in fp64 where that exists.

        Args:
            behind: called while the output is still alive.

        Raises:
            RuntimeError: the network cannot be run on the inputs, or returns no numbers, or some that are not finite.
        """
        with self._as_found(), torch.inference_mode(False), torch.no_grad():
            inputs, named = _copied(self.inputs), _copied(self.named)
            try:
                output = self.net(*inputs, **named)
            except Exception as error:
                raise RuntimeError(
                    f"net fails on the inputs of the probe, {_described(self.inputs, self.named)}: "
                    f"{type(error).__name__}: {error}; pass inputs that net(...) takes, on its device"
                ) from error
            behind()
            found = [tensor.detach() for tensor in _tensors(output)]
            numbers = [_wide(tensor).clone() for tensor in found if tensor.is_floating_point() and tensor.numel()]
        if not numbers:
            raise RuntimeError(
                f"net must return floating-point tensors for the fused network to be compared, got "
                f"{type(output).__name__} without one"
            )
        if not all(bool(number.isfinite().all()) for number in numbers):
            raise RuntimeError(
                "net returns numbers that are not finite on the inputs of the probe; pass inputs as they occur in use"
            )
        return numbers

    @contextmanager
    def _as_found(self) -> Iterator[None]:
        training = [module.training for module in self.modules]
        buffers = [
            {name: (buffer, None if buffer is None else buffer.clone()) for name, buffer in module._buffers.items()}
            for module in self.modules
        ]
        with generators_kept(self.devices), ExitStack() as stack:
            for device in self.devices:
                stack.enter_context(torch.autocast(device.type, enabled=False))
            try:
                # Not by eval(), which networks override to do more than this.
                for module in self.modules:
                    module.training = False
                yield
            finally:
                for module, mode, found in zip(self.modules, training, buffers, strict=True):
                    module.training = mode
                    _restore(module, found)


@contextmanager
def generators_kept(devices: Iterable[torch.device]) -> Iterator[None]:
    """Puts the states of PyTorch's, NumPy's and Python's global generators back."""
    python, numpy = random.getstate(), np.random.get_state()
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices=[]))
        for device in devices:
            if device.type != "cpu":
                stack.enter_context(torch.random.fork_rng([device], device_type=device.type))
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


def _restore(module: nn.Module, found: dict[str, tuple[Tensor | None, Tensor | None]]) -> None:
    # Those of scripted modules cannot be other tensors than they were.
    if not isinstance(module, torch.jit.ScriptModule):
        module._buffers.clear()
        module._buffers.update({name: buffer for name, (buffer, _) in found.items()})
    for buffer, copy in found.values():
        if buffer is not None and copy is not None and not torch.equal(buffer, copy):
            with torch.no_grad():
                buffer.copy_(copy)


def _copied(value: Any) -> Any:
    """The same arguments with tensors of their own memory."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if type(value) in (list, tuple):
        return type(value)(map(_copied, value))
    if type(value) is dict:
        return {key: _copied(each) for key, each in value.items()}
    return value


def _tensors(value: Any) -> list[Tensor]:
    """The tensors in whatever a network takes or returns."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, Mapping):
        value = list(value.values())
    elif is_dataclass(value) and not isinstance(value, type):
        value = [getattr(value, field.name) for field in fields(value)]
    return [tensor for each in value for tensor in _tensors(each)] if isinstance(value, list | tuple) else []


def _described(inputs: tuple[Any, ...], named: dict[str, Any]) -> str:
    def one(value: Any) -> str:
        if isinstance(value, Tensor):
            return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)} on {value.device}"
        return type(value).__name__

    return ", ".join([*map(one, inputs), *(f"{name}={one(value)}" for name, value in named.items())])


def _wide(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.device.type == "mps" else tensor.double()


def _by_sample(tensor: Tensor) -> Tensor:
    return tensor.flatten(1) if tensor.ndim > 1 else tensor.reshape(1, -1)


def magnitudes(outputs: list[Tensor]) -> list[Tensor]:
    """Of each tensor, the largest magnitude of each sample."""
    return [_by_sample(output).abs().amax(1) for output in outputs]


def changes(one: list[Tensor], other: list[Tensor]) -> list[Tensor]:
    """Of each tensor, the largest difference of each sample; infinite where the shapes differ."""
    if [each.shape for each in one] != [each.shape for each in other]:
        return [torch.full_like(magnitude, torch.inf) for magnitude in magnitudes(one)]
    return magnitudes([a - b for a, b in zip(one, other, strict=True)])
