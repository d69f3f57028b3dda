"""Schedulers for diffusers, against diffusers itself and against this package's samplers."""

import pytest
import torch

import fastlangevin as fl
from fastlangevin import rules
from fastlangevin.noise import Purpose, seed_from

diffusers = pytest.importorskip("diffusers")
from diffusers import DDPMPipeline, ScoreSdeVePipeline, ScoreSdeVeScheduler, UNet2DModel  # noqa: E402
from diffusers.pipelines.deprecated.score_sde_ve import pipeline_score_sde_ve  # noqa: E402
from diffusers.schedulers import scheduling_sde_ve  # noqa: E402

from fastlangevin.compat.diffusers import AnnealedLangevinScheduler, FusedScoreSdeVeScheduler  # noqa: E402

LADDER = fl.geometric_sigmas(1.0, 0.1, 4)
ANNEALED = {"num_train_timesteps": 4, "sigma_max": 1.0, "sigma_min": 0.1, "steps_per_level": 3, "epsilon": 2e-3}
SHAPE = (3, 2, 5, 5)
SDE = {"sigma_min": 0.05, "sigma_max": 2.0, "snr": 0.16}


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def addressed(monkeypatch):
    """Has diffusers draw what this package draws: normals of one seed, numbered by its calls or by ``draws``."""
    calls = Calls()

    def randn_tensor(shape, generator=None, device=None, dtype=None, layout=None):
        draws = calls.draws or [len(calls)] * shape[0]
        calls.append(tuple(shape))
        rows = [
            fl.randn((1, *shape[1:]), seed=7, draw=draw, sample_offset=row, purpose=Purpose.LANGEVIN)
            for row, draw in enumerate(draws)
        ]
        return torch.cat(rows).double()

    monkeypatch.setattr(scheduling_sde_ve, "randn_tensor", randn_tensor)
    return calls


class Calls(list):
    """Shapes that were drawn; ``draws`` are the numbers of each sample's next draw, if they are not those of calls."""

    draws = None


class InDouble(ScoreSdeVeScheduler):
    """The original with fp64 coefficients for an fp64 state: its fp32 noise levels widened, its ``torch.ones`` too."""

    def set_sigmas(self, *arguments, **options):
        super().set_sigmas(*arguments, **options)
        self.discrete_sigmas = self.discrete_sigmas.double()

    def step_correct(self, *arguments, **options):
        torch.set_default_dtype(torch.float64)
        try:
            return super().step_correct(*arguments, **options)
        finally:
            torch.set_default_dtype(torch.float32)


def ready(kind, steps=5, **options):
    scheduler = kind(**SDE, **options)
    scheduler.set_timesteps(steps)
    scheduler.set_sigmas(steps)
    return scheduler


def normals(shape=SHAPE, seed=1, dtype=torch.float64):
    return fl.randn(shape, seed=seed).to(dtype)


def score(x, labels):
    return (0.5 - x) / (LADDER.to(x) ** 2 + 0.09)[labels].view(-1, *(1,) * (x.ndim - 1))


def unet(**options):
    torch.manual_seed(0)
    return UNet2DModel(
        sample_size=8,
        block_out_channels=(8, 8),
        layers_per_block=1,
        norm_num_groups=4,
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        add_attention=False,
        **options,
    ).eval()


def anneal(scheduler, x, net=score, steps=None, **address):
    """The loop of every pipeline."""
    scheduler.set_timesteps(steps)
    for t in scheduler.timesteps:
        x = scheduler.step(net(x, t.expand(x.shape[0])), t, x, **address).prev_sample
    return x


@torch.no_grad()
def correct_and_predict(scheduler, net, x, steps, corrections=2, **address):
    """The loop of ScoreSdeVePipeline, before it clamps."""
    scheduler.set_timesteps(steps)
    scheduler.set_sigmas(steps)
    for i, t in enumerate(scheduler.timesteps):
        sigma = scheduler.sigmas[i] * torch.ones(x.shape[0])
        for _ in range(corrections):
            x = scheduler.step_correct(net(x, sigma).sample, x, **address).prev_sample
        x, mean = scheduler.step_pred(net(x, sigma).sample, t, x, return_dict=False, **address)
    return mean


# The stand-in for ScoreSdeVeScheduler


@pytest.mark.parametrize("steps", [1, 2, 50, 1001])
@pytest.mark.parametrize("config", [{}, {"sigma_max": 50.0, "sampling_eps": 1e-3}], ids=["default", "other"])
def test_times_and_noise_levels_are_the_originals(steps, config):
    theirs, ours = ScoreSdeVeScheduler(**config), FusedScoreSdeVeScheduler(**config)
    assert torch.equal(ours.timesteps, theirs.timesteps)
    for scheduler in (theirs, ours):
        scheduler.set_timesteps(steps)
        scheduler.set_sigmas(steps, sigma_max=60.0)
    for name in ("timesteps", "sigmas", "discrete_sigmas"):
        assert torch.equal(getattr(ours, name), getattr(theirs, name)), name
    index = torch.arange(steps)
    assert torch.equal(ours.get_adjacent_sigma(index, index / steps), theirs.get_adjacent_sigma(index, index / steps))
    assert ours.init_noise_sigma == theirs.init_noise_sigma
    assert len(ours) == len(theirs)
    x, noise, at = normals((2, 3, 4, 4)), normals((2, 3, 4, 4), seed=2), torch.tensor([0, steps - 1])
    # Two roundings of fp64.
    torch.testing.assert_close(ours.add_noise(x, noise, at), theirs.add_noise(x, noise, at), rtol=0, atol=2.0**-40)
    assert ours.scale_model_input(x, 3) is x


@pytest.mark.parametrize("step", range(5))
def test_the_predictor_is_the_originals(step, addressed):
    theirs, ours = ready(InDouble), ready(FusedScoreSdeVeScheduler)
    x, g, t = normals(), normals(seed=2), theirs.timesteps[step]
    addressed.draws = [2 * step + 1] * 3
    expected = theirs.step_pred(g, t, x)
    found = ours.step_pred(g, t, x, seed=7)
    # Some ten roundings of numbers up to |x| + a |g| + b |z|, where a < 4, b < 2 and all three are below 5.
    tolerance = {"rtol": 0.0, "atol": 10 * 35 * 2.0**-53}
    torch.testing.assert_close(found.prev_sample, expected.prev_sample, **tolerance)
    torch.testing.assert_close(found.prev_sample_mean, expected.prev_sample_mean, **tolerance)
    assert torch.equal(ready(FusedScoreSdeVeScheduler).step_pred(g, t, x, None, False, seed=7)[1], found[1])
    each = ready(FusedScoreSdeVeScheduler).step_pred(g, t.expand(3), x, seed=7)
    assert torch.equal(each.prev_sample, found.prev_sample)
    assert ours.draw == 2 * step + 2
    assert len(addressed) == 1

    wrong = ready(FusedScoreSdeVeScheduler)  # a wrong level below: 0.999 of this one
    ladder = theirs.discrete_sigmas
    index = 4 - step
    jump = float(ladder[index] ** 2 - (ladder[index] * 0.999) ** 2)
    wrong._drift[index], wrong._diffusion[index] = jump, jump**0.5
    assert not torch.allclose(wrong.step_pred(g, t, x, seed=7)[1], expected[1], rtol=0, atol=1e-5)


def test_samples_at_times_of_their_own(addressed):
    theirs, ours = ready(InDouble), ready(FusedScoreSdeVeScheduler)
    x, g, t = normals(), normals(seed=2), theirs.timesteps[[0, 4, 2]]
    addressed.draws = [1, 9, 5]
    found, expected = ours.step_pred(g, t, x, seed=7), theirs.step_pred(g, t, x)
    torch.testing.assert_close(found.prev_sample, expected.prev_sample, rtol=0, atol=10 * 35 * 2.0**-53)


@pytest.mark.parametrize("shape", [(3, 2, 5, 5), (1, 3, 40, 40), (4, 7)], ids=str)
def test_the_corrector_is_the_originals(shape, addressed):
    theirs, ours = ready(InDouble), ready(FusedScoreSdeVeScheduler)
    x, g = normals(shape), normals(shape, seed=2) * 3
    expected = theirs.step_correct(g, x).prev_sample
    found = ours.step_correct(g, x, seed=7).prev_sample
    # Norms of D squares are known to D/2 roundings, their ratio squared to 2 D; numbers below 10.
    elements = x[0].numel()
    tolerance = {"rtol": 0.0, "atol": (2 * elements + 10) * 10 * 2.0**-53}
    torch.testing.assert_close(found, expected, **tolerance)
    assert torch.equal(ready(FusedScoreSdeVeScheduler).step_correct(g, x, None, False, seed=7)[0], found)
    wrongs = [
        ready(FusedScoreSdeVeScheduler, norm="sqrt_d"),
        FusedScoreSdeVeScheduler(**{**SDE, "snr": SDE["snr"] * 1.001}),
        FusedScoreSdeVeScheduler(**{**SDE, "snr": SDE["snr"] / 2**0.5}),
    ]
    if shape[0] > 1:
        wrongs.append(ready(FusedScoreSdeVeScheduler, norm="sample"))
    for wrong in wrongs:
        assert not torch.allclose(wrong.step_correct(g, x, seed=7).prev_sample, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_whole_loop_with_a_network_is_the_originals(dtype, addressed, monkeypatch):
    net = unet(time_embedding_type="fourier").to(dtype)
    if dtype == torch.float32:
        double = scheduling_sde_ve.randn_tensor
        monkeypatch.setattr(
            scheduling_sde_ve, "randn_tensor", lambda *args, **options: double(*args, **options).float()
        )
    config = {**SDE, "correct_steps": 2}
    theirs = (InDouble if dtype == torch.float64 else ScoreSdeVeScheduler)(**config)
    x = normals((2, 3, 8, 8), dtype=dtype) * SDE["sigma_max"]
    expected = correct_and_predict(theirs, net, x, 4)
    assert len(addressed) == 12
    ours = FusedScoreSdeVeScheduler(**config)
    found = correct_and_predict(ours, net, x, 4, seed=7)
    # A rounding grows as a change of the initial state does; there are 12 updates of some ten roundings each, of the
    # state's size, with coefficients known to a few more.
    change = 2.0**-12 * float(x.abs().max())
    near = correct_and_predict(
        FusedScoreSdeVeScheduler(**config), net, x + change * normals(x.shape, 9, dtype), 4, seed=7
    )
    growth = max(1.0, float((near - found).abs().max()) / change)
    tolerance = growth * 12 * 20 * float(x.abs().max()) * torch.finfo(dtype).eps
    assert tolerance < 1e-2
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance)
    for wrong in ({"norm": "sample"}, {"snr": SDE["snr"] * 1.05}):
        other = correct_and_predict(FusedScoreSdeVeScheduler(**{**config, **wrong}), net, x, 4, seed=7)
        assert float((other - expected).abs().max()) > 3 * tolerance


def test_the_pipeline_of_diffusers_runs_and_saves_it(tmp_path, monkeypatch):
    pipeline = ScoreSdeVePipeline(unet(time_embedding_type="fourier"), FusedScoreSdeVeScheduler(**SDE, norm="sample"))
    pipeline.set_progress_bar_config(disable=True)
    x = normals((2, 3, 8, 8), dtype=torch.float32)
    monkeypatch.setattr(pipeline_score_sde_ve, "randn_tensor", lambda shape, generator: x)
    images = pipeline(2, 3, torch.Generator().manual_seed(1), output_type="np").images
    scheduler = FusedScoreSdeVeScheduler(**SDE, norm="sample")
    generator = torch.Generator().manual_seed(1)
    expected = correct_and_predict(
        scheduler, pipeline.unet, x * SDE["sigma_max"], 3, corrections=1, generator=generator
    )
    assert torch.equal(torch.as_tensor(images), expected.clamp(0, 1).permute(0, 2, 3, 1))

    pipeline.save_pretrained(tmp_path)
    again = ScoreSdeVePipeline.from_pretrained(tmp_path)
    assert type(again.scheduler) is FusedScoreSdeVeScheduler
    assert again.scheduler.config.norm == "sample"


# Configurations


def test_configurations_come_and_go(tmp_path):
    ScoreSdeVeScheduler(**SDE, num_train_timesteps=7).save_pretrained(tmp_path / "theirs")
    ours = FusedScoreSdeVeScheduler.from_pretrained(tmp_path / "theirs", norm="sqrt_d")
    assert (ours.config.snr, ours.config.norm, len(ours.timesteps)) == (SDE["snr"], "sqrt_d", 7)
    ours.save_pretrained(tmp_path / "ours")
    again = FusedScoreSdeVeScheduler.from_pretrained(tmp_path / "ours")
    assert dict(again.config) == dict(ours.config)
    assert ScoreSdeVeScheduler.from_pretrained(tmp_path / "ours").config.sigma_max == SDE["sigma_max"]
    assert FusedScoreSdeVeScheduler.from_config(again.config).config.norm == "sqrt_d"


@pytest.mark.parametrize(
    "config",
    [
        {**ANNEALED, "denoise": True, "prediction_type": "noise", "takes": "sigma", "corrector": "ou"},
        {"trained_sigmas": torch.tensor([2.0, 1.0, 0.3]), "step_lr": 1e-3, "steps_per_level": 2},
    ],
    ids=["geometric", "ladder"],
)
def test_an_annealed_configuration_comes_back(config, tmp_path):
    scheduler = AnnealedLangevinScheduler(**config)
    scheduler.save_pretrained(tmp_path)
    again = AnnealedLangevinScheduler.from_pretrained(tmp_path)
    assert again.to_json_string() == scheduler.to_json_string()
    assert len(again) == len(scheduler) == scheduler.config.num_train_timesteps == len(scheduler.sigmas)
    assert torch.equal(again.sigmas, scheduler.sigmas)
    x = normals(dtype=torch.float32)
    moved = [anneal(each, x, lambda x, t: -x, seed=3) for each in (scheduler, again)]
    assert torch.equal(*moved)
    other = AnnealedLangevinScheduler.from_config(scheduler.config, steps_per_level=4)
    assert not torch.equal(anneal(other, x, lambda x, t: -x, seed=3), moved[0])
    if "trained_sigmas" in config:
        assert scheduler.config.trained_sigmas == config["trained_sigmas"].tolist()
        assert (scheduler.config.sigma_max, scheduler.init_noise_sigma) == (2.0, 2.0)


# Annealed Langevin dynamics

OPTIONS = [
    {},
    {"denoise": True},
    {"corrector": "ou"},
    {"epsilon": None, "step_lr": 1e-3},
    {"steps_per_level": 1, "denoise": True},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_it_has_the_bits_of_annealed_langevin(options, dtype):
    config = {**ANNEALED, **options}
    x = normals(dtype=dtype)
    same = {key: config.get(key) for key in ("epsilon", "step_lr", "steps_per_level")} | {
        key: value for key, value in options.items() if key in ("denoise", "corrector")
    }
    expected = fl.annealed_langevin(score, LADDER, init=x, seed=11, **same)
    scheduler = AnnealedLangevinScheduler(**config)
    before = x.clone()
    assert torch.equal(anneal(scheduler, x, seed=11), expected)
    assert torch.equal(x, before)
    assert len(scheduler.timesteps) == 4 * config["steps_per_level"] + bool(options.get("denoise"))
    assert torch.equal(anneal(scheduler, x, seed=11), expected)  # set_timesteps begins at draw 0
    assert not torch.equal(anneal(scheduler, x, seed=12), expected)
    wrong = AnnealedLangevinScheduler(**{**config, "epsilon": None, "step_lr": config["epsilon"] or 2e-3})
    assert not torch.equal(anneal(wrong, x, seed=11), expected)


def test_seeds_and_ids_of_samples_are_those_of_the_package():
    x, seeds = normals(dtype=torch.float32), torch.tensor([5, 6, -7])
    scheduler = AnnealedLangevinScheduler(**ANNEALED)
    chain = {"init": x, "epsilon": 2e-3, "steps_per_level": 3}
    expected = fl.annealed_langevin(score, LADDER, seed=seeds, sample_ids=[4, 2**40, 0], **chain)
    assert torch.equal(anneal(scheduler, x, seed=seeds, sample_ids=[4, 2**40, 0]), expected)
    expected = fl.annealed_langevin(score, LADDER, seed=seeds, **chain)
    assert torch.equal(anneal(scheduler, x, seed=seeds), expected)


def test_half_a_chain_goes_on_where_it_stopped():
    x = normals(dtype=torch.float32)
    whole = anneal(AnnealedLangevinScheduler(**ANNEALED), x, seed=1)
    for stop in (1, 5, 11):
        first, second = (AnnealedLangevinScheduler(**ANNEALED) for _ in range(2))
        first.set_timesteps()
        second.set_timesteps()
        half = x
        for t in first.timesteps[:stop]:
            half = first.step(score(half, t.expand(3)), t, half, seed=1).prev_sample
        second.draw = first.draw
        for t in second.timesteps[stop:]:
            half = second.step(score(half, t.expand(3)), t, half, seed=1, return_dict=False)[0]
        assert torch.equal(half, whole)


@pytest.mark.parametrize("output", ["scaled", "noise", "denoised"])
def test_other_outputs_are_other_names_of_one_score(output):
    x = normals()
    scheduler = AnnealedLangevinScheduler(**ANNEALED, prediction_type=output, takes="sigma", denoise=True)

    def net(x, sigma):
        sigma = sigma.double().view(-1, 1, 1, 1)
        value = (0.5 - x) / (sigma**2 + 0.09)
        return {"scaled": sigma * value, "noise": -sigma * value, "denoised": x + sigma**2 * value}[output]

    # What the network is told is fp32: 2^-24 of each level, in 13 updates that contract.
    expected = fl.annealed_langevin(score, LADDER, init=x, seed=2, epsilon=2e-3, steps_per_level=3, denoise=True)
    found = anneal(scheduler, x, net, seed=2)
    torch.testing.assert_close(found, expected, rtol=0, atol=13 * 8 * 2.0**-24)
    scheduler = AnnealedLangevinScheduler(**ANNEALED, prediction_type="score", takes="sigma", denoise=True)
    assert float((anneal(scheduler, x, net, seed=2) - expected).abs().max()) > 1e-3


def test_more_updates_in_all():
    x = normals(dtype=torch.float32)
    chain = {"init": x, "seed": 2, "epsilon": 2e-3, "steps_per_level": 5}
    found = anneal(AnnealedLangevinScheduler(**ANNEALED), x, steps=20, seed=2)
    assert torch.equal(found, fl.annealed_langevin(score, LADDER, **chain))


def test_noise_for_training():
    scheduler = AnnealedLangevinScheduler(**ANNEALED)
    x, z, labels = normals(), normals(seed=2), torch.tensor([0, 3, 1])
    sigma = LADDER[labels].view(-1, 1, 1, 1)
    assert torch.equal(scheduler.add_noise(x, z, labels), x + sigma * z)
    told = AnnealedLangevinScheduler(**ANNEALED, takes="sigma")
    assert torch.equal(told.add_noise(x, z, LADDER[labels]), x + sigma * z)
    torch.manual_seed(0)
    drawn = scheduler.add_noise(x, None, labels)
    torch.manual_seed(0)
    z = fl.randn(SHAPE, seed=seed_from(None), purpose=Purpose.DSM_NOISE)
    assert torch.equal(drawn, x + sigma * z.double())


def test_a_pipeline_of_diffusers_samples_by_it():
    scheduler = AnnealedLangevinScheduler(
        num_train_timesteps=2, epsilon=1e-5, prediction_type="scaled", steps_per_level=2
    )
    pipeline = DDPMPipeline(unet(), scheduler)
    pipeline.set_progress_bar_config(disable=True)
    images = [
        pipeline(2, torch.Generator().manual_seed(seed), num_inference_steps=4, output_type="pt").images
        for seed in (0, 0, 1)
    ]
    assert torch.equal(images[0], images[1])
    assert not torch.equal(images[0], images[2])


# Seeds, generators, batches


def calls():
    """Every call that draws: a function of the state, the network's output and the address."""
    annealed = AnnealedLangevinScheduler(**ANNEALED)

    def step(g, x, **address):
        annealed.set_timesteps()
        return annealed.step(g, annealed.timesteps[0], x, **address).prev_sample

    def predict(g, x, **address):
        scheduler = ready(FusedScoreSdeVeScheduler)
        return scheduler.step_pred(g, scheduler.timesteps[1], x, **address).prev_sample

    def correct(norm):
        return lambda g, x, **address: (
            ready(FusedScoreSdeVeScheduler, norm=norm).step_correct(g, x, **address).prev_sample
        )

    norms = {norm: correct(norm) for norm in ("batch", "sample", "sqrt_d")}
    return {"step": step, "predict": predict, **norms}


@pytest.mark.parametrize("name", calls())
def test_generators_give_seeds(name):
    call, x, g = calls()[name], normals(dtype=torch.float32), normals(seed=2, dtype=torch.float32)
    generator = torch.Generator().manual_seed(4)
    seed = seed_from(torch.Generator().manual_seed(4))
    found = call(g, x, generator=generator)
    assert torch.equal(found, call(g, x, seed=seed))
    assert not torch.equal(found, call(g, x, generator=generator))
    assert torch.equal(found, call(g, x, generator=[torch.Generator().manual_seed(4)]))
    torch.manual_seed(4)
    assert torch.equal(found, call(g, x))
    assert not torch.equal(found, call(g, x, seed=seed, sample_ids=[0, 1, 3]))


@pytest.mark.parametrize("name", calls())
def test_a_sample_with_a_generator_of_its_own_is_the_same_in_any_batch(name):
    """Of 33,000 elements: with threads, ``torch.sum`` has other bits for such a sample alone than beside others."""
    torch.set_num_threads(2)
    shape = (4, 33_000)
    call, x, g = calls()[name], normals(shape, dtype=torch.float32), normals(shape, seed=2, dtype=torch.float32)

    def batch(samples):
        generators = [torch.Generator().manual_seed(10 + each) for each in samples]
        return call(g[samples], x[samples], generator=generators)

    together = batch([0, 1, 2, 3])
    same = [torch.equal(batch(samples), together[samples]) for samples in ([2], [3, 1], [0, 1, 2])]
    assert same == [name != "batch"] * 3
    ids = [7, 2, 9, 4]
    found = call(g, x, seed=5, sample_ids=ids)
    assert torch.equal(call(g[2:], x[2:], seed=5, sample_ids=ids[2:]), found[2:]) is (name != "batch")


@pytest.mark.parametrize("name", calls())
def test_layout_and_dtype_stay(name):
    call, x, g = calls()[name], normals(dtype=torch.float32), normals(seed=2, dtype=torch.float32)
    last = call(g, x.to(memory_format=torch.channels_last), seed=1)
    assert last.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(last, call(g, x, seed=1))
    for dtype in (torch.float16, torch.bfloat16):
        assert call(g, x.to(dtype), seed=1).dtype == dtype


def test_what_is_remembered_is_the_number_of_the_next_draw():
    x, g = normals(), normals(seed=2)
    scheduler = ready(FusedScoreSdeVeScheduler)
    found = [
        scheduler.step_correct(g, x, seed=7).prev_sample,
        scheduler.step_pred(g, scheduler.timesteps[0], x, seed=7).prev_sample,
        scheduler.step_correct(g, x, seed=7).prev_sample,
    ]
    assert scheduler.draw == 3
    assert not torch.equal(found[0], found[2])
    other = ready(FusedScoreSdeVeScheduler)
    other.draw = 2
    assert torch.equal(other.step_correct(g, x, seed=7).prev_sample, found[2])
    scheduler.set_timesteps(5)
    assert torch.equal(scheduler.step_correct(g, x, seed=7).prev_sample, found[0])
    a = float(rules.ve_reverse_diffusion(scheduler.discrete_sigmas.flip(0))[0].a)
    assert torch.equal(found[1], fl.step(x, g, a=a, b=a**0.5, seed=7, draw=1))


def make(device):
    return torch.Generator(device).manual_seed(4)


@pytest.mark.gpu
@pytest.mark.parametrize("name", calls())
def test_generators_of_any_device_serve_samples_of_any(name):
    call, x, g = calls()[name], normals(dtype=torch.float32), normals(seed=2, dtype=torch.float32)
    # A mean over the batch has no written order.
    tolerance = 1e-6 if name == "batch" else 0.0
    for device in ("cuda", "cpu"):
        for several in (False, True):
            found, expected = (
                call(g.to(place), x.to(place), generator=[make(device) for _ in range(3)] if several else make(device))
                for place in ("cuda", "cpu")
            )
            assert found.is_cuda
            torch.testing.assert_close(found.cpu(), expected, rtol=0, atol=tolerance)
    with pytest.raises(ValueError, match="Cannot generate"):
        ready(ScoreSdeVeScheduler).step_correct(g.cuda(), x.cuda(), torch.Generator("cuda"))


@pytest.mark.gpu
def test_timesteps_on_a_device():
    x, g = normals(dtype=torch.float32), normals(seed=2, dtype=torch.float32)
    annealed, stand_in = AnnealedLangevinScheduler(**ANNEALED), FusedScoreSdeVeScheduler(**SDE)
    expected = anneal(annealed, x, seed=3)
    annealed.set_timesteps(device="cuda")
    moved = x.cuda()
    for t in annealed.timesteps:
        moved = annealed.step(score(moved, t.expand(3)), t, moved, seed=3).prev_sample
    # The score is computed by PyTorch, whose bits differ from device to device.
    torch.testing.assert_close(moved.cpu(), expected, rtol=0, atol=1e-5)
    stand_in.set_timesteps(5, device="cuda")
    stand_in.set_sigmas(5)
    found = stand_in.step_pred(g.cuda(), stand_in.timesteps[1], x.cuda(), seed=3).prev_sample
    expected = ready(FusedScoreSdeVeScheduler).step_pred(g, stand_in.timesteps[1].cpu(), x, seed=3).prev_sample
    torch.testing.assert_close(found.cpu(), expected, rtol=0, atol=0)
