"""The normals against fp64 on a sample of words: the short form of ``python -m tests.long.accuracy``."""

import pytest
import torch

from fastlangevin.reference import random as reference
from tests.long import accuracy


def words():
    """Both ends of the range, the fold in its middle, every power of two and a spread of others."""
    near = torch.arange(4000)
    powers = 2 ** torch.arange(32)
    spread = torch.arange(0, 2**32, 2**32 // 100_003)
    return torch.cat([near, 2**32 - 1 - near, 2**31 + near - 2000, powers, powers - 1, spread]).unique()


def test_errors_of_radius_and_angle():
    w = words()
    radius = reference.radius(w)
    cosine, sine = reference.cos_sin(w)
    assert radius.isfinite().all()
    assert (radius > 0).all()
    assert (radius[1:] <= radius[:-1]).all()
    # Measured over all words: 3.96e-7 and 1.63 units for the radius, 6.93e-8 and 1.58 units for sine and cosine.
    for got, want, absolute, units in (
        (radius, accuracy.exact_radius(w), 4.0e-7, 1.65),
        (cosine, accuracy.exact_trig(w)[0], 7e-8, 1.6),
        (sine, accuracy.exact_trig(w)[1], 7e-8, 1.6),
    ):
        error = (got.double() - want).abs()
        assert error.max() <= absolute
        assert (error / accuracy.ulp(want)).max() <= units


@pytest.mark.long
def test_normals_reach_far_and_stay_within_a_millionth():
    far, angles = torch.arange(2000), words()[::7]
    radius = reference.radius(far)
    want_radius = accuracy.exact_radius(far)
    largest = 0.0
    for got, want in zip(reference.cos_sin(angles), accuracy.exact_trig(angles), strict=True):
        z = (radius[:, None] * got).double()
        exact = want_radius[:, None] * want
        assert (z - exact).abs().max() <= 1e-6
        inside = exact.abs() >= 0.1
        assert ((z - exact).abs() / accuracy.ulp(exact))[inside].max() <= 4
        largest = max(largest, float(z.abs().max()))
    assert largest >= 6.7


@pytest.mark.parametrize("mistake", ["clamped at 1e-7", "no complement near one", "a dropped coefficient"])
def test_a_worse_recipe_is_rejected(mistake, monkeypatch):
    w = words()
    want = accuracy.exact_radius(w)
    u = (w.double() + 0.5) * 2.0**-32
    if mistake == "clamped at 1e-7":
        wrong = torch.sqrt(-2 * torch.log(u.clamp_min(1e-7))).float()
    elif mistake == "no complement near one":
        wrong = torch.sqrt(-2 * torch.log(u.float().clamp_max(1 - 2.0**-24)))
    else:
        monkeypatch.setattr(reference, "LOG_Q", reference.LOG_Q[:-1])
        wrong = reference.radius(w)
    error = (wrong.double() - want).abs()
    assert error.max() > 4e-7 or (error / accuracy.ulp(want)).max() > 1.65


def test_the_yardstick_is_exact():
    """The fp64 angle in each octant against the same number without reduction, which is off by 2 pi 2^-53 at most."""
    w = torch.tensor([0, 127, 2**29, 2**30, 2**31 - 1, 2**31, 3 * 2**30, 2**32 - 2**29, 2**32 - 1])
    angle = ((w // 128).double() + 0.5) * (2 * torch.pi * 2.0**-25)
    for got, want in zip(accuracy.exact_trig(w), (angle.cos(), angle.sin()), strict=True):
        torch.testing.assert_close(got, want, rtol=0, atol=2 * torch.pi * 2.0**-52)
    assert (got != 0).all()
