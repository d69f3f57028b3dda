"""Readers for the checkpoints that were published with the standard networks.

They are pickles of lists, dictionaries, numbers and tensors, and are opened with ``torch.load(weights_only=True)`` and
in no other way: a file that holds anything else is refused, since opening it would run code from the file.

| container | content | weights that are used |
|---|---|---|
| NCSN list | model state, Adam's state | entry 0 |
| NCSNv2 list | model state, Adam's state, epoch, step, and the EMA weights where they were kept | entry 4, else 0 |
| score_sde dictionary | ``model``, ``ema``, ``optimizer``, ``step`` | ``ema``, else ``model`` |
| state dictionary | model state | the file itself |

Keys of the model state may carry the prefix ``module.``, which is taken off if all of them have it.
"""

from __future__ import annotations

import os
import pickle
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastlangevin.ladders import Sigmas, check_sigmas, geometric_sigmas
from fastlangevin.models import NCSN, NCSNv2, NCSNv2Deeper, NCSNv2Deepest
from fastlangevin.models.shell import shell, unfilled
from fastlangevin.models.standard import Sizes, StandardNet
from fastlangevin.storage.files import open_regular

__all__ = ["Published", "load_published"]

NETWORKS: tuple[type[StandardNet], ...] = (NCSN, NCSNv2, NCSNv2Deeper, NCSNv2Deepest)
# All checkpoints published of NCSN, which do not say so themselves.
NCSN_LADDER = (1.0, 0.01, 10)

_NAMES = ", ".join(kind.__name__ for kind in NETWORKS)
_PREFIX = "module."


@dataclass(frozen=True)
class Published:
    """A published network.

    Attributes:
        net: with its weights and its ladder ``net.sigmas``, in fp32 on the CPU, in evaluation mode.
        container: kind of the file, ``"NCSNv2 list of 5"``.
        entry: which of its entries the weights are, ``"EMA weights, entry 4"``.
        step: training steps behind them, where the file says so.
    """

    net: StandardNet
    container: str
    entry: str
    step: int | None


class _Parts(NamedTuple):
    """The useful entries of a container, named as the errors and the result name them."""

    container: str
    state: Any
    state_entry: str
    average: Any = None
    average_entry: str = ""
    step: Any = None


def load_published(
    path: str | os.PathLike[str],
    network: type[StandardNet] | None = None,
    *,
    config: Sizes | None = None,
    sigmas: Sigmas | None = None,
    ema: bool = True,
) -> Published:
    """Reads a published checkpoint of NCSN, NCSNv2, NCSNv2Deeper or NCSNv2Deepest.

    Args:
        path: the file, ``checkpoint_<step>.pth``.
        network: class of the network; told from the keys by default.
        config: its sizes; read off the shapes by default. A network for images in logit space or in [-1, 1] needs one
            with ``rescale=False``, which no shape shows.
        sigmas: its ladder, largest first. NCSN's files have none of their own: for 10 levels the published one, from 1
            to 0.01, is the default, for others it must be given. So it must for parameters that were saved alone, as
            averages of them (EMA) are.
        ema: whether averaged weights are taken where the file has them.

    Returns:
        The network, and what was read of the file.

    Raises:
        ValueError: the file is damaged, of another container, holds Python objects, or does not fit the network; all
            keys that do not fit are named.
        RuntimeError: the file cannot be read.
        TypeError: ``network`` is none of the published classes.
    """
    source = Path(path)
    if network is not None and network not in NETWORKS:
        raise TypeError(f"network must be one of {_NAMES}, got {getattr(network, '__name__', network)!r}")
    parts = _unpack(source, _read(source))
    state = _tensors(source, parts.state_entry, parts.state)
    kind = network or _kind(state)
    first = state.get("begin_conv.weight")
    if first is None or first.ndim != 4:
        raise ValueError(
            f"{source} holds no network of {_NAMES}: its {parts.state_entry} has no weight of begin_conv, but "
            f"{', '.join(list(state)[:5])}{', ...' if len(state) > 5 else ''}"
        )
    try:
        sizes = kind.CONFIG(channels=first.shape[1], width=first.shape[0]) if config is None else config
        ladder = check_sigmas(_ladder(kind, state, sigmas))
        # First without memory: what one shape claims is taken only where the file has all the others.
        empty = shell(lambda: kind(ladder, sizes))
    except ValueError as error:
        raise ValueError(f"{source} cannot be made a network of class {kind.__name__}: {error}") from error
    arguments = {"network": network, "config": config, "sigmas": sigmas}
    asked = [name for name, value in arguments.items() if value is not None]
    _check_fit(source, parts.state_entry, state, empty, empty.state_dict(), asked)
    net = unfilled(lambda: kind(ladder, sizes)).float()
    net.load_state_dict(state)
    entry = parts.state_entry
    if ema and parts.average is not None:
        entry = parts.average_entry
        _load_average(source, parts, net)
    step = parts.step if type(parts.step) is int else None
    return Published(net.eval(), parts.container, entry, step)


def _read(source: Path) -> Any:
    try:
        file = open_regular(source)
    except OSError as error:
        raise RuntimeError(str(error.strerror)) from error
    try:
        with file:
            _check_archive(file)
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # of a damaged pickle come errors of all kinds: IndexError, OSError (EINVAL), ...
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        if named and isinstance(error, pickle.UnpicklingError):
            raise ValueError(
                f"{source} holds Python objects ({named[1]}), not only tensors, numbers, lists and dictionaries: "
                "opening it would run code from the file, so it is refused; have its author save net.state_dict()"
            ) from error
        raise ValueError(
            f"{source} is no file of torch.save, or it is damaged ({type(error).__name__}); fetch it again. Networks "
            "of this package are read with fastlangevin.checkpoint.load"
        ) from error


def _check_archive(file: BufferedReader) -> None:
    """Raises where a zip file unpacks to more than it is long; torch.save does not compress, a bomb does."""
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                raise ValueError("it is compressed")
    file.seek(0)


def _unpack(source: Path, content: Any) -> _Parts:
    if isinstance(content, list | tuple):
        count = len(content)
        if count == 2:
            return _Parts("NCSN list of 2", content[0], "model state, entry 0")
        if count in (4, 5):
            # The last of four entries is the step.
            average = content[4] if count == 5 else None
            return _Parts(
                f"NCSNv2 list of {count}",
                content[0],
                "model state, entry 0",
                average,
                "EMA weights, entry 4",
                content[3],
            )
        found = f"a list of {count}"
        if count and all(isinstance(value, Tensor) for value in content):
            found += " tensors without names, as averages of weights (EMA) are kept"
    elif isinstance(content, Mapping) and isinstance(content.get("model"), Mapping):
        average = content.get("ema")
        shadow = average.get("shadow_params") if isinstance(average, Mapping) else None
        return _Parts(
            "score_sde dictionary",
            content["model"],
            "model state, entry 'model'",
            shadow,
            "EMA weights, entry 'ema'",
            content.get("step"),
        )
    elif isinstance(content, Mapping) and content and all(isinstance(value, Tensor) for value in content.values()):
        return _Parts("state dictionary", content, "model state, the file itself")
    elif isinstance(content, Mapping) and "shadow_params" in content:
        raise ValueError(
            f"{source} holds averaged weights alone, the state of an exponential moving average (EMA) with the keys "
            f"{', '.join(map(repr, list(content)[:8]))}: its tensors have no names, and the ladder is not among them; "
            "give the checkpoint whose entry 'ema' it was"
        )
    elif isinstance(content, Mapping):
        found = f"a dictionary with the keys {', '.join(map(repr, list(content)[:8]))}"
    else:
        found = f"a {type(content).__name__}"
    raise ValueError(
        f"{source} holds {found}; known are NCSN's list of 2, NCSNv2's list of 4 or 5, score_sde's dictionary with "
        "'model', and a dictionary of tensors"
    )


def _tensors(source: Path, entry: str, state: Any) -> dict[str, Tensor]:
    """The tensors of a state, without the prefix."""
    if not isinstance(state, Mapping) or not all(isinstance(key, str) for key in state):
        raise ValueError(f"{source}: its {entry} must be a dictionary of tensors by name, got {type(state).__name__}")
    for key, value in state.items():
        _check_tensor(source, entry, key, value)
    if all(key.startswith(_PREFIX) for key in state):
        return {key.removeprefix(_PREFIX): value for key, value in state.items()}
    return dict(state)


def _check_tensor(source: Path, entry: str, key: str, value: Any) -> None:
    if (
        not isinstance(value, Tensor)
        or value.layout != torch.strided
        or not value.dtype.is_floating_point
        or value.device.type != "cpu"
        # A view that repeats its elements can claim any size.
        or value.nbytes > value.untyped_storage().nbytes()
    ):
        kind = f"{value.dtype}, {value.layout}" if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(f"{source}: {key} of its {entry} must be a dense tensor of floating-point numbers, got {kind}")
    if not value.isfinite().all():
        raise ValueError(f"{source}: {key} of its {entry} has values that are not finite; fetch the file again")


def _kind(state: Mapping[str, Tensor]) -> type[StandardNet]:
    if any(key.endswith(".embed.weight") for key in state):
        return NCSN
    for start, kind in (("res31.", NCSNv2Deepest), ("res5.", NCSNv2Deeper)):
        if any(key.startswith(start) for key in state):
            return kind
    return NCSNv2


def _ladder(kind: type[StandardNet], state: dict[str, Tensor], sigmas: Sigmas | None) -> Sigmas:
    """The ladder to build with: the file's own, which must not contradict the caller's."""
    own: Tensor | None = state.get("sigmas")
    if kind is NCSN:
        # In score_sde's dictionaries this network has one too.
        state.pop("sigmas", None)
    if sigmas is not None:
        wanted = torch.tensor(check_sigmas(sigmas), dtype=torch.float64, device="cpu")
        if own is None and kind is not NCSN:
            state["sigmas"] = wanted
        # Ladders of the same definition can differ in a rounding of fp32. Of another length, the keys will tell.
        if own is not None and own.shape == wanted.shape and not torch.allclose(own.double(), wanted.double(), 1e-5, 0):
            raise ValueError("sigmas differ from the ladder in the file; leave them out to take that")
        return wanted if own is None or own.shape != wanted.shape else own
    if own is not None:
        return own
    table = state.get("normalizer.embed.weight")
    if table is not None and table.ndim and len(table) != NCSN_LADDER[2]:
        raise ValueError(
            f"it has {len(table)} levels and does not say which; give sigmas=, as geometric_sigmas({NCSN_LADDER[0]}, "
            f"{NCSN_LADDER[1]}, {len(table)}) makes them"
        )
    return geometric_sigmas(*NCSN_LADDER)


def _load_average(source: Path, parts: _Parts, net: StandardNet) -> None:
    """Overwrites the parameters by their averages, which have names, or are in the order of the parameters."""
    parameters = dict(net.named_parameters())
    if isinstance(parts.average, list):
        names = [name for name, parameter in parameters.items() if parameter.requires_grad]
        if len(names) != len(parts.average):
            raise ValueError(
                f"{source}: its {parts.average_entry} have {len(parts.average)} tensors, {type(net).__name__} has "
                f"{len(names)} parameters; ema=False takes the weights of the last step"
            )
        average = _tensors(source, parts.average_entry, dict(zip(names, parts.average, strict=True)))
    else:
        average = _tensors(source, parts.average_entry, parts.average)
    _check_fit(source, parts.average_entry, average, net, parameters, ["ema"])
    net.load_state_dict(average, strict=False)


def _check_fit(
    source: Path,
    entry: str,
    given: Mapping[str, Tensor],
    net: StandardNet,
    wanted: Mapping[str, Tensor],
    asked: Sequence[str],
) -> None:
    """Raises if keys or shapes differ, naming all that do; ``asked`` are the caller's arguments that may be why."""
    differences = [
        f"{key} is {tuple(given[key].shape)} where {tuple(value.shape)} is wanted"
        for key, value in wanted.items()
        if key in given and given[key].shape != value.shape
    ]
    differences += [f"{key} is missing" for key in wanted if key not in given]
    differences += [f"{key} is unknown" for key in given if key not in wanted]
    if not differences:
        return
    mend = "It is of another network, or parts of it are lost; fetch the file again"
    if differences == ["sigmas is missing"]:
        mend = (
            "These are parameters without a ladder, as averages of weights (EMA) are saved alone; give sigmas=, or the "
            "checkpoint that they are from"
        )
    elif "ema" in asked:
        mend = "Leave the averages by ema=False, which takes the weights of the last step"
    elif list(asked) == ["sigmas"]:
        mend = "Leave sigmas out to have it read off the file"
    elif asked:
        mend = "Leave network, config and sigmas out to have them read off the file"
    raise ValueError(
        f"{source} does not fit {type(net).__name__} with {net.config} and {net.sigmas.numel()} levels: of its "
        f"{entry}, {len(differences)} keys differ: {'; '.join(differences)}. {mend}"
    )
