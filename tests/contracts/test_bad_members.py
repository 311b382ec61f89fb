"""The contracts notice what they are there for: members that each break one, given as files of a user."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from harness.contracts import ATTACK_CONTRACTS, NORM_CONTRACTS, AttackCase, check_attack, check_norm
from harness.errors import ContractError
from harness.threat import ThreatModel
from harness.threat.norms import Norm
from harness.threat.rng import Draws

BAD_ATTACKS = Path(__file__).with_name("bad_attacks.py")
THREAT = ThreatModel("Linf", "0.03")


@pytest.mark.parametrize("threat", ["Linf:0.03", "L2:0.25", "L1:1"])
def test_the_good_attack_passes(threat: str) -> None:
    check_attack(f"{BAD_ATTACKS}:walk", threat)


@pytest.mark.parametrize(
    ("name", "contract", "text"),
    [
        ("torch_randomness", "leaves_global_randomness", "draws from a global generator"),
        ("numpy_randomness", "leaves_global_randomness", "draws from a global generator"),
        ("python_randomness", "leaves_global_randomness", "draws from a global generator"),
        ("reads_global_state", "leaves_global_randomness", "depends on the state of a global generator"),
        ("batch_randomness", "treats_samples_alone", "when it is alone"),
        ("batch_randomness", "survives_splits", "split or joined"),
        ("batch_mean", "treats_samples_alone", "when it is alone"),
        ("batch_mean", "survives_splits", "split or joined"),
        ("keeps_in_itself", "keeps_nothing", "put it into the state"),
        ("keeps_in_itself", "resumes", "after it was resumed"),
        ("keeps_quietly", "keeps_nothing", "put it into the state"),
        ("remembers_outside", "keeps_nothing", "put it into the state"),
        ("remembers_outside", "resumes", "after it was resumed"),
        ("remembers_outside", "survives_splits", "split or joined"),
        ("out_of_the_ball", "claims_in_the_ball", "outside Linf:0.03"),
        ("out_of_the_box", "claims_in_the_ball", r"outside \[0, 1\]"),
        ("not_a_number", "claims_in_the_ball", r"outside \[0, 1\]"),
        ("changes_images", "leaves_its_batch", "work on a copy"),
        ("shared_state", "keeps_to_the_form", "with a row for each sample"),
        ("wrong_mask", "keeps_to_the_form", "another shape"),
        ("needs_full_batches", "uses_free_rows_for_speed_only", "where a batch may be filled up"),
        ("unpicklable", "keeps_nothing", "sent to another process"),
    ],
)
def test_a_bad_attack_is_caught(name: str, contract: str, text: str) -> None:
    case = AttackCase(f"{BAD_ATTACKS}:{name}", THREAT, {})
    with pytest.raises(ContractError, match=text):
        ATTACK_CONTRACTS[contract](case)
    with pytest.raises(ContractError):
        check_attack(case.name, THREAT)


class Halves(Norm):
    """Linf on the image: a good norm, with nothing but what is needed."""

    name: ClassVar[str] = "halves"

    def size(self, delta: Tensor) -> Tensor:
        return self.flat(delta).abs().amax(dim=1)

    def steepest(self, grad: Tensor) -> Tensor:
        return grad.sign()


class Squared(Halves):
    def size(self, delta: Tensor) -> Tensor:
        return super().size(delta).square()


class Signed(Halves):
    def size(self, delta: Tensor) -> Tensor:
        return self.flat(delta).clamp(min=0).amax(dim=1)


class OfTheBatch(Halves):
    def size(self, delta: Tensor) -> Tensor:
        return super().size(delta).amax().expand(len(delta))


class Dense(Halves):
    def steepest(self, grad: Tensor) -> Tensor:
        return grad / (self.flat(grad).abs().amax(dim=1)[:, None, None, None] + 1e-12)


class Long(Halves):
    def steepest(self, grad: Tensor) -> Tensor:
        return 1.01 * grad.sign()


class WrongDual(Halves):
    def dual_size(self, grad: Tensor) -> Tensor:
        return self.flat(grad).abs().amax(dim=1)


class FarProjection(Halves):
    def project(self, points: Tensor, x: Tensor, eps: float) -> Tensor:
        return torch.minimum(torch.maximum(points, x - 1.01 * eps), x + 1.01 * eps).clamp(0, 1)


class NoBox(Halves):
    def project(self, points: Tensor, x: Tensor, eps: float) -> Tensor:
        return torch.minimum(torch.maximum(points, x - eps), x + eps)


class Shrinking(Halves):
    def project(self, points: Tensor, x: Tensor, eps: float) -> Tensor:
        return x + 0.9 * (super().project(points, x, eps) - x)


class OtherOnto(Halves):
    def onto(self, x: Tensor, eps: float) -> Callable[[Tensor], Tensor]:
        return lambda points: self.project(points, x, 0.9 * eps)


class SharedStart(Halves):
    def start(self, x: Tensor, eps: float, draws: Draws, counter: int) -> Tensor:
        noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0), dtype=x.dtype)
        return (x + eps * noise.sign()).clamp(0, 1)


class FarStart(Halves):
    def inside(self, x: Tensor, eps: float, draws: Draws, counter: int) -> Tensor:
        return super().inside(x, 2 * eps, draws, counter)


class InPlace(Halves):
    def steepest(self, grad: Tensor) -> Tensor:
        return grad.sign_()


class ShortHyperplane(Halves):
    def hyperplane(self, points: Tensor, w: Tensor, b: Tensor) -> Tensor:
        return 0.9 * super().hyperplane(points, w, b)


class LongHyperplane(Halves):
    """On the plane, with all that is needed in half of the entries."""

    def hyperplane(self, points: Tensor, w: Tensor, b: Tensor) -> Tensor:
        half = torch.arange(w[0].numel()).view(w.shape[1:]) % 2 == 0
        return super().hyperplane(points, w * half, b - self.flat(w * ~half * points).sum(dim=1)) * half


@pytest.mark.parametrize("norm", [Halves()])
def test_the_good_norm_passes(norm: Norm) -> None:
    check_norm(norm)


@pytest.mark.parametrize(
    ("norm", "contract"),
    [
        (Squared, "measures"),
        (Signed, "measures"),
        (OfTheBatch, "treats_samples_alone"),
        (Dense, "climbs_steepest"),
        (Long, "climbs_steepest"),
        (WrongDual, "climbs_steepest"),
        (FarProjection, "projects"),
        (NoBox, "projects"),
        (Shrinking, "projects"),
        (OtherOnto, "projects"),
        (SharedStart, "starts_in_the_ball"),
        (FarStart, "starts_in_the_ball"),
        (InPlace, "treats_samples_alone"),
        (ShortHyperplane, "reaches_hyperplanes"),
        (LongHyperplane, "reaches_hyperplanes"),
    ],
)
def test_a_bad_norm_is_caught(norm: type[Norm], contract: str) -> None:
    with pytest.raises(ContractError, match="the norm halves: "):
        NORM_CONTRACTS[contract](norm())
    with pytest.raises(ContractError):
        check_norm(norm())
