"""Rules of style that a test can hold."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.house._tree import KNOWN_TEXT, ROOT, modules, parse, room

KNOWN = modules()
Rule = Callable[[ast.AST], Iterator[ast.AST]]
LIBRARY = {name: path for name, path in KNOWN.items() if room(name) not in {"cli", "__main__"}}


def calls(tree: ast.AST) -> Iterator[tuple[ast.Call, str]]:
    """Every call with its dotted name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield node, ast.unparse(node.func)


def given(call: ast.Call, keyword: str, value: object) -> bool:
    return any(k.arg == keyword and isinstance(k.value, ast.Constant) and k.value.value is value for k in call.keywords)


def prints(tree: ast.AST) -> Iterator[ast.AST]:
    yield from (call for call, name in calls(tree) if name in {"print", "exit", "quit", "sys.exit"})


def asserts(tree: ast.AST) -> Iterator[ast.AST]:
    """An assertion is no check of input; telling the type checker what a value is, is none either."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Assert) and not ast.unparse(node.test).startswith("isinstance("):
            yield node


def bare_excepts(tree: ast.AST) -> Iterator[ast.AST]:
    yield from (node for node in ast.walk(tree) if isinstance(node, ast.ExceptHandler) and node.type is None)


def swallowed_errors(tree: ast.AST) -> Iterator[ast.AST]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler) and all(isinstance(line, ast.Pass) for line in node.body):
            yield node


def loose_loads(tree: ast.AST) -> Iterator[ast.AST]:
    for call, name in calls(tree):
        if given(call, "weights_only", False) or (name != "zip" and given(call, "strict", False)):
            yield call
        if name == "torch.load" and not given(call, "weights_only", True):
            yield call


def foreign_code(tree: ast.AST) -> Iterator[ast.AST]:
    """Whatever runs code that came in a file; catching pickle's own error is no use of it."""
    runners = {"pickle", "dill", "marshal", "shelve"}
    for node in ast.walk(tree):
        taken: set[str] = set()
        if isinstance(node, ast.ImportFrom) and node.module in runners:
            taken = {alias.name for alias in node.names}
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) in runners:
            taken = {node.attr}
        if taken - {"UnpicklingError"}:
            yield node
    yield from (call for call, name in calls(tree) if name in {"eval", "exec"})


def global_seeding(tree: ast.AST) -> Iterator[ast.AST]:
    """Seeding what everybody shares, unless the state is forked around it."""
    forked: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.With) and any("fork_rng" in ast.unparse(item) for item in node.items):
            forked |= {id(inner) for inner in ast.walk(node)}
    for call, name in calls(tree):
        if id(call) not in forked and re.fullmatch(
            r"(torch|np|numpy)(\.random|\.cuda)*\.(manual_seed(_all)?|seed)|random\.seed", name
        ):
            yield call


def file_writes(tree: ast.AST) -> Iterator[ast.AST]:
    """Whatever makes or replaces a file by itself; adding a line to a log is no harm."""
    writers = {"write_text", "write_bytes", "mkstemp", "NamedTemporaryFile", "link", "rename"}
    for call, name in calls(tree):
        modes = [*call.args, *(keyword.value for keyword in call.keywords if keyword.arg == "mode")]
        writes = any(isinstance(m, ast.Constant) and re.fullmatch(r"[rbt+]*[wx][bt+]*", str(m.value)) for m in modes)
        if name.rpartition(".")[2] in writers or (name.rpartition(".")[2] == "open" and writes) or name == "os.replace":
            yield call


def broken(rule: Rule, names: dict[str, Path]) -> list[str]:
    return [f"{path.relative_to(ROOT)}:{node.lineno}" for path in names.values() for node in rule(parse(path))]  # type: ignore[attr-defined]


# a process and the workers that it forked itself talk in pickles: nothing of that was ever a file
# and files are written in one place, whole or not at all
EXCEPT_IN = {foreign_code: "harness.util.pool", file_writes: "harness.util.files"}


@pytest.mark.parametrize(
    "rule", [bare_excepts, swallowed_errors, loose_loads, foreign_code, global_seeding, asserts, file_writes]
)
def test_rule_holds_everywhere(rule: Rule) -> None:
    assert broken(rule, {name: path for name, path in KNOWN.items() if name != EXCEPT_IN.get(rule)}) == []


def test_the_library_never_prints_or_exits() -> None:
    assert broken(prints, LIBRARY) == []


def test_only_the_bridges_touch_the_module_table() -> None:
    bridges = {"harness.models.sources._zoo", "harness.util.user_file"}
    others = {name: path for name, path in KNOWN.items() if name not in bridges}
    assert [name for name, path in others.items() if "sys.modules" in path.read_text(encoding="utf-8")] == []


# A guard that lets everything pass would guard nothing: each rule on a line that breaks it.
@pytest.mark.parametrize(
    ("rule", "text"),
    [
        (prints, "print(1)"),
        (prints, "sys.exit(1)"),
        (asserts, "assert x"),
        (bare_excepts, "try:\n    f()\nexcept:\n    g()"),
        (swallowed_errors, "try:\n    f()\nexcept ValueError:\n    pass"),
        (loose_loads, "torch.load(f)"),
        (loose_loads, "torch.load(f, weights_only=False)"),
        (loose_loads, "model.load_state_dict(s, strict=False)"),
        (foreign_code, "from pickle import load"),
        (foreign_code, "import pickle\npickle.load(f)"),
        (foreign_code, "eval(text)"),
        (global_seeding, "torch.manual_seed(0)"),
        (global_seeding, "np.random.seed(0)"),
        (file_writes, "path.open('w')"),
        (file_writes, "open(path, mode='xb')"),
        (file_writes, "path.write_text('')"),
        (file_writes, "os.replace(a, b)"),
    ],
)
def test_rules_see_what_they_forbid(rule: Rule, text: str) -> None:
    assert list(rule(ast.parse(text)))


def test_rules_let_the_right_way_pass() -> None:
    assert not list(loose_loads(ast.parse("torch.load(f, weights_only=True); zip(a, b, strict=False)")))
    assert not list(global_seeding(ast.parse("with torch.random.fork_rng():\n    torch.manual_seed(0)")))
    assert not list(global_seeding(ast.parse("generator.manual_seed(0)")))
    assert not list(file_writes(ast.parse("path.open(); open(path, 'rb'); log.open('a'); text.replace('w', '')")))


def tracked() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_no_machine_paths() -> None:
    """A path of somebody's machine means nothing on another."""
    pattern = re.compile(r"(?<![\w.}])/(?:tmp|home|root|work|mnt|Users)/\w")
    wrong = []
    for path in tracked():
        if path.suffix in KNOWN_TEXT or path.name in {"Makefile", "run"}:
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
                if pattern.search(line):
                    wrong.append(f"{path.relative_to(ROOT)}:{number}")
    assert wrong == []


def test_only_the_named_folders_stand_at_the_top() -> None:
    folders = {path.relative_to(ROOT).parts[0] for path in tracked() if len(path.relative_to(ROOT).parts) > 1}
    expected = {"harness", "checkpoints", "leaderboards", "tests", "docs", "studies", "benchmarks", ".ci"}
    assert folders - expected == set()
