"""Standard image sets by torchvision's own classes, where it is installed."""

from __future__ import annotations

import os
from typing import Any, Literal

import torch
from PIL import Image
from torch import Tensor

from fastlangevin.data.decoding import pixels
from fastlangevin.data.file_fingerprint import fingerprint_of_files
from fastlangevin.data.fingerprint import Fingerprint
from fastlangevin.data.picture_file import read_picture
from fastlangevin.data.source import BYTE_GREYS, Images, SampleError, Source
from fastlangevin.noise import integer

__all__ = ["CelebA", "celeba", "cifar10", "mnist"]

Place = str | os.PathLike[str]


def mnist(root: Place = "data", *, train: bool = True, download: bool = False) -> Images:
    """MNIST (LeCun et al. 1998): 60,000 or 10,000 grey images of 28x28 pixels, in memory.

    Args:
        root: the folder that torchvision keeps it in.
        train: the training images, or those for testing.
        download: fetch it where it is not there yet.

    Returns:
        The source, images ``(1, 28, 28)``.

    Raises:
        RuntimeError: torchvision is not installed, or the images are not in ``root``.
    """
    dataset = _dataset("MNIST", root, download, train=train)
    return Images(dataset.data[:, None], torch.as_tensor(dataset.targets, device="cpu"), name="mnist")


def cifar10(root: Place = "data", *, train: bool = True, download: bool = False) -> Images:
    """CIFAR-10 (Krizhevsky 2009): 50,000 or 10,000 colour images of 32x32 pixels, in memory.

    Args:
        root, train, download: as for :func:`mnist`.

    Returns:
        The source, images ``(3, 32, 32)``.

    Raises:
        RuntimeError: as for :func:`mnist`.
    """
    dataset = _dataset("CIFAR10", root, download, train=train)
    images = torch.as_tensor(dataset.data, device="cpu").permute(0, 3, 1, 2).contiguous()
    return Images(images, torch.as_tensor(dataset.targets, device="cpu"), name="cifar10")


class CelebA(Source):
    """CelebA's aligned faces, read from their files; made by :func:`celeba`."""

    name = "celeba"
    greys = BYTE_GREYS
    repeatable = True

    def __init__(self, dataset: Any, crop: int, size: int) -> None:
        self.dataset, self.crop, self.size = dataset, crop, size
        self.shape = (3, size, size)
        # torchvision's own reading opens whatever Pillow knows.
        self._files: list[str] | None = getattr(dataset, "filename", None)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Tensor:
        if self._files is not None:
            return read_picture(self._path(self._files[index]), self._face)
        try:
            return self._face(self.dataset[index][0])
        except Exception as error:
            raise SampleError(
                f"torchvision cannot read sample {index} of celeba: {error}; fetch the data anew"
            ) from error

    def label(self, index: int) -> str:
        """A sample's number, and its file if that is known."""
        return f"sample {index}" + (f" ({self._files[index]})" if self._files is not None else "")

    def fingerprint(self) -> Fingerprint:
        """Of the names and bytes of the files, with how they are cut."""
        if self._files is None:
            return super().fingerprint()
        return fingerprint_of_files([self._path(name) for name in self._files], self._files, {"crop": self.crop})

    def _path(self, name: str) -> str:
        return os.path.join(self.dataset.root, self.dataset.base_folder, "img_align_celeba", name)

    def _face(self, image: Image.Image) -> Tensor:
        left, top = (image.width - self.crop) // 2, (image.height - self.crop) // 2
        return pixels(image.crop((left, top, left + self.crop, top + self.crop)), 3, self.size)


def celeba(
    root: Place = "data",
    *,
    split: Literal["train", "valid", "test", "all"] = "train",
    download: bool = False,
    crop: int = 140,
    size: int = 32,
) -> CelebA:
    """CelebA (Liu et al. 2015): 162,770 faces for training, cut and resized as by Song and Ermon (2019, appendix B).

    Args:
        root: the folder that torchvision keeps it in.
        split: which of its images.
        download: fetch it where it is not there yet.
        crop: side of the square about the centre, of images of 178x218 pixels.
        size: side to which that is brought.

    Returns:
        The source, images ``(3, size, size)``.

    Raises:
        RuntimeError: torchvision is not installed, or the images are not in ``root``.
        ValueError: ``split``, ``crop`` or ``size`` is not one of those.
    """
    if split not in ("train", "valid", "test", "all"):
        raise ValueError(f"split must be 'train', 'valid', 'test' or 'all', got {split!r}")
    crop, size = integer("crop", crop, 1, 178), integer("size", size, 1, 2**15)
    return CelebA(_dataset("CelebA", root, download, split=split), crop, size)


def _dataset(name: str, root: Place, download: bool, **options: Any) -> Any:
    try:
        from torchvision import datasets
    except (ImportError, RuntimeError) as error:  # RuntimeError: it was built for another version of PyTorch
        raise RuntimeError(
            f"{name} comes with torchvision, which cannot be imported ({error}); pip install torchvision"
        ) from error
    try:
        return getattr(datasets, name)(os.fspath(root), download=download, **options)
    except RuntimeError as error:
        mend = "" if download else "; download=True (--download) fetches it"
        raise RuntimeError(f"torchvision cannot give {name} from {os.fspath(root)}: {error}{mend}") from error
