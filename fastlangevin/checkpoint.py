"""Checkpoints: one safetensors file, the weights with a JSON description in its header. Nothing is ever unpickled.

The description names the network's class and sizes, the ladder, the stream version of the noise, a SHA-256 of each
tensor and one of the description itself, and whatever the caller adds: the data's shape and range, how the network was
trained, recommended sampling settings.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastlangevin.files import write_whole
from fastlangevin.models import MLP, ConvConfig, ConvScore, MLPConfig
from fastlangevin.models.base import ScoreNet
from fastlangevin.noise import STREAM_VERSION
from fastlangevin.schedules import Sigmas, check_sigmas

__all__ = ["Checkpoint", "load", "save"]

FORMAT_VERSION = 1
HEADER_KEY = "fastlangevin"
FIELDS = {"format", "stream_version", "network", "config", "sigmas", "metadata", "sha256"}

# The only classes that a file can ask for: nothing is imported by name.
NETWORKS: dict[str, tuple[Callable[..., ScoreNet], type]] = {
    "ConvScore": (ConvScore, ConvConfig),
    "MLP": (MLP, MLPConfig),
}


@dataclass(frozen=True)
class Checkpoint:
    """What a file holds.

    Attributes:
        net: the network with its weights, on the CPU, in evaluation mode.
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
        TypeError: the network or the metadata cannot be described.
        RuntimeError: the file could not be written; what stood at ``path`` is untouched.
    """
    payload = _encode(net, sigmas, metadata)
    try:
        write_whole(path, payload)
    except OSError as error:
        raise RuntimeError(str(error.strerror or error)) from error


def load(path: str | os.PathLike[str]) -> Checkpoint:
    """Reads a network; every byte of weights and description is checked before it is used.

    Args:
        path: file that :func:`save` wrote.

    Raises:
        ValueError: the file is not a checkpoint of this package, is damaged, or belongs to a newer version.
        RuntimeError: the file cannot be read.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load as decode

    source = Path(path)
    try:
        payload = source.read_bytes()
    except OSError as error:
        raise RuntimeError(f"cannot read {source}: {error.strerror or error}; check the path and its rights") from error
    try:
        description = _description(payload)
        tensors = decode(payload)
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"{source} is not a checkpoint of fastlangevin, or it is damaged ({error}); fetch or write it again with "
            "net.save_pretrained or fastlangevin.checkpoint.save (pickled .pth files are never read)"
        ) from error
    if description["format"] != FORMAT_VERSION or description["stream_version"] != STREAM_VERSION:
        raise ValueError(
            f"{source} has format {description['format']} and stream version {description['stream_version']}, this "
            f"fastlangevin reads {FORMAT_VERSION} and {STREAM_VERSION}; use the version that wrote it"
        )
    if description["sha256"] != {name: _digest(tensor) for name, tensor in tensors.items()}:
        raise ValueError(f"{source} is damaged: its weights do not have the SHA-256 written with them; fetch it again")
    return Checkpoint(_build(source, description, tensors), tensors["sigmas"], description["metadata"])


def _encode(net: ScoreNet, sigmas: Sigmas | None, metadata: Mapping[str, Any] | None) -> bytes:
    from safetensors.torch import save as encode

    name = type(net).__name__
    if name not in NETWORKS or type(net) is not NETWORKS[name][0]:
        raise TypeError(
            f"net must be one of {', '.join(NETWORKS)}, got {name}; unwrap it first (net.module, net._orig_mod), and "
            "save a network of your own with safetensors.torch.save_model"
        )
    if sigmas is not None and not torch.equal(
        torch.tensor(check_sigmas(sigmas), dtype=torch.float32), net.sigmas.cpu()
    ):
        raise ValueError("sigmas differ from net.sigmas, the ladder that the network was built with; leave them out")
    tensors = {key: value.detach().cpu().contiguous() for key, value in net.state_dict().items()}
    description = {
        "format": FORMAT_VERSION,
        "stream_version": STREAM_VERSION,
        "network": name,
        "config": dataclasses.asdict(net.config),
        "sigmas": net.sigmas.tolist(),
        "metadata": dict(metadata or {}),
        "sha256": {key: _digest(value) for key, value in tensors.items()},
    }
    try:
        text = json.dumps(description, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"metadata must be made of dicts, lists, strings, finite numbers, booleans and None: {error}"
        ) from error
    digest = hashlib.sha256(text.encode()).hexdigest()
    return _sorted_header(encode(tensors, {HEADER_KEY: text, "sha256": digest}))


def _sorted_header(payload: bytes) -> bytes:
    """The same file with its header in one order: safetensors writes the metadata's keys in a random one."""
    start = 8 + int.from_bytes(payload[:8], "little")
    header = json.dumps(json.loads(payload[8:start]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + payload[start:]


def _description(payload: bytes) -> dict[str, Any]:
    """The JSON description in a safetensors header: eight bytes of length, then the header itself."""
    length = int.from_bytes(payload[:8], "little")
    if len(payload) < 8 or length > len(payload) - 8:
        raise ValueError("it ends before its header does")
    header = json.loads(payload[8 : 8 + length])["__metadata__"]
    text = header[HEADER_KEY]
    if header["sha256"] != hashlib.sha256(text.encode()).hexdigest():
        raise ValueError("its description does not have the SHA-256 written with it")
    description: dict[str, Any] = json.loads(text)
    missing = FIELDS - description.keys()
    if missing:
        raise ValueError(f"its description lacks {', '.join(sorted(missing))}")
    return description


def _build(source: Path, description: dict[str, Any], tensors: dict[str, Tensor]) -> ScoreNet:
    name = description["network"]
    if name not in NETWORKS:
        raise ValueError(
            f"{source} holds a network of class {name!r}, this fastlangevin has {', '.join(NETWORKS)}; update the "
            "package"
        )
    network, config = NETWORKS[name]
    try:
        # The generator's state is the caller's: building a network draws weights that are overwritten.
        with torch.random.fork_rng(devices=[]):
            net = network(tensors["sigmas"], config(**description["config"]))
        net.load_state_dict(tensors)
    except (TypeError, ValueError, KeyError, RuntimeError) as error:
        raise ValueError(f"{source} does not describe its own weights: {error}; write it again") from error
    return net.eval()


def _digest(tensor: Tensor) -> str:
    """SHA-256 of dtype, shape and bytes."""
    digest = hashlib.sha256(f"{tensor.dtype} {list(tensor.shape)} ".encode())
    digest.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
