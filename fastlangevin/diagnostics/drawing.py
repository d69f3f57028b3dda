"""A picture of chains: traces, autocorrelation, ranks."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastlangevin.diagnostics.autocorrelation import autocorrelation
from fastlangevin.diagnostics.effective import ess
from fastlangevin.diagnostics.elements import check_trajectory, picked
from fastlangevin.diagnostics.ranks import ranks
from fastlangevin.diagnostics.rhat import split_rhat
from fastlangevin.noise import integer
from fastlangevin.storage.files import check_writable, write_whole

__all__ = ["picture"]

BINS = 20
HEIGHT = 2.4  # inches a row


def picture(
    path: str | os.PathLike[str],
    trajectory: Tensor,
    *,
    elements: Sequence[int] | None = None,
    chains: int = 4,
    max_lag: int | None = None,
) -> None:
    """Draws a few elements of the state, a row for each, as a PNG file.

    Left the traces of the first chains over the frames, under R-hat and the effective sample size of all; in the
    middle the autocorrelation, of each chain drawn and (black) over all; right how the ranks of each chain drawn lie
    among the draws of all chains: flat, at the dotted line, where the chains have one law (Vehtari et al. 2021, section
    4); a bar is cut at twice that.

    Args:
        path: of the PNG file, replaced if it exists; its folder must exist.
        trajectory: ``(F, B, ...)`` of at least 4 frames.
        elements: which to draw, counted in row-major order of the state; three, spread evenly, by default.
        chains: how many to draw, at most.
        max_lag: of the autocorrelation; by default 100 or half of the frames, whichever is less.

    Raises:
        ImportError: matplotlib is not installed.
        TypeError, ValueError: an argument is of the wrong kind or out of range, or the file cannot be written.
    """
    checked = check_trajectory(trajectory)
    numbers = _elements(elements, math.prod(checked.shape[2:]))
    shown = min(integer("chains", chains, 1, 2**31), checked.shape[1])
    frames = checked.shape[0]
    lags = min(100, frames // 2) if max_lag is None else integer("max_lag", max_lag, 1, frames - 1)
    target = Path(path)
    check_writable(target, "chains.png")
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("the picture needs matplotlib, which is not installed; pip install matplotlib") from error

    at = torch.tensor(numbers, dtype=torch.int64, device=checked.device)
    part = picked(checked, at)
    rhat, size = split_rhat(part).tolist(), ess(part).tolist()
    together = autocorrelation(part, lags).cpu()
    alone = autocorrelation(part[:, :shown], lags, keep_chains=True).cpu()
    placed = ((ranks(part.permute(2, 1, 0).double())[:, :shown] - 0.5) / part[..., 0].numel()).cpu()
    part = part[:, :shown].double().cpu()

    figure = Figure(figsize=(12, HEIGHT * len(numbers) + 0.4), layout="constrained")
    rows = figure.subplots(len(numbers), 3, squeeze=False, width_ratios=(2, 1, 1))
    for row, (trace, memory, rank) in enumerate(rows):
        trace.plot(part[:, :, row].numpy(), linewidth=0.6)
        trace.set(title=f"element {numbers[row]}: R-hat {rhat[row]:.3f}, bulk ESS {size[row]:.0f}")
        memory.plot(alone[:, :, row].numpy(), linewidth=0.6)
        memory.plot(together[:, row].numpy(), color="black", linewidth=1.2)
        memory.axhline(0, color="grey", linewidth=0.6)
        memory.set(title="autocorrelation", ylim=(min(-0.2, memory.get_ylim()[0]), 1.05))
        for chain in range(shown):
            _draw_ranks(rank, placed[row, chain], shown - 1 - chain, f"C{chain % 10}")
        rank.set(title="ranks", ylabel="chain")
        rank.set_yticks([base + 0.5 for base in range(shown)], range(shown - 1, -1, -1))
    for axes, label in zip(rows[-1], ("frame", "lag in frames", "rank among all draws"), strict=True):
        axes.set(xlabel=label)
    encoded = io.BytesIO()
    figure.savefig(encoded, format="png", dpi=100, metadata={"Software": None})
    write_whole(target, encoded.getvalue())


def _draw_ranks(axes: Any, ranks: Tensor, base: int, colour: str) -> None:
    """A histogram of shares of all draws that stands on ``base``; half a unit high is what each bin should have."""
    counts = torch.histc(ranks, BINS, 0.0, 1.0) / (2 * len(ranks) / BINS)
    edges = torch.linspace(0, 1, BINS + 1, dtype=torch.float32, device="cpu")
    axes.stairs(base + counts.clamp_max(0.98), edges, baseline=base, fill=True, color=colour, alpha=0.7)
    axes.axhline(base + 0.5, color="grey", linewidth=0.6, linestyle=":")


def _elements(elements: Sequence[int] | None, count: int) -> list[int]:
    if elements is None:
        return sorted({round(share * (count - 1)) for share in (0.0, 0.5, 1.0)})
    if isinstance(elements, str) or not isinstance(elements, Sequence) or not elements:
        raise ValueError(f"elements must be a sequence of element numbers such as (0, 10), got {elements!r}")
    return [integer("elements", each, 0, count - 1) for each in elements]
