"""The registered operations, and the one way from checked arguments to an implementation.

Whatever changes from step to step is a tensor in a schema: a Python float there would compile anew for every step size.
Eager calls go to the ``launch_*`` functions directly, which saves the dispatcher's few microseconds, unless something
sees them there: :mod:`fastlangevin.ops.memory` says when.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fastlangevin import reference
from fastlangevin.ops.arguments import Coefficient, elements_per_sample
from fastlangevin.runtime import choose

LIBRARY = torch.library.Library("fastlangevin", "DEF")

ADDRESS = "Tensor seed, Tensor draw, Tensor? sample_ids, SymInt sample_offset"
_UPDATE = f"Tensor c, Tensor a, Tensor? b, {ADDRESS}, int purpose, Tensor? noise, Tensor? mask, Tensor? known"
_STEP = f"{_UPDATE}, str impl"
# Apart from the plain ones, which a compiler may take for functions.
_WATCHED = f"{_UPDATE}, Tensor(z!) fault, bool freeze, str impl"


def register(schema: str, kernel: Callable[..., Any], fake: Callable[..., Any]) -> None:
    """An operation of this package: what it computes on any device, and the shapes that it returns."""
    name = schema[: schema.index("(")]
    LIBRARY.define(schema)
    LIBRARY.impl(name, kernel, "CompositeExplicitAutograd")
    torch.library.register_fake(f"fastlangevin::{name}", fake, lib=LIBRARY)


def sample_numbers(sample_ids: Tensor | None, offset: int, batch: int, device: torch.device) -> Tensor:
    """The ids of a batch as a tensor, int64 ``(B,)``."""
    if sample_ids is not None:
        return sample_ids
    return torch.arange(offset, offset + batch, dtype=torch.int64, device=device)


def launch_random(
    out: Tensor,
    seed: int | Tensor,
    draw: int | Tensor,
    sample_ids: Tensor | None,
    sample_offset: int,
    purpose: int,
    uniform: bool,
    impl: str,
) -> None:
    """Fill ``out`` with normals or uniforms."""
    launchers = choose(impl, out.device)[1]
    if out.numel() == 0:
        return
    view = out if out.ndim else out.view(1)
    if launchers is not None:
        launchers.randn(
            view,
            uniform=uniform,
            seed=seed,
            draw=draw,
            sample_ids=sample_ids,
            sample_offset=sample_offset,
            purpose=purpose,
        )
        return
    ids = sample_numbers(sample_ids, sample_offset, view.shape[0], view.device)
    make = reference.rand if uniform else reference.randn
    values = make(elements_per_sample(view.shape), ids, seed=seed, draw=draw, purpose=purpose)
    view.copy_(values.view(view.shape))


def launch_step(
    out: Tensor,
    x: Tensor,
    score: Tensor,
    c: Coefficient,
    a: Coefficient,
    b: Coefficient | None,
    seed: int | Tensor,
    draw: int | Tensor,
    sample_ids: Tensor | None,
    sample_offset: int,
    purpose: int,
    noise: Tensor | None,
    mask: Tensor | None,
    known: Tensor | None,
    impl: str,
    fault: Tensor | None = None,
    freeze: bool = False,
) -> None:
    """Write the update to ``out``, which may be ``x``; and to ``fault``, if given, what was not finite."""
    launchers = choose(impl, x.device)[1]
    if out.numel() == 0:
        return
    if not x.ndim:
        out, x, score = out.view(1), x.view(1), score.view(1)
        noise, mask, known = (each if each is None else each.view(1) for each in (noise, mask, known))
    shape = x.shape
    if launchers is not None:
        launchers.step(
            out,
            x,
            score,
            c=c.expand(shape) if isinstance(c, Tensor) else c,
            a=a.expand(shape) if isinstance(a, Tensor) else a,
            b=b.expand(shape) if isinstance(b, Tensor) else b,
            seed=seed,
            draw=draw,
            sample_ids=sample_ids,
            sample_offset=sample_offset,
            purpose=purpose,
            noise=noise,
            mask=None if mask is None else mask.expand(shape),
            known=known,
            fault=fault,
            freeze=freeze,
        )
        return
    address = seed, draw, sample_ids, sample_offset, purpose
    out.copy_(plain_step(x, score, c, a, b, *address, noise, mask, known, fault, freeze))


def plain_step(
    x: Tensor,
    score: Tensor,
    c: Coefficient,
    a: Coefficient,
    b: Coefficient | None,
    seed: int | Tensor,
    draw: int | Tensor,
    sample_ids: Tensor | None,
    sample_offset: int,
    purpose: int,
    noise: Tensor | None,
    mask: Tensor | None,
    known: Tensor | None,
    fault: Tensor | None = None,
    freeze: bool = False,
) -> Tensor:
    """The update in plain PyTorch, which every transform of it sees into."""
    if noise is None and b is not None:
        shape = x.shape if x.ndim else (1,)
        ids = sample_numbers(sample_ids, sample_offset, shape[0], x.device)
        noise = reference.randn(elements_per_sample(shape), ids, seed=seed, draw=draw, purpose=purpose).view(x.shape)
    result = reference.step(x, score, c, a, b, noise, mask, known)
    return result if fault is None else reference.watch(result, x, fault, draw, freeze)


def _random(
    like: Tensor,
    seed: Tensor,
    draw: Tensor,
    sample_ids: Tensor | None,
    sample_offset: int,
    purpose: int,
    uniform: bool,
    impl: str,
) -> Tensor:
    out = torch.empty_like(like)
    launch_random(out, seed, draw, sample_ids, sample_offset, purpose, uniform, impl)
    return out


def _step(x: Tensor, score: Tensor, *rest: object) -> Tensor:
    out = torch.empty_like(x)
    launch_step(out, x, score, *rest)  # type: ignore[arg-type]
    return out


def _step_(x: Tensor, score: Tensor, *rest: object) -> None:
    launch_step(x, x, score, *rest)  # type: ignore[arg-type]


def _watched_step(x: Tensor, score: Tensor, *rest: object) -> Tensor:
    out = torch.empty_like(x)
    _launch_watched(out, x, score, *rest)
    return out


def _watched_step_(x: Tensor, score: Tensor, *rest: object) -> None:
    _launch_watched(x, x, score, *rest)


def _launch_watched(out: Tensor, x: Tensor, score: Tensor, *rest: Any) -> None:
    *update, fault, freeze, impl = rest
    arguments: tuple[Any, ...] = (*update, impl, fault, freeze)
    launch_step(out, x, score, *arguments)


def _fake_like(x: Tensor, *rest: object) -> Tensor:
    return torch.empty_like(x)


def _fake_nothing(x: Tensor, *rest: object) -> None:
    return None


register(f"random(Tensor like, {ADDRESS}, int purpose, bool uniform, str impl) -> Tensor", _random, _fake_like)
register(f"step(Tensor x, Tensor score, {_STEP}) -> Tensor", _step, _fake_like)
register(f"step_(Tensor(a!) x, Tensor score, {_STEP}) -> ()", _step_, _fake_nothing)
register(f"watched_step(Tensor x, Tensor score, {_WATCHED}) -> Tensor", _watched_step, _fake_like)
register(f"watched_step_(Tensor(a!) x, Tensor score, {_WATCHED}) -> ()", _watched_step_, _fake_nothing)
