"""Patching a checkout: what is replaced, where, and that it can be undone. The checkouts here are stand-ins."""

import importlib
import sys
from types import ModuleType

import pytest
import torch

import fastlangevin as fl
from fastlangevin import patching
from fastlangevin.compat import ncsn, ncsnv2, score_sde

V2 = {
    "models/__init__.py": """
def get_sigmas(config): return "theirs"
def anneal_Langevin_dynamics(x_mod, scorenet, sigmas, n_steps_each=200, step_lr=0.000008): return "theirs"
def anneal_Langevin_dynamics_inpainting(*arguments): return "theirs"
""",
    "losses/__init__.py": "",
    "losses/dsm.py": """
def anneal_dsm_score_estimation(scorenet, samples, sigmas, labels=None): return "theirs"
""",
    "runners/__init__.py": "from runners.ncsn_runner import *\n",
    "runners/ncsn_runner.py": """
from models import anneal_Langevin_dynamics, get_sigmas as ladder
from losses.dsm import anneal_dsm_score_estimation

class NCSNRunner:
    def sample(self, x, net, sigmas):
        return anneal_Langevin_dynamics(x, net, sigmas, 2, 1e-3)

    def loss(self, net, x, sigmas):
        return anneal_dsm_score_estimation(net, x, sigmas)
""",
    "later.py": "from models import anneal_Langevin_dynamics as sampler\n",
}
V1 = {
    "losses/__init__.py": "",
    "losses/dsm.py": """
def anneal_dsm_score_estimation(scorenet, samples, labels, sigmas, anneal_power=2.): return "theirs"
def dsm(energy_net, samples, sigma=1): return "theirs"
""",
    "losses/sliced_sm.py": """
def single_sliced_score_matching(energy_net, samples, noise=None, detach=False, noise_type='radermacher'):
    return 1, 2, 3
def sliced_score_estimation_vr(score_net, samples, n_particles=1): return 1, 2, 3
def anneal_sliced_score_estimation_vr(scorenet, samples, labels, sigmas, n_particles=1): return 1
""",
    "runners/__init__.py": "",
    "runners/annealed.py": """
class AnnealRunner:
    def anneal_Langevin_dynamics(self, x_mod, scorenet, sigmas, n_steps_each=100, step_lr=0.00002): return "theirs"
    def Langevin_dynamics(self, x_mod, scorenet, n_steps=200, step_lr=0.00005): return "theirs"
    def test(self, *arguments): return self.anneal_Langevin_dynamics(*arguments)
""",
    "runners/toy.py": """
class ToyRunner:
    @staticmethod
    def langevin_dynamics(score, init, lr=0.1, step=1000): return "theirs"
    @staticmethod
    def anneal_langevin_dynamics(score, init, sigmas, lr=0.1, n_steps_each=100): return "theirs"
""",
    "runners/baseline.py": "import a_library_that_is_not_here\n",
}
SCORE_SDE = {
    "sde_lib.py": """
class SDE:
    def __init__(self, N): self.N = N
class VESDE(SDE):
    def __init__(self, sigma_min=0.01, sigma_max=50, N=1000): super().__init__(N)
    def reverse(self, score_fn, probability_flow=False): return "theirs"
class VPSDE(SDE):
    def __init__(self, beta_min=0.1, beta_max=20, N=1000): super().__init__(N)
""",
    "models/__init__.py": "",
    "models/utils.py": """
from sde_lib import VESDE, VPSDE
def get_model_fn(model, train=False): return "theirs"
def get_score_fn(sde, model, train=False, continuous=False): return "theirs"
""",
    "sampling.py": """
from models.utils import get_score_fn
import sde_lib
_PREDICTORS = {}
def register_predictor(cls=None, *, name=None):
    def add(cls): _PREDICTORS[name or cls.__name__] = cls; return cls
    return add if cls is None else add(cls)
def get_predictor(name): return _PREDICTORS[name]
def get_corrector(name): return "theirs"
class Predictor: pass
@register_predictor(name="reverse_diffusion")
class ReverseDiffusionPredictor(Predictor): pass
class Corrector: pass
def get_pc_sampler(sde, shape, predictor, corrector, inverse_scaler, snr, n_steps=1, probability_flow=False,
                   continuous=False, denoise=True, eps=1e-3, device="cuda"):
    return lambda model: "theirs"
def get_ode_sampler(sde, shape, inverse_scaler):
    return lambda model: sde.reverse(get_score_fn(sde, model), probability_flow=True)
def get_sampling_fn(config, sde, shape, inverse_scaler, eps):
    if config["method"] == "ode":
        return get_ode_sampler(sde, shape, inverse_scaler)
    return get_pc_sampler(sde=sde, shape=shape, predictor=get_predictor(config["predictor"]),
                          corrector=get_corrector("langevin"), inverse_scaler=inverse_scaler, snr=0.16, continuous=True,
                          eps=eps, device="cpu")
""",
    "controllable_generation.py": """
def get_pc_inpainter(*arguments, **options): return "theirs"
""",
    "losses.py": """
from sde_lib import VESDE, VPSDE
def get_sde_loss_fn(sde, train, reduce_mean=True, continuous=True, likelihood_weighting=True, eps=1e-5):
    return lambda model, batch: "theirs"
def get_smld_loss_fn(vesde, train, reduce_mean=False): return lambda model, batch: "theirs"
def get_ddpm_loss_fn(vpsde, train, reduce_mean=True): return lambda model, batch: "theirs"
def get_step_fn(sde, train, continuous=False):
    if continuous:
        return get_sde_loss_fn(sde, train)
    return get_smld_loss_fn(sde, train) if isinstance(sde, VESDE) else get_ddpm_loss_fn(sde, train)
""",
    "later.py": "from sde_lib import VESDE as exploding\n",
    "mine.py": """
import sampling
@sampling.register_predictor(name="still")
class Still(sampling.Predictor):
    def update_fn(self, x, t): return x, x
""",
}
LADDER = [1.0, 0.1]
X = torch.linspace(0, 1, 12).view(2, 6)


def net(x, labels):
    return -x


def test_ncsnv2_is_replaced_where_it_is_defined_and_imported(checkout):
    checkout(V2)
    runners = importlib.import_module("runners")
    runner = runners.NCSNRunner()
    assert runner.sample(X, net, LADDER) == "theirs"
    undo = fl.patch("ncsnv2")
    torch.manual_seed(0)
    found = runner.sample(X, net, LADDER)
    torch.manual_seed(0)
    expected = ncsnv2.anneal_Langevin_dynamics(X, net, LADDER, 2, 1e-3)
    assert torch.equal(torch.stack(found), torch.stack(expected))
    assert runner.loss(net, X, LADDER).shape == ()
    assert runners.ncsn_runner.ladder is sys.modules["models"].get_sigmas
    later = importlib.import_module("later")
    assert isinstance(later.sampler(X, net, LADDER, 1), list)
    said = str(undo)
    for place in ("models.get_sigmas", "runners.ncsn_runner.ladder", "runners.anneal_Langevin_dynamics", "losses.dsm."):
        assert place in said
    assert "fastlangevin.compat.ncsnv2.anneal_dsm_score_estimation" in said
    assert "not found: models.anneal_Langevin_dynamics_interpolation" in said
    assert undo.missing == ["models.anneal_Langevin_dynamics_interpolation"]
    undo.undo()
    assert runner.sample(X, net, LADDER) == later.sampler(X, net, LADDER) == "theirs"
    assert runner.loss(net, X, LADDER) == runners.ncsn_runner.ladder(None) == "theirs"
    assert undo.replaced == []
    undo.undo()
    assert ncsnv2.anneal_Langevin_dynamics.__module__ == "fastlangevin.compat.ncsnv2"


def test_without_the_patch_of_importers_theirs_would_run(checkout):
    """The twin: replacing the name where it is defined alone leaves what imported it before as it was."""
    checkout(V2)
    runners = importlib.import_module("runners")
    sys.modules["models"].anneal_Langevin_dynamics = ncsnv2.anneal_Langevin_dynamics
    assert runners.NCSNRunner().sample(X, net, LADDER) == "theirs"


def test_a_patch_is_a_context_and_takes_options(checkout):
    checkout(V2)
    models = importlib.import_module("models")
    with fl.patch("ncsnv2", keep_every=4) as done:
        assert len(done.replaced) == 4
        assert len(models.anneal_Langevin_dynamics(X, net, LADDER, 4)) == 3
        assert len(models.anneal_Langevin_dynamics(X, net, LADDER, 4, keep_every=2)) == 5
        with pytest.raises(ValueError, match=r"undo\(\)"):
            fl.patch("ncsnv2")
    assert models.anneal_Langevin_dynamics(X, net, LADDER, 4) == "theirs"
    with pytest.raises(RuntimeError, match="inside"), fl.patch("ncsnv2"):
        raise RuntimeError("inside")
    assert models.get_sigmas(None) == "theirs"


def test_what_was_changed_since_is_left(checkout):
    checkout(V2)
    models = importlib.import_module("models")
    done = fl.patch("ncsnv2")
    models.get_sigmas = len
    done.undo()
    assert models.get_sigmas is len


def test_ncsn_is_replaced_in_its_runners(checkout):
    checkout(V1)
    with pytest.warns(UserWarning, match=r"9 of 16 replaced.*runners\.baseline.*a_library_that_is_not_here"):
        done = fl.patch("ncsn", strict=True)
    with done:
        runner = importlib.import_module("runners.annealed").AnnealRunner()
        torch.manual_seed(0)
        found = runner.test(X, net, LADDER, 3, 1e-3)
        torch.manual_seed(0)
        expected = ncsn.anneal_Langevin_dynamics(X, net, LADDER, 3, 1e-3, strict=True)
        assert torch.equal(torch.stack(found), torch.stack(expected))
        assert torch.equal(found[0], X)
        assert len(runner.Langevin_dynamics(X, net, n_steps=2)) == 2
        toy = importlib.import_module("runners.toy").ToyRunner
        for owner in (toy, toy()):
            assert owner.langevin_dynamics(lambda x: -x, X, step=1).shape == X.shape
            assert owner.anneal_langevin_dynamics(lambda x, sigma: -x, X, LADDER, n_steps_each=1).shape == X.shape
        losses = importlib.import_module("losses.dsm")
        assert losses.anneal_dsm_score_estimation(net, X, torch.tensor([0, 1]), LADDER).shape == ()
        said = str(done)
        assert "runners.annealed.AnnealRunner.anneal_Langevin_dynamics -> fastlangevin.compat.ncsn." in said
        assert "could not import runners.baseline: ModuleNotFoundError" in said
        assert done.missing == [
            "losses.dsm.dsm_score_estimation",
            "losses.sliced_sm.partial_sliced_score_matching",
            "losses.sliced_sm.sliced_score_matching",
            "losses.sliced_sm.sliced_score_matching_vr",
            "losses.sliced_sm.sliced_score_estimation",
            "AnnealRunner.anneal_Langevin_dynamics_inpainting",
            "BaselineRunner.Langevin_dynamics",
        ]
    assert runner.test(X, net, LADDER) == toy.langevin_dynamics(None, X) == toy().langevin_dynamics(None, X) == "theirs"
    assert losses.dsm(None, X) == "theirs"


def denoiser(x, sigma):
    return -x / (1 + sigma.view(-1, 1) ** 2)


@pytest.fixture
def predictors():
    """What is registered with this package in a test is forgotten at its end."""
    before = dict(score_sde.registry._PREDICTORS)
    yield
    score_sde.registry._PREDICTORS.clear()
    score_sde.registry._PREDICTORS.update(before)


def sampled(sampling, sde, method="pc", predictor="reverse_diffusion"):
    config = {"method": method, "predictor": predictor}
    torch.manual_seed(0)
    return sampling.get_sampling_fn(config, sde, tuple(X.shape), lambda x: x, 1e-5)(denoiser)


def test_score_sde_is_replaced_where_it_is_defined_and_imported(checkout):
    checkout(SCORE_SDE)
    sampling, losses, sde_lib = map(importlib.import_module, ("sampling", "losses", "sde_lib"))
    old = sde_lib.VESDE(N=5)
    assert sampled(sampling, old) == "theirs"
    done = fl.patch("score_sde", norm="sample")
    torch.manual_seed(0)
    sde = score_sde.VESDE(N=5)
    expected, calls = score_sde.get_pc_sampler(
        sde, X.shape, "reverse_diffusion", "langevin", lambda x: x, 0.16, continuous=True, eps=1e-5, device="cpu",
        norm="sample",
    )(denoiser)  # fmt: skip
    assert calls == 10
    found, calls = sampled(sampling, sde_lib.VESDE(N=5))
    assert torch.equal(found, expected)
    assert calls == 10
    found, _ = sampled(sampling, importlib.import_module("later").exploding(N=5))
    assert torch.equal(found, expected)
    for sde, continuous in ((sde_lib.VESDE(), True), (sde_lib.VESDE(), False), (sde_lib.VPSDE(), False)):
        loss = losses.get_step_fn(sde, train=True, continuous=continuous)(lambda x, labels: 0 * x, X)
        assert loss.shape == ()
    with pytest.raises(TypeError, match=r"got VESDE of sde_lib; .* made anew"):
        sampled(sampling, old)
    with pytest.raises(NotImplementedError, match=r"reverse\(\) .* undo\(\)"):
        sampled(sampling, sde_lib.VESDE(), method="ode")
    said = str(done)
    for line in (
        "sde_lib.VESDE -> fastlangevin.compat.score_sde.sde.VESDE",
        "losses.VPSDE -> fastlangevin.compat.score_sde.sde.VPSDE",
        "sampling.get_score_fn -> fastlangevin.compat.score_sde.scores.get_score_fn",
        "controllable_generation.get_pc_inpainter -> fastlangevin.compat.score_sde.controllable.get_pc_inpainter",
    ):
        assert line in said
    assert "sde_lib.subVPSDE" in done.missing
    assert "sampling.EulerMaruyamaPredictor" in done.missing
    with pytest.raises(ValueError, match=r"this package's already; undo\(\)"):
        fl.patch("score_sde")
    done.undo()
    assert sampled(sampling, old) == sampled(sampling, old, method="ode") == "theirs"
    assert losses.get_step_fn(old, train=True)(None, X) == "theirs"
    for where in (sde_lib, losses, sys.modules["models.utils"]):
        assert type(old) is where.VESDE
    assert type(old) is sys.modules["later"].exploding
    assert score_sde.VESDE is score_sde.sde.VESDE is not sde_lib.VESDE


def test_a_class_that_was_replaced_is_ours_but_for_its_identity(checkout):
    checkout(SCORE_SDE)
    sde_lib, sampling = map(importlib.import_module, ("sde_lib", "sampling"))
    with fl.patch("score_sde"):
        made = sde_lib.VESDE(0.1, 1.0, N=7)
        assert type(made) is score_sde.VESDE
        assert made.N == 7
        for each in (made, score_sde.VESDE()):
            assert isinstance(each, sde_lib.VESDE)
            assert isinstance(each, sde_lib.SDE)
            assert not isinstance(each, sde_lib.VPSDE)
        found = sampling.get_predictor("reverse_diffusion")
        assert found is score_sde.ReverseDiffusionPredictor
        assert issubclass(found, sampling.ReverseDiffusionPredictor)
        assert issubclass(found, sampling.Predictor)
        assert not issubclass(found, sampling.Corrector)


def test_predictors_of_your_own_are_registered_after_the_patch(checkout, predictors):
    checkout(SCORE_SDE)
    sampling, sde_lib = map(importlib.import_module, ("sampling", "sde_lib"))
    with fl.patch("score_sde"):
        with pytest.raises(ValueError, match="registered predictor"):
            sampled(sampling, sde_lib.VESDE(N=3), predictor="still")
        mine = importlib.import_module("mine").Still
        made = mine(sde_lib.VESDE(), lambda x, t: x)
        assert type(made) is mine
        assert isinstance(made, sampling.Predictor)
        assert not isinstance(sampling.get_predictor("none")(sde_lib.VESDE(), None), mine)
        samples, calls = sampled(sampling, sde_lib.VESDE(N=3), predictor="still")
        assert samples.shape == X.shape
        assert calls == 3


def test_modules_of_another_layout_are_named(checkout):
    checkout({"mine.py": V2["models/__init__.py"] + V2["losses/dsm.py"]})
    for place in ("mine", importlib.import_module("mine")):
        with fl.patch("ncsnv2", place) as done:
            assert {each.where for each in done.replaced} == {
                f"mine.{name}"
                for name in (
                    "get_sigmas",
                    "anneal_Langevin_dynamics",
                    "anneal_Langevin_dynamics_inpainting",
                    "anneal_dsm_score_estimation",
                )
            }
        assert sys.modules["mine"].get_sigmas(None) == "theirs"


def test_what_cannot_be_patched_is_said(checkout):
    with pytest.raises(ValueError, match="name must be one of ncsn, ncsnv2, score_sde, got 'edm'"):
        fl.patch("edm")
    with pytest.raises(ImportError, match=r"no checkout of ncsnv2.*models: ModuleNotFoundError.*sys\.path"):
        fl.patch("ncsnv2")
    with pytest.raises(ImportError, match=r"no checkout of ncsn .*runners"):
        fl.patch("ncsn")
    with pytest.raises(ImportError, match=r"no checkout of score_sde.*sde_lib: ModuleNotFoundError"):
        fl.patch("score_sde")
    with pytest.raises(TypeError, match=r"keep_every=; they take callback, .*norm, .*progress, strict"):
        fl.patch("score_sde", keep_every=1)
    with pytest.raises(ImportError, match="none of its functions is in math"):
        fl.patch("ncsnv2", "math")
    with pytest.raises(TypeError, match=r"keep=.*keep_every"):
        fl.patch("ncsnv2", keep=1)
    with pytest.raises(TypeError, match=r"seed=.*repeat their noise"):
        fl.patch("ncsnv2", seed=0)
    with pytest.raises(TypeError, match=r"resume=.*repeat their noise"):
        fl.patch("score_sde", resume=None)
    checkout({"models/__init__.py": "raise OSError('no weights here')\n"})
    with pytest.raises(ImportError, match="models: OSError: no weights here"):
        fl.patch("ncsnv2")


def test_every_code_base_has_functions_of_its_own_name():
    for name, make in patching.CODE_BASES.items():
        ours = make().ours()
        assert len(ours) >= 5
        assert all(function.__module__.startswith(f"fastlangevin.compat.{name}") for function in ours)


def test_a_patched_toy_runner_takes_a_score_that_uses_autograd():
    class ToyRunner:
        @staticmethod
        def langevin_dynamics(score, init, lr=0.1, step=1000):
            raise NotImplementedError

        @staticmethod
        def anneal_langevin_dynamics(score, init, sigmas, lr=0.1, n_steps_each=100):
            raise NotImplementedError

    def plain(x, *sigma):
        return torch.sin(x)

    def energetic(x, *sigma):
        x = x.detach().requires_grad_()
        return -torch.autograd.grad(torch.cos(x).sum(), x)[0]

    start = torch.linspace(-1, 1, 12).view(4, 3)
    checkout = ModuleType("toy_runner")
    checkout.ToyRunner = ToyRunner
    runs = [
        lambda score: ToyRunner.langevin_dynamics(score, start, 1e-2, 3),
        lambda score: ToyRunner.anneal_langevin_dynamics(score, start, [1.0, 0.1], 1e-3, 2),
    ]
    with fl.patch("ncsn", checkout):
        for run in runs:
            torch.manual_seed(0)
            want = run(plain)
            torch.manual_seed(0)
            got = run(energetic)
            assert torch.equal(got, want)
            assert not got.requires_grad
