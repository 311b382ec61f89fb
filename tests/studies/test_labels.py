"""A false label cannot be built."""

from __future__ import annotations

from typing import Any

import pytest

from harness.errors import InvalidInput
from tests.studies.made_up import planned


def entry(label: str, norm_layer: str | None = None, regime: str = "at-no-bn") -> dict[str, Any]:
    return {"regime": regime, "label": label} | ({"change": {"norm_layer": norm_layer}} if norm_layer else {})


@pytest.mark.parametrize(
    ("label", "norm_layer", "words"),
    [
        ("at-fixup", "none", "names the norm layer 'fixup', but what it builds has 'none'"),
        ("AT_Fixup.2", "weight-standardized", "names the norm layer 'fixup'"),
        ("at-gn", "batch", "names the norm layer 'group', but what it builds has 'batch'"),
        ("batch-no-affine", "batch", "names the norm layer 'batch-no-affine'"),
        ("batch", "batch-no-affine", "names the norm layer 'batch', but"),
        ("at-ln-late", "instance", "names the norm layer 'layer'"),
        ("at-no-bn", "batch", "says that it has no BN"),
    ],
)
def test_a_label_that_names_another_norm_layer(label: str, norm_layer: str, words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        planned(entry=[entry(label, norm_layer)])


@pytest.mark.parametrize(
    ("label", "norm_layer"),
    [
        ("at-fixup", "fixup"),
        ("at-gn", "group"),
        ("batch-no-affine", "batch-no-affine"),
        ("at-no-bn", "none"),
        ("no-bn-ws", "weight-standardized"),
        ("keep-layer1", "batch"),
        ("anything", "none"),
    ],
)
def test_a_label_that_is_true(label: str, norm_layer: str) -> None:
    assert planned(entry=[entry(label, norm_layer)]).member(label).regime is not None
