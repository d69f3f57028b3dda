"""The README: its two commands, its code, its names."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import fastlangevin as fl

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def test_two_commands_each_with_its_own_setup():
    commands = blocks("bash")
    assert len(commands) == 2
    for command in commands:
        assert len(command.splitlines()) == 1
        assert command.startswith("python3 -m venv")
        assert "-c constraints.txt" in command
    assert commands[0].rstrip().endswith("fastlangevin sample")
    assert commands[1].rstrip().endswith("pytest")


@pytest.mark.parametrize("code", blocks("python"))
def test_the_code_runs(code, tmp_path):
    subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=tmp_path, check=True, timeout=300)


def test_every_name_exists():
    names = set(re.findall(r"`fl\.([A-Za-z_]+)[`(]", README))
    assert len(names) >= 8
    for name in names:
        assert hasattr(fl, name), name
    objectives = set(re.findall(r"`losses\.([a-z_]+)[`(]", README))
    assert len(objectives) >= 6
    assert objectives <= set(fl.losses.__all__)
    diagnostics = set(re.findall(r"`(?:fl\.)?diagnostics\.([a-z_]+)[`(]", README))
    assert len(diagnostics) >= 6
    assert diagnostics <= set(fl.diagnostics.__all__)


def test_pictures_are_there():
    for path in re.findall(r"!\[[^]]*\]\(([^)]+)\)", README):
        assert (Path(__file__).parents[1] / path).is_file(), path


def test_public_names_are_documented():
    for name in fl.__all__:
        if not name.startswith("_"):
            value = getattr(fl, name)
            if callable(value) or isinstance(value, type):
                assert value.__doc__, name
                assert len(value.__doc__.split()) > 5, name
