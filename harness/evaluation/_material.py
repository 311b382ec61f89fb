"""What a result is verified with: the model and the samples that it says it was made on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor, nn

from harness import checkpoints, datasets
from harness.batchnorm.statistics import BnStatistics
from harness.datasets import Dataset
from harness.errors import CheckpointError, InvalidInput
from harness.evaluation.samples import gathered
from harness.evaluation.target import Target
from harness.models import as_module
from harness.results.record import Result
from harness.threat import ThreatModel
from harness.util import trust
from harness.util.text import printable
from harness.util.user_file import is_in_file

__all__ = ["Material"]


@dataclass(frozen=True, eq=False)
class Material:
    """Where model and samples come from; see `harness.evaluation.verify`.

    A result may be a stranger's: what it names is looked up among registered names only, and no code of it is run
    that the user has not named.
    """

    given: tuple[nn.Module, Tensor, Tensor] | None
    checkpoint: str | Path | None
    dataset: str | None
    bn_data: str | None
    checkpoint_dir: str | Path | None
    data_dir: str | Path | None
    download: bool

    def threat(self, result: Result, path: Path) -> ThreatModel:
        """The threat model of a result.

        Raises:
            InvalidInput: its norm is code that the user has not named, or has changed.
        """
        norm = result.threat.norm
        if is_in_file(norm):
            file = norm.rpartition(":")[0]
            sha256 = trust.sources_sha256(file)
            if sha256 != result.threat.source_sha256:
                raise InvalidInput(f"the norm in {printable(file)} is not the one that the result was made with")
            trust.check_trusted(sha256, file, f"the result {path}")
        return ThreatModel(norm, result.threat.eps)

    def samples(self, result: Result) -> Dataset:
        """The images of a result, where they come from a data set.

        Raises:
            UnknownName, InvalidInput: they are not there.
        """
        limit = result.n if result.partial else None
        return self._loaded(self.dataset, result.dataset.name, result.dataset.split, limit, "--dataset")

    def name(self, result: Result) -> str | Path:
        """The checkpoint that was named here, or else the registered one of the result's name.

        Raises:
            InvalidInput: the result names something else, such as a file or what would be fetched.
        """
        if self.checkpoint is not None:
            return self.checkpoint
        try:
            checkpoints.check_name(result.checkpoint)
        except CheckpointError as error:
            stated = printable(result.checkpoint)
            raise InvalidInput(
                f"the result is of {stated!r}, which is no name of a registered checkpoint: name it with --checkpoint"
            ) from error
        return result.checkpoint

    def target(self, result: Result) -> Target:
        """Model and samples of a result.

        Raises:
            CheckpointError: the checkpoint is damaged or not what its manifest says.
            UnknownName, InvalidInput: it, or the data set, is not there.
        """
        if self.given is not None:
            model, x, y = self.given
            return Target.plain(result.checkpoint, as_module(model), gathered(x, y))
        checkpoint = checkpoints.load(self.name(result), checkpoint_dir=self.checkpoint_dir)
        samples = self.samples(result)
        stated, data = result.model, None
        if stated.bn_stats in ("clean", "adversarial"):
            facts = stated.bn_stats_facts
            data = self._loaded(self.bn_data, str(facts.get("dataset")), str(facts.get("split")), None, "--bn-data")
        statistics = BnStatistics(stated.bn_stats, data, result.seed)
        threat = ThreatModel(result.threat.norm, result.threat.eps)
        target = Target.registered(checkpoint, samples, statistics, threat, self.checkpoint_dir)
        if stated.bn_stats == "batch":
            # how samples were packed is a fact of the run, not of the model
            record = target.model_record.model_copy(update={"bn_stats_facts": stated.bn_stats_facts})
            target = replace(target, model_record=record)
        return target

    def _loaded(self, given: str | None, stated: str, split: str, limit: int | None, option: str) -> Dataset:
        if given is None and stated not in datasets.names():
            raise InvalidInput(f"the images {printable(stated)!r} are no registered data set: name them with {option}")
        split = split if split in datasets.SPLITS else "test"
        return datasets.load(given or stated, split=split, data_dir=self.data_dir, download=self.download, limit=limit)
