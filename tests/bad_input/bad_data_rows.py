"""Bad training data, and bad calls of what orders and augments them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from bad_call_row import INF, NAN, Row
from data_calls import images_in, quarters
from PIL import Image
from torch.utils.data import ChainDataset

from fastlangevin import data


def _with(value: float) -> torch.Tensor:
    rows = quarters(3, 2)
    rows[1, 0] = value
    return rows


def _text_in(folder: Path) -> Path:
    (folder / "b.png").write_text("no image")
    return folder


def _named(folder: Path, name: str, content: bytes) -> Path:
    (folder / name).write_bytes(content)
    return folder


def _two_pictures_in(folder: Path) -> Path:
    first, other = (Image.new("L", (4, 2), shade) for shade in (0, 255))
    first.save(folder / "b.gif", save_all=True, append_images=[other])
    return folder


def _deep_in(folder: Path) -> Path:
    """A grey PNG file of 16 bits."""
    Image.new("I;16", (4, 2)).save(folder / "b.png")
    return folder


class _Changing(list[torch.Tensor]):
    """Items that count how often they were read."""

    reads = 0

    def __getitem__(self, index: Any) -> Any:
        self.reads += 1
        return super().__getitem__(index) + self.reads


def _empty(folder: Path) -> Path:
    for path in folder.iterdir():
        path.unlink()
    return folder


def _range(call: str, name: str, *values: int) -> list[Row]:
    return [
        Row(f"{name} {value}", call, lambda k, value=value: {name: value}, ValueError, (name, str(value)))
        for value in values
    ]


SOURCES = [
    Row("array", "Images", lambda k: {"images": k["images"].numpy()}, TypeError, ("images", "tensor", "ndarray")),
    Row("integers", "Images", lambda k: {"images": torch.ones(3, 2).int()}, TypeError, ("images", "torch.int32")),
    Row("no samples", "Images", lambda k: {"images": quarters(0, 2)}, ValueError, ("at least one", "(0, 2)")),
    Row("no elements", "Images", lambda k: {"images": quarters(3, 0)}, ValueError, ("at least one", "(3, 0)")),
    Row("numbers", "Images", lambda k: {"images": quarters(3)}, ValueError, ("images", "(N, *)", "(3,)")),
    Row(
        "classes of others",
        "Images",
        lambda k: {"classes": torch.zeros(2)},
        ValueError,
        ("classes", "3 images", "(2,)"),
        lambda k: {"classes": torch.zeros(3)},
    ),
    Row(
        "other greys",
        "Images",
        lambda k: {"greys": 4},
        ValueError,
        ("greys = 4", "1/3", "sample 0", "0.25"),
        lambda k: {"greys": 5},
    ),
    Row(
        "greys of bytes",
        "Images",
        lambda k: {"images": torch.ones(3, 2).byte(), "greys": 17},
        ValueError,
        ("greys", "256", "17"),
        lambda k: {"images": torch.ones(3, 2).byte(), "greys": 256},
    ),
    Row(
        "greys above one",
        "Images",
        lambda k: {"images": 2 * k["images"], "greys": 3},
        ValueError,
        ("greys = 3", "in [0, 1]", "1.5"),
        lambda k: {"images": 2 * k["images"]},
    ),
    Row("one grey", "Images", lambda k: {"greys": 1}, ValueError, ("greys", "from 2", "1"), lambda k: {"greys": 5}),
    Row("a stream", "as_source", lambda k: {"dataset": ChainDataset([])}, TypeError, ("map-style", "ChainDataset")),
    Row("a number", "as_source", lambda k: {"dataset": 3}, TypeError, ("map-style", "int")),
    Row("empty", "as_source", lambda k: {"dataset": []}, ValueError, ("dataset list is empty",)),
    Row("an array", "as_source", lambda k: {"dataset": k["dataset"].numpy()}, TypeError, ("item 0", "ndarray")),
    Row("text", "as_source", lambda k: {"dataset": [("a", 1)]}, TypeError, ("tuples that begin with one", "str")),
    Row("NaN", "as_source", lambda k: {"dataset": _with(NAN)}, ValueError, ("sample 1", "1 of 2", "NaN")),
    Row("infinity", "as_source", lambda k: {"dataset": list(_with(INF))}, ValueError, ("sample 1 of list", "infinite")),
    Row(
        "two shapes",
        "as_source",
        lambda k: {"dataset": [torch.zeros(2), torch.zeros(3)]},
        ValueError,
        ("item 1", "(3,)", "(2,)", "one shape"),
    ),
    Row("no folder", "Folder", lambda k: {"folder": k["folder"] / "none"}, ValueError, ("none is not a folder",)),
    Row("empty", "Folder", lambda k: {"folder": _empty(k["folder"])}, ValueError, ("holds no images", ".png")),
    Row("no image", "Folder", lambda k: {"folder": _text_in(k["folder"])}, ValueError, ("cannot read", "b.png", "out")),
    Row(
        "items that change",
        "as_source",
        lambda k: {"dataset": _Changing([torch.zeros(2), torch.ones(2)])},
        ValueError,
        ("another item 1 each time", "use Augment"),
    ),
    Row(
        "sixteen bits",
        "Folder",
        lambda k: {"folder": _deep_in(k["folder"])},
        ValueError,
        ("b.png", "not of 8 bits", "convert it"),
    ),
    Row(
        "two pictures",
        "Folder",
        lambda k: {"folder": _two_pictures_in(k["folder"])},
        ValueError,
        ("b.gif has 2 pictures", "a file of its own"),
    ),
    Row(
        "postscript",
        "Folder",
        lambda k: {"folder": _named(k["folder"], "b.png", b"%!PS-Adobe-3.0 EPSF-3.0")},
        ValueError,
        ("cannot read", "b.png", "PNG, JPEG", "out"),
    ),
    Row(
        "another format",
        "Folder",
        lambda k: {"folder": _named(k["folder"], "b.heic", b"")},
        ValueError,
        ("b.heic", "not read", "convert it"),
    ),
    Row(
        "another name",
        "Folder",
        lambda k: {"folder": _named(k["folder"], "b.jpg.bak", b"\xff\xd8\xff\xe0")},
        ValueError,
        ("b.jpg.bak", "(JPEG) by its content", ".jpeg"),
    ),
    Row(
        "two sizes",
        "Folder",
        lambda k: {"folder": images_in(k["folder"], b=(5, 2))},
        ValueError,
        ("b.png is 5 x 2", "a.png is 4 x 2", "size="),
        lambda k: {"folder": images_in(k["folder"], b=(5, 2)), "size": 2},
    ),
    Row("two channels", "Folder", lambda k: {"channels": 2}, ValueError, ("channels", "1 (grey)", "3 (RGB)", "2")),
    *_range("Folder", "size", 0, -1),
    Row("unknown", "open_source", lambda k: {"spec": "lsun"}, ValueError, ("digits, mnist, cifar10, celeba", "'lsun'")),
    Row("digits of a size", "open_source", lambda k: {"spec": "digits", "size": 8}, ValueError, ("size", "digits")),
    Row("channels", "open_source", lambda k: {"spec": "mnist", "channels": 1}, ValueError, ("channels", "mnist")),
]


def _parts(**options: Any) -> Row:
    name = " ".join(f"{key} {value}" for key, value in options.items())
    return Row(
        f"batch in {name}",
        "AddressedBatches",
        lambda k: {**options, "batch": 10},
        ValueError,
        ("batch", "world * micro", "10", "12 is the next"),
        lambda k: {**options, "batch": 12},
    )


ORDER = [
    _parts(world=4),
    _parts(micro=3),
    _parts(world=2, micro=2),
    *_range("AddressedBatches", "size", 0),
    *_range("AddressedBatches", "batch", 0),
    *_range("AddressedBatches", "start", -1, 4),
    *_range("AddressedBatches", "seed", -1, 2**64),
    *_range("AddressedBatches", "rank", -1, 1),
    *_range("AddressedBatches", "world", 0),
    *_range("AddressedBatches", "micro", 0),
    Row(
        "steps without an address",
        "AddressedBatches",
        lambda k: {"size": 4, "start": 2**32, "stop": 2**32 + 1},
        ValueError,
        ("epoch 4294967296", "room for 4294967295", "fewer steps"),
        lambda k: {"size": 4, "start": 2**32 - 1, "stop": 2**32},
    ),
    Row("batch float", "AddressedBatches", lambda k: {"batch": 4.0}, TypeError, ("batch", "integer", "4.0")),
    *_range("batch_indices", "step", -1),
    *_range("batch_indices", "size", 0),
    *_range("batch_indices", "batch", 0),
    Row("a tensor", "loader", lambda k: {"source": quarters(5, 2)}, TypeError, ("source", "Tensor", "as_source")),
    Row(
        "batches of others",
        "loader",
        lambda k: {"source": data.Images(quarters(6, 2))},
        ValueError,
        ("batches are of 5", "has 6", "len(source)"),
    ),
]

AUGMENTATION = [
    Row("bytes", "dequantise", lambda k: {"images": k["images"].byte()}, TypeError, ("images", "torch.uint8")),
    *_range("dequantise", "greys", 1),
    *_range("dequantise", "step", -1, 2**32),
    Row("array", "flip", lambda k: {"images": k["images"].numpy()}, TypeError, ("images", "ndarray")),
    Row("points", "flip", lambda k: {"images": quarters(2, 3)}, ValueError, ("(B, C, H, W)", "(2, 3)")),
    Row("ids of others", "flip", lambda k: {"sample_ids": [1]}, ValueError, ("sample_ids", "(2,)")),
    Row("above one", "logit", lambda k: {"v": 2 * k["v"]}, ValueError, ("[0, 1]", "2.0", "scale")),
    Row("NaN", "logit", lambda k: {"v": _with(NAN)}, ValueError, ("[0, 1]", "nan")),
    Row("alpha zero", "logit", lambda k: {"alpha": 0.0}, ValueError, ("alpha", "above zero")),
    Row("alpha a half", "logit", lambda k: {"alpha": 0.5}, ValueError, ("alpha", "below 1/2", "1e-6")),
    Row("logit text", "Augment", lambda k: {"logit": "1e-6"}, TypeError, ("logit", "'1e-6'")),
    Row("logit a half", "Augment", lambda k: {"logit": 0.5}, ValueError, ("logit", "below 1/2")),
    Row("flip number", "Augment", lambda k: {"flip": 0.5}, TypeError, ("flip", "True or False", "0.5")),
    Row(
        "logit of a grid",
        "Augment",
        lambda k: {"logit": 1e-6, "dequantise": False},
        ValueError,
        ("logit", "dequantise=True"),
        lambda k: {"logit": 1e-6},
    ),
]

DATA = [*SOURCES, *ORDER, *AUGMENTATION]
