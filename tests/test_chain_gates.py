"""What the compiler makes of the chain kernel, for GPUs that need not be there: see test_compile_gates.py."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton")

ROOT = Path(__file__).resolve().parent.parent


def gates():
    """test_compile_gates.py, which compiles and says what is wrong: by its path, since tests import no tests."""
    specification = importlib.util.spec_from_file_location("compile_gates", ROOT / "tests" / "test_compile_gates.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


ARCHITECTURES = (80, 90, 100)
CHAINS = [(features, diagonal) for features in (1, 2, 3, 4, 8, 16, 64) for diagonal in (False, True)]
NAMES = [f"chain-{features}-{'diagonal' if diagonal else 'isotropic'}" for features, diagonal in CHAINS]


def calls():
    from fastlangevin.kernels import chain_mixture, mixture

    made = {}
    address = {"seed": 1, "draw": 2, "sample_ids": None, "sample_offset": 0, "purpose": 1, "every": 0, "frames": None}
    for name, (features, diagonal) in zip(NAMES, CHAINS, strict=True):
        table = torch.zeros(1, 8, 1 + 2 * features if diagonal else 3 + features)
        x = torch.zeros(1024, features)
        call = chain_mixture.prepare(x, table, diagonal=diagonal, runs=[((1.0, 0.5, 0.5), 0, 9)], **address)
        made[name] = chain_mixture.chain_kernel, call, {}
    kernel, call, _ = made["chain-2-isotropic"]
    frames = {**call.arguments, "frames_ptr": x, "ids_ptr": torch.zeros(1, dtype=torch.int64)}
    made["frames"] = kernel, call._replace(arguments=frames), {}
    made["contracted"] = kernel, call, {"enable_fp_fusion": True}
    made["spills"] = kernel, call, {"maxnreg": 24}
    labels = torch.zeros(1024, dtype=torch.int64)
    for features in (2, 16):
        table = torch.zeros(1, 8, 3 + features)
        x = torch.zeros(1024, features)
        made[f"score-{features}"] = mixture.score_kernel, mixture.prepare(x, x, table, labels, diagonal=False), {}
    return made


# What ptxas makes of a division rounded once, its rare cases included, for all three architectures.
DIVISION = {"FFMA": 13, "FFMA.RZ": 1, "FFMA.RP": 1, "FFMA.RM": 1, "MUFU.RSQ": 1}


def faults(result):
    """As in test_compile_gates.py, without what the one division of a score brings."""
    counts = dict(result["counts"])
    if "div.rn.f32" in result["special"]:
        counts = {name: number - DIVISION.get(name, 0) for name, number in counts.items()}
    special = [name for name in result["special"] if name != "div.rn.f32"]
    return gates().faults({**result, "special": special, "counts": counts}, vectors=0)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compiled")
    environment = {key: value for key, value in os.environ.items() if not key.startswith("TRITON_")}
    environment["TRITON_CACHE_DIR"] = str(folder / "cache")
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), environment.get("PYTHONPATH", "")])
    path = folder / "results.json"
    done = subprocess.run([sys.executable, __file__, path], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(path.read_text())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(("name", "chain"), list(zip(NAMES, CHAINS, strict=True)), ids=NAMES)
def test_chains_keep_their_state_in_registers(name, chain, architecture, results):
    from fastlangevin.kernels import chain_mixture

    result = results[f"{name}-{architecture}"]
    assert not faults(result)
    assert result["instructions"] <= chain_mixture.INSTRUCTION_BUDGET[chain]
    assert result["registers"] <= chain_mixture.REGISTER_BUDGET[chain[0]]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("name", ["frames", "score-2", "score-16"])
def test_other_variants_have_no_fault(name, architecture, results):
    assert not faults(results[f"{name}-{architecture}"])


@pytest.mark.parametrize(("name", "fault"), [("contracted", "contract|FFMA"), ("spills", "spills")])
def test_the_gate_closes(name, fault, results):
    found = " ".join(faults(results[f"{name}-90"]))
    assert any(each in found for each in fault.split("|")), found


def main(path):
    measure, measured = gates().measure, {}
    for name, (kernel, call, options) in calls().items():
        for architecture in ARCHITECTURES if name not in ("contracted", "spills") else (90,):
            measured[f"{name}-{architecture}"] = measure(kernel, call, architecture, **options)
    Path(path).write_text(json.dumps(measured))


if __name__ == "__main__":
    main(sys.argv[1])
