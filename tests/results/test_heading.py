"""Every list of results begins alike."""

from __future__ import annotations

from pathlib import Path

import harness
from harness.cli import _evaluation
from harness.evaluation import Stored
from harness.results import store
from harness.results.heading import heading
from tests.results.records import make_result, make_verdicts


def test_the_json_of_an_evaluation_and_the_row_of_a_table_begin_with_it(tmp_path: Path) -> None:
    result = make_result(n=50, clean=49, threat="L2:8/255", bn_stats="clean", seed=3)
    path = store.save(result, make_verdicts(result), tmp_path)
    head = heading(result)
    assert head == {
        "checkpoint": "bn_ft",
        "bn_stats": "clean",
        "dataset": "digits",
        "split": "test",
        "threat": "L2:8/255",
        "suite": "autoattack",
        "seed": 3,
        "n": 50,
        "partial": True,
    }
    assert list(_evaluation.as_json(Stored(path, result)).items())[: len(head)] == list(head.items())
    (row,) = harness.load_results(tmp_path).to_dict("records")
    assert {name: row[name] for name in head} == head
