"""Everything in the package that reads a file, as targets of :mod:`tests.long.fuzz`.

A target has valid files, makes mutants of them, reads one, and judges what it was given: ``"right"``, or ``"changed"``
where a format without digests (the log, published pickles) let other values through. What it may raise is ``errors``.
"""

from __future__ import annotations

import contextlib
import io
import json
import pickle
import random
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load as library_load
from torch import Tensor

import fastlangevin as fl
from fastlangevin import shards
from fastlangevin.data import Images
from fastlangevin.models import MLP, NCSN, ConvConfig, ConvScore, MLPConfig, NCSNConfig
from fastlangevin.shards import RunFolder
from fastlangevin.shards.folder import _seal
from fastlangevin.storage import checkpoint, container, stopped_chain
from fastlangevin.storage.generations import Generations
from fastlangevin.storage.published import load_published
from fastlangevin.training import TrainConfig, state
from fastlangevin.training.average import Average
from fastlangevin.training.log import Log, Window
from tests.long.forgery import blind, forged, forged_json, forged_state

__all__ = ["CONTROLS", "READERS", "Reader", "WrongError"]

SIGMAS = [1.0, 0.5]


class WrongError(Exception):
    """A reader gave what the file does not hold, or what its digests rule out."""


def bits(tensors: dict[str, Tensor]) -> dict[str, tuple[torch.dtype, torch.Size, bytes]]:
    return {
        name: (each.dtype, each.shape, bytes(each.detach().contiguous().view(-1).view(torch.uint8).numpy()))
        for name, each in tensors.items()
    }


def net() -> MLP:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return MLP(SIGMAS, MLPConfig(features=2, width=4, depth=1))


class Reader:
    """A file format with its reader.

    Attributes:
        errors: what the reader may raise.
        share: of all inputs.
        size: bytes of the last mutant.
    """

    errors: ClassVar[tuple[type[Exception], ...]] = (ValueError,)
    share = 1.0
    size = 0

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "file"
        self.intact = self.make()

    def make(self) -> list[bytes]:
        """Valid files."""
        raise NotImplementedError

    def forge(self, content: bytes, chance: random.Random) -> bytes:
        return forged(content, chance)

    def mutate(self, chance: random.Random) -> bool:
        """Writes a mutant; whether it is a forgery with right digests."""
        content = chance.choice(self.intact)
        deliberate = chance.random() < 0.5
        self.write(self.forge(content, chance) if deliberate else blind(content, self.intact, chance))
        return deliberate

    def write(self, content: bytes) -> None:
        self.size = len(content)
        self.path.write_bytes(content)

    def read(self) -> Any:
        raise NotImplementedError

    def judge(self, value: Any, deliberate: bool) -> str:
        """``"right"`` or ``"changed"``.

        Raises:
            WrongError: neither.
        """
        if not deliberate and self.path.read_bytes() not in self.intact:
            raise WrongError("a damaged file was read")
        return "right"

    def written(self, call: Callable[[Path], object]) -> bytes:
        path = self.folder / "written"
        call(path)
        return path.read_bytes()


class Container(Reader):
    """Tensors and a description; an accepted file is what the package writes of its content, to the byte."""

    share = 8.0

    def make(self) -> list[bytes]:
        weights = torch.arange(12.0).view(3, 4)
        contents: list[tuple[dict[str, Tensor], dict[str, Any]]] = [
            ({"weights": weights, "half": weights[0].half(), "mask": weights[1] > 5}, {"step": 2**63, "note": "Größe"}),
            ({"ids": torch.arange(5), "empty": torch.empty(3, 0), "bytes": torch.arange(3).byte()}, {"a": [{}, None]}),
            ({}, {}),
        ]
        return [self.written(lambda path, each=each: container.write(path, *each)) for each in contents]

    def read(self) -> Any:
        return container.read(self.path)

    def judge(self, value: Any, deliberate: bool) -> str:
        if self.written(lambda path: container.write(path, *value)) != self.path.read_bytes():
            raise WrongError("what was read is written to other bytes")
        return super().judge(value, deliberate)


class Checkpoint(Reader):
    """A network; some mutants stand before an intact one, to which ``fallback=True`` goes back."""

    share = 2.0

    def make(self) -> list[bytes]:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            nets = [net(), ConvScore(SIGMAS, ConvConfig(widths=(2, 3), patch=1))]
        self.before = self.written(lambda path: checkpoint.save(path, net(), metadata={"before": True}))
        (self.folder / "net-0000000001.safetensors").write_bytes(self.before)
        self.fallback = False
        return [
            self.written(lambda path, each=each: checkpoint.save(path, each, metadata={"data": {"shape": [2]}}))
            for each in nets
        ]

    def mutate(self, chance: random.Random) -> bool:
        self.fallback = chance.random() < 0.2
        self.path = self.folder / ("net-0000000002.safetensors" if self.fallback else "file")
        return super().mutate(chance)

    def read(self) -> Any:
        return checkpoint.load(self.path, fallback=self.fallback)

    def judge(self, value: Any, deliberate: bool) -> str:
        before = value.metadata == {"before": True}
        if before and not self.fallback:
            raise WrongError("the checkpoint before was read, without leave")
        tensors, description = container.read(self.folder / "net-0000000001.safetensors" if before else self.path)
        if bits(value.net.state_dict()) != bits(tensors) or value.metadata != description["metadata"]:
            raise WrongError("the network is not the file's")
        return "right" if before else super().judge(value, deliberate)


class Chain(Reader):
    """The state of a chain; what is read must be a state that goes on, or is refused as of another chain."""

    share = 2.0

    def make(self) -> list[bytes]:
        def stopped(**options: Any) -> bytes:
            result = self.chain(full_output=True, callback=lambda info: info.step == 2, **options)
            return self.written(lambda path: stopped_chain.save(path, result.state))

        return [
            stopped(shape=(2, 3), seed=2**63, sample_offset=7),
            stopped(shape=(2, 1), seed=torch.tensor([1, -2]), sample_ids=[5, 3], trajectory=1, telemetry="level"),
        ]

    @staticmethod
    def chain(**options: Any) -> Any:
        options = {"epsilon": 1e-3, "steps_per_level": 2, "impl": "reference", **options}
        return fl.annealed_langevin(lambda x, level: -x, SIGMAS, **options)

    def read(self) -> Any:
        return stopped_chain.load(self.path)

    def judge(self, value: Any, deliberate: bool) -> str:
        # A forged description may have entries that a state has no place for.
        if not deliberate and self.written(lambda path: stopped_chain.save(path, value)) != self.path.read_bytes():
            raise WrongError("the state is written to other bytes")
        if deliberate:
            with contextlib.suppress(ValueError, TypeError, fl.NonFiniteError):
                self.chain(resume=value, trajectory=int(value.trajectory is not None))
        return super().judge(value, deliberate)


def run_record(**changes: Any) -> dict[str, Any]:
    record = {
        "format": 1, "stream_version": 1, "network": "gaussian", "sampler": "annealed_langevin", "sigmas": SIGMAS,
        "init": "uniform", "epsilon": 1e-3, "steps_per_level": 2, "corrector": "langevin", "denoise": False, "seed": 3,
        "n": 5, "sample_offset": 0, "shape": [3], "dtype": "float32", "shard_size": 3,
    }  # fmt: skip
    return {**record, **changes}


class Run(Reader):
    """A folder of shards that is whole, with its samples."""

    def make(self) -> list[bytes]:
        self.run = RunFolder.begin(self.folder / "run", run_record())
        self.samples = torch.arange(15.0).view(5, 3)
        self.run.write(0, self.samples[:3])
        self.run.write(1, self.samples[3:])
        self.path = self.folder / "run" / "file"
        return [self.run.shard_path(index).read_bytes() for index in (0, 1)]


class Shard(Run):
    """A file of samples, whole or a part, of a run whose record is intact."""

    share = 3.0

    def make(self) -> list[bytes]:
        whole = super().make()
        self.run.write_part(1, 0, self.samples[3:4])
        parts = [self.run._part_path(1, 0).read_bytes()]
        self.run._part_path(1, 0).unlink()
        return [*whole, *parts]

    def mutate(self, chance: random.Random) -> bool:
        self.part = chance.random() < 0.3
        self.path = self.run._part_path(1, 0) if self.part else self.run.shard_path(1)
        return super().mutate(chance)

    def read(self) -> Any:
        if self.part:
            return torch.cat(self.run.read_parts(1))
        return self.run.read(1)

    def judge(self, value: Any, deliberate: bool) -> str:
        tensors, description = container.read(self.path)
        if not torch.equal(tensors["samples"], value) or description["record"] != self.run.record:
            raise WrongError("the samples are not the file's")
        return super().judge(value, deliberate)


class Record(Run):
    """run.json, and all that is read by what it says."""

    share = 2.0
    # That shards are missing is told as such.
    errors = (ValueError, FileNotFoundError)

    def make(self) -> list[bytes]:
        super().make()
        self.path = self.folder / "run" / "run.json"
        self.expected = self.run.record
        return [self.path.read_bytes()]

    def forge(self, content: bytes, chance: random.Random) -> bytes:
        record = forged_json(self.expected, chance)
        try:
            seal = _seal(record)
        except TypeError:  # no record can be sealed that is not of finite numbers
            seal = "0" * 64
        return json.dumps({"record": record, "sha256": seal}).encode()

    def read(self) -> Any:
        run = RunFolder(self.path.parent)
        return run.record, shards.collect(self.path.parent), shards.digest(self.path.parent)

    def judge(self, value: Any, deliberate: bool) -> str:
        record, samples, digest = value
        if record != self.expected:
            raise WrongError(f"samples were read of the record {record}")
        if not torch.equal(samples, self.samples) or digest != shards.digest_of(self.samples):
            raise WrongError("the samples are not the run's")
        return "right"


class Numbered(Reader):
    """The newest of two numbered states, or the one before it."""

    share = 1.0

    def make(self) -> list[bytes]:
        self.generations = Generations(self.folder, "state")
        self.states = {step: {"w": torch.full((3,), float(step))} for step in (1, 2)}
        for step, tensors in self.states.items():
            self.generations.save(step, tensors, {"step": step})
        self.path = self.generations.path(2)
        return [self.generations.path(step).read_bytes() for step in (2, 1)]

    def read(self) -> Any:
        return self.generations.load(fallback=True)

    def judge(self, value: Any, deliberate: bool) -> str:
        if value.step == 1:
            if bits(value.tensors) != bits(self.states[1]) or value.description != {"step": 1}:
                raise WrongError("the state before is not what was saved")
            return "right"
        if (value.tensors.keys(), value.description) != (
            container.read(self.path)[0].keys(),
            container.read(self.path)[1],
        ):
            raise WrongError("the state is not the file's")
        return super().judge(value, deliberate)


class State(Reader):
    """What a run of training goes on from."""

    share = 0.5

    def make(self) -> list[bytes]:
        self.config = TrainConfig(steps=10, batch=2, log_every=5)
        self.source = Images(torch.zeros(4, 2))
        self.run = self.begin()
        network, optimiser, average, window = self.run
        for _ in range(2):
            x = torch.ones(2, 2, requires_grad=True)
            network(x, torch.tensor([0, 1])).sum().backward()
            optimiser.step()
            average.update()
            window.add(torch.tensor(1.0), torch.ones(2), torch.ones(2), torch.tensor(2.0))
        self.description = {**state.describe(network, self.source, self.config), "updates": 2, "scaler": {}}
        self.tensors = {name: each.clone() for name, each in state.tensors(*self.run).items()}
        return [self.written(lambda path: container.write(path, self.tensors, self.description))]

    def begin(self) -> tuple[MLP, torch.optim.Adam, Average, Window]:
        network = net()
        return network, torch.optim.Adam(network.parameters()), Average(network, 0.9), Window(5, 2, torch.device("cpu"))

    def forge(self, content: bytes, chance: random.Random) -> bytes:
        tensors, description = forged_state(self.tensors, self.description, chance)
        return self.written(lambda path: container.write(path, tensors, description))

    def mutate(self, chance: random.Random) -> bool:
        while True:
            try:
                return super().mutate(chance)
            except TypeError:  # a forged description that no file can hold
                continue

    def read(self) -> Any:
        tensors, description = container.read(self.path)
        state.check_same_run(description, self.description, self.path)
        if "updates" not in description:
            raise ValueError("its description says nothing of its average")
        state.restore(tensors, description["updates"], *self.run)
        return tensors

    def judge(self, value: Any, deliberate: bool) -> str:
        if bits(state.tensors(*self.run)) != bits(value):
            raise WrongError("the state of the run is not the file's")
        return super().judge(value, deliberate)


class Lines(Reader):
    """The log of a run, which has no digests: what is read must be drawable."""

    share = 1.0

    def make(self) -> list[bytes]:
        window = Window(5, 2, torch.device("cpu"))
        window.add(torch.tensor(1.5), torch.tensor([1.0, 0.0]), torch.tensor([3.0, 0.0]), torch.tensor(2.0))
        lines = [window.line(step, 1e-3) for step in (5, 10, 15)]
        short = [{name: line[name] for name in ("step", "loss", "lr", "gradient_norm")} for line in lines]
        return ["".join(json.dumps(line) + "\n" for line in each).encode() for each in (lines, short)]

    def forge(self, content: bytes, chance: random.Random) -> bytes:
        lines = [forged_json(json.loads(line), chance) for line in content.splitlines()]
        return "\n".join(map(json.dumps, lines)).encode()

    def mutate(self, chance: random.Random) -> bool:
        self.steps = chance.choice((0, 10, 20))
        return super().mutate(chance)

    def read(self) -> Any:
        self.given = self.path.read_bytes()
        return Log(self.path, self.steps).lines

    def judge(self, value: Any, deliberate: bool) -> str:
        for line in value:
            if line["step"] > self.steps or not isinstance(
                line["loss"] + line["lr"] + (line["gradient_norm"] or 0), float
            ):
                raise WrongError(f"a line is {line}")
            sums = [
                mean * count
                for mean, count in zip(line.get("levels", ()), line.get("samples", ()), strict=True)
                if count
            ]
            if not all(isinstance(each, float) for each in sums) or line.keys() != value[0].keys():
                raise WrongError(f"a line is {line}")
        whole = [json.loads(line) for each in self.intact for line in each.splitlines()]
        return "right" if all(line in whole for line in value) else "changed"


class Trap:
    """What a pickle calls when it is loaded by a reader that lets it."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str, str]]:
        return open, (self.path, "w")


class Published(Reader):
    """Published pickles, which have no digests: no more than tensors and numbers may come in, and nothing may run."""

    share = 0.1

    def make(self) -> list[bytes]:
        self.sprung = self.folder / "sprung"
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network = NCSN(SIGMAS, NCSNConfig(channels=1, width=2))
        kept = {f"module.{name}": value for name, value in network.state_dict().items()}
        self.state = bits(network.state_dict())
        contents = [kept, [kept, {"step": 3}, 1, 500]]
        made = []
        for content in contents:
            for zipped in (True, False):
                buffer = io.BytesIO()
                torch.save(content, buffer, _use_new_zipfile_serialization=zipped)
                made.append(buffer.getvalue())
        return made

    def forge(self, content: bytes, chance: random.Random) -> bytes:
        """The pickle alone is damaged, or a trap is set in it."""
        trap = pickle.dumps(Trap(str(self.sprung)), protocol=2)[2:-1]
        if not content.startswith(b"PK"):
            start = chance.randrange(min(len(content), 30_000))
            return content[:start] + trap + content[start:]
        out = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(content)) as archive, zipfile.ZipFile(out, "w") as forgery:
            how = zipfile.ZIP_DEFLATED if chance.random() < 0.1 else zipfile.ZIP_STORED
            for entry in archive.infolist():
                data = archive.read(entry)
                if entry.filename.endswith("data.pkl"):
                    start = chance.randrange(2, len(data))
                    if chance.random() < 0.5:
                        data = data[:start] + trap + data[start:]
                    else:
                        data = blind(data, [data], chance)
                forgery.writestr(entry.filename, data, compress_type=how)
        return out.getvalue()

    def read(self) -> Any:
        return load_published(self.path, sigmas=SIGMAS)

    def judge(self, value: Any, deliberate: bool) -> str:
        return "right" if bits(value.net.state_dict()) == self.state else "changed"


READERS: dict[str, type[Reader]] = {
    "container": Container,
    "checkpoint": Checkpoint,
    "chain": Chain,
    "shard": Shard,
    "record": Record,
    "generations": Numbered,
    "training state": State,
    "training log": Lines,
    "published": Published,
}


# Readers that lack a check, which the same harness must see to let wrong data through.


class WithoutDigests(Container):
    """This package's reader, the comparison of the tensors' digests left out."""

    def read(self) -> Any:
        checked = container._tensor

        def unchecked(file: Any, name: str, entry: Any) -> Tensor:
            tensor = torch.empty(entry.shape, dtype=container.DTYPES[entry.dtype])
            file.readinto(container._memory(tensor))
            return tensor

        container._tensor = unchecked
        try:
            return container.read(self.path)
        finally:
            container._tensor = checked


class Library(Container):
    """The safetensors library, which has no digests."""

    errors = (SafetensorError, ValueError)

    def read(self) -> Any:
        return library_load(self.path.read_bytes())

    def judge(self, value: Any, deliberate: bool) -> str:
        return Reader.judge(self, value, deliberate)


class Trusting(Container):
    """A reader of the format that takes memory for what a header claims before it looks at the file's size."""

    errors = (Exception,)

    def read(self) -> Any:
        content = self.path.read_bytes()
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        header.pop("__metadata__")
        made = {}
        for name, entry in header.items():
            elements = torch.Size(entry["shape"]).numel()
            if elements > 2**27:
                raise ValueError("enough for the control")
            made[name] = torch.ones(elements)
        raise ValueError("its sizes are looked at too late")


class Pickles(Reader):
    """torch.load(weights_only=True) of a checkpoint of the same size."""

    errors = (Exception,)

    def make(self) -> list[bytes]:
        return [self.written(lambda path, k=k: torch.save({"weights": torch.arange(12.0) + k}, path)) for k in (0, 1)]

    def forge(self, content: bytes, chance: random.Random) -> bytes:
        return blind(content, self.intact, chance)

    def read(self) -> Any:
        return torch.load(self.path, weights_only=True)

    def judge(self, value: Any, deliberate: bool) -> str:
        return super().judge(value, False)


CONTROLS: dict[str, type[Reader]] = {
    "without digests": WithoutDigests,
    "safetensors library": Library,
    "sizes too late": Trusting,
    "torch.load": Pickles,
}


def opened(name: str, folder: Path) -> Reader:
    """The reader of a name in an empty folder of its own."""
    place = folder / name.replace(" ", "-").replace(".", "-")
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    return {**READERS, **CONTROLS}[name](place)
