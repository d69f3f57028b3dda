"""Training data: a fixed sequence of samples, read by index.

A source draws no random numbers. Whatever is random about a sample in a step is made afterwards, at the address of its
place in the batch (:class:`fastlangevin.data.Augment`): it repeats neither from epoch to epoch nor between the
processes that read the data, and it does not depend on how many of those there are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset, TensorDataset

from fastlangevin.data.fingerprint import Fingerprint, digests, spread
from fastlangevin.data.repeats import changed, check_repeats, checksum, raw_bytes
from fastlangevin.noise import integer
from fastlangevin.ops.arguments import conversion

__all__ = ["Images", "SampleError", "Source", "as_source"]

BYTE_GREYS = 256
# Samples that a fingerprint reads where reading is all that can be done with them, as with a dataset of one's own.
FINGERPRINTED = 4096
# Elements of samples in memory that a fingerprint takes at once.
CHUNK = 2**22


class SampleError(ValueError):
    """A sample that cannot be trained on; the message names it. Comes whole through a process that reads data."""


class Source(Dataset[Tensor]):
    """A map-style dataset of fp32 tensors of one shape, images ``(C, H, W)`` in [0, 1] as a rule.

    Subclasses set the attributes and define ``__len__`` and ``__getitem__``, a function of the index alone.

    Attributes:
        name: for logs and for telling runs apart.
        shape: of a sample, without the batch.
        greys: number of different values a pixel can have, multiples of 1 / (greys - 1); None: not quantised.
        classes: int64 ``(N,)``, or None. Training ignores them.
        in_memory: whether :meth:`take` is a single look-up, not worth a process of its own.
        repeatable: whether samples are known to be the same each time they are read; training tries those of others.
        device: where samples come from.
    """

    name: str
    shape: tuple[int, ...]
    greys: int | None
    classes: Tensor | None = None
    in_memory = False
    repeatable = False
    device = torch.device("cpu")

    def __init_subclass__(cls, **options: Any) -> None:
        """A subclass that reads samples in another way must say itself whether they stay the same."""
        super().__init_subclass__(**options)
        if "repeatable" not in cls.__dict__ and {"__getitem__", "take"} & cls.__dict__.keys():
            cls.repeatable = False

    def __len__(self) -> int:
        raise NotImplementedError

    def __getitem__(self, index: int) -> Tensor:
        raise NotImplementedError

    def take(self, indices: Sequence[int] | Tensor) -> Tensor:
        """The samples of these indices, fp32 ``(B, *shape)``, in memory of their own."""
        return torch.stack([self[int(index)] for index in indices])

    def label(self, index: int) -> str:
        """A sample's name in messages."""
        return f"sample {index}"

    def fingerprint(self) -> Fingerprint:
        """A description that identifies these data, as JSON. A resumed run must find the one it was started with.

        This one reads every sample, and of more than 4,096 a spread of 4,096.
        """
        chosen = spread(len(self), FINGERPRINTED)

        def content(first: int, stop: int) -> Iterator[memoryview]:
            return (raw_bytes(_fp32(self[chosen[place]])) for place in range(first, stop))

        return {"samples": len(chosen), "content": digests(len(chosen), content)}


class Images(Source):
    """Samples in memory.

    Args:
        images: ``(N, *shape)``: uint8, read as v / 255, or floating.
        classes: int64 ``(N,)``, or None.
        greys: number of different values a pixel can have; None where they are not quantised. uint8 has 256.
        name: for logs and for telling runs apart.

    Raises:
        ValueError: there are no samples, or values are no multiples of 1 / (greys - 1) in [0, 1].
        SampleError: a sample that is asked for is not finite. Those on another device than the CPU are trusted: reading
            them would make the host wait.
    """

    in_memory = True
    repeatable = True

    def __init__(
        self, images: Tensor, classes: Tensor | None = None, greys: int | None = None, name: str = "images"
    ) -> None:
        if not isinstance(images, Tensor):
            raise TypeError(f"images must be a tensor (N, *), got {type(images).__name__}; as_source takes datasets")
        _check_kind("images", images)
        if images.ndim < 2 or not images.numel():
            raise ValueError(
                f"images must be (N, *) with at least one sample of at least one element, got {tuple(images.shape)}"
            )
        if classes is not None and (not isinstance(classes, Tensor) or classes.shape[:1] != images.shape[:1]):
            found = tuple(classes.shape) if isinstance(classes, Tensor) else type(classes).__name__
            raise ValueError(f"classes must be a tensor of one entry for each of {len(images)} images, got {found}")
        self.images, self.classes, self.name, self.device = images, classes, name, images.device
        self.shape = tuple(images.shape[1:])
        self.greys = _greys(greys, images)
        if self.greys is not None and images.is_floating_point():
            _check_grid(images, self.greys)

    def __len__(self) -> int:
        return self.images.shape[0]

    def __getitem__(self, index: int) -> Tensor:
        return self.take([index])[0]

    def take(self, indices: Sequence[int] | Tensor) -> Tensor:
        x = _fp32(self.images[torch.as_tensor(indices, device=self.images.device)])
        if x.device.type == "cpu" and not bool(x.isfinite().all()):
            row = int(x.flatten(1).isfinite().all(1).logical_not().nonzero()[0])
            check_finite(int(indices[row]), x[row], self.name)
        return x

    def fingerprint(self) -> Fingerprint:
        """Of all values as fp32."""
        rows = max(1, CHUNK // self.images[0].numel())

        def content(first: int, stop: int) -> Iterator[memoryview]:
            places = range(first, stop, rows)
            return (raw_bytes(_fp32(self.images[place : min(place + rows, stop)])) for place in places)

        return {"samples": len(self), "content": digests(len(self), content)}


class _Wrapped(Source):
    """Any map-style dataset of tensors, each item checked when it is read, and compared with what it was before."""

    repeatable = True

    def __init__(self, dataset: Any, name: str, greys: int | None) -> None:
        self.dataset, self.name = dataset, name
        first = self._item(0)
        self.shape, self.dtype = tuple(first.shape), first.dtype
        self.greys = _greys(greys, first)
        check_repeats(self._item, len(dataset), name)
        # Of the items that were read, by this process or by that which started it; 0 of the others.
        self._checksums = np.zeros(len(dataset), np.uint32)
        self[0]

    def __len__(self) -> int:
        return len(self.dataset)

    def _item(self, index: int) -> Tensor:
        item = self.dataset[index]
        first = item[0] if isinstance(item, tuple | list) and item else item
        if not isinstance(first, Tensor):
            raise TypeError(
                f"items of dataset must be tensors, or tuples that begin with one, got {type(first).__name__} for item "
                f"{index} of {self.name}; give the dataset a transform to tensors"
            )
        _check_kind(f"item {index} of {self.name}", first)
        return first

    def __getitem__(self, index: int) -> Tensor:
        item = self._item(index)
        if tuple(item.shape) != self.shape or item.dtype != self.dtype:
            raise SampleError(
                f"item {index} of {self.name} is {item.dtype} of shape {tuple(item.shape)}, but item 0 is {self.dtype} "
                f"of shape {self.shape}; bring all items to one shape and type"
            )
        check_finite(index, item, self.name)
        if self.greys is not None and item.is_floating_point():
            _check_grid(item[None], self.greys, index)
        found, before = checksum(item) or 1, int(self._checksums[index])
        if before not in (0, found):
            raise SampleError(changed(index, self.name))
        self._checksums[index] = found
        return _fp32(item)


def as_source(dataset: Dataset[Any] | Tensor, *, name: str | None = None, greys: int | None = None) -> Source:
    """A dataset of one's own as training data.

    Args:
        dataset: a tensor ``(N, *)``, a map-style dataset whose items are tensors or tuples that begin with one (the
            rest is ignored), or a :class:`Source`, which comes back as it is. Items are floating, or uint8, read as
            v / 255. They must be the same whenever they are read: no random transforms.
        name: for logs and for telling runs apart; by default the dataset's class.
        greys: number of different values a pixel can have, where they are quantised: multiples of 1 / (greys - 1) in
            [0, 1]. uint8 has 256.

    Returns:
        The source.

    Raises:
        TypeError: it is no dataset of tensors.
        ValueError: it is empty, its items change, or they are not what ``greys`` says.
        SampleError: when an item is read that is not finite, or of another shape or type than the first.
    """
    if isinstance(dataset, Source):
        return dataset
    if isinstance(dataset, Tensor):
        return Images(dataset, None, greys, name or "tensor")
    # One that reads in a way of its own is a dataset like any other.
    if isinstance(dataset, TensorDataset) and type(dataset).__getitem__ is TensorDataset.__getitem__:
        return Images(dataset.tensors[0], None, greys, name or "tensor")
    if isinstance(dataset, IterableDataset) or not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
        raise TypeError(
            f"dataset must be a tensor or a map-style dataset with a length and items by index, got "
            f"{type(dataset).__name__}; a stream has no order that a run could go back to"
        )
    name = name or type(dataset).__name__
    if not len(dataset):
        raise ValueError(f"dataset {name} is empty; there is nothing to train on")
    return _Wrapped(dataset, name, greys)


def _check_kind(name: str, value: Tensor) -> None:
    if not value.is_floating_point() and value.dtype != torch.uint8:
        mend = conversion(value.dtype, "use .float(), scaled to [0, 1]")
        raise TypeError(f"{name} must be floating or uint8, got {value.dtype}; {mend}")


def _greys(greys: int | None, like: Tensor) -> int | None:
    if like.dtype != torch.uint8:
        return None if greys is None else integer("greys", greys, 2, 2**16)
    if greys not in (None, BYTE_GREYS):
        raise ValueError(
            f"greys must be 256 for uint8 images, got {greys!r}; for fewer values give floating images, v / (greys - 1)"
        )
    return BYTE_GREYS


def _check_grid(images: Tensor, greys: int, first: int = 0) -> None:
    """Raises where a value is off the grid by more than rounding; NaN is for :func:`check_finite`."""
    scaled = images.float() * (greys - 1)
    slack = max(1e-3, torch.finfo(images.dtype).eps * greys)
    off = ((scaled - scaled.round()).abs() > slack) | (scaled < -slack) | (scaled > greys - 1 + slack)
    if bool(off.any()):
        place = off.nonzero()[0]
        raise ValueError(
            f"greys = {greys} says that values are multiples of 1/{greys - 1} in [0, 1], but sample "
            f"{first + int(place[0])} has {images[tuple(place)].item()}; leave greys out where data are not quantised"
        )


def check_finite(index: int, item: Tensor, name: str) -> None:
    if not bool(item.isfinite().all()):
        count = int(item.isfinite().logical_not().sum())
        raise SampleError(
            f"sample {index} of {name} has {count} of {item.numel()} values that are NaN or infinite; mend it or leave "
            "it out of the data"
        )


def _fp32(x: Tensor) -> Tensor:
    return x.float() / (BYTE_GREYS - 1) if x.dtype == torch.uint8 else x.float()
