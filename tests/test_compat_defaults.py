"""The stand-ins under another default dtype and default device: the results are those without.

"meta" stands for torch.set_default_device("cuda"): whatever is made there by mistake has no numbers to go on with.
"""

import contextlib
from types import SimpleNamespace

import pytest
import torch

import fastlangevin as fl
from fastlangevin.compat import k_diffusion, ncsn, ncsnv2, score_sde

pytestmark = pytest.mark.usefixtures("one_thread")

X = fl.randn((2, 3, 4, 4), seed=0)
Z = fl.randn((2, 3, 4, 4), seed=1)
TIMES = torch.tensor([0.3, 0.7])
LABELS = torch.tensor([0, 1])
MASK = torch.ones(1, 1, 4, 4)
LADDER = [1.0, 0.4, 0.1]
SDES = {
    "ve": lambda: score_sde.VESDE(0.05, 2.0, 5),
    "vp": lambda: score_sde.VPSDE(0.1, 3.0, 5),
    "subvp": lambda: score_sde.subVPSDE(0.1, 3.0, 5),
}


@contextlib.contextmanager
def default_dtype(dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


DEFAULTS = {
    "meta": lambda: torch.device("meta"),
    "bfloat16": lambda: default_dtype(torch.bfloat16),
    "float16": lambda: default_dtype(torch.float16),
    "float64": lambda: default_dtype(torch.float64),
}


def net(x, level):
    return -x / 4


def energy(x):
    return x.square().flatten(1).sum(1)


def score(x):
    return -x


def score_sde_calls():
    for name, make in SDES.items():
        for what in ("marginal_prob", "sde", "discretize"):
            yield f"{name} {what}", lambda make=make, what=what: getattr(make(), what)(X, TIMES)
        yield f"{name} prior", lambda make=make: make().prior_sampling((2, 3), seed=0)
        for what in ("discrete_sigmas", "discrete_betas", "alphas"):
            if hasattr(make(), what):
                yield f"{name} {what}", lambda make=make, what=what: getattr(make(), what)
        for predictor in ("euler_maruyama", "reverse_diffusion", "ancestral_sampling", "none"):
            if name == "subvp" and predictor == "ancestral_sampling":
                continue
            for corrector in ("langevin", "ald"):
                yield (
                    f"{name} {predictor} {corrector}",
                    lambda make=make, pair=(predictor, corrector): score_sde.get_pc_sampler(
                        make(), (2, 3), *pair, lambda x: x, 0.16, device="cpu", seed=0
                    )(net)[0],
                )
        for norm in ("sample", "sqrt_d"):
            yield f"{name} {norm}", lambda make=make, norm=norm: (
                score_sde.get_pc_sampler(
                    make(), (2, 3), "none", "langevin", lambda x: x, 0.16, continuous=True, device="cpu", seed=0,
                    norm=norm,
                )(net)[0]
            )  # fmt: skip
        sought = {"predictor": "reverse_diffusion", "corrector": "langevin", "inverse_scaler": lambda x: x, "snr": 0.16}
        yield (
            f"{name} inpainting",
            lambda make=make, sought=sought: score_sde.get_pc_inpainter(make(), **sought, seed=0)(net, X, MASK),
        )
        yield (
            f"{name} colouring",
            lambda make=make, sought=sought: score_sde.get_pc_colorizer(make(), **sought, seed=0)(net, X),
        )
        for options in ({}, {"continuous": False, "likelihood_weighting": False}, {"reduce_mean": False}):
            yield (
                f"{name} loss {options}",
                lambda make=make, options=options: score_sde.get_sde_loss_fn(make(), True, **options)(net, X, seed=0),
            )
    yield "smld", lambda: score_sde.get_smld_loss_fn(SDES["ve"](), True)(net, X, seed=0)
    yield "ddpm", lambda: score_sde.get_ddpm_loss_fn(SDES["vp"](), True)(net, X, seed=0)


def ncsn_calls():
    chain = {"n_steps_each": 2, "seed": 0}
    yield "ncsn", lambda: ncsn.anneal_Langevin_dynamics(X, net, LADDER, **chain)
    yield "ncsn inpainting", lambda: ncsn.anneal_Langevin_dynamics_inpainting(X, X, net, LADDER, **chain)
    yield "ncsn one level", lambda: ncsn.Langevin_dynamics(X, net, 2, label=1, seed=0)
    yield "ncsn toy", lambda: ncsn.toy_anneal_langevin_dynamics(net, X, LADDER, **chain)
    yield "ncsn toy, one level", lambda: ncsn.toy_langevin_dynamics(score, X, step=2, seed=0)
    yield "ncsnv2", lambda: ncsnv2.anneal_Langevin_dynamics(X, net, LADDER, **chain)
    yield "ncsnv2 inpainting", lambda: ncsnv2.anneal_Langevin_dynamics_inpainting(X, X, net, LADDER, 4, **chain)
    yield "ncsnv2 interpolation", lambda: ncsnv2.anneal_Langevin_dynamics_interpolation(X, net, LADDER, 3, **chain)
    yield "ncsnv2 told", lambda: ncsnv2.anneal_Langevin_dynamics(X, net, LADDER, verbose=True, **chain)
    for kind in ("geometric", "uniform"):
        model = SimpleNamespace(sigma_dist=kind, sigma_begin=1.0, sigma_end=0.1, num_classes=3)
        yield f"ncsnv2 {kind}", lambda model=model: ncsnv2.get_sigmas(SimpleNamespace(model=model, device="cpu"))
    for name in ("dsm", "single_sliced_score_matching", "partial_sliced_score_matching"):
        yield name, lambda name=name: getattr(ncsn, name)(energy, X, seed=0).detach()
    for name in ("sliced_score_matching", "sliced_score_matching_vr"):
        yield name, lambda name=name: getattr(ncsn, name)(energy, X, 2, seed=0).detach()
    for name in ("dsm_score_estimation", "sliced_score_estimation", "sliced_score_estimation_vr"):
        yield name, lambda name=name: getattr(ncsn, name)(score, X, seed=0)
    for name in ("anneal_dsm_score_estimation", "anneal_sliced_score_estimation_vr"):
        yield name, lambda name=name: getattr(ncsn, name)(net, X, LABELS, LADDER, seed=0)
    yield "ncsnv2 loss", lambda: ncsnv2.anneal_dsm_score_estimation(net, X, LADDER, seed=0)


def k_diffusion_calls():
    for dtype in (torch.float32, torch.float16):
        yield (
            f"k-diffusion {dtype}",
            lambda dtype=dtype: k_diffusion.sample_euler_ancestral(
                net, X.to(dtype), [1.0, 0.5, 0.0], disable=True, seed=0
            ),
        )
    yield "k-diffusion noise", lambda: k_diffusion.noise_sampler(X, [1.0, 0.5, 0.0], seed=0)(1.0, 0.5)


def scheduler_calls():
    try:
        from fastlangevin.compat.diffusers import AnnealedLangevinScheduler, FusedScoreSdeVeScheduler
    except ImportError:
        return

    def annealed(**options):
        scheduler = AnnealedLangevinScheduler(3, 1.0, 0.1, steps_per_level=2, epsilon=1e-3, **options)
        scheduler.set_timesteps()
        return scheduler

    def stepped(scheduler, tell=lambda t: t):
        x = X
        for t in scheduler.timesteps:
            x = scheduler.step(net(x, t), tell(t), x, seed=0).prev_sample
        return x

    def stand_in(**options):
        scheduler = FusedScoreSdeVeScheduler(num_train_timesteps=20, **options)
        scheduler.set_timesteps(20)
        scheduler.set_sigmas(20)
        return scheduler

    def tables(scheduler):
        return scheduler.timesteps, scheduler.sigmas, scheduler.discrete_sigmas

    def walked(scheduler, tell=lambda t: t):
        x = X
        for t in scheduler.timesteps:
            x = scheduler.step_correct(net(x, t), x, seed=0).prev_sample
            x, mean = scheduler.step_pred(net(x, t), tell(t), x, seed=0, return_dict=False)
        return x, mean

    yield "scheduler, new", lambda: tables(FusedScoreSdeVeScheduler())
    yield "scheduler, set", lambda: tables(stand_in())
    for norm in ("batch", "sample", "sqrt_d"):
        yield f"scheduler, {norm}", lambda norm=norm: walked(stand_in(norm=norm))
    yield "scheduler, numbers", lambda: walked(stand_in(), float)
    yield "scheduler, noise", lambda: stand_in().add_noise(X, Z, LABELS)
    yield "scheduler, below", lambda: stand_in().get_adjacent_sigma(LABELS, TIMES)
    yield "scheduler, own times", lambda: stand_in().step_pred(X, stand_in().timesteps[LABELS], X, seed=0).prev_sample
    yield "annealed", lambda: stepped(annealed(denoise=True))
    yield "annealed, sigma", lambda: stepped(annealed(takes="sigma", prediction_type="noise"), float)
    yield "annealed, timesteps", lambda: (annealed(takes="sigma").timesteps, annealed().timesteps, annealed().sigmas)
    yield "annealed, noise", lambda: annealed().add_noise(X, Z, LABELS)


CALLS = dict([*score_sde_calls(), *ncsn_calls(), *k_diffusion_calls(), *scheduler_calls()])


def listed(value):
    return [value] if isinstance(value, torch.Tensor) else list(value)


@pytest.mark.parametrize("name", CALLS)
def test_results_are_those_without(name, capsys):
    want = listed(CALLS[name]())
    printed = capsys.readouterr().out
    for default, within in DEFAULTS.items():
        with within():
            got = listed(CALLS[name]())
        for mine, right in zip(got, want, strict=True):
            assert (mine.dtype, mine.device) == (right.dtype, right.device), default
            assert torch.equal(mine, right), default
        assert capsys.readouterr().out == printed
