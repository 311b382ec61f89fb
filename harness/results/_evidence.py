"""Whether a result agrees with itself and with its verdicts.

This finds damage and careless changes. Somebody who changes figures, verdicts and hashes together is found out by
attacking again, or by the adversarial examples.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np

from harness.errors import HarnessError
from harness.results.record import Result, Verdicts
from harness.threat import ThreatModel
from harness.util.limits import MOST_CLASSES
from harness.util.text import counted

__all__ = ["content_sha256", "contradiction", "contradiction_of_verdicts"]


def content_sha256(content: Mapping[str, Any]) -> str:
    """Hash of all fields of a result file but this one."""
    fields = {name: value for name, value in content.items() if name != "content_sha256"}
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def contradiction(result: Result) -> str | None:
    """What is wrong with a result's figures, as the end of a sentence; None if nothing is."""
    return next(_figures(result), None)


def contradiction_of_verdicts(result: Result, verdicts: Verdicts) -> str | None:
    """Where verdicts differ from the result's figures, as the end of a sentence; None if nowhere."""
    return next(_verdicts(result, verdicts), None)


def _figures(result: Result) -> Iterator[str]:
    n, dataset = result.n, result.dataset
    clean, robust = result.clean_acc * n, result.robust_acc * n
    if max(abs(clean - round(clean)), abs(robust - round(robust))) > 1e-6 * n:
        yield f"clean_acc and robust_acc are no fractions of {counted(n, 'sample')}"
    if n > dataset.size:
        yield f"{counted(n, 'sample')} of a split of {dataset.size} were evaluated"
    if any(side < 1 for side in dataset.shape) or not 1 <= dataset.classes <= MOST_CLASSES:
        yield f"images of shape {dataset.shape} and {dataset.classes} classes"
    try:
        radius = _radius(result.threat.eps)
    except HarnessError as error:
        yield f"threat.eps: {error}"
    else:
        if abs(radius - result.threat.radius) > 1e-9 * radius:
            yield f"the radius of eps {result.threat.eps} is {radius:g}, got {result.threat.radius:g}"
    counts = [round(clean), *(count for step in result.steps for count in (step.before, step.after)), round(robust)]
    for position, (before, after) in enumerate(pairwise(counts)):
        # between steps nothing changes, within a step samples are lost
        if not (before == after if position % 2 == 0 else before >= after):
            yield f"the steps' counts of samples do not lead from {round(clean)} to {round(robust)}: {counts}"
            break
    if result.adversarial is not None and result.adversarial.samples != round(clean) - round(robust):
        yield f"{result.adversarial.samples} adversarial examples for {round(clean) - round(robust)} broken samples"
    for step in result.steps:
        if min(step.forward, step.backward, step.judge, step.rejected, step.seconds, step.model_seconds) < 0:
            yield f"the step {step.name} has negative counts or seconds"


@cache
def _radius(eps: str) -> float:
    # the norm may be one that is not installed here; the value of eps is the same in every norm
    return ThreatModel("Linf", eps).radius


def _verdicts(result: Result, verdicts: Verdicts) -> Iterator[str]:
    n, steps = result.n, result.steps
    if len(verdicts) != n:
        yield f"{counted(len(verdicts), 'verdict')}, but n is {n}"
        return
    index, y, broken_by = verdicts.index, verdicts.y, verdicts.broken_by
    correct, broken = verdicts.clean_pred == y, broken_by >= 0
    for name, array, limit in (
        ("index", index, result.dataset.size),
        ("y", y, result.dataset.classes),
        ("broken_by", broken_by + 1, len(steps) + 1),
    ):
        if int(array.min()) < 0 or int(array.max()) >= limit:
            yield f"{name} is out of range"
    if len(np.unique(index)) != n:
        yield "a sample is there twice"
    if int(correct.sum()) != round(result.clean_acc * n):
        yield f"{int(correct.sum())} samples are correct without attack, but clean_acc is {result.clean_acc}"
    if int(verdicts.robust.sum()) != round(result.robust_acc * n):
        yield f"{int(verdicts.robust.sum())} samples are robust, but robust_acc is {result.robust_acc}"
    if bool((verdicts.robust != (correct & ~broken)).any()):
        yield "samples are robust that are wrong or broken, or the other way round"
    if bool((broken & (~correct | (verdicts.adv_pred == y))).any()):
        yield "samples are broken whose prediction is right under attack or wrong without it"
    if bool((~broken & (verdicts.adv_pred != verdicts.clean_pred)).any()):
        yield "samples that no step broke have another prediction under attack"
    if min(int(verdicts.forward.min()), int(verdicts.backward.min())) < 0:
        yield "negative numbers of passes"
    lost = [step.before - step.after for step in steps]
    found = [int((broken_by == position).sum()) for position in range(len(steps))]
    if sum(found) != sum(lost) or not _by_step(result, found, lost):
        yield f"the steps broke {lost} samples, by the verdicts {found}"


def _by_step(result: Result, found: list[int], lost: list[int]) -> bool:
    # one attack that reports several steps may not say which of them broke a sample: the first then counts for all
    one = len({step.attack for step in result.steps}) == 1
    return found == lost or (one and not any(found[1:]))
