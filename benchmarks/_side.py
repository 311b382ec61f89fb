"""One side of a comparison, in a process of its own: run it, print one JSON line.

``python -m benchmarks._side '{"side": "ours", "model": ..., ...}'``; not meant to be called by hand.
"""

from __future__ import annotations

import json
import resource
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.fx

from benchmarks._foreign import WIDE, load, samples, wide
from harness.backends.passes import Passes
from harness.evaluation import _pyautoattack, examine
from harness.suites import Step, Suite

__all__ = ["main"]

# so many passes are made again to learn what they cost bare
_SAMPLED = 400


def main() -> None:
    """Run what the first argument describes."""
    job: dict[str, Any] = json.loads(sys.argv[1])
    material = Path(job["material"])
    torch.set_num_threads(job["threads"])
    device = torch.device(job.get("device", "cpu"))
    model = (wide(job["n"]) if job["model"] == WIDE else load(job["model"], material)).to(device)
    x, y = samples("cifar" if job["model"] == WIDE else job["model"], job["source"], material)
    repeats = -(-job["n"] // len(x))
    x, y = x.repeat(repeats, 1, 1, 1)[: job["n"]], y.repeat(repeats)[: job["n"]]
    with torch.no_grad():
        model(x[:4].to(device))  # one-off costs of the first pass belong to neither side
        if job["model"] == WIDE:
            y = torch.cat([model(part.to(device)).argmax(1).cpu() for part in torch.split(x, 64)])
    answer = _reference(job, model, x, y) if job["side"] == "reference" else _ours(job, model, x, y)
    if device.type == "cuda":
        answer["gpu_peak_mb"] = torch.cuda.max_memory_allocated() / 2**20
    print(json.dumps({"peak_mb": _peak_mb(), **answer}))


def _peak_mb() -> float:
    return max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) / 1024


def _reference(job: dict[str, Any], model: torch.nn.Module, x: torch.Tensor, y: torch.Tensor) -> dict[str, Any]:
    device = job.get("device", "cpu")
    seconds = []
    for _ in range(job["repeats"]):
        began = time.perf_counter()
        outcome = _pyautoattack.attack(
            model,
            x.to(device),
            y.to(device),
            job["threat"],
            seed=job["seed"],
            batch_size=job["batch_size"] or len(x),
            device=device,
        )
        seconds.append(time.perf_counter() - began)
    return {
        "seconds": statistics.median(seconds),
        "all_seconds": seconds,
        "passes": sum(step.forward for step in outcome.steps),
        "robust": outcome.robust.tolist(),
        "steps": [[s.name, s.before, s.after, s.forward, s.backward, s.seconds] for s in outcome.steps],
    }


def _ours(job: dict[str, Any], model: torch.nn.Module, x: torch.Tensor, y: torch.Tensor) -> dict[str, Any]:
    suite: Any = job["suite"]
    if isinstance(suite, list):
        suite = Suite("short", tuple(Step(*step) for step in suite))

    def run() -> tuple[float, Any]:
        began = time.perf_counter()
        done = examine(
            model,
            x,
            y,
            threat=job["threat"],
            suite=suite,
            seed=job["seed"],
            batch_size=job["batch_size"] or "auto",
            precision=job["precision"],
            workers=job["workers"],
            device=job.get("device", "cpu"),
            compiled=job.get("compiled", False),
            graphs=job.get("graphs"),
        )
        return time.perf_counter() - began, done

    seconds: list[float] = []
    shares: list[float] = []
    for _ in range(job["repeats"]):
        with _watched() as passes:
            spent, done = run()
        seconds.append(spent)
        shares.append(spent / passes.seconds if passes.seconds else 0.0)  # those of a GPU are not timed one by one
    peak = _peak_mb()  # before passes are made again
    slower = None
    if job.get("pure"):
        with _watched(again=max(1, passes.made // _SAMPLED)) as sampled:
            run()
        slower = sampled.sampled_seconds / sampled.bare_seconds
    result = done.result
    judged = sum(step.judge for step in result.steps)
    return {
        "peak_mb": peak,
        "seconds": statistics.median(seconds),
        "all_seconds": seconds,
        "passes": int(done.verdicts.forward.sum()) + judged,
        "judged": judged,
        "robust": done.verdicts.robust.tolist(),
        "steps": [[s.name, s.before, s.after, s.forward, s.backward, s.seconds] for s in result.steps],
        "overhead": result.overhead,
        "model_seconds": result.model_seconds,
        "backward": int(done.verdicts.backward.sum()),
        "batch": result.environment.batch_size,
        "over_passes": statistics.median(shares) if job["workers"] == 1 else None,
        "slower_than_bare": slower,
        "passes_made": result.environment.passes,
    }


@dataclass
class _Seen:
    """Passes made: how many and their seconds; those made again, their seconds when they were made, and bare."""

    made: int = 0
    seconds: float = 0.0
    sampled_seconds: float = 0.0
    bare_seconds: float = 0.0


@contextmanager
def _watched(again: int = 0) -> Iterator[_Seen]:
    """Time the passes made inside on a CPU.

    Every ``again``-th is made again at once, three times in a loop that does nothing else, of which the median is what
    such a pass costs bare: side by side, because the speed of a machine drifts.
    """
    seen = _Seen()
    original = Passes._timed

    def timed(self: Passes, x: torch.Tensor, one: Any, part: slice) -> Any:
        before = self.seconds
        out = original(self, x, one, part)
        spent = self.seconds - before
        seen.made += 1
        seen.seconds += spent
        # at the first pass of all the engine notes what the model calls, and would note this as well
        if again and seen.made % again == 0 and self.classes is not None:
            batch = x[part].contiguous(memory_format=self.layout)
            times = [_bare(self.network, batch, gradient="gradient" in one.__qualname__) for _ in range(3)]
            seen.sampled_seconds += spent
            seen.bare_seconds += statistics.median(times)
        return out

    Passes._timed = timed  # type: ignore[method-assign]
    try:
        yield seen
    finally:
        Passes._timed = original  # type: ignore[method-assign]


def _bare(network: torch.nn.Module, batch: torch.Tensor, *, gradient: bool) -> float:
    """Seconds of one pass, and of nothing else."""
    began = time.perf_counter()
    if gradient:
        leaf = batch.detach().requires_grad_()
        with torch.enable_grad():
            torch.autograd.grad(network(leaf).logsumexp(1).sum(), leaf)
    else:
        with torch.no_grad():
            network(batch)
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
