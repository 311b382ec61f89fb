"""Result files of older schema versions, brought to the present one when they are read. Files are never rewritten."""

from __future__ import annotations

import re
from typing import Any

from harness.audit import kinds
from harness.audit.flags import Flag, FlagKind

__all__ = ["upgraded"]

_LONGEST_TEXT, _MOST_DIGITS = 2000, 18
_STEP = r"(?:(?P<step>[^\s:]+): )?"
_TEXTS_OF_VERSION_1: tuple[tuple[str, FlagKind], ...] = (
    (r"the model is randomised.*", kinds.RANDOMISED),
    (r"the model's output depends on the rest of the batch.*", kinds.BATCH_DEPENDENT),
    (r"the model no longer answers as it did before the attack.*", kinds.STATE_KEPT),
    (r"the outputs look like probabilities.*", kinds.PROBABILITIES),
    (_STEP + r"(?P<samples>\d+) of (?P<of>\d+) samples had a gradient of exactly zero.*", kinds.ZERO_GRADIENT),
    (r"some points have a zero gradient.*", kinds.ZERO_GRADIENT),
    (r"(?P<step>\S+) broke (?P<broken>\d+) samples that the gradient attacks left standing.*", kinds.GRADIENT_MASKING),
    (r"Square broke what the gradient attacks left standing.*", kinds.GRADIENT_MASKING),
    (r"the model computes gradients inside its forward pass.*", kinds.DYNAMIC_DEFENCE),
    (
        _STEP + r"(?P<asked>\d+) target classes asked for, (?P<used>\d+) used: the model has (?P<classes>\d+) classes",
        kinds.FEWER_TARGETS,
    ),
    (_STEP + r"the (?:targeted )?DLR loss needs (?P<needed>\d+) classes.*", kinds.LOSS_REPLACED),
    (r"eps (?P<given>\S+) was given in normalised units.*", kinds.EPS_CONVERTED),
    (r"bn-stats batch: .*", kinds.BN_STATS_BATCH),
    (r"bn-stats (?P<kind>\w+): (?P<seen>\d+) of the (?P<of>\d+) images evaluated.*", kinds.BN_STATS_SEEN),
    (r"lineage: the claim of (?P<regime>.+?) could not be verified.*", kinds.LINEAGE_UNVERIFIED),
    (r"lineage: the manifest .*", kinds.LINEAGE_CONTRADICTED),
)


def upgraded(content: dict[str, Any]) -> dict[str, Any]:
    """The content of a result file in the present schema; content that needs nothing is returned as it is.

    Version 1 had flags in free words. They keep their words and get the code of what they say, or the code "legacy".
    It repeated some of them as notes of a step. It had other hashes, which `harness.results.identity.identified`
    makes anew, and did not say of the reference's steps what they were run with.
    """
    if content.get("schema_version") != 1:
        return content
    flags, steps = content.get("flags"), content.get("steps")
    if isinstance(flags, list) and all(isinstance(text, str) and len(text) <= _LONGEST_TEXT for text in flags):
        flags = [_flag(text).model_dump() for text in flags]
    if isinstance(steps, list):
        steps = [_step(step, content) if isinstance(step, dict) else step for step in steps]
    made = {"record_id": "", "recorded": content.get("started")}
    return content | made | {"schema_version": 2, "flags": flags, "steps": steps}


def _step(step: dict[str, Any], content: dict[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in step.items() if name != "notes"}
    environment = content.get("environment")
    if step.get("attack") == "pyautoattack" and isinstance(environment, dict):
        parameters = {"version": "standard", "batch_size": environment.get("batch_size")}
        kept |= {"part_of": content.get("suite"), "parameters": parameters}
    return kept


def _flag(text: str) -> Flag:
    for pattern, kind in _TEXTS_OF_VERSION_1:
        match = re.fullmatch(pattern, text, flags=re.DOTALL)
        if match:
            found = {name: value for name, value in match.groupdict().items() if value is not None}
            return kind.saying(
                text, **{n: int(v) if v.isdecimal() and len(v) <= _MOST_DIGITS else v for n, v in found.items()}
            )
    return kinds.LEGACY.saying(text or "(no words)")
