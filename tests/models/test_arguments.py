"""Arguments of an architecture: how they are written, and what a factory is called with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from torch import nn

from harness import models
from harness.errors import InvalidInput
from harness.util.literals import parse_arguments

FACTORIES = """
from torch import nn


class Seen(nn.Flatten):
    def __init__(self, **called):
        super().__init__()
        self.called = called


def timm_like(num_classes=1000, in_chans=1, img_size=224):
    return Seen(num_classes=num_classes, in_chans=in_chans, img_size=img_size)


def sized(n_classes, input_size=(3, 224, 224), image_size=(224, 224)):
    return Seen(n_classes=n_classes, input_size=input_size, image_size=image_size)


def rows(num_labels, input_size=192, hidden_size=5, channels=64):
    return Seen(num_labels=num_labels, input_size=input_size, hidden_size=hidden_size, channels=channels)


def wide(classes, width, depth=2, act="relu"):
    return Seen(classes=classes, width=width, depth=depth, act=act)


def passing(num_classes=10, **others):
    return Seen(num_classes=num_classes, **others)


def all_passed(**others):
    return Seen(**others)


def by_position(classes, /):
    return Seen()
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "factories.py"
    path.write_text(FACTORIES)
    return path


def build(name: str, shape: tuple[int, int, int] = (3, 8, 8), **arguments: Any) -> models.Model:
    return models.build(name, classes=7, shape=shape, arguments=arguments, seed=0)


def called(file: Path, factory: str, **arguments: Any) -> Any:
    return build(f"{file}:{factory}", **arguments).network.called


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        ("width=16,depth=1", {"width": 16, "depth": 1}),
        (" width = 1.5 , act=relu ", {"width": 1.5, "act": "relu"}),
        ("layers=(2,2),act='a,b'", {"layers": [2, 2], "act": "a,b"}),
        ("bias=False,pool=true,of={'a': [1]}", {"bias": False, "pool": True, "of": {"a": [1]}}),
        ("", {}),
    ],
)
def test_arguments_are_literals_and_words(text: str, arguments: dict[str, Any]) -> None:
    assert parse_arguments(text) == arguments


@pytest.mark.parametrize("text", ["width", "width=__import__('os')", "a b=1", "x=1e999", "x=None", "x=1,x=2", "x={1}"])
def test_other_arguments_are_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="argument"):
        parse_arguments(text)


def test_usual_names_are_offered(file: Path) -> None:
    assert called(file, "timm_like") == {"num_classes": 7, "in_chans": 3, "img_size": 8}
    assert called(file, "sized") == {"n_classes": 7, "input_size": (3, 8, 8), "image_size": (8, 8)}
    assert called(file, "rows") == {"num_labels": 7, "input_size": 192, "hidden_size": 5, "channels": 64}
    assert called(file, "passing") == {"num_classes": 7}
    assert called(file, "all_passed") == {"classes": 7, "shape": (3, 8, 8)}


def test_what_is_given_wins(file: Path) -> None:
    assert called(file, "timm_like", img_size=5, num_classes=2) == {"num_classes": 2, "in_chans": 3, "img_size": 5}
    model = build(f"{file}:wide", width=16, act="gelu")
    assert model.network.called == {"classes": 7, "width": 16, "depth": 2, "act": "gelu"}
    assert model.arguments == {"width": 16, "act": "gelu"}
    assert model.call.endswith(
        "wide was called with classes=7, width=16, act='gelu', and may be given depth=2 (--arch-args)"
    )


@pytest.mark.parametrize(
    ("factory", "arguments", "text"),
    [
        ("wide", {}, "needs width: give it with --arch-args width=..."),
        ("wide", {"widht": 3, "width": 3}, "has no argument 'widht', it takes classes, .* did you mean 'width'"),
        ("by_position", {}, "takes classes by position alone"),
    ],
)
def test_a_call_that_cannot_be_is_one_sentence(file: Path, factory: str, arguments: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidInput, match=text):
        build(f"{file}:{factory}", **arguments)


def test_libraries_and_own_architectures() -> None:
    pytest.importorskip("timm")
    model = build("timm:resnet10t", shape=(3, 64, 64), drop_rate=0.5)
    assert model.network.drop_rate == 0.5
    with pytest.raises(InvalidInput, match=r"cannot be built for 7 classes .* with widht=1: TypeError"):
        build("timm:resnet10t", shape=(3, 64, 64), widht=1)
    with pytest.raises(InvalidInput, match="digits-resnet has no argument 'width', it takes none"):
        build("digits-resnet", shape=(1, 8, 8), width=1)
    assert isinstance(build("torchvision:resnet18", zero_init_residual=True).network, nn.Module)


@pytest.mark.parametrize("name", ["a=open('x', 'w'), b", "", "class", "a b", "a\nb"])
def test_names_that_no_argument_can_have_are_refused(name: str) -> None:
    """They would be written into the code of a submission."""
    with pytest.raises(InvalidInput, match="no argument can have the name"):
        models.build("resnet20", classes=10, shape=(3, 32, 32), arguments={name: 1})
