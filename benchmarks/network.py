"""The standard networks: time and kernels of a forward pass, as published, eager, compiled and fused.

    python -m benchmarks.network                       this machine's CPU, 2 threads
    python -m benchmarks.network --device cuda         a GPU
    python -m benchmarks.network --json results.json   also keep the numbers

Providers, all with the same weights:
    published       each norm in the 14 operations of its formula, ELU behind it
    eager           each norm as reference/norm.py writes it, in as few operations as eager PyTorch allows
    eager 16 bit    the same under autocast
    torch.compile   the eager one compiled
    fused           the network as it is built: norms with their ELU and the sum before them, sums with their ELU
    sampling        fl.models.for_sampling(net)
    sampling 16 bit fl.models.for_sampling(net, dtype=torch.bfloat16)
    sampling comp.  fl.models.for_sampling(net, compile=True)

Operations are counted as PyTorch dispatches them, without views and allocations, and each fused one as one; on a GPU
the fused norm launches two kernels. No time is printed for a provider whose output is wrong: fp32 must agree with fp64
to 1e-5 of the largest output, 16 bits to a tenth.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import fastlangevin as fl
from benchmarks.timing import interleaved, machine
from fastlangevin import reference
from fastlangevin.kernels import cpp
from fastlangevin.models import refinenet
from fastlangevin.models.norm import ConditionalInstanceNormPlusPlus, InstanceNormPlusPlus

NETWORKS = {"ncsn": fl.models.NCSN, "ncsnv2": fl.models.NCSNv2}
BATCHES = {"cpu": (1, 8), "cuda": (1, 128)}
NORM_SHAPES = ((16, 128, 32, 32), (16, 256, 16, 16), (1, 128, 32, 32), (1, 256, 16, 16))
# Without a kernel: memory is made, or seen in another shape.
FREE = {
    "empty",
    "new_empty",
    "empty_like",
    "empty_strided",
    "new_empty_strided",
    "detach",
    "lift_fresh",
    "_unsafe_view",
}

Call = Callable[[], Tensor]


def published_norm(x: Tensor, gamma: Tensor, alpha: Tensor, beta: Tensor, activation: bool) -> Tensor:
    """InstanceNorm++ operation by operation."""
    means = x.mean((2, 3))
    centre = means.mean(1, keepdim=True)
    variance = means.var(1, keepdim=True)
    means = (means - centre) / torch.sqrt(variance + 1e-5)
    h = F.instance_norm(x)
    gamma, alpha, beta = (each.view(-1, x.shape[1], 1, 1) for each in (gamma, alpha, beta))
    h = h + means[..., None, None] * alpha
    out = gamma * h + beta
    return F.elu(out) if activation else out


def eager_norm(x: Tensor, gamma: Tensor, alpha: Tensor, beta: Tensor, activation: bool) -> Tensor:
    return reference.instance_norm(x, gamma, alpha, beta, activation=activation)[0]


class Unfused(nn.Module):
    """A norm of the standard networks by another function of plain PyTorch."""

    def __init__(self, norm: nn.Module, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.norm = norm
        self.function = function

    def forward(self, x: Tensor, labels: Tensor, *, activation: bool = False) -> Tensor:
        if isinstance(self.norm, ConditionalInstanceNormPlusPlus):
            parameters = self.norm.embed(labels).chunk(3, dim=1)
        else:
            parameters = self.norm.gamma, self.norm.alpha, self.norm.beta
        return self.function(x, *parameters, activation)


def unfused(net: nn.Module, function: Callable[..., Tensor]) -> nn.Module:
    """A copy of a network without fused operations, whose norms are computed by a function."""
    net = copy.deepcopy(net)
    for module in list(net.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, (ConditionalInstanceNormPlusPlus, InstanceNormPlusPlus)):
                module.register_module(name, Unfused(child, function))
    return Published(net)


class Operations(TorchDispatchMode):
    """Counts what runs a kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0
        self.norms = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function.overloadpacket.__name__
        self.count += name not in FREE and not function.is_view
        return function(*args, **(kwargs or {}))


@contextlib.contextmanager
def counted() -> Iterator[Operations]:
    """Operations of PyTorch on CPU tensors, and launches of the fused norm, which go past its dispatcher."""
    operations = Operations()
    launch = cpp.norm

    def count(request: bytes) -> None:
        operations.norms += 1
        operations.count += 1
        launch(request)

    elu = refinenet.add_elu

    def count_elu(*terms: Tensor, **options: Any) -> Any:
        operations.count += 1
        return elu(*terms, **options)

    cpp.norm = count
    refinenet.add_elu = count_elu if elu is fl.ops.add_elu else elu
    try:
        with operations:
            yield operations
    finally:
        cpp.norm = launch
        refinenet.add_elu = elu


@contextlib.contextmanager
def plain_activations() -> Iterator[None]:
    """Sums and ELU between convolutions each an operation of PyTorch."""
    fused = refinenet.add_elu
    refinenet.add_elu = lambda *terms, keep=True: reference.add_elu(terms)
    try:
        yield
    finally:
        refinenet.add_elu = fused


def operations_of(net: Callable[..., Tensor], x: Tensor, labels: Tensor) -> tuple[int, int]:
    """Operations of a forward pass, and how many of them are fused norms."""
    with torch.no_grad(), counted() as operations:
        net(x, labels)
    return operations.count, operations.norms


class Published(nn.Module):
    """A network whose norms, sums and activations are operations of PyTorch."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        with plain_activations():
            out: Tensor = self.net(x, labels)
            return out


def providers(net: nn.Module, x: Tensor, labels: Tensor) -> dict[str, Call]:
    published, eager = unfused(net, published_norm), unfused(net, eager_norm)
    compiled = torch.compile(unfused(net, eager_norm))
    sampling = {
        "sampling": fl.models.for_sampling(net),
        "sampling 16 bit": fl.models.for_sampling(net, dtype=torch.bfloat16),
        "sampling comp.": fl.models.for_sampling(net, compile=True),
    }

    def of(module: Callable[..., Tensor], half: bool = False) -> Call:
        def call() -> Tensor:
            with torch.no_grad(), torch.autocast(x.device.type, torch.bfloat16, enabled=half):
                return module(x, labels)

        return call

    calls = {"published": of(published), "eager": of(eager), "eager 16 bit": of(eager, True)}
    calls |= {"torch.compile": of(compiled), "fused": of(net)}
    return calls | {name: of(module) for name, module in sampling.items()}


def wrong(name: str, got: Tensor, want: Tensor) -> str | None:
    """None where an output agrees with that of fp64, relative to each sample's largest."""
    dims = tuple(range(1, want.ndim))
    error = float(((got.double() - want).abs().amax(dims) / want.abs().amax(dims)).max())
    return None if error < (0.1 if "16" in name else 1e-5) else f"is off by {error:.1e} of the largest output"


def forward(name: str, batch: int, device: torch.device, budget: float) -> dict[str, Any]:
    torch.manual_seed(0)
    net = NETWORKS[name](fl.geometric_sigmas(1.0, 0.01, 10)).eval().to(device)
    x = fl.rand((batch, 3, 32, 32), seed=0, device=device)
    labels = torch.arange(batch, device=device) % 10
    with torch.no_grad():
        want = unfused(net, published_norm).double()(x.double(), labels)
    calls = providers(net, x, labels)
    failures = {}
    for provider in list(calls):
        try:
            why = wrong(provider, calls[provider](), want)
        except Exception as error:
            why = f"{type(error).__name__}: {str(error).splitlines()[0][:120]}"
        if why:
            failures[provider] = why
            del calls[provider]
    rows = interleaved(calls, device, rounds=21, budget=budget)
    return {"case": f"{name} forward", "batch": batch, "providers": rows, "failures": failures, "base": "eager"}


def training(name: str, batch: int, device: torch.device, budget: float) -> dict[str, Any]:
    torch.manual_seed(0)
    net = NETWORKS[name](fl.geometric_sigmas(1.0, 0.01, 10)).to(device)
    x, upstream = fl.randn((2, batch, 3, 32, 32), seed=0, device=device)
    labels = torch.arange(batch, device=device) % 10

    def of(module: nn.Module) -> Callable[[], object]:
        parameters = list(module.parameters())
        return lambda: torch.autograd.grad(module(x, labels), parameters, upstream)

    calls = {"published": of(unfused(net, published_norm)), "eager": of(unfused(net, eager_norm)), "fused": of(net)}
    rows = interleaved(calls, device, rounds=11, budget=budget)
    return {"case": f"{name} forward + backward", "batch": batch, "providers": rows, "failures": {}, "base": "eager"}


def norm(shape: tuple[int, ...], device: torch.device, budget: float) -> dict[str, Any]:
    """Norm and ELU alone, forward, and forward with backward."""
    x, upstream = fl.randn((2, *shape), seed=0, device=device)
    leaf = x.clone().requires_grad_()
    parameters = fl.randn((3, *shape[:2]), seed=1, device=device)
    functions = {
        "published": published_norm,
        "eager": eager_norm,
        "fused": lambda *args: fl.ops.instance_norm(*args[:4], activation=args[4]),
    }

    def of(function: Callable[..., Tensor]) -> Callable[[], object]:
        return lambda: function(x, *parameters, True)

    def both(function: Callable[..., Tensor]) -> Callable[[], object]:
        return lambda: torch.autograd.grad(function(leaf, *parameters, True), leaf, upstream)

    calls: dict[str, Callable[[], object]] = {name: of(function) for name, function in functions.items()}
    calls |= {f"{name} + backward": both(function) for name, function in functions.items()}
    rows = interleaved({**calls, "copy": lambda: upstream.copy_(x)}, device, rounds=31, budget=budget)
    return {"case": f"norm + ELU {shape}", "batch": shape[0], "providers": rows, "failures": {}, "base": "eager"}


def group_norm(shape: tuple[int, ...], device: torch.device, budget: float) -> dict[str, Any]:
    """GroupNorm in 32 groups and SiLU alone, forward, and forward with backward."""
    x, upstream = fl.randn((2, *shape), seed=0, device=device)
    leaf = x.clone().requires_grad_()
    weight, bias = fl.randn((2, shape[1]), seed=1, device=device)
    functions = {
        "eager": lambda x: F.silu(F.group_norm(x, 32, weight, bias)),
        "fused": lambda x: fl.ops.group_norm(x, 32, weight, bias, activation=True),
    }

    def of(function: Callable[..., Tensor]) -> Callable[[], object]:
        return lambda: function(x)

    def both(function: Callable[..., Tensor]) -> Callable[[], object]:
        return lambda: torch.autograd.grad(function(leaf), leaf, upstream)

    calls: dict[str, Callable[[], object]] = {name: of(function) for name, function in functions.items()}
    calls |= {f"{name} + backward": both(function) for name, function in functions.items()}
    rows = interleaved(calls, device, rounds=31, budget=budget)
    return {"case": f"group norm + SiLU {shape}", "batch": shape[0], "providers": rows, "failures": {}, "base": "eager"}


def counts() -> dict[str, dict[str, int]]:
    """Operations of a forward pass of one image on a CPU, which do not depend on the width."""
    found = {}
    for name, kind in NETWORKS.items():
        net = kind(fl.geometric_sigmas(1.0, 0.01, 10), kind.CONFIG(width=4))
        arguments = fl.rand((1, 3, 8, 8), seed=0), torch.zeros(1, dtype=torch.int64)
        total, norms = operations_of(net, *arguments)
        found[name] = {
            "published": operations_of(unfused(net, published_norm), *arguments)[0],
            "eager": operations_of(unfused(net, eager_norm), *arguments)[0],
            "fused": total,
            "fused norms": norms,
        }
    return found


def table(case: dict[str, Any]) -> str:
    rows = case["providers"]
    base = rows.get(case["base"])
    lines = [f"\n{case['case']}, batch {case['batch']}, {case['threads']} thread(s)"]
    lines.append(f"{'provider':20} {'median':>10} {'quartiles':>21} {case['base'] + ' / it':>11}")
    for name, row in rows.items():
        against = rows.get(f"{case['base']} + backward") if "backward" in name else base
        ratio = f"{against['median'] / row['median']:10.2f}x" if against else ""
        lines.append(
            f"{name:20} {row['median'] * 1e3:8.2f}ms {row['lower'] * 1e3:9.2f} ..{row['upper'] * 1e3:9.2f} {ratio}"
        )
    lines += [f"{name:20} not timed: {why}" for name, why in case["failures"].items()]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--batches", type=int, nargs="+", help="images; the device's standard batches by default")
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    parser.add_argument("--budget", type=float, default=20.0, help="seconds for each case")
    parser.add_argument("--json", type=Path, help="file for the numbers")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        print("benchmarks.network: error: there is no CUDA device here", file=sys.stderr)
        return 2
    device = torch.device(options.device)
    threads = options.threads if options.device == "cpu" else 1
    if options.device == "cpu":
        torch.set_num_threads(threads)
    found = counts()
    print("operations of a forward pass, views and allocations aside")
    for name, row in found.items():
        launches = row["fused"] + row["fused norms"]
        print(f"{name:8} " + "  ".join(f"{key} {value}" for key, value in row.items()) + f"  (GPU launches {launches})")
    cases = []

    def add(case: dict[str, Any]) -> None:
        case["threads"] = threads
        cases.append(case)
        print(table(case), flush=True)

    for shape in NORM_SHAPES:
        add(norm(shape, device, options.budget / 2))
    for shape in NORM_SHAPES[::2]:
        add(group_norm(shape, device, options.budget / 2))
    for name in options.networks:
        for batch in options.batches or BATCHES[options.device]:
            torch.compiler.reset()
            add(forward(name, batch, device, options.budget))
            add(training(name, batch, device, options.budget))
    if options.json:
        record = {"benchmark": "network", "machine": machine(device), "operations": found, "cases": cases}
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(record, indent=1) + "\n")
    return 1 if any(case["failures"] for case in cases) else 0


if __name__ == "__main__":
    sys.exit(main())
