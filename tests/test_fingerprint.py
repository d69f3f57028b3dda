"""Fingerprints of data: any change is seen and named, what is the same is; and items that change from read to read."""

import os
import pickle
import random
import re
import shutil

import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset, TensorDataset

import fastlangevin as fl
from fastlangevin import data
from fastlangevin.data.fingerprint import blocks, difference
from fastlangevin.models import MLP, MLPConfig
from fastlangevin.training import TrainConfig, train


def grey(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (4, 4), value).save(path)


@pytest.fixture
def folder(tmp_path):
    """Twelve images of 4x4 pixels, in two folders."""
    for index in range(12):
        grey(tmp_path / "images" / ("a" if index < 6 else "b") / f"{index:02}.png", 20 * index)
    return tmp_path / "images"


def told(before, source):
    """How a source differs from the fingerprint and the number of samples before."""
    fingerprint, count = before
    return difference(fingerprint, source.fingerprint(), len(source), source.label, count == len(source))


def state(source):
    return source.fingerprint(), len(source)


@pytest.mark.parametrize("count", [1, 255, 256, 257, 1000, 12_345])
def test_blocks_share_out_the_samples_whatever_their_number(count):
    found = list(blocks(count))
    assert [index for block in found for index in block] == list(range(count))
    assert all(len(block) == 1 for block in found[:256])
    assert found[:-1] == list(blocks(2 * count))[: len(found) - 1]


def test_a_million_samples_have_a_short_fingerprint():
    assert len(list(blocks(10**6))) < 350


def test_a_copy_of_a_folder_is_the_same_wherever_it_is(folder, tmp_path):
    before = state(data.Folder(folder))
    copy = shutil.copytree(folder, tmp_path / "elsewhere" / "images")
    os.utime(copy / "a" / "00.png", (0, 0))
    assert told(before, data.Folder(copy)) is None


def swap(folder):
    (folder / "a" / "00.png").rename(folder / "x.png")
    (folder / "a" / "01.png").rename(folder / "a" / "00.png")
    (folder / "x.png").rename(folder / "a" / "01.png")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: grey(folder / "b" / "07.png", 141), r"another content, first in sample 7 \(b/07\.png\)"),
        (swap, r"another (content|name or size), first in sample 0 \(a/00\.png\)"),
        (
            lambda folder: (folder / "b" / "07.png").rename(folder / "b" / "07x.png"),
            r"another name or size, first in sample 7 \(b/07x\.png\)",
        ),
        (lambda folder: (folder / "a" / "03.png").unlink(), r"another name or size, first in sample 3 \(a/04\.png\)"),
        (
            lambda folder: (folder / "b" / "11.png").unlink(),
            r"more after sample 10 \(b/10\.png\)",
        ),
        (lambda folder: grey(folder / "c.png", 0), r"no sample 12 \(c\.png\)"),
    ],
    ids=["pixel", "swap", "rename", "less", "last", "more"],
)
def test_what_changes_in_a_folder_is_named(folder, change, message):
    before = state(data.Folder(folder))
    change(folder)
    found = told(before, data.Folder(folder))
    assert found is not None
    assert re.fullmatch(message, found), found


def test_another_folder_of_equal_name_and_number_is_another(folder, tmp_path):
    before = state(data.Folder(folder))
    for index in range(12):
        grey(tmp_path / "other" / "images" / ("a" if index < 6 else "b") / f"{index:02}.png", 255 - index)
    assert "first in sample 0" in told(before, data.Folder(tmp_path / "other" / "images"))


def ramp(count):
    return torch.arange(count * 3.0).reshape(count, 3) / (count * 3)


@pytest.mark.parametrize(
    ("count", "place", "block"), [(10, 7, (7, 7)), (1000, 999, (928, 999)), (300, 299, (288, 299))]
)
def test_a_change_of_one_value_in_memory_is_seen_and_placed(count, place, block):
    rows = ramp(count)
    before = state(data.Images(rows))
    assert told(before, data.Images(rows.clone())) is None
    changed = rows.clone()
    changed[place, 1] += 2**-20
    first, last = (f"sample {index}" for index in block)
    among = first if first == last else f"one of {first} to {last}"
    assert told(before, data.Images(changed)) == f"another content, first in {among}"


def test_the_same_values_of_another_dtype_or_kind_are_the_same():
    rows = (ramp(8) * 255).byte()
    before = state(data.Images(rows))
    assert told(before, data.Images(rows.float() / 255)) is None
    assert told(before, data.as_source(list(rows))) is None
    assert told(before, data.Images(rows.T.contiguous().T)) is None
    assert told(before, data.Images(rows.flip(0))) is not None


class Own(data.Source):
    """A source that someone else wrote."""

    name, shape, greys = "own", (3,), None

    def __init__(self, count, change=lambda index: 0.0):
        self.count, self.change = count, change

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        return torch.tensor([index, 1.0, 2.0]) + self.change(index)


def test_every_source_has_one():
    assert told(state(Own(5)), Own(5)) is None
    assert told(state(Own(5)), Own(5, lambda index: float(index == 3))) == "another content, first in sample 3"
    # 5,000 samples of which 4,096 are read: sample 4,999 is not, sample 4,998 is the last.
    assert Own(5000).fingerprint()["samples"] == 4096
    found = told(state(Own(5000)), Own(5000, lambda index: float(index == 4998)))
    assert found.endswith(" to sample 4998")
    assert told(state(Own(5001)), Own(5000)) == "another content"
    assert told((Own(5).fingerprint(), 5), Own(4)) == "more after sample 3"


@pytest.mark.parametrize("forged", [None, 5, "x", [], {}, {"samples": 5}, {"content": 3}, {"options": 1}])
def test_what_is_no_fingerprint_is_another(forged):
    assert told((forged, 5), Own(5)) is not None


class Items(Dataset):
    """Items that pass through ``change``."""

    def __init__(self, count, change):
        self.count, self.change = count, change

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        return self.change(index, torch.arange(4.0) + index)


def flips(probability, seed, only=None):
    chance = random.Random(seed)

    def change(index, item):
        return item.flip(0) if (only is None or index == only) and chance.random() < probability else item

    return change


def alternating():
    reads = [0]

    def change(index, item):
        reads[0] += 1
        return item + reads[0] % 2

    return change


def one_buffer(seed):
    chance, buffer = random.Random(seed), torch.zeros(4)
    return lambda index, item: buffer.fill_(chance.random())


REFUSED = r"another item \d+ each time it is read; .*leave random transforms out of Items and use Augment"


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize(
    ("count", "make"),
    [
        (1, lambda seed: flips(0.5, seed)),
        (10, lambda seed: flips(0.5, seed)),
        (10, lambda seed: flips(0.5, seed, only=7)),
        (1000, lambda seed: flips(0.5, seed)),
        (200, lambda seed: flips(0.1, seed)),
        (3, lambda seed: alternating()),
        (3, one_buffer),
    ],
    ids=["one", "all", "one of ten", "a thousand", "rare", "alternating", "one buffer"],
)
def test_items_that_change_are_refused_every_time(count, make, seed):
    with pytest.raises(ValueError, match=REFUSED):
        data.as_source(Items(count, make(seed)))


def test_items_that_stay_are_not_refused():
    source = data.as_source(Items(300, lambda index, item: item))
    for _ in range(3):
        assert torch.equal(source.take([0, 299]), torch.stack([torch.arange(4.0), torch.arange(4.0) + 299]))


def test_what_changes_too_seldom_for_a_trial_is_found_in_training():
    change = flips(1.0, 0, only=3)
    source = data.as_source(Items(300, lambda index, item: item))
    source.take(range(300))
    source.dataset.change = change
    source.take([0, 1, 2, 4])
    with pytest.raises(data.SampleError, match=REFUSED):
        source.take([2, 3])


def test_a_worker_knows_what_was_read_before_it_was_started():
    source = data.as_source(_Later(5))
    source.fingerprint()
    source.dataset.more = 1.0
    there = pickle.loads(pickle.dumps(source))  # as a worker gets it
    with pytest.raises(data.SampleError, match=r"another item 2 each time"):
        there[2]


class _Later(Dataset):
    def __init__(self, count):
        self.count, self.more = count, 0.0

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        return torch.tensor([index + self.more, 0.0])


def test_training_tries_a_source_that_someone_else_wrote():
    def go(source):
        return train(
            lambda: MLP(fl.geometric_sigmas(1.0, 0.1, 3), MLPConfig(features=3, width=4, depth=1)),
            source,
            TrainConfig(steps=1, batch=2),
        )

    go(Own(4))
    chance = random.Random(0)

    class Noisy(data.Images):
        def take(self, indices):
            return super().take(indices) + chance.random()

    for source in (Own(4, lambda index: chance.random()), Noisy(torch.zeros(4, 3), name="own")):
        with pytest.raises(ValueError, match=r"another item \d each time it is read; .* out of own and use Augment"):
            go(source)


def test_tensors_that_are_read_in_a_way_of_their_own_are_read_so():
    class Doubled(TensorDataset):
        def __getitem__(self, index):
            return (2 * super().__getitem__(index)[0],)

    rows = ramp(4)
    assert torch.equal(data.as_source(Doubled(rows)).take([1, 3]), 2 * rows[[1, 3]])
    assert data.as_source(TensorDataset(rows)).in_memory
