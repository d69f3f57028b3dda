"""Schedulers for pipelines of Hugging Face's diffusers, which must be installed.

``AnnealedLangevinScheduler`` samples NCSN and NCSNv2 networks, ``FusedScoreSdeVeScheduler`` stands in for diffusers'
``ScoreSdeVeScheduler``. Both draw their noise by address, inside the update's kernel, and take three keyword arguments
at every step, none of which is part of a configuration:

- ``generator``: a ``torch.Generator`` on any device, whatever the device of the samples, or one for each sample. A seed
  is drawn from it at every call. A sample with a generator of its own depends on nothing else, neither on its place in
  the batch nor on the batch: its sample id is 0 unless ``sample_ids`` says otherwise.
- ``seed``: 0 to 2^64 - 1, or int64 ``(B,)`` of one for each sample, for the whole chain.
- ``sample_ids``: ``B`` global ids, by default 0 to B-1, so that any subset of a run can be made again alone.

With neither generator nor seed, a seed comes from PyTorch's default CPU generator at every call.

The draw number of a call follows from the place of its timestep. An element of ``scheduler.timesteps``, as the loop of
every pipeline passes it, tells its place without being read, also after another request has called ``set_timesteps``.
So requests that share a scheduler object have the noise that each would have alone. A call that does not tell its place
(a number among equal ones, or a corrector step without ``timestep=``) is counted by its seed or generators; if it could
belong to two chains, it raises RuntimeError. ``draw`` is the number after the last call's. Setting it forgets all
chains and says where the next one begins, for a chain that was stopped and goes on with numbers for timesteps.

A result that is not finite raises :class:`fastlangevin.NonFiniteError`, which names the update, the noise level and the
samples: at once on the CPU, and within 32 draws on other devices, where the host does not wait for each update.
"""

try:
    # diffusers looks for the first here when it loads a saved pipeline.
    from diffusers import SchedulerMixin, ScoreSdeVeScheduler  # noqa: F401
except ImportError as error:
    raise ImportError(
        f"fastlangevin.compat.diffusers needs diffusers, which cannot be imported ({error}); pip install diffusers"
    ) from error

from fastlangevin.compat.diffusers.annealed import AnnealedLangevinScheduler
from fastlangevin.compat.diffusers.sde_ve import FusedScoreSdeVeScheduler

__all__ = ["AnnealedLangevinScheduler", "FusedScoreSdeVeScheduler"]
