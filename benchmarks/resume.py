"""What a kill costs: ``python -m benchmarks.resume [--moments N] [--seed N] [--json FILE]``.

An evaluation is killed (SIGKILL) at seeded random moments, each time in a new run, by turns with one worker and with
two, and the same evaluation is run again to its end, by turns with one and with two. Passes are counted in a file that
outlives a kill. Redone is what both runs made together beyond a whole one. The verdicts must be those of the whole run.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from benchmarks.autoattack import machine
from harness import datasets
from harness.backends import Backend
from harness.backends.choose import Choice, Spent
from harness.engine import preflight
from harness.evaluation import examine
from harness.suites import Step, Suite

__all__ = ["Kill", "kills", "main"]

_SUITE = Suite(
    "resumed",
    (
        Step("apgd-ce", "apgd", {"steps": 60}),
        Step("apgd-t", "apgd", {"loss": "dlr-targeted", "steps": 20, "targets": 9}),
        Step("square", "square", {"queries": 600}),
    ),
)
_IMAGES, _ROWS = 100, 24


@dataclass(frozen=True)
class Kill:
    """One kill and what came after it.

    Attributes:
        before, after: workers of the run that was killed, and of the one that continued it.
        moment: seconds after the attack began. share: rows through the model by then, of those of a whole run.
        redone: rows made again. seconds: how long those take, all workers together.
        same: whether the verdicts are those of the whole run, bit for bit.
    """

    before: int
    after: int
    moment: float
    share: float
    redone: int
    seconds: float
    same: bool


class _Counted(nn.Module):
    """A network that writes the rows of every pass of an attack to a file."""

    def __init__(self, network: nn.Module, file: Path) -> None:
        super().__init__()
        self.network = network
        self.descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self.counts = True

    def __deepcopy__(self, memo: dict[int, Any]) -> _Counted:
        copy = _Counted.__new__(_Counted)
        nn.Module.__init__(copy)
        copy.network, copy.descriptor, copy.counts = self.network, self.descriptor, self.counts
        return copy

    def forward(self, x: Tensor) -> Tensor:
        # decided by the data, so that no traced graph takes the place of this code
        if x.sum() >= 0 and self.counts:
            os.write(self.descriptor, len(x).to_bytes(4, "little"))
        out: Tensor = self.network(x)
        return out


def kills(moments: int, seed: int, folder: Path) -> list[Kill]:
    """Kill so many evaluations, and continue each.

    Args:
        folder: for the saved states.
    """
    chance, found = random.Random(seed), []
    whole = {workers: _run(folder / f"whole-{workers}", workers) for workers in (1, 2)}
    for number in range(moments):
        before, after = 1 + number % 2, 1 + number // 2 % 2
        place = folder / f"killed-{number}"
        moment = chance.uniform(0.02, 0.98) * whole[before]["seconds"]
        killed = _run(place, before, kill_after=moment)
        while "verdicts" in killed:  # it was faster this time, and over before it could be killed
            moment *= 0.7
            killed = _run(place, before, kill_after=moment)
        rest = _run(place, after)
        rows = whole[before]["rows"]
        redone = killed["rows"] + rest["rows"] - rows
        seconds = redone * whole[before]["seconds"] * before / rows
        same = rest["verdicts"] == whole[after]["verdicts"]
        found.append(Kill(before, after, moment, killed["rows"] / rows, redone, seconds, same))
    return found


def _run(place: Path, workers: int, kill_after: float | None = None) -> dict[str, Any]:
    """An evaluation in a process of its own, killed so many seconds after its attack began."""
    place.mkdir(exist_ok=True)
    passes, began, answer = place / "passes", place / "began", place / "answer"
    for file in (passes, began, answer):
        file.unlink(missing_ok=True)
    child = os.fork()
    if child == 0:
        try:
            _evaluate(place / "state", workers, passes, began, answer)
        finally:
            os._exit(0)
    ended = 0
    while kill_after is not None and not ended and not _is_due(began, kill_after):
        time.sleep(0.005)
        ended = os.waitpid(child, os.WNOHANG)[0]
    if kill_after is not None and not ended:
        os.kill(child, signal.SIGKILL)
    if not ended:
        os.waitpid(child, 0)
    time.sleep(0.3)  # workers end a moment after their parent
    content = passes.read_bytes() if passes.is_file() else b""
    rows = sum(int.from_bytes(content[i : i + 4], "little") for i in range(0, len(content), 4))
    told: dict[str, Any] = json.loads(answer.read_text()) if answer.is_file() else {}
    return {"rows": rows, **told}


def _is_due(began: Path, seconds: float) -> bool:
    return began.is_file() and time.time() >= began.stat().st_mtime + seconds


def _evaluate(state: Path, workers: int, passes: Path, began: Path, answer: Path) -> None:
    torch.set_num_threads(1)
    from harness import checkpoints

    digits = datasets.load("digits", limit=_IMAGES)
    network = checkpoints.load("at_full").model
    model = _Counted(network, passes).eval()
    prepare = preflight.prepare

    def uncounted(*args: Any, **settings: Any) -> Any:
        """What is timed and compared at every start is no work of the attack."""
        model.counts = False
        prepared = prepare(*args, **settings)
        for module in (model, prepared.machine.passes.network):
            for part in module.modules():
                if isinstance(part, _Counted):
                    part.counts = True
        began.touch()
        return prepared

    def fixed(plain: Backend, copies: list[Backend], images: Tensor, *, largest: int) -> tuple[list[Choice], Spent]:
        """The first copy in batches of one size: one that is chosen by timing rounds otherwise than another run's."""
        return [Choice(backend, min(_ROWS, largest), list(backend.notes)) for backend in (*copies, plain)], Spent(0, 0)

    with patch.multiple(preflight, prepare=uncounted, choose=fixed):
        done = examine(
            model,
            digits.x,
            digits.y,
            threat="Linf:0.15",
            suite=_SUITE,
            workers=workers,
            batch_size=64,
            state_dir=state,
        )
    seconds = time.time() - began.stat().st_mtime
    verdicts = {name: array.tolist() for name, array in done.verdicts.arrays().items()}
    # of passes, those that a sample cost at the start of each process differ
    kept = {name: verdicts[name] for name in ("index", "y", "clean_pred", "robust", "broken_by", "adv_pred")}
    answer.write_text(json.dumps({"seconds": seconds, "verdicts": kept}))


def main() -> None:
    """Kill, continue, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--moments", type=int, default=20, help="kills")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--json", type=Path, help="write the figures to this file as well")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = kills(options.moments, options.seed, Path(folder))
    table = Table("workers", "then", "killed at (s)", "of the work", "rows redone", "seconds redone", "same verdicts")
    for kill in found:
        table.add_row(
            str(kill.before),
            str(kill.after),
            f"{kill.moment:.1f}",
            f"{kill.share:.0%}",
            f"{kill.redone:,}",
            f"{kill.seconds:.1f}",
            "yes" if kill.same else "NO",
        )
    Console(width=110).print(table)
    worst = max(kill.seconds / kill.before for kill in found)
    mean = sum(kill.seconds / kill.before for kill in found) / len(found)
    same = sum(kill.same for kill in found)
    print(f"{len(found)} kills: {mean:.1f} s of work a worker redone on average, {worst:.1f} at most; {same} same")
    print(machine())
    if options.json is not None:
        options.json.write_text(json.dumps([asdict(kill) for kill in found], indent=2) + "\n", encoding="utf-8")
    if same < len(found):
        raise SystemExit("a run that was continued has other verdicts than a whole one")


if __name__ == "__main__":
    main()
