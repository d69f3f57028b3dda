"""Arguments for every registered operation, and what ``torch.library.opcheck`` says of them.

    python -m tests.long.registered --json results.json

The operations are enumerated from the dispatcher, so that one without arguments here is noticed. Updates have several
sets of them: of one, four and six terms, with noise that is given or drawn as a table says; what they compute must be
the reference's bits.

The controls are an operation whose fake has another shape than its result, and updates whose arguments change places.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

import fastlangevin as fl
from fastlangevin import reference
from tests.long.arrangements import same_bits
from tests.long.record import finish, parser

__all__ = ["MISTAKES", "arguments", "badly_registered", "faults", "names", "of_other_bits", "operation", "results"]

Arguments = tuple[Any, ...]
Update = tuple[Any, ...]  # the arguments of an update between its state and what is watched


def names() -> list[str]:
    """The operations of this package that the dispatcher knows, without their overloads."""
    known: Any = torch._C
    every = known._dispatch_get_all_op_names()
    return sorted({name.split("::")[1].split(".")[0] for name in every if name.startswith("fastlangevin::")})


def arguments(impl: str, side: int = 3, batch: int = 3, dtype: torch.dtype = torch.float32) -> dict[str, Arguments]:
    """Arguments of each operation, in layouts that kernels do not find every day; anew for each call.

    An operation with several sets of arguments has its name with a colon and what is special of them.

    Args:
        impl: the implementation.
        side: of images, of which each operation takes a batch with 5 channels.
        batch: samples.
        dtype: of images.
    """
    shape = (batch, 5, side, side)

    def image(draw: int) -> Tensor:
        return fl.randn(shape, seed=1, draw=draw, impl="reference").to(dtype)

    def levels(draw: int, *sizes: int) -> Tensor:
        return fl.randn((1, *sizes), seed=2, draw=draw, impl="reference")[0]

    x = image(0).transpose(2, 3)
    last = image(1).contiguous(memory_format=torch.channels_last)
    score, up = image(2)[:, :, :, torch.arange(side)], image(3)
    half = torch.tensor(0.5)
    address = (torch.tensor(-3), torch.tensor(2**32 - 1), torch.arange(batch) * 2**40, 0)
    factors = [half, levels(0, *shape)]
    region = (score > 1, score.to(dtype))
    computing = torch.float64 if dtype == torch.float64 else torch.float32
    slots = [score, last.bfloat16(), up.double(), x[:1].expand(shape).half(), x]
    kinds = [levels(20, *shape), half, levels(21, batch, 1, 1, 1), levels(22, 5, side, side), levels(23, *shape), half]
    table = (levels(24, 5).to(computing), torch.tensor([0, 7, 2**32 - 1, 7, 2**31]))
    updates: dict[str, Update] = {
        "": ([score], factors, half, *address, 1, None, None, None, *region),
        ": 1 term, a table": ([], kinds[2:3], kinds[0], *address, 1, *table, None, None, None),
        ": 4 terms, given noise": (slots[:3], kinds[:4], kinds[2], *address, 1, None, None, up, *region),
        ": 6 terms, a table": (slots, kinds, half, *address, 1, *table, None, *region),
    }
    number, fault = torch.tensor(7), torch.full((batch,), reference.NO_FAULT)
    labels = torch.arange(batch) % 2
    tables = (levels(1, 2).abs(), levels(2, 2).abs(), levels(3, 2).abs())
    norm = (last, levels(4, batch, 5), levels(5, batch, 5), levels(6, batch, 5))
    statistics = (levels(7, batch, 5), levels(8, batch, 5).abs())
    group = (levels(9, 5), levels(10, 5))
    mixture = fl.GaussianMixture([0.2, 0.5, 0.3], levels(11, 3, 7).tolist(), [1.0, 2.0, 0.5])
    points = fl.randn((batch * side * side, 7), seed=3, impl="reference")
    width = 8
    weights = [levels(12, width, 7) / 3, levels(13, width, width) / 3, levels(14, 7, width) / 3]
    network = (weights, levels(15, 2, 2, width), levels(16, 7), levels(17, 2, 3).abs(), 0.2, "silu")
    moves = (torch.tensor([0, 1, 1]), torch.tensor([[1.0, 0.05, 0.3]]).expand(3, 3).contiguous(), torch.arange(3) > 0)
    return {
        "add_elu": ([last, score, up], impl),
        "add_instance_norm": (norm[0], score, *norm[1:], True, impl),
        "dsm": (score, labels, *tables, *address, 2, None, None, half, True, True, impl),
        "group_norm": (last, *group, 1, 1e-5, True, impl),
        "group_norm_backward": (up, last, *group, levels(18, batch, 1), levels(19, batch, 1).abs(), 1, True, impl),
        "instance_norm": (*norm, True, impl),
        "instance_norm_backward": (up, *norm, *statistics, True, impl),
        "mixture_score": (points, mixture.table([2.0, 0.1]), torch.arange(len(points)) % 2, mixture.diagonal, impl),
        "mlp_chain_": (points.clone(), None, *network, *moves, *address[:2], None, 0, 1, 0, "fp32", impl),
        "perturb": (x, tables[0], None, *address, 2, None, impl),
        "random": (x, *address, 128, False, impl),
        "step_": (x.clone(), *updates[""], impl),
        "watched_step": (x, *updates[""], number, fault.clone(), True, impl),
        **{f"step{kind}": (x, *update, impl) for kind, update in updates.items()},
        **{
            f"watched_step_{kind}": (x.clone(), *update, number, fault.clone(), True, impl)
            for kind, update in updates.items()
        },
    }


def operation(name: str) -> str:
    """The operation of a set of arguments."""
    return name.partition(":")[0]


def _registered(name: str) -> Any:
    return getattr(torch.ops.fastlangevin, operation(name)).default


def results(name: str, of: Arguments) -> list[Tensor]:
    """What an operation returns, and what it writes."""
    returned = _registered(name)(*of)
    found = [] if returned is None else [returned] if isinstance(returned, Tensor) else list(returned)
    written = [of[0]] if operation(name).endswith("_") else []
    return [*found, *written, *(of[-3:-2] if name.startswith("watched") else [])]


def _swapped(of: Arguments) -> Arguments:
    """The factors of the first and the last term change places; of one term, that and the noise's."""
    x, others, factors, b, *rest = of
    if len(factors) == 1:
        return x, others, [b], factors[0], *rest
    return x, others, [factors[-1], *factors[1:-1], factors[0]], b, *rest


def _other_weights(of: Arguments) -> Arguments:
    """The weights of a table in the opposite order; without one, the same."""
    weights = of[WEIGHTS]
    return of if weights is None else (*of[:WEIGHTS], weights.flip(0), *of[WEIGHTS + 1 :])


WEIGHTS = 9  # their place
MISTAKES: dict[str, Callable[[Arguments], Arguments]] = {"factors": _swapped, "weights": _other_weights}


def of_other_bits(impl: str, mistake: Callable[[Arguments], Arguments] = lambda of: of) -> list[str]:
    """The updates that do not have the reference's bits, where a mistake may have been made with their arguments."""
    made, wanted = arguments(impl), arguments("reference")
    return [
        name
        for name in made
        if "step" in name and not all(map(same_bits, results(name, mistake(made[name])), results(name, wanted[name])))
    ]


def faults(impl: str) -> dict[str, str]:
    """What is wrong with which operation: no arguments here, or opcheck's objection."""
    made = arguments(impl)
    known = set(map(operation, made))
    found = {name: "no arguments to check it with" for name in names() if name not in known}
    for name, of in made.items():
        try:
            torch.library.opcheck(_registered(name), of)
        except Exception as error:
            found[name] = str(error).splitlines()[0]
    return found


@contextmanager
def badly_registered() -> Iterator[str]:
    """An operation, in a library of its own, whose fake has another shape than its result; its name."""
    with torch.library._scoped_library("badly_registered", "DEF") as library:
        library.define("double(Tensor x) -> Tensor")
        library.impl("double", lambda x: 2 * x, "CompositeExplicitAutograd")
        torch.library.register_fake("badly_registered::double", lambda x: x.new_empty(1), lib=library)
        yield "double"


def control() -> str:
    with badly_registered() as name:
        try:
            torch.library.opcheck(getattr(torch.ops.badly_registered, name).default, (torch.ones(3),))
        except Exception as error:
            return f"caught, {str(error).splitlines()[0][:80]}"
    return "not caught"


def main() -> int:
    options = parser(__doc__).parse_args()
    torch.set_num_threads(1)
    every = names()
    found = {impl: faults(impl) for impl in ("reference", "cpp")}
    other = of_other_bits("cpp")
    caught = {name: len(of_other_bits("cpp", mistake)) for name, mistake in MISTAKES.items()}
    seen = control()
    sets = arguments("cpp")
    updates = sum("step" in name for name in sets)
    return finish(
        options.json,
        "every registered operation passes opcheck",
        "python -m tests.long.registered",
        f"{len(every)} operations, {len(sets)} sets of arguments on 2 implementations, "
        f"{sum(map(len, found.values()))} objections; {updates} sets of updates have the reference's bits, "
        f"{len(other)} not",
        "".join(f"{name} that change places: {count} of {updates} caught; " for name, count in caught.items())
        + f"an operation whose fake has another shape: {seen}",
        bool(every and not any(found.values()) and not other and all(caught.values()) and seen != "not caught"),
        operations=every,
        faults=found,
        of_other_bits=other,
    )


if __name__ == "__main__":
    sys.exit(main())
