"""The command line: what it writes and prints, how it stops and goes on, and how it refuses."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from patience import HUNG, wait_for_text
from PIL import Image

import fastlangevin as fl
from fastlangevin.cli import main, sample
from fastlangevin.models import MLP, ConvConfig, ConvScore, MLPConfig
from fastlangevin.storage import checkpoint, stopped_chain

SIDE = 8
TILE, GAP = 48, 4  # an 8x8 sample is enlarged to 48x48, with white lines between

# The command as a user runs it, each step slowed down so that a signal finds it at work.
SLOW = """
import runpy, time, torch
def wait(module, inputs):
    if type(module).__name__ == "ConvScore":
        time.sleep(0.05)
torch.nn.modules.module.register_module_forward_pre_hook(wait)
runpy.run_module("fastlangevin", run_name="__main__", alter_sys=True)
"""


def network(*, learnt: bool, seed: int = 0) -> ConvScore:
    """A tiny network. One that learnt nothing is the score of a Gaussian, element by element."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = ConvScore([1.0, 0.1], ConvConfig(widths=(4,), blocks=1))
        if learnt:
            torch.nn.init.normal_(net.head.weight, std=0.5)
    return net


METADATA = {
    "data": {"shape": [1, SIDE, SIDE]},
    "sampling": {"epsilon": 2e-3, "steps_per_level": 3, "init": "uniform"},
}


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("networks")
    checkpoint.save(folder / "net", network(learnt=True), metadata=METADATA)
    checkpoint.save(folder / "gaussian", network(learnt=False), metadata=METADATA)
    checkpoint.save(folder / "other", network(learnt=True, seed=1), metadata=METADATA)
    checkpoint.save(folder / "silent", network(learnt=False))
    checkpoint.save(folder / "no_advice", network(learnt=False), metadata={"data": {"shape": [1, SIDE, SIDE]}})
    flat = MLP([1.0, 0.1], MLPConfig(features=2, width=4, depth=1))
    checkpoint.save(folder / "flat", flat, metadata={**METADATA, "data": {"shape": [2]}})
    content = (folder / "net").read_bytes()
    (folder / "damaged").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    (folder / "text").write_text("not a network")
    return folder


Sample = Callable[..., int]


@pytest.fixture
def draw(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sample:
    """Runs ``fastlangevin sample`` in an empty folder of its own."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object, net: str = "net") -> int:
        fixed = ["sample", "--checkpoint", files / net, "--device", "cpu", "--impl", "reference", "--quiet"]
        return main([str(each) for each in [*fixed, *arguments]])

    return run


def pixels(path: str | Path) -> np.ndarray[Any, np.dtype[np.uint8]]:
    with Image.open(path) as image:
        assert image.format == "PNG"
        image.load()
        return np.asarray(image)


def tiles(path: str | Path, columns: int, count: int) -> list[np.ndarray[Any, np.dtype[np.uint8]]]:
    """The samples of a grid, without the white lines."""
    picture = pixels(path)
    corners = [(GAP + index // columns * (TILE + GAP), GAP + index % columns * (TILE + GAP)) for index in range(count)]
    return [picture[top : top + TILE, left : left + TILE] for top, left in corners]


def only(*names: str) -> None:
    assert sorted(os.listdir()) == sorted(names)


# What it writes and prints.


def test_sample_writes_a_grid_of_the_samples(draw: Sample, files: Path) -> None:
    assert draw("--n", 5, "--seed", 3, "--out", "grid.png") == 0
    only("grid.png")
    assert pixels("grid.png").shape == (2 * (TILE + GAP) + GAP, 3 * (TILE + GAP) + GAP)  # two rows of three
    loaded = checkpoint.load(files / "net")
    expected = fl.annealed_langevin(
        loaded.net,
        loaded.sigmas,
        shape=(5, 1, SIDE, SIDE),
        epsilon=2e-3,
        steps_per_level=3,
        denoise=True,
        seed=3,
        impl="reference",
    )
    levels = expected.clamp(0, 1).mul(255).round().to(torch.uint8)[:, 0].repeat_interleave(6, 1).repeat_interleave(6, 2)
    for tile, image in zip(tiles("grid.png", 3, 5), levels.numpy(), strict=True):
        assert np.array_equal(tile, image)
    assert len(np.unique(pixels("grid.png"))) > 20  # a picture, not one colour


@pytest.mark.parametrize(
    "described",
    [{"data": {"shape": [1, SIDE, SIDE], "logit": 1e-3}}, {"training": {"augment": {"logit": 1e-3}}}],
    ids=["now", "before data.logit"],
)
def test_samples_of_logits_go_back_to_the_range_of_the_data(
    draw: Sample, files: Path, described: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint.save(files / "logits", network(learnt=True), metadata={**METADATA, **described})
    arguments = ["--n", 4, "--seed", 3, "--digest", "--sample-offset", 7]
    assert draw(*arguments, "--trajectory", "strip.png", "--out", "one.png", net="logits") == 0
    assert draw(*arguments, "--shards", "folder", "--shard-size", 3, "--out", "two.png", net="logits") == 0
    loaded = checkpoint.load(files / "logits")
    settings: dict[str, Any] = {"epsilon": 2e-3, "steps_per_level": 3, "denoise": True, "impl": "reference"}

    def drawn(count: int, first: int) -> torch.Tensor:
        shape = (count, 1, SIDE, SIDE)
        return fl.annealed_langevin(loaded.net, loaded.sigmas, shape=shape, seed=3, sample_offset=first, **settings)

    # PyTorch's convolutions may round otherwise in a batch of another size: each shard is compared with its own batch.
    whole, parts = drawn(4, 7), torch.cat([drawn(3, 7), drawn(1, 10)])
    expected, in_shards = fl.data.expit(whole, 1e-3), fl.data.expit(parts, 1e-3)
    assert torch.equal(fl.shards.collect("folder"), in_shards)
    assert not torch.equal(parts, in_shards)
    found = re.findall("SHA-256 of the samples: (.*)", capsys.readouterr().out)
    assert found == [fl.shards.digest_of(expected), fl.shards.digest_of(in_shards)]
    strip = pixels("strip.png")
    for path, samples in (("one.png", expected), ("two.png", in_shards)):
        levels = samples.clamp(0, 1).mul(255).round().to(torch.uint8)[:, 0]
        for index, image in enumerate(levels.repeat_interleave(6, 1).repeat_interleave(6, 2).numpy()):
            assert np.array_equal(tiles(path, 2, 4)[index], image)
            if samples is expected:
                top = GAP + index * (TILE + GAP)
                assert np.array_equal(strip[top : top + TILE, -GAP - TILE : -GAP], image)
    # What was drawn before samples went back is not mixed with what is drawn now.
    assert draw(*arguments, "--shards", "folder", "--shard-size", 3, "--out", "two.png") == 2
    assert "logit was 0.001 and is now None" in capsys.readouterr().err


def test_sample_prints_rate_seed_and_implementation(draw: Sample, capsys: pytest.CaptureFixture[str]) -> None:
    assert draw("--n", 2, "--seed", 41) == 0
    printed = capsys.readouterr()
    assert re.search(r"^2 samples in [\d.]+ s \([\d.]+ samples/s\), seed 41, implementation reference", printed.out)
    assert "samples.png" in printed.out
    assert printed.err == ""
    with Image.open("samples.png") as image:
        assert image.text["seed"] == "41"
        assert image.text["implementation"] == "reference"


def test_the_seed_changes_the_picture_and_the_same_seed_repeats_it(draw: Sample) -> None:
    for name, seed in (("one", 1), ("again", 1), ("two", 2)):
        assert draw("--n", 2, "--seed", seed, "--out", name) == 0
    assert Path("one").read_bytes() == Path("again").read_bytes()
    assert not np.array_equal(pixels("one"), pixels("two"))


def test_the_picture_does_not_depend_on_the_implementation_of_the_update(draw: Sample, impl: str) -> None:
    assert draw("--n", 2, "--out", "reference.png") == 0
    assert draw("--n", 2, "--out", "other.png", "--impl", impl) == 0
    assert np.array_equal(pixels("reference.png"), pixels("other.png"))


def test_global_random_state_is_left_alone(draw: Sample) -> None:
    before = torch.get_rng_state()
    assert draw("--n", 1) == 0
    assert torch.equal(torch.get_rng_state(), before)


def test_a_sample_alone_is_that_sample_of_the_whole_run(draw: Sample) -> None:
    assert draw("--n", 4, "--out", "all.png", net="gaussian") == 0
    every = tiles("all.png", 2, 4)
    for index in (0, 2, 3):
        assert draw("--n", 1, "--sample-offset", index, "--out", "one.png", net="gaussian") == 0
        assert np.array_equal(tiles("one.png", 1, 1)[0], every[index])
    assert not np.array_equal(every[0], every[2])


def test_options_replace_the_advice_of_the_checkpoint(draw: Sample) -> None:
    assert draw("--n", 1, "--out", "advice.png") == 0
    assert draw("--n", 1, "--epsilon", 2e-3, "--steps-per-level", 3, "--out", "same.png") == 0
    assert np.array_equal(pixels("advice.png"), pixels("same.png"))
    for option, value in (("--epsilon", 1e-3), ("--steps-per-level", 4), ("--corrector", "ou")):
        assert draw("--n", 1, option, value, "--out", "other.png") == 0
        assert not np.array_equal(pixels("advice.png"), pixels("other.png")), option


def test_trajectory_is_a_strip_that_ends_with_the_samples(draw: Sample, capsys: pytest.CaptureFixture[str]) -> None:
    assert draw("--n", 3, "--trajectory", "--out", "grid.png") == 0
    only("grid.png", "trajectory.png")
    assert "trajectory.png" in capsys.readouterr().out
    frames = 8  # before the first of 2 * 3 updates, after each, and the denoised samples
    assert pixels("trajectory.png").shape == (3 * (TILE + GAP) + GAP, frames * (TILE + GAP) + GAP)
    strip = tiles("trajectory.png", frames, 3 * frames)
    for index, tile in enumerate(tiles("grid.png", 2, 3)):
        assert np.array_equal(strip[index * frames + frames - 1], tile)
        assert not np.array_equal(strip[index * frames], tile)


def test_a_long_trajectory_is_thinned(draw: Sample) -> None:
    assert draw("--n", 9, "--steps-per-level", 60, "--trajectory", "strip.png") == 0
    assert pixels("strip.png").shape == (8 * (TILE + GAP) + GAP, 11 * (TILE + GAP) + GAP)


def test_an_older_picture_is_replaced(draw: Sample) -> None:
    Path("samples.png").write_text("older")
    assert draw("--n", 1) == 0
    assert pixels("samples.png").shape == (TILE + 2 * GAP, TILE + 2 * GAP)


def test_the_progress_bar_counts_updates(draw: Sample, files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sample", "--checkpoint", str(files / "net"), "--n", "1", "--device", "cpu"]) == 0
    assert re.search(r"sampling:.*6/6", capsys.readouterr().err)


# Stopping and going on.


def stop_after(monkeypatch: pytest.MonkeyPatch, step: int, number: int = signal.SIGINT) -> None:
    """Sends this process a signal after an update, as the user's would come."""
    whole = sample.annealed_langevin

    def interrupted(*arguments: Any, callback: Callable[[fl.StepInfo], bool], **options: Any) -> Any:
        def after(info: fl.StepInfo) -> bool:
            if info.step == step:
                signal.raise_signal(number)
            return callback(info)

        return whole(*arguments, callback=after, **options)

    monkeypatch.setattr(sample, "annealed_langevin", interrupted)


@pytest.mark.parametrize("trajectory", [False, True], ids=["samples", "trajectory"])
@pytest.mark.parametrize("step", [1, 3, 5])
def test_a_stopped_run_goes_on_to_the_same_files(
    draw: Sample, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], step: int, trajectory: bool
) -> None:
    extra = ["--trajectory", "whole.strip"] if trajectory else []
    assert draw("--n", 2, "--seed", 5, "--out", "whole.png", *extra) == 0
    extra = ["--trajectory", "parts.strip"] if trajectory else []
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with monkeypatch.context() as patch:
        stop_after(patch, step)
        assert draw("--n", 2, "--seed", 5, "--out", "parts.png", *extra) == 130
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert f"stopped after {step} of 6 updates; go on with --resume" in capsys.readouterr().out
    assert stopped_chain.load("parts.png.chain").step == step
    assert not Path("parts.png").exists()
    assert draw("--n", 2, "--seed", 5, "--out", "parts.png", *extra, "--resume") == 0
    assert Path("parts.png").read_bytes() == Path("whole.png").read_bytes()
    if trajectory:
        assert Path("parts.strip").read_bytes() == Path("whole.strip").read_bytes()
    assert not Path("parts.png.chain").exists()


def test_a_run_can_be_stopped_twice(draw: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    assert draw("--n", 2, "--out", "whole.png") == 0
    with monkeypatch.context() as patch:
        stop_after(patch, 2)
        assert draw("--n", 2, "--out", "parts.png") == 130
    with monkeypatch.context() as patch:
        stop_after(patch, 4, signal.SIGTERM)
        assert draw("--n", 2, "--out", "parts.png", "--resume") == 143
    assert draw("--n", 2, "--out", "parts.png", "--resume") == 0
    assert Path("parts.png").read_bytes() == Path("whole.png").read_bytes()


def test_a_signal_at_the_last_update_loses_nothing(draw: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    assert draw("--n", 2, "--out", "whole.png") == 0
    stop_after(monkeypatch, 6)
    assert draw("--n", 2, "--out", "late.png") == 0
    only("whole.png", "late.png")
    assert Path("late.png").read_bytes() == Path("whole.png").read_bytes()


def test_a_long_run_saves_itself_now_and_then(draw: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample, "SAVE_EVERY_SECONDS", -1.0)
    assert draw("--n", 2, "--out", "whole.png") == 0

    def broken(*_: object) -> None:
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(sample, "_write", broken)
        assert draw("--n", 2, "--out", "killed.png") == 2
    only("whole.png", "killed.png.chain")
    assert draw("--n", 2, "--out", "killed.png", "--resume") == 0
    assert Path("killed.png").read_bytes() == Path("whole.png").read_bytes()


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        (["--n", 3], ["--n 2", "not 3"]),
        (["--seed", 6], ["--seed 5", "not 6"]),
        (["--steps-per-level", 4], ["steps_per_level was 3", "4"]),
        (["--epsilon", 1e-3], ["epsilon was 0.002", "0.001"]),
        (["--corrector", "ou"], ["corrector was 'langevin'", "'ou'"]),
        (["--sample-offset", 2], ["--sample-offset 0", "not 2"]),
        (["--trajectory", "strip.png"], ["trajectory"]),
        (["--checkpoint", "other"], ["another network", "--checkpoint"]),
    ],
    ids=lambda value: str(value[0]).lstrip("-") if isinstance(value, list) else None,
)
def test_resume_refuses_what_was_begun_otherwise(
    draw: Sample,
    files: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    changed: list[object],
    says: list[str],
) -> None:
    begun = ["--n", 2, "--seed", 5, "--out", "x.png"]
    with monkeypatch.context() as patch:
        stop_after(patch, 4)
        assert draw(*begun) == 130
    state = Path("x.png.chain").read_bytes()
    capsys.readouterr()
    if changed[0] == "--checkpoint":
        changed = ["--checkpoint", files / str(changed[1])]
    assert draw(*begun, *changed, "--resume") == 2
    refusal(capsys, *says)
    only("x.png.chain")
    assert Path("x.png.chain").read_bytes() == state


def test_resume_without_a_stopped_run_is_refused(draw: Sample, capsys: pytest.CaptureFixture[str]) -> None:
    assert draw("--n", 2, "--resume") == 2
    refusal(capsys, "samples.png.chain", "start without --resume")
    only()


def test_resume_of_a_damaged_state_is_refused(
    draw: Sample, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        stop_after(patch, 4)
        assert draw("--n", 2) == 130
    capsys.readouterr()
    content = Path("samples.png.chain").read_bytes()
    Path("samples.png.chain").write_bytes(content[:-7])
    assert draw("--n", 2, "--resume") == 2
    refusal(capsys, "samples.png.chain", "damaged", "start again")
    only("samples.png.chain")


# The real thing: processes and signals.


def environment(**changes: str) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    here = str(Path(fl.__file__).parents[1])
    # As many threads as here: how a network sums its terms can depend on them.
    return {**kept, "PYTHONPATH": here, "OMP_NUM_THREADS": str(torch.get_num_threads()), **changes}


@pytest.mark.long
def test_a_signal_stops_the_process_and_resume_finishes_its_run(draw: Sample, files: Path, tmp_path: Path) -> None:
    signals = {signal.SIGINT: 130, signal.SIGTERM: 143}
    options = ["--n", "2", "--steps-per-level", "120", "--seed", "9"]
    fixed = ["sample", "--checkpoint", str(files / "net"), "--device", "cpu", "--impl", "reference", *options]
    running = {}
    for number in signals:
        log = tmp_path / f"{number}.log"
        with log.open("wb") as file:
            command = [sys.executable, "-c", SLOW, *fixed, "--out", f"{number}.png", "--trajectory", f"{number}.strip"]
            running[number] = subprocess.Popen(command, env=environment(), cwd=tmp_path, stderr=file, stdout=file)
    try:
        for number, process in running.items():
            wait_for_text(tmp_path / f"{number}.log", "step/s", process)  # the bar moves: the chain is under way
            process.send_signal(number)
        codes = {number: process.wait(HUNG) for number, process in running.items()}
    finally:
        for process in running.values():
            process.kill()
    assert codes == signals, [(tmp_path / f"{number}.log").read_text() for number in signals]
    assert draw(*options, "--out", "whole.png", "--trajectory", "whole.strip") == 0
    for number in signals:
        assert not Path(f"{number}.png").exists()
        assert not Path(f"{number}.strip").exists()
        assert "Traceback" not in Path(f"{number}.log").read_text()
        assert 0 < stopped_chain.load(f"{number}.png.chain").step < 240
        assert draw(*options, "--out", f"{number}.png", "--trajectory", f"{number}.strip", "--resume") == 0
        assert Path(f"{number}.png").read_bytes() == Path("whole.png").read_bytes()
        assert Path(f"{number}.strip").read_bytes() == Path("whole.strip").read_bytes()


@pytest.mark.long
def test_python_m_fastlangevin_is_the_command(files: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "fastlangevin", "sample", "--checkpoint", str(files / "net"), "--quiet"]
    command += ["--device", "cpu", "--n", "2", "--impl", "reference"]
    runs = [
        subprocess.Popen([*command, *extra], env=environment(), cwd=tmp_path, stdout=-1, stderr=-1, text=True)
        for extra in ([], ["--out", "missing/folder.png"])
    ]
    (out, err), (refused_out, refused_err) = (process.communicate(timeout=HUNG) for process in runs)
    assert [process.returncode for process in runs] == [0, 2], (err, refused_err)
    assert "samples/s" in out
    assert err == ""
    assert pixels(tmp_path / "samples.png").ndim == 2
    assert refused_out == ""
    assert re.fullmatch(r"fastlangevin sample: error: .*missing.*\n", refused_err)


# Refusals.


def refusal(capsys: pytest.CaptureFixture[str], *says: str) -> None:
    """One line on stderr that says what is wrong, and nothing on stdout."""
    printed = capsys.readouterr()
    assert printed.out == ""
    assert re.fullmatch(r"fastlangevin \w+: error: [^\n]+\n", printed.err), printed.err
    missing = [part for part in says if part not in printed.err]
    assert not missing, f"{missing} not in: {printed.err}"


@pytest.mark.parametrize(
    ("net", "arguments", "says"),
    [
        ("none", [], ["cannot read", "none", "No such file"]),
        (".", [], ["cannot read", "directory"]),
        ("damaged", [], ["damaged", "SHA-256"]),
        ("text", [], ["text is not a checkpoint", "pickled .pth files are never read"]),
        ("silent", [], ["shape", "metadata['data']['shape']"]),
        ("no_advice", [], ["no epsilon", "--epsilon"]),
        ("no_advice", ["--epsilon", 1e-3], ["no steps_per_level", "--steps-per-level"]),
        ("flat", [], ["(2,)", "not pictures", "annealed_langevin"]),
        ("net", ["--n", 0], ["--n must be at least 1", "got 0"]),
        ("net", ["--n", -3], ["--n must be at least 1", "got -3"]),
        ("net", ["--batch", 2], ["--batch is of runs in a folder of shards", "add --shards"]),
        ("net", ["--shard-size", 2], ["--shard-size", "add --shards"]),
        ("net", ["--remake-damaged"], ["--remake-damaged", "add --shards"]),
        ("net", ["--seed", -1], ["seed", "-1"]),
        ("net", ["--seed", 2**64], ["seed", str(2**64)]),
        ("net", ["--sample-offset", -1], ["sample_offset", "-1"]),
        ("net", ["--epsilon", "nan"], ["epsilon", "finite", "nan"]),
        ("net", ["--epsilon", 0], ["epsilon", "above zero"]),
        ("net", ["--epsilon", 1, "--corrector", "ou"], ["corrector='ou'", "smaller"]),
        ("net", ["--steps-per-level", 0], ["steps_per_level", "from 1", "got 0"]),
        ("net", ["--steps-per-level", -2], ["steps_per_level", "-2"]),
        ("net", ["--device", "toaster"], ["--device toaster", "--device cpu"]),
        ("net", ["--out", "missing/x.png"], ["cannot write missing/x.png", "does not exist", "create it"]),
        ("net", ["--trajectory", "missing/x.png"], ["cannot write missing/x.png", "does not exist"]),
        ("net", ["--out", "."], ["cannot write", "is a folder", "samples.png"]),
        ("net", ["--out", "/dev/full"], ["cannot write /dev/full", "not a file"]),
        ("net", ["--out", "/proc/x.png"], ["cannot write /proc/x.png"]),
        ("net", ["--out", "file/x.png"], ["cannot write file/x.png"]),
        ("net", ["--out", "x.png", "--trajectory", "x.png"], ["--out and --trajectory", "x.png"]),
        pytest.param(
            "net",
            ["--device", "cuda"],
            ["--device cuda", "--device cpu"],
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device"),
        ),
    ],
)
def test_a_bad_call_is_one_line_on_stderr_and_writes_nothing(
    draw: Sample,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    net: str,
    arguments: list[object],
    says: list[str],
) -> None:
    Path("file").write_text("no folder")

    def never(*_: object, **options: Any) -> None:
        """The samplers check their own arguments; a file that cannot be written must be found before them."""
        raise AssertionError(f"the sampling was begun: {options}")

    if any("write" in part or "both" in part for part in says):
        monkeypatch.setattr(sample, "annealed_langevin", never)
    assert draw(*arguments, net=net) == 2
    refusal(capsys, *says)
    only("file")


def test_a_picture_that_cannot_be_finished_is_not_left_half_written(
    draw: Sample, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("samples.png").write_bytes(b"older")

    def full(self: Image.Image, file: Any, **_: object) -> None:
        file.write(b"\x89PNG")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    assert draw("--n", 1) == 2
    refusal(capsys, "No space left on device")
    only("samples.png")
    assert Path("samples.png").read_bytes() == b"older"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "command"),
        (["draw"], "draw"),
        (["sample", "--n", "many"], "--n"),
        (["sample", "--seed", "1.5"], "--seed"),
        (["sample", "--corrector", "mala"], "--corrector"),
        (["sample", "--impl", "gpu"], "--impl"),
        (["sample", "--nonsense"], "--nonsense"),
        (["train", "--objective", "esm"], "--objective"),
    ],
    ids=lambda value: "-".join(value) or "nothing" if isinstance(value, list) else None,
)
def test_an_unknown_option_or_value_is_refused_with_the_usage(
    draw: Sample, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    printed = capsys.readouterr().err
    assert printed.startswith("usage: fastlangevin")
    assert says in printed.splitlines()[-1]
    only()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--out", "missing/x"], ["cannot write missing/x"]),
        (["--out", "."], ["cannot write"]),
        (["--steps", "0"], ["steps", "0"]),
        (["--batch", "0"], ["batch", "0"]),
        (["--lr", "nan"], ["lr", "nan"]),
        (["--ema", "1"], ["ema", "1"]),
        (["--seed", "-1"], ["seed", "-1"]),
        (["--threads", "0"], ["--threads", "0"]),
        (["--fallback"], ["--fallback", "add --resume"]),
        (["--data", "mnist"], ["torchvision", "pip install torchvision"]),
        (["--data", "missing"], ["'missing'", "folder of images"]),
    ],
    ids=lambda value: value[0].strip("-") if len(value) == 2 and value[0].startswith("--") else None,
)
def test_a_bad_training_call_is_refused_before_the_training(
    draw: Sample, capsys: pytest.CaptureFixture[str], arguments: list[str], says: list[str]
) -> None:
    threads = torch.get_num_threads()
    assert main(["train", *arguments]) == 2
    refusal(capsys, *says)
    only()
    assert torch.get_num_threads() == threads


def test_training_without_scikit_learn_says_what_to_install(
    draw: Sample, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [each for each in sys.modules if each.partition(".")[0] == "sklearn"] + ["sklearn", "sklearn.datasets"]:
        monkeypatch.setitem(sys.modules, name, None)
    assert main(["train", "--steps", "1", "--quiet"]) == 2
    refusal(capsys, "scikit-learn", "pip install")
    only()
