"""The kernels' inline PTX has the stream's bits: the short form of ``python -m tests.long.inline_ptx``.

Neither the interpreter nor a machine without a GPU runs PTX, so the texts are executed by the script's own machine,
whose instructions are checked first.
"""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")

from fastlangevin.kernels.triton import ptx
from fastlangevin.reference import random as reference
from tests.long import inline_ptx as machine


def words() -> Tensor:
    """Both ends of the range, the fold in its middle, every power of two and its neighbours, and a spread of others."""
    near = torch.arange(4000)
    powers = 2 ** torch.arange(32)
    # Above 2^24 a conversion rounds, and of two neighbours one is a tie.
    ties = torch.cat([2**bits + near for bits in range(24, 31)])
    spread = torch.arange(0, 2**32, 2**32 // 100_003)
    lower = torch.cat([near, powers, powers - 1, ties, 2**31 - 1 - near])
    return torch.cat([lower, 2**32 - 1 - lower, spread]).unique()


def test_fma_rounds_once() -> None:
    generator = torch.Generator().manual_seed(1)
    a, b = (torch.randn(3000, generator=generator) for _ in range(2))
    # A third of the sums cancel to a few digits, a third add what is far below a digit.
    c = torch.cat(
        [-(a * b)[:1000], torch.randn(1000, generator=generator), torch.randn(1000, generator=generator) * 2e7]
    )
    got = machine.fma(a, b, c)
    for x, y, z, result in zip(a.tolist(), b.tolist(), c.tolist(), got, strict=True):
        exact = Fraction(x) * Fraction(y) + Fraction(z)
        error = abs(Fraction(result.item()) - exact)
        for neighbour in (float("inf"), -float("inf")):
            other = torch.nextafter(result, torch.tensor(neighbour)).item()
            assert error <= abs(Fraction(other) - exact)
    # Rounded twice, by way of fp64, the sum just above this tie would go to the even number below.
    one = torch.tensor([1.0 + 2.0**-23]), torch.tensor([2.0**-24]), torch.tensor([1.0])
    assert machine.fma(*one).item() == 1.0 + 2.0**-23
    assert (one[0].double() * one[1].double() + one[2].double()).float().item() == 1.0 + 2.0**-23
    tie = torch.tensor([2.0**-24 + 2.0**-47]), torch.tensor([1.0 + 2.0**-23]), torch.tensor([1.0])
    assert machine.fma(*tie).item() == 1.0 + 2.0**-23


def test_wide_products() -> None:
    generator = torch.Generator().manual_seed(2)
    x = torch.randint(0, 2**32, (1000,), generator=generator)
    high, low = machine.execute(ptx.WIDE.value, 2, [x.int(), torch.full_like(x, 0xD2511F53).int()])
    product = [each * 0xD2511F53 for each in x.tolist()]
    assert [each & 0xFFFFFFFF for each in high.tolist()] == [each >> 32 for each in product]
    assert [each & 0xFFFFFFFF for each in low.tolist()] == [each & 0xFFFFFFFF for each in product]


def test_radius_and_angle_have_the_references_bits() -> None:
    w = words()
    assert torch.equal(machine.radius(w.int()), reference.radius(w))
    (angle,) = machine.execute(ptx.ANGLE.value, 1, [w.int()])
    assert torch.equal(angle, (w << 2 & 0xFFFFFE00 | 0x100).int())
    assert machine.wrong_words(w) == 0


def test_the_cosine_may_be_fused_at_first_and_the_sine_not() -> None:
    t = (2 * torch.arange(2**22) + 1).float() * 2.0**-23
    assert machine.wrong_cosines(t) == 0
    assert machine.wrong_cosines(t, reference.SIN) > 0


@pytest.mark.parametrize(
    ("name", "right", "wrong"),
    [
        ("FOLD", "shr.u32 n, $2, 31", "shr.u32 n, $2, 32"),
        ("FOLD", "0x258000, 23", "0x258000, 22"),
        ("FOLD", "@$3 mul", "@!$3 mul"),
        ("FOLD", "0f4B00009E", "0f4B00009F"),
        ("ADD_EXPONENT", "0f3885FDF4", "0f38850000"),
        ("ADD_EXPONENT", "@!$3 fma", "fma"),
        ("SQUARE_ROOT", "fma.rn.f32 $0, rest, half, root", "mov.f32 $0, root"),
    ],
)
def test_a_mistake_shows(monkeypatch: pytest.MonkeyPatch, name: str, right: str, wrong: str) -> None:
    text = getattr(ptx, name).value
    assert right in text
    monkeypatch.setattr(getattr(ptx, name), "value", text.replace(right, wrong))
    w = words()
    assert not torch.equal(machine.radius(w.int()), reference.radius(w))


def test_roots_are_nearest_for_whatever_is_admitted() -> None:
    """The pairs that go wrong are known: two of all, which no implementation of sqrt.rn by ptxas can have."""
    hard = torch.tensor([float.fromhex("0x1.f82294p0"), float.fromhex("0x1.dd26e4p1")])
    spread = torch.arange(0x3F800000, 0x40800000, 97).int().view(torch.float32)
    tried, wrong = machine.roots(torch.cat([spread, hard]))
    assert tried > 3 * len(spread)
    assert wrong == machine.WRONG_ROOTS


def test_roots_go_wrong_beyond_the_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "RSQRT_ERROR", 2.0**-21)
    bits = torch.arange(0x3F800000, 0x40800000, 23).int()
    _, wrong = machine.roots(bits.view(torch.float32))
    assert wrong - machine.WRONG_ROOTS
