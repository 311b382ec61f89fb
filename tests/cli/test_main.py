"""What holds for every command."""

from __future__ import annotations

import importlib
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import rich_click as click

import harness
from harness import cli
from harness.cli import _api, _reference
from harness.errors import HarnessError
from tests.cli.conftest import Harness

ROOT = Path(__file__).resolve().parents[2]
CONTEXT = click.Context(cli.commands, info_name="harness")
NAMES = cli.commands.list_commands(CONTEXT)


def python(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *args], capture_output=True, text=True, check=False)


def test_help_and_version_do_not_wait_for_torch() -> None:
    asked = "import sys; from harness.cli import run; codes = run(['--help']), run(['--version'])"
    done = python("-c", f"{asked}; print(codes, 'torch' in sys.modules, 'scipy' in sys.modules)")
    assert done.stdout.splitlines()[-1] == "(0, 0) False False"
    assert all(name in done.stdout for name in NAMES)


def test_runs_as_a_module() -> None:
    done = python("-m", "harness", "--version")
    assert (done.returncode, done.stdout) == (0, f"harness {harness.__version__}\n")


def test_a_broken_pipe_is_no_error() -> None:
    done = subprocess.run(
        f"{sys.executable} -m harness list datasets --json | true", shell=True, capture_output=True, text=True
    )
    assert done.stderr == ""


def test_help_without_a_command(harness: Harness) -> None:
    code, out, _ = harness()
    assert code == 0
    assert "Commands" in out


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["evalute"], ["'evalute'", "leaderboard", "did you mean 'evaluate'?"]),
        (["evaluate", "--chekpoint", "x"], ["--chekpoint", "harness evaluate --help"]),
        (["evaluate"], ["Missing option '--checkpoint'"]),
        (["submit"], ["Missing RESULT, --paper-title, --paper-url, --authors, --venue."]),
        (["submit", "x", "--venue", "y"], ["Missing --paper-title, --paper-url, --authors."]),
        (["--no-such-option"], ["--no-such-option"]),
        (["list", "flowers"], ["'flowers'", "regimes"]),
        (["leaderboard", "surplus"], ["surplus"]),
    ],
)
def test_wrong_usage(harness: Harness, args: list[str], words: list[str]) -> None:
    harness(*args).refused(*words, code=2)


def failing(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    @click.command()
    def broken() -> None:
        """Fails."""
        raise error

    monkeypatch.setattr(cli.Commands, "get_command", lambda self, ctx, name: with_debug(broken))
    monkeypatch.setattr(cli.Commands, "list_commands", lambda self, ctx: ["broken"])


def with_debug(command: click.Command) -> click.Command:
    command.params = [cli._debug_option()]
    return command


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (HarnessError("two\nlines \x1b[31mred\x1b[0m"), 1, "error: two lines ?[31mred?[0m\n"),
        (PermissionError(13, "Permission denied", "some/folder"), 1, "error: some/folder: Permission denied\n"),
        (OSError("odd"), 1, "error: odd\n"),
        (KeyboardInterrupt(), 130, "\nerror: interrupted; the same command continues where this one was\n"),
        (ValueError("oops"), 1, "error: unexpected ValueError: oops (this is a defect; --debug shows where)\n"),
    ],
)
def test_errors_are_one_line(
    harness: Harness, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, line: str
) -> None:
    failing(monkeypatch, error)
    assert harness("broken") == (code, "", line)


@pytest.mark.parametrize("args", [["broken", "--debug"], ["--debug", "broken"]])
def test_debug_shows_the_traceback(harness: Harness, monkeypatch: pytest.MonkeyPatch, args: list[str]) -> None:
    failing(monkeypatch, HarnessError("a sentence"))
    code, out, err = harness(*args)
    assert (code, out) == (1, "")
    assert "Traceback" in err
    assert err.endswith("error: a sentence\n")


def answering(monkeypatch: pytest.MonkeyPatch, signals: list[signal.Signals]) -> list[signal.Signals]:
    """A command that is sent signals, and notes those after which it tidied up."""
    tidied: list[signal.Signals] = []

    @click.command()
    def signalled() -> None:
        for number in signals:
            try:
                signal.raise_signal(number)
            finally:
                tidied.append(number)

    monkeypatch.setattr(cli.Commands, "get_command", lambda self, ctx, name: signalled)
    monkeypatch.setattr(cli.Commands, "list_commands", lambda self, ctx: ["signalled"])
    return tidied


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGHUP", 129)])
def test_being_ended_is_an_interrupt(harness: Harness, monkeypatch: pytest.MonkeyPatch, name: str, code: int) -> None:
    number = signal.Signals[name]
    tidied, inherited = answering(monkeypatch, [number]), signal.signal(number, signal.SIG_DFL)
    try:
        ended, out, err = harness("signalled")
        assert (ended, out, tidied) == (code, "", [number])
        assert err.endswith("error: interrupted; the same command continues where this one was\n")
        assert signal.getsignal(number) == signal.SIG_DFL
    finally:
        signal.signal(number, inherited)


def test_a_signal_that_is_ignored_stays_ignored(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, [signal.SIGTERM])
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        assert harness("signalled").code == 0
    finally:
        signal.signal(signal.SIGTERM, before)


def test_only_our_own_warnings_are_shown(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    @click.command()
    def broken() -> None:
        """Warns."""
        warnings.warn_explicit("theirs", UserWarning, "/usr/lib/other/harness/x.py", 1)
        warnings.warn_explicit("ours\nof two lines", UserWarning, str(Path(cli.__file__)), 1)

    monkeypatch.setattr(cli.Commands, "get_command", lambda self, ctx, name: with_debug(broken))
    monkeypatch.setattr(cli.Commands, "list_commands", lambda self, ctx: ["broken"])
    assert harness("broken") == (0, "", "warning: ours of two lines\n")
    before = warnings.showwarning
    assert "warning: theirs\n" in harness("broken", "--debug").err
    assert warnings.showwarning is before


@pytest.mark.parametrize("name", NAMES)
def test_every_command_and_option_is_documented(name: str) -> None:
    command = cli.commands.get_command(CONTEXT, name)
    assert command is not None
    assert (command.help or "").strip()
    options = [parameter for parameter in command.params if isinstance(parameter, click.Option)]
    assert [option.name for option in options if not option.help] == []
    assert sum("--debug" in option.opts for option in options) == 1
    assert command.name == name


def test_the_reference_is_up_to_date() -> None:
    written = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    assert written == _reference.reference(), "run: python -m harness.cli._reference > docs/cli.md"
    assert all(f"## harness {name}\n" in written for name in NAMES)


def test_the_page_of_the_python_interface_is_up_to_date() -> None:
    written = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    assert written == _api.reference(), "run: python -m harness.cli._api > docs/api.md"


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["evaluate", "--model", "x"], "No such option --model: it is --checkpoint here"),
        (["evaluate", "--n_examples", "9"], "No such option --n_examples: it is --limit here"),
        (["import", "x", "--num-classes", "9"], "No such option --num-classes: it is --classes here"),
        (["list", "suites", "--model", "x"], "No such option"),
    ],
)
def test_options_of_other_tools_are_answered(args: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(args) == 2
    assert words in capsys.readouterr().err


def test_help_is_in_groups(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["evaluate", "--help"]) == 0
    shown = capsys.readouterr().out
    groups = importlib.import_module("harness.cli.evaluate")._GROUPS
    titles = list(groups)
    assert [title for title in titles if title in shown] == titles
    command = cli.commands.get_command(CONTEXT, "evaluate")
    assert command is not None
    known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
    assert {name for names in groups.values() for name in names} <= known
