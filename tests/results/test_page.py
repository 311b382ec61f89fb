"""The page of a leaderboard as a file: whole, small, and under a policy that lets nothing else run."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shlex
from typing import Any

import pytest

from harness.results import formats, leaderboard
from harness.results.formats import Board
from harness.results.formats._page.evidence import bibtex, command
from harness.results.formats._page.markup import Markup, element, join
from harness.results.record import Result
from harness.results.store import LeftOut
from tests.results.records import make_result

PART = re.compile(r"<(script|style)([^>]*)>(.*?)</\1>", re.DOTALL)


def page(*results: Result, **more: Any) -> str:
    return formats.get("html").render(board(*results, **more))


def board(*results: Result, **more: Any) -> Board:
    (made,) = leaderboard.boards(results, **more)
    return made


def test_only_the_pages_own_script_and_style_may_run() -> None:
    text = page(make_result())
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)
    assert policy
    allowed = policy[1].replace("&#x27;", "'")
    assert "unsafe" not in allowed
    assert allowed.startswith("default-src 'none'; ")
    assert text.index("Content-Security-Policy") < text.index("<style")
    hashes = set(re.findall(r"'sha256-([^']+)'", allowed))
    running = [content for _, attributes, content in PART.findall(text) if "application/json" not in attributes]
    assert len(running) == 2
    assert {base64.b64encode(hashlib.sha256(content.encode()).digest()).decode() for content in running} == hashes


def test_nothing_is_asked_for() -> None:
    text = page(make_result(), make_result(suite="pgd", robust=50))
    assert re.findall(r"(?:src|href|action|data|poster)=\"([^#\"][^\"]*)", text) == ["data:,"]
    assert not re.search(r"@import|url\(|fetch\(|XMLHttpRequest|innerHTML|insertAdjacent|eval\(|style=", text)
    assert set(re.findall(r"https?://[^\s\"']+", text)) == {"http://www.w3.org/2000/svg"}  # a name, and no address


def evidence(text: str) -> dict[str, Any]:
    (data,) = [content for _, attributes, content in PART.findall(text) if "application/json" in attributes]
    loaded: dict[str, Any] = json.loads(data)
    return loaded


def test_a_thousand_models_are_at_most_two_megabytes() -> None:
    def rows(count: int) -> int:
        made = []
        for i in range(count):
            for suite in ("pgd", "autoattack"):
                result = make_result(
                    f"model_{i:04}", suite=suite, robust=i % 90, weights=hashlib.sha256(b"%d" % i).hexdigest()
                )
                model = result.model.model_copy(
                    update={"file_sha256": result.evaluation_id, "training": {"command": "train"}}
                )
                steps = result.steps * (4 if suite == "autoattack" else 1)
                made.append(
                    result.model_copy(update={"model": model, "content_sha256": result.record_id, "steps": steps})
                )
        return len(page(*made).encode())

    few, more = rows(100), rows(200)
    assert few + (more - few) * 9 < 2_000_000


def test_shared_texts_are_written_once() -> None:
    results = [make_result(f"m{i}", flags=("a reason to doubt it",)) for i in range(20)]
    assert page(*results).count("a reason to doubt it") == 1
    assert len(evidence(page(*results))["rows"]) == 20


def test_no_text_ends_the_data() -> None:
    text = page(make_result("</script><!--<script>", flags=("</script>&\u2028",)))
    assert len(PART.findall(text)) == 3
    assert "</script>" in evidence(text)["texts"][-1] or "</script>" in json.dumps(evidence(text))


def test_what_was_left_out_is_listed() -> None:
    text = page(make_result(), left_out=[LeftOut("<b>.json", "<b>.json was changed")])
    assert "&lt;b&gt;.json was changed" in text
    assert "Left out" not in page(make_result())


def test_partial_runs_say_so() -> None:
    assert "These are partial runs" in page(make_result(n=50, clean=50, size=100))


@pytest.mark.parametrize(
    ("changed", "wanted"),
    [
        ({}, "--checkpoint bn_ft --suite autoattack --dataset digits --norm Linf --eps 0.15 --force"),
        ({"seed": 3}, "--eps 0.15 --seed 3 --force"),
        ({"n": 50, "clean": 50}, "--eps 0.15 --limit 50 --force"),
        ({"checkpoint": "my model; rm x"}, "--checkpoint 'my model; rm x' --suite"),
        ({"bn_stats": "clean", "bn_stats_facts": {"dataset": "other"}}, "--bn-stats clean --bn-data other --force"),
        ({"bn_stats": "batch"}, "--bn-stats batch --force"),
    ],
)
def test_the_command_that_repeats_it(changed: dict[str, Any], wanted: str) -> None:
    written = "".join(command(make_result(**changed)))
    assert wanted in written
    assert shlex.split(written)[:3] == ["harness", "evaluate", "--checkpoint"]


def test_a_citation_is_bibtex() -> None:
    made = board(make_result("50%_of {it}\\"))
    entry = "".join(bibtex(made.rows[0], "AutoAttack", make_result("50%_of {it}\\")))
    assert entry.startswith("@misc{harness-")
    assert r"{50\%\_of \{it\}\textbackslash{}}" in entry
    bare = re.sub(r"\\[{}%_]", "", entry)
    assert bare.count("{") == bare.count("}")


def test_everything_that_is_not_made_here_is_text() -> None:
    made = element("p", "<b>", Markup("<i></i>"), None, class_='"x"', hidden=True, data_row=3, title=None)
    assert made == '<p class="&quot;x&quot;" hidden data-row="3">&lt;b&gt;<i></i></p>'
    assert element("circle", r=3) == '<circle r="3"/>'
    assert join("a\u202e", "&") == "a\\u202e&amp;"


def test_a_curve_holds_every_radius() -> None:
    results = [
        make_result("a", robust=40),
        make_result("a", robust=70, threat="Linf:0.05"),
        make_result("a", robust=75, threat="Linf:0.05", seed=1),
        make_result("a", robust=90, threat="L2:0.05"),
        make_result("a", robust=30, suite="pgd", threat="Linf:0.3"),
        make_result("b", robust=80, threat="Linf:0.05"),
    ]
    boards = {made.name: made for made in leaderboard.boards(results)}
    (row,) = boards["digits-Linf-0.15"].rows
    assert [(point.eps, point.accuracy.value) for point in row.curve] == [("0.05", 0.7), ("0.15", 0.4)]
    assert "Robust accuracy against eps" in formats.get("html").render(boards["digits-Linf-0.15"])
    assert "Robust accuracy against eps" not in page(make_result())


def test_nothing_to_plot_is_no_plot() -> None:
    text = page(make_result(suite="clean"))
    assert "<figure>" not in text
    assert "bn_ft" in text


def test_one_model_of_one_image_is_no_plural() -> None:
    single = make_result(n=1, size=1, clean=1, robust=0)
    found = re.compile(r"\b1 (models|images|samples|ranks|workers)\b")
    for name in formats.names():
        assert not found.search(formats.get(name).render(board(single))), name
    assert "1 model, ranked by" in repr(board(single))
