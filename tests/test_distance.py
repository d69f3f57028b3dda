"""The largest distance of two samples: against all pairs, far from the origin, in little memory, with few readings."""

from __future__ import annotations

import math
import weakref
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import TensorDataset

import fastlangevin as fl
from fastlangevin import data
from fastlangevin.advisor import distance, largest_distance
from fastlangevin.data import Images, Source
from fastlangevin.noise import Purpose

ROOM = 10**6


def normal(*shape: int, seed: int = 0) -> Tensor:
    return fl.randn(shape, seed=seed, purpose=Purpose.USER, dtype=torch.float64, impl="reference")


def all_pairs(x: Tensor) -> float:
    """By differences: nothing cancels."""
    rows = x.double().flatten(1)
    return max(torch.linalg.vector_norm(rows - row, dim=1).max().item() for row in rows)


class Files(Source):
    """Samples that are not in memory, with a count of how often they are read."""

    name, greys = "files", None
    images = ("a.png", "b.png")  # a source of one's own may call what it likes so

    def __init__(self, values: Tensor) -> None:
        self.values, self.shape, self.read = values, tuple(values.shape[1:]), 0

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: int) -> Tensor:
        self.read += 1
        return self.values[index]


class Allocations(TorchDispatchMode):
    """The most bytes that tensors made inside hold at any time, and the largest of them; ``given`` does not count."""

    def __init__(self, given: Tensor) -> None:
        super().__init__()
        self.given = given.untyped_storage().data_ptr()
        self.live: dict[int, list[int]] = {}
        self.now = self.most = self.largest = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for each in result if isinstance(result, tuple | list) else (result,):
            if isinstance(each, Tensor) and each.untyped_storage().data_ptr() != self.given:
                self.enter(each)
        return result

    def enter(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        entry = self.live.setdefault(storage.data_ptr(), [storage.nbytes(), 0])
        if not entry[1]:
            self.now += entry[0]
            self.most, self.largest = max(self.most, self.now), max(self.largest, entry[0])
        entry[1] += 1
        weakref.finalize(tensor, self.leave, storage.data_ptr())

    def leave(self, pointer: int) -> None:
        entry = self.live[pointer]
        entry[1] -= 1
        if not entry[1]:
            self.now -= self.live.pop(pointer)[0]


def least_memory(x: Tensor) -> int:
    """The smallest memory that the search accepts."""
    with pytest.raises(ValueError, match="memory must hold at least two samples") as caught:
        largest_distance(x, memory=1)
    return int(str(caught.value).split(" bytes")[0].split()[-1])


@given(st.integers(2, 40), st.integers(1, 12), st.sampled_from([0.0, 0.3, 1.0]), st.integers(0, 99), st.integers(0, 2))
@settings(max_examples=60, deadline=None)
def test_it_is_that_of_all_pairs(count: int, size: int, outliers: float, seed: int, memory: int) -> None:
    # Powers of normals have outliers, without which no pair is left out.
    x = normal(count, size, seed=seed)
    x = x * x.abs() ** (3 * outliers)
    room = [ROOM, least_memory(x), least_memory(x) + 500][memory]
    assert largest_distance(x, memory=room) == pytest.approx(all_pairs(x), rel=size * 2**-50)


@pytest.mark.parametrize("shift", [0.0, 1e4, -1e6])
def test_it_does_not_cancel_far_from_the_origin(shift: float) -> None:
    x = shift + 1e-3 * normal(60, 30)
    expected = all_pairs(x)
    assert largest_distance(x) == pytest.approx(expected, rel=1e-13)
    # The usual way, ||x||^2 + ||y||^2 - 2 x.y in fp32, is what this is careful about.
    rows = x.float()
    squares = rows.square().sum(1)
    usual = (squares[:, None] + squares - 2 * rows @ rows.T).clamp(min=0).max().sqrt().item()
    assert (usual == pytest.approx(expected, rel=1e-3)) == (shift == 0)


def test_images_of_any_type_are_read_as_the_network_sees_them() -> None:
    x = torch.arange(5 * 12).reshape(5, 3, 2, 2).mul(4).byte()
    expected = all_pairs(x.double() / 255)
    assert largest_distance(x) == pytest.approx(expected, rel=1e-14)
    assert largest_distance(TensorDataset(x, torch.arange(5))) == pytest.approx(expected, rel=1e-14)
    # Sources give fp32.
    assert largest_distance(Files(x.float() / 255)) == pytest.approx(expected, rel=1e-6)
    assert largest_distance([(each, 0) for each in x]) == pytest.approx(expected, rel=1e-6)
    assert largest_distance(x.half() / 255) == pytest.approx(expected, rel=1e-3)


def test_duplicates_and_clusters_take_no_comparison(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[int] = []
    monkeypatch.setattr(distance, "COLUMNS", 8)
    whole = distance._Search._centred
    monkeypatch.setattr(
        distance._Search, "_centred", lambda self, places: compared.append(len(places)) or whole(self, places)
    )
    one, other = normal(1, 20, seed=1), normal(1, 20, seed=2)
    assert largest_distance(one.expand(500, 20)) == 0.0
    assert largest_distance(torch.full((497, 20), 0.1, dtype=torch.float64)) == 0.0
    assert compared == []
    clusters = torch.cat([one.expand(250, 20), other.expand(250, 20)])
    assert largest_distance(clusters) == pytest.approx((one - other).norm().item(), rel=1e-14)
    assert sum(compared) <= 500 + 8  # rows, and the first columns
    compared.clear()
    x = normal(500, 20)
    largest_distance(x)
    assert sum(compared) > 500 + 8  # where the data do not allow it, they are compared


def test_two_samples_and_one_element() -> None:
    assert largest_distance(torch.tensor([[1.0], [4.0]])) == 3.0
    assert largest_distance(torch.tensor([[1.0, 5.0], [1.0, 5.0]])) == 0.0
    with pytest.raises(ValueError, match=r"at least two samples.* got 1"):
        largest_distance(torch.ones(1, 3))


def test_the_guess_alone_and_distances_within_batches_fall_short(monkeypatch: pytest.MonkeyPatch) -> None:
    x = normal(400, 10, seed=3)
    expected = all_pairs(x)
    assert max(all_pairs(part) for part in x.split(20)) < 0.999 * expected
    monkeypatch.setattr(distance._Search, "_compare", lambda *_: None)
    short = [
        largest_distance(normal(400, 10, seed=seed)) < 0.999 * all_pairs(normal(400, 10, seed=seed))
        for seed in range(8)
    ]
    assert any(short)


def test_a_pair_that_just_reaches_beyond_the_guess_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    # The guess goes up and down and ends at 1.91; left and right are as far apart as their distances from the mean add
    # up to, so that a bound that is 5 % too strict leaves them out.
    x = torch.zeros(10004, 2)
    x[:4] = torch.tensor([[0.0, 1.01], [0.0, -0.9], [-1.0, 0.0], [1.0, 0.0]])
    assert largest_distance(x) == 2.0
    monkeypatch.setattr(distance._Search, "_compare", lambda *_: None)
    assert largest_distance(x) == pytest.approx(1.91, rel=1e-6)


@pytest.mark.parametrize("kind", ["tensor", "files"])
def test_the_memory_given_is_kept_to(kind: str) -> None:
    count, size = 70, 32
    x = normal(count, size).float()
    expected = all_pairs(x)
    least = least_memory(x)
    for memory in (least, 2 * least, 4 * least):
        dataset = x if kind == "tensor" else Files(x)
        with Allocations(x) as found:
            assert largest_distance(dataset, memory=memory) == pytest.approx(expected, rel=1e-12)
        assert found.most <= memory
        assert found.largest < count * count * 4  # no matrix of all pairs, not even in fp32
    with Allocations(x) as found:
        torch.cdist(x, x)
    assert found.most >= count * count * 4  # the count sees one


def test_files_are_read_once_where_memory_has_room_and_few_times_where_outliers_decide() -> None:
    x = normal(1000, 16).float()
    files = Files(x)
    expected = largest_distance(x)
    assert largest_distance(files) == expected
    assert files.read == 1000
    # One sample in a hundred is five times as far out.
    x[::100] *= 5
    files = Files(x)
    expected = all_pairs(x)
    small = least_memory(x) + 20 * 16 * 16
    assert largest_distance(files, memory=small) == pytest.approx(expected, rel=1e-12)
    assert files.read < 8 * 1000
    assert data.as_source(files) is files


def test_a_subsample_is_a_lower_bound_that_rises_and_a_function_of_the_seed() -> None:
    x = normal(500, 8)
    exact = largest_distance(x)
    found = [largest_distance(x, subsample=count, seed=7) for count in (2, 10, 50, 250, 499)]
    assert found == sorted(found)
    assert found[0] < found[-1] <= exact
    assert largest_distance(x, subsample=500) == largest_distance(x, subsample=10**9) == exact
    state = torch.get_rng_state()
    assert largest_distance(x, subsample=50, seed=7) == found[2]
    assert torch.equal(torch.get_rng_state(), state)
    assert len({largest_distance(x, subsample=50, seed=seed) for seed in range(5)}) > 1


def test_a_subsample_is_drawn_without_replacement_at_an_address_of_its_own() -> None:
    class Asked(Files):
        def __init__(self, values: Tensor) -> None:
            super().__init__(values)
            self.asked: list[int] = []

        def take(self, indices: Sequence[int] | Tensor) -> Tensor:
            self.asked += [int(index) for index in indices]
            return super().take(indices)

    files = Asked(normal(200, 4).float())
    largest_distance(files, subsample=50, seed=3)
    assert len(files.asked) == len(set(files.asked)) == 50
    assert files.asked == sorted(files.asked)
    epoch = data.batch_indices(0, 50, 200, seed=3)
    assert set(files.asked) != set(epoch.tolist())


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_sample_that_is_not_finite_is_named(value: float) -> None:
    x = normal(50, 3)
    x[31, 1] = value
    with pytest.raises(ValueError, match="sample 31 of tensor has 1 of 3 values that are NaN or infinite"):
        largest_distance(x)
    with pytest.raises(ValueError, match="sample 31 of list"):
        largest_distance(list(x.float()))


def test_numbers_too_large_for_their_squares_are_refused() -> None:
    with pytest.raises(ValueError, match="so large that squared distances overflow"):
        largest_distance(1e200 * normal(5, 3))
    with pytest.raises(ValueError, match="so large that their sum overflows"):
        largest_distance(torch.full((5, 3), 1e308, dtype=torch.float64))


def test_it_leaves_the_data_alone_and_shows_progress(capsys: pytest.CaptureFixture[str]) -> None:
    images = Images(normal(30, 4).float())
    before = images.images.clone()
    largest_distance(images)
    assert capsys.readouterr().err == ""
    largest_distance(images, progress=True)
    assert torch.equal(images.images, before)
    shown = capsys.readouterr().err
    assert "reading" in shown
    assert "comparing: 100%" in shown
    x = images.images.clone().requires_grad_()
    assert largest_distance(x) == largest_distance(images)
