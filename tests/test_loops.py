"""Loops of the Triton kernels whose bounds are known when they run, on every Triton and NumPy."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import fastlangevin as fl
from fastlangevin import kernels, ops
from fastlangevin.kernels.operands import ChainNetwork, ChainUpdates
from fastlangevin.noise import Address

pytest.importorskip("triton")

FILES = sorted((Path(next(iter(kernels.__path__))) / "triton").glob("*.py"))


def unbound(source: str) -> list[str]:
    """Arguments of ``range`` and ``tl.range`` in kernels that are neither constant nor a ``bound(...)``."""
    found = []
    for function in ast.walk(ast.parse(source)):
        if not (isinstance(function, ast.FunctionDef) and any("jit" in ast.dump(d) for d in function.decorator_list)):
            continue
        # Parameters that the callers bind, which the docstring says.
        told = ast.get_docstring(function) or ""
        for loop in ast.walk(function):
            if not (isinstance(loop, ast.For) and isinstance(loop.iter, ast.Call)):
                continue
            if ast.unparse(loop.iter.func) in ("range", "tl.range"):
                for argument in loop.iter.args:
                    text = ast.unparse(argument)
                    if not (text.isupper() or text.isdigit() or text.startswith("bound(") or f"``{text}`` is" in told):
                        found.append(f"{function.name}: {text}")
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_loop_has_a_bound(path: Path) -> None:
    assert unbound(path.read_text()) == []


def test_the_loops_of_the_kernels_are_read() -> None:
    without = {path.stem: re.sub(r"(?<!def )bound\(", "(", path.read_text()) for path in FILES}
    found = {name for name, source in without.items() if unbound(source)}
    assert found >= {"draws", "instance_norm", "mixture", "mixture_chain", "mlp_chain", "planes", "sums"}


def test_a_loop_without_one_is_found() -> None:
    source = "@triton.jit\ndef f(n, N: tl.constexpr):\n    for i in range(0, {}, N):\n        pass\n"
    assert unbound(source.format("bound(n)")) == []
    assert unbound(source.format("n")) == ["f: n"]


@pytest.fixture
def without_index(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter of Triton 3.6 with NumPy 2.4, where no tensor is an index, on any versions."""
    if torch.cuda.is_available():
        pytest.skip("with a CUDA device Triton compiles for it")
    from triton.runtime import interpreter

    patch = interpreter._patch_lang_tensor

    def refuse(self: Any) -> int:
        raise TypeError("only 0-dimensional arrays can be converted to Python scalars")

    def patched(tensor: Any, scope: Any) -> None:
        patch(tensor, scope)
        scope.set_attr(tensor, "__index__", refuse)

    monkeypatch.setattr(interpreter, "_patch_lang_tensor", patched)


def objective(impl: str) -> list[torch.Tensor]:
    x = fl.randn((5, 3, 9), seed=1)
    return [fl.DenoisingScoreMatching([2.0, 1.0], impl=impl)(lambda x, labels: -x, x, seed=3)]


def mixture_chain(impl: str) -> list[torch.Tensor]:
    mixture = fl.GaussianMixture([0.5, 0.3, 0.2], [[0.0, 1.0], [1.0, -1.0], [2.0, 0.5]], [0.2, 0.3, 0.4])
    score = mixture.perturbed([2.0, 1.0], impl=impl)
    x = fl.annealed_langevin(score, [2.0, 1.0], shape=(3, 2), epsilon=0.1, steps_per_level=3, seed=4, impl=impl)
    return [x, score(x, torch.tensor([0, 1, 0]))]


@pytest.mark.usefixtures("without_index")
@pytest.mark.parametrize("results", [objective, mixture_chain])
def test_kernels_run_where_a_tensor_is_no_index(results: Callable[[str], list[torch.Tensor]]) -> None:
    assert all(map(torch.equal, results("triton"), results("reference")))


@pytest.mark.usefixtures("without_index")
def test_a_perceptrons_chain_runs_there() -> None:
    weights = tuple(fl.randn(shape, seed=1, draw=draw) / 4 for draw, shape in enumerate([(16, 2), (16, 16), (2, 16)]))
    net = ChainNetwork(weights, torch.zeros(1, 2, 16), torch.zeros(2), torch.ones(1, 3), 0.0, "silu")
    levels, coefficients, noisy = torch.zeros(3, dtype=torch.int64), torch.full((3, 3), 0.5), torch.ones(3).bool()
    updates = ChainUpdates(levels, coefficients, noisy, Address(1, 0, None, 0, fl.Purpose.LANGEVIN))
    x = fl.randn((4, 2), seed=2)
    found = [ops.mlp_chain_(x.clone(), net, updates, impl=impl) for impl in ("triton", "reference")]
    # Sums of 18 products of numbers of size 1, three times over; a step forgotten would move the state by 0.5.
    torch.testing.assert_close(*found, rtol=0, atol=1e-4)


@pytest.mark.usefixtures("without_index")
def test_norms_run_there_both_ways() -> None:
    x = fl.randn((2, 3, 4, 5), seed=1).requires_grad_()
    rows = fl.randn((2, 3), seed=2)
    found = []
    for impl in ("triton", "reference"):
        y = ops.instance_norm(x, rows, rows, rows, impl=impl)
        found.append((y, *torch.autograd.grad(y.square().sum(), x)))
    # A few roundings of sums of 20 numbers of size 1.
    torch.testing.assert_close(*found, rtol=0, atol=1e-4)
