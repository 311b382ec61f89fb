"""``harness evaluate`` on images of one's own: which class is which."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from harness import datasets
from tests.cli.conftest import Harness

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def write(rows: datasets.Dataset, root: str, names: tuple[str, ...], *, below: int) -> int:
    """The images of the first classes as a folder; how many."""
    kept = (rows.y < below).nonzero()[:, 0].tolist()
    for row in kept:
        place = Path(root) / names[int(rows.y[row])]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray((rows.x[row, 0] * 255).round().to(torch.uint8).numpy()).save(place / f"{row}.png")
    return len(kept)


def evaluated(harness: Harness, *more: str) -> dict:
    code, out, err = harness("evaluate", "--checkpoint", "tiny", "--suite", "clean", "--workers", "1", "--json", *more)
    assert code == 0, err
    return json.loads(out)


@pytest.mark.usefixtures("tiny")
def test_images_of_some_of_the_classes(harness: Harness) -> None:
    data = datasets.load("digits", limit=40)
    kept = data.y < 7
    np.savez("part.npz", x=data.x[kept].numpy(), y=data.y[kept].numpy())
    count = write(data, "part", tuple("0123456789"), below=7)
    for name in ("part.npz", "part"):
        assert evaluated(harness, "--dataset", name)["n"] == count


@pytest.mark.usefixtures("tiny")
def test_classes_of_other_names_are_said(harness: Harness) -> None:
    data = datasets.load("digits", limit=40)
    write(data, "words", WORDS, below=10)
    assert "class-names" in [flag["code"] for flag in evaluated(harness, "--dataset", "words")["flags"]]
    code, _, err = harness("evaluate", "--checkpoint", "tiny", "--suite", "clean", "--eps", "8", "--limit", "2")
    assert code == 0
    assert "warning: tiny, clean, eps 8, seed 0: the radius Linf:8 reaches" in err
    Path("names.txt").write_text("\n".join(WORDS))
    named = evaluated(harness, "--dataset", "words", "--classes", "names.txt")
    plain = evaluated(harness, "--limit", "40")
    # 8 bits a pixel lose a little of the digits' 16 levels
    assert named["clean_acc"] == pytest.approx(plain["clean_acc"], abs=0.06)
    write(data, "some", WORDS, below=5)
    assert evaluated(harness, "--dataset", "some", "--classes", "names.txt")["n"] < 40


@pytest.mark.usefixtures("tiny")
def test_what_is_no_list_of_classes(harness: Harness) -> None:
    Path("one.txt").write_text("zero\n")
    for name in ("one.txt", "missing.txt"):
        harness("evaluate", "--checkpoint", "tiny", "--classes", name).refused(name, code=2)
    Path("names.txt").write_text("zero\none\n")
    harness("evaluate", "--checkpoint", "tiny", "--classes", "names.txt").refused("no folder of images")
