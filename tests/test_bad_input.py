"""Bad calls of the public API: each is refused with the right type and a helpful message, and changes nothing.

One table. A row is a well-formed call with one defect; beside it stands the same call with the defect mended, which
must succeed, so that no row can pass because of something else that is wrong with it.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import fastlangevin as fl
from fastlangevin import chains, checkpoint
from fastlangevin.models import MLP, ConvConfig, ConvScore, MLPConfig

Arguments = dict[str, Any]
NAN, INF = float("nan"), float("inf")
META = torch.device("meta")
LADDER = [1.0, 0.5]


def numbers(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.linspace(-1.0, 1.0, max(1, torch.Size(shape).numel()), dtype=dtype).reshape(shape)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """The tensors are tiny: on a busy machine two threads wait for each other longer than they work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# The well-formed calls: a function, and its arguments given a folder to work in.


def _step(folder: Path) -> Arguments:
    return {"x": numbers(2, 3), "score": numbers(2, 3), "a": 0.1, "b": 0.2, "seed": 0, "impl": "reference"}


def _randn(folder: Path) -> Arguments:
    return {"shape": (2, 3), "seed": 0, "impl": "reference"}


def _annealed(folder: Path) -> Arguments:
    return {
        "score": lambda x, labels: -x,
        "sigmas": LADDER,
        "shape": (2, 3),
        "epsilon": 0.01,
        "steps_per_level": 2,
        "seed": 0,
        "impl": "reference",
    }


def _langevin(folder: Path) -> Arguments:
    return {
        "score": lambda x: -x,
        "init": numbers(2, 3),
        "steps": 2,
        "epsilon": 0.01,
        "seed": 0,
        "impl": "reference",
    }


def _adapt(folder: Path) -> Arguments:
    return {"net": lambda x, labels: x, "sigmas": LADDER}


def _geometric(folder: Path) -> Arguments:
    return {"sigma_1": 1.0, "sigma_L": 0.1, "levels": 3}


def _dsm(folder: Path) -> Arguments:
    return {"net": lambda x, labels: -x, "x": numbers(2, 3), "sigmas": LADDER, "seed": 0}


def mlp() -> MLP:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return MLP(LADDER, MLPConfig(features=3, width=4, depth=1))


def conv() -> ConvScore:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return ConvScore(LADDER, ConvConfig(widths=(4, 4), patch=1, blocks=1))


def _build(network: Callable[..., Any]) -> Callable[..., Any]:
    """A network's constructor that leaves the generator alone: building one draws weights, which is no defect."""

    def build(**arguments: Any) -> Any:
        with torch.random.fork_rng(devices=[]):
            return network(**arguments)

    return build


def _forward(make: Callable[[], Any]) -> Callable[..., Tensor]:
    return lambda **arguments: make()(**arguments)


def _chain() -> fl.ChainState:
    return fl.ChainState(numbers(2, 3), 1, 7, None, {"sampler": "langevin"})


def _save(folder: Path) -> Arguments:
    return {"path": folder / "net.safetensors", "net": mlp()}


def _load(folder: Path) -> Arguments:
    checkpoint.save(folder / "net.safetensors", mlp())
    return {"path": folder / "net.safetensors"}


def _chains_load(folder: Path) -> Arguments:
    chains.save(folder / "run.chain", _chain())
    return {"path": folder / "run.chain"}


CALLS: dict[str, tuple[Callable[..., Any], Callable[[Path], Arguments]]] = {
    "step": (fl.step, _step),
    "step_": (fl.step_, _step),
    "randn": (fl.randn, _randn),
    "rand": (fl.rand, _randn),
    "annealed_langevin": (fl.annealed_langevin, _annealed),
    "langevin": (fl.langevin, _langevin),
    "adapt": (fl.adapt, _adapt),
    "geometric_sigmas": (fl.geometric_sigmas, _geometric),
    "dsm_loss": (fl.dsm_loss, _dsm),
    "MLP": (_build(MLP), lambda folder: {"sigmas": LADDER, "config": MLPConfig(features=3)}),
    "MLPConfig": (MLPConfig, lambda folder: {"features": 3}),
    "ConvScore": (_build(ConvScore), lambda folder: {"sigmas": LADDER, "config": ConvConfig(widths=(4,))}),
    "ConvConfig": (ConvConfig, lambda folder: {"channels": 1}),
    "MLP.forward": (_forward(mlp), lambda folder: {"x": numbers(2, 3), "labels": torch.tensor([0, 1])}),
    "ConvScore.forward": (_forward(conv), lambda folder: {"x": numbers(2, 1, 4, 4), "labels": torch.tensor([0, 1])}),
    "checkpoint.save": (checkpoint.save, _save),
    "checkpoint.load": (checkpoint.load, _load),
    "ConvScore.from_pretrained": (
        ConvScore.from_pretrained,
        lambda folder: {"path": _saved(folder, conv())},
    ),
    "chains.load": (chains.load, _chains_load),
    "chains.save": (chains.save, lambda folder: {"path": folder / "run.chain", "state": _chain()}),
}


def _saved(folder: Path, net: Any) -> Path:
    checkpoint.save(folder / "saved.safetensors", net)
    return folder / "saved.safetensors"


def _with(path: Path, content: bytes) -> Arguments:
    """The arguments that read a damaged copy."""
    damaged = path.with_name("damaged")
    damaged.write_bytes(content)
    return {"path": damaged}


def _flipped(path: Path, position: int) -> Arguments:
    content = bytearray(path.read_bytes())
    content[position] ^= 0x40
    return _with(path, bytes(content))


def _below_a_file(path: Path) -> Arguments:
    (path.parent / "file").write_text("no folder")
    return {"path": path.parent / "file" / path.name}


def _folder(path: Path) -> Arguments:
    (path.parent / "folder").mkdir()
    return {"path": path.parent / "folder"}


def _rewritten(path: Path, change: Callable[[Arguments], None]) -> Arguments:
    """A checkpoint whose description was changed, with the right hash: written by another version or by hand."""
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    description = json.loads(header["__metadata__"]["fastlangevin"])
    change(description)
    text = json.dumps(description)
    header["__metadata__"] = {"fastlangevin": text, "sha256": hashlib.sha256(text.encode()).hexdigest()}
    return _with(path, _framed(header, content[8 + size :]))


def _framed(header: object, payload: bytes) -> bytes:
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + payload


def _state(**changes: Any) -> fl.ChainState:
    """A stopped chain that the well-formed annealed_langevin can go on with."""
    result = fl.annealed_langevin(**_annealed(Path()), callback=lambda info: True, full_output=True)
    return replace(result.state, **changes)


def _overlapping(shift: int) -> Arguments:
    """Two 2x3 views of one memory, ``shift`` elements apart."""
    memory = numbers(16)
    return {"x": memory[:6].view(2, 3), "score": memory[shift : shift + 6].view(2, 3)}


def _out_overlaps(shift: int) -> Arguments:
    memory = numbers(16)
    return {"x": memory[:6].view(2, 3), "out": memory[shift : shift + 6].view(2, 3)}


def _leaf(*shape: int) -> Tensor:
    return numbers(*shape).requires_grad_()


@dataclass(frozen=True)
class Row:
    """A bad call: what replaces arguments of the well-formed one, and what replaces them in the mended one."""

    name: str
    call: str
    bad: Callable[[Arguments], Arguments]
    error: type[Exception]
    says: tuple[str, ...]
    good: Callable[[Arguments], Arguments] = lambda arguments: {}

    @property
    def id(self) -> str:
        return f"{self.call}-{self.name}".replace(" ", "-")


MANY = 2**34 + 1  # elements, one more than the address has room for

STEP = [
    Row("x is a list", "step", lambda k: {"x": [[1.0, 2.0]]}, TypeError, ("x must be", "list", "torch.as_tensor")),
    Row("x is None", "step_", lambda k: {"x": None}, TypeError, ("x must be a torch.Tensor", "NoneType")),
    Row("int state", "step", lambda k: {"x": k["x"].int()}, TypeError, ("x must be", "torch.int32", ".to(torch.fl")),
    Row("complex state", "step", lambda k: {"x": k["x"].cfloat()}, TypeError, ("x must be", "torch.complex64")),
    Row("bool state", "step_", lambda k: {"x": k["x"] > 0}, TypeError, ("x must be", "torch.bool", "float32")),
    Row(
        "sparse state",
        "step",
        lambda k: {"x": k["x"].to_sparse()},
        TypeError,
        ("x must be", "strided", "sparse_coo"),
    ),
    Row("int score", "step", lambda k: {"score": k["score"].long()}, TypeError, ("score must be", "torch.int64")),
    Row("score is a list", "step", lambda k: {"score": [1.0]}, TypeError, ("score must be", "list")),
    Row("score shape", "step", lambda k: {"score": numbers(3, 2)}, ValueError, ("score", "(2, 3)", "(3, 2)")),
    Row(
        "score would broadcast", "step_", lambda k: {"score": numbers(1, 3)}, ValueError, ("score", "(2, 3)", "(1, 3)")
    ),
    Row(
        "score on another device",
        "step",
        lambda k: {"score": k["score"].to(META)},
        ValueError,
        ("score", "meta", "cpu", ".to('cpu')"),
    ),
    Row(
        "state on another device",
        "step_",
        lambda k: {"x": k["x"].to(META)},
        ValueError,
        ("score", "is on cpu", "state is on meta", ".to('meta')"),
    ),
    Row(
        "too many elements",
        "step",
        lambda k: {"x": torch.zeros(1).expand(1, MANY), "score": torch.zeros(1).expand(1, MANY)},
        ValueError,
        (str(MANY), "elements", str(2**34)),
    ),
    Row("a is a string", "step", lambda k: {"a": "0.1"}, TypeError, ("a must be", "'0.1'", "number or a tensor")),
    Row("a is None", "step", lambda k: {"a": None}, TypeError, ("a must be", "None")),
    Row("a is a bool", "step", lambda k: {"a": True}, TypeError, ("a must be", "True"), lambda k: {"a": 1}),
    Row("a is complex", "step", lambda k: {"a": 1j}, TypeError, ("a must be", "1j")),
    Row("a is NaN", "step", lambda k: {"a": NAN}, ValueError, ("a must be finite", "nan")),
    Row("b is infinite", "step_", lambda k: {"b": INF}, ValueError, ("b must be finite", "inf")),
    Row("c is minus infinity", "step", lambda k: {"c": -INF}, ValueError, ("c must be finite", "-inf")),
    Row(
        "a int tensor",
        "step",
        lambda k: {"a": torch.tensor([1, 2])},
        TypeError,
        ("a must be", "torch.int64", ".to(torch.float32)"),
        lambda k: {"a": torch.tensor([1.0, 2.0])},
    ),
    Row(
        "a per sample of another batch",
        "step",
        lambda k: {"a": numbers(3)},
        ValueError,
        ("a with one dimension", "per sample", "2 entries", "got 3"),
        lambda k: {"a": numbers(2)},
    ),
    Row(
        "b broadcasts badly",
        "step",
        lambda k: {"b": numbers(2, 2)},
        ValueError,
        ("b must be", "(2, 3)", "got (2, 2)", "broadcasts"),
        lambda k: {"b": numbers(1, 3)},
    ),
    Row(
        "c has too many dimensions",
        "step_",
        lambda k: {"c": numbers(1, 2, 3)},
        ValueError,
        ("c must be", "as many dimensions", "(1, 2, 3)"),
        lambda k: {"c": numbers(2, 3)},
    ),
    Row(
        "a on another device",
        "step",
        lambda k: {"a": torch.ones(2, device=META)},
        ValueError,
        ("a is on meta", "state is on cpu", ".to('cpu')"),
        lambda k: {"a": torch.ones(2)},
    ),
    Row(
        "b requires a gradient",
        "step",
        lambda k: {"b": _leaf(2)},
        ValueError,
        ("b requires a gradient", "b.detach()"),
        lambda k: {"b": _leaf(2).detach()},
    ),
    Row("seed negative", "step", lambda k: {"seed": -1}, ValueError, ("seed", "-1", "from 0 to", str(2**64 - 1))),
    Row(
        "seed of 65 bits",
        "step_",
        lambda k: {"seed": 2**64},
        ValueError,
        ("seed", str(2**64)),
        lambda k: {"seed": 2**64 - 1},
    ),
    Row("seed float", "step", lambda k: {"seed": 1.0}, TypeError, ("seed must be an integer", "1.0", "float")),
    Row("seed bool", "step", lambda k: {"seed": True}, TypeError, ("seed must be an integer", "True", "bool")),
    Row("seed string", "step", lambda k: {"seed": "7"}, TypeError, ("seed must be an integer", "'7'", "str")),
    Row(
        "seed int32 tensor",
        "step",
        lambda k: {"seed": torch.tensor(1, dtype=torch.int32)},
        ValueError,
        ("seed", "int64", "torch.int32", "torch.tensor(seed)"),
        lambda k: {"seed": torch.tensor(1)},
    ),
    Row(
        "seed tensor of another batch",
        "step",
        lambda k: {"seed": torch.tensor([1, 2, 3])},
        ValueError,
        ("seed", "() or (2,)", "(3,)"),
        lambda k: {"seed": torch.tensor([1, 2])},
    ),
    Row(
        "seed and generator",
        "step",
        lambda k: {"generator": torch.Generator()},
        ValueError,
        ("seed=", "generator=", "not both"),
        lambda k: {"seed": None, "generator": torch.Generator()},
    ),
    Row(
        "three generators for two samples",
        "step",
        lambda k: {"seed": None, "generator": [torch.Generator() for _ in range(3)]},
        ValueError,
        ("generator", "3 entries", "2 samples", "one for each"),
        lambda k: {"seed": None, "generator": [torch.Generator() for _ in range(2)]},
    ),
    Row(
        "generators that are none",
        "step",
        lambda k: {"seed": None, "generator": [1, 2]},
        TypeError,
        ("generator", "torch.Generator"),
        lambda k: {"seed": None, "generator": (torch.Generator(), torch.Generator())},
    ),
    Row(
        "generator is a number",
        "step",
        lambda k: {"seed": None, "generator": 5},
        TypeError,
        ("generator", "torch.Generator"),
        lambda k: {"seed": None, "generator": torch.Generator()},
    ),
    Row("draw negative", "step", lambda k: {"draw": -1}, ValueError, ("draw", "-1", str(2**32 - 1))),
    Row(
        "draw of 33 bits",
        "step_",
        lambda k: {"draw": 2**32},
        ValueError,
        ("draw", str(2**32), str(2**32 - 1)),
        lambda k: {"draw": 2**32 - 1},
    ),
    Row("draw float", "step", lambda k: {"draw": 0.0}, TypeError, ("draw must be an integer", "0.0")),
    Row(
        "draw tensor with a dimension",
        "step",
        lambda k: {"draw": torch.tensor([1])},
        ValueError,
        ("draw", "int64 of shape ()", "(1,)"),
        lambda k: {"draw": torch.tensor(1)},
    ),
    Row("purpose of 9 bits", "step", lambda k: {"purpose": 256}, ValueError, ("purpose", "256", "0 to 255")),
    Row("purpose by name", "step", lambda k: {"purpose": "LANGEVIN"}, TypeError, ("purpose", "'LANGEVIN'")),
    Row(
        "sample id of 57 bits",
        "step",
        lambda k: {"sample_ids": [0, 2**56]},
        ValueError,
        ("sample_ids", str(2**56)),
        lambda k: {"sample_ids": [0, 2**56 - 1]},
    ),
    Row(
        "sample id negative in a tensor",
        "step_",
        lambda k: {"sample_ids": torch.tensor([3, -1])},
        ValueError,
        ("sample_ids", "-1"),
        lambda k: {"sample_ids": torch.tensor([3, 1])},
    ),
    Row(
        "sample ids int32",
        "step",
        lambda k: {"sample_ids": torch.tensor([0, 1], dtype=torch.int32)},
        ValueError,
        ("sample_ids", "int64", "torch.int32"),
        lambda k: {"sample_ids": torch.tensor([0, 1])},
    ),
    Row(
        "too few sample ids",
        "step",
        lambda k: {"sample_ids": [4]},
        ValueError,
        ("sample_ids", "(2,)", "(1,)", "one for each sample"),
        lambda k: {"sample_ids": [4, 5]},
    ),
    Row("sample id float", "step", lambda k: {"sample_ids": [0.0, 1.0]}, TypeError, ("sample_ids", "0.0", "integer")),
    Row("sample ids a number", "step", lambda k: {"sample_ids": 5}, TypeError, ("sample_ids", "5")),
    Row(
        "sample ids and offset",
        "step",
        lambda k: {"sample_ids": [0, 1], "sample_offset": 1},
        ValueError,
        ("sample_ids=", "sample_offset=", "not both"),
        lambda k: {"sample_offset": 1},
    ),
    Row(
        "sample offset runs past the end",
        "step",
        lambda k: {"sample_offset": 2**56 - 1},
        ValueError,
        ("sample_offset", str(2**56 - 1), "2 samples"),
        lambda k: {"sample_offset": 2**56 - 2},
    ),
    Row("sample offset negative", "step", lambda k: {"sample_offset": -1}, ValueError, ("sample_offset", "-1")),
    Row(
        "noise and seed",
        "step",
        lambda k: {"noise": numbers(2, 3)},
        ValueError,
        ("noise=", "seed=", "not both"),
        lambda k: {"noise": numbers(2, 3), "seed": None},
    ),
    Row(
        "noise and generator",
        "step",
        lambda k: {"noise": numbers(2, 3), "seed": None, "generator": torch.Generator()},
        ValueError,
        ("noise=", "generator=", "not both"),
        lambda k: {"noise": numbers(2, 3), "seed": None},
    ),
    Row(
        "noise shape",
        "step",
        lambda k: {"noise": numbers(3), "seed": None},
        ValueError,
        ("noise", "(2, 3)", "(3,)"),
        lambda k: {"noise": numbers(2, 3), "seed": None},
    ),
    Row(
        "noise int",
        "step",
        lambda k: {"noise": numbers(2, 3).int(), "seed": None},
        TypeError,
        ("noise must be", "torch.int32"),
        lambda k: {"noise": numbers(2, 3), "seed": None},
    ),
    Row(
        "noise on another device",
        "step",
        lambda k: {"noise": numbers(2, 3).to(META), "seed": None},
        ValueError,
        ("noise is on meta", "state is on cpu"),
        lambda k: {"noise": numbers(2, 3), "seed": None},
    ),
    Row(
        "mask without known",
        "step",
        lambda k: {"mask": numbers(2, 3) > 0},
        ValueError,
        ("mask=", "known=", "both, or neither"),
        lambda k: {"mask": numbers(2, 3) > 0, "known": numbers(2, 3)},
    ),
    Row(
        "known without mask",
        "step_",
        lambda k: {"known": numbers(2, 3)},
        ValueError,
        ("mask=", "known=", "both, or neither"),
        lambda k: {"mask": numbers(2, 3) > 0, "known": numbers(2, 3)},
    ),
    Row(
        "mask not bool",
        "step",
        lambda k: {"mask": numbers(2, 3), "known": numbers(2, 3)},
        TypeError,
        ("mask must be a bool tensor", "torch.float32", "mask.bool()"),
        lambda k: {"mask": numbers(2, 3).bool(), "known": numbers(2, 3)},
    ),
    Row(
        "mask is a list",
        "step",
        lambda k: {"mask": [True, False], "known": numbers(2, 3)},
        TypeError,
        ("mask must be a bool tensor", "list"),
        lambda k: {"mask": torch.tensor([[True], [False]]), "known": numbers(2, 3)},
    ),
    Row(
        "mask shape",
        "step",
        lambda k: {"mask": numbers(2) > 0, "known": numbers(2, 3)},
        ValueError,
        ("mask", "(2, 3)", "(2,)", "broadcast"),
        lambda k: {"mask": numbers(2, 1) > 0, "known": numbers(2, 3)},
    ),
    Row(
        "mask on another device",
        "step",
        lambda k: {"mask": torch.ones(2, 3, dtype=torch.bool, device=META), "known": numbers(2, 3)},
        ValueError,
        ("mask is on meta", "state is on cpu"),
        lambda k: {"mask": torch.ones(2, 3, dtype=torch.bool), "known": numbers(2, 3)},
    ),
    Row(
        "known of another dtype",
        "step",
        lambda k: {"mask": numbers(2, 3) > 0, "known": numbers(2, 3).double()},
        TypeError,
        ("known", "torch.float32", "torch.float64", "known.to(x.dtype)"),
        lambda k: {"mask": numbers(2, 3) > 0, "known": numbers(2, 3)},
    ),
    Row(
        "known shape",
        "step",
        lambda k: {"mask": numbers(2, 3) > 0, "known": numbers(2, 2)},
        ValueError,
        ("known", "(2, 3)", "(2, 2)"),
        lambda k: {"mask": numbers(2, 3) > 0, "known": numbers(1, 3)},
    ),
    Row(
        "known on another device",
        "step_",
        lambda k: {"mask": numbers(2, 3) > 0, "known": numbers(2, 3).to(META)},
        ValueError,
        ("known is on meta", "state is on cpu"),
        lambda k: {"mask": numbers(2, 3) > 0, "known": numbers(2, 3)},
    ),
    Row(
        "expanded state",
        "step_",
        lambda k: {"x": numbers(1, 3).expand(2, 3)},
        ValueError,
        ("x has elements that share memory", "x.clone()"),
        lambda k: {"x": numbers(1, 3).expand(2, 3).clone()},
    ),
    Row(
        "state of overlapping windows",
        "step_",
        lambda k: {"x": numbers(8).as_strided((2, 3), (2, 1))},
        ValueError,
        ("x has elements that share memory", "(2, 1)", "clone"),
        lambda k: {"x": numbers(8).as_strided((2, 3), (3, 1))},
    ),
    Row(
        "score is the state shifted",
        "step_",
        lambda k: _overlapping(1),
        ValueError,
        ("x and score overlap", "score.clone()"),
        lambda k: _overlapping(6),
    ),
    Row(
        "noise is the state transposed",
        "step_",
        lambda k: {"x": (x := numbers(3, 3)), "score": numbers(3, 3), "noise": x.t(), "seed": None},
        ValueError,
        ("x and noise overlap", "noise.clone()"),
        lambda k: {"x": (x := numbers(3, 3)), "score": numbers(3, 3), "noise": x, "seed": None},
    ),
    Row(
        "leaf in place",
        "step_",
        lambda k: {"x": _leaf(2, 3)},
        ValueError,
        ("x is written in place", "gradient", "torch.no_grad()"),
        lambda k: {"x": _leaf(2, 3).detach()},
    ),
    Row(
        "in place with a score that has a graph",
        "step_",
        lambda k: {"score": _leaf(2, 3) * 2},
        ValueError,
        ("x is written in place", "gradient", "step() without out="),
        lambda k: {"score": (_leaf(2, 3) * 2).detach()},
    ),
    Row(
        "leaf as out",
        "step",
        lambda k: {"out": _leaf(2, 3)},
        ValueError,
        ("out is written in place", "gradient", "torch.no_grad()"),
        lambda k: {"out": torch.zeros(2, 3)},
    ),
    Row(
        "out for a state that has a graph",
        "step",
        lambda k: {"x": _leaf(2, 3), "out": torch.zeros(2, 3)},
        ValueError,
        ("written in place", "gradient"),
        lambda k: {"x": _leaf(2, 3)},
    ),
    Row("out is a list", "step", lambda k: {"out": []}, TypeError, ("out must be a torch.Tensor", "list")),
    Row("out shape", "step", lambda k: {"out": torch.zeros(3, 3)}, ValueError, ("out must match", "(2, 3)", "(3, 3)")),
    Row(
        "out dtype",
        "step",
        lambda k: {"out": torch.zeros(2, 3, dtype=torch.float64)},
        ValueError,
        ("out must match", "torch.float32", "torch.float64"),
        lambda k: {"out": torch.zeros(2, 3)},
    ),
    Row(
        "out on another device",
        "step",
        lambda k: {"out": torch.zeros(2, 3, device=META)},
        ValueError,
        ("out must match", "cpu", "meta"),
    ),
    Row(
        "expanded out",
        "step",
        lambda k: {"out": torch.zeros(1, 3).expand(2, 3)},
        ValueError,
        ("out has elements that share memory", "out.clone()"),
    ),
    Row(
        "out overlaps the state",
        "step",
        lambda k: _out_overlaps(2),
        ValueError,
        ("out and x overlap", "x.clone()"),
        lambda k: _out_overlaps(0),
    ),
    Row("unknown impl", "step", lambda k: {"impl": "gpu"}, ValueError, ("impl must be one of", "'gpu'", "reference")),
    Row("impl is None", "step_", lambda k: {"impl": None}, ValueError, ("impl must be one of", "None", "triton")),
]

RANDOM = [
    Row("shape is a number", "randn", lambda k: {"shape": 5}, TypeError, ("shape must be", "5", "(64, 3, 32, 32)")),
    Row("shape is None", "randn", lambda k: {"shape": None}, TypeError, ("shape must be", "None")),
    Row("shape float", "rand", lambda k: {"shape": (2, 2.5)}, TypeError, ("shape must be", "2.5", "integers")),
    Row("shape negative", "randn", lambda k: {"shape": (2, -3)}, ValueError, ("shape", "negative", "(2, -3)")),
    Row("dtype int", "randn", lambda k: {"dtype": torch.int32}, TypeError, ("dtype must be", "float32", "torch.int32")),
    Row("dtype by name", "rand", lambda k: {"dtype": "float32"}, TypeError, ("dtype must be", "bfloat16")),
    Row(
        "too many elements",
        "randn",
        lambda k: {"shape": (1, MANY), "device": META},
        ValueError,
        (str(MANY), "elements", str(2**34)),
    ),
    Row("seed negative", "rand", lambda k: {"seed": -5}, ValueError, ("seed", "-5")),
    Row(
        "seed float tensor",
        "randn",
        lambda k: {"seed": torch.tensor(1.0)},
        ValueError,
        ("seed", "int64", "torch.float32"),
        lambda k: {"seed": torch.tensor(1)},
    ),
    Row("draw of 33 bits", "randn", lambda k: {"draw": 2**32}, ValueError, ("draw", str(2**32))),
    Row("draw bool", "rand", lambda k: {"draw": False}, TypeError, ("draw must be an integer", "False")),
    Row("purpose negative", "randn", lambda k: {"purpose": -1}, ValueError, ("purpose", "-1", "0 to 255")),
    Row(
        "sample ids shape",
        "rand",
        lambda k: {"sample_ids": torch.tensor([[0], [1]])},
        ValueError,
        ("sample_ids", "(2, 1)"),
    ),
    Row("unknown impl", "rand", lambda k: {"impl": "cuda"}, ValueError, ("impl must be one of", "'cuda'")),
]


def _sigmas(name: str, value: Any, error: type[Exception], *says: str) -> list[Row]:
    """A bad ladder is refused alike by everything that takes one."""
    calls = {"annealed_langevin": "sigmas", "adapt": "sigmas", "dsm_loss": "sigmas", "MLP": "sigmas"}
    return [
        Row(f"{name} ladder", call, lambda k, key=key: {key: value}, error, ("sigmas", *says))
        for call, key in calls.items()
    ]


LADDERS = [
    *_sigmas("empty", [], ValueError, "at least one"),
    *_sigmas("nested", torch.ones(2, 2), ValueError, "one-dimensional", "flatten()"),
    *_sigmas("unsorted", [1.0, 0.1, 0.5], ValueError, "decrease strictly", "sigmas[1] = 0.1", "0.5"),
    *_sigmas("ascending", [0.1, 0.5, 1.0], ValueError, "decrease strictly", "sigmas.flip(0)"),
    *_sigmas("constant", [0.5, 0.5], ValueError, "decrease strictly", "sigmas[0] = 0.5"),
    *_sigmas("negative", [1.0, -0.1], ValueError, "sigmas[1]", "above zero", "-0.1"),
    *_sigmas("zero", [1.0, 0.0], ValueError, "sigmas[1]", "above zero", "0.0"),
    *_sigmas("NaN", torch.tensor([1.0, NAN]), ValueError, "sigmas[1]", "finite", "nan"),
    *_sigmas("infinite", [INF, 1.0], ValueError, "sigmas[0]", "finite", "inf"),
    *_sigmas("text", "1.0", TypeError, "ladder", "geometric_sigmas", "'1.0'"),
    *_sigmas("scalar", 1.0, TypeError, "ladder", "geometric_sigmas", "1.0"),
    *_sigmas("words", ["1.0", "0.5"], TypeError, "sigmas[0]", "'1.0'"),
]

SAMPLERS = [
    Row(
        "neither step size",
        "annealed_langevin",
        lambda k: {"epsilon": None},
        ValueError,
        ("exactly one", "epsilon=", "step_lr=", "neither"),
        lambda k: {"epsilon": None, "step_lr": 0.005},
    ),
    Row(
        "both step sizes",
        "langevin",
        lambda k: {"step_lr": 0.005},
        ValueError,
        ("exactly one", "epsilon=", "step_lr=", "both"),
        lambda k: {"epsilon": None, "step_lr": 0.005},
    ),
    Row("epsilon zero", "annealed_langevin", lambda k: {"epsilon": 0.0}, ValueError, ("epsilon", "above zero", "0.0")),
    Row("epsilon NaN", "langevin", lambda k: {"epsilon": NAN}, ValueError, ("epsilon", "finite", "nan")),
    Row("epsilon infinite", "langevin", lambda k: {"epsilon": INF}, ValueError, ("epsilon", "finite", "inf")),
    Row("epsilon text", "langevin", lambda k: {"epsilon": "small"}, TypeError, ("epsilon", "number", "'small'")),
    Row(
        "step_lr negative",
        "annealed_langevin",
        lambda k: {"epsilon": None, "step_lr": -1e-3},
        ValueError,
        ("step_lr", "above zero", "-0.001"),
        lambda k: {"epsilon": None, "step_lr": 1e-3},
    ),
    Row(
        "no steps",
        "annealed_langevin",
        lambda k: {"steps_per_level": 0},
        ValueError,
        ("steps_per_level", "from 1", "0"),
    ),
    Row("half a step", "annealed_langevin", lambda k: {"steps_per_level": 1.5}, TypeError, ("steps_per_level", "1.5")),
    Row("negative steps", "langevin", lambda k: {"steps": -1}, ValueError, ("steps", "-1"), lambda k: {"steps": 0}),
    Row(
        "more updates than draws",
        "annealed_langevin",
        lambda k: {"sigmas": [3.0, 2.0, 1.0], "steps_per_level": 2**31},
        ValueError,
        (str(3 * 2**31), "updates", str(2**32)),
    ),
    Row(
        "unknown corrector",
        "annealed_langevin",
        lambda k: {"corrector": "mala"},
        ValueError,
        ("corrector", "'mala'", "langevin, ou"),
        lambda k: {"corrector": "ou"},
    ),
    Row(
        "step too long for the corrector",
        "annealed_langevin",
        lambda k: {"corrector": "ou", "epsilon": 1.0},
        ValueError,
        ("corrector='ou'", "4 sigma^2", "smaller", "epsilon="),
        lambda k: {"corrector": "ou", "epsilon": 0.99},
    ),
    Row("no shape", "annealed_langevin", lambda k: {"shape": None}, ValueError, ("shape=", "(64, 3, 32, 32)", "init=")),
    Row("shape is a number", "annealed_langevin", lambda k: {"shape": 64}, ValueError, ("shape=", "(64, 3, 32, 32)")),
    Row("shape float", "annealed_langevin", lambda k: {"shape": (2.0, 3)}, TypeError, ("shape", "2.0", "integer")),
    Row("shape negative", "annealed_langevin", lambda k: {"shape": (-2, 3)}, ValueError, ("shape", "-2")),
    Row(
        "shape that init does not have",
        "annealed_langevin",
        lambda k: {"init": numbers(4, 3)},
        ValueError,
        ("shape (2, 3)", "init", "(4, 3)", "leave shape= out"),
        lambda k: {"init": numbers(4, 3), "shape": None},
    ),
    Row(
        "unknown init",
        "annealed_langevin",
        lambda k: {"init": "zeros"},
        ValueError,
        ("init must be", "'zeros'", "'uniform', 'normal'"),
        lambda k: {"init": "normal"},
    ),
    Row(
        "init int", "annealed_langevin", lambda k: {"init": torch.zeros(2, 3).int()}, TypeError, ("init", "torch.int32")
    ),
    Row(
        "init is a list",
        "langevin",
        lambda k: {"init": [[0.0]]},
        TypeError,
        ("init must be", "list", "torch.as_tensor"),
    ),
    Row("init complex", "langevin", lambda k: {"init": k["init"].cfloat()}, TypeError, ("init", "torch.complex64")),
    Row("init without a batch", "langevin", lambda k: {"init": torch.tensor(1.0)}, ValueError, ("init", "(B, ...)")),
    Row("dtype int", "annealed_langevin", lambda k: {"dtype": torch.int64}, TypeError, ("dtype", "torch.int64")),
    Row("seed float", "annealed_langevin", lambda k: {"seed": 0.5}, TypeError, ("seed must be an integer", "0.5")),
    Row("seed negative", "langevin", lambda k: {"seed": -1}, ValueError, ("seed", "-1")),
    Row(
        "seed and generator",
        "annealed_langevin",
        lambda k: {"generator": torch.Generator()},
        ValueError,
        ("seed=", "generator=", "not both"),
        lambda k: {"seed": None, "generator": torch.Generator()},
    ),
    Row(
        "one generator for two samples",
        "annealed_langevin",
        lambda k: {"seed": None, "generator": [torch.Generator()]},
        ValueError,
        ("generator", "1 entries", "2 samples"),
        lambda k: {"seed": None, "generator": [torch.Generator(), torch.Generator()]},
    ),
    Row(
        "sample ids repeated past the batch",
        "langevin",
        lambda k: {"sample_ids": [0, 1, 2]},
        ValueError,
        ("sample_ids", "(3,)"),
    ),
    Row(
        "sample offset too large",
        "langevin",
        lambda k: {"sample_offset": 2**56},
        ValueError,
        ("sample_offset", str(2**56)),
    ),
    Row("score is None", "annealed_langevin", lambda k: {"score": None}, TypeError, ("score", "callable")),
    Row("score is a tensor", "langevin", lambda k: {"score": numbers(2, 3)}, TypeError, ("score", "callable")),
    Row(
        "score returns None",
        "annealed_langevin",
        lambda k: {"score": lambda x, labels: None},
        TypeError,
        ("score", "NoneType"),
    ),
    Row(
        "score returns a tuple",
        "annealed_langevin",
        lambda k: {"score": lambda x, labels: (x, x)},
        TypeError,
        ("score", "tuple"),
    ),
    Row(
        "score of another shape",
        "annealed_langevin",
        lambda k: {"score": lambda x, labels: x[:, :2]},
        ValueError,
        ("score", "(2, 3)", "(2, 2)"),
    ),
    Row("score of integers", "langevin", lambda k: {"score": lambda x: x.int()}, TypeError, ("score", "torch.int32")),
    Row(
        "score on another device",
        "langevin",
        lambda k: {"score": lambda x: x.to(META)},
        ValueError,
        ("score is on meta", "state is on cpu"),
    ),
    Row(
        "score that is part of the state",
        "langevin",
        lambda k: {"init": numbers(3, 3), "score": lambda x: x.t()},
        ValueError,
        ("x and score overlap", "score.clone()"),
        lambda k: {"init": numbers(3, 3), "score": lambda x: x.t().clone()},
    ),
    Row(
        "trajectory without full output",
        "annealed_langevin",
        lambda k: {"trajectory": 2},
        ValueError,
        ("trajectory=", "full_output=True"),
        lambda k: {"trajectory": 2, "full_output": True},
    ),
    Row(
        "trajectory negative",
        "langevin",
        lambda k: {"trajectory": -1, "full_output": True},
        ValueError,
        ("trajectory", "-1"),
        lambda k: {"trajectory": 1, "full_output": True},
    ),
    Row("trajectory float", "langevin", lambda k: {"trajectory": 0.5}, TypeError, ("trajectory", "0.5")),
    Row("unknown impl", "annealed_langevin", lambda k: {"impl": "fast"}, ValueError, ("impl must be one of", "'fast'")),
    Row(
        "resume is a tensor",
        "annealed_langevin",
        lambda k: {"resume": numbers(2, 3)},
        TypeError,
        ("resume must be a ChainState", "Tensor"),
        lambda k: {"resume": _state()},
    ),
    Row(
        "resume of another step size",
        "annealed_langevin",
        lambda k: {"resume": _state(), "epsilon": 0.02},
        ValueError,
        ("resume=", "another chain", "epsilon was 0.01", "0.02"),
        lambda k: {"resume": _state(), "epsilon": 0.01},
    ),
    Row(
        "resume of another ladder",
        "annealed_langevin",
        lambda k: {"resume": _state(), "sigmas": [1.0, 0.25]},
        ValueError,
        ("resume=", "another chain", "sigmas was [1.0, 0.5]"),
        lambda k: {"resume": _state()},
    ),
    Row(
        "resume of another sampler",
        "langevin",
        lambda k: {"resume": _state()},
        ValueError,
        ("resume=", "another chain", "annealed_langevin"),
    ),
    Row(
        "resume past the end",
        "annealed_langevin",
        lambda k: {"resume": _state(step=5)},
        ValueError,
        ("resume.step", "5", "from 0 to 4"),
        lambda k: {"resume": _state(step=4)},
    ),
    Row(
        "resume with another seed",
        "annealed_langevin",
        lambda k: {"resume": _state(), "seed": 1},
        ValueError,
        ("resume=", "seed=", "leave"),
        lambda k: {"resume": _state(), "seed": None},
    ),
    Row(
        "resume with a generator",
        "annealed_langevin",
        lambda k: {"resume": _state(), "seed": None, "generator": torch.Generator()},
        ValueError,
        ("resume=", "generator=", "leave"),
        lambda k: {"resume": _state(), "seed": None},
    ),
    Row(
        "resume without the trajectory",
        "annealed_langevin",
        lambda k: {"resume": _state(), "trajectory": 1, "full_output": True},
        ValueError,
        ("resume=", "trajectory=1"),
        lambda k: {"resume": _state(), "full_output": True},
    ),
    Row(
        "resume with other samples",
        "annealed_langevin",
        lambda k: {"resume": _state(), "sample_offset": 10},
        ValueError,
        ("resume=", "sample"),
        lambda k: {"resume": _state(), "sample_offset": 0},
    ),
    Row(
        "resume with another shape",
        "annealed_langevin",
        lambda k: {"resume": _state(), "shape": (5, 3)},
        ValueError,
        ("resume=", "shape", "(5, 3)"),
        lambda k: {"resume": _state(), "shape": (2, 3)},
    ),
]

NETWORKS = [
    Row("unknown takes", "adapt", lambda k: {"takes": "level"}, ValueError, ("takes", "'level'", "labels, sigma")),
    Row("unknown output", "adapt", lambda k: {"output": "v"}, ValueError, ("output", "'v'", "denoised")),
    Row(
        "net is None",
        "adapt",
        lambda k: {"net": None},
        TypeError,
        ("net must be callable", "NoneType", "net(x, labels)"),
    ),
    Row("sigma_1 zero", "geometric_sigmas", lambda k: {"sigma_1": 0}, ValueError, ("sigma_1", "above zero")),
    Row("sigma_L NaN", "geometric_sigmas", lambda k: {"sigma_L": NAN}, ValueError, ("sigma_L", "finite", "nan")),
    Row("sigma_1 text", "geometric_sigmas", lambda k: {"sigma_1": "1"}, TypeError, ("sigma_1", "number", "'1'")),
    Row("no levels", "geometric_sigmas", lambda k: {"levels": 0}, ValueError, ("levels", "0", "from 1")),
    Row("levels float", "geometric_sigmas", lambda k: {"levels": 3.0}, TypeError, ("levels", "3.0", "integer")),
    Row(
        "one level of two sigmas",
        "geometric_sigmas",
        lambda k: {"levels": 1},
        ValueError,
        ("levels=1", "equal", "1.0 and 0.1"),
        lambda k: {"levels": 1, "sigma_L": 1.0},
    ),
    Row(
        "ascending sigmas",
        "geometric_sigmas",
        lambda k: {"sigma_1": 0.1, "sigma_L": 1.0},
        ValueError,
        ("sigma_1 must be larger", "0.1 and 1.0"),
    ),
    Row("net is None", "dsm_loss", lambda k: {"net": None}, TypeError, ("net must be callable", "NoneType")),
    Row("x int", "dsm_loss", lambda k: {"x": k["x"].int()}, TypeError, ("x must be", "torch.int32", "x.float()")),
    Row("x is a list", "dsm_loss", lambda k: {"x": [[1.0]]}, TypeError, ("x must be", "list")),
    Row("x without elements", "dsm_loss", lambda k: {"x": torch.zeros(0, 3)}, ValueError, ("x must be", "(0, 3)")),
    Row("x without a batch", "dsm_loss", lambda k: {"x": numbers(3)}, ValueError, ("x must be a batch", "(3,)")),
    Row("unknown reduction", "dsm_loss", lambda k: {"reduction": "avg"}, ValueError, ("reduction", "'avg'", "'mean'")),
    Row("seed negative", "dsm_loss", lambda k: {"seed": -1}, ValueError, ("seed", "-1")),
    Row("step negative", "dsm_loss", lambda k: {"step": -1}, ValueError, ("step", "-1")),
    Row("step float", "dsm_loss", lambda k: {"step": 1.0}, TypeError, ("step", "1.0")),
    Row(
        "labels int32",
        "dsm_loss",
        lambda k: {"labels": torch.tensor([0, 1], dtype=torch.int32)},
        TypeError,
        ("labels", "int64", "torch.int32", ".long()"),
        lambda k: {"labels": torch.tensor([0, 1])},
    ),
    Row(
        "labels out of range",
        "dsm_loss",
        lambda k: {"labels": torch.tensor([0, 2])},
        ValueError,
        ("labels", "to 1", "got 2"),
        lambda k: {"labels": torch.tensor([0, 1])},
    ),
    Row(
        "too many labels",
        "dsm_loss",
        lambda k: {"labels": torch.tensor([0, 1, 1])},
        ValueError,
        ("labels", "(2,)", "(3,)"),
        lambda k: {"labels": torch.tensor([1, 1])},
    ),
    Row(
        "net returns None",
        "dsm_loss",
        lambda k: {"net": lambda x, i: None},
        ValueError,
        ("net must return", "NoneType"),
    ),
    Row(
        "net of another shape",
        "dsm_loss",
        lambda k: {"net": lambda x, i: x.sum(1)},
        ValueError,
        ("net", "(2, 3)", "(2,)"),
    ),
    Row("no features", "MLPConfig", lambda k: {"features": 0}, ValueError, ("features", "positive integer", "0")),
    Row("width float", "MLPConfig", lambda k: {"width": 8.0}, ValueError, ("width", "positive integer", "8.0")),
    Row("depth bool", "MLPConfig", lambda k: {"depth": True}, ValueError, ("depth", "positive integer", "True")),
    Row(
        "channels negative",
        "ConvConfig",
        lambda k: {"channels": -1},
        ValueError,
        ("channels", "positive integer", "-1"),
    ),
    Row("no widths", "ConvConfig", lambda k: {"widths": ()}, ValueError, ("widths", "at least one", "(32, 64)")),
    Row("width zero", "ConvConfig", lambda k: {"widths": (8, 0)}, ValueError, ("widths", "positive integer", "0")),
    Row("widths is a number", "ConvConfig", lambda k: {"widths": 8}, TypeError, ("widths", "8")),
    Row("std zero", "MLP", lambda k: {"config": MLPConfig(std=0.0)}, ValueError, ("std", "positive", "0.0")),
    Row("std NaN", "ConvScore", lambda k: {"config": ConvConfig(std=NAN)}, ValueError, ("std", "nan")),
    Row("std infinite", "MLP", lambda k: {"config": MLPConfig(std=INF)}, ValueError, ("std", "finite", "inf")),
    Row("mean NaN", "MLP", lambda k: {"config": MLPConfig(mean=NAN)}, ValueError, ("mean", "finite", "nan")),
    Row("config of another network", "MLP", lambda k: {"config": ConvConfig()}, TypeError, ("config", "ConvConfig")),
    Row(
        "flat data of another size",
        "MLP.forward",
        lambda k: {"x": numbers(2, 4)},
        ValueError,
        ("x must be", "(B, 3)", "(2, 4)"),
    ),
    Row("images to an MLP", "MLP.forward", lambda k: {"x": numbers(2, 1, 3)}, ValueError, ("x must be", "flatten(1)")),
    Row("x int", "MLP.forward", lambda k: {"x": torch.ones(2, 3).int()}, TypeError, ("x", "torch.int32")),
    Row("x is a list", "MLP.forward", lambda k: {"x": [[1.0, 2.0, 3.0]]}, TypeError, ("x", "list")),
    Row(
        "labels float",
        "MLP.forward",
        lambda k: {"labels": torch.tensor([0.0, 1.0])},
        TypeError,
        ("labels", "int64", "torch.float32"),
    ),
    Row("labels are a list", "MLP.forward", lambda k: {"labels": [0, 1]}, TypeError, ("labels", "int64", "list")),
    Row(
        "label negative",
        "ConvScore.forward",
        lambda k: {"labels": torch.tensor([0, -1])},
        ValueError,
        ("labels", "0 (largest sigma)", "got -1"),
    ),
    Row(
        "one label for two",
        "ConvScore.forward",
        lambda k: {"labels": torch.tensor([0])},
        ValueError,
        ("labels", "(1,)"),
    ),
    Row(
        "sides that do not halve",
        "ConvScore.forward",
        lambda k: {"x": numbers(2, 1, 5, 4)},
        ValueError,
        ("x must be images", "divisible by 2", "(2, 1, 5, 4)", "pad"),
    ),
    Row(
        "colours to a grey network",
        "ConvScore.forward",
        lambda k: {"x": numbers(2, 3, 4, 4)},
        ValueError,
        ("x must be images", "(B, 1, H, W)", "(2, 3, 4, 4)"),
    ),
]

FILES = [
    Row(
        "foreign net", "checkpoint.save", lambda k: {"net": torch.nn.Linear(1, 1)}, TypeError, ("net", "Linear", "MLP")
    ),
    Row(
        "other ladder", "checkpoint.save", lambda k: {"sigmas": [2.0, 1.0]}, ValueError, ("sigmas differ", "net.sigmas")
    ),
    Row("NaN in metadata", "checkpoint.save", lambda k: {"metadata": {"loss": NAN}}, TypeError, ("metadata", "finite")),
    Row(
        "tensor in metadata",
        "checkpoint.save",
        lambda k: {"metadata": {"t": numbers(1)}},
        TypeError,
        ("metadata", "Tensor"),
    ),
    Row(
        "missing folder",
        "checkpoint.save",
        lambda k: {"path": k["path"].parent / "none" / "net"},
        RuntimeError,
        ("cannot write", "none/net", "folder that exists"),
    ),
    Row(
        "below a file",
        "checkpoint.save",
        lambda k: _below_a_file(k["path"]),
        RuntimeError,
        ("cannot write", "file/net"),
    ),
    Row("a folder", "checkpoint.save", lambda k: _folder(k["path"]), RuntimeError, ("cannot write", "is a folder")),
    Row(
        "in proc",
        "checkpoint.save",
        lambda k: {"path": "/proc/net.safetensors"},
        RuntimeError,
        ("cannot write", "/proc"),
    ),
    Row(
        "missing", "checkpoint.load", lambda k: {"path": "/nowhere/net"}, RuntimeError, ("cannot read", "/nowhere/net")
    ),
    Row("a folder", "checkpoint.load", lambda k: _folder(k["path"]), RuntimeError, ("cannot read", "folder")),
    Row("empty", "checkpoint.load", lambda k: _with(k["path"], b""), ValueError, ("not a checkpoint", "damaged")),
    Row(
        "truncated",
        "checkpoint.load",
        lambda k: _with(k["path"], k["path"].read_bytes()[:-1]),
        ValueError,
        ("not a checkpoint", "damaged", "again"),
    ),
    Row(
        "cut in the header",
        "checkpoint.load",
        lambda k: _with(k["path"], k["path"].read_bytes()[:100]),
        ValueError,
        ("not a checkpoint", "ends before its header does"),
    ),
    Row(
        "longer than it should be",
        "checkpoint.load",
        lambda k: _with(k["path"], k["path"].read_bytes() + b"\0" * 8),
        ValueError,
        ("not a checkpoint", "damaged"),
    ),
    Row("a flipped weight", "checkpoint.load", lambda k: _flipped(k["path"], -3), ValueError, ("damaged", "SHA-256")),
    Row(
        "pickled",
        "checkpoint.load",
        lambda k: _with(k["path"], pickle.dumps({"weights": [1.0]})),
        ValueError,
        ("not a checkpoint", "pickled .pth files are never read"),
    ),
    Row(
        "text",
        "checkpoint.load",
        lambda k: _with(k["path"], b"weights" * 9),
        ValueError,
        ("not a checkpoint", "damaged"),
    ),
    Row(
        "other safetensors",
        "checkpoint.load",
        lambda k: _with(k["path"], _framed({}, b"")),
        ValueError,
        ("not a checkpoint", "__metadata__"),
    ),
    Row(
        "metadata of another type",
        "checkpoint.load",
        lambda k: _with(k["path"], _framed({"__metadata__": {"fastlangevin": 5, "sha256": "0"}}, b"")),
        ValueError,
        ("not a checkpoint",),
    ),
    Row(
        "without a format",
        "checkpoint.load",
        lambda k: _rewritten(k["path"], lambda description: description.pop("format")),
        ValueError,
        ("not a checkpoint", "format"),
        lambda k: _rewritten(k["path"], lambda description: None),
    ),
    Row(
        "newer format",
        "checkpoint.load",
        lambda k: _rewritten(k["path"], lambda description: description.update(format=2)),
        ValueError,
        ("format 2", "use the version that wrote it"),
        lambda k: _rewritten(k["path"], lambda description: description.update(format=1)),
    ),
    Row(
        "newer stream",
        "checkpoint.load",
        lambda k: _rewritten(k["path"], lambda description: description.update(stream_version=9)),
        ValueError,
        ("stream version 9", "use the version that wrote it"),
    ),
    Row(
        "unknown network",
        "checkpoint.load",
        lambda k: _rewritten(k["path"], lambda description: description.update(network="os.system")),
        ValueError,
        ("'os.system'", "ConvScore, MLP", "update the package"),
    ),
    Row(
        "config that does not fit the weights",
        "checkpoint.load",
        lambda k: _rewritten(k["path"], lambda description: description["config"].update(width=5)),
        ValueError,
        ("does not describe its own weights", "write it again"),
        lambda k: _rewritten(k["path"], lambda description: description["config"].update(width=4)),
    ),
    Row(
        "another class",
        "ConvScore.from_pretrained",
        lambda k: {"path": _saved(k["path"].parent, mlp())},
        ValueError,
        ("class MLP", "not ConvScore", "MLP.from_pretrained"),
        lambda k: {"path": _saved(k["path"].parent, conv())},
    ),
    Row("missing", "chains.load", lambda k: {"path": "/nowhere/run"}, FileNotFoundError, ("/nowhere/run", "--resume")),
    Row("a folder", "chains.load", lambda k: _folder(k["path"]), ValueError, ("folder", "is a folder")),
    Row(
        "empty", "chains.load", lambda k: _with(k["path"], b""), ValueError, ("not the state of a chain", "start again")
    ),
    Row(
        "truncated",
        "chains.load",
        lambda k: _with(k["path"], k["path"].read_bytes()[:-4]),
        ValueError,
        ("damaged", "delete it and start again"),
    ),
    Row("a flipped value", "chains.load", lambda k: _flipped(k["path"], -3), ValueError, ("damaged", "SHA-256")),
    Row(
        "pickled", "chains.load", lambda k: _with(k["path"], pickle.dumps(5)), ValueError, ("not the state of a chain",)
    ),
    Row(
        "a checkpoint",
        "chains.load",
        lambda k: {"path": _saved(k["path"].parent, mlp())},
        ValueError,
        ("not the state of a chain",),
    ),
    Row(
        "a description that is a list",
        "chains.load",
        lambda k: _with(k["path"], _framed({"__metadata__": {"chain": "[]", "sha256": "0"}}, b"")),
        ValueError,
        ("not the state of a chain",),
    ),
    Row("below a file", "chains.save", lambda k: _below_a_file(k["path"]), OSError, ("Not a directory", "file")),
    Row("a folder", "chains.save", lambda k: _folder(k["path"]), OSError, ("folder",)),
]

ROWS = [*STEP, *RANDOM, *LADDERS, *SAMPLERS, *NETWORKS, *FILES]


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, torch.nn.Module):
        return list(value.state_dict().values())
    if isinstance(value, fl.ChainState):
        return _tensors([value.x, value.seed, value.trajectory])
    if isinstance(value, dict):
        value = list(value.values())
    return [tensor for each in value for tensor in _tensors(each)] if isinstance(value, list | tuple) else []


def _bits(tensor: Tensor) -> tuple[object, ...]:
    """Everything of a tensor that a call could change, the whole memory behind a view included."""
    described = (tensor.shape, tensor.dtype, tensor.requires_grad, tensor.grad is None if tensor.is_leaf else None)
    if tensor.is_sparse:
        return (*described, *(bytes(part.numpy()) for part in (tensor._indices(), tensor._values())))
    memory = tensor.untyped_storage()
    raw = b"" if tensor.device == META else bytes(torch.tensor([], dtype=torch.uint8).set_(memory).numpy())
    return (*described, tensor.stride(), tensor._version, raw)


def _files(folder: Path) -> dict[str, bytes | None]:
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def _snapshot(arguments: Arguments, folder: Path) -> tuple[object, ...]:
    tensors = _tensors(arguments)
    generator = arguments.get("generator")
    generators = generator if isinstance(generator, list | tuple) else [generator]
    states = [bytes(each.get_state().numpy()) for each in generators if isinstance(each, torch.Generator)]
    return (
        [_bits(tensor) for tensor in tensors],
        _files(folder),
        bytes(torch.get_rng_state().numpy()),
        states,
        (torch.is_grad_enabled(), torch.get_default_dtype(), torch.get_num_threads(), sorted(os.environ)),
    )


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_bad_call_is_refused_with_a_helpful_message_and_changes_nothing(row: Row, tmp_path: Path) -> None:
    function, make = CALLS[row.call]
    arguments = make(tmp_path)
    arguments |= row.bad(arguments)
    before = _snapshot(arguments, tmp_path)
    with pytest.raises(row.error) as caught:
        function(**arguments)
    message = str(caught.value)
    missing = [part for part in row.says if part not in message]
    assert not missing, f"{missing} not in the message: {message}"
    assert _snapshot(arguments, tmp_path) == before


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_the_same_call_mended_succeeds(row: Row, tmp_path: Path) -> None:
    function, make = CALLS[row.call]
    arguments = make(tmp_path)
    arguments |= row.good(arguments)
    result = function(**arguments)
    values = [value for value in _tensors(result) if value.is_floating_point()]
    assert all(value.isfinite().all() for value in values)


def test_the_table_covers_every_function_and_repeats_no_row() -> None:
    assert len({row.id for row in ROWS}) == len(ROWS) >= 90
    assert {row.call for row in ROWS} == set(CALLS)
    assert all(row.says and all(row.says) for row in ROWS)


# What a call that is refused must not do, beyond the table.

SEEDLESS = [
    ("step", {"draw": -1}, ValueError),
    ("step_", {"purpose": 256}, ValueError),
    ("step", {"sample_ids": [0]}, ValueError),
    ("randn", {"draw": 2**32}, ValueError),
    ("randn", {"purpose": 256}, ValueError),
    ("rand", {"sample_ids": [0]}, ValueError),
    ("annealed_langevin", {"init": "zeros"}, ValueError),
    ("annealed_langevin", {"dtype": torch.int64}, TypeError),
    ("langevin", {"steps": -1}, ValueError),
    ("dsm_loss", {"labels": torch.tensor([0, 5])}, ValueError),
    ("dsm_loss", {"step": -1}, ValueError),
]


@pytest.mark.parametrize(
    ("call", "bad", "error"), SEEDLESS, ids=[f"{call}-{next(iter(bad))}" for call, bad, _ in SEEDLESS]
)
def test_a_refused_call_without_a_seed_draws_none_from_the_global_generator(
    call: str, bad: Arguments, error: type[Exception], tmp_path: Path
) -> None:
    function, make = CALLS[call]
    arguments = {**make(tmp_path), "seed": None}
    torch.manual_seed(0)
    before = torch.get_rng_state()
    with pytest.raises(error):
        function(**{**arguments, **bad})
    assert torch.equal(torch.get_rng_state(), before)
    function(**arguments)
    assert not torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("kind", ["checkpoint", "chain"])
def test_every_flipped_byte_is_found_or_harmless(kind: str, tmp_path: Path) -> None:
    call, path = ("checkpoint.load", "net.safetensors") if kind == "checkpoint" else ("chains.load", "run.chain")
    load, make = CALLS[call]
    make(tmp_path)
    content = (tmp_path / path).read_bytes()

    def contents(loaded: Any) -> object:
        if kind == "chain":
            return [bytes(loaded.x.numpy()), loaded.x.dtype, loaded.x.shape, loaded.step, loaded.seed, loaded.record]
        weights = {name: (bytes(value.numpy()), value.shape) for name, value in loaded.net.state_dict().items()}
        return [weights, loaded.sigmas.tolist(), loaded.metadata, loaded.net.config, type(loaded.net)]

    expected = contents(load(tmp_path / path))
    found = 0
    for position in range(0, len(content), max(1, len(content) // 300)):
        damaged = bytearray(content)
        damaged[position] ^= 1 << position % 8
        (tmp_path / "damaged").write_bytes(damaged)
        try:
            loaded = load(tmp_path / "damaged")
        except ValueError:
            found += 1
        else:
            assert contents(loaded) == expected, f"byte {position}: {bytes(content[position - 20 : position + 20])!r}"
    assert found > 200


def test_a_save_that_fails_leaves_the_older_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net, state = _saved(tmp_path, mlp()), tmp_path / "run.chain"
    chains.save(state, _chain())
    before = _files(tmp_path)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RuntimeError, match=re.escape(f"cannot write {net}: No space left on device")):
        checkpoint.save(net, conv())
    with pytest.raises(OSError, match="No space left on device"):
        chains.save(state, replace(_chain(), step=2))
    assert _files(tmp_path) == before


@pytest.mark.parametrize("kind", ["checkpoint", "chain"])
def test_a_save_never_replaces_what_is_not_a_file(kind: str, tmp_path: Path) -> None:
    # A rename onto /dev/null by root would take it away from the whole machine; a pipe stands for it here.
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises((RuntimeError, OSError), match="pipe"):
        checkpoint.save(pipe, mlp()) if kind == "checkpoint" else chains.save(pipe, _chain())
    assert pipe.is_fifo()


def test_impl_triton_on_a_cpu_tensor_is_refused_without_the_interpreter(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import torch, fastlangevin as fl\n"
        "x = torch.zeros(2, 3)\n"
        "for call in (\n"
        "    lambda: fl.step_(x, torch.ones(2, 3), a=1.0, b=1.0, seed=0, impl='triton'),\n"
        "    lambda: fl.randn((2, 3), seed=0, impl='triton'),\n"
        "):\n"
        "    try:\n"
        "        call()\n"
        "    except RuntimeError as error:\n"
        "        print(error)\n"
        "assert not x.any()\n"
    )
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, str(script)],
        env={**environment, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    expected = r"Triton is not installed|Triton runs on GPUs; for a CPU tensor use impl='cpp' or 'reference'"
    assert all(re.match(expected, line) for line in lines)
