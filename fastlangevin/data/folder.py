"""A folder of images."""

from __future__ import annotations

import os
import struct
from pathlib import Path

from PIL import Image
from torch import Tensor

from fastlangevin.data.decoding import GREY_MODES, MODES, pixels
from fastlangevin.data.source import BYTE_GREYS, SampleError, Source
from fastlangevin.noise import integer

__all__ = ["SUFFIXES", "Folder"]

SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
# What Pillow raises for a file that is damaged, depending on its format and on where the damage is.
DAMAGE = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)


class Folder(Source):
    """The images in a folder and those below it, in the order of their paths; hidden files are left out.

    All headers are read when the folder is opened, so that images of another size are found before training begins;
    pixels are read when they are asked for.

    Args:
        folder: holds PNG, JPEG, BMP, TIFF, WebP, PGM or PPM files of 8 bits a channel.
        channels: 1 (grey) or 3 (RGB), to which all are converted; None: as the first file. Transparency is dropped.
        size: cut each to a square about its centre and bring it to this side, antialiased; None: all have one size.

    Raises:
        ValueError: there are no images, one cannot be read, or one has another size; the message names the file.
        SampleError: when an image is read whose pixels are damaged.
    """

    greys = BYTE_GREYS

    def __init__(self, folder: str | os.PathLike[str], *, channels: int | None = None, size: int | None = None) -> None:
        root = Path(folder)
        if channels not in (None, 1, 3):
            raise ValueError(f"channels must be 1 (grey), 3 (RGB) or None (as the first file), got {channels!r}")
        self.size = None if size is None else integer("size", size, 1, 2**15)
        if not root.is_dir():
            raise ValueError(f"{root} is not a folder; give one that holds images")
        self.name = root.resolve().name
        self.paths = _image_files(root)
        if not self.paths:
            raise ValueError(f"{root} holds no images; it needs files that end in {', '.join(sorted(SUFFIXES))}")
        first_mode, first_size = _header(self.paths[0])
        self.channels = channels or (1 if first_mode in GREY_MODES else 3)
        for path in self.paths[1:]:
            _, found = _header(path)
            if self.size is None and found != first_size:
                raise ValueError(
                    f"{path} is {found[0]} x {found[1]} pixels, but {self.paths[0]} is {first_size[0]} x "
                    f"{first_size[1]}; give size= (--size) to bring all images to one, or take it out of the folder"
                )
        width, height = first_size if self.size is None else (self.size, self.size)
        self.shape = (self.channels, height, width)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        path = self.paths[index]
        try:
            with Image.open(path) as image:
                x = pixels(image, self.channels, self.size)
        except DAMAGE as error:
            raise SampleError(_unreadable(path, error)) from error
        if tuple(x.shape) != self.shape:
            raise SampleError(f"{path} has changed: it is now {tuple(x.shape)}, and was {self.shape}; put it back")
        return x


def _image_files(root: Path) -> list[str]:
    """Sorted by their paths below the root, so that the order is the same on every machine."""
    found = []
    for where, folders, files in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [
            Path(where, name)
            for name in files
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in SUFFIXES
        ]
    return [str(path) for path in sorted(found, key=lambda path: path.relative_to(root).as_posix())]


def _header(path: str) -> tuple[str, tuple[int, int]]:
    try:
        with Image.open(path) as image:
            mode, size = image.mode, image.size
    except DAMAGE as error:
        raise ValueError(_unreadable(path, error)) from error
    if mode not in MODES:
        raise ValueError(f"{path} has pixels of mode {mode}, not of 8 bits a channel; convert it to grey or RGB")
    return mode, size


def _unreadable(path: str, error: Exception) -> str:
    return f"cannot read {path}: {error}; put a whole image in its place, or take it out of the folder"
