"""The noise contract, stream version 1: known answers, addresses, ranges, invariance."""

import hashlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import fastlangevin as fl
from fastlangevin import noise, reference

KNOWN_ANSWERS = [
    # Random123 1.14, tests/kat_vectors: rounds, counter, key, answer.
    (10, "00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    (10, "ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    (10, "243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
    (7, "00000000 00000000 00000000 00000000", "00000000 00000000", "5f6fb709 0d893f64 4f121f81 4f730a48"),
    (7, "ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "5207ddc2 45165e59 4d8ee751 8c52f662"),
    (7, "243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "4dfccaba 190a87f0 c47362ba b6b5242a"),
]


def words_of(text):
    return [torch.tensor(int(word, 16)) for word in text.split()]


def scalar_philox(counter, key, rounds=10):
    """Philox4x32 on Python integers: a second opinion that shares no code with the package."""
    c, k = list(counter), list(key)
    for _ in range(rounds):
        p0, p1 = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [p1 >> 32 ^ c[1] ^ k[0], p1 & 0xFFFFFFFF, p0 >> 32 ^ c[3] ^ k[1], p0 & 0xFFFFFFFF]
        k = [(k[0] + 0x9E3779B9) & 0xFFFFFFFF, (k[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return c


@pytest.mark.parametrize(("rounds", "counter", "key", "answer"), KNOWN_ANSWERS)
def test_philox_known_answers(rounds, counter, key, answer):
    words = reference.philox(*words_of(counter), *words_of(key), rounds=rounds)
    assert " ".join(f"{int(word):08x}" for word in words) == answer


@pytest.mark.parametrize("mistake", ["nine rounds", "swapped key"])
def test_known_answers_reject(mistake):
    rounds, counter, key, answer = KNOWN_ANSWERS[2]
    low, high = words_of(key)
    words = reference.philox(
        *words_of(counter),
        *((high, low) if mistake == "swapped key" else (low, high)),
        rounds=rounds - (mistake == "nine rounds"),
    )
    assert " ".join(f"{int(word):08x}" for word in words) != answer


@pytest.mark.parametrize(
    ("seed", "sample", "draw", "purpose"),
    [
        (0, 0, 0, 0),
        (2**64 - 1, 2**56 - 1, 2**32 - 1, 255),
        (0x0123456789ABCDEF, 0xFEDCBA98765432, 0xDEADBEEF, 1),
        (2**63, 2**32, 1, 128),
        (2**32, 2**32 - 1, 2**31, 3),
    ],
)
def test_every_field_reaches_its_place_in_counter_and_key(seed, sample, draw, purpose):
    words = reference.words(9, torch.tensor([sample]), seed=seed, draw=draw, purpose=purpose)
    for block in range(3):
        counter = [block, sample & 0xFFFFFFFF, draw, purpose << 24 | sample >> 32]
        expected = scalar_philox(counter, [seed & 0xFFFFFFFF, seed >> 32])
        assert [int(word[0, block]) for word in words] == expected


addresses = st.tuples(
    st.integers(0, 2**64 - 1), st.integers(0, 2**56 - 1), st.integers(0, 2**32 - 1), st.integers(0, 255)
)


def packed(seed, sample, draw, purpose):
    """Counters and keys that the package hands to the generator for the blocks of a sample of 12 elements."""
    seen = []

    def record(*words):
        seen.extend(word.broadcast_to(1, 3).flatten().tolist() for word in words)
        return words[:4]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reference.random, "philox", record)
        reference.words(12, torch.tensor([sample]), seed=seed, draw=draw, purpose=purpose)
    return list(zip(*seen, strict=True))


@settings(max_examples=20, deadline=None, derandomize=True)
@given(addresses)
def test_every_bit_of_an_address_changes_every_counter(address):
    blocks = packed(*address)
    assert packed(*address) == blocks
    assert [block[0] for block in blocks] == [0, 1, 2]
    assert all(0 <= word < 2**32 for block in blocks for word in block)
    for field, bits in enumerate((64, 56, 32, 8)):
        for bit in range(bits):
            other = list(address)
            other[field] ^= 1 << bit
            assert not set(blocks) & set(packed(*other)), (field, bit)


def test_the_stream_never_changes(impl):
    """Version 1 is these bytes. If this fails, the stream has changed: that needs a new version, not a new digest."""
    z = torch.cat(
        [
            fl.randn((3, 1001), seed=2**63 + 12345, draw=7, purpose=1, sample_offset=2**33, impl=impl).flatten(),
            fl.rand((2, 37), seed=5, draw=0, purpose=0, impl=impl).flatten(),
        ]
    )
    assert hashlib.sha256(z.numpy().tobytes()).hexdigest() == STREAM_1


STREAM_1 = "c323d00c75158177454d5d2210a6ff1c501b8f02de33a71a6e48beff90b57c4a"


def test_purposes_keep_their_numbers():
    """They are a byte of the address: with another number a purpose has another stream."""
    names = "INITIAL_STATE LANGEVIN DSM_NOISE DSM_LEVEL INPAINTING PROJECTION AUGMENTATION DATA_ORDER SEED FLIP MIXTURE"
    want = {name: number for number, name in enumerate(names.split())} | {"USER": 128}
    assert {name: int(purpose) for name, purpose in fl.Purpose.__members__.items()} == want


def test_a_sample_does_not_depend_on_its_batch(impl):
    shape = (5, 7)
    ids = torch.tensor([3, 2**40, 0, 2**56 - 1, 17])
    whole = fl.randn((5, *shape), seed=9, draw=4, sample_ids=ids, impl=impl)
    for row, sample in enumerate(ids.tolist()):
        assert torch.equal(fl.randn((1, *shape), seed=9, draw=4, sample_offset=sample, impl=impl)[0], whole[row])
    order = torch.tensor([4, 1, 3, 0, 2])
    assert torch.equal(fl.randn((5, *shape), seed=9, draw=4, sample_ids=ids[order], impl=impl), whole[order])


def test_a_longer_sample_begins_with_the_shorter_one(impl):
    long = fl.randn((2, 103), seed=1, impl=impl)
    for elements in (1, 2, 3, 4, 5, 8, 64, 99):
        assert torch.equal(fl.randn((2, elements), seed=1, impl=impl), long[:, :elements])


def test_every_field_changes_every_value(impl):
    base = {"seed": 3, "draw": 5, "purpose": 1, "sample_offset": 11}
    z = fl.randn((1, 4096), impl=impl, **base)
    for field, value in (("seed", 4), ("seed", 3 + 2**32), ("draw", 6), ("purpose", 2), ("sample_offset", 12)):
        other = fl.randn((1, 4096), impl=impl, **{**base, field: value})
        # Two independent normals in fp32 are equal with probability below 1e-6: of 4096 pairs, hardly any.
        assert (z == other).sum() <= 2, field


def test_seed_and_draw_in_tensors_are_the_same_numbers(impl):
    for seed in (0, 1, 2**63 - 1, 2**63, 2**64 - 1):
        word = torch.tensor(reference.signed64(seed))
        expected = fl.randn((2, 9), seed=seed, draw=2**32 - 1, impl=impl)
        assert torch.equal(fl.randn((2, 9), seed=word, draw=torch.tensor(2**32 - 1), impl=impl), expected)
        assert torch.equal(fl.randn((2, 9), seed=word.expand(2).clone(), draw=2**32 - 1, impl=impl), expected)


def test_a_seed_for_each_sample(impl):
    seeds = torch.tensor([5, -7, 2**40])
    z = fl.randn((3, 10), seed=seeds, impl=impl)
    for row in range(3):
        assert torch.equal(z[row], fl.randn((3, 10), seed=int(seeds[row]) % 2**64, impl=impl)[row])


def test_half_precision_is_the_rounded_fp32_value(impl):
    z = fl.randn((4, 501), seed=2, impl=impl)
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        assert torch.equal(fl.randn((4, 501), seed=2, dtype=dtype, impl=impl), z.to(dtype))


def test_uniforms_stay_inside(impl):
    u = fl.rand((8, 4096), seed=0, impl=impl)
    words = reference.words(4096, torch.arange(8), seed=0, draw=0, purpose=fl.Purpose.USER)
    expected = (torch.stack(words, -1).reshape(8, 4096).double() // 512 + 0.5) * 2.0**-23
    assert torch.equal(u.double(), expected)
    assert 0 < u.min() < u.max() < 1


def test_seeds_follow_generators():
    first = fl.randn((2, 3), generator=torch.Generator().manual_seed(1))
    assert torch.equal(first, fl.randn((2, 3), generator=torch.Generator().manual_seed(1)))
    assert not torch.equal(first, fl.randn((2, 3), generator=torch.Generator().manual_seed(2)))
    generators = [torch.Generator().manual_seed(seed) for seed in (1, 2)]
    each = fl.randn((2, 3), generator=generators)
    assert torch.equal(each[0], first[0])
    torch.manual_seed(3)
    one = fl.randn((2, 3))
    two = fl.randn((2, 3))
    torch.manual_seed(3)
    assert torch.equal(fl.randn((2, 3)), one)
    assert not torch.equal(one, two)


def test_a_generator_gives_all_64_bits():
    generator = torch.Generator().manual_seed(0)
    seeds = [noise.seed_from(generator) for _ in range(64)]
    ones = np.bitwise_or.reduce(np.array(seeds, dtype=np.uint64))
    zeros = np.bitwise_and.reduce(np.array(seeds, dtype=np.uint64))
    assert int(ones) == 2**64 - 1
    assert int(zeros) == 0


@pytest.mark.parametrize(
    "field",
    [
        {"seed": 2**64},
        {"seed": -1},
        {"draw": 2**32},
        {"draw": -1},
        {"purpose": 256},
        {"sample_offset": 2**56},
        {"sample_offset": 2**56 - 1},  # the second sample is past the end
        {"sample_ids": [0, 2**56]},
    ],
)
def test_nothing_wraps(field):
    arguments = {"seed": 0, **field}
    with pytest.raises(ValueError, match=next(iter(field)) if "sample_offset" not in field else "sample"):
        fl.randn((2, 4), **arguments)


def test_last_addresses_work(impl):
    z = fl.randn((1, 5), seed=2**64 - 1, draw=2**32 - 1, purpose=255, sample_offset=2**56 - 1, impl=impl)
    assert z.isfinite().all()


def test_no_block_repeats_in_a_run():
    """Philox is a bijection for one key: equal 128-bit blocks mean equal counters, so the count must be zero."""
    blocks = []
    for purpose in (fl.Purpose.INITIAL_STATE, fl.Purpose.LANGEVIN, fl.Purpose.DSM_NOISE):
        for draw in range(40):
            words = reference.words(64, torch.arange(32), seed=1, draw=draw, purpose=purpose)
            blocks.append(torch.stack(words, -1).reshape(-1, 4))
    assert unique_blocks(torch.cat(blocks)) == 3 * 40 * 32 * 16
    blocks[-1] = blocks[-2]  # a reused draw
    assert unique_blocks(torch.cat(blocks)) < 3 * 40 * 32 * 16


def unique_blocks(blocks):
    return len(np.unique(blocks.numpy().astype(np.uint32).view([("", np.uint32)] * 4)))


def test_neighbours_are_uncorrelated():
    """Correlation of z and of z^2 between neighbouring elements, samples, draws, purposes and seeds.

    Each coefficient of n pairs has standard error 1/sqrt(n); 6 of them have probability 2e-9.
    """
    n = 1 << 18
    base = {"seed": 7, "draw": 3, "purpose": 1, "sample_offset": 0}
    z = fl.randn((1, n), **base).double().flatten()
    others = {
        "next element": z.roll(1),
        "next pair": z.roll(2),
        "next block": z.roll(4),
        "sample": fl.randn((1, n), **{**base, "sample_offset": 1}).double().flatten(),
        "draw": fl.randn((1, n), **{**base, "draw": 4}).double().flatten(),
        "purpose": fl.randn((1, n), **{**base, "purpose": 2}).double().flatten(),
        "seed": fl.randn((1, n), **{**base, "seed": 8}).double().flatten(),
    }
    for name, other in others.items():
        for one, two in ((z, other), (z**2, other**2), (z.abs(), other)):
            assert abs(correlation(one, two)) < 6 / n**0.5, name
    shared = torch.where(torch.arange(n) % 50 == 0, z, others["draw"])  # 2 % of the noise used again
    assert abs(correlation(z, shared)) > 6 / n**0.5


def correlation(one, two):
    one, two = one - one.mean(), two - two.mean()
    return float((one @ two) / (one.norm() * two.norm()))


X = torch.ones(2, 3)
LADDER = [2.0, 1.0]
TAKERS = {
    "randn": (lambda **k: fl.randn((2, 3), **k), {"draw", "purpose", "dtype", "impl"}),
    "rand": (lambda **k: fl.rand((2, 3), **k), {"draw", "purpose", "dtype", "impl"}),
    "step": (lambda **k: fl.step(X, X, a=0.1, b=0.2, **k), {"draw", "draws", "purpose", "impl"}),
    "step of noise": (lambda **k: fl.step(X, X, a=0.1, b=None, **k), {"draw", "draws", "purpose", "impl"}),
    "perturb": (lambda **k: fl.perturb(X, X[0], **k), {"draw", "labels", "impl"}),
    "dsm_loss": (lambda **k: fl.dsm_loss(net, X, LADDER, **k), {"step", "labels", "output", "impl"}),
    "objective": (lambda **k: fl.DenoisingScoreMatching(LADDER)(net, X, **k), {"step", "labels"}),
    "dsm_labels": (lambda **k: fl.losses.dsm_labels(2, 3, **k), {"step"}),
    "projections": (lambda **k: fl.losses.projection_vectors((2, 3), **k), {"step", "dtype"}),
    "ssm_loss": (lambda **k: fl.losses.ssm_loss(score, X, **k), {"step", "vectors"}),
    "annealed_ssm_loss": (lambda **k: fl.losses.annealed_ssm_loss(net, X, LADDER, **k), {"step", "labels"}),
    "ism_loss": (lambda **k: fl.losses.ism_loss(score, X, **k), {"step"}),
    "its estimate": (lambda **k: fl.losses.ism_loss(score, X, trace="hutchinson", **k), {"step"}),
    "single": (lambda **k: fl.losses.single_dsm_loss(score, X, 0.5, **k), {"step"}),
    "controlled": (lambda **k: fl.losses.controlled_dsm_loss(net, X, LADDER, below=0.5, **k), {"step", "labels"}),
}
ELSEWHERE = (
    "sead",
    "draw",
    "draws",
    "purpose",
    "step",
    "name",
    "batch",
    "output",
    "labels",
    "dtype",
    "vectors",
    "impl",
)


def score(x):
    return -x


def net(x, labels):
    return -x


@pytest.mark.parametrize("name", TAKERS)
def test_no_option_is_taken_that_is_another_s(name):
    """Options are passed on by their names; what lies behind a function has others, which are not the function's."""
    call, own = TAKERS[name]
    before = torch.get_rng_state()
    for option in sorted(set(ELSEWHERE) - own):
        with pytest.raises(TypeError, match=option):
            call(seed=1, **{option: 0})
        with pytest.raises(TypeError, match=option):
            call(**{option: 0})
    assert torch.equal(torch.get_rng_state(), before)
    call(seed=1)
