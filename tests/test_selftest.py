"""``fastlangevin selftest`` and ``info``: what passes here, and what each check finds when a promise is broken."""

import itertools

import pytest
import torch

from fastlangevin import cli, samplers
from fastlangevin.selftest import CHECKS, Failure, checks, operations

CPU = torch.device("cpu")


@pytest.mark.parametrize("name", CHECKS)
def test_every_check_passes_here(name):
    before = torch.get_rng_state()
    assert CHECKS[name](CPU)
    assert torch.equal(torch.get_rng_state(), before), "the caller's generator was used"


def broken_rounds(monkeypatch):
    right = checks.reference.philox
    monkeypatch.setattr(checks.reference, "philox", lambda *words: right(*words, rounds=9))


def broken_bits(name):
    def break_it(monkeypatch):
        right = operations.OPERATIONS[name]

        def off(impl, device):
            results = [each.clone() for each in right(impl, device)]
            if impl == "cpp":
                last = results[-1].flatten()
                last[-1] = torch.nextafter(last[-1], torch.full_like(last[-1], torch.inf))
                results[-1] = last.view(results[-1].shape)
            return results

        monkeypatch.setitem(operations.OPERATIONS, name, off)

    return break_it


def broken_law(monkeypatch):
    monkeypatch.setattr(
        checks,
        "annealed_langevin",
        lambda *args, **kwargs: samplers.annealed_langevin(*args, temperature=1.1, **kwargs),
    )


def broken_resume(monkeypatch):
    def sampler(*args, resume=None, **kwargs):
        if resume is not None:
            resume.x[-1, -1] += 0.5
        return samplers.annealed_langevin(*args, resume=resume, **kwargs)

    monkeypatch.setattr(checks, "annealed_langevin", sampler)


def broken_batch(monkeypatch):
    def sampler(*args, sample_offset=0, **kwargs):
        return samplers.annealed_langevin(*args, **kwargs)

    monkeypatch.setattr(checks, "annealed_langevin", sampler)


def broken_checkpoints(monkeypatch):
    right = checks.checkpoint.load
    kept = {}
    turn = itertools.count()

    def load(path):
        # Damage from the 40th copy on goes unnoticed.
        if next(turn) < 40:
            kept["whole"] = kept.get("whole") or right(path)
            return right(path)
        return kept["whole"]

    monkeypatch.setattr(checks.checkpoint, "load", load)


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "break_it", "found"),
    [
        ("known answers", broken_rounds, "Philox of counter"),
        ("bits of normals", broken_bits("normals"), "normals on cpp with"),
        ("bits of uniforms", broken_bits("uniforms"), "uniforms on cpp with"),
        ("bits of update", broken_bits("update"), "update on cpp with"),
        ("bits of objective", broken_bits("objective"), "objective on cpp with"),
        ("exact law", broken_law, "standard errors off its exact law"),
        ("resume", broken_resume, "stopped after 1 updates"),
        ("resume", broken_batch, "alone have other bits"),
        ("checkpoints", broken_checkpoints, "was taken for whole"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_broken_promise_is_found(name, break_it, found, monkeypatch):
    break_it(monkeypatch)
    with pytest.raises(Failure, match=found):
        CHECKS[name](CPU)


@pytest.mark.long
def test_an_error_is_a_failure_and_the_others_go_on(monkeypatch, capsys):
    def crashes(device):
        raise KeyError("x")

    monkeypatch.setitem(CHECKS, "known answers", crashes)
    assert cli.main(["selftest"]) == 1
    shown = capsys.readouterr().out
    assert "KeyError: 'x'" in shown
    assert shown.count("passed  ") == len(CHECKS) - 1


@pytest.mark.long
def test_the_command(capsys):
    assert cli.main(["selftest", "--device", "cpu"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("passed  ") == len(CHECKS)
    assert "all passed" in shown


def test_a_device_that_is_not_there(capsys):
    assert cli.main(["selftest", "--device", "nothing"]) == 2
    assert "nothing" in capsys.readouterr().err


def test_info_says_what_runs_and_why(capsys, monkeypatch):
    monkeypatch.setenv("FASTLANGEVIN_CACHE_DIR", "/tmp/somewhere")
    assert cli.main(["info"]) == 0
    shown = capsys.readouterr().out
    for text in (torch.__version__, "stream version 1", "cpp        ", "reference  available", "/tmp/somewhere"):
        assert text in shown, text
    if not torch.cuda.is_available():
        assert "cuda: no device" in shown
