"""A folder of images."""

from __future__ import annotations

import os
from pathlib import Path

from torch import Tensor

from fastlangevin.data.decoding import pixels
from fastlangevin.data.file_fingerprint import fingerprint_of_files
from fastlangevin.data.fingerprint import Fingerprint
from fastlangevin.data.picture_file import GREY_MODES, read_header, read_picture
from fastlangevin.data.source import BYTE_GREYS, SampleError, Source
from fastlangevin.data.tree import SUFFIXES, image_files
from fastlangevin.noise import integer

__all__ = ["SUFFIXES", "Folder"]


class Folder(Source):
    """The images in a folder and those below it, all of them, in the order of their paths.

    All headers are read when the folder is opened, so that images of another size are found before training begins;
    pixels are read when they are asked for. Links to files and folders are followed, but for those back to a folder
    that they lie in. Names that begin with a dot are left out, and so are files that are no pictures, by name and
    content; what is a picture and cannot be read as it is, is an error.

    Args:
        folder: holds PNG, JPEG, BMP, TIFF, WebP, GIF, PBM, PGM or PPM files of up to 8 bits a channel, one picture
            each. They are turned as their EXIF orientation says. Colour profiles are not followed: RGB is taken as it
            is, and CMYK is converted without one.
        channels: 1 (grey) or 3 (RGB), to which all are converted; None: as the first file. Transparency is dropped.
        size: cut each to a square about its centre and bring it to this side, antialiased; None: all have one size.

    Raises:
        ValueError: there are no images, one cannot be read without loss, or one has another size; the message names
            the file.
        SampleError: when an image is read whose pixels are damaged.
    """

    greys = BYTE_GREYS
    repeatable = True

    def __init__(self, folder: str | os.PathLike[str], *, channels: int | None = None, size: int | None = None) -> None:
        root = Path(folder)
        if channels not in (None, 1, 3):
            raise ValueError(f"channels must be 1 (grey), 3 (RGB) or None (as the first file), got {channels!r}")
        self.size = None if size is None else integer("size", size, 1, 2**15)
        if not root.is_dir():
            raise ValueError(f"{root} is not a folder; give one that holds images")
        self.name, self.root = root.resolve().name, str(root)
        self.paths = image_files(root)
        if not self.paths:
            raise ValueError(f"{root} holds no images; it needs files that end in {', '.join(sorted(SUFFIXES))}")
        first = read_header(self.paths[0])
        self.channels = channels or (1 if first.mode in GREY_MODES else 3)
        for path in self.paths[1:]:
            found = read_header(path).size
            if self.size is None and found != first.size:
                raise ValueError(
                    f"{path} is {found[0]} x {found[1]} pixels, but {self.paths[0]} is {first.size[0]} x "
                    f"{first.size[1]}; give size= (--size) to bring all images to one, or take it out of the folder"
                )
        width, height = first.size if self.size is None else (self.size, self.size)
        self.shape = (self.channels, height, width)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        path = self.paths[index]
        x = read_picture(path, lambda image: pixels(image, self.channels, self.size))
        if tuple(x.shape) != self.shape:
            raise SampleError(f"{path} has changed: it is now {tuple(x.shape)}, and was {self.shape}; put it back")
        return x

    def label(self, index: int) -> str:
        """A sample's number and its path below the folder."""
        return f"sample {index} ({self._names([self.paths[index]])[0]})"

    def fingerprint(self) -> Fingerprint:
        """Of the paths below the folder and of the bytes of every file."""
        return fingerprint_of_files(self.paths, self._names(self.paths))

    def _names(self, paths: list[str]) -> list[str]:
        return [Path(path).relative_to(self.root).as_posix() for path in paths]
