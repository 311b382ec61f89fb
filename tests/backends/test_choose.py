"""The fastest backend and number of rows are taken, by a clock that the tests set."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from harness.backends import Backend, plain
from harness.backends.choose import choose
from tests.engine.networks import SHAPE

IMAGES = torch.rand(10, *SHAPE)


class Clock:
    """Passes of the networks below set it forward."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Timed(nn.Module):
    """A pass costs ``fixed`` seconds, and seconds per row that grow by ``dearer`` with every row."""

    def __init__(self, clock: Clock, per_row: float, *, fixed: float = 0.0, dearer: float = 0.0) -> None:
        super().__init__()
        self.clock, self.per_row, self.fixed, self.dearer = clock, per_row, fixed, dearer
        self.rows: list[int] = []
        self.backward = 0

    def forward(self, x: Tensor) -> Tensor:
        self.rows.append(len(x))
        self.backward += len(x) * x.requires_grad
        self.clock.now += self.fixed + len(x) * self.per_row * (1 + self.dearer * len(x))
        return x.flatten(1)[:, :4]


def backend(network: nn.Module, name: str) -> Backend:
    return Backend(network, torch.contiguous_format, (name,))


def test_a_faster_copy_comes_first_and_a_slower_one_is_not_used() -> None:
    clock = Clock()
    copies = [
        backend(Timed(clock, 2e-3), "slow"),
        backend(Timed(clock, 5e-4), "fast"),
        backend(Timed(clock, 8e-4), "so-so"),
    ]
    choices, _ = choose(plain(Timed(clock, 1e-3)), copies, IMAGES, largest=24, clock=clock)
    assert [choice.backend.notes[0] for choice in choices] == ["fast", "so-so", "plain"]
    assert "2.00x the plain model's speed forward, 2.00x with backward" in choices[0].notes
    assert all(
        "not used: slow (0.50x the plain model's speed forward, 0.50x with backward)" in c.notes for c in choices
    )


def test_a_copy_that_fails_is_not_used() -> None:
    class Broken(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise RuntimeError("operation not permitted when stream is capturing")

    clock = Clock()
    copies = [backend(Broken(), "broken"), backend(Timed(clock, 5e-4), "fast")]
    choices, _ = choose(plain(Timed(clock, 1e-3)), copies, IMAGES, largest=24, clock=clock)
    assert [choice.backend.notes[0] for choice in choices] == ["fast", "plain"]
    wanted = "not used: broken (failed: RuntimeError: operation not permitted when stream is capturing)"
    assert all(wanted in choice.notes for choice in choices)


def test_what_the_first_passes_of_a_size_pay_for_does_not_count() -> None:
    class Captured(Timed):
        def forward(self, x: Tensor) -> Tensor:
            self.clock.now += 0.0 if len(x) in self.rows else 1.0
            return super().forward(x)

    for made_by_use, best in ((True, "captured"), (False, "plain")):
        clock = Clock()
        copy = replace(backend(Captured(clock, 5e-4), "captured"), made_by_use=made_by_use)
        choices, _ = choose(plain(Timed(clock, 1e-3)), [copy], IMAGES, largest=24, clock=clock)
        assert choices[0].backend.notes[0] == best


def test_rows_are_doubled_as_long_as_that_pays() -> None:
    clock = Clock()
    # the fixed cost per pass is shared by more rows: per row 1/24, 1/48, ... of it
    network = Timed(clock, 1e-4, fixed=4e-3)
    (choice,), _ = choose(plain(network), [], IMAGES, largest=10_000, clock=clock)
    assert choice.micro_batch == 768
    assert max(network.rows) == 3072
    assert choice.micro_batch == 768


def test_one_doubling_without_a_gain_does_not_end_the_search() -> None:
    class Late(Timed):
        gain_at = 0

        def forward(self, x: Tensor) -> Tensor:
            self.per_row = 5e-4 if len(x) == self.gain_at else 1e-3
            return super().forward(x)

    for gain_at, expected in (96, 96), (192, 24):
        clock = Clock()
        network = Late(clock, 1e-3)
        network.gain_at = gain_at
        (choice,), _ = choose(plain(network), [], IMAGES, largest=10_000, clock=clock)
        assert choice.micro_batch == expected


def test_rows_that_become_dearer_stay_few() -> None:
    clock = Clock()
    (choice,), _ = choose(plain(Timed(clock, 1e-4, dearer=0.01)), [], IMAGES, largest=512, clock=clock)
    assert choice.micro_batch == 24


def test_no_more_rows_than_there_may_be() -> None:
    clock = Clock()
    for largest, expected in ((5, 5), (24, 24), (60, 48)):
        network = Timed(clock, 1e-6, fixed=1e-2)
        (choice,), _ = choose(plain(network), [], IMAGES, largest=largest, clock=clock)
        assert choice.micro_batch == expected
        assert max(network.rows) <= largest


def test_a_slow_network_is_measured_on_few_rows_and_once() -> None:
    clock = Clock()
    network = Timed(clock, 0.1, fixed=10)
    (choice,), spent = choose(plain(network), [], IMAGES, largest=512, clock=clock)
    assert choice.micro_batch == 24
    assert network.rows == [4, 4]
    assert spent == (8, 4)


def test_every_row_that_was_measured_is_counted() -> None:
    clock = Clock()
    networks = Timed(clock, 1e-3), Timed(clock, 5e-4)
    _, spent = choose(plain(networks[0]), [backend(networks[1], "copy")], IMAGES, largest=48, clock=clock)
    assert spent.forward == sum(networks[0].rows) + sum(networks[1].rows)
    assert spent.backward == networks[0].backward + networks[1].backward > 0
