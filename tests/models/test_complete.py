"""Networks that come with their weights are evaluated as they are, and nothing of their files is run as code."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import harness
from harness import checkpoints, models
from harness.checkpoints import Checkpoint
from harness.errors import CheckpointError, HarnessError, InvalidInput, UnknownName
from harness.models.sources import timm as timm_source
from tests.support import trained_looking

SHAPE = (1, 8, 8)
X = torch.rand(5, *SHAPE, generator=torch.Generator().manual_seed(0))


class Small(nn.Module):
    """A few operators of different kinds: sizes, lists, dropout, a constant, text arguments, several outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.active = nn.ReLU(inplace=True)
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(4 * 64 + 4, 10)
        self.register_buffer("scale", torch.tensor([2.0]), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        out = nn.functional.gelu(self.conv(x * self.scale), approximate="tanh")
        first, second = self.active(out + 0.1).chunk(2, dim=1)
        largest = torch.cat([first, second], dim=1).amax((2, 3))
        return self.head(self.dropout(torch.cat([out.reshape(x.shape[0], -1), largest], dim=1)))


def exported(model: nn.Module, path: Path, *, dynamic: bool = True) -> Path:
    sizes = ({0: torch.export.Dim.DYNAMIC},) if dynamic else None
    program = torch.export.export(model.eval(), (X[:2],), dynamic_shapes=sizes)
    torch.export.save(program, path)
    return path


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, Path]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Small().eval()
    return model, exported(model, tmp_path_factory.mktemp("made") / "small.pt2")


def gradient(model: nn.Module) -> Tensor:
    x = X.clone().requires_grad_()
    return torch.autograd.grad(model(x).logsumexp(1).sum(), x)[0]


def agrees(point: Checkpoint, model: nn.Module) -> None:
    with torch.no_grad():
        torch.testing.assert_close(point.model(X), model(X), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(gradient(point.model), gradient(model), rtol=1e-4, atol=1e-5)
    assert (point.manifest.classes, tuple(point.manifest.shape)) == (10, SHAPE)


class TestExported:
    def test_it_is_the_network(self, small: tuple[nn.Module, Path], tmp_path: Path) -> None:
        model, path = small
        agrees(checkpoints.load(path), model)
        resnet = trained_looking("digits-resnet").eval()
        point = checkpoints.load(f"pt2:{exported(resnet, tmp_path / 'resnet.pt2')}")
        agrees(point, resnet)
        assert point.manifest.parameters == sum(p.numel() for p in resnet.parameters())

    def test_it_is_attacked_and_audited_like_any_other(self, small: tuple[nn.Module, Path]) -> None:
        model, path = small
        point = checkpoints.load(path)
        y = model(X).argmax(1)
        ours, its = (
            harness.evaluate(one, X, y, threat="Linf:0.3", suite="fgsm", workers=1) for one in (model, point.model)
        )
        assert (its.clean_acc, its.robust_acc) == (ours.clean_acc, ours.robust_acc) == (1.0, ours.robust_acc)
        assert [flag.code for flag in its.flags] == [flag.code for flag in ours.flags]

    def test_one_batch_size_and_train_mode_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidInput, match="batches of 2 alone"):
            checkpoints.load(exported(Small(), tmp_path / "two.pt2", dynamic=False))
        network = nn.Sequential(nn.BatchNorm2d(1), nn.Flatten()).train()
        program = torch.export.export(network, (X[:2],), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
        torch.export.save(program, tmp_path / "train.pt2")
        with pytest.raises(InvalidInput, match="eval mode"):
            checkpoints.load(tmp_path / "train.pt2")

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            (lambda graph: _target(graph, "torch.os.system"), "only operators of torch's aten library"),
            (lambda graph: _target(graph, "torch.ops.aten.os.system"), "does not have"),
            (lambda graph: _target(graph, "torch.ops.aten.from_file.default"), "more than computing"),
            (lambda graph: _target(graph, "torch.ops.aten.mul_.Tensor"), "eval mode"),
            (lambda graph: _target(graph, "_operator.methodcaller"), "only operators"),
            (lambda graph: _target(graph, "torch.ops.aten.nonsense.default"), "does not have"),
            (lambda graph: graph.clear(), "no file of torch.export"),
        ],
    )
    def test_other_functions_are_not_called(
        self, change: Callable[[dict[str, Any]], object], words: str, small: tuple[nn.Module, Path], tmp_path: Path
    ) -> None:
        def changed(name: str, content: bytes) -> bytes:
            if not name.endswith("models/model.json"):
                return content
            program = json.loads(content)
            change(program["graph_module"]["graph"])
            return json.dumps(program).encode()

        with pytest.raises(InvalidInput, match=words):
            checkpoints.load(rewritten(small[1], tmp_path / "other.pt2", changed))

    def test_pickles_are_not_opened(self, small: tuple[nn.Module, Path], tmp_path: Path) -> None:
        marker = tmp_path / "ran"

        class Trap:
            def __reduce__(self) -> tuple[Any, tuple[str]]:
                return exec, (f"open({str(marker)!r}, 'w')",)

        def changed(name: str, content: bytes) -> bytes:
            if name.endswith("weights_config.json"):
                listed = json.loads(content)
                next(iter(listed["config"].values()))["use_pickle"] = True
                return json.dumps(listed).encode()
            # the sample inputs are a pickle in every such file
            return pickle.dumps(Trap()) if name.endswith((".pt", "weight_0")) else content

        with pytest.raises(InvalidInput, match="as a pickle"):
            checkpoints.load(rewritten(small[1], tmp_path / "trap.pt2", changed))
        only_inputs = rewritten(
            small[1],
            tmp_path / "inputs.pt2",
            lambda name, content: pickle.dumps(Trap()) if name[-3:] == ".pt" else content,
        )
        agrees(checkpoints.load(only_inputs), small[0])
        assert not marker.exists()

    def test_operators_are_part_of_the_identity(self, small: tuple[nn.Module, Path], tmp_path: Path) -> None:
        """Equal weights in another graph are another model."""

        def spaced(name: str, content: bytes) -> bytes:
            return content + b" " if name.endswith("models/model.json") else content

        other = checkpoints.load(rewritten(small[1], tmp_path / "small.pt2", spaced))
        one = checkpoints.load(small[1])
        assert one.manifest.weights_sha256 == other.manifest.weights_sha256
        ids = {
            harness.evaluate(point.model, X, torch.zeros(5).long(), threat="Linf:0.3", suite="clean").evaluation_id
            for point in (one, other)
        }
        assert len(ids) == 2
        files = (small[1], tmp_path / "small.pt2")
        assert len({models.build(f"pt2:{file}", classes=10, shape=SHAPE).source_sha256 for file in files}) == 2

    def test_more_elements_than_the_file_holds_are_refused(self, small: tuple[nn.Module, Path], tmp_path: Path) -> None:
        def changed(name: str, content: bytes) -> bytes:
            if not name.endswith("weights_config.json"):
                return content
            listed = json.loads(content)
            about = next(iter(listed["config"].values()))["tensor_meta"]
            about["sizes"] = [{"as_int": 1 << 14}] * 2
            about["strides"] = [{"as_int": 0}] * 2
            return json.dumps(listed).encode()

        with pytest.raises(InvalidInput, match="elements, and the file"):
            checkpoints.load(rewritten(small[1], tmp_path / "large.pt2", changed))

    def test_a_view_of_the_networks_own_tensors_is_not_changed_in_place(self, tmp_path: Path) -> None:
        class Adds(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.register_buffer("total", torch.zeros(1, 10))

            def forward(self, x: Tensor) -> Tensor:
                return x.flatten(1)[:, :10] + self.total.view(1, 10).neg()

        def changed(name: str, content: bytes) -> bytes:
            return content.replace(b"aten.neg.default", b"aten.neg_.default")

        path = exported(Adds(), tmp_path / "adds.pt2")
        checkpoints.load(path)
        with pytest.raises(InvalidInput, match="changes its own tensors"):
            checkpoints.load(rewritten(path, tmp_path / "changed.pt2", changed))

    def test_a_damaged_stream_is_one_sentence(self, small: tuple[nn.Module, Path], tmp_path: Path) -> None:
        path = tmp_path / "damaged.pt2"
        with zipfile.ZipFile(small[1]) as archive, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
            for name in archive.namelist():
                packed.writestr(name, archive.read(name))
            first = packed.getinfo(next(name for name in archive.namelist() if name.endswith("models/model.json")))
        content = bytearray(path.read_bytes())
        begin = first.header_offset + 30 + len(first.filename) + 20
        content[begin : begin + 40] = b"\xff" * 40
        path.write_bytes(content)
        with pytest.raises(InvalidInput, match="can be read"):
            checkpoints.load(path)

    def test_what_is_no_such_file(self, tmp_path: Path) -> None:
        (tmp_path / "text.pt2").write_text("no archive")
        with zipfile.ZipFile(tmp_path / "empty.pt2", "w"):
            pass
        for name in ("text.pt2", "empty.pt2", "missing.pt2"):
            with pytest.raises(InvalidInput, match=name):
                checkpoints.load(tmp_path / name)


def _target(graph: dict[str, Any], target: str) -> None:
    graph["nodes"][0]["target"] = target


def rewritten(source: Path, path: Path, changed: Callable[[str, bytes], bytes]) -> Path:
    stream = io.BytesIO()
    with zipfile.ZipFile(source) as before, zipfile.ZipFile(stream, "w") as after:
        for name in before.namelist():
            after.writestr(name, changed(name, before.read(name)))
    path.write_bytes(stream.getvalue())
    return path


class TestOnnx:
    @pytest.fixture(autouse=True)
    def _packages(self) -> None:
        pytest.importorskip("onnx")
        pytest.importorskip("onnx2torch")

    def made(self, path: Path, *, batch: int | str = "n", custom: bool = False) -> nn.Module:
        """A small network as an ONNX file, written operator by operator; and the same in torch."""
        import numpy as np
        import onnx
        from onnx import helper, numpy_helper

        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(256, 10)).eval()
        weights = {name.replace(".", "_"): value.numpy() for name, value in model.state_dict().items()}
        held = [numpy_helper.from_array(np.ascontiguousarray(value), name) for name, value in weights.items()]
        nodes = [
            helper.make_node("Conv", ["x", "0_weight", "0_bias"], ["a"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
            helper.make_node("Mine" if custom else "Relu", ["a"], ["b"]),
            helper.make_node("Flatten", ["b"], ["c"], axis=1),
            helper.make_node("Identity", ["3_bias"], ["shared"]),
            helper.make_node("Gemm", ["c", "3_weight", "shared"], ["y"], transB=1),
        ]
        graph = helper.make_graph(
            nodes,
            "small",
            [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [batch, *SHAPE])],
            [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [batch, 10])],
            held,
        )
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
        path.write_bytes(made.SerializeToString())
        return model

    def test_it_is_the_network(self, tmp_path: Path) -> None:
        model = self.made(tmp_path / "small.onnx")
        for name in (f"onnx:{tmp_path / 'small.onnx'}", str(tmp_path / "small.onnx")):
            point = checkpoints.load(name)
            agrees(point, model)
            assert (point.name, point.manifest.source_sha256 is None) == ("small.onnx", False)

    def test_what_cannot_be_used(self, tmp_path: Path) -> None:
        self.made(tmp_path / "two.onnx", batch=2)
        with pytest.raises(InvalidInput, match="batches of 2 alone"):
            checkpoints.load(f"onnx:{tmp_path / 'two.onnx'}")
        self.made(tmp_path / "custom.onnx", custom=True)
        with pytest.raises(InvalidInput, match="onnx2torch cannot convert"):
            checkpoints.load(f"onnx:{tmp_path / 'custom.onnx'}")
        (tmp_path / "text.onnx").write_text("no graph")
        for name in ("text.onnx", "missing.onnx"):
            with pytest.raises(InvalidInput, match=name):
                checkpoints.load(tmp_path / name)


class TestLibraries:
    def test_timm_with_its_weights(self, monkeypatch: pytest.MonkeyPatch) -> None:
        network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 7)).eval()
        known = {"input_size": (3, 16, 16), "mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25)}
        network.pretrained_cfg, network.num_classes = known, 7  # type: ignore[assignment]
        fetched: list[bool] = []

        def create_model(name: str, pretrained: bool) -> nn.Module:
            fetched.append(pretrained)
            if name == "far":
                raise ConnectionError("no route\nto host")
            return network

        package = SimpleNamespace(is_model=lambda name: name in ("near", "far"), create_model=create_model)
        package.list_models = lambda: ["near", "far"]
        monkeypatch.setattr(timm_source, "library", lambda name: package)
        point = checkpoints.load("timm:near")
        assert fetched == [True]
        assert (point.manifest.classes, point.manifest.shape) == (7, (3, 16, 16))
        images = torch.rand(2, 3, 16, 16)
        torch.testing.assert_close(point.model(images), network((images - 0.5) / 0.25))
        with pytest.raises(HarnessError, match=r"timm:far .* no route to host.*harness import"):
            checkpoints.load("timm:far")
        with pytest.raises(UnknownName, match="near"):
            checkpoints.load("timm:nothing")

    def test_an_unsuitable_network_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        made = models.sources.Complete(nn.Flatten(), 5, SHAPE, None)
        monkeypatch.setattr(models, "complete", lambda name: made)
        with pytest.raises(CheckpointError, match=r"returned \[1, 64\] for 1 images, expected \[1, 5\]"):
            checkpoints.load("timm:flat")

    def test_other_names_are_not_taken_for_networks_with_weights(self) -> None:
        for name in ("natural", "checkpoints/natural.pt", "net.py:net", "file:net", "hf:a/b", "robustbench:X"):
            assert not models.is_complete(name)
