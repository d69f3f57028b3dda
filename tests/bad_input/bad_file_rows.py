"""Bad files and bad places for them: checkpoints and the states of chains."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import torch
from bad_call_row import INF, NAN, Row
from well_formed_calls import Arguments, conv, mlp, numbers, saved

from fastlangevin.storage import checkpoint, container


def _with(path: Path, content: bytes) -> Arguments:
    """The arguments that read a damaged copy."""
    damaged = path.with_name("damaged")
    damaged.write_bytes(content)
    return {"path": damaged}


def _flipped(path: Path, position: int) -> Arguments:
    content = bytearray(path.read_bytes())
    content[position] ^= 0x40
    return _with(path, bytes(content))


def _below_a_file(path: Path) -> Arguments:
    (path.parent / "file").write_text("no folder")
    return {"path": path.parent / "file" / path.name}


def _folder(path: Path) -> Arguments:
    (path.parent / "folder").mkdir()
    return {"path": path.parent / "folder"}


def _rewritten(path: Path, change: Callable[[Arguments], object]) -> Arguments:
    """A checkpoint whose description was changed, with the right hashes: written by another version or by hand."""
    tensors, description = container.read(path)
    change(description)
    container.write(path.with_name("damaged"), tensors, description)
    return {"path": path.with_name("damaged")}


def _framed(header: object, payload: bytes) -> bytes:
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + payload


def _pipe(path: Path) -> Arguments:
    os.mkfifo(path.parent / "pipe")
    return {"path": path.parent / "pipe"}


def _with_value(path: Path, value: float) -> Arguments:
    """A checkpoint in whose last bias a value stands."""
    net = mlp()
    with torch.no_grad():
        net.head.bias[1] = value
    checkpoint.save(path.with_name("diverged"), net)
    return {"path": path.with_name("diverged")}


FILES = [
    *(
        Row(f"a {kind}", call, bad, error, ("cannot read", f"it is a {kind}", "check the path"))
        for kind, bad in (("pipe", lambda k: _pipe(k["path"])), ("device", lambda k: {"path": "/dev/zero"}))
        for call, error in (
            ("checkpoint.load", RuntimeError),
            ("chains.load", ValueError),
            ("container.read", ValueError),
            ("load_published", RuntimeError),
        )
    ),
    Row(
        "foreign net", "checkpoint.save", lambda k: {"net": torch.nn.Linear(1, 1)}, TypeError, ("net", "Linear", "MLP")
    ),
    Row(
        "other ladder", "checkpoint.save", lambda k: {"sigmas": [2.0, 1.0]}, ValueError, ("sigmas differ", "net.sigmas")
    ),
    Row("NaN in metadata", "checkpoint.save", lambda k: {"metadata": {"loss": NAN}}, TypeError, ("metadata", "finite")),
    Row(
        "tensor in metadata",
        "checkpoint.save",
        lambda k: {"metadata": {"t": numbers(1)}},
        TypeError,
        ("metadata", "Tensor"),
    ),
    Row(
        "missing folder",
        "checkpoint.save",
        lambda k: {"path": k["path"].parent / "none" / "net"},
        RuntimeError,
        ("cannot write", "none/net", "folder that exists"),
    ),
    Row(
        "below a file",
        "checkpoint.save",
        lambda k: _below_a_file(k["path"]),
        RuntimeError,
        ("cannot write", "file/net"),
    ),
    Row("a folder", "checkpoint.save", lambda k: _folder(k["path"]), RuntimeError, ("cannot write", "is a folder")),
    Row(
        "in proc",
        "checkpoint.save",
        lambda k: {"path": "/proc/net.safetensors"},
        RuntimeError,
        ("cannot write", "/proc"),
    ),
    Row(
        "missing", "checkpoint.load", lambda k: {"path": "/nowhere/net"}, RuntimeError, ("cannot read", "/nowhere/net")
    ),
    Row("a folder", "checkpoint.load", lambda k: _folder(k["path"]), RuntimeError, ("cannot read", "folder")),
    Row("empty", "checkpoint.load", lambda k: _with(k["path"], b""), ValueError, ("not a checkpoint", "damaged")),
    Row(
        "truncated",
        "checkpoint.load",
        lambda k: _with(k["path"], k["path"].read_bytes()[:-1]),
        ValueError,
        ("not a checkpoint", "damaged", "again"),
    ),
    Row(
        "cut in the header",
        "checkpoint.load",
        lambda k: _with(k["path"], k["path"].read_bytes()[:100]),
        ValueError,
        ("not a checkpoint", "ends before its header does"),
    ),
    Row(
        "longer than it should be",
        "checkpoint.load",
        lambda k: _with(k["path"], k["path"].read_bytes() + b"\0" * 8),
        ValueError,
        ("not a checkpoint", "damaged"),
    ),
    Row("a flipped weight", "checkpoint.load", lambda k: _flipped(k["path"], -3), ValueError, ("damaged", "SHA-256")),
    Row(
        "pickled",
        "checkpoint.load",
        lambda k: _with(k["path"], pickle.dumps({"weights": [1.0]})),
        ValueError,
        ("not a checkpoint", "pickled .pth files are never read"),
    ),
    Row(
        "text",
        "checkpoint.load",
        lambda k: _with(k["path"], b"weights" * 9),
        ValueError,
        ("not a checkpoint", "damaged"),
    ),
    Row(
        "other safetensors",
        "checkpoint.load",
        lambda k: _with(k["path"], _framed({}, b"")),
        ValueError,
        ("not a checkpoint", "__metadata__"),
    ),
    Row(
        "metadata of another type",
        "checkpoint.load",
        lambda k: _with(k["path"], _framed({"__metadata__": {"fastlangevin": 5, "sha256": "0"}}, b"")),
        ValueError,
        ("not a checkpoint",),
    ),
    Row(
        "without a format",
        "checkpoint.load",
        lambda k: _rewritten(k["path"], lambda description: description.pop("format")),
        ValueError,
        ("not a checkpoint", "format"),
        lambda k: _rewritten(k["path"], lambda description: None),
    ),
    Row(
        "newer format",
        "checkpoint.load",
        lambda k: _rewritten(k["path"], lambda description: description.update(format=3)),
        ValueError,
        ("format 3", "use the version that wrote it"),
        lambda k: _rewritten(k["path"], lambda description: description.update(format=2)),
    ),
    Row(
        "newer stream",
        "checkpoint.load",
        lambda k: _rewritten(k["path"], lambda description: description.update(stream_version=9)),
        ValueError,
        ("stream version 9", "use the version that wrote it"),
    ),
    Row(
        "unknown network",
        "checkpoint.load",
        lambda k: _rewritten(k["path"], lambda description: description.update(network="os.system")),
        ValueError,
        ("'os.system'", "ConvScore, MLP", "update the package"),
    ),
    Row(
        "config that does not fit the weights",
        "checkpoint.load",
        lambda k: _rewritten(k["path"], lambda description: description["config"].update(width=5)),
        ValueError,
        ("does not describe its own weights", "write it again"),
        lambda k: _rewritten(k["path"], lambda description: description["config"].update(width=4)),
    ),
    Row(
        "another ladder than the weights",
        "checkpoint.load",
        lambda k: _rewritten(k["path"], lambda description: description.update(sigmas=[1.0, 0.25])),
        ValueError,
        ("damaged", "the ladder of its description", "sigmas[1] = 0.25 for 0.5", "write it again"),
        lambda k: _rewritten(k["path"], lambda description: None),
    ),
    Row(
        "more levels than the weights",
        "checkpoint.load",
        lambda k: _rewritten(k["path"], lambda description: description["sigmas"].append(0.001)),
        ValueError,
        ("the ladder of its description", "3 levels for 2", "write it again"),
    ),
    Row(
        "no ladder",
        "checkpoint.load",
        lambda k: _rewritten(k["path"], lambda description: description.update(sigmas={"1": 2})),
        ValueError,
        ("the ladder of its description", "{'1': 2}"),
    ),
    *[
        Row(
            f"a weight is {value}",
            "checkpoint.load",
            lambda k, value=value: _with_value(k["path"], value),  # type: ignore[misc]
            ValueError,
            ("diverged holds weights", "not finite", "head.bias has 1 of 3", str(value), "container.read"),
            lambda k: _with_value(k["path"], 0.5),
        )
        for value in (NAN, INF, -INF)
    ],
    Row(
        "another class",
        "ConvScore.from_pretrained",
        lambda k: {"path": saved(k["path"].parent, mlp())},
        ValueError,
        ("class MLP", "not ConvScore", "MLP.from_pretrained"),
        lambda k: {"path": saved(k["path"].parent, conv())},
    ),
    Row("missing", "chains.load", lambda k: {"path": "/nowhere/run"}, FileNotFoundError, ("/nowhere/run", "--resume")),
    Row("a folder", "chains.load", lambda k: _folder(k["path"]), ValueError, ("folder", "is a folder")),
    Row(
        "empty", "chains.load", lambda k: _with(k["path"], b""), ValueError, ("not the state of a chain", "start again")
    ),
    Row(
        "truncated",
        "chains.load",
        lambda k: _with(k["path"], k["path"].read_bytes()[:-4]),
        ValueError,
        ("damaged", "delete it and start again"),
    ),
    Row("a flipped value", "chains.load", lambda k: _flipped(k["path"], -3), ValueError, ("damaged", "SHA-256")),
    Row(
        "pickled", "chains.load", lambda k: _with(k["path"], pickle.dumps(5)), ValueError, ("not the state of a chain",)
    ),
    Row(
        "a checkpoint",
        "chains.load",
        lambda k: {"path": saved(k["path"].parent, mlp())},
        ValueError,
        ("not the state of a chain",),
    ),
    Row(
        "a description that is a list",
        "chains.load",
        lambda k: _with(k["path"], _framed({"__metadata__": {"chain": "[]", "sha256": "0"}}, b"")),
        ValueError,
        ("not the state of a chain",),
    ),
    Row("below a file", "chains.save", lambda k: _below_a_file(k["path"]), OSError, ("Not a directory", "file")),
    Row("a folder", "chains.save", lambda k: _folder(k["path"]), OSError, ("folder",)),
]
