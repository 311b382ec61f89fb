"""A regime, a data set and a start, checked against each other and resolved, before the first step."""

from __future__ import annotations

import copy
import hashlib
import json
from dataclasses import asdict, dataclass
from itertools import pairwise

import torch
from torch import Tensor

from harness import models
from harness.checkpoints import Checkpoint, weights_sha256
from harness.datasets import Dataset
from harness.errors import InvalidInput
from harness.models import Model, Normalization, _selectors
from harness.models.norm_layers import deploy_branch
from harness.regimes._base import Conduct, PartOptimizer, Regime
from harness.threat.perturb import Crafting
from harness.training import identity
from harness.training.initialize import initialize
from harness.training.settings import Settings

__all__ = ["Plan", "Stage", "crafting_of", "plan"]


@dataclass(frozen=True)
class Stage:
    """A phase of the regime on this network, selectors resolved to names in ``model.network``.

    Attributes:
        conduct: the phase's fields.
        epochs: 0 where nothing is trained.
        trained, reset: parameters. still: BN layers whose statistics do not move.
        reset_layers: BN layers whose statistics begin anew.
        own: parts with an optimiser of their own, and their parameters.
        perturbed: weights under adversarial weight perturbation.
        crafting: how its examples are made, at their full radius.
    """

    conduct: Conduct
    epochs: int
    trained: frozenset[str]
    still: frozenset[str]
    reset: frozenset[str]
    reset_layers: frozenset[str]
    own: tuple[tuple[PartOptimizer, frozenset[str]], ...]
    perturbed: frozenset[str]
    crafting: Crafting


@dataclass(frozen=True)
class Plan:
    """All that training needs to know, but the data.

    Attributes:
        model: the start, before any reset.
        fresh: parameters of the same architecture with fresh values, to reset from; empty where nothing is reset.
        crafting: as the settings say, which is what validation is about; phases may craft otherwise.
        fingerprint: hash of everything that decides the outcome.
    """

    model: Model
    fresh: dict[str, Tensor]
    stages: tuple[Stage, ...]
    crafting: Crafting
    fingerprint: str

    @property
    def epochs(self) -> int:
        """Of all phases together."""
        return sum(stage.epochs for stage in self.stages)

    @property
    def trained(self) -> frozenset[str]:
        """Parameters that any phase trains or resets."""
        return frozenset().union(*(stage.trained | stage.reset for stage in self.stages))


def plan(
    regime: Regime,
    settings: Settings,
    dataset: Dataset,
    *,
    architecture: str | None,
    parent: Checkpoint | None,
    device: torch.device,
) -> Plan:
    """Resolve everything.

    Raises:
        InvalidInput: a parent that is missing, not wanted or does not fit; a selector that matches nothing;
            norm layers that the architecture does not have; more phases than epochs; no threat model.
    """
    if regime.start == "parent":
        model = _from_parent(regime, dataset, architecture, parent)
    elif parent is not None:
        raise InvalidInput(f"regime {regime.name!r} starts at random, so the parent {parent.name!r} is of no use to it")
    else:
        model = _random(regime, settings, dataset, architecture)
    stages = _stages(regime, settings, dataset, model)
    return Plan(
        model=model,
        fresh=_fresh(model, regime, settings.seed) if any(stage.reset for stage in stages) else {},
        stages=stages,
        crafting=Crafting.of(
            settings.attack, dataset.threat(settings.threat), steps=settings.steps, step_size=settings.step_size
        ),
        fingerprint=_fingerprint(regime, settings, dataset, model, device),
    )


def _from_parent(regime: Regime, dataset: Dataset, architecture: str | None, parent: Checkpoint | None) -> Model:
    if parent is None:
        kind = f"a {regime.parent!r} checkpoint" if regime.parent else "any checkpoint"
        raise InvalidInput(f"regime {regime.name!r} starts from a parent ({kind}): give one")
    model = copy.deepcopy(parent.model)
    if architecture is not None and architecture != model.architecture:
        raise InvalidInput(
            f"the parent {parent.name!r} is a {model.architecture}, not a {architecture}: leave the architecture out"
        )
    if (model.classes, model.shape) != (len(dataset.classes), dataset.shape):
        raise InvalidInput(
            f"the parent {parent.name!r} takes images of shape {model.shape} in {model.classes} classes, but "
            f"{dataset.name} has shape {dataset.shape} in {len(dataset.classes)} classes"
        )
    return model


def _random(regime: Regime, settings: Settings, dataset: Dataset, architecture: str | None) -> Model:
    if architecture is None:
        raise InvalidInput(f"regime {regime.name!r} starts at random: name an architecture")
    model = models.build(
        architecture,
        classes=len(dataset.classes),
        shape=dataset.shape,
        norm_layer=regime.norm_layer or "own",
        normalization=_normalization(dataset) if settings.normalize else None,
        seed=settings.seed,
    )
    initialize(model, regime.init, settings.seed)
    if regime.deploy is not None:
        deploy_branch(model, regime.deploy)
    return model


def _normalization(dataset: Dataset) -> Normalization:
    # rounded, so that a manifest states it in full
    std, mean = torch.std_mean(dataset.x[:].double(), dim=(0, 2, 3))
    return Normalization(
        tuple(round(value, 4) for value in mean.tolist()),
        tuple(max(round(value, 4), 1e-4) for value in std.tolist()),
    )


def _fresh(model: Model, regime: Regime, seed: int) -> dict[str, Tensor]:
    built = models.build(
        model.architecture,
        classes=model.classes,
        shape=model.shape,
        norm_layer=model.norm_layer,
        normalization=model.normalization,
        arguments=model.arguments,
        seed=seed,
    )
    initialize(built, regime.init, seed)
    return {name: parameter.detach() for name, parameter in built.network.named_parameters()}


def _stages(regime: Regime, settings: Settings, dataset: Dataset, model: Model) -> tuple[Stage, ...]:
    conducts, epochs = regime.stages(), settings.epochs
    shares = [phase.share for phase in regime.phases] or [1.0]
    shares = [share if conduct.trained else 0.0 for share, conduct in zip(shares, conducts, strict=True)]
    counts = _shared_out(epochs, shares)
    if any(share and not count for share, count in zip(shares, counts, strict=True)):
        raise InvalidInput(f"{epochs} epochs are too few for the {len(shares)} phases of regime {regime.name!r}")
    return tuple(
        _stage(conduct, count, model, crafting_of(conduct, settings, dataset))
        for conduct, count in zip(conducts, counts, strict=True)
    )


def crafting_of(conduct: Conduct, settings: Settings, dataset: Dataset) -> Crafting:
    """Of one phase: its own fields, and the settings where it has none. A step size belongs to an attack."""
    own = conduct.attack is not None or conduct.steps is not None or conduct.threat is not None
    step_size = conduct.step_size if own or conduct.step_size is not None else settings.step_size
    return Crafting.of(
        conduct.attack or settings.attack,
        dataset.threat(conduct.threat or settings.threat),
        steps=conduct.steps or settings.steps,
        step_size=step_size,
        start=conduct.crafting_start,
    )


def _shared_out(epochs: int, shares: list[float]) -> list[int]:
    total, ends, reached = sum(shares), [0], 0.0
    for share in shares:
        reached += share
        ends.append(round(epochs * reached / total) if total else 0)
    return [end - begin for begin, end in pairwise(ends)]


def _stage(conduct: Conduct, epochs: int, model: Model, crafting: Crafting) -> Stage:
    layers = frozenset(_selectors.bn_layers(model.network))
    trained = _selectors.select(model, conduct.trained)
    if conduct.trained and not trained:
        raise InvalidInput(f"trained = {list(conduct.trained)} takes away all that it names: nothing is left to train")
    if conduct.bn_statistics.startswith("re-estimated") and not layers:
        raise InvalidInput("there are no BN statistics to re-estimate: the network has no BN layer")
    still = {
        "frozen": layers,
        "moving-where-trained": layers - _selectors.select_bn_layers(model, conduct.trained),
    }.get(conduct.bn_statistics, frozenset())
    reset_layers = _selectors.select_bn_layers(model, conduct.reset)
    return Stage(
        conduct=conduct,
        epochs=epochs,
        trained=trained,
        still=still,
        reset=_selectors.select(model, conduct.reset),
        reset_layers=layers if conduct.reset_statistics else reset_layers,
        own=_own(conduct, trained, model),
        perturbed=_perturbed(conduct, trained, model),
        crafting=crafting,
    )


def _own(conduct: Conduct, trained: frozenset[str], model: Model) -> tuple[tuple[PartOptimizer, frozenset[str]], ...]:
    own: list[tuple[PartOptimizer, frozenset[str]]] = []
    for spec in conduct.optimizers:
        names = _selectors.select(model, spec.part) & trained
        if not names:
            raise InvalidInput(f"the optimizer for {list(spec.part)} has nothing to do: no such part is trained")
        if any(names & others for _, others in own):
            raise InvalidInput(f"the optimizer for {list(spec.part)} shares parameters with another")
        own.append((spec, names))
    return tuple(own)


def _perturbed(conduct: Conduct, trained: frozenset[str], model: Model) -> frozenset[str]:
    if conduct.awp is None:
        return frozenset()
    chosen = _selectors.select(model, conduct.awp.part) & trained
    names = {n for n, p in model.network.named_parameters() if n in chosen and p.dim() > 1}
    if not names:
        raise InvalidInput(
            f"awp on {list(conduct.awp.part)} has nothing to perturb: no weight of two dimensions there is trained"
        )
    return frozenset(names)


def _fingerprint(regime: Regime, settings: Settings, dataset: Dataset, model: Model, device: torch.device) -> str:
    normalization = None if model.normalization is None else asdict(model.normalization)
    content = {
        **identity.content(regime, settings),
        "data": [dataset.name, dataset.sha256],
        "model": [model.architecture, model.norm_layer, normalization, weights_sha256(model)],
        "device": device.type,
        "torch": torch.__version__,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
