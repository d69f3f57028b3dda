"""Puts this package's functions into a checkout: ``patch``."""

from __future__ import annotations

import functools
import importlib
import inspect
import pkgutil
from collections.abc import Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any

from fastlangevin.patching import signatures
from fastlangevin.patching.code_bases import CODE_BASES, CodeBase, Function
from fastlangevin.patching.report import Patch, Replacement, holders

__all__ = ["patch"]

# One number of these for all calls of a run would repeat its noise.
NOT_FOR_ALL_CALLS = ("seed", "step", "sample_ids", "sample_offset", "resume")


def patch(name: str, *modules: str | ModuleType, **options: Any) -> Patch:
    """Replaces the samplers and objectives of a checkout by this package's, wherever they are imported.

    The checkout's folder must be on ``sys.path``. Functions are replaced where they are defined and in every module
    that has imported them, under whatever name; modules that are imported later get the new ones too.

    - ``"ncsnv2"``: the functions of ``models`` and ``losses.dsm``.
    - ``"ncsn"``: the methods of ``AnnealRunner``, ``BaselineRunner`` and ``ToyRunner``, found in ``runners``, all of
      whose modules are imported, and the functions of ``losses.dsm`` and ``losses.sliced_sm``. The latter return the
      loss with its two terms, as published trainers unpack it, unless ``strict=False`` is given.
    - ``"score_sde"``, the PyTorch one: the diffusions of ``sde_lib``; predictors, correctors, their registries and the
      sampler of ``sampling``; ``controllable_generation``; the losses of ``losses``; the scores of ``models.utils``.
      Diffusions that were made before are refused: make them anew. Predictors and correctors of your own are to be
      registered afterwards. The ODE sampler and likelihoods stay, and need the checkout's own diffusions: ``undo()``
      for them.

    A function, method or class is replaced only if every call that it takes is one of ours with the same meaning: its
    arguments must have the published names, order and defaults, of which the last ones may lack. One that differs, as
    in a fork, is left as it is. A warning tells of those, and of modules that could not be imported.

    Lists of states stay on the device. A full list may not fit in its memory: use ``keep_every=``, as in
    ``patch("ncsnv2", keep_every=100)``.

    Args:
        name: the code base.
        modules: where its functions and classes are defined instead, imported or by name.
        options: keyword arguments for every replaced function that has them, such as ``keep_every``, ``progress``,
            ``strict``, ``generator``.

    Returns:
        What was replaced, for ``undo()`` and as a context manager.

    Raises:
        ValueError: ``name`` is not known, or the checkout is patched already.
        TypeError: no function takes one of ``options``, or it cannot be one for all calls.
        ImportError: nothing of the code base can be imported. Then nothing has changed.
    """
    if name not in CODE_BASES:
        raise ValueError(f"name must be one of {', '.join(sorted(CODE_BASES))}, got {name!r}")
    base = CODE_BASES[name]()
    _check_options(name, base, options)
    report = Patch(name, wanted=len(base.ours()))
    homes = [_home(each) for each in modules]
    found: list[Replacement] = []
    for module, functions in base.functions.items():
        places: Sequence[ModuleType | None] = homes or [_imported(module, report)]
        mine = {**base.options.get(module, {}), **options}
        found += _functions(places, module, functions, mine, report)
    if base.methods:
        held_in = homes or [each for package in base.classes_in for each in _below(package, report)]
        for owner, methods in base.methods.items():
            found += _methods(held_in, owner, methods, options, report)
    if not found:
        looked = ", ".join(each.__name__ for each in homes) or ", ".join([*base.functions, *base.classes_in])
        reasons = "".join(f"; {where}: {why}" for where, why in {**report.failed, **report.different}.items())
        raise ImportError(
            f"no checkout of {name} to patch: none of its functions is in {looked}{reasons}. Put the checkout's folder "
            "on sys.path first (sys.path.insert(0, ...)), or name the modules that define them"
        )
    report.replaced = found
    report.warn()  # before anything is changed, since a warning may be an error
    for each in found:
        setattr(each.owner, each.name, each.after)
    return report


def _check_options(name: str, base: CodeBase, options: Mapping[str, Any]) -> None:
    functions = [each for each in base.ours() if not isinstance(each, type)]
    taken = {option for function in functions for option in _keywords(function)} - {
        *inspect.signature(patch).parameters
    }
    for option in options:
        if option in NOT_FOR_ALL_CALLS:
            raise TypeError(
                f"{option}= would be the same for all calls, which would repeat their noise; leave it out, and seed "
                "the run by torch.manual_seed or generator="
            )
        if option not in taken:
            accepted = ", ".join(sorted(taken - {*NOT_FOR_ALL_CALLS}))
            raise TypeError(f"no function of {name} takes {option}=; they take {accepted}")


def _keywords(function: Function) -> set[str]:
    parameters = inspect.signature(function).parameters.values()
    return {each.name for each in parameters if each.kind is inspect.Parameter.KEYWORD_ONLY}


def _home(module: str | ModuleType) -> ModuleType:
    return module if isinstance(module, ModuleType) else importlib.import_module(module)


def _imported(module: str, report: Patch) -> ModuleType | None:
    """A module of the checkout. It may fail in any way: it is somebody else's code."""
    try:
        return importlib.import_module(module)
    except Exception as error:
        report.failed[module] = f"{type(error).__name__}: {error}"
        return None


def _below(package: str, report: Patch) -> Iterator[ModuleType]:
    """A package of the checkout and its modules."""
    top = _imported(package, report)
    if top is None:
        return
    yield top
    for each in pkgutil.iter_modules(getattr(top, "__path__", ())):
        module = _imported(f"{package}.{each.name}", report)
        if module is not None:
            yield module


def _functions(
    places: Sequence[ModuleType | None],
    module: str,
    functions: Mapping[str, Function],
    options: Mapping[str, Any],
    report: Patch,
) -> list[Replacement]:
    found = []
    for name, ours in functions.items():
        befores = [vars(place)[name] for place in places if place is not None and callable(vars(place).get(name))]
        if not befores:
            report.missing.append(f"{module}.{name}")
        for before in {id(each): each for each in befores}.values():
            _refuse_ours(before)
            difference = signatures.difference(before, ours)
            if difference:
                report.different[f"{module}.{name}"] = difference
                continue
            after = _replacement(ours, options, bound=False)
            found += [Replacement(owner, held, before, after, ours) for owner, held in holders(before)]
    return found


def _methods(
    places: Sequence[ModuleType],
    owner: str,
    methods: Mapping[str, Function],
    options: Mapping[str, Any],
    report: Patch,
) -> list[Replacement]:
    found = []
    classes = {id(each): each for each in (vars(place).get(owner) for place in places) if isinstance(each, type)}
    for name, ours in methods.items():
        holding = [each for each in classes.values() if name in vars(each)]
        if not holding:
            report.missing.append(f"{owner}.{name}")
        for each in holding:
            before = vars(each)[name]
            _refuse_ours(before)
            static = isinstance(before, staticmethod)
            difference = signatures.difference(before.__func__ if static else before, ours, bound=not static)
            if difference:
                report.different[f"{each.__module__}.{owner}.{name}"] = difference
                continue
            after: Any = _replacement(ours, options, bound=not static)
            found.append(Replacement(each, name, before, staticmethod(after) if static else after, ours))
    return found


def _refuse_ours(before: Any) -> None:
    function = before.__func__ if isinstance(before, staticmethod) else before
    wrapped = getattr(function, "__wrapped__", function)
    if str(getattr(wrapped, "__module__", "")).startswith("fastlangevin."):
        raise ValueError(f"{wrapped.__name__} is this package's already; undo() the earlier patch first")


class _StandIn:
    """An object in the place of a class: what is made of it, what inherits from it and what is asked of it is ours.

    Not a class itself: a subclass of an abstract class that answered for it would be asked by it in turn.
    """

    def __init__(self, ours: type[Any]) -> None:
        functools.update_wrapper(self, ours, updated=())

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return self.__wrapped__(*arguments, **named)

    def __getattr__(self, name: str) -> Any:
        return getattr(vars(self)["__wrapped__"], name)

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[type[Any]]:
        return (self.__wrapped__,)

    def __instancecheck__(self, instance: object) -> bool:
        return isinstance(instance, self.__wrapped__)

    def __subclasscheck__(self, subclass: type) -> bool:
        return issubclass(subclass, self.__wrapped__)


def _replacement(ours: Function, options: Mapping[str, Any], *, bound: bool) -> Function:
    """A function of its own, so that undoing finds it and never ours; ``bound`` takes a ``self`` first.

    A stand-in for a class, likewise.
    """
    if isinstance(ours, type):
        return _StandIn(ours)
    mine = {option: value for option, value in options.items() if option in _keywords(ours)}

    @functools.wraps(ours)
    def function(*arguments: Any, **named: Any) -> Any:
        return ours(*arguments, **{**mine, **named})

    @functools.wraps(ours)
    def method(self: object, *arguments: Any, **named: Any) -> Any:
        return ours(*arguments, **{**mine, **named})

    return method if bound else function
