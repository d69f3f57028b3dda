"""Decides which activations can be merged into the norms before them.

A reference to an activation can let a norm's result pass only if all tensors of as many dimensions that come through it
are results of norms that take the activation; and a norm can take it only if nothing but such references sees its
results. Each condition hangs on the other, so the largest set that meets both is found by taking away what fails until
nothing does.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from fastlangevin.fusion.listen import Norm, Reference, has_hooks

__all__ = ["Decision", "decide"]

IN_FUNCTIONS = {nn.ELU: {"elu", "elu_"}, nn.SiLU: {"silu", "silu_"}}


@dataclass
class Decision:
    """The activations that move, and those that stay.

    Attributes:
        taking: the norms that compute the activation behind them, too.
        stays: of the other norms, why their activation stays where it is; empty where there is none behind it.
        passing: the references that let norms' results pass, with the numbers of dimensions of those.
    """

    taking: set[Norm]
    stays: dict[Norm, str]
    passing: dict[Reference, tuple[int, ...]]


def decide(norms: list[Norm], references: list[Reference]) -> Decision:
    """Decides for the norms that are fused and all activations that were heard."""
    stays = {norm: _alone(norm) for norm in norms}
    taking = {norm for norm in norms if not stays[norm] and _is_activated(norm)}
    refused = {reference: _unfit(reference) for reference in references}
    while True:
        for reference in references:
            refused[reference] = refused[reference] or _mixed(reference, taking)
        failing = {}
        for norm in taking:
            why = [refused[each] for result in norm.results for each in result.activated if refused[each]]
            if why:
                failing[norm] = why[0]
        if not failing:
            break
        stays.update(failing)
        taking -= failing.keys()
    passing = {}
    for reference in references:
        dimensions = {call.dimensions for call in reference.calls if call.result and call.result.norm in taking}
        if dimensions:
            passing[reference] = tuple(sorted(dimensions))
    return Decision(taking, stays, passing)


def _is_activated(norm: Norm) -> bool:
    return all(result.activated for result in norm.results)


def _alone(norm: Norm) -> str:
    """Returns why no activation can move into the norm; empty where one could, or where there is none."""
    assert norm.formula is not None
    wanted = norm.formula.follows
    uses = [use for result in norm.results for use in result.uses]
    called = IN_FUNCTIONS[wanted].intersection(uses)
    if called and not any(result.activated for result in norm.results):
        return f"{wanted.__name__} is called as a function: make it an nn.{wanted.__name__} of the block"
    if not any(result.activated for result in norm.results):
        return ""
    if has_hooks(norm.module):
        return "the norm has hooks, which would see what is activated"
    if uses:
        return f"the norm's result is used by {uses[0]}, too"
    if any(result.kept for result in norm.results):
        return "the norm's result is kept beyond the call"
    if not _is_activated(norm):
        return "not every call of the norm is followed by the activation"
    for result in norm.results:
        for reference in result.activated:
            if not isinstance(reference.activation, wanted):
                return f"the fused operation has {wanted.__name__} behind {norm.formula.kind}"
    return ""


def _unfit(reference: Reference) -> str:
    activation = reference.activation
    if has_hooks(activation) or "forward" in activation.__dict__:
        return f"{reference.name} has hooks or a forward of its own"
    if isinstance(activation, nn.ELU) and activation.alpha != 1:
        return f"{reference.name} has alpha {activation.alpha}"
    return ""


def _mixed(reference: Reference, taking: set[Norm]) -> str:
    fed = {call.dimensions for call in reference.calls if call.result and call.result.norm in taking}
    for call in reference.calls:
        if call.dimensions in fed and not (call.result and call.result.norm in taking):
            return f"{reference.name} also acts on other tensors of {call.dimensions} dimensions"
    return ""
