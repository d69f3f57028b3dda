"""The options that name training data, shared by the commands that read some."""

from __future__ import annotations

import argparse
from pathlib import Path

from fastlangevin.data import Source, open_source


def add_arguments(group: argparse._ArgumentGroup, *, default: str | None) -> None:
    group.add_argument(
        "--data",
        default=default,
        help="digits (scikit-learn's 8x8 ones); mnist, cifar10, celeba (where torchvision is installed); or a folder",
    )
    group.add_argument("--root", type=Path, default=Path("data"), help="where torchvision keeps its files")
    group.add_argument("--download", action="store_true", help="let torchvision download what is not in --root")
    group.add_argument("--channels", type=int, choices=[1, 3], default=None, help="of a folder's images; as they are")
    group.add_argument("--size", type=int, default=None, help="side of a folder's or CelebA's images")


def open_named(options: argparse.Namespace) -> Source:
    try:
        return open_source(
            options.data, root=options.root, download=options.download, channels=options.channels, size=options.size
        )
    except ImportError as error:
        raise RuntimeError(str(error)) from error
