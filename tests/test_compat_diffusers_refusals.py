"""What the schedulers for diffusers refuse, and that they say so without diffusers."""

import importlib
import sys

import pytest
import torch

import fastlangevin as fl

pytest.importorskip("diffusers")
from fastlangevin.compat.diffusers import AnnealedLangevinScheduler, FusedScoreSdeVeScheduler

ANNEALED = {"num_train_timesteps": 4, "sigma_max": 1.0, "sigma_min": 0.1, "steps_per_level": 3, "epsilon": 2e-3}
SDE = {"sigma_min": 0.05, "sigma_max": 2.0, "snr": 0.16}
SHAPE = (3, 2, 5, 5)


def ready(kind):
    scheduler = kind(**SDE)
    scheduler.set_timesteps(5)
    scheduler.set_sigmas(5)
    return scheduler


def normals(shape=SHAPE):
    return fl.randn(shape, seed=1, dtype=torch.float64)


STEPS = {"model_output": normals(), "sample": normals(), "seed": 0}


def test_no_step_before_the_timesteps():
    with pytest.raises(RuntimeError, match=r"call set_timesteps\(\)"):
        AnnealedLangevinScheduler(**ANNEALED).step(timestep=0, **STEPS)
    scheduler = FusedScoreSdeVeScheduler(**SDE)
    scheduler.set_timesteps(5)
    for refused in (lambda: scheduler.step_pred(timestep=1.0, **STEPS), lambda: scheduler.step_correct(**STEPS)):
        with pytest.raises(RuntimeError, match=r"5 timesteps but 2000 noise levels.*set_sigmas\(n\)"):
            refused()
    scheduler.set_sigmas(5)
    scheduler.step_pred(timestep=1.0, **STEPS)


def test_a_chain_is_gone_through_in_order():
    scheduler = AnnealedLangevinScheduler(**ANNEALED)
    scheduler.set_timesteps()
    for wrong in (1, torch.tensor(1), torch.tensor([0, 0, 1])):
        with pytest.raises(ValueError, match=r"timesteps\[0\] = 0 at step 0"):
            scheduler.step(timestep=wrong, **STEPS)
    assert scheduler.draw == 0
    for t in scheduler.timesteps.tolist():
        scheduler.step(timestep=t, **STEPS)
    with pytest.raises(RuntimeError, match="12 steps has ended"):
        scheduler.step(timestep=3, **STEPS)


BAD_CONFIGS = [
    ({"prediction_type": "epsilon"}, ValueError, r"prediction_type.*score, scaled.*'epsilon' is 'noise'"),
    ({"prediction_type": "flow"}, ValueError, r"prediction_type must be one of .*'flow'$"),
    ({"takes": "time"}, ValueError, "takes must be one of labels, sigma"),
    ({"trained_sigmas": [0.1, 1.0]}, ValueError, r"trained_sigmas must decrease.*largest first"),
    ({"sigma_max": 0.1, "sigma_min": 1.0}, ValueError, "sigma_max must be larger than sigma_min"),
    ({"num_train_timesteps": 4.0}, TypeError, "num_train_timesteps must be an integer"),
    ({"steps_per_level": 0}, ValueError, "steps_per_level must be from 1"),
    ({"step_lr": 1e-3}, ValueError, "exactly one of epsilon=.*both"),
    ({"epsilon": None}, ValueError, "exactly one of epsilon=.*neither"),
    ({"corrector": "ald"}, ValueError, "corrector must be one of langevin, ou"),
]


@pytest.mark.parametrize(("bad", "error", "says"), BAD_CONFIGS, ids=lambda value: str(value)[:40])
def test_a_bad_annealed_configuration_is_refused(bad, error, says):
    with pytest.raises(error, match=says):
        AnnealedLangevinScheduler(**{**ANNEALED, **bad})


BAD_SDES = [
    ({"snr": 0.0}, ValueError, "snr must be finite and above zero"),
    ({"snr": -0.1}, ValueError, "snr must be finite and above zero, got -0.1"),
    ({"norm": "max"}, ValueError, "norm must be one of sample, batch, sqrt_d, got 'max'"),
    ({"sigma_min": 3.0}, ValueError, "sigma_max must be larger than sigma_min"),
    ({"sampling_eps": 1.0}, ValueError, "sampling_eps must be from 0 to below 1"),
    ({"num_train_timesteps": 0}, ValueError, "num_inference_steps must be from 1"),
    ({"correct_steps": -1}, ValueError, "correct_steps must be from 0"),
]


@pytest.mark.parametrize(("bad", "error", "says"), BAD_SDES, ids=lambda value: str(value)[:40])
def test_a_bad_configuration_of_the_stand_in_is_refused(bad, error, says):
    with pytest.raises(error, match=says):
        FusedScoreSdeVeScheduler(**{**SDE, **bad})


BAD_CALLS = [
    ({"model_output": normals((3, 2, 5))}, ValueError, r"model_output must have the state's shape \(3, 2, 5, 5\)"),
    ({"model_output": None}, TypeError, "model_output must be a torch.Tensor, got NoneType"),
    ({"sample": torch.zeros(SHAPE).int()}, TypeError, "sample must be float32"),
    ({"sample": torch.tensor(1.0)}, ValueError, "sample must have a batch dimension"),
    ({"generator": [torch.Generator()] * 2, "seed": None}, ValueError, "generator has 2 entries for 3 samples"),
    ({"generator": torch.Generator()}, ValueError, "seed= or generator=, not both"),
    ({"sample_ids": [0]}, ValueError, r"sample_ids must be int64 of shape \(3,\)"),
    ({"seed": -1}, ValueError, "seed must be from 0"),
]


@pytest.mark.parametrize(("bad", "error", "says"), BAD_CALLS, ids=lambda value: str(value)[:40])
def test_a_bad_call_is_refused_and_draws_nothing(bad, error, says):
    annealed, stand_in = AnnealedLangevinScheduler(**ANNEALED), ready(FusedScoreSdeVeScheduler)
    annealed.set_timesteps()
    state = torch.get_rng_state()
    for call, options in (
        (annealed.step, {"timestep": 0}),
        (stand_in.step_pred, {"timestep": 1.0}),
        (stand_in.step_correct, {}),
    ):
        with pytest.raises(error, match=says):
            call(**{**STEPS, **options, **bad})
        call(**{**STEPS, **options})
    # The prediction of step 0 has draw 1, the correction of step 1 draw 2.
    assert (annealed.draw, stand_in.draw) == (1, 3)
    assert torch.equal(torch.get_rng_state(), state)


def test_times_and_levels_out_of_range_are_refused():
    annealed, stand_in = AnnealedLangevinScheduler(**ANNEALED), ready(FusedScoreSdeVeScheduler)
    for time, says in ((1.5, "from 0 to 1, got 1.5"), (-0.1, "not be negative"), (torch.ones(2), r"\(\) or \(3,\)")):
        with pytest.raises(ValueError, match=says):
            stand_in.step_pred(timestep=time, **STEPS)
    with pytest.raises(ValueError, match="multiple of the 4 noise levels, got 10; the nearest is 8"):
        annealed.set_timesteps(10)
    x, z = normals(), normals()
    for scheduler, zero in ((annealed, "largest"), (stand_in, "smallest")):
        with pytest.raises(ValueError, match=rf"0 \({zero} sigma\) to [34], got 5"):
            scheduler.add_noise(x, z, torch.tensor([0, 5, 1]))
        with pytest.raises(TypeError, match=r"timesteps.*\.long\(\)"):
            scheduler.add_noise(x, z, torch.ones(3))
        with pytest.raises(ValueError, match="one entry for each sample"):
            scheduler.add_noise(x, z, torch.tensor([0, 1]))
        with pytest.raises(ValueError, match="noise must have the state's shape"):
            scheduler.add_noise(x, z[:2], torch.tensor([0, 1, 1]))
    with pytest.raises(TypeError, match="timesteps must be float32"):
        AnnealedLangevinScheduler(**ANNEALED, takes="sigma").add_noise(x, z, torch.tensor([0, 1, 1]))


def test_without_diffusers_there_is_the_command_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    monkeypatch.delitem(sys.modules, "fastlangevin.compat.diffusers")
    with pytest.raises(ImportError, match="pip install diffusers"):
        importlib.import_module("fastlangevin.compat.diffusers")
