"""Complex tensors and numbers are refused, and no message advises a cast that would drop the imaginary part unsaid."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from well_formed_calls import CALLS, numbers

import fastlangevin as fl
from fastlangevin import models, rules
from fastlangevin.data import as_source
from fastlangevin.data.augment import dequantise

pytestmark = pytest.mark.usefixtures("one_thread")

CASTS = re.compile(r"\.to\(torch\.float|\.to\(x\.dtype\)|\.float\(\)|\.real\b|\.double\(\)|\.long\(\)")


def floats(name: str, folder: Path) -> list[str]:
    arguments = CALLS[name][1](folder)
    return [key for key, value in arguments.items() if isinstance(value, Tensor) and value.is_floating_point()]


def unsaid(message: str) -> list[str]:
    """The casts that a message advises without a word on what they drop."""
    return [] if "drop the imaginary part" in message else CASTS.findall(message)


# What holds for any tensor: it is written, or compared, as it is.
ANY_DTYPE = {"container.write", "Generations.save", "chains.save", "fuse"}


@pytest.mark.parametrize("name", sorted(CALLS.keys() - ANY_DTYPE))
def test_complex_tensors_are_refused_without_bad_advice(name: str, tmp_path: Path) -> None:
    function, make = CALLS[name]
    (tmp_path / "made").mkdir()
    for each in floats(name, tmp_path / "made"):
        folder = tmp_path / each
        folder.mkdir()
        arguments = make(folder)
        arguments[each] = arguments[each] * (1 + 0.5j)
        with pytest.raises((TypeError, ValueError)) as caught:
            function(**arguments)
        assert not unsaid(str(caught.value)), str(caught.value)


X = numbers(2, 2)
COMPLEX = torch.complex(X, X)
SCORE = lambda x, labels: torch.complex(x, x)  # noqa: E731
LADDER = [1.0, 0.5]
TENSORS: dict[str, Any] = {
    "a state": lambda: fl.step(COMPLEX, X, a=0.1, b=0.1, seed=0),
    "its score": lambda: fl.step(X, COMPLEX, a=0.1, b=0.1, seed=0),
    "an initial state": lambda: fl.annealed_langevin(lambda x, labels: -x, LADDER, init=COMPLEX, epsilon=0.1, seed=0),
    "a sampler's score": lambda: fl.annealed_langevin(SCORE, LADDER, init=X, epsilon=0.1, seed=0),
    "a loss's score": lambda: fl.dsm_loss(SCORE, X, LADDER, seed=0),
    "data": lambda: fl.dsm_loss(SCORE, COMPLEX, LADDER, seed=0),
    "a perceptron's input": lambda: models.MLP(LADDER)(COMPLEX, torch.tensor([0, 1])),
    "training data": lambda: as_source(COMPLEX),
    "images": lambda: dequantise(COMPLEX, seed=0, greys=2),
    "a trajectory": lambda: fl.diagnostics.ess(torch.complex(numbers(8, 2), numbers(8, 2))),
}


@pytest.mark.parametrize("name", TENSORS)
def test_the_advice_keeps_the_imaginary_part(name: str) -> None:
    with pytest.raises(TypeError, match=r"complex64; pass real and imaginary parts .*view_as_real.* would drop"):
        TENSORS[name]()


ONE = np.complex64(1 + 2j)
NUMBERS: dict[str, Any] = {
    "epsilon": lambda value: rules.step_size(value, None),
    "a": lambda value: fl.step(X, X, a=value, b=0.1, seed=0),
    "sigmas[0]": lambda value: fl.annealed_langevin(SCORE, [value, 0.5], init=X, epsilon=0.1),
    "clamp": lambda value: fl.annealed_langevin(SCORE, LADDER, init=X, epsilon=0.1, clamp=(0.0, value)),
    "temperature": lambda value: fl.annealed_langevin(SCORE, LADDER, init=X, epsilon=0.1, temperature=value),
    "means": lambda value: fl.GaussianMixture([1.0], [[0.0, value]], 1.0),
    "variances": lambda value: fl.GaussianMixture([1.0], [[0.0, 0.0]], value),
    "sigma": lambda value: fl.GaussianMixture([1.0], [[0.0, 0.0]], 1.0).score(X, value),
    "weights": lambda value: fl.dsm_loss(lambda x, labels: -x, X, LADDER, seed=0, weights=[value, 1.0]),
}
KINDS = {"NumPy's": ONE, "NumPy's double": np.complex128(ONE), "Python's": 1 + 2j, "PyTorch's": torch.tensor(1 + 2j)}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NUMBERS)
def test_complex_numbers_are_refused(name: str, kind: str) -> None:
    with pytest.raises((TypeError, ValueError), match=re.escape(name)) as caught:
        NUMBERS[name](KINDS[kind])
    assert not unsaid(str(caught.value))


@pytest.mark.parametrize("where", ["array", "tensor"])
def test_complex_weights_and_means_are_refused(where: str) -> None:
    values: Any = np.array([[1 + 1j, 0]]) if where == "array" else torch.tensor([[1 + 1j, 0]])
    with pytest.raises(TypeError, match="means must be"):
        fl.GaussianMixture([1.0], values, 1.0)
    with pytest.raises(TypeError, match="weights must be"):
        fl.dsm_loss(lambda x, labels: -x, X, LADDER, seed=0, weights=values[0])
    with pytest.raises(TypeError, match="weights must be"):
        fl.GaussianMixture(values[0], [[0.0], [1.0]], 1.0)


def test_a_cast_is_found_in_a_message() -> None:
    assert unsaid("x must be float32, got complex64; convert it with .to(torch.float32)")
    assert unsaid("mask must be bool, got complex64; use mask.real")
    assert not unsaid("got complex64; .real would drop the imaginary part")
