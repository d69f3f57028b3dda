"""Augmentation: flips, dequantisation and logits, by address."""

import math

import pytest
import torch

import fastlangevin as fl
from fastlangevin import data
from fastlangevin.noise import Purpose

EPOCHS_END = 2**32


def ramp(*shape):
    return torch.arange(math.prod(shape), dtype=torch.float32).reshape(shape) / math.prod(shape)


def flipped(count, **options):
    images = torch.tensor([0.0, 1.0]).expand(count, 1, 1, 2)
    return data.flip(images, seed=0, **options)[:, 0, 0, 0].double()


def test_half_of_the_images_are_flipped():
    count = 40_000
    mean = flipped(count, step=2).mean()
    error = 0.5 / math.sqrt(count)
    assert abs(mean - 0.5) < 6 * error
    assert abs(mean * 0.95 - 0.5) > 6 * error, "a probability of 0.475 must be caught"
    assert not torch.equal(flipped(64, step=2), flipped(64, step=3))


def test_a_flip_mirrors_rows_or_does_nothing():
    images = ramp(32, 3, 2, 4)
    x = data.flip(images, seed=0, sample_offset=5)
    mirrored = torch.tensor([torch.equal(row, image.flip(-1)) for row, image in zip(x, images, strict=True)])
    same = torch.tensor([torch.equal(row, image) for row, image in zip(x, images, strict=True)])
    assert torch.equal(mirrored, ~same)
    assert mirrored.any()
    assert same.any()


def test_flips_know_nothing_of_dequantisation():
    count = 10_000
    noise = data.dequantise(torch.zeros(count, 1), 2, seed=0, step=2)[:, 0].double() * 2 - 0.5
    error = math.sqrt(1 / 12 / count)  # of the mean of uniforms that a sign turns independently
    turn = 1 - 2 * flipped(count, step=2)
    assert abs((noise * turn).mean()) < 6 * error
    same_purpose = fl.rand((count, 1), seed=0, draw=2, purpose=Purpose.AUGMENTATION)[:, 0]
    assert abs((noise * (1 - 2 * (same_purpose < 0.5).double())).mean()) > 6 * error, (
        "one stream for two must be caught"
    )


def test_logit_is_the_formula_and_its_inverse():
    v = torch.cat([torch.linspace(0, 1, 10_001), torch.tensor([1e-7, 1e-5, 1 - 2**-20])])
    for alpha in (1e-6, 0.05):
        x = data.logit(v, alpha)
        exact = torch.logit(alpha + (1 - 2 * alpha) * v.double())
        # Both arguments of the logarithms are rounded twice and each logarithm, of at most 13.8, once: 4 * 2^-24 of
        # relative error, and 2 ulp of 13.8, which are 2^-19.
        assert (x - exact).abs().max() < 4 * 2**-24 + 2**-19
        naive = torch.log((p := alpha + (1 - 2 * alpha) * v) / (1 - p))
        assert alpha > 1e-6 or (naive - exact).abs().max() > 1e-3, "cancellation must be caught"
        # A sigmoid is good to 2 ulp, and its slope carries an error of x over by at most a quarter.
        assert (data.expit(x, alpha) - v).abs().max() < (2**-22 + 2**-21) / (1 - 2 * alpha)


def test_augment_is_its_parts_in_order():
    images = torch.randint(0, 4, (6, 1, 4, 4), generator=torch.Generator().manual_seed(0)) / 3
    address = {"seed": 4, "step": 2, "sample_offset": 3}
    x = data.dequantise(images, 4, **address)
    assert torch.equal(data.Augment()(images, greys=4, **address), x)
    assert torch.equal(data.Augment()(images, greys=None, **address), images), "nothing to dequantise"
    assert torch.equal(data.Augment(dequantise=False)(images, greys=4, **address), images)
    everything = data.Augment(flip=True, logit=1e-6)
    y = everything(images, greys=4, **address)
    assert torch.equal(y, data.logit(data.flip(x, **address), 1e-6))
    assert torch.equal(everything.inverse(y), data.expit(y, 1e-6))
    assert torch.equal(data.Augment().inverse(y), y)


@pytest.mark.gpu
def test_augmentation_on_a_gpu_has_the_same_bits():
    images = torch.randint(0, 4, (6, 3, 4, 4), generator=torch.Generator().manual_seed(0)) / 3
    augment, address = data.Augment(flip=True), {"greys": 4, "seed": 4, "step": 2}
    assert torch.equal(augment(images.cuda(), **address).cpu(), augment(images, **address))
