"""The modules of a fused network: norms that are the user's own modules with another forward, and activations that
have moved into them.

A fused norm stays the same object, with its parameters, hooks, attributes and place; only its class becomes a subclass
of its own. So the keys and order of ``state_dict``, optimizers, and whoever else holds the module, see no change.
"""

from __future__ import annotations

import copyreg
import types
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from fastlangevin.fusion.formulas import Formula

__all__ = ["Fused", "Fusion", "Passing", "fused_class", "passing"]

_classes: dict[type[nn.Module], type[Fused]] = {}


@dataclass(frozen=True)
class Fusion:
    """The computation of a fused norm.

    Attributes:
        formula: the operation, and which parameters it takes.
        activation: whether the activation is part of it.
        impl: the implementation that computes it.
    """

    formula: Formula
    activation: bool
    impl: str


class Fused(nn.Module):
    """The forward of a fused norm, put before the user's class in a class of both."""

    _fastlangevin: Fusion

    def forward(self, *inputs: Tensor, **named: Tensor) -> Tensor:
        fusion = self._fastlangevin
        return fusion.formula.apply(self, *inputs, *named.values(), activation=fusion.activation, impl=fusion.impl)

    def __reduce_ex__(self, protocol: Any) -> Any:
        # Pickle and copy find classes by their names, and the class of both has none.
        made = super().__reduce_ex__(protocol)
        first, *rest = type(self).__bases__
        if first is Fused and isinstance(made, tuple) and made[0] is copyreg.__newobj__:  # type: ignore[attr-defined]
            return _blank, tuple(rest), *made[2:]
        return made


def own_class(module: nn.Module) -> Any:
    """The user's class of a fused module.

    Raises:
        RuntimeError: the module has got another class since.
    """
    first, *rest = type(module).__bases__
    if first is not Fused:
        raise RuntimeError(
            f"a fused norm has got another class since, {type(module).__name__}, so that its own cannot be given back; "
            "undo what was done to the network after fuse first"
        )
    return rest[0]


def fused_class(own: type[nn.Module]) -> type[Fused]:
    """The class of the fused modules whose class was ``own``."""
    if own not in _classes:
        described = {"__module__": __name__, "__doc__": own.__doc__}
        _classes[own] = types.new_class(f"Fused{own.__name__}", (Fused, own), exec_body=lambda to: to.update(described))
    return _classes[own]


def _blank(own: type[nn.Module]) -> nn.Module:
    fused = fused_class(own)
    return fused.__new__(fused)


class Passing(nn.Module):
    """An activation that has moved into the norms before it: what they return goes through as it is.

    Attributes:
        dimensions: the numbers of dimensions of what they return. Others, as of an embedding of the noise level, are
            still activated.
    """

    dimensions: tuple[int, ...]

    def forward(self, input: Tensor) -> Tensor:
        if input.ndim in self.dimensions:
            return input
        out: Tensor = super().forward(input)
        return out

    def extra_repr(self) -> str:
        rest = super().extra_repr()
        dimensions = " and ".join(map(str, self.dimensions))
        return f"{rest}{', ' if rest else ''}fused with the norm in {dimensions} dimensions"


class PassingELU(Passing, nn.ELU):
    """ELU that has moved into norms."""


class PassingSiLU(Passing, nn.SiLU):
    """SiLU that has moved into norms."""


def passing(activation: nn.Module, dimensions: tuple[int, ...]) -> Passing:
    """Takes the place of an activation: nn.ELU or nn.SiLU."""
    kind = PassingELU if type(activation) is nn.ELU else PassingSiLU
    made = kind.__new__(kind)
    # The tables of hooks, too: what is hooked to the one is hooked to the other.
    made.__dict__.update(activation.__dict__)
    made.dimensions = dimensions
    return made
