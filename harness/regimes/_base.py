"""A regime: what is trained, from which start, on which loss, and how batch normalization is treated.

The fields are independent; no combination has a name in the code. A regime of the package is one file
of `harness.regimes`; a user's own is one TOML file with the same fields (`read`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from harness.errors import InvalidInput
from harness.util import trust
from harness.util.choices import CraftingMethod, CraftingStart, Initializer, ScheduleName
from harness.util.reading import read_toml
from harness.util.text import counted
from harness.util.validation import Length, Record, validate

__all__ = ["Awp", "Conduct", "Fact", "Init", "PartOptimizer", "Phase", "Regime", "Selectors", "read"]

Selectors = tuple[str, ...]
"""Parts of a network, as `harness.models._selectors` names them: a union, less those that begin with a hyphen."""

LossName = Literal["natural", "adversarial", "mixed", "trades"]
Statistics = Literal["moving", "moving-where-trained", "frozen", "re-estimated-clean", "re-estimated-adversarial"]
Mode = Literal["eval", "train"]
Branch = Literal["clean", "adversarial"]


class PartOptimizer(Record):
    """An optimiser of its own for some of the trained parameters; what is None is as in the rest of the run."""

    part: Selectors
    kind: Literal["sgd", "adam", "adamw"] = "sgd"
    learning_rate: float | None = Field(default=None, gt=0, description="at the schedule's peak")
    weight_decay: float | None = Field(default=None, ge=0)
    momentum: float | None = Field(default=None, ge=0, lt=1, description="Adam's first beta")
    schedule: ScheduleName | None = Field(default=None, description="of the learning rate")


class Init(Record):
    """First values of a network that starts at random, and of parts that are reset; what is None is the architecture's
    own."""

    bn_gamma: Annotated[float, Field(ge=0)] | Literal["uniform"] | None = Field(
        default=None, description="a constant, or uniform in [0, 1) for each channel (Frankle et al. 2021)"
    )
    conv: Initializer | None = Field(default=None, description="weights of convolutions")
    head: Initializer | None = Field(default=None, description="weights of the output layer")


class Awp(Record):
    """Adversarial weight perturbation (Wu et al. 2020, arXiv 2004.05884) on some layers."""

    gamma: float = Field(default=0.01, gt=0, description="size of the perturbation relative to each weight's norm")
    part: Selectors = ("all",)


class Fact(Record):
    """One thing that is published about how the work behind a regime trained.

    Attributes:
        field: a field of the regime or of `harness.training.Settings`, ``dataset``, ``architecture``, or any other
            name for what this package cannot set.
        value: theirs; None where it is not known.
        source: the paper, its code, or unknown.
    """

    field: str
    value: str | float | bool | None = None
    source: Literal["paper", "code", "unknown"] = "unknown"

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.value is None) != (self.source == "unknown"):
            raise InvalidInput(
                f"the protocol's fact {self.field!r} needs a value and a source (paper or code), or neither"
            )
        return self


class Conduct(Record):
    """What may change from phase to phase."""

    trained: Selectors = Field(default=("all",), description="parts that the optimiser moves; () trains nothing")
    reset: Selectors = Field(default=(), description="parts given fresh values first, BN statistics with them")
    reset_statistics: bool = Field(default=False, description="all running statistics are reset")
    loss: LossName = "natural"
    adversarial_weight: float = Field(default=0.5, ge=0, le=1, description="share of the adversarial loss in 'mixed'")
    trades_beta: float = Field(default=6.0, gt=0, description="weight of the divergence in 'trades'")
    bn_statistics: Statistics = "moving"
    crafting_mode: Mode = Field(default="eval", description="mode of the BN layers while examples are crafted")
    optimizers: tuple[PartOptimizer, ...] = ()
    awp: Awp | None = None
    learning_rate: float | None = Field(default=None, gt=0, description="at the schedule's peak")
    weight_decay: float | None = Field(default=None, ge=0)
    threat: str | None = Field(default=None, description='of crafting, such as "Linf:8/255"')
    attack: CraftingMethod | None = None
    steps: int | None = Field(default=None, ge=1, description="of PGD")
    step_size: Length | None = Field(default=None, gt=0)
    crafting_start: CraftingStart = Field(default="random", description="where crafting begins: random or clean")
    eps_ramp: float = Field(
        default=0, ge=0, le=1, description="share of the phase over which eps grows to its full size"
    )
    free: bool = Field(default=False, description="every gradient of crafting moves the trained parameters too")


class Phase(Conduct):
    """A stretch of the training. Fields that are left out are those of the regime, but for the resets:
    those of the regime belong to its start."""

    share: float = Field(default=1.0, gt=0, description="share of the epochs, relative to the other phases")


class Regime(Conduct):
    """One way to train.

    Attributes:
        name: what it is called on the command line.
        summary: one line on what is special about it.
        source: whose it is.
        start: from random weights, or from a parent checkpoint.
        parent: the regime whose checkpoint is the natural parent; others are accepted and recorded.
        norm_layer: a member of `harness.models.norm_layers`; None is the parent's, or the architecture's own.
        init: first values.
        deploy: which branch of dual layers the checkpoint evaluates with.
        phases: changes in sequence, each with a fresh optimiser and schedule; () is one phase of nothing changed.
        protocol: what is known of how the source trained; it changes nothing, studies set theirs beside it.

    Raises:
        InvalidInput: fields that contradict each other.
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    summary: str
    source: str = ""
    start: Literal["random", "parent"] = "random"
    parent: str | None = None
    norm_layer: str | None = None
    init: Init | None = None
    deploy: Branch | None = None
    phases: tuple[Phase, ...] = ()
    protocol: tuple[Fact, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        who = f"regime {self.name!r}"
        if self.start == "random" and self.parent is not None:
            raise InvalidInput(f"{who} names a parent regime but starts at random: set start = 'parent'")
        if self.start == "parent" and self.norm_layer is not None:
            raise InvalidInput(f"{who} starts from a parent, whose norm layer it takes: leave out norm_layer")
        if (self.norm_layer == "dual") != (self.deploy is not None):
            raise InvalidInput(
                f"{who}: deploy says which branch of norm_layer 'dual' is used, so both or neither are given"
            )
        if self.init is not None and self.start == "parent" and not any(stage.reset for stage in self.stages()):
            raise InvalidInput(f"{who} starts from a parent and resets nothing: leave out init")
        for stage in self.stages():
            if not stage.trained and not stage.bn_statistics.startswith("re-estimated"):
                raise InvalidInput(f"{who} trains nothing: name a part in trained, or re-estimate the BN statistics")
            if stage.free and stage.loss != "adversarial":
                raise InvalidInput(
                    f"{who}: free moves the parameters on gradients of the adversarial loss, not of {stage.loss!r}"
                )
            if self.deploy and stage.loss not in ("mixed", "trades"):
                raise InvalidInput(
                    f"{who}: dual BN needs a loss on both branches, 'mixed' or 'trades', not {stage.loss!r}"
                )
        return self

    def stages(self) -> tuple[Conduct, ...]:
        """The phases with every field filled in; one for a regime without phases."""
        common = {name: getattr(self, name) for name in Conduct.model_fields}
        if not self.phases:
            return (Conduct(**common),)
        return tuple(
            Conduct(**(common if i == 0 else {**common, "reset": (), "reset_statistics": False}) | _given(phase))
            for i, phase in enumerate(self.phases)
        )

    @property
    def crafts(self) -> bool:
        """Whether any phase needs adversarial examples."""
        return any(
            (s.trained and s.loss != "natural") or s.bn_statistics == "re-estimated-adversarial" for s in self.stages()
        )

    def row(self) -> dict[str, str]:
        """The fields as short words, for a table."""
        stages = self.stages()

        def each(words: list[str]) -> str:
            return words[0] if len(set(words)) == 1 else " > ".join(words)

        start = f"{self.parent or 'any'} parent" if self.start == "parent" else "random"
        start += "" if self.init is None else f" ({_init(self.init)})"
        reset = f", reset {_union(self.reset)}" if self.reset else ""
        return {
            "regime": self.name,
            "trained": each([_union(s.trained) for s in stages]),
            "start": start + reset,
            "loss": each([_loss(s) for s in stages]),
            "bn_statistics": each([s.bn_statistics for s in stages]),
            "crafting": each([_crafting(s) for s in stages]) if self.crafts else "-",
            "norm_layer": (self.norm_layer or ("parent's" if self.start == "parent" else "own"))
            + (f" (deploys {self.deploy})" if self.deploy else ""),
            "optimizer": each([_optimizers(s) for s in stages]),
            "awp": each([f"{s.awp.gamma:g} on {_union(s.awp.part)}" if s.awp else "-" for s in stages]),
            "phases": ", ".join(f"{p.share:g}" for p in self.phases) or "1",
            "source": self.source or "-",
        }


def read(path: str | Path) -> Regime:
    """A user's regime from a TOML file. Its name is the file's unless it says another.

    Raises:
        InvalidInput: no such file, no TOML, or a field that is unknown or has the wrong value (named).
    """
    path = Path(path)
    try:
        table = read_toml(path)
    except OSError as error:
        raise InvalidInput(f"cannot read the regime {path}: {error.strerror}") from error
    except ValueError as error:
        raise InvalidInput(f"the regime {path} is not valid TOML: {error}") from error
    trust.check_named_in(table, f"the regime {path}")
    table.setdefault("name", path.stem.lower().replace("_", "-"))
    table.setdefault("summary", f"from {path.name}")
    return validate(Regime, table, f"the regime {path}")


def _given(phase: Phase) -> dict[str, Any]:
    return {name: getattr(phase, name) for name in phase.model_fields_set if name != "share"}


def _init(init: Init) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in init.model_dump(exclude_none=True).items())


def _union(selectors: Selectors) -> str:
    if not selectors:
        return "nothing"
    text = "".join(f" - {s[1:]}" if s.startswith("-") else f" + {s}" for s in selectors)
    return text.removeprefix(" + ") if not text.startswith(" - ") else f"all{text}"


def _loss(stage: Conduct) -> str:
    if not stage.trained:
        return "-"
    if stage.loss == "mixed":
        return f"mixed {stage.adversarial_weight:g}"
    return f"trades {stage.trades_beta:g}" if stage.loss == "trades" else stage.loss


def _crafting(stage: Conduct) -> str:
    """What differs from crafting by the training's settings, after the mode."""
    words: list[str] = [stage.crafting_mode]
    words += [str(value) for value in (stage.threat, stage.attack) if value is not None]
    words += [counted(stage.steps, "step")] if stage.steps is not None else []
    words += [f"of {stage.step_size:g}"] if stage.step_size is not None else []
    words += ["from the clean image"] if stage.crafting_start == "clean" else []
    words += [f"eps grows over {stage.eps_ramp:g}"] if stage.eps_ramp else []
    words += ["free"] if stage.free else []
    return " ".join(words)


def _optimizers(stage: Conduct) -> str:
    words = [
        f"all: {name} {value:g}"
        for name, value in (("lr", stage.learning_rate), ("wd", stage.weight_decay))
        if value is not None
    ]
    for own in stage.optimizers:
        values = {"lr": own.learning_rate, "wd": own.weight_decay, "momentum": own.momentum}
        given = [f"{name} {value:g}" for name, value in values.items() if value is not None]
        given += [own.schedule] if own.schedule is not None else []
        words.append(f"{_union(own.part)}: {' '.join([own.kind, *given])}")
    return "; ".join(words) or "one for all"
