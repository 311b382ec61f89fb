"""Every kind of flag that this package raises."""

from __future__ import annotations

from harness.audit.flags import define

__all__ = [
    "BATCH_DEPENDENT",
    "BN_STATS_BATCH",
    "BN_STATS_SEEN",
    "CLASS_NAMES",
    "CLEAN_BY_CHANCE",
    "CLEAN_DIFFERS",
    "DYNAMIC_DEFENCE",
    "EPS_CONVERTED",
    "EPS_COVERS_ALL",
    "EPS_TINY",
    "FEWER_TARGETS",
    "GRADIENT_MASKING",
    "IMPORT_ASSUMED",
    "KNOWN_BEFORE",
    "LABELS_NEVER_PREDICTED",
    "LEGACY",
    "LINEAGE_CONTRADICTED",
    "LINEAGE_UNVERIFIED",
    "LOSS_REPLACED",
    "MENDABLE",
    "PASSES_REPLACED",
    "PROBABILITIES",
    "RANDOMISED",
    "RANKED_NOT_LOWEST",
    "REFERENCE_WARNING",
    "SEVERAL_SEEDS",
    "STANDS_IN",
    "STATE_KEPT",
    "ZERO_GRADIENT",
]

RANDOMISED = define(
    "randomised",
    "warn",
    "two passes of the same images differ",
    "the model is randomised (two passes of the same images differ): use --suite autoattack-rand",
)
BATCH_DEPENDENT = define(
    "batch-dependent",
    "warn",
    "the output for an image changes with the images that share its batch",
    "the model's output depends on the rest of the batch, so that no verdict is that of an image alone",
)
STATE_KEPT = define(
    "state-kept",
    "warn",
    "the model answers the same image differently after the attack than before it",
    "the model no longer answers as it did before the attack: it keeps state between calls, so that its verdicts "
    "depend on the passes before them",
)
PASSES_REPLACED = define(
    "passes-replaced",
    "note",
    "a fast copy of the model disagreed with it at points of the attack, and the step was run again without the copy",
    "the fast copy disagreed with the model at points of the attack; the step was run again, and all that followed, "
    "with the plain model",
)
PROBABILITIES = define(
    "probabilities",
    "warn",
    "the outputs lie in [0, 1] and sum to 1, as after a softmax",
    "the outputs look like probabilities: attacks need the logits before the softmax",
)
ZERO_GRADIENT = define(
    "zero-gradient",
    "warn",
    "some samples have a gradient of exactly zero",
    "some samples had a gradient of exactly zero, so that gradient attacks may be blind there",
)
GRADIENT_MASKING = define(
    "gradient-masking",
    "warn",
    "an attack without gradients breaks more than 0.2 % of the samples after gradient attacks have tried",
    "an attack without gradients broke samples that survived the gradient attacks: the model may mask its gradients",
)
DYNAMIC_DEFENCE = define(
    "dynamic-defence",
    "warn",
    "the forward pass computes gradients",
    "the model computes gradients inside its forward pass (a dynamic defence)",
)
FEWER_TARGETS = define(
    "fewer-targets",
    "note",
    "a targeted attack tries every other class, as the model has fewer than its suite names",
    "the attack targets more classes than there are: it tries every other class instead",
)
LOSS_REPLACED = define(
    "loss-replaced",
    "note",
    "the DLR loss is not defined for so few classes",
    "the model has too few classes for the DLR loss: a plain difference of logits takes its place",
)
EPS_CONVERTED = define(
    "eps-converted",
    "warn",
    "eps was given in normalised units and converted to pixel units",
    "eps was given in normalised units and converted to pixel units",
)
EPS_COVERS_ALL = define(
    "eps-covers-all",
    "warn",
    "the radius is so large that every image lies within it",
    "the radius covers every image",
)
EPS_TINY = define(
    "eps-tiny",
    "warn",
    "the radius is so small that float32 hardly tells the images in it apart",
    "the radius {eps} is of the order of float32 rounding, so that attacks may miss what there is",
)
CLASS_NAMES = define(
    "class-names",
    "warn",
    "the classes of the images are called otherwise than those of the data set that the model was made for",
    "class {place} of the images is {found!r}, in {dataset}, which the model was made for, {known!r}: are they in its "
    "order? (--classes FILE says the names in that order)",
)
CLEAN_BY_CHANCE = define(
    "clean-by-chance",
    "warn",
    "accuracy without attack is that of guessing",
    "accuracy without attack is {accuracy}, that of guessing among {classes} classes: normalisation, the order of the "
    "classes or the weights may be wrong",
)
LABELS_NEVER_PREDICTED = define(
    "labels-never-predicted",
    "warn",
    "half of the labels are classes that the model predicts for no image",
    "{samples} of {of} labels are classes that the model predicts for no image: are they in the model's order?",
)
BN_STATS_BATCH = define(
    "bn-stats-batch",
    "warn",
    "the BN layers normalise by the batch at hand",
    "bn-stats batch: every prediction depends on the images that share its batch, and so the verdicts on how samples "
    "were packed; another batch size or number of workers is another result",
)
BN_STATS_SEEN = define(
    "bn-stats-seen",
    "warn",
    "BN statistics were estimated on some of the images evaluated",
    "bn-stats {kind}: {seen} of the {of} images evaluated are among those that the statistics were estimated on",
)
IMPORT_ASSUMED = define(
    "import-assumed",
    "warn",
    "the import of the checkpoint concluded something that it was not told",
    "when the checkpoint was imported it was assumed that {what}",
)
LINEAGE_UNVERIFIED = define(
    "lineage-unverified",
    "warn",
    "the regime that the manifest claims could not be checked against the parent's weights",
    "lineage: the claim of {regime} could not be verified ({reason})",
)
LINEAGE_CONTRADICTED = define(
    "lineage-contradicted",
    "warn",
    "the weights contradict the regime that the manifest claims",
    "lineage: the manifest {reason}",
)
REFERENCE_WARNING = define(
    "reference-warning",
    "warn",
    "a warning of the reference AutoAttack that has no code of its own",
    "the reference AutoAttack warned of the result",
)
STANDS_IN = define(
    "stands-in",
    "note",
    "on a board: the figure comes from another suite that does the same, as there is no result of the suite itself",
    "{measure} by {suite}",
)
RANKED_NOT_LOWEST = define(
    "ranked-not-lowest",
    "warn",
    "on a board: another suite found a lower robust accuracy than the one that decides the rank",
    "{lower} below {ranked}",
)
SEVERAL_SEEDS = define(
    "several-seeds",
    "note",
    "on a board: the same evaluation was made with several seeds; the lowest figure is shown",
    "{measure} with {seeds} seeds: mean {mean}, from {lowest} to {highest}",
)
CLEAN_DIFFERS = define(
    "clean-differs",
    "warn",
    "on a board: the suites found different clean accuracies",
    "clean accuracy differs between suites",
)
LEGACY = define(
    "legacy",
    "warn",
    "a flag in free words, from a result file of schema version 1",
    "a flag of an older result file",
)

MENDABLE = frozenset(kind.code for kind in (CLASS_NAMES, EPS_COVERS_ALL, EPS_TINY))
"""Codes of the flags that mostly stand for a slip in what was asked for, so that they are said before the attack."""

KNOWN_BEFORE = frozenset(
    kind.code
    for kind in (
        BN_STATS_BATCH,
        BN_STATS_SEEN,
        CLASS_NAMES,
        EPS_CONVERTED,
        EPS_COVERS_ALL,
        EPS_TINY,
        IMPORT_ASSUMED,
        LINEAGE_CONTRADICTED,
        LINEAGE_UNVERIFIED,
    )
)
"""Codes of the flags that follow from manifest, data and threat model, so that they are known without an attack."""
