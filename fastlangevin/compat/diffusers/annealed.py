"""Annealed Langevin dynamics as a scheduler."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Sequence
from functools import partial
from typing import Any, get_args

import torch
from diffusers import ConfigMixin, SchedulerMixin
from diffusers.configuration_utils import register_to_config
from diffusers.schedulers.scheduling_utils import SchedulerOutput
from torch import Tensor

from fastlangevin import schemes
from fastlangevin.compat.diffusers.calls import Call, SampleIds, add_noise, levels_at
from fastlangevin.compat.diffusers.chains import Chains, Run, WithChains
from fastlangevin.compat.diffusers.configurations import PlainConfiguration
from fastlangevin.ladders import check_sigmas, ends, geometric_sigmas
from fastlangevin.noise import Generators, Seed, integer
from fastlangevin.ops.arguments import floating
from fastlangevin.rules import Corrector
from fastlangevin.scores import Output, Takes

__all__ = ["AnnealedLangevinScheduler"]

Device = torch.device | str

# What diffusers calls two of the outputs.
OTHER_NAMES = {"epsilon": "noise", "sample": "denoised"}
REMEDY = "Pass an element of scheduler.timesteps, which tells its place"


class AnnealedLangevinScheduler(WithChains, PlainConfiguration, SchedulerMixin, ConfigMixin):  # type: ignore[misc]  # Any to mypy
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
        draw: number of the update after the last one.

    Raises:
        TypeError, ValueError: an argument is of the wrong kind or out of range.
    """

    # Saved pipelines and pickles refer to it.
    __module__ = "fastlangevin.compat.diffusers"
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
        self._scheme = partial(
            schemes.annealed_langevin,
            levels,
            epsilon=epsilon,
            step_lr=step_lr,
            corrector=corrector,
            denoise=bool(denoise),
        )
        self._scheme(steps_per_level=steps_per_level).predicting(prediction_type)
        self._ladder = ladder
        self.sigmas = ladder.float()
        self.init_noise_sigma = levels[0]
        self._told = list(range(len(levels))) if takes == "labels" else self.sigmas.tolist()
        self.timesteps: Tensor | None = None
        self._chains = Chains()

    @classmethod
    def from_config(cls, config: Any = None, return_unused_kwargs: bool = False, **kwargs: Any) -> Any:
        """A scheduler of a configuration, which may be another class's.

        What a configuration says is taken also if it was the default of the class that it comes from; diffusers would
        take this class's default.

        Args:
            config: a scheduler's ``config``, or a dictionary.
            return_unused_kwargs: return what was not used too.
            kwargs: arguments of the constructor, which take the place of the configuration's.

        Returns:
            The scheduler; with ``return_unused_kwargs`` the pair of it and a dictionary.

        Raises:
            TypeError, ValueError: an argument is of the wrong kind or out of range.
        """
        if isinstance(config, dict):
            own = set(inspect.signature(cls.__init__).parameters) - {"self"}
            given = {name: config[name] for name in own if name in config} | kwargs
            others = [name for name in config if name not in own and not name.startswith("_")]
            foreign = config.get("_class_name", cls.__name__) != cls.__name__ or others
            if foreign and "prediction_type" not in given:
                warnings.warn(
                    f"the configuration of {config.get('_class_name', 'another scheduler')} has no prediction_type, so "
                    f"the network's output is taken for the score. For a network that predicts the noise give "
                    f"prediction_type='noise'; otherwise give prediction_type='score', which leaves this warning out",
                    stacklevel=2,
                )
            kwargs = given
        return super().from_config(config, return_unused_kwargs, **kwargs)

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
            repeats = self.config.steps_per_level
        else:
            count = integer("num_inference_steps", num_inference_steps, 1, 2**31)
            repeats, rest = divmod(count, levels)
            if rest:
                near = max(1, round(count / levels)) * levels
                raise ValueError(
                    f"num_inference_steps must be a multiple of the {levels} noise levels, got {count}; the nearest is "
                    f"{near}"
                )
        labels = torch.arange(levels, dtype=torch.int64, device="cpu").repeat_interleave(repeats)
        if self.config.denoise:
            labels = torch.cat((labels, labels[-1:]))
        timesteps = labels if self.config.takes == "labels" else self.sigmas[labels]
        self.num_inference_steps = levels * repeats
        self.timesteps = timesteps.to("cpu" if device is None else device)
        scheme = self._scheme(steps_per_level=repeats).predicting(self.config.prediction_type)
        self._chains.begin(self.timesteps, len(timesteps), scheme)

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
            timestep: an element of ``timesteps``, which tells its place; or a number or another tensor, which must be
                the next of the chain. One on a device is not read, and its order is trusted.
            sample: state ``(B, ...)``, not changed.
            generator, seed, sample_ids: see the module.
            return_dict: return a ``SchedulerOutput``, not a tuple.

        Returns:
            The new state as ``prev_sample``, with the shape, dtype and layout of ``sample``.

        Raises:
            RuntimeError: ``set_timesteps`` was not called, the chain has ended, or ``timestep`` does not tell to which
                of two chains it belongs, or is not the next of its chain.
            NonFiniteError: the new state is not finite.
            TypeError, ValueError: an argument is of the wrong kind, shape, device or range, or ``timestep`` is not
                the first one.
        """
        if self.timesteps is None:
            raise RuntimeError("there are no timesteps yet; call set_timesteps() before the first step")
        call = Call.of(self._chains, model_output, sample, generator, seed, sample_ids)
        run, draw = self._chains.element(timestep) or self._next(timestep, call)
        (scheme,) = run.settings
        moved, fault = call.move(scheme, draw=draw, number=draw, fault=self._chains.fault(call.key, run))
        call.look(moved, fault, draw, run.draws, scheme.level(draw))
        self._chains.advance(call.key, run, draw + 1, fault)
        return SchedulerOutput(prev_sample=moved) if return_dict else (moved,)

    def _next(self, timestep: float | Tensor, call: Call) -> tuple[Run, int]:
        """Run and draw of a timestep that does not tell its place: the next of its chain."""
        values: list[Any] | None = [timestep]
        if isinstance(timestep, Tensor):
            values = timestep.flatten().tolist() if timestep.device.type == "cpu" else None

        def told(run: Run, draw: int) -> Any:
            (scheme,) = run.settings
            return self._told[scheme.level(draw)]

        def fits(run: Run, draw: int) -> bool:
            return draw < run.draws and (values is None or all(value == told(run, draw) for value in values))

        run, draw = self._chains.find(call.key, fits, REMEDY)
        if draw >= run.draws:
            raise RuntimeError(f"the chain of {run.draws} steps has ended; call set_timesteps() to begin another")
        if not fits(run, draw):
            begun = self._chains.stand(call.key, run) is not None
            raise (RuntimeError if begun else ValueError)(
                f"timestep must be timesteps[{draw}] = {told(run, draw)} at step {draw} of the chain, got {timestep}; "
                f"call set_timesteps() to begin another chain, or set draw to where this one is. A chain keeps its "
                "seed or generator. Requests that share a scheduler must pass elements of scheduler.timesteps, or have "
                "one each (from_config(scheduler.config))"
            )
        return run, draw

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
            sigma = levels_at(self._ladder, timesteps, "largest")
        return add_noise(original_samples, noise, sigma)

    def __len__(self) -> int:
        return len(self._told)
