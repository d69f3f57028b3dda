"""The format of a picture by how its file begins, whatever the file is called and whether it can be read."""

from __future__ import annotations

import re
from typing import BinaryIO

__all__ = ["format_of"]

_SIGNATURE = re.compile(
    rb"(?P<PNG>\x89PNG\r\n\x1a\n)|(?P<JPEG>\xff\xd8\xff)|(?P<GIF>GIF8[79]a)|(?P<WebP>RIFF....WEBP)"
    rb"|(?P<TIFF>II\*\0|MM\0\*|II\+\0|MM\0\+)|(?P<BMP>BM....\0\0\0\0)|(?P<PNM>P[1-7]\s+(#|\d))"
    rb"|(?P<AVIF>....ftypavi[fs])|(?P<HEIF>....ftyp(hei|hev|mif|msf))|(?P<JPEG2000>\0\0\0\x0cjP  )"
    rb"|(?P<JPEGXL>\0\0\0\x0cJXL )|(?P<PSD>8BPS)|(?P<DDS>DDS )|(?P<OpenEXR>v/1\x01)|(?P<QOI>qoif)",
    re.DOTALL,
)


def format_of(file: BinaryIO) -> str | None:
    """The format that a file begins like, or None; the file is left at its beginning."""
    begins = _SIGNATURE.match(file.read(32))
    file.seek(0)
    return begins and begins.lastgroup
