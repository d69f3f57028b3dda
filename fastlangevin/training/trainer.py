"""Training a score network by score matching, so that a run can end at any moment and go on as if it had not.

A run is a function of its configuration, its data and its network: weights start from the seed; the order of the data,
what is done to them, the levels and the noise are addressed by seed, step and place in the batch. The same run gives
the same bits on the same machine with the same number of threads, however often it was stopped, for networks that draw
no random numbers themselves; over several processes the samples' noise is the same to the bit and the weights to
rounding.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import logging
import os
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, get_args

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from fastlangevin.data import AddressedBatches, Source, loader
from fastlangevin.data.repeats import check_repeats
from fastlangevin.losses import DenoisingScoreMatching, annealed_ssm_loss
from fastlangevin.models.base import ScoreNet
from fastlangevin.noise import SampleOptions
from fastlangevin.samplers import annealed_langevin
from fastlangevin.stopping import Stopped, Stopping
from fastlangevin.storage import container
from fastlangevin.storage.files import write_whole
from fastlangevin.storage.generations import Generations
from fastlangevin.training import state
from fastlangevin.training.average import DEFAULT_RULE, Average, AverageRule
from fastlangevin.training.config import TrainConfig
from fastlangevin.training.gradients import mean_of_each
from fastlangevin.training.log import Log, Window
from fastlangevin.training.report import Bar, Board, check_sampling, draw_curves, draw_samples
from fastlangevin.training.world import World, join

__all__ = ["Places", "train"]

logger = logging.getLogger("fastlangevin")

PREFIX = "state"
_PICTURE = re.compile(r"samples-[0-9]{10}\.png")
# The paper's step size at the last level, for ladders of its kind.
SAMPLING = {"epsilon": 2e-5, "steps_per_level": 50, "init": "uniform", "denoise": True}


@dataclass(frozen=True)
class Places:
    """Folders and ways of working of a run: nothing here changes a weight.

    Args:
        folder: of the run: states ``state-<step>.safetensors``, ``metrics.jsonl``, ``curves.png``, ``samples-*.png``
            and TensorBoard's files; None keeps nothing.
        resume: go on from the newest state in the folder, if there is one.
        fallback: where the newest state is damaged, go on from the one before it.
        workers: processes that read data which are not in memory.
        device: where to compute; by default the process's own GPU, or the CPU.
        progress: show a bar with loss and images per second.
        sampling: options of :func:`fastlangevin.annealed_langevin` for the pictures of samples, as JSON has them; the
            run itself gives shape, seed, device and callback.
    """

    folder: str | os.PathLike[str] | None = None
    resume: bool = False
    fallback: bool = False
    workers: int = 0
    device: str | None = None
    progress: bool = False
    sampling: dict[str, Any] | None = None


def train(
    build: Callable[[], ScoreNet],
    source: Source,
    config: TrainConfig,
    places: Places | None = None,
    *,
    callback: Callable[[int, float], object] | None = None,
) -> ScoreNet:
    """Trains a network.

    Gradients are on inside, under ``torch.no_grad()`` and ``torch.inference_mode()`` too.
    SIGTERM and SIGINT end the run between two steps, with its state saved where it has a folder.

    Args:
        build: makes the untrained network; called with the CPU as the default device and PyTorch's default generator
            seeded with the run's seed, whose former state comes back afterwards. All threads share that generator: one
            that draws from it meanwhile has other numbers, and so has the network.
        source: the data.
        config: how to train.
        places: folder, device and the like; by default nothing is kept.
        callback: called after each step as ``callback(step, loss)``; an exception that it raises ends the run. It makes
            the host wait for the loss of each step.

    Returns:
        The network with its averaged weights, on the CPU, in evaluation mode.

    Raises:
        TypeError, ValueError: an option is of the wrong kind or out of range.
        ValueError: the folder holds another run, or one that has not ended and is not to be resumed (one of the same
            description that has ended is made anew); or the network has more tensors than a state has room for.
        RuntimeError: the loss is no longer finite; the saved states are those of before.
        fastlangevin.stopping.Stopped: a signal came; it ends the process with 143 or 130 where nobody catches it.
    """
    places = places or Places()
    # Signals are caught once the processes have met: waiting for one that never comes must end by them.
    with join(places.device) as world, Stopping() as stop, torch.inference_mode(False), torch.enable_grad():
        with stop.immediately():
            run = _Run(build, source, config, places, world, stop, callback)
        return run.go()


class _Run:
    def __init__(
        self,
        build: Callable[[], ScoreNet],
        source: Source,
        config: TrainConfig,
        places: Places,
        world: World,
        stop: Stopping,
        callback: Callable[[int, float], object] | None,
    ) -> None:
        self.config, self.places, self.world, self.stop, self.callback = config, places, world, stop, callback
        self.source = source
        # On the CPU, whatever the default device: the generators of other devices are not seeded.
        # By the generator that all threads share: the caller's function may draw in any way, or seed it once more.
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):
            torch.default_generator.manual_seed(config.seed)
            net = build()
        self.net: ScoreNet = net.train().to(world.device)
        if config.channels_last:
            self.net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.parallel: DistributedDataParallel | None = None
        if world.size > 1:
            self.parallel = DistributedDataParallel(self.net)
            self.parallel.register_comm_hook(world, mean_of_each)
        self.model: nn.Module = self.parallel or self.net
        if config.compile:
            self.model = torch.compile(self.model)  # type: ignore[assignment]
        kinds = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
        self.optimiser = kinds[config.optimiser](self.net.parameters(), lr=config.lr, weight_decay=config.weight_decay)
        self.scaler = torch.amp.GradScaler(world.device.type, enabled=config.precision == "float16")
        self.average = Average(self.net, config.ema, config.ema_rule or DEFAULT_RULE)
        self.objective = DenoisingScoreMatching(self.net.sigmas, anneal_power=config.anneal_power, workspace=True)
        levels = self.net.sigmas.numel() if config.objective == "dsm" else 0
        self.window = Window(min(config.log_every, config.steps), levels, world.device)
        self.done = 0
        self.order = AddressedBatches(
            len(source),
            batch=config.batch,
            stop=config.steps,
            seed=config.seed,
            rank=world.rank,
            world=world.size,
            micro=config.accumulate,
        )
        if not source.repeatable:
            check_repeats(lambda index: source.take([index])[0], len(source), source.name)
        self.data = loader(source, self.order, workers=places.workers, pin=world.device.type == "cuda")
        # U(0, 1) is no start for logits, which spread over the whole line.
        usual = SAMPLING if config.augment.logit is None else {**SAMPLING, "init": "normal"}
        self.sampling: dict[str, Any] = usual if places.sampling is None else places.sampling
        check_sampling(self.sampling, self.net.sigmas, source.shape, world.device)
        self.generations: Generations | None = None
        self.log: Log | None = None
        self.folder = None if places.folder is None else Path(places.folder)
        fingerprint = None if self.folder is None else source.fingerprint()
        self.description = state.describe(self.net, source, config, fingerprint)
        self._check_room()
        if self.folder is not None:
            self._open(self.folder)

    def _check_room(self) -> None:
        """Raises where what is saved at the end would not fit into a file: before the first step, not after hours."""
        if self.folder is None:
            return
        named = state.tensors(self.net, self.optimiser, self.average, self.window)
        for name, parameter in self.net.named_parameters():
            if parameter.requires_grad:
                named |= {f"optimiser.{key}.{name}": parameter.detach() for key in ("exp_avg", "exp_avg_sq")}
                named[f"optimiser.step.{name}"] = torch.empty(0, dtype=torch.float32, device="cpu")
        try:
            container.check_room(named, self._description())
        except ValueError as error:
            raise ValueError(
                f"a state of this run could not be saved ({error}); train a network of fewer layers or a shorter "
                "ladder, or without a folder"
            ) from error

    def _description(self) -> dict[str, Any]:
        return {**self.description, "updates": self.average.updates, "scaler": self.scaler.state_dict()}

    def _open(self, folder: Path) -> None:
        """Goes on from what is in the run's folder where that is wanted, and begins the log.

        What an earlier run of this description left is removed last, when nothing can be wrong with this one any more.
        """
        if self.world.leads:
            folder.mkdir(parents=True, exist_ok=True)
        self.world.wait()
        self.generations = Generations(folder, PREFIX)
        steps = self.generations.steps()
        if steps and self.places.resume:
            self._restore(self.generations)
            self.order.start = self.done
        elif steps:
            found = self.generations.load(fallback=True)
            if not state.has_ended(found.step, found.description):
                raise ValueError(
                    f"{folder} holds a run that was stopped at step {found.step}; go on with it by resume=True "
                    "(--resume), give another folder, or delete it"
                )
            try:
                state.check_same_run(found.description, self.description, folder, self.source.label)
            except ValueError as error:
                raise ValueError(f"{error}, or delete it") from error
        self.world.wait()
        if self.world.leads:
            if not self.done:
                pictures = (path for path in folder.iterdir() if _PICTURE.fullmatch(path.name))
                for path in (*map(self.generations.path, steps), *pictures):
                    path.unlink()
            self.log = Log(folder / "metrics.jsonl", self.done)
            text = json.dumps({**self.description, "sampling": self.sampling}, indent=1)
            write_whole(folder / "config.json", text.encode())

    def _restore(self, generations: Generations) -> None:
        step, tensors, description = generations.load(fallback=self.places.fallback)
        path = generations.path(step)
        self._follow_rule(state.average_rule(description))
        state.check_same_run(description, self.description, path, self.source.label)
        if not state.has_fingerprint(description):
            logger.warning(
                "%s was saved by an earlier fastlangevin and does not say what is in its data: that they are the same "
                "is taken on trust, and the next state will say it",
                path,
            )
        try:
            self.scaler.load_state_dict(description["scaler"])
            state.restore(tensors, description["updates"], self.net, self.optimiser, self.average, self.window)
        except (ValueError, KeyError, TypeError, RuntimeError) as error:
            raise ValueError(
                f"{path} is not the state of this run, though its description says so ({error}); start anew in another "
                "folder"
            ) from error
        self.done = step
        if self.world.leads:
            for later in generations.steps():
                if later > step:  # damaged, and skipped: it stays for a look at it, but is the newest no more
                    path = generations.path(later)
                    path.rename(path.with_suffix(".damaged"))

    def _follow_rule(self, rule: Any) -> None:
        """Averages by the rule that the run was begun with, unless the configuration asks for one."""
        if self.config.ema_rule is not None or rule not in get_args(AverageRule):
            return
        self.config = dataclasses.replace(self.config, ema_rule=rule)
        self.average.rule = self.description["config"]["ema_rule"] = rule

    def _save(self) -> None:
        if self.generations is None or not self.world.leads:
            return
        tensors = state.tensors(self.net, self.optimiser, self.average, self.window)
        if self.log is not None:
            self.log.flush()
        self.generations.save(self.done, tensors, self._description())
        if self.log is not None:
            try:
                draw_curves(self.generations.folder / "curves.png", self.log.lines)
            except OSError as error:
                logger.warning("the curves could not be drawn: %s", error)

    def go(self) -> ScoreNet:
        config, world = self.config, self.world
        with ExitStack() as stack:
            shown = self.places.progress and world.leads
            self.bar = stack.enter_context(Bar(config.steps * config.batch, self.done * config.batch, shown))
            self.board = None
            if self.folder is not None and world.leads:
                self.board = stack.enter_context(Board(self.folder, self.done))
            if self._pictures():  # a signal may have come before it was drawn
                self._picture()
                if self._leaves():
                    self._leave()
            first = True
            for batches in self._steps():
                # A first step compiles for as long as it likes; until it ends, what is on the disk is the whole state.
                with self.stop.immediately() if first else nullcontext():
                    self._step(batches)
                first = False
                self._after_step()
        self.average.copy_to(self.net)
        self.net.eval().to("cpu")
        return self.net

    def _steps(self) -> Iterator[list[Tensor]]:
        """The micro-batches of this process, step by step."""
        config = self.config
        data = iter(self.data)
        for _ in range(self.done, config.steps):
            yield [next(data) for _ in range(config.accumulate)]

    def _step(self, batches: list[Tensor]) -> None:
        config, step = self.config, self.done
        for group in self.optimiser.param_groups:
            group["lr"] = config.rate(step)
        self.optimiser.zero_grad(set_to_none=True)
        levels = self.window.sums.shape[1]
        told = torch.zeros(1 + 2 * levels, dtype=torch.float64, device=self.world.device)
        for index, batch in enumerate(batches):
            last = index == len(batches) - 1
            with nullcontext() if self.parallel is None or last else self.parallel.no_sync():
                loss = self._loss(batch, index) / len(batches)
                self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            told[0] += loss.detach()
            if levels and (per_level := self.objective.per_level) is not None:
                told[1 : 1 + levels] += per_level.sums
                told[1 + levels :] += per_level.counts
        self.world.sum(told)
        self.scaler.unscale_(self.optimiser)
        gradients = [each.grad for each in self.net.parameters() if each.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        if config.clip:
            torch.nn.utils.clip_grads_with_norm_(self.net.parameters(), config.clip, norm)
        self.window.add(told[0] / self.world.size, told[1 : 1 + levels], told[1 + levels :], norm)
        if self.world.device.type == "cpu":
            self._check(step + 1 - self.window.steps)
        # Adam makes its counts of steps at the first one, on the default device; they belong on the CPU.
        with nullcontext() if self.optimiser.state else torch.device("cpu"):
            self.scaler.step(self.optimiser)
        self.scaler.update()
        self.average.update()
        self.done += 1

    def _loss(self, batch: Tensor, micro: int) -> Tensor:
        config, device, step = self.config, self.world.device, self.done
        samples: SampleOptions = {"seed": config.seed, "sample_offset": self.order.positions(micro).start}
        x = config.augment(batch.to(device, non_blocking=True), greys=self.source.greys, step=step, **samples)
        if config.channels_last and x.ndim == 4:
            x = x.contiguous(memory_format=torch.channels_last)
        if config.objective == "dsm":
            loss: Tensor = self.objective(self._network, x, step=step, **samples)
            return loss
        return annealed_ssm_loss(self._network, x, self.net.sigmas, step=step, **samples)

    def _network(self, x: Tensor, labels: Tensor) -> Tensor:
        enabled = self.config.precision != "float32"
        with torch.autocast(self.world.device.type, dtype=self.config.dtype, enabled=enabled):
            h: Tensor = self.model(x, labels)
        return h

    def _check(self, first_step: int) -> None:
        # A gradient scaler skips steps whose gradient is not finite: they spoil nothing.
        self.window.check(first_step, norms=not self.scaler.is_enabled())

    def _after_step(self) -> None:
        """Log, picture, state: whatever is due after ``self.done`` steps, and the end if a signal asks for it."""
        config, done = self.config, self.done
        self.bar.advance(config.batch)
        if self.callback is not None:
            self.callback(done - 1, self.window.losses[self.window.steps - 1].item())
        ends, leaves = done == config.steps, self._leaves()
        saves = ends or leaves or done % config.save_every == 0
        logs = ends or done % config.log_every == 0
        if saves or logs:
            self._check(done - self.window.steps)
        if logs:
            self._write_line()
        if saves:
            self._save()
        if leaves:
            self._leave()
        if self._pictures():
            self._picture()
            if self._leaves():
                if not saves:
                    self._save()
                self._leave()

    def _leave(self) -> NoReturn:
        self.stop.check()
        raise Stopped(signal.SIGTERM)  # it came to another process of the run

    def _pictures(self) -> bool:
        """Returns whether a picture of samples is due after ``self.done`` steps."""
        every = self.config.sample_every
        return bool(every and self.done and (self.done == self.config.steps or self.done % every == 0))

    def _leaves(self) -> bool:
        """Returns whether a signal has come, to this process or to another of the run."""
        asked = self.stop.signal is not None
        if self.world.size == 1:
            return asked
        return bool(self.world.sum(torch.tensor(float(asked), dtype=torch.float32, device="cpu")))

    def _write_line(self) -> None:
        line = self.window.line(self.done, self.config.rate(self.done - 1))
        self.window.clear()
        self.bar.show(line["loss"])
        if self.log is not None:
            self.log.write(line)
        if self.board is not None:
            self.board.write(line, self.bar.speed)

    def _picture(self) -> None:
        """Samples of the averaged weights as a picture; given up where a signal comes, and drawn after a resume."""
        shape = self.source.shape
        if self.folder is None or not self.world.leads or len(shape) != 3 or shape[0] not in (1, 3):
            return
        net = copy.deepcopy(self.net)
        self.average.copy_to(net)
        samples = annealed_langevin(
            net.eval(),
            net.sigmas,
            shape=(self.config.samples, *shape),
            seed=self.config.seed,
            device=self.world.device,
            callback=lambda _: self.stop.signal is not None,
            # What a network that has not learnt yet makes is no reason to stop.
            **{"non_finite": None, **self.sampling},
        )
        if self.stop.signal is None:
            notes = {"step": self.done, "seed": self.config.seed}
            draw_samples(
                self.folder / f"samples-{self.done:010}.png", self.config.augment.inverse(samples.cpu()), notes
            )
