"""Gradients averaged over the processes of a run, with bits that do not depend on when a process was started.

With three processes or more, the order in which the terms of an element are added depends on the element's place in
what is sent. DistributedDataParallel sends buckets of gradients, and lays them out anew after a process's first step: a
resumed run would add the gradients of its first step in another order than the undisturbed run, and end with other
bits. So each gradient is sent alone. That still overlaps with the rest of the backward pass.
"""

from __future__ import annotations

import torch
from torch import distributed

__all__ = ["mean_of_each"]


# DistributedDataParallel refuses annotations that it does not know, and these would be strings.
def mean_of_each(world, bucket):  # type: ignore[no-untyped-def]
    """A communication hook for DistributedDataParallel.

    Args:
        world: the processes, a :class:`fastlangevin.training.world.World`.
        bucket: some of the gradients, a ``torch.distributed.GradBucket``.

    Returns:
        A future of the bucket's buffer, with the mean of every gradient.
    """
    sums = [
        distributed.all_reduce(gradient.div_(world.size), async_op=True).get_future() for gradient in bucket.gradients()
    ]
    return torch.futures.collect_all(sums).then(lambda _: bucket.buffer())
