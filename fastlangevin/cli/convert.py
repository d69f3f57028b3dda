"""Make a checkpoint of this package from a published one of NCSN, NCSNv2, NCSNv2Deeper or NCSNv2Deepest.

The network, its width, channels and levels are read off the file. Nothing in it is run: files that hold more than
tensors, numbers, lists and dictionaries are refused.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

from fastlangevin.storage.files import check_writable
from fastlangevin.storage.published import Published, load_published


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("source", metavar="IN", type=Path, help="published file, checkpoint_<step>.pth")
    add("out", metavar="OUT", type=Path, help="file to write, .safetensors by custom")
    add("--no-ema", action="store_true", help="take the weights of the last step, not their average")
    add(
        "--sigmas",
        type=float,
        nargs="+",
        default=None,
        help="ladder, largest first, of a file that has none (NCSN); by default the published 10 levels from 1 to 0.01",
    )
    add("--size", type=int, nargs="+", default=None, help="height and width of the samples, or one side of squares")
    add("--epsilon", type=float, default=None, help="step size at the last level, the paper's convention, to be kept")
    add("--steps-per-level", type=int, default=None, help="updates for each noise level, to be kept")


def run(options: argparse.Namespace) -> int:
    source, out = options.source, options.out
    check_writable(out, "net.safetensors")
    if out.resolve() == source.resolve():
        raise ValueError(f"IN and OUT both name {out}; give another file to write")
    if options.size is not None and len(options.size) > 2:
        raise ValueError(f"--size takes one side, or height and width, got {len(options.size)} numbers")
    published = load_published(source, sigmas=options.sigmas, ema=not options.no_ema)
    metadata = _metadata(options, published)
    net = published.net
    net.save_pretrained(out, metadata=metadata)
    sigmas = net.sigmas.tolist()
    print(
        f"{out}: {type(net).__name__} of width {net.config.width} for {net.config.channels} channels, {len(sigmas)} "
        f"levels from {sigmas[0]:g} to {sigmas[-1]:g}; {published.entry} of {source} ({published.container})"
    )
    if "data" not in metadata:
        print("`fastlangevin sample` needs the size of the samples: convert with --size to have it kept")
    return 0


def _metadata(options: argparse.Namespace, published: Published) -> dict[str, Any]:
    net = published.net
    metadata: dict[str, Any] = {
        "published": {
            "file": options.source.name,
            "container": published.container,
            "entry": published.entry,
            "step": published.step,
        }
    }
    if options.size is not None:
        shape = [net.config.channels, options.size[0], options.size[-1]]
        if min(shape) < 1:
            raise ValueError(f"--size must be positive, got {options.size}")
        net.check_shape(torch.empty(1, *shape, dtype=torch.float32, device="meta"))
        metadata["data"] = {"shape": shape, "range": [0.0, 1.0]}
    advice = {"epsilon": options.epsilon, "steps_per_level": options.steps_per_level}
    given = {name: value for name, value in advice.items() if value is not None}
    if given:
        metadata["sampling"] = given
    return metadata
