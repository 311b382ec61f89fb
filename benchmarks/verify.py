"""What it costs to verify a result: ``python -m benchmarks.verify [--n N] [--material DIR] [--json FILE]``.

A ResNet-20 with random weights is asked to keep its own predictions on CIFAR-10's test images (as JPEG where the
material is there, else on random ones); FGSM breaks what it can, and the stored result is verified on one thread.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks._foreign import add_material
from benchmarks.autoattack import machine
from harness import datasets, evaluation, models
from harness.errors import InvalidInput

__all__ = ["main", "measure"]


def measure(n: int, material: Path, threat: str = "Linf:8/255") -> dict[str, Any]:
    """Seconds to verify a result of ``n`` images, and the sizes of its files."""
    torch.set_num_threads(1)
    x, source = _images(n, material)
    model = models.build("resnet20", classes=10, shape=(3, 32, 32), seed=0).train()
    with torch.no_grad():
        model(x[:64])  # batch norms need statistics
        model.eval()
        y = torch.cat([model(part).argmax(1) for part in torch.split(x, 250)])
    with tempfile.TemporaryDirectory() as folder:
        done = evaluation.examine(model, x, y, threat=threat, suite="fgsm", workers=1)
        path = evaluation.keep(done, x, Path(folder))
        began = time.process_time()
        verification = evaluation.verify(path, model=model, x=x, y=y, device="cpu")
        cpu_seconds = time.process_time() - began
        examples = path.with_suffix(".safetensors")
        return {
            "images": n,
            "source": source,
            "broken": int((~done.verdicts.robust).sum()),
            "holds": verification.holds,
            "seconds": verification.seconds,
            "cpu_seconds": cpu_seconds,
            "examples_mb": examples.stat().st_size / 2**20 if examples.is_file() else 0.0,
            "plain_mb": int((~done.verdicts.robust).sum()) * x[0].numel() * 4 / 2**20,
        }


def _images(n: int, material: Path) -> tuple[Tensor, str]:
    try:
        return datasets.load("cifar10-jpeg", data_dir=material / "data", limit=n).x[:], "cifar10-jpeg"
    except InvalidInput:
        return torch.rand(n, 3, 32, 32, generator=torch.Generator().manual_seed(0)), "random images"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_material(parser)
    parser.add_argument("--n", type=int, default=10_000, help="images")
    parser.add_argument("--json", type=Path, help="write the figures to this file as well")
    options = parser.parse_args()
    found = measure(options.n, options.material)
    verdict = "holds" if found["holds"] else "DOES NOT HOLD"
    print(
        f"{found['images']:,} images ({found['source']}), ResNet-20, {found['broken']:,} broken: {verdict}; on one "
        f"thread {found['seconds']:.1f} s, {found['cpu_seconds']:.1f} s of processor time; examples "
        f"{found['examples_mb']:.1f} MB (plainly {found['plain_mb']:.1f})"
    )
    print(machine())
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
