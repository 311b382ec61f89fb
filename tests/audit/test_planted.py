"""Every planted fault is flagged or refused, every check is needed for one of them, and healthy models pass."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from harness.audit import checks, kinds
from harness.audit.flags import Flag
from harness.errors import ModelError
from harness.threat import ThreatModel
from harness.util import plugins
from tests.audit.planted import PLANTED, Planted, base, digits

THREAT = ThreatModel("Linf", "0.15")
REFUSED = {"train-mode": "in train mode", "state-changes": "changes its own state"}


def audited(planted: Planted) -> list[Flag]:
    x, y = planted.change(*digits())
    return checks.audit(planted.make(), x, y, THREAT)


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_fault_is_found(name: str) -> None:
    planted = PLANTED[name]
    if planted.code in REFUSED:
        with pytest.raises(ModelError, match=rf"{REFUSED[planted.code]}.*model\.eval\(\)"):
            audited(planted)
        return
    flags = audited(planted)
    assert planted.code in {flag.code for flag in flags}
    assert "check-failed" not in {flag.code for flag in flags}


def test_each_check_is_needed_for_a_planted_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """A code that only one check raises is gone once that check is."""
    raised_by = {
        "batch": "flips rows from the third on",
        "batch-norm": "BN never updated",
        "counted-calls": "counts its calls",
        "gradient": "gradients NaN",
        "gradient-direction": "gradients reversed",
        "input-range": "the model divides by 255",
        "labels": "labels permuted",
        "logits": "small logits",
        "optimisation": "purified by gradients",
        "outputs": "probabilities",
        "quantised": "quantised straight through",
        "randomness": "seeded noise",
        "train-mode": "dropout left on",
    }
    own = plugins.own_members(checks.__name__)
    assert sorted(raised_by) == sorted(own)
    for left_out, name in raised_by.items():
        rest = tuple(check for check in own if check != left_out)
        monkeypatch.setattr(plugins, "own_members", lambda package, rest=rest: rest)
        assert PLANTED[name].code not in {flag.code for flag in audited(PLANTED[name])}, left_out


def test_every_kind_that_checks_raise_is_planted() -> None:
    planted = {planted.code for planted in PLANTED.values()} - set(REFUSED)
    assert len(PLANTED) >= 30
    assert planted <= {kind.code for kind in vars(kinds).values() if hasattr(kind, "code")}


def test_an_audit_leaves_everything_as_it_was() -> None:
    model, (x, y) = base(), digits(8)
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    before = torch.get_rng_state(), random.getstate(), np.random.get_state(legacy=False)  # noqa: NPY002
    images = x.clone()
    assert checks.audit(model, x, y, THREAT) == []
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == random.getstate()
    assert str(before[2]) == str(np.random.get_state(legacy=False))  # noqa: NPY002
    assert torch.equal(images, x)
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert not model.training


def test_a_model_that_a_check_cannot_be_made_of_gets_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(subject: checks.Subject) -> list[Flag]:
        raise RuntimeError("out of ideas")

    monkeypatch.setattr(checks, "_check", lambda name: fails)
    notes = checks.audit(base(), *digits(4), THREAT)
    assert {flag.code for flag in notes} == {"check-failed"}
    assert notes[0].text == "the check batch could not be made of this model (RuntimeError: out of ideas)"


def test_randomness_is_no_doubt_where_attacks_average_over_it() -> None:
    x, y = digits()
    flags = checks.audit(PLANTED["noisy"].make(), x, y, THREAT, expects_random=True)
    assert "randomised" not in {flag.code for flag in flags}
