"""Data by name, for the command line."""

from __future__ import annotations

import os

from fastlangevin.data.folder import Folder
from fastlangevin.data.handwritten import digits
from fastlangevin.data.source import Source
from fastlangevin.data.vision import celeba, cifar10, mnist

__all__ = ["NAMES", "open_source"]

NAMES = ("digits", "mnist", "cifar10", "celeba")


def open_source(
    spec: str,
    *,
    root: str | os.PathLike[str] = "data",
    download: bool = False,
    channels: int | None = None,
    size: int | None = None,
) -> Source:
    """Training data by name.

    Args:
        spec: ``"digits"``, ``"mnist"``, ``"cifar10"``, ``"celeba"``, or the path of a folder of images; ``./mnist`` is
            a folder.
        root: where torchvision keeps its data.
        download: let torchvision fetch what is not there.
        channels: of a folder's images, as for :class:`Folder`.
        size: side of a folder's or CelebA's images.

    Returns:
        The source.

    Raises:
        ValueError: there is no such data, or an option that they do not have.
        ImportError, RuntimeError: what they come with is not installed.
    """
    if spec in NAMES:
        if channels is not None:
            raise ValueError(f"channels is for folders of images, not for {spec}; leave it out")
        if size is not None and spec != "celeba":
            raise ValueError(f"size is for folders of images and celeba, not for {spec}; leave it out")
        if spec == "digits":
            return digits("train")
        if spec == "celeba":
            return celeba(root, download=download, size=32 if size is None else size)
        return {"mnist": mnist, "cifar10": cifar10}[spec](root, download=download)
    if not os.path.isdir(spec):
        raise ValueError(f"data must be {', '.join(NAMES)} or a folder of images, got {spec!r}, which is no folder")
    return Folder(spec, channels=channels, size=size)
