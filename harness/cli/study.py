"""``harness study``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from shlex import join
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal

import rich_click as click

from harness.cli import _cluster, _debug_option
from harness.cli import _options as options
from harness.cli._render import percent, print_json, print_line, print_table
from harness.util import paths
from harness.util.files import write_atomically
from harness.util.text import counted

if TYPE_CHECKING:
    from harness.studies import Event, Measurements, Plan, Study, Summary
    from harness.studies.planning import Known
    from harness.studies.scheduling import JobResult

__all__ = ["study"]


@click.group()
def study() -> None:
    """Train regimes, evaluate them and judge claims, all from one file."""


def _of_a_study(command: Callable[..., None]) -> Callable[..., None]:
    """The argument and options that say which study is meant, and where it lies."""
    shared = (
        click.argument("file", type=options.folder),
        click.option(
            "--seeds", type=click.IntRange(min=1), metavar="N", help="So many seeds; the study's if not given."
        ),
        click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Evaluate on the first N images only."),
        click.option(
            "--quick",
            is_flag=True,
            help="A variant that shows what the study does: a tenth of the epochs, one seed, 100 images. It has a "
            "folder of its own, and its report says what it is.",
        ),
        click.option("--dataset", metavar="NAME", help="Instead of the study's: a name, an .npz file or a folder."),
        click.option("--test-dataset", metavar="NAME", help="Evaluate on this one instead."),
        options.data_dir,
        options.download,
        options.checkpoint_dir,
        options.trust_code,
        click.option(
            "--output",
            type=options.folder,
            metavar="DIR",
            help="Where everything of the study lies; study-runs/NAME under $HARNESS_HOME or here if not given.",
        ),
    )
    for decorate in reversed(shared):
        command = decorate(command)
    return command


def _of_a_run(command: Callable[..., None]) -> Callable[..., None]:
    """The options of commands that train and evaluate."""
    workers = click.option(
        "--workers",
        type=options.CountOrAuto(),
        default="auto",
        show_default=True,
        metavar="N|AUTO",
        help="Jobs at once, one thread each: one a core, or one on a GPU, if auto. No figure of a CPU depends on it.",
    )
    return workers(options.device(command))


@study.command("run")
@_of_a_study
@click.option("--only", multiple=True, metavar="LABEL", help="Evaluate this entry only; may be given several times.")
@_of_a_run
@_cluster.options
@options.as_json
def _run(
    file: Path,
    output: Path | None,
    only: tuple[str, ...],
    workers: int | Literal["auto"],
    device: str | None,
    as_json: bool,
    executor: _cluster.Wanted,
    **where: Any,
) -> None:
    """Do what is missing of the study in FILE, then write its report.

    Nothing is trained or evaluated twice, and a run that was killed continues where it was when the same
    command is given again. Where a training fails, only what starts from it is skipped.
    """
    with redirect_stdout(sys.stderr):  # libraries that print must not write into our output
        study = _read(file, where)
        folder = _folder(study, output)
        _search_if_needed(study, folder, file, workers, device, where)
        planned = _plan(study, folder, where)
        command = _command("run", file, where, only=only)
        summary = _do(planned, folder, workers, device, only, command, evaluate=executor.name is None)
        if executor.name is not None:
            summary = summary.with_jobs(_evaluate_elsewhere(planned, folder, device, only, executor))
    _conclude(planned, folder, None, as_json, summary)
    _refuse_failures(summary)


@study.command("search")
@_of_a_study
@_of_a_run
@options.as_json
def _search(
    file: Path,
    output: Path | None,
    workers: int | Literal["auto"],
    device: str | None,
    as_json: bool,
    **where: Any,
) -> None:
    """Choose learning rate and weight decay of every entry of the study in FILE.

    Trains each entry with all combinations of its [search], each for the study's whole budget, and keeps the best on
    the validation split: under PGD where a regime trains adversarially. 'harness study run' does this first.
    """
    from harness.studies import search

    study = _read(file, where)
    folder = _folder(study, output)
    with redirect_stdout(sys.stderr):
        trained = _do_search(study, folder, workers, device, _command("search", file, where), where)
    choices = search.read(study, folder)
    if as_json:
        found = {label: choice.model_dump(mode="json") for label, choice in choices.items()}
        print_json({"study": study.name, "trained": trained, "choices": found, "file": str(folder / search.NAME)})
        return
    header = ("entry", "learning rate", "weight decay", "clean", "robust", "")
    rows = [
        (
            label,
            trial.learning_rate,
            trial.weight_decay,
            *("-" if share is None else percent(share) for share in (trial.clean, trial.robust)),
            "chosen" if number == choice.chosen else "",
        )
        for label, choice in choices.items()
        for number, trial in enumerate(choice.trials)
    ]
    print_table(header, rows, right=header[1:5])
    print_line(f"{counted(trained, 'network')} trained now; choices in {folder / search.NAME}")


@study.command("budget-sensitivity")
@_of_a_study
@click.option(
    "--entry", "varied", multiple=True, required=True, metavar="LABEL", help="To be varied; may be given several times."
)
@_of_a_run
@options.as_json
def _budget_sensitivity(
    file: Path,
    output: Path | None,
    varied: tuple[str, ...],
    workers: int | Literal["auto"],
    device: str | None,
    as_json: bool,
    **where: Any,
) -> None:
    """Do the verdicts of the study in FILE depend on how long an entry is trained?

    Trains the entries at half and twice their epochs besides, and judges every claim about them at each budget.
    What the study itself has trained and evaluated is used. The report goes into the folder budget-sensitivity.
    """
    from harness import studies
    from harness.studies import judging, sensitivity

    with redirect_stdout(sys.stderr):
        planned, folder = _planned(file, output, where)
        derived = studies.plan(sensitivity.derive(planned, varied), **_places(where))
        needed = tuple(dict.fromkeys(q.label for claim in derived.claims for q in claim.quantities))
        command = _command("budget-sensitivity", file, where, entry=varied)
        summary = _do(derived, folder, workers, device, needed, command)
    measurements = studies.collect(derived, folder)
    files = studies.write_report(measurements, folder, directory=folder / "budget-sensitivity")
    page = next(path for path in files if path.name == "report.md")
    found = sensitivity.rows(judging.judge(measurements), planned, varied)
    if as_json:
        claims = [
            {"claim": row.claim, "verdicts": [j.verdict for j in row.judgements], "moves": row.moves} for row in found
        ]
        budgets = list(sensitivity.BUDGETS)
        print_json({"study": planned.study.name, "budgets": budgets, "claims": claims, "report": str(page)})
    else:
        header = ("claim", *(f"budget x{share:g}" for share in sensitivity.BUDGETS), "verdict moves")
        print_table(
            header, [(row.claim, *(j.verdict for j in row.judgements), "yes" if row.moves else "no") for row in found]
        )
        print_line(f"report {page}")
    _refuse_failures(summary)


@study.command("register")
@_of_a_study
@options.as_json
def _register(file: Path, output: Path | None, as_json: bool, **where: Any) -> None:
    """Write down what the study in FILE claims, trains and measures, before anything is evaluated.

    Its report then says whether it judges what was registered. Publish the hash that is printed, or commit the file,
    so that others can hold the report against it.
    """
    from harness.studies import registration

    with redirect_stdout(sys.stderr):
        planned, folder = _planned(file, output, where)
    made = registration.register(planned, folder)
    if as_json:
        print_json({"study": planned.study.name, "registered": made.registered, "sha256": made.sha256})
    else:
        print_line(f"{planned.study.name}: {counted(len(planned.claims), 'claim')} registered on {made.registered}")
        print_line(f"sha256 {made.sha256}")


@study.command("report")
@_of_a_study
@click.option("--into", type=options.folder, metavar="DIR", help="Write the report here instead.")
@click.option(
    "--from",
    "source",
    type=options.folder,
    metavar="FILE",
    help="From the measurements that lie beside a report (measurements.tar.xz), on any machine: neither images "
    "nor checkpoints need be there. Needs --into.",
)
@options.as_json
def _report(
    file: Path, output: Path | None, into: Path | None, source: Path | None, as_json: bool, **where: Any
) -> None:
    """Write the report of the study in FILE from what is there; nothing is run."""
    from harness.studies import archive

    if source is not None and into is None:
        raise click.UsageError("--from needs --into DIR, where the report is to be written")
    if source is None or into is None:
        with redirect_stdout(sys.stderr):
            planned, folder = _planned(file, output, where)
        _conclude(planned, folder, into, as_json)
        return
    given = {"output": output} | where
    places = ("output", "dataset", "test_dataset", "data_dir", "download", "checkpoint_dir")
    without_use = " and ".join(options.spelled(name) for name in places if given[name])
    if without_use:
        raise click.UsageError(f"--from takes images and networks from the measurements: leave {without_use} out")
    kept = archive.read(source)
    with TemporaryDirectory() as notes:
        for name, content in kept.notes.items():
            write_atomically(Path(notes) / name, content)
        with redirect_stdout(sys.stderr):
            study, folder = _read(file, where), Path(notes)
            planned = _plan(study, folder, where, kept.known(study))
        _conclude(planned, folder, into, as_json, measurements=kept.measurements(planned))


@study.command("status")
@_of_a_study
@options.as_json
def _status(file: Path, output: Path | None, as_json: bool, **where: Any) -> None:
    """Show what of the study in FILE is trained and evaluated."""
    from harness import studies

    with redirect_stdout(sys.stderr):
        planned, folder = _planned(file, output, where)
        found = studies.collect(planned, folder)
    header = ("entry", "trained", "seeds", "evaluated", "evaluations")
    rows = []
    for member in planned.members:
        networks = found.networks[member.label].values()
        seeds, measures = len(planned.seeds_of(member)), len(planned.measures_of(member))
        evaluated = sum(len(network.measured) for network in networks)
        rows.append((member.label, len(networks), seeds, evaluated, seeds * measures))
    if as_json:
        print_json([dict(zip(header, row, strict=True)) for row in rows])
    else:
        print_table(header, rows, right=header[1:])


def _read(file: Path, where: dict[str, Any]) -> Study:
    """The study of a file, or its quick variant."""
    from harness import studies

    study = studies.read(file)
    if not where["quick"]:
        return study
    if where["seeds"] is not None or where["limit"] is not None:
        raise click.UsageError("--quick means one seed and 100 images: leave --seeds and --limit out")
    return studies.quick(study)


def _places(where: dict[str, Any]) -> dict[str, Any]:
    """What a plan is told besides the study."""
    return {name: value for name, value in where.items() if name != "quick"}


def _planned(file: Path, output: Path | None, where: dict[str, Any]) -> tuple[Plan, Path]:
    """The plan of the study of a file, and its folder."""
    study = _read(file, where)
    folder = _folder(study, output)
    return _plan(study, folder, where), folder


def _plan(study: Study, folder: Path, where: dict[str, Any], known: Known | None = None) -> Plan:
    """A study with the hyper-parameters that were chosen for it."""
    from harness import studies
    from harness.studies import search

    return studies.plan(search.applied(study, search.read(study, folder)), **_places(where), known=known)


def _folder(study: Study, output: Path | None) -> Path:
    return output or paths.studies_root() / study.name


def _do_search(
    study: Study,
    folder: Path,
    workers: int | Literal["auto"],
    device: str | None,
    command: str,
    where: dict[str, Any],
) -> int:
    """Train what the search still needs; returns how many networks."""
    from harness.studies import search

    with _progress() as progress:
        summaries = search.search(
            study, folder, where=_places(where), progress=progress, workers=workers, device=device, command=command
        )
    return sum(summary.trained for summary in summaries)


def _search_if_needed(
    study: Study,
    folder: Path,
    file: Path,
    workers: int | Literal["auto"],
    device: str | None,
    where: dict[str, Any],
) -> None:
    """Search where nothing is chosen yet.

    Args:
        file: of the study, for the log of what was run.
    """
    from harness.errors import InvalidInput
    from harness.studies import search

    if study.search is None:
        return
    try:
        search.read(study, folder)
    except InvalidInput:  # nothing is chosen yet, or from other lists
        _do_search(study, folder, workers, device, _command("search", file, where), where)


def _do(
    planned: Plan,
    folder: Path,
    workers: int | Literal["auto"],
    device: str | None,
    only: tuple[str, ...],
    command: str,
    *,
    evaluate: bool = True,
) -> Summary:
    """Train and evaluate what is missing, with progress on stderr."""
    from harness import studies

    with _progress() as progress:
        return studies.run(
            planned,
            output=folder,
            progress=progress,
            workers=workers,
            device=device,
            only=only,
            command=command,
            evaluate=evaluate,
        )


def _evaluate_elsewhere(
    planned: Plan, folder: Path, device: str | None, only: tuple[str, ...], wanted: _cluster.Wanted
) -> dict[str, JobResult]:
    """Evaluate what is missing on an executor, with progress on stderr."""
    from harness import studies
    from harness.evaluation.display import displayed

    made = _cluster.executor(wanted, device)
    with displayed(planned.study.name, str(wanted.name)) as report:
        return studies.evaluate_elsewhere(
            planned, made, output=folder, only=only, shards=wanted.given["shards"], progress=report
        )


def _refuse_failures(summary: Summary) -> None:
    from harness.errors import HarnessError

    if summary.failures:
        raise HarnessError(
            f"{counted(len(summary.failures), 'job')} of the study failed: {'; '.join(summary.failures.values())}"
        )


def _command(command: str, file: Path, where: dict[str, Any], **labels: tuple[str, ...]) -> str:
    """The command line again, but for what belongs to the machine."""
    words = ["harness", "study", command, str(file)]
    for name in ("seeds", "limit", "dataset", "test_dataset"):
        if where.get(name) is not None:
            # of a file its name: where it lay is nobody's business, and another place for a reader
            words += [options.spelled(name), Path(str(where[name])).resolve().name]
    words += ["--quick"] if where["quick"] else []
    for option, values in labels.items():
        for label in values:
            words += [f"--{option}", label]
    return join(words)


def _conclude(
    planned: Plan,
    folder: Path,
    into: Path | None,
    as_json: bool,
    summary: Summary | None = None,
    *,
    measurements: Measurements | None = None,
) -> None:
    """Write the report, and show what it says; without ``measurements`` it is made of what lies in the folder."""
    from harness import studies
    from harness.studies import judging
    from harness.studies.statistics import p_text

    keep = measurements is None  # else they lie where they were read from
    measurements = measurements or studies.collect(planned, folder)
    files = studies.write_report(measurements, folder, directory=into, keep=keep)
    page = next(path for path in files if path.name == "report.md")
    judgements = judging.judge(measurements)
    if as_json:
        done = {} if summary is None else {"trained": summary.trained, "evaluated": summary.evaluated}
        claims = [
            {"claim": j.claim.text, "verdict": j.verdict, "estimate": j.estimate, "interval": [j.low, j.high],
             "p_value": j.p_value, "holm_p_value": j.corrected, "reason": j.reason}
            for j in judgements
        ]  # fmt: skip
        print_json({"study": planned.study.name, **done, "claims": claims, "report": str(page)})
        return
    if summary is not None:
        print_line(f"{planned.study.name}: trained {summary.trained}, evaluated {summary.evaluated} now")
    if judgements:
        header = ("verdict", "claim", "difference", "p (Holm)")
        rows = [
            (
                j.verdict,
                j.claim.text,
                "" if j.estimate is None else f"{j.estimate:+.1f}",
                "" if j.corrected is None else p_text(j.corrected),
            )
            for j in judgements
        ]
        print_table(header, rows, right=header[2:])
    print_line(f"report {page}")


for _command_of_study in study.commands.values():
    _command_of_study.params.append(_debug_option())


@contextmanager
def _progress() -> Iterator[Callable[[Event], None]]:
    """A bar for the study and one for each job at work on a terminal, else a line a job. On stderr."""
    if not sys.stderr.isatty():
        yield _line
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[words]}", markup=False),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        whole = bars.add_task("study", total=None, words="")
        active: dict[str, TaskID] = {}

        def show(event: Event) -> None:
            words = f"{event.finished} of {counted(event.total, 'job')}{_left(event.left)}"
            bars.update(whole, total=event.total, completed=event.finished, words=words)
            name = event.job.name
            if event.result is None:
                if name not in active:
                    active[name] = bars.add_task(f"  {name}", total=1.0, words="")
                bars.update(active[name], completed=event.share, words=event.words)
                return
            if name in active:
                bars.remove_task(active.pop(name))
            if event.result.status != "done":
                bars.console.print(
                    f"{name}: {event.result.status}: {event.result.error}", markup=False, highlight=False
                )

        yield show


def _line(event: Event) -> None:
    if event.result is None:
        return
    ended = f" in {event.result.seconds:.0f} s" if event.result.status == "done" else f": {event.result.error}"
    left = _left(event.left) if event.finished < event.total else ""
    print_line(f"[{event.finished}/{event.total}] {event.job.name}: {event.result.status}{ended}{left}", err=True)


def _left(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return f", {seconds:.0f} s left" if seconds < 90 else f", {seconds / 60:.0f} min left"
