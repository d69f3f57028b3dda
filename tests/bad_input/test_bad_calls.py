"""Bad calls of the public API: each is refused with the right type and a helpful message, and changes nothing.

One table. A row is a well-formed call with one defect; beside it stands the same call with the defect mended, which
must succeed, so that no row can pass because of something else that is wrong with it.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from bad_call_row import Row
from bad_compat_rows import COMPAT
from bad_container_rows import CONTAINERS
from bad_data_rows import DATA
from bad_diagnostics_rows import DIAGNOSTICS
from bad_file_rows import FILES
from bad_fusion_rows import FUSION
from bad_ladder_rows import LADDERS
from bad_mixture_rows import MIXTURES
from bad_move_rows import MOVES
from bad_ncsn_rows import NCSN
from bad_network_rows import NETWORKS
from bad_norm_rows import NORMS
from bad_objective_rows import OBJECTIVES
from bad_plan_rows import PLANS
from bad_published_rows import PUBLISHED
from bad_random_rows import RANDOM
from bad_rule_rows import RULES
from bad_sampler_rows import SAMPLERS
from bad_shard_rows import SHARDS
from bad_step_rows import STEP
from bad_training_rows import TRAINING
from bad_update_rows import UPDATES
from call_snapshot import snapshot, tensors_in
from well_formed_calls import CALLS

ROWS = [*TRAINING, *STEP, *NORMS, *RANDOM, *LADDERS, *PLANS, *RULES, *SAMPLERS, *DIAGNOSTICS, *NETWORKS, *PUBLISHED]
ROWS += [*COMPAT, *NCSN, *FUSION, *MOVES, *OBJECTIVES, *FILES, *CONTAINERS, *DATA, *SHARDS, *MIXTURES, *UPDATES]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_bad_call_is_refused_with_a_helpful_message_and_changes_nothing(row: Row, tmp_path: Path) -> None:
    function, make = CALLS[row.call]
    arguments = make(tmp_path)
    arguments |= row.bad(arguments)
    before = snapshot(arguments, tmp_path)
    with pytest.raises(row.error) as caught:
        function(**arguments)
    message = str(caught.value)
    missing = [part for part in row.says if part not in message]
    assert not missing, f"{missing} not in the message: {message}"
    assert snapshot(arguments, tmp_path) == before


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_the_same_call_mended_succeeds(row: Row, tmp_path: Path) -> None:
    function, make = CALLS[row.call]
    arguments = make(tmp_path)
    arguments |= row.good(arguments)
    result = function(**arguments)
    values = [value for value in tensors_in(result) if value.is_floating_point()]
    assert all(value.isfinite().all() for value in values)


def test_the_table_covers_every_function_and_repeats_no_row() -> None:
    assert len({row.id for row in ROWS}) == len(ROWS) >= 90
    assert {row.call for row in ROWS} == set(CALLS)
    assert all(row.says and all(row.says) for row in ROWS)
