"""Each check of a model on answers that it must refuse or flag, and on answers that it must let pass."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from harness.audit import model as checks
from harness.audit.flags import Flag
from harness.errors import InvalidInput, ModelError

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.1, 0.3, -4.0]])
NAMES = np.array([7, 9])


def test_a_changed_state_is_refused_and_put_back() -> None:
    norm = nn.BatchNorm1d(3)
    before = {name: value.clone() for name, value in norm.state_dict().items()}
    refused = pytest.raises(ModelError, match=r"changes its own state \(running_mean, running_var")
    with refused, checks.refuse_changed_state(norm):
        norm.train()(LOGITS)
    assert all(torch.equal(value, before[name]) for name, value in norm.state_dict().items())
    with checks.refuse_changed_state(norm):
        norm.eval()(LOGITS)


def test_a_state_that_is_not_a_number_may_stay_so() -> None:
    norm = nn.BatchNorm1d(3)
    norm.running_mean.fill_(float("nan"))
    with checks.refuse_changed_state(norm):
        norm.eval()(LOGITS)


def test_changed_images_are_refused() -> None:
    images = torch.rand(2, 3, 4, 4)
    checks.refuse_changed_images(images.clone(), images)
    with pytest.raises(ModelError, match="changes its input in place"):
        checks.refuse_changed_images(images - 0.1, images)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_logits_that_are_no_numbers_are_refused_by_name(value: float) -> None:
    checks.refuse_nan(LOGITS, NAMES)
    bad = LOGITS.clone()
    bad[1, 0] = value
    with pytest.raises(ModelError, match=r"for 1 clean image \(sample 9\)"):
        checks.refuse_nan(bad, NAMES)
    with pytest.raises(ModelError, match=r"for 2 clean images \(sample 7, 9\)"):
        checks.refuse_nan(bad[[1, 1]], NAMES)


def test_one_class_is_refused() -> None:
    checks.refuse_few_classes(2)
    with pytest.raises(ModelError, match="returns 1 logit per sample"):
        checks.refuse_few_classes(1)


def test_labels_beyond_the_models_are_refused() -> None:
    checks.refuse_unknown_labels(torch.tensor([0, 2]), 3, NAMES)
    with pytest.raises(InvalidInput, match=r"sample 9 has class 3, but the model knows 3 \(0 to 2\)"):
        checks.refuse_unknown_labels(torch.tensor([0, 3]), 3, NAMES)


def code(flag: Flag | None) -> str | None:
    return flag.code if flag else None


@pytest.mark.parametrize(
    ("other", "random", "dependent", "kept"),
    [
        (LOGITS, None, None, None),
        (LOGITS * (1 + 1e-6), None, None, None),
        (LOGITS + torch.tensor([0.001, 0, 0]), "randomised", None, None),
        (LOGITS + torch.tensor([0.1, 0, 0]), "randomised", "batch-dependent", "state-kept"),
        (LOGITS * float("nan"), None, "batch-dependent", "state-kept"),
    ],
    ids=["the same", "rounding", "a little", "much", "not a number"],
)
def test_two_answers_to_the_same_images(
    other: Tensor, random: str | None, dependent: str | None, kept: str | None
) -> None:
    assert code(checks.randomised(LOGITS, other)) == random
    assert code(checks.batch_dependent(LOGITS, other)) == dependent
    assert code(checks.state_kept(LOGITS, other)) == kept


def test_probabilities_are_told_from_logits() -> None:
    assert code(checks.probabilities(LOGITS.softmax(1))) == "probabilities"
    assert checks.probabilities(LOGITS) is None
    assert checks.probabilities(LOGITS.log_softmax(1)) is None
    assert checks.probabilities(LOGITS.sigmoid()) is None
