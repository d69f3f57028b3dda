"""Training data: every sample is what its source says, once an epoch, and randomness is a matter of its address."""

import math
import multiprocessing
import os
import signal
import subprocess
import sys
import types
from itertools import chain

import numpy as np
import pytest
import torch
from PIL import Image
from sharing_source import Sharing
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

import fastlangevin as fl
from fastlangevin import data
from fastlangevin.data.folder import SUFFIXES

EPOCHS_END = 2**32


def ramp(*shape):
    return torch.arange(math.prod(shape), dtype=torch.float32).reshape(shape) / math.prod(shape)


def picture(path, size=(6, 4), mode="RGB", seed=0):
    """A file of random pixels; ``size`` is width and height, as Pillow has it. Returns the pixels ``(H, W, C)``."""
    channels = {"RGB": 3, "RGBA": 4}.get(mode, 1)
    noise = fl.rand((1, size[1], size[0], channels), seed=seed)[0]
    array = (noise * 256).to(torch.uint8).numpy()
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array if channels > 1 else array[..., 0], mode={1: "L"}.get(channels)).save(path)
    return array


@pytest.fixture
def folder(tmp_path):
    """Ten colour images of 6x4 pixels, in two folders."""
    for index in range(10):
        picture(tmp_path / "images" / ("a" if index % 2 else "b") / f"{index}.png", seed=index)
    return tmp_path / "images"


class Items(Dataset):
    """A list as a map-style dataset."""

    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]


def test_images_in_memory_are_read_by_index():
    images = ramp(5, 1, 2, 3).double()
    source = data.Images(images, torch.arange(5), name="ramp")
    assert (len(source), source.shape, source.greys, source.name) == (5, (1, 2, 3), None, "ramp")
    taken = source.take([4, 0])
    assert taken.dtype == torch.float32
    assert torch.equal(taken, images[[4, 0]].float())
    assert torch.equal(source[3], source.take(torch.tensor([3]))[0])
    taken.zero_()
    assert images[4].any(), "a batch must be a copy"


def test_bytes_have_256_greys():
    source = data.Images(torch.arange(256, dtype=torch.uint8)[:, None])
    assert source.greys == 256
    values = source.take(range(256))[:, 0]
    assert values.aminmax() == (0.0, 1.0)
    assert torch.equal(values * 255, torch.arange(256.0)), "dequantisation needs whole numbers"


def test_any_dataset_of_tensors_is_a_source():
    tensor = ramp(4, 3)
    for dataset in (tensor, TensorDataset(tensor), Items(list(tensor)), Items([(row, 7, "label") for row in tensor])):
        source = data.as_source(dataset, name="mine")
        assert (len(source), source.shape, source.greys, source.name) == (4, (3,), None, "mine")
        assert torch.equal(source.take([3, 1]), tensor[[3, 1]])
        assert data.as_source(source) is source
    assert data.as_source(Items(list(tensor))).name == "Items"
    pixels = (ramp(4, 1, 2, 2) * 255).to(torch.uint8)
    source = data.as_source(Items(list(pixels)))
    assert source.greys == 256
    assert torch.equal(source[2], pixels[2] / 255)


@pytest.mark.parametrize("wrap", [lambda rows: rows, lambda rows: Items(list(rows))], ids=["tensor", "dataset"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_value_that_is_not_finite_is_an_error_when_it_is_met(wrap, value):
    rows = ramp(6, 4)
    rows[3, 2] = value
    source = data.as_source(wrap(rows), name="mine")
    assert torch.equal(source.take([0, 2]), rows[[0, 2]])
    with pytest.raises(data.SampleError, match=r"sample 3 of mine has 1 of 4 values that are NaN or infinite"):
        source.take([0, 3])


def test_items_of_another_shape_or_type_are_named():
    source = data.as_source(Items([torch.zeros(2), torch.zeros(3), torch.zeros(2).double()]), name="mine")
    with pytest.raises(data.SampleError, match=r"item 1 of mine is torch\.float32 of shape \(3,\), but item 0"):
        source.take([0, 1])
    with pytest.raises(data.SampleError, match=r"item 2 of mine is torch\.float64"):
        source[2]


def test_a_dataset_whose_items_change_is_refused():
    class Changing(Items):
        def __getitem__(self, index):
            self.reads = getattr(self, "reads", 0) + 1
            return self.items[index] + self.reads

    with pytest.raises(ValueError, match=r"another item 0 each time .*use Augment"):
        data.as_source(Changing([torch.zeros(2)]))


def test_greys_that_the_data_do_not_have_are_refused():
    quarters = torch.arange(5.0)[:, None] / 4
    assert data.Images(quarters, None, 5).greys == 5
    assert data.Images(quarters.half() + 1e-4, None, 5).greys == 5, "rounding of half precision is none"
    for wrap in (lambda rows: rows, lambda rows: Items(list(rows))):
        with pytest.raises(ValueError, match=r"greys = 4 .* multiples of 1/3 .* sample 1 has 0\.25"):
            data.as_source(wrap(quarters), greys=4).take(range(5))


def test_a_folder_is_read_in_the_order_of_paths(folder):
    picture(folder / ".hidden.png", (9, 9))
    picture(folder / ".cache" / "thumbnail.png", (9, 9))
    (folder / "notes.txt").write_text("no image")
    source = data.Folder(folder)
    assert (len(source), source.shape, source.greys, source.name) == (10, (3, 4, 6), 256, "images")
    assert [os.path.relpath(path, folder) for path in source.paths] == [
        *(f"a/{index}.png" for index in (1, 3, 5, 7, 9)),
        *(f"b/{index}.png" for index in (0, 2, 4, 6, 8)),
    ]
    expected = np.asarray(Image.open(folder / "a" / "3.png")).transpose(2, 0, 1)
    assert torch.equal(source[1], torch.tensor(expected) / 255)


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("RGB", 3), ("RGBA", 3)])
def test_channels_are_those_of_the_first_file_or_as_asked(tmp_path, mode, channels):
    array = picture(tmp_path / "a.png", mode=mode)
    picture(tmp_path / "b.png", mode="L")
    assert data.Folder(tmp_path).shape == (channels, 4, 6)
    for wanted in (1, 3):
        assert data.Folder(tmp_path, channels=wanted).take([0, 1]).shape == (2, wanted, 4, 6)
    grey = data.Folder(tmp_path, channels=1)[0] * 255
    expected = array[..., :3].astype(float) @ [0.299, 0.587, 0.114] if channels == 3 else array[..., 0]
    # Pillow rounds the weights to 16 bits and the sum to a whole number.
    assert (grey[0] - torch.tensor(expected)).abs().max() < 0.51


def test_a_palette_with_transparency_is_read(tmp_path):
    image = Image.fromarray(picture(tmp_path / "a.png")).quantize(8)
    image.save(tmp_path / "a.png", transparency=bytes(range(8)))
    assert torch.equal(data.Folder(tmp_path)[0] * 255, torch.tensor(np.asarray(image.convert("RGB"))).permute(2, 0, 1))


@pytest.mark.parametrize("suffix", sorted(SUFFIXES))
def test_formats(tmp_path, suffix):
    Image.new("RGB" if suffix != ".pgm" else "L", (4, 4), "white").save(tmp_path / f"a{suffix.upper()}")
    assert torch.equal(data.Folder(tmp_path, channels=3)[0], torch.ones(3, 4, 4))


def test_images_of_several_sizes_need_a_size(folder):
    picture(folder / "b" / "5.png", (7, 4))
    with pytest.raises(ValueError, match=r"b/5\.png is 7 x 4 pixels, but \S*a/1\.png is 6 x 4; give size="):
        data.Folder(folder)
    source = data.Folder(folder, size=3)
    assert source.shape == (3, 3, 3)
    assert source.take(range(11)).shape == (11, 3, 3, 3)


def test_size_cuts_the_centre_and_averages(tmp_path):
    board = np.indices((4, 4)).sum(0)[..., None].repeat(3, 2).astype(np.uint8) % 2 * 255
    Image.fromarray(np.pad(board, ((0, 0), (2, 2), (0, 0)))).save(tmp_path / "wide.png")
    assert torch.equal(data.Folder(tmp_path, size=4)[0] * 255, torch.tensor(board).permute(2, 0, 1))
    Image.fromarray(board).save(tmp_path / "board.png")
    grey = data.Folder(tmp_path, size=1)[0] * 255
    assert (grey - 127.5).abs().max() < 2, "without antialiasing a checkerboard is black or white"
    assert torch.equal(grey, grey.round())


def damage(path, kind):
    whole = path.read_bytes()
    path.write_bytes({"empty": b"", "no image": b"text", "cut": whole[: len(whole) // 2]}[kind])


@pytest.mark.parametrize("kind", ["empty", "no image"])
def test_a_file_that_is_no_image_is_found_at_once(folder, kind):
    damage(folder / "b" / "4.png", kind)
    with pytest.raises(ValueError, match=r"cannot read \S*b/4\.png: .*put a whole image in its place"):
        data.Folder(folder)


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_an_image_that_is_cut_short_is_named_when_it_is_read(tmp_path, suffix):
    for index in range(3):
        picture(tmp_path / f"{index}.{suffix}", (64, 64), seed=index)
    path = tmp_path / f"1.{suffix}"
    damage(path, "cut")
    source = data.Folder(tmp_path)
    source.take([0, 2])
    with pytest.raises(data.SampleError, match=rf"cannot read {path}: .*put a whole image in its place"):
        source.take([0, 1])
    picture(path, (32, 64))
    with pytest.raises(data.SampleError, match=rf"{path} has changed: it is now \(3, 64, 32\)"):
        source[1]
    path.unlink()
    with pytest.raises(data.SampleError, match=rf"cannot read {path}: .*No such file"):
        source[1]


def test_sixteen_bits_are_refused(tmp_path):
    Image.fromarray(np.full((4, 4), 1000, dtype=np.uint16)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"a\.png has pixels of mode I;16, not of 8 bits .*convert it"):
        data.Folder(tmp_path)


class FakeVision:
    """Stands for ``torchvision.datasets``: classes of the same arguments and attributes, with small data."""

    BYTES = (fl.rand((3, 8, 8, 3), seed=0) * 256).to(torch.uint8)

    class MNIST:
        def __init__(self, root, train=True, transform=None, target_transform=None, download=False):
            if not download:
                raise RuntimeError("Dataset not found. You can use download=True to download it")
            self.data, self.targets = FakeVision.BYTES[..., 0], torch.tensor([3, 1, 2])
            self.root, self.train = root, train

    class CIFAR10:
        def __init__(self, root, train=True, transform=None, target_transform=None, download=False):
            self.data, self.targets = FakeVision.BYTES.numpy(), [3, 1, 2]

    class CelebA:
        def __init__(
            self, root, split="train", target_type="attr", transform=None, target_transform=None, download=False
        ):
            self.root, self.split = root, split

        def __len__(self):
            return 2

        def __getitem__(self, index):
            array = np.zeros((218, 178, 3), dtype=np.uint8)
            array[39:179, 19:159] = 100 + index
            return Image.fromarray(array), torch.zeros(40)


@pytest.fixture
def torchvision(monkeypatch):
    module = types.ModuleType("torchvision")
    module.datasets = FakeVision
    monkeypatch.setitem(sys.modules, "torchvision", module)


def test_torchvision_sets(torchvision, tmp_path):
    mnist = data.mnist(tmp_path, download=True)
    assert (mnist.name, mnist.shape, mnist.greys, len(mnist)) == ("mnist", (1, 8, 8), 256, 3)
    assert torch.equal(mnist[1][0] * 255, FakeVision.BYTES[1, ..., 0])
    cifar = data.cifar10(tmp_path)
    assert (cifar.name, cifar.shape, cifar.greys, len(cifar)) == ("cifar10", (3, 8, 8), 256, 3)
    assert torch.equal(cifar[2] * 255, FakeVision.BYTES[2].permute(2, 0, 1))
    assert cifar.classes.tolist() == mnist.classes.tolist() == [3, 1, 2]
    celeba = data.celeba(tmp_path, split="valid")
    assert (celeba.name, celeba.shape, celeba.greys, len(celeba)) == ("celeba", (3, 32, 32), 256, 2)
    assert celeba.dataset.split == "valid"
    assert torch.equal(celeba[1] * 255, torch.full((3, 32, 32), 101.0)), "the centre alone"
    assert data.celeba(tmp_path, crop=142)[1].min() * 255 < 101


def celeba_in(root):
    """Two faces as torchvision keeps them, and what it knows of them."""
    dataset = FakeVision.CelebA(root)
    dataset.base_folder, dataset.filename = "celeba", ["000001.jpg", "000002.jpg"]
    for index, name in enumerate(dataset.filename):
        path = root / "celeba" / "img_align_celeba" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        dataset[index][0].save(path, "PNG")
    return dataset


def test_faces_are_opened_as_the_images_of_a_folder_are(torchvision, tmp_path, monkeypatch):
    monkeypatch.setattr("fastlangevin.data.vision._dataset", lambda *_, **__: celeba_in(tmp_path))
    source = data.celeba(tmp_path)
    assert torch.equal(source[1] * 255, torch.full((3, 32, 32), 101.0))
    assert source.fingerprint() == data.celeba(tmp_path).fingerprint() != data.celeba(tmp_path, crop=142).fingerprint()
    assert source.label(1) == "sample 1 (000002.jpg)"
    path = tmp_path / "celeba" / "img_align_celeba" / "000002.jpg"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 178 218\n%%EndComments\nshowpage\n")
    with pytest.raises(data.SampleError, match=r"cannot read \S*000002\.jpg: Pillow finds no PNG"):
        source[1]
    damaged = FakeVision.CelebA(tmp_path)
    monkeypatch.setattr(FakeVision.CelebA, "__getitem__", lambda *_: 1 / 0)
    with pytest.raises(data.SampleError, match="torchvision cannot read sample 0 of celeba: division by zero"):
        data.vision.CelebA(damaged, 140, 32)[0]


def test_without_torchvision_the_mend_is_named(monkeypatch, torchvision, tmp_path):
    with pytest.raises(RuntimeError, match=r"cannot give MNIST from .*Dataset not found.*download=True \(--download\)"):
        data.open_source("mnist", root=tmp_path)
    monkeypatch.setitem(sys.modules, "torchvision", None)
    for name in ("mnist", "cifar10", "celeba"):
        with pytest.raises(RuntimeError, match="pip install torchvision"):
            data.open_source(name)


def test_data_are_opened_by_name(folder, torchvision, tmp_path, monkeypatch):
    assert data.open_source("mnist", root=tmp_path, download=True).name == "mnist"
    assert data.open_source("cifar10").name == "cifar10"
    assert data.open_source("celeba", size=16).shape == (3, 16, 16)
    assert data.open_source(str(folder), channels=1, size=2).shape == (1, 2, 2)
    (folder.parent / "mnist").symlink_to(folder)
    monkeypatch.chdir(folder.parent)
    assert data.open_source("./mnist").shape == (3, 4, 6)


def test_digits_by_name():
    pytest.importorskip("sklearn")
    assert len(data.open_source("digits")) == 1497


GEOMETRIES = [(10, 4, 1, 1), (5, 12, 2, 3), (8, 8, 4, 2), (7, 12, 1, 4)]


@pytest.mark.parametrize(("size", "batch", "world", "micro"), GEOMETRIES)
def test_ranks_and_micro_batches_share_out_each_step(size, batch, world, micro):
    steps = 20
    ranks = [
        data.AddressedBatches(size, batch=batch, stop=steps, seed=3, rank=rank, world=world, micro=micro)
        for rank in range(world)
    ]
    places = [place for each in ranks for index in range(micro) for place in each.positions(index)]
    assert places == list(range(batch))
    streams = [list(each) for each in ranks]
    assert all(len(stream) == len(each) == steps * micro for stream, each in zip(streams, ranks, strict=True))
    for step in range(steps):
        parts = [part for stream in streams for part in stream[step * micro : (step + 1) * micro]]
        assert list(chain(*parts)) == data.batch_indices(step, batch, size, seed=3).tolist()
        assert ranks[-1].indices(step, micro - 1).tolist() == parts[-1], "steps may be asked for in any order"


@pytest.mark.parametrize(("size", "batch", "world", "micro"), GEOMETRIES)
def test_each_epoch_has_each_sample_once(size, batch, world, micro):
    ranks = [
        iter(data.AddressedBatches(size, batch=batch, stop=40, seed=0, rank=rank, world=world, micro=micro))
        for rank in range(world)
    ]
    seen = [index for _ in range(40) for rank in ranks for _ in range(micro) for index in next(rank)]
    epochs = torch.tensor(seen[: len(seen) // size * size]).reshape(-1, size)
    assert torch.equal(epochs.sort(1).values, torch.arange(size).expand_as(epochs))
    assert len(epochs.unique(dim=0)) > 0.6 * len(epochs), "each has an order of its own"


def test_a_run_resumes_at_any_step():
    whole = list(data.AddressedBatches(10, batch=4, stop=12, seed=5, micro=2))
    for start in range(13):
        assert list(data.AddressedBatches(10, batch=4, start=start, stop=12, seed=5, micro=2)) == whole[2 * start :]
    assert list(data.AddressedBatches(10, batch=4, stop=12, seed=6, micro=2)) != whole


def test_an_epochs_order_is_found_once(monkeypatch):
    calls = []
    monkeypatch.setattr(
        "fastlangevin.data.order.permutation", lambda size, *, seed, draw: calls.append(draw) or torch.arange(size)
    )
    list(data.AddressedBatches(100, batch=8, stop=50, seed=0))
    assert calls == [0, 1, 2, 3]


def test_epochs_that_have_no_address_are_refused():
    last = (EPOCHS_END * 10) // 5
    batches = data.AddressedBatches(10, batch=5, start=last - 1, stop=last, seed=0)
    assert len(next(iter(batches))) == 5
    with pytest.raises(ValueError, match=r"epoch 4294967296, .* room for 4294967295; take fewer steps"):
        data.AddressedBatches(10, batch=5, start=last - 1, stop=last + 1, seed=0)
    with pytest.raises(ValueError, match="epoch 4294967296"):
        data.batch_indices(last, 5, 10, seed=0)


def test_places_are_the_ids_of_a_samples_noise():
    x = torch.zeros(8, 1, 2, 2)
    whole = data.Augment(flip=True)(x, greys=2, seed=1, step=9)
    parts = []
    for rank in range(2):
        batches = data.AddressedBatches(8, batch=8, stop=1, seed=1, rank=rank, world=2, micro=2)
        for index in range(2):
            places = batches.positions(index)
            address = {"greys": 2, "seed": 1, "step": 9}
            parts.append(data.Augment(flip=True)(x[:2], sample_offset=places.start, **address))
            assert torch.equal(parts[-1], data.Augment(flip=True)(x[:2], sample_ids=list(places), **address))
    assert torch.equal(torch.cat(parts), whole)


def repeats(values):
    """How many of the samples ``(N, *)`` another one equals."""
    return len(values) - len(values.flatten(1).unique(dim=0))


def test_noise_repeats_neither_in_an_epoch_nor_over_epochs():
    source = data.Images(torch.zeros(6, 1, 2, 2), None, 2)
    order = data.AddressedBatches(len(source), batch=4, stop=300, seed=0)
    batches = list(data.loader(source, order))
    augment = data.Augment()
    fresh = torch.cat([augment(x, greys=2, seed=0, step=step) for step, x in enumerate(batches)])
    assert len(fresh) == 1200
    assert repeats(fresh) == 0
    # A generator seeded anew in each epoch, or in each worker, with the sample's index is the usual mistake.
    by_index = torch.cat([augment(x, greys=2, seed=0, sample_ids=order.indices(s, 0)) for s, x in enumerate(batches)])
    assert repeats(by_index) == 1200 - 6


@pytest.fixture
def order():
    return data.AddressedBatches(10, batch=4, stop=12, seed=0, micro=2)


def signals_from_outside(pid):
    """As a terminal or a scheduler sends them; a worker's parent ends it by SIGTERM."""
    for name in ("INT", "TERM"):
        subprocess.run(["kill", f"-{name}", str(pid)], check=True)


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_workers_give_the_same_bits_and_outlive_signals(folder, order):
    source = data.Folder(folder)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    alone = list(data.loader(source, order))
    assert torch.equal(torch.cat(alone), source.take(list(chain(*order))))
    others = multiprocessing.active_children()
    batches = iter(data.loader(source, order, workers=2))
    together = [next(batches)]
    workers = [each for each in multiprocessing.active_children() if each not in others]
    assert len(workers) == 2
    for worker in workers:
        signals_from_outside(worker.pid)
    together += list(batches)
    assert len(together) == len(alone) == 24
    assert all(torch.equal(one, other) for one, other in zip(alone, together, strict=True))
    assert torch.equal(torch.get_rng_state(), before), "the caller's generator is left alone"
    for worker in workers:
        worker.join(600)
        assert worker.exitcode == 0


def test_workers_are_born_deaf_to_signals_and_name_a_bad_sample(tmp_path, monkeypatch):
    for index in range(4):
        picture(tmp_path / f"{index}.png", (64, 64), seed=index)
    damage(tmp_path / "2.png", "cut")
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    start, workers = multiprocessing.process.BaseProcess.start, []

    def signalled(self):
        start(self)
        workers.append(self)
        signals_from_outside(self.pid)  # Python and PyTorch are still being imported

    monkeypatch.setattr(multiprocessing.process.BaseProcess, "start", signalled)
    order = data.AddressedBatches(4, batch=1, stop=4, seed=0)
    with pytest.raises(data.SampleError, match=rf"\Acannot read {tmp_path / '2.png'}"):
        list(data.loader(data.Folder(tmp_path), order, workers=1))
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == mask
    assert [worker.exitcode for worker in workers] == [0], "no worker outlives the error that ends its loop"


def test_a_worker_that_ends_while_it_sends_ends_well(monkeypatch):
    start, workers = multiprocessing.process.BaseProcess.start, []

    def kept(self):
        start(self)
        workers.append(self)

    monkeypatch.setattr(multiprocessing.process.BaseProcess, "start", kept)
    assert len(list(data.loader(Sharing(ramp(1, 3)), [[0]], workers=1))) == 1
    assert [worker.exitcode for worker in workers] == [0]


def test_a_worker_that_fails_says_so(capfd):
    worker = data.loading._Context().Process(target=int, args=("no number",))
    worker.start()
    worker.join(600)
    assert worker.exitcode == 1
    assert "ValueError: invalid literal" in capfd.readouterr().err


def test_a_program_that_leaves_workers_behind_ends(folder, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\n"
        "from fastlangevin import data\n"
        "if __name__ == '__main__':\n"
        "    source = data.Folder(sys.argv[1])\n"
        "    order = data.AddressedBatches(len(source), batch=4, stop=1000, seed=0)\n"
        "    batches = iter(data.loader(source, order, workers=1))\n"
        "    next(batches)\n"
        "    print('left')\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, str(script), str(folder)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,  # it ends a hung test
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "left\n", "")


def test_memory_is_read_without_workers(order):
    source = data.Images(ramp(10, 3))
    loader = data.loader(source, order, workers=2)
    assert isinstance(loader, DataLoader)
    assert (len(loader), loader.num_workers) == (24, 0)
    batches = list(loader)
    assert torch.equal(torch.cat(batches), ramp(10, 3)[list(chain(*order))])
    assert all(batch.is_contiguous() for batch in batches)


def test_other_samplers_and_loaders_work_too(order):
    source = data.Images(ramp(10, 3))
    assert torch.equal(torch.cat(list(data.loader(source, [[0, 1], [2]]))), ramp(10, 3)[:3])
    plain = list(DataLoader(source, batch_sampler=order))
    assert all(torch.equal(one, other) for one, other in zip(plain, data.loader(source, order), strict=True))


def test_a_stream_is_no_source():
    class Stream(IterableDataset):
        def __iter__(self):
            return iter([])

    with pytest.raises(TypeError, match=r"map-style dataset .* got Stream"):
        data.as_source(Stream())
