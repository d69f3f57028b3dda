"""Diagnostics against exact laws and direct sums, each with a twin that must fail; what they promise besides."""

import io
import math
import sys

import pytest
import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import fastlangevin as fl
from fastlangevin import diagnostics
from fastlangevin.diagnostics import effective, elements, levels

LIMIT = 6.0  # standard errors; the seeds are fixed

EVERY = {
    "rhat": diagnostics.split_rhat,
    "plain rhat": lambda x, **options: diagnostics.split_rhat(x, rank=False, **options),
    "bulk": diagnostics.ess,
    "tail": lambda x, **options: diagnostics.ess(x, kind="tail", **options),
    "mean": lambda x, **options: diagnostics.ess(x, kind="mean", **options),
    "mcse": diagnostics.mcse,
    "mcse of sd": lambda x, **options: diagnostics.mcse(x, kind="sd", **options),
    "time": diagnostics.integrated_autocorrelation_time,
    "autocorrelation": lambda x, **options: diagnostics.autocorrelation(x, 3, **options),
    "pooled": lambda x, **options: diagnostics.autocorrelation(x, 3, center="pooled", **options),
    "chains": lambda x, **options: diagnostics.autocorrelation(x, keep_chains=True, **options),
}


def normals(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def autoregressive(frames, chains, count, rho, seed=0):
    """Stationary AR(1) of unit variance, ``(frames, chains, count)``: autocorrelation rho^lag."""
    x = normals(frames, chains, count, seed=seed)
    x[1:] *= math.sqrt(1 - rho**2)
    for t in range(1, frames):
        x[t] += rho * x[t - 1]
    return x


def time_errors(x, rho):
    """Errors of the integrated autocorrelation time, (1 + rho)/(1 - rho), in standard errors.

    Of a sum up to lag M the standard error is tau sqrt(2 (2 M + 1)/N) (Sokal 1997, equation 3.19). The sum ends at the
    first pair below zero, once the autocorrelation is lost in its own error of some 1/sqrt(N). From lag to lag that
    error is correlated as (1 + k (1 - rho^2)/(1 + rho^2)) rho^k, so that it keeps its sign for k lags with a chance of
    about rho^(k/2), or 2^(-k/2) where pairs are independent: lags enough for a chance of 1e-4 are allowed for.
    """
    tau, draws = (1 + rho) / (1 - rho), x[..., 0].numel()
    lost = math.log(draws) / 2 / -math.log(abs(rho)) if rho else 0.0
    window = lost + 2 * math.log(1e4) / -math.log(max(abs(rho), 0.5))
    found = diagnostics.integrated_autocorrelation_time(x)
    return (found - tau).abs() / (tau * math.sqrt(2 * (2 * window + 1) / draws))


@pytest.mark.parametrize(("rho", "other"), [(0.9, 0.8), (0.5, 0.3), (0.0, 0.2), (-0.5, -0.3)])
def test_the_time_of_an_autoregression_is_known(rho, other):
    assert time_errors(autoregressive(4000, 64, 4, rho), rho).max() < LIMIT
    assert time_errors(autoregressive(4000, 64, 4, other), rho).min() > LIMIT


@pytest.mark.parametrize("rho", [0.9, 0.5, 0.0, -0.5])
def test_geyers_sum_of_exact_autocorrelations_is_exact(rho):
    exact = rho ** torch.arange(400, dtype=torch.float64)[None]
    tau = (1 + rho) / (1 - rho)
    # 200 pairs of numbers below 2, each rounded; what lies beyond them is below 1e-17.
    assert abs(float(effective.monotone_sum(exact)) - tau) < 400 * 2.0**-52
    doubled = exact.clone()
    doubled[:, 7] += 1.0  # pair 3 is larger than pair 2, whose size it is given
    pairs = exact.unflatten(1, (-1, 2)).sum(-1)[0]
    expected = tau + 2 * float(pairs[2] - pairs[3])
    assert abs(float(effective.monotone_sum(doubled)) - expected) < 400 * 2.0**-52
    ended = exact.clone()
    ended[:, 7] -= 2.0  # pair 3 is below zero: the sum ends, with the even lag where that is positive
    assert abs(float(effective.monotone_sum(ended)) - float(2 * pairs[:3].sum() - 1 + exact[0, 6])) < 400 * 2.0**-52


def calibration(x, repeat=1):
    """How far the mean square of mean / mcse, over elements of mean zero, is from 1, in standard errors."""
    scores = x.mean((0, 1)) / diagnostics.mcse(x.repeat(1, repeat, 1))
    return float(((scores**2).mean() - 1) / math.sqrt(2 / scores.numel()))


def test_the_error_of_a_mean_is_its_error():
    x = autoregressive(600, 4, 1000, 0.7)
    assert abs(calibration(x)) < LIMIT
    # The same chains twice are taken for twice the draws, as by every estimator of this kind.
    assert calibration(x, repeat=2) > LIMIT
    assert abs(calibration(x[:, :1].expand(-1, 4, -1))) > LIMIT


def test_the_error_of_a_standard_deviation_is_its_error():
    x = autoregressive(600, 4, 1000, 0.7)
    scores = (x.std((0, 1)) - 1) / diagnostics.mcse(x, kind="sd")
    wrong = (x.std((0, 1)) - 1) / diagnostics.mcse(x)
    assert abs(float(((scores**2).mean() - 1) / math.sqrt(2 / 1000))) < LIMIT
    assert abs(float(((wrong**2).mean() - 1) / math.sqrt(2 / 1000))) > LIMIT


@pytest.fixture(scope="module")
def stationary():
    """Unadjusted Langevin dynamics on N(0, v), from its stationary law."""
    v, alpha = 0.25, 0.1
    start = fl.randn((400, 5), seed=1, dtype=torch.float64) * math.sqrt(v / (1 - alpha / (4 * v)))
    run = fl.langevin(lambda x: -x / v, start, steps=400, epsilon=alpha, seed=0, trajectory=1, full_output=True)
    return run, 1 - alpha / (2 * v)


def lag_errors(x, rho):
    """Errors of the autocorrelations rho^1 to rho^10, pooled over elements, in Bartlett's standard errors for AR(1)."""
    frames, draws = x.shape[0], x.numel()
    found = diagnostics.autocorrelation(x, 10, center="pooled").mean(1)
    errors = []
    for lag in range(1, 11):
        square = rho ** (2 * lag)
        variance = ((1 + rho**2) * (1 - square) / (1 - rho**2) - 2 * lag * square) / draws
        unbiased = float(found[lag]) * frames / (frames - lag)
        errors.append(abs(unbiased - rho**lag) / math.sqrt(variance))
    return torch.tensor(errors)


def test_unadjusted_langevin_remembers_as_its_step_size_says(stationary):
    run, rho = stationary
    assert lag_errors(run.trajectory, rho).max() < LIMIT
    assert lag_errors(run.trajectory, rho + 0.01).max() > LIMIT
    assert time_errors(run.trajectory, rho).max() < LIMIT
    assert time_errors(run.trajectory[::2], rho).min() > LIMIT


def rhat_errors(x, rho):
    """Errors of the plain R-hat, whose B/n and W have known means for AR(1), in standard errors.

    The mean of n draws of unit variance has the variance v = 1/n (1 + 2 sum of (1 - k/n) rho^k), and E W = (1 - v) n /
    (n - 1). Of the two only v has an error to speak of, sqrt(2/(m - 1)) of it for m half chains.
    """
    n, half_chains = x.shape[0] // 2, 2 * x.shape[1]
    lags = torch.arange(1, n)
    v = float(1 + 2 * ((1 - lags / n) * rho**lags).sum()) / n
    ratio = v * (n - 1) / (n * (1 - v))
    found = diagnostics.split_rhat(x, rank=False) ** 2 - (n - 1) / n
    return (found / ratio - 1).abs() / math.sqrt(2 / (half_chains - 1))


def test_split_rhat_of_unadjusted_langevin_is_known(stationary):
    run, rho = stationary
    assert rhat_errors(run.trajectory, rho).max() < LIMIT
    assert rhat_errors(run.trajectory, 0.9 * rho).min() > LIMIT
    together = run.trajectory - run.trajectory.mean(0)  # chains that all have one mean
    assert rhat_errors(together, rho).min() > LIMIT


def test_a_chains_own_mean_takes_correlation_away_as_documented():
    """White noise of F frames has E c_1 / E c_0 = -1/F about the means of its chains, and 0 about the mean of all."""
    frames, chains = 20, 20_000
    x = normals(frames, chains)
    error = 1 / math.sqrt(frames * chains)
    own = float(diagnostics.autocorrelation(x, 1)[1])
    pooled = float(diagnostics.autocorrelation(x, 1, center="pooled")[1])
    assert abs(own + 1 / frames) < LIMIT * error
    assert abs(pooled) < LIMIT * error
    assert abs(own) > LIMIT * error


@pytest.mark.parametrize("frames", [4, 7, 32, 61])
@pytest.mark.parametrize("center", ["chain", "pooled"])
def test_autocorrelation_is_its_sum(frames, center):
    x = autoregressive(frames, 3, 2, 0.6) + 5
    left = x - (x.mean(0) if center == "chain" else x.mean((0, 1)))
    covariances = torch.stack([(left[: frames - lag] * left[lag:]).sum(0) / frames for lag in range(frames)])
    kept = diagnostics.autocorrelation(x, keep_chains=True, center=center)
    # Sums of at most 61 products, and a transform of as many, of numbers of order one.
    close = {"rtol": 0, "atol": 1e-13}
    torch.testing.assert_close(kept, covariances / covariances[0], **close)
    mean = covariances.mean(1)
    torch.testing.assert_close(diagnostics.autocorrelation(x, center=center), mean / mean[0], **close)
    assert torch.equal(diagnostics.autocorrelation(x, 2, center=center)[0], torch.ones(2, dtype=torch.float64))
    unbiased = covariances * (frames / (frames - torch.arange(frames)))[:, None, None]
    assert (kept - unbiased / unbiased[0]).abs().max() > 1e-3


def test_chains_of_one_law_agree_and_others_do_not():
    x = autoregressive(1000, 4, 3, 0.3)
    assert diagnostics.split_rhat(x).max() < 1.01
    assert diagnostics.split_rhat(x, rank=False).max() < 1.01

    moved = x.clone()
    moved[:, 0] += 1.5
    assert diagnostics.split_rhat(moved).min() > 1.1
    assert diagnostics.split_rhat(moved, rank=False).min() > 1.1

    wider = x.clone()
    wider[:, 0] *= 4
    assert diagnostics.split_rhat(wider).min() > 1.1
    assert diagnostics.split_rhat(wider, rank=False).max() < 1.01  # it only compares means

    heavy = torch.tan(math.pi * (fl.rand((1000, 4, 3), seed=1, dtype=torch.float64) - 0.5))
    heavy[:, 0] += 6
    assert diagnostics.split_rhat(heavy).min() > 1.1
    assert diagnostics.split_rhat(heavy, rank=False).max() < 1.05  # the variance it divides by is infinite


def test_a_single_chain_is_compared_with_itself():
    x = autoregressive(1000, 1, 3, 0.3)
    assert diagnostics.split_rhat(x).max() < 1.01
    drift = x + torch.linspace(0, 3, 1000, dtype=torch.float64)[:, None, None]
    assert diagnostics.split_rhat(drift).min() > 1.1


def test_antithetic_draws_are_worth_more_than_they_are():
    x = autoregressive(1000, 4, 3, -0.5)
    assert (diagnostics.ess(x, kind="mean") > 4000).all()
    assert (diagnostics.ess(autoregressive(1000, 4, 3, 0.5), kind="mean") < 4000).all()


def test_what_does_not_move():
    x = autoregressive(51, 3, 4, 0.5)
    x[:, :, 1] = 0.1
    x[:, :, 2] = torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64)
    x[20, 1, 3] = torch.nan
    for rank in (True, False):
        rhat = diagnostics.split_rhat(x, rank=rank)
        assert rhat[0] < 1.2
        assert rhat[1].isnan()
        assert rhat[2] == math.inf
        assert rhat[3].isnan()
    for kind in ("bulk", "tail", "mean"):
        size = diagnostics.ess(x, kind=kind)
        assert size[1] == 150
        assert size[2] < 10
        assert size[3].isnan()
    assert diagnostics.mcse(x)[1] == 0
    time = diagnostics.integrated_autocorrelation_time(x)
    assert time[1] == 1
    assert time[3].isnan()
    kept = diagnostics.autocorrelation(x, keep_chains=True)
    assert kept[:, :, 1:3].isnan().all()
    assert kept[:, 1, 3].isnan().all()
    assert kept[:, [0, 2], 3].isfinite().all()


@pytest.mark.parametrize("name", EVERY)
def test_the_unit_of_the_state_does_not_matter(name):
    x = autoregressive(40, 3, 5, 0.5)
    unit = 2.0**-90 if name.startswith("mcse") else 1.0
    assert torch.equal(EVERY[name](x * 2.0**-90), EVERY[name](x) * unit)


@pytest.mark.parametrize("name", EVERY)
def test_any_shape_type_and_layout(name, monkeypatch):
    function = EVERY[name]
    x = autoregressive(40, 3, 24, 0.5).float()
    expected = function(x)
    assert expected.dtype == torch.float64
    shaped = x.reshape(40, 3, 2, 3, 4)
    assert torch.equal(function(shaped), expected.reshape(*expected.shape[:-1], 2, 3, 4))
    last = shaped.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)
    assert not last.is_contiguous()
    assert torch.equal(function(last), function(shaped))
    assert torch.equal(function(x.transpose(0, 1).contiguous(), dims=(1, 0)), expected)
    assert torch.equal(function(x.movedim((0, 1), (2, 0)).contiguous(), dims=(-1, -3)), expected)
    # Sums of one element may be taken in another order where it stands alone.
    close = {"rtol": 1e-12, "atol": 1e-14}
    torch.testing.assert_close(function(x[:, :, 0]), expected[..., 0], **close)
    monkeypatch.setattr(elements, "WORKING_BYTES", elements.BYTES_PER_DRAW * 120 * 7)
    torch.testing.assert_close(function(x), expected, **close)
    for dtype in (torch.float16, torch.bfloat16):
        assert torch.equal(function(x.to(dtype)), function(x.to(dtype).double()))
    assert not function(x.clone().requires_grad_()).requires_grad


class Peak(TorchDispatchMode):
    """The most bytes of tensors that were alive at once, without those of the one given."""

    def __init__(self, given):
        super().__init__()
        self.given, self.living, self.most = given.untyped_storage()._cdata, {}, 0

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        result = function(*arguments, **(options or {}))
        for each in tree_leaves(result):
            if isinstance(each, torch.Tensor) and each.untyped_storage()._cdata != self.given:
                storage = each.untyped_storage()
                self.living[StorageWeakRef(storage).cdata] = (StorageWeakRef(storage), storage.nbytes())
        self.living = {key: kept for key, kept in self.living.items() if not kept[0].expired()}
        self.most = max(self.most, sum(size for _, size in self.living.values()))
        return result


@pytest.mark.long
@pytest.mark.parametrize("shape", [(200, 5), (5, 200), (1001, 1)])
@pytest.mark.parametrize("name", [name for name in EVERY if name != "chains"])
def test_memory_is_bounded(name, shape, monkeypatch):
    x = normals(*shape, 32)
    draws = math.prod(shape)
    some = elements.BYTES_PER_DRAW * draws * 8
    monkeypatch.setattr(elements, "WORKING_BYTES", some)
    with Peak(x) as peak:
        result = EVERY[name](x)
    assert some / 4 < peak.most - result.nbytes <= some
    monkeypatch.setattr(elements, "WORKING_BYTES", 1)
    with Peak(x) as peak:
        EVERY[name](x)
    assert peak.most - result.nbytes <= elements.BYTES_PER_DRAW * draws
    monkeypatch.setattr(elements, "WORKING_BYTES", 2**40)
    with Peak(x) as peak:
        EVERY[name](x)
    assert peak.most > some


@pytest.mark.gpu
@pytest.mark.parametrize("name", EVERY)
def test_a_device_finds_the_same(name):
    x = autoregressive(101, 4, 30, 0.5)
    found = EVERY[name](x.cuda())
    assert found.is_cuda
    # As between ArviZ and this, see tests/test_diagnostics_arviz.py.
    torch.testing.assert_close(found.cpu(), EVERY[name](x), rtol=2e-12, atol=1e-13)


LADDER = fl.geometric_sigmas(1.0, 0.1, 3)


def anneal(steps, every, stop=None):
    """A run, and the level that made each update, update 0 being none."""
    made = [None]

    def look(info):
        made.append(info.level)
        return info.step == stop

    variance = LADDER**2 + 0.09
    run = fl.annealed_langevin(
        lambda x, labels: -x / variance.to(x.dtype)[labels][:, None],
        LADDER,
        shape=(5, 2),
        epsilon=2e-3,
        steps_per_level=steps,
        seed=3,
        trajectory=every,
        full_output=True,
        callback=look,
    )
    return run, made


def frames_by_hand(made, steps, every, skipped):
    """Frames of each level by the levels that the sampler told."""
    found = {}
    for frame in range(1, (len(made) - 1) // every + 1):
        update = frame * every
        inside = sum(level == made[update] for level in made[: update + 1])
        if inside > skipped:
            found.setdefault(made[update], []).append(frame)
    return [range(each[0], each[-1] + 1) for level, each in sorted(found.items())]


@pytest.mark.parametrize(
    ("steps", "every", "warmup", "skipped"),
    [(10, 1, 0.5, 5), (12, 2, 0.25, 3), (25, 3, 0.2, 5), (8, 2, 0.0, 0), (17, 4, 0.0, 0), (30, 1, 0.1, 3)],
)
def test_a_level_has_the_frames_that_its_updates_made(steps, every, warmup, skipped):
    run, made = anneal(steps, every)
    expected = frames_by_hand(made, steps, every, skipped)
    found = diagnostics.by_level(run, every=every, warmup=warmup)
    assert list(found.frames) == expected
    shifted = [range(each.start - 1, each.stop - 1) for each in expected]
    assert list(found.frames) != shifted
    assert found.sigmas == tuple(LADDER.tolist())
    for level, each in enumerate(expected):
        part = run.trajectory[each.start : each.stop]
        assert torch.equal(found.rhat[level], diagnostics.split_rhat(part))
        assert torch.equal(found.ess_bulk[level], diagnostics.ess(part))
        assert torch.equal(found.ess_tail[level], diagnostics.ess(part, kind="tail"))
        assert torch.equal(found.autocorrelation[level], diagnostics.autocorrelation(part, 1, center="pooled")[1])
    again = diagnostics.by_level(run.trajectory, steps, every=every, warmup=warmup)
    assert again.frames == found.frames
    assert again.sigmas is None
    assert torch.equal(again.rhat, found.rhat)


@pytest.mark.parametrize(("stop", "levels_left"), [(10, 1), (13, 1), (18, 1), (19, 2), (20, 2), (29, 3)])
def test_a_stopped_chain_is_diagnosed_as_far_as_it_came(stop, levels_left):
    run, made = anneal(10, 1, stop=stop)
    found = diagnostics.by_level(run, every=1)
    assert list(found.frames) == frames_by_hand(made, 10, 1, 5)[:levels_left]
    assert len(found.sigmas) == levels_left


def test_plain_langevin_is_one_level(stationary):
    run, _ = stationary
    found = diagnostics.by_level(run, every=1, warmup=0.25)
    assert found.frames == (range(101, 401),)
    assert found.sigmas is None


def test_the_table_of_levels():
    run, _ = anneal(10, 1)
    x = run.trajectory.clone()
    x[:, :, 1] = 0.5
    table = str(diagnostics.by_level(x, 10, every=1, sigmas=LADDER)).splitlines()
    assert table[0].split()[:5] == ["level", "sigma", "frames", "draws", "R-hat"]
    assert len(table) == 5
    for level, (line, start) in enumerate(zip(table[1:4], (6, 16, 26), strict=True)):
        cells = line.split()
        assert cells[:4] == [str(level), f"{LADDER[level].item():.4g}", f"{start}-{start + 4}", "25"]
        rhat = diagnostics.split_rhat(x[start : start + 5])[0]
        assert cells[4] == cells[5] == f"{rhat:.3f}"
        assert cells[-1] == "1"
    assert table[4].startswith("of 2 elements and 5 chains, a frame every 1 update;")
    assert "sigma" not in str(diagnostics.by_level(x, 10, every=1))
    constant = str(diagnostics.by_level(torch.ones(11, 2, 1), 10, every=1)).splitlines()[1].split()
    assert constant == ["0", "6-10", "10", "-", "-", "8", "8", "8", "8", "-", "-", "1"]


def test_levels_without_frames_are_refused():
    assert levels.level_frames(9, 12, 3, 0.0) == [range(1, 5), range(5, 9)]
    with pytest.raises(ValueError, match="level 0 has 3 frames after its warm-up and needs 4"):
        levels.level_frames(31, 11, 3, 0.0)
    with pytest.raises(ValueError, match="level 1 has 3 frames after its warm-up and needs 4"):
        levels.level_frames(9, 13, 3, 0.15)
    assert levels.level_frames(8, 13, 3, 0.15) == [range(1, 5)]  # stopped within level 1, as far as can be told


def test_the_picture(tmp_path):
    from PIL import Image

    x = autoregressive(200, 6, 12, 0.8).reshape(200, 6, 3, 4)
    x[:, 2, 0, 1] += 4
    x[:, :, 0, 2] = 1.0
    x[3, 0, 0, 3] = torch.nan

    def drawn(**options):
        diagnostics.picture(tmp_path / "chains.png", x, **options)
        return (tmp_path / "chains.png").read_bytes()

    picture = drawn()
    image = Image.open(io.BytesIO(picture))
    assert image.size == (1200, 760)
    assert len(image.convert("RGB").getcolors(10**6)) > 100
    constant = drawn(elements=(2,), max_lag=7)
    assert Image.open(io.BytesIO(constant)).size == (1200, 280)
    assert drawn(elements=(2,), max_lag=7) == constant
    x = x[:, :1, 0]
    assert drawn(elements=(3,)) != constant


def test_without_matplotlib_the_picture_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match="pip install matplotlib"):
        diagnostics.picture(tmp_path / "chains.png", normals(10, 2))
    assert not list(tmp_path.iterdir())
