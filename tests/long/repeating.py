"""The same call a thousand times, on one thread and on two: results, losses, gradients and chains have the same bits.

    python -m tests.long.repeating --repeats 1000 --json results.json

Every registered operation on C++, the loss of denoising score matching with its gradient by the scores, and a chain of
annealed Langevin dynamics on a small network, which is one call of a kernel of this package: their bits on two threads
must be those on one. The gradient by a network's weights consists of PyTorch's matrix products, whose bits may change
with the number of threads; it must repeat on each number alone.

Controls: a sum whose parts are as many as there are threads, and one that takes its parts as threads finish them.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

import fastlangevin as fl
from fastlangevin.models import MLP, MLPConfig
from tests.long.record import finish, parser
from tests.long.registered import arguments, operation, results

__all__ = ["CONTROLS", "calls", "different", "products"]

Call = Callable[[], Iterable[Tensor]]
LADDER = fl.geometric_sigmas(2.0, 0.1, 5)


def _fresh(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else value


def _operation(name: str, of: tuple[Any, ...]) -> Call:
    writes = operation(name).endswith("_") or name.startswith("watched")
    return lambda: results(name, tuple(map(_fresh, of)) if writes else of)


def _network() -> MLP:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return MLP(LADDER, MLPConfig(features=7, width=16, depth=2))


def calls(side: int = 33) -> dict[str, Call]:
    """Calls that this package computes alone, on batches of 4 images, large enough to be divided among threads."""
    made = {name: _operation(name, of) for name, of in arguments("cpp", side=side, batch=4).items()}
    net, x = _network(), fl.randn((4 * side, 7), seed=4, impl="reference")
    scores = fl.randn(x.shape, seed=5, impl="reference")

    def loss() -> list[Tensor]:
        leaf = scores.clone().requires_grad_()
        value = fl.dsm_loss(lambda _, levels: leaf, x, LADDER, seed=1, step=2, impl="cpp")
        return [value.detach(), *torch.autograd.grad(value, leaf)]

    def chain() -> list[Tensor]:
        net.eval()
        options: dict[str, Any] = {"epsilon": 1e-3, "steps_per_level": 2, "denoise": True, "seed": 3, "impl": "cpp"}
        return [fl.annealed_langevin(net, LADDER, shape=x.shape, **options)]

    return made | {"loss and gradient": loss, "chain": chain}


def products(side: int = 33) -> dict[str, Call]:
    """Calls that contain PyTorch's matrix products: they repeat on one number of threads, and need not on another."""
    net, x = _network(), fl.randn((4 * side, 7), seed=4, impl="reference")

    def gradient() -> list[Tensor]:
        value = fl.dsm_loss(net, x, LADDER, seed=1, step=2, impl="cpp")
        return [value.detach(), *torch.autograd.grad(value, list(net.parameters()))]

    return {"gradient by a network's weights": gradient}


def _digest(tensors: Iterable[Tensor]) -> str:
    whole = hashlib.sha256()
    for each in tensors:
        whole.update(bytes(each.detach().contiguous().reshape(-1).view(torch.uint8).numpy()))
    return whole.hexdigest()


def different(call: Call, repeats: int, threads: tuple[int, ...] = (1, 2)) -> int:
    """How many of the repeats, on each of the numbers of threads, have other bits than the first of all."""
    before = torch.get_num_threads()
    digests = []
    try:
        for number in threads:
            torch.set_num_threads(number)
            digests += [_digest(call()) for _ in range(repeats)]
    finally:
        torch.set_num_threads(before)
    return sum(each != digests[0] for each in digests)


PARTS = torch.randn(64, 500, generator=torch.Generator().manual_seed(0))


def _by_threads() -> list[Tensor]:
    """A sum in as many parts as there are threads."""
    zero = torch.zeros(())
    return [sum((sum(part, zero) for part in PARTS[:, 0].chunk(torch.get_num_threads())), zero)]


def _race() -> list[Tensor]:
    """A sum that takes its parts as threads finish them: what an atomic addition does."""
    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(torch.Tensor.sum, part) for part in PARTS]
        total = torch.zeros(())
        for future in as_completed(futures):
            total = total + future.result()
    return [total]


CONTROLS: dict[str, Call] = {"a sum in as many parts as threads": _by_threads, "a sum in the order of arrival": _race}


def main() -> int:
    options = parser(__doc__)
    options.add_argument("--repeats", type=int, default=1000, help="for each number of threads")
    chosen = options.parse_args()
    found = {name: different(call, chosen.repeats) for name, call in tqdm(calls().items(), "calls", disable=None)}
    alone = {
        f"{name}, {threads} threads": different(call, chosen.repeats, (threads,))
        for name, call in products().items()
        for threads in (1, 2)
    }
    caught = {name: different(call, chosen.repeats) for name, call in CONTROLS.items()}
    return finish(
        chosen.json,
        "run-to-run bitwise, on any number of threads for what this package computes",
        f"python -m tests.long.repeating --repeats {chosen.repeats}",
        f"{len(found)} calls repeated {chosen.repeats} times on 1 and on 2 threads: {sum(found.values())} differ; the "
        f"gradient by a network's weights, {chosen.repeats} times on each number of threads alone: "
        f"{sum(alone.values())} differ",
        ", ".join(f"{name}: {count} of {2 * chosen.repeats} differ" for name, count in caught.items()),
        not any((found | alone).values()) and all(caught.values()),
        different=found | alone,
    )


if __name__ == "__main__":
    sys.exit(main())
