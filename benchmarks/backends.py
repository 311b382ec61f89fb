"""What a pass costs, ours against the plain model as the reference makes it, on networks that nobody tuned for.

``python -m benchmarks.backends [--networks NAME ...] [--rows 96] [--rounds 5] [--precision fp32] [--json FILE]``

The reference sends all rows through the plain model at once; ours uses the backend and the micro-batch that
`harness.backends.choose` finds. Both alternate in one process on one thread; the table shows the medians of CPU
milliseconds per image, and their ratio. Weights are random: they do not change what a pass costs.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from benchmarks.autoattack import machine
from harness import models
from harness.backends import Backend, eager, plain
from harness.backends.choose import choose
from harness.backends.passes import Passes

__all__ = ["NETWORKS", "main"]


def _built(architecture: str, **options: object) -> Callable[[], nn.Module]:
    return lambda: models.build(architecture, classes=10, shape=(3, 32, 32), seed=0, **options)  # type: ignore[arg-type]


def _vit() -> nn.Module:
    from torchvision.models import VisionTransformer

    network: nn.Module = VisionTransformer(
        image_size=32, patch_size=4, num_layers=4, num_heads=3, hidden_dim=96, mlp_dim=192, num_classes=10
    )
    return network


def _group_norm_silu() -> nn.Module:
    layers: list[nn.Module] = []
    for before, width, stride in ((3, 32, 1), (32, 64, 2), (64, 128, 2)):
        layers += [nn.Conv2d(before, width, 3, stride=stride, padding=1), nn.GroupNorm(8, width), nn.SiLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 10))


def _perceptron() -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(3072, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10)
    )


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "resnet32": _built("resnet32"),
    "wrn-28-10": _built("wrn-28-10"),
    "leaky-resnet32 (pre-activation)": _built("leaky-resnet32"),
    "densenet121": _built("torchvision:densenet121"),
    "vgg11_bn": _built("torchvision:vgg11_bn"),
    "mobilenet_v2": _built("torchvision:mobilenet_v2"),
    "mobilenet_v3_small": _built("torchvision:mobilenet_v3_small"),
    "convnext_tiny": _built("torchvision:convnext_tiny"),
    "ViT (4 layers, 96 wide)": _vit,
    "GroupNorm and SiLU": _group_norm_silu,
    "MLP (512, 512)": _perceptron,
    "timm:resnet10t": _built("timm:resnet10t"),
    "robustbench:Hendrycks2020AugMix_WRN": _built("robustbench:cifar10/corruptions/Hendrycks2020AugMix_WRN"),
}
_LARGE = {"wrn-28-10": 8}
"""Networks of which fewer rows are enough."""


def main() -> None:
    """Time every network and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), metavar="NAME", help="only these")
    parser.add_argument("--rows", type=int, default=96, help="images that are passed in each round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16"])
    parser.add_argument("--json", type=Path, help="write all figures to this file as well")
    options = parser.parse_args()
    torch.set_num_threads(1)
    console, rows = Console(width=170), []
    console.print(
        f"[bold]{machine()}[/]; {options.rows} rows, {options.rounds} rounds, {options.precision}, one thread"
    )
    header = ("network", "plain forward", "ours", "ratio", "plain both ways", "ours", "ratio", "what ours is")
    table = Table(*header)
    for name in options.networks or NETWORKS:
        row = _row(name, _LARGE.get(name, options.rows), options.rounds, options.precision)
        rows.append(row)
        cells = [name, *(f"{row[key]:.3f}" if "ratio" not in key else f"{row[key]:.2f}" for key in _FIGURES)]
        table.add_row(*cells, str(row["ours"]))
        console.print(" | ".join([*cells, str(row["ours"])]))
        if options.json is not None:
            options.json.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=2) + "\n", encoding="utf-8")
    console.print(table)


_FIGURES = ("plain_forward", "ours_forward", "ratio_forward", "plain_both", "ours_both", "ratio_both")


def _row(name: str, n: int, rounds: int, precision: str) -> dict[str, object]:
    model = NETWORKS[name]().eval()
    x = torch.rand(n, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    (choice, *_), _ = choose(plain(model), [eager(model, precision=precision)], x[:24], largest=max(n, 24))
    sides = {"plain": _passes(plain(model), n, None, x), "ours": _passes(choice.backend, n, choice.micro_batch, x)}
    seconds: dict[str, list[float]] = {}
    for _ in range(rounds):
        for side, passes in sides.items():
            seconds.setdefault(f"{side}_forward", []).append(_timed(lambda p=passes: p.logits(x, "timed")))  # type: ignore[misc]
            seconds.setdefault(f"{side}_both", []).append(_timed(lambda p=passes: p.gradient(x, _loss, "timed")))  # type: ignore[misc]
    row: dict[str, object] = {key: 1000 * statistics.median(values) / n for key, values in seconds.items()}
    for kind in ("forward", "both"):
        ratios = [a / b for a, b in zip(seconds[f"plain_{kind}"], seconds[f"ours_{kind}"], strict=True)]
        row[f"ratio_{kind}"] = statistics.median(ratios)
    return {"network": name, "rows": n, **row, "ours": ", ".join(choice.notes)}


def _passes(backend: Backend, limit: int, micro_batch: int | None, x: Tensor) -> Passes:
    return Passes(backend.network, 10, limit, backend.precision, backend.layout_of(x), micro_batch=micro_batch)


def _loss(logits: Tensor, part: slice) -> Tensor:
    return logits.logsumexp(dim=1)


def _timed(call: Callable[[], object]) -> float:
    began = time.process_time()
    call()
    return time.process_time() - began


if __name__ == "__main__":
    main()
