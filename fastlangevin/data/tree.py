"""The image files of a folder and of those below it: all of them, or an error that names the one that is not read."""

from __future__ import annotations

import os
import stat
from collections import Counter
from pathlib import Path

from fastlangevin.data.signature import format_of
from fastlangevin.storage.files import kind_of, open_regular

__all__ = ["SUFFIXES", "image_files"]

# Of the formats that are read.
SUFFIXES = frozenset(
    ".apng .bmp .gif .jfif .jpe .jpeg .jpg .pbm .pgm .png .pnm .ppm .tif .tiff .webp".split()  # noqa: SIM905
)
# Of formats of pictures that are not.
OTHERS = frozenset(
    ".arw .avif .avifs .cr2 .cr3 .dcm .dds .dib .dng .exr .fits .hdr .heic .heif .hif .ico .j2c .j2k .jng .jp2 .jpc "  # noqa: SIM905
    ".jpf .jpx .jxl .jxr .mng .nef .orf .pam .pcx .pfm .psd .qoi .raf .rw2 .sgi .tga .xbm .xpm".split()
)
# By how many names one folder may be found: links between folders can have more than anyone would wait for.
MAX_NAMES = 1000


def image_files(root: Path) -> list[str]:
    """The image files below a folder, in the order of their paths below it, the same on every machine.

    Links to files and folders are followed. A file of several names is there by each of them; a link to a folder that
    the link itself lies in is not followed. Files and folders whose names begin with a dot are left out, and so are
    files that are no pictures, by name and content.

    Args:
        root: the folder.

    Returns:
        Paths of regular files that end in one of ``SUFFIXES``.

    Raises:
        ValueError: a folder or a file cannot be read, a link leads nowhere, or something is a picture by its name or
            its content and cannot be read as one; the message names it.
    """
    found: list[str] = []
    names: Counter[tuple[int, int]] = Counter()
    here = root.stat()
    waiting: list[tuple[str, tuple[tuple[int, int], ...]]] = [(str(root), ((here.st_dev, here.st_ino),))]
    while waiting:
        folder, parents = waiting.pop()
        for entry in _entries(folder):
            info = _info(entry)
            if not stat.S_ISDIR(info.st_mode):
                if _is_image(entry.path, info.st_mode):
                    found.append(entry.path)
                continue
            if _ending(entry.name) in SUFFIXES | OTHERS:
                raise ValueError(f"{entry.path} is a folder with the name of an image; rename it, or take it away")
            identity = (info.st_dev, info.st_ino)
            if identity in parents:
                continue
            names[identity] += 1
            if names[identity] > MAX_NAMES:
                raise ValueError(
                    f"{entry.path} is one folder of more than {MAX_NAMES} names, by links between folders; remove some"
                )
            waiting.append((entry.path, (*parents, identity)))
    return sorted(found, key=lambda path: Path(path).relative_to(root).as_posix())


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise ValueError(
            f"cannot read the folder {folder}: {error.strerror or error}; give it to this user, or take it away"
        ) from error


def _info(entry: os.DirEntry[str]) -> os.stat_result:
    try:
        return entry.stat()
    except OSError as error:
        raise ValueError(
            f"cannot read {entry.path}: {error.strerror or error}; mend the link or the file, or take it out of the "
            "folder"
        ) from error


def _ending(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def _is_image(path: str, mode: int) -> bool:
    """Returns whether a file that is not a folder is to be read; raises ValueError for pictures that cannot be."""
    ending = _ending(path)
    if not stat.S_ISREG(mode):
        if ending in SUFFIXES | OTHERS:
            raise ValueError(
                f"cannot read {path}: it is {kind_of(mode)}, not a regular file; take it out of the folder"
            )
        return False
    if ending in SUFFIXES:
        return True
    if ending in OTHERS:
        raise ValueError(
            f"{path} is a picture of a format that is not read; convert it to PNG, or take it out of the folder"
        )
    try:
        with open_regular(path, bare=True) as file:
            found = format_of(file)
    except OSError as error:
        raise ValueError(
            f"cannot read {path}: {error.strerror or error}; give it to this user, or take it out of the folder"
        ) from error
    if found is not None:
        raise ValueError(
            f"{path} is a picture ({found}) by its content, but not by its name; let it end in one of "
            f"{', '.join(sorted(SUFFIXES))}, or take it out of the folder"
        )
    return False
