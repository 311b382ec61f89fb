"""FAB walks where the reference walks: the same points in float64, all iterations, every norm."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from pyautoattack.fab_pt import FABAttack_PT
from torch import Tensor, nn

from harness.attacks import Batch, build
from harness.threat import ThreatModel
from tests.support import PlainOracle, batch_of

STEPS = 100
CLASSES = 5
SEEDS = (0, 4)
THREATS = [ThreatModel("Linf", "0.001"), ThreatModel("L2", "0.01"), ThreatModel("L1", "0.1")]


class Recorder(nn.Module):
    """Passes on, and remembers what was asked with and without a gradient."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.linearised: list[Tensor] = []
        self.checked: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        (self.linearised if x.requires_grad else self.checked).append(x.detach().clone())
        return self.network(x)


@pytest.fixture
def float64(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The reference casts to float32 by name; here that name casts to float64."""
    monkeypatch.setattr(Tensor, "float", Tensor.double)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


def smooth_network(seed: int = 4) -> nn.Module:
    """Curved enough for the walk to cross boundaries, fall short of them and oscillate.

    Not curved so much that the walk is chaotic: there two correct walks part after some tens of steps.
    """
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.SiLU(),
        nn.Conv2d(8, 8, 3, stride=2),
        nn.SiLU(),
        nn.Flatten(),
        nn.Linear(72, 32),
        nn.SiLU(),
        nn.Linear(32, CLASSES),
    ).double()
    generator = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        fan_in = parameter[0].numel() if parameter.dim() > 1 else 50
        values = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        parameter.data = values * (4 / fan_in**0.5)
    return network.requires_grad_(False)


def samples(network: nn.Module) -> Batch:
    generator = torch.Generator().manual_seed(4)
    x = torch.rand(6, 3, 8, 8, generator=generator, dtype=torch.float64) * 1.2 - 0.1
    x = x.clamp(0, 1)  # some pixels lie on the box
    return batch_of(network, x, network(x).argmax(dim=1))


def reference_walk(network: nn.Module, batch: Batch, threat: ThreatModel, aim: int | None) -> Recorder:
    recorder = Recorder(network)
    attack = FABAttack_PT(recorder, norm=threat.norm, n_iter=STEPS, eps=threat.radius, targeted=aim is not None)
    if aim is not None:
        attack.target_class = aim + 2
    attack.attack_single_run(batch.x, batch.y, use_rand_start=False, is_targeted=aim is not None)
    # the first calls look at the clean image
    recorder.checked = recorder.checked[-STEPS:]
    return recorder


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("aim", [None, 0, CLASSES - 2], ids=["untargeted", "first-target", "last-target"])
@pytest.mark.parametrize("threat", THREATS, ids=lambda threat: threat.norm)
@pytest.mark.usefixtures("float64")
def test_same_points(threat: ThreatModel, aim: int | None, seed: int) -> None:
    network = smooth_network(seed)
    batch = samples(network)
    expected = reference_walk(network, batch, threat, aim)

    attack = build("fab", threat, CLASSES, targeted=aim is not None, steps=STEPS)
    oracle = PlainOracle(network)
    state, _ = attack.start(batch, oracle, aim or 0)
    crossed = []
    for i in range(STEPS):
        torch.testing.assert_close(state["x"], expected.linearised[i], rtol=0, atol=1e-9)
        state, proposal = attack.step(batch, state, oracle, i)
        torch.testing.assert_close(proposal.points, expected.checked[i], rtol=0, atol=1e-9)
        crossed.append(network(proposal.points).argmax(dim=1) != batch.y)

    # the comparison is worth nothing if boundaries were never met, or at every step
    met = torch.stack(crossed)
    assert met.any(dim=0).all()
    assert not met.all()


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("threat", THREATS, ids=lambda threat: threat.norm)
@pytest.mark.usefixtures("float64")
def test_the_nearest_class_is_not_simply_the_likeliest(threat: ThreatModel, seed: int) -> None:
    """Otherwise the untargeted comparison above would say nothing more than the targeted one."""
    network = smooth_network(seed)
    batch = samples(network)
    free, aimed = (reference_walk(network, batch, threat, aim).checked[-1] for aim in (None, 0))
    assert bool((threat.distance(free, aimed) > 1e-3).any())
