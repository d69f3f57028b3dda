"""What the samplers' loop does with a move: order, temperature, drift, clamps, and the samplers made of other rules."""

import inspect
import itertools
import math

import numpy as np
import pytest
import torch

import fastlangevin as fl
from fastlangevin import rules
from fastlangevin.noise import Address, Purpose
from fastlangevin.ops.sample_norms import noise_norms, sample_norms

LADDER = fl.geometric_sigmas(1.0, 0.1, 3)
SHAPE = (5, 2, 3, 3)
OPTIONS = {"epsilon": 2e-3, "steps_per_level": 4, "seed": 11, "shape": SHAPE}
PC = {"snr": 0.1, "seed": 3, "shape": SHAPE, "init": "normal"}


def score(x, labels):
    scale = LADDER.to(x.dtype)[labels].reshape(-1, *(1,) * (x.ndim - 1))
    return -torch.sin(3 * x) / (scale**2 + 0.1)


def start(seed, normal=False):
    make = fl.randn if normal else fl.rand
    return make(SHAPE, seed=seed, purpose=Purpose.INITIAL_STATE).double()


def noise(seed, draw, purpose=Purpose.LANGEVIN):
    return fl.randn(SHAPE, seed=seed, draw=draw, purpose=purpose).double()


def at(x, level):
    return score(x, torch.full((len(x),), level))


def close(got, want):
    # Some dozen fp32 roundings of values of order 1, of which the slope of the score makes a few times more.
    return bool((got.double() - want).abs().max() < 1e-5)


def by_hand(order="score", temperature=1.0, drift=None, clamp=None, known=None):
    """Annealed Langevin dynamics written out in fp64; ``known``: mask, data and kind of noise of an inpainting."""
    x, last, draw = start(11), float(LADDER[-1]), 0
    mask, data, kind = known if known else (None, None, None)

    def data_at(draw, sigma):
        return data + sigma * noise(11, draw, Purpose.INPAINTING)

    for level, sigma in enumerate(LADDER.tolist()):
        alpha = 2e-3 * (sigma / last) ** 2
        if kind == "level_start":
            x = torch.where(mask, data_at(level, sigma), x)
        for _ in range(4):
            if kind == "step":
                x = torch.where(mask, data_at(draw, sigma), x)
            z = math.sqrt(temperature * alpha) * noise(11, draw)
            if order == "noise":
                x = x + z
            s = at(x, level) + (0 if drift is None else drift(x, level))
            x = x + alpha / 2 * s + (z if order == "score" else 0)
            if kind in ("level", "level_start"):
                x = torch.where(mask, data_at(level, sigma), x)
            if clamp:
                x = x.clamp(*clamp)
            draw += 1
    return x


def test_what_acts_on_every_update():
    def pull(x, labels):
        return 0.3 - x

    cases = [
        ({}, {}),
        ({"order": "noise"}, {"order": "noise"}),
        ({"temperature": 4.0}, {"temperature": 4.0}),
        ({"drift": pull}, {"drift": pull}),
        ({"clamp": (0.2, 0.7)}, {"clamp": (0.2, 0.7)}),
    ]
    wants = [by_hand(**options) for _, options in cases]
    for index, (options, _) in enumerate(cases):
        got = fl.annealed_langevin(score, LADDER, **OPTIONS, **options)
        assert [close(got, want) for want in wants] == [index == other for other in range(len(cases))]


def test_one_is_the_usual_temperature_and_no_drift_the_usual_bits(impl):
    plain = fl.annealed_langevin(score, LADDER, **OPTIONS, impl=impl)
    again = fl.annealed_langevin(
        score, LADDER, **OPTIONS, temperature=1.0, drift=lambda x, labels: 0 * x, clamp=(-1e9, 1e9), impl=impl
    )
    assert torch.equal(plain, again)


def test_a_drift_is_left_out_of_the_denoise_step():
    seen = []

    def drift(x, labels):
        seen.append(1)
        return 0 * x

    result = fl.annealed_langevin(score, LADDER, **OPTIONS, drift=drift, denoise=True, full_output=True)
    assert len(seen) == 12
    assert result.evaluations == 13
    assert torch.equal(result.samples, fl.annealed_langevin(score, LADDER, **OPTIONS, denoise=True))
    assert result.record["drift"]
    assert result.record["seed"] == 11


MASK = (torch.arange(9).view(3, 3) % 2 == 0).expand(2, 3, 3)
DATA = torch.linspace(0, 1, 18).view(1, 2, 3, 3)


@pytest.mark.parametrize("pair", [[0.25, 0.75], torch.tensor([0.25, 0.75]), np.array([0.25, 0.75])], ids=type)
def test_a_clamp_is_any_pair_of_numbers(pair):
    want = fl.annealed_langevin(score, LADDER, **OPTIONS, clamp=(0.25, 0.75), full_output=True)
    got = fl.annealed_langevin(score, LADDER, **OPTIONS, clamp=pair, full_output=True)
    assert torch.equal(got.samples, want.samples)
    assert got.record == want.record
    for wrong in (torch.tensor(0.8), torch.zeros(3), np.zeros((2, 2))):
        with pytest.raises(TypeError, match=r"clamp must be a pair"):
            fl.annealed_langevin(score, LADDER, **OPTIONS, clamp=wrong)


KINDS = ["level", "level_start", "step"]


def mixing(x, labels):
    """A score that looks at its neighbours, so that what stands in the region decides the rest."""
    return score(x, labels) + x.roll(1, -1)


@pytest.mark.parametrize("kind", KINDS)
def test_inpainting_is_what_was_published(kind, impl, monkeypatch):
    monkeypatch.setitem(globals(), "at", lambda x, level: mixing(x, torch.full((len(x),), level)))
    got = fl.annealed_langevin(mixing, LADDER, **OPTIONS, inpainting=fl.Inpainting(MASK, DATA, noise=kind), impl=impl)
    assert [close(got, by_hand(known=(MASK, DATA.double(), other))) for other in KINDS] == [
        kind == other for other in KINDS
    ]


def test_a_frozen_sample_keeps_its_region():
    """One that is not finite stays as it was, also where a level begins with another region."""
    start = torch.linspace(0, 1, 90).view(SHAPE).clone()
    start[1, 0, 0, 1] = torch.nan
    region = fl.Inpainting(MASK, DATA, noise="level_start")
    options = {"epsilon": 2e-3, "steps_per_level": 4, "seed": 11, "init": start, "inpainting": region}
    got = fl.annealed_langevin(score, LADDER, **options, non_finite="freeze")
    first = DATA[0] + float(LADDER[0]) * noise(11, 0, Purpose.INPAINTING).float()[1]
    # y is one fp32 product and one sum, as here.
    assert torch.equal(got[1][MASK], first[MASK])
    others = torch.arange(5) != 1
    assert torch.equal(got[others], fl.annealed_langevin(score, LADDER, **options, non_finite=None)[others])


def test_the_paper_s_region_ends_as_the_data_with_the_last_noise():
    got = fl.annealed_langevin(score, LADDER, **OPTIONS, inpainting=fl.Inpainting(MASK, DATA))
    last = DATA + float(LADDER[-1]) * noise(11, 2, Purpose.INPAINTING).float()
    inside = MASK.expand(SHAPE)
    assert (got - last)[inside].abs().max() < 1e-6
    assert (got - last)[~inside].abs().max() > 0.1


def test_a_region_of_nothing_changes_no_bit():
    nothing = torch.zeros(1, dtype=torch.bool)
    plain = fl.annealed_langevin(score, LADDER, **OPTIONS)
    for kind in KINDS:
        region = fl.Inpainting(nothing, torch.zeros(1), noise=kind)
        assert torch.equal(fl.annealed_langevin(score, LADDER, **OPTIONS, inpainting=region), plain)


@pytest.mark.parametrize("kind", KINDS)
def test_an_inpainting_goes_on_with_the_same_bits_and_in_any_batch(kind):
    options = {**OPTIONS, "inpainting": fl.Inpainting(MASK, DATA, noise=kind)}
    whole = fl.annealed_langevin(score, LADDER, **options)
    for stop in range(1, 13):
        left = fl.annealed_langevin(
            score, LADDER, **options, callback=lambda info, stop=stop: info.step == stop, full_output=True
        )
        rest = {key: value for key, value in options.items() if key not in ("seed", "shape")}
        assert torch.equal(fl.annealed_langevin(score, LADDER, **rest, resume=left.state), whole)
    alone = fl.annealed_langevin(score, LADDER, **{**options, "shape": (1, 2, 3, 3)}, sample_offset=3)
    assert torch.equal(alone, whole[3:4])
    with pytest.raises(ValueError, match="inpainting was"):
        fl.annealed_langevin(score, LADDER, epsilon=2e-3, steps_per_level=4, resume=left.state)


def test_the_norms_of_samples_are_the_same_bits_everywhere(impl):
    x = fl.randn((7, 3, 33, 35), seed=1) * torch.logspace(-3, 3, 7)[:, None, None, None]
    got = sample_norms(x, impl=impl)
    assert torch.equal(got, sample_norms(x, impl="reference"))
    assert torch.equal(got[2:4], sample_norms(x[2:4], impl=impl))
    # Sums of 3465 squares in an order of halves: a dozen roundings of 2^-24, and that of the root.
    torch.testing.assert_close(got.double(), x.double().flatten(1).norm(dim=1), rtol=1e-6, atol=0)
    address = Address(5, 2, None, 9, Purpose.LANGEVIN)
    z = noise_norms(x, address, impl=impl)
    drawn = fl.randn(x.shape, **address._asdict())
    assert torch.equal(z, sample_norms(drawn, impl="reference"))
    assert not torch.equal(z, noise_norms(x, address._replace(draw=3), impl=impl))
    assert sample_norms(x[:0], impl=impl).shape == (0,)


def corrected_by_hand(norm, predictor="reverse_diffusion", denoise=False, factor=2.0):
    """Predictor-corrector sampling written out in fp64 (Song et al. 2021, Algorithms 1, 2, 4)."""
    ladder = [*LADDER.tolist(), 0.0]
    x, draw = ladder[0] * start(3, normal=True), 0

    def norms(values):
        return values.flatten(1).norm(dim=1)

    for level, (sigma, after) in enumerate(itertools.pairwise(ladder)):
        g, z = at(x, level), noise(3, draw)
        of_noise = norms(z) if norm != "sqrt_d" else torch.full((5,), math.sqrt(18), dtype=torch.float64)
        ratio = of_noise.mean() / norms(g).mean() if norm == "batch" else of_noise / norms(g)
        size = (factor * (0.1 * ratio) ** 2).view(-1, *[1] * (0 if norm == "batch" else 3))
        x = x + size * g + (2 * size).sqrt() * z
        draw += 1
        gap = sigma**2 - after**2
        b = math.sqrt(gap) * (after / sigma if predictor == "ancestral" else 1)
        x = x + gap * at(x, level) + (0 if denoise and not after else b) * noise(3, draw)
        draw += 1
    return x


@pytest.mark.parametrize("denoise", [False, True])
@pytest.mark.parametrize("predictor", ["reverse_diffusion", "ancestral"])
@pytest.mark.parametrize("norm", ["sample", "batch", "sqrt_d"])
def test_predictor_corrector_is_what_was_published(norm, predictor, denoise):
    got = fl.predictor_corrector(score, LADDER, **PC, norm=norm, predictor=predictor, denoise=denoise)
    assert close(got, corrected_by_hand(norm, predictor, denoise))
    assert not close(got, corrected_by_hand(norm, predictor, denoise, factor=1.0))


@pytest.mark.parametrize("corrections", [0, 2])
@pytest.mark.parametrize("predictor", ["reverse_diffusion", "ancestral", "euler_maruyama", "probability_flow", "none"])
def test_the_denoise_step_is_the_same_after_every_predictor(predictor, corrections):
    if predictor == "none" and not corrections:
        return
    options = {**PC, "predictor": predictor, "corrector_steps": corrections, "full_output": True}
    result = fl.predictor_corrector(score, LADDER, **options, denoise=True)
    before = result.state.x.double()
    wanted = before + 0.1**2 * at(before, 2)
    assert close(result.samples, wanted)
    assert not close(result.samples, (before + wanted) / 2)
    assert result.evaluations == 3 * (corrections + (predictor != "none")) + (predictor == "none")


def test_the_corrector_s_norms_couple_a_batch_only_where_they_are_its_means():
    for norm in ("sample", "sqrt_d", "batch"):
        whole = fl.predictor_corrector(score, LADDER, **PC, norm=norm)
        part = fl.predictor_corrector(score, LADDER, **{**PC, "shape": (2, 2, 3, 3)}, norm=norm, sample_offset=2)
        assert torch.equal(part, whole[2:4]) == (norm != "batch")


def test_predictor_corrector_counts_and_goes_on_with_the_same_bits(impl):
    options = {"snr": 0.1, "corrector_steps": 2, "denoise": True}
    whole = fl.predictor_corrector(
        score, LADDER, **options, shape=SHAPE, seed=3, init="normal", full_output=True, impl=impl
    )
    assert whole.evaluations == 9
    for stop in (1, 2, 5, 8):
        left = fl.predictor_corrector(
            score,
            LADDER,
            **options,
            shape=SHAPE,
            seed=3,
            init="normal",
            callback=lambda info, stop=stop: info.step == stop,
            full_output=True,
            impl=impl,
        )
        assert torch.equal(fl.predictor_corrector(score, LADDER, **options, resume=left.state), whole.samples)


def test_other_predictors():
    none = fl.predictor_corrector(score, LADDER, **PC, predictor="none")
    flow = fl.predictor_corrector(score, LADDER, **PC, predictor="probability_flow", corrector_steps=0)
    euler = fl.predictor_corrector(score, LADDER, **PC, predictor="euler_maruyama")
    assert not torch.equal(none, euler)
    x = float(LADDER[0]) * start(3, normal=True)
    for level, (_, a, _) in enumerate(rules.ve_probability_flow(LADDER)):
        x = x + a * at(x, level)
    assert close(flow, x)


def test_consistent_annealed_sampling_keeps_the_variance_of_every_level():
    """Data that are one point: the chain has each level's width before its update, and ends narrower by 1 - eta."""

    def point(x, labels):
        return -x / sigmas[labels].to(x.dtype)[:, None] ** 2

    sigmas = fl.geometric_sigmas(50.0, 0.01, 232)
    seen = [None]

    def watch(info):
        seen.append(info.x.double().var(correction=0).item())

    options = {"step_lr": 0.056 * 0.01**2, "shape": (2**9, 2**9), "init": "normal", "seed": 1, "callback": watch}
    fl.consistent_annealed(point, sigmas, **options)
    # Six standard deviations of the variance of 2^18 normals.
    tolerance = 6 * math.sqrt(2 / 2**18)
    for step in (1, 50, 231):
        assert abs(seen[step] / sigmas[step].item() ** 2 - 1) < tolerance
    final = math.sqrt(seen[232]) / 0.01
    assert abs(final / (1 - 0.056) - 1) < tolerance
    assert abs(final - 1.0541) > 3 * tolerance, "annealed Langevin dynamics would pass"


def test_interpolation_goes_from_one_sample_s_noise_to_another_s():
    options = {key: value for key, value in OPTIONS.items() if key != "shape"}
    rows = fl.interpolation(score, LADDER, points=3, shape=(2, 2, 3, 3), **options).view(2, 3, 2, 3, 3)
    whole = fl.annealed_langevin(score, LADDER, **{**OPTIONS, "shape": (4, 2, 3, 3)})
    assert torch.equal(rows[:, 0], whole[::2])
    begun = fl.rand((4, 2, 3, 3), seed=11, purpose=Purpose.INITIAL_STATE)
    other = fl.annealed_langevin(score, LADDER, init=begun[::2], sample_ids=[1, 3], **options)
    torch.testing.assert_close(rows[:, 2], other)
    middle = (rows[:, 0] + rows[:, 2]) / 2
    assert (rows[:, 1] - middle).abs().max() > 1e-3
    later = fl.interpolation(score, LADDER, points=3, shape=(1, 2, 3, 3), sample_offset=1, **options)
    assert torch.equal(later.view(3, 2, 3, 3), rows[1])


@pytest.mark.parametrize("kind", KINDS)
def test_rows_of_an_interpolation_are_inpainted_alike_in_any_run(kind):
    region = fl.Inpainting(MASK, DATA, noise=kind)
    options = {**OPTIONS, "points": 3, "inpainting": region, "full_output": True}

    def rows(count, offset):
        return fl.interpolation(score, LADDER, **{**options, "shape": (count, *SHAPE[1:])}, sample_offset=offset)

    whole, part = rows(4, 0), rows(2, 1)
    assert torch.equal(part.samples, whole.samples[3:9])
    assert part.state.sample_offset == 3
    assert not torch.equal(part.samples, whole.samples[:6])
    if kind != "step":
        # In the mask a sample is the data and the noise of its place in the whole run, which no two share.
        z = fl.randn((12, *SHAPE[1:]), seed=11, draw=2, purpose=Purpose.INPAINTING)
        torch.testing.assert_close(whole.samples, torch.where(MASK, DATA + 0.1 * z, whole.samples))


@pytest.mark.parametrize(
    "sampler", [fl.annealed_langevin, fl.consistent_annealed, fl.interpolation, fl.predictor_corrector]
)
def test_options_stand_in_the_signature_and_others_are_refused(sampler):
    names = inspect.signature(sampler).parameters
    assert {"seed", "init", "callback", "inpainting", "full_output", "denoise"} <= set(names)
    assert names["init"].default == "uniform"
    assert not any(each.kind is inspect.Parameter.VAR_KEYWORD for each in names.values())
    needed = {"snr": 0.1} if "snr" in names else {"epsilon": 0.01}
    with pytest.raises(TypeError, match="sead"):
        sampler(score, LADDER, **needed, **({"points": 2} if "points" in names else {}), shape=SHAPE, sead=1)


def test_langevin_lists_the_options_that_it_takes_and_refuses_those_of_ladders():
    names = inspect.signature(fl.langevin).parameters
    assert {"seed", "callback", "clamp", "full_output"} <= set(names)
    assert not {"shape", "drift", "inpainting", "strict_ladder", "options"} & set(names)
    with pytest.raises(TypeError, match=r"drift=, strict_ladder= here.*samplers\.RunOptions"):
        fl.langevin(lambda x: -x, torch.zeros(2, 3), steps=1, epsilon=0.1, drift=None, strict_ladder=True)
