"""The updates of a chain launched one by one, against their replays as a CUDA graph.

    python -m benchmarks.graph_replay --device cuda                       a GPU; there is nothing to measure on a CPU
    python -m benchmarks.graph_replay --device cuda --json results.json   also keep the numbers

Sizes are samples in a batch; kinds are a standard NCSN of width 128 on 3x32x32 and an MLP on 2 numbers, both of random
weights. Providers:
    loop      fl.annealed_langevin(..., cuda_graph=False)
    replayed  the same with cuda_graph=True, its warm-up and its capture among the updates

No time is printed for a provider whose samples differ from the loop's in a bit.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import torch
from torch import Tensor

import fastlangevin as fl
from benchmarks.command import command
from benchmarks.harness import Benchmark, Trial

SIGMAS = fl.geometric_sigmas(1.0, 0.01, 10)
STEPS = 20  # at each of the 10 levels
STEP_LR = 2e-5


def trial(kind: str, batch: int, dtype: torch.dtype, device: torch.device) -> Trial:
    torch.manual_seed(0)
    if kind == "mlp":
        net, shape = fl.models.MLP(SIGMAS, fl.models.MLPConfig(features=2)), (batch, 2)
    else:
        net, shape = fl.models.NCSN(SIGMAS), (batch, 3, 32, 32)
    net = net.to(device, dtype).eval().requires_grad_(False)

    def score(x: Tensor, labels: Tensor) -> Tensor:
        # Not the network itself, whose whole chain may be one kernel.
        out: Tensor = net(x, labels)
        return out

    def chain(graph: bool) -> Callable[[], Tensor]:
        def call() -> Tensor:
            out: Tensor = fl.annealed_langevin(
                score,
                SIGMAS,
                shape=shape,
                dtype=dtype,
                device=device,
                step_lr=STEP_LR,
                steps_per_level=STEPS,
                seed=0,
                cuda_graph=graph,
            )
            return out

        return call

    calls = {"loop": chain(False), "replayed": chain(True)}
    return Trial(
        f"{STEPS * len(SIGMAS)} updates of {kind}, batch {batch}",
        dict(calls),
        lambda name: None if torch.equal(calls[name](), calls["loop"]()) else "has other bits than the loop",
        base="replayed",
        updates=STEPS * len(SIGMAS),
        rounds=9,
    )


BENCHMARK = Benchmark(
    "graph_replay",
    __doc__,
    sizes={"cpu": (), "cuda": (1, 128)},
    trial=trial,
    providers=("loop", "replayed"),
    kinds=("ncsn", "mlp"),
)

if __name__ == "__main__":
    sys.exit(command(BENCHMARK))
