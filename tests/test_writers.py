"""No writer truncates a good file before the new one is complete: all go through ``files.write_whole``."""

import ast
import json
from pathlib import Path

import pytest

from benchmarks import writing

ROOT = Path(__file__).parents[1]
# Into folders of their own, which are gone after the call: copies of the tree, damaged files, what a compiler reads.
SCRATCH = {
    "tests/long/building.py",
    "tests/long/durability.py",
    "tests/gates/machine_code.py",
    "benchmarks/memory.py",  # of /proc
    "tests/long/mutation.py",
    "tests/long/readers.py",
    "tests/long/equal_rows.py",
    "tests/long/resuming.py",
    "fastlangevin/selftest/checks.py",
    "kernels/cpp/build.py",
}
METHODS = ("write_text", "write_bytes", "savefig", "imsave", "tofile", "to_json_file")
FUNCTIONS = ("torch.save", "np.save", "np.savez", "json.dump", "pickle.dump", "shutil.copyfile", "shutil.copy")
# Modes that add to a file or lock it: the log of a run, which only grows, and locks.
OPENED = {
    "fastlangevin/storage/files.py": {"r+b"},
    "fastlangevin/training/log.py": {"a"},
    "kernels/cpp/native.py": {"a"},
}


def truncating(source: str) -> list[str]:
    """The calls of a module that write into a file in its place, with their lines."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        into_memory = any(name in ast.unparse(node) for name in ("encoded", "picture", "drawn", "buffer"))
        method = isinstance(node.func, ast.Attribute) and node.func.attr in METHODS
        if (method or called in FUNCTIONS) and not into_memory:
            found.append(f"{node.lineno}: {called}")
        if called == "open" or (isinstance(node.func, ast.Attribute) and node.func.attr == "open"):
            modes = [each.value for each in [*node.args, *(key.value for key in node.keywords)] if is_text(each)]
            found += [f"{node.lineno}: open {mode}" for mode in modes if set(mode) & set("wax+") and len(mode) <= 3]
    return found


def is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def modules():
    for folder in ("fastlangevin", "benchmarks", "kernels", "examples", "tests/long", "tests/gates"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            name = path.relative_to(ROOT).as_posix()
            if not name.startswith(("fastlangevin/kernels/", "tests/long/faults/")):
                yield name, path


def test_no_module_writes_a_file_in_its_place():
    found = {}
    for name, path in modules():
        allowed = OPENED.get(name, set())
        calls = [call for call in truncating(path.read_text(encoding="utf-8")) if call.split()[-1] not in allowed]
        if calls and name not in SCRATCH:
            found[name] = calls
    assert found == {}


@pytest.mark.parametrize(
    "line",
    [
        "path.write_text('x')",
        "Path('a').write_bytes(b'x')",
        "figure.savefig('a.png')",
        "torch.save({}, path)",
        "open(path, 'w')",
        "path.open('wb')",
        "open(path, mode='x')",
        "json.dump({}, file)",
    ],
)
def test_one_that_does_would_be_seen(line):
    assert len(truncating(line)) == 1


def test_one_that_does_not_is_not():
    for line in (
        "open(path)",
        "open(path, 'rb')",
        "Image.open(path)",
        "figure.savefig(encoded)",
        "write_whole(p, b'')",
    ):
        assert truncating(line) == []


def test_a_record_that_cannot_be_written_leaves_the_old_one(tmp_path):
    path = tmp_path / "record.json"
    writing.write_record(path, {"a": 1})
    before = path.read_bytes()
    assert json.loads(before) == {"a": 1}

    class Figure:
        def savefig(self, file, **options):
            file.write(b"half")
            raise RuntimeError("no fonts")

    with pytest.raises(TypeError):
        writing.write_record(path, {"a": object()})
    with pytest.raises(RuntimeError, match="no fonts"):
        writing.write_figure(path, Figure(), 100)
    with pytest.raises(UnicodeEncodeError):
        writing.write_text(path, "\ud800")
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
    # The twin: written in its place, it is gone.
    with pytest.raises(UnicodeEncodeError):
        path.write_text("half" * 10_000 + "\ud800", encoding="utf-8")
    assert path.read_bytes() != before
