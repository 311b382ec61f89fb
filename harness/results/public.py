"""The result as Python and notebooks use it: the record, with what it was counted from at hand."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import PrivateAttr

from harness.errors import ResultError
from harness.results import record, stats, store
from harness.results.adversarial import packed_examples
from harness.results.record import Verdicts
from harness.util.text import counted

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from harness.util.images import Images

__all__ = ["Result"]


class Result(record.Result):
    """One evaluation of one model under one threat model by one suite.

    All fields of the stored record are attributes: ``clean_acc``, ``robust_acc``, ``n``, ``steps``, ``flags``, ...
    """

    _verdicts: Verdicts = PrivateAttr()
    _points: Any = PrivateAttr(default=None)
    _clean: Any = PrivateAttr(default=None)
    _path: Path | None = PrivateAttr(default=None)

    @classmethod
    def of(
        cls,
        made: record.Result,
        verdicts: Verdicts,
        *,
        points: Images | None = None,
        clean: Images | None = None,
        path: Path | None = None,
    ) -> Result:
        """A record with its verdicts, and with the points, clean images and file that there are."""
        result = cls.model_construct(**dict(made))
        result._verdicts, result._points, result._clean, result._path = verdicts, points, clean, path
        return result

    @classmethod
    def load(cls, path: str | Path) -> Result:
        """Read a result file, which is checked against itself and against its verdicts.

        Raises:
            ResultError: it or its verdicts are missing, damaged or changed.
        """
        file = Path(path).expanduser()
        return cls.of(store.read(file), store.read_verdicts(file), path=file)

    def save(self, folder: str | Path, *, adversarial: bool = True) -> Path:
        """Store the result as the command line does, in ``folder``; returns its file. Nothing is overwritten.

        Args:
            adversarial: keep the adversarial example of every broken sample beside it.

        Raises:
            ResultError: the result was read from a file.
            StorageError: the folder cannot be written.
        """
        if self._path is not None:
            raise ResultError(f"the result is stored already, in {self._path}: copy that with its other files")
        packed = None
        if adversarial and self._points is not None and self._clean is not None:
            packed = packed_examples(self, self._verdicts, self._points, self._clean)
        return store.save(self, self._verdicts, Path(folder).expanduser(), adversarial=packed)

    @property
    def verdicts(self) -> Verdicts:
        """What happened to every sample."""
        return self._verdicts

    @property
    def robust_mask(self) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """bool ``[n]``: which samples are right without attack and under every step."""
        return np.asarray(self._verdicts.robust, dtype=np.bool_)

    @property
    def adversarial_examples(self) -> Tensor:
        """``[n, ...]`` the confirmed adversarial example of each sample, the clean image where there is none.

        Raises:
            ResultError: the result comes from a file, which does not hold them.
        """
        if self._points is None:
            raise ResultError(
                f"the adversarial examples of {self.checkpoint} are not at hand: a stored result holds their "
                "differences from the clean images, which harness.verify is given"
            )
        points: Tensor = self._points[:]
        return points

    def to_pandas(self) -> pd.DataFrame:
        """One row a sample: position, classes, verdict, the step that broke it, passes spent."""
        import pandas as pd

        frame = pd.DataFrame(self._verdicts.arrays()).set_index("index")
        names = dict(enumerate(step.name for step in self.steps))
        frame["broken_by"] = frame["broken_by"].map(names)
        return frame

    def __repr__(self) -> str:
        images = counted(self.dataset.size if self.partial else self.n, f"{self.dataset.name} image")
        images = f"{self.n:,} of {images}" if self.partial else images
        robust = f", robust {self.robust_acc:.1%}" if self.steps else ""
        flags = f", flags: {', '.join(dict.fromkeys(flag.code for flag in self.flags))}" if self.flags else ""
        return (
            f"<Result {self.label}: {self.suite}, {self.threat.norm} {self.threat.eps}, {images}: "
            f"clean {self.clean_acc:.1%}{robust}{flags}>"
        )

    __str__ = __repr__

    def _repr_html_(self) -> str:
        """The result as a table, for notebooks."""
        rows = [("clean", self.clean_acc), *([("robust", self.robust_acc)] if self.steps else [])]
        figures = "".join(
            f"<tr><th>{name}</th><td>{value:.1%}</td><td>95 % interval {low:.1%} to {high:.1%}</td></tr>"
            for name, value in rows
            for low, high in [stats.wilson(round(value * self.n), self.n)]
        )
        cells = [(step.name, step.before, step.after, f"{step.seconds:.1f} s") for step in self.steps]
        steps = "".join(f"<tr>{''.join(f'<td>{escape(str(cell))}</td>' for cell in row)}</tr>" for row in cells)
        table = f"<table><tr><th>step</th><th>before</th><th>after</th><th>time</th></tr>{steps}</table>"
        flags = "".join(f"<li>{escape(flag.line)}</li>" for flag in self.flags)
        images = counted(self.n, f"{self.dataset.name} image")
        head = f"{self.label}: {self.suite}, {self.threat.norm} {self.threat.eps}, {images}"
        return (
            f"<div><b>{escape(head)}</b><table>{figures}</table>{table if self.steps else ''}"
            f"{f'<ul>{flags}</ul>' if flags else ''}</div>"
        )
