"""Denoising score matching over a ladder of noise levels (Vincent 2011; Song and Ermon 2019, equations 5 and 6).

For a sample x, a level i and a standard normal z, with x' = x + sigma_i z,

    l = lambda(sigma_i) / 2 ||s(x', i) + z / sigma_i||^2 = w_i / 2 ||sigma_i s(x', i) + z||^2,   lambda = w sigma^2

The right-hand side is what is computed: it never divides by sigma. The norm sums over the elements of a sample. Levels
are uniform over the ladder, so the batch mean estimates the objective, the mean over levels, without bias. The noise is
drawn inside the two passes, once to perturb the data and once more to compare the network's output with it; it is
never stored.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Unpack, get_args

import torch
from torch import Tensor, nn

from fastlangevin import noise, ops
from fastlangevin.kernels.address import Words
from fastlangevin.kernels.operands import Objective, Perturbation, Tables
from fastlangevin.ladders import Sigmas, check_sigmas, number
from fastlangevin.losses.arguments import check_batch, check_reduction, check_returned, ladder_of
from fastlangevin.memory import in_memory, recorded
from fastlangevin.noise import Address, Purpose, SampleOptions, resolve, resolve_draw
from fastlangevin.ops import quick, small_dsm
from fastlangevin.ops.arguments import MAX_LEVELS, check_labels, compute_dtype
from fastlangevin.ops.dsm import Reduction
from fastlangevin.ops.perturb import LEVEL_PURPOSE, perturb_at
from fastlangevin.ops.workspace import Workspace
from fastlangevin.reference import level_of
from fastlangevin.scores import Output
from fastlangevin.values import is_complex

__all__ = ["DenoisingScoreMatching", "PerLevel", "dsm_labels", "dsm_loss"]

Weights = Tensor | Sequence[float]
_NOISE = int(Purpose.DSM_NOISE)


def dsm_labels(
    batch: int,
    levels: int,
    *,
    step: int | Tensor = 0,
    device: torch.device | str | None = None,
    **samples: Unpack[SampleOptions],
) -> Tensor:
    """The noise level of each sample of a training step: floor(levels * u), u the uniform at the sample's address.

    Args:
        batch: samples B.
        levels: levels L of the ladder, up to 2^23.
        step: training step, the draw number of the address.
        device: where the labels are wanted.
        samples: the seed of the run and the samples' ids, :class:`fastlangevin.noise.SampleOptions`.

    Returns:
        int64 ``(B,)``, 0 = largest sigma.
    """
    noise.check_samples(samples)
    levels = noise.integer("levels", levels, 1, MAX_LEVELS)
    uniform = ops.rand((batch, 1), draw=step, purpose=Purpose.DSM_LEVEL, device=device, **samples)
    return level_of(uniform[:, 0], levels)


class PerLevel(NamedTuple):
    """A batch's losses by noise level.

    Attributes:
        sums: of the samples' values, ``(L,)``.
        counts: samples at each level, int64 ``(L,)``.
    """

    sums: Tensor
    counts: Tensor

    def mean(self) -> Tensor:
        """The mean loss of each level ``(L,)``, NaN for a level that no sample had."""
        return self.sums / self.counts


class _Last:
    """The losses of the last call by level."""

    def __init__(self) -> None:
        self.per_level: PerLevel | None = None


class _Plain(NamedTuple):
    """The ladder, and the tables of an objective of an output, in fp32 on the CPU."""

    output: Output
    ladder: Tensor
    tables: Tables


class DenoisingScoreMatching(nn.Module):
    """The objective as a module without weights: ``loss = objective(net, x, seed=..., step=...)``.

    Args:
        sigmas: ladder ``(L,)`` in the units of the data, largest first.
        output: what the network returns, h: ``"score"``; ``"scaled"``, score = h/sigma; ``"noise"``, the predicted z of
            x' = x + sigma z, score = -h/sigma; ``"denoised"``, the predicted data, score = (h - x')/sigma^2.
        anneal_power: p of the weight lambda = sigma^p; 2 makes the levels' values alike (Song and Ermon 2019, 4.2).
        weights: a further factor of each level ``(L,)``, zero or more; 1 by default.
        reduction: ``"mean"`` over the batch, ``"sum"``, or ``"none"`` for one value for each sample.
        impl: ``"auto"``, ``"triton"``, ``"cpp"`` or ``"reference"``.
        workspace: write the perturbed samples and the gradient of each call where the call before wrote them, for
            contiguous fp32 batches on the CPU, where fresh memory takes about as long as the work. It keeps twice the
            memory of a batch. A call before the last one's backward pass is refused.

    Attributes:
        per_level: :class:`PerLevel` of the last call, None before it.
    """

    def __init__(
        self,
        sigmas: Sigmas,
        *,
        output: Output = "score",
        anneal_power: float = 2.0,
        weights: Weights | None = None,
        reduction: Reduction = "mean",
        impl: str = "auto",
        workspace: bool = False,
    ) -> None:
        super().__init__()
        _check_options(output, reduction)
        self.output: Output = output
        self.reduction: Reduction = reduction
        self.impl = impl
        # Kept as numbers: a buffer would follow .half(), and a ladder in float16 is another ladder.
        # No inference tensors, wherever this is made: backward passes keep what follows from them.
        with torch.inference_mode(False):
            self.ladder = torch.tensor(check_sigmas(sigmas), dtype=torch.float64, device="cpu")
            self.factors = _factors(self.ladder, anneal_power, weights)
        self._plain = self._for_plain()
        self._workspace = Workspace() if workspace else None
        # An attribute of the module itself is set by some six calls of PyTorch's.
        self._last = _Last()
        self._shares: dict[tuple[int, Reduction], Tensor] = {}
        self._cache: dict[tuple[torch.device, torch.dtype, Output], tuple[Tensor, Tables]] = {}

    def extra_repr(self) -> str:
        return f"levels={self.ladder.numel()}, output={self.output!r}, reduction={self.reduction!r}"

    def forward(
        self,
        net: Callable[[Tensor, Tensor], Tensor],
        x: Tensor,
        *,
        step: int | Tensor = 0,
        labels: Tensor | None = None,
        **samples: Unpack[SampleOptions],
    ) -> Tensor:
        """The loss of a batch; arguments as for :func:`dsm_loss`."""
        # The draw of an objective is its step; whoever gives draw= is told so below.
        words = None if "draw" in samples else quick.words(_NOISE, draw=step, **samples)
        if words is not None and callable(net) and type(x) is Tensor and x.ndim > 1 and self.reduction != "none":
            if self._plain.output != self.output:
                self._plain = self._for_plain()
            out = None if self._workspace is None else self._workspace.claim(x)
            done = quick.perturb(x, self._plain.ladder, labels, LEVEL_PURPOSE, words, self.impl, out=out)
            if done is not None:
                return self._plainly(net, x, *done, words)
        address = addressed(net, x, self.setting, labels, step, samples)
        loss, self._last.per_level = evaluate(net, x, self.setting, labels, address)
        return loss

    def _plainly(
        self, net: Callable[[Tensor, Tensor], Tensor], x: Tensor, perturbed: Tensor, levels: Tensor, words: Words
    ) -> Tensor:
        """The loss of a plain batch that was perturbed, by few calls unless the network returns something else."""
        h = net(perturbed, levels.clone())
        address = Address(*words)
        if h.__class__ is Tensor and h.shape == x.shape:
            clean = x if self.output == "denoised" else None
            try:
                share = self._shares[x.shape[0], self.reduction]
            except KeyError:
                share = self._share(x.shape[0])
            objective = Objective(h, levels, self._plain.tables, address, None, clean)
            found = small_dsm.loss(objective, share, self.impl, self._workspace)
            if found is not None:
                loss, (_, sums, counts, _) = found
                self._last.per_level = PerLevel(sums, counts)
                return loss
        loss, self._last.per_level = valued(check_returned("net", h, x), x, self.setting, levels, address)
        return loss

    def _for_plain(self) -> _Plain:
        with torch.inference_mode(False):
            return _Plain(self.output, *_tables(self.ladder, self.factors, self.output, torch.float32))

    def _share(self, batch: int) -> Tensor:
        """The derivative of the loss by the value of a sample, kept for the next batch of the size."""
        number = 1 / batch if self.reduction == "mean" else 1.0
        with torch.inference_mode(False):
            share = self._shares[batch, self.reduction] = torch.tensor(number, dtype=torch.float32, device="cpu")
        return share

    @property
    def per_level(self) -> PerLevel | None:
        """The losses of the last call by noise level, None before it."""
        return self._last.per_level

    @property
    def setting(self) -> Setting:
        """The settings of this objective, for :func:`evaluate`."""
        return Setting(self._tables, self.output, self.reduction, self.impl)

    def _tables(self, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tables]:
        if recorded():  # by a mode, too, whose tensors may have no numbers
            return _tables(self.ladder.to(device), self.factors.to(device), self.output, dtype)
        key = device, dtype, self.output
        if key not in self._cache:
            # The first call may be under inference mode, and a later one is to train.
            with torch.inference_mode(False):
                self._cache[key] = _tables(self.ladder.to(device), self.factors.to(device), self.output, dtype)
        return self._cache[key]


def dsm_loss(
    net: Callable[[Tensor, Tensor], Tensor],
    x: Tensor,
    sigmas: Sigmas,
    *,
    step: int | Tensor = 0,
    labels: Tensor | None = None,
    output: Output = "score",
    anneal_power: float = 2.0,
    weights: Weights | None = None,
    reduction: Reduction = "mean",
    impl: str = "auto",
    **samples: Unpack[SampleOptions],
) -> Tensor:
    """Annealed denoising score matching loss with weight sigma^2.

    Args:
        net: score network, ``net(x, labels)`` gives the score ``(B, *)``, or what ``output`` says; labels int64
            ``(B,)``, 0 = largest sigma.
        x: clean samples ``(B, *)``, any float dtype.
        sigmas: ladder ``(L,)`` in the units of ``x``.
        step: training step, 0 to 2^32 - 1, or an int64 tensor ``()``. With a fixed seed it must change from step to
            step: the same step has the same noise.
        labels: int64 ``(B,)``, the level of each sample; by default drawn uniformly, as :func:`dsm_labels` draws them.
        output: what the network returns; see :class:`DenoisingScoreMatching`, as for the options below.
        anneal_power: p of the weight sigma^p.
        weights: a further factor of each level ``(L,)``.
        reduction: ``"mean"`` over the batch, ``"sum"``, or ``"none"`` for one value for each sample.
        impl: ``"auto"``, ``"triton"``, ``"cpp"`` or ``"reference"``.
        samples: the seed of the run and the samples' ids, :class:`fastlangevin.noise.SampleOptions`: levels and noise
            are functions of the seed, the step and the sample's id. A rank of a distributed run passes its place in the
            global batch as ``sample_offset``, and the run does not depend on the number of ranks.

    Returns:
        fp32 (fp64 for an fp64 output of the network): ``()``, or ``(B,)`` with ``reduction="none"``. Elements are
        summed, not averaged: a network that predicts zero noise has expectation D/2 for D elements in a sample.
        Differentiable once in the network's output.
    """
    ladder = ladder_of(sigmas)
    factors = _factors(ladder, anneal_power, weights)

    def tables(device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tables]:
        return _tables(ladder.to(device), factors.to(device), output, dtype)

    setting = Setting(tables, output, reduction, impl)
    loss, _ = evaluate(net, x, setting, labels, addressed(net, x, setting, labels, step, samples))
    return loss


class Setting(NamedTuple):
    """The settings of an objective, independent of the batch.

    Attributes:
        tables: the ladder, and the tables of the objective, on a device in a dtype.
        output: what the network returns.
        reduction: over the batch.
        impl: the implementation.
    """

    tables: Callable[[torch.device, torch.dtype], tuple[Tensor, Tables]]
    output: Output
    reduction: Reduction
    impl: str


def addressed(
    net: Callable[[Tensor, Tensor], Tensor],
    x: Tensor,
    setting: Setting,
    labels: Tensor | None,
    step: int | Tensor,
    samples: SampleOptions,
) -> Address:
    """The address of a batch's noise; the other arguments are checked before a seed is drawn from a generator."""
    _check_options(setting.output, setting.reduction)
    check_batch(("net", net), x, setting.reduction, takes="x, labels")
    ladder, _ = setting.tables(x.device, compute_dtype(x))
    return address_of(x, ladder, labels, step, samples)


def address_of(x: Tensor, ladder: Tensor, labels: Tensor | None, step: int | Tensor, samples: SampleOptions) -> Address:
    """The address of the noise of samples at levels, whose labels are checked before a seed is drawn."""
    if labels is not None:
        check_labels(labels, x.shape[0], ladder.numel())
    return resolve(x, Purpose.DSM_NOISE, resolve_draw(step, x.device, "step"), **samples)


def evaluate(
    net: Callable[[Tensor, Tensor], Tensor],
    x: Tensor,
    setting: Setting,
    labels: Tensor | None,
    address: Address,
) -> tuple[Tensor, PerLevel]:
    """The loss of a batch that was checked, and its losses by level."""
    impl = setting.impl
    ladder, _ = setting.tables(x.device, compute_dtype(x))
    given = None if labels is None else labels.to(x.device).contiguous()
    done = quick.perturb(x, ladder, given, LEVEL_PURPOSE, quick.placed(address), impl, resolved=True)
    if done is None:
        done = perturb_at(Perturbation(in_memory("x", x), ladder, given, address, LEVEL_PURPOSE), impl)
    perturbed, levels = done
    h = check_returned("net", net(perturbed, levels.clone()), x)  # which are read once more below
    return valued(h, x, setting, levels, address)


def valued(h: Tensor, x: Tensor, setting: Setting, levels: Tensor, address: Address) -> tuple[Tensor, PerLevel]:
    """The loss of what a network returned, which was checked, and its losses by level."""
    _, tables = setting.tables(x.device, compute_dtype(h))
    clean = x if setting.output == "denoised" else None
    objective = Objective(h, levels, tables, address, clean=clean)
    loss, sums, counts = ops.dsm(objective, reduction=setting.reduction, impl=setting.impl)
    return loss, PerLevel(sums, counts)


def _check_options(output: str, reduction: str) -> None:
    if output not in get_args(Output):
        raise ValueError(f"output must be one of {', '.join(get_args(Output))}, got {output!r}")
    check_reduction(reduction)


def _factors(ladder: Tensor, anneal_power: float, weights: Weights | None) -> Tensor:
    """w of each level in fp64: lambda over sigma^2."""
    anneal_power = number("anneal_power", anneal_power)
    if not abs(anneal_power) <= 100:
        raise ValueError(f"anneal_power must be from -100 to 100, got {anneal_power}; 2 weights by sigma^2")
    factors = ladder ** (anneal_power - 2.0)
    if weights is None:
        return factors
    if is_complex(weights):
        raise TypeError(f"weights must be real numbers, got {weights!r}")
    given = torch.as_tensor(weights, dtype=torch.float64, device=ladder.device)
    if given.shape != ladder.shape:
        raise ValueError(f"weights must have one entry for each level, ({ladder.numel()},), got {tuple(given.shape)}")
    checked = given.device.type == "cpu" and not torch.compiler.is_compiling()
    if checked and not bool((given.isfinite() & (given >= 0)).all()):
        raise ValueError(f"weights must be finite and not negative, got {given.tolist()}")
    return factors * given


def _tables(ladder: Tensor, factors: Tensor, output: Output, dtype: torch.dtype) -> tuple[Tensor, Tables]:
    scale = {
        "score": ladder,
        "scaled": torch.ones_like(ladder),
        "noise": -torch.ones_like(ladder),
        "denoised": 1.0 / ladder,
    }[output]
    return ladder.to(dtype), Tables(scale.to(dtype), factors.to(dtype), (factors * scale).to(dtype))
