"""The Hugging Face Hub, through its own package."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType

from harness.errors import HarnessError

__all__ = ["hub", "on_hub"]

_NEEDED = ("EvalResultEntry", "HfApi", "ModelCard", "hf_hub_download")


def hub() -> ModuleType:
    """The package huggingface_hub.

    Raises:
        HarnessError: it is not installed, or too old.
    """
    try:
        package = import_module("huggingface_hub")
        missing = [name for name in _NEEDED if not hasattr(package, name)]
    except ImportError as error:
        raise HarnessError(f"the Hugging Face Hub needs a package ({error}): {_INSTALL}") from error
    if missing:
        raise HarnessError(f"huggingface_hub {package.__version__} is too old, it has no {missing[0]}: {_INSTALL}")
    return package


_INSTALL = "pip install 'robust-harness[hub]'"


@contextmanager
def on_hub(what: str, instead: str) -> Iterator[None]:
    """Whatever goes wrong on the way to the Hub, as one sentence.

    Args:
        what: that was tried, such as "cannot read hf:ORG/REPO". instead: what to do.

    Raises:
        HarnessError: anything that was raised inside.
    """
    try:
        yield
    except HarnessError:
        raise
    except Exception as error:  # the package raises errors of its own, of its transport and of the system
        first = " ".join(str(error).split()) or type(error).__name__
        reason = first if len(first) <= 200 else f"{first[:197]}..."
        raise HarnessError(f"{what}: {reason}; {instead}") from error
