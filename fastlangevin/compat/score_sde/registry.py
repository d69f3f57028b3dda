"""Names of predictors and correctors."""

from __future__ import annotations

from typing import Any

__all__ = ["get_corrector", "get_predictor", "register_corrector", "register_predictor"]

_PREDICTORS: dict[str, type[Any]] = {}
_CORRECTORS: dict[str, type[Any]] = {}


def _register(kind: str, table: dict[str, type[Any]], cls: type[Any] | None, name: str | None) -> Any:
    def add(each: type[Any]) -> type[Any]:
        key = each.__name__ if name is None else name
        if key in table:
            raise ValueError(f"name {key!r} is taken by {table[key].__name__}; register the {kind} under another name")
        table[key] = each
        return each

    return add if cls is None else add(cls)


def _get(kind: str, table: dict[str, type[Any]], name: str) -> type[Any]:
    if name not in table:
        raise ValueError(f"name must be a registered {kind}, one of {', '.join(sorted(table))}, got {name!r}")
    return table[name]


def register_predictor(cls: type[Any] | None = None, *, name: str | None = None) -> Any:
    """A decorator that registers a class of ``(sde, score_fn, probability_flow)`` under ``name``, or its own name.

    Args:
        cls: the class, where it is used without arguments.
        name: of the registry; the class's own by default.

    Returns:
        The class, or a decorator that returns it.

    Raises:
        ValueError: the name is taken.
    """
    return _register("predictor", _PREDICTORS, cls, name)


def register_corrector(cls: type[Any] | None = None, *, name: str | None = None) -> Any:
    """A decorator that registers a class of ``(sde, score_fn, snr, n_steps)`` under ``name``, or its own name.

    Args:
        cls: the class, where it is used without arguments.
        name: of the registry; the class's own by default.

    Returns:
        The class, or a decorator that returns it.

    Raises:
        ValueError: the name is taken.
    """
    return _register("corrector", _CORRECTORS, cls, name)


def get_predictor(name: str) -> type[Any]:
    """The predictor registered under ``name``: the class, not an instance.

    Args:
        name: as it was registered, such as ``"ancestral_sampling"``.

    Returns:
        The class.

    Raises:
        ValueError: there is none; the error lists the names.
    """
    return _get("predictor", _PREDICTORS, name)


def get_corrector(name: str) -> type[Any]:
    """The corrector registered under ``name``: the class, not an instance.

    Args:
        name: as it was registered, such as ``"langevin"``.

    Returns:
        The class.

    Raises:
        ValueError: there is none; the error lists the names.
    """
    return _get("corrector", _CORRECTORS, name)
