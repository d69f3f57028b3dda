"""What an integer and a number are, for every public function, and what errors show of values that are neither."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from well_formed_calls import CALLS

from fastlangevin.noise import integer, resolve_sample_ids
from fastlangevin.values import is_complex, is_integer, is_number, real, shown

HUGE = 10**5000  # Python refuses to write it: it has more than 4,300 digits
NEVER: dict[str, Any] = {
    "bool": True,
    "bool of NumPy": np.True_,
    "array of a bool": np.array(True),
    "tensor of a bool": torch.tensor(True),
    "complex": 1j,
    "complex of NumPy": np.complex64(1),
    "huge": HUGE,
    "huge and negative": -HUGE,
    "two numbers": np.array([1, 2]),
    "text": "1",
    "a list of a huge one": [HUGE],
    "an object": object(),
}
NOT_INTEGERS: dict[str, Any] = {
    "float": 1.0,
    "float of NumPy": np.float64(1.0),
    "array of a float": np.array(1.0),
    "tensor of a float": torch.tensor(1.0),
    "array of one integer": np.array([1]),
}
# Arguments that take more than their names say, or that some calls do not look at.
APART = {
    ("ism_loss", "seed"),  # the exact trace draws nothing
    ("ism_loss", "step"),
    ("ism_loss", "sample_offset"),
    ("open_source", "channels"),
    ("Generations", "keep"),  # any number of files
    ("GaussianMixture", "variances"),  # also a list
}
# Arguments that also take one number for each noise level, and the well-formed calls have two.
OF_LEVELS = {("annealed_langevin", name) for name in ("epsilon", "steps_per_level", "temperature")}


def numbers_of(name: str) -> list[tuple[str, bool]]:
    """The arguments of a well-formed call that are one integer, or one number; whether it is an integer."""
    function, _ = CALLS[name]
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return []
    found = []
    for parameter in parameters.values():
        kinds = {part.strip() for part in str(parameter.annotation).split("|")}
        if kinds & {"int", "float", "Seed", "Coefficient"} and (name, parameter.name) not in APART:
            found.append((parameter.name, not kinds & {"float", "Coefficient"}))
    return found


ARGUMENTS = [(name, argument, whole) for name in CALLS for argument, whole in numbers_of(name)]


@pytest.mark.parametrize(("name", "argument", "whole"), ARGUMENTS, ids=lambda each: str(each))
def test_what_is_no_number_is_refused_by_the_name_of_its_argument(
    tmp_path: Path, name: str, argument: str, whole: bool
) -> None:
    function, make = CALLS[name]
    values = NEVER | (NOT_INTEGERS if whole else {})
    optional_bool = "bool" in str(inspect.signature(function).parameters[argument].annotation)
    for kind, value in values.items():
        if (kind == "bool" and optional_bool) or (kind == "two numbers" and (name, argument) in OF_LEVELS):
            continue
        folder = tmp_path / kind
        folder.mkdir()
        arguments = {**make(folder), argument: value}
        with pytest.raises((TypeError, ValueError)) as caught:
            function(**arguments)
        message = str(caught.value)
        names = (argument, "draw") if argument == "step" else (argument,)
        assert any(each in message for each in names), (kind, message)
        assert "digits" not in message, (kind, message)
        assert len(message) < 1000


def test_the_table_has_the_addresses_of_many_functions() -> None:
    assert len(ARGUMENTS) > 150
    assert {argument for _, argument, _ in ARGUMENTS} >= {"seed", "step", "draw", "sample_offset", "steps", "n"}


@pytest.mark.parametrize(
    "value", [3, np.int8(3), np.uint64(3), np.array(3), torch.tensor(3), torch.tensor(3, dtype=torch.int8)]
)
def test_integers_of_every_library_are_welcome(value: Any) -> None:
    assert integer("steps", value, 0, 5) == 3
    assert type(integer("steps", value, 0, 5)) is int
    with pytest.raises(ValueError, match="steps must be from 0 to 2, got 3"):
        integer("steps", value, 0, 2)


@pytest.mark.parametrize("kind", [*NEVER, *NOT_INTEGERS])
def test_nothing_else_is_an_integer(kind: str) -> None:
    value = {**NEVER, **NOT_INTEGERS}[kind]
    with pytest.raises((TypeError, ValueError), match=r"steps must be .* from 0 to 5, got |steps must be from 0 to 5"):
        integer("steps", value, 0, 5)
    assert is_integer(value) == kind.startswith("huge")


@pytest.mark.parametrize("ids", [np.array(3), [True, False], np.array([True, False]), [0.0, 1.0]])
def test_sample_ids_are_integers_one_for_each_sample(ids: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="sample_ids must be"):
        resolve_sample_ids(ids, 0, 2, torch.device("cpu"))
    found, _ = resolve_sample_ids(np.array([5, 7]), 0, 2, torch.device("cpu"))
    assert found is not None
    assert found.tolist() == [5, 7]


def test_numbers_of_every_library_are_welcome() -> None:
    for value in (2, 2.0, np.float32(2), np.array(2.0), torch.tensor(2.0), torch.tensor([2.0]), np.int64(2)):
        assert real("x", value, "a number") == 2.0
    with pytest.raises(ValueError, match="x must be a number that a float holds, got an integer of 16610 bits"):
        real("x", HUGE, "a number")


class Mute:
    def __repr__(self) -> str:
        raise RuntimeError


def test_messages_show_a_value_whatever_it_is() -> None:
    assert shown(5) == "5"
    assert shown(2**64) == str(2**64)
    assert shown(HUGE) == "an integer of 16610 bits"
    assert shown(-HUGE) == "a negative integer of 16610 bits"
    assert shown([HUGE]) == "a list that cannot be shown"
    assert shown(Mute()) == "a Mute that cannot be shown"
    assert shown("x" * 1000) == "'" + "x" * 79 + "..."
    with pytest.raises(ValueError, match="digits"):
        str(HUGE)  # else nothing of this would be needed
    assert sys.get_int_max_str_digits() == 4300


@pytest.mark.parametrize(
    ("value", "alone"),
    [
        (1j, True),
        (np.complex64(1), True),
        (np.array([1j]), True),
        (torch.tensor(1j), True),
        ([1.0, (2.0, 3j)], False),
        ([torch.tensor([1j])], False),
    ],
)
def test_what_is_complex_is_no_number(value: Any, alone: bool) -> None:
    assert is_complex(value)
    assert not is_number(value)
    # The same without its imaginary part is a number, unless it is a sequence.
    if alone:
        assert is_number(value.real)
        assert not is_complex(value.real)


@pytest.mark.parametrize(
    "value", [1.0, True, "complex", [], [1.0, [2]], np.array([1.0]), torch.ones(2), object(), None]
)
def test_what_is_not_complex(value: Any) -> None:
    assert not is_complex(value)
