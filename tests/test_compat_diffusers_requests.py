"""Requests that share a scheduler object: each has the noise that it would have alone, or is refused."""

import contextlib
import copy
import pickle

import pytest
import torch

import fastlangevin as fl

pytest.importorskip("diffusers")
from fastlangevin.compat.diffusers import AnnealedLangevinScheduler, FusedScoreSdeVeScheduler

STEPS = 4
SHAPE = (2, 6)
ORDERS = {
    "in turns": lambda a, b: [each for pair in zip(a, b, strict=True) for each in pair],
    "one in the middle of the other": lambda a, b: [*a[:3], *b, *a[3:]],
    "the second begins late": lambda a, b: [*a[:4], b[0], *a[4:6], *b[1:], *a[6:]],
    "the second begins between": lambda a, b: [*a[:2], b[0], *a[2:], *b[1:]],
}


def annealed(**options):
    config = {"num_train_timesteps": 2, "sigma_max": 1.0, "sigma_min": 0.5, "steps_per_level": 2, "epsilon": 2e-2}
    return AnnealedLangevinScheduler(**{**config, **options})


def stand_in(**options):
    config = {"num_train_timesteps": STEPS, "sigma_min": 0.05, "sigma_max": 2.0, "snr": 0.16}
    return FusedScoreSdeVeScheduler(**{**config, **options})


def net(x):
    return -x / 2


def annealed_request(scheduler, x, tell=lambda t: t, steps=None, **address):
    """The loop of a pipeline, one update at a time; each element is a state."""
    scheduler.set_timesteps(steps)
    timesteps = scheduler.timesteps
    yield x
    for t in timesteps:
        x = scheduler.step(net(x), tell(t), x, **address).prev_sample
        yield x


def stand_in_request(scheduler, x, tell=lambda t: t, told=True, steps=STEPS, **address):
    scheduler.set_timesteps(steps)
    scheduler.set_sigmas(steps)
    timesteps = scheduler.timesteps
    yield x
    for t in timesteps:
        for _ in range(scheduler.config.correct_steps):
            place = {"timestep": tell(t)} if told else {}
            x = scheduler.step_correct(net(x), x, **place, **address).prev_sample
            yield x
        x = scheduler.step_pred(net(x), tell(t), x, **address).prev_sample
        yield x


KINDS = {
    "annealed": (annealed, annealed_request),
    "annealed, denoised": (lambda: annealed(denoise=True), annealed_request),
    "annealed, told sigma": (lambda: annealed(takes="sigma"), annealed_request),
    "stand-in": (stand_in, stand_in_request),
    "two corrections": (lambda: stand_in(correct_steps=2), stand_in_request),
}


def states(seed):
    return fl.randn(SHAPE, seed=seed, device="cpu")


def generator(seed):
    return torch.Generator("cpu").manual_seed(seed)


ADDRESSES = {
    "seeds": lambda: ({"seed": 7}, {"seed": 8}),
    "one seed": lambda: ({"seed": 7}, {"seed": 7}),
    "samples of one seed": lambda: ({"seed": 7}, {"seed": 7, "sample_ids": torch.tensor([2, 3])}),
    "seeds of samples": lambda: ({"seed": torch.tensor([7, 8])}, {"seed": torch.tensor([8, 7])}),
    "generators": lambda: ({"generator": generator(1)}, {"generator": generator(2)}),
    "generators of samples": lambda: ({"generator": [generator(1), generator(2)]}, {"generator": [generator(3)] * 2}),
}


def interleaved(make, request, addresses, order, options=({}, {})):
    """The last states of two requests on one scheduler, whose updates come in an order."""
    scheduler = make()
    length = len(list(request(make(), states(0), **addresses()[0], **options[0])))
    requests = [
        request(scheduler, states(which), **address, **option)
        for which, (address, option) in enumerate(zip(addresses(), options, strict=True))
    ]
    last = [None, None]
    for which in order([0] * length, [1] * length):
        last[which] = next(requests[which])
    return last


def alone(make, request, addresses, options=({}, {})):
    return [
        list(request(make(), states(which), **address, **option))[-1]
        for which, (address, option) in enumerate(zip(addresses(), options, strict=True))
    ]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("address", ADDRESSES)
@pytest.mark.parametrize("kind", KINDS)
def test_each_has_the_noise_that_it_has_alone(kind, address, order):
    found = interleaved(*KINDS[kind], ADDRESSES[address], ORDERS[order])
    for got, want in zip(found, alone(*KINDS[kind], ADDRESSES[address]), strict=True):
        assert torch.equal(got, want)


@pytest.mark.parametrize("kind", KINDS)
def test_one_count_for_all_would_be_seen(kind, monkeypatch):
    """The twin: places that are neither told nor counted by chain."""
    from fastlangevin.compat.diffusers.chains import Chains

    want = alone(*KINDS[kind], ADDRESSES["generators"])
    monkeypatch.setattr(Chains, "element", lambda self, timestep: None)
    monkeypatch.setattr(Chains, "key", lambda self, *address: 0)
    monkeypatch.setattr(FusedScoreSdeVeScheduler, "_place", lambda self, time: self.draw // self._stride)
    with contextlib.suppress(RuntimeError):
        found = interleaved(*KINDS[kind], ADDRESSES["generators"], ORDERS["in turns"])
        assert not any(torch.equal(got, right) for got, right in zip(found, want, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_copies_of_timesteps_and_numbers_are_told_apart_by_the_seed(kind):
    for tell in (torch.clone, float, lambda t: t.expand(2), lambda t: t[None].repeat(2)):
        options = ({"tell": tell},) * 2
        found = interleaved(*KINDS[kind], ADDRESSES["seeds"], ORDERS["in turns"], options)
        for got, want in zip(found, alone(*KINDS[kind], ADDRESSES["seeds"]), strict=True):
            assert torch.equal(got, want)


def refused_or_right(run, want):
    """The results of two requests are those of each alone, or one is refused with what to do."""
    try:
        found = run()
    except RuntimeError as error:
        assert "from_config(scheduler.config)" in str(error)  # noqa: PT017
        return False
    for got, right in zip(found, want, strict=True):
        assert torch.equal(got, right)
    return True


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("address", ADDRESSES)
def test_corrector_steps_that_tell_no_place_are_right_or_refused(address, order):
    """A corrector step has no timestep in diffusers; generators give each call a seed of its own."""
    for kind in ("stand-in", "two corrections"):
        options = ({"told": False},) * 2
        make, request = KINDS[kind]
        want = alone(make, request, ADDRESSES[address], options)
        run = lambda: interleaved(make, request, ADDRESSES[address], ORDERS[order], options)  # noqa: E731, B023
        if "generators" in address:
            assert refused_or_right(run, want)
        else:
            refused_or_right(run, want)


@pytest.mark.parametrize("kind", KINDS)
def test_numbers_of_one_seed_are_right_or_refused(kind):
    for order in ORDERS.values():
        options = ({"tell": float},) * 2
        want = alone(*KINDS[kind], ADDRESSES["one seed"], options)
        refused_or_right(lambda: interleaved(*KINDS[kind], ADDRESSES["one seed"], order, options), want)  # noqa: B023


def test_what_goes_on_after_the_timesteps_of_another_does_not_begin_again():
    x = states(0)
    scheduler = stand_in()
    first = stand_in_request(scheduler, x, told=False, seed=7)
    for _ in range(3):
        x = next(first)
    scheduler.set_timesteps(STEPS)
    with pytest.raises(RuntimeError, match=r"could continue that chain.*Give step_correct the timestep= of its step"):
        scheduler.step_correct(net(x), x, seed=7)
    other = scheduler.step_correct(net(x), x, seed=8).prev_sample
    at = scheduler.step_correct(net(x), x, seed=7, timestep=scheduler.timesteps[1]).prev_sample
    fresh = stand_in()
    fresh.set_timesteps(STEPS)
    fresh.set_sigmas(STEPS)
    assert torch.equal(other, fresh.step_correct(net(x), x, seed=8).prev_sample)
    fresh.draw = 2
    assert torch.equal(at, fresh.step_correct(net(x), x, seed=7).prev_sample)
    scheduler.draw = 0
    assert torch.equal(other, scheduler.step_correct(net(x), x, seed=8).prev_sample)

    scheduler = annealed()
    first = annealed_request(scheduler, x, tell=int, seed=7)
    for _ in range(2):
        x = next(first)
    scheduler.set_timesteps()
    with pytest.raises(RuntimeError, match=r"could continue that chain.*an element of scheduler\.timesteps"):
        scheduler.step(net(x), 0, x, seed=7)
    scheduler.draw = 0
    scheduler.step(net(x), 0, x, seed=7)
    with pytest.raises(RuntimeError, match=r"timesteps\[1\] = 0 at step 1.*A chain keeps its seed"):
        scheduler.step(net(x), 1, x, seed=7)


def test_a_finished_or_forgotten_chain_begins_again():
    for kind in KINDS:
        make, request = KINDS[kind]
        scheduler = make()
        whole = [list(request(scheduler, states(0), seed=7))[-1] for _ in range(2)]
        assert torch.equal(*whole)
    scheduler = stand_in()
    for _ in range(2):
        list(stand_in_request(scheduler, states(0), told=False, seed=7))
    with pytest.raises(RuntimeError, match=r"4 steps with this seed has ended; call set_timesteps"):
        scheduler.step_correct(states(0), states(0), seed=7)


def test_no_corrector_step_has_the_noise_of_another_draw():
    x = states(0)
    for options in ({}, {"timestep": 1.0}):
        scheduler = stand_in(correct_steps=2)
        scheduler.set_timesteps(STEPS)
        scheduler.set_sigmas(STEPS)
        found = [scheduler.step_correct(net(x), x, seed=7, **options).prev_sample for _ in range(2)]
        with pytest.raises(RuntimeError, match=r"correct_steps allows 2.*set correct_steps"):
            scheduler.step_correct(net(x), x, seed=7, **options)
        assert not torch.equal(*found)
        unseeded = [scheduler.step_correct(net(x), x, **options).prev_sample for _ in range(4)]
        assert len({each.sum().item() for each in unseeded}) == 4


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", ["deepcopy", "pickle", "another object"])
def test_a_chain_goes_on_in_a_copy(kind, how):
    make, _ = KINDS[kind]
    copies = {"deepcopy": copy.deepcopy, "pickle": lambda each: pickle.loads(pickle.dumps(each))}
    rules = {"elements": lambda t: t, "numbers": float}
    for tell in rules.values():
        if how == "another object" and tell is float and "annealed" in kind:
            continue  # equal numbers of a chain that was not followed have no places
        for address in ({"seed": 7}, {"generator": generator(1)}):
            scheduler, whole, x = make(), make(), states(0)
            for each in (scheduler, whole):
                each.set_timesteps(STEPS)
                if "annealed" not in kind:
                    each.set_sigmas(STEPS)
            want = x
            state = address.get("generator") and address["generator"].get_state()
            for place in range(len(whole.timesteps)):
                want = moved(whole, want, place, tell, address)
            if state is not None:
                address["generator"].set_state(state)
            for place in range(len(whole.timesteps)):
                if place == 1:
                    scheduler = copies.get(how, lambda _, each=whole: fresh_of(make, kind))(scheduler)
                x = moved(scheduler, x, place, tell, address)
            assert torch.equal(x, want)


def fresh_of(make, kind):
    scheduler = make()
    scheduler.set_timesteps(STEPS)
    if "annealed" not in kind:
        scheduler.set_sigmas(STEPS)
    return scheduler


def moved(scheduler, x, place, tell, address):
    """One step of either scheduler, with its corrections."""
    t = tell(scheduler.timesteps[place])
    if isinstance(scheduler, AnnealedLangevinScheduler):
        return scheduler.step(net(x), t, x, **address).prev_sample
    for _ in range(scheduler.config.correct_steps):
        x = scheduler.step_correct(net(x), x, timestep=t, **address).prev_sample
    return scheduler.step_pred(net(x), t, x, **address).prev_sample


def test_requests_of_different_lengths():
    options = ({"steps": 4}, {"steps": 8})
    scheduler = annealed()
    requests = [annealed_request(scheduler, states(k), seed=7, **options[k]) for k in (0, 1)]
    last = [None, None]
    for which in (0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 1, 1, 1, 1):
        last[which] = next(requests[which])
    for got, want in zip(last, alone(annealed, annealed_request, ADDRESSES["one seed"], options), strict=True):
        assert torch.equal(got, want)

    for address in ({"seed": 7}, {"generator": generator(1)}):
        shared = stand_in()
        first = stand_in_request(shared, states(0), **address)
        next(first)
        second = stand_in_request(shared, states(1), steps=8, seed=8)
        next(second)
        with pytest.raises(
            RuntimeError, match=r"one of 4 that were set before another set_timesteps.*a scheduler each"
        ):
            next(first)
    shared = stand_in()
    first = stand_in_request(shared, states(0), seed=7)
    next(first)
    shared.set_timesteps(STEPS)
    shared.set_sigmas(STEPS, sigma_max=3.0)
    with pytest.raises(RuntimeError, match="other noise levels need a scheduler each"):
        next(first)


def test_a_time_without_a_place_has_no_noise_of_a_seed():
    scheduler = fresh_of(stand_in, "stand-in")
    x = states(0)
    for time in (0.3, torch.tensor(0.3), torch.tensor([1.0, 0.3])):
        with pytest.raises(RuntimeError, match=r"timestep must be one of the 4 timesteps.*from_config"):
            scheduler.step_pred(net(x), time, x, seed=7)
        scheduler.step_pred(net(x), time, x, generator=generator(1))
    with pytest.raises(ValueError, match="one time for all samples"):
        scheduler.step_correct(net(x), x, seed=7, timestep=scheduler.timesteps[:2])


def test_samples_at_their_own_times_have_the_noise_of_their_places():
    scheduler = fresh_of(stand_in, "stand-in")
    x = states(0)
    for address in ({"seed": 7}, {"seed": torch.tensor([7, 8])}, {"seed": 7, "sample_ids": [5, 3]}):
        found = scheduler.step_pred(net(x), scheduler.timesteps[[2, 0]], x, **address).prev_sample
        for row, place in enumerate((2, 0)):
            each = fresh_of(stand_in, "stand-in").step_pred(net(x), scheduler.timesteps[place], x, **address)
            assert torch.equal(found[row], each.prev_sample[row])


def test_ids_and_seeds_in_new_tensors_at_every_call_are_the_same_chain():
    want = list(stand_in_request(stand_in(), states(0), told=False, seed=7))[-1]
    x, scheduler = states(0), fresh_of(stand_in, "stand-in")
    for t in scheduler.timesteps:
        new = lambda: {"seed": torch.tensor([7, 7]), "sample_ids": torch.arange(2)}  # noqa: E731
        x = scheduler.step_correct(net(x), x, **new()).prev_sample
        x = scheduler.step_pred(net(x), t, x, **new()).prev_sample
    assert torch.equal(x, want)


def test_noise_for_training_is_drawn_anew_at_every_call():
    labels = torch.tensor([0, 1])
    for scheduler in (annealed(), stand_in()):
        drawn = [scheduler.add_noise(states(0), None, labels) for _ in range(3)]
        assert len({each.sum().item() for each in drawn}) == 3


def test_chains_that_were_left_are_remembered_in_a_bounded_way(monkeypatch):
    from fastlangevin.compat.diffusers import chains

    monkeypatch.setattr(chains, "REMEMBERED", 10)
    scheduler, x = annealed(), states(0)
    for seed in range(30):
        scheduler.set_timesteps()
        scheduler.step(net(x), scheduler.timesteps[0], x, seed=seed)
    assert len(scheduler._chains._stands) == 10
    # Those whose timesteps nobody holds are forgotten.
    assert len(scheduler._chains._views) == 1
