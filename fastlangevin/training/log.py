"""The log of a run: one line of JSON every few steps, and the sums that the next line is made of."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastlangevin.storage.files import open_regular, write_whole

__all__ = ["Log", "Window"]

MAX_LINE = 2**22  # bytes, room for some 100,000 levels; no more is read of a line that is longer


class Window:
    """Losses since the last line of the log, step by step and level by level, on the device.

    Nothing is read from the device until a line is due, so that the host need not wait at every step.

    Args:
        length: steps of a line.
        levels: of the ladder, L; 0 where the objective does not tell them apart.
        device: of the losses.
    """

    def __init__(self, length: int, levels: int, device: torch.device) -> None:
        self.steps = 0
        self.losses = torch.zeros(length, dtype=torch.float64, device=device)
        self.norms = torch.zeros(length, dtype=torch.float64, device=device)
        self.sums = torch.zeros(length, levels, dtype=torch.float64, device=device)
        self.counts = torch.zeros(length, levels, dtype=torch.float64, device=device)

    def add(self, loss: Tensor, sums: Tensor, counts: Tensor, norm: Tensor) -> None:
        """Enters a step: its loss and gradient norm ``()``, and the sums and counts of its levels ``(L,)``."""
        row = self.steps
        self.losses[row], self.norms[row], self.sums[row], self.counts[row] = loss, norm, sums, counts
        self.steps += 1

    def clear(self) -> None:
        self.steps = 0

    def tensors(self) -> dict[str, Tensor]:
        """The rows that are filled, for a saved state."""
        named = {"losses": self.losses, "norms": self.norms, "sums": self.sums, "counts": self.counts}
        return {name: value[: self.steps] for name, value in named.items()}

    def check_fit(self, tensors: dict[str, Tensor]) -> None:
        """Raises ValueError unless these are what :meth:`tensors` can return."""
        whole = {"losses": self.losses, "norms": self.norms, "sums": self.sums, "counts": self.counts}
        if tensors.keys() != whole.keys():
            raise ValueError(f"the window of its log has {', '.join(tensors)}")
        rows = len(tensors["losses"]) if tensors["losses"].ndim else 0
        for name, value in tensors.items():
            if value.dtype != torch.float64 or value.shape != (rows, *whole[name].shape[1:]) or rows > len(self.losses):
                raise ValueError(f"{name} of its log is {value.dtype} of shape {tuple(value.shape)}")

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Goes back to what :meth:`tensors` returned."""
        self.steps = tensors["losses"].shape[0]
        for name, value in tensors.items():
            getattr(self, name)[: self.steps] = value

    def check(self, first_step: int, norms: bool = True) -> None:
        """Raises where a loss, or with ``norms`` a gradient, is not finite; the first row is step ``first_step``."""
        losses, gradients = self.losses[: self.steps], self.norms[: self.steps]
        finite = losses.isfinite() & gradients.isfinite() if norms else losses.isfinite()
        if bool(finite.all()):
            return
        row = int(finite.logical_not().nonzero()[0])
        bad = self.sums[row].isfinite().logical_not().nonzero().flatten().tolist()
        where = f" at level {', '.join(map(str, bad))} (0 = largest sigma)" if bad else ""
        what = "loss" if not losses[row].isfinite() else "norm of the gradient"
        value = losses[row] if what == "loss" else gradients[row]
        raise RuntimeError(
            f"the {what} is {value.item()} at step {first_step + row}{where}; lower lr or raise warmup, clip the "
            "gradient, and check that the data are finite"
        )

    def line(self, step: int, rate: float) -> dict[str, Any]:
        """The contents of a log line; ``step`` is the number of steps made."""
        losses, norms = self.losses[: self.steps], self.norms[: self.steps]
        # A step that a gradient scaler skips has a norm that is not finite, and JSON has no word for it.
        finite = norms[norms.isfinite()]
        norm = finite.mean().item() if finite.numel() else None
        line: dict[str, Any] = {"step": step, "loss": losses.mean().item(), "lr": rate, "gradient_norm": norm}
        if self.sums.shape[1]:
            sums, counts = self.sums[: self.steps].sum(0), self.counts[: self.steps].sum(0)
            line["levels"] = [None if math.isnan(mean) else mean for mean in (sums / counts).tolist()]
            line["samples"] = counts.long().tolist()
        return line


def _checked(line: Any, before: list[dict[str, Any]]) -> dict[str, Any]:
    """Raises ValueError unless a line is one that :meth:`Window.line` makes, and of the kind of those before it."""
    if not isinstance(line, dict) or not {"step", "loss", "lr", "gradient_norm"} <= line.keys():
        raise ValueError("it is no line of a log")
    levels, samples = line.get("levels", []), line.get("samples", [])
    if not isinstance(levels, list) or not isinstance(samples, list) or len(levels) != len(samples):
        raise ValueError("its levels and their samples are no lists of one length")
    if before and (line.keys() != before[0].keys() or len(levels) != len(before[0].get("levels", []))):
        raise ValueError("it has other entries than the lines before it")
    if before and not (type(line["step"]) is int and line["step"] > before[-1]["step"]):
        raise ValueError("its step does not come after the one before")
    if any(type(count) is not int or not 0 <= count < 2**63 for count in (line["step"], *samples)):
        raise ValueError("its counts are no integers of 64 bits")
    # A level without samples has no mean, and a gradient scaler can skip every step of a line.
    numbers = [line["loss"], line["lr"], 0.0 if line["gradient_norm"] is None else line["gradient_norm"]]
    numbers += [mean for mean, count in zip(levels, samples, strict=True) if count or mean is not None]
    if not all(type(number) is float and math.isfinite(number) for number in numbers):
        raise ValueError("it has something else than finite numbers")
    return line


class Log:
    """A file of JSON lines.

    Args:
        path: of the file.
        steps: how much of it stands: lines of later steps are dropped, for a run that goes on from a saved state.

    Raises:
        ValueError: it is not the log of a run, or not a file.
        OSError: it cannot be read or written.
    """

    def __init__(self, path: Path, steps: int) -> None:
        self.path = path
        self.lines: list[dict[str, Any]] = []
        if path.exists():
            with open_regular(path) as file:
                while text := file.readline(MAX_LINE):
                    try:
                        line = _checked(json.loads(text), self.lines)
                        if line["step"] > steps:
                            break
                    except (ValueError, RecursionError):
                        if not self.lines and steps == 0:
                            raise ValueError(f"{path} is not the log of a run; give the run another folder") from None
                        break  # a kill can leave the last line cut short; it is made again
                    self.lines.append(line)
        write_whole(path, "".join(json.dumps(line) + "\n" for line in self.lines).encode())

    def write(self, line: dict[str, Any]) -> None:
        """Appends a line."""
        self.lines.append(line)
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def flush(self) -> None:
        """Returns when every line is on the disk."""
        with open_regular(self.path) as file:
            os.fsync(file.fileno())
