"""Launches of Triton kernels that skip Triton's binder, which takes longer than a small kernel runs.

Triton compiles a variant of a kernel for every set of argument types, of pointers and sizes that 16 divides, of None
and of compile-time constants, and finds the set anew at each launch. Here the first launch of a set is Triton's own;
the variant that it returns is kept by a key that separates all that Triton separates, and launched by itself from then
on, with Triton's hooks. Everything that is not as expected goes through Triton: its interpreter, another version or
back end, an argument of an unknown kind, a hook before its binder. ``FASTLANGEVIN_DIRECT_LAUNCH=0`` or
:func:`use_direct_launch` turn this off.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import triton
from torch import Tensor
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from ..environment import switch
from .layout import Call

__all__ = ["Shortcut", "launch", "use_direct_launch"]

# The versions whose specialisation is that of _Variants.bind, in order; 3.10 and later are not known.
VERSIONS = (3, 6), (3, 9)
# Kept launches of a Shortcut: one for each shape and layout.
KEPT = 4096

_enabled = switch("FASTLANGEVIN_DIRECT_LAUNCH", True)


def use_direct_launch(enabled: bool) -> None:
    """Returns whether compiled kernels are launched directly (the default) or through Triton, in this process."""
    global _enabled
    _enabled = bool(enabled)


class _Parameter(NamedTuple):
    name: str
    is_constant: bool
    is_specialised: bool
    is_aligned: bool
    is_typed: bool


@functools.cache
def _is_known() -> bool:
    """Returns whether this Triton is one whose rules are followed here."""
    try:
        version = tuple(int(part) for part in triton.__version__.split(".")[:2])
        runtime = triton.knobs.runtime
        found = hasattr(triton.compiler.CompiledKernel, "__getitem__") and hasattr(runtime, "launch_enter_hook")
        return VERSIONS[0] <= version <= VERSIONS[1] and found and driver.active.get_current_target().backend == "cuda"
    except Exception:
        # No driver, a version that is no number, an attribute that is gone: Triton then says itself what is the matter.
        return False


def _circumstances(kernel: Any) -> tuple[Any, ...] | None:
    """Triton's settings beside arguments and options; None if a launch must go through Triton."""
    runtime = triton.knobs.runtime
    if not _enabled or kernel.pre_run_hooks or getattr(runtime, "add_stages_inspection_hook", None) is not None:
        return None
    instrumented = getattr(triton.knobs.compilation, "instrumentation_mode", None)
    return kernel.debug, runtime.debug, instrumented, driver.active.get_current_device()


class _Variants:
    """The compiled variants of a kernel."""

    def __init__(self, kernel: Any) -> None:
        self.compiled: dict[tuple[Any, ...], Any] = {}
        self.parameters = [
            _Parameter(
                each.name,
                bool(each.is_constexpr),
                not each.do_not_specialize,
                not each.do_not_specialize_on_alignment,
                bool(each.annotation_type),
            )
            for each in kernel.params
        ]

    def bind(self, arguments: dict[str, Any]) -> tuple[list[Any], list[Any]] | None:
        """The specialisation key and the arguments in their order, pointers as numbers; None for unknown kinds."""
        key: list[Any] = []
        values: list[Any] = []
        for name, is_constant, is_specialised, is_aligned, is_typed in self.parameters:
            value = arguments[name]
            values.append(value)
            if is_constant or value is None:
                key.append(value)
            elif isinstance(value, Tensor):
                pointer = values[-1] = value.data_ptr()
                key.append(value.dtype)
                key.append(is_specialised and is_aligned and pointer % 16 == 0)
            elif type(value) is int:
                # A parameter without a type has the narrowest of three that holds the value.
                key.append(0 if is_typed else 32 if -(2**31) <= value < 2**31 else 64 if value < 2**63 else -64)
                if is_specialised:
                    key.append(value == 1)
                    key.append(is_aligned and value % 16 == 0)
            elif type(value) is float:
                key.append(float)
            else:
                return None
        return key, values


_variants: dict[int, tuple[Any, _Variants | None]] = {}


def _variants_of(kernel: Any) -> _Variants | None:
    # By identity: the hash of a JITFunction is taken from its source each time.
    found = _variants.get(id(kernel))
    if found is None:
        try:
            usable = type(kernel) is JITFunction and _is_known()
            found = kernel, _Variants(kernel) if usable else None
        except AttributeError:
            found = kernel, None
        _variants[id(kernel)] = found
    return found[1]


def launch(kernel: Any, grid: Sequence[int], arguments: dict[str, Any], **options: Any) -> Any:
    """``kernel[grid](**arguments, **options)``.

    Returns:
        The compiled variant that was launched, or None where it is not one to be launched directly.
    """
    variants = _variants_of(kernel)
    circumstances = None if variants is None else _circumstances(kernel)
    bound = None
    if variants is not None and circumstances is not None and len(arguments) == len(variants.parameters):
        bound = variants.bind(arguments)
    if variants is None or circumstances is None or bound is None:
        kernel[grid](**arguments, **options)
        return None
    key = *circumstances, *options.items(), *bound[0]
    compiled = variants.compiled.get(key)
    if compiled is None:
        made = kernel[grid](**arguments, **options)
        # A hook may have taken the launch's place, and a compilation may still be under way.
        if not isinstance(made, triton.compiler.CompiledKernel):
            return None
        variants.compiled[key] = made
        return made
    x, y, z = (*grid, 1, 1)[:3]
    compiled[x, y, z](*bound[1])
    return compiled


class Shortcut:
    """Launches of a kernel that differ in some arguments alone, which the key of the launch does not tell.

    Args:
        kernel: the kernel.
    """

    def __init__(self, kernel: Any) -> None:
        self.kernel = kernel
        self.places = {name: place for place, name in enumerate(kernel.arg_names)}
        self.kept: dict[tuple[Any, ...], tuple[Callable[..., Any], list[Any], list[int]]] = {}

    def circumstances(self) -> tuple[Any, ...] | None:
        """The prefix of a key; None if nothing may be launched by a key."""
        return None if _variants_of(self.kernel) is None else _circumstances(self.kernel)

    def launch(self, key: tuple[Any, ...], *changing: Any) -> bool:
        """Launches with the arguments that change, in their order; False where there is nothing of this key."""
        found = self.kept.get(key)
        if found is None:
            return False
        runner, template, order = found
        values = template.copy()
        for place, value in zip(order, changing, strict=True):
            values[place] = value
        runner(*values)
        return True

    def keep(self, key: tuple[Any, ...], compiled: Any, call: Call, changing: Sequence[str]) -> None:
        """Keeps what :func:`launch` returned for a key, and of the call the arguments but those named in ``changing``.

        Whatever values the caller passes for these under the key must be of one kind to Triton.
        """
        if len(self.kept) >= KEPT:
            self.kept.clear()
        values = [call.arguments[name] for name in self.places]
        template = [each.data_ptr() if isinstance(each, Tensor) else each for each in values]
        self.kept[key] = compiled[call.grid], template, [self.places[name] for name in changing]
