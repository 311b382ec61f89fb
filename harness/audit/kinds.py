"""Every kind of flag that this package raises."""

from __future__ import annotations

from harness.audit.flags import define

__all__ = [
    "ANSWERS_QUANTISED",
    "BATCH_DEPENDENT",
    "BN_NEVER_UPDATED",
    "BN_NO_STATISTICS",
    "BN_STATS_BATCH",
    "BN_STATS_SEEN",
    "BN_TINY_VARIANCE",
    "CALLS_COUNTED",
    "CHECK_FAILED",
    "CLAIMS_REJECTED",
    "CLASS_NAMES",
    "CLEAN_BY_CHANCE",
    "CLEAN_DIFFERS",
    "CONSTANTS_FOR_BYTES",
    "DYNAMIC_DEFENCE",
    "EPS_CONVERTED",
    "EPS_COVERS_ALL",
    "EPS_TINY",
    "EXAMPLES_MISSING",
    "FEWER_TARGETS",
    "FEW_STEPS",
    "GRADIENT_FREE_GAIN",
    "GRADIENT_MASKING",
    "GRADIENT_MISLEADS",
    "GRADIENT_RANDOM",
    "GRADIENT_SHATTERED",
    "GRADIENT_VANISHING",
    "GRAD_MODE_DEPENDENT",
    "IMAGES_DARK",
    "IMPORT_ASSUMED",
    "INPUT_RANGE",
    "KNOWN_BEFORE",
    "LABELS_NEVER_PREDICTED",
    "LABELS_PERMUTED",
    "LARGER_EPS_WEAKER",
    "LEGACY",
    "LINEAGE_CONTRADICTED",
    "LINEAGE_UNVERIFIED",
    "LOGITS_HUGE",
    "LOGITS_OFFSET",
    "LOGITS_RESCALED",
    "LOGITS_SATURATED",
    "LOGITS_SMALL",
    "LOG_PROBABILITIES",
    "LOSS_REPLACED",
    "MENDABLE",
    "NAN_GRADIENT",
    "NOISE_GAINS",
    "NOT_FINITE_NEARBY",
    "NO_GRADIENT",
    "ONE_STEP_STRONGER",
    "OUTPUTS_SATURATED",
    "PASSES_REPLACED",
    "PROBABILITIES",
    "RANDOMISED",
    "RANDOM_NUMBERS",
    "RANKED_NOT_LOWEST",
    "REFERENCE_WARNING",
    "RESULTS_DIFFER",
    "SEEDED_INSIDE",
    "SEVERAL_SEEDS",
    "SHORT_PGD_GAINS",
    "STANDS_IN",
    "STATE_KEPT",
    "STEPS_DIFFER",
    "STEPS_TOO_SHORT",
    "SUCCESS_UNCLAIMED",
    "TRAIN_MODE",
    "TRANSFER_GAINS",
    "UNBOUNDED_FAILS",
    "UNSTABLE_VERDICTS",
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
RESULTS_DIFFER = define(
    "results-differ",
    "warn",
    "on a board: the same evaluation was made more than once, with different figures; the lowest is shown",
    "one evaluation by {suite} has different results: {figures}",
)
EXAMPLES_MISSING = define(
    "examples-missing",
    "warn",
    "on a board: the file of adversarial examples that the result names is not beside it",
    "the adversarial examples of {suite} are missing, so that what it broke cannot be checked: {file}",
)
STEPS_DIFFER = define(
    "steps-differ",
    "warn",
    "on a board: the steps that a result records are not those of the suite that it names",
    "what is called {suite} is not that suite: {difference}",
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
ANSWERS_QUANTISED = define(
    "quantised",
    "warn",
    "a small change of the images changes no output at all",
    "a change of the images by {change} leaves the outputs of {samples} of {of} samples exactly as they were: "
    "the model or its outputs are quantised, and gradients say little",
)
BN_NEVER_UPDATED = define(
    "bn-never-updated",
    "warn",
    "trained BN layers whose running statistics are still those of a new layer",
    "the BN layers {names} are trained, but their running statistics are those of a new layer: re-estimate "
    "them (--bn-stats clean), or train with a momentum that is not 0",
)
BN_NO_STATISTICS = define(
    "bn-no-statistics",
    "warn",
    "BN layers without running statistics normalise by the batch at hand",
    "the BN layers {names} have no running statistics and normalise by the batch at hand, so that no verdict "
    "is that of an image alone",
)
BN_TINY_VARIANCE = define(
    "bn-tiny-variance",
    "warn",
    "BN layers divide most of their channels by nearly nothing",
    "the BN layers {names} have running variances near 0 in at least half of their channels: their outputs are"
    " constants or rounding errors made large",
)
CALLS_COUNTED = define(
    "calls-counted",
    "warn",
    "the forward pass changes a number that a module keeps",
    "the forward pass changes numbers that the model keeps ({names}): it may answer the same image differently"
    " after some number of calls",
)
CHECK_FAILED = define(
    "check-failed",
    "note",
    "a check could not be made of this model",
    "the check {check} could not be made of this model ({reason})",
)
CONSTANTS_FOR_BYTES = define(
    "constants-for-bytes",
    "warn",
    "the constants of the normalisation are for images in 0..255",
    "the model subtracts up to {mean} and divides by up to {deviation}, constants for images in 0..255, where "
    "images are in [0, 1]: divide both by 255",
)
GRADIENT_MISLEADS = define(
    "gradient-misleads",
    "warn",
    "the output does not change as the gradient says it would",
    "a step along the gradient changes the output by {found} times what the gradient says (median of {of} "
    "samples): gradient attacks are led astray",
)
GRADIENT_RANDOM = define(
    "gradient-random",
    "warn",
    "two backward passes at the same point differ",
    "two gradients at the same point differ (cosine {cosine}): the backward pass is randomised",
)
GRADIENT_SHATTERED = define(
    "gradient-shattered",
    "warn",
    "the gradient holds for far smaller steps than those of an attack",
    "at a quarter of the radius the output has changed by {found} times what the gradient says (median of {of}"
    " samples), and for tiny steps by what it says: it holds nowhere but in a point's immediate neighbourhood",
)
GRADIENT_VANISHING = define(
    "gradient-vanishing",
    "warn",
    "the gradient is tiny beside the outputs",
    "by the gradient a change of every pixel by 8/255 changes the outputs by {share} of their spread (median "
    "of {of} samples): it vanishes on the way back, or the model hardly looks at its images",
)
GRAD_MODE_DEPENDENT = define(
    "grad-mode-dependent",
    "warn",
    "the output is another one where gradients are recorded",
    "the model answers otherwise where gradients are recorded: gradient attacks attack another function than "
    "the one that is judged",
)
IMAGES_DARK = define(
    "images-dark",
    "warn",
    "no pixel is brighter than 1/255",
    "no pixel of the images is brighter than {brightest}: were they divided by 255 twice?",
)
INPUT_RANGE = define(
    "input-range",
    "warn",
    "the model is far more accurate on images of another range",
    "the model classifies {correct} of {of} images correctly, and {otherwise} if {what}",
)
LABELS_PERMUTED = define(
    "labels-permuted",
    "warn",
    "the predictions are right up to the names of the classes",
    "{correct} of {of} predictions are right, but {otherwise} are if classes are renamed ({example}): are the "
    "labels in another order than the model's classes?",
)
LOGITS_OFFSET = define(
    "logits-offset",
    "warn",
    "logits lie so far from zero that float32 cannot tell them apart",
    "logits lie around {offset} and differ by {spread}, of which float32 keeps less than {digits} digits: "
    "subtract their mean in the model",
)
LOGITS_SATURATED = define(
    "logits-saturated",
    "warn",
    "the cross-entropy has no gradient in float32",
    "on {samples} of {of} samples the largest logit is more than 80 ahead of all others, so that the cross-"
    "entropy has no gradient in float32",
)
LOGITS_SMALL = define(
    "logits-small",
    "warn",
    "logits so close to each other that losses in float32 hardly change",
    "the logits differ by {spread} only (median), so that losses in float32 hardly change: train or scale the "
    "model so that they differ by more",
)
LOG_PROBABILITIES = define(
    "log-probabilities",
    "note",
    "the outputs are logarithms of probabilities",
    "the outputs are logarithms of probabilities, as after a log-softmax: attacks treat them as logits, which "
    "changes nothing but rounding",
)
NAN_GRADIENT = define(
    "nan-gradient",
    "warn",
    "gradients are NaN or infinite where the loss is finite",
    "the gradient was NaN or infinite in some pixels of {samples} of {of} samples although the loss was finite (a "
    "square root, norm or logarithm at zero?); there it is taken from a point 1e-6 beside, or as zero, and gradient "
    "attacks may be weaker for it",
)
NOT_FINITE_NEARBY = define(
    "not-finite-nearby",
    "warn",
    "the output is NaN or infinite at points inside the threat model",
    "the model returned NaN or infinite logits at random points inside the threat model around {samples} of "
    "{of} samples",
)
NO_GRADIENT = define(
    "no-gradient",
    "note",
    "the output has no gradient with respect to the images",
    "the output has no gradient with respect to the images, so that only attacks without gradients can be made",
)
OUTPUTS_SATURATED = define(
    "outputs-saturated",
    "warn",
    "outputs in [0, 1], most of them exactly 0 or 1, as of saturated sigmoids",
    "{share} of the outputs are exactly 0 or 1 within rounding, as of saturated sigmoids: attacks need the "
    "values before",
)
RANDOM_NUMBERS = define(
    "random-numbers",
    "warn",
    "the forward pass draws random numbers, and its answers agreed all the same",
    "the forward pass draws random numbers ({generators}) although {calls} calls gave the same answers: it may"
    " be randomised on other images or in rare cases",
)
SEEDED_INSIDE = define(
    "seeded-inside",
    "warn",
    "the forward pass seeds a global random generator",
    "the forward pass seeds a global random generator ({generators}), so that its randomness looks like none: "
    "attacks should average over it (--suite autoattack-rand)",
)
TRAIN_MODE = define(
    "train-mode",
    "refuse",
    "modules that behave otherwise in training are in train mode",
    "{names} are in train mode, so that answers depend on the batch, on chance and on the passes before; put "
    "all of the model's modules in eval mode: model.eval()",
)
LOGITS_HUGE = define(
    "logits-huge",
    "warn",
    "logits so large that losses overflow in float32",
    "logits reach {largest}, where losses in float32 overflow",
)
CLAIMS_REJECTED = define(
    "claims-rejected",
    "warn",
    "most points that an attack took for adversarial are none",
    "the judge did not confirm {rejected} of the {judged} points that the attack took for adversarial: it "
    "attacks another function than the one that is judged",
)
FEW_STEPS = define(
    "few-steps",
    "warn",
    "an iterative attack of fewer than five steps",
    "PGD takes {steps} steps only, too few to say much about a model",
)
GRADIENT_FREE_GAIN = define(
    "gradient-free-gain",
    "note",
    "an attack without gradients breaks a few samples after gradient attacks have tried",
    "an attack without gradients broke samples that survived the gradient attacks, but hardly more than may "
    "happen to any model: more samples would tell",
)
LARGER_EPS_WEAKER = define(
    "larger-eps-weaker",
    "warn",
    "the same attack breaks fewer samples in a larger ball",
    "ten steps of PGD break {ten} of {of} samples, and {double} with twice the eps, where it must be more: "
    "gradients mislead",
)
LOGITS_RESCALED = define(
    "logits-rescaled",
    "note",
    "attacks see the logits multiplied by a constant, the judge as they are",
    "attacks see the logits multiplied by {factor}, as they are too close to each other or too far apart for "
    "losses in float32; the judge sees them as they are",
)
NOISE_GAINS = define(
    "noise-gains",
    "warn",
    "random noise breaks samples that the attacks left",
    "eight points of random noise broke {samples} of {of} samples that survived the attacks: they missed these",
)
ONE_STEP_STRONGER = define(
    "one-step-stronger",
    "warn",
    "one step of PGD breaks more samples than ten",
    "one step along the gradient breaks {one} of {of} samples, and ten steps {ten}, where it must be more: "
    "gradients mislead",
)
SHORT_PGD_GAINS = define(
    "short-pgd-gains",
    "warn",
    "a short PGD breaks samples that the attacks left",
    "ten large steps of PGD on the margin broke {samples} of {of} samples that survived the attacks, which are too "
    "weak for this model: the figure is too high",
)
STEPS_TOO_SHORT = define(
    "steps-too-short",
    "warn",
    "the steps of an attack cannot reach the edge of the ball",
    "{steps} steps of {step_size} cannot reach the edge of the ball of radius {radius}",
)
SUCCESS_UNCLAIMED = define(
    "success-unclaimed",
    "warn",
    "an attack visited adversarial examples and did not claim them",
    "the attack ended at adversarial examples of {samples} of {of} samples without claiming them: it is "
    "broken, and the figure is too high",
)
TRANSFER_GAINS = define(
    "transfer-gains",
    "warn",
    "perturbations of other samples break samples that the attacks left",
    "the perturbations of other samples broke {samples} of {of} samples that survived the attacks: they missed these",
)
UNBOUNDED_FAILS = define(
    "unbounded-fails",
    "warn",
    "an attack without a ball leaves samples unbroken",
    "{left} of {of} surviving samples survive gradient steps without a ball too, where none must: gradients "
    "lead nowhere",
)
UNSTABLE_VERDICTS = define(
    "unstable-verdicts",
    "warn",
    "the model answers otherwise after the attack than during it",
    "for {changed} of {of} images the model's class is another one now than during the attack: verdicts do not hold",
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
