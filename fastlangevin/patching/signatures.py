"""Comparing the signatures of another code base with those that stand in for them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from inspect import Parameter
from typing import Any

__all__ = ["difference"]

VARIADIC = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)


def difference(theirs: Any, ours: Callable[..., Any], *, bound: bool = False) -> str | None:
    """Says why a call of ``theirs`` might not be one of ``ours`` with the same meaning, or returns None.

    The positional arguments of ``theirs`` must be the first ones of ``ours``, of the same names and defaults, and the
    others of ``ours`` must have defaults; keyword-only ones must be there. A function of ``*args`` and ``**kwargs``
    alone says nothing, and passes. Classes are compared by their constructors and the methods that both have.

    Args:
        theirs: a function or class, or a function that takes a ``self``, if ``bound``.
        ours: what would take its place, without a ``self``.
        bound: leave out the first argument of ``theirs``.

    Returns:
        The difference in words.
    """
    told = None
    if not (isinstance(theirs, type) and theirs.__init__ is object.__init__):  # type: ignore[misc]  # not an instance
        told = _between(_parameters(theirs, bound), _parameters(ours, False))
    if told is None and isinstance(theirs, type) and isinstance(ours, type):
        for name, method in vars(theirs).items():
            mine = getattr(ours, name, None)
            if inspect.isfunction(method) and not name.startswith("_") and inspect.isfunction(mine):
                told = _between(_parameters(method, True), _parameters(mine, True))
                if told is not None:
                    return f"its method {name}: {told}"
    return told


def _parameters(function: Any, bound: bool) -> list[Parameter] | None:
    """The parameters of a function; None if it does not list them."""
    try:
        listed = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return None
    return listed[1:] if bound and listed and listed[0].kind not in VARIADIC else listed


def _between(theirs: list[Parameter] | None, ours: list[Parameter] | None) -> str | None:
    if theirs is None or ours is None:
        return "its signature cannot be read"
    told = [each for each in theirs if each.kind not in VARIADIC]
    if (theirs and not told) or any(each.kind is Parameter.VAR_POSITIONAL for each in ours):
        return None
    if len(told) < len(theirs):
        return f"it takes any other arguments, {theirs[-1]}"
    named = {each.name: each for each in ours}
    places = [each for each in ours if each.kind in (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)]
    place = 0
    for each in told:
        mine = named.get(each.name)
        if each.kind is not Parameter.KEYWORD_ONLY:
            at = places[place] if place < len(places) else None
            if at is None or at.name != each.name:
                expected = "no more" if at is None else at.name
                return f"its argument {place + 1} is {each.name}, where the published signature has {expected}"
            place += 1
        elif mine is None:
            return f"it takes {each.name}=, which the published signature has not"
        if mine is not None and not _same(each.default, mine.default):
            return f"{_told(each)} has another default than the published {_told(mine)}"
    lacking = [each.name for each in places[place:] if each.default is Parameter.empty]
    return f"it lacks {', '.join(lacking)}" if lacking else None


def _told(parameter: Parameter) -> str:
    return parameter.name if parameter.default is Parameter.empty else f"{parameter.name}={parameter.default!r}"


def _same(one: Any, other: Any) -> bool:
    try:
        return one is other or bool(one == other)
    except Exception:  # an array's comparison has no truth; it is somebody else's default
        return False
