"""Shards: the same samples whoever draws them, what is refused, and what is left when something goes wrong.

The score is one of a Gaussian, element by element, so that a sample has the same bits in any batch.
"""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import fastlangevin as fl
from fastlangevin import shards
from fastlangevin.models import MLP, MLPConfig
from fastlangevin.shards import RunFolder
from fastlangevin.shards.folder import _seal
from fastlangevin.shards.lease import claim
from fastlangevin.storage.container import MAX_DESCRIPTION, DamagedError
from fastlangevin.storage.files import host_name

SIGMAS = [1.0, 0.3]
CHAIN: dict[str, Any] = {"epsilon": 1e-3, "steps_per_level": 2, "denoise": True, "seed": 3, "impl": "reference"}
EVALUATIONS = 5
N = 22


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def score(x: Tensor, labels: Tensor) -> Tensor:
    variance = torch.tensor(SIGMAS)[labels] ** 2 + 0.3**2
    return (0.5 - x) / variance.to(x.dtype)[:, None]


class Counted:
    """The score, its evaluations counted by sample; ``then`` is called with the number of the call and the batch."""

    def __init__(self, then: Callable[[int, int], object] = lambda call, batch: None) -> None:
        self.then = then
        self.calls = 0
        self.samples = 0
        self.batches: list[int] = []

    def __call__(self, x: Tensor, labels: Tensor) -> Tensor:
        self.calls += 1
        self.then(self.calls, len(x))
        self.samples += len(x)
        self.batches.append(len(x))
        return score(x, labels)


def draw(folder: Path, by: Any = score, **options: Any) -> shards.Outcome:
    chosen = {"shape": (N, 3), "shard_size": 8, "batch": 3, "network": "gaussian", **CHAIN, **options}
    return shards.sample(by, SIGMAS, folder, **chosen)


def plain(**options: Any) -> Tensor:
    return fl.annealed_langevin(score, SIGMAS, **{"shape": (N, 3), **CHAIN, **options})


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def shard(index: int) -> str:
    return f"shard-{index:010}.safetensors"


WHOLE = ["run.json", shard(0), shard(1), shard(2)]


# The same samples.


@pytest.mark.parametrize(
    ("size", "batch"), [(8, 3), (8, None), (1, 1), (22, 5), (100, 64), (7, 7)], ids=lambda each: str(each)
)
def test_any_division_gives_the_bits_of_one_call(tmp_path: Path, size: int, batch: int | None) -> None:
    outcome = draw(tmp_path / "run", shard_size=size, batch=batch, sample_offset=5)
    assert outcome.complete
    assert outcome.drawn == N
    whole = plain(sample_offset=5)
    assert torch.equal(shards.collect(tmp_path / "run"), whole)
    assert torch.equal(torch.cat(list(shards.iterate(tmp_path / "run"))), whole)
    assert shards.digest(tmp_path / "run") == shards.digest_of(whole) != shards.digest_of(plain())
    assert names(tmp_path / "run") == ["run.json", *(shard(index) for index in range(-(-N // size)))]


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_dtype_of_the_state_is_kept(tmp_path: Path, dtype: torch.dtype) -> None:
    draw(tmp_path / "run", dtype=dtype, step_lr=5e-4, epsilon=None, init="normal", corrector="ou")
    whole = plain(dtype=dtype, init="normal", corrector="ou")
    assert shards.collect(tmp_path / "run").dtype == dtype
    assert shards.digest(tmp_path / "run") == shards.digest_of(whole)


def test_samples_may_be_single_numbers(tmp_path: Path) -> None:
    draw(tmp_path / "run", lambda x, labels: -x, shape=(5,))
    assert shards.collect(tmp_path / "run").shape == (5,)


def test_the_first_samples_are_there_before_the_rest(tmp_path: Path) -> None:
    draw(tmp_path / "run")
    (tmp_path / "run" / shard(2)).unlink()
    assert torch.equal(shards.collect(tmp_path / "run", 13), plain()[:13])
    for read in (shards.collect, shards.digest):
        with pytest.raises(FileNotFoundError, match=r"misses 1 of 3 shards.*shard-0000000002.*samples 16 to 21"):
            read(tmp_path / "run")


def test_a_network_is_known_by_its_weights_its_buffers_and_its_configuration() -> None:
    def made(seed: int = 0, top: float = 1.0, **options: Any) -> str:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return shards.network_digest(MLP([top, 0.1], MLPConfig(features=3, width=4, depth=1, **options)))

    digests = [made(), made(seed=1), made(top=2.0), made(mean=0.5)]
    assert len(set(digests)) == 4
    assert made() == digests[0]


def test_a_module_names_itself(tmp_path: Path) -> None:
    net = MLP(SIGMAS, MLPConfig(features=3, width=4, depth=1))
    draw(tmp_path / "run", net, network=None)
    assert RunFolder(tmp_path / "run").record["network"] == shards.network_digest(net)
    with pytest.raises(ValueError, match="network was"):
        draw(tmp_path / "run", MLP(SIGMAS, MLPConfig(features=3, width=4, depth=2)), network=None)


# Stopped and gone on with.


@pytest.mark.parametrize("call", [1, 9, 3 * EVALUATIONS, 5 * EVALUATIONS + 2])
def test_a_broken_run_draws_only_what_is_missing(tmp_path: Path, call: int) -> None:
    def breaks(number: int, batch: int) -> None:
        if number == call:
            raise KeyboardInterrupt

    first, second = Counted(breaks), Counted()
    with pytest.raises(KeyboardInterrupt):
        draw(tmp_path / "run", first)
    safe = len(first.batches) // EVALUATIONS  # batches that were finished
    assert draw(tmp_path / "run", second).drawn == N - sum(first.batches[::EVALUATIONS][:safe])
    assert second.samples == EVALUATIONS * (N - sum(first.batches[::EVALUATIONS][:safe]))
    assert shards.digest(tmp_path / "run") == shards.digest_of(plain())
    assert names(tmp_path / "run") == WHOLE
    third = Counted()
    before = contents(tmp_path / "run")
    assert draw(tmp_path / "run", third).complete
    assert third.calls == 0
    assert contents(tmp_path / "run") == before


def test_without_its_batches_a_broken_run_would_draw_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(number: int, batch: int) -> None:
        if number == 2 * EVALUATIONS + 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(RunFolder, "write_part", lambda *_: None)
    with pytest.raises(KeyboardInterrupt):
        draw(tmp_path / "run", Counted(breaks))
    assert draw(tmp_path / "run").drawn == N


def test_a_run_that_is_asked_to_stop_leaves_and_goes_on_with_another_batch_size(tmp_path: Path) -> None:
    counted = Counted()
    outcome = draw(tmp_path / "run", counted, stop=lambda: counted.calls >= EVALUATIONS + 2)
    assert (outcome.complete, outcome.drawn) == (False, 3)
    assert draw(tmp_path / "run", batch=4).drawn == N - 3
    assert shards.digest(tmp_path / "run") == shards.digest_of(plain())


def test_what_killed_processes_left_is_removed(tmp_path: Path) -> None:
    draw(tmp_path / "run")
    run = RunFolder(tmp_path / "run")
    run.write_part(1, 3, plain()[11:14])
    run.lock_path(1).touch()
    (tmp_path / "run" / f".{shard(1)}.{host_name()}.999999999.abc.tmp").touch()
    draw(tmp_path / "run")
    assert names(tmp_path / "run") == WHOLE


# Several at once.


def test_a_second_worker_takes_the_other_shards(tmp_path: Path) -> None:
    inner = Counted()

    def joins(number: int, batch: int) -> None:
        if number == 1:
            assert not draw(tmp_path / "run", inner, rank=1, world=2).complete

    outcome = draw(tmp_path / "run", Counted(joins), rank=0, world=2)
    assert (outcome.complete, outcome.drawn) == (True, 8)
    assert inner.samples == EVALUATIONS * (N - 8)
    assert shards.digest(tmp_path / "run") == shards.digest_of(plain())
    assert names(tmp_path / "run") == WHOLE


def test_without_locks_work_is_done_twice_and_never_wrongly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fcntl = pytest.importorskip("fcntl")

    def none(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)

    def joins(number: int, batch: int) -> None:
        if number == EVALUATIONS + 1:
            assert draw(tmp_path / "run", rank=0, world=2).drawn == N - 3

    outcome = draw(tmp_path / "run", Counted(joins), rank=0, world=2)
    assert (outcome.complete, outcome.drawn) == (True, 8)
    assert shards.digest(tmp_path / "run") == shards.digest_of(plain())
    assert names(tmp_path / "run") == WHOLE


def test_rank_0_waits_for_a_shard_that_another_holds_and_takes_it_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    draw(tmp_path / "run", stop=lambda: True)
    lock = RunFolder(tmp_path / "run").lock_path(1)
    taken, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with claim(lock) as ours:
            assert ours
            taken.set()
            leave.wait()

    holder = threading.Thread(target=hold)
    holder.start()
    taken.wait()
    assert draw(tmp_path / "run", rank=1, world=2) == shards.Outcome(False, N - 8, 6 * EVALUATIONS - 5, 3)
    polls: list[float] = []

    def poll(seconds: float) -> None:
        """In the place of sleeping: at the third look the holder leaves."""
        polls.append(seconds)
        if len(polls) == 3:
            leave.set()
            holder.join()

    monkeypatch.setattr("fastlangevin.shards.working.time.sleep", poll)
    assert draw(tmp_path / "run") == shards.Outcome(True, 8, 3 * EVALUATIONS, 3)
    assert len(polls) == 3
    (message,) = caplog.messages
    assert "waiting for another thread of this process, which draws shard 1" in message
    holder.join()
    assert shards.digest(tmp_path / "run") == shards.digest_of(plain())


def test_a_claim_on_a_file_that_its_holder_removes_is_no_claim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fcntl = pytest.importorskip("fcntl")
    lock, real, seen = tmp_path / "lock", fcntl.flock, []

    def late(handle: int, how: int) -> None:
        """Between opening and locking, the holder before removes the file and somebody makes a new one."""
        if not seen:
            lock.unlink()
            lock.touch()
        seen.append(os.fstat(handle).st_ino)
        real(handle, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with claim(lock) as ours:
        assert ours
        assert seen[-1] == lock.stat().st_ino != seen[0]
    assert not lock.exists()


def test_a_rank_is_read_from_the_environment_and_only_orders_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "3")
    counted = Counted()
    draw(tmp_path / "run", counted, stop=lambda: counted.calls > 2 * EVALUATIONS)
    assert [name for name in names(tmp_path / "run") if name != "run.json"] == [shard(2)]
    draw(tmp_path / "run")
    assert shards.digest(tmp_path / "run") == shards.digest_of(plain())


# Memory.


def _cuda(batch: int) -> None:
    raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate {batch} GiB")


def _cpu(batch: int) -> None:
    torch.empty(2**55)


@pytest.mark.parametrize("fails", [_cuda, _cpu], ids=["cuda", "cpu"])
@pytest.mark.parametrize("call", [1, 4])
def test_running_out_of_memory_halves_the_batch_with_the_same_bits(
    tmp_path: Path, fails: Callable[[int], None], call: int
) -> None:
    def above_two(number: int, batch: int) -> None:
        if number >= call and batch > 2:
            fails(batch)

    counted = Counted(above_two)
    outcome = draw(tmp_path / "run", counted, batch=None)
    assert (outcome.complete, outcome.batch) == (True, 2)
    assert shards.digest(tmp_path / "run") == shards.digest_of(plain())
    assert set(counted.batches[call - 1 :]) == {2}


def test_other_errors_are_no_lack_of_memory(tmp_path: Path) -> None:
    counted = Counted(lambda number, batch: torch.zeros(2) @ torch.zeros(3))
    with pytest.raises(RuntimeError, match="size"):
        draw(tmp_path / "run", counted)
    assert counted.calls == 1


def test_a_single_sample_that_does_not_fit_is_told(tmp_path: Path) -> None:
    counted = Counted(lambda number, batch: _cuda(batch))
    with pytest.raises(
        RuntimeError, match=r"batch of one sample, \(3,\), does not fit into memory: CUDA out of memory"
    ):
        draw(tmp_path / "run", counted, batch=8)
    assert counted.calls == 4
    assert names(tmp_path / "run") == ["run.json"]


def test_samples_that_are_not_finite_are_told_and_not_written(tmp_path: Path) -> None:
    def diverging(x: Tensor, labels: Tensor) -> Tensor:
        return x * torch.where(torch.arange(len(x)) == 1, torch.inf, 1.0)[:, None]

    with pytest.raises(
        RuntimeError, match=r"1 of 3 samples are not finite, the first is sample 1: .* smaller step size"
    ):
        draw(tmp_path / "run", diverging)
    assert names(tmp_path / "run") == ["run.json"]


# Disks.


def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "run"
    real, writes = os.fsync, []

    def full(handle: int) -> None:
        writes.append(handle)
        if len(writes) > 6:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(handle)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(OSError, match=r"No space left.*half-written.*make room and run the same again") as caught:
            draw(folder)
    assert caught.value.errno == errno.ENOSPC
    assert [name for name in names(folder) if name.endswith((".tmp", ".lock"))] == []
    assert 0 < draw(folder).drawn < N
    assert shards.digest(folder) == shards.digest_of(plain())


def test_a_file_that_may_not_grow_is_a_full_disk(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1500, before[1]))
    try:
        with pytest.raises(OSError, match="make room and run the same again"):
            draw(tmp_path / "run", shape=(N, 100))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert names(tmp_path / "run") == ["run.json"]
    assert draw(tmp_path / "run", shape=(N, 100)).drawn == N


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def test_a_damaged_shard_is_refused_or_set_aside_and_made_again(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    draw(folder)
    damage(folder / shard(1))
    before = contents(folder)
    for call in (lambda: draw(folder), lambda: shards.digest(folder)):
        with pytest.raises(DamagedError, match=shard(1)):
            call()
    with pytest.raises(DamagedError, match=r"remake_damaged=True .--remake-damaged."):
        draw(folder)
    assert contents(folder) == before
    for number, name in enumerate([f"{shard(1)}.damaged", f"{shard(1)}.2.damaged"]):
        assert draw(folder, remake_damaged=True).drawn == 8
        assert (folder / name).read_bytes() == before[shard(1)]
        assert len(names(folder)) == 5 + number
        assert shards.digest(folder) == shards.digest_of(plain())
        damage(folder / shard(1))


def test_a_damaged_batch_is_refused_or_set_aside_and_made_again(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    counted = Counted()
    draw(folder, counted, stop=lambda: counted.calls > 2 * EVALUATIONS)
    (part,) = folder.glob("*.part-0000000003.safetensors")
    damage(part)
    with pytest.raises(DamagedError, match=rf"{part.name}.*remake_damaged"):
        draw(folder)
    assert draw(folder, remake_damaged=True).drawn == N - 3
    assert names(folder) == sorted([*WHOLE, f"{part.name}.damaged"])
    assert shards.digest(folder) == shards.digest_of(plain())


@pytest.mark.parametrize("remake", [False, True])
def test_shards_of_another_run_or_place_are_refused_and_left(tmp_path: Path, remake: bool) -> None:
    folder, other = tmp_path / "run", tmp_path / "other"
    draw(folder)
    draw(other, seed=4, epsilon=2e-3)
    shutil.copy(other / shard(1), folder / shard(1))
    before = contents(folder)
    with pytest.raises(
        ValueError, match=rf"{shard(1)} is of another run: epsilon was 0.002 and is now 0.001; seed was 4"
    ):
        draw(folder, remake_damaged=remake)
    with pytest.raises(ValueError, match="another run"):
        shards.digest(folder)
    assert contents(folder) == before
    shutil.copy(folder / shard(0), folder / shard(1))
    with pytest.raises(ValueError, match=rf"{shard(1)} holds other samples than its name says .shard 0"):
        draw(folder, remake_damaged=remake)
    assert (folder / shard(1)).read_bytes() == before[shard(0)]


def test_a_lost_record_is_written_again_only_for_the_same_run(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    draw(folder)
    (folder / "run.json").unlink()
    with pytest.raises(ValueError, match=r"shard-0000000000.safetensors is of another run: seed was 3 and is now 4"):
        draw(folder, seed=4)
    assert not (folder / "run.json").exists()
    assert draw(folder).drawn == 0
    assert names(folder) == WHOLE


def test_every_changed_letter_of_the_record_is_found_or_harmless(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    draw(folder)
    content = (folder / "run.json").read_bytes()
    expected = RunFolder(folder).record
    found = 0
    for position in range(0, len(content), 3):
        changed = bytearray(content)
        changed[position] ^= 1 << position % 7
        (folder / "run.json").write_bytes(changed)
        try:
            assert RunFolder(folder).record == expected
        except DamagedError:
            found += 1
    assert found > len(content) / 6


def test_a_record_made_up_by_hand_gets_no_memory_and_no_other_paths(tmp_path: Path) -> None:
    draw(tmp_path / "run")
    path = tmp_path / "run" / "run.json"
    record = json.loads(path.read_text())["record"]
    for change in ({"shard_size": 0}, {"shard_size": "../x"}, {"n": -1}, {"shape": "x"}, {"dtype": "int64"}):
        bad = {**record, **change}
        path.write_text(json.dumps({"record": bad, "sha256": _seal(bad)}))
        with pytest.raises(DamagedError, match=next(iter(change))):
            RunFolder(tmp_path / "run")


def test_a_long_record_is_refused_unread(tmp_path: Path) -> None:
    """Parsed, a record of lists in lists takes 65 times its length."""
    draw(tmp_path / "run")
    record = tmp_path / "run" / "run.json"
    text = record.read_bytes()
    record.write_bytes(text + b" " * (MAX_DESCRIPTION - len(text)))
    RunFolder(tmp_path / "run")
    record.write_bytes(text + b" " * (MAX_DESCRIPTION - len(text) + 1))
    with pytest.raises(DamagedError, match=rf"it has {MAX_DESCRIPTION + 1} bytes, more than {MAX_DESCRIPTION}"):
        RunFolder(tmp_path / "run")
