"""Schedulers for pipelines of Hugging Face's diffusers, which must be installed.

``AnnealedLangevinScheduler`` samples NCSN and NCSNv2 networks, ``FusedScoreSdeVeScheduler`` stands in for diffusers'
``ScoreSdeVeScheduler``. Both draw their noise by address, inside the update's kernel, and take three more keyword
arguments wherever noise is drawn, none of which is part of a configuration:

- ``generator``: a ``torch.Generator`` on any device, whatever the device of the samples, or one for each sample. A seed
  is drawn from it at every call. A sample with a generator of its own depends on nothing else, neither on its place in
  the batch nor on the batch: its sample id is 0 unless ``sample_ids`` says otherwise.
- ``seed``: 0 to 2^64 - 1, or int64 ``(B,)`` of one for each sample, for the whole chain.
- ``sample_ids``: ``B`` global ids, by default 0 to B-1, so that any subset of a run can be made again alone.

With neither generator nor seed, a seed comes from PyTorch's default CPU generator at every call.

The one thing that a scheduler remembers from call to call is ``draw``, the number of the next draw. ``set_timesteps``
sets it to zero; a chain that was stopped goes on with the same bits where ``draw`` is set to what it was.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, get_args

import torch
from torch import Tensor

from fastlangevin import rules
from fastlangevin.noise import Generators, Purpose, Seed, integer, resolve_draw, resolve_sample_ids, resolve_seed
from fastlangevin.ops import randn
from fastlangevin.ops import step as update
from fastlangevin.ops.arguments import floating, like_state
from fastlangevin.rules import Coefficients, Corrector, SignalNorm
from fastlangevin.rules.coefficients import not_negative
from fastlangevin.samplers.signal import SignalToNoise
from fastlangevin.schedules import check_sigmas, ends, geometric_sigmas
from fastlangevin.scores import Output, Takes

try:
    from diffusers import ConfigMixin, SchedulerMixin, ScoreSdeVeScheduler
    from diffusers.configuration_utils import register_to_config
    from diffusers.schedulers.scheduling_sde_ve import SdeVeOutput
    from diffusers.schedulers.scheduling_utils import SchedulerOutput
except ImportError as error:
    raise ImportError(
        f"fastlangevin.compat.diffusers needs diffusers, which cannot be imported ({error}); pip install diffusers"
    ) from error

__all__ = ["AnnealedLangevinScheduler", "FusedScoreSdeVeScheduler"]

SampleIds = Tensor | Sequence[int]
Device = torch.device | str

# What diffusers calls two of the outputs.
OTHER_NAMES = {"epsilon": "noise", "sample": "denoised"}


def _check_arguments(model_output: Tensor, sample: Tensor) -> None:
    floating("sample", sample)
    if not sample.ndim:
        raise ValueError("sample must have a batch dimension, (B, ...), got a tensor without dimensions")
    like_state("model_output", model_output, sample)


def _address(
    sample: Tensor, generator: Generators | None, seed: Seed | None, sample_ids: SampleIds | None, draw: int
) -> dict[str, Any]:
    """The address of a call's noise, as :func:`fastlangevin.step` takes it."""
    if isinstance(generator, Sequence):
        if len(generator) == 1 and sample.shape[0] != 1:
            # One for all, as diffusers has it: the samples then differ by their ids.
            generator = generator[0]
        elif sample_ids is None:
            sample_ids = torch.zeros(sample.shape[0], dtype=torch.int64, device=sample.device)
    return {"generator": generator, "seed": seed, "sample_ids": sample_ids, "draw": draw}


def _add_noise(original_samples: Tensor, noise: Tensor | None, sigma: Tensor) -> Tensor:
    """x + sigma z for noise levels ``(B,)``."""
    floating("original_samples", original_samples)
    if not original_samples.ndim or sigma.shape != original_samples.shape[:1]:
        raise ValueError(
            f"timesteps must have one entry for each sample, got {tuple(sigma.shape)} for samples of shape "
            f"{tuple(original_samples.shape)}"
        )
    if noise is None:
        noise = randn(original_samples.shape, purpose=Purpose.DSM_NOISE, device=original_samples.device)
    like_state("noise", noise, original_samples)
    return update(original_samples, noise, a=sigma.to(original_samples.device), b=None)


def _levels_at(table: Tensor, timesteps: Tensor, zero: str) -> Tensor:
    """The noise levels of integer timesteps ``(B,)``."""
    if not isinstance(timesteps, Tensor) or timesteps.is_floating_point() or timesteps.dtype == torch.bool:
        kind = timesteps.dtype if isinstance(timesteps, Tensor) else type(timesteps).__name__
        raise TypeError(f"timesteps must be an int64 tensor (B,) of levels, got {kind}; use .long()")
    if timesteps.device.type == "cpu" and timesteps.numel():
        low, high = (int(each) for each in timesteps.aminmax())
        if low < 0 or high >= len(table):
            raise ValueError(
                f"timesteps must be from 0 ({zero} sigma) to {len(table) - 1}, got {low if low < 0 else high}"
            )
    return table.to(timesteps.device)[timesteps]


class AnnealedLangevinScheduler(SchedulerMixin, ConfigMixin):  # type: ignore[misc]  # Any to mypy
    """Annealed Langevin dynamics (Song and Ermon 2019, Algorithm 1; NCSNv2, 2020) for a diffusers pipeline.

    The loop is that of every pipeline::

        scheduler.set_timesteps()
        for t in scheduler.timesteps:
            x = scheduler.step(net(x, t), t, x, generator=generator).prev_sample

    With ``seed=`` and the score for output it has the bits of :func:`fastlangevin.annealed_langevin` of the same seed,
    ladder and initial states. Begin with ``init_noise_sigma`` times standard normals, or, as the paper, with U(0, 1).
    See the module for ``generator``, ``seed`` and ``sample_ids``.

    Args:
        num_train_timesteps: noise levels the network was trained with, L.
        sigma_max: the largest, sigma_1, in units of the data. The ladder between is geometric.
        sigma_min: the smallest, sigma_L.
        trained_sigmas: the ladder itself, largest first, in the place of the three before.
        steps_per_level: updates for each noise level, T.
        epsilon: the paper's step size at the last level: x + alpha/2 score + sqrt(alpha) z.
        step_lr: the published code's: x + step score + sqrt(2 step) z, equal to epsilon = 2 step_lr. Exactly one of the
            two must be given.
        corrector: ``"langevin"`` or ``"ou"``, see :func:`fastlangevin.rules.annealed`.
        denoise: end with x + sigma_L^2 score, the step to the posterior mean; it is one timestep more.
        prediction_type: what the network returns, h: ``"score"``; ``"scaled"``, score = h/sigma; ``"noise"``, the
            predicted z of x = data + sigma z, score = -h/sigma; ``"denoised"``, the predicted data.
        takes: what the network is told: ``"labels"``, the index of the level, 0 for the largest sigma; ``"sigma"``, the
            level itself. ``timesteps`` are of that kind.

    Attributes:
        sigmas: the ladder ``(L,)``, fp32, largest first. Step sizes come of it in fp64.
        timesteps: what the network is told at each step, ``(L*T,)`` or with ``denoise`` ``(L*T + 1,)``, after
            ``set_timesteps``.
        init_noise_sigma: sigma_1.
        draw: number of the next update.

    Raises:
        TypeError, ValueError: an argument is of the wrong kind or out of range.
    """

    order = 1

    @register_to_config
    def __init__(
        self,
        num_train_timesteps: int = 10,
        sigma_max: float = 1.0,
        sigma_min: float = 0.01,
        trained_sigmas: Sequence[float] | None = None,
        steps_per_level: int = 100,
        epsilon: float | None = None,
        step_lr: float | None = None,
        corrector: Corrector = "langevin",
        denoise: bool = False,
        prediction_type: Output = "score",
        takes: Takes = "labels",
    ) -> None:
        if prediction_type not in get_args(Output):
            other = OTHER_NAMES.get(prediction_type)
            hint = f"; {prediction_type!r} is {other!r} here, of x = data + sigma z" if other else ""
            raise ValueError(
                f"prediction_type must be one of {', '.join(get_args(Output))}, got {prediction_type!r}{hint}"
            )
        if takes not in get_args(Takes):
            raise ValueError(f"takes must be one of {', '.join(get_args(Takes))}, got {takes!r}")
        if trained_sigmas is None:
            ladder = geometric_sigmas(
                *ends("sigma_max", sigma_max, "sigma_min", sigma_min),
                integer("num_train_timesteps", num_train_timesteps, 2, 10**6),
            )
        else:
            ladder = torch.tensor(check_sigmas(trained_sigmas, "trained_sigmas"), dtype=torch.float64, device="cpu")
            self.register_to_config(
                trained_sigmas=ladder.tolist(),
                num_train_timesteps=len(ladder),
                sigma_max=float(ladder[0]),
                sigma_min=float(ladder[-1]),
            )
        integer("steps_per_level", steps_per_level, 1, 2**31)
        levels = ladder.tolist()
        listed = rules.annealed(levels, rules.step_size(epsilon, step_lr), corrector)
        self._rules = [_for_output(rule, level, prediction_type) for rule, level in zip(listed, levels, strict=True)]
        self._last = _for_output(rules.denoise(levels[-1]), levels[-1], prediction_type)
        self._ladder = ladder
        self.sigmas = ladder.float()
        self.init_noise_sigma = levels[0]
        self.timesteps: Tensor | None = None
        self.draw = 0

    def scale_model_input(self, sample: Tensor, timestep: object = None) -> Tensor:
        """The sample as it is: these networks take it so."""
        return sample

    def set_timesteps(self, num_inference_steps: int | None = None, device: Device | None = None) -> None:
        """Begins a chain.

        Args:
            num_inference_steps: updates in all, a multiple of the number of levels, the denoise step not counted; by
                default ``steps_per_level`` for each level. The step size stays what it is.
            device: where ``timesteps`` are put. On a device they are not read, and their order is trusted.

        Raises:
            TypeError, ValueError: ``num_inference_steps`` is not such a multiple.
        """
        levels = len(self)
        if num_inference_steps is None:
            self._repeats = self.config.steps_per_level
        else:
            count = integer("num_inference_steps", num_inference_steps, 1, 2**31)
            self._repeats, rest = divmod(count, levels)
            if rest:
                near = max(1, round(count / levels)) * levels
                raise ValueError(
                    f"num_inference_steps must be a multiple of the {levels} noise levels, got {count}; the nearest is "
                    f"{near}"
                )
        labels = torch.arange(levels, device="cpu").repeat_interleave(self._repeats)
        if self.config.denoise:
            labels = torch.cat((labels, labels[-1:]))
        timesteps = labels if self.config.takes == "labels" else self.sigmas[labels]
        self.num_inference_steps = levels * self._repeats
        self._expected = timesteps.tolist()
        self.timesteps = timesteps.to(device)
        self.draw = 0

    def step(
        self,
        model_output: Tensor,
        timestep: float | Tensor,
        sample: Tensor,
        generator: Generators | None = None,
        return_dict: bool = True,
        *,
        seed: Seed | None = None,
        sample_ids: SampleIds | None = None,
    ) -> SchedulerOutput | tuple[Tensor]:
        """The next update of the chain.

        Args:
            model_output: of the network, shape of ``sample``, any float dtype.
            timestep: the one of ``timesteps`` that is next.
            sample: state ``(B, ...)``, not changed.
            generator, seed, sample_ids: see the module.
            return_dict: return a ``SchedulerOutput``, not a tuple.

        Returns:
            The new state as ``prev_sample``, with the shape, dtype and layout of ``sample``.

        Raises:
            RuntimeError: ``set_timesteps`` was not called, or the chain has ended.
            TypeError, ValueError: an argument is of the wrong kind, shape, device or range, or ``timestep`` is not
                the next one.
        """
        if self.timesteps is None:
            raise RuntimeError("there are no timesteps yet; call set_timesteps() before the first step")
        draw = integer("draw", self.draw, 0, 2**32)
        if draw >= len(self._expected):
            raise RuntimeError(
                f"the chain of {len(self._expected)} steps has ended; call set_timesteps() to begin another"
            )
        self._check_next(timestep, draw)
        _check_arguments(model_output, sample)
        level = draw // self._repeats
        c, a, b = self._rules[level] if level < len(self._rules) else self._last
        moved = update(sample, model_output, c=c, a=a, b=b, **_address(sample, generator, seed, sample_ids, draw))
        self.draw = draw + 1
        return SchedulerOutput(prev_sample=moved) if return_dict else (moved,)

    def _check_next(self, timestep: float | Tensor, draw: int) -> None:
        if isinstance(timestep, Tensor):
            if timestep.device.type != "cpu":
                return
            values = timestep.flatten().tolist()
        else:
            values = [timestep]
        if any(value != self._expected[draw] for value in values):
            raise ValueError(
                f"timestep must be timesteps[{draw}] = {self._expected[draw]} at step {draw} of the chain, got "
                f"{timestep}; call set_timesteps() to begin another chain, or set draw to where this one is"
            )

    def add_noise(self, original_samples: Tensor, noise: Tensor | None, timesteps: Tensor) -> Tensor:
        """x + sigma z, for training.

        Args:
            original_samples: clean samples ``(B, ...)``.
            noise: z, same shape; None draws it, by a seed from PyTorch's default CPU generator.
            timesteps: ``(B,)``, what the network is told: int64 labels, or with ``takes="sigma"`` noise levels.

        Returns:
            The perturbed samples, with the shape, dtype and layout of ``original_samples``.

        Raises:
            TypeError, ValueError: an argument is of the wrong kind, shape, device or range.
        """
        if self.config.takes == "sigma":
            sigma = floating("timesteps", timesteps)
        else:
            sigma = _levels_at(self._ladder, timesteps, "largest")
        return _add_noise(original_samples, noise, sigma)

    def __len__(self) -> int:
        return len(self._rules)


def _for_output(rule: Coefficients, sigma: float, output: Output) -> Coefficients:
    """The same update for what the network returns in the place of the score."""
    c, a, b = rule
    if output == "denoised":
        return Coefficients(c - a / sigma**2, a / sigma**2, b)
    return Coefficients(c, a * {"score": 1.0, "scaled": 1 / sigma, "noise": -1 / sigma}[output], b)


class FusedScoreSdeVeScheduler(ScoreSdeVeScheduler):  # type: ignore[misc]  # Any to mypy
    """diffusers' ``ScoreSdeVeScheduler`` on the fused kernel: a drop-in for it and for its configurations.

    Predictor and corrector of the variance exploding SDE (Song et al. 2021): ``step_pred`` is
    :func:`fastlangevin.rules.ve_reverse_diffusion`, ``step_correct`` :func:`fastlangevin.rules.signal_to_noise`, on the
    same ``timesteps``, ``sigmas`` and ``discrete_sigmas``, bit for bit. What differs:

    - the noise: by address instead of ``torch.randn``'s, drawn on the samples' device (the original makes the
      corrector's on the CPU and refuses CUDA generators); ``seed=`` and ``sample_ids=``; see the module;
    - ``norm``: ``"sample"`` and ``"sqrt_d"`` uncouple a sample from its batch, ``"batch"`` is the original;
    - coefficients: in fp64 from ``discrete_sigmas`` (the original squares and subtracts in fp32), and not rounded to
      fp32 where the state is fp64 (the original's corrector does);
    - results keep the dtype of ``sample`` (the original returns fp32 for half precision), of any number of dimensions;
    - ``set_timesteps`` and ``set_sigmas`` of different lengths, levels out of range and the like raise.

    Args:
        num_train_timesteps: noise levels, N, until ``set_timesteps`` says otherwise.
        snr: signal-to-noise ratio of the corrector, above zero.
        sigma_min: the smallest noise level, in units of the data.
        sigma_max: the largest.
        sampling_eps: the last time, from 0 to below 1.
        correct_steps: corrector steps before each predictor step; the pipeline takes them.
        norm: how the corrector measures ||z||/||score||, see :data:`fastlangevin.rules.SignalNorm`.

    Raises:
        TypeError, ValueError: an argument is of the wrong kind or out of range.
    """

    _compatibles = ["ScoreSdeVeScheduler"]  # noqa: RUF012  # diffusers' own way to say it

    @register_to_config
    def __init__(
        self,
        num_train_timesteps: int = 2000,
        snr: float = 0.15,
        sigma_min: float = 0.01,
        sigma_max: float = 1348.0,
        sampling_eps: float = 1e-5,
        correct_steps: int = 1,
        norm: SignalNorm = "batch",
    ) -> None:
        self._signal = SignalToNoise(snr, norm)
        integer("correct_steps", correct_steps, 0, 2**31)
        self.init_noise_sigma = sigma_max
        self.timesteps: Tensor | None = None
        self.draw = 0
        self.set_sigmas(num_train_timesteps, sigma_min, sigma_max, sampling_eps)

    def set_timesteps(
        self, num_inference_steps: int, sampling_eps: float | None = None, device: Device | None = None
    ) -> None:
        """Begins a chain: times from 1 to ``sampling_eps``. ``set_sigmas`` of as many steps must follow.

        Args:
            num_inference_steps: predictor steps.
            sampling_eps: the last time, by default the configuration's.
            device: where ``timesteps`` are put.

        Raises:
            TypeError, ValueError: an argument is out of range.
        """
        count = integer("num_inference_steps", num_inference_steps, 1, 10**6)
        last = self.config.sampling_eps if sampling_eps is None else sampling_eps
        last = not_negative("sampling_eps", last)
        if last >= 1:
            raise ValueError(f"sampling_eps must be from 0 to below 1, where time begins, got {last}")
        self.timesteps = torch.linspace(1, last, count, device=device)
        self.draw = 0

    def set_sigmas(
        self,
        num_inference_steps: int,
        sigma_min: float | None = None,
        sigma_max: float | None = None,
        sampling_eps: float | None = None,
    ) -> None:
        """Sets the noise levels: ``sigmas`` at the timesteps, ``discrete_sigmas`` of the updates, smallest first.

        Args:
            num_inference_steps: as many as the timesteps.
            sigma_min, sigma_max, sampling_eps: by default the configuration's.

        Raises:
            TypeError, ValueError: an argument is out of range.
        """
        count = integer("num_inference_steps", num_inference_steps, 1, 10**6)
        high, low = ends(
            "sigma_max",
            self.config.sigma_max if sigma_max is None else sigma_max,
            "sigma_min",
            self.config.sigma_min if sigma_min is None else sigma_min,
        )
        if self.timesteps is None:
            self.set_timesteps(count, sampling_eps)
        times: Any = self.timesteps
        # One by one: PyTorch's vectorised power rounds one in fifty otherwise than the original's.
        self.sigmas = torch.stack([low * (high / low) ** time for time in times.cpu().unbind()])
        self.discrete_sigmas = torch.exp(torch.linspace(math.log(low), math.log(high), count, device="cpu"))
        jumps = rules.ve_reverse_diffusion(self.discrete_sigmas.flip(0))[::-1]
        self._drift = torch.tensor([rule.a for rule in jumps], dtype=torch.float64, device="cpu")
        self._diffusion = torch.tensor([rule.b for rule in jumps], dtype=torch.float64, device="cpu")

    def get_adjacent_sigma(self, timesteps: Tensor, t: Tensor) -> Tensor:
        """The noise level below each index, 0 below the first.

        Args:
            timesteps: int64 indices into ``discrete_sigmas``, any shape.
            t: the times, of the same shape; only their dtype is looked at.

        Returns:
            Noise levels on the device of ``timesteps``.
        """
        below = torch.cat((self.discrete_sigmas.new_zeros(1), self.discrete_sigmas[:-1]))
        return _levels_at(below, timesteps, "zero").to(torch.promote_types(t.dtype, below.dtype))

    def step_pred(
        self,
        model_output: Tensor,
        timestep: float | Tensor,
        sample: Tensor,
        generator: Generators | None = None,
        return_dict: bool = True,
        *,
        seed: Seed | None = None,
        sample_ids: SampleIds | None = None,
    ) -> SdeVeOutput | tuple[Tensor, Tensor]:
        """The predictor: x + (sigma^2 - sigma'^2) score + sqrt(sigma^2 - sigma'^2) z.

        Args:
            model_output: the score, shape of ``sample``, any float dtype.
            timestep: the time, a number, or a tensor ``()`` or ``(B,)``.
            sample: state ``(B, ...)``, not changed.
            generator, seed, sample_ids: see the module.
            return_dict: return an ``SdeVeOutput``, not a tuple.

        Returns:
            The new state as ``prev_sample`` and the same without its noise as ``prev_sample_mean``.

        Raises:
            RuntimeError: timesteps and noise levels are not of one length.
            TypeError, ValueError: an argument is of the wrong kind, shape, device or range.
        """
        self._check_lengths()
        _check_arguments(model_output, sample)
        a, b = self._jump(timestep, sample)
        address = _address(sample, generator, seed, sample_ids, self.draw)
        moved = update(sample, model_output, a=a, b=b, **address)
        mean = update(sample, model_output, a=a, b=None)
        self.draw += 1
        return SdeVeOutput(prev_sample=moved, prev_sample_mean=mean) if return_dict else (moved, mean)

    def step_correct(
        self,
        model_output: Tensor,
        sample: Tensor,
        generator: Generators | None = None,
        return_dict: bool = True,
        *,
        seed: Seed | None = None,
        sample_ids: SampleIds | None = None,
    ) -> SchedulerOutput | tuple[Tensor]:
        """The corrector: x + a score + sqrt(2 a) z with a = 2 (snr ||z||/||score||)^2.

        Args:
            model_output: the score, shape of ``sample``, any float dtype.
            sample: state ``(B, ...)``, not changed.
            generator, seed, sample_ids: see the module.
            return_dict: return a ``SchedulerOutput``, not a tuple.

        Returns:
            The new state as ``prev_sample``.

        Raises:
            RuntimeError: timesteps and noise levels are not of one length.
            TypeError, ValueError: an argument is of the wrong kind, shape, device or range.
        """
        self._check_lengths()
        _check_arguments(model_output, sample)
        given = _address(sample, generator, seed, sample_ids, self.draw)
        batch, device = sample.shape[0], sample.device
        # Resolved here, for the norm of the noise and the update are to draw the same.
        ids, _ = resolve_sample_ids(given["sample_ids"], 0, batch, device)
        address: dict[str, Any] = {"sample_ids": ids, "draw": resolve_draw(given["draw"], device)}
        address["seed"] = resolve_seed(given["seed"], given["generator"], batch, device)
        c, a, b = self._signal.coefficients(model_output, impl="auto", **address)
        moved = update(sample, model_output, c=c, a=a, b=b, **address)
        self.draw += 1
        return SchedulerOutput(prev_sample=moved) if return_dict else (moved,)

    def add_noise(self, original_samples: Tensor, noise: Tensor | None, timesteps: Tensor) -> Tensor:
        """x + sigma z.

        Args:
            original_samples: clean samples ``(B, ...)``.
            noise: z, same shape; None draws it, by a seed from PyTorch's default CPU generator.
            timesteps: int64 ``(B,)``, indices into ``discrete_sigmas``, 0 for the smallest.

        Returns:
            The perturbed samples, with the shape, dtype and layout of ``original_samples``.

        Raises:
            TypeError, ValueError: an argument is of the wrong kind, shape, device or range.
        """
        return _add_noise(original_samples, noise, _levels_at(self.discrete_sigmas, timesteps, "smallest"))

    def _check_lengths(self) -> None:
        times, sigmas = self.timesteps, self.discrete_sigmas
        if times is None or not len(times) == len(sigmas) == len(self.sigmas):
            count = 0 if times is None else len(times)
            raise RuntimeError(
                f"there are {count} timesteps but {len(sigmas)} noise levels, set for {len(self.sigmas)} timesteps; "
                f"call set_timesteps(n) and then set_sigmas(n)"
            )

    def _jump(self, timestep: float | Tensor, sample: Tensor) -> tuple[float | Tensor, float | Tensor]:
        """(a, b) of the predictor at a time; in tensors ``(B,)`` where the time is one of several, or on a device."""
        count = len(self._drift)
        if not isinstance(timestep, Tensor):
            timestep = not_negative("timestep", timestep)
        # In fp32 and truncated, as in the original.
        index = (torch.as_tensor(timestep, dtype=torch.float32) * (count - 1)).long()
        if index.ndim and index.shape != sample.shape[:1]:
            raise ValueError(
                f"timestep must be a number, or a tensor of shape () or ({sample.shape[0]},), got {tuple(index.shape)}"
            )
        if index.device.type == "cpu" and index.numel():
            low, high = (int(each) for each in index.aminmax())
            if low < 0 or high >= count:
                raise ValueError(f"timestep must be a time from 0 to 1, got {timestep}")
            if not index.ndim:
                return float(self._drift[low]), float(self._diffusion[low])
        index = index.to(sample.device)
        return self._drift.to(sample.device)[index], self._diffusion.to(sample.device)[index]
