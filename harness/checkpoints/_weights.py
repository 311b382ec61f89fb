"""The weights of one architecture out of a file that may hold much else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from harness.checkpoints._constants import constants_of
from harness.checkpoints._conversion import converted
from harness.checkpoints._holdings import Holdings, holdings, renamed
from harness.checkpoints._matching import Match, find_matches
from harness.checkpoints._tensors import some
from harness.errors import CheckpointError
from harness.models import Normalization
from harness.util.text import counted
from harness.weights import WeightsFile

__all__ = ["Weights", "find_weights"]

_MOST_COPIES = 16


@dataclass(frozen=True)
class Weights:
    """What an import takes from a file.

    Attributes:
        tensors: under the architecture's names, in its types. normalizations: what the file's model may have done to
            images first, with the names of the constants in the file.
        notes: what was chosen, changed and left out, a line each.
    """

    tensors: Mapping[str, Tensor]
    normalizations: Mapping[Normalization, tuple[str, ...]]
    notes: tuple[str, ...]


def find_weights(
    file: WeightsFile,
    state: Mapping[str, Any],
    architecture: str,
    channels: int,
    *,
    entry: str | None = None,
    renames: Sequence[tuple[str, str]] = (),
) -> Weights:
    """Find the weights of a network in a file (see `harness.checkpoints._matching` for the rule).

    Args:
        state: the network's state dict.
        architecture: what the network is called in errors. channels: of the images, for a normalisation.
        entry: which entry to take. renames: parts of names to replace first.

    Raises:
        CheckpointError: they are not in the file, or several sets of them that differ and none was chosen.
    """
    where = str(file.path)
    expected = _tensors_only(state)
    held = holdings(file.value, where)
    held = renamed(held, renames, where) if renames else held
    matches = find_matches(held, expected, where, architecture, entry=entry)
    tensors = _same(file, matches, where)
    notes = [f"renamed {old} to {new}" if new else f"took {old} out of names" for old, new in renames]
    match = matches[0]
    if entry is not None or len(matches) > 1:
        notes.append(f"took the weights in {match.label}")
    if len(matches) > 1:
        notes.append(f"the same weights are in {some(other.label for other in matches[1:])}")
    if match.wrapper:
        notes.append(f"took the prefix {match.wrapper!r} off all names")
    used = {other.prefix + name for other in matches for name in other.tensors}
    spare = {name: tensor for name, tensor in held.tensors.items() if name not in used}
    normalizations = constants_of(file, spare, channels)
    constants = [name for names in normalizations.values() for name in names]
    if len(normalizations) == 1:
        notes.append(f"moved the normalization ({', '.join(constants)}) into the manifest")
    notes += _left_out(held, match, [name for name in spare if name not in constants])
    if file.objects:
        notes.append(f"did not open objects of {some(file.objects)}")
    held_tensors, conversions = converted(tensors, expected)
    return Weights(held_tensors, normalizations, (*notes, *conversions))


def _tensors_only(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """A state dict that holds tensors and nothing else.

    Raises:
        CheckpointError: names what is none.
    """
    wrong = [name for name, value in state.items() if not isinstance(value, Tensor)]
    if wrong:
        raise CheckpointError(
            f"the architecture keeps more than tensors in its state dict ({some(wrong)}), which a checkpoint cannot "
            "hold: leave out get_extra_state, and quantise after loading"
        )
    return dict(state)


def _same(file: WeightsFile, matches: Sequence[Match], where: str) -> dict[str, Tensor]:
    """The tensors of the first match, which those of all others must equal."""
    tensors = file.read(matches[0].tensors)
    copies = (file.read(other.tensors) for other in matches[1:_MOST_COPIES])
    if len(matches) > _MOST_COPIES or not all(_equal(tensors, copy) for copy in copies):
        raise CheckpointError(
            f"{where} holds several weights that fit and differ ({some(match.label for match in matches)}): say which "
            "of them to take with --entry"
        )
    return tensors


def _equal(tensors: Mapping[str, Tensor], others: Mapping[str, Tensor]) -> bool:
    return all(torch.equal(tensors[name], others[name]) for name in tensors.keys() & others.keys())


def _left_out(held: Holdings, match: Match, spare: Sequence[str]) -> list[str]:
    """A note on the other tensors in the entry that the weights lie in."""
    begin = f"{match.entry}." if match.entry else ""
    beside = [name.removeprefix(begin) for name in spare if held.entry_of(name) == match.entry]
    return [f"left out {counted(len(beside), 'tensor')} that the architecture lacks ({some(beside)})"] if beside else []
