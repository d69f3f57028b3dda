"""Records every use of the results of norms during one run of the network.

Every reference to an activation, a parent's attribute, is replaced for the run by a copy of its own, so that a call
tells through which reference it came, whoever made it and however many share the activation. All other uses are seen by
PyTorch's two modes: calls from Python, and operations below them.
"""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from fastlangevin.fusion.agree import DisagreementError, agreed, deviation
from fastlangevin.fusion.formulas import Formula
from fastlangevin.fusion.modules import Passing
from fastlangevin.fusion.probe import Probe

__all__ = ["Call", "Norm", "Reference", "Result", "has_hooks", "listen"]

ACTIVATIONS = (nn.ELU, nn.SiLU)
# Of a tensor these read no number, or give it back as it is where there is nothing to convert.
SHAPES = {"shape", "ndim", "size", "dim", "ndimension", "stride", "numel", "nelement", "__len__", "is_contiguous"}
KINDS = {"dtype", "device", "layout", "requires_grad", "is_cuda", "is_cpu", "get_device", "is_floating_point"}
CONVERSIONS = {"to", "type", "type_as", "float", "contiguous"}
HARMLESS = SHAPES | KINDS | CONVERSIONS


def has_hooks(module: nn.Module) -> bool:
    """Returns whether something looks on at the module's calls."""
    return bool(
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    )


@dataclass(eq=False)
class Reference:
    """A parent's attribute that holds an activation, and what was called through it."""

    parent: nn.Module
    attribute: str
    name: str
    activation: nn.Module
    calls: list[Call] = field(default_factory=list)


@dataclass(eq=False)
class Call:
    """An activation's call: how many dimensions its input had, and the norm's result that it was."""

    dimensions: int
    result: Result | None


@dataclass(eq=False)
class Result:
    """A tensor that a norm returned: the references that activated it, the names of its other uses, how it was kept."""

    norm: Norm
    tensor: weakref.ref[Tensor]
    activated: list[Reference] = field(default_factory=list)
    uses: list[str] = field(default_factory=list)
    kept: bool = False


@dataclass(eq=False)
class Norm:
    """A module whose parameters fit some formulas, and what was heard of it.

    Attributes:
        formula: what it computes, once that is known.
        refused: why it must stay as it is.
        deviations: of each call, how far the fused operation is from it, ``(B, C)``.
        epsilon: of the coarsest dtype that it was called with.
    """

    module: nn.Module
    name: str
    readings: list[Formula]
    formula: Formula | None = None
    refused: str = ""
    results: list[Result] = field(default_factory=list)
    deviations: list[Tensor] = field(default_factory=list)
    epsilon: float = 0.0


def listen(probe: Probe, norms: list[Norm], impl: str) -> tuple[list[Reference], list[Tensor]]:
    """Runs the network once, notes in ``norms`` what is heard of them, and returns the activations and the output."""
    listener = _Listener(impl)
    references = _references(probe.net)
    handles = []
    try:
        for norm in norms:
            # The first of the hooks behind, so that the module's own result is seen; the last of those before.
            handles.append(norm.module.register_forward_pre_hook(listener.entering, with_kwargs=True))
            behind = listener.returned(norm)
            handles.append(norm.module.register_forward_hook(behind, with_kwargs=True, prepend=True))
        handles.append(register_module_forward_hook(listener.passed))
        for reference in references:
            reference.parent._modules[reference.attribute] = listener.ear(reference)
        with _Below(listener), _Above(listener):
            output = probe.run(listener.close)
    finally:
        for reference in references:
            reference.parent._modules[reference.attribute] = reference.activation
        for handle in handles:
            handle.remove()
    for norm in norms:
        if not norm.results and not norm.refused:
            norm.refused = "it is not called on the probe"
    return references, output


def _references(net: nn.Module) -> list[Reference]:
    return [
        Reference(parent, attribute, f"{name}.{attribute}" if name else attribute, child)
        for name, parent in net.named_modules()
        if not isinstance(parent, torch.jit.ScriptModule)
        for attribute, child in parent._modules.items()
        if child is not None and type(child) in ACTIVATIONS and not isinstance(child, Passing)
    ]


class _Listener:
    def __init__(self, impl: str) -> None:
        self.impl = impl
        self.results: dict[int, Result] = {}
        self.deaf = False
        self.versions: list[tuple[int, int]] = []

    def heard(self, tensor: Any) -> Result | None:
        result = self.results.get(id(tensor))
        return result if result is not None and result.tensor() is tensor else None

    def used(self, name: str, values: Iterable[Any]) -> None:
        # Derivatives read what they were saved, and what was saved is no use of its own.
        if self.deaf or torch._C._current_graph_task_id() != -1:
            return
        for value in values:
            if isinstance(value, Tensor):
                result = self.heard(value)
                if result is not None and name not in result.uses:
                    result.uses.append(name)
            elif isinstance(value, list | tuple):
                self.used(name, value)

    def entering(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        x = args[0] if args else None
        self.versions.append((id(x), x._version) if isinstance(x, Tensor) else (0, 0))

    def returned(self, norm: Norm) -> Callable[..., None]:
        def returned(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
            version = self.versions.pop()
            if norm.refused:
                return
            self.deaf = True
            try:
                with torch.no_grad():
                    self._judge(norm, args, kwargs, out, version)
            except DisagreementError as error:
                norm.refused = str(error)
            except Exception as error:
                # Inside vmap and the like tensors have no numbers that could be looked at.
                norm.refused = f"it cannot be examined where it is called: {type(error).__name__}: {error}"
            finally:
                self.deaf = False

        return returned

    def _judge(
        self, norm: Norm, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any, version: tuple[int, int]
    ) -> None:
        inputs = (*args, *kwargs.values())
        readings = [reading for reading in norm.readings if reading.arguments == len(inputs)]
        if not args or not readings or not all(isinstance(value, Tensor) for value in inputs):
            raise DisagreementError(f"it is called with {_described(args, kwargs)}")
        x = inputs[0]
        readings = [reading for reading in readings if reading.takes(x)]
        if not x.is_floating_point() or not readings:
            raise DisagreementError(f"its input is {x.dtype} of shape {tuple(x.shape)}")
        if not isinstance(out, Tensor):
            raise DisagreementError(f"it returns {type(out).__name__}")
        if (id(x), x._version) != version or out.untyped_storage().data_ptr() == x.untyped_storage().data_ptr():
            raise DisagreementError("it works in place on its input")
        if norm.formula is None:
            norm.formula = agreed(readings, norm.module, inputs)
        norm.deviations.append(deviation(norm.formula, norm.module, inputs, out, self.impl))
        norm.epsilon = max(norm.epsilon, torch.finfo(x.dtype).eps)
        result = Result(norm, weakref.ref(out))
        norm.results.append(result)
        self.results[id(out)] = result

    def passed(self, module: nn.Module, args: tuple[Any, ...], out: Any) -> None:
        """A module that gives back what it was given may do something to it in training."""
        if type(module) is not nn.Identity and any(each is out for each in args):
            self.used(type(module).__name__, [out])

    def ear(self, reference: Reference) -> nn.Module:
        """The activation's copy that notes what it is called with: of its type, and with its hooks."""
        ear = copy.copy(reference.activation)
        forward = reference.activation.forward

        def activate(input: Tensor) -> Tensor:
            if self.deaf:
                plain: Tensor = forward(input)
                return plain
            result = self.heard(input)
            reference.calls.append(Call(input.ndim, result))
            if result is not None:
                result.activated.append(reference)
            self.deaf = True
            try:
                out: Tensor = forward(input)
            finally:
                self.deaf = False
            if out is input and result is not None:
                # Activated in place: from here on the tensor is no longer the norm's result.
                del self.results[id(input)]
            return out

        ear.forward = activate
        return ear

    def close(self) -> None:
        """Notes which results outlive the run; in place, they have become the activation's."""
        self.deaf = True
        for result in self.results.values():
            result.kept = result.tensor() is not None


class _Above(TorchFunctionMode):
    """Hears what Python calls."""

    def __init__(self, listener: _Listener) -> None:
        super().__init__()
        self.listener = listener

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", type(func).__name__)
        if name == "__get__":
            name = func.__self__.__name__
        if name not in HARMLESS:
            self.listener.used(name, (args, *(kwargs or {}).values()))
        return func(*args, **(kwargs or {}))


class _Below(TorchDispatchMode):
    """Hears what runs, for what Python's calls do not show."""

    supports_higher_order_operators = True

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # Shielded from the compiler, the mode would import it, which takes seconds.
        return False

    def __init__(self, listener: _Listener) -> None:
        super().__init__()
        self.listener = listener

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "overloadpacket", func).__name__
        self.listener.used(name, (args, *(kwargs or {}).values()))
        return func(*args, **(kwargs or {}))


def _described(args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    values = [*map(type, args), *(type(value) for value in kwargs.values())]
    return f"({', '.join(kind.__name__ for kind in values)})"
