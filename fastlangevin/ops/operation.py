"""A registered operation, and the one place that decides which way a call of it goes.

Whatever changes from step to step is a tensor in a schema: a Python float there would compile anew for every step size.
Eager calls go to an implementation's launcher directly, which saves the dispatcher's few microseconds, unless something
sees them there: :mod:`fastlangevin.memory` says when.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fastlangevin.kernels.address import Address
from fastlangevin.memory import observed, transforms
from fastlangevin.noise import tensor_word
from fastlangevin.runtime import choose_for

__all__ = ["ADDRESS", "Operation", "flat_address"]

LIBRARY = torch.library.Library("fastlangevin", "DEF")

# The fields of an Address in a schema, in their order.
ADDRESS = "Tensor seed, Tensor draw, Tensor? sample_ids, SymInt sample_offset, int purpose"


def flat_address(address: Address, like: Tensor) -> Address:
    """An address whose seed and draw are tensors on the device of ``like``, as schemas have them."""
    seed, draw = tensor_word(address.seed, like), tensor_word(address.draw, like)
    # PyTorch 2.13 traces no function that is given one tensor twice.
    return address._replace(seed=seed, draw=draw.clone() if draw is seed else draw)


class Operation:
    """An operation of ``torch.ops.fastlangevin``.

    Its arguments are typed: tensors, numbers, an :class:`Address` or an :class:`Update`. Those of its schema are flat.

    Args:
        schema: without the last argument, ``str impl``; None for an operation that is not registered, whose plain form
            is what a compiler records.
        launch: ``launch(launchers, *arguments)`` computes it with an implementation, and returns its results.
        plain: ``plain(*arguments)``, the same in plain PyTorch, which every transform sees into.
        fake: ``fake(*flat arguments)``, results of the right shapes without values.
        flatten: the flat arguments of the typed ones.
        typed: the typed arguments of the flat ones.
    """

    def __init__(
        self,
        schema: str | None,
        launch: Callable[..., Any],
        *,
        plain: Callable[..., Any],
        fake: Callable[..., Any] | None = None,
        flatten: Callable[..., tuple[Any, ...]] = lambda *arguments: arguments,
        typed: Callable[..., tuple[Any, ...]] = lambda *arguments: arguments,
    ) -> None:
        self.launch = launch
        self.plain = plain
        self.flatten = flatten
        self.typed = typed
        self.registered: Callable[..., Any] | None = None
        if schema is None or fake is None:
            return
        name, brace, rest = schema.partition("(")
        inputs, arrow, results = rest.rpartition(") -> ")
        LIBRARY.define(f"{name}{brace}{inputs}, str impl{arrow}{results}")
        LIBRARY.impl(name, self._kernel, "CompositeExplicitAutograd")
        torch.library.register_fake(f"fastlangevin::{name}", fake, lib=LIBRARY)
        self.registered = getattr(torch.ops.fastlangevin, name)

    def _kernel(self, *flat: Any) -> Any:
        *arguments, impl = flat
        first, *_ = arguments
        (like, *_) = (first,) if isinstance(first, Tensor) else first
        device = like.device
        return self.launch(choose_for(impl, device.type)[1], *self.typed(*arguments))

    def __call__(self, impl: str, device: torch.device, *arguments: Any) -> Any:
        """The results for arguments that were checked, by an implementation for tensors on a device."""
        if observed():
            return self._seen(impl, device, arguments)
        return self.launch(choose_for(impl, device.type)[1], *arguments)

    def _seen(self, impl: str, device: torch.device, arguments: tuple[Any, ...]) -> Any:
        """A call that a transform, a compiler, a tracer or a dispatch mode sees."""
        if self.registered is not None and not transforms():
            return self.registered(*self.flatten(*arguments), impl)
        if not torch.compiler.is_compiling():
            choose_for(impl, device.type)  # one that cannot run is refused all the same
        return self.plain(*arguments)
