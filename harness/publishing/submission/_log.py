"""The log of an evaluation, as AutoAttack users know it, with all that is needed to repeat it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from harness.publishing.submission._entry import percentage
from harness.results.record import Result
from harness.util.text import printable

__all__ = ["evaluation_log"]


def evaluation_log(result: Result) -> str:
    """What happened, a line each; a function of the result alone."""
    return "\n".join(printable(line, longest=1000) for line in _lines(result)) + "\n"


def _lines(result: Result) -> Iterator[str]:
    model, data, where = result.model, result.dataset, result.environment
    yield f"robust-harness {result.harness_version}, started {result.started}"
    yield f"model {result.checkpoint}: {model.architecture}, {model.parameters:,} parameters, SHA-256 {model.sha256}"
    yield f"images: {result.n:,} of {data.size:,} of {data.name} {data.split}, SHA-256 {data.sha256}"
    yield f"threat model: {result.threat.norm}, eps {result.threat.eps} (radius {result.threat.radius:g})"
    yield f"suite {result.suite}, seed {result.seed}, precision of the attacks {where.precision}"
    yield f"on {where.device} ({where.processor}), workers {where.workers}, batch size {where.batch_size}"
    yield f"with Python {where.python}, {', '.join(f'{name} {version}' for name, version in where.versions.items())}"
    yield ""
    yield f"initial accuracy: {percentage(result.clean_acc)}%"
    spent = 0.0
    for step in result.steps:
        spent += step.seconds
        yield (
            f"robust accuracy after {step.name}: {percentage(step.after / result.n)}% ({step.before - step.after} of "
            f"{step.before} broken, {step.forward:,} forward and {step.backward:,} backward passes, total time "
            f"{spent:.1f} s)"
        )
    yield f"robust accuracy: {percentage(result.robust_acc)}%"
    yield ""
    for flag in result.flags:
        yield f"{flag.severity} {flag.code}: {flag}"
    yield f"flags of severity warn or refuse: {sum(flag.doubtful for flag in result.flags)}"
    yield f"evaluation {result.evaluation_id}"
    yield f"repeat: {_command(result)}"


def _command(result: Result) -> str:
    words = ["harness", "evaluate", "--checkpoint", result.checkpoint, "--suite", result.suite]
    words += ["--dataset", result.dataset.name, "--norm", result.threat.norm, "--eps", result.threat.eps]
    words += ["--limit", str(result.n)] if result.partial else []
    return shlex.join([*words, "--seed", str(result.seed), "--force"])
