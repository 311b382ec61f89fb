"""Claims written down before anything is evaluated, so that a report can say that they were not chosen afterwards.

What is registered is hashed: the moment, the claims, how they are judged, every network that will be trained, and every
evaluation. The file lies with the study and proves nothing by itself; a hash that was published, or committed to a
repository that others hold, does.
"""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from harness.errors import InvalidInput, ResultError
from harness.studies.measurements import Measurements, collect
from harness.studies.planning import Measure, Plan
from harness.util.files import write_atomically
from harness.util.reading import parse_json, read_bounded
from harness.util.text import counted, printable
from harness.util.validation import Record, validate

__all__ = ["Registration", "describe", "read", "register"]

_NAME = "registration.json"
_MOST_BYTES = 1 << 24


class Registration(Record):
    """What was registered.

    Attributes:
        registered: UTC, ISO 8601.
        sha256: of both other fields. In files of the first version it is of ``content`` alone.
        content: what the study claims, trains and measures.
    """

    registered: str
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    content: dict[str, Any]

    @field_validator("registered")
    @classmethod
    def _registered(cls, text: str) -> str:
        _moment(text)
        return text


def register(plan: Plan, output: Path) -> Registration:
    """Register the claims of a study in its folder; what is registered already is left as it is.

    Raises:
        InvalidInput: something of the study is evaluated already, or other claims are registered.
        StorageError: the folder cannot be written.
    """
    content = _content(plan)
    known = read(output)
    if known is not None:
        if known.content == content:
            return known
        raise InvalidInput(
            f"{output / _NAME} registers another version of this study ({_difference(known.content, content)}): run "
            "that one, or register this one in another folder with --output"
        )
    measured = {
        label
        for label, networks in collect(plan, output).networks.items()
        if any(network.measured for network in networks.values())
    }
    if measured:
        raise InvalidInput(
            f"claims are registered before anything is evaluated, and {', '.join(sorted(measured))} is: register them "
            "in a new folder with --output"
        )
    now = datetime.now(UTC).isoformat(timespec="seconds")
    made = Registration(registered=now, sha256=_digest([now, content]), content=content)
    write_atomically(output / _NAME, (json.dumps(made.model_dump(mode="json"), indent=2) + "\n").encode())
    return made


def read(output: Path) -> Registration | None:
    """What is registered in a study's folder, or None.

    Raises:
        ResultError: the file is damaged or was changed.
    """
    path = output / _NAME
    if not path.exists():
        return None
    try:
        found = validate(Registration, parse_json(read_bounded(path, _MOST_BYTES)), f"the registration {path}")
    except (OSError, ValueError, InvalidInput) as error:
        raise ResultError(f"the registration {path} cannot be read ({error}): restore it from where it came") from error
    if found.sha256 not in (_digest([found.registered, found.content]), _digest(found.content)):
        raise ResultError(f"the registration {path} was changed after it was written: restore it from where it came")
    return found


def describe(measurements: Measurements, output: Path) -> str:
    """What the report says: whether these claims were registered, and whether that was before anything was known."""
    known = read(output)
    if known is None:
        return "The claims were not registered before the study was run (`harness study register`)."
    content = _content(measurements.plan)
    named = f"registered on {known.registered} (SHA-256 `{known.sha256}`)"
    if known.content != content:
        return (
            f"**Not as registered.** What was {named} differs from this report: {_difference(known.content, content)}."
        )
    earlier = _evaluated_before(measurements, _moment(known.registered))
    if not earlier:
        return f"Claims, networks and evaluations were {named}, before anything was evaluated."
    which = ", ".join(f"`{label}` ({part} of {counted(all_, 'evaluation')})" for label, part, all_ in earlier)
    return f"Claims, networks and evaluations were {named}. **Evaluated before that:** {which}."


def _evaluated_before(measurements: Measurements, registered: datetime) -> list[tuple[str, int, int]]:
    """Labels of networks with results that are older, and so come from elsewhere; how many these are, of how many."""
    found = []
    for label, networks in measurements.networks.items():
        results = [outcome.result for network in networks.values() for outcome in network.measured.values()]
        try:
            older = sum(_moment(result.started) < registered for result in results)
        except ValueError as error:
            raise ResultError(f"a result of {label} does not say when it was begun: {printable(error)}") from error
        found += [(label, older, len(results))] if older else []
    return found


def _moment(text: str) -> datetime:
    """A time in ISO 8601, in UTC where it does not say; ValueError if it is none."""
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _content(plan: Plan) -> dict[str, Any]:
    study = plan.study
    return {
        "study": study.name,
        "claims": [claim.text for claim in plan.claims],
        "minimal_effect": study.minimal_effect,
        "decided_by": _words(plan.primary),
        "seeds": list(plan.seeds),
        "networks": sorted(plan.names.values()),
        "checkpoints": {m.label: m.source.manifest.weights_sha256 for m in plan.members if m.source is not None},
        "evaluations": [_words(measure) for measure in plan.measures],
        "test_data": [plan.test_set.name, plan.test_set.split, len(plan.test_set), plan.test_set.sha256],
    }


def _words(measure: Measure) -> str:
    return f"{measure.suite} {measure.threat} {measure.bn_stats}"


def _difference(registered: dict[str, Any], content: dict[str, Any]) -> str:
    """Which parts differ, and of the claims which."""
    parts = []
    for name in dict.fromkeys((*registered, *content)):
        before, now = registered.get(name), content.get(name)
        if before == now:
            continue
        if name == "claims" and isinstance(before, list) and isinstance(now, list):
            added, gone = [c for c in now if c not in before], [c for c in before if c not in now]
            parts += [f"added claim `{c}`" for c in added] + [f"missing claim `{c}`" for c in gone]
            parts += [] if added or gone else ["claims in another order"]
        else:
            parts.append(f"other {name.replace('_', ' ')}")
    return "; ".join(parts)


def _digest(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
