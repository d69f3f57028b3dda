"""A training step's work around the network: perturb, loss and gradient, as it is published, eager, compiled and fused.

    python -m benchmarks.dsm                      this machine's CPU, 2 threads
    python -m benchmarks.dsm --device cuda        a GPU
    python -m benchmarks.dsm --json results.json  also keep the numbers

The network's output is a given tensor, so that nothing but the objective is timed. Providers:
    published      as NCSNv2 writes it: noise times sigma, target -n / sigma^2, difference, square, sum, times sigma^2
    eager          1/2 ||sigma s + z||^2: the fewest tensors eager PyTorch can make of it
    torch.compile  the eager expression and its backward pass compiled, with levels and sigmas in tensors
    fused          fl.DenoisingScoreMatching, whose noise is drawn twice and never stored
    perturb        the first half of the fused step, fl.perturb
    copy           y.copy_(x): what the memory gives

Bytes are the algorithm's, 16 an element in fp32: x and the output are read, the perturbed samples and the gradient
written. "Extra" is the most memory in use at a time beyond those two results, in tensors of their size. No time is
printed for a provider whose loss and gradient are wrong: the fused ones must equal the reference bit for bit, the
others the formula at their own noise.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import fastlangevin as fl
from benchmarks.timing import interleaved, machine

SIZES = {"cpu": (128 * 3 * 32 * 32, 2**24), "cuda": (128 * 3 * 32 * 32, 2**24, 2**28)}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
GATE_ELEMENTS = 64 * 3072
SIGMAS = fl.geometric_sigmas(1.0, 0.01, 10)
# Noise that rounding to 16 bits leaves visible: with sigma_L = 0.01 the gate would let anything pass in bfloat16.
GATE_SIGMAS = fl.geometric_sigmas(1.0, 0.3, 10)

Provider = Callable[[], tuple[Tensor, ...]]


class Inputs:
    """Input sets, together larger than the caches, taken in turn."""

    def __init__(self, elements: int, dtype: torch.dtype, device: torch.device, sets: int) -> None:
        shape = (elements // 3072, 3, 32, 32) if elements % 3072 == 0 else (elements // 4096, 4096)
        self.sets = [
            (
                fl.rand(shape, seed=1, draw=2 * index, dtype=dtype, device=device),
                fl.randn(shape, seed=1, draw=2 * index + 1, dtype=dtype, device=device).requires_grad_(),
                torch.empty(shape, dtype=dtype, device=device),
            )
            for index in range(sets)
        ]
        self.at = 0

    def take(self) -> tuple[Tensor, Tensor, Tensor]:
        self.at = (self.at + 1) % len(self.sets)
        return self.sets[self.at]


def providers(inputs: Inputs, device: torch.device, ladder: Tensor = SIGMAS) -> dict[str, Provider]:
    """The calls: each returns perturbed samples, loss and gradient."""
    sigmas = ladder.to(device, torch.float32)
    fused_objective = fl.DenoisingScoreMatching(ladder)

    def levels(x: Tensor) -> tuple[Tensor, Tensor]:
        labels = torch.randint(0, len(sigmas), (len(x),), device=device)
        return labels, sigmas[labels].reshape(-1, *[1] * (x.ndim - 1))

    def finish(loss: Tensor, output: Tensor) -> Tensor:
        return torch.autograd.grad(loss, output)[0]

    def published() -> tuple[Tensor, ...]:
        x, output, _ = inputs.take()
        _, sigma = levels(x)
        noise = torch.randn_like(x) * sigma
        perturbed = x + noise
        target = -1 / (sigma**2) * noise
        scores = output.view(len(x), -1)
        target = target.view(len(x), -1)
        loss = (1 / 2.0 * ((scores - target) ** 2).sum(dim=-1) * sigma.flatten() ** 2).mean(dim=0)
        return perturbed, loss, finish(loss, output)

    def expression(x: Tensor, output: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        z = torch.randn_like(x)
        return (x + sigma * z).to(x.dtype), (sigma * output + z).square().sum() * (0.5 / len(x))

    def eager() -> tuple[Tensor, ...]:
        x, output, _ = inputs.take()
        perturbed, loss = expression(x, output, levels(x)[1])
        return perturbed, loss, finish(loss, output)

    compiled = torch.compile(expression, fullgraph=True, dynamic=False)

    def compiled_call() -> tuple[Tensor, ...]:
        x, output, _ = inputs.take()
        perturbed, loss = compiled(x, output, levels(x)[1])
        return perturbed, loss, finish(loss, output)

    def fused() -> tuple[Tensor, ...]:
        x, output, _ = inputs.take()
        seen = []

        def net(perturbed: Tensor, labels: Tensor) -> Tensor:
            seen.append(perturbed)
            return output

        loss = fused_objective(net, x, seed=7, step=3)
        return seen[0], loss, finish(loss, output)

    def perturb() -> tuple[Tensor, ...]:
        x, _, _ = inputs.take()
        return fl.perturb(x, sigmas, seed=7, draw=3)

    def copy() -> tuple[Tensor, ...]:
        x, _, out = inputs.take()
        return (out.copy_(x),)

    return {
        "published": published,
        "eager": eager,
        "torch.compile": compiled_call,
        "fused": fused,
        "perturb": perturb,
        "copy": copy,
    }


def wrong(name: str, dtype: torch.dtype, device: torch.device) -> str | None:
    """None where a provider computes the step on a small input, else what is wrong with it."""
    inputs = Inputs(GATE_ELEMENTS, dtype, device, 1)
    x, output, _ = inputs.sets[0]
    torch.manual_seed(0)
    results = providers(inputs, device, GATE_SIGMAS)[name]()
    if name == "copy":
        return None if torch.equal(results[0], x) else "is not a copy"
    labels = fl.losses.dsm_labels(len(x), len(GATE_SIGMAS), seed=7, step=3, device=device)
    if name == "perturb":
        want = fl.perturb(x, GATE_SIGMAS.to(device), labels=labels, seed=7, draw=3, impl="reference")[0]
        return None if torch.equal(results[0], want) else "differs from the reference"
    perturbed, loss, gradient = results
    if name == "fused":
        objective = fl.DenoisingScoreMatching(GATE_SIGMAS, impl="reference")
        want = objective(lambda x, labels: output, x, seed=7, step=3)
        same = torch.equal(loss, want) and torch.equal(gradient, torch.autograd.grad(want, output)[0])
        return None if same else "differs from the reference"
    # sigma and z as they must have been: sigma z = perturbed - x, and the gradient is sigma (sigma s + z) / B.
    noise = (perturbed.double() - x.double()).flatten(1)
    sigma = noise.std(1, keepdim=True)
    sigma = GATE_SIGMAS.to(device)[(sigma - GATE_SIGMAS.to(device)).abs().argmin(1)][:, None]
    residual = sigma * output.detach().double().flatten(1) + noise / sigma
    value = 0.5 * residual.square().sum() / len(x)
    # The perturbed samples are rounded by half a unit of values up to 4, divided by sigma where z is taken back.
    rounding = 2 * torch.finfo(dtype).eps / GATE_SIGMAS[-1].item()
    if abs(float(loss.detach().double() / value) - 1) > max(rounding, 1e-4):
        return f"loss {float(loss):.6g} where the formula gives {float(value):.6g}"
    error = (gradient.double().flatten(1) - sigma * residual / len(x)).abs().max() * len(x)
    return None if error < 10 * rounding else f"gradient is off by {float(error):.2g}"


def extra_memory(call: Provider, device: torch.device, tensor_bytes: int) -> float:
    """The most memory in use during a call beyond its two results, in tensors."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        results = call()
        torch.cuda.synchronize()
        peak = torch.cuda.max_memory_allocated()
    else:
        # Writing 5 sets the kernel's high-water mark of this process back to what it uses now.
        Path("/proc/self/clear_refs").write_text("5")
        before = _status("VmRSS")
        results = call()
        peak = _status("VmHWM")
    del results
    return (peak - before) / tensor_bytes - 2


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


def measure(elements: int, dtype: torch.dtype, device: torch.device, budget: float) -> dict[str, Any]:
    size = torch.empty(0, dtype=dtype).element_size()
    inputs = Inputs(elements, dtype, device, max(1, min(8, 2**26 // elements)))
    calls = providers(inputs, device)
    failures = {}
    extra = {}
    for name in list(calls):
        try:
            why = wrong(name, dtype, device)
            calls[name]()
            if name not in ("perturb", "copy"):
                extra[name] = extra_memory(calls[name], device, elements * size)
        except Exception as error:
            why = f"{type(error).__name__}: {str(error).splitlines()[0][:120]}"
        if why:
            failures[name] = why
            del calls[name]
    result = interleaved(calls, device, rounds=41, budget=budget)
    for name, row in result.items():
        touched = (2 if name in ("perturb", "copy") else 4) * size * elements
        row["ns_per_element"] = row["median"] / elements * 1e9
        row["GB_per_s"] = touched / row["median"] / 1e9
        if name in extra:
            row["extra_tensors"] = extra[name]
    return {"elements": elements, "dtype": str(dtype), "providers": result, "failures": failures}


def table(case: dict[str, Any]) -> str:
    rows = case["providers"]
    lines = [
        f"\n{case['elements']:,} elements, {case['dtype']}, {case['threads']} thread(s)",
        f"{'provider':14} {'median':>11} {'quartiles':>23} {'ns/element':>11} {'GB/s':>8} {'/ fused':>9} {'extra':>7}",
    ]
    for name, row in rows.items():
        ratio = row["median"] / rows["fused"]["median"] if "fused" in rows else float("nan")
        extra = f"{row['extra_tensors']:7.3f}" if "extra_tensors" in row else ""
        lines.append(
            f"{name:14} {row['median'] * 1e6:9.1f}us {row['lower'] * 1e6:10.1f} ..{row['upper'] * 1e6:10.1f} "
            f"{row['ns_per_element']:11.3f} {row['GB_per_s']:8.1f} {ratio:8.2f}x {extra}"
        )
    lines += [f"{name:14} not timed: {why}" for name, why in case["failures"].items()]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--sizes", type=int, nargs="+", help="elements; the device's standard sizes by default")
    parser.add_argument("--dtypes", nargs="+", default=["float32"], choices=list(DTYPES))
    parser.add_argument("--threads", type=int, nargs="+", default=[2], help="CPU threads")
    parser.add_argument("--budget", type=float, default=30.0, help="seconds for each case")
    parser.add_argument("--json", type=Path, help="file for the numbers")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        print("benchmarks.dsm: error: there is no CUDA device here", file=sys.stderr)
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
        record = {"benchmark": "dsm", "machine": machine(device), "cases": cases}
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(record, indent=1) + "\n")
    return 1 if any(case["failures"] for case in cases) else 0


if __name__ == "__main__":
    sys.exit(main())
