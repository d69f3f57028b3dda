"""The update x + a*score + b*z: published way of writing it, clean eager, torch.compile and fused, in one run.

    python -m benchmarks.step                      this machine's CPU, 1 and 2 threads
    python -m benchmarks.step --device cuda        a GPU
    python -m benchmarks.step --json results.json  also keep the numbers

Providers:
    published      NCSNv2's loop body: randn_like, the sum, and the norms it takes at every step
    eager          x + a*score + b*torch.randn_like(x)
    eager in place x.add_(score, alpha=a).add_(noise.normal_(), alpha=b): the fewest passes eager PyTorch can make
    torch.compile  the eager expression compiled, with the step size in tensors
    fused          fl.step, a new tensor as the eager expression gives
    fused out=     fl.step(..., out=y)
    fused in place fl.step_
    add            torch.add(x, score, out=y): the same bytes, no noise
    copy           y.copy_(x): what the memory gives

Bytes are the algorithm's: 12 an element in fp32 for the update and for add, 8 for the copy. No time is printed for a
provider whose output is wrong: the fused ones must equal the reference bit for bit, the others must have the mean and
variance of the update.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import fastlangevin as fl
from benchmarks.timing import interleaved, machine

A, B = 0.02, 0.2
SIZES = {"cpu": (8, 128 * 3 * 32 * 32, 2**24), "cuda": (8, 128 * 3 * 32 * 32, 2**24, 2**28)}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "float64": torch.float64}
GATE_ELEMENTS = 2**16


def shape_of(elements: int) -> tuple[int, ...]:
    """Images where there is room for some, else one row for each of two samples."""
    return (elements // 3072, 3, 32, 32) if elements % 3072 == 0 else (2, elements // 2)


def providers(elements: int, dtype: torch.dtype, device: torch.device, sets: int) -> dict[str, Callable[[], Tensor]]:
    """The calls; each takes the next of ``sets`` input sets, together larger than the cache."""
    shape = shape_of(elements)
    inputs = [
        (
            fl.randn(shape, seed=1, draw=2 * index, dtype=dtype, device=device),
            fl.randn(shape, seed=1, draw=2 * index + 1, dtype=dtype, device=device),
            torch.empty(shape, dtype=dtype, device=device),
        )
        for index in range(sets)
    ]
    turn = {"at": 0}
    a, b = torch.tensor(A, device=device), torch.tensor(B, device=device)

    def next_set() -> tuple[Tensor, Tensor, Tensor]:
        turn["at"] = (turn["at"] + 1) % sets
        return inputs[turn["at"]]

    def published() -> Tensor:
        x, score, _ = next_set()
        noise = torch.randn_like(x)
        score_norm = score.view(len(x), -1).norm(dim=-1).mean()
        noise_norm = noise.view(len(x), -1).norm(dim=-1).mean()
        x = x + A * score + noise * B
        _ = x.view(len(x), -1).norm(dim=-1).mean()
        _ = (A / 2) ** 0.5 * score_norm / noise_norm
        _ = score.mean(dim=0).view(-1).norm() ** 2
        return x

    def eager() -> Tensor:
        x, score, _ = next_set()
        return x + A * score + B * torch.randn_like(x)

    def eager_in_place() -> Tensor:
        x, score, noise = next_set()
        return x.add_(score, alpha=A).add_(noise.normal_(), alpha=B)

    def expression(x: Tensor, score: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return (x + a * score + b * torch.randn_like(x)).to(x.dtype)

    compiled = torch.compile(expression, fullgraph=True, dynamic=False)

    def compiled_call() -> Tensor:
        x, score, _ = next_set()
        return compiled(x, score, a, b)

    def fused() -> Tensor:
        x, score, _ = next_set()
        return fl.step(x, score, a=A, b=B, seed=7, draw=3)

    def fused_out() -> Tensor:
        x, score, out = next_set()
        return fl.step(x, score, a=A, b=B, seed=7, draw=3, out=out)

    def fused_in_place() -> Tensor:
        x, score, _ = next_set()
        return fl.step_(x, score, a=A, b=B, seed=7, draw=3)

    def add() -> Tensor:
        x, score, out = next_set()
        return torch.add(x, score, out=out)

    def copy() -> Tensor:
        x, _, out = next_set()
        return out.copy_(x)

    return {
        "published": published,
        "eager": eager,
        "eager in place": eager_in_place,
        "torch.compile": compiled_call,
        "fused": fused,
        "fused out=": fused_out,
        "fused in place": fused_in_place,
        "add": add,
        "copy": copy,
    }


def passes(name: str, dtype: torch.dtype, device: torch.device) -> str | None:
    """None where a provider computes the update on a small input, else what is wrong with it."""
    call = providers(GATE_ELEMENTS, dtype, device, 1)[name]
    shape = shape_of(GATE_ELEMENTS)
    x = fl.randn(shape, seed=1, draw=0, dtype=dtype, device=device)
    score = fl.randn(shape, seed=1, draw=1, dtype=dtype, device=device)
    y = call()
    if name == "copy":
        return None if torch.equal(y, x) else "is not a copy"
    if name == "add":
        return None if torch.equal(y, x + score) else "is not the sum"
    if name.startswith("fused"):
        want = fl.step(x, score, a=A, b=B, seed=7, draw=3, impl="reference")
        return None if torch.equal(y, want) else "differs from the reference"
    z = (y.double() - x.double() - A * score.double()) / B
    # Six standard errors of the mean and the variance; half precision adds its own rounding to the variance.
    rounding = float(torch.finfo(dtype).eps) ** 2 / B**2
    n = z.numel()
    if abs(float(z.mean())) > 6 / n**0.5 + rounding or abs(float(z.var()) - 1) > 6 * (2 / n) ** 0.5 + rounding:
        return f"noise has mean {float(z.mean()):.4f} and variance {float(z.var()):.4f}"
    return None


def measure(elements: int, dtype: torch.dtype, device: torch.device, budget: float) -> dict[str, Any]:
    size = torch.empty(0, dtype=dtype).element_size()
    # Input sets together larger than any cache here, but at most 8 and at most 2^26 elements each way.
    sets = max(1, min(8, 2**26 // max(elements, 1)))
    calls = providers(elements, dtype, device, sets)
    failures = {}
    for name in list(calls):
        try:
            wrong = passes(name, dtype, device)
            calls[name]()
        except Exception as error:
            wrong = f"{type(error).__name__}: {str(error).splitlines()[0][:120]}"
        if wrong:
            failures[name] = wrong
            del calls[name]
    result = interleaved(calls, device, budget=budget)
    for name, row in result.items():
        touched = (2 if name == "copy" else 3) * size * elements
        row["ns_per_element"] = row["median"] / elements * 1e9
        row["GB_per_s"] = touched / row["median"] / 1e9
    return {"elements": elements, "dtype": str(dtype), "providers": result, "failures": failures}


def table(case: dict[str, Any]) -> str:
    rows = case["providers"]
    lines = [
        f"\n{case['elements']:,} elements, {case['dtype']}, {case['threads']} thread(s)",
        f"{'provider':16} {'median':>11} {'quartiles':>23} {'ns/element':>11} {'GB/s':>8} {'of copy':>8} "
        f"{'/ fused out=':>14}",
    ]
    for name, row in rows.items():
        share = row["GB_per_s"] / rows["copy"]["GB_per_s"] if "copy" in rows else float("nan")
        ratio = row["median"] / rows["fused out="]["median"] if "fused out=" in rows else float("nan")
        lines.append(
            f"{name:16} {row['median'] * 1e6:9.1f}us {row['lower'] * 1e6:10.1f} ..{row['upper'] * 1e6:10.1f} "
            f"{row['ns_per_element']:11.3f} {row['GB_per_s']:8.1f} {share:8.1%} {ratio:13.2f}x"
        )
    lines += [f"{name:16} not timed: {why}" for name, why in case["failures"].items()]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--sizes", type=int, nargs="+", help="elements; the device's standard sizes by default")
    parser.add_argument("--dtypes", nargs="+", default=["float32"], choices=list(DTYPES))
    parser.add_argument("--threads", type=int, nargs="+", default=[2, 1], help="CPU threads")
    parser.add_argument("--budget", type=float, default=20.0, help="seconds for each case")
    parser.add_argument("--json", type=Path, help="file for the numbers")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        print("benchmarks.step: error: there is no CUDA device here", file=sys.stderr)
        return 2
    device = torch.device(options.device)
    cases = []
    for threads in options.threads if options.device == "cpu" else [1]:
        if options.device == "cpu":
            torch.set_num_threads(threads)
        for dtype in options.dtypes:
            for elements in options.sizes or SIZES[options.device]:
                torch.compiler.reset()
                case = measure(elements, DTYPES[dtype], device, options.budget)
                case["threads"] = threads
                cases.append(case)
                print(table(case), flush=True)
    if options.json:
        record = {"benchmark": "step", "a": A, "b": B, "machine": machine(device), "cases": cases}
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(record, indent=1) + "\n")
    return 1 if any(case["failures"] for case in cases) else 0


if __name__ == "__main__":
    sys.exit(main())
