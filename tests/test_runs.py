"""Runs in a folder: they can end at any step and go on with the same bits, and refuse to go on as another run."""

import functools
import json
import logging
import math
import os
import signal
import subprocess
import sys
import types
from pathlib import Path

import pytest
import torch
from PIL import Image

import fastlangevin as fl
from fastlangevin.cli import main
from fastlangevin.data import Augment
from fastlangevin.models import ConvConfig, ConvScore
from fastlangevin.stopping import Stopped
from fastlangevin.storage import checkpoint, container
from fastlangevin.storage.generations import Generations
from fastlangevin.training import Places, TrainConfig, report, train, trainer
from fastlangevin.training.world import World
from tests.long import resuming, small_run

ROOT = Path(__file__).resolve().parents[1]
TINY = {"steps": 20, "batch": 8, "lr": 5e-3, "warmup": 2, "log_every": 5, "save_every": 10}


@pytest.fixture(autouse=True)
def curves_as_text():
    """Most of a small run's time would be matplotlib's: the file holds the lines that it would draw."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "draw_curves", lambda path, lines: path.write_text(json.dumps(lines)))
        yield


@pytest.fixture
def real_curves(curves_as_text, monkeypatch):
    monkeypatch.setattr(trainer, "draw_curves", report.draw_curves)


def go(folder, *, network=small_run.build, resume=False, fallback=False, callback=None, source=None, **changes):
    places = Places(folder, resume=resume, fallback=fallback, device="cpu", sampling=small_run.SAMPLING)
    return train(network, source or small_run.images(), TrainConfig(**{**TINY, **changes}), places, callback=callback)


def stop_at(step, number=signal.SIGTERM):
    def interrupt(done, _):
        if done == step:
            os.kill(os.getpid(), number)

    return interrupt


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.long
def test_stopped_at_random_steps_and_resumed_it_ends_with_the_same_bytes(tmp_path):
    alone = World(0, 1, torch.device("cpu"))
    assert resuming.resumes(4, tmp_path, seed=1, world=alone) == 0
    assert resuming.control(tmp_path), "a resume without the optimiser's moments must be found out"


@pytest.mark.long
def test_several_processes_stopped_and_resumed_end_with_the_same_bytes(tmp_path):
    # More than two, for whom it matters in which order their gradients are added.
    assert resuming.different_in(4, 1, tmp_path / "run", seed=0) == 0


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_resume_is_exact_in_half_precision(tmp_path, precision):
    whole = go(tmp_path / "whole", precision=precision)
    with pytest.raises(Stopped):
        go(tmp_path / "part", precision=precision, callback=stop_at(12))
    resumed = go(tmp_path / "part", precision=precision, resume=True)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))


def with_parameters_that_do_not_move():
    net = small_run.build()
    net.stem.bias.requires_grad_(False)
    net.register_parameter("unused", torch.nn.Parameter(torch.ones(3)))
    return net


def test_resume_is_exact_where_parameters_are_frozen_or_never_used(tmp_path):
    whole = go(tmp_path / "whole", network=with_parameters_that_do_not_move)
    with pytest.raises(Stopped):
        go(tmp_path / "part", network=with_parameters_that_do_not_move, callback=stop_at(12))
    resumed = go(tmp_path / "part", network=with_parameters_that_do_not_move, resume=True)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_the_step_it_came_in(tmp_path, number, code):
    with pytest.raises(Stopped) as stopped:
        go(tmp_path, callback=stop_at(6, number))
    assert stopped.value.code == code
    assert Generations(tmp_path, "state").steps() == [7]


def test_a_signal_while_samples_are_drawn_ends_the_run_soon(tmp_path, monkeypatch):
    real = trainer.annealed_langevin

    @functools.wraps(real)
    def interrupted(*arguments, callback, **options):
        def call(info):
            if info.step == 2:
                os.kill(os.getpid(), signal.SIGTERM)
            assert info.step < 4, "the sampler must stop"
            return callback(info)

        return real(*arguments, callback=call, **options)

    monkeypatch.setattr(trainer, "annealed_langevin", interrupted)
    with pytest.raises(Stopped):
        go(tmp_path, sample_every=5)
    assert Generations(tmp_path, "state").steps() == [5]
    assert not list(tmp_path.glob("samples-*"))
    monkeypatch.undo()
    go(tmp_path, sample_every=5, resume=True, save_every=10)
    names = [f"samples-{step:010}.png" for step in (5, 10, 15, 20)]
    assert sorted(path.name for path in tmp_path.glob("samples-*")) == names


def test_a_signal_in_the_last_picture_ends_the_run_and_a_resume_draws_it(tmp_path, monkeypatch):
    real = trainer.annealed_langevin

    @functools.wraps(real)
    def interrupted(*arguments, callback, **options):
        os.kill(os.getpid(), signal.SIGTERM)
        return real(*arguments, callback=callback, **options)

    monkeypatch.setattr(trainer, "annealed_langevin", interrupted)
    with pytest.raises(Stopped):
        go(tmp_path, sample_every=20)
    assert not list(tmp_path.glob("samples-*"))
    monkeypatch.undo()
    go(tmp_path, sample_every=20, resume=True)
    assert [path.name for path in tmp_path.glob("samples-*")] == ["samples-0000000020.png"]


def test_a_signal_while_the_first_step_compiles_ends_it_at_once(tmp_path):
    def network():
        net = small_run.build()
        net.register_forward_pre_hook(lambda *_: os.kill(os.getpid(), signal.SIGTERM))
        return net

    with pytest.raises(Stopped):
        go(tmp_path, network=network)
    assert Generations(tmp_path, "state").steps() == []


def test_the_log_has_a_line_for_each_interval_and_every_level(tmp_path):
    losses = []
    go(tmp_path, callback=lambda _, loss: losses.append(loss), steps=12)
    found = lines(tmp_path)
    assert [line["step"] for line in found] == [5, 10, 12]
    for line, part in zip(found, (losses[:5], losses[5:10], losses[10:]), strict=True):
        assert line["loss"] == pytest.approx(sum(part) / len(part), rel=1e-12)
        assert sum(line["samples"]) == 8 * len(part)
        by_level = [mean * count for mean, count in zip(line["levels"], line["samples"], strict=True) if count]
        # Level sums are fp32 sums of at most 40 values, the step's loss another one of 8.
        assert sum(by_level) / sum(line["samples"]) == pytest.approx(line["loss"], rel=1e-5)
        assert line["gradient_norm"] > 0


def test_pictures_are_drawn(tmp_path, real_curves):
    go(tmp_path, sample_every=10, samples=6)
    assert sorted(path.name for path in tmp_path.glob("*.png")) == [
        "curves.png",
        "samples-0000000010.png",
        "samples-0000000020.png",
    ]
    for path in tmp_path.glob("*.png"):
        with Image.open(path) as picture:
            low, high = picture.convert("L").getextrema()
            assert high - low > 100, f"{path.name} is blank"
    first = (tmp_path / "curves.png").read_bytes()
    report.draw_curves(tmp_path / "curves.png", lines(tmp_path))
    assert (tmp_path / "curves.png").read_bytes() == first, "the same lines are the same bytes"


def test_without_matplotlib_there_is_a_note_and_no_curve(tmp_path, monkeypatch, caplog, real_curves):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with caplog.at_level(logging.INFO, "fastlangevin"):
        go(tmp_path, steps=2)
    assert "matplotlib is not installed" in caplog.text
    assert not (tmp_path / "curves.png").exists()


def test_tensorboard_gets_the_lines_where_it_is_installed(tmp_path, monkeypatch):
    written = {}

    class Writer:
        def __init__(self, folder, purge_step):
            self.folder = folder
            written["purged"] = purge_step

        def add_scalar(self, name, value, step):
            written[name, step] = value

        def close(self):
            written["closed"] = self.folder

    stand_in = types.ModuleType("torch.utils.tensorboard")
    stand_in.SummaryWriter = Writer
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", stand_in)
    go(tmp_path)
    assert written["closed"] == str(tmp_path / "tensorboard")
    assert written["purged"] == 1
    for line in lines(tmp_path):
        assert written["loss", line["step"]] == line["loss"]
        assert written["level/2", line["step"]] == line["levels"][2]


def test_a_run_is_the_same_under_another_default_device(tmp_path):
    def network():
        assert torch.empty(0).device.type == "cpu"
        return small_run.build()

    source = small_run.images()
    whole = go(tmp_path / "whole", source=source, steps=12)
    with torch.device("meta"), pytest.raises(Stopped):
        go(tmp_path / "part", network=network, source=source, callback=stop_at(8), steps=12)
    with torch.device("meta"):
        resumed = go(tmp_path / "part", network=network, source=source, resume=True, steps=12, sample_every=12)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))
    assert (tmp_path / "part" / "samples-0000000012.png").exists()


def test_a_run_that_is_not_finished_is_not_overwritten(tmp_path):
    with pytest.raises(Stopped):
        go(tmp_path, callback=stop_at(6))
    before = small_run.content(tmp_path)
    for changes in ({}, {"steps": 5}):
        with pytest.raises(ValueError, match=r"stopped at step 7; go on with it by resume=True \(--resume\)"):
            go(tmp_path, **changes)
        assert small_run.content(tmp_path) == before


@pytest.mark.parametrize(
    ("places", "error"),
    [({"workers": -1}, ValueError), ({"sampling": {"epsilom": 1.0}}, TypeError), ({"device": "nowhere"}, RuntimeError)],
)
def test_a_bad_option_leaves_a_finished_run_alone(tmp_path, places, error):
    go(tmp_path, steps=5)
    before = small_run.content(tmp_path)
    source = fl.data.as_source([torch.zeros(1, 4, 4)] * 4, name="stripes")
    with pytest.raises(error):
        train(small_run.build, source, TrainConfig(**TINY), Places(tmp_path, **places))
    assert small_run.content(tmp_path) == before


@pytest.mark.parametrize(
    ("sampling", "error", "message"),
    [
        ({"seed": 5}, ValueError, "sampling must leave seed out"),
        ({"device": "cpu", "shape": [1]}, ValueError, "sampling must leave device, shape out"),
        ({"callback": None}, ValueError, "sampling must leave callback out"),
        ({"full_output": True}, ValueError, "sampling must leave full_output out"),
        ({"generator": torch.Generator()}, TypeError, "sampling must be made of dicts"),
        ({"dtype": torch.float32}, TypeError, "sampling must be made of dicts"),
        ([("epsilon", 1.0)], TypeError, "sampling must be made of dicts"),
        ({"epsilon": 1e-4, "steps_per_level": 0}, ValueError, "steps_per_level must be"),
        ({"steps_per_level": 2}, ValueError, "epsilon"),
        ({"epsilon": 1e-4, "init": "gaussian"}, ValueError, "init must be"),
    ],
)
def test_bad_options_of_pictures_are_refused_before_the_first_step(tmp_path, sampling, error, message):
    places = Places(tmp_path / "run", device="cpu", sampling=sampling)
    with pytest.raises(error, match=message):
        train(small_run.build, small_run.images(), TrainConfig(**TINY), places)
    assert not (tmp_path / "run").exists()


def test_a_folder_may_be_a_text(tmp_path):
    go(str(tmp_path / "run"), steps=10, sample_every=10)
    names = {"state-0000000010.safetensors", "samples-0000000010.png", "metrics.jsonl", "config.json"}
    assert names <= {path.name for path in (tmp_path / "run").iterdir()}


def test_another_programs_log_is_left_alone(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"epoch": 1}\n')
    with pytest.raises(ValueError, match=r"metrics.jsonl is not the log of a run; give the run another folder"):
        go(tmp_path)
    assert (tmp_path / "metrics.jsonl").read_text() == '{"epoch": 1}\n'


def test_a_finished_run_can_be_made_anew_and_resumed_without_harm(tmp_path):
    first = go(tmp_path, steps=10)
    resumed = go(tmp_path, steps=10, resume=True)
    again = go(tmp_path, steps=10)
    for net in (resumed, again):
        assert all(torch.equal(a, b) for a, b in zip(first.parameters(), net.parameters(), strict=True))
    assert [line["step"] for line in lines(tmp_path)] == [5, 10]


def test_a_network_whose_states_have_no_room_is_refused_before_its_first_step(tmp_path, monkeypatch):
    go(tmp_path, steps=5)
    before, stepped = small_run.content(tmp_path), []
    entries = len(container.read(tmp_path / "state-0000000005.safetensors")[0])
    monkeypatch.setattr(container, "MAX_TENSORS", entries)
    go(tmp_path, steps=5)
    monkeypatch.setattr(container, "MAX_TENSORS", entries - 1)
    with pytest.raises(ValueError, match=rf"could not be saved \(there are {entries} tensors, a file has room for"):
        go(tmp_path, steps=5, callback=lambda step, _: stepped.append(step))
    assert not stepped
    assert small_run.content(tmp_path) == before


def wider():
    return ConvScore(fl.geometric_sigmas(1.0, 0.1, 4), ConvConfig(widths=(16,), mean=0.3, std=0.4))


@pytest.mark.parametrize("changes", [{"lr": 1e-3}, {"steps": 5}, {"network": wider}], ids=["lr", "steps", "network"])
def test_another_run_is_not_begun_in_the_folder_of_a_finished_one(tmp_path, changes):
    go(tmp_path, steps=10, sample_every=5)
    before = small_run.content(tmp_path)
    with pytest.raises(ValueError, match=r"is another run: its (config|network) has .* another folder, or delete it"):
        go(tmp_path, **{"steps": 10, **changes})
    assert small_run.content(tmp_path) == before


def test_a_run_made_anew_removes_what_it_wrote_and_nothing_else(tmp_path):
    go(tmp_path, steps=10, sample_every=5)
    kept = ["samples-mine.png", "samples-1.png", "samples-0000000005.png.png", "state-mine.safetensors"]
    for name in kept:
        (tmp_path / name).write_text("mine")
    go(tmp_path, steps=10)
    assert all((tmp_path / name).read_text() == "mine" for name in kept)
    assert not (tmp_path / "samples-0000000005.png").exists()


def test_resume_without_a_state_begins(tmp_path):
    go(tmp_path, steps=10, resume=True)
    assert Generations(tmp_path, "state").steps() == [10]


def other_ladder():
    return ConvScore(fl.geometric_sigmas(1.0, 0.2, 4), ConvConfig(widths=(8,), mean=0.3, std=0.4))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"network": wider}, r"its network has widths = \[8\] where this one has \[16\]"),
        ({"network": other_ladder}, "its sigmas has"),
        ({"lr": 1e-3}, "its config has lr = 0.005 where this one has 0.001"),
        ({"steps": 30, "clip": 1.0}, "its config has steps = 20 where this one has 30; clip = 0.0 where"),
        ({"augment": Augment(flip=True)}, "its config has augment"),
        ({"source": fl.data.as_source(torch.zeros(9, 1, 4, 4), name="zeros")}, "its data has name = 'stripes' where"),
    ],
)
def test_another_run_is_not_gone_on_with(tmp_path, changes, message):
    with pytest.raises(Stopped):
        go(tmp_path, callback=stop_at(6))
    before = small_run.content(tmp_path)
    with pytest.raises(ValueError, match=message):
        go(tmp_path, resume=True, **changes)
    assert small_run.content(tmp_path) == before
    go(tmp_path, resume=True, save_every=5)


def as_before_rules_and_fingerprints(folder):
    """Takes out of a run's states what an earlier fastlangevin, which averaged "from_zero", did not write."""
    generations = Generations(folder, "state")
    for step in generations.steps():
        tensors, description = container.read(generations.path(step))
        assert description["config"].pop("ema_rule") == "from_zero"
        description["data"].pop("fingerprint")
        container.write(generations.path(step), tensors, description)


def test_a_run_of_before_rules_and_fingerprints_goes_on_as_it_was_begun(tmp_path, caplog):
    whole = go(tmp_path / "whole", ema_rule="from_zero")
    with pytest.raises(Stopped):
        go(tmp_path / "part", ema_rule="from_zero", callback=stop_at(12))
    as_before_rules_and_fingerprints(tmp_path / "part")
    with pytest.raises(ValueError, match="its config has ema_rule = 'from_zero' where this one has 'score_sde'"):
        go(tmp_path / "part", resume=True, ema_rule="score_sde")
    with caplog.at_level(logging.WARNING, "fastlangevin"), pytest.raises(Stopped):
        go(tmp_path / "part", resume=True, callback=stop_at(15))
    assert "does not say what is in its data" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING, "fastlangevin"):
        resumed = go(tmp_path / "part", resume=True)
    assert not caplog.text, "the second part has told it"
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))
    newest = Generations(tmp_path / "part", "state").load().description
    assert newest == Generations(tmp_path / "whole", "state").load().description
    other = go(tmp_path / "other")
    assert not all(torch.equal(a, b) for a, b in zip(whole.parameters(), other.parameters(), strict=True))


def images_in(folder, shade):
    """Six images of 4x4 pixels."""
    folder.mkdir(parents=True)
    for index in range(6):
        Image.new("L", (4, 4), 40 * index + shade).save(folder / f"{index}.png")
    return folder


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda folder: (folder / "5.png").rename(folder / "6.png"),
            r"its data has another name or size, first in sample 5 \(6\.png\); give",
        ),
        (
            lambda folder: Image.new("L", (4, 4), 161).save(folder / "4.png"),
            r"its data has another content, first in sample 4 \(4\.png\); give",
        ),
        (
            lambda folder: (folder / "5.png").unlink(),
            r"its data has samples = 6 where this one has 5; more after sample 4 \(4\.png\); give",
        ),
    ],
    ids=["renamed", "pixels", "fewer"],
)
def test_a_run_does_not_go_on_with_other_data(tmp_path, change, message):
    folder = images_in(tmp_path / "images", 0)
    with pytest.raises(Stopped):
        go(tmp_path / "run", source=fl.data.Folder(folder), callback=stop_at(6))
    before = small_run.content(tmp_path / "run")
    change(folder)
    with pytest.raises(ValueError, match=message):
        go(tmp_path / "run", source=fl.data.Folder(folder), resume=True)
    assert small_run.content(tmp_path / "run") == before
    elsewhere = images_in(tmp_path / "elsewhere" / "images", 0)
    go(tmp_path / "run", source=fl.data.Folder(elsewhere), resume=True)
    with pytest.raises(ValueError, match=r"is another run: its data has .* another folder, or delete it"):
        go(tmp_path / "run", source=fl.data.Folder(folder))


def test_the_commands_checkpoint_says_by_which_rule_it_was_averaged(tmp_path, capsys):
    folder = images_in(tmp_path / "images", 0)
    arguments = ["train", "--data", str(folder), "--widths", "8", "--patch", "1", "--batch", "4", "--quiet"]
    arguments += ["--out", str(tmp_path / "net.safetensors"), "--steps", "2"]
    assert main([*arguments, "--ema-rule", "from_zero"]) == 0
    first = (tmp_path / "net.safetensors").read_bytes()
    as_before_rules_and_fingerprints(tmp_path / "net.run")
    assert main([*arguments, "--resume"]) == 0
    assert checkpoint.load(tmp_path / "net.safetensors").metadata["training"]["ema_rule"] == "from_zero"
    assert (tmp_path / "net.safetensors").read_bytes() == first


def test_another_stream_version_is_refused(tmp_path, monkeypatch):
    with pytest.raises(Stopped):
        go(tmp_path, callback=stop_at(6))
    from fastlangevin.training import state

    monkeypatch.setattr(state, "STREAM_VERSION", 2)
    with pytest.raises(ValueError, match="stream version 1 of the noise, this fastlangevin has 2"):
        go(tmp_path, resume=True)


def test_a_damaged_state_is_refused_and_the_one_before_is_taken_when_asked(tmp_path):
    whole = go(tmp_path / "whole")
    with pytest.raises(Stopped):
        go(tmp_path / "part", callback=stop_at(14))
    newest = tmp_path / "part" / "state-0000000015.safetensors"
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    with pytest.raises(ValueError, match=r"state-0000000015.*fallback=True"):
        go(tmp_path / "part", resume=True)
    resumed = go(tmp_path / "part", resume=True, fallback=True)
    assert (tmp_path / "part" / "state-0000000015.damaged").read_bytes() == content
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))
    assert lines(tmp_path / "part") == lines(tmp_path / "whole")


def test_the_last_good_state_stays_when_the_loss_is_not_finite(tmp_path):
    nets = []

    def network():
        nets.append(small_run.build())
        return nets[0]

    def spoil(step, _):
        if step == 12:
            torch.nn.init.constant_(next(nets[0].parameters()), math.nan)

    with pytest.raises(RuntimeError, match="the loss is nan at step 13 at level"):
        go(tmp_path, network=network, callback=spoil)
    step, tensors, _ = Generations(tmp_path, "state").load()
    assert step == 10
    assert all(tensor.isfinite().all() for tensor in tensors.values())


def test_data_that_are_not_finite_are_named_and_the_last_good_state_stays(tmp_path):
    def spoil(step, _):
        if step == 12:
            source.images[:] = math.nan

    source = small_run.images()
    with pytest.raises(ValueError, match=r"sample \d+ of stripes has 16 of 16 values that are NaN"):
        go(tmp_path, source=source, callback=spoil)
    assert Generations(tmp_path, "state").steps() == [10]


def test_a_log_cut_short_by_a_kill_is_mended(tmp_path):
    go(tmp_path / "whole")
    with pytest.raises(Stopped):
        go(tmp_path / "part", callback=stop_at(11))
    with open(tmp_path / "part" / "metrics.jsonl", "a") as file:
        file.write('{"step": 15, "loss": 1.0}\n{"step": 20, "lo')
    go(tmp_path / "part", resume=True)
    assert (tmp_path / "part" / "metrics.jsonl").read_bytes() == (tmp_path / "whole" / "metrics.jsonl").read_bytes()


def test_the_command_goes_on_after_a_signal_with_the_same_file(tmp_path, monkeypatch, capsys):
    pytest.importorskip("sklearn")
    arguments = ["train", "--steps", "6", "--batch", "4", "--save-every", "2", "--log-every", "2", "--quiet"]
    assert main([*arguments, "--out", str(tmp_path / "whole.safetensors")]) == 0
    real = trainer._Run._step
    steps = []

    def interrupted(self, batches):
        steps.append(self.done)
        if len(steps) == 4:
            os.kill(os.getpid(), signal.SIGINT)
        real(self, batches)

    monkeypatch.setattr(trainer._Run, "_step", interrupted)
    part = str(tmp_path / "part.safetensors")
    with pytest.raises(SystemExit) as stopped:
        main([*arguments, "--out", part])
    assert stopped.value.code == 130
    assert not (tmp_path / "part.safetensors").exists()
    assert main([*arguments, "--out", part]) == 2
    assert "--resume" in capsys.readouterr().err
    assert main([*arguments, "--out", part, "--resume"]) == 0
    assert steps == [0, 1, 2, 3, 4, 5]
    assert (tmp_path / "part.safetensors").read_bytes() == (tmp_path / "whole.safetensors").read_bytes()


@pytest.mark.long
def test_processes_that_get_a_signal_at_random_moments_have_saved_their_last_step(tmp_path):
    # A process of its own: the harness forks, and this one has threads.
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.long.preemption",
            "--signals",
            "5",
            "--longest",
            "600",
            "--json",
            tmp_path / "found",
        ],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=1800,  # it ends a hung test
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    record = json.loads((tmp_path / "found").read_text())
    assert record["kept"]
    assert record["found"]["signals"] == 5
    assert record["control_found"]["unsaved"] > 0
