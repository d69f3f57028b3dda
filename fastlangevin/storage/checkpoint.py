"""Checkpoints: one safetensors file, the weights with a JSON description in its header. Nothing is ever unpickled.

The description names the network's class and sizes, the ladder, the stream version of the noise, and whatever the
caller adds: the data's shape and range, how the network was trained, recommended sampling settings. The file's format,
with a SHA-256 for everything, is that of :mod:`fastlangevin.container`.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastlangevin.ladders import Sigmas, check_sigmas
from fastlangevin.models import (
    MLP,
    NCSN,
    ConvConfig,
    ConvScore,
    MLPConfig,
    NCSNConfig,
    NCSNv2,
    NCSNv2Config,
    NCSNv2Deeper,
    NCSNv2Deepest,
)
from fastlangevin.models.base import ScoreNet
from fastlangevin.models.shell import shell, unfilled
from fastlangevin.noise import STREAM_VERSION
from fastlangevin.storage import container
from fastlangevin.storage.container import DamagedError
from fastlangevin.storage.generations import read_numbered

__all__ = ["Checkpoint", "load", "save"]

FORMAT_VERSION = 2
FIELDS = {"format", "stream_version", "network", "config", "sigmas", "metadata"}

# The only classes that a file can ask for: nothing is imported by name.
NETWORKS: dict[str, tuple[Callable[..., ScoreNet], type]] = {
    "ConvScore": (ConvScore, ConvConfig),
    "MLP": (MLP, MLPConfig),
    "NCSN": (NCSN, NCSNConfig),
    "NCSNv2": (NCSNv2, NCSNv2Config),
    "NCSNv2Deeper": (NCSNv2Deeper, NCSNv2Config),
    "NCSNv2Deepest": (NCSNv2Deepest, NCSNv2Config),
}
# What a wrong description may raise in building a network.
_SENSELESS = (TypeError, ValueError, KeyError, RuntimeError, OverflowError, RecursionError)


@dataclass(frozen=True)
class Checkpoint:
    """The contents of a file.

    Attributes:
        net: the network with its weights, in the dtype they were saved in, on the CPU, in evaluation mode.
        sigmas: ladder ``(L,)`` in the units of the data, largest first.
        metadata: the caller's description, as given to :func:`save`.
    """

    net: ScoreNet
    sigmas: Tensor
    metadata: dict[str, Any]


def save(
    path: str | os.PathLike[str],
    net: ScoreNet,
    sigmas: Sigmas | None = None,
    *,
    metadata: Mapping[str, Any] | None = None,
) -> None:
    """Writes a network to one file: first beside it, then moved into its place, so that no half file is ever there.

    Args:
        path: file to write, replaced if it exists; ``.safetensors`` by custom.
        net: a network of this package.
        sigmas: its ladder; must equal ``net.sigmas``, which is the default.
        metadata: JSON-like description: data, training record, sampling settings.

    Raises:
        TypeError: the network or the metadata cannot be described, or the network is of several dtypes.
        RuntimeError: the file could not be written; what stood at ``path`` is untouched.
        ValueError: ``sigmas`` is not the ladder of the network.
    """
    name = type(net).__name__
    if name not in NETWORKS or type(net) is not NETWORKS[name][0]:
        raise TypeError(
            f"net must be one of {', '.join(NETWORKS)}, got {name}; unwrap it first (net.module, net._orig_mod), and "
            "save a network of your own with fastlangevin.container.write"
        )
    dtype = _dtype_of(net.state_dict())
    # A network has its ladder in fp32, and in another dtype after net.to(dtype).
    if sigmas is not None and not torch.equal(
        torch.tensor(check_sigmas(sigmas), dtype=torch.float32, device="cpu").to(dtype), net.sigmas.cpu()
    ):
        raise ValueError("sigmas differ from net.sigmas, the ladder that the network was built with; leave them out")
    container.check_json("metadata", metadata or {})
    description = {
        "format": FORMAT_VERSION,
        "stream_version": STREAM_VERSION,
        "network": name,
        "config": dataclasses.asdict(net.config),
        "sigmas": net.sigmas.tolist(),
        "metadata": dict(metadata or {}),
    }
    try:
        container.write(path, net.state_dict(), description)
    except OSError as error:
        raise RuntimeError(str(error.strerror or error)) from error


def load(path: str | os.PathLike[str], fallback: bool = False) -> Checkpoint:
    """Reads a network; every byte of weights and description is checked before it is used.

    Args:
        path: file that :func:`save` wrote.
        fallback: where the file is damaged and has a number, ``net-0000002000.safetensors``, take the newest readable
            one with a smaller number beside it, with a warning in the log that names what was skipped.

    Returns:
        The network, its ladder and its description.

    Raises:
        ValueError: the file is not a checkpoint of this package, is damaged, belongs to a newer version, has another
            ladder in its description than among its tensors, or holds weights that are not finite:
            ``fastlangevin.container.read`` gives the tensors of such a file.
        RuntimeError: the file cannot be read.
    """
    try:
        source, tensors, description = read_numbered(Path(path), fallback)
    except DamagedError as error:
        raise _refused(error.path, error.why) from error
    except OSError as error:
        raise RuntimeError(str(error.strerror or error)) from error
    missing = FIELDS - description.keys()
    if missing:
        raise _refused(source, f"its description lacks {', '.join(sorted(missing))}")
    if description["format"] != FORMAT_VERSION or description["stream_version"] != STREAM_VERSION:
        raise ValueError(
            f"{source} has format {description['format']} and stream version {description['stream_version']}, this "
            f"fastlangevin reads {FORMAT_VERSION} and {STREAM_VERSION}; use the version that wrote it"
        )
    net = _build(source, description, tensors)
    return Checkpoint(net, net.sigmas, description["metadata"])


def _refused(source: Path, why: str) -> ValueError:
    return ValueError(
        f"{source} is not a checkpoint of fastlangevin, or it is damaged ({why}); fetch or write it again with "
        "net.save_pretrained or fastlangevin.checkpoint.save (pickled .pth files are never read; of published ones "
        "`fastlangevin convert` makes a checkpoint)"
    )


def _build(source: Path, description: dict[str, Any], tensors: dict[str, Tensor]) -> ScoreNet:
    name, metadata = description["network"], description["metadata"]
    if not isinstance(metadata, dict):
        raise _refused(source, f"its metadata is a {type(metadata).__name__}")
    if not isinstance(name, str) or name not in NETWORKS:
        raise ValueError(
            f"{source} holds a network of class {name!r}, this fastlangevin has {', '.join(NETWORKS)}; update the "
            "package"
        )
    network, config = NETWORKS[name]
    try:
        sizes = config(**description["config"])
        _check_ladder(description["sigmas"], tensors)
        dtype = _dtype_of(tensors)
        _check_count(sizes, len(tensors))
        # The ladder of NCSN is no part of its weights.
        ladder = check_sigmas(tensors.get("sigmas", description["sigmas"]))
        # First without memory: what a description claims is taken only where the file has it.
        check_fit(tensors, shell(lambda: network(ladder, sizes)).to(dtype).state_dict())
        net = unfilled(lambda: network(ladder, sizes)).to(dtype)
        net.load_state_dict(tensors)
    except _SENSELESS as error:
        raise ValueError(f"{source} does not describe its own weights: {error}; write it again") from error
    _check_finite(source, tensors)
    return net.eval()


def _check_ladder(described: Any, tensors: Mapping[str, Tensor]) -> None:
    """Raises where the description has another ladder than the weights, of which it is a part in most networks."""
    if "sigmas" not in tensors:
        return
    kept = tensors["sigmas"].tolist()
    if described == kept:
        return
    where = f"{described!r:.80}"
    if isinstance(described, list) and isinstance(kept, list):
        pairs = zip(described, kept, strict=False)
        unlike = next((index for index, (one, other) in enumerate(pairs) if one != other), None)
        where = f"{len(described)} levels for {len(kept)}"
        if unlike is not None:
            where = f"sigmas[{unlike}] = {described[unlike]!r:.80} for {kept[unlike]}"
    raise ValueError(f"the ladder of its description must be that of its tensor sigmas, but has {where}")


def _check_finite(source: Path, tensors: Mapping[str, Tensor]) -> None:
    """Raises where a weight is NaN or infinite: every sample would be."""
    for name, tensor in tensors.items():
        finite = tensor.isfinite()
        if not finite.all():
            bad = tensor[~finite]
            raise ValueError(
                f"{source} holds weights that are not finite: {name} has {bad.numel()} of {tensor.numel()} such values,"
                f" first {bad[0].item()}; its training diverged: take a checkpoint from before that, or see the "
                "tensors as they are with fastlangevin.container.read"
            )


def _dtype_of(tensors: Mapping[str, Tensor]) -> torch.dtype:
    """The floating dtype of a network's tensors; raises TypeError where there is none, or several."""
    dtypes = {tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()}
    if len(dtypes) != 1:
        found = ", ".join(sorted(map(str, dtypes))) or "none"
        raise TypeError(f"a network's tensors must be of one floating dtype, got {found}; convert it with net.float()")
    return dtypes.pop()


def _check_count(sizes: object, tensors: int) -> None:
    """Raises where a network would have more layers than the file has tensors: even empty ones take memory."""
    layers = 0
    if isinstance(sizes, MLPConfig):
        layers = sizes.depth
    elif isinstance(sizes, ConvConfig):
        layers = sizes.blocks * len(sizes.widths)
    if layers > tensors:
        raise ValueError(f"it is to have {layers} layers, and there are {tensors} tensors")


def check_fit(given: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    """Raises ValueError unless tensors have the names, shapes and dtypes of those of a network."""
    wrong = sorted(given.keys() ^ wanted.keys())
    wrong += [
        name
        for name, tensor in given.items()
        if name in wanted and (tensor.shape, tensor.dtype) != (wanted[name].shape, wanted[name].dtype)
    ]
    if wrong:
        raise ValueError(f"{len(wrong)} tensors are missing, unknown or of another shape, the first is {wrong[0]!r}")
