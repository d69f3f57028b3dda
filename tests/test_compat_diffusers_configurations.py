"""Configurations of the schedulers: plain numbers, files that are whole, and those of other classes."""

import json
import sys
import warnings

import numpy as np
import pytest
import torch

import fastlangevin as fl

pytest.importorskip("diffusers")
from diffusers import DDPMScheduler, ScoreSdeVeScheduler

from fastlangevin.compat import diffusers as ours
from fastlangevin.compat.diffusers import AnnealedLangevinScheduler, FusedScoreSdeVeScheduler

ANNEALED = {
    "num_train_timesteps": np.int64(4),
    "sigma_max": np.float32(1.0),
    "sigma_min": np.float64(0.125),
    "steps_per_level": np.int32(3),
    "epsilon": np.float32(0.25),
    "denoise": np.bool_(True),
}
LADDER = {"trained_sigmas": [np.float32(2.0), np.float32(1.0)], "step_lr": torch.tensor(0.5)}
SDE = {
    "num_train_timesteps": np.int64(4),
    "snr": np.float32(0.125),
    "sigma_min": np.float32(0.125),
    "sigma_max": torch.tensor(2.0),
    "sampling_eps": np.float16(0.125),
    "correct_steps": np.uint8(2),
}


@pytest.mark.parametrize(
    ("kind", "config"),
    [(AnnealedLangevinScheduler, ANNEALED), (AnnealedLangevinScheduler, LADDER), (FusedScoreSdeVeScheduler, SDE)],
    ids=["annealed", "ladder", "stand-in"],
)
def test_numbers_of_numpy_and_pytorch_are_stored_as_pythons(kind, config, tmp_path):
    scheduler = kind(**config)
    scheduler.save_pretrained(tmp_path)
    again = kind.from_pretrained(tmp_path)
    assert again.to_json_string() == scheduler.to_json_string()
    for name, value in config.items():
        plain = [float(each) for each in value] if isinstance(value, list) else value.item()
        assert scheduler.config[name] == plain
        assert type(scheduler.config[name]) is type(plain)
        assert json.loads((tmp_path / "scheduler_config.json").read_text())[name] == plain
    assert type(scheduler.init_noise_sigma) is float
    assert pickled_json(kind.from_config(scheduler.config)) == pickled_json(scheduler)


def pickled_json(scheduler):
    return json.loads(scheduler.to_json_string())


@pytest.mark.parametrize("kind", [AnnealedLangevinScheduler, FusedScoreSdeVeScheduler])
def test_a_save_that_fails_leaves_the_old_file(kind, tmp_path):
    options = {"epsilon": 0.25} if kind is AnnealedLangevinScheduler else {"num_train_timesteps": 4}
    scheduler = kind(**options)
    scheduler.save_pretrained(tmp_path)
    file = tmp_path / "scheduler_config.json"
    before = file.read_bytes()
    scheduler.register_to_config(what=object())
    with pytest.raises(TypeError, match="not JSON serializable"):
        scheduler.save_pretrained(tmp_path)
    assert file.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == [file.name]
    # The twin: diffusers opens the file before it has anything to write.
    with pytest.raises(TypeError, match="not JSON serializable"):
        super(ours.configurations.PlainConfiguration, scheduler).to_json_file(file)
    assert file.read_bytes() != before


def recorded(call):
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        made = call()
    return made, [str(each.message) for each in told if each.category is UserWarning]


def test_a_configuration_without_a_prediction_type_is_told_of():
    score = ScoreSdeVeScheduler(num_train_timesteps=4)
    noise = DDPMScheduler(num_train_timesteps=4)
    older = {name: value for name, value in noise.config.items() if name != "prediction_type"}
    saved = {**json.loads(score.to_json_string())}
    for config in (score.config, older, saved, {**older, "_class_name": "DDPMScheduler"}):
        made, told = recorded(lambda config=config: AnnealedLangevinScheduler.from_config(config, epsilon=0.25))
        assert made.config.prediction_type == "score"
        assert len(made) == 4
        assert len(told) == 1
        assert "has no prediction_type" in told[0]
        assert "prediction_type='noise'" in told[0]
        for given in ("score", "noise"):
            made, told = recorded(
                lambda config=config, given=given: AnnealedLangevinScheduler.from_config(
                    config, epsilon=0.25, prediction_type=given
                )
            )
            assert (made.config.prediction_type, told) == (given, [])
    own = AnnealedLangevinScheduler(epsilon=0.25)
    for config in (own.config, json.loads(own.to_json_string()), {"epsilon": 0.25}):
        assert recorded(lambda config=config: AnnealedLangevinScheduler.from_config(config))[1] == []


def test_a_noise_predictor_of_another_class_is_not_taken_for_a_score(tmp_path):
    """Also where the class has it for a default, which diffusers' from_config leaves out."""
    noise = DDPMScheduler(num_train_timesteps=4)
    noise.save_pretrained(tmp_path)
    for make in (
        lambda: AnnealedLangevinScheduler.from_config(noise.config, epsilon=0.25),
        lambda: AnnealedLangevinScheduler.from_pretrained(tmp_path, epsilon=0.25),
    ):
        with pytest.raises(ValueError, match=r"prediction_type.*'epsilon' is 'noise' here"):
            make()
    made, told = recorded(lambda: FusedScoreSdeVeScheduler.from_config(noise.config))
    assert len(made.timesteps) == 4 or "num_train_timesteps" in noise.config["_use_default_values"]
    assert "prediction_type is 'epsilon'" in told[0]
    assert recorded(lambda: FusedScoreSdeVeScheduler.from_config(ScoreSdeVeScheduler().config))[1] == []


def test_the_defaults_of_another_class_are_kept():
    noise = DDPMScheduler()
    made, _ = recorded(
        lambda: AnnealedLangevinScheduler.from_config(noise.config, epsilon=0.25, prediction_type="noise")
    )
    assert len(made) == noise.config.num_train_timesteps == 1000


def test_saved_names_and_pickles_refer_to_the_package():
    for kind in (AnnealedLangevinScheduler, FusedScoreSdeVeScheduler):
        assert kind.__module__ == "fastlangevin.compat.diffusers"
        assert getattr(sys.modules[kind.__module__], kind.__name__) is kind


# Results that are not finite


def request(kind):
    if kind == "annealed":
        scheduler = AnnealedLangevinScheduler(2, 1.0, 0.5, steps_per_level=2, epsilon=0.01, denoise=True)
    else:
        scheduler = FusedScoreSdeVeScheduler(num_train_timesteps=5, sigma_max=2.0, norm="sample")
        scheduler.set_sigmas(5)
    scheduler.set_timesteps(*([] if kind == "annealed" else [5]))
    return scheduler


def step(scheduler, kind, place, output, x, **address):
    t = scheduler.timesteps[place]
    if kind == "annealed":
        return scheduler.step(output, t, x, **address)
    if kind == "corrector":
        return scheduler.step_correct(output, x, timestep=t, **address)
    return scheduler.step_pred(output, t, x, **address)


KINDS = ("annealed", "predictor", "corrector")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("where", ["output", "sample"])
def test_a_result_that_is_not_finite_is_told_of(kind, bad, where):
    place = 3
    level = place // 2 if kind == "annealed" else place
    draw = {"annealed": place, "predictor": 2 * place + 1, "corrector": 2 * place}[kind]
    for address in ({"seed": 3, "sample_ids": [4, 9, 6]}, {"generator": torch.Generator().manual_seed(1)}):
        scheduler = request(kind)
        x = {name: fl.randn((3, 5), seed=1) for name in ("output", "sample")}
        good = x["output"].clone(), x["sample"].clone()
        x[where][1, 2] = bad
        named = address.get("sample_ids", [0, 1, 2])[1]
        with pytest.raises(fl.NonFiniteError, match=rf"at draw {draw} at level {level}: sample {named}\.") as told:
            step(scheduler, kind, place, x["output"], x["sample"], **address)
        assert told.value.faults == ((1, named, draw, level),)
        assert told.value.state.step == draw + 1
        # The chain can go on from where it was.
        step(scheduler, kind, place, *good, **address)


def test_a_result_with_a_gradient_is_looked_at_too():
    scheduler = request("annealed")
    x = fl.randn((3, 5), seed=1)
    output = x.clone().requires_grad_()
    moved = scheduler.step(output, scheduler.timesteps[0], x, seed=0).prev_sample
    moved.sum().backward()
    assert output.grad is not None
    with pytest.raises(fl.NonFiniteError, match="samples 0, 1, 2"):
        scheduler.step(torch.log(-output.detach().abs()).requires_grad_(), scheduler.timesteps[1], x, seed=0)


def test_a_result_of_one_dimension_with_a_gradient_is_looked_at():
    scheduler = request("annealed")
    x, output = fl.randn((3,), seed=1), fl.randn((3,), seed=2).requires_grad_()
    assert scheduler.step(output, scheduler.timesteps[0], x, seed=0).prev_sample.requires_grad
    bad = torch.where(torch.arange(3) == 1, torch.nan, output)
    with pytest.raises(fl.NonFiniteError, match="at draw 1 at level 0: sample 1"):
        scheduler.step(bad, scheduler.timesteps[1], x, seed=0)


def test_a_large_finite_result_passes():
    scheduler = request("annealed")
    x = torch.full((3, 5), 3e38)
    assert scheduler.step(-x, scheduler.timesteps[0], x, seed=0).prev_sample.isfinite().all()


def test_the_record_of_a_device_is_read_now_and_then(monkeypatch):
    """On the CPU with its type told otherwise: 32 draws go by without the host looking."""
    from fastlangevin.compat.diffusers import calls

    scheduler = FusedScoreSdeVeScheduler(num_train_timesteps=40, sigma_max=2.0, correct_steps=0)
    x = fl.randn((2, 3), seed=1)
    bad = x.clone()
    bad[1, 0] = torch.nan

    class Elsewhere(calls.Call):
        def look(self, moved, fault, number, draws, level):
            if (number + 1) % calls.EVERY == 0 or number + 1 == draws:
                super().look(moved, fault, number, draws, level)

    monkeypatch.setattr("fastlangevin.compat.diffusers.sde_ve.Call", Elsewhere)
    for place in range(31):
        scheduler.step_pred(bad if place == 4 else x, scheduler.timesteps[place], x, seed=0)
    with pytest.raises(fl.NonFiniteError, match="draw 4: sample 1"):
        scheduler.step_pred(x, scheduler.timesteps[31], x, seed=0)
