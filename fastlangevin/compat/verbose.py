"""The lines that NCSNv2's samplers print for each update."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor

from fastlangevin.calling import Guarded
from fastlangevin.ladders import Sigmas, check_sigmas, positive
from fastlangevin.ops.sample_norms import noise_norms, sample_norms
from fastlangevin.samplers import StepInfo

__all__ = ["Verbose"]


class Verbose:
    """A score function that remembers what it returned, and :meth:`show`, which prints a line for each update.

    The line has the level, its step size, the batch means of the norms of the samples' scores and states, the
    signal-to-noise ratio sqrt(step/2) times the mean norm of the scores over that of the noise, and sigma^2 times the
    squared norm of the mean score. Each line makes the host wait for the device.

    Args:
        score: ``score(x, labels)``.
        sigmas: ladder in units of the data.
        step_lr: step size at the last level.
        noise: makes the noise of an update, where it is not that of the samples' own addresses.
    """

    def __init__(
        self,
        score: Callable[[Tensor, Tensor], Tensor],
        sigmas: Sigmas,
        step_lr: float,
        noise: Callable[[StepInfo], Tensor] | None = None,
    ) -> None:
        self.__wrapped__ = score
        self.score = Guarded("scorenet", score)  # what it returns is read after the update
        self.ladder = check_sigmas(sigmas)
        self.step_lr = positive("step_lr", step_lr)
        self.noise = noise
        self.returned: Tensor | None = None

    def __call__(self, x: Tensor, labels: Tensor) -> Tensor:
        self.returned = self.score(x, labels)
        return self.returned

    def _noise_norms(self, info: StepInfo) -> Tensor:
        if self.noise is not None:
            return sample_norms(self.noise(info))
        return noise_norms(info.x, info.state().address._replace(draw=info.step - 1))

    def line(self, info: StepInfo) -> str:
        """The line of the update that was just done."""
        assert self.returned is not None
        assert info.level is not None
        sigma = self.ladder[info.level]
        size = self.step_lr * (sigma / self.ladder[-1]) ** 2
        score = sample_norms(self.returned).mean().item()
        snr = math.sqrt(size / 2) * score / self._noise_norms(info).mean().item()
        mean = sample_norms(self.returned.mean(0, keepdim=True)).item()
        return (
            f"level: {info.level}, step_size: {size}, grad_norm: {score}, "
            f"image_norm: {sample_norms(info.x).mean().item()}, snr: {snr}, grad_mean_norm: {mean**2 * sigma**2}"
        )

    def show(self, info: StepInfo) -> None:
        """The callback."""
        print(self.line(info))
