"""Gradients of several processes are averaged one by one, in an order that no resume changes."""

from collections import Counter
from contextlib import contextmanager

import pytest
import torch
from torch import distributed

import fastlangevin as fl
from fastlangevin.data import as_source
from fastlangevin.models import ConvConfig, ConvScore
from fastlangevin.training import Places, TrainConfig, train
from fastlangevin.training.world import World

STEPS = 3


@pytest.fixture
def two_processes(monkeypatch):
    """One process that takes itself for the first of two; yields the shapes of what it sends in fp32."""
    sent = []
    send = distributed.all_reduce

    def recorded(tensor, *arguments, **options):
        if tensor.dtype == torch.float32:
            sent.append(tensor.shape)
        return send(tensor, *arguments, **options)

    @contextmanager
    def joined(_):
        yield World(0, 2, torch.device("cpu"))

    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    monkeypatch.setattr(distributed, "all_reduce", recorded)
    monkeypatch.setattr("fastlangevin.training.trainer.join", joined)
    yield sent
    distributed.destroy_process_group()


def test_each_gradient_is_sent_alone_at_every_step(two_processes):
    # DistributedDataParallel itself sends buckets of several gradients, and lays them out anew after its first step.
    images = as_source(fl.rand((32, 1, 4, 4), seed=1, impl="reference"), name="squares")
    ladder = fl.geometric_sigmas(1.0, 0.1, 4)
    config = TrainConfig(steps=STEPS, batch=8, seed=3, log_every=10**6)
    net = train(lambda: ConvScore(ladder, ConvConfig(widths=(8,))), images, config, Places(device="cpu"))
    # Decisions to stop are summed over the processes as single numbers.
    assert Counter(shape for shape in two_processes if shape) == Counter(
        p.shape for p in net.parameters() for _ in range(STEPS)
    )
