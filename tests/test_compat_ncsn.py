"""The samplers of NCSN and NCSNv2 by their published signatures, against their formulas with the same noise."""

import inspect
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import fastlangevin as fl
from fastlangevin.compat import ncsn, ncsnv2
from fastlangevin.noise import Purpose, SampleOptions
from fastlangevin.samplers import RunOptions

LADDER = [1.0, 0.4, 0.1]
EACH, LR, SEED = 3, 1e-3, 7
SHAPE = (4, 2, 4, 6)
START = fl.rand(SHAPE, seed=1, dtype=torch.float64)
REFERENCE = fl.rand(SHAPE, seed=2, dtype=torch.float64)
HALF = torch.arange(6) < 3

# Both sides round the same fp64 operations in other orders: a few units in the last place for each update, and the
# chains here contract.
CLOSE = {"rtol": 1e-12, "atol": 1e-13}


def net(x, labels):
    sigma = torch.tensor(LADDER, dtype=x.dtype)[labels].reshape(-1, *(1,) * (x.ndim - 1))
    return -torch.sin(3 * x) / (sigma**2 + 0.1)


def recorded(draw, purpose=Purpose.LANGEVIN, shape=SHAPE, **address):
    """The noise that ours draw, as a tensor."""
    return fl.randn(shape, seed=SEED, draw=draw, purpose=purpose, dtype=torch.float64, **address)


def same(one, other):
    return len(one) == len(other) and all(torch.allclose(a, b, **CLOSE) for a, b in zip(one, other, strict=True))


def published(
    x=START,
    denoise=False,
    half=1.0,
    before=False,
    clamp=False,
    level_noise=False,
    step_noise=False,
    noise=recorded,
    each=EACH,
    power=2,
):
    """The samplers as their formulas say: x + step score + sqrt(2 step) z, with the known region if there is one."""
    seen = []
    keep = (lambda state: state.clamp(0, 1)) if clamp else (lambda state: state.clone())
    for level, sigma in enumerate(LADDER):
        step = LR * (sigma / LADDER[-1]) ** power
        labels = torch.full((len(x),), level)
        y = REFERENCE + sigma * recorded(level, Purpose.INPAINTING) if level_noise else None
        if level_noise == "from the first score":
            x = torch.where(HALF, y, x)
        for repeat in range(each):
            draw = level * each + repeat
            if step_noise:
                x = torch.where(HALF, REFERENCE + sigma * recorded(draw, Purpose.INPAINTING), x)
            if before:
                seen.append(keep(x))
            x = x + half * step * net(x, labels) + math.sqrt(2 * half * step) * noise(draw)
            if level_noise:
                x = torch.where(HALF, y, x)
            if not before:
                seen.append(keep(x))
    if denoise:
        seen.append(x + LADDER[-1] ** 2 * net(x, torch.full((len(x),), len(LADDER) - 1)))
    return seen


ARGUMENTS = {"n_steps_each": EACH, "step_lr": LR, "seed": SEED}
WRONG = [{"half": 0.5}, {"before": True}, {"power": 1}, {"noise": lambda draw: recorded(draw // EACH)}]


def test_the_published_list_holds_every_update():
    expected = published()
    found = ncsn.anneal_Langevin_dynamics(START, net, LADDER, **ARGUMENTS)
    assert len(found) == len(LADDER) * EACH
    assert same(found, expected)
    assert same(ncsnv2.anneal_Langevin_dynamics(START, net, LADDER, denoise=False, **ARGUMENTS), expected)
    denoised = ncsnv2.anneal_Langevin_dynamics(START, net, LADDER, **ARGUMENTS)
    assert same(denoised, published(denoise=True))
    assert len(denoised) == len(LADDER) * EACH + 1


@pytest.mark.parametrize("wrong", WRONG, ids=["half", "before", "power", "noise"])
def test_a_slip_of_convention_order_or_noise_is_seen(wrong):
    assert not same(ncsn.anneal_Langevin_dynamics(START, net, LADDER, **ARGUMENTS), published(**wrong))


def test_the_paper_has_half_the_step():
    found = ncsn.anneal_Langevin_dynamics(START, net, LADDER, EACH, LR / 2, seed=SEED)
    assert same(found, published(half=0.5))


def test_strict_gives_the_list_before_the_updates():
    found = ncsn.anneal_Langevin_dynamics(START, net, LADDER, **ARGUMENTS, strict=True)
    assert same(found, published(before=True, clamp=True))
    assert torch.equal(found[0], START)
    assert not same(found, published(before=True))
    assert not same(found, published(clamp=True))
    assert not any(torch.allclose(state, published(clamp=True)[-1]) for state in found)


@pytest.mark.parametrize("shape", [(0, 2), (2, 0)])
def test_the_toy_sampler_takes_states_without_elements(shape):
    got = ncsn.toy_anneal_langevin_dynamics(lambda x, sigma: -x / sigma, torch.zeros(shape), LADDER, LR, EACH)
    assert got.shape == shape


def test_one_level():
    seen, x = [], START
    for draw in range(5):
        x = x + LR * net(x, torch.full((4,), 2)) + math.sqrt(2 * LR) * recorded(draw)
        seen.append(x)
    options = {"n_steps": 5, "step_lr": LR, "seed": SEED}
    assert same(ncsn.Langevin_dynamics(START, net, label=2, **options), seen)
    assert not same(ncsn.Langevin_dynamics(START, net, label=1, **options), seen)
    assert not same(ncsn.Langevin_dynamics(START, net, 5, LR / 2, label=2, seed=SEED), seen)
    alone = ncsn.baseline_Langevin_dynamics(START, lambda x: net(x, torch.full((4,), 2)), **options)
    assert same(alone, seen)
    strict = ncsn.baseline_Langevin_dynamics(START, lambda x: net(x, torch.full((4,), 2)), **options, strict=True)
    assert same(strict, [each.clamp(0, 1) for each in [START, *seen[:-1]]])
    asked = []
    ncsn.Langevin_dynamics(START, lambda x, labels: asked.append(labels) or x, 1, seed=0)
    assert torch.equal(asked[0], torch.full((4,), 9))


def test_the_toy_samplers_have_the_papers_convention():
    x = START
    for draw in range(5):
        x = x + LR / 2 * net(x, torch.full((4,), 2)) + math.sqrt(LR) * recorded(draw)
    found = ncsn.toy_langevin_dynamics(lambda x: net(x, torch.full((4,), 2)), START, LR, 5, seed=SEED)
    assert torch.allclose(found, x, **CLOSE)
    for sigmas in (LADDER, torch.tensor(LADDER, dtype=torch.float64), np.array(LADDER)):
        seen = []

        def score(x, sigma, seen=seen):
            seen.append(sigma)
            return -torch.sin(3 * x) / (sigma**2 + 0.1)

        annealed = ncsn.toy_anneal_langevin_dynamics(score, START, sigmas, LR, EACH, seed=SEED)
        assert torch.allclose(annealed, published(half=0.5)[-1], **CLOSE)
        assert not torch.allclose(annealed, published()[-1], **CLOSE)
        assert [float(sigma) for sigma in seen] == [sigma for sigma in LADDER for _ in range(EACH)]


def test_inpainting_of_ncsn_draws_once_a_level():
    def run(**options):
        return ncsn.anneal_Langevin_dynamics_inpainting(START, REFERENCE, net, LADDER, **ARGUMENTS, **options)

    expected = published(level_noise="from the first score")
    assert same(run(), expected)
    assert same(run(mask=HALF), expected)
    assert not same(run(mask=~HALF), expected)
    assert not same(run(), published(step_noise=True))
    before = published(level_noise="from the first score", before=True, clamp=True)
    assert same(run(strict=True), before)
    assert not same(run(strict=True), published(level_noise="after the updates", before=True, clamp=True))
    # But for the region, which a level's first score sees anew, they are the states after the updates.
    assert same([state[..., 3:] for state in before[1:]], [state[..., 3:].clamp(0, 1) for state in expected[:-1]])


def test_the_published_region_is_in_place_before_the_first_score_of_each_level():
    seen = []

    def score(x, labels):
        seen.append(x[..., :1].clone())
        return x.flip(-1) - x

    start, image = torch.zeros(1, 1, 1, 2), torch.ones(1, 1, 1, 2)
    ncsn.anneal_Langevin_dynamics_inpainting(start, image, score, [1.0, 0.1], 2, seed=0)
    y = [
        fl.step(image, image, a=0.0, b=sigma, seed=0, draw=level, purpose=Purpose.INPAINTING)[..., :1]
        for level, sigma in enumerate([1.0, 0.1])
    ]
    assert not torch.equal(*y)
    assert len(seen) == 4
    assert all(torch.equal(state, known) for state, known in zip(seen, [y[0], y[0], y[1], y[1]], strict=True))


@pytest.mark.parametrize("module", [ncsn, ncsnv2])
def test_one_image_stands_for_all_where_each_is_filled_once(module):
    size = () if module is ncsn else (6,)
    many, image = START[:, None], REFERENCE[:1]
    found = module.anneal_Langevin_dynamics_inpainting(many, image, net, LADDER, *size, **ARGUMENTS)[-1]
    flat = module.anneal_Langevin_dynamics_inpainting(START, image, net, LADDER, *size, **ARGUMENTS)[-1]
    assert found.shape == SHAPE
    assert torch.equal(found, flat)


def test_inpainting_of_ncsnv2_draws_before_every_score():
    def run(**options):
        return ncsnv2.anneal_Langevin_dynamics_inpainting(START, REFERENCE, net, LADDER, 6, **ARGUMENTS, **options)

    before = published(step_noise=True, before=True)
    assert same(run(strict=True), before)
    assert same(run()[:-1], before[1:])
    assert torch.allclose(run()[-1], published(step_noise=True)[-1], **CLOSE)
    assert not same(run(strict=True), published(level_noise="from the first score", before=True))
    assert not torch.allclose(run()[-1], before[-1])


@pytest.mark.parametrize("module", [ncsn, ncsnv2])
def test_several_fills_of_each_image(module):
    size = () if module is ncsn else (6,)
    many = torch.rand(2, 3, 2, 4, 6, generator=torch.Generator().manual_seed(0))
    images = torch.rand(2, 2, 4, 6, generator=torch.Generator().manual_seed(1))
    found = module.anneal_Langevin_dynamics_inpainting(many, images, net, LADDER, *size, **ARGUMENTS)
    flat = module.anneal_Langevin_dynamics_inpainting(
        many.flatten(0, 1), images.repeat_interleave(3, 0), net, LADDER, *size, **ARGUMENTS
    )
    assert found[-1].shape == (6, 2, 4, 6)
    assert torch.equal(found[-1], flat[-1])


def rows(draw, swap=False):
    """cos(phi) p + sin(phi) q with p, q at the ids 2r and 2r + 1, for 4 rows of 3."""
    p = recorded(draw, sample_ids=[0, 2, 4, 6])
    q = recorded(draw, sample_ids=[1, 3, 5, 7])
    angles = [0.0, math.pi / 4, math.pi / 2]
    terms = [math.cos(phi) * p + math.sin(phi) * q for phi in (angles[::-1] if swap else angles)]
    return torch.stack(terms, 1).flatten(0, 1)


def test_interpolation_shares_the_noise_of_a_row():
    def run(start=START, **options):
        return ncsnv2.anneal_Langevin_dynamics_interpolation(start, net, LADDER, 3, **ARGUMENTS, **options)

    start = START.repeat_interleave(3, 0)
    # cos, sin and the noise are fp32: 6e-8 of noise up to 6.8, on updates whose b is at most 0.45, nine times.
    close = {"rtol": 0, "atol": 9 * 0.45 * 6.8 * 3 * 6e-8}
    expected = published(start, noise=rows)[-1]
    assert torch.allclose(run()[-1], expected, **close)
    assert not torch.allclose(run()[-1], published(start, noise=lambda draw: rows(draw, swap=True))[-1], **close)
    fresh = published(start, noise=lambda draw: recorded(draw, shape=start.shape))[-1]
    assert not torch.allclose(run()[-1], fresh, **close)
    assert len(run()) == len(LADDER) * EACH
    (only,) = run(final_only=True)
    assert torch.equal(only, run()[-1])
    assert torch.equal(run(START[1:3], sample_offset=1)[-1], only[3:9])


def test_rows_begin_in_given_states_or_in_a_law():
    def begun(**options):
        zero = fl.interpolation(
            lambda x, labels: torch.zeros_like(x), [3.0], points=2, epsilon=1e-30, steps_per_level=1, seed=2, **options
        )
        return zero[::2]

    assert torch.allclose(begun(init=START), START, rtol=0, atol=1e-13)
    # A normal start has the width of the ladder's first level, at the ids of the rows' first samples.
    normal = 3 * fl.randn(SHAPE, seed=2, purpose=Purpose.INITIAL_STATE, sample_ids=[0, 2, 4, 6])
    assert torch.allclose(begun(init="normal", shape=SHAPE), normal, rtol=0, atol=1e-13)
    with pytest.raises(ValueError, match="init must be 'uniform', 'normal' or a tensor"):
        begun(init="zeros", shape=SHAPE)
    with pytest.raises(ValueError, match=r"init must be \(rows, \.\.\.\), and shape="):
        begun(init=START, shape=(3, 2, 4, 6))
    with pytest.raises(ValueError, match="give shape="):
        begun()


LISTED = {
    "ncsn": lambda x, **k: ncsn.anneal_Langevin_dynamics(x, net, LADDER, **ARGUMENTS, **k),
    "one level": lambda x, **k: ncsn.Langevin_dynamics(x, net, 9, LR, label=1, seed=SEED, **k),
    "v1 inpainting": lambda x, **k: ncsn.anneal_Langevin_dynamics_inpainting(
        x, REFERENCE[: len(x)].to(x), net, LADDER, **ARGUMENTS, **k
    ),
    "ncsnv2": lambda x, **k: ncsnv2.anneal_Langevin_dynamics(x, net, LADDER, **ARGUMENTS, denoise=False, **k),
    "v2 inpainting": lambda x, **k: ncsnv2.anneal_Langevin_dynamics_inpainting(
        x, REFERENCE[: len(x)].to(x), net, LADDER, 6, **ARGUMENTS, **k
    ),
}


@pytest.mark.parametrize("run", LISTED.values(), ids=LISTED)
def test_lists_are_thinned_and_keep_the_last(run):
    every = run(START)
    assert same(run(START, keep_every=4), [every[3], every[7], every[8]])
    assert same(run(START, keep_every=3), every[2::3])
    assert same(run(START, keep_every=100), every[-1:])
    with pytest.raises(ValueError, match="keep_every"):
        run(START, keep_every=0)


def test_a_strict_list_is_thinned():
    every = LISTED["ncsn"](START, strict=True)
    assert same(LISTED["ncsn"](START, strict=True, keep_every=4), every[::4])


@pytest.mark.parametrize("run", LISTED.values(), ids=LISTED)
@pytest.mark.parametrize("strict", [False, True])
def test_the_callers_tensor_stays_and_nothing_is_copied_to_the_host(run, strict, monkeypatch):
    start = START.float()
    before, version = start.clone(), start._version
    options = {"strict": True} if strict and run is not LISTED["ncsnv2"] else {}
    expected = run(start, **options)
    copies = []
    for name in ("cpu", "numpy", "tolist", "item"):
        method = getattr(torch.Tensor, name)
        monkeypatch.setattr(
            torch.Tensor,
            name,
            lambda self, *a, method=method, name=name, **k: copies.append((name, self.shape)) or method(self, *a, **k),
        )
    move = torch.Tensor.to

    def to(self, *target, **k):
        if target and isinstance(target[0], str | torch.device):
            copies.append(("to", self.shape))
        return move(self, *target, **k)

    monkeypatch.setattr(torch.Tensor, "to", to)
    found = run(start, **options)
    assert copies == []
    assert start.cpu() is start
    assert copies == [("cpu", start.shape)]
    assert torch.equal(start, before)
    assert start._version == version
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    memory = {state.data_ptr() for state in found}
    assert len(memory) == len(found)
    assert start.data_ptr() not in memory
    assert all(state.device == start.device and state.dtype == start.dtype for state in found)


@pytest.mark.parametrize("run", LISTED.values(), ids=LISTED)
def test_a_sample_does_not_depend_on_its_batch(run):
    whole = run(START.float())
    part = run(START[:2].float(), sample_ids=[0, 1])
    assert torch.equal(part[-1], whole[-1][:2])
    assert not torch.equal(run(START[:2].float(), sample_ids=[1, 0])[-1], whole[-1][:2])


def test_generators_and_the_global_seed():
    def run(**options):
        return ncsnv2.anneal_Langevin_dynamics(START, net, LADDER, EACH, LR, **options)[-1]

    assert torch.equal(run(generator=torch.Generator().manual_seed(3)), run(generator=torch.Generator().manual_seed(3)))
    torch.manual_seed(0)
    first = run()
    assert not torch.equal(run(), first)
    torch.manual_seed(0)
    assert torch.equal(run(), first)


@pytest.mark.parametrize(
    "sigmas",
    [np.array(LADDER), torch.tensor(LADDER, dtype=torch.float64), tuple(LADDER)],
    ids=["array", "tensor", "tuple"],
)
def test_ladders_of_any_kind(sigmas):
    for run in (ncsn.anneal_Langevin_dynamics, ncsnv2.anneal_Langevin_dynamics):
        assert torch.equal(run(START, net, sigmas, **ARGUMENTS)[-1], run(START, net, LADDER, **ARGUMENTS)[-1])


def test_final_only_is_the_last_of_the_list():
    for denoise in (False, True):
        every = ncsnv2.anneal_Langevin_dynamics(START, net, LADDER, denoise=denoise, **ARGUMENTS)
        (only,) = ncsnv2.anneal_Langevin_dynamics(START, net, LADDER, final_only=True, denoise=denoise, **ARGUMENTS)
        assert torch.equal(only, every[-1])
    assert not torch.equal(every[-1], every[-2])


def test_verbose_prints_what_was_published_and_changes_nothing(capsys):
    def run(**options):
        return ncsnv2.anneal_Langevin_dynamics(START, net, LADDER, denoise=False, **ARGUMENTS, **options)

    quiet = run()
    assert capsys.readouterr().out == ""
    assert same(run(verbose=True), quiet)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(quiet)
    states = [START, *quiet]

    def norm(value):
        return value.flatten(1).norm(dim=1).mean().item()

    for draw, line in enumerate(lines):
        level = draw // EACH
        sigma, labels = LADDER[level], torch.full((4,), level)
        size, score = LR * (sigma / LADDER[-1]) ** 2, net(states[draw], labels)
        expected = {
            "level": level,
            "step_size": size,
            "grad_norm": norm(score),
            "image_norm": norm(states[draw + 1]),
            "snr": math.sqrt(size / 2) * norm(score) / norm(recorded(draw)),
            "grad_mean_norm": score.mean(0).norm().item() ** 2 * sigma**2,
        }
        # The norms are sums of 48 fp64 squares in another order.
        assert {name: float(value) for name, value in (each.split(": ") for each in line.split(", "))} == pytest.approx(
            expected, rel=1e-12
        )


def test_verbose_interpolation_has_the_noise_of_its_rows(capsys):
    ncsnv2.anneal_Langevin_dynamics_interpolation(START, net, LADDER, 3, 1, LR, verbose=True, seed=SEED)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(LADDER)
    score = net(START.repeat_interleave(3, 0), torch.zeros(12, dtype=torch.int64)).flatten(1).norm(dim=1).mean()
    size = LR * (LADDER[0] / LADDER[-1]) ** 2

    def line_snr(noise):
        return float(math.sqrt(size / 2) * score / noise.flatten(1).norm(dim=1).mean())

    found = float(lines[0].split("snr: ")[1].split(",")[0])
    # cos, sin and the noise of a row are fp32.
    assert found == pytest.approx(line_snr(rows(0)), rel=1e-6)
    assert found != pytest.approx(line_snr(recorded(0, shape=(12, *SHAPE[1:]))), rel=1e-4)


@pytest.mark.parametrize(("kind", "expected"), [("geometric", [8.0, 4.0, 2.0, 1.0]), ("uniform", [4.0, 3.0, 2.0, 1.0])])
def test_the_ladder_of_a_configuration(kind, expected):
    model = SimpleNamespace(sigma_dist=kind, sigma_begin=expected[0], sigma_end=1.0, num_classes=4)
    sigmas = ncsnv2.get_sigmas(SimpleNamespace(model=model, device="cpu"))
    assert sigmas.dtype == torch.float32
    torch.testing.assert_close(sigmas, torch.tensor(expected), rtol=2**-23, atol=0)
    model.sigma_dist = "karras"
    with pytest.raises(NotImplementedError, match="geometric, uniform, got 'karras'"):
        ncsnv2.get_sigmas(SimpleNamespace(model=model, device="cpu"))


COMMON = tuple(RunOptions.__annotations__)
LIST = ("keep_every", *COMMON)
LOSS = ("step", *SampleOptions.__annotations__)
NONE = inspect.Parameter.empty
SIGNATURES = {
    ncsn.anneal_Langevin_dynamics: (
        {"x_mod": NONE, "scorenet": NONE, "sigmas": NONE, "n_steps_each": 100, "step_lr": 0.00002},
        (*LIST, "strict", "strict_ladder"),
    ),
    ncsn.Langevin_dynamics: (
        {"x_mod": NONE, "scorenet": NONE, "n_steps": 200, "step_lr": 0.00005},
        ("label", *LIST, "strict"),
    ),
    ncsn.anneal_Langevin_dynamics_inpainting: (
        {
            "x_mod": NONE,
            "refer_image": NONE,
            "scorenet": NONE,
            "sigmas": NONE,
            "n_steps_each": 100,
            "step_lr": 0.000008,
        },
        ("mask", *LIST, "strict", "strict_ladder"),
    ),
    ncsn.baseline_Langevin_dynamics: (
        {"x_mod": NONE, "scorenet": NONE, "n_steps": 1000, "step_lr": 0.00002},
        (*LIST, "strict"),
    ),
    ncsn.toy_langevin_dynamics: ({"score": NONE, "init": NONE, "lr": 0.1, "step": 1000}, COMMON),
    ncsn.toy_anneal_langevin_dynamics: (
        {"score": NONE, "init": NONE, "sigmas": NONE, "lr": 0.1, "n_steps_each": 100},
        COMMON,
    ),
    ncsn.dsm: ({"energy_net": NONE, "samples": NONE, "sigma": 1}, LOSS),
    ncsn.dsm_score_estimation: ({"scorenet": NONE, "samples": NONE, "sigma": 0.01}, LOSS),
    ncsn.anneal_dsm_score_estimation: (
        {"scorenet": NONE, "samples": NONE, "labels": NONE, "sigmas": NONE, "anneal_power": 2.0},
        LOSS,
    ),
    **dict.fromkeys(
        (ncsn.single_sliced_score_matching, ncsn.partial_sliced_score_matching),
        (
            {"energy_net": NONE, "samples": NONE, "noise": None, "detach": False, "noise_type": "radermacher"},
            (*LOSS, "strict"),
        ),
    ),
    **dict.fromkeys(
        (ncsn.sliced_score_matching, ncsn.sliced_score_matching_vr),
        ({"energy_net": NONE, "samples": NONE, "n_particles": 1}, (*LOSS, "strict")),
    ),
    **dict.fromkeys(
        (ncsn.sliced_score_estimation, ncsn.sliced_score_estimation_vr),
        ({"score_net": NONE, "samples": NONE, "n_particles": 1}, (*LOSS, "strict")),
    ),
    ncsn.anneal_sliced_score_estimation_vr: (
        {"scorenet": NONE, "samples": NONE, "labels": NONE, "sigmas": NONE, "n_particles": 1},
        LOSS,
    ),
    ncsnv2.anneal_Langevin_dynamics: (
        {
            "x_mod": NONE,
            "scorenet": NONE,
            "sigmas": NONE,
            "n_steps_each": 200,
            "step_lr": 0.000008,
            "final_only": False,
            "verbose": False,
            "denoise": True,
        },
        (*LIST, "strict_ladder"),
    ),
    ncsnv2.anneal_Langevin_dynamics_inpainting: (
        {
            "x_mod": NONE,
            "refer_image": NONE,
            "scorenet": NONE,
            "sigmas": NONE,
            "image_size": NONE,
            "n_steps_each": 100,
            "step_lr": 0.000008,
        },
        ("mask", *LIST, "strict", "strict_ladder"),
    ),
    ncsnv2.anneal_Langevin_dynamics_interpolation: (
        {
            "x_mod": NONE,
            "scorenet": NONE,
            "sigmas": NONE,
            "n_interpolations": NONE,
            "n_steps_each": 200,
            "step_lr": 0.000008,
            "final_only": False,
            "verbose": False,
        },
        (*LIST, "strict_ladder"),
    ),
    ncsnv2.get_sigmas: ({"config": NONE}, ()),
    ncsnv2.anneal_dsm_score_estimation: (
        {
            "scorenet": NONE,
            "samples": NONE,
            "sigmas": NONE,
            "labels": None,
            "anneal_power": 2.0,
            "hook": None,
        },
        LOSS,
    ),
}


@pytest.mark.parametrize("function", SIGNATURES, ids=lambda each: f"{each.__module__.split('.')[-1]}.{each.__name__}")
def test_signatures_are_the_published_ones(function):
    positional, extra = SIGNATURES[function]
    parameters = inspect.signature(function).parameters.values()
    published = [each for each in parameters if each.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
    assert [(each.name, each.default) for each in published] == list(positional.items())
    ours = [each for each in parameters if each.kind is inspect.Parameter.KEYWORD_ONLY]
    assert {each.name for each in ours} == {*extra}
    assert all(each.default is not NONE for each in ours)
    assert len(published) + len(ours) == len(parameters)


def test_every_function_is_in_the_table_of_signatures():
    public = {getattr(module, name) for module in (ncsn, ncsnv2) for name in module.__all__}
    assert public == set(SIGNATURES)


STEPS = {"n_steps_each": EACH, "step_lr": LR, "seed": SEED}
# Each function that returns samples, with a network.
SAMPLING = {
    "ncsn": lambda net: ncsn.anneal_Langevin_dynamics(START, net, LADDER, **STEPS),
    "ncsn strict": lambda net: ncsn.anneal_Langevin_dynamics(START, net, LADDER, **STEPS, strict=True),
    "ncsn one level": lambda net: ncsn.Langevin_dynamics(START, net, 9, LR, label=2, seed=SEED),
    "ncsn baseline": lambda net: ncsn.baseline_Langevin_dynamics(START, net, 9, LR, seed=SEED),
    "ncsn inpainting": lambda net: ncsn.anneal_Langevin_dynamics_inpainting(START, REFERENCE, net, LADDER, **STEPS),
    "ncsn toy": lambda net: [ncsn.toy_langevin_dynamics(net, START, LR, 9, seed=SEED)],
    "ncsn toy annealed": lambda net: [
        ncsn.toy_anneal_langevin_dynamics(net, START, LADDER, LR, n_steps_each=EACH, seed=SEED)
    ],
    "ncsnv2": lambda net: ncsnv2.anneal_Langevin_dynamics(START, net, LADDER, **STEPS),
    "ncsnv2 last": lambda net: ncsnv2.anneal_Langevin_dynamics(START, net, LADDER, **STEPS, final_only=True),
    "ncsnv2 inpainting": lambda net: ncsnv2.anneal_Langevin_dynamics_inpainting(
        START, REFERENCE, net, LADDER, 6, **STEPS
    ),
    "ncsnv2 interpolation": lambda net: ncsnv2.anneal_Langevin_dynamics_interpolation(START, net, LADDER, 2, **STEPS),
}


@pytest.mark.parametrize("name", SAMPLING)
def test_a_state_that_is_not_finite_is_told_of(name):
    class Failing:
        def __init__(self, call):
            self.call, self.calls = call, 0

        def __call__(self, x, *level):
            out = -x
            if self.calls >= self.call:
                out[2, ..., -1] = math.nan
            self.calls += 1
            return out

    assert all(each.isfinite().all() for each in SAMPLING[name](Failing(10**9)))
    for call in (0, 8):
        with pytest.raises(fl.NonFiniteError, match=rf"1 of \d samples are not finite.* update {call} .*: sample 2\."):
            SAMPLING[name](Failing(call))
