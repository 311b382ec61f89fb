"""Every registered member of the other families keeps what its family promises."""

from __future__ import annotations

import inspect
import json
import random
from dataclasses import fields

import numpy as np
import pytest
import torch

from harness import attacks, datasets, models, regimes, suites
from harness.models import norm_layers
from harness.models.sources import forms
from harness.results import formats
from harness.results.formats import Board
from harness.suites import REFERENCE
from harness.threat import ThreatModel, norms
from harness.util import plugins

THREATS = [ThreatModel(norm, "0.1") for norm in norms.names()]


@pytest.fixture(autouse=True)
def untouched_randomness() -> object:
    """No member draws from a global generator or sets its state, unless a seed of the caller says so."""

    def state() -> tuple[object, ...]:
        words = np.random.get_state(legacy=False)["state"]  # noqa: NPY002
        return torch.get_rng_state().tolist(), words["key"].tolist(), words["pos"], random.getstate()

    before = state()
    yield
    assert state() == before


@pytest.mark.parametrize("threat", THREATS, ids=str)
@pytest.mark.parametrize("name", suites.names())
def test_suite(name: str, threat: ThreatModel) -> None:
    suite = suites.get(name, threat)
    assert suite == suites.get(name, threat)
    assert suite.name == name
    assert len({step.name for step in suite.steps}) == len(suite.steps)
    for step in suite.steps:
        # a result holds them as JSON
        assert json.loads(json.dumps(step.parameters)) == step.parameters
        if step.attack != REFERENCE:
            assert attacks.build(step.attack, threat, 2, **step.parameters).runs >= 1


@pytest.mark.parametrize("name", attacks.names())
def test_attack_s_builder(name: str) -> None:
    """Parameters beyond the threat model and the classes are given by name, with defaults, and are documented."""
    builder = plugins.lookup("harness.attacks", name, "attack")
    first, second, *own = inspect.signature(builder).parameters.values()
    assert (first.name, second.name) == ("threat", "classes")
    assert all(p.kind is p.KEYWORD_ONLY and p.default is not p.empty for p in own)
    documented = (builder.__doc__ or "").partition("Args:")[2]
    assert [p.name for p in own if f"{p.name}:" not in documented] == []


@pytest.mark.parametrize("name", regimes.names())
def test_regime(name: str) -> None:
    regime = regimes.get(name)
    assert regime.name == name
    assert regime.summary
    assert regime.stages()
    assert type(regime).model_validate(regime.model_dump()) == regime
    if regime.parent is not None:
        assert regime.parent in regimes.names()
    if regime.norm_layer is not None:
        assert regime.norm_layer in norm_layers.names()


@pytest.mark.parametrize("name", datasets.names())
def test_dataset_s_facts(name: str) -> None:
    about = datasets.about(name)
    assert len(about.classes) > 1
    assert len(set(about.classes)) == len(about.classes)
    assert len(about.shape) == 3
    assert all(threat.norm in norms.names() for threat in about.threats)


@pytest.mark.parametrize("split", ["train", "test"])
def test_dataset_that_needs_no_download(split: str) -> None:
    whole, first = datasets.load("digits", split=split), datasets.load("digits", split=split, limit=30)
    assert torch.equal(whole.x[:30], first.x)
    assert torch.equal(whole.y[:30], first.y)
    assert whole.sha256 == datasets.load("digits", split=split).sha256


BOARD = Board("none", "digits", "test", "Linf", "0.1", 500, False, (), ())


@pytest.mark.parametrize("name", formats.names())
def test_format(name: str) -> None:
    """A board without rows is a file as well, and the same board is the same text."""
    form = formats.get(name)
    assert form.suffix.startswith(".")
    text = form.render(BOARD)
    assert text == form.render(BOARD)
    assert text.endswith("\n")
    assert [other for other in formats.names() if other != name and formats.get(other).suffix == form.suffix] == []


@pytest.mark.parametrize("name", plugins.members("harness.models.sources"))
def test_source(name: str) -> None:
    source = plugins.lookup("harness.models.sources", name, "source")
    assert list(inspect.signature(source).parameters)[:4] == ["name", "classes", "shape", "norm"]
    assert name in {form.partition(":")[0] for form in forms()} | {"file"}


@pytest.mark.parametrize("name", norm_layers.names())
def test_norm_layer(name: str) -> None:
    layer = norm_layers.get(name)
    assert layer.name == name


def test_seeded_architectures_leave_the_global_generator() -> None:
    models.build("digits-resnet", classes=10, shape=(1, 8, 8), seed=3)


@pytest.mark.parametrize("name", norms.names())
def test_norm_s_names(name: str) -> None:
    norm = norms.get(name)
    assert norm.name == name
    assert norm is norms.get(name.lower())
    assert ThreatModel.parse(f"{name}:0.5").geometry is norm
    assert "geometry" not in {field.name for field in fields(ThreatModel)}
