"""An evaluation that was cut into shards is, joined, the evaluation that was not cut, bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import save_file
from torch import nn

from harness.audit import trials
from harness.audit.trials import Trial
from harness.backends import rounding
from harness.backends.passes import Passes
from harness.engine import snapshots
from harness.errors import InvalidInput, ResultError
from harness.evaluation import Evaluation, Plan, obtain_part, plan_model, run, shard_plan
from harness.results import joining, parts, store
from harness.results.joining import Joined
from harness.results.parts import Shard
from harness.results.record import Result
from harness.suites import Step, Suite
from tests.audit.planted import PLANTED, base, digits
from tests.engine.networks import CLASSES, network, samples
from tests.engine.test_determinism import SUITE
from tests.support import fix_choice, trained_looking

pytestmark = pytest.mark.usefixtures("unaudited")

N = 30
PGD = Suite("pgd-short", (Step("pgd", "pgd", {"steps": 6, "restarts": 3}), Step("square", "square", {"queries": 40})))
WEAK = Suite("weak", (Step("pgd", "pgd", {"steps": 1, "restarts": 1, "step_size": 0.005}),))
LATE = ("forward", "backward", "judge", "rejected", "before", "after", "name", "attack", "parameters")


def plan(threat: str = "Linf:0.03", suite: Suite = SUITE, n: int = N, **settings: object) -> Plan:
    model = network()
    x, y = samples(model, n)
    return plan_model(model, x, y, threat=threat, suite=suite, **{"workers": 1, **settings})


def undivided(planned: Plan) -> Evaluation:
    """What one process finds."""
    return run(replace(planned, settings=replace(planned.settings, deterministic=True)))


def sharded(planned: Plan, root: Path, count: int) -> Joined:
    for number in range(1, count + 1):
        obtain_part(planned, Shard(number, count), root)
    return joining.join(joining.survey(parts.folder_of(root, planned.evaluation_id)).parts)


def flags(result: Result) -> list[dict[str, object]]:
    """All but those of the perturbations of broken samples, which are of the same shard."""
    kept = (flag.model_dump() for flag in result.flags if flag.code != "transfer-gains")
    return sorted(kept, key=lambda flag: str(flag["text"]))


def alone(trial: Trial) -> tuple[str, str, int, dict[str, bool]]:
    """What does not come from the perturbations of other samples."""
    outcomes = {name: outcome for name, outcome in trial.outcomes.items() if name != "transferred"}
    return trial.indicator, trial.among, trial.index, outcomes


def same(whole: Evaluation, joined: Joined) -> None:
    for name in ("index", "y", "clean_pred", "robust", "broken_by", "adv_pred"):
        assert np.array_equal(getattr(whole.verdicts, name), getattr(joined.verdicts, name)), name
    assert np.array_equal(whole.points[whole.verdicts.broken_by >= 0].numpy(), joined.points)
    for one, other in zip(whole.result.steps, joined.result.steps, strict=True):
        assert [getattr(one, name) for name in LATE] == [getattr(other, name) for name in LATE]
    assert flags(whole.result) == flags(joined.result)
    told = ("evaluation_id", "record_id", "n", "clean_acc", "robust_acc", "model", "dataset", "threat", "suite", "seed")
    assert [getattr(whole.result, name) for name in told] == [getattr(joined.result, name) for name in told]


@pytest.mark.parametrize(
    ("threat", "suite", "count"),
    [("Linf:0.03", SUITE, 7), ("L2:0.3", SUITE, 2), ("L1:2", SUITE, 5), ("L2:0.2", PGD, 30), ("Linf:0.03", PGD, 1)],
)
def test_shards_joined_are_the_whole(tmp_path: Path, threat: str, suite: Suite, count: int) -> None:
    planned = plan(threat, suite)
    whole = undivided(planned)
    assert 0 < whole.result.robust_acc < whole.result.clean_acc < 1
    same(whole, sharded(planned, tmp_path, count))


@pytest.mark.audited
@pytest.mark.parametrize("count", [2, 3, 6])
def test_flags_do_not_depend_on_the_cut(tmp_path: Path, count: int) -> None:
    """Under a suite so weak that what indicators try does better."""
    n = 48  # of which more are tried than of a shard alone
    planned = plan("Linf:0.03", WEAK, n)
    whole = undivided(planned)
    assert {"few-steps", "short-pgd-gains"} <= {flag.code for flag in whole.result.flags}
    joined = sharded(planned, tmp_path, count)
    assert flags(whole.result) == flags(joined.result)
    found = joining.survey(parts.folder_of(tmp_path, planned.evaluation_id)).parts.values()
    for part in found:  # as many as of the whole, where there are so many
        asked = [trial for trial in part.record.trials if (trial.indicator, trial.among) == ("stability", "all")]
        assert len(asked) == min(trials.most(n), part.record.result.n)
    made = trials.first((trial for part in found for trial in part.record.trials), trials.most(n))
    assert {(trial.indicator, trial.among) for trial in made} == {
        ("gains", "survivors"),
        ("larger-eps", "correct"),
        ("larger-eps", "survivors"),
        ("stability", "all"),
        ("stability", "broken"),
        ("unbounded", "survivors"),
    }
    assert [alone(trial) for trial in made] == [alone(trial) for trial in whole.trials]


def mislabelled() -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    model = network()
    x, y = samples(model, N)
    return model, x, (y + 1) % CLASSES


@pytest.mark.parametrize(
    ("made", "code"),
    [
        (mislabelled, "clean-by-chance"),
        (lambda: (PLANTED["another where gradients are recorded"].make(), *digits(24)), "claims-rejected"),
        (lambda: (PLANTED["gradients NaN"].make(), *digits(24)), "nan-gradient"),
    ],
    ids=["clean-by-chance", "claims-rejected", "nan-gradient"],
)
def test_flags_that_count_samples_count_those_of_all_shards(
    tmp_path: Path, made: Callable[[], tuple[nn.Module, torch.Tensor, torch.Tensor]], code: str
) -> None:
    suite = Suite("short", (Step("pgd", "pgd", {"steps": 10, "restarts": 1}),))
    planned = plan_model(*made(), threat="Linf:0.15", suite=suite, workers=1)
    whole = undivided(planned)
    assert code in {flag.code for flag in whole.result.flags}
    assert flags(whole.result) == flags(sharded(planned, tmp_path, 2).result)


@pytest.mark.parametrize("settings", [{"workers": 2}, {"batch_size": 5}, {"batch_size": 1}], ids=str)
def test_deterministic_means_it(settings: dict[str, object]) -> None:
    """Without it, other runs of an attack are side by side, and others find the points."""
    whole, other = run(plan(deterministic=True)), run(plan(deterministic=True, **settings))
    assert torch.equal(whole.points, other.points)
    for one, two in zip(whole.result.steps, other.result.steps, strict=True):
        assert (one.forward, one.backward) == (two.forward, two.backward)


def test_the_micro_batch_changes_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run(plan(deterministic=True))
    fix_choice(monkeypatch, micro_batch=7)
    assert torch.equal(whole.points, run(plan(deterministic=True)).points)


@pytest.mark.parametrize("name", ["digits-resnet", "lenet5", "resnet20"])
def test_rows_do_not_change_with_their_batch(name: str) -> None:
    """On networks with matrix products as large as people have them; one to three rows alone do change."""
    model = trained_looking(name)
    x = torch.rand(24, *{"digits-resnet": (1, 8, 8), "lenet5": (1, 28, 28)}.get(name, (3, 32, 32)))
    passes = Passes(model, 10, 64)
    passes.fewest, spent = rounding.fewest_rows(passes, x)
    assert spent.backward > 0
    whole = passes.logits(x, "test")
    for size in (1, 2, 3, 5, 23):
        assert torch.equal(passes.logits(x[:size], "test"), whole[:size]), size


def test_gradients_that_are_nan_round_alike() -> None:
    model = PLANTED["gradients NaN"].make()
    x = digits(24)[0]
    healthy, nan = (rounding.fewest_rows(Passes(each, 10, 64), x)[0] for each in (base(), model))
    assert nan == healthy < 64


def test_a_shard_that_is_killed_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(BaseException):
        pass

    monkeypatch.setattr(snapshots, "_INTERVAL", 0.0)
    planned = plan(state_dir=tmp_path / "state")
    whole = run(replace(planned, settings=replace(planned.settings, deterministic=True, state_dir=None)))
    ticks = 0

    def kill(tick: object) -> None:
        nonlocal ticks
        ticks += 1
        if ticks == 20:
            raise Killed

    with pytest.raises(Killed):
        obtain_part(planned, Shard(2, 3), tmp_path, progress=kill)
    assert list((tmp_path / "state").glob("*/pool.pt"))
    same(whole, sharded(planned, tmp_path, 3))
    assert not list((tmp_path / "state").iterdir())


def test_a_part_that_is_there_is_not_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = obtain_part(plan(), Shard(1, 2), tmp_path)
    assert first.ran
    again = obtain_part(plan(batch_size=7, workers=2), Shard(1, 2), tmp_path)
    assert (again.ran, again.path) == (False, first.path)
    assert obtain_part(plan(), Shard(1, 2), tmp_path, force=True).ran
    assert obtain_part(plan(seed=1), Shard(1, 2), tmp_path).path.parent != first.path.parent


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The parts of an evaluation that was cut in three, in a folder of results."""
    root = tmp_path_factory.mktemp("parts")
    sharded(plan(suite=PGD), root, 3)
    return root


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """A copy of them."""
    source = parts.folder_of(made, plan(suite=PGD).evaluation_id)
    target = tmp_path / parts.FOLDER / source.name
    target.mkdir(parents=True)
    for path in source.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    return target


def test_holes_are_named(folder: Path) -> None:
    (folder / "part-2-of-3.safetensors").unlink()
    found = joining.survey(folder)
    assert found.missing == [Shard(2, 3)]
    with pytest.raises(ResultError, match=r"1 of 3 parts are missing: .* --shard 2/3"):
        joining.join(found.parts)


def test_overlaps_are_named(folder: Path) -> None:
    extra = obtain_part(plan(suite=PGD), Shard(4, 5), folder.parents[1])
    with pytest.raises(ResultError, match=r"part-1-of-3\S* and part-4-of-5\S* overlap: both hold sample 3"):
        joining.join(joining.survey(extra.path.parent).parts)


def test_parts_of_another_plan_are_named(folder: Path) -> None:
    other = obtain_part(plan(suite=PGD, seed=1), Shard(2, 3), folder.parents[1])
    other.path.replace(folder / "part-2-of-3.safetensors")
    with pytest.raises(ResultError, match=r"part-2-of-3\S* is of another evaluation than .*: its seed is 1, not 0"):
        joining.survey(folder)


def test_a_record_under_another_name_is_named(folder: Path) -> None:
    model = network()
    x, y = samples(model, N)
    named = plan_model(model, x, y, threat="Linf:0.03", suite=PGD, workers=1, name="other")
    obtain_part(named, Shard(2, 3), folder.parents[1], force=True)
    with pytest.raises(ResultError, match=r"part-2-of-3\S* has another name, claim or flag"):
        joining.survey(folder)


def _flip(tensors: dict[str, np.ndarray], header: dict[str, str]) -> None:
    tensors["robust"] = ~tensors["robust"]


def _move_points(tensors: dict[str, np.ndarray], header: dict[str, str]) -> None:
    tensors["points"] = tensors["points"] + 1e-6


def _boast(tensors: dict[str, np.ndarray], header: dict[str, str]) -> None:
    header["record"] = header["record"].replace('"seconds":', '"seconds":1')


@pytest.mark.parametrize("change", [_flip, _move_points, _boast])
def test_a_part_that_was_changed_is_named(folder: Path, change: Callable[..., None]) -> None:
    path = folder / "part-3-of-3.safetensors"
    with safe_open(path, framework="np") as file:
        header = dict(file.metadata())
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    change(tensors, header)
    save_file(tensors, path, header)
    with pytest.raises(ResultError, match=r"part-3-of-3\S* was changed after it was written"):
        joining.survey(folder)


@pytest.mark.parametrize("content", [b"", b"\xff" * 100, None], ids=["empty", "noise", "cut"])
def test_a_damaged_part_is_named(folder: Path, content: bytes | None) -> None:
    path = folder / "part-1-of-3.safetensors"
    path.write_bytes(path.read_bytes()[:-10] if content is None else content)
    with pytest.raises(ResultError, match=r"part-1-of-3\S* is damaged"):
        joining.survey(folder)


def test_a_part_under_the_name_of_another_is_no_second_one(folder: Path) -> None:
    (folder / "part-2-of-3.safetensors").write_bytes((folder / "part-1-of-3.safetensors").read_bytes())
    with pytest.raises(ResultError, match=r"part-2-of-3\S* holds shard 1/3 and has the name of another: remove it"):
        joining.survey(folder)
    with pytest.raises(ResultError, match="has the name of another"):
        obtain_part(plan(suite=PGD), Shard(2, 3), folder.parents[1])


def test_a_part_of_another_evaluation_is_not_taken_for_ones_own(folder: Path) -> None:
    other = plan(suite=PGD, seed=1)
    folder.rename(parts.folder_of(folder.parents[1], other.evaluation_id))
    with pytest.raises(ResultError, match=r"part-1-of-3\S* is of another evaluation .*, 30 images\): remove it"):
        obtain_part(other, Shard(1, 3), folder.parents[1])


def test_two_collectors_at_once_write_one_result(folder: Path) -> None:
    found = joining.survey(folder).parts

    def collect(_: int) -> Path:
        joined = joining.join(found)
        return store.save(joined.result, joined.verdicts, folder.parents[1])

    with ThreadPoolExecutor(8) as pool:
        paths = set(pool.map(collect, range(8)))
    assert len(paths) == 1
    assert sorted(path.suffix for path in folder.parents[1].iterdir() if path.is_file()) == [".json", ".npz"]
    assert store.read(paths.pop()).evaluation_id == plan(suite=PGD).evaluation_id


def test_what_depends_on_the_other_samples_is_not_cut() -> None:
    model = network(classes=10)
    x, y = samples(model, 4)
    reference = plan_model(model, x, y, threat="Linf:0.03", suite="autoattack-reference")
    with pytest.raises(InvalidInput, match="calls the reference"):
        shard_plan(reference, Shard(1, 2))
    with pytest.raises(InvalidInput, match="30 samples cannot be cut into 31 shards"):
        shard_plan(plan(), Shard(1, 31))


@pytest.mark.parametrize(
    ("text", "environment", "shard"),
    [
        ("3/16", {}, (3, 16)),
        ("auto", {"SLURM_ARRAY_TASK_ID": "4", "SLURM_ARRAY_TASK_MIN": "0", "SLURM_ARRAY_TASK_COUNT": "8"}, (5, 8)),
        ("auto", {"SLURM_ARRAY_TASK_ID": "8", "SLURM_ARRAY_TASK_MIN": "1", "SLURM_ARRAY_TASK_COUNT": "8"}, (8, 8)),
        (
            "auto",
            {
                "SLURM_ARRAY_TASK_ID": "14",
                "SLURM_ARRAY_TASK_MIN": "10",
                "SLURM_ARRAY_TASK_COUNT": "3",
                "SLURM_ARRAY_TASK_STEP": "2",
            },
            (3, 3),
        ),
        ("auto", {"RANK": "0", "WORLD_SIZE": "4"}, (1, 4)),
    ],
)
def test_which_shard(text: str, environment: dict[str, str], shard: tuple[int, int]) -> None:
    assert Shard.parse(text, environment) == Shard(*shard)


@pytest.mark.parametrize(
    ("text", "environment", "words"),
    [
        ("0/4", {}, "1/4 to 4/4, got 0/4"),
        ("5/4", {}, "1/4 to 4/4, got 5/4"),
        ("a/4", {}, "written as 3/16 or auto, got 'a/4'"),
        ("auto", {}, "neither is set"),
        ("auto", {"RANK": "1"}, "WORLD_SIZE, got ''"),
        ("auto", {"SLURM_ARRAY_TASK_ID": "x", "SLURM_ARRAY_TASK_MIN": "0"}, "SLURM_ARRAY_TASK_ID, got 'x'"),
    ],
)
def test_which_shards_there_are_not(text: str, environment: dict[str, str], words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        Shard.parse(text, environment)


@pytest.mark.parametrize("count", [1, 3, 7, 30])
def test_shards_are_a_partition(count: int) -> None:
    rows = [Shard(number, count).rows(N) for number in range(1, count + 1)]
    assert sorted(np.concatenate(rows).tolist()) == list(range(N))
    assert max(map(len, rows)) - min(map(len, rows)) <= 1
