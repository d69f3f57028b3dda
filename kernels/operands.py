"""Operands of the operations other than the update: pure data that every layer may import.

Whoever makes them has checked them, and the launchers check nothing again. Tensors are of any float dtype, fp32, fp16,
bf16 or fp64, where no other is named. The computing dtype is fp64 where the samples, the state or the network's output
are, and fp32 otherwise.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from .address import Address

__all__ = [
    "ChainNetwork",
    "ChainUpdates",
    "GroupNorm",
    "GroupNormGradients",
    "InstanceNorm",
    "InstanceNormGradients",
    "Objective",
    "Perturbation",
    "Run",
    "SampleNorms",
    "Segment",
    "Statistics",
    "Sums",
    "Tables",
]


class Perturbation(NamedTuple):
    """Samples and their noise levels: x + sigma z, of the shape and dtype of x.

    Attributes:
        x: clean samples ``(B, ...)``, any strides; the result does not overlap them.
        sigmas: the noise levels ``(L,)``, contiguous, in the computing dtype.
        labels: the level of each sample, int64 ``(B,)``, contiguous; None if they are drawn. One that is no level makes
            its sample NaN.
        address: of the noise.
        level_purpose: the purpose of drawn labels, whose address is that of the noise otherwise.
        noise: z itself, same shape, any strides; None where the address draws it.
    """

    x: Tensor
    sigmas: Tensor
    labels: Tensor | None
    address: Address
    level_purpose: int
    noise: Tensor | None = None


class Tables(NamedTuple):
    """The numbers of an objective at each level, contiguous ``(L,)`` each, in the computing dtype.

    Attributes:
        scale: p of the residual p h + z, or of p (h - x).
        weight: w of the value w / 2 ||residual||^2, not negative.
        slope: p w, the derivative's factor.
    """

    scale: Tensor
    weight: Tensor
    slope: Tensor


class Objective(NamedTuple):
    """The objective of a batch, denoising score matching.

    Attributes:
        output: what the network returned, h ``(B, ...)``, any strides.
        labels: int64 ``(B,)``, contiguous. One that is no level makes its sample NaN, and is counted in none.
        tables: of the objective.
        address: of the noise.
        noise: z itself, same shape, any strides; None where the address draws it.
        clean: the samples x, same shape, any strides, where h predicts them: then there is no noise.
    """

    output: Tensor
    labels: Tensor
    tables: Tables
    address: Address
    noise: Tensor | None = None
    clean: Tensor | None = None


class Sums(NamedTuple):
    """The values of an objective and their sums, contiguous, in the computing dtype.

    Attributes:
        values: of each sample ``(B,)``.
        level_sums: of the values of each level ``(L,)``.
        level_counts: the samples of each level, int64 ``(L,)``.
        total: the sum of all values ``()``.
    """

    values: Tensor
    level_sums: Tensor
    level_counts: Tensor
    total: Tensor


class SampleNorms(NamedTuple):
    """Samples whose Euclidean norms are wanted, or those of the noise of their addresses.

    Attributes:
        x: ``(B, ...)``, any strides, not empty.
        address: of the noise.
        of_x: whether the norms of x are wanted.
        of_noise: whether those of the noise are.
        noise: the noise itself, same shape, any strides; None where the address draws it.
    """

    x: Tensor
    address: Address
    of_x: bool
    of_noise: bool
    noise: Tensor | None = None


class Statistics(NamedTuple):
    """The statistics of a norm's input, contiguous, in the computing dtype.

    Attributes:
        mean: mu of each channel ``(B, C)``, or of each group ``(B, G)``.
        rstd: 1 / sqrt(v + epsilon) of their biased variances v, likewise.
    """

    mean: Tensor
    rstd: Tensor


class InstanceNorm(NamedTuple):
    """The operands of InstanceNorm++. The result has the shape, dtype and layout of x, and does not overlap it.

    Attributes:
        x: ``(B, C, H, W)`` with C > 1, contiguous or channels_last.
        gamma: scale ``(B, C)``, with any stride of the rows and 1 in them, in the computing dtype.
        alpha: weight of the channels' means, likewise.
        beta: shift, likewise.
        activation: whether ELU follows.
        residual: as x, which it is added to first, or None.
        labels: int64 ``(B,)``, contiguous, the row of each sample in ``gamma``, ``alpha`` and ``beta``, which have one
            for each level; None: sample i has row i.
    """

    x: Tensor
    gamma: Tensor
    alpha: Tensor
    beta: Tensor
    activation: bool
    residual: Tensor | None = None
    labels: Tensor | None = None


class InstanceNormGradients(NamedTuple):
    """The gradients of an :class:`InstanceNorm`.

    Attributes:
        x: of the shape, dtype and layout of the input; overlaps nothing.
        gamma, alpha, beta: of each sample ``(B, C)``, contiguous, in the computing dtype.
    """

    x: Tensor
    gamma: Tensor
    alpha: Tensor
    beta: Tensor


class GroupNorm(NamedTuple):
    """The operands of GroupNorm. The result has the shape, dtype and layout of x, and does not overlap it.

    Attributes:
        x: ``(B, C, H, W)``, contiguous or channels_last.
        weight: scale ``(C,)``, contiguous, in the computing dtype.
        bias: shift, likewise.
        groups: G, a divisor of C.
        activation: whether SiLU follows.
    """

    x: Tensor
    weight: Tensor
    bias: Tensor
    groups: int
    activation: bool


class GroupNormGradients(NamedTuple):
    """The gradients of a :class:`GroupNorm`.

    Attributes:
        x: of the shape, dtype and layout of the input; overlaps nothing.
        weight, bias: of each sample ``(B, C)``, contiguous, in the computing dtype.
    """

    x: Tensor
    weight: Tensor
    bias: Tensor


class ChainNetwork(NamedTuple):
    """A multilayer perceptron of D features, n hidden layers of width H and L noise levels, in fp32.

    Attributes:
        weights: ``(H, D)``, then ``(H, H)`` for each further hidden layer, then ``(D, H)``.
        biases: ``(L, n, H)``, of the hidden layers at each level.
        head: ``(D,)``, the bias of the last layer.
        frame: ``(L, 3)``: scale, gain and pull of each level.
        mean: what the input is centred by.
        activation: its name, a key of ``fastlangevin.reference.ACTIVATIONS``.
    """

    weights: tuple[Tensor, ...]
    biases: Tensor
    head: Tensor
    frame: Tensor
    mean: float
    activation: str


class ChainUpdates(NamedTuple):
    """The updates of a chain, one after the other.

    Attributes:
        levels: int64 ``(T,)``, of each update, from 0 to L - 1.
        coefficients: fp32 ``(T, 3)``: c, a and b of each.
        noisy: bool ``(T,)``: whether an update has noise at all.
        address: of the first update's noise.
        every: after every draw whose number plus one divides by this, the state goes to the next of the frames; 0 keeps
            none.
        frames: fp32 ``(F, B, D)``, contiguous, or None.
    """

    levels: Tensor
    coefficients: Tensor
    noisy: Tensor
    address: Address
    every: int = 0
    frames: Tensor | None = None


class Run(NamedTuple):
    """Neighbouring updates of one rule at one level.

    Attributes:
        rule: c, a and b; None for b draws no noise.
        level: its number, 0 = first.
        times: how many.
    """

    rule: tuple[float, float, float | None]
    level: int
    times: int


class Segment(NamedTuple):
    """Neighbouring updates of a chain.

    Attributes:
        address: of the noise of the first update; the draws of the others follow it.
        runs: the updates.
        every: frames are kept after the updates that end at a multiple of this; 0 keeps none.
        frames: contiguous ``(F, B, ...)``, where the frames of this segment go, or None.
    """

    address: Address
    runs: list[Run]
    every: int
    frames: Tensor | None

    @property
    def length(self) -> int:
        """Returns how many updates."""
        return sum(run.times for run in self.runs)
