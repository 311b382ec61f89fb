"""How long, how fast and against what to train: everything that is not the regime."""

from __future__ import annotations

from pydantic import Field

from harness.util.choices import Augmentation, CraftingMethod, Precision, ScheduleName
from harness.util.validation import Length, Record

__all__ = ["Settings"]


class Settings(Record):
    """The numbers of one run. The defaults suit the digits; docs/training.md has those of CIFAR-10.

    Raises:
        pydantic.ValidationError: a value out of range (`harness.util.validation.validate` words it for people).
    """

    epochs: int = Field(default=15, ge=1)
    batch_size: int = Field(default=64, ge=2, description="batch normalization needs two samples")
    learning_rate: float = Field(default=0.1, gt=0, description="at the schedule's peak")
    weight_decay: float = Field(default=5e-4, ge=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    schedule: ScheduleName = "one-cycle"
    threat: str | None = Field(default=None, description='such as "Linf:8/255"; None is the data set\'s own')
    attack: CraftingMethod = "pgd"
    steps: int = Field(default=7, ge=1, description="of PGD")
    step_size: Length | None = Field(default=None, gt=0, description="None is the attack's own")
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    weight_averaging: float | None = Field(default=None, gt=0, lt=1, description="decay per step, such as 0.999")
    augment: Augmentation = "none"
    validation: float = Field(default=0.1, ge=0, lt=1, description="share of the training data kept aside")
    normalize: bool = Field(default=True, description="by mean and deviation of the training data, in the model")
    precision: Precision = Field(default="auto", description="auto: bf16 on a GPU")
    compile: bool | None = Field(default=None, description="None: on a GPU")
    seed: int = Field(default=0, ge=0)
