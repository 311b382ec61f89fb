"""What a caller has set in torch changes no verdict, and is as it was afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from harness import checkpoints, datasets
from harness.batchnorm.statistics import BnStatistics
from harness.evaluation import Evaluation, examine, plan_checkpoint, run
from harness.models import Model
from harness.threat import ThreatModel
from harness.util.torch_state import pinned


def network(dtype: torch.dtype = torch.float32) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 24), nn.ReLU(), nn.Linear(24, 5))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / 4)
    return model.to(dtype).eval()


def samples(model: nn.Module) -> tuple[Tensor, Tensor]:
    x = torch.rand(24, 1, 6, 6, generator=torch.Generator().manual_seed(1))
    dtype = next(model.parameters()).dtype
    with torch.no_grad():
        return x.to(dtype), model(x.to(dtype)).argmax(1)


MODEL = network()
X, Y = samples(MODEL)


def attacked(model: nn.Module = MODEL, x: Tensor = X, y: Tensor = Y, **settings: Any) -> Evaluation:
    return examine(model, x, y, **{"threat": "Linf:0.05", "suite": "pgd-20", "workers": 1} | settings)


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@contextmanager
def matmul_precision(name: str) -> Iterator[None]:
    before = torch.backends.mkldnn.matmul.fp32_precision  # type: ignore[attr-defined]
    torch.set_float32_matmul_precision(name)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision("highest")
        torch.backends.mkldnn.matmul.fp32_precision = before  # type: ignore[attr-defined]


STATES: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "float64": lambda: default_dtype(torch.float64),
    "bfloat16": lambda: default_dtype(torch.bfloat16),
    "default device": lambda: torch.device("meta"),
    "medium precision": lambda: matmul_precision("medium"),
}


def state() -> tuple[object, ...]:
    backends: Any = torch.backends
    return (
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.is_autocast_enabled("cpu"),
        torch.get_default_dtype(),
        torch.get_default_device(),
        torch.get_num_threads(),
        backends.mkldnn.matmul.fp32_precision,
        backends.mkldnn.conv.fp32_precision,
        backends.cuda.matmul.fp32_precision,
        backends.cudnn.conv.fp32_precision,
    )


def same(one: Evaluation, other: Evaluation) -> bool:
    arrays = other.verdicts.arrays()
    equal = all((array == arrays[name]).all() for name, array in one.verdicts.arrays().items())
    return equal and torch.equal(one.points, other.points)


@pytest.fixture(scope="module")
def expected() -> Evaluation:
    done = attacked()
    assert 0.2 < done.result.robust_acc < 0.8
    return done


@pytest.mark.parametrize("name", STATES)
def test_verdicts_do_not_depend_on_it_and_it_is_restored(name: str, expected: Evaluation) -> None:
    with STATES[name]():
        before = state()
        done = attacked()
        assert state() == before
    assert same(done, expected)
    assert done.result.evaluation_id == expected.result.evaluation_id


@pytest.mark.parametrize("name", STATES)
def test_it_is_restored_after_an_error(name: str) -> None:
    with STATES[name]():
        before = state()
        with pytest.raises(RuntimeError, match="on purpose"), pinned(torch.device("cpu")):
            raise RuntimeError("on purpose")
        assert state() == before


@pytest.mark.parametrize("name", ["no_grad", "inference_mode", "autocast"])
def test_workers_do_not_see_it_either(name: str, expected: Evaluation) -> None:
    if torch.cuda.is_available():
        pytest.skip("workers are forked where there is no GPU")
    with STATES[name]():
        done = attacked(workers=2)
    assert (done.verdicts.robust == expected.verdicts.robust).all()


def test_a_model_and_images_that_were_made_in_inference_mode(expected: Evaluation) -> None:
    with torch.inference_mode():
        model = network()
        x, y = samples(model)
        assert same(attacked(model, x, y), expected)
    assert same(attacked(model, x, y), expected)
    assert all(parameter.is_inference() for parameter in model.parameters())


def test_a_model_in_double_precision_is_attacked_in_double_precision() -> None:
    class Constants(nn.Module):
        """Makes a tensor of the default dtype in its forward pass, which a matrix product does not convert."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = network(torch.float64)

        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = self.inner(x)
            return logits @ torch.eye(5)

    model = Constants()
    x, y = samples(model.inner)
    done = [attacked(model, x, y)]
    with default_dtype(torch.float64):
        done.append(attacked(model, x, y))
    assert same(*done)
    assert done[0].points.dtype == torch.float64


@pytest.mark.parametrize("name", ["no_grad", "inference_mode", "autocast"])
def test_the_reference_does_not_see_it_either(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 10)).eval()
    nn.init.normal_(model[1].weight, std=0.2, generator=generator)  # type: ignore[arg-type]
    x, y = X[:4], model(X[:4]).argmax(1)
    settings = {
        "suite": "autoattack-reference",
        "threat": "Linf:0.5",
    }  # broken by the first attack, so that it is quick
    expected = attacked(model, x, y, **settings)
    with STATES[name]():
        assert same(attacked(model, x, y, **settings), expected)


def test_statistics_are_estimated_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[object, ...]] = []
    applied = BnStatistics.applied

    def watched(*args: Any, **how: Any) -> Model:
        seen.append(state())
        return applied(*args, **how)

    monkeypatch.setattr(BnStatistics, "applied", watched)

    point = checkpoints.load("natural")
    data = datasets.load("digits", limit=4)
    train = datasets.load("digits", split="train", limit=20)
    plan = plan_checkpoint(
        point, data, threat=ThreatModel("Linf", "0.1"), suite="clean", bn_stats="clean", bn_data=train, device="cpu"
    )
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        run(plan)
    assert [found[:4] for found in seen] == [(True, False, False, torch.float32)]
