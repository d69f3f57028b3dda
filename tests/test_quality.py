"""What the shipped network's samples look like to a classifier that has seen real digits only.

Three figures for 1,000 samples, each with twins that must miss it: the share that a classifier is sure about, the share
of each class, and the share that lies closer to a training image than nearly all real images lie to each other.
"""

import math
from importlib.resources import as_file, files
from typing import NamedTuple

import pytest
import torch

import fastlangevin as fl
from fastlangevin import data
from fastlangevin.models import ConvScore
from fastlangevin.noise import Purpose
from fastlangevin.storage import checkpoint

pytest.importorskip("sklearn")
pytestmark = pytest.mark.long

SURE = 0.9
COUNT = 1000
TWIN = 100


class Judge:
    """Ten support vector classifiers with calibrated probabilities, and distances to the training images.

    Each classifier is asked alone whether an image is its digit, and the probabilities are not made to sum to one:
    what looks like no digit at all gets a small probability from all ten.
    """

    def __init__(self):
        from sklearn.calibration import CalibratedClassifierCV
        from sklearn.multiclass import OneVsRestClassifier
        from sklearn.svm import SVC

        self.training, self.heldout = data.digits("train"), data.digits("heldout")
        one = CalibratedClassifierCV(SVC(C=10, gamma="scale"), ensemble=False)
        self.classifiers = (
            OneVsRestClassifier(one)
            .fit(self.flat(self.training.images).numpy(), self.training.classes.numpy())
            .estimators_
        )
        self.accuracy = (self.classes(self.heldout.images) == self.heldout.classes).double().mean().item()
        self.sure_of_real = self.sure(self.heldout.images)
        images = self.flat(data.digits("all").images)
        self.near = torch.cdist(images, images).fill_diagonal_(math.inf).amin(1).quantile(0.01).item()

    @staticmethod
    def flat(images):
        return images.flatten(1).double()

    @staticmethod
    def quantised(samples):
        """Dequantised values back to the grey levels of the data."""
        return (samples * 17).floor().clamp(0, 16) / 16

    def probabilities(self, images):
        """``(N, 10)``: how probable each classifier finds its digit."""
        pixels = self.flat(images).numpy()
        return torch.stack([torch.as_tensor(each.predict_proba(pixels)[:, 1]) for each in self.classifiers], dim=1)

    def classes(self, images):
        return self.probabilities(images).argmax(1)

    def sure(self, images):
        """Share of the images that have a class of probability 0.9 or more."""
        return (self.probabilities(images).amax(1) >= SURE).double().mean().item()

    def rarest(self, images):
        """Share of the class that is found least often."""
        return torch.bincount(self.classes(images), minlength=10).min().item() / len(images)

    def copies(self, images):
        """Share of the images closer to a training image than the first percentile of real neighbours."""
        nearest = torch.cdist(self.flat(images), self.flat(self.training.images)).amin(1)
        return (nearest < self.near).double().mean().item()


@pytest.fixture(scope="module")
def judge():
    return Judge()


@pytest.fixture(scope="module")
def shipped():
    with as_file(files("fastlangevin") / "assets" / "digits.safetensors") as path:
        assert path.stat().st_size <= 2_000_000
        return checkpoint.load(path)


class Settings(NamedTuple):
    epsilon: float
    steps_per_level: int
    init: str


@pytest.fixture(scope="module")
def settings(shipped):
    return Settings(*(shipped.metadata["sampling"][name] for name in Settings._fields))


@pytest.fixture(scope="module")
def samples(shipped, settings, judge):
    drawn = fl.annealed_langevin(
        shipped.net, shipped.sigmas, shape=(COUNT, 1, 8, 8), denoise=True, seed=0, **settings._asdict()
    )
    return judge.quantised(drawn)


def with_noise(shipped, settings, factor):
    """Annealed Langevin dynamics whose noise is wrong by a factor."""
    shape, sigmas = (TWIN, 1, 8, 8), shipped.sigmas
    x, draw = fl.rand(shape, seed=0, purpose=Purpose.INITIAL_STATE), 0
    with torch.no_grad():
        for level, sigma in enumerate(sigmas):
            alpha = settings.epsilon * (sigma / sigmas[-1]) ** 2
            labels = torch.full((TWIN,), level)
            for _ in range(settings.steps_per_level):
                z = fl.randn(shape, seed=0, draw=draw, purpose=Purpose.LANGEVIN)
                x = x + alpha / 2 * shipped.net(x, labels) + factor * alpha.sqrt() * z
                draw += 1
        return x + sigmas[-1] ** 2 * shipped.net(x, labels)


def test_the_judge_knows_real_digits(judge):
    assert judge.accuracy >= 0.97
    assert judge.rarest(judge.heldout.images) >= 0.05
    assert judge.copies(judge.heldout.images) <= 0.03


def test_samples_are_finite_and_in_range(samples):
    assert samples.isfinite().all()
    assert samples.unique().numel() == 17


def test_the_classifier_is_sure_of_the_samples(judge, samples):
    assert judge.sure(samples) >= 0.9 * judge.sure_of_real


def test_every_class_is_drawn(judge, samples):
    assert judge.rarest(samples) >= 0.05


def test_samples_are_not_copies(judge, samples):
    assert judge.copies(samples) <= 0.03


def test_pure_noise_is_not_taken_for_digits(judge):
    for noise in (torch.rand, torch.randn):
        torch.manual_seed(0)
        assert judge.sure(judge.quantised(noise(COUNT, 1, 8, 8))) < 0.1 * judge.sure_of_real


def test_shuffled_pixels_are_not_taken_for_digits(judge, samples):
    shuffled = samples.flatten(1)[:, torch.randperm(64, generator=torch.Generator().manual_seed(0))].view_as(samples)
    assert judge.sure(shuffled) < 0.1 * judge.sure_of_real


def test_copies_are_caught(judge, samples):
    mixed = samples.clone()
    mixed[: COUNT // 20] = judge.training.images[: COUNT // 20]
    assert judge.copies(judge.training.images) == 1.0
    assert judge.copies(mixed) > 0.03, "one copy in twenty samples must be caught"


def test_a_missing_class_is_caught(judge, samples):
    assert judge.rarest(samples[judge.classes(samples) != 3]) < 0.05


def test_an_untrained_network_is_caught(judge, shipped, settings):
    net = ConvScore(shipped.sigmas, shipped.net.config)
    drawn = fl.annealed_langevin(
        net, shipped.sigmas, shape=(TWIN, 1, 8, 8), denoise=True, seed=0, **{**settings._asdict(), "steps_per_level": 5}
    )
    assert judge.sure(judge.quantised(drawn)) < 0.9 * judge.sure_of_real


@pytest.mark.parametrize("factor", [0.0, 2.0], ids=["no noise", "twice the noise"])
def test_wrong_noise_is_caught(judge, shipped, settings, factor):
    images = judge.quantised(with_noise(shipped, settings, factor))
    figures = judge.sure(images) / judge.sure_of_real, judge.rarest(images), judge.copies(images)
    assert figures[0] < 0.9 or figures[1] < 0.05 or figures[2] > 0.03, figures
