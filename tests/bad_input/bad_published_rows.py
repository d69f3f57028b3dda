"""Bad calls of the standard networks and of what reads their published checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from bad_call_row import Row
from well_formed_calls import Arguments, ncsn, numbers, published

from fastlangevin.models import ConvConfig, NCSNConfig, NCSNv2, NCSNv2Config


def _published(path: Path, content: Any) -> Arguments:
    """The arguments that read a file of that content."""
    torch.save(content, path.with_name("other.pth"))
    return {"path": path.with_name("other.pth")}


def _bytes(path: Path, content: bytes) -> Arguments:
    path.with_name("other.pth").write_bytes(content)
    return {"path": path.with_name("other.pth")}


PUBLISHED = [
    Row(
        "labels float",
        "NCSN.forward",
        lambda k: {"labels": torch.tensor([0.0, 1.0])},
        TypeError,
        ("labels", "int64", "torch.float32", ".long()"),
        lambda k: {"labels": torch.tensor([0, 1])},
    ),
    Row(
        "label out of range",
        "NCSN.forward",
        lambda k: {"labels": torch.tensor([0, 2])},
        ValueError,
        ("labels", "to 1", "got 2"),
        lambda k: {"labels": torch.tensor([1, 1])},
    ),
    Row(
        "label negative",
        "NCSNv2.forward",
        lambda k: {"labels": torch.tensor([-1, 0])},
        ValueError,
        ("labels", "0 (largest sigma)", "got -1"),
        lambda k: {"labels": torch.tensor([1, 0])},
    ),
    Row(
        "label without a batch",
        "NCSN.forward",
        lambda k: {"labels": torch.tensor(1)},
        ValueError,
        ("labels", "(2,)", "()"),
    ),
    Row(
        "colours to a grey network",
        "NCSN.forward",
        lambda k: {"x": numbers(2, 3, 4, 4)},
        ValueError,
        ("x must be images", "(B, 1, H, W)", "(2, 3, 4, 4)", "NCSNConfig(channels=...)"),
    ),
    Row(
        "odd side",
        "NCSN.forward",
        lambda k: {"x": numbers(2, 1, 4, 7)},
        ValueError,
        ("multiples of 2", "at least 4", "(2, 1, 4, 7)", "pad or resize"),
        lambda k: {"x": numbers(2, 1, 4, 8)},
    ),
    Row(
        "coarsest grid of one pixel",
        "NCSNv2.forward",
        lambda k: {"x": numbers(2, 1, 2, 2)},
        ValueError,
        ("multiples of 2", "one of them at least 4", "(2, 1, 2, 2)"),
        lambda k: {"x": numbers(2, 1, 2, 4)},
    ),
    Row(
        "sides that halve only once",
        "NCSNv2Deeper.forward",
        lambda k: {"x": numbers(2, 1, 8, 6)},
        ValueError,
        ("multiples of 4", "(2, 1, 8, 6)"),
        lambda k: {"x": numbers(2, 1, 8, 4)},
    ),
    Row(
        "sides that halve only twice",
        "NCSNv2Deepest.forward",
        lambda k: {"x": numbers(2, 1, 16, 12)},
        ValueError,
        ("multiples of 8", "(2, 1, 16, 12)"),
        lambda k: {"x": numbers(2, 1, 16, 8)},
    ),
    Row("flat data", "NCSNv2.forward", lambda k: {"x": numbers(2, 16)}, ValueError, ("x must be images", "(2, 16)")),
    Row("x int", "NCSN.forward", lambda k: {"x": k["x"].int()}, TypeError, ("x", "torch.int32", ".float()")),
    Row(
        "x of another dtype",
        "NCSNv2.forward",
        lambda k: {"x": k["x"].double()},
        TypeError,
        ("torch.float64", "torch.float32", "net.to(x.dtype)"),
    ),
    Row("channels zero", "NCSNConfig", lambda k: {"channels": 0}, ValueError, ("channels", "at least 1", "0")),
    Row("width one", "NCSNConfig", lambda k: {"width": 1}, ValueError, ("width", "at least 2", "1")),
    Row("width float", "NCSNv2Config", lambda k: {"width": 8.0}, ValueError, ("width", "integer", "8.0")),
    Row("rescale a number", "NCSNv2Config", lambda k: {"rescale": 1}, TypeError, ("rescale", "True or False", "1")),
    Row("config of another network", "NCSN", lambda k: {"config": ConvConfig()}, TypeError, ("config", "ConvConfig")),
    Row("ascending ladder", "NCSN", lambda k: {"sigmas": [0.5, 1.0]}, ValueError, ("sigmas", "largest first")),
    Row(
        "config of another version",
        "NCSNv2",
        lambda k: {"config": NCSNConfig(width=4)},
        TypeError,
        ("config", "NCSNv2Config", "NCSNConfig"),
        lambda k: {"config": NCSNv2Config(width=4)},
    ),
    Row(
        "another width",
        "load_published",
        lambda k: {"config": NCSNConfig(channels=1, width=8)},
        ValueError,
        (
            "does not fit NCSN with NCSNConfig(channels=1, width=8, rescale=True)",
            "172 keys differ",
            "begin_conv.weight is (4, 1, 3, 3) where (8, 1, 3, 3) is wanted",
            "refine4.crp.norms.1.embed.weight is (2, 12) where (2, 24) is wanted",
            "leave network, config and sigmas out".capitalize(),
        ),
        lambda k: {"config": NCSNConfig(channels=1, width=4)},
    ),
    Row(
        "another number of levels",
        "load_published",
        lambda k: {"sigmas": [1.0, 0.5, 0.1]},
        ValueError,
        ("3 levels", "71 keys differ", "normalizer.embed.weight is (2, 12) where (3, 12) is wanted"),
        lambda k: {"sigmas": [1.0, 0.1]},
    ),
    Row(
        "another class", "load_published", lambda k: {"network": NCSNv2}, ValueError, ("does not fit NCSNv2", "missing")
    ),
    Row(
        "no ladder for levels that are not the published",
        "load_published",
        lambda k: {"sigmas": None},
        ValueError,
        ("2 levels", "give sigmas="),
    ),
    Row("network a string", "load_published", lambda k: {"network": "NCSN"}, TypeError, ("network", "'NCSN'")),
    Row(
        "pickled module",
        "load_published",
        lambda k: _published(k["path"], ncsn("NCSNv2")),
        ValueError,
        ("Python objects", "fastlangevin.models.ncsnv2.NCSNv2", "run code", "net.state_dict()"),
        lambda k: _published(k["path"], ncsn("NCSNv2").state_dict()) | {"sigmas": None},
    ),
    Row(
        "list of six",
        "load_published",
        lambda k: _published(k["path"], [{}] * 6),
        ValueError,
        ("a list of 6", "list of 2", "list of 4 or 5"),
    ),
    Row(
        "other network",
        "load_published",
        lambda k: _published(k["path"], [{"module.stem.weight": numbers(2, 3)}, {}]),
        ValueError,
        ("no weight of begin_conv", "stem.weight"),
    ),
    Row(
        "truncated",
        "load_published",
        lambda k: _bytes(k["path"], k["path"].read_bytes()[:-50]),
        ValueError,
        ("damaged", "fetch it again"),
        lambda k: _bytes(k["path"], k["path"].read_bytes()),
    ),
    Row(
        "missing",
        "load_published",
        lambda k: {"path": "/nowhere/checkpoint.pth"},
        RuntimeError,
        ("cannot read", "/nowhere/checkpoint.pth", "check the path"),
        lambda k: published(k["path"].parent),
    ),
]
