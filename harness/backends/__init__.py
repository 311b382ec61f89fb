"""How passes through the attacked model are made: by the model itself, or by a copy that is faster.

`plain` is the model as it was loaded; `eager` a frozen copy in the layout that convolutions like; `static` runs another
backend in batches of a few sizes, compiled or as CUDA graphs. A copy never decides a verdict: it is compared with the
plain model before it is used (`harness.backends.equivalence`), and the judge never sees it.
"""

from harness.backends._base import Backend, plain
from harness.backends.eager import eager
from harness.backends.precision import PRECISIONS, full_float32, require_precision
from harness.backends.static import static

__all__ = ["PRECISIONS", "Backend", "eager", "full_float32", "plain", "require_precision", "static"]
