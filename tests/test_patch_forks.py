"""Patching a checkout: signatures that are not the published ones, and a trainer that is."""

import importlib
import re
import sys

import pytest
import torch

import fastlangevin as fl

V1 = {
    "losses/__init__.py": "",
    "losses/dsm.py": "def dsm(energy_net, samples, sigma=1): return 'theirs'\n",
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
""",
}
SDE_LIB = """
class VESDE:
    def __init__(self, sigma_min=0.01, sigma_max=50, N=1000): self.N = N
class VPSDE:
    def __init__(self, beta_min=0.1, beta_max=20, N=1000): self.N = N
"""
LADDER = [1.0, 0.1]
X = torch.linspace(0, 1, 12, device="cpu").view(2, 6)
TRAINER = """
from losses.sliced_sm import sliced_score_estimation_vr as ssm, single_sliced_score_matching, \\
    anneal_sliced_score_estimation_vr

def train(score, energy, net, x, labels, sigmas):
    loss, *_ = ssm(score, x, n_particles=2)
    first, first1, first2 = single_sliced_score_matching(energy, x)
    annealed = anneal_sliced_score_estimation_vr(net, x, labels, sigmas)
    (loss + first + annealed).backward()
    return first, first1, first2
"""


def test_a_published_trainer_runs_unchanged(checkout):
    checkout({**V1, "later.py": TRAINER})
    trainer = importlib.import_module("later")
    weight = torch.tensor(0.5, requires_grad=True)

    def train():
        weight.grad = None
        return trainer.train(
            lambda x: -weight * x,
            lambda x: weight * x.square().sum(1),
            lambda x, labels: -weight * x,
            X,
            torch.tensor([0, 1]),
            LADDER,
        )

    with fl.patch("ncsn", keep_every=2):
        loss, *parts = train()
        torch.testing.assert_close(loss, sum(parts), rtol=1e-6, atol=0)
        assert weight.grad
    with fl.patch("ncsn", strict=False), pytest.raises(TypeError, match="iterat"):
        train()
    assert importlib.import_module("losses.sliced_sm").sliced_score_estimation_vr(None, X) == (1, 2, 3)


PUBLISHED = (
    "sde, shape, predictor, corrector, inverse_scaler, snr, n_steps=1, probability_flow=False, continuous=False, "
    "denoise=True, eps=1e-3, device='cuda'"
)
FORKS = {
    "more": (f"{PUBLISHED}, guidance=1.0", "its argument 13 is guidance, where the published signature has no more"),
    "other order": (PUBLISHED.replace("sde, shape", "shape, sde"), "its argument 1 is shape, where .* has sde"),
    "other name": (PUBLISHED.replace("snr", "target_snr"), "its argument 6 is target_snr, where .* has snr"),
    "other default": (PUBLISHED.replace("1e-3", "1e-5"), "eps=1e-05 has another default than the published eps=0.001"),
    "no default": (PUBLISHED.replace("eps=1e-3, device='cuda'", "*, eps, device='cuda'"), "eps has another default"),
    "only by name": (f"{PUBLISHED}, *, guidance=1.0", "it takes guidance=, which the published signature has not"),
    "any more": (f"{PUBLISHED}, **options", r"it takes any other arguments, \*\*options"),
    "fewer": ("sde, shape", "it lacks predictor, corrector, inverse_scaler, snr"),
    "an array": (PUBLISHED.replace("eps=1e-3", "eps=ARRAY"), "eps=.* has another default than the published eps=0.001"),
}


@pytest.mark.parametrize("fork", FORKS)
def test_a_forks_own_signature_is_left_and_told_of(fork, checkout):
    taken, difference = FORKS[fork]
    sampling = f"import torch\nARRAY = torch.zeros(2)\ndef get_pc_sampler({taken}): return 'theirs'\n"
    files = {"sde_lib.py": SDE_LIB, "sampling.py": sampling}
    checkout({**files, "later.py": "from sampling import get_pc_sampler as copied\n"})
    later = importlib.import_module("later")
    with pytest.warns(UserWarning, match=rf"of \d+ replaced.*sampling\.get_pc_sampler, {difference}"):
        done = fl.patch("score_sde")
    with done:
        assert later.copied is sys.modules["sampling"].get_pc_sampler
        assert later.copied.__module__ == "sampling"
        assert "sampling.get_pc_sampler" not in done.missing
        assert re.search(difference, done.different["sampling.get_pc_sampler"])
        assert f"left as it is: sampling.get_pc_sampler, {done.different['sampling.get_pc_sampler']}" in str(done)
    assert sys.modules["sde_lib"].VESDE.__module__ == "sde_lib"


def test_signatures_of_methods_and_classes_are_compared_too(checkout):
    annealed = V1["runners/annealed.py"].replace("n_steps=200", "n_steps=200, mask=None")
    checkout({"losses/__init__.py": "", "runners/__init__.py": "", "runners/annealed.py": annealed})
    with pytest.warns(UserWarning, match=r"AnnealRunner\.Langevin_dynamics, its argument 4 is mask"):
        done = fl.patch("ncsn")
    with done:
        runner = sys.modules["runners.annealed"].AnnealRunner()
        assert runner.Langevin_dynamics(X, None) == "theirs"
        assert isinstance(runner.anneal_Langevin_dynamics(X, lambda x, labels: -x, LADDER, 1), list)
    sde_lib = SDE_LIB.replace("sigma_max=50, N=1000", "sigma_max=50, N=1000, T=1")
    sde_lib += "class subVPSDE:\n    def sde(self, x, t, guide): return 'theirs'\n"
    checkout({"sde_lib.py": sde_lib, "sampling.py": ""})
    with pytest.warns(UserWarning, match=r"sde_lib\.VESDE, its argument 4 is T"):
        done = fl.patch("score_sde")
    with done:
        assert done.different == {
            "sde_lib.VESDE": "its argument 4 is T, where the published signature has no more",
            "sde_lib.subVPSDE": "its method sde: its argument 3 is guide, where the published signature has no more",
        }
        assert sys.modules["sde_lib"].VPSDE.__module__ == "fastlangevin.compat.score_sde.sde"


def test_a_warning_that_is_an_error_changes_nothing(checkout):
    checkout({**V1, "runners/toy.py": "import a_library_that_is_not_here\n"})
    with pytest.raises(UserWarning, match="replaced"):
        fl.patch("ncsn")
    assert importlib.import_module("losses.dsm").dsm(None, X) == "theirs"
