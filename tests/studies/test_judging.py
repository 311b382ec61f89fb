"""Claims on figures whose truth is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest

from harness.results import stats
from harness.studies import Measurements
from harness.studies.judging import Judgement, judge
from harness.studies.measurements import Measurement, Network
from harness.studies.planning import Plan
from tests.studies.made_up import measurements, planned

ROBUST = {"natural": (0.1, 0.12, 0.11), "bn-ft": (0.4, 0.42, 0.41), "at-full": (0.8, 0.79, 0.81)}
CLEAN = {"natural": (0.98, 0.97, 0.98), "bn-ft": (0.97, 0.98, 0.98), "at-full": (0.9, 0.91, 0.9)}


def judged(*texts: str, robust: Any = ROBUST, clean: Any = CLEAN, **changes: Any) -> tuple[Judgement, ...]:
    losses = changes.pop("losses", {})
    made = planned(claim=[{"text": text} for text in texts], **changes)
    return judge(measurements(made, robust, clean, losses))


SUPPORTED, REFUTED = "supported in this setting", "not reproduced in this setting"


@pytest.mark.parametrize(
    ("text", "verdict", "estimate"),
    [
        ("robust(at-full) > robust(bn-ft)", SUPPORTED, 39),
        ("robust(at-full) < robust(bn-ft)", REFUTED, 39),
        ("robust(at-full) - robust(bn-ft) > 25", SUPPORTED, 14),
        ("robust(at-full) - robust(bn-ft) > 55", REFUTED, -16),
        ("robust(at-full) - robust(bn-ft) > 38", "open", 1),
        ("robust(natural) <= chance + 10", SUPPORTED, -9),
        ("robust(natural) > chance", "open", 1),
        ("robust(bn-ft) > chance", SUPPORTED, 31),
        ("clean(at-full) < clean(natural)", SUPPORTED, -7.33),
        ("clean(bn-ft) < clean(natural)", "open", 0),
        ("clean(bn-ft) != clean(natural)", "open", 0),
        ("robust(bn-ft) != robust(natural)", SUPPORTED, 30),
        ("clean(bn-ft) == clean(natural) +- 3", SUPPORTED, 0),
        ("clean(bn-ft) != clean(natural) +- 3", REFUTED, 0),
        ("robust(at-full) == robust(bn-ft) +- 2", REFUTED, 39),
        ("robust(at-full) != robust(bn-ft) +- 2", SUPPORTED, 39),
        ("clean(at-full) == clean(natural) +- 8", "open", -7.33),
        ("params(bn-ft) < 0.2", "does not hold", 0.419),
        ("params(bn-ft) < 1", "holds", -0.381),
        ("params(natural) >= 100", "holds", 0),
    ],
)
def test_verdicts(text: str, verdict: str, estimate: float) -> None:
    (one,) = judged(text)
    assert one.verdict == verdict
    assert one.estimate == pytest.approx(estimate, abs=0.4 if abs(estimate) >= 1 else 0.34)
    assert one.low is not None
    assert one.high is not None
    assert one.low - 1 <= estimate <= one.high + 1


def test_the_estimate_is_the_plain_mean() -> None:
    (one,) = judged("robust(at-full) - robust(natural) > 0")
    assert one.estimate == pytest.approx(100 * (np.mean(ROBUST["at-full"]) - np.mean(ROBUST["natural"])))
    assert (one.seeds, one.in_favour) == (3, 3)


def test_holm_corrects_over_the_claims_of_the_study() -> None:
    texts = [
        "robust(at-full) > robust(bn-ft)",
        "clean(bn-ft) > clean(natural)",
        "robust(natural) > chance",
        "params(bn-ft) < 1",
    ]
    several = judged(*texts)
    tested = [j for j in several if j.p_value is not None]
    assert [j.corrected for j in tested] == list(stats.holm([j.p_value for j in tested if j.p_value is not None]))
    assert tested[0].corrected == pytest.approx(3 * (tested[0].p_value or 0))
    assert several[3].corrected is None


def test_many_claims_make_a_weak_one_open() -> None:
    # one that stands alone, and falls among many
    weak = "robust(bn-ft) - robust(natural) > 20"
    (alone,) = judged(weak)
    assert alone.verdict == SUPPORTED
    assert alone.p_value is not None
    assert 1e-3 < alone.p_value < 0.05
    crowd = ["clean(bn-ft) > clean(natural)"] * int(0.05 / alone.p_value + 1)
    assert judged(weak, *crowd)[0].verdict == "open"


def test_seeds_that_disagree_leave_it_open() -> None:
    """Though each seed by itself would be beyond doubt on so many samples."""
    robust = ROBUST | {"bn-ft": (0.6, 0.9, 0.3), "natural": (0.3, 0.3, 0.6)}
    (one,) = judged("robust(bn-ft) > robust(natural)", robust=robust)
    assert (one.verdict, one.in_favour) == ("open", 2)
    assert one.mcnemar is not None
    assert one.mcnemar < 1e-6


def test_what_did_not_happen_in_three_images_is_not_ruled_out() -> None:
    none = {"natural": (0.0,), "bn-ft": (0.0,), "at-full": (0.0,)}
    (few,) = judged("robust(natural) <= 1", robust=none, clean=dict.fromkeys(none, (1.0,)), seeds=1, limit=3)
    assert few.verdict == "open"
    assert few.estimate == -1
    (many,) = judged("robust(natural) <= 5", robust=none, clean=dict.fromkeys(none, (1.0,)), seeds=1, limit=200)
    assert many.verdict == "holds for this network"


def test_what_is_not_measured_is_open() -> None:
    robust = {label: values for label, values in ROBUST.items() if label != "at-full"}
    clean = {label: CLEAN[label] for label in robust}
    missing, there = judged("robust(at-full) > robust(bn-ft)", "robust(bn-ft) > chance", robust=robust, clean=clean)
    assert (missing.verdict, missing.reason, missing.p_value) == ("open", "not measured yet", None)
    assert there.verdict == SUPPORTED
    assert there.corrected == there.p_value  # what was not tested is not corrected for


def test_only_seeds_that_all_have_are_compared() -> None:
    robust = ROBUST | {"at-full": (0.8, 0.79)}
    clean = CLEAN | {"at-full": (0.9, 0.91)}
    (one,) = judged("robust(at-full) > robust(bn-ft)", robust=robust, clean=clean)
    assert one.seeds == 2
    assert one.estimate == pytest.approx(100 * (0.8 + 0.79 - 0.4 - 0.42) / 2)


def test_samples_are_paired() -> None:
    """Equal accuracies on the same samples are nearer to each other than on different ones."""
    made = planned(claim=[{"text": "robust(bn-ft) > robust(natural)"}])
    alike = dict.fromkeys(ROBUST, (0.5, 0.5, 0.5))
    same = measurements(made, alike, CLEAN)
    other = rolled(same, made, "bn-ft", 60)
    (paired,), (apart,) = judge(same), judge(other)
    assert paired.estimate == apart.estimate == 0
    assert (paired.high or 0) - (paired.low or 0) < ((apart.high or 0) - (apart.low or 0)) / 3


def rolled(found: Measurements, made: Plan, label: str, by: int) -> Measurements:
    """The same accuracies on other samples."""
    networks = {
        seed: Network(
            n.label,
            n.seed,
            n.manifest,
            {m: Measurement(o.result, o.correct, np.roll(o.robust, by)) for m, o in n.measured.items()},
        )
        for seed, n in found.networks[label].items()
    }
    return Measurements(made, {**found.networks, label: networks})


def test_under_no_difference_few_claims_are_decided() -> None:
    """A test at 5 % that is right: of claims on pure chance, hardly more than one in twenty is decided."""
    generator = np.random.default_rng(1)
    made = planned(claim=[{"text": "robust(bn-ft) > robust(natural)"}])
    base = measurements(made, ROBUST, CLEAN)
    decided = 0
    for _ in range(30):
        networks: dict[str, dict[int, Network]] = {}
        for label in ("natural", "bn-ft"):
            networks[label] = {}
            for seed, network in base.networks[label].items():
                level = 0.5 + 0.04 * generator.normal()
                outcomes = {
                    m: Measurement(o.result, o.correct, generator.random(200) < level)
                    for m, o in network.measured.items()
                }
                networks[label][seed] = Network(label, seed, network.manifest, outcomes)
        (one,) = judge(Measurements(made, networks))
        decided += one.verdict != "open"
    assert decided <= 5


def test_an_untrained_entry_supports_no_claim() -> None:
    """Whatever its figures, and whatever is trained from it."""
    texts = (
        "robust(bn-ft) > chance",
        "robust(at-full) > chance",
        "robust(at-full) > robust(bn-ft)",
        "params(bn-ft) < 1",
    )
    about, beside, both, counted = judged(*texts, losses={"bn-ft": 2.31})
    assert (about.verdict, beside.verdict, both.verdict) == ("open: not trained", SUPPORTED, "open: not trained")
    assert counted.verdict == "holds"
    assert about.reason == "bn-ft (seed 0): its loss ends at 2.310, and guessing has 2.303"
    assert about.p_value is not None
    assert about.p_value < 0.001
    child, other = judged(*texts[:2], losses={"natural": 2.4})
    assert child.verdict == "open: not trained"
    assert child.reason.startswith("natural (seed 0)")
    assert other.verdict == SUPPORTED


def test_the_claim_on_random_features_at_the_old_budget() -> None:
    """270 steps end at the loss that the shipped log shows; what does not learn is not robust, and proves nothing."""
    robust = {"natural": (0.09, 0.05, 0.06), "bn-scratch": (0.002, 0.0, 0.008)}
    clean = {"natural": (0.98, 0.98, 0.98), "bn-scratch": (0.27, 0.45, 0.31)}
    text = "robust(bn-scratch) <= chance + 5"
    changes = {"regimes": ["natural", "bn-scratch"], "robust": robust, "clean": clean}
    (old,) = judged(text, **changes, losses={"bn-scratch": 2.3363})
    assert old.verdict == "open: not trained"
    (trained,) = judged(text, **changes)
    assert trained.verdict == SUPPORTED


def test_a_collapse_gates_as_well() -> None:
    made = planned(claim=[{"text": "robust(at-full) > chance"}])
    base = measurements(made, ROBUST, CLEAN)
    log = tuple({"phase": 1.0, "loss": 1.0, "validation_robust_acc": v} for v in (0.4, 0.45, 0.02))
    fallen = {s: Network(n.label, s, n.manifest, n.measured, log) for s, n in base.networks["at-full"].items()}
    (one,) = judge(Measurements(made, {**base.networks, "at-full": fallen}))
    assert one.verdict == "open: collapsed"
    assert "catastrophic overfitting" in one.reason


def test_how_far_a_verdict_reaches() -> None:
    text = "robust(at-full) > robust(bn-ft)"
    verdicts = []
    for seeds in (1, 2, 3):
        robust, clean = ({label: v[:seeds] for label, v in which.items()} for which in (ROBUST, CLEAN))
        verdicts += [j.verdict for j in judged(text, "robust(at-full) < 50", robust=robust, clean=clean, seeds=seeds)]
    assert verdicts == [
        "holds for these 2 networks", "does not hold for this network",
        "holds for these 4 networks", "does not hold for these 2 networks",
        SUPPORTED, REFUTED,
    ]  # fmt: skip


def test_one_network_is_judged_exactly() -> None:
    none = {"natural": (0.0,), "bn-ft": (0.0,), "at-full": (0.0,)}
    clean = dict.fromkeys(none, (1.0,))
    (one,) = judged("robust(natural) <= 1.5", robust=none, clean=clean, seeds=1, limit=200)
    assert one.verdict == "open"
    assert one.p_value == pytest.approx(binomtest(0, 200, 0.015).pvalue)


def test_an_effect_can_be_too_small_to_matter() -> None:
    text = "clean(at-full) < clean(natural)"
    (seen,) = judged(text)
    (small,) = judged(text, minimal_effect=10)
    assert seen.verdict == SUPPORTED
    assert (small.verdict, small.reason) == ("open", "smaller than the minimal effect of 10 points")


def test_a_claim_over_a_curve() -> None:
    """The mean over the radii, of every image; where one radius reverses the order, the curve need not."""
    curve = {"eps": [0.05, 0.1, 0.15]}
    (whole,) = judged("mean_robust(at-full) > mean_robust(bn-ft)", curve=curve)
    assert whole.verdict == SUPPORTED
    assert whole.estimate == pytest.approx(39)
    made = planned(claim=[{"text": "mean_robust(bn-ft) > mean_robust(natural)"}], curve=curve)
    assert [m.threat.eps for m in made.measures_for(made.claims[0].quantities[0])] == ["0.15", "0.05", "0.1"]
    base = measurements(made, ROBUST, CLEAN)
    networks = {}
    for label in ("natural", "bn-ft"):
        networks[label] = {
            seed: Network(
                label, seed, n.manifest,
                {m: o if (label == "bn-ft") == (m.threat.eps == "0.15") else Measurement(o.result, o.correct, ~o.robust)
                 for m, o in n.measured.items()},
                n.log,
            )
            for seed, n in base.networks[label].items()
        }  # fmt: skip
    (turned,) = judge(Measurements(made, networks))
    bn_ft, natural = (41 + 59 + 59) / 3, (89 + 11 + 11) / 3
    assert turned.estimate == pytest.approx(bn_ft - natural)
