"""Claims on figures whose truth is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from harness.results import stats
from harness.studies import Measurements, judging
from harness.studies.judging import Judgement, judge
from harness.studies.measurements import Measurement, Network
from harness.studies.planning import Plan
from tests.studies.made_up import measurements, planned

ROBUST = {"natural": (0.1, 0.12, 0.11), "bn-ft": (0.4, 0.42, 0.41), "at-full": (0.8, 0.79, 0.81)}
CLEAN = {"natural": (0.98, 0.97, 0.98), "bn-ft": (0.97, 0.98, 0.98), "at-full": (0.9, 0.91, 0.9)}


def judged(*texts: str, robust: Any = ROBUST, clean: Any = CLEAN, **changes: Any) -> tuple[Judgement, ...]:
    made = planned(claim=[{"text": text} for text in texts], **changes)
    return judge(measurements(made, robust, clean))


@pytest.mark.parametrize(
    ("text", "verdict", "estimate"),
    [
        ("robust(at-full) > robust(bn-ft)", "supported", 39),
        ("robust(at-full) < robust(bn-ft)", "refuted", 39),
        ("robust(at-full) - robust(bn-ft) > 25", "supported", 14),
        ("robust(at-full) - robust(bn-ft) > 55", "refuted", -16),
        ("robust(at-full) - robust(bn-ft) > 38", "open", 1),
        ("robust(natural) <= chance + 10", "supported", -9),
        ("robust(natural) > chance", "open", 1),
        ("robust(bn-ft) > chance", "supported", 31),
        ("clean(at-full) < clean(natural)", "supported", -7.33),
        ("clean(bn-ft) < clean(natural)", "open", 0),
        ("clean(bn-ft) != clean(natural)", "open", 0),
        ("robust(bn-ft) != robust(natural)", "supported", 30),
        ("params(bn-ft) < 0.2", "refuted", 0.419),
        ("params(bn-ft) < 1", "supported", -0.381),
        ("params(natural) >= 100", "supported", 0),
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
    weak = "robust(bn-ft) - robust(natural) > 22.5"
    (alone,) = judged(weak)
    assert alone.verdict == "supported"
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


def test_one_seed_is_the_paired_t_test() -> None:
    difference = np.random.default_rng(0).normal(0.1, 1.0, size=(1, 50))
    low, high, p_value = judging._random_effects(difference)
    known = ttest_1samp(difference[0], 0.0)
    assert p_value == pytest.approx(known.pvalue)
    assert (low, high) == pytest.approx(tuple(known.confidence_interval()))


def test_seeds_that_differ_as_wholes_are_tested_as_so_many_numbers() -> None:
    """Where every image says the same, k seeds are k numbers."""
    by_seed = np.array([1.0, 2.0, 4.5])
    low, high, p_value = judging._random_effects(np.repeat(by_seed[:, None], 40, axis=1))
    known = ttest_1samp(by_seed, 0.0)
    assert p_value == pytest.approx(known.pvalue)
    assert (low, high) == pytest.approx(tuple(known.confidence_interval()))


def test_more_seeds_of_the_same_narrow_no_interval() -> None:
    """Copies of a seed say nothing new of the images."""
    one = np.random.default_rng(0).normal(0.1, 1.0, size=(1, 50))
    assert judging._random_effects(np.repeat(one, 3, axis=0)) == pytest.approx(judging._random_effects(one))


def test_what_did_not_happen_in_three_images_is_not_ruled_out() -> None:
    none = {"natural": (0.0,), "bn-ft": (0.0,), "at-full": (0.0,)}
    (few,) = judged("robust(natural) <= 1", robust=none, clean=dict.fromkeys(none, (1.0,)), seeds=1, limit=3)
    assert few.verdict == "open"
    assert few.estimate == -1
    (many,) = judged("robust(natural) <= 5", robust=none, clean=dict.fromkeys(none, (1.0,)), seeds=1, limit=200)
    assert many.verdict == "supported"


def test_what_is_not_measured_is_open() -> None:
    robust = {label: values for label, values in ROBUST.items() if label != "at-full"}
    clean = {label: CLEAN[label] for label in robust}
    missing, there = judged("robust(at-full) > robust(bn-ft)", "robust(bn-ft) > chance", robust=robust, clean=clean)
    assert (missing.verdict, missing.reason, missing.p_value) == ("open", "not measured yet", None)
    assert there.verdict == "supported"
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
