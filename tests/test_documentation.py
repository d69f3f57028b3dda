"""Docstrings of everything public: every argument and no other, what comes back, what is raised, and the source."""

from __future__ import annotations

import ast
import enum
import importlib
import importlib.util
import inspect
import re
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, Unpack

import pytest

import fastlangevin as fl
from fastlangevin.compat.options import (
    LadderListOptions,
    ListOptions,
    ObjectiveOptions,
    StrictLadderListOptions,
    StrictListOptions,
)
from fastlangevin.compat.score_sde import PCOptions
from fastlangevin.noise import AddressOptions, SampleOptions
from fastlangevin.ops import StepOptions
from fastlangevin.samplers import ChainOptions, RunOptions
from fastlangevin.samplers.options import DEFAULTS, takes
from fastlangevin.shards import RecordOptions

MODULES = (
    "",
    *(
        "advisor",
        "storage.stopped_chain",
        "checkpoint",
        "container",
        "data",
        "diagnostics",
        "storage.files",
        "fusion",
        "storage.generations",
        "losses",
    ),
    *(
        "mixture",
        "models",
        "noise",
        "ops",
        "pictures",
        "published",
        "rules",
        "runtime",
        "samplers",
        "schemes",
        "ladders",
    ),
    *("scores", "selftest", "shards", "stopping", "training"),
    *(f"compat.{name}" for name in ("diffusers", "k_diffusion", "ncsn", "ncsnv2", "ncsn_losses", "score_sde")),
)
# Modules whose functions and networks are formulas of others, or have one of their own to derive.
SOURCED = ("diagnostics", "losses", "models", "rules", "samplers", "ladders", "advisor", "compat.score_sde")
# Keyword arguments that several functions take.
OPTIONS = (
    *(SampleOptions, AddressOptions, StepOptions, RunOptions, ChainOptions, RecordOptions),
    *(ListOptions, LadderListOptions, StrictListOptions, StrictLadderListOptions, ObjectiveOptions, PCOptions),
)

SECTION = re.compile(r"(Args|Attributes|Returns|Yields|Raises):")
ENTRY = re.compile(r"((?:\*{0,2}\w+, )*\*{0,2}\w+): ")
SHAPE = re.compile(r"``\(|shape|\b[Aa]s (for|there|in)\b|0-dim|one-dimensional|likewise|broadcasts? to|``x``")
SOURCE = re.compile(r"[A-Z][a-zà-ž]+.{0,60}?\b(19|20)\d\d\b|\b(Tweedie|Philox4x32-10|NCSNv2)", re.DOTALL)


class Public(NamedTuple):
    """A name that users import."""

    name: str
    value: Any
    module: str


def _public() -> Iterator[Public]:
    seen: set[int] = set()
    for module in MODULES:
        holder = importlib.import_module(f"fastlangevin.{module}".rstrip("."))
        for name in holder.__all__:
            value = getattr(holder, name)
            if (inspect.isfunction(value) or inspect.isclass(value)) and id(value) not in seen:
                seen.add(id(value))
                yield Public(f"{module}.{name}".lstrip("."), value, value.__module__)


PUBLIC = list(_public())


def sections(documentation: str) -> dict[str, list[str]]:
    """The entries of each section of a docstring, each joined to one line; the text before them under ``""``."""
    found: dict[str, list[str]] = {"": []}
    current = ""
    for line in inspect.cleandoc(documentation).splitlines():
        head = SECTION.fullmatch(line)
        if head:
            current = head[1]
            found[current] = []
        elif current and line.startswith("     ") and found[current]:
            found[current][-1] += " " + line.strip()
        elif line:
            found[current].append(line.strip())
    return found


def entries(lines: list[str]) -> dict[str, str]:
    """What a section says of each name."""
    told = {}
    for line in lines:
        match = ENTRY.match(line)
        if match:
            told |= {name.lstrip("*"): line for name in match[1].split(", ")}
    return told


def parameters(value: Any) -> dict[str, inspect.Parameter]:
    """What a function, or a class, is called with; of enumerations, errors and abstract bases nothing."""
    if inspect.isclass(value) and issubclass(value, BaseException | enum.Enum):
        return {}
    try:
        taken = inspect.signature(value).parameters
    except ValueError:
        return {}
    return {name: each for name, each in taken.items() if name != "self" and not name.startswith("_")}


def raised(function: Callable[..., Any]) -> set[str]:
    """Of TypeError and ValueError, those that a function raises in its own body."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    names = {
        ast.unparse(node.exc).partition("(")[0] for node in ast.walk(tree) if isinstance(node, ast.Raise) and node.exc
    }
    return names & {"TypeError", "ValueError"}


def told_options(kind: Any) -> dict[str, str]:
    """What the docstrings of a TypedDict, and of those that its docstring refers to, say of its keys."""
    text = kind.__doc__ or ""
    told = entries(sections(text)["Attributes"])
    for other in OPTIONS:
        if re.search(rf"\b{other.__name__}`", text) and other.__annotations__.items() < kind.__annotations__.items():
            told = told_options(other) | told
    return told


def by_name(told: dict[str, str], taken: dict[str, inspect.Parameter]) -> dict[str, str]:
    """Entries, of which one of options that a signature lists by their names stands for those names."""
    found: dict[str, str] = {}
    for name, line in told.items():
        kind = next((each for each in OPTIONS if f".{each.__name__}`" in line), None)
        found |= {name: line} if name in taken or kind is None else told_options(kind)
    return found


def faults(value: Any) -> list[str]:
    """What a docstring lacks, or says of what is not there."""
    # A class without one would show its base's.
    text = (vars(value).get("__doc__") if inspect.isclass(value) else value.__doc__) or ""
    if len(text.split()) < 3:
        return ["there is no docstring"]
    parts = sections(text)
    told = entries(parts.get("Args", []))
    taken = parameters(value)
    told = by_name(told, taken)
    known = {**told, **entries(parts.get("Attributes", []))} if inspect.isclass(value) else told
    found = [f"{name} is not told of" for name in taken if name not in known]
    found += [f"there is no {name}" for name in told if name not in taken]
    for name, each in taken.items():
        if is_tensor(each.annotation) and name in known and not SHAPE.search(known[name]):
            found.append(f"{name} has no shape")
    if inspect.isfunction(value):
        gives = inspect.signature(value).return_annotation
        back = " ".join(parts.get("Returns", []) + parts.get("Yields", []))
        if gives not in (None, "None", inspect.Signature.empty) and not back:
            found.append("it does not say what it returns")
        if is_tensor(gives) and back and not SHAPE.search(back):
            found.append("what it returns has no shape")
        errors = " ".join(parts.get("Raises", []))
        found += [f"it does not say that it raises {name}" for name in raised(value) if name not in errors]
    return found


def is_tensor(annotation: object) -> bool:
    return annotation in ("Tensor", "Tensor | None") or getattr(annotation, "__name__", "") == "Tensor"


@pytest.mark.parametrize("public", PUBLIC, ids=lambda public: public.name)
def test_a_docstring_tells_of_every_argument_and_result(public: Public) -> None:
    assert faults(public.value) == []


def test_samplers_list_the_options_that_they_take() -> None:
    assert DEFAULTS.keys() == ChainOptions.__annotations__.keys()
    ladders = (fl.annealed_langevin, fl.consistent_annealed, fl.predictor_corrector, fl.interpolation)
    for sampler, kind in ((fl.langevin, RunOptions), *((each, ChainOptions) for each in ladders)):
        listed = {name: each for name, each in inspect.signature(sampler).parameters.items() if name in DEFAULTS}
        listed.pop("init" if kind is RunOptions else "", None)  # which langevin has by its place
        assert {name: each.default for name, each in listed.items()} == {
            name: DEFAULTS[name] for name in DEFAULTS if name in kind.__annotations__
        }


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: options.__name__)
def test_options_are_told_of_where_they_are_kept(options: Any) -> None:
    told = told_options(options)
    assert told.keys() == options.__annotations__.keys()
    assert len(told) >= 4


def taken_options() -> Iterator[tuple[str, str, str]]:
    """Of each public function whose options are kept elsewhere: its name, what they are called, and where they are."""
    for public in PUBLIC:
        methods = vars(public.value).items() if inspect.isclass(public.value) else [("", public.value)]
        for method, function in methods:
            if not inspect.isfunction(function):
                continue
            for name, each in inspect.signature(function).parameters.items():
                kept = re.fullmatch(r"Unpack\[(\w+)\]", str(each.annotation))
                if kept:
                    text = (public.value if method == "__init__" else function).__doc__ or ""
                    told = entries(sections(text).get("Args", []))
                    yield f"{public.name}.{method}".rstrip("."), told.get(name, text), kept[1]


def test_whoever_takes_options_says_where_they_are_told_of() -> None:
    found = list(taken_options())
    assert len(found) >= 14
    listed = {*OPTIONS} - {SampleOptions, AddressOptions, StepOptions}  # whose takers list them by their names
    assert {kept for _, _, kept in found} == {options.__name__ for options in OPTIONS if options not in listed}
    # Or that they are those of another function, which says it.
    assert [name for name, told, kept in found if kept not in told and "as for :func:" not in told] == []


def test_the_package_tells_of_what_it_exports() -> None:
    text = fl.__doc__ or ""
    mentioned = set(re.findall(r":(?:func|class|mod):`(?:fastlangevin\.)?(\w+)`", text))
    for name in mentioned:
        assert hasattr(fl, name) or importlib.util.find_spec(f"fastlangevin.{name}"), name
    functions = {name for name in fl.__all__ if inspect.isfunction(getattr(fl, name))}
    assert functions - mentioned == {"dsm_loss"}  # of which DenoisingScoreMatching is the class
    losses = fl.losses.__doc__ or ""
    assert [name for name in fl.losses.__all__ if name.endswith("_loss") and name not in losses] == []


def has_source(value: Any) -> bool:
    """Whether the docstring of a value, its module or its package names a paper, its code, or a method's author."""
    kinds = [
        kind for kind in getattr(value, "__mro__", (value,)) if kind.__module__.startswith(("fastlangevin", "nowhere"))
    ]
    modules = [importlib.import_module(kind.__module__) for kind in kinds]
    texts = [value.__doc__, *(module.__doc__ for module in modules)]
    # A package of many functions has one table of sources.
    texts += [importlib.import_module(module.__package__).__doc__ for module in modules if module.__package__]
    return any(SOURCE.search(text or "") for text in texts)


FORMULAS = [
    public
    for public in PUBLIC
    if public.module.startswith(tuple(f"fastlangevin.{name}" for name in SOURCED))
    and (inspect.isfunction(public.value) or hasattr(public.value, "forward"))
] + [public for public in PUBLIC if public.name in ("randn", "rand", "step", "GaussianMixture", "data.logit")]
# What computes nothing of another's: tables, conversions, checks; and the mixture, whose module derives its formula.
PLAIN = {"check_sigmas", "ladders.check_sigmas", "diagnostics.by_level", "diagnostics.to_arviz", "GaussianMixture"}
PLAIN |= {"models.for_sampling"}


@pytest.mark.parametrize(
    "public", [each for each in FORMULAS if each.name not in PLAIN], ids=lambda public: public.name
)
def test_a_formula_has_a_source(public: Public) -> None:
    assert has_source(public.value)


def test_methods_have_docstrings() -> None:
    missing = [
        f"{public.name}.{name}"
        for public in PUBLIC
        if inspect.isclass(public.value)
        for name, method in vars(public.value).items()
        if inspect.isfunction(method)
        and not name.startswith("_")
        # Of a method that a base describes, the base's is the docstring.
        and not inspect.getdoc(getattr(public.value, name))
    ]
    assert missing == []


def test_modules_have_docstrings() -> None:
    for module in MODULES:
        assert importlib.import_module(f"fastlangevin.{module}".rstrip(".")).__doc__, module


# The twins: what the checks are there to find.


def good(x: str, *rest: int, y: int = 0) -> str:
    """Does something with x.

    Args:
        x, rest: some text.
        y: a number.

    Returns:
        Text.

    Raises:
        ValueError: never.
    """
    if y:
        raise ValueError("y")
    return x


def damaged(change: Callable[[str], str]) -> list[str]:
    copy = type(good)(good.__code__, good.__globals__, "good", good.__defaults__)
    copy.__kwdefaults__, copy.__annotations__ = good.__kwdefaults__, good.__annotations__
    # Python 3.13 takes the indentation of docstrings away itself.
    copy.__doc__ = change(inspect.cleandoc(good.__doc__ or ""))
    return faults(copy)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda text: text.replace("    y: a number.\n", ""), "y is not told of"),
        (lambda text: text.replace("x, rest:", "x:"), "rest is not told of"),
        (lambda text: text.replace("y: a", "z: a"), "there is no z"),
        (lambda text: text.replace("Returns:\n    Text.\n", ""), "it does not say what it returns"),
        (lambda text: text.replace("ValueError", "KeyError"), "it does not say that it raises ValueError"),
        (lambda text: "", "there is no docstring"),
    ],
)
def test_a_fault_is_found(change: Callable[[str], str], fault: str) -> None:
    assert damaged(lambda text: text) == []
    assert fault in damaged(change)


def test_options_that_are_listed_and_not_told_of_are_found() -> None:
    @takes(RunOptions, DEFAULTS)
    def vague(**options: Unpack[RunOptions]) -> None:
        """Moves a state by options.

        Args:
            options: those of :class:`fastlangevin.samplers.RunOptions`.
        """

    assert faults(vague) == []
    vague.__doc__ = (vague.__doc__ or "").replace("RunOptions", "Options")
    assert {"there is no options", *(f"{name} is not told of" for name in RunOptions.__annotations__)} == set(
        faults(vague)
    )


def test_a_tensor_without_a_shape_and_a_formula_without_a_source_are_found() -> None:
    def vague(x: Any) -> Any:
        """Moves x by the score, twice.

        Args:
            x: the state.

        Returns:
            The state.
        """

    vague.__annotations__ = {"x": "Tensor", "return": "Tensor"}
    assert faults(vague) == ["x has no shape", "what it returns has no shape"]
    module = ModuleType("nowhere")
    vague.__module__ = "nowhere"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(__import__("sys").modules, "nowhere", module)
        assert not has_source(vague)
        vague.__doc__ = "As in Song and Ermon (2019), equation 5."
        assert has_source(vague)


def test_all_that_users_meet_is_looked_at() -> None:
    names = {public.name for public in PUBLIC}
    assert len(names) > 200
    assert {
        "step",
        "randn",
        "annealed_langevin",
        "models.NCSN",
        "shards.sample",
        "rules.annealed",
        "losses.ssm_loss",
    } <= names
    assert set(fl.__all__) - names <= {"STREAM_VERSION", "__version__", *MODULES}


def test_docstrings_begin_with_what_a_thing_is_or_does() -> None:
    root = Path(fl.__file__).parent
    files = [*root.rglob("*.py"), *(root / "kernels").rglob("*.py")]
    assert len(files) > 250
    questions = {"What", "Where", "How", "Whether", "From", "Which", "When", "Who", "Why"}
    found = []
    for path in files:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                first, *_ = [*(ast.get_docstring(node) or "").split(), ""]
                found += [f"{path}: {getattr(node, 'name', 'the module')}"] if first in questions else []
    assert found == []
