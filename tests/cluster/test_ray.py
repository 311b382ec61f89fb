"""A Ray cluster of this machine: what its nodes find is what one process finds, whichever of them are killed."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from harness import cluster
from harness.cluster import Options, Task
from harness.cluster import ray as executor
from harness.engine.types import AttackProgress
from harness.errors import HarnessError
from harness.evaluation import Evaluation, Plan, Stored
from harness.results import joining, parts
from harness.results.parts import Shard
from tests.evaluation.test_shards import PGD, plan, same, undivided

ray = pytest.importorskip("ray")
cluster_utils = pytest.importorskip("ray.cluster_utils")

KILLS = int(os.environ.get("KILLS", "4"))
SHARDS = 10

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


class Nodes:
    """A cluster of one node that is never killed, which the driver is on, and three others with a core each."""

    def __init__(self) -> None:
        self.cluster = cluster_utils.Cluster(
            initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 100 << 20}
        )
        self.others = [self.add() for _ in range(3)]

    def add(self) -> Any:
        return self.cluster.add_node(num_cpus=1, object_store_memory=100 << 20)

    def kill(self, number: int) -> None:
        """Kill a node and all that runs on it, at once."""
        self.cluster.remove_node(self.others.pop(number), allow_graceful=False)


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 (else whatever runs beside the tests comes first)
    made = Nodes()
    ray.init(address=made.cluster.address, log_to_driver=False, logging_level="error")
    yield made
    ray.shutdown()
    made.cluster.shutdown()


@pytest.fixture(scope="module")
def planned() -> Plan:
    return plan(suite=PGD)


@pytest.fixture(scope="module")
def whole(planned: Plan) -> Evaluation:
    return undivided(planned)


@pytest.fixture
def submitted(monkeypatch: pytest.MonkeyPatch) -> list[Shard]:
    """The shards in the order in which they were given to the cluster."""
    shards: list[Shard] = []
    submit = executor._Run._submit

    def note(self: Any, task: Task) -> None:
        shards.append(task.shard)
        submit(self, task)

    monkeypatch.setattr(executor._Run, "_submit", note)
    return shards


def evaluate(
    planned: Plan, root: Path, *, timeout: float = 60, progress: Callable[[AttackProgress], None] | None = None
) -> Stored | HarnessError:
    made = cluster.executor("ray", Options(timeout=timeout))
    (outcome,) = cluster.evaluate([planned], made, root, shards=SHARDS, progress=progress)
    assert isinstance(outcome, Stored | HarnessError)
    return outcome


def is_whole(whole: Evaluation, planned: Plan, root: Path) -> None:
    same(whole, joining.join(joining.survey(parts.folder_of(root, planned.evaluation_id)).parts))


@pytest.mark.parametrize("seed", range(KILLS))
def test_a_node_is_killed_at_a_random_moment(
    nodes: Nodes, planned: Plan, whole: Evaluation, tmp_path: Path, submitted: list[Shard], seed: int
) -> None:
    draw = random.Random(seed)
    number, after, delay = draw.randrange(3), draw.randrange(SHARDS - 1), draw.uniform(0, 0.5)
    finished: list[str] = []
    killer = threading.Thread(target=lambda: (time.sleep(delay), nodes.kill(number)))

    def kill(tick: AttackProgress) -> None:
        if not killer.ident and int(tick.step.split()[0]) >= after:
            finished.extend(
                path.name for path in parts.folder_of(tmp_path, planned.evaluation_id).glob("*.safetensors")
            )
            killer.start()

    outcome = evaluate(planned, tmp_path, progress=kill)
    killer.join()
    nodes.others.append(nodes.add())
    assert isinstance(outcome, Stored)
    is_whole(whole, planned, tmp_path)
    known = {parts.path_of(tmp_path, planned.evaluation_id, shard).name: submitted.count(shard) for shard in submitted}
    assert len(known) == SHARDS
    assert all(known[name] == 1 for name in finished), "what was finished is not attacked again"


def test_what_is_stored_is_not_attacked_again(
    nodes: Nodes, planned: Plan, whole: Evaluation, tmp_path: Path, submitted: list[Shard]
) -> None:
    class Interrupted(KeyboardInterrupt):
        pass

    def interrupt(tick: AttackProgress) -> None:
        if int(tick.step.split()[0]) >= 3:
            raise Interrupted

    with pytest.raises(Interrupted):
        evaluate(planned, tmp_path, progress=interrupt)
    there = {
        part.record.shard for part in joining.survey(parts.folder_of(tmp_path, planned.evaluation_id)).parts.values()
    }
    assert len(there) >= 3
    submitted.clear()
    evaluate(planned, tmp_path)
    assert set(submitted) == {Shard(number, SHARDS) for number in range(1, SHARDS + 1)} - there
    is_whole(whole, planned, tmp_path)


class Hanging(torch.nn.Module):
    """A network whose first pass of all does not end."""

    def __init__(self, network: torch.nn.Module, marker: Path) -> None:
        super().__init__()
        self.network, self.marker = network, marker

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.marker.exists():
            self.marker.touch()
            time.sleep(3600)
        logits: torch.Tensor = self.network(x)
        return logits


class Broken(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise ValueError("out of order")


def of_model(planned: Plan, model: torch.nn.Module) -> Plan:
    return replace(planned, target=replace(planned.target, model=model), evaluation_id="0" * 64)


def test_a_task_that_hangs_is_run_again(nodes: Nodes, planned: Plan, tmp_path: Path, submitted: list[Shard]) -> None:
    hanging = of_model(planned, Hanging(planned.target.model, tmp_path / "marker"))
    with pytest.warns(UserWarning, match=r"was lost, because it said nothing for \d+ s: it is run again"):
        assert isinstance(evaluate(hanging, tmp_path, timeout=15), Stored)
    assert len(submitted) > SHARDS


def test_a_model_that_fails_is_said(nodes: Nodes, planned: Plan, tmp_path: Path) -> None:
    failed = evaluate(of_model(planned, Broken()), tmp_path)
    assert "out of order" in str(failed)
