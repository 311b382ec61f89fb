"""The estimate of the time that is left, on a clock of the test's own."""

from __future__ import annotations

import pytest

from harness.engine.types import AttackProgress
from harness.evaluation import plan_model, time_left
from harness.evaluation.display import displayed
from harness.evaluation.time_left import TimeLeft, in_words
from tests.evaluation.test_caller_state import MODEL, X, Y


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(time_left, "time", made)
    return made


def test_a_steady_run_is_foreseen(clock: Clock) -> None:
    """Two steps, the second half as dear: of 100 s to come after the first tick, what is left is known all along."""
    left = TimeLeft({"first": 200.0, "second": 100.0}, later=2)
    total = 90.0
    assert left(AttackProgress("first", 0.0, 50, 50)) is None
    for step, done, before in (("first", 0.5, 0.0), ("first", 1.0, 0.0), ("second", 0.5, 60.0)):
        passed = before + done * (60.0 if step == "first" else 30.0)
        clock.now = 100.0 + passed
        found = left(AttackProgress(step, done, 50, 50))
        assert found is not None
        assert found == pytest.approx((passed, total - passed, 2 * total))


def test_survivors_make_the_rest_cheaper(clock: Clock) -> None:
    left = TimeLeft({"first": 100.0, "second": 300.0})
    left(AttackProgress("first", 0.0, 100, 100))
    clock.now += 10
    left(AttackProgress("first", 1.0, 100, 100))
    few = left(AttackProgress("second", 0.0, 10, 100))
    assert few is not None
    assert few.left == pytest.approx(3.0)


def test_nothing_is_said_too_early_or_of_steps_that_are_not_known(clock: Clock) -> None:
    left = TimeLeft({"first": 100.0})
    left(AttackProgress("first", 0.0, 10, 10))
    clock.now += 1
    assert left(AttackProgress("first", 0.5, 10, 10)) is None
    clock.now += 60
    assert left(AttackProgress("another", 0.5, 10, 10)) is None
    assert TimeLeft({})(AttackProgress("first", 0.5, 10, 10)) is None


def test_costs_are_those_of_the_suite() -> None:
    plan = plan_model(MODEL, X, Y, threat="Linf:0.1", suite="autoattack")
    # 5 classes, so that targeted attacks have 4 targets
    assert TimeLeft.of(plan).costs == {"apgd-ce": 300, "apgd-t": 1200, "fab-t": 1600, "square": 5000}
    one_class = plan_model(MODEL, X, Y * 0, threat="Linf:0.1", suite="pgd-20")
    assert TimeLeft.of(one_class).costs == {"pgd-20": 60}
    assert TimeLeft.of(plan).place("apgd-t") == "step 2 of 4, "
    assert TimeLeft.of(plan_model(MODEL, X, Y, threat="Linf:0.1", suite="autoattack-reference")).costs == {}


@pytest.mark.parametrize(
    ("seconds", "words"), [(1, "5 s"), (42, "40 s"), (100, "2 min"), (3000, "50 min"), (9000, "2.5 h")]
)
def test_in_words(seconds: float, words: str) -> None:
    assert in_words(seconds) == words


@pytest.mark.parametrize("terminal", [False, True])
def test_every_run_says_once_how_long_it_will_take(
    clock: Clock, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, terminal: bool
) -> None:
    """As soon as its first seconds tell, and before anything is counted on that attacks may find."""
    monkeypatch.setattr("sys.stderr.isatty", lambda: terminal)
    with displayed("mine", "pgd", time_left=TimeLeft({"first": 100.0, "second": 300.0}, later=1)) as report:
        assert report is not None
        for done, surviving in ((0.0, 40), (0.5, 40), (0.75, 20), (1.0, 10)):
            report(AttackProgress("first", done, surviving, 40))
            clock.now += 30
    said = " ".join(capsys.readouterr().err.split())
    assert said.count("mine, pgd: about 4 min in all, 8 min for all, if no more samples are broken") == 1


def test_a_run_of_seconds_says_nothing_of_its_time(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with displayed("mine", "pgd", time_left=TimeLeft({"first": 100.0})) as report:
        assert report is not None
        for done in (0.0, 0.5, 1.0):
            report(AttackProgress("first", done, 40, 40))
            clock.now += 1
    assert "about" not in capsys.readouterr().err
