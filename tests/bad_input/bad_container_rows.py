"""Bad calls of the file format and of numbered checkpoints."""

from __future__ import annotations

from pathlib import Path

import torch
from bad_call_row import META, NAN, Row
from well_formed_calls import Arguments, numbers


def _damaged(run: Path) -> Arguments:
    """Half of the newest generation."""
    newest = max(run.glob("*.safetensors"))
    newest.write_bytes(newest.read_bytes()[:-1])
    return {}


CONTAINERS = [
    Row("list for a tensor", "container.write", lambda k: {"tensors": {"x": [1.0]}}, TypeError, ("'x'", "list")),
    Row(
        "complex",
        "container.write",
        lambda k: {"tensors": {"x": numbers(2).to(torch.complex64)}},
        TypeError,
        ("'x'", "complex64", "torch.float32"),
        lambda k: {"tensors": {"x": torch.view_as_real(numbers(2).to(torch.complex64))}},
    ),
    Row(
        "sparse",
        "container.write",
        lambda k: {"tensors": {"x": numbers(2).to_sparse()}},
        TypeError,
        ("'x'", "sparse", "dense"),
    ),
    Row(
        "without data",
        "container.write",
        lambda k: {"tensors": {"x": torch.empty(2, device=META)}},
        TypeError,
        ("'x'", "without data"),
    ),
    Row("name that is a number", "container.write", lambda k: {"tensors": {0: numbers(2)}}, TypeError, ("called 0",)),
    Row(
        "name of the format",
        "container.write",
        lambda k: {"tensors": {"__metadata__": numbers(2)}},
        TypeError,
        ("'__metadata__'", "taken"),
    ),
    Row(
        "NaN in description",
        "container.write",
        lambda k: {"description": {"x": NAN}},
        TypeError,
        ("description", "finite"),
    ),
    Row(
        "numbers as keys",
        "container.write",
        lambda k: {"description": {"state": {0: 1.0}}},
        TypeError,
        ("description", "strings as keys", "key 0"),
        lambda k: {"description": {"state": {"0": 1.0}}},
    ),
    Row("description list", "container.write", lambda k: {"description": []}, TypeError, ("description", "list")),
    Row(
        "long description",
        "container.write",
        lambda k: {"description": {"x": "x" * 2**24}},
        ValueError,
        ("description", "1048576"),
        lambda k: {"description": {"x": "x" * 2**19}},
    ),
    Row(
        "missing", "container.read", lambda k: {"path": "/nowhere/x"}, FileNotFoundError, ("cannot read", "/nowhere/x")
    ),
    Row("damaged", "container.read", lambda k: _damaged(k["path"].parent), ValueError, ("damaged", "header speaks of")),
    Row(
        "missing folder", "Generations", lambda k: {"folder": "/nowhere"}, ValueError, ("folder", "/nowhere", "create")
    ),
    Row("path for a prefix", "Generations", lambda k: {"prefix": "a/b"}, ValueError, ("prefix", "'a/b'")),
    Row("empty prefix", "Generations", lambda k: {"prefix": ""}, ValueError, ("prefix",)),
    Row("keep none", "Generations", lambda k: {"keep": 0}, ValueError, ("keep", "at least 1", "got 0")),
    Row("negative step", "Generations.save", lambda k: {"step": -1}, ValueError, ("step", "-1", "9999999999")),
    Row("step that is no integer", "Generations.save", lambda k: {"step": 1.0}, ValueError, ("step", "1.0")),
    Row(
        "step that is missing",
        "Generations.load",
        lambda k: {"step": 7},
        FileNotFoundError,
        ("0000000007", "steps [1, 2]"),
        lambda k: {"step": 1},
    ),
    Row(
        "damaged newest",
        "Generations.load",
        lambda k: _damaged(k["self"].folder),
        ValueError,
        ("0000000002", "damaged", "fallback=True", "0000000001"),
        lambda k: {**_damaged(k["self"].folder), "fallback": True},
    ),
]
