"""The report of a study: one page for people, tables for programs, pictures. A pure function of what was found."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from harness.audit.flags import Flag
from harness.batchnorm.statistics import STORED
from harness.datasets import Dataset
from harness.results import stats
from harness.studies import archive, plots, protocol, registration, run_log, search, tables
from harness.studies.judging import LEVEL, Judgement, judge
from harness.studies.measurements import Measurements
from harness.studies.planning import Measure, Member
from harness.studies.statistics import SEEDS_FOR_OTHERS, p_text
from harness.training.health import FALLING
from harness.util.files import write_atomically
from harness.util.text import counted, printable

__all__ = ["markdown", "write_report"]

_BARS = "broad bars: 95 % for other images, thin ones: one standard deviation over seeds; dashed, if shown: chance"
_CAPTIONS = {
    "clean-robust": f"Clean against robust accuracy; {_BARS}",
    "eps": f"Robust accuracy against eps; {_BARS}",
    "training": "Training: thin lines are single seeds, thick ones their mean",
}


def write_report(
    measurements: Measurements, output: Path, *, directory: Path | None = None, keep: bool = True
) -> tuple[Path, ...]:
    """Write ``report.md``, ``report.csv``, ``runs.csv``, ``claims.csv``, the pictures, and what all this was made of.

    Args:
        output: of the study; its notes are read.
        directory: where the report goes; ``output`` if not given.
        keep: write the measurements (`harness.studies.archive`) too.

    Raises:
        ResultError: the folder cannot be written, or the notes are damaged.
    """
    folder = output if directory is None else directory
    judgements = judge(measurements)
    files: dict[str, bytes] = {}
    names: list[str] = []
    for name, kind, content in plots.pictures(measurements):
        files[f"{name}.{kind}"] = content
        names += [name] if name not in names else []
    files["report.csv"] = tables.report_csv(measurements).encode()
    files["runs.csv"] = tables.runs_csv(measurements).encode()
    if judgements:
        files["claims.csv"] = tables.claims_csv(judgements).encode()
    registered = registration.describe(measurements, output)
    choices = search.read(measurements.plan.study, output)
    files["report.md"] = markdown(measurements, judgements, run_log.read(output), names, registered, choices).encode()
    if keep and any(measurements.networks.values()):
        files[archive.NAME] = archive.packed(measurements, output)
    for file, content in files.items():
        write_atomically(folder / file, content)
    return tuple(folder / file for file in files)


def markdown(
    measurements: Measurements,
    judgements: Sequence[Judgement],
    sessions: Sequence[run_log.Session],
    pictures: Sequence[str],
    registered: str,
    choices: Mapping[str, search.Choice],
) -> str:
    """The page.

    Args:
        registered: one sentence, whether the claims were written down before.
        choices: of hyper-parameters, by entry.
    """
    study = measurements.plan.study
    parts = [f"# {study.title or study.name}"]
    parts += [text for text in (study.question, f"After {study.source}." if study.source else "") if text]
    parts.append("\n".join(_protocol(measurements)))
    if judgements:
        parts += ["## Claims", _claims(judgements), *_reasons(judgements), registered, _how_judged(judgements)]
    if choices:
        parts += ["## Hyper-parameters", _choices(choices)]
    distance = _distance(measurements)
    if distance:
        parts += ["## How far from the sources' protocols", distance]
    training = _training(measurements)
    if training:
        parts += ["## Training", training]
    parts += ["## Figures", _figures(measurements)]
    if any(member.entry.published for member in measurements.plan.members):
        parts += ["## Beside the published figures", *_published(measurements)]
    if study.curve is not None:
        parts += ["## Robust accuracy against eps", _curve(measurements)]
    parts += [f"![{_CAPTIONS[name]}]({name}.png)" for name in pictures]
    flags = _flags(measurements)
    if flags:
        parts += ["## Reliability flags", flags]
    parts += ["## How it was made", "\n".join(_made(measurements, sessions))]
    return _inert("\n\n".join(parts)) + "\n"


def _inert(page: str) -> str:
    """The page without what names and texts in a stranger's study would make of it: HTML, hidden characters."""
    lines = (printable(line, longest=len(line)) for line in page.split("\n"))
    return re.sub(r"<(?=[A-Za-z/!?])", "&lt;", "\n".join(lines))


def _protocol(measurements: Measurements) -> Iterator[str]:
    plan = measurements.plan
    test = plan.test_set
    images = f"the first {len(test):,} of {test.size:,}" if len(test) < test.size else f"all {len(test):,}"
    suites = dict.fromkeys(m.suite for m in plan.measures if m.asked in plan.study.suites)
    yield f"- evaluated on {images} images of {_named(test)}, {plan.threat}: {', '.join(suites)}"
    trained = [member for member in plan.members if member.regime]
    if trained and plan.train_set is not None:
        data = plan.train_set
        images = f"{len(data):,} of {data.size:,}" if len(data) < data.size else f"{len(data):,}"
        yield f"- trained on {images} images of {_named(data)}; seeds {_listed(plan.seeds)}"
        architectures = sorted({member.architecture for member in trained if member.architecture})
        settings = trained[0].settings
        if settings is not None:
            how = {s: getattr(settings, s) for s in ("epochs", "batch_size", "learning_rate", "schedule")}
            words = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in how.items())
            yield (
                f"- {', '.join(architectures) or 'architecture of the parent'}; {words}; examples by "
                f"{settings.attack}{f' with {settings.steps} steps' if settings.attack == 'pgd' else ''}; "
                f"the {plan.study.keep} epoch is evaluated"
            )
    for member in plan.members:
        entry = member.entry
        own = [f"{name} {value}" for name, value in (entry.training | entry.change).items()]
        own += [f"architecture {entry.architecture}"] if entry.architecture else []
        own += [f"started from {member.parent}"] if member.parent and member.parent != "natural" else []
        if own and entry.regime:
            yield f"- `{member.label}`: {'; '.join([Path(entry.regime).stem, *own])}"


def _named(images: Dataset) -> str:
    # on one line, whatever a file that comes from elsewhere says
    return printable(f"{images.name} ({images.split})")


def _claims(judgements: Sequence[Judgement]) -> str:
    header = (
        "claim", "verdict", "difference (points)", "95 % interval", "p", "p (Holm)", "seeds in favour", "bootstrap",
        "McNemar, worst seed", "about",
    )  # fmt: skip
    rows = []
    for j in judgements:
        rows.append(
            (
                f"`{j.claim.text}`",
                f"**{j.verdict}**",
                "-" if j.estimate is None else f"{j.estimate:+.{2 if j.p_value is None else 1}f}",
                j.reason if j.p_value is None else _interval(j.low, j.high),
                _p(j.p_value) + (f" ({j.of_what})" if j.of_what else ""),
                _p(j.corrected),
                "-" if j.in_favour is None else f"{j.in_favour} of {j.seeds}",
                "-" if j.bootstrap is None else _interval(*j.bootstrap),
                _p(j.mcnemar),
                j.claim.about,
            )
        )
    return _table(header, rows, right=(2, 4, 5))


def _reasons(judgements: Sequence[Judgement]) -> Iterator[str]:
    """Why figures decide nothing, where they do not."""
    lines = [f"- `{j.claim.text}`: {j.reason}" for j in judgements if j.reason and j.p_value is not None]
    if lines:
        yield "Open, whatever the figures:\n\n" + "\n".join(lines)


def _how_judged(judgements: Sequence[Judgement]) -> str:
    text = (
        "Difference: left side less right side of the claim, over seeds and test images. With three seeds or more, "
        "interval and p-value are about other seeds and other images; the model is more conservative than one in which "
        "images are the unit, and than one in which seeds are. Holm's procedure corrects for the number of claims, and "
        f"below {LEVEL:g} it decides, about this setting and nothing else. A claim about networks that did not train "
        "stays open. The bootstrap over seeds and images and McNemar's exact test, seed by seed, are checks and decide "
        "nothing."
    )
    if any(j.of_what for j in judgements):
        text += (
            " A claim with a margin (`+- 2`) has two p-values: that both sides differ, and that they are equal within "
            "the margin. The smaller one counts, and the table says which it is."
        )
    tested = [j for j in judgements if j.p_value is not None]
    if any(not j.for_other_seeds for j in tested):
        text += (
            f" With fewer than {SEEDS_FOR_OTHERS} seeds a verdict is about these networks (with two, it must hold for "
            "both) and says nothing of others that are trained alike: two seeds are too few for that."
        )
    return text


def _choices(choices: Mapping[str, search.Choice]) -> str:
    rows = [
        (
            label, f"{trial.learning_rate:g}", f"{trial.weight_decay:g}",
            *("-" if share is None else f"{100 * share:.1f}" for share in (trial.clean, trial.robust)),
            "**chosen**" if number == choice.chosen else "",
        )
        for label, choice in choices.items()
        for number, trial in enumerate(choice.trials)
    ]  # fmt: skip
    note = (
        "Each entry was trained with every combination for the study's whole budget, under a seed that is none of the "
        "study's, and is reported at the best of them: on the validation split, under PGD where the regime trains "
        "adversarially. Accuracies in percent."
    )
    header = ("entry", "learning rate", "weight decay", "clean (validation)", "robust (validation)", "")
    return note + "\n\n" + _table(header, rows, right=(1, 2, 3, 4))


def _distance(measurements: Measurements) -> str:
    """The facts of each regime's source beside ours, entries alike in one row."""
    entries: dict[tuple[str, protocol.Compared], list[str]] = {}
    for member in measurements.plan.members:
        for compared in protocol.compare(measurements.plan, member):
            source = member.regime.source if member.regime else ""
            entries.setdefault((source, compared), []).append(member.label)
    if not entries:
        return ""
    rows = [
        (source, ", ".join(labels), c.field.replace("_", " "), c.theirs, c.source, c.ours, c.state)
        for (source, c), labels in entries.items()
    ]
    counts = Counter(compared.state for _, compared in entries)
    note = (
        f"Of {counted(sum(counts.values()), 'fact')} {counts['faithful']} are faithful to the source, "
        f"{counts['ours']} are ours, {counts['unknown']} are not known of the source, and {counts['not set here']} "
        "cannot be set here. A verdict above is about what stands under *ours*."
    )
    return note + "\n\n" + _table(("source", "entries", "field", "theirs", "from", "ours", ""), rows)


def _training(measurements: Measurements) -> str:
    rows = []
    for member in measurements.plan.members:
        for seed in measurements.networks.get(member.label, {}):
            health = measurements.health(member.label, seed)
            if health is not None:
                rows.append(
                    (
                        member.label, seed, "-" if health.steps is None else f"{health.steps:,}", health.passes,
                        f"{health.final_loss:.3f}",
                        f"{health.best_loss:.3f}", "-" if health.fall is None else f"{round(health.fall, 3) + 0:.3f}",
                        "-" if health.gradient_norm is None else f"{health.gradient_norm:.2g}",
                        "-" if health.final_robust_acc is None else f"{100 * health.final_robust_acc:.1f}",
                        health.verdict if health.trained else f"**{health.verdict}**: {health.reason}",
                    )
                )  # fmt: skip
    if not rows:
        return ""
    guessing = math.log(len(measurements.plan.test_set.classes))
    note = (
        f"Loss of a network that guesses: {guessing:.3f}. Fall: how much the loss falls in the last tenth of the "
        f"epochs; above {FALLING * guessing:.3f} it counts as still falling. Robust: on the validation split under "
        "PGD, in percent."
    )
    header = (
        "entry", "seed", "steps", "passes", "last loss", "best loss", "fall", "gradient norm", "robust", "trained?",
    )  # fmt: skip
    return note + "\n\n" + _table(header, rows, right=range(1, 9))


def _figures(measurements: Measurements) -> str:
    plan = measurements.plan
    measures = [m for m in plan.measures if m.threat == plan.threat and m.asked in plan.study.suites]
    several = len(plan.study.bn_stats) > 1
    columns = [m.suite + (f" ({m.bn_stats} statistics)" if several else "") for m in measures]
    if several:
        header = ["entry", "seeds", "parameters", "trained"]
        for m, column in zip(measures, columns, strict=True):
            first = m.suite == measures[0].suite
            header += [f"clean ({m.bn_stats} statistics)"] if first else []
            header.append(column)
    else:
        header = ["entry", "seeds", "parameters", "trained", "clean", *columns]
    rows = []
    for member in plan.members:
        row: list[object] = [
            member.label,
            len(measurements.networks.get(member.label, {})),
            *_parameters(measurements, member),
        ]
        for position, m in enumerate(measures):
            if position == 0 or (several and m.suite == measures[0].suite):
                row.append(tables.clean(measurements, member.label, m))
            row.append(tables.robust(measurements, member.label, m))
        rows.append(row)
    note = "Accuracies in percent, mean ± standard deviation over seeds."
    return note + "\n\n" + _table(header, rows, right=range(1, len(header)))


def _parameters(measurements: Measurements, member: Member) -> tuple[str, str]:
    counts = tables.trained_share(measurements, member.label)
    if counts is None:
        return "-", "-"
    parameters, trained = counts
    if trained is None:
        return f"{parameters:,}", "not known"
    return f"{parameters:,}", f"{trained:,} ({100 * trained / max(1, parameters):.3g} %)"


def _published(measurements: Measurements) -> Iterator[str]:
    plan = measurements.plan
    rows, missed = [], 0
    for member in plan.members:
        for name, theirs in member.entry.published.items():
            # clean accuracy is the same by any suite, so that one that was not run takes nothing away
            measures = plan.measures if name == "clean" else [m for m in plan.measures if m.suite == name]
            found = [measurements.of(member.label, m) for m in measures if m.threat == plan.threat]
            for outcome in next((outcomes for outcomes in found if outcomes), {}).values():
                result = outcome.result
                share = result.clean_acc if name == "clean" else result.robust_acc
                low, high = stats.wilson(round(share * result.n), result.n)
                inside = low <= theirs / 100 <= high
                missed += not inside
                rows.append(
                    (
                        member.label, name, f"{100 * share:.2f}", f"{100 * low:.2f} to {100 * high:.2f}",
                        f"{theirs:.2f}", "inside" if inside else "**outside**", member.entry.notes.get(name, ""),
                    )
                )  # fmt: skip
    yield _table(
        ("entry", "figure", "ours (%)", "95 % interval (Wilson)", "published (%)", "published figure is", "note"),
        rows,
        right=(2, 4),
    )
    yield f"{missed} of {len(rows)} published figures lie outside the interval of ours."


def _curve(measurements: Measurements) -> str:
    plan = measurements.plan
    curve = plan.study.curve
    measures: list[Measure] = [] if curve is None else [m for m in plan.measures if m.asked == curve.suite]
    measures = sorted((m for m in measures if m.bn_stats == plan.primary.bn_stats), key=lambda m: m.threat.radius)
    header = ["entry", "0 (clean)", *(m.threat.eps for m in measures)]
    rows = [
        [
            member.label,
            tables.clean(measurements, member.label, measures[0]),
            *(tables.robust(measurements, member.label, m) for m in measures),
        ]
        for member in plan.members
    ]
    return f"By {measures[0].suite}, in percent.\n\n" + _table(header, rows, right=range(1, len(header)))


def _flags(measurements: Measurements) -> str:
    where: dict[Flag, list[str]] = {}
    for member in measurements.plan.members:
        for measure in measurements.plan.measures_of(member):
            flagged: dict[Flag, list[int]] = {}
            for seed, outcome in measurements.of(member.label, measure).items():
                for flag in outcome.result.flags:
                    flagged.setdefault(flag, []).append(seed)
            for flag, seeds in flagged.items():
                statistics = "" if measure.bn_stats == STORED else f", {measure.bn_stats} statistics"
                suite = f"{measure.suite} at {measure.threat.eps}{statistics}"
                where.setdefault(flag, []).append(f"{member.label} ({suite}; seeds {_listed(seeds)})")
    return "\n".join(f"- {flag}: {', '.join(places)}" for flag, places in where.items())


def _made(measurements: Measurements, sessions: Sequence[run_log.Session]) -> Iterator[str]:
    for session in sessions:
        times = f"{_minutes(session.seconds)} ({_minutes(session.cpu_seconds)} of processor time)"
        took = f"{counted(session.jobs, 'job')} in {times}"
        took += "" if session.ended else ", then cut off"
        command = f"`{session.command}`" if session.command else "called from Python"
        yield f"- {command}, {session.started}, {session.workers} at once on {session.device}: {took}"
    environments = [
        outcome.result.environment
        for networks in measurements.networks.values()
        for network in networks.values()
        for outcome in network.measured.values()
    ]
    yield from sorted({f"- {e.processor}, {e.platform}, Python {e.python}" for e in environments})
    named = ("torch", "torchvision", "numpy", "pyautoattack", "robustbench")
    yield from sorted(
        {"- " + ", ".join(f"{n} {e.versions[n]}" for n in named if n in e.versions) for e in environments}
    )
    harness = sorted(
        {outcome.result.harness_version for ns in measurements.networks.values() for n in ns.values()
         for outcome in n.measured.values()}
    )  # fmt: skip
    if harness:
        yield f"- robust-harness {', '.join(harness)}"
    yield "- every single run: `runs.csv`; means and deviations: `report.csv`"
    yield f"- all of this again from `{archive.NAME}`: `harness study report FILE --from {archive.NAME} --into DIR`"


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} min"


def _listed(values: Sequence[int]) -> str:
    return ", ".join(map(str, values))


def _interval(low: float | None, high: float | None) -> str:
    return "-" if low is None or high is None else f"{low:+.1f} to {high:+.1f}"


def _p(value: float | None) -> str:
    return "-" if value is None else p_text(value)


def _table(header: Sequence[object], rows: Sequence[Sequence[object]], *, right: Sequence[int] = ()) -> str:
    marks = ["---:" if position in right else "---" for position in range(len(header))]
    lines = [header, marks, *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)
