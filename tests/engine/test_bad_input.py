"""A model or samples that cannot be evaluated: one clear sentence, and what was finished is kept."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from harness.errors import HarnessError, InvalidInput, ModelError
from harness.evaluation import examine
from tests.engine.networks import CLASSES, SHAPE, network, samples


class Wrapped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = network()

    def forward(self, x: Tensor) -> Tensor:
        return self.answer(self.inner(x), x)

    def answer(self, logits: Tensor, x: Tensor) -> Tensor:
        return logits


class Raises(Wrapped):
    def answer(self, logits: Tensor, x: Tensor) -> Tensor:
        raise KeyError("no such head")


class WrongShape(Wrapped):
    def answer(self, logits: Tensor, x: Tensor) -> Tensor:
        return logits[:, :, None]


class Pair(Wrapped):
    def answer(self, logits: Tensor, x: Tensor) -> Tensor:
        return logits, x  # type: ignore[return-value]


class NaNForBright(Wrapped):
    def answer(self, logits: Tensor, x: Tensor) -> Tensor:
        bright = x.flatten(1).mean(1) > 0.505
        return torch.where(bright[:, None], float("nan"), logits)


class NaNOffCentre(Wrapped):
    """Fine on clean images, NaN as soon as they are attacked."""

    def __init__(self, clean: Tensor) -> None:
        super().__init__()
        self.clean = clean

    def answer(self, logits: Tensor, x: Tensor) -> Tensor:
        known = (x[:, None] == self.clean[None]).flatten(2).all(2).any(1)
        return torch.where(known[:, None], logits, float("nan"))


class Squeezes(Wrapped):
    def answer(self, logits: Tensor, x: Tensor) -> Tensor:
        return logits.squeeze()


class Remembers(Wrapped):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    def answer(self, logits: Tensor, x: Tensor) -> Tensor:
        self.seen += len(x)
        return logits


class Detached(Wrapped):
    def answer(self, logits: Tensor, x: Tensor) -> Tensor:
        return logits.detach()


class NeedsLarger(Wrapped):
    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.inner(nn.functional.conv2d(x, torch.ones(3, 3, 11, 11)))
        return out


class OneClass(Wrapped):
    def answer(self, logits: Tensor, x: Tensor) -> Tensor:
        return logits[:, :1]


class Integers(Wrapped):
    def answer(self, logits: Tensor, x: Tensor) -> Tensor:
        return logits.round().long()


class InPlace(Wrapped):
    def forward(self, x: Tensor) -> Tensor:
        x.sub_(0.3)
        out: Tensor = self.inner(x)
        return out


class Ungraded(Wrapped):
    """Without gradients by a block that tracing would drop."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            out: Tensor = self.inner(x)
        return out


class Tires(Wrapped):
    """Answers otherwise after a number of calls that it keeps in Python."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def answer(self, logits: Tensor, x: Tensor) -> Tensor:
        self.calls += 1
        return -logits if self.calls > 100 else logits


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (InPlace(), "changes its input in place|used in an in-place operation"),
        (Ungraded(), "in step apgd-ce: the model's output has no gradient with respect to its input"),
        (Raises(), r"on the first two samples: the model raised KeyError on a batch of shape \[2, 3, 8, 8\]"),
        (WrongShape(), r"expected logits of shape \[2, classes\], the model returned \[2, 6, 1\]"),
        (Pair(), "expected a tensor of logits, the model returned tuple"),
        (NaNForBright(), r"NaN or infinite logits for \d+ clean images? \(sample \d+"),
        (Squeezes(), r"the model returned \[6\]; does its forward squeeze a batch of one\?"),
        (Remembers(), r"changes its own state \(seen\)"),
        (network().train(), r"1 \(BatchNorm2d\).* in train mode, .*model\.eval\(\)"),
        (Detached(), "in step apgd-ce: the model's output has no gradient with respect to its input"),
        (NeedsLarger(), r"the model raised RuntimeError on a batch of shape \[2, 3, 8, 8\].*[Kk]ernel size"),
        (OneClass(), "returns 1 logit per sample: attacks need at least 2 classes"),
        (Integers(), "expected floating-point logits, the model returned torch.int64"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else None,
)
def test_a_model_that_misbehaves(model: nn.Module, says: str) -> None:
    x, y = samples(network(), 12)
    training = model.training
    with pytest.raises(ModelError, match=says):
        examine(model, x, y, threat="Linf:0.05", workers=1)
    assert model.training == training


def test_a_model_that_was_caught_changing_is_put_back() -> None:
    model = network().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    x, y = samples(network(), 4)
    with pytest.raises(ModelError):
        examine(model, x, y, threat="Linf:0.05", workers=1)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize("size", [1, 2])
def test_nan_under_attack_names_step_and_sample_and_keeps_what_was_done(tmp_path: Path, size: int) -> None:
    x, y = samples(network(), 12)
    with pytest.raises(ModelError, match=r"in step apgd-ce: the model returned NaN .* for .*sample"):
        examine(NaNOffCentre(x), x, y, threat="Linf:0.05", state_dir=tmp_path, workers=size)
    (folder,) = tmp_path.iterdir()
    assert (folder / "pool.pt").exists()


def test_the_callers_images_are_left_alone() -> None:
    x, y = samples(network(), 4)
    before = x.clone()
    with pytest.raises(ModelError):
        examine(InPlace(), x, y, threat="Linf:0.05", workers=1)
    assert torch.equal(x, before)


def test_a_model_that_changes_its_mind_is_flagged() -> None:
    x, y = samples(network(), 12)
    flags = examine(Tires(), x, y, threat="Linf:0.02", suite="pgd", workers=1).result.flags
    assert "state-kept" in {flag.code for flag in flags}


@pytest.mark.parametrize(("eps", "survive"), [("0.3", False), ("0.003", True)])
def test_square_needs_no_gradient(eps: str, survive: bool) -> None:
    """Nor do the indicators of attacks that failed, which look at what survived."""
    x, y = samples(network(), 6)
    result = examine(Ungraded(), x, y, threat=f"Linf:{eps}", suite="square", workers=1).result
    assert (result.robust_acc > 0) is survive
    assert survive or result.robust_acc < result.clean_acc
    assert [flag.code for flag in result.flags] == ["no-gradient"]


GOOD = samples(network(), 3)


@pytest.mark.parametrize(
    ("x", "y", "says"),
    [
        (GOOD[0], GOOD[1].float(), "y must hold integer classes, got torch.float32"),
        (GOOD[0], GOOD[1][:2], r"y must be one class per sample, \[3\], got shape \[2\]"),
        (GOOD[0], GOOD[1][:, None], r"got shape \[3, 1\]"),
        (GOOD[0], GOOD[1] + CLASSES, r"sample \d has class \d+, but the model knows 6 \(0 to 5\)"),
        (GOOD[0], GOOD[1] - CLASSES, "classes must not be negative"),
        (GOOD[0] * 255, GOOD[1], r"x must lie in \[0, 1\], but sample 0 ranges from .* \(3 such samples\)"),
        (GOOD[0] - 1, GOOD[1], r"x must lie in \[0, 1\]"),
        (torch.full_like(GOOD[0], float("nan")), GOOD[1], r"x must lie in \[0, 1\]"),
        ((GOOD[0] * 255).int(), GOOD[1], "x must be floating point"),
        (GOOD[0][:0], GOOD[1][:0], r"no samples to evaluate \(n = 0\)"),
        ("images", GOOD[1], "x must be a tensor or an array of numbers, got a str"),
        (GOOD[0], {}, "y must be a tensor or an array of numbers, got a dict"),
    ],
)
def test_samples_that_cannot_be_used(x: Tensor, y: Tensor, says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        examine(network(), x, y, threat="Linf:0.05", workers=1)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"batch_size": 0}, "batch size must be 'auto' or at least 1, got 0"),
        ({"workers": 0}, "workers must be 'auto' or a positive number, got 0"),
        ({"device": "gpu"}, "unknown device 'gpu': expected cpu, cuda or cuda:N"),
        ({"graphs": True}, "CUDA graphs need a CUDA device, and this run is on cpu; leave --graphs out"),
        ({"device": "cuda:7"}, "there is no device cuda:7: this machine has"),
        ({"threat": "Linf"}, "a threat model is written NORM:EPS"),
        ({"suite": "autoatack"}, "did you mean 'autoattack'"),
    ],
)
def test_settings_that_cannot_be_used(settings: dict[str, object], says: str) -> None:
    with pytest.raises(HarnessError, match=says):
        examine(network(), *GOOD, **{"threat": "Linf:0.05", **settings})


def test_one_sample_is_enough() -> None:
    model = network()
    x, y = samples(model, 1)
    done = examine(model, x, y, threat="Linf:0.5", suite="pgd")
    assert (done.result.n, done.result.clean_acc, done.result.robust_acc) == (1, 1.0, 0.0)


def test_a_sample_that_is_wrong_from_the_start() -> None:
    model = network()
    x, y = samples(model, 1)
    done = examine(model, x, (y + 1) % CLASSES, threat="Linf:0.5", suite="autoattack", workers=1)
    assert (done.result.clean_acc, done.result.robust_acc) == (0.0, 0.0)
    assert all(step.forward == 0 for step in done.result.steps)
    assert done.verdicts.broken_by.tolist() == [-1]


def test_random_models_are_flagged_unless_the_suite_is_meant_for_them() -> None:
    class Noisy(Wrapped):
        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.inner((x + 0.05 * torch.randn_like(x)).clamp(0, 1))
            return out

    x, y = samples(network(), 6)
    plain = examine(Noisy().eval(), x, y, threat="Linf:0.05", suite="pgd").result
    assert "randomised" in {flag.code for flag in plain.flags}
    rand = examine(Noisy().eval(), x, y, threat="Linf:0.05", suite="autoattack-rand").result
    assert "randomised" not in {flag.code for flag in rand.flags}


def test_probabilities_are_flagged() -> None:
    class Softmax(Wrapped):
        def answer(self, logits: Tensor, x: Tensor) -> Tensor:
            return logits.softmax(1)

    x, y = samples(network(), 6)
    flags = examine(Softmax().eval(), x, y, threat="Linf:0.05", suite="fgsm").result.flags
    assert "probabilities" in {flag.code for flag in flags}


@pytest.mark.parametrize("classes", [2, 3, 4])
def test_few_classes(classes: int) -> None:
    model = network(classes=classes)
    x = torch.rand(10, *SHAPE, generator=torch.Generator().manual_seed(5))
    y = model(x).argmax(1)
    result = examine(model, x, y, threat="Linf:0.4", workers=1).result
    assert result.robust_acc < 0.5
    told = {flag.code: flag for flag in result.flags if flag.figures.get("step") == "apgd-t"}
    assert told["fewer-targets"].figures == {"step": "apgd-t", "asked": 9, "used": classes - 1, "classes": classes}
    assert ("loss-replaced" in told) == (classes < 4)
    assert not any(flag.doubtful for flag in told.values()), "few classes are no reason to doubt the figure"


class _Boom(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: object, *grads: Tensor) -> Tensor:
        raise RuntimeError("backward can only be called in training mode")


class BackwardRaises(Wrapped):
    def answer(self, logits: Tensor, x: Tensor) -> Tensor:
        return _Boom.apply(logits)  # type: ignore[no-any-return]


class HalfDetached(Wrapped):
    """Its output needs gradients, but those of its parameters alone."""

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x.detach())  # type: ignore[no-any-return]


class InPlace(Wrapped):
    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x.sub_(0.5).div_(0.5))  # type: ignore[no-any-return]


class Rectified(Wrapped):
    """Works in place, which changes no image that lies in [0, 1]."""

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(nn.functional.relu(x, inplace=True))  # type: ignore[no-any-return]


def test_inputs_that_an_attack_does_not_take_are_refused_before_any_pass() -> None:
    calls: list[int] = []
    model = nn.Sequential(nn.Flatten(), nn.Linear(20, 4)).eval()
    model.register_forward_hook(lambda *of_call: calls.append(1))
    x, y = torch.rand(4, 1, 20), torch.arange(4)
    with pytest.raises(InvalidInput, match=r"square attacks images \[n, C, H, W\], got inputs of shape \[n, 1, 20\]"):
        examine(model, x, y, threat="Linf:0.1", suite="autoattack", workers=1)
    assert not calls


@pytest.mark.parametrize(
    ("model", "text"),
    [
        (BackwardRaises(), "the model's backward pass raised .*backward can only be called"),
        (HalfDetached(), "no gradient with respect to its input"),
        (InPlace(), "changes its input in place, .* let it work on a copy"),
        (Rectified(), "changes its input in place, .* let it work on a copy"),
    ],
    ids=["backward raises", "detached inside", "in place", "in place, same values"],
)
def test_backward_passes_that_fail(model: nn.Module, text: str) -> None:
    x, y = samples(network(), 4)
    for parameter in model.parameters():
        parameter.requires_grad_()
    with pytest.raises(ModelError, match=text):
        examine(model.eval(), x, y, threat="Linf:0.1", suite="pgd-20", workers=1)
