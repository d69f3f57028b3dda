"""diffusers' scheduler of the variance exploding SDE, on the fused kernel."""

from __future__ import annotations

import math
import warnings
from typing import Any

import torch
from diffusers import ScoreSdeVeScheduler
from diffusers.configuration_utils import register_to_config
from diffusers.schedulers.scheduling_sde_ve import SdeVeOutput
from diffusers.schedulers.scheduling_utils import SchedulerOutput
from torch import Tensor

from fastlangevin import rules
from fastlangevin.compat.diffusers.calls import Call, SampleIds, add_noise, levels_at
from fastlangevin.compat.diffusers.chains import Chains, Run, WithChains
from fastlangevin.compat.diffusers.configurations import PlainConfiguration
from fastlangevin.ladders import ends
from fastlangevin.noise import MAX_DRAW, Generators, Purpose, Seed, integer
from fastlangevin.ops import randn
from fastlangevin.ops import step as update
from fastlangevin.ops.arguments import compute_dtype
from fastlangevin.rules import Coefficients, SignalNorm
from fastlangevin.rules.coefficients import not_negative
from fastlangevin.schemes import Evaluate, Measure, Scheme, Step
from fastlangevin.schemes.table import step_of

__all__ = ["FusedScoreSdeVeScheduler"]

Device = torch.device | str


class FusedScoreSdeVeScheduler(WithChains, PlainConfiguration, ScoreSdeVeScheduler):  # type: ignore[misc]  # Any to mypy
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
    - timesteps and noise levels are fp32 on the CPU, unless ``set_timesteps`` is given a device, whatever PyTorch's
      default dtype and device are;
    - ``set_timesteps`` and ``set_sigmas`` of different lengths, levels out of range, results that are not finite and
      the like raise.

    With C = ``correct_steps``, step i of the chain owns the draws i (C + 1) to i (C + 1) + C: its corrector steps, then
    its predictor. With a generator, or with neither seed nor generator, every call has a seed of its own, so that no
    noise is drawn twice whatever the draw; a corrector step without ``timestep=`` then has draw 0.

    Args:
        num_train_timesteps: noise levels, N, until ``set_timesteps`` says otherwise.
        snr: signal-to-noise ratio of the corrector, above zero.
        sigma_min: the smallest noise level, in units of the data.
        sigma_max: the largest.
        sampling_eps: the last time, from 0 to below 1.
        correct_steps: corrector steps before each predictor step; the pipeline takes them, and with ``seed=`` there may
            not be more.
        norm: how the corrector measures ||z||/||score||, see :data:`fastlangevin.rules.SignalNorm`.

    Raises:
        TypeError, ValueError: an argument is of the wrong kind or out of range.
    """

    # Saved pipelines and pickles refer to it.
    __module__ = "fastlangevin.compat.diffusers"
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
        self._signal = Measure(float(snr), norm)
        # A step's draws: its corrections, then the prediction.
        self._stride = integer("correct_steps", correct_steps, 0, 2**31) + 1
        self.timesteps: Tensor | None = None
        self._chains = Chains()
        self.set_sigmas(num_train_timesteps, sigma_min, sigma_max, sampling_eps)
        self.init_noise_sigma = float(sigma_max)

    @classmethod
    def from_config(cls, config: Any = None, return_unused_kwargs: bool = False, **kwargs: Any) -> Any:
        """A scheduler of a configuration; one that says that its network predicts other than the score is warned of.

        Args:
            config: a scheduler's ``config``, or a dictionary.
            return_unused_kwargs: return what was not used too.
            kwargs: arguments of the constructor, which take the place of the configuration's.

        Returns:
            The scheduler; with ``return_unused_kwargs`` the pair of it and a dictionary.

        Raises:
            TypeError, ValueError: an argument is of the wrong kind or out of range.
        """
        if isinstance(config, dict) and config.get("prediction_type", "score") != "score":
            warnings.warn(
                f"the configuration is that of a network whose prediction_type is {config['prediction_type']!r}, but "
                "this scheduler takes the network's output for the score",
                stacklevel=2,
            )
        return super().from_config(config, return_unused_kwargs, **kwargs)

    def set_timesteps(
        self, num_inference_steps: int, sampling_eps: float | None = None, device: Device | None = None
    ) -> None:
        """Begins a chain: times from 1 to ``sampling_eps``. ``set_sigmas`` of as many steps must follow.

        Args:
            num_inference_steps: predictor steps.
            sampling_eps: the last time, by default the configuration's.
            device: where ``timesteps`` are put, by default the CPU.

        Raises:
            TypeError, ValueError: an argument is out of range.
        """
        count = integer("num_inference_steps", num_inference_steps, 1, 10**6)
        last = self.config.sampling_eps if sampling_eps is None else sampling_eps
        last = not_negative("sampling_eps", last)
        if last >= 1:
            raise ValueError(f"sampling_eps must be from 0 to below 1, where time begins, got {last}")
        where = "cpu" if device is None else device
        self.timesteps = torch.linspace(1, last, count, dtype=torch.float32, device=where)
        self._chains.begin(self.timesteps, count * self._stride, count, last)

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
        self.discrete_sigmas = torch.exp(
            torch.linspace(math.log(low), math.log(high), count, dtype=torch.float32, device="cpu")
        )
        jumps = rules.ve_reverse_diffusion(self.discrete_sigmas.flip(0))[::-1]
        self._drift = torch.tensor([rule.a for rule in jumps], dtype=torch.float64, device="cpu")
        self._diffusion = torch.tensor([rule.b for rule in jumps], dtype=torch.float64, device="cpu")
        self._levels = self._chains.run.levels = high, low

    def get_adjacent_sigma(self, timesteps: Tensor, t: Tensor) -> Tensor:
        """The noise level below each index, 0 below the first.

        Args:
            timesteps: int64 indices into ``discrete_sigmas``, any shape.
            t: the times, of the same shape; only their dtype is looked at.

        Returns:
            Noise levels on the device of ``timesteps``.
        """
        below = torch.cat((self.discrete_sigmas.new_zeros(1), self.discrete_sigmas[:-1]))
        return levels_at(below, timesteps, "zero").to(torch.promote_types(t.dtype, below.dtype))

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
            timestep: the time, a number, or a tensor ``()`` or ``(B,)``. With ``seed=`` it must be one of
                ``timesteps``, since the draw follows from its place; one on a device that is not an element of
                ``timesteps`` is then read.
            sample: state ``(B, ...)``, not changed.
            generator, seed, sample_ids: see the module.
            return_dict: return an ``SdeVeOutput``, not a tuple.

        Returns:
            The new state as ``prev_sample`` and the same without its noise as ``prev_sample_mean``.

        Raises:
            RuntimeError: timesteps and noise levels are not of one length or not of this request, or ``seed=`` is
                given and the time has no place.
            NonFiniteError: the new state is not finite.
            TypeError, ValueError: an argument is of the wrong kind, shape, device or range.
        """
        self._check_lengths()
        call = Call.of(self._chains, model_output, sample, generator, seed, sample_ids)
        numbers: Any = self._jump(timestep, sample)
        a, b = numbers
        jump = _scheme(step_of(Coefficients(1.0, a, b), Evaluate()))
        run, places = self._places(timestep, must=call.seeded)
        fault = self._chains.fault(call.key, run)
        if len(places) == 1:
            draw = self._draw_at(places[0])
            moved, fault = call.move(jump, draw=draw, number=draw, fault=fault)
            call.look(moved, fault, draw, run.draws, places[0])
            self._chains.advance(call.key, run, draw + 1, fault)
        else:
            # Samples at times of their own, or a time without a place and a seed of its own.
            noise = self._noise(call, places) if places else None
            moved, fault = call.move(jump, draw=0, number=0, fault=None, noise=noise)
            call.look(moved, fault, 0, 1, None)
        mean = update(sample, model_output, a=a, b=None)
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
        timestep: float | Tensor | None = None,
    ) -> SchedulerOutput | tuple[Tensor]:
        """The corrector: x + a score + sqrt(2 a) z with a = 2 (snr ||z||/||score||)^2.

        Args:
            model_output: the score, shape of ``sample``, any float dtype.
            sample: state ``(B, ...)``, not changed.
            generator, seed, sample_ids: see the module.
            return_dict: return a ``SchedulerOutput``, not a tuple.
            timestep: the time, one of ``timesteps``, of whose place the draw is a function. With ``seed=`` and without
                it, the place is that after the last predictor step of this seed.

        Returns:
            The new state as ``prev_sample``.

        Raises:
            RuntimeError: timesteps and noise levels are not of one length; or, with ``seed=``, it cannot be told to
                which of two chains the call belongs, the chain has ended, or there were ``correct_steps`` corrector
                steps at this time.
            NonFiniteError: the new state is not finite.
            TypeError, ValueError: an argument is of the wrong kind, shape, device or range.
        """
        self._check_lengths()
        call = Call.of(self._chains, model_output, sample, generator, seed, sample_ids)
        run, number, draw = self._correction(timestep, call)
        fault = self._chains.fault(call.key, run)
        moved, fault = call.move(_scheme(Step((self._signal,))), draw=draw, number=number, fault=fault)
        call.look(moved, fault, number, run.draws, number // self._stride)
        self._chains.advance(call.key, run, number + 1, fault)
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
        return add_noise(original_samples, noise, levels_at(self.discrete_sigmas, timesteps, "smallest"))

    def _check_lengths(self) -> None:
        times, sigmas = self.timesteps, self.discrete_sigmas
        if times is None or not len(times) == len(sigmas) == len(self.sigmas):
            count = 0 if times is None else len(times)
            raise RuntimeError(
                f"there are {count} timesteps but {len(sigmas)} noise levels, set for {len(self.sigmas)} timesteps; "
                f"call set_timesteps(n) and then set_sigmas(n)"
            )

    def _draw_at(self, place: int) -> int:
        """The predictor's draw number."""
        return (place + 1) * self._stride - 1

    def _correction(self, timestep: float | Tensor | None, call: Call) -> tuple[Run, int, int]:
        """Run of a corrector step, its number in the chain, and its draw number."""
        corrections = self._stride - 1

        def fits(run: Run, draw: int) -> bool:
            return draw < run.draws and draw % self._stride < corrections

        if timestep is not None:
            run, places = self._places(timestep, must=True)
            if len(places) != 1:
                raise ValueError(f"timestep must be one time for all samples, got {timestep}")
            number = places[0] * self._stride
            amid = range(number + 1, number + corrections)
            left = self._chains.left(call.key, lambda run, draw: draw in amid)
            if left and call.seeded and self._chains.element(timestep) is None:
                raise self._chains.unclear(left[-1].draw, "Pass an element of scheduler.timesteps as timestep=")
            stand = self._chains.stand(call.key, run)
            if stand is not None and stand.draw // self._stride == places[0]:
                number = stand.draw
            if not call.seeded:
                return run, number, places[0] * self._stride
        elif call.seeded:
            run, number = self._chains.find(call.key, fits, "Give step_correct the timestep= of its step")
        else:
            stand = self._chains.stand(call.key, self._chains.run)
            return self._chains.run, 0 if stand is None else stand.draw, 0
        if number >= run.draws:
            raise RuntimeError(
                f"the chain of {run.draws // self._stride} steps with this seed has ended; call set_timesteps() to "
                "begin another"
            )
        if not fits(run, number):
            raise RuntimeError(
                f"step {number // self._stride} of the chain with this seed has had its corrector steps, of which "
                f"correct_steps allows {corrections}, so this one has no noise of its own. If the loop makes more, set "
                "correct_steps in the configuration; if requests of one seed share this scheduler, give each its own "
                "(from_config(scheduler.config)), or elements of scheduler.timesteps as timestep="
            )
        return run, number, number

    def _places(self, timestep: float | Tensor, *, must: bool) -> tuple[Run, list[int]]:
        """Run of a time and its place in the run's timesteps; a place for each sample if they differ, else one.

        Args:
            timestep: an element of ``timesteps``, or values, which are looked for in the latest ones.
            must: raise if there is no place; else the list is empty, and nothing on a device is read.
        """
        latest = self._chains.run
        seen = self._chains.element(timestep)
        if seen is not None:
            run, place = seen
            count, _ = run.settings
            if run.settings != latest.settings or (run.levels or self._levels) != self._levels:
                raise RuntimeError(
                    f"timestep is one of {count} that were set before another set_timesteps() or "
                    "set_sigmas() changed the noise levels of this scheduler. Requests with other numbers of steps or "
                    "other noise levels need a scheduler each: from_config(scheduler.config)"
                )
            return run, [place]
        if isinstance(timestep, Tensor):
            if timestep.device.type != "cpu" and not must:
                return latest, []
            times = timestep.double().flatten().tolist()
        else:
            times = [float(timestep)]
        places = [at for time in times if (at := self._place(time)) is not None]
        if len(places) < len(times):
            if must:
                count, _ = latest.settings
                raise RuntimeError(
                    f"timestep must be one of the {count} timesteps, from whose place the draw follows, "
                    f"got {timestep}. Pass an element of scheduler.timesteps; if another request has called "
                    "set_timesteps() since, give each a scheduler of its own (from_config(scheduler.config))"
                )
            return latest, []
        return latest, places if len(set(places)) > 1 else places[:1]

    def _place(self, time: float) -> int | None:
        """The place of a time in the latest timesteps, by its value."""
        count, last = self._chains.run.settings
        gap = (1 - last) / max(count - 1, 1)
        place = round((1 - time) / gap)
        # fp32 knows times to some 2^-22; nearer neighbours could not be told apart.
        near = 0 <= place < count and abs(time - (1 - place * gap)) <= 2.0**-21
        return place if near and (gap > 2.0**-20 or count == 1) else None

    def _noise(self, call: Call, places: list[int]) -> Tensor:
        """Noise ``(B, ...)`` of samples that are at different places."""
        sample, seed, ids = call.sample, call.seed, call.sample_ids
        if ids is None:
            ids = torch.arange(len(sample), dtype=torch.int64, device=sample.device)
        noise = torch.empty(sample.shape, dtype=compute_dtype(sample), device=sample.device)
        for place in set(places):
            of = [row for row, at in enumerate(places) if at == place]
            rows = torch.tensor(of, dtype=torch.int64, device=sample.device)
            noise[rows] = randn(
                (len(rows), *sample.shape[1:]),
                seed=seed[rows] if isinstance(seed, Tensor) and seed.ndim else seed,
                sample_ids=ids[rows],
                draw=self._draw_at(place),
                purpose=Purpose.LANGEVIN,
                dtype=noise.dtype,
                device=sample.device,
            )
        return noise

    def _jump(self, timestep: float | Tensor, sample: Tensor) -> tuple[float | Tensor, float | Tensor]:
        """(a, b) of the predictor at a time; in tensors ``(B,)`` where the time is one of several, or on a device."""
        count = len(self._drift)
        if not isinstance(timestep, Tensor):
            timestep = not_negative("timestep", timestep)
        # In fp32 and truncated, as in the original.
        index = (_in_fp32(timestep) * (count - 1)).long()
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


def _scheme(step: Step) -> Scheme:
    """The scheme of one step, whatever its number: what a call is given decides its coefficients."""
    return Scheme("ScoreSdeVe", lambda number: step, MAX_DRAW + 1, [], {}, takes="nothing")


def _in_fp32(time: float | Tensor) -> Tensor:
    return time.float() if isinstance(time, Tensor) else torch.tensor(time, dtype=torch.float32, device="cpu")
