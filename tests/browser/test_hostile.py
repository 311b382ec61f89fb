"""Text of strangers does nothing, whichever field of a result it stands in."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.results.history import Entry, entry
from harness.results.record import Result
from harness.util.text import printable
from tests.browser.conftest import Open
from tests.results.records import make_result

pytestmark = pytest.mark.slow

TEXTS = (
    "<script>hit()</script>",
    "</script><script>hit()</script>",
    "</title><script>hit()</script>",
    "</style><script>hit()</script>",
    "<!--<script>",
    "--><script>hit()</script>",
    "]]><script>hit()</script>",
    "<img src=x onerror=hit()>",
    '"><img src=x onerror=hit()>',
    "'><img src=x onerror=hit()>",
    "<svg onload=hit()>",
    "<svg><script>hit()</script></svg>",
    "<iframe srcdoc='<script>parent.hit()</script>'></iframe>",
    "<object data='data:text/html,x'></object>",
    "<a href=javascript:hit()>open</a>",
    "javascript:hit()",
    "<form action=https://example.org><button>go</button></form>",
    "<meta http-equiv=refresh content='0;url=https://example.org'>",
    "<base href=https://example.org/>",
    "<link rel=stylesheet href=https://example.org/x.css>",
    "<style>*{display:none}</style>",
    '" onmouseover="hit()" x="',
    "' autofocus onfocus='hit()",
    "`${hit()}`",
    "${hit()}",
    "{{constructor.constructor('hit()')()}}",
    "\\u003cscript>hit()\\u003c/script>",
    "__proto__",
    "evil\u202egnp.exe\u2028\u0000\x1b[31m",
    "a" * 3000,
)
FIELDS = (
    "checkpoint",
    "regime",
    "parent",
    "architecture",
    "flag",
    "suite",
    "dataset",
    "norm_layer",
    "training",
    "step",
)


def hostile(text: str, field: str) -> Result:
    made = make_result(
        text if field == "checkpoint" else "plain",
        suite="pgd",
        dataset=text if field == "dataset" else "digits",
        flags=(text,) if field == "flag" else (),
        weights="w" * 64,
        **{field: text} if field in ("regime", "parent", "architecture", "norm_layer") else {},
        training={"command": text} if field == "training" else {},
    )
    if field == "suite":
        return made.model_copy(update={"suite": text})
    if field == "step":
        return made.model_copy(update={"steps": [made.steps[0].model_copy(update={"name": text, "attack": text})]})
    return made


def everywhere(text: str) -> Result:
    """A result that has the text in every field at once."""
    made = hostile(text, "checkpoint")
    model = made.model.model_copy(
        update={
            "regime": text,
            "parent": text,
            "architecture": text,
            "norm_layer": text,
            "sha256": text,
            "file_sha256": text,
            "parent_sha256": text,
            "source_sha256": text,
            "training": {"command": text},
        }
    )
    where = made.environment.model_copy(
        update={"device": text, "processor": text, "precision": text, "versions": {text: text}}
    )
    update = {
        "model": model,
        "environment": where,
        "evaluation_id": text,
        "started": text,
        "harness_version": text,
        "steps": hostile(text, "step").steps,
        "flags": hostile(text, "flag").flags,
    }
    return made.model_copy(update=update)


def lines(text: str, result: Result) -> list[Entry]:
    """What a history says of a result, with the text in every field that is free."""
    made = [entry(action, Path("a.json"), result) for action in ("verified", "retracted")]  # type: ignore[arg-type]
    said = {
        "by": text[:200],
        "reason": text,
        "label": text,
        "suite": text,
        "at": text[:40],
        "harness_version": text[:40],
    }
    # of another run, so that the result itself stays on the board
    other = {"result": text[:200], "run": text[:200], "successor": text[:200]}
    return [made[0].model_copy(update=said), made[1].model_copy(update=said | other)]


def elements(texts: tuple[str, ...], opened: Open) -> list[str]:
    """The kinds of elements of a page with these texts, after everything on it was used."""
    results = [everywhere(text).model_copy(update={"record_id": f"{i:064}"}) for i, text in enumerate(texts)]
    page = opened(*results, history=[line for pair in zip(texts, results, strict=True) for line in lines(*pair)])
    for button in page.locator("#board thead button").all():
        if button.is_visible():  # a narrow window shows fewer columns
            button.click()
    for button in page.locator("#board tbody th button").all():
        button.click()
    for circle in page.locator("svg.plot circle").all()[:3]:
        circle.hover(force=True)
    page.locator("input[name=search]").fill("hit")
    page.locator("#count", has_text=" of ").wait_for()
    return sorted(set(page.evaluate("Array.from(document.querySelectorAll('*'), (one) => one.localName)")))


def test_thirty_hostile_texts_make_no_element_and_run_nothing(opened: Open) -> None:
    assert len(TEXTS) == 30
    allowed = elements(tuple(f"plain {i}" + " hit" * (i > 0) for i in range(30)), opened)
    assert set(elements(TEXTS, opened)) <= set(allowed)


@pytest.mark.parametrize("field", FIELDS)
def test_a_text_is_shown_as_it_is(opened: Open, field: str) -> None:
    text = TEXTS[8]
    page = opened(hostile(text, field))
    page.locator("#board tbody th button").first.click()
    assert printable(text) in page.locator("body").inner_text()
