"""The harness of kills and damage in a short form, with its controls."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.long import durability

pytestmark = pytest.mark.long

ROOT = Path(__file__).resolve().parents[1]
COUNTS = {"kills": 12, "flips": 300, "truncations": 50, "pages": 50}


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    # A process of its own: the harness forks, and this one has threads.
    folder = tmp_path_factory.mktemp("durability")
    options = [text for name, count in COUNTS.items() for text in (f"--{name}", str(count))]
    done = subprocess.run(
        [sys.executable, "-m", "tests.long.durability", *options, "--folder", folder, "--json", folder / "record.json"],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=900,  # a last resort
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert [path.name for path in folder.iterdir()] == ["record.json"]
    return json.loads((folder / "record.json").read_text())


def test_no_kill_loses_a_checkpoint(record):
    killed = record["generations"]
    assert killed["kills"] == COUNTS["kills"]
    assert killed["saves"] > 0
    assert [killed[name] for name in ("unreadable", "stepped_back", "wrong_bits", "orphans_not_swept")] == [0] * 4


def test_the_control_loses_most_of_its_files_in_the_same_harness(record):
    assert record["direct_torch_save"]["unreadable"] > COUNTS["kills"] / 2


@pytest.mark.parametrize("kind", list(durability.DAMAGE))
def test_all_damage_is_refused(record, kind):
    assert record[kind]["damaged"] == record[kind]["refused"] == COUNTS[kind]


def test_torch_load_reads_most_flips_of_the_same_harness(record):
    # Else the flips would be where any reader finds them.
    assert record["flips"]["refused_by_torch_load"] < COUNTS["flips"] / 2


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda record: record["generations"].update(unreadable=1), "1 of 12 kills: unreadable"),
        (lambda record: record["generations"].update(stepped_back=2), "2 of 12 kills: stepped_back"),
        (lambda record: record["direct_torch_save"].update(unreadable=6), "the control lost only 6 of 12"),
        (lambda record: record["flips"].update(refused=299), "flips: 1 of 300 were read"),
        (lambda record: record["flips"].update(refused_by_torch_load=150), "torch.load refused most"),
    ],
)
def test_the_harness_tells_what_went_wrong(record, change, says):
    changed = json.loads(json.dumps(record))
    assert durability.failures(changed) == []
    change(changed)
    assert any(says in line for line in durability.failures(changed))
