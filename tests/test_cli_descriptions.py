"""What the command line refuses of descriptions in checkpoints, and of the variables that torchrun sets."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fastlangevin.cli import main
from fastlangevin.models import ConvConfig, ConvScore
from fastlangevin.storage import checkpoint

SIDE = 8
METADATA = {
    "data": {"shape": [1, SIDE, SIDE]},
    "sampling": {"epsilon": 2e-3, "steps_per_level": 3, "init": "uniform"},
}

pytestmark = pytest.mark.usefixtures("one_thread")

Sample = Callable[..., int]


def network() -> ConvScore:
    return ConvScore([1.0, 0.1], ConvConfig(widths=(4,), blocks=1))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("networks")
    checkpoint.save(folder / "net", network(), metadata=METADATA)
    return folder


@pytest.fixture
def draw(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sample:
    """Runs ``fastlangevin sample`` in an empty folder of its own."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object, net: str = "net") -> int:
        fixed = ["sample", "--checkpoint", files / net, "--device", "cpu", "--impl", "reference", "--quiet"]
        return main([str(each) for each in [*fixed, *arguments]])

    return run


def refusal(capsys: pytest.CaptureFixture[str], *says: str) -> None:
    """One line on stderr that says what is wrong, nothing on stdout, and nothing written."""
    printed = capsys.readouterr()
    assert printed.out == ""
    assert re.fullmatch(r"fastlangevin \w+: error: [^\n]+\n", printed.err), printed.err
    missing = [part for part in says if part not in printed.err]
    assert not missing, f"{missing} not in: {printed.err}"
    assert os.listdir() == []


MEND = "write the checkpoint again"


@pytest.mark.parametrize(
    ("metadata", "says"),
    [
        ({"data": [1, 8, 8]}, ["metadata['data']", "a dictionary", "[1, 8, 8] (list)", MEND]),
        ({"data": {"shape": 8}}, ["metadata['data']['shape']", "positive integers", "8 (int)", MEND]),
        ({"data": {"shape": [1, "8", 8]}}, ["metadata['data']['shape']", "'8'", MEND]),
        ({"data": {"shape": [1, 0, 8]}}, ["metadata['data']['shape']", "[1, 0, 8]", MEND]),
        ({"data": {"shape": [1, 8, 8], "logit": "x"}}, ["logit", "number", "'x'", MEND]),
        ({"data": {"shape": [1, 8, 8], "logit": 5}}, ["logit", "5", MEND]),
        ({"sampling": "slowly"}, ["metadata['sampling']", "a dictionary", "'slowly' (str)", MEND]),
        ({"sampling": {"epsilon": "x", "steps_per_level": 1}}, ["['epsilon']", "above zero", "'x'", "--epsilon"]),
        ({"sampling": {"epsilon": -1.0, "steps_per_level": 1}}, ["['epsilon']", "above zero", "-1.0", "--epsilon"]),
        ({"sampling": {"epsilon": 1, "steps_per_level": 1.5}}, ["an integer above", "1.5", "--steps-per-level"]),
        ({"sampling": {"epsilon": 1, "steps_per_level": True}}, ["an integer above", "True", "--steps-per-level"]),
        ({"sampling": {**METADATA["sampling"], "init": [0]}}, ["['init']", "'uniform' or 'normal'", "[0]", MEND]),
    ],
)
def test_a_description_that_makes_no_sense_is_refused(
    draw: Sample, files: Path, capsys: pytest.CaptureFixture[str], metadata: dict[str, Any], says: list[str]
) -> None:
    checkpoint.save(files / "senseless", network(), metadata={**METADATA, **metadata})
    assert draw(net="senseless") == 2
    refusal(capsys, "of the checkpoint must be" if "logit" not in says else "the checkpoint does not say", *says)


def test_options_take_the_place_of_advice_that_makes_no_sense(draw: Sample, files: Path) -> None:
    advice = {"epsilon": "x", "steps_per_level": "y"}
    checkpoint.save(files / "senseless", network(), metadata={**METADATA, "sampling": advice})
    assert draw("--epsilon", 1e-3, "--steps-per-level", 1, "--n", 1, net="senseless") == 0


@pytest.mark.parametrize("name", ["RANK", "WORLD_SIZE", "LOCAL_RANK"])
def test_what_torchrun_sets_is_checked_before_the_training(
    draw: Sample, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    monkeypatch.setenv(name, "x")
    assert main(["train", "--steps", "1", "--quiet", "--device", "cpu"]) == 2
    refusal(capsys, f"the environment variable {name} must be an integer from", "got 'x'", "unset it")


def test_a_rank_that_is_no_number_is_refused(
    draw: Sample, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RANK", "x")
    assert draw() == 2
    refusal(capsys, "the environment variable RANK must be an integer from 0 to 0", "got 'x'", "torchrun")
