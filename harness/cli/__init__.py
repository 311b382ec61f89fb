"""The command line: parse, call, print. The only place of this package that prints or exits.

Every file of this package that does not begin with an underscore is a command: ``foo_bar.py`` defines
the click command ``foo_bar``, called ``foo-bar``; a trailing underscore is dropped (``list_.py`` is
``list``). Commands import what they need inside their functions, so that help is there at once.

Exit codes: 0 done, 1 failed with a message, 2 wrong usage, 3 done but with flags of severity warn or refuse under
``--strict``, 130 interrupted, 143 or 129 ended by SIGTERM or SIGHUP.
"""

from __future__ import annotations

import importlib
import logging
import os
import pkgutil
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import rich_click as click

from harness._version import __version__
from harness.errors import HarnessError, UnknownName, system_error

__all__ = ["Commands", "commands", "main", "run"]

_PACKAGE = str(Path(__file__).resolve().parents[1]) + os.sep


@dataclass
class _Settings:
    """What holds for one run of the program."""

    debug: bool = False


class Commands(click.RichGroup):
    """A group whose commands are the files of this package; a file is imported when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, sorted."""
        return sorted(_files())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name, with ``--debug`` added; None where there is none."""
        files = _files()
        if cmd_name not in files:
            return None
        name = files[cmd_name]
        command: click.Command = getattr(importlib.import_module(f"{__name__}.{name}"), name)
        if not any("--debug" in parameter.opts for parameter in command.params):
            command.params.append(_debug_option())
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As in click, but an unknown name is answered with the known ones and the nearest."""
        known = self.list_commands(ctx)
        if args and not args[0].startswith("-") and args[0] not in known:
            ctx.fail(str(UnknownName("command", args[0], known)))
        return super().resolve_command(ctx, args)


def _files() -> dict[str, str]:
    modules = (module.name for module in pkgutil.iter_modules(__path__))
    return {name.rstrip("_").replace("_", "-"): name for name in modules if not name.startswith("_")}


def _debug_option() -> click.Option:
    def note(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
        settings = ctx.find_object(_Settings)
        if value and settings is not None:
            settings.debug = True
            logging.basicConfig(level=logging.INFO, stream=sys.stderr)

    return click.Option(
        ["--debug"],
        is_flag=True,
        expose_value=False,
        is_eager=True,
        callback=note,
        help="Show the traceback of an error, and what libraries log and warn.",
    )


@click.group(
    cls=Commands,
    invoke_without_command=True,
    params=[_debug_option()],
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, prog_name="harness", message="%(prog)s %(version)s")
@click.pass_context
def commands(ctx: click.Context) -> None:
    """Train, register, attack and rank models under different batch-normalization regimes."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def main() -> None:
    """The program ``harness``."""
    sys.exit(run(sys.argv[1:]))


def run(args: Sequence[str]) -> int:
    """Run the command line ``args`` and return the exit code; every error becomes one line on stderr."""
    settings = _Settings()
    with _quiet_libraries(settings), _terminations_interrupt():
        try:
            outcome = commands.main(list(args), prog_name="harness", standalone_mode=False, obj=settings)
            sys.stdout.flush()
            return outcome if isinstance(outcome, int) else 0
        except click.UsageError as error:
            command = error.ctx.command_path if error.ctx else "harness"
            return _fail(settings, f"{_meant(error)} (see '{command} --help')", error.exit_code)
        except click.ClickException as error:
            return _fail(settings, error.format_message(), error.exit_code)
        except (click.Abort, KeyboardInterrupt) as error:
            # click raises another error in the place of an interrupt
            cause = error.__context__ if isinstance(error, click.Abort) else error
            number = cause.number if isinstance(cause, _Terminated) else signal.SIGINT
            # whatever was at work may have noted what becomes of it
            goes_on = getattr(cause, "__notes__", ["the same command continues where this one was"])[-1]
            return _fail(settings, f"interrupted; {goes_on}", 128 + number)
        except HarnessError as error:
            return _fail(settings, str(error), 1)
        except BrokenPipeError:
            # whoever read our output has left, as `head` does; the interpreter must not flush into it again
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        except OSError as error:
            return _fail(settings, system_error(error), 1)
        except Exception as error:
            # nothing above raises this on purpose, so it is a defect; still no traceback unless asked for
            what = f"unexpected {type(error).__name__}: {error}"
            return _fail(settings, f"{what} (this is a defect; --debug shows where)", 1)


_ELSEWHERE = {
    "attack": "suite",
    "attacks": "suite",
    "arch": "architecture",
    "bs": "batch-size",
    "ckpt": "checkpoint",
    "data": "dataset",
    "data-path": "dataset",
    "epsilon": "eps",
    "eval-batch-size": "batch-size",
    "input-size": "shape",
    "model": "checkpoint",
    "n-examples": "limit",
    "n-ex": "limit",
    "num-classes": "classes",
    "num-examples": "limit",
    "num-samples": "limit",
    "num-workers": "workers",
    "output-dir": "output",
    "output-path": "output",
    "save-dir": "output",
    "tasks": "suite",
    "threat-model": "norm",
    "version": "suite",
    "weights": "checkpoint",
}
"""What other tools call an option -> what it is called here."""


def _meant(error: click.UsageError) -> str:
    """The sentence of a usage error; an option of another tool is answered with the one of this, and where several
    are missing, all are named."""
    message = error.format_message()
    if isinstance(error, click.MissingParameter) and error.ctx is not None:
        # those that were given have been read before the first that was not
        needed = [one for one in error.ctx.command.params if one.required and one.name not in error.ctx.params]
        names = [one.opts[-1] if isinstance(one, click.Option) else one.human_readable_name for one in needed]
        return f"Missing {', '.join(names)}." if len(names) > 1 else message
    if not isinstance(error, click.NoSuchOption) or error.ctx is None:
        return message
    here = f"--{_ELSEWHERE.get(error.option_name.lstrip('-').replace('_', '-'), '')}"
    known = {name for parameter in error.ctx.command.params for name in parameter.opts}
    return f"No such option {error.option_name}: it is {here} here" if here in known else message


def _fail(settings: _Settings, message: str, code: int) -> int:
    if settings.debug:
        traceback.print_exc()
    _say("error", message)
    return code


def _say(kind: str, message: str) -> None:
    line = " ".join(message.split())
    # names come from files; no control sequence of theirs may reach the terminal
    click.echo(f"{kind}: " + "".join(c if c.isprintable() else "?" for c in line), err=True)


class _Terminated(KeyboardInterrupt):
    """The program was asked to end by a signal."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextmanager
def _terminations_interrupt() -> Iterator[None]:
    """SIGTERM and SIGHUP interrupt as Ctrl-C does, so that whatever is at work can tidy up."""
    names = ("SIGTERM", "SIGHUP") if threading.current_thread() is threading.main_thread() else ()
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    # a signal that is ignored, as under nohup, stays so
    before = {number: signal.getsignal(number) for number in numbers if signal.getsignal(number) is not signal.SIG_IGN}

    def interrupt(number: int, frame: object) -> None:
        raise _Terminated(number)

    for number in before:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _quiet_libraries(settings: _Settings) -> Iterator[None]:
    """Only this package's own warnings are shown, each as one line on stderr."""

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if filename.startswith(_PACKAGE) or settings.debug:
            _say("warning", str(message))

    handler = logging.NullHandler()
    with warnings.catch_warnings():
        warnings.showwarning = show
        logging.getLogger().addHandler(handler)
        try:
            yield
        finally:
            logging.getLogger().removeHandler(handler)
