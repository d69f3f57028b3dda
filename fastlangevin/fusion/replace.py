"""Puts fused norms into a network, and takes them out again."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from torch import nn

from fastlangevin.fusion.decide import Decision
from fastlangevin.fusion.listen import Norm
from fastlangevin.fusion.modules import Fused, Fusion, Passing, fused_class, own_class, passing

__all__ = ["Replacement", "replacements"]


@dataclass(frozen=True)
class Place:
    """A parent's attribute, the activation that it holds, and the numbers of dimensions that are to pass there."""

    parent: nn.Module
    attribute: str
    activation: nn.Module
    dimensions: tuple[int, ...]


@dataclass
class Replacement:
    """Norms, and the places of the activations behind them, that must change together."""

    names: list[str]
    norms: list[tuple[nn.Module, Fusion]]
    places: set[Place]

    def apply(self) -> None:
        for module, fusion in self.norms:
            module.__dict__["_fastlangevin"] = fusion
            module.__class__ = fused_class(type(module))
        for place in self.places:
            place.parent._modules[place.attribute] = passing(place.activation, place.dimensions)

    def undo(self) -> None:
        """Does nothing where it was undone before, or where others have put something else in an activation's place."""
        own_classes = [(module, own_class(module)) for module, _ in self.norms if isinstance(module, Fused)]
        for module, own in own_classes:
            del module.__dict__["_fastlangevin"]
            module.__class__ = own
        for place in self.places:
            stand_in = place.parent._modules.get(place.attribute)
            if isinstance(stand_in, Passing):
                # The network may have changed between training and evaluation since.
                place.activation.training = stand_in.training
                place.parent._modules[place.attribute] = place.activation


def replacements(norms: Iterable[Norm], decision: Decision, impl: str) -> list[Replacement]:
    """The smallest groups of changes of which none needs another."""
    found: list[Replacement] = []
    for norm in norms:
        assert norm.formula is not None
        taking = norm in decision.taking
        joined = Replacement([norm.name], [(norm.module, Fusion(norm.formula, taking, impl))], set())
        for reference in (each for result in norm.results for each in result.activated if taking):
            dimensions = decision.passing[reference]
            joined.places.add(Place(reference.parent, reference.attribute, reference.activation, dimensions))
        apart = []
        for group in found:
            if group.places & joined.places:
                joined = Replacement(
                    group.names + joined.names, group.norms + joined.norms, group.places | joined.places
                )
            else:
                apart.append(group)
        found = [*apart, joined]
    return found
