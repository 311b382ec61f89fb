"""Packages that only some features need, which are extras of this one."""

from __future__ import annotations

import importlib
from types import ModuleType

from harness.errors import InvalidInput

__all__ = ["required"]


def required(package: str, option: str) -> ModuleType:
    """A package that an option of the command line needs; its extra has its name.

    Args:
        option: with its value, such as ``--tracker wandb``.

    Raises:
        InvalidInput: it is not installed.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise InvalidInput(f"{option} needs the package {package}: pip install 'robust-harness[{package}]'") from error
