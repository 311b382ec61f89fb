"""What a leaderboard costs: many results are made, read, ranked and written, and the page is opened in Chromium.

``python -m benchmarks.leaderboard`` makes two folders in a temporary place: one board of 1,000 models, and ten boards
of 500 models each (10,000 results). Every model has a result of PGD and one of AutoAttack, like the committed results
of ``bn_ft`` but with other hashes and figures. Opening and sorting need the extra ``browser`` and a Chromium.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from harness.errors import HarnessError
from harness.results import leaderboard, store
from harness.results.record import Result, ThreatRecord, Verdicts
from harness.threat import ThreatModel

__all__ = ["main"]

_TEMPLATES = "leaderboards/results/bn_ft__*.json"
_REGIMES = ("natural", "at-full", "bn-ft", "bn-head-ft", "bn-scratch", "partial-at", "gn", "no-bn")
_LARGEST = 2_000_000


def main() -> None:
    """Measure and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--repeat", type=int, default=5, help="times that the page is opened and sorted")
    parser.add_argument("--keep", type=Path, help="folder to leave the pages in")
    options = parser.parse_args()
    generator = np.random.default_rng(options.seed)
    measured: dict[str, Any] = {"seed": options.seed}
    with tempfile.TemporaryDirectory() as folder:
        for name, boards, models in (("one board of 1,000 models", 1, 1000), ("10,000 results", 10, 500)):
            root = Path(folder) / name
            _make(root, boards, models, generator)
            figures, pages = _build(root, options.keep or root / "boards")
            measured[name] = figures
            if boards == 1:
                (page,) = pages
                figures["page_bytes"] = page.stat().st_size
                figures |= _in_browser(page, options.repeat)
    print(json.dumps(measured, indent=2))


def _make(root: Path, boards: int, models: int, generator: np.random.Generator) -> None:
    templates = [store.read(path) for path in sorted(Path().glob(_TEMPLATES))]
    for board in range(boards):
        threat = ThreatModel("Linf", f"{board + 1}/255") if boards > 1 else ThreatModel("Linf", "0.15")
        for model in range(models):
            robust = int(generator.integers(0, 400))
            for template in templates:
                result = _varied(template, model, robust + (template.suite == "pgd"), threat)
                store.save(result, _verdicts(result, generator), root)


def _varied(template: Result, model: int, robust: int, threat: ThreatModel) -> Result:
    def digest(*parts: object) -> str:
        return hashlib.sha256(repr(parts).encode()).hexdigest()

    weights = digest(model, threat.eps)
    clean = 480 - model % 40
    facts = template.model.model_copy(
        update={
            "sha256": weights,
            "file_sha256": digest("file", weights),
            "regime": _REGIMES[model % len(_REGIMES)],
            "parent": f"model_{model // 10 * 10:04}" if model % 10 else None,
        }
    )
    counts = [clean, *(robust + 20 * left for left in reversed(range(len(template.steps))))]
    steps = [
        step.model_copy(update={"before": min(clean, counts[at]), "after": min(clean, counts[at + 1])})
        for at, step in enumerate(template.steps)
    ]
    return template.model_copy(
        update={
            "checkpoint": f"model_{model:04}",
            "model": facts,
            "threat": ThreatRecord(norm=threat.norm, eps=threat.eps, radius=threat.radius),
            "clean_acc": clean / template.n,
            "robust_acc": robust / template.n,
            "steps": steps,
            "adversarial": None,
            "evaluation_id": digest("evaluation", weights, template.suite),
            "record_id": digest("record", weights, template.suite),
        }
    )


def _verdicts(result: Result, generator: np.random.Generator) -> Verdicts:
    n, clean = result.n, round(result.clean_acc * result.n)
    order = generator.permutation(n)
    y = np.arange(n) % 10
    broken_by = np.full(n, -1)
    for position, step in enumerate(result.steps):
        broken_by[order[step.after : step.before]] = position
    right = np.zeros(n, dtype=bool)
    right[order[:clean]] = True
    robust = right & (broken_by < 0)
    wrong = (y + 1) % 10
    passes = np.full(n, 100)
    return Verdicts(
        np.arange(n), y, np.where(right, y, wrong), robust, broken_by, np.where(robust, y, wrong), passes, passes
    )


def _build(root: Path, output: Path) -> tuple[dict[str, float], list[Path]]:
    figures: dict[str, float] = {}
    with _timed(figures, "read_seconds"):
        found = store.read_all(root)
    if found.left_out:
        raise HarnessError(f"a made result was refused: {found.left_out[0].reason}")
    with _timed(figures, "rank_seconds"):
        boards = leaderboard.boards(
            [result for _, result in found.results], survivors=lambda result: store.read_survivors(root, result)
        )
    with _timed(figures, "write_seconds"):
        written = [path for board in boards for path in leaderboard.write(board, output)]
    figures["build_seconds"] = round(sum(figures.values()), 2)
    return figures, [path for path in written if path.suffix == ".html"]


@contextmanager
def _timed(figures: dict[str, float], name: str) -> Iterator[None]:
    begun = time.perf_counter()
    yield
    figures[name] = round(time.perf_counter() - begun, 2)


_SORT = """() => {
  const begun = performance.now();
  document.querySelectorAll("#board thead button")[5].click();
  document.body.offsetHeight;
  return performance.now() - begun;
}"""
"""Sort by the first accuracy, layout included."""

_FILTER = """() => new Promise((done) => {
  const search = document.querySelector("input[type=search]");
  search.value = search.value === "ft" ? "" : "ft";
  const begun = performance.now();
  search.dispatchEvent(new Event("input", { bubbles: true }));
  requestAnimationFrame(() => { document.body.offsetHeight; done(performance.now() - begun); });
})"""


def _in_browser(page: Path, repeat: int) -> dict[str, Any]:
    try:
        from playwright.sync_api import sync_playwright

        from tests.browser.chromium import launched
    except ImportError:
        return {"browser": "not measured: install the extra browser"}
    opened, sorted_, filtered = [], [], []
    with sync_playwright() as playwright, launched(playwright) as browser:
        for _ in range(repeat):
            tab = browser.new_page(viewport={"width": 1280, "height": 900})
            begun = time.perf_counter()
            tab.goto(page.as_uri(), wait_until="load")
            tab.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
            opened.append(time.perf_counter() - begun)
            sorted_ += [tab.evaluate(_SORT) for _ in range(3)]
            filtered += [tab.evaluate(_FILTER) for _ in range(4)]
            tab.close()
        version = browser.version
    return {
        "browser": f"Chromium {version}",
        "open_seconds": round(statistics.median(opened), 2),
        "sort_milliseconds": round(statistics.median(sorted_)),
        "filter_milliseconds": round(statistics.median(filtered)),
    }


if __name__ == "__main__":
    main()
