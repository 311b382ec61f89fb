"""A study checked against everything it names: what has to be trained and evaluated, and what is claimed."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

import torch

from harness import checkpoints, datasets, regimes, suites
from harness.batchnorm.statistics import STORED
from harness.checkpoints import Checkpoint, Manifest
from harness.datasets import Dataset
from harness.errors import InvalidInput
from harness.models import Model
from harness.models._selectors import bn_layers
from harness.regimes._base import Regime
from harness.studies.claims import Claim, Quantity, parse
from harness.studies.labels import check_label
from harness.studies.spec import LABEL, Entry, Study
from harness.threat import ThreatModel
from harness.training import Settings, identity
from harness.training.plan import plan as plan_training
from harness.util.validation import validate

__all__ = ["Known", "Measure", "Member", "Plan", "labels_of", "plan"]


@dataclass(frozen=True)
class Measure:
    """One way to evaluate a network.

    Attributes:
        asked: the suite as the study names it. suite: as results call it.
        bn_stats: statistics that the BN layers evaluate with.
    """

    asked: str
    suite: str
    threat: ThreatModel
    bn_stats: str = STORED

    def job_of(self, label: str, seed: int) -> str:
        """The name of the job that evaluates a network in this way."""
        return f"evaluate {label} seed {seed} {self.suite} {self.threat.eps} {self.bn_stats}"


@dataclass(frozen=True)
class Member:
    """An entry of the study with everything it names.

    Attributes:
        regime, settings: of an entry that is trained.
        source: of one that is there already.
        parent: label of the entry it is trained from.
        has_bn: whether there are BN statistics that could be others.
    """

    label: str
    entry: Entry
    regime: Regime | None = None
    settings: Settings | None = None
    architecture: str | None = None
    parent: str | None = None
    source: Checkpoint | None = None
    has_bn: bool = True


@dataclass(frozen=True)
class Plan:
    """A study that can be run.

    Attributes:
        members: in the order of the file. order: so that parents come first.
        names: of the checkpoint of every label and seed. They carry a hash of all that decides what the training
            gives, so that what is there under its name need not be trained again.
        measures: of every network, those of the suites first, then those of the curve.
        primary: of what a claim means that names no suite.
        train_set: None where nothing is trained.
    """

    study: Study
    members: tuple[Member, ...]
    order: tuple[str, ...]
    seeds: tuple[int, ...]
    names: Mapping[tuple[str, int], str]
    measures: tuple[Measure, ...]
    primary: Measure
    claims: tuple[Claim, ...]
    threat: ThreatModel
    test_set: Dataset
    train_set: Dataset | None = field(default=None, repr=False)

    def member(self, label: str) -> Member:
        """The member of that label."""
        return next(member for member in self.members if member.label == label)

    def seeds_of(self, member: Member) -> tuple[int, ...]:
        """The seeds of a member; a checkpoint that is there already has the first one alone."""
        return self.seeds if member.regime is not None else self.seeds[:1]

    def measures_of(self, member: Member) -> tuple[Measure, ...]:
        """How a member is evaluated: other BN statistics need BN layers."""
        return tuple(m for m in self.measures if member.has_bn or m.bn_stats == STORED)

    def measures_for(self, quantity: Quantity) -> tuple[Measure, ...]:
        """What a claim's quantity was measured by: one evaluation, or all of the curve.

        Raises:
            InvalidInput: nothing that the study measures.
        """
        if quantity.kind == "params":
            return (self.primary,)
        if quantity.kind == "mean_robust":
            return self._curve(quantity)
        stats = quantity.bn_stats or self.primary.bn_stats
        eps = self.threat if quantity.eps is None else ThreatModel(self.threat.norm, quantity.eps)
        suite = quantity.suite or self.primary.suite
        for measure in self.measures:
            if (measure.suite, measure.bn_stats) == (suite, stats) and measure.threat.radius == eps.radius:
                return (measure,)
        measured = sorted({f"{m.suite} at eps {m.threat.eps} ({m.bn_stats})" for m in self.measures})
        raise InvalidInput(
            f"a claim speaks of {quantity.kind}({quantity.label}) by {suite} at eps {eps.eps} ({stats}), "
            f"but the study measures {', '.join(measured)}"
        )

    def _curve(self, quantity: Quantity) -> tuple[Measure, ...]:
        curve, stats = self.study.curve, quantity.bn_stats or self.primary.bn_stats
        if curve is None or stats not in self.study.bn_stats:
            raise InvalidInput(
                f"a claim speaks of mean_robust({quantity.label}) ({stats}), but the study has "
                + ("no curve: add [curve] with its radii" if curve is None else f"statistics {self.study.bn_stats}")
            )
        radii = {replace(self.threat, eps=eps).radius for eps in curve.eps}
        return tuple(
            m for m in self.measures if (m.asked, m.bn_stats) == (curve.suite, stats) and m.threat.radius in radii
        )


@dataclass(frozen=True)
class Known:
    """What a report needs to know of images and checkpoints that are not at hand.

    Attributes:
        test_set, train_set: their images are blank. The second is None if nothing is said of it.
        sources: of the entries that are checkpoints, by label; their weights mean nothing.
    """

    test_set: Dataset
    sources: Mapping[str, Checkpoint]
    train_set: Dataset | None = field(default=None, repr=False)


def plan(
    study: Study,
    *,
    seeds: int | None = None,
    limit: int | None = None,
    dataset: str | None = None,
    test_dataset: str | None = None,
    data_dir: str | Path | None = None,
    download: bool = False,
    checkpoint_dir: str | Path | None = None,
    known: Known | None = None,
) -> Plan:
    """Check a study and resolve it; nothing is trained or written.

    Args:
        seeds: the first so many only, or more of them: 0, 1, 2, ...
        limit: the first test images only.
        dataset, test_dataset: instead of the study's.
        data_dir, download, checkpoint_dir: where data sets and checkpoints lie.
        known: in the place of images and checkpoints, for a plan that is reported and not run.

    Raises:
        InvalidInput: whatever is wrong with the study, before anything runs.
        UnknownName: a regime, suite, data set, architecture or checkpoint that is not there.
    """
    test_name = test_dataset or (dataset if dataset else study.test_dataset or study.dataset)
    labels = labels_of(study)
    claims = tuple(parse(claim.text, labels=labels, about=claim.about) for claim in study.claim)
    chosen = _regimes(study, labels)
    most = study.limit if limit is None else limit
    if known:
        test_set = known.test_set
        _check_known(test_set, test_name, bool(test_dataset or dataset), most)
    else:
        test_set = datasets.load(test_name, data_dir=data_dir, download=download, limit=most)
    threat = test_set.threat(study.threat)
    measures = _measures(study, threat)
    members = tuple(
        _member(study, entry, label, chosen, threat, checkpoint_dir, known)
        for label, entry in zip(labels, study.entries(), strict=True)
    )
    order = _order(members)
    train_set = known.train_set if known else None
    if train_set is not None:
        _check_known(train_set, dataset or study.dataset, dataset is not None, study.train_limit)
    needed = any(member.regime for member in members) or {"clean", "adversarial"} & set(study.bn_stats)
    if needed and train_set is None:
        train_set = datasets.load(
            dataset or study.dataset, split="train", data_dir=data_dir, download=download, limit=study.train_limit
        )
    members = _checked(members, order, train_set)
    run_seeds = study.all_seeds if seeds is None else (study.all_seeds + _more(study.all_seeds, seeds))[:seeds]
    made = Plan(
        study=study,
        members=members,
        order=order,
        seeds=run_seeds,
        names=_names(study, members, order, run_seeds, train_set),
        measures=measures,
        primary=measures[len(study.suites) - 1],
        claims=claims,
        threat=threat,
        test_set=test_set,
        train_set=train_set,
    )
    for claim in claims:
        for quantity in claim.quantities:
            made.measures_for(quantity)
            _check_params(quantity, made)
    for member in members:
        _check_shape(member, test_set)
        _check_published(member, made)
    return made


def _check_known(images: Dataset, asked: str, explicit: bool, limit: int | None) -> None:
    """That images which are described and not at hand are those that are asked for, by their name and number."""
    registered = asked in datasets.names()
    name = asked if registered else Path(asked).name.removesuffix(".npz")
    # a study may have been run on files of other names than that of the data set which it names
    if images.name != name and (explicit or (registered and images.name in datasets.names())):
        raise InvalidInput(f"the measurements are of images of {images.name}, but the study is asked for on {asked}")
    expected = images.size if limit is None else min(limit, images.size)
    if len(images) != expected:
        raise InvalidInput(
            f"the measurements are of {len(images):,} images of {images.name} ({images.split}), but the study takes "
            f"{expected:,}: give the --limit that it was run with, or the file as it was then"
        )


def labels_of(study: Study) -> tuple[str, ...]:
    """The label of every entry, in the order of the file.

    Raises:
        InvalidInput: an entry that names nothing, too much, or what another one is called.
    """
    labels: list[str] = []
    for position, entry in enumerate(study.entries()):
        named = entry.regime or entry.checkpoint
        if named is None or (entry.regime and entry.checkpoint):
            raise InvalidInput(
                f"entry {position + 1} of the study {study.name} needs a regime or a checkpoint, and not both"
            )
        label = entry.label or Path(named).name.removesuffix(".toml").removesuffix(".pt").removesuffix(".safetensors")
        if not re.fullmatch(LABEL, label):
            raise InvalidInput(
                f"the study {study.name} cannot call an entry {label!r}: give it a label of letters, digits and . _ -"
            )
        if label in labels:
            raise InvalidInput(f"two entries of the study {study.name} are called {label!r}: give each a label")
        if entry.checkpoint and (entry.change or entry.training or entry.architecture or entry.parent):
            raise InvalidInput(
                f"the entry {label!r} of the study {study.name} is a checkpoint that is there already: it takes no "
                "change, training, architecture or parent"
            )
        labels.append(label)
    if not labels:
        raise InvalidInput(f"the study {study.name} has no entries: name regimes, or give [[entry]] tables")
    return tuple(labels)


def _regimes(study: Study, labels: tuple[str, ...]) -> dict[str, Regime]:
    return {
        label: _regime(entry.regime, entry.change, label)
        for label, entry in zip(labels, study.entries(), strict=True)
        if entry.regime is not None
    }


def _regime(name: str, change: dict[str, Any], label: str) -> Regime:
    regime = regimes.get(name)
    if not change:
        return regime
    # under its own name it would be taken for the regime of that name
    own = {"name": label.lower().replace("_", "-").replace(".", "-"), "summary": f"{regime.name}, changed"}
    table = regime.model_dump(exclude_unset=True) | own | change
    return validate(Regime, table, f"the change of {regime.name} in the entry {label!r}")


def _member(
    study: Study,
    entry: Entry,
    label: str,
    chosen: Mapping[str, Regime],
    threat: ThreatModel,
    checkpoint_dir: str | Path | None,
    known: Known | None,
) -> Member:
    if entry.checkpoint is not None and known is not None:
        if label not in known.sources:
            raise InvalidInput(f"the measurements hold no network {label!r}, which the study {study.name} names")
        return Member(label, entry, source=known.sources[label])
    if entry.checkpoint is not None:
        return Member(label, entry, source=checkpoints.load(entry.checkpoint, checkpoint_dir=checkpoint_dir))
    regime = chosen[label]
    numbers = {"threat": str(threat)} | study.training | entry.training
    if "seed" in numbers:
        raise InvalidInput(f"the training of {label!r} in the study {study.name} gives a seed: use the study's seeds")
    settings = validate(Settings, numbers, f"the training of {label!r} in the study {study.name}")
    if regime.start == "random":
        if entry.parent is not None:
            raise InvalidInput(f"the entry {label!r} names a parent, but {regime.name} starts at random")
        architecture = entry.architecture or study.architecture
        if architecture is None:
            raise InvalidInput(f"the entry {label!r} starts at random: give the study an architecture")
        return Member(label, entry, regime, settings, architecture)
    if entry.architecture is not None:
        raise InvalidInput(f"the entry {label!r} starts from a parent, whose architecture it takes: leave it out")
    return Member(label, entry, regime, settings, parent=_parent(study, entry, label, regime, chosen))


def _parent(study: Study, entry: Entry, label: str, regime: Regime, chosen: Mapping[str, Regime]) -> str:
    labels = labels_of(study)
    if entry.parent is not None:
        if entry.parent not in labels:
            raise InvalidInput(
                f"the entry {label!r} starts from {entry.parent!r}, which the study lacks: it has {', '.join(labels)}"
            )
        return entry.parent
    if regime.parent is None:
        raise InvalidInput(f"the entry {label!r} starts from any parent: say which entry's with parent = LABEL")
    if regime.parent in labels:
        return regime.parent
    fitting = [other for other, candidate in chosen.items() if candidate.name == regime.parent]
    if len(fitting) != 1:
        found = f"has several ({', '.join(fitting)})" if fitting else "has no such entry"
        raise InvalidInput(
            f"the entry {label!r} starts from a {regime.parent!r} network, and the study {found}: "
            "add one, or say which with parent = LABEL"
        )
    return fitting[0]


def _order(members: tuple[Member, ...]) -> tuple[str, ...]:
    graph = {member.label: {member.parent} if member.parent else set() for member in members}
    try:
        return tuple(TopologicalSorter(graph).static_order())
    except CycleError as error:
        raise InvalidInput(f"entries start from each other in a circle: {' > '.join(error.args[1])}") from error


def _measures(study: Study, threat: ThreatModel) -> tuple[Measure, ...]:
    asked = [(suite, threat) for suite in study.suites]
    if study.curve is not None:
        asked += [(study.curve.suite, replace(threat, eps=eps)) for eps in study.curve.eps]
    measures: list[Measure] = []
    for stats in study.bn_stats:
        for suite, at in asked:
            measure = Measure(suite, suites.get(suite, at).name, at, stats)
            if not any(_same(measure, other) for other in measures):
                measures.append(measure)
    return tuple(measures)


def _same(one: Measure, other: Measure) -> bool:
    return (one.suite, one.bn_stats, one.threat.radius) == (other.suite, other.bn_stats, other.threat.radius)


def _checked(members: tuple[Member, ...], order: tuple[str, ...], data: Dataset | None) -> tuple[Member, ...]:
    """Resolve every training on untrained networks, so that what does not fit is known now and not in hours."""
    starts: dict[str, Checkpoint] = {}
    # of the images their shape and classes are enough
    few = None if data is None else replace(data, x=data.x[:2], y=data.y[:2], indices=data.indices[:2])
    for label in order:
        member = next(member for member in members if member.label == label)
        if member.source is not None:
            starts[label] = member.source
        elif member.regime is not None and member.settings is not None and few is not None:
            planned = plan_training(
                member.regime,
                member.settings,
                few,
                architecture=member.architecture,
                parent=starts[member.parent] if member.parent else None,
                device=torch.device("cpu"),
            )
            starts[label] = _stand_in(label, planned.model)
        check_label(label, starts[label].model)
    return tuple(replace(m, has_bn=bool(bn_layers(starts[m.label].model.network))) for m in members)


def _stand_in(label: str, model: Model) -> Checkpoint:
    """An untrained network in the place of a parent that is yet to be trained."""
    nothing = "0" * 64
    manifest = Manifest(
        name=label,
        file=f"{label}.pt",
        sha256=nothing,
        weights_sha256=nothing,
        architecture=model.architecture,
        arguments=model.arguments,
        classes=model.classes,
        shape=model.shape,
        norm_layer=model.norm_layer,
        normalization=model.normalization,
        parameters=0,
    )
    return Checkpoint(Path(manifest.file), manifest, model)


def _more(seeds: tuple[int, ...], wanted: int) -> tuple[int, ...]:
    if wanted < 1:
        raise InvalidInput(f"a study needs at least one seed, got {wanted}")
    return tuple(seed for seed in range(wanted + len(seeds)) if seed not in seeds)


def _names(
    study: Study, members: tuple[Member, ...], order: tuple[str, ...], seeds: tuple[int, ...], data: Dataset | None
) -> dict[tuple[str, int], str]:
    identities: dict[tuple[str, int], str] = {}
    names: dict[tuple[str, int], str] = {}
    by_label = {member.label: member for member in members}
    for label in order:
        member = by_label[label]
        for seed in seeds:
            if member.regime is None or member.settings is None or data is None:
                source = member.source
                identities[label, seed] = source.manifest.weights_sha256 if source else ""
                continue
            content = {
                **identity.content(member.regime, member.settings.model_copy(update={"seed": seed})),
                "data": [data.name, data.sha256],
                "architecture": member.architecture,
                "parent": identities[member.parent, seed] if member.parent else None,
                "keep": study.keep,
            }
            digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
            identities[label, seed] = digest
            names[label, seed] = f"{label}-s{seed}-{digest[:8]}"
    return names


def _check_params(quantity: Quantity, made: Plan) -> None:
    source = made.member(quantity.label).source
    if quantity.kind == "params" and source is not None and source.manifest.trained_parameters is None:
        raise InvalidInput(
            f"a claim speaks of params({quantity.label}), but the manifest of {source.name} does not say how many "
            "parameters were trained"
        )


def _check_shape(member: Member, data: Dataset) -> None:
    if member.source is None:
        return
    manifest = member.source.manifest
    if (tuple(manifest.shape), manifest.classes) != (data.shape, len(data.classes)):
        raise InvalidInput(
            f"the checkpoint {manifest.name} takes images of shape {tuple(manifest.shape)} in {manifest.classes} "
            f"classes, but {data.name} has shape {data.shape} in {len(data.classes)} classes"
        )


def _check_published(member: Member, made: Plan) -> None:
    known = ["clean", *dict.fromkeys(m.suite for m in made.measures if m.threat == made.threat)]
    for name in (*member.entry.published, *member.entry.notes):
        if name not in known:
            raise InvalidInput(
                f"the entry {member.label!r} has a published figure for {name!r}, "
                f"but the study measures {', '.join(known)}"
            )
