"""Putting the functions of :mod:`fastlangevin.compat` into a checkout of the code base that they stand in for."""

from __future__ import annotations

import functools
import importlib
import inspect
import pkgutil
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import ModuleType, TracebackType
from typing import Any, Self

from fastlangevin.compat import signatures

__all__ = ["CODE_BASES", "CodeBase", "Patch", "Replacement", "patch"]

Function = Callable[..., Any]

# One number of these for all calls of a run would repeat its noise.
NOT_FOR_ALL_CALLS = ("seed", "step", "sample_ids", "sample_offset", "resume")


@dataclass(frozen=True)
class CodeBase:
    """What is replaced in a code base, and where it is defined there.

    Attributes:
        functions: by the name of the module that defines them, ours for each name; classes too.
        methods: by the name of a class, ours for each name; they take no ``self``.
        classes_in: modules and packages in which the classes are looked for.
        options: by the name of a module, keyword arguments that its callers need, unless others are given.
    """

    functions: Mapping[str, Mapping[str, Function]]
    methods: Mapping[str, Mapping[str, Function]] = field(default_factory=dict)
    classes_in: tuple[str, ...] = ()
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def ours(self) -> list[Function]:
        tables = [*self.functions.values(), *self.methods.values()]
        return [function for table in tables for function in table.values()]


def _ncsn() -> CodeBase:
    from fastlangevin.compat import ncsn

    defined = {
        "losses.dsm": ("dsm", "dsm_score_estimation", "anneal_dsm_score_estimation"),
        "losses.sliced_sm": (
            "single_sliced_score_matching",
            "partial_sliced_score_matching",
            "sliced_score_matching",
            "sliced_score_matching_vr",
            "sliced_score_estimation",
            "sliced_score_estimation_vr",
            "anneal_sliced_score_estimation_vr",
        ),
    }
    annealed = ("anneal_Langevin_dynamics", "Langevin_dynamics", "anneal_Langevin_dynamics_inpainting")
    return CodeBase(
        {module: {name: getattr(ncsn, name) for name in names} for module, names in defined.items()},
        {
            "AnnealRunner": {name: getattr(ncsn, name) for name in annealed},
            "BaselineRunner": {"Langevin_dynamics": ncsn.baseline_Langevin_dynamics},
            "ToyRunner": {
                "langevin_dynamics": ncsn.toy_langevin_dynamics,
                "anneal_langevin_dynamics": ncsn.toy_anneal_langevin_dynamics,
            },
        },
        ("runners",),
        # The published trainers unpack what these return.
        {"losses.sliced_sm": {"strict": True}},
    )


def _ncsnv2() -> CodeBase:
    from fastlangevin.compat import ncsnv2

    names = [name for name in ncsnv2.__all__ if name != "anneal_dsm_score_estimation"]
    return CodeBase(
        {
            "models": {name: getattr(ncsnv2, name) for name in names},
            "losses.dsm": {"anneal_dsm_score_estimation": ncsnv2.anneal_dsm_score_estimation},
        }
    )


def _score_sde() -> CodeBase:
    from fastlangevin.compat import score_sde

    defined = {
        "sde_lib": ("SDE", "VESDE", "VPSDE", "subVPSDE"),
        "sampling": (
            "Predictor",
            "EulerMaruyamaPredictor",
            "ReverseDiffusionPredictor",
            "AncestralSamplingPredictor",
            "NonePredictor",
            "Corrector",
            "LangevinCorrector",
            "AnnealedLangevinDynamics",
            "NoneCorrector",
            "register_predictor",
            "register_corrector",
            "get_predictor",
            "get_corrector",
            "get_pc_sampler",
        ),
        "controllable_generation": ("get_pc_inpainter", "get_pc_colorizer"),
        "losses": ("get_sde_loss_fn", "get_smld_loss_fn", "get_ddpm_loss_fn"),
        "models.utils": ("get_model_fn", "get_score_fn"),
    }
    return CodeBase({module: {name: getattr(score_sde, name) for name in names} for module, names in defined.items()})


CODE_BASES: dict[str, Callable[[], CodeBase]] = {"ncsn": _ncsn, "ncsnv2": _ncsnv2, "score_sde": _score_sde}
"""What makes the :class:`CodeBase` of a name, when it is asked for."""


@dataclass(frozen=True)
class Replacement:
    """One name that was given another value.

    Attributes:
        owner: the module or class that has the name.
        name: the name.
        before: what it was.
        after: what it is now.
        ours: the function of this package behind it.
    """

    owner: Any
    name: str
    before: Any
    after: Any
    ours: Function

    @property
    def where(self) -> str:
        if isinstance(self.owner, type):
            return f"{self.owner.__module__}.{self.owner.__qualname__}.{self.name}"
        return f"{self.owner.__name__}.{self.name}"


@dataclass
class Patch:
    """What :func:`patch` did. ``print`` it; ``undo()`` it, or use it as a context manager.

    Attributes:
        name: of the code base.
        replaced: every name that was given another value.
        missing: what was looked for and is not there, such as ``models.get_sigmas``.
        failed: modules that could not be imported, with the reason.
        different: what was left as it is, since its signature is not the published one, with the difference.
        wanted: how many functions, methods and classes were looked for.
    """

    name: str
    replaced: list[Replacement] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    different: dict[str, str] = field(default_factory=dict)
    wanted: int = 0

    def undo(self) -> None:
        """Gives every name back what it was, also in modules that were imported since. Calling it again does nothing.

        A name that somebody else has given another value in the meantime keeps that.
        """
        for each in self.replaced:
            if vars(each.owner).get(each.name) is each.after:
                setattr(each.owner, each.name, each.before)
            if not isinstance(each.owner, type):
                for owner, name in _holders(each.after):
                    setattr(owner, name, each.before)
        self.replaced = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.undo()

    def __str__(self) -> str:
        lines = [f"{self.name}: {len(self.replaced)} replaced"]
        lines += [f"  {each.where} -> {each.ours.__module__}.{each.ours.__name__}" for each in self.replaced]
        if self.missing:
            lines += [f"not found: {', '.join(self.missing)}"]
        return "\n".join(lines + self._left())

    def _left(self) -> list[str]:
        """What a user should know of without asking."""
        lines = [f"left as it is: {where}, {why}" for where, why in self.different.items()]
        return lines + [f"could not import {module}: {why}" for module, why in self.failed.items()]

    def warn(self) -> None:
        """Says by a warning what stays the checkout's own although it was wanted."""
        if self.different or self.failed:
            warnings.warn(
                f"patch({self.name!r}): {len({each.ours for each in self.replaced})} of {self.wanted} replaced; the "
                f"others stay the checkout's own. "
                f"{'; '.join(self._left())}. Install what is missing, or print() the result to see all of it",
                stacklevel=3,
            )


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


def _holders(value: Any) -> list[tuple[ModuleType, str]]:
    """The modules that have a value, and the names under which they do."""
    return [
        (module, name)
        for module in list(sys.modules.values())
        if isinstance(module, ModuleType)
        for name, held in list(vars(module).items())
        if held is value
    ]


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
            found += [Replacement(owner, held, before, after, ours) for owner, held in _holders(before)]
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
