"""What is published about how the works behind the regimes trained: the protocol of each, fact by fact.

A study sets its own protocol beside these, so that a reader sees what a verdict says about a paper and what not.
``None`` is a fact that neither paper nor code gives.
"""

from __future__ import annotations

from harness.regimes._base import Fact

__all__ = ["BAKISKAN", "FRANKLE", "GALLOWAY", "MADRY", "NGUYEN", "WALTER", "WANG", "ZEISE"]

_NOT_FOUND = (
    "architecture", "epochs", "batch_size", "learning_rate", "schedule", "weight_decay", "attack", "steps", "step_size",
    "crafting_mode", "bn_statistics",
)  # fmt: skip


def _facts(source: str, **values: str | float | bool | None) -> tuple[Fact, ...]:
    return tuple(
        Fact.model_validate({"field": field, "value": value, "source": source}) for field, value in values.items()
    )


def _unknown(*fields: str) -> tuple[Fact, ...]:
    return tuple(Fact(field=field) for field in fields)


WALTER = (*_facts("paper", dataset="cifar10"), *_unknown(*_NOT_FOUND))
"""Walter, Stutz & Schiele 2022, arXiv 2204.12393."""

ZEISE = _unknown("dataset", *_NOT_FOUND)
"""Zeise & Vlaar 2025, NeurIPS workshop on Optimization for Machine Learning: no protocol is public."""

MADRY = _facts(
    "code", dataset="cifar10", batch_size=128, learning_rate=0.1, schedule="step", weight_decay=2e-4, momentum=0.9,
    threat="Linf:8/255", attack="pgd", steps=10, step_size="2/255", crafting_mode="train",
)  # fmt: skip
"""Madry et al. 2018, arXiv 1706.06083; github.com/MadryLab/cifar10_challenge."""

FRANKLE = (
    *_facts(
        "paper", dataset="cifar10", epochs=160, batch_size=128, learning_rate=0.1, schedule="step", weight_decay=1e-4,
        momentum=0.9,
    ),
    *_facts("code", gamma_init="uniform", conv_init="kaiming-normal", head_init="kaiming-normal"),
)  # fmt: skip
"""Frankle, Schwab & Morcos 2021, arXiv 2003.00152; github.com/facebookresearch/open_lth."""

GALLOWAY = (
    *_facts("paper", dataset="cifar10", architecture="resnet110", norm_layer="fixup"),
    *_unknown("epochs", "batch_size", "learning_rate", "schedule", "weight_decay"),
)
"""Galloway et al. 2019, arXiv 1905.02161."""

WANG = _facts(
    "paper", dataset="imagenet", architecture="nf-resnet50", epochs=90, schedule="cosine", weight_decay=5e-5,
    label_smoothing=0.1, loss="mixed", adversarial_weight=0.5, attack="pgd", steps=10, crafting_mode="eval",
)  # fmt: skip
"""Wang et al. 2022 (NoFrost), arXiv 2207.01156."""

BAKISKAN = _facts(
    "code", dataset="cifar10", architecture="leaky-resnet32", epochs=100, batch_size=64, learning_rate=0.05,
    schedule="one-cycle", weight_decay=5e-4, momentum=0.9, threat="Linf:8/255", attack="fgsm", step_size="10/255",
    crafting_mode="train", crafting_start="random", bn_statistics="moving",
)  # fmt: skip
"""Bakiskan, Cekic & Madhow 2022; github.com/canbakiskan/freeze_adv_training."""

NGUYEN = _facts(
    "code", dataset="cifar10", architecture="preact-resnet18", epochs=200, batch_size=128, learning_rate=0.1,
    schedule="step", weight_decay=5e-4, threat="Linf:8/255", attack="pgd", steps=10, step_size="2/255",
    awp_gamma=0.01, awp_part="stages 3 and 4, not the head",
)  # fmt: skip
"""Nguyen et al. 2024, on layers and robust overfitting; github.com/dukeng96/layerwise-robust-overfitting."""
