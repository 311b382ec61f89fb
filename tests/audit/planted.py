"""Models that must not get a figure without a word: each kind of fault that the audit looks for, planted on purpose.

All are made of one small network that is healthy.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from harness import checkpoints, datasets, models
from harness.models import Model, Normalization
from tests.house._tree import ROOT

__all__ = ["PLANTED", "Planted", "base", "digits"]


def base() -> Model:
    """A healthy network that was trained on the digits."""
    return checkpoints.load(ROOT / "checkpoints" / "natural.pt").model


def digits(count: int = 40) -> tuple[Tensor, Tensor]:
    """Images and labels."""
    data = datasets.load("digits", split="test", limit=count)
    return data.x, data.y


@dataclass(frozen=True)
class Planted:
    """A faulty model.

    Attributes:
        make: makes it.
        code: of the flag that must be raised.
        change: what is done to the images and labels that it is given.
    """

    make: Callable[[], nn.Module]
    code: str
    change: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] = lambda x, y: (x, y)


class Around(nn.Module):
    """The healthy network with something done to its images before it, and to its logits after it."""

    def __init__(
        self,
        before: Callable[[Tensor], Tensor] = lambda x: x,
        after: Callable[[Tensor, Tensor], Tensor] = lambda z, x: z,
    ) -> None:
        super().__init__()
        self.network, self.before, self.after = base(), before, after
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.network(self.before(x)), x)


def before(change: Callable[[Tensor], Tensor]) -> Callable[[], nn.Module]:
    return lambda: Around(before=change)


def after(change: Callable[[Tensor, Tensor], Tensor]) -> Callable[[], nn.Module]:
    return lambda: Around(after=change)


class Backward(torch.autograd.Function):
    """The identity, with another gradient."""

    @staticmethod
    def forward(ctx: object, x: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.change = change  # type: ignore[attr-defined]
        return x.clone()

    @staticmethod
    def backward(ctx: object, *gradients: Tensor) -> tuple[Tensor, None]:
        return ctx.change(gradients[0]), None  # type: ignore[attr-defined]


def gradient(change: Callable[[Tensor], Tensor]) -> Callable[[], nn.Module]:
    return before(lambda x: Backward.apply(x, change))


def in_train_mode() -> nn.Module:
    return base().train()


def norms_in_train_mode() -> nn.Module:
    model = base()
    for module in model.modules():
        module.training = isinstance(module, nn.BatchNorm2d)
    return model


def dropout_left_on() -> nn.Module:
    model = nn.Sequential(base(), nn.Dropout(0.3)).eval()
    model[1].train()
    return model


def hidden_in_train_mode() -> nn.Module:
    hidden = [base().train()]  # a list, so that it is no module of the model
    return Around(after=lambda z, x: hidden[0](x))


def norms(change: Callable[[nn.BatchNorm2d], None]) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        model = base()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                change(module)
        return model

    return make


def without_statistics(layer: nn.BatchNorm2d) -> None:
    layer.running_mean = layer.running_var = layer.num_batches_tracked = None
    layer.track_running_stats = False


def as_new(layer: nn.BatchNorm2d) -> None:
    layer.reset_running_stats()


def collapsed(layer: nn.BatchNorm2d) -> None:
    assert layer.running_var is not None
    layer.running_var.mul_(1e-12)


def flipped_from_third(z: Tensor, x: Tensor) -> Tensor:
    sign = torch.ones(len(z), 1)
    sign[2:] = -1
    return z * sign


def only_near(z: Tensor, x: Tensor) -> Tensor:
    """Another answer for lone images that are not in steps of 1/16, as the digits are."""
    steps = (x * 16 - (x * 16).round()).abs().amax() > 1e-3
    return -z if len(z) == 1 and bool(steps) else z


def rarely_noisy(z: Tensor, x: Tensor) -> Tensor:
    return -z if float(torch.rand(())) < 0.15 else z


def hardly_ever_noisy(z: Tensor, x: Tensor) -> Tensor:
    return -z if float(torch.rand(())) < 1e-9 else z


def python_noise(z: Tensor, x: Tensor) -> Tensor:
    return -z if random.random() < 1e-9 else z


def numpy_noise(z: Tensor, x: Tensor) -> Tensor:
    return -z if np.random.rand() < 1e-9 else z  # noqa: NPY002


def seeded_noise(x: Tensor) -> Tensor:
    torch.manual_seed(0)
    return x + 0.1 * torch.randn_like(x)


class Remembers(Around):
    seen: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.seen += 1
        return super().forward(x)


class Tires(Around):
    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        out = super().forward(x)
        return -out if self.calls > 10_000 else out


def nan_off_the_steps(z: Tensor, x: Tensor) -> Tensor:
    off = (x * 16 - (x * 16).round()).flatten(1).abs().amax(1) > 1e-3
    return torch.where(off[:, None], float("nan"), z)


def through_numpy(z: Tensor, x: Tensor) -> Tensor:
    return torch.from_numpy(z.detach().numpy())


def swapped_where_recorded(x: Tensor) -> Tensor:
    return x.flip(3) if torch.is_grad_enabled() else x


def purified(x: Tensor) -> Tensor:
    """A few steps towards smoother images, found by gradients."""
    with torch.enable_grad():
        image = x.detach().clone().requires_grad_()
        for _ in range(3):
            rough = (image.diff(dim=3) ** 2).sum()
            (slope,) = torch.autograd.grad(rough, image)
            image = (image - 0.05 * slope).detach().requires_grad_()
    return x + (image - x).detach()


def shattered(x: Tensor) -> Tensor:
    return x + 0.02 * torch.sin(500 * x + torch.arange(64.0).view(1, 1, 8, 8))


def leaking(z: Tensor, x: Tensor) -> Tensor:
    return z.detach() + 1e-3 * x.flatten(1).sum(1, keepdim=True) * torch.arange(z.shape[1])


def straight_through(x: Tensor) -> Tensor:
    return x + ((x * 7).round() / 7 - x).detach()


def normalised_by_bytes() -> nn.Module:
    model = base()
    constants = Normalization(mean=(123.7,), std=(58.4,))
    built = models.build(model.architecture, classes=10, shape=(1, 8, 8), normalization=constants, seed=0).eval()
    built.network.load_state_dict(model.network.state_dict())
    return built


PLANTED: dict[str, Planted] = {
    "in train mode": Planted(in_train_mode, "train-mode"),
    "BN layers in train mode": Planted(norms_in_train_mode, "train-mode"),
    "dropout left on": Planted(dropout_left_on, "train-mode"),
    "hidden in train mode": Planted(hidden_in_train_mode, "batch-dependent"),
    "BN without statistics": Planted(norms(without_statistics), "bn-no-statistics"),
    "BN never updated": Planted(norms(as_new), "bn-never-updated"),
    "BN with variances near 0": Planted(norms(collapsed), "bn-tiny-variance"),
    "centred by the batch": Planted(before(lambda x: (x - x.mean(0) + 0.3).clamp(0, 1)), "batch-dependent"),
    "answers of the next image": Planted(after(lambda z, x: 0.7 * z + 0.3 * z.roll(1, 0)), "batch-dependent"),
    "flips rows from the third on": Planted(after(flipped_from_third), "batch-dependent"),
    "otherwise above 4 images": Planted(after(lambda z, x: -z if len(z) > 4 else z), "batch-dependent"),
    "otherwise above 50 images": Planted(after(lambda z, x: -z if len(z) > 50 else z), "batch-dependent"),
    "otherwise alone off the data": Planted(after(only_near), "batch-dependent"),
    "noisy": Planted(before(lambda x: x + 0.1 * torch.randn_like(x)), "randomised"),
    "rarely noisy": Planted(after(rarely_noisy), "randomised"),
    "hardly ever noisy": Planted(after(hardly_ever_noisy), "random-numbers"),
    "noise of Python": Planted(after(python_noise), "random-numbers"),
    "noise of numpy": Planted(after(numpy_noise), "random-numbers"),
    "seeded noise": Planted(before(seeded_noise), "seeded-inside"),
    "changes a buffer": Planted(Remembers, "state-changes"),
    "counts its calls": Planted(Tires, "calls-counted"),
    "NaN near the images": Planted(after(nan_off_the_steps), "not-finite-nearby"),
    "huge logits": Planted(after(lambda z, x: z * 1e30), "logits-huge"),
    "large logits": Planted(after(lambda z, x: z * 1e3), "logits-saturated"),
    "small logits": Planted(after(lambda z, x: z * 1e-6), "logits-small"),
    "logits far from zero": Planted(after(lambda z, x: z + 1e6), "logits-offset"),
    "probabilities": Planted(after(lambda z, x: z.softmax(1)), "probabilities"),
    "log-probabilities": Planted(after(lambda z, x: z.log_softmax(1)), "log-probabilities"),
    "saturated sigmoids": Planted(after(lambda z, x: (100 * z).sigmoid()), "outputs-saturated"),
    "gradients NaN": Planted(before(lambda x: x.sqrt() ** 2), "nan-gradient"),
    "gradients zero": Planted(gradient(torch.zeros_like), "zero-gradient"),
    "gradients tiny": Planted(gradient(lambda g: g * 1e-12), "gradient-vanishing"),
    "gradients reversed": Planted(gradient(torch.neg), "gradient-misleads"),
    "gradients scrambled": Planted(gradient(lambda g: g.flatten(1).roll(29, 1).view_as(g)), "gradient-misleads"),
    "gradients random": Planted(gradient(torch.rand_like), "gradient-random"),
    "gradients shattered": Planted(before(shattered), "gradient-shattered"),
    "detached with a leak": Planted(after(leaking), "gradient-misleads"),
    "another where gradients are recorded": Planted(before(swapped_where_recorded), "grad-mode-dependent"),
    "through numpy": Planted(after(through_numpy), "no-gradient"),
    "quantised images": Planted(before(lambda x: (x * 7).round() / 7), "quantised"),
    "quantised straight through": Planted(before(straight_through), "quantised"),
    "purified by gradients": Planted(before(purified), "dynamic-defence"),
    "images divided by 255 twice": Planted(base, "images-dark", lambda x, y: (x / 255, y)),
    "the model divides by 255": Planted(before(lambda x: x / 255), "input-range"),
    "normalised twice": Planted(before(lambda x: (x - 0.5) / 0.5), "input-range"),
    "images inverted": Planted(before(lambda x: 1 - x), "input-range"),
    "constants for bytes": Planted(normalised_by_bytes, "constants-for-bytes"),
    "labels permuted": Planted(base, "labels-permuted", lambda x, y: (x, (y + 3) % 10)),
    "classes sorted as text": Planted(after(lambda z, x: z[:, [0, 1, 9, 2, 3, 4, 5, 6, 7, 8]]), "labels-permuted"),
}
