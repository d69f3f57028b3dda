"""What no file and no call may bring about: code from a pickle, a shell, a connection, a path outside its folder."""

from __future__ import annotations

import ast
import io
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import fastlangevin as fl
from fastlangevin import shards
from fastlangevin.shards import RunFolder
from fastlangevin.shards.folder import _seal
from fastlangevin.shards.lease import claim
from fastlangevin.storage import container
from fastlangevin.storage.generations import Generations
from fastlangevin.storage.published import load_published

PACKAGE = Path(fl.__file__).parent
SOURCES = sorted({*PACKAGE.rglob("*.py"), *(PACKAGE / "kernels").rglob("*.py")})

# Modules that run code from data, open a shell, or a connection. The exceptions are named with their reason.
BANNED = {
    *("pickle", "cPickle", "_pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "subprocess", "pty"),
    *("socket", "ssl", "http", "urllib", "urllib3", "requests", "ftplib", "smtplib", "telnetlib", "xmlrpc"),
    *("asyncio", "socketserver", "webbrowser", "huggingface_hub"),
}
ALLOWED = {
    ("kernels/cpp/build.py", "subprocess"),  # the compiler and ninja, as lists of arguments: no shell
    ("storage/published.py", "pickle"),  # its UnpicklingError alone, for the message: see the next test
}


def findings(source: str) -> list[tuple[int, str]]:
    """Lines of a module that run code from data, open a shell or a connection, and what does."""
    found = []
    for node in ast.walk(ast.parse(source)):
        names = [each.name for each in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module]
        found += [(node.lineno, name) for name in names if name.partition(".")[0] in BANNED]
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        options = {each.arg: ast.unparse(each.value) for each in node.keywords}
        if called in ("eval", "exec", "compile", "__import__") or called.startswith(
            ("os.exec", "os.spawn", "os.popen")
        ):
            found.append((node.lineno, called))
        if called in ("os.system", "torch.hub.load", "torch.package.PackageImporter", "torch.jit.load"):
            found.append((node.lineno, called))
        if called.endswith("torch.load") and options.get("weights_only") != "True":
            found.append((node.lineno, "torch.load without weights_only=True"))
        if called in ("np.load", "numpy.load") and options.get("allow_pickle", "False") != "False":
            found.append((node.lineno, "np.load with pickles"))
        if options.get("shell", "False") != "False":
            found.append((node.lineno, "shell="))
    return found


def test_no_module_runs_code_from_data_or_opens_a_shell_or_a_connection() -> None:
    assert len(SOURCES) > 150
    found = set()
    for path in SOURCES:
        name = path.relative_to(PACKAGE).as_posix()
        found |= {(name, what) for _, what in findings(path.read_text(encoding="utf-8"))}
    assert found == ALLOWED


def test_pickle_is_named_for_an_error_alone() -> None:
    tree = ast.parse((PACKAGE / "storage" / "published.py").read_text(encoding="utf-8"))
    used = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert {each for each in used if each.startswith("pickle.")} == {"pickle.UnpicklingError"}


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from urllib.request import urlopen",
        "import requests.sessions as s",
        "torch.load(f)",
        "torch.load(f, weights_only=False)",
        "subprocess.run('x', shell=True)",
        "os.system('x')",
        "eval('x')",
        "np.load(f, allow_pickle=True)",
    ],
)
def test_the_scan_sees_what_it_is_for(source: str) -> None:
    assert findings(source)
    assert not findings("torch.load(f, weights_only=True); net.eval(); subprocess.run(['x'], check=False)")


# Calls that change something for all threads of the process, for however short a time, and where they may stand.
PROCESS_WIDE = {
    *("os.umask", "os.chdir", "os.fchdir", "os.putenv", "os.unsetenv", "os.nice", "os.setpriority", "os.setuid"),
    *("os.setgid", "os.seteuid", "os.setegid", "os.environ.update", "os.environ.pop", "os.environ.setdefault"),
    *("locale.setlocale", "signal.signal", "signal.set_wakeup_fd", "signal.setitimer", "signal.alarm", "time.tzset"),
    *("resource.setrlimit", "sys.setrecursionlimit", "sys.setswitchinterval", "sys.set_int_max_str_digits"),
    *("socket.setdefaulttimeout", "tempfile.tempdir", "random.seed", "np.random.seed", "torch.manual_seed"),
    *("torch.set_default_dtype", "torch.set_default_device", "torch.set_num_threads"),
    *("warnings.catch_warnings", "warnings.simplefilter", "warnings.filterwarnings"),
}
CHANGED = {
    ("stopping.py", "signal.signal"),  # what its block is for
    ("cli/train.py", "torch.set_num_threads"),  # --threads, in a process of its own
    ("samplers/cuda_graph.py", "warnings.catch_warnings"),  # the one way in which PyTorch tells of a synchronisation
    ("samplers/cuda_graph.py", "warnings.simplefilter"),
    ("diagnostics/inference_data.py", "warnings.catch_warnings"),  # ArviZ's of arrays with many chains
    ("diagnostics/inference_data.py", "warnings.filterwarnings"),
}


def process_wide(source: str) -> set[str]:
    """What a module calls, or assigns to, that all threads of the process share."""
    tree = ast.parse(source)
    called = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    changes = [node for node in ast.walk(tree) if isinstance(node, ast.Assign | ast.Delete)]
    assigned = {ast.unparse(each).partition("[")[0] for node in changes for each in node.targets}
    return (called & PROCESS_WIDE) | (assigned & {"os.environ", "tempfile.tempdir", "sys.path"})


def test_no_module_changes_what_all_threads_share() -> None:
    found = set()
    for path in SOURCES:
        name = path.relative_to(PACKAGE).as_posix()
        found |= {(name, what) for what in process_wide(path.read_text(encoding="utf-8"))}
    assert found == CHANGED


@pytest.mark.parametrize("source", ["mask = os.umask(0o022)", "os.environ['X'] = '1'", "del os.environ['X']"])
def test_the_scan_sees_what_all_threads_share(source: str) -> None:
    assert process_wide(source)
    assert not process_wide("os.environ.get('X'); os.chmod(path, 0o600)")


# What a run does, event by event. Everything of one process, since a process costs seconds.
RUN = """
import json, os, pickle, subprocess, sys
from pathlib import Path

folder = Path(sys.argv[1])
PARTS = ("os.system", "os.exec", "os.spawn", "os.posix_spawn", "os.fork", "subprocess.", "socket.", "urllib.", "http.",
         "ftplib.", "smtplib.", "webbrowser.", "pickle.find_class", "marshal.loads", "code.__new__")
part, seen = "import", {}

def watch(event, arguments):
    if event.startswith(PARTS) and part is not None:
        # Modules are unmarshalled, and named tuples and dataclasses compiled, by imports.
        if event not in ("marshal.loads", "code.__new__"):
            seen.setdefault(part, []).append([event, repr(arguments)[:300]])

sys.addaudithook(watch)
os.chdir(folder)
import torch
torch.set_num_threads(1)
import fastlangevin as fl
from fastlangevin import checkpoint, shards
from fastlangevin.storage import stopped_chain
from fastlangevin.cli import main
from fastlangevin.data import Images
from fastlangevin.published import load_published
from fastlangevin.training import Places, TrainConfig, train

part = "published"
net = load_published("published.pth", sigmas=[1.0, 0.5]).net
part = "checkpoint"
net.save_pretrained("net.safetensors", metadata={"data": {"shape": [1, 8, 8], "range": [0, 1]}})
net = checkpoint.load("net.safetensors").net
part = "sampling"
options = dict(epsilon=1e-4, steps_per_level=1, seed=0)
fl.annealed_langevin(net, net.sigmas, shape=(1, 1, 8, 8), **options)
part = "shards"
shards.sample(lambda x, level: -x, [1.0, 0.5], "run", shape=(4, 2), shard_size=2, network="gaussian", **options)
shards.collect("run")
part = "training"
mlp = lambda: fl.models.MLP([1.0, 0.5], fl.models.MLPConfig(features=2, width=4, depth=1))
data = Images(torch.rand(8, 2))
for steps in (1, 2):
    train(mlp, data, TrainConfig(steps=2, batch=4, save_every=1), Places(Path("train"), resume=True, device="cpu"))
part = "cli"
sampled = ["sample", "--checkpoint", "net.safetensors", "--n", "1", "--epsilon", "1e-4", "--steps-per-level", "1"]
codes = [main([*sampled, "--quiet"]), main([*sampled, "--quiet", "--shards", "clishards", "--digest"])]
codes += [main(["convert", "published.pth", "again.safetensors", "--sigmas", "1", "0.5"]), main(["info"])]
codes += [main(["plan", "--sigma-1", "5", "--shape", "3", "8", "8", "--budget", "50"])]
assert codes == [0] * 5, codes

part = "control"
import socket, urllib.request
pickle.loads(Path("trap.pickle").read_bytes())
socket.socket().close()
for shell in (True, False):
    subprocess.run("true" if shell else ["true"], shell=shell, check=False)
os.system("true")
try:
    urllib.request.urlopen("http://127.0.0.1:9/", timeout=0.01)
except OSError:
    pass
part = None
Path("seen.json").write_text(json.dumps(seen))
"""


# Matplotlib's search for fonts, for the curves of a training run, and platform's for the processor, in `info`.
PROGRAMS = ("('fc-list', ['fc-list', ", "('uname', ['uname', '-p'], ")


class Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.path),)


def ncsn() -> fl.models.NCSN:
    return fl.models.NCSN([1.0, 0.5], fl.models.NCSNConfig(channels=1, width=2))


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[list[str]]]:
    folder = tmp_path_factory.mktemp("audit")
    torch.save(ncsn().state_dict(), folder / "published.pth")
    (folder / "trap.pickle").write_bytes(pickle.dumps(Trap(folder / "sprung")))
    environment = {
        **os.environ,
        "PYTHONPATH": str(PACKAGE.parent),
        "OMP_NUM_THREADS": "1",
        "FASTLANGEVIN_NO_BUILD": "1",
    }
    environment |= {"FASTLANGEVIN_IMPL": "reference", "MPLCONFIGDIR": str(folder / "matplotlib")}
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(folder)], env=environment, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr
    assert (folder / "sprung").is_dir()
    events: dict[str, list[list[str]]] = json.loads((folder / "seen.json").read_text())
    return events


def named(event: list[str]) -> bool:
    """Whether an event is a program that a library starts, by itself and without a shell."""
    return event[0] == "subprocess.Popen" and event[1].startswith(PROGRAMS)


@pytest.mark.long
def test_no_shell_no_connection_and_no_pickle_in_any_part_of_a_run(seen: dict[str, list[list[str]]]) -> None:
    seen = {part: [each for each in events if not named(each)] for part, events in seen.items()}
    assert {part: events for part, events in seen.items() if events and part != "control"} == {}


def test_the_hook_sees_all_of_them(seen: dict[str, list[list[str]]]) -> None:
    events = {event for event, _ in seen["control"]}
    assert {"pickle.find_class", "socket.__new__", "subprocess.Popen", "os.system", "urllib.Request"} <= events
    started = [each for each in seen["control"] if each[0] == "subprocess.Popen"]
    assert len(started) == 2
    assert not any(map(named, started))


# Pickles.


def traps(path: Path) -> dict[str, bytes]:
    """Files that run code in a reader that lets them: bare, as torch.save writes it, in a zip, deep in a checkpoint."""
    made = {"bare": pickle.dumps(Trap(path)), "old protocol": pickle.dumps(Trap(path), protocol=0)}
    for zipped in (True, False):
        for name, content in (("alone", Trap(path)), ("last", {**ncsn().state_dict(), "more": Trap(path)})):
            buffer = io.BytesIO()
            torch.save(content, buffer, _use_new_zipfile_serialization=zipped)
            made[f"{name}, {'zip' if zipped else 'before 1.6'}"] = buffer.getvalue()
    return made


def test_no_reader_runs_a_pickle_and_plain_readers_do(tmp_path: Path) -> None:
    sprung, path, plain = tmp_path / "sprung", tmp_path / "run" / "shard-0000000000.safetensors", tmp_path / "plain.pth"
    run = RunFolder.begin(tmp_path / "run", RECORD)
    for name, content in traps(sprung).items():
        path.write_bytes(content)
        readers = (container.read, fl.models.MLP.from_pretrained, load_published, lambda _: run.read(0))
        for read in readers:
            with pytest.raises(ValueError, match=r"damaged|Python objects|is not a checkpoint"):
                read(path)
            assert not sprung.exists(), name
        # The control: the same bytes, by readers that trust them.
        if name in ("bare", "old protocol"):
            pickle.loads(content)
        else:
            plain.write_bytes(content)  # by the other name torch.load takes it for a safetensors file
            torch.load(plain, weights_only=False)
        sprung.rmdir()


# Names and paths.

RECORD: dict[str, Any] = {
    "format": 1,
    "stream_version": 1,
    "network": "gaussian",
    "sampler": "annealed_langevin",
    "sigmas": [1.0],
    "init": "uniform",
    "epsilon": 1e-3,
    "steps_per_level": 1,
    "corrector": "langevin",
    "denoise": False,
    "seed": 0,
    "n": 4,
    "sample_offset": 0,
    "shape": [2],
    "dtype": "float32",
    "shard_size": 2,
}
OUTSIDE = ["..", "../x", "/etc/x", "a/b", "a\\b", "x\0y", "", 1.0, True, None, b"x"]


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_runs_prefix_is_a_name_and_no_path(tmp_path: Path, name: Any) -> None:
    if name == "..":
        # A prefix of dots alone is no path: the file is called "..-0000000001.safetensors".
        assert Generations(tmp_path, name).path(1).parent == tmp_path
        return
    with pytest.raises(ValueError, match="prefix must be the beginning of a file's name, without a path"):
        Generations(tmp_path, name)


@pytest.mark.parametrize("name", OUTSIDE)
def test_numbers_that_become_names_are_numbers(tmp_path: Path, name: Any) -> None:
    run = RunFolder.begin(tmp_path / "run", RECORD)
    generations = Generations(tmp_path, "state")
    for call in (run.shard_path, run.lock_path, run.read, generations.path):
        with pytest.raises((TypeError, ValueError), match="must be"):
            call(name)
    with pytest.raises((TypeError, ValueError), match="must be"):
        run.write_part(0, name, torch.zeros(1, 2))


@pytest.mark.parametrize("value", [*OUTSIDE, 2**57, -1, [], {}])
@pytest.mark.parametrize("name", ["n", "shard_size", "sample_offset"])
def test_a_record_names_no_other_path(tmp_path: Path, name: str, value: Any) -> None:
    RunFolder.begin(tmp_path / "run", RECORD)
    forged = {**RECORD, name: value if not isinstance(value, bytes) else "x"}
    (tmp_path / "run" / "run.json").write_text(json.dumps({"record": forged, "sha256": _seal(forged)}))
    with pytest.raises(container.DamagedError, match=name):
        RunFolder(tmp_path / "run")


def test_a_record_that_claims_more_than_there_is_takes_no_memory(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run = RunFolder.begin(folder, RECORD)
    run.write(0, torch.zeros(2, 2))
    for changes, error, message in (
        ({"n": 2**33, "shard_size": 1}, FileNotFoundError, "misses 8589934591 of 8589934592 shards"),
        ({"n": 2**40, "shard_size": 2**40}, container.DamagedError, "shorter than the 1099511627776 samples"),
        ({"n": 2**56 - 1, "shard_size": 1}, container.DamagedError, "more than 10000000000 shards"),
        ({"shape": [2**34]}, FileNotFoundError, "misses 1 of 2"),
    ):
        forged = {**RECORD, **changes}
        (folder / "run.json").write_text(json.dumps({"record": forged, "sha256": _seal(forged)}))
        with pytest.raises(error, match=message):
            shards.collect(folder)


def test_a_link_in_a_run_is_read_as_any_file_and_never_written_through(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(b"mine")
    run = RunFolder.begin(tmp_path / "run", RECORD)
    generations = Generations(tmp_path, "state")
    for path, write in (
        (run.shard_path(0), lambda: run.write(0, torch.zeros(2, 2))),
        (generations.path(1), lambda: generations.save(1, {}, {})),
    ):
        path.symlink_to(outside)
        with pytest.raises(container.DamagedError):
            container.read(path)
        write()
        assert outside.read_bytes() == b"mine"
        assert not path.is_symlink()
        container.read(path)
    # What is set aside or swept away is the link, not what it points to.
    run.shard_path(1).symlink_to(outside)
    assert run.set_aside(run.shard_path(1)).is_symlink()
    (tmp_path / "run" / ".shard-0000000001.safetensors.host.1.x.tmp").symlink_to(outside)
    RunFolder.begin(tmp_path / "run", RECORD)
    assert outside.read_bytes() == b"mine"
    # A lock makes no file where a link points to.
    run.lock_path(0).symlink_to(tmp_path / "made")
    with pytest.raises(OSError, match="symbolic links"), claim(run.lock_path(0)):
        pass
    assert not (tmp_path / "made").exists()


def test_a_tensors_name_is_never_a_path(tmp_path: Path) -> None:
    names = ["../x", "/etc/x", "a/b", "x\0y"]
    container.write(tmp_path / "file", {name: torch.zeros(1) for name in names}, {"../y": "../z"})
    assert container.read(tmp_path / "file")[0].keys() == set(names)
    assert os.listdir(tmp_path) == ["file"]
