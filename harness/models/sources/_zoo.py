"""The RobustBench zoo: its names, and its networks with fresh weights.

robustbench 1.1.1 does not import as installed from PyPI: it asks for two modules that its own requirements do not
bring, ``autoattack`` (not published under that name) and ``pkg_resources`` (gone from current setuptools). This module
stands in for them while robustbench is being imported, and only then: afterwards other code finds exactly the modules
that are installed. A real one is never replaced. This is the only module that touches ``sys.modules``.

The stand-in for AutoAttack only refuses to run; `harness.robustbench` puts this package's in its place.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.resources
import importlib.util
import io
import sys
import warnings
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from torch import nn

from harness.errors import HarnessError, InvalidInput, UnknownName

__all__ = ["MissingAutoAttack", "import_package", "zoo_model", "zoo_names"]


class MissingAutoAttack:
    """Stands for AutoAttack and its state in a robustbench that was imported without them.

    Raises:
        HarnessError: always, when it is made or read from disk.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise HarnessError(_NO_AUTOATTACK)

    @classmethod
    def from_disk(cls, path: Any) -> MissingAutoAttack:
        raise HarnessError(_NO_AUTOATTACK)


_NO_AUTOATTACK = (
    "robustbench was imported without an AutoAttack; call harness.robustbench.import_robustbench() to give it the one "
    "of this package, or install the package autoattack"
)


def import_package() -> ModuleType:
    """The package robustbench, imported, with stand-ins for what its requirements do not bring.

    Raises:
        HarnessError: it is not installed or fails to import; nothing of it is left half-imported.
    """
    loaded = sys.modules.get("robustbench")
    if loaded is not None:
        return loaded
    before = set(sys.modules)
    try:
        with _stand_ins(), warnings.catch_warnings():
            # what robustbench's own dependencies deprecate is nothing that a user of this package can mend
            warnings.simplefilter("ignore")
            return importlib.import_module("robustbench")
    except Exception as error:
        for name in set(sys.modules) - before:
            if name.partition(".")[0] == "robustbench":
                del sys.modules[name]
        raise HarnessError(
            f"robustbench could not be imported ({type(error).__name__}: {error}); "
            "install the release this package is built for: pip install robustbench==1.1.1"
        ) from error


def zoo_names(dataset: str, threat: str) -> tuple[str, ...]:
    """Names of the zoo's models for a data set and a threat model, sorted.

    Args:
        dataset: "cifar10", "cifar100" or "imagenet".
        threat: "Linf", "L2", "corruptions" or "corruptions_3d".

    Raises:
        UnknownName: a data set or threat model that the zoo does not have.
    """
    return tuple(sorted(_zoo(dataset, threat)))


def zoo_model(name: str, dataset: str = "cifar10", threat: str = "Linf") -> nn.Module:
    """The network of a zoo model, freshly initialised, in eval mode; nothing is downloaded.

    Raises:
        UnknownName: a data set, threat model or name that the zoo does not have.
        InvalidInput: an entry that is defined only together with weights from the network.
    """
    entries = _zoo(dataset, threat)
    if name not in entries:
        raise UnknownName(f"robustbench model for {dataset} and {threat}", name, entries)
    if not entries[name]["gdrive_id"]:
        raise InvalidInput(
            f"robustbench builds {name} for {dataset} only by downloading its weights; "
            "use the same network as timm:NAME or torchvision:NAME with a local file"
        )
    with contextlib.redirect_stdout(io.StringIO()):  # some constructors print their parameter counts
        model = entries[name]["model"]()
    if not isinstance(model, nn.Module):
        raise InvalidInput(f"robustbench's {name} is no torch module but {type(model).__name__}")
    return model.eval()


def _zoo(dataset: str, threat: str) -> dict[str, dict[str, Any]]:
    import_package()
    zoo = importlib.import_module("robustbench.model_zoo.models").model_dicts
    by_dataset = {key.value: models for key, models in zoo.items()}
    if dataset not in by_dataset:
        raise UnknownName("robustbench data set", dataset, by_dataset)
    by_threat: dict[str, dict[str, dict[str, Any]]] = {
        key.value: dict(models) for key, models in by_dataset[dataset].items()
    }
    if threat not in by_threat:
        raise UnknownName(f"robustbench threat model for {dataset}", threat, by_threat)
    return by_threat[threat]


@contextlib.contextmanager
def _stand_ins() -> Iterator[None]:
    provided: dict[str, ModuleType] = {}
    if not _installed("autoattack"):
        provided |= _autoattack()
    if not _installed("pkg_resources"):
        provided |= _pkg_resources()
    sys.modules.update(provided)
    try:
        yield
    finally:
        for name, module in provided.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]


def _installed(name: str) -> bool:
    return name in sys.modules or importlib.util.find_spec(name) is not None


def _autoattack() -> dict[str, ModuleType]:
    package, state = ModuleType("autoattack"), ModuleType("autoattack.state")
    vars(package).update(AutoAttack=MissingAutoAttack, state=state, __path__=[])
    vars(state).update(EvaluationState=MissingAutoAttack)
    return {"autoattack": package, "autoattack.state": state}


def _pkg_resources() -> dict[str, ModuleType]:
    module = ModuleType("pkg_resources")

    def resource_filename(name: str, path: str) -> str:
        """A file beside the package (or beside the module of a package) called ``name``."""
        spec = importlib.util.find_spec(name)
        if spec is None:
            raise ModuleNotFoundError(f"no module named {name!r}", name=name)
        package = name if spec.submodule_search_locations else name.rpartition(".")[0]
        return str(importlib.resources.files(package).joinpath(path))

    vars(module).update(resource_filename=resource_filename)
    return {"pkg_resources": module}
