"""One side of a comparison, in a process of its own: run it, print one JSON line.

``python -m benchmarks._side '{"side": "ours", "model": ..., ...}'``; not meant to be called by hand.
"""

from __future__ import annotations

import json
import resource
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks._foreign import WIDE, load, samples, wide
from harness import reference
from harness.accelerate import accelerate
from harness.evaluation import Evaluation, examine
from harness.suites import Step, Suite

__all__ = ["main"]


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
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    print(json.dumps({**answer, "peak_mb": peak / 1024}))


def _reference(job: dict[str, Any], model: torch.nn.Module, x: torch.Tensor, y: torch.Tensor) -> dict[str, Any]:
    device = job.get("device", "cpu")
    seconds = []
    for _ in range(job["repeats"]):
        began = time.perf_counter()
        outcome = reference.run(
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
    seconds = []
    for _ in range(job["repeats"]):
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
            graphs=job.get("graphs", False),
        )
        seconds.append(time.perf_counter() - began)
    result = done.result
    judged = sum(step.judge for step in result.steps)
    return {
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
        "pure_seconds": _pure_seconds(job, model, x, done) if job.get("pure") else None,
        "passes_made": result.environment.passes,
    }


def _pure_seconds(job: dict[str, Any], model: torch.nn.Module, x: torch.Tensor, done: Evaluation) -> float:
    """What the same passes cost in bare loops: each step's passes at the batch that stood through it."""
    fast, notes = accelerate(model, precision=job["precision"])
    layout = torch.channels_last if "channels_last" in notes else torch.contiguous_format

    def median(pass_: Any, batch: torch.Tensor) -> float:
        times = []
        for _ in range(7):
            began = time.perf_counter()
            pass_(batch)
            times.append(time.perf_counter() - began)
        return statistics.median(times[1:]) / len(batch)

    def forward(network: torch.nn.Module, batch: torch.Tensor) -> None:
        with torch.no_grad():
            network(batch)

    def both(batch: torch.Tensor) -> None:
        leaf = batch.detach().requires_grad_()
        torch.autograd.grad(fast(leaf).logsumexp(1).sum(), leaf)

    total = len(x) * median(lambda batch: forward(model, batch), x[:128])
    for step in done.result.steps:
        if step.forward:
            batch = x[: max(1, min(128, step.after or step.before))].contiguous(memory_format=layout)
            total += step.backward * median(both, batch)
            total += (step.forward - step.backward) * median(lambda b: forward(fast, b), batch)
            total += step.judge * median(lambda b: forward(model, b), x[: len(batch)])
    return total


if __name__ == "__main__":
    main()
