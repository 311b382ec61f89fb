"""A report is a pure function of what was found, and says all of it."""

from __future__ import annotations

import csv
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.collections import LineCollection
from matplotlib.text import Text

from harness.results import stats
from harness.studies import Measurements, plots, run_log, write_report
from harness.studies.spec import Entry
from tests.studies.made_up import measurements, planned
from tests.studies.test_judging import CLEAN, ROBUST

pytestmark = pytest.mark.usefixtures("unaudited")

FILES = {
    "report.md", "report.csv", "runs.csv", "claims.csv", "clean-robust.png", "clean-robust.svg", "eps.png", "eps.svg",
    "training.png", "training.svg", "measurements.tar.xz",
}  # fmt: skip
CLAIMS = [
    {"text": "robust(at-full) > robust(bn-ft)", "about": "of the | paper"},
    {"text": "robust(natural) > chance"},
    {"text": "params(bn-ft) < 0.2"},
]


def found(**changes: Any) -> Measurements:
    made = planned(
        title="A study of nothing", source="Nobody", claim=CLAIMS, curve={"eps": [0.05, 0.1, 0.15]}, **changes
    )
    return measurements(made, ROBUST, CLEAN)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("study")
    run_log.begin(output, command="harness study run tiny.toml", device="cpu", workers=2)
    run_log.note(output, jobs=27, seconds=100.04, cpu_seconds=150.0, ended=True)
    files = write_report(found(), output)
    assert {path.name for path in files} == FILES
    return output


def test_equal_findings_give_equal_bytes(written: Path, tmp_path: Path) -> None:
    mpl.rcParams["font.size"] = 20  # what a caller has set elsewhere is no part of it
    try:
        write_report(found(), written, directory=tmp_path)
    finally:
        mpl.rcdefaults()
    assert {name for name in FILES if (written / name).read_bytes() != (tmp_path / name).read_bytes()} == set()


def test_the_page_says_it_all(written: Path) -> None:
    page = (written / "report.md").read_text(encoding="utf-8")
    assert page.startswith("# A study of nothing\n\nAfter Nobody.\n")
    for words in (
        "| `robust(at-full) > robust(bn-ft)` | **supported in this setting** | +39.0 |",
        "of the \\| paper |",
        "| `robust(natural) > chance` | **open** | +1.0 |",
        "| `params(bn-ft) < 0.2` | **does not hold** | +0.42 | exact |",
        "| bn-ft | 3 | 77,562 | 480 (0.619 %) | 97.7 ± 0.6 | 41.0 ± 1.0 | 41.0 ± 1.0 |",
        "| at-full | 90.3 ± 0.6 | 80.0 ± 1.0 | 80.0 ± 1.0 | 80.0 ± 1.0 |",
        "the first 200 of 500 images of digits (test), Linf:0.15: fgsm, pgd-20",
        "`harness study run tiny.toml`",
        "2 at once on cpu: 27 jobs in 100 s (2.5 min of processor time)",
        "torch 2.10.0",
        "robust-harness 0.1.0",
    ):
        assert words in page, words
    assert set(re.findall(r"\]\(([^)]+\.png)\)", page)) == {name for name in FILES if name.endswith(".png")}
    tables = [line for line in page.splitlines() if line.startswith("|")]
    assert all(not re.search(r"[^|] \|\|", line) for line in tables)


def test_the_tables_hold_every_figure(written: Path) -> None:
    report, runs, claims = (rows(written / f"{name}.csv") for name in ("report", "runs", "claims"))
    assert len(report) == 3 * 4
    assert len(runs) == 3 * 3 * 4
    (one,) = [row for row in report if (row["label"], row["suite"], row["eps"]) == ("bn-ft", "pgd-20", "0.15")]
    assert (one["seeds"], one["n"], one["robust_mean"], one["robust_sd"]) == ("3", "200", "41.0000", "1.0000")
    assert [row["verdict"] for row in claims] == ["supported in this setting", "open", "does not hold"]
    assert [claims[0][name] for name in ("p_value", "holm_p_value")] == ["< 0.001", "0.0014"]
    assert claims[2]["p_value"] == ""


def test_pictures_hold_no_dates_and_every_name(written: Path) -> None:
    for name in ("clean-robust", "eps", "training"):
        svg = (written / f"{name}.svg").read_text(encoding="utf-8")
        assert "<dc:date>" not in svg
        for label in ROBUST:
            assert f"<!-- {label.replace('-', '&#45;')} -->" in svg or f"<!-- {label} -->" in svg


def test_nothing_measured_is_a_report_too(tmp_path: Path) -> None:
    files = write_report(Measurements(found().plan, {}), tmp_path)
    assert {path.suffix for path in files} == {".md", ".csv"}
    assert "not measured yet" in (tmp_path / "report.md").read_text(encoding="utf-8")


def test_one_seed_has_no_deviation_and_says_so(tmp_path: Path) -> None:
    made = planned(claim=CLAIMS[:1], seeds=1)
    one = measurements(made, {n: v[:1] for n, v in ROBUST.items()}, {n: v[:1] for n, v in CLEAN.items()})
    write_report(one, tmp_path)
    page = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "| at-full | 1 | 77,562 | 77,562 (100 %) | 90.0 | 80.0 | 80.0 |" in page
    assert "says nothing of others" in page
    assert "**holds for these 2 networks**" in page


def test_texts_of_a_stranger_are_inert(tmp_path: Path) -> None:
    """HTML and hidden characters in the page, line breaks and formulas in the tables."""
    bad = "<script>x</script> \x1b[31m \u202eabc\r"
    made = planned(title=f"T {bad}", question=f"Q {bad}", claim=[{"text": CLAIMS[1]["text"], "about": f"=1+1 {bad}"}])
    write_report(measurements(made, ROBUST, CLEAN), tmp_path)
    page = (tmp_path / "report.md").read_text(encoding="utf-8")
    tables = [(tmp_path / f"{name}.csv").read_bytes().decode() for name in ("report", "runs", "claims")]
    for text in (page, *tables):
        assert not set("\x1b\u202e\r") & set(text)
    assert "&lt;script>x&lt;/script>" in page
    (claim,) = rows(tmp_path / "claims.csv")
    assert claim["about"].startswith("'=1+1 <script>")
    assert float(claim["estimate"]) < float(claim["high"])


def test_what_did_not_train_is_named(tmp_path: Path) -> None:
    made = planned(claim=CLAIMS)
    write_report(measurements(made, ROBUST, CLEAN, {"natural": 2.4}), tmp_path)
    page = (tmp_path / "report.md").read_text(encoding="utf-8")
    why = "its loss ends at 2.400, and guessing has 2.303"
    assert f"| natural | 0 | - | 3 | 2.400 | 2.400 | 0.000 | - | 10.0 | **not trained**: {why} |" in page
    assert f"Open, whatever the figures:\n\n- `robust(at-full) > robust(bn-ft)`: natural (seed 0): {why}" in page
    assert "**open: not trained**" in page
    claims = rows(tmp_path / "claims.csv")
    assert claims[0]["verdict"] == "open: not trained"


def test_published_figures_stand_beside_ours(tmp_path: Path) -> None:
    base = found()
    entry = Entry(checkpoint="x", published={"clean": 90.0, "pgd-20": 70.0}, notes={"pgd-20": "theirs had more steps"})
    members = tuple(replace(m, entry=entry) if m.label == "at-full" else m for m in base.plan.members)
    networks = {"at-full": {0: base.networks["at-full"][0]}}
    write_report(Measurements(replace(base.plan, members=members), networks), tmp_path)
    page = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "| at-full | clean | 90.00 | 85.06 to 93.43 | 90.00 | inside |  |" in page
    assert "| at-full | pgd-20 | 80.00 | 73.91 to 84.95 | 70.00 | **outside** | theirs had more steps |" in page
    assert "1 of 2 published figures lie outside" in page


def test_names_beside_points_cover_each_other_nowhere() -> None:
    """Also where points lie on top of each other."""
    crowd = dict.fromkeys(ROBUST, (0.97, 0.98, 0.97))
    made = planned(title="A crowd")
    figure = plots._clean_robust(measurements(made, crowd, crowd))
    assert figure is not None
    canvas: Any = figure.canvas
    texts: list[Any] = [text for text in figure.axes[0].texts if text.get_text() in crowd]
    boxes = []
    for text in texts:
        text.update_positions(canvas.get_renderer())
        # without the line that leads to the point
        boxes.append(Text.get_window_extent(text, canvas.get_renderer()))
    assert len(boxes) == 3
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_every_entry_has_a_colour_of_its_own() -> None:
    assert len({plots._color(i) for i in range(40)}) == 40


@pytest.mark.parametrize(
    ("robust", "lowest", "chance"),
    [((0.78, 0.8, 0.82), 60.0, False), ((0.02, 0.5, 0.8), -7.0, True)],
)
def test_axes_fit_the_points_and_not_chance(robust: tuple[float, ...], lowest: float, chance: bool) -> None:
    labels = ("natural", "bn-ft", "at-full")
    values = {label: (value,) * 3 for label, value in zip(labels, robust, strict=True)}
    figure = plots._clean_robust(measurements(planned(), values, values))
    assert figure is not None
    (axes,) = figure.axes
    assert axes.get_ylim()[0] >= lowest
    assert axes.get_ylim()[1] - axes.get_ylim()[0] >= 8, "noise is not to look large"
    assert ("chance" in [text.get_text() for text in axes.texts]) == chance


@pytest.mark.parametrize("bar", [(-6.0, 14.0), (-3.1, 13.7), (97.0, 103.0), (98.0, 106.0), (99.9, 100.0), (0.0, 100.0)])
def test_no_bar_is_cut_off_and_little_is_shown_that_cannot_be(bar: tuple[float, float]) -> None:
    """A deviation over seeds may reach below 0 and above 100."""
    bottom, top = plots._room(lambda low, high: None, [bar])
    assert bottom <= bar[0] < bar[1] <= top
    assert top - bottom >= 8
    assert bottom >= min(0, bar[0]) - 7
    assert top <= max(100, bar[1]) + 7


@pytest.mark.parametrize(("seeds", "thin"), [(1, 0), (3, 2)])
def test_bars_show_what_other_images_and_other_seeds_would_change(seeds: int, thin: int) -> None:
    made = planned(seeds=seeds)
    first = {"bn-ft": tuple(0.5 + 0.01 * seed for seed in range(seeds))}
    figure = plots._clean_robust(measurements(made, first, first))
    assert figure is not None
    (axes,) = figure.axes
    broad = [bar for bar in axes.collections if isinstance(bar, LineCollection) and bar.get_linewidth()[0] == 4]
    (up,) = broad[0].get_segments()
    middle = round(np.mean(first["bn-ft"]) * 200)
    expected = stats.wilson(middle, 200)
    assert up[:, 1].tolist() == pytest.approx([100 * expected.low, 100 * expected.high])
    assert len(broad) == 2, "one bar across, one up"
    assert len(axes.containers) == thin, "one seed has no deviation"
