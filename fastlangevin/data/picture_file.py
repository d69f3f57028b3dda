"""Picture files by Pillow: of the formats that are named here, of 8 bits a channel, one picture a file, upright."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import BinaryIO, NamedTuple, TypeVar

from PIL import Image, ImageOps, UnidentifiedImageError

from fastlangevin.data.signature import format_of
from fastlangevin.data.source import SampleError
from fastlangevin.storage.files import open_regular

__all__ = ["GREY_MODES", "Header", "read_header", "read_picture"]

# Pillow tries them by a file's content. Others stay shut: that of PostScript starts a program.
FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "GIF", "PPM")

GREY_MODES = frozenset({"1", "L", "LA", "La"})
# Of 8 bits a channel, and convertible; the others ("I;16", "I", "F") would be clipped or cut without a word.
MODES = GREY_MODES | {"P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV"}

# Tags of TIFF, and of EXIF, which has its form.
_BITS_PER_SAMPLE, _SAMPLE_FORMAT, _ORIENTATION = 258, 339, 274
_UNSIGNED = 1
_TURNED = (5, 6, 7, 8)
_PNG_METADATA = (b"eXIf", b"iTXt", b"tEXt", b"zTXt")

T = TypeVar("T")


class Header(NamedTuple):
    """The header of a picture: Pillow's mode, and width and height once it is upright."""

    mode: str
    size: tuple[int, int]


class _UnfitError(Exception):
    """A picture that Pillow can open, and that would not be read as it is."""


def read_header(path: str | os.PathLike[str]) -> Header:
    """Mode and size of a picture, without its pixels.

    Raises:
        SampleError: the file cannot be read, or its picture not without loss; the message names it.
    """

    def header(image: Image.Image, file: BinaryIO) -> Header:
        if image.format == "PNG" and _has_late_metadata(file):
            image.load()
        # Pillow's TIFF is upright from the start, and its PNG decodes the pixels in search of late metadata.
        turned = image.format != "TIFF" and Image.Image.getexif(image).get(_ORIENTATION) in _TURNED
        return Header(image.mode, image.size[::-1] if turned else image.size)

    return _opened(path, header)


def read_picture(path: str | os.PathLike[str], use: Callable[[Image.Image], T]) -> T:
    """Reads a picture, turned as its EXIF orientation says.

    Args:
        path: of the file.
        use: makes the result of the loaded picture, of one of ``MODES``.

    Raises:
        SampleError: the file cannot be read, or its picture not without loss; the message names it.
    """

    def picture(image: Image.Image, file: BinaryIO) -> T:
        ImageOps.exif_transpose(image, in_place=True)
        return use(image)

    return _opened(path, picture)


def _opened(path: str | os.PathLike[str], use: Callable[[Image.Image, BinaryIO], T]) -> T:
    told = None
    try:
        with open_regular(path, bare=True) as file:
            told = format_of(file)
            with Image.open(file, formats=FORMATS) as image:
                _check_fit(image, file)
                return use(image, file)
    except _UnfitError as error:
        raise SampleError(f"{path} {error}, or take it out of the folder") from None
    except Exception as error:  # a decoder raises what it likes, depending on the format and on where the damage is
        why = str(error) or type(error).__name__
        if isinstance(error, UnidentifiedImageError):
            why = f"Pillow finds no {', '.join(FORMATS[:-1])} or {FORMATS[-1]} in it that it can read"
        begins = "" if told is None else f" (it begins like {told})"
        raise SampleError(
            f"cannot read {path}: {why}{begins}; put a whole image in its place, or take it out of the folder"
        ) from error


def _check_fit(image: Image.Image, file: BinaryIO) -> None:
    """Raises :class:`_UnfitError` for what Pillow would cut, clip or leave out without a word."""
    place = file.tell()
    if image.mode not in MODES:
        raise _UnfitError(
            f"has pixels of mode {image.mode}, not of 8 bits a channel; convert it to grey or RGB of 8 bits"
        )
    if image.format == "PNG":
        file.seek(24)
        _check_bits(file.read(1)[0])
    elif image.format == "TIFF":
        _check_bits(*image.tag_v2.get(_BITS_PER_SAMPLE, (1,)))  # type: ignore[attr-defined]
        if set(image.tag_v2.get(_SAMPLE_FORMAT, (_UNSIGNED,))) != {_UNSIGNED}:  # type: ignore[attr-defined]
            raise _UnfitError("has signed or floating pixels; convert it to unsigned ones of 8 bits a channel")
    elif image.format == "PPM":
        largest = _largest_value(file)
        _check_bits(largest.bit_length())
        if 255 % largest:
            raise _UnfitError(f"has pixels in units of 1/{largest}, not of 1/255; convert it to 8 bits a channel")
    frames = _pictures(image)
    if frames > 1:
        raise _UnfitError(f"has {frames} pictures, and one is read of a file; put each into a file of its own")
    file.seek(place)


def _check_bits(*bits: int) -> None:
    if max(bits) > 8:
        raise _UnfitError(f"has {max(bits)} bits a channel; convert it to 8 bits, since the others would be lost")


def _largest_value(file: BinaryIO) -> int:
    """The value of white in a file of the PPM family."""
    file.seek(0)
    words = re.sub(rb"#[^\r\n]*[\r\n]?", b"", file.read(2**16)).split(maxsplit=4)
    return 1 if words[0] in (b"P1", b"P4") else int(words[3])


def _pictures(image: Image.Image) -> int:
    """Returns how many pictures a file holds. A photograph's previews and gain maps, smaller than it, are none."""
    frames: int = getattr(image, "n_frames", 1)
    if image.format != "MPO":
        return frames
    count, size = 1, image.size
    for frame in range(1, frames):
        image.seek(frame)
        count += image.size[0] >= size[0] and image.size[1] >= size[1]
    image.seek(0)
    return count


def _has_late_metadata(file: BinaryIO) -> bool:
    """Returns whether a PNG file has text or EXIF behind its pixels, where the header does not show it."""
    place, late = file.tell(), False
    file.seek(8)
    while len(chunk := file.read(8)) == 8:
        kind = chunk[4:]
        late = late or kind == b"IDAT"
        if late and kind in _PNG_METADATA:
            break
        file.seek(int.from_bytes(chunk[:4]) + 4, os.SEEK_CUR)
    else:
        late = False
    file.seek(place)
    return late
