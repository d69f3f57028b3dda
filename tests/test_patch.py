"""Patching a checkout: what is replaced, where, and that it can be undone. The checkouts here are stand-ins."""

import importlib
import sys

import pytest
import torch

import fastlangevin as fl
from fastlangevin.compat import ncsn, ncsnv2, patching

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
    "losses/sliced_sm.py": "def sliced_score_estimation_vr(score_net, samples, n_particles=1): return 1, 2, 3\n",
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
LADDER = [1.0, 0.1]
X = torch.linspace(0, 1, 12).view(2, 6)


def net(x, labels):
    return -x


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """Writes files into a folder that is on the path; what they are imported as is forgotten at the end."""
    before = set(sys.modules)

    def write(files):
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
        monkeypatch.syspath_prepend(str(tmp_path))
        importlib.invalidate_caches()

    yield write
    for name in set(sys.modules) - before:
        if name.split(".")[0] in ("models", "losses", "runners", "later", "mine"):
            del sys.modules[name]


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
    with fl.patch("ncsn", strict=True) as done:
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
        assert importlib.import_module("losses.sliced_sm").sliced_score_estimation_vr(None, X) == (1, 2, 3)
        said = str(done)
        assert "runners.annealed.AnnealRunner.anneal_Langevin_dynamics -> fastlangevin.compat.ncsn." in said
        assert "could not import runners.baseline: ModuleNotFoundError" in said
        assert done.missing == [
            "losses.dsm.dsm_score_estimation",
            "AnnealRunner.anneal_Langevin_dynamics_inpainting",
            "BaselineRunner.Langevin_dynamics",
        ]
    assert runner.test(X, net, LADDER) == toy.langevin_dynamics(None, X) == toy().langevin_dynamics(None, X) == "theirs"
    assert losses.dsm(None, X) == "theirs"


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
    with pytest.raises(ValueError, match="name must be one of ncsn, ncsnv2, got 'edm'"):
        fl.patch("edm")
    with pytest.raises(ImportError, match=r"no checkout of ncsnv2.*models: ModuleNotFoundError.*sys\.path"):
        fl.patch("ncsnv2")
    with pytest.raises(ImportError, match=r"no checkout of ncsn .*runners"):
        fl.patch("ncsn")
    with pytest.raises(ImportError, match="none of its functions is in math"):
        fl.patch("ncsnv2", "math")
    with pytest.raises(TypeError, match=r"keep=.*keep_every"):
        fl.patch("ncsnv2", keep=1)
    with pytest.raises(TypeError, match=r"seed=.*repeat their noise"):
        fl.patch("ncsnv2", seed=0)
    checkout({"models/__init__.py": "raise OSError('no weights here')\n"})
    with pytest.raises(ImportError, match="models: OSError: no weights here"):
        fl.patch("ncsnv2")


def test_every_code_base_has_functions_of_its_own_name():
    for name, make in patching.CODE_BASES.items():
        ours = make().ours()
        assert len(ours) >= 5
        assert all(function.__module__.startswith(f"fastlangevin.compat.{name}") for function in ours)
