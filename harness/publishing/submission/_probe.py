"""What a maintainer would try on a model first: gradients, two equal passes, the audit."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from harness import evaluation
from harness.audit.flags import Flag
from harness.errors import ModelError
from harness.publishing.evidence import Evidence
from harness.threat import ThreatModel
from harness.util.torch_state import pinned

__all__ = ["IMAGES", "Probe", "probe"]

IMAGES = 32
"""How many images are tried."""


class Probe(NamedTuple):
    """What was found on some images.

    Attributes:
        images: how many. with_gradient: on how many the gradient is not zero.
        difference: largest difference between the logits of two passes.
        flags: doubts of the audit, those of the result among them. refused: why the audit refused the model.
    """

    images: int
    with_gradient: int
    difference: float
    flags: tuple[Flag, ...]
    refused: str = ""


def probe(evidence: Evidence) -> Probe:
    """Try the model of a result on its first images."""
    target, result = evidence.target, evidence.result
    threat = ThreatModel(result.threat.norm, result.threat.eps)
    model, x, y = target.model, target.x[:IMAGES].to(target.dtype), target.y[:IMAGES]
    try:
        audited = evaluation.examine(model, x, y, threat=threat, suite="clean", workers=1).result.flags
        with pinned(torch.device("cpu"), dtype=target.dtype):
            first, gradient = _passed(model, x, y)
            again, _ = _passed(model, x, y)
    except ModelError as error:
        return Probe(len(x), 0, float("nan"), tuple(result.flags), str(error))
    nonzero = int((gradient.flatten(1).abs().amax(dim=1) > 0).sum())
    return Probe(len(x), nonzero, float((first - again).abs().max()), (*result.flags, *audited))


def _passed(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    leaf = x.detach().clone().requires_grad_()
    logits = model(leaf)
    if not logits.requires_grad:
        return logits, torch.zeros_like(x)
    (gradient,) = torch.autograd.grad(F.cross_entropy(logits, y, reduction="sum"), leaf, allow_unused=True)
    return logits.detach(), torch.zeros_like(x) if gradient is None else gradient
