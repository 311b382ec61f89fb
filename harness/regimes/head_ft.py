"""Adversarial training of a natural network's output layer; BN does not change at all.

A control for `bn_head_ft`: how much of its robustness a new read-out alone would give.
"""

from __future__ import annotations

from harness.regimes._base import Regime

__all__ = ["head_ft"]

head_ft = Regime(
    name="head-ft",
    summary="the head of a natural network, adversarially",
    source="control",
    trained=("head",),
    start="parent",
    parent="natural",
    loss="adversarial",
    bn_statistics="frozen",
)
