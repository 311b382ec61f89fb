"""TensorBoard: event files in ``runs/``, for ``tensorboard --logdir runs``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from harness.util import paths
from harness.util.extras import required
from harness.util.text import printable

__all__ = ["tensorboard"]


class _Run:
    def __init__(self, writer: Any) -> None:
        self._writer = writer

    def log(self, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


def tensorboard(name: str, about: Mapping[str, str | int | float]) -> _Run:
    """Begin a run, in a folder of its own."""
    required("tensorboard", "--tracker tensorboard")
    from torch.utils.tensorboard import SummaryWriter

    folder = "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in printable(name))
    writer: Any = SummaryWriter(str(paths.runs_root() / folder))
    writer.add_text("evaluation", f"```json\n{json.dumps(dict(about), indent=2)}\n```")
    return _Run(writer)
