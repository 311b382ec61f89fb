"""Linear CKA, exactly: over all samples at once, in double precision."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from harness.errors import InvalidInput

__all__ = ["Representation", "linear_cka", "represent"]

_COLUMNS = 4096
_FEWEST_DEBIASED = 4


def linear_cka(x: Tensor, y: Tensor, *, debiased: bool = False) -> float:
    """Similarity of two representations of the same samples, from 0 to 1.

    One where they are the same up to rotation, reflection, one common scale and a shift; it does not change with
    those, but does with a general linear map (Kornblith et al. 2019, "Similarity of Neural Network
    Representations Revisited", arXiv 1905.00414, equation 4 with linear kernels).

    Args:
        x, y: ``[n, ...]``, one row a sample; everything behind the first dimension counts as features.
        debiased: with the unbiased estimator of HSIC (Song et al. 2012, "Feature Selection via Dependence
            Maximization", JMLR 13, theorem 2; used for CKA by Nguyen, Raghu & Kornblith 2021, arXiv 2010.15327). With
            fewer samples than features the plain figure is near 1 even for unrelated representations; this one is
            near 0 there, and may be a little below.

    Returns:
        The similarity; NaN where a representation is the same for all samples, of which nothing can be said.

    Raises:
        InvalidInput: fewer than two samples (debiased: than four), or not as many in both.
    """
    return represent(x).cka(represent(y), debiased=debiased)


@dataclass(frozen=True, eq=False)
class Representation:
    """What linear CKA needs to know of the features of n samples, centred: the features ``[n, d]`` themselves, or
    their products with each other ``[n, n]`` where that is less."""

    content: Tensor
    is_gram: bool

    def cka(self, other: Representation, *, debiased: bool = False) -> float:
        """As `linear_cka`."""
        if len(self.content) != len(other.content):
            raise InvalidInput(
                f"CKA compares representations of the same samples, got {len(self.content)} and {len(other.content)}"
            )
        if debiased and len(self.content) < _FEWEST_DEBIASED:
            raise InvalidInput(f"debiased CKA needs at least {_FEWEST_DEBIASED} samples, got {len(self.content)}")
        product = Representation._debiased if debiased else Representation._product
        scale = math.sqrt(max(product(self, self), 0.0)) * math.sqrt(max(product(other, other), 0.0))
        return product(self, other) / scale if scale > 0 else math.nan

    def _debiased(self, other: Representation) -> float:
        """The unbiased estimate of HSIC but for a factor that cancels.

        With centred features the rows of each matrix of products sum to zero, so that those of the matrix without its
        diagonal sum to minus the diagonal.
        """
        n, a, b = len(self.content), self._diagonal(), other._diagonal()
        along = float(a @ b)
        mean = float(a.sum()) * float(b.sum()) / ((n - 1) * (n - 2))
        return self._product(other) - along + mean - 2 * along / (n - 2)

    def _diagonal(self) -> Tensor:
        return self.content.diagonal() if self.is_gram else self.content.square().sum(dim=1)

    def _product(self, other: Representation) -> float:
        """Inner product of the two n x n matrices of products, whichever way is at hand."""
        a, b = self.content, other.content
        if self.is_gram and other.is_gram:
            return float((a * b).sum())
        if self.is_gram:
            return float((b * (a @ b)).sum())
        if other.is_gram:
            return float((a * (b @ a)).sum())
        return float((a.T @ b).square().sum())


def represent(x: Tensor) -> Representation:
    """The features ``[n, ...]`` made ready for comparison, on the device where they are.

    Raises:
        InvalidInput: fewer than two samples, or values that are not finite.
    """
    if x.dim() < 2 or len(x) < 2:
        raise InvalidInput(f"CKA needs features [n, ...] of at least two samples, got shape {list(x.shape)}")
    features = x.detach().flatten(1)
    if not bool(torch.isfinite(features).all()):
        raise InvalidInput("CKA needs finite features, got NaN or infinite ones")
    n, width = features.shape
    if width <= n:
        return Representation(_centred(features), is_gram=False)
    gram = torch.zeros((n, n), dtype=torch.float64, device=x.device)
    for columns in torch.split(features, _COLUMNS, dim=1):  # so that the double copy stays small
        part = _centred(columns)
        gram.addmm_(part, part.T)
    return Representation(gram, is_gram=True)


def _centred(features: Tensor) -> Tensor:
    double = features.to(torch.float64)
    return double - double.mean(dim=0)
