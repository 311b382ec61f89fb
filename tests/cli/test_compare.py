"""``harness compare``: which results it takes, what it prints, and what it refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np

from harness.results import store
from tests.cli.conftest import Harness
from tests.house._tree import ROOT
from tests.results.records import make_result, make_verdicts

SHIPPED_RESULTS = ROOT / "leaderboards" / "results"
SHIPPED = ("--results", str(SHIPPED_RESULTS))


def test_a_pair_of_shipped_checkpoints(harness: Harness) -> None:
    code, out, _ = harness("compare", "bn_head_ft", "bn_ft", *SHIPPED)
    assert code == 0
    lines = out.splitlines()
    assert lines[0] == "digits test, Linf:0.15, autoattack"
    assert "bn_head_ft robust 186 37" in [" ".join(line.split()) for line in lines]
    assert "difference +6.8 points" in out
    assert "p < 0.001, Holm-corrected < 0.001: more than chance explains" in out
    assert "robust in bn_ft only: samples 29, 122, 203" in out


def test_several_as_json_and_by_file(harness: Harness) -> None:
    file = next(path for path, r in store.read_all(ROOT / "leaderboards" / "results").results if r.label == "at_full")
    names = ("bn_head_ft", "bn_ft.pt", str(file))
    printed = json.loads(harness("compare", *names, "--suite", "autoattack", *SHIPPED, "--json").out)
    pairs = printed["pairs"]
    assert [(pair["first"], pair["second"]) for pair in pairs] == [
        ("bn_head_ft", "bn_ft"),
        ("bn_head_ft", "at_full"),
        ("bn_ft", "at_full"),
    ]
    assert all(pair["both"] + pair["only_first"] + pair["only_second"] + pair["neither"] == 500 for pair in pairs)
    assert pairs[0]["only_second_indices"] == [29, 122, 203]
    assert pairs[0]["p_value"] <= pairs[0]["p_value_holm"]


def test_what_cannot_be_compared(harness: Harness) -> None:
    harness("compare", "bn_ft", *SHIPPED).refused("at least two", code=2)
    harness("compare", "bn_ft", "bn_tf", *SHIPPED).refused("unknown evaluated checkpoint", "did you mean 'bn_ft'?")
    harness("compare", "bn_ft", "natural", "--suite", "square", *SHIPPED).refused("no result of suite square")
    harness("compare", "bn_ft", "natural", "--results", "nowhere").refused("no results folder nowhere")
    harness("compare", "a.json", "b.json").refused("cannot read the result a.json")


def test_several_networks_of_one_name_are_not_taken_for_each_other(harness: Harness, folder: Path) -> None:
    for name, facts in (("a", {"weights": "1" * 64}), ("a", {"weights": "2" * 64}), ("b", {})):
        result = make_result(name, **facts)  # type: ignore[arg-type]
        store.save(result, make_verdicts(result), folder / "results")
    harness("compare", "a", "b", "--results", "results").refused("a has several results", "name one of the files")


def test_figures_of_samples_that_differ(harness: Harness, folder: Path) -> None:
    printed = json.loads(harness("compare", "bn_ft", "natural", *SHIPPED, "--figures", "figures", "--json").out)
    (path,) = map(Path, printed["figures"])
    assert path == folder / "figures" / "bn_ft__natural__autoattack.png"
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG")
    again = harness("compare", "bn_ft", "natural", *SHIPPED, "--figures", "figures")
    assert "written figures/bn_ft__natural__autoattack.png" in again.out
    assert path.read_bytes() == content


def test_what_is_drawn_is_what_was_stored() -> None:
    from harness import evaluation
    from harness.results.compare import compare

    root = ROOT / "leaderboards" / "results"
    files = [next(root.glob(f"{name}__autoattack__*.json")) for name in ("bn_head_ft", "bn_ft")]
    (pair,) = compare([(store.read(file), store.read_verdicts(file)) for file in files]).pairs
    drawn = evaluation.differing_samples(pair, *files, most=8)
    assert [sample.survives_in for sample in drawn] == ["bn_head_ft"] * 4 + ["bn_ft"] * 3
    assert [sample.index for sample in drawn[4:]] == [29, 122, 203]
    for sample in drawn:
        delta = np.abs(sample.adversarial - sample.clean).max()
        assert 0.01 < delta <= 0.15 + 1e-5
        assert sample.true != sample.predicted


def test_what_is_wrong_without_attack_is_not_drawn() -> None:
    from harness import evaluation
    from harness.results.compare import compare

    files = [next(SHIPPED_RESULTS.glob(f"{name}__autoattack__*.json")) for name in ("bn_ft", "bn_scratch")]
    (pair,) = compare([(store.read(file), store.read_verdicts(file)) for file in files]).pairs
    broken = [found.index[found.broken_by >= 0] for found in map(store.read_verdicts, files)]
    wanted = [
        *np.intersect1d(pair.first_indices, broken[1]).tolist(),
        *np.intersect1d(pair.second_indices, broken[0]).tolist(),
    ]
    drawn = evaluation.differing_samples(pair, *files, most=1000)
    assert [sample.index for sample in drawn] == wanted
    assert len(wanted) < len(pair.first_indices) + len(pair.second_indices)


def test_figures_need_the_examples_and_the_images(harness: Harness, folder: Path) -> None:
    for file in (ROOT / "leaderboards" / "results").glob("*__autoattack__*"):
        if file.suffix != ".safetensors":
            shutil.copy(file, folder)
    names = ("compare", "bn_ft", "natural", "--results", ".", "--figures", "figures")
    harness(*names).refused("natural", ".safetensors", "missing")
    (folder / "other.npz").write_bytes(b"")
    np.savez(folder / "other.npz", x=np.zeros((500, 1, 8, 8), np.uint8), y=np.arange(500) % 10)
    harness(*names, "--dataset", "other.npz").refused("not those that natural was evaluated on", "--dataset")
    assert not (folder / "figures").exists()


def test_a_name_whose_results_were_taken_back(harness: Harness, folder: Path) -> None:
    for file in SHIPPED_RESULTS.iterdir():
        if file.suffix != ".safetensors":
            shutil.copy(file, folder)
    path = next(folder.glob("bn_ft__autoattack__*.json"))
    assert harness("retract", str(path), "--reason", "a leak").code == 0
    said = ("what bn_ft has in . was taken back (", "a leak", f"name the file: {path.name}")
    harness("compare", "bn_ft", "natural", "--results", ".", "--suite", "autoattack").refused(*said)
    assert "counts no longer" in harness("compare", path.name, "natural", "--results", ".").out
    # what is left is compared, and that something was left out is said
    code, out, _ = harness("compare", "bn_ft", "natural", "--results", ".")
    assert code == 0
    assert "note: left out of the results of bn_ft: " in out
    assert "a leak" in out
    other = next(folder.glob("bn_ft__pgd__*.json"))
    assert harness("retract", str(other), "--reason", "a slip").code == 0
    harness("compare", "bn_ft", "natural", "--results", ".").refused("a leak", "a slip", path.name, other.name)
    harness("compare", "bn_ft", "natural", "--results", ".", "--suite", "pgd").refused("a slip", f"file: {other.name}")
