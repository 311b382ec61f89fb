"""What is remembered of evaluations that were found in the store, so that they are found again without planning them.

Planning an evaluation computes the hashes that it and its record are known by, and takes seconds: torch is imported,
the network is built, weights and images are read and hashed. All that is a function of a few files and of what was
asked for. A receipt says which hashes that function gave for one content of all of them, the inputs. It never says what
was found: the store is asked for the hashes.

Receipts are kept where only the user writes, and each carries a proof that this user wrote it (`harness.util.trust`).
"""

from __future__ import annotations

import hmac
import re
from contextlib import suppress
from pathlib import Path

from harness.errors import StorageError
from harness.util import paths, trust
from harness.util.files import write_atomically
from harness.util.reading import read_bounded

__all__ = ["recall", "remember"]

_FORM = re.compile(r"([0-9a-f]{64}) ([0-9a-f]{64}) (\S+)")
_LARGEST = 1 << 12
_MOST = 4096
"""Receipts in the folder; beyond that the older half is removed."""


def remember(inputs: str, evaluation_id: str, record_id: str) -> None:
    """Keep the hashes that follow from inputs. Where nothing can be kept, nothing is.

    Args:
        inputs: hash of all that they follow from.
    """
    path, proof = _path(inputs), _proof(inputs, evaluation_id, record_id)
    if proof is None:
        return
    with suppress(StorageError, OSError):
        write_atomically(path, f"{evaluation_id} {record_id} {proof}".encode())
        _remove_oldest(path.parent)


def recall(inputs: str) -> tuple[str, str] | None:
    """The evaluation's and the record's hash that follow from inputs, if that is remembered."""
    try:
        found = _FORM.fullmatch(read_bounded(_path(inputs), _LARGEST).decode("ascii"))
    except (OSError, ValueError):
        return None
    if found is None:
        return None
    evaluation_id, record_id, proof = found.groups()
    own = _proof(inputs, evaluation_id, record_id)
    return (evaluation_id, record_id) if own is not None and hmac.compare_digest(proof, own) else None


def _path(inputs: str) -> Path:
    return paths.user_root() / "receipts" / inputs


def _proof(inputs: str, evaluation_id: str, record_id: str) -> str | None:
    return trust.own_proof(f"receipt-{inputs}-{evaluation_id}-{record_id}")


def _remove_oldest(folder: Path) -> None:
    kept = list(folder.iterdir())
    if len(kept) > _MOST:
        for path in sorted(kept, key=lambda path: path.stat().st_mtime)[: len(kept) - _MOST // 2]:
            path.unlink(missing_ok=True)
