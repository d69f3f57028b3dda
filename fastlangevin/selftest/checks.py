"""The checks: each raises :class:`Failure` with what it found, or returns a line on what it tried."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastlangevin import reference, rules, runtime
from fastlangevin.ladders import geometric_sigmas
from fastlangevin.models import MLP, MLPConfig
from fastlangevin.samplers import annealed_langevin
from fastlangevin.selftest.operations import DIGESTS, OPERATIONS, digest
from fastlangevin.storage import checkpoint
from fastlangevin.storage.container import DamagedError

__all__ = ["CHECKS", "Check", "Failure"]

Check = Callable[[torch.device], str]


class Failure(Exception):  # noqa: N818  # not an error of the program: what a check found
    """A promise that this machine does not keep."""


# Counter, key and answer of Philox4x32-10 (Salmon, Moraes, Dror and Shaw 2011, Random123's known answers).
ANSWERS = (
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
)

SIGMAS = geometric_sigmas(1.0, 0.1, 5).tolist()
MEAN, SPREAD = 0.5, 0.3
EPSILON, STEPS = 0.004, 20


def known_answers(device: torch.device) -> str:
    """The generator's words against its authors' answers."""
    for counter, key, answer in ANSWERS:
        c0, c1, c2, c3, k0, k1 = torch.tensor([*counter, *key], dtype=torch.int64, device=device).unsqueeze(1)
        got = tuple(int(word) for word in reference.philox(c0, c1, c2, c3, k0, k1))
        if got != answer:
            raise Failure(f"Philox of counter {counter}, key {key} is {got}, not {answer}")
    return f"{len(ANSWERS)} answers of Philox4x32-10"


@contextmanager
def _set(name: str | None) -> Iterator[None]:
    if name is None:
        yield
        return
    from fastlangevin.kernels.cpp import native

    native.use_instruction_set(name)
    try:
        yield
    finally:
        native.use_instruction_set(None)


def _variants(device: torch.device) -> list[tuple[str, str | None]]:
    """Implementations that run on the device, the C++ one with each instruction set."""
    found: list[tuple[str, str | None]] = []
    for impl, state in runtime.explain(device.type).items():
        if state != "available":
            continue
        if impl == "cpp":
            from fastlangevin.kernels.cpp import native

            found += [(impl, name) for name in native.instruction_sets()]
        else:
            found.append((impl, None))
    return found


def same_bits(operation: str, device: torch.device) -> str:
    """An operation's bits on every implementation against the stored digest."""
    variants = _variants(device)
    for impl, instruction_set in variants:
        with _set(instruction_set):
            got = digest(OPERATIONS[operation](impl, device))
        if got != DIGESTS[operation]:
            where = impl if instruction_set is None else f"{impl} with {instruction_set}"
            raise Failure(f"{operation} on {where} have other bits: SHA-256 {got}, not {DIGESTS[operation]}")
    return ", ".join(impl if part is None else f"{impl} ({part})" for impl, part in variants)


def _score(x: Tensor, level: Tensor) -> Tensor:
    variances = torch.tensor([sigma**2 + SPREAD**2 for sigma in SIGMAS], dtype=x.dtype, device=x.device)
    return (MEAN - x) / variances[level].view(-1, *[1] * (x.ndim - 1))


def exact_law(device: torch.device) -> str:
    """Mean and variance of a short annealed chain against its exact law, within six standard errors."""
    shape = (4096, 16)
    x = annealed_langevin(
        _score, SIGMAS, shape=shape, epsilon=EPSILON, steps_per_level=STEPS, seed=1, device=device
    ).double()
    mean, variance = 0.5, 1 / 12
    for (_, a, b), sigma in zip(rules.annealed(SIGMAS, EPSILON), SIGMAS, strict=True):
        rate = a / (sigma**2 + SPREAD**2)
        for _ in range(STEPS):
            mean, variance = mean + rate * (MEAN - mean), (1 - rate) ** 2 * variance + (b or 0.0) ** 2
    count = x.numel()
    off_mean = (float(x.mean()) - mean) / math.sqrt(variance / count)
    off_variance = (float(x.var()) / variance - 1) / math.sqrt(2 / count)
    if max(abs(off_mean), abs(off_variance)) > 6:
        raise Failure(
            f"a chain's mean is {off_mean:.1f} and its variance {off_variance:.1f} standard errors off its exact law"
        )
    return f"{count:,} chains, mean {off_mean:+.1f} and variance {off_variance:+.1f} standard errors off"


def resume(device: torch.device) -> str:
    """A chain stopped and gone on with, and a part of a batch alone, against the whole."""
    settings: dict[str, Any] = {"epsilon": EPSILON, "steps_per_level": 3, "seed": 2, "device": device}
    whole = annealed_langevin(_score, SIGMAS, shape=(9, 33), **settings)
    for stop in (1, 7, 14):
        left = annealed_langevin(
            _score,
            SIGMAS,
            shape=(9, 33),
            callback=lambda info, stop=stop: info.step == stop,
            full_output=True,
            **settings,
        ).state
        again = annealed_langevin(_score, SIGMAS, resume=left, epsilon=EPSILON, steps_per_level=3)
        if not torch.equal(again, whole):
            raise Failure(f"a chain that was stopped after {stop} updates ends with other bits")
    part = annealed_langevin(_score, SIGMAS, shape=(2, 33), sample_offset=5, **settings)
    if not torch.equal(part, whole[5:7]):
        raise Failure("samples 5 and 6 alone have other bits than in their batch")
    return "3 stops, 1 part of a batch"


def checkpoints(device: torch.device) -> str:
    """A checkpoint read back, and 64 damaged copies, which must be refused."""
    del device
    torch_state = torch.get_rng_state()
    try:
        net = MLP(SIGMAS, MLPConfig(width=8, depth=1))
    finally:
        torch.set_rng_state(torch_state)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.safetensors"
        checkpoint.save(path, net)
        again = checkpoint.load(path).net.state_dict()
        if any(not torch.equal(value, again[name]) for name, value in net.state_dict().items()):
            raise Failure("a checkpoint was read back with other weights")
        whole = path.read_bytes()
        damaged = 64
        for index in range(damaged):
            place = index * (len(whole) - 1) // (damaged - 1)
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << index % 8]) + whole[place + 1 :])
            try:
                checkpoint.load(path)
            except (DamagedError, ValueError):
                continue
            raise Failure(f"a checkpoint with a bit flipped in byte {place} of {len(whole)} was taken for whole")
    return f"1 round trip, {damaged} damaged files refused"


CHECKS: dict[str, Check] = {
    "known answers": known_answers,
    **{
        f"bits of {name}": (lambda device, name=name: same_bits(name, device))  # type: ignore[misc]
        for name in OPERATIONS
    },
    "exact law": exact_law,
    "resume": resume,
    "checkpoints": checkpoints,
}
