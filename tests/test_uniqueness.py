"""No block of Philox's counter is drawn twice: the harness in a short form, and what it must find."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from patience import HUNG

import fastlangevin as fl
from fastlangevin.noise import Purpose
from fastlangevin.runtime import explain
from tests.long import blocks, equal_rows, uniqueness

pytestmark = pytest.mark.long

if explain("cpu")["cpp"] != "available":
    pytest.skip("launches are listened to, and the reference has none", allow_module_level=True)

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def figures(tmp_path_factory):
    # A process of its own: the harness forks, and this one has threads.
    out = tmp_path_factory.mktemp("uniqueness") / "figures.json"
    done = subprocess.run(
        [sys.executable, "-m", "tests.long.uniqueness", "--short", "--quiet", "--json", out],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path), "FASTLANGEVIN_IMPL": "cpp"},
        capture_output=True,
        text=True,
        timeout=HUNG,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(out.read_text())


def test_no_block_of_a_mixed_run_occurs_twice(figures):
    assert figures["blocks"] > 300_000
    assert figures["repeated"] == 0
    assert set(figures["by_purpose"]) == {each.name for each in Purpose} - {"SEED", "USER"}


def test_what_is_drawn_again_on_purpose_was_drawn(figures):
    assert figures["redrawn"] > 100_000
    assert figures["redraws_never_drawn"] == 0


def test_the_blocks_are_those_that_the_kernels_make_and_plain_pytorch_too(figures):
    assert figures["launches_of_other_bits"] == []
    assert set(figures["launches_checked_to_the_bit"]) > {"step LANGEVIN", "perturb DSM_NOISE", "randn INITIAL_STATE"}
    assert figures["reference"]["blocks"] > 200_000
    assert figures["reference"]["in_one_alone"] == 0


def test_every_process_of_every_world_draws(figures):
    for world in uniqueness.WORLDS:
        drawn = [figures["by_part"].get(f"shards, process {rank} of {world}", 0) for rank in range(world)]
        assert min(drawn) > 0
        assert sum(drawn) == figures["by_part"]["shards, process 0 of 1"]


def test_each_control_is_found(figures):
    assert len(figures["controls"]) == 7
    for name, control in figures["controls"].items():
        assert control["repeated"] > 0, name
        assert control["repeated_without_it"] == 0, name
    # Process 1 of run 0 and process 0 of run 1 draw the same: a quarter of all blocks.
    assert (
        4 * figures["controls"]["rank added to the seed"]["repeated"]
        == (figures["controls"]["rank added to the seed"]["blocks"])
    )


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"repeated": 2, "examples": ["one"]}, "2 blocks occur twice: one"),
        ({"redraws_never_drawn": 3}, "3 blocks were drawn again"),
        ({"launches_of_other_bits": ["step"]}, "do not follow"),
        ({"reference": {"in_one_alone": 1}}, "1 blocks differ"),
        ({"by_purpose": {}}, "no draws for AUGMENTATION"),
        ({"controls": {"a mistake": {"repeated": 0, "repeated_without_it": 0}}}, "not found: a mistake"),
        ({"controls": {"a mistake": {"repeated": 1, "repeated_without_it": 1}}}, "without its mistake: a mistake"),
    ],
)
def test_the_harness_tells_what_went_wrong(figures, change, says):
    assert uniqueness.failures(figures) == []
    (line,) = uniqueness.failures({**figures, **change})
    assert says in line


# The pieces.


def draw(ids, number=0, purpose=1, key=0, part="one", count=3):
    return blocks.Draw(np.array([key], np.uint64), np.array(ids, np.uint64), number, purpose, count, part)


@pytest.mark.parametrize(
    ("other", "repeated"),
    [
        (draw([5, 6]), 0),
        (draw([4, 5]), 3),
        (draw([4], number=1), 0),
        (draw([4], purpose=2), 0),
        (draw([4], key=1), 0),
        (draw([4], key=2**32), 0),
        (draw([4 + 2**32]), 0),
        (draw([4], count=5), 3),
    ],
    ids=[
        "other samples",
        "one sample",
        "draw",
        "purpose",
        "key",
        "high word of the key",
        "high bits of the id",
        "more",
    ],
)
def test_a_block_is_all_of_its_six_words(other, repeated):
    found = equal_rows.find([draw([3, 4]), other])
    assert (found.rows, found.repeated) == (6 + len(other), repeated)
    assert len(found.examples) == (repeated > 0)


def test_a_redraw_must_have_been_drawn():
    assert equal_rows.find([draw([3, 4])], [draw([4])]).strangers == 0
    assert equal_rows.find([draw([3, 4])], [draw([4, 5])]).strangers == 3
    assert equal_rows.find([], [draw([4])]).strangers == 3


def test_equal_hashes_of_other_rows_are_not_reported(monkeypatch):
    right = equal_rows.hashes
    monkeypatch.setattr(equal_rows, "hashes", lambda rows: right(rows) & np.uint64(0xF))
    assert equal_rows.find([draw(range(100))]).repeated == 0
    assert equal_rows.find([draw(range(100)), draw([7])]).repeated == 3


def test_chunks_and_buckets_lose_nothing(monkeypatch):
    monkeypatch.setattr(equal_rows, "CHUNK", 50)
    some = [draw(range(40 * k, 40 * k + 40), part=str(k)) for k in range(7)]
    assert equal_rows.find(some)[:2] == (7 * 120, 0)
    assert equal_rows.find([*some, some[3]])[:2] == (8 * 120, 120)


@pytest.mark.parametrize("wrong", ["id", "draw", "purpose", "key", "block"])
def test_a_wrong_expansion_does_not_give_the_bits(monkeypatch, wrong):
    right = blocks.Draw.words
    column = {"block": 0, "id": 1, "draw": 2, "purpose": 3, "key": 5}[wrong]

    def expand(self):
        rows = right(self)
        rows[-1, column] += 1
        return rows

    def check():
        recorder = blocks.Recorder(every=1)
        with recorder.listening():
            x = fl.randn((3, 9), seed=1)
            fl.step(x, x, a=0.1, b=0.2, seed=2**40 + 1, draw=5, sample_ids=[2**40, 1, 7])
            fl.dsm_loss(lambda x, labels: x, x, [1.0, 0.1], seed=3, step=4)
        assert sum(recorder.checked.values()) == 5
        return recorder.wrong

    assert check() == []
    monkeypatch.setattr(blocks.Draw, "words", expand)
    found = check()
    assert [each.split(",")[0] for each in found if "LEVEL" not in each] == [
        "randn USER",
        "step LANGEVIN",
        "perturb DSM_NOISE",
        "dsm DSM_NOISE",
    ]


def test_listening_ends():
    recorder = blocks.Recorder()
    with recorder.listening():
        fl.randn((1, 4), seed=0, impl="cpp")
        fl.randn((1, 4), seed=0)
    fl.randn((1, 4), seed=0)
    assert len(recorder.draws) == 2


def test_there_must_be_something_to_listen_to():
    with blocks.Recorder().listening(), pytest.raises(RuntimeError, match="nothing to listen to"):
        fl.randn((1, 4), seed=0, impl="reference")


def test_the_reference_hands_over_the_address():
    rows = blocks.words_of_reference(lambda: fl.randn((2, 5), seed=2**32 + 9, sample_offset=2**32 + 1, draw=6))
    block = [[k, 1 + sample, 6, 1 | 128 << 24, 9, 1] for k in range(2) for sample in range(2)]
    assert sorted(map(tuple, block)) == list(map(tuple, rows.tolist()))
