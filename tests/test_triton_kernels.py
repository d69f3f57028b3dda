"""The Triton kernels have the bits of the reference: on CUDA where there is a device, else in Triton's interpreter."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from two_terms import formula, update_of

from fastlangevin import reference
from fastlangevin.kernels.address import Address
from fastlangevin.reference import signed64

pytest.importorskip("triton")

from fastlangevin.kernels.triton import layout, philox, ptx, randn, step

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
ADDRESS: dict[str, Any] = {
    "seed": 0x0123456789ABCDEF,
    "draw": 7,
    "sample_ids": None,
    "sample_offset": 0,
    "purpose": 1,
}


@functools.cache
def values(shape: tuple[int, ...], dtype: torch.dtype, salt: int) -> Tensor:
    generator = torch.Generator().manual_seed(salt)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).to(DEVICE)


def random_of(shape: torch.Size, make: Callable[..., Tensor] = reference.randn, **address: Any) -> Tensor:
    """The reference's random numbers for a batch of this shape."""
    address = {**ADDRESS, **address}
    ids = address.pop("sample_ids")
    offset = address.pop("sample_offset")
    if ids is None:
        ids = torch.arange(shape[0], device=DEVICE) + offset
    return make(math.prod(shape[1:]), ids, **address).reshape(shape)


def check_step(
    x: Tensor,
    score: Tensor | None = None,
    *,
    c: float | Tensor = 0.9,
    a: float | Tensor = 0.3,
    b: float | Tensor | None = 1.1,
    noise: Tensor | None = None,
    mask: Tensor | None = None,
    known: Tensor | None = None,
    out: Tensor | None = None,
    **address: Any,
) -> None:
    """Run the launcher on these tensors and ask for the reference's bits."""
    if score is None:
        score = values(tuple(x.shape), x.dtype, 2)
    if out is None:
        out = torch.empty_like(x)
    z = random_of(x.shape, **address) if noise is None else noise
    want = formula(x, score, c, a, b, z, mask, known)
    where = {**ADDRESS, **address}
    step.step(out, update_of(x, score, c=c, a=a, b=b, noise=noise, mask=mask, known=known, **where))
    torch.testing.assert_close(out, want, rtol=0, atol=0, equal_nan=True)


def check_randn(out: Tensor, uniform: bool = False, **address: Any) -> None:
    """As :func:`check_step`, for the launcher that writes noise."""
    want = random_of(out.shape, reference.rand if uniform else reference.randn, **address).to(out.dtype)
    randn.randn(out, Address(**{**ADDRESS, **address}), uniform=uniform)
    assert torch.equal(out, want)


def test_constants_are_the_references() -> None:
    for name, want in (("LOG", reference.random.LOG_Q), ("SIN", reference.random.SIN), ("COS", reference.random.COS)):
        assert tuple(getattr(philox, f"{name}_{index}").value for index in range(len(want))) == want
    assert (ptx.LN4_HIGH.value, ptx.LN4_LOW.value) == (reference.random.LN4_HIGH, reference.random.LN4_LOW)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(3,), (4, 1), (3, 2), (5, 3), (2, 5), (3, 3, 4), (2, 8, 64)], ids=str)
def test_shapes_and_dtypes(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    check_step(values(shape, dtype, 1))
    check_randn(torch.empty(shape, dtype=dtype, device=DEVICE))
    check_randn(torch.empty(shape, dtype=dtype, device=DEVICE), uniform=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", [(1500, 2), (300, 4), (90, 12), (40, 27), (17, 136), (1, 5001), (2, 4096)], ids=str)
def test_tiles(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    x = values(shape, dtype, 1)
    check_step(x)
    # A row that two programs update is the same in another tensor, and updated twice in its own.
    own = x.clone()
    check_step(own, out=own)


@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0), (2, 0, 5)], ids=str)
def test_empty(shape: tuple[int, ...]) -> None:
    x = torch.empty(shape, device=DEVICE)
    step.step(x, update_of(x, x, c=1.0, a=1.0, b=1.0, **ADDRESS))
    randn.randn(x, Address(**ADDRESS), uniform=False)


@pytest.mark.parametrize("score_dtype", DTYPES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_score_of_another_dtype(dtype: torch.dtype, score_dtype: torch.dtype) -> None:
    for shape in ((2, 3, 8), (2, 7)):
        check_step(values(shape, dtype, 1), values(shape, score_dtype, 2))


def views() -> dict[str, Callable[[Tensor], Tensor]]:
    """A tensor (4, 6, 2, 8) with the same values in another memory layout."""

    def strided(x: Tensor) -> Tensor:
        wide = x.new_zeros(*x.shape[:-1], 3 * x.shape[-1])
        wide[..., 1::3] = x
        return wide[..., 1::3]

    def cropped(x: Tensor) -> Tensor:
        wide = x.new_zeros(x.shape[0] + 1, x.shape[1] + 2, *x.shape[2:])
        wide[1:, 1:-1] = x
        return wide[1:, 1:-1]

    def rows_apart(x: Tensor) -> Tensor:
        wide = x.new_zeros(*x.shape[:-1], x.shape[-1] + 2)
        wide[..., 1:-1] = x
        return wide[..., 1:-1]

    def offset(x: Tensor) -> Tensor:
        flat = x.new_zeros(x.numel() + 1)
        flat[1:] = x.flatten()
        return flat[1:].view(x.shape)

    return {
        "channels_last": lambda x: x.contiguous(memory_format=torch.channels_last),
        "transposed": lambda x: x.transpose(0, 3).contiguous().transpose(0, 3),
        "reversed": lambda x: x.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0),
        "strided": strided,
        "cropped": cropped,
        "rows_apart": rows_apart,
        "misaligned": offset,
    }


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", views())
def test_memory_layouts(name: str, dtype: torch.dtype) -> None:
    view = views()[name]
    x, score = values((4, 6, 2, 8), dtype, 1), values((4, 6, 2, 8), dtype, 2)
    check_step(view(x), view(score), out=view(x.clone()))
    check_step(view(x), score, out=x.clone())
    check_step(x, score, out=view(x.clone()))
    check_randn(view(x.clone()))


def test_a_layout_touches_nothing_between_its_elements() -> None:
    base = torch.full((3, 4, 9), 5.0, device=DEVICE)
    randn.randn(base[:, 1:3, ::2], Address(**ADDRESS), uniform=False)
    base[:, 1:3, ::2] = 5.0
    assert base.eq(5.0).all()


def test_expanded_operands() -> None:
    shape = (3, 2, 4, 5)
    x = values(shape, torch.float32, 1)
    score = values((1, 2, 1, 5), torch.float32, 2).expand(shape)
    mask = values((1, 1, 4, 5), torch.float32, 3) > 0
    known = values((3, 1, 1, 1), torch.float32, 4).expand(shape)
    noise = values((2, 1, 1), torch.float32, 5).expand(shape)
    check_step(x, score, mask=mask, known=known)
    check_step(x, score, noise=noise, mask=mask, known=known)


def test_many_dimensions() -> None:
    x = values((2, 3, 2, 3, 2, 3, 2, 3), torch.float32, 1)
    alternate = x.permute(0, 7, 2, 5, 4, 3, 6, 1)
    check_step(alternate, values(tuple(alternate.shape), torch.float32, 2))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(3, 8), (3, 5)], ids=str)
def test_in_place(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    x = values(shape, dtype, 1).clone()
    check_step(x, out=x)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(5, 2, 8), (5, 3, 3)], ids=str)
@pytest.mark.parametrize("kinds", [(0, 1, 2), (1, 2, 3), (2, 3, 0), (3, 0, 1)], ids=str)
def test_coefficients(kinds: tuple[int, ...], shape: tuple[int, ...], dtype: torch.dtype) -> None:
    compute = torch.float64 if dtype == torch.float64 else torch.float32
    every: list[float | Tensor] = [
        1 / 3,
        torch.tensor(0.7, dtype=compute, device=DEVICE),
        values((5, 2), compute, 6)[:, 1].reshape(-1, 1, 1),
        values(shape, compute, 7),
    ]
    c, a, b = (every[kind] for kind in kinds)
    check_step(values(shape, dtype, 1), c=c, a=a, b=b)


@pytest.mark.parametrize("value", [0.0, -0.0, 1, 0.1, -1e-30, 1e30], ids=str)
def test_float_coefficients_keep_their_precision(value: float) -> None:
    for dtype in (torch.float32, torch.float64):
        check_step(values((2, 8), dtype, 1), c=value, a=value, b=value)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_without_noise(dtype: torch.dtype) -> None:
    for shape in ((2, 8), (2, 3)):
        x = values(shape, dtype, 1)
        check_step(x, b=None)
        check_step(x, b=None, noise=values(shape, torch.float32, 3))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("noise_dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
def test_noise_given(dtype: torch.dtype, noise_dtype: torch.dtype) -> None:
    for shape in ((2, 16), (3, 5)):
        check_step(values(shape, dtype, 1), noise=values(shape, noise_dtype, 3))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(3, 2, 8), (3, 2, 3)], ids=str)
def test_mask_and_known(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    mask = values(shape, torch.float32, 8) > 0
    check_step(values(shape, dtype, 1), mask=mask, known=values(shape, dtype, 9))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_special_values(dtype: torch.dtype) -> None:
    special = [0.0, -0.0, math.inf, -math.inf, math.nan, 1.0, torch.finfo(dtype).tiny, 0.5]
    x = torch.tensor([special, special[::-1]], dtype=dtype, device=DEVICE)
    check_step(x, torch.ones_like(x), b=0.5)
    check_step(torch.ones_like(x), x, b=None)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_halves_are_rounded_to_even(dtype: torch.dtype) -> None:
    grid = torch.arange(0x3C00, 0x3C41, dtype=torch.int16, device=DEVICE).view(dtype).float()[None]
    halves = (grid[:, :-1] + grid[:, 1:]) / 2
    check_step(torch.zeros_like(halves, dtype=dtype), halves, a=1.0, b=None)
    assert not torch.equal(halves.to(dtype), grid[:, 1:].to(dtype)), "rounded away from zero they would be the same"


@pytest.mark.parametrize("seed", [0, 1, 2**31, 2**32 - 1, 2**32, 2**63, 2**64 - 1])
def test_seeds(seed: int) -> None:
    x = values((2, 8), torch.float32, 1)
    check_step(x, seed=seed)
    check_step(x, seed=torch.tensor(signed64(seed), device=DEVICE))
    check_randn(torch.empty(2, 8, device=DEVICE), seed=seed)


def test_a_seed_for_each_sample() -> None:
    seeds = torch.tensor([0, -1, 2**62 + 5, 3, 1 << 32], device=DEVICE)
    for shape in ((5, 3), (5, 8), (5, 2, 64)):
        check_step(values(shape, torch.float32, 1), seed=seeds)
    check_step(values((5, 8), torch.float32, 1), seed=torch.stack((seeds, seeds + 1), 1)[:, 1])
    check_step(values((5, 8), torch.float32, 1), seed=seeds[:1].expand(5))


@pytest.mark.parametrize("draw", [0, 1, 2**31 - 1, 2**31, 2**32 - 1])
def test_draws(draw: int) -> None:
    x = values((2, 8), torch.float32, 1)
    check_step(x, draw=draw)
    check_step(x, draw=torch.tensor(draw, device=DEVICE))
    check_randn(torch.empty(2, 8, device=DEVICE), draw=torch.tensor(draw, device=DEVICE))


@pytest.mark.parametrize("purpose", [0, 127, 128, 255])
def test_purposes(purpose: int) -> None:
    check_randn(torch.empty(2, 8, device=DEVICE), purpose=purpose)


def test_sample_ids() -> None:
    ids = torch.tensor([0, 2**32 - 1, 2**32, 2**56 - 1, 5], device=DEVICE)
    for shape in ((5, 3), (5, 8)):
        check_step(values(shape, torch.float32, 1), sample_ids=ids)
    check_randn(torch.empty(5, 8, device=DEVICE), sample_ids=torch.stack((ids, ids), 1)[:, 0])
    for offset in (1, 2**31, 2**32 - 2, 2**56 - 5):
        check_step(values((5, 8), torch.float32, 1), sample_offset=offset)


def test_every_sample_has_its_own_noise_in_any_batch() -> None:
    whole = torch.empty(40, 20, device=DEVICE)
    randn.randn(whole, Address(**ADDRESS), uniform=False)
    part = torch.empty(3, 20, device=DEVICE)
    ids = torch.tensor([39, 0, 17], device=DEVICE)
    randn.randn(part, Address(**{**ADDRESS, "sample_ids": ids}), uniform=False)
    assert torch.equal(part, whole[[39, 0, 17]])
    assert whole.unique().numel() > 790


@pytest.mark.parametrize("groups", [layout.WIDE.groups, layout.NARROW.groups])
def test_tile_sizes_waste_little_and_cover_lines(groups: int) -> None:
    for count in (*range(1, 3000), 2**20, 2**20 + 1, 3 * 2**30, 2**32):
        size = layout.tile_groups(count, groups)
        assert 1 <= size <= groups
        assert size == count or size >= 8
        if count > 32:
            assert groups % size == 0
            assert -count % size <= max(count // 32, 7)


def test_launch_grids_reach_every_element() -> None:
    def grid(shape: tuple[int, ...]) -> tuple[tuple[int, int, int], dict[str, Any]]:
        out = torch.empty(1, device=DEVICE).expand(shape)
        call = randn.prepare(out, uniform=False, address=Address(**ADDRESS))
        return call.grid, call.arguments

    long = ((1, 2**34), (1, 2**31), (1, 2**31 - 4))
    for shape in ((2**24, 1024), (2**33, 1), *long, (2**16 + 1, 2**12), (2**31 + 1, 3)):
        (x, y, z), arguments = grid(shape)
        assert x < 2**31
        assert max(y, z) <= 65535
        assert x * arguments["TILE"] >= arguments["count"]
        assert y * z * (arguments["GROUPS"] // arguments["TILE"]) >= shape[0]
        assert arguments["IS_LONG"] == (math.prod(shape[1:]) >= 2**31)


def test_long_samples_take_the_same_path_in_64_bits() -> None:
    x = values((3, 4, 5), torch.float32, 1).transpose(1, 2)
    out = torch.empty_like(x)
    call = randn.prepare(out, uniform=False, address=Address(**ADDRESS))
    options = {"num_warps": call.launch.num_warps, "enable_fp_fusion": False}
    randn.randn_kernel[call.grid](**{**call.arguments, "IS_LONG": True}, **options)
    assert torch.equal(out, random_of(out.shape))
