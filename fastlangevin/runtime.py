"""Chooses the implementation, and explains the choice behind ``impl="auto"``.

    triton      CUDA tensors (and any tensor under the Triton interpreter, TRITON_INTERPRET=1)
    cpp         CPU tensors
    reference   any tensor: plain PyTorch

``FASTLANGEVIN_IMPL`` replaces ``"auto"`` for a whole process. It is read at the first use, not at import.
"""

from __future__ import annotations

import functools
import importlib.util
import logging
import os
import sys
import threading
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor

from fastlangevin import kernels_link
from fastlangevin.kernels.address import Address
from fastlangevin.reference import launchers as reference
from fastlangevin.values import shown

__all__ = ["Implementation", "choose", "choose_for", "explain", "retry"]

Implementation = Literal["auto", "triton", "cpp", "reference"]
NAMES = get_args(Implementation)

logger = logging.getLogger("fastlangevin")


class Launchers(NamedTuple):
    """The functions of an implementation, each with the arguments that :mod:`fastlangevin.ops` passes.

    Where an implementation has none of its own, it is the reference's.
    """

    name: str
    step: Callable[..., Tensor]
    randn: Callable[..., None]
    perturb: Callable[..., None]
    dsm: Callable[..., None]
    norms: Callable[..., None]
    rescale: Callable[..., None]
    instance_norm: Callable[..., None]
    instance_norm_backward: Callable[..., None]
    group_norm: Callable[..., None]
    group_norm_backward: Callable[..., None]
    add_elu: Callable[..., None]
    mixture_score: Callable[..., None]
    mlp_chain: Callable[..., None]
    # Shorter ways of plain calls, which fastlangevin.ops.quick recognises.
    quick_step: Callable[..., Tensor | None] | None = None
    quick_randn: Callable[..., None] | None = None
    quick_perturb: Callable[..., tuple[Tensor, Tensor] | None] | None = None
    quick_dsm: Callable[..., tuple[Any, Tensor | None] | None] | None = None
    # Whole chains, which have no plain form: samplers make them update by update.
    mixture_chain: Callable[..., None] | None = None
    mixture_chain_features: int = 0  # the most elements of a sample that it takes


_REFERENCE = Launchers(name="reference", **{name: getattr(reference, name) for name in reference.__all__})


class UnavailableError(RuntimeError):
    """An implementation that cannot run here: the message says why and what to do."""


_failures: dict[str, tuple[tuple[object, ...], str]] = {}
_attempting = threading.RLock()


def _attempt(what: str, circumstances: Callable[[], tuple[object, ...]], load: Callable[[], None]) -> None:
    """Calls ``load``, unless it has failed in the same circumstances: then what it raised is raised again.

    A build that fails may take minutes, and every explicit call asks for it.
    """
    with _attempting:
        now = circumstances()
        before, message = _failures.get(what, (None, ""))
        if before == now:
            raise UnavailableError(
                f"{message}\nThis was tried once; fastlangevin.runtime.retry() lets it be tried again"
            )
        try:
            load()
        except UnavailableError as error:
            _failures[what] = now, str(error)
            raise
        _failures.pop(what, None)


def retry() -> None:
    """Forgets what could not be loaded or built, so that the next call tries again.

    A failure is kept for the process: of the C++ kernels until sources, compiler or environment change, of Triton until
    ``CC`` or ``PATH`` do, and ``impl="auto"`` stays with what it took at first. Call this once something else was
    mended, such as a full disk.
    """
    with _attempting:
        _failures.clear()
        _automatic.cache_clear()


def _interpreting() -> bool:
    return os.environ.get("TRITON_INTERPRET") == "1"


@functools.cache
def _cpp() -> Launchers:
    from fastlangevin.kernels.cpp import add_elu, build, dsm, mixture, mlp_chain, native, normalisation, sample_norms

    def load() -> None:
        try:
            native.load()
        except (RuntimeError, OSError) as error:
            raise UnavailableError(f"the C++ kernels cannot be used: {error}") from error

    _attempt("cpp", build.circumstances, load)
    return Launchers(
        name="cpp",
        step=native.step,
        randn=native.randn,
        perturb=dsm.perturb,
        quick_step=native.quick_step,
        quick_randn=native.quick_randn,
        quick_perturb=dsm.quick_perturb,
        quick_dsm=dsm.quick_dsm,
        dsm=dsm.dsm,
        norms=sample_norms.norms,
        rescale=reference.rescale,
        instance_norm=normalisation.instance_norm,
        instance_norm_backward=normalisation.instance_norm_backward,
        group_norm=normalisation.group_norm,
        group_norm_backward=normalisation.group_norm_backward,
        add_elu=add_elu.add_elu,
        mixture_score=mixture.mixture_score,
        mixture_chain=mixture.chain,
        mixture_chain_features=mixture.MAX_FEATURES,
        mlp_chain=mlp_chain.mlp_chain,
    )


@functools.cache
def _triton(device_type: str) -> Launchers:
    if importlib.util.find_spec("triton") is None:
        raise UnavailableError("Triton is not installed; install it with: pip install triton")
    if device_type == "cpu" and not _interpreting():
        raise UnavailableError(
            "Triton runs on GPUs; for a CPU tensor use impl='cpp' or 'reference', or set TRITON_INTERPRET=1 "
            "before the program starts to run the kernels in Triton's interpreter"
        )
    from fastlangevin.kernels.triton import mixture_chain
    from fastlangevin.kernels.triton.add_elu import add_elu
    from fastlangevin.kernels.triton.dsm import dsm
    from fastlangevin.kernels.triton.group_norm import group_norm
    from fastlangevin.kernels.triton.group_norm_backward import group_norm_backward
    from fastlangevin.kernels.triton.instance_norm import instance_norm
    from fastlangevin.kernels.triton.instance_norm_backward import instance_norm_backward
    from fastlangevin.kernels.triton.mixture import mixture_score
    from fastlangevin.kernels.triton.mlp_chain import mlp_chain
    from fastlangevin.kernels.triton.perturb import perturb
    from fastlangevin.kernels.triton.randn import randn
    from fastlangevin.kernels.triton.rescale import rescale
    from fastlangevin.kernels.triton.sample_norms import norms
    from fastlangevin.kernels.triton.step import step

    def probe() -> None:
        result = torch.empty(1, 4, dtype=torch.float32, device=device_type)
        try:
            randn(result, Address(0, 0, None, 0, 0), uniform=False)
        except Exception as error:
            # A missing compiler, Python.h or driver, an unsupported device: Triton has no one type for these.
            raise UnavailableError(
                f"Triton cannot compile and run a kernel on {device_type}: {type(error).__name__}: {error}; it needs a "
                "C compiler and Python's headers at run time (Debian: apt-get install gcc python3-dev)"
            ) from error

    if not _interpreting():
        _attempt(f"triton on {device_type}", lambda: tuple(map(os.environ.get, ("CC", "PATH"))), probe)
    return Launchers(
        name="triton",
        step=step,
        randn=randn,
        perturb=perturb,
        dsm=dsm,
        norms=norms,
        rescale=rescale,
        instance_norm=instance_norm,
        instance_norm_backward=instance_norm_backward,
        group_norm=group_norm,
        group_norm_backward=group_norm_backward,
        add_elu=add_elu,
        mixture_score=mixture_score,
        mixture_chain=mixture_chain.chain,
        mixture_chain_features=mixture_chain.MAX_FEATURES,
        mlp_chain=mlp_chain,
    )


def _load(name: str, device_type: str) -> Launchers:
    """The launchers of an implementation. Raises UnavailableError."""
    if name == "reference":
        return _REFERENCE
    why = kernels_link.lost()
    if why is not None and kernels_link.NAME not in sys.modules:
        raise UnavailableError(f"{why}, or use impl='reference'")
    if name == "triton":
        return _triton(device_type)
    if device_type != "cpu":
        raise UnavailableError(
            f"the C++ kernels run on CPU tensors, not {device_type}; use impl='triton' or 'reference'"
        )
    return _cpp()


@functools.cache
def _automatic(device_type: str) -> tuple[str, Launchers]:
    wanted = os.environ.get("FASTLANGEVIN_IMPL", "").strip() or "auto"
    if wanted not in NAMES:
        raise ValueError(f"FASTLANGEVIN_IMPL must be one of {', '.join(NAMES)}, got {shown(wanted)}")
    if wanted != "auto":
        return wanted, _load(wanted, device_type)
    best = "cpp" if device_type == "cpu" else "triton"
    try:
        module = _load(best, device_type)
    except UnavailableError as reason:
        logger.warning("impl='auto' uses the reference implementation on %s: %s", device_type, reason)
        return "reference", _REFERENCE
    logger.info("impl='auto' uses %s on %s", best, device_type)
    return best, module


def choose(impl: str, device: torch.device) -> tuple[str, Launchers]:
    """The implementation for tensors on a device: its name, and its launchers.

    Args:
        impl: ``"auto"``, or the name of an implementation.
        device: of the tensors.

    Returns:
        Name and launchers.

    Raises:
        RuntimeError: an explicit ``impl`` cannot run; the message says why and what to do.
        ValueError: ``impl`` is not known.
    """
    return choose_for(impl, device.type)


def choose_for(impl: str, device_type: str) -> tuple[str, Launchers]:
    """:func:`choose` for a type of device.

    Args:
        impl: as there.
        device_type: such as ``"cpu"``.

    Returns:
        As there.

    Raises:
        RuntimeError, ValueError: as there.
    """
    if impl == "auto":
        return _automatic(device_type)
    if impl not in NAMES:
        raise ValueError(f"impl must be one of {', '.join(NAMES)}, got {shown(impl)}")
    return impl, _load(impl, device_type)


def explain(device_type: str) -> dict[str, str]:
    """For each implementation, "available" or the reason why it is not, for tensors on a type of device.

    Args:
        device_type: such as ``"cuda"``.

    Returns:
        By name of the implementation.
    """
    reasons = {}
    for name in NAMES[1:]:
        try:
            _load(name, device_type)
            reasons[name] = "available"
        except UnavailableError as reason:
            reasons[name] = str(reason)
    return reasons
