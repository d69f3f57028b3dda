"""The README and docs/: the two commands, the code, the names, the links."""

import re
import subprocess
import sys

import pytest
from patience import HUNG

import fastlangevin as fl
from benchmarks.documents import ROOT, documents
from fastlangevin.cli import info, parser

README = (ROOT / "README.md").read_text(encoding="utf-8")
# By the path from the root of the checkout.
DOCUMENTS = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in documents()}
ALL = "\n".join(DOCUMENTS.values())


def blocks(language, text=README):
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def test_two_commands_each_with_its_own_setup():
    # CI runs the second; documents below show commands without a setup of their own, indented.
    assert blocks("bash", ALL) == blocks("bash")
    commands = blocks("bash")
    assert len(commands) == 2
    for command in commands:
        assert len(command.splitlines()) == 1
        assert command.startswith("python3 -m venv")
        assert "-c constraints.txt" in command
    assert commands[0].rstrip().endswith("fastlangevin sample")
    assert commands[1].rstrip().endswith('pytest -n auto --dist worksteal -m "not long"')


def python_blocks():
    for name, text in DOCUMENTS.items():
        for number, code in enumerate(blocks("python", text)):
            yield pytest.param(code, id=f"{name} {number}")


@pytest.mark.long
@pytest.mark.parametrize("code", list(python_blocks()))
def test_the_code_runs(code, tmp_path):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=tmp_path, check=True, timeout=HUNG, stdout=subprocess.PIPE
    )
    assert done.stdout or "print(" not in code


def test_the_first_code_prints_what_the_readme_says(tmp_path):
    code = blocks("python")[0]
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, timeout=HUNG, capture_output=True)
    assert f"It prints `{done.stdout.decode().strip()}`." in README


@pytest.mark.parametrize("line", re.findall(r"^    (from fastlangevin[\w.]* import .*)$", ALL, re.MULTILINE))
def test_imports_in_the_text_work(line):
    exec(line, {})


def test_every_name_exists():
    names = set(re.findall(r"`fl\.([A-Za-z_]+)[`(.]", ALL))
    assert len(names) >= 20
    for name in names:
        assert hasattr(fl, name), name
    objectives = set(re.findall(r"`losses\.([a-z_]+)[`(]", ALL))
    assert len(objectives) >= 6
    assert objectives <= set(fl.losses.__all__)
    diagnostics = set(re.findall(r"`(?:fl\.)?diagnostics\.([a-z_]+)[`(]", ALL))
    assert len(diagnostics) >= 6
    assert diagnostics <= set(fl.diagnostics.__all__)


def anchors(text):
    """The fragments that headings of a document have where it is rendered."""
    heads = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def broken(name, text):
    """Links and pictures of a document, of this name, that lead nowhere."""
    missing = []
    for target in re.findall(r"\]\(([^)]+)\)", text):
        path, _, fragment = target.partition("#")
        place = (ROOT / name).parent / path if path else ROOT / name
        if not place.exists() or (fragment and fragment not in anchors(place.read_text(encoding="utf-8"))):
            missing.append(target)
    return missing


TEXTS = {**DOCUMENTS, "CONTRIBUTING.md": (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")}
TEXTS["CHANGELOG.md"] = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", TEXTS)
def test_links_and_pictures_are_there(name):
    assert broken(name, TEXTS[name]) == []


def test_a_broken_link_is_found():
    text = (
        "[a](README.md), [b](docs/nothing.md), ![c](benchmarks/x.png), [d](README.md#install), [e](README.md#no-such)"
    )
    assert broken("README.md", text) == ["docs/nothing.md", "benchmarks/x.png", "README.md#no-such"]
    assert broken("docs/noise.md", "[a](../README.md), [b](README.md)") == ["README.md"]


def test_the_readme_leads_to_every_document():
    linked = set(re.findall(r"\]\((docs/[^)#]+)\)", README))
    assert linked == DOCUMENTS.keys() - {"README.md"}
    assert len(linked) > 5


def test_no_line_begins_with_a_figure():
    # A comment at the beginning of a line is a block of its own, in which Markdown is not rendered.
    for name, text in DOCUMENTS.items():
        assert not re.search(r"^<!-- (times|value)", text, re.MULTILINE), name


def test_public_names_are_documented():
    for name in fl.__all__:
        if not name.startswith("_"):
            value = getattr(fl, name)
            if callable(value) or isinstance(value, type):
                assert value.__doc__, name
                assert len(value.__doc__.split()) > 5, name


# Commands, options and variables that the documents name.

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
    """``(module, options)`` of each ``python -m`` of a module of the checkout that a text shows."""
    spans = re.findall(r"python -m ((?:benchmarks|examples|tests)[\w.]*\w)([^`\n#]*)", text)
    return [(name, set(re.findall(r"(?<=\s)--[a-z][\w-]*", rest))) for name, rest in spans]


def module_text(name):
    place = ROOT.joinpath(*name.split("."))
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
            missing.append(name)
        shared = (ROOT / "benchmarks" / "command.py").read_text(encoding="utf-8")
        missing += [f"{name} {option}" for option in given if f'"{option}"' not in source + shared]
    return missing


@pytest.mark.parametrize("name", TEXTS)
def test_every_command_and_option_exists(name):
    assert missing_commands(TEXTS[name]) == []


def test_a_command_that_does_not_exist_is_found():
    text = "`fastlangevin smaple`, `fastlangevin sample --smaples 3`, `python -m benchmarks.nothing`, "
    text += "`python -m tests.long.durability --kill 5` and `fastlangevin plan --budget 3 --out x`"
    assert missing_commands(text) == [
        "smaple",
        "sample --smaples",
        "benchmarks.nothing",
        "tests.long.durability --kill",
    ]


def test_every_command_is_told_of():
    assert {name for name, _ in told(README)} == set(commands())
    shown = {name for text in TEXTS.values() for name, _ in harnesses(text)}
    assert len(shown) > 12


def test_a_harness_that_is_shown_runs_as_a_program():
    for name in {name for text in TEXTS.values() for name, _ in harnesses(text)}:
        assert '__name__ == "__main__"' in module_text(name), name


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
    assert set(re.findall(r"^```(\w*)$", ALL, re.MULTILINE)) == {"bash", "python", ""}
    assert ALL.count("```") == 2 * (len(list(python_blocks())) + len(blocks("bash")))
