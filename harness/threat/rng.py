"""Randomness keyed per sample.

Every random number is a function of (seed, stream, sample, run, counter) and of nothing else, so that
another batch size, order, shard split or worker count draws the same numbers for a sample, and a run
that was killed needs no generator state to continue. A sample is identified by its content, not by its
place in a list.

The generator is Philox (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"), a
counter-based generator: key and counter are set freely, so nothing has to be skipped.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from harness.util.images import Images, blocks

__all__ = ["Draws", "sample_keys"]


def sample_keys(x: Images) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    """A 64-bit key per sample from its pixels (as float32): ``[n, ...] -> uint64 [n]``."""
    digests = (
        hashlib.blake2b(row.tobytes(), digest_size=8).digest()
        for part in blocks(x)
        for row in part.detach().to("cpu", torch.float32).reshape(len(part), -1).contiguous().numpy()
    )
    return np.frombuffer(b"".join(digests), dtype="<u8").astype(np.uint64)


@dataclass(frozen=True)
class Draws:
    """The random numbers of a batch of samples in one run of one attack.

    Args:
        keys: one 64-bit key per sample (`sample_keys`).
        seed: the user's seed.
        stream: what draws, for example the name of the suite's step.
        runs: which restart or target of it each row is in (one number means all rows).
    """

    keys: np.ndarray[tuple[int], np.dtype[np.uint64]]
    seed: int
    stream: str
    runs: int | np.ndarray[tuple[int], np.dtype[np.int64]] = 0

    def __len__(self) -> int:
        return len(self.keys)

    def rows(self, index: Tensor) -> Draws:
        """The draws of some of the samples (``index``: bool mask or positions)."""
        chosen = index.cpu().numpy()
        runs = self.runs if isinstance(self.runs, int) else self.runs[chosen]
        return replace(self, keys=self.keys[chosen], runs=runs)

    def at(self, run: int) -> Draws:
        """The same samples in another run."""
        return replace(self, runs=run)

    @staticmethod
    def join(parts: Sequence[Draws]) -> Draws:
        """The rows of several draws of the same seed and stream, in order."""
        runs = [np.broadcast_to(np.asarray(part.runs, dtype=np.int64), len(part)) for part in parts]
        return replace(parts[0], keys=np.concatenate([part.keys for part in parts]), runs=np.concatenate(runs))

    def uniform(self, counter: int, shape: Sequence[int]) -> Tensor:
        """Uniform on [0, 1): float64 ``[n, *shape]`` on the CPU."""
        word = hashlib.blake2b(f"{self.seed}/{self.stream}".encode(), digest_size=8).digest()
        stream = int.from_bytes(word, "little")
        out = np.empty((len(self.keys), *shape), dtype=np.float64)
        runs = np.broadcast_to(np.asarray(self.runs), len(self.keys))
        for row, (key, run) in enumerate(zip(self.keys, runs, strict=True)):
            # the first word of the counter is left free for the numbers drawn here
            start = np.array([0, counter, run, 0], dtype=np.uint64)
            philox = np.random.Philox(key=np.array([key, stream], dtype=np.uint64), counter=start)
            np.random.Generator(philox).random(out=out[row, ...])
        return torch.from_numpy(out)

    def normal(self, counter: int, shape: Sequence[int]) -> Tensor:
        """Standard normal: float64 ``[n, *shape]`` on the CPU."""
        u = self.uniform(counter, shape)
        # uniform() can return 0, whose quantile is -inf
        normal: Tensor = torch.special.ndtri(u.clamp(min=2**-54))
        return normal
