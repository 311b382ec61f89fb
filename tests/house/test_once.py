"""What several places need is done in one, and the others use it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from harness.threat import norms
from tests.house._tree import ROOT, modules

KNOWN = modules()


@pytest.mark.parametrize(
    ("words", "home"),
    [
        ("get_close_matches", "harness.errors"),
        ('environ.get("HARNESS_HOME")', "harness.util.paths"),
        ('extra="forbid"', "harness.util.validation"),
        ("expected cpu, cuda or cuda:N", "harness.util.devices"),
        ('"bf16"]', "harness.util.choices"),
        ('"clean", "adversarial", "batch"', "harness.util.choices"),
        ('"step", "cosine"', "harness.util.choices"),
    ],
)
def test_it_is_written_once(words: str, home: str) -> None:
    assert [name for name, path in KNOWN.items() if words in path.read_text(encoding="utf-8")] == [home]


def test_options_know_their_choices_without_torch() -> None:
    """What the command line offers comes from the library's lists, and help is there at once."""
    program = """
import sys
from harness.cli import evaluate, import_, train
from harness.util import choices
commands = evaluate.evaluate, import_.import_, train.train
options = [option for command in commands for option in command.params if hasattr(option.type, "choices")]
offered = {option.name: tuple(option.type.choices) for option in options}
assert offered["bn_stats"] == choices.names(choices.BnStatisticsKind)
assert offered["schedule"] == choices.names(choices.ScheduleName)
assert offered["attack"] == choices.names(choices.CraftingMethod)
assert offered["precision"] == choices.names(choices.Precision)
assert offered["keep"] == choices.names(choices.KeptEpochs)
assert offered["file_format"] == choices.names(choices.FileFormat)
assert not {"torch", "numpy", "pydantic"} & set(sys.modules), "something heavy was imported"
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_choice_is_there() -> None:
    from harness.batchnorm.statistics import BN_STATISTICS, STORED
    from harness.threat import ThreatModel
    from harness.threat.perturb import Crafting
    from harness.training.schedules import SCHEDULES
    from harness.util import choices

    assert tuple(SCHEDULES) == choices.names(choices.ScheduleName)
    assert BN_STATISTICS[0] == STORED
    for method in ("pgd", "fgsm", "r-fgsm"):
        assert method in choices.names(choices.CraftingMethod)
        assert Crafting.of(method, ThreatModel("Linf", "0.1"), steps=2).step_size > 0


@pytest.mark.parametrize("name", norms.names())
def test_which_norms_are_sparse(name: str) -> None:
    assert norms.is_sparse(name) is norms.get(name).sparse
