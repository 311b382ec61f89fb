"""What the documentation says is there, and what is there is documented."""

from __future__ import annotations

import ast
import re
import shlex
import tomllib
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest
import rich_click as click
from pydantic import BaseModel

from harness.audit.flags import Flag
from harness.cli import _flags, commands
from harness.regimes import _base
from harness.results import record
from tests.house._tree import ROOT

PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def section(text: str, title: str) -> str:
    """From one heading to the next of the same or a higher level."""
    found = re.search(rf"^(#+) {re.escape(title)}\n(.*?)(?=^#{{1,2}} |\Z)", text, flags=re.DOTALL | re.MULTILINE)
    assert found, f"no section {title!r}"
    return found[2]


def rows(text: str) -> dict[str, list[str]]:
    """Tables: the word in the first column -> the other cells."""
    table = (re.split(r"(?<!\\)\|", line.strip().strip("|")) for line in text.splitlines() if line.startswith("| `"))
    return {cells[0].strip(" `"): [cell.strip() for cell in cells[1:]] for cells in table}


@pytest.mark.parametrize(
    ("title", "needed"),
    [
        ("To run", PROJECT["dependencies"]),
        ("To develop", PROJECT["optional-dependencies"]["dev"]),
        ("To document", PROJECT["optional-dependencies"]["docs"]),
    ],
)
def test_every_dependency_has_a_reason_and_a_cost(title: str, needed: list[str]) -> None:
    documented = rows(section(read("docs/dependencies.md"), title))
    assert sorted(documented) == sorted(re.split(r"[<>=!~ ]", name)[0] for name in needed)
    assert [name for name, (reason, cost) in documented.items() if len(reason) < 10 or not cost] == []


RECORDS = [*(getattr(record, name) for name in record.__all__), Flag]


@pytest.mark.parametrize("record", [r for r in RECORDS if isinstance(r, type) and issubclass(r, BaseModel)])
def test_every_field_of_a_result_is_explained(record: type[BaseModel]) -> None:
    assert list(rows(section(read("docs/result-schema.md"), record.__name__))) == list(record.model_fields)


def test_every_array_of_the_verdicts_is_explained() -> None:
    explained = list(rows(section(read("docs/result-schema.md"), "Per-sample verdicts")))
    assert explained == [field.name for field in fields(record.Verdicts)]


def test_the_schema_version_is_the_documented_one() -> None:
    assert rows(read("docs/result-schema.md"))["schema_version"] == [str(record.SCHEMA_VERSION)]


def test_the_table_of_flags_is_up_to_date() -> None:
    assert read("docs/flags.md") == _flags.reference(), "run: python -m harness.cli._flags > docs/flags.md"


@pytest.mark.parametrize(
    ("title", "record", "elsewhere"),
    [
        ("The fields of a regime", _base.Regime, {"name", "summary", "source"}),
        ("An optimiser of its own", _base.PartOptimizer, set()),
        ("First values", _base.Init, set()),
        ("Adversarial weight perturbation", _base.Awp, set()),
    ],
)
def test_every_field_of_a_regime_is_explained(title: str, record: type[BaseModel], elsewhere: set[str]) -> None:
    page = read("docs/regimes.md")
    text = section(page, title) if title.startswith("The fields") else page.partition(f"### {title}\n")[2]
    explained = set(rows(text.partition("\n### ")[0]))
    assert explained | elsewhere == set(record.model_fields)
    assert all(f"`{name}`" in page for name in elsewhere | set(_base.Phase.model_fields))


def blocks(page: Path, language: str) -> Iterator[str]:
    yield from re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)


def command_lines() -> Iterator[tuple[str, str]]:
    for page in PAGES:
        for block in blocks(page, "console"):
            for line in block.replace("\\\n", " ").splitlines():
                if line.strip():
                    yield page.name, line.strip().removeprefix("$ ")


LINES = sorted(set(command_lines()))


def test_the_two_commands_stand_in_the_readme() -> None:
    assert {("README.md", "make demo"), ("README.md", "make test")} <= set(LINES)


@pytest.mark.parametrize(("page", "line"), LINES, ids=[f"{page}: {line}" for page, line in LINES])
def test_every_command_line_would_be_understood(page: str, line: str) -> None:
    program, *words = shlex.split(line, comments=True)
    if program == "make":
        targets = re.findall(r"^([a-z-]+):", read("Makefile"), flags=re.MULTILINE)
        assert set(words) <= set(targets)
        return
    assert program == "harness", f"{page} uses a program that nobody installs: {line}"
    context = click.Context(commands)
    command: click.Command = commands
    while isinstance(command, click.Group):
        found = command.get_command(context, words.pop(0))
        assert found is not None, f"{page} uses a command that is not there: {line}"
        command = found
    # parses options and arguments and their types, and runs nothing
    parser = command.make_parser(click.Context(command))
    options, _, _ = parser.parse_args(args=list(words))
    for parameter in command.params:
        value = options.get(parameter.name)
        if isinstance(parameter.type, click.Choice) and value is not None:
            for item in value if isinstance(value, list) else [value]:
                assert item in parameter.type.choices


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_in_the_pages_is_python(page: Path) -> None:
    for block in blocks(page, "python"):
        ast.parse(block)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_the_pages_import_is_there(page: Path) -> None:
    for block in blocks(page, "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("harness"):
                module = __import__(node.module, fromlist=[alias.name for alias in node.names])
                assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_the_pages_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?:|#)([^)#\s]+)", page.read_text(encoding="utf-8"))
    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_the_changelog_knows_this_version() -> None:
    import harness

    assert f"\n## {harness.__version__}" in read("CHANGELOG.md")
    assert PROJECT["version"] == harness.__version__
