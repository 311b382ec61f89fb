"""What docs/training.md shows works as it stands."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

PAGE = Path(__file__).resolve().parents[2] / "docs" / "training.md"


def test_the_example_in_python_runs() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    names: dict[str, Any] = {}
    exec(code.replace("epochs=5", "epochs=1"), names)
    assert names["outcome"].epochs == 1


def test_the_defaults_it_states_are_the_defaults() -> None:
    from harness.training import Settings

    text = " ".join(PAGE.read_text(encoding="utf-8").split())
    own = Settings()
    assert f"{own.epochs} epochs of SGD in batches of {own.batch_size}" in text
    assert f"{own.schedule} learning rate up to {own.learning_rate}" in text
    assert f"weight decay 5e-4, PGD with {own.steps} steps" in text
    assert own.weight_decay == 5e-4
