"""A process's place among others, as the environment says it."""

import pytest

from fastlangevin.cli import devices
from fastlangevin.processes import local_rank, rank_and_size
from fastlangevin.shards.working import place
from fastlangevin.training.world import join

NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_PORT")


@pytest.fixture
def environment(monkeypatch):
    """Sets these variables, and takes the others away."""

    def put(**variables):
        for name in NAMES:
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return put


def joined():
    with join("cpu") as world:
        return world.rank, world.size


READERS = {"rank_and_size": rank_and_size, "place": place, "join": joined}


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
@pytest.mark.parametrize(
    ("variables", "name", "range_"),
    [
        ({"RANK": "x"}, "RANK", "0 to 0"),
        ({"RANK": "", "WORLD_SIZE": "2"}, "RANK", "0 to 1"),
        ({"RANK": "1.0", "WORLD_SIZE": "2"}, "RANK", "0 to 1"),
        ({"RANK": "-1", "WORLD_SIZE": "2"}, "RANK", "0 to 1"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "RANK", "0 to 1"),
        ({"RANK": "1"}, "RANK", "0 to 0"),
        ({"RANK": "0", "WORLD_SIZE": "x"}, "WORLD_SIZE", "1 to 2147483648"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE", "1 to 2147483648"),
    ],
)
def test_what_is_no_place_is_refused(read, variables, name, range_, environment):
    environment(**variables)
    wanted = f"the environment variable {name} must be an integer from {range_}.*, got '{variables[name]}'; .* unset it"
    with pytest.raises(ValueError, match=wanted):
        read()


def test_a_place_on_the_machine_is_refused_likewise(environment):
    environment(LOCAL_RANK="x")
    for read in (local_rank, joined, lambda: devices.usable_device("cuda")):
        with pytest.raises(ValueError, match=r"variable LOCAL_RANK must be an integer from 0 to .*, got 'x'"):
            read()


def test_a_port_is_refused_before_processes_wait_for_each_other(environment):
    environment(RANK="0", WORLD_SIZE="2", MASTER_PORT="x")
    with pytest.raises(ValueError, match="variable MASTER_PORT must be an integer from 0 to 65535, got 'x'"):
        joined()


def test_a_place_is_what_the_environment_or_the_caller_says(environment):
    environment()
    assert rank_and_size() == place() == joined() == (0, 1)
    environment(RANK="2", WORLD_SIZE="3", LOCAL_RANK="1")
    assert rank_and_size() == place() == (2, 3)
    assert local_rank() == 1
    assert place(0, 5) == (0, 5)
    assert place(world=5) == (2, 5)
    assert place(rank=1) == (1, 3)
    for given in ({"rank": 3}, {"world": 0}, {"rank": "1"}):
        with pytest.raises((TypeError, ValueError), match=next(iter(given))):
            place(**given)
