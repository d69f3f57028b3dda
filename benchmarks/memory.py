"""The most memory that a call has in use at a time."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path

import torch

__all__ = ["extra_bytes"]


def extra_bytes(call: Callable[[], object], device: torch.device) -> int:
    """Bytes in use at the worst moment of a call, beyond those before it; its results are among them."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        results = call()
        torch.cuda.synchronize(device)
        peak = torch.cuda.max_memory_allocated(device)
    else:
        # Writing 5 sets the kernel's high-water mark of this process back to what it uses now.
        Path("/proc/self/clear_refs").write_text("5")
        before = _status("VmRSS")
        results = call()
        peak = _status("VmHWM")
    del results
    return peak - before


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))
