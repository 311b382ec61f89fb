"""What a study's file says, before it is checked against what it names."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from harness.errors import InvalidInput
from harness.training import Settings
from harness.util import trust
from harness.util.choices import BnStatisticsKind
from harness.util.reading import read_toml
from harness.util.validation import Record, validate

__all__ = ["LABEL", "ClaimText", "Curve", "Entry", "Search", "Study", "quick", "read"]

_MOST = 1000
_LARGEST_SEED = (1 << 62) - 1

LABEL = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"


def _eps(value: Any) -> Any:
    # eps = 0.1 and eps = "0.1" mean the same
    return f"{value:g}" if isinstance(value, int | float) and not isinstance(value, bool) else value


Eps = Annotated[str, BeforeValidator(_eps)]


class Entry(Record):
    """One row of the report: a regime, trained once a seed, or a checkpoint that is there already.

    Attributes:
        regime: a registered one, or a TOML file.
        checkpoint: a name or path, instead of a regime.
        label: what claims and figures call it; the regime's or checkpoint's name if not given.
        parent: label of the entry that a regime starts from; the one of the regime's own parent if not given.
        architecture: instead of the study's.
        change: fields of the regime that are different here.
        training: numbers of the training that are different here.
        published: figures of a paper in percent, by "clean" or a suite's name, to stand beside ours.
        notes: what explains a difference from a published figure, by the same names.
    """

    regime: str | None = None
    checkpoint: str | None = None
    label: str | None = Field(default=None, pattern=LABEL)
    parent: str | None = None
    architecture: str | None = None
    change: dict[str, Any] = Field(default_factory=dict)
    training: dict[str, Any] = Field(default_factory=dict)
    published: dict[str, Annotated[float, Field(ge=0, le=100)]] = Field(default_factory=dict)
    notes: dict[str, str] = Field(default_factory=dict)


class Curve(Record):
    """Robust accuracy against eps, by a suite that is cheap enough to run at every radius."""

    eps: tuple[Eps, ...] = Field(min_length=1, max_length=_MOST)
    suite: str = "pgd-20"


class Search(Record):
    """Combinations that every entry is trained with before the study (`harness.studies.search`).

    Attributes:
        learning_rate, weight_decay: to be combined; () is the entry's own.
        seed: of these trainings, none of the study's.
        entries: labels; () is all that are trained.
    """

    learning_rate: tuple[Annotated[float, Field(gt=0)], ...] = ()
    weight_decay: tuple[Annotated[float, Field(ge=0)], ...] = ()
    seed: int = Field(default=1000, ge=0)
    entries: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _several(self) -> Self:
        combinations = max(len(self.learning_rate), 1) * max(len(self.weight_decay), 1)
        if not 2 <= combinations <= _MOST:
            raise ValueError(
                f"expected at least two combinations, and at most {_MOST}: list several learning_rate or weight_decay"
            )
        return self


class ClaimText(Record):
    """A claim as it is written (`harness.studies.claims`), and whose it is."""

    text: str
    about: str = ""


class Study(Record):
    """One study.

    Attributes:
        name: of its folder; the file's name if not given.
        title, question, source: for the report.
        dataset: trained on, and evaluated on (its test split) unless ``test_dataset`` is given.
        architecture: of every regime that starts at random.
        threat: such as "Linf:8/255"; the data set's own if not given.
        regimes: entries that need no more than a regime's name or file. entry: those that do.
        seeds: how many (0, 1, 2, ...), or which.
        training: fields of `harness.training.Settings` but for the seed.
        keep: which epoch is evaluated: the last, or the best on the validation split.
        suites: run on every network; the last of them decides claims that name none.
        curve: robust accuracy against eps.
        bn_stats: statistics that BN layers evaluate with; several cross every entry with all of them.
        limit, train_limit: the first images only, of the test split and of the training split.
        claim: what is to be judged.
        minimal_effect: points below which a difference is too small to decide a claim.
        search: learning rates and weight decays to choose from, by validation.
    """

    name: str = Field(pattern=LABEL)
    title: str = ""
    question: str = ""
    source: str = ""
    dataset: str
    test_dataset: str | None = None
    architecture: str | None = None
    threat: str | None = None
    regimes: tuple[str, ...] = Field(default=(), max_length=_MOST)
    entry: tuple[Entry, ...] = Field(default=(), max_length=_MOST)
    seeds: int | tuple[int, ...] = 3
    training: dict[str, Any] = Field(default_factory=dict)
    keep: Literal["last", "best"] = "last"
    suites: tuple[str, ...] = Field(default=("pgd", "autoattack"), min_length=1)
    curve: Curve | None = None
    bn_stats: tuple[BnStatisticsKind, ...] = Field(default=("stored",), min_length=1)
    limit: int | None = Field(default=None, ge=1)
    train_limit: int | None = Field(default=None, ge=2)
    claim: tuple[ClaimText, ...] = Field(default=(), max_length=_MOST)
    minimal_effect: float = Field(default=0.0, ge=0)
    search: Search | None = None

    @model_validator(mode="after")
    def _search_seed(self) -> Self:
        if self.search is not None and self.search.seed in self.all_seeds:
            raise ValueError(f"expected a seed of the search that is none of the study's, got {self.search.seed}")
        return self

    @field_validator("seeds")
    @classmethod
    def _seeds(cls, seeds: int | tuple[int, ...]) -> tuple[int, ...]:
        if (seeds if isinstance(seeds, int) else len(seeds)) > _MOST:
            raise ValueError(f"expected at most {_MOST} seeds")
        listed = tuple(range(seeds)) if isinstance(seeds, int) else seeds
        if not listed or not 0 <= min(listed) <= max(listed) <= _LARGEST_SEED or len(set(listed)) != len(listed):
            raise ValueError(f"expected how many seeds, or a list of different ones, from 0 to {_LARGEST_SEED}")
        return listed

    def entries(self) -> tuple[Entry, ...]:
        """All entries, those of ``regimes`` first."""
        return (*(Entry(regime=name) for name in self.regimes), *self.entry)

    @property
    def all_seeds(self) -> tuple[int, ...]:
        """The seeds one by one."""
        return self.seeds if isinstance(self.seeds, tuple) else tuple(range(self.seeds))


def read(path: str | Path) -> Study:
    """A study's file. Files that it names are found beside it.

    Raises:
        InvalidInput: no such file, no TOML, or a field that is unknown (with the nearest known) or wrong.
    """
    path = Path(path)
    try:
        table = read_toml(path)
    except OSError as error:
        raise InvalidInput(f"cannot read the study {path}: {error.strerror}") from error
    except ValueError as error:
        raise InvalidInput(f"the study {path} is not valid TOML: {error}") from error
    trust.check_named_in(table, f"the study {path}")
    table.setdefault("name", path.stem)
    return _beside(validate(Study, table, f"the study {path}"), path.parent)


def _beside(study: Study, folder: Path) -> Study:
    def found(name: str | None) -> str | None:
        is_file = name is not None and Path(name).suffix in (".toml", ".npz", ".pt", ".safetensors")
        return str(folder / name) if name is not None and is_file else name

    entries = tuple(
        entry.model_copy(update={"regime": found(entry.regime), "checkpoint": _checkpoint(entry.checkpoint, folder)})
        for entry in study.entry
    )
    curve = None if study.curve is None else study.curve.model_copy(update={"suite": found(study.curve.suite)})
    return study.model_copy(
        update={
            "entry": entries,
            "curve": curve,
            "regimes": tuple(found(name) for name in study.regimes),
            "suites": tuple(found(name) for name in study.suites),
            "dataset": found(study.dataset),
            "test_dataset": found(study.test_dataset),
        }
    )


def _checkpoint(name: str | None, folder: Path) -> str | None:
    # a bare name, with its suffix or without, is looked for where checkpoints lie
    return name if name is None or len(Path(name).parts) < 2 else str(folder / name)


_QUICK_EPOCHS, _QUICK_IMAGES = 10, 100


def quick(study: Study) -> Study:
    """A variant of a study that takes minutes: a tenth of the epochs, the first seed, and the first 100 test images.

    It is another study, with another name. Few entries train in it, so that most claims stay open.
    """

    def cut(training: dict[str, Any]) -> dict[str, Any]:
        epochs = training.get("epochs")
        return training | {"epochs": max(1, epochs // _QUICK_EPOCHS)} if isinstance(epochs, int) else training

    # an entry without epochs of its own has those of the study, which may be those of the regime
    whole = {"epochs": Settings().epochs} | study.training
    said = "quick variant: a tenth of the epochs, one seed, 100 images"
    return study.model_copy(
        update={
            "name": f"{study.name}-quick",
            "title": f"{study.title or study.name} ({said})",
            "seeds": study.all_seeds[:1],
            "training": cut(whole),
            "entry": tuple(entry.model_copy(update={"training": cut(entry.training)}) for entry in study.entry),
            "limit": min(study.limit or _QUICK_IMAGES, _QUICK_IMAGES),
        }
    )
