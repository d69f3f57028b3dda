"""Messages of the library in the words of the command line."""

import pytest

from fastlangevin.cli import parser
from fastlangevin.cli.wording import with_options


def names(command):
    required = {"convert": ["in.pth", "out"], "plan": ["--budget", "1"]}
    return parser().parse_args([command, *required.get(command, [])]).names


MESSAGES = [
    ("convert", "give sigmas=, as geometric_sigmas(1.0, 0.01, 3) makes them", "--sigmas"),
    ("convert", "ema=False takes the weights of the last step", "--no-ema"),
    ("convert", "it fails: sigmas differ; leave them out", "--sigmas"),
    ("convert", "Leave network, config and sigmas out, or give sigmas=, or levels=3", "--sigmas"),
    ("plan", "give budget=11 or more, or levels=9, which", "--budget, --levels"),
    ("plan", "give sigma_1= and shape=, such as shape=(3, 32, 32)", "--sigma-1, --shape"),
    ("plan", "sigma_1 must be larger than sigma_L, got 1", "--sigma-1, --sigma-L"),
    ("plan", "levels must be an integer", "--levels"),
    ("train", "weight_decay must be zero or more", "--weight-decay"),
    ("train", "compile=True cannot; leave compile out", "--compile"),
    ("train", "anneal_power must be 2 with objective='ssm', got 1", "--anneal-power, --objective"),
    ("train", "data must be digits or a folder", "--data"),
    ("sample", "steps_per_level must be positive", "--steps-per-level"),
    ("sample", "PyTorch finds no CUDA device here; use device='cpu'", "--device"),
]


@pytest.mark.parametrize(("command", "message", "options"), MESSAGES)
def test_the_options_of_keywords_are_named(command, message, options):
    said = with_options(message, names(command))
    assert said == f"{message} (on the command line: {options})"
    assert with_options(said, names(command)) == said


@pytest.mark.parametrize(
    "message",
    [
        "cannot read runs/steps_per_level.pth; check the path and its rights",
        "the data of this seed differ from those of the run in every batch and size",
        "a == b, NCSNv2Config(channels=1, width=8, rescale=True) and geometric_sigmas(1.0, 0.01, 3)",
        "it was trained with other steps; another folder, or delete it",
        "download=True (--download) fetches it; --channels must be 1 or 3, as channels=1",
    ],
)
def test_other_words_stay(message):
    for command in ("convert", "train", "sample", "plan"):
        assert with_options(message, names(command)) == message
