"""Result files of schema version 1 are read as what they said, and left as they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.audit import flags
from harness.errors import ResultError
from harness.results import store
from tests.results.records import make_result, make_verdicts

TEXTS = {
    "the model is randomised (two passes of the same images differ): use --suite autoattack-rand": ("randomised", {}),
    "the model's output depends on the rest of the batch, so that no verdict is that of an image alone": (
        "batch-dependent",
        {},
    ),
    "apgd-ce: 12 of 100 samples had a gradient of exactly zero, so gradient attacks may be blind there": (
        "zero-gradient",
        {"step": "apgd-ce", "samples": 12, "of": 100},
    ),
    "square broke 7 samples that the gradient attacks left standing: the model may mask its gradients": (
        "gradient-masking",
        {"step": "square", "broken": 7},
    ),
    "apgd-t: 9 target classes asked for, 2 used: the model has 3 classes": (
        "fewer-targets",
        {"step": "apgd-t", "asked": 9, "used": 2, "classes": 3},
    ),
    "apgd-dlr: the DLR loss needs 3 classes: with 2 the margin is raised instead": (
        "loss-replaced",
        {"step": "apgd-dlr", "needed": 3},
    ),
    "eps 0.25 was given in normalised units; Linf 0.1 in pixel units was used, exactly that many": (
        "eps-converted",
        {"given": "0.25"},
    ),
    "bn-stats clean: 10 of the 24 images evaluated are among those that the statistics were estimated on": (
        "bn-stats-seen",
        {"kind": "clean", "seen": 10, "of": 24},
    ),
    "lineage: the claim of bn-ft could not be verified (the parent 'mother' was not found)": (
        "lineage-unverified",
        {"regime": "bn-ft"},
    ),
    "lineage: the manifest claims bn-ft, but conv1.weight changed": ("lineage-contradicted", {}),
    "something that nobody has heard of": ("legacy", {}),
    "": ("legacy", {}),
}


def old(root: Path, texts: list[str]) -> Path:
    """A result file as version 1 wrote it."""
    result = make_result()
    path = store.save(result, make_verdicts(result), root)
    content: dict[str, Any] = json.loads(path.read_text())
    content |= {"schema_version": 1, "flags": texts}
    del content["samples_sha256"], content["content_sha256"]
    for step in content["steps"]:
        step["notes"] = ["9 target classes asked for, 2 used: the model has 3 classes"]
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize(("text", "wanted"), TEXTS.items(), ids=list(TEXTS))
def test_a_text_becomes_a_record(tmp_path: Path, text: str, wanted: tuple[str, dict[str, object]]) -> None:
    path = old(tmp_path, [text])
    before = path.read_bytes()
    result = store.read(path)
    (flag,) = result.flags
    assert (flag.code, flag.figures) == wanted
    assert flag.text == (text or "(no words)")
    assert flag.severity == {kind.code: kind.severity for kind in flags.kinds()}[flag.code]
    assert (result.schema_version, path.read_bytes()) == (2, before)


def test_damage_is_not_mended(tmp_path: Path) -> None:
    path = old(tmp_path, [])
    content = json.loads(path.read_text())
    for change in ({"flags": "words"}, {"flags": [3]}, {"flags": None}, {"steps": "many"}, {"steps": [3]}):
        path.write_text(json.dumps(content | change))
        with pytest.raises(ResultError, match="damaged"):
            store.read(path)
