"""The README: its two commands, its code, its names."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import fastlangevin as fl
from fastlangevin.cli import info, parser

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


# Commands, options and variables that the README and CONTRIBUTING name.

ROOT = Path(__file__).parents[1]
TEXTS = {name: (ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "CONTRIBUTING.md")}
SOURCES = [*(ROOT / "fastlangevin").rglob("*.py"), *(ROOT / "kernels").rglob("*.py"), ROOT / "setup.py"]


def commands():
    """Subparsers of the command line, by name."""
    (action,) = (each for each in parser()._actions if hasattr(each, "choices") and each.choices)
    return action.choices


def options_of(command):
    return {option for action in command._actions for option in action.option_strings}


def told(text):
    """``(subcommand, options)`` of each command line of this package that a text shows."""
    # Abbreviated to one line; a span of code, or a line of a block, ends it.
    spans = re.findall(r"(?:-m |bin/|`|^    )fastlangevin ([a-z]+)([^`\n#]*)", text, re.MULTILINE)
    return [(name, set(re.findall(r"(?<=\s)--?[a-zA-Z][\w-]*", rest))) for name, rest in spans]


def harnesses(text):
    """``(module, options)`` of each ``python -m benchmarks.X`` that a text shows."""
    spans = re.findall(r"python -m benchmarks\.(\w+)([^`\n#]*)", text)
    return [(name, set(re.findall(r"(?<=\s)--[a-z][\w-]*", rest))) for name, rest in spans]


def module_text(name):
    place = ROOT / "benchmarks" / name
    paths = [place.with_suffix(".py")] if place.with_suffix(".py").exists() else sorted(place.glob("*.py"))
    return "".join(path.read_text(encoding="utf-8") for path in paths)


def missing_commands(text):
    """What a text shows that there is not."""
    known = commands()
    missing = [name for name, _ in told(text) if name not in known]
    missing += [
        f"{name} {option}" for name, given in told(text) if name in known for option in given - options_of(known[name])
    ]
    for name, given in harnesses(text):
        source = module_text(name)
        if not any(each in source for each in ("argparse", "command(", "parser(")):
            missing.append(f"benchmarks.{name}")
        shared = (ROOT / "benchmarks" / "command.py").read_text(encoding="utf-8")
        missing += [f"benchmarks.{name} {option}" for option in given if f'"{option}"' not in source + shared]
    return missing


@pytest.mark.parametrize("name", TEXTS)
def test_every_command_and_option_exists(name):
    assert missing_commands(TEXTS[name]) == []


def test_a_command_that_does_not_exist_is_found():
    text = "`fastlangevin smaple`, `fastlangevin sample --smaples 3`, `python -m benchmarks.nothing`, "
    text += "`python -m benchmarks.durability --kill 5` and `fastlangevin plan --budget 3 --out x`"
    assert missing_commands(text) == [
        "smaple",
        "sample --smaples",
        "benchmarks.nothing",
        "benchmarks.durability --kill",
    ]


def test_every_command_is_told_of():
    assert {name for name, _ in told(TEXTS["README.md"])} == set(commands())
    shown = {name for text in TEXTS.values() for name, _ in harnesses(text)}
    assert len(shown) > 12


def test_a_harness_that_is_shown_runs_as_a_program():
    for name in {name for text in TEXTS.values() for name, _ in harnesses(text)}:
        assert '__name__ == "__main__"' in module_text(name) or (ROOT / "benchmarks" / name / "__main__.py").exists(), (
            name
        )


def variables(text):
    return set(re.findall(r"\bFASTLANGEVIN_[A-Z_]+\b", text))


def test_every_variable_stands_in_the_table_and_every_row_is_read():
    table = set(re.findall(r"^\| `(FASTLANGEVIN_[A-Z_]+)` \|", README, re.MULTILINE))
    assert table == variables("".join(path.read_text(encoding="utf-8") for path in SOURCES))
    # `fastlangevin info` tells of the same.
    assert table == {name for name in info.VARIABLES if name.startswith("FASTLANGEVIN_")}
    assert len(table) > 3
    assert variables("os.environ['FASTLANGEVIN_NEW']") - table == {"FASTLANGEVIN_NEW"}


def test_every_block_of_code_is_run():
    assert set(re.findall(r"^```(\w*)$", README, re.MULTILINE)) == {"bash", "python", ""}
    assert README.count("```") == 2 * (len(blocks("python")) + len(blocks("bash")))
