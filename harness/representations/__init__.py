"""How alike two models represent the same images, layer by layer: linear CKA.

Kornblith et al. 2019, "Similarity of Neural Network Representations Revisited" (arXiv 1905.00414); on robust
networks Cianfarani et al. 2022, "Understanding Robust Learning through the Lens of Representation Similarities"
(arXiv 2206.09868).
"""

from __future__ import annotations

from harness.representations._compare import INPUTS, Similarity, compare
from harness.representations._layers import LOGITS, layers, watched
from harness.representations._linear import Representation, linear_cka, represent
from harness.representations._picture import picture, table

__all__ = [
    "INPUTS",
    "LOGITS",
    "Representation",
    "Similarity",
    "compare",
    "layers",
    "linear_cka",
    "picture",
    "represent",
    "table",
    "watched",
]
